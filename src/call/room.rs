//! The room that each sending context has in one queue here. Pure but for its lock.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::call::load::{Link, Load, Loads};
use crate::call::refusals::Refusals;
use crate::call::router::Router;
use crate::error::{Cause, Death};
use crate::ids::ContextId;
use crate::limits::{FRAGMENT_BYTES, MESSAGE_COST_BYTES, WINDOW_BYTES};
use crate::lock::Lock;
use crate::route::node::Node;
use crate::route::send::room_of;
use crate::trace::Level;
use crate::wire::header::Kind;
use crate::wire::message::Message;

/// What a sender that keeps to its window has in a queue at most.
pub(crate) const ROOM_MAX: usize = WINDOW_BYTES + FRAGMENT_BYTES + MESSAGE_COST_BYTES;

/// Everybody's room in one queue, in the unit of `room_of`.
pub(crate) struct Rooms {
    me: ContextId,
    loads: Arc<Loads>,
    /// Sorted by sender. Those of one child, which end in their order, are taken out at the front.
    list: Lock<VecDeque<(ContextId, Room)>>,
    /// Messages without room, of which the first are logged.
    refused: Refusals,
}

#[derive(Default)]
struct Room {
    /// In the queue. Invariant: at most ROOM_MAX, for its sender waits for grants.
    queued: usize,
    /// Taken out of the queue, and not yet granted back.
    ungranted: usize,
    /// The link that it comes by, once that was looked for.
    link: Option<Option<Arc<Link>>>,
}

impl Rooms {
    /// Those of a queue of this context, whose own room is not limited.
    pub(crate) fn new(router: &Router) -> Rooms {
        let (me, loads) = (router.context_id(), router.kept(Loads::default));
        Rooms { me, loads, list: Lock::default(), refused: Refusals::default() }
    }

    /// Notes that a message of data goes into the queue; what is returned is to stay with it there.
    ///
    /// # Errors
    /// Its source has no room for it; or there is no more for what comes by the same link.
    pub(crate) fn enters(&self, node: &Node, message: &Message) -> Result<Load, Cause> {
        let (src, bytes) = (message.src, message.data.len());
        let message_bytes_max = node.identity().message_bytes_max;
        let of = |link: &Option<Arc<Link>>| {
            Load::of(link.as_ref(), bytes, message_bytes_max).ok_or(Cause::DoesNotRead)
        };
        let added = room_of(&message.data);
        {
            let mut list = self.list.lock();
            let room = room_for(&mut list, src);
            if src != self.me && ROOM_MAX < room.queued + added {
                return Err(Cause::Protocol);
            }
            if let Some(link) = &room.link {
                let load = of(link)?;
                room.queued += added;
                return Ok(load);
            }
        }
        let link = self.loads.link_to(node, src);
        let load = of(&link)?;
        let mut list = self.list.lock();
        let room = room_for(&mut list, src);
        (room.queued, room.link) = (room.queued + added, Some(link));
        Ok(load)
    }

    /// As [`Rooms::enters`], of a message of any kind to a handle of a program's own.
    ///
    /// # Errors
    /// What its source is to be told.
    pub(crate) fn admit(&self, node: &Node, message: &Message) -> Result<Option<Load>, Death> {
        if message.kind != Kind::Data {
            return Ok(None);
        }
        self.enters(node, message).map(Some).map_err(|cause| {
            if self.refused.count() {
                node.event(Level::Warn, "sends beyond its window:", &[message.src.0.into()]);
            }
            Death::of(cause).at(if cause == Cause::DoesNotRead { self.me } else { message.src })
        })
    }

