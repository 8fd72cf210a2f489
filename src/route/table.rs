//! Which link leads where, and which link may speak for whom. Pure: `W`, the way out of a link, is
//! only kept and cloned.

#[cfg(test)]
mod tests;

use crate::ids::ContextId;
use crate::limits::{GRANTS_MAX, ROUTES_PER_CHILD_MAX};
use crate::route::lease::{Lease, Leased, ids_max, routes_max};

/// Names a link of one context: its connection to its parent or to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(u32);

/// The links of one context, and the contexts behind them.
pub struct Table<W> {
    /// Sorted by id.
    links: Vec<(LinkId, Link<W>)>,
    /// Sorted by context: those alive below.
    routes: Vec<Route>,
    /// Sorted: those who were given authority over this context. `len() <= GRANTS_MAX`.
    granted: Vec<ContextId>,
    count: u32,
    /// Links between the master and this context.
    depth: usize,
}

/// Where a context lives.
#[derive(Clone, Copy)]
struct Route {
    id: ContextId,
    link: LinkId,
    /// Who started it; none is this context.
    parent: Option<ContextId>,
}

struct Link<W> {
    /// The child at its other end; none at the parent's.
    child: Option<ContextId>,
    /// Ids that the child may give to its own children.
    leases: Leased,
    /// How many more the parent of this context is being asked for, for this child.
    asked: u64,
    /// Sorted: the contexts that what came by this link was for, and those from which a message in
    /// parts went there.
    talked: Vec<ContextId>,
    /// Whether those became too many to note: it is told of every end.
    talks_much: bool,
    /// Contexts that live behind it.
    routes: usize,
    /// Contexts that were announced there, those that are gone, too. Invariant: no more than the
    /// ids in `leases`, for none is used twice.
    announced: u64,
    way: W,
}

/// What a link's end takes with it.
pub struct Lost<W> {
    /// The contexts that are gone, the link's child first.
    pub contexts: Vec<ContextId>,
    /// Who must be told.
    pub tell: Vec<Tell<W>>,
}

/// A neighbour that must be told of an end.
#[derive(Debug, PartialEq, Eq)]
pub struct Tell<W> {
    /// The context that is gone.
    pub gone: ContextId,
    /// The child to tell; none is the parent.
    pub child: Option<ContextId>,
    /// The way there.
    pub way: W,
}

impl<W: Clone> Default for Table<W> {
    fn default() -> Table<W> {
        Table::at_depth(0)
    }
}

impl<W: Clone> Table<W> {
    /// The table of a context that has this many ancestors.
    pub fn at_depth(depth: usize) -> Table<W> {
        Table { links: Vec::new(), routes: Vec::new(), granted: Vec::new(), count: 0, depth }
    }

    /// Adds the link to the parent.
    pub fn add_parent(&mut self, way: W) -> LinkId {
        self.add(Link::new(None, way))
    }

    /// Adds the link to a child, which may give out the ids of `lease`.
    pub fn add_child(&mut self, child: ContextId, lease: Lease, way: W) -> LinkId {
        let link = self.add(Link::new(Some(child), way));
        self.add_lease(link, lease);
        self.insert_route(Route { id: child, link, parent: None });
        link
    }

    /// Lets the child of `link` give out more ids.
    pub fn add_lease(&mut self, link: LinkId, lease: Lease) {
        let Some(link) = self.link_mut(link) else { return };
        link.leases.add(lease);
    }

    /// Counts ids for the child of `link` for which the parent of this context is asked.
    pub fn ask(&mut self, link: LinkId, count: u32) {
        if let Some(link) = self.link_mut(link) {
            link.asked += u64::from(count);
        }
    }

    /// Counts them no more: an answer is there.
    pub fn asked(&mut self, link: LinkId, count: u32) {
        if let Some(link) = self.link_mut(link) {
            link.asked = link.asked.saturating_sub(count.into());
        }
    }

    /// Whether the child of `link` may have this many ids more. A part of what the parent of this
    /// context would give is left to itself.
    pub fn may_lease(&self, link: LinkId, count: u32) -> bool {
        let has = |link: &Link<W>| link.leases.count() + link.asked;
        let own = self.link(link).map_or(u64::MAX, has).saturating_add(count.into());
        let all = || self.links.iter().map(|(_, link)| has(link)).sum::<u64>();
        own <= ids_max(self.depth)
            && (self.depth == 0 || all() + u64::from(count) <= ids_max(self.depth - 1) / 4 * 3)
    }

    /// Whether as many contexts live below as the parent of this one lets there be.
    pub fn is_full(&self) -> bool {
        0 < self.depth && routes_max(self.depth - 1) <= self.routes.len() + 1
    }

