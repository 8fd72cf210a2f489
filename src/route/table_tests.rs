//! The route table against what it must do by the plainest means, in any order of what happens.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::lease::Lease;
use super::table::{LinkId, Lost, Table};
use crate::ids::ContextId;

type Outcome = Result<(), TestCaseError>;

/// What happens to a table. Links are named by how long they have been there, the parent's is 0.
#[derive(Clone, Debug)]
enum Step {
    AddChild,
    AddLease(usize),
    AddRoute(usize, u32, u32),
    RemoveRoute(usize, u32),
    RemoveLink(usize),
    /// A message from a link, or from here, asks the way.
    Way(Option<usize>, u32),
    /// A part of a message is on its way: to whom, and from whom.
    Awaits(u32, u32),
}

/// Ids of children are 1 to 9, leases of ten begin at multiples of ten.
const IDS: u32 = 200;

fn step() -> impl Strategy<Value = Step> {
    // Most ids are ones that there may be.
    let id = || prop_oneof![1..60u32, 1..12u32, 0..IDS];
    prop_oneof![
        2 => Just(Step::AddChild),
        1 => (1..6usize).prop_map(Step::AddLease),
        6 => (0..6usize, id(), id()).prop_map(|(link, id, by)| Step::AddRoute(link, id, by)),
        3 => (0..6usize, id()).prop_map(|(link, id)| Step::RemoveRoute(link, id)),
        1 => (0..6usize).prop_map(Step::RemoveLink),
        8 => (proptest::option::of(0..6usize), id()).prop_map(|(from, id)| Step::Way(from, id)),
        2 => (id(), id()).prop_map(|(dst, src)| Step::Awaits(dst, src)),
    ]
}

#[derive(Debug)]
struct Link {
    id: LinkId,
    child: Option<u32>,
    /// Ids that may be given out.
    leased: BTreeSet<u32>,
    /// How many were.
    announced: usize,
    talked: BTreeSet<u32>,
}

/// Where a context lives: the link, and who started it.
type Routes = BTreeMap<u32, (LinkId, Option<u32>)>;

/// What a table must do. The way of a link is the link.
#[derive(Default)]
struct Oracle {
    links: Vec<Link>,
    routes: Routes,
}

impl Oracle {
    fn link(&mut self, id: LinkId) -> &mut Link {
        self.links.iter_mut().find(|link| link.id == id).unwrap()
    }

    fn parent(&self) -> Option<LinkId> {
        self.links.iter().find(|link| link.child.is_none()).map(|link| link.id)
    }

    fn is_leased(&self, id: u32) -> bool {
        self.links.iter().any(|link| link.leased.contains(&id))
    }

    fn may_add(&self, at: usize, id: u32, parent: u32) -> Result<bool, ()> {
        let link = &self.links[at];
        let lives = |id| self.routes.get(&id).is_some_and(|(l, _)| *l == link.id);
        match (link.leased.contains(&id), self.routes.contains_key(&id)) {
            (true, true) if lives(id) => Ok(false),
            (true, false) if lives(parent) && link.announced < link.leased.len() => Ok(true),
            _ => Err(()),
        }
    }

    fn way(&self, id: u32, from: Option<LinkId>) -> Option<LinkId> {
        let to = match self.routes.get(&id) {
            Some((link, _)) => Some(*link),
            None if self.is_leased(id) => None,
            None => self.parent(),
        };
        to.filter(|to| Some(*to) != from)
    }

    /// Who must be told that a context is gone: the context, the child, and the way.
    fn lose(&mut self, id: u32, told_by: Option<LinkId>) -> BTreeSet<(u32, Option<u32>, LinkId)> {
        let mut told = BTreeSet::new();
        for link in &mut self.links {
            let talked = link.talked.remove(&id);
            if Some(link.id) != told_by && (talked || link.child.is_none()) {
                told.insert((id, link.child, link.id));
            }
        }
        told
    }
}

/// A table, its oracle, and what was given out.
struct Pair {
    table: Table<LinkId>,
    oracle: Oracle,
    links: u32,
    children: u32,
    leases: u32,
}

impl Pair {
    fn new(has_parent: bool) -> Pair {
        let (table, oracle) = (Table::default(), Oracle::default());
        let mut pair = Pair { table, oracle, links: 0, children: 0, leases: 0 };
        if has_parent {
            let id = pair.next_link();
            assert_eq!(pair.table.add_parent(id), id);
            let (leased, announced, talked) = Default::default();
            pair.oracle.links.push(Link { id, child: None, leased, announced, talked });
        }
        pair
    }

    /// The table counts its links.
    fn next_link(&mut self) -> LinkId {
        self.links += 1;
        let mut table = Table::default();
        (0..self.links).map(|_| table.add_parent(())).last().unwrap()
    }

    fn next_lease(&mut self) -> Lease {
        self.leases += 1;
        Lease { first: self.leases * 10, count: 10 }
    }

    fn apply(&mut self, step: &Step) -> Outcome {
        let at = |link: usize| (link < self.oracle.links.len()).then_some(link);
        match *step {
            Step::AddChild if self.children < 9 => self.add_child()?,
            Step::AddLease(link) => at(link).map_or(Ok(()), |at| self.add_lease(at))?,
            Step::AddRoute(link, id, parent) => {
                at(link).map_or(Ok(()), |at| self.add_route(at, id, parent))?;
            }
            Step::RemoveRoute(link, id) => {
                at(link).map_or(Ok(()), |at| self.remove_route(at, id))?;
            }
            Step::RemoveLink(link) => at(link).map_or(Ok(()), |at| self.remove_link(at))?,
            Step::Way(from, id) => {
                let from = from.and_then(at).map(|at| self.oracle.links[at].id);
                self.way(from, id)?;
            }
            Step::Awaits(dst, src) => {
                self.table.awaits(ContextId(dst), ContextId(src));
                if let Some((link, _)) = self.oracle.routes.get(&dst).copied() {
                    self.oracle.link(link).talked.insert(src);
                }
            }
            Step::AddChild => (),
        }
        self.agrees()
    }

