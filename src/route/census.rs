//! What a node tells of itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::ids::{ContextId, Handle};
use crate::io::census::put_list;
use crate::io::turn::Turn;
use crate::route::node::Node;
use crate::route::pending::{Deliver, Entry, Handles};
use crate::sys::clock::Moment;
use crate::sys::host;
use crate::wire::codec::{Encode, Writer};

impl Node {
    /// It was asked to end, and does so soon.
    pub fn begins_to_end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Appends who it is.
    pub fn put_self(&self, turn: &Turn, w: &mut Writer<'_>) {
        self.id().encode(w);
        w.put_bytes(self.identity().name.as_bytes());
        w.put_varint(host::pid() as u64);
        let parents = self.parents();
        w.put_varint(parents.len() as u64);
        parents.iter().for_each(|id| id.encode(w));
        w.put_varint(self.since.age_ms());
        let is_ending = self.ending.load(Ordering::Relaxed);
        (is_ending || turn.is_stopping() || self.is_closed()).encode(w);
    }

    /// Appends how many threads may not call, and what lives below.
    pub fn put_routes(&self, max: usize, w: &mut Writer<'_>) {
        let held = self.handles().owed.held();
        w.put_varint(held as u64);
        let table = self.table();
        put_list(table.routes_len(), max, w, &mut |at, w| {
            let (id, via, parent) = table.route_at(at);
            for id in [id, via.unwrap_or(id), parent.unwrap_or(self.id())] {
                id.encode(w);
            }
        });
    }

    /// Appends the answers that are awaited, but for the one that `asker` is, and the handles that
    /// take other messages.
    pub fn put_listeners(&self, asker: (ContextId, Handle), max: usize, w: &mut Writer<'_>) {
        let own = (asker.0 == self.id()).then_some(asker.1);
        // Described with no lock held.
        let [answers, others] = self.handles().listening(max, own);
        for Listening { first, count } in [answers, others] {
            put_list(count, max, w, &mut |at, w| {
                let (handle, from, since, to) = &first[at];
                handle.encode(w);
                from.encode(w);
                w.put_varint(since.age_ms());
                to.describe(max, w);
            });
        }
    }

    /// Appends where room is used or waited for.
    pub fn put_rooms(&self, max: usize, w: &mut Writer<'_>) {
        self.credit.put(max, w);
    }
}

/// Some of those who listen, and how many do.
struct Listening {
    /// Each handle, the only one who may send, since when, and who.
    first: Vec<(Handle, Option<ContextId>, Moment, Arc<dyn Deliver>)>,
    /// How many there are.
    count: usize,
}

impl Handles {
    /// The first who wait for answers, the oldest first, and who take other messages; but for one.
    fn listening(&self, max: usize, but: Option<Handle>) -> [Listening; 2] {
        let place = |handle| self.entries.partition_point(|(h, _)| *h < handle);
        let (from, to) = (place(Handle::FIRST_DYNAMIC), place(Handle::FIRST_RANDOM));
        let next = place(Handle(self.next));
        let mut answers = self.entries[next..to].iter().chain(&self.entries[from..next]);
        let answers = Listening::of(&mut answers, max, but);
        [answers, Listening::of(&mut self.entries[to..].iter(), max, but)]
    }
}

impl Listening {
    fn of<'a>(
        all: &mut dyn Iterator<Item = &'a (Handle, Entry)>,
        max: usize,
        but: Option<Handle>,
    ) -> Listening {
        let mut listening = Listening { first: Vec::new(), count: 0 };
        for (handle, entry) in all.filter(|(handle, _)| Some(*handle) != but) {
            if listening.count < max {
                listening.first.push((*handle, entry.from, entry.since, entry.to.clone()));
            }
            listening.count += 1;
        }
        listening
    }
}