    /// Notes that `id` is alive behind `link`, started by `parent`. Returns whether that is news.
    /// Fails if the child may not have such an id, or has too many, or if that parent does not live
    /// there.
    pub fn add_route(
        &mut self,
        link: LinkId,
        id: ContextId,
        parent: ContextId,
    ) -> Result<bool, &'static str> {
        if !self.link(link).is_some_and(|l| l.leases.has(id)) {
            return Err("announced a context outside of its lease");
        }
        if let Some(route) = self.route(id) {
            // Its end, which travels behind what it sent, may be on its way.
            return if route.link == link { Ok(false) } else { Err("announced another's") };
        }
        if self.route(parent).is_none_or(|route| route.link != link) {
            return Err("announced a child of another's");
        }
        let routes_max = routes_max(self.depth);
        let is_full =
            |link: &Link<W>| routes_max <= link.routes || link.leases.count() <= link.announced;
        if self.is_full() || self.link(link).is_none_or(is_full) {
            return Err("announced too many contexts");
        }
        if let Some(link) = self.link_mut(link) {
            link.announced += 1;
        }
        self.insert_route(Route { id, link, parent: Some(parent) });
        Ok(true)
    }

    /// Who started a context that lives below; none inside is this context.
    pub fn parent_of(&self, id: ContextId) -> Option<Option<ContextId>> {
        Some(self.route(id)?.parent)
    }

    /// Whether `id` may be the source, or the authority, of what comes by `link`.
    pub fn may_speak_for(&self, link: LinkId, id: ContextId) -> bool {
        self.link(link).is_some_and(|link| match link.child {
            None => true,
            Some(child) => child == id || link.leases.has(id),
        })
    }

    /// Whether what this context says to `dst` is believed where it acts for `auth`, another:
    /// below, where all is; and beyond if that lives below.
    pub fn may_act_for(&self, auth: ContextId, dst: ContextId) -> bool {
        self.route(dst).is_some() || self.route(auth).is_some() || self.is_leased(auth)
    }

    /// The way to `dst` for what came by `from`, or from here: down where it is known to live, else
    /// up, unless it came from there or could only live below.
    pub fn way_to(&mut self, dst: ContextId, from: Option<LinkId>) -> Option<W> {
        let to = match self.route(dst) {
            Some(route) => route.link,
            None if self.is_leased(dst) => return None,
            None => self.parent()?,
        };
        if Some(to) == from {
            return None;
        }
        if let Some(from) = from.and_then(|from| self.link_mut(from)) {
            from.note(dst);
        }
        self.link(to).map(|link| link.way.clone())
    }

    /// Whether there is no such context any more, or yet: it could only live below, and does not.
    pub fn is_gone(&self, id: ContextId) -> bool {
        self.route(id).is_none() && self.is_leased(id)
    }

    /// Has the end of `src` told to the link that leads to `dst`, where a part of a message waits
    /// for the others.
    pub fn awaits(&mut self, dst: ContextId, src: ContextId) {
        let to = self.route(dst).map(|route| route.link);
        if let Some(to) = to.and_then(|to| self.link_mut(to)) {
            to.note(src);
        }
    }

    /// The child at the end of a link; none is the parent.
    pub fn child_of(&self, link: LinkId) -> Option<ContextId> {
        self.link(link)?.child
    }

    /// The contexts below, the direct child by which each is reached, and who started it: none is
    /// this one.
    pub fn routes(
        &self,
    ) -> impl Iterator<Item = (ContextId, Option<ContextId>, Option<ContextId>)> {
        self.routes.iter().map(|route| (route.id, self.child_of(route.link), route.parent))
    }

    /// The direct children.
    pub fn children(&self) -> Vec<ContextId> {
        self.links.iter().filter_map(|(_, link)| link.child).collect()
    }

    /// Whether it is a direct child.
    pub fn is_child(&self, id: ContextId) -> bool {
        self.route(id).is_some_and(|route| route.parent.is_none())
    }

    /// Gives a context authority over this one, until it is gone. Returns whether there was room.
    pub fn grant(&mut self, to: ContextId) -> bool {
        let Err(at) = self.granted.binary_search(&to) else { return true };
        let room = self.granted.len() < GRANTS_MAX;
        if room {
            self.granted.insert(at, to);
        }
        room
    }

    /// Takes back what [`Table::grant`] gave.
    pub fn revoke(&mut self, from: ContextId) {
        self.granted.retain(|id| *id != from);
    }

    /// Whether a context was given authority over this one.
    pub fn is_granted(&self, id: ContextId) -> bool {
        self.granted.binary_search(&id).is_ok()
    }

    /// Every context known to live below.
    pub fn below(&self) -> Vec<ContextId> {
        self.routes.iter().map(|route| route.id).collect()
    }

    /// Removes a link and all that lives behind it.
    pub fn remove_link(&mut self, link: LinkId) -> Option<Lost<W>> {
        let at = self.links.binary_search_by_key(&link, |(id, _)| *id).ok()?;
        let (_, removed) = self.links.remove(at);
        let mut contexts: Vec<_> = removed.child.into_iter().collect();
        self.routes.retain(|route| {
            if route.link == link && removed.child != Some(route.id) {
                contexts.push(route.id);
            }
            route.link != link
        });
        Some(self.lost(contexts, None))
    }

    /// Removes the link to the parent; and all that does not live below is gone: those of
    /// `awaited`, and those that a child has talked to. Gives the link's way, too.
    pub fn leave(&mut self, awaited: Vec<ContextId>) -> Option<(W, Lost<W>)> {
        let at = self.links.iter().position(|(_, link)| link.child.is_none())?;
        let (_, parent) = self.links.remove(at);
        let talked = self.links.iter().flat_map(|(_, link)| link.talked.iter().copied());
        let mut contexts: Vec<_> = awaited.into_iter().chain(talked).collect();
        contexts.retain(|id| self.route(*id).is_none());
        contexts.sort();
        contexts.dedup();
        Some((parent.way, self.lost(contexts, None)))
    }

    /// Removes one context, as `link` says that it is gone. Nothing is lost if it did not live
    /// there; from the parent any is believed.
    pub fn remove_route(&mut self, link: LinkId, id: ContextId) -> Option<Lost<W>> {
        if let Some(child) = self.child_of(link) {
            if child == id {
                // Its own end is that of its link.
                return None;
            }
            if self.route(id)?.link != link {
                return None;
            }
            let at = self.routes.partition_point(|route| route.id < id);
            self.routes.remove(at);
            if let Some(link) = self.link_mut(link) {
                link.routes -= 1;
            }
        }
        Some(self.lost(vec![id], Some(link)))
    }

    fn lost(&mut self, contexts: Vec<ContextId>, told_by: Option<LinkId>) -> Lost<W> {
        let mut tell = Vec::new();
        for id in &contexts {
            self.revoke(*id);
            for (link, l) in &mut self.links {
                let talked = l.talked.binary_search(id).map(|at| l.talked.remove(at)).is_ok();
                let concerned = talked || l.talks_much || l.child.is_none();
                if Some(*link) != told_by && concerned {
                    tell.push(Tell { gone: *id, child: l.child, way: l.way.clone() });
                }
            }
        }
        Lost { contexts, tell }
    }

    fn add(&mut self, link: Link<W>) -> LinkId {
        self.count += 1;
        self.links.push((LinkId(self.count), link));
        LinkId(self.count)
    }

    fn insert_route(&mut self, route: Route) {
        let at = self.routes.partition_point(|other| other.id < route.id);
        self.routes.insert(at, route);
        if let Some(link) = self.link_mut(route.link) {
            link.routes += 1;
        }
    }

    fn route(&self, id: ContextId) -> Option<Route> {
        let at = self.routes.binary_search_by_key(&id, |route| route.id).ok()?;
        Some(self.routes[at])
    }

    fn is_leased(&self, id: ContextId) -> bool {
        self.lessee(id).is_some()
    }

    /// The child that may give `id` to its own children.
    fn lessee(&self, id: ContextId) -> Option<ContextId> {
        let mut children = self.links.iter().filter(|(_, link)| link.child.is_some());
        children.find(|(_, link)| link.leases.has(id))?.1.child
    }

    /// The child by whose link `id` is reached, or would be if it lived.
    pub fn child_towards(&self, id: ContextId) -> Option<ContextId> {
        match self.route(id) {
            Some(route) => self.link(route.link)?.child,
            None => self.lessee(id),
        }
    }

    fn parent(&self) -> Option<LinkId> {
        self.links.iter().find(|(_, link)| link.child.is_none()).map(|(id, _)| *id)
    }

    fn link(&self, link: LinkId) -> Option<&Link<W>> {
        let at = self.links.binary_search_by_key(&link, |(id, _)| *id).ok()?;
        Some(&self.links[at].1)
    }

    fn link_mut(&mut self, link: LinkId) -> Option<&mut Link<W>> {
        let at = self.links.binary_search_by_key(&link, |(id, _)| *id).ok()?;
        Some(&mut self.links[at].1)
    }
}

impl<W> Link<W> {
    fn new(child: Option<ContextId>, way: W) -> Link<W> {
        let (leases, talked) = (Leased::default(), Vec::new());
        let (asked, talks_much, routes, announced) = (0, false, 0, 0);
        Link { child, leases, asked, talked, talks_much, routes, announced, way }
    }

    /// The other end is to be told when `id` is gone.
    fn note(&mut self, id: ContextId) {
        match self.talked.binary_search(&id) {
            Err(_) if self.talks_much => (),
            Err(at) if self.talked.len() < ROUTES_PER_CHILD_MAX => self.talked.insert(at, id),
            Err(_) => (self.talked, self.talks_much) = (Vec::new(), true),
            Ok(_) => (),
        }
    }
}
