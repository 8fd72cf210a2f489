//! The room that each sending context has in one queue here. Pure but for its lock.

use std::collections::VecDeque;

use crate::ids::ContextId;
use crate::limits::{FRAGMENT_BYTES, MESSAGE_COST_BYTES, WINDOW_BYTES};
use crate::lock::Lock;

/// What a sender that keeps to its window has in a queue at most.
pub(crate) const ROOM_MAX: usize = WINDOW_BYTES + FRAGMENT_BYTES + MESSAGE_COST_BYTES;

/// Everybody's room in one queue, in the unit of `room_of`.
pub(crate) struct Rooms {
    me: ContextId,
    /// Sorted by sender. Those of one child, which end in their order, are taken out at the front.
    list: Lock<VecDeque<(ContextId, Room)>>,
}

#[derive(Default)]
struct Room {
    /// In the queue. Invariant: at most ROOM_MAX, for its sender waits for grants.
    queued: usize,
    /// Taken out of the queue, and not yet granted back.
    ungranted: usize,
}

impl Rooms {
    /// Those of a queue of this context, whose own room is not limited.
    pub(crate) fn new(me: ContextId) -> Rooms {
        Rooms { me, list: Lock::default() }
    }

    /// Notes what `src` has put into the queue. Returns whether it had the room.
    pub(crate) fn enters(&self, src: ContextId, bytes: usize) -> bool {
        let mut list = self.list.lock();
        let room = room_for(&mut list, src);
        room.queued += bytes;
        src == self.me || room.queued <= ROOM_MAX
    }

    /// Notes what was taken out of the queue. Returns what is to be granted: several at a time, and
    /// the last of them only if `all` is.
    pub(crate) fn leaves(&self, src: ContextId, bytes: usize, all: bool) -> Option<usize> {
        let mut list = self.list.lock();
        let room = room_for(&mut list, src);
        room.queued = room.queued.saturating_sub(bytes);
        room.ungranted += bytes;
        let is_last = all && room.queued == 0;
        if src == self.me || room.ungranted < FRAGMENT_BYTES && !is_last {
            return None;
        }
        Some(std::mem::take(&mut room.ungranted))
    }

    /// A context is gone.
    pub(crate) fn forget(&self, src: ContextId) {
        let mut list = self.list.lock();
        if let Ok(at) = list.binary_search_by_key(&src, |(other, _)| *other) {
            list.remove(at);
        }
    }
}

fn room_for(list: &mut VecDeque<(ContextId, Room)>, src: ContextId) -> &mut Room {
    let at = list.partition_point(|(other, _)| *other < src);
    if list.get(at).is_none_or(|(other, _)| *other != src) {
        list.insert(at, (src, Room::default()));
    }
    &mut list[at].1
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ContextId = ContextId(0);
    const A: ContextId = ContextId(1);
    const B: ContextId = ContextId(2);

    #[test]
    fn each_sender_has_its_window_and_oneself_any() {
        let rooms = Rooms::new(ME);
        assert!(rooms.enters(A, ROOM_MAX));
        assert!(!rooms.enters(A, 1));
        assert!(rooms.enters(B, ROOM_MAX) && rooms.enters(ME, 10 * ROOM_MAX));
        rooms.forget(A);
        assert!(rooms.enters(A, ROOM_MAX));
    }

    #[test]
    fn what_is_taken_is_granted_several_at_a_time_and_the_last_of_it_if_asked() {
        let rooms = Rooms::new(ME);
        assert!(rooms.enters(A, FRAGMENT_BYTES + 10));
        assert_eq!(rooms.leaves(A, 5, true), None);
        assert_eq!(rooms.leaves(A, FRAGMENT_BYTES - 5, true), Some(FRAGMENT_BYTES));
        assert_eq!(rooms.leaves(A, 7, false), None);
        assert_eq!(rooms.leaves(A, 3, true), Some(10));
        assert!(rooms.enters(ME, 10));
        assert_eq!(rooms.leaves(ME, 10, true), None);
    }
}