    /// Notes what was taken out of the queue. Returns what is to be granted: several at a time, and
    /// the last of them only if `all` is.
    pub(crate) fn leaves(&self, src: ContextId, bytes: usize, all: bool) -> Option<usize> {
        let mut list = self.list.lock();
        // What is left of a context that is gone has no room any more.
        let at = list.binary_search_by_key(&src, |(other, _)| *other).ok()?;
        let room = &mut list[at].1;
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
    use std::sync::PoisonError;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::ids::Handle;
    use crate::limits::LOGGED_REFUSALS_MAX;
    use crate::trace;
    use crate::wire::header::Lane;

    const ME: ContextId = ContextId(0);
    const A: ContextId = ContextId(1);
    const B: ContextId = ContextId(2);

    /// A message that counts for so much, as far as one can.
    fn message(src: ContextId, room: usize) -> Message {
        let (kind, lane, auth, handle) = (Kind::Data, Lane::Quick, src, Handle::FIRST_RANDOM);
        let data = vec![0; room - MESSAGE_COST_BYTES];
        Message { kind, lane, dst: ME, src, auth, handle, reply_to: None, data }
    }

    /// Whether it finds room.
    fn enters(rooms: &Rooms, router: &Router, src: ContextId, room: usize) -> bool {
        rooms.enters(router.node(), &message(src, room)).is_ok()
    }

    fn rooms() -> (Router, Rooms) {
        let router = crate::Program::new().router().unwrap();
        let rooms = Rooms::new(&router);
        (router, rooms)
    }

    #[test]
    fn each_sender_has_its_window_and_oneself_any() {
        let (router, rooms) = rooms();
        let fills = |src| (0..5).all(|_| enters(&rooms, &router, src, FULL));
        assert!(fills(A) && !enters(&rooms, &router, A, MESSAGE_COST_BYTES));
        assert!(fills(B) && fills(ME) && fills(ME));
        rooms.forget(A);
        assert!(fills(A));
    }

    #[test]
    fn of_a_flood_beyond_a_window_the_first_messages_are_logged() {
        let _alone = trace::SINKS.lock().unwrap_or_else(PoisonError::into_inner);
        let (router, rooms) = rooms();
        // Other tests log, too.
        let (src, logged) = (ContextId(0x5eed), Arc::new(AtomicU32::new(0)));
        let count = logged.clone();
        trace::hear(Level::Warn, move |record| {
            let is_it = record.what.contains("window") && record.about == [u64::from(src.0)];
            count.fetch_add(is_it.into(), Ordering::SeqCst);
        });
        while enters(&rooms, &router, src, FULL) {}
        for _ in 0..10 * LOGGED_REFUSALS_MAX {
            assert!(rooms.admit(router.node(), &message(src, FULL)).is_err());
        }
        trace::take_by(trace::Slot::Sink, None, None);
        assert_eq!(logged.load(Ordering::SeqCst), LOGGED_REFUSALS_MAX);
    }

    #[test]
    fn what_is_refused_takes_no_room() {
        let (router, rooms) = rooms();
        while enters(&rooms, &router, A, FULL) {}
        for _ in 0..10 {
            assert!(!enters(&rooms, &router, A, FULL));
        }
        for _ in 0..5 {
            rooms.leaves(A, FULL, true);
        }
        assert!((0..5).all(|_| enters(&rooms, &router, A, FULL)));
    }

    #[test]
    fn what_is_left_of_a_context_that_is_gone_is_taken_without_a_trace() {
        let (router, rooms) = rooms();
        assert!(enters(&rooms, &router, A, FULL));
        rooms.forget(A);
        assert_eq!(rooms.leaves(A, FULL, true), None);
        assert_eq!(rooms.list.lock().len(), 0);
    }

    const FULL: usize = FRAGMENT_BYTES + MESSAGE_COST_BYTES;

    #[test]
    fn what_is_taken_is_granted_several_at_a_time_and_the_last_of_it_if_asked() {
        let (router, rooms) = rooms();
        assert!(enters(&rooms, &router, A, FULL));
        assert_eq!(rooms.leaves(A, 5, true), None);
        assert_eq!(rooms.leaves(A, FRAGMENT_BYTES - 5, true), Some(FRAGMENT_BYTES));
        assert_eq!(rooms.leaves(A, 47, false), None);
        assert_eq!(rooms.leaves(A, 17, true), Some(64));
        assert!(enters(&rooms, &router, ME, FULL));
        assert_eq!(rooms.leaves(ME, FULL, true), None);
    }
}
