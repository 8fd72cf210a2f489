//! What a node tells of itself.

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::ids::{ContextId, Handle};
use crate::io::census::{List, put_all};
use crate::io::turn::Turn;
use crate::limits::INSPECTED_MAX;
use crate::route::node::Node;
use crate::route::pending::Handles;
use crate::sys::host;
use crate::wire::codec::Writer;

impl Node {
    /// It was asked to end, and does so soon.
    pub fn begins_to_end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Appends who it is.
    pub fn put_self(&self, turn: &Turn, w: &mut Writer<'_>) {
        put_all(&[self.id().0.into()], w);
        w.put_bytes(self.identity().name.as_bytes());
        let parents = self.parents();
        put_all(&[host::pid() as u64, parents.len() as u64], w);
        parents.iter().for_each(|id| put_all(&[id.0.into()], w));
        let ends = self.ending.load(Ordering::Relaxed) || turn.is_stopping();
        put_all(&[self.since.age_ms(), ends.into()], w);
    }

    /// Appends what lives below.
    pub fn put_routes(&self, max: usize, w: &mut Writer<'_>) {
        let mut list = List::new(max);
        for (id, via, parent) in self.table().routes() {
            if list.has_room(w) {
                let (via, parent) = (via.unwrap_or(id), parent.unwrap_or(self.id()));
                put_all(&[id.0.into(), via.0.into(), parent.0.into()], w);
            }
        }
        list.end(w);
    }

    /// Appends how many threads may not call; the answers that are awaited, the oldest first, but
    /// for the one that `asker` is; the handles that take other messages; and the calls that have
    /// come.
    pub fn put_listeners(&self, asker: (ContextId, Handle), max: usize, w: &mut Writer<'_>) {
        let own = (asker.0 == self.id()).then_some(asker.1);
        self.handles().put(own, max, w);
    }

    /// Appends where room is used or waited for.
    pub fn put_rooms(&self, max: usize, w: &mut Writer<'_>) {
        self.credit.put(max, w);
    }
}

impl Handles {
    fn put(&self, but: Option<Handle>, max: usize, w: &mut Writer<'_>) {
        put_all(&[self.owed.held() as u64], w);
        // Handles of answers go round: those from the next on are the oldest.
        let (next, random) = (Handle(self.next), Handle::FIRST_RANDOM);
        let mut list = List::new(max);
        for range in [next..random, Handle::FIRST_DYNAMIC..next] {
            self.put_range(range, but, &mut list, w);
        }
        list.end(w);
        let mut list = List::new(max);
        self.put_range(random..Handle(u32::MAX), but, &mut list, w);
        list.end(w);
        match self.find(Handle::CALL) {
            Some(at) => self.entries[at].1.to.describe(max, w),
            // Two empty lists.
            None => put_all(&[0; 4], w),
        }
    }

    #[inline(never)] // from two places: smaller code
    fn put_range(
        &self,
        range: Range<Handle>,
        but: Option<Handle>,
        list: &mut List,
        w: &mut Writer<'_>,
    ) {
        for (handle, entry) in &self.entries {
            if range.contains(handle) && Some(*handle) != but && list.has_room(w) {
                let (is_from_one, from) = entry.from.map_or((0, 0), |id| (1, id.0));
                let numbers = [handle.0.into(), entry.since.age_ms(), is_from_one, from.into()];
                // Nobody is no number.
                put_all(&numbers[..3 + is_from_one as usize], w);
                entry.to.describe(INSPECTED_MAX, w);
            }
        }
    }
}