    fn add_child(&mut self) -> Outcome {
        self.children += 1;
        let (child, lease, id) = (self.children, self.next_lease(), self.next_link());
        prop_assert_eq!(self.table.add_child(ContextId(child), lease, id), id);
        let leased = (lease.first..lease.first + lease.count).collect();
        let (announced, talked) = Default::default();
        self.oracle.links.push(Link { id, child: Some(child), leased, announced, talked });
        self.oracle.routes.insert(child, (id, None));
        Ok(())
    }

    fn add_lease(&mut self, at: usize) -> Outcome {
        if self.oracle.links[at].child.is_some() && self.leases < 18 {
            let lease = self.next_lease();
            self.table.add_lease(self.oracle.links[at].id, lease);
            self.oracle.links[at].leased.extend(lease.first..lease.first + lease.count);
        }
        Ok(())
    }

    fn add_route(&mut self, at: usize, id: u32, parent: u32) -> Outcome {
        let link = self.oracle.links[at].id;
        let added = self.table.add_route(link, ContextId(id), ContextId(parent));
        prop_assert_eq!(added.map_err(drop), self.oracle.may_add(at, id, parent));
        if added == Ok(true) {
            self.oracle.routes.insert(id, (link, Some(parent)));
            self.oracle.links[at].announced += 1;
        }
        Ok(())
    }

    fn remove_route(&mut self, at: usize, id: u32) -> Outcome {
        let Link { id: link, child, .. } = self.oracle.links[at];
        let lost = self.table.remove_route(link, ContextId(id));
        let lives = self.oracle.routes.get(&id).is_some_and(|(l, _)| *l == link);
        let gone = child.is_none() || lives && child != Some(id);
        if gone && child.is_some() {
            self.oracle.routes.remove(&id);
        }
        self.is_lost(lost, gone.then_some(vec![id]), Some(link))
    }

    fn remove_link(&mut self, at: usize) -> Outcome {
        let link = self.oracle.links.remove(at);
        let lost = self.table.remove_link(link.id);
        let behind = |(id, (l, _)): (&u32, &(LinkId, _))| (*l == link.id).then_some(*id);
        let mut gone: Vec<_> = self.oracle.routes.iter().filter_map(behind).collect();
        // The child comes first.
        gone.sort_by_key(|id| Some(*id) != link.child);
        self.oracle.routes.retain(|_, (l, _)| *l != link.id);
        prop_assert!(self.table.remove_link(link.id).is_none());
        self.is_lost(lost, Some(gone), None)
    }

    fn is_lost(
        &mut self,
        lost: Option<Lost<LinkId>>,
        gone: Option<Vec<u32>>,
        told_by: Option<LinkId>,
    ) -> Outcome {
        let ids = |lost: &Lost<_>| lost.contexts.iter().map(|id| id.0).collect::<Vec<_>>();
        prop_assert_eq!(lost.as_ref().map(ids), gone.clone());
        let told = lost.map_or(Vec::new(), |lost| lost.tell);
        let count = told.len();
        let told: BTreeSet<_> =
            told.iter().map(|tell| (tell.gone.0, tell.child.map(|id| id.0), tell.way)).collect();
        prop_assert_eq!(told.len(), count, "somebody is told twice");
        let gone = gone.into_iter().flatten();
        let expected: BTreeSet<_> = gone.flat_map(|id| self.oracle.lose(id, told_by)).collect();
        prop_assert_eq!(told, expected);
        Ok(())
    }

    fn way(&mut self, from: Option<LinkId>, id: u32) -> Outcome {
        let way = self.oracle.way(id, from);
        prop_assert_eq!(self.table.way_to(ContextId(id), from), way);
        if let (Some(_), Some(from)) = (way, from) {
            self.oracle.link(from).talked.insert(id);
        }
        Ok(())
    }

    /// All that can be asked of a table without changing it.
    fn agrees(&self) -> Outcome {
        let Oracle { links, routes } = &self.oracle;
        let (table, ids) = (&self.table, |ids: Vec<ContextId>| -> Vec<u32> {
            ids.iter().map(|id| id.0).collect()
        });
        prop_assert_eq!(ids(table.below()), routes.keys().copied().collect::<Vec<_>>());
        let children: Vec<_> = links.iter().filter_map(|link| link.child).collect();
        prop_assert_eq!(ids(table.children()), children.clone());
        for id in 0..IDS {
            let parent = routes.get(&id).map(|(_, parent)| parent.map(ContextId));
            prop_assert_eq!(table.parent_of(ContextId(id)), parent);
            prop_assert_eq!(table.is_child(ContextId(id)), children.contains(&id));
            let gone = self.oracle.is_leased(id) && !routes.contains_key(&id);
            prop_assert_eq!(table.is_gone(ContextId(id)), gone);
            for link in links {
                let own = link.child.is_none_or(|c| c == id || link.leased.contains(&id));
                prop_assert_eq!(table.may_speak_for(link.id, ContextId(id)), own);
            }
        }
        for link in links {
            prop_assert_eq!(table.child_of(link.id), link.child.map(ContextId));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_table_does_as_the_oracle(
        has_parent in any::<bool>(),
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let mut pair = Pair::new(has_parent);
        for step in &steps {
            pair.apply(step)?;
        }
    }
}
