//! Who holds Senders to a Receiver. Its context counts: one more when a copy is given to a context,
//! one less when a context drops its last of that copy, none when a context dies. It is sound since
//! messages keep their order on every path of the tree: the giver's news of a copy passes the node
//! where the paths meet before the copy does, and so before the taker's news of its end.
//!
//! A giver that dies cannot tell what got there. So a taker tells when it has a copy that is not a
//! gift of the Receiver's context; and what a dead giver gave, and no taker has told of, counts no
//! more, unless one does later.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::{Cause, Death, Result};
use crate::ids::{ContextId, Handle};
use crate::io::turn::Turn;
use crate::limits::HOLDERS_MAX;
use crate::route::node::{Node, Outgoing};
use crate::route::pending::{Deliver, Gift};
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Writer};
use crate::wire::header::{Kind, Lane};
use crate::wire::message::Message;

/// The count of one Receiver. Pure.
#[derive(Default)]
pub(crate) struct Holders {
    /// Sorted by context; no count is 0. Those of one child, which end in their order, are taken
    /// out at the front.
    held: VecDeque<(ContextId, u32)>,
    /// Sorted by giver and taker: what the taker has not told of. No count is 0.
    given: Vec<Given>,
    /// Contexts that are gone, and may be takers in `given` still: they are looked for together.
    gone: Vec<ContextId>,
    /// The first end of a holder that was not clean.
    broken: Option<Death>,
    /// How often the last holder ended.
    ends: u64,
    /// Invariant: none holds one.
    ended: bool,
    shut: bool,
}

struct Given {
    giver: ContextId,
    taker: ContextId,
    count: u32,
    /// Whether the giver is gone. Then the taker does not hold these until it tells of them.
    in_doubt: bool,
}

/// Tells that nobody held a Sender any more, once; it may be out of date when it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End(u64);

impl Holders {
    /// `id` holds one more.
    pub(crate) fn add(&mut self, id: ContextId) {
        self.ended &= self.shut;
        match self.place_of(id) {
            Ok(at) => self.held[at].1 += 1,
            Err(at) => self.held.insert(at, (id, 1)),
        }
    }

    /// Whether `id` holds one.
    pub(crate) fn is_held_by(&self, id: ContextId) -> bool {
        self.place_of(id).is_ok()
    }

    /// Whether nobody holds one.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// `from` tells what became of one between it and another.
    pub(crate) fn hear(&mut self, from: ContextId, other: ContextId, gift: Gift) -> Option<End> {
        match gift {
            Gift::Given => self.give(from, other),
            Gift::TakenBack(why) => return self.take_back(from, other, why),
            Gift::Taken => self.taken(other, from),
        }
        None
    }

    /// `giver` has given one to `taker`; it must hold one itself.
    pub(crate) fn give(&mut self, giver: ContextId, taker: ContextId) {
        if HOLDERS_MAX <= self.given.len() && !self.gone.is_empty() {
            self.forget_gone();
        }
        let room = self.given.len() < HOLDERS_MAX || self.find_gift(giver, taker).is_ok();
        if room && self.held.len() < HOLDERS_MAX && self.is_held_by(giver) {
            self.give_always(giver, taker);
        }
    }

    /// The Receiver's own context has given one to `taker`, however many others have.
    pub(crate) fn give_always(&mut self, giver: ContextId, taker: ContextId) {
        match self.find_gift(giver, taker) {
            Ok(at) => self.given[at].count += 1,
            Err(at) => self.given.insert(at, Given { giver, taker, count: 1, in_doubt: false }),
        }
        self.add(taker);
    }

    /// What somebody gave to `taker` found no way there, and why.
    pub(crate) fn unreachable(&mut self, taker: ContextId, why: Death) -> Option<End> {
        match self.given.iter().find(|gift| gift.taker == taker).map(|gift| gift.giver) {
            Some(giver) => self.take_back(giver, taker, Some(why)),
            None => self.remove(taker, Some(why)),
        }
    }

    /// What `giver` gave to `taker` did not get there. It may hold none itself any more.
    pub(crate) fn take_back(
        &mut self,
        giver: ContextId,
        taker: ContextId,
        why: Option<Death>,
    ) -> Option<End> {
        match self.settle(giver, taker)? {
            true => None,
            false => self.remove(taker, why),
        }
    }

    /// What `giver` gave to `taker` has got there.
    pub(crate) fn taken(&mut self, giver: ContextId, taker: ContextId) {
        if self.settle(giver, taker) == Some(true) {
            self.add(taker);
        }
    }

    /// Forgets one gift. Returns whether it was in doubt, if there is such a one.
    fn settle(&mut self, giver: ContextId, taker: ContextId) -> Option<bool> {
        let at = self.find_gift(giver, taker).ok()?;
        let gift = &mut self.given[at];
        let in_doubt = gift.in_doubt;
        gift.count -= 1;
        if gift.count == 0 {
            self.given.remove(at);
        }
        Some(in_doubt)
    }

    /// `id` holds one less; with a reason, if it was not a clean end. Returns the end of all, if it
    /// was the last.
    pub(crate) fn remove(&mut self, id: ContextId, why: Option<Death>) -> Option<End> {
        let at = self.place_of(id).ok()?;
        self.held[at].1 -= 1;
        if self.held[at].1 == 0 {
            self.held.remove(at);
        }
        self.broken = self.broken.take().or(why);
        self.end()
    }

    /// `id` is gone.
    pub(crate) fn lost(&mut self, id: ContextId, why: &Death) -> Option<End> {
        let own = self.place_of(id);
        if let Ok(at) = own {
            self.held.remove(at);
        }
        let from = self.given.partition_point(|gift| gift.giver < id);
        let to = self.given.partition_point(|gift| gift.giver <= id);
        for gift in &mut self.given[from..to] {
            gift.in_doubt = true;
            if let Ok(at) = self.held.binary_search_by_key(&gift.taker, |(id, _)| *id) {
                let left = self.held[at].1.saturating_sub(gift.count);
                match left {
                    0 => drop(self.held.remove(at)),
                    _ => self.held[at].1 = left,
                }
            }
        }
        self.gone.push(id);
        if self.given.len() / 16 <= self.gone.len() {
            self.forget_gone();
        }
        if own.is_err() && from == to {
            return None;
        }
        self.broken.get_or_insert_with(|| why.clone());
        self.end()
    }

    fn forget_gone(&mut self) {
        let mut gone = std::mem::take(&mut self.gone);
        gone.sort_unstable();
        self.given.retain(|gift| gone.binary_search(&gift.taker).is_err());
    }

    /// The Receiver's own context is shut down: whatever comes, this is the end.
    pub(crate) fn shut(&mut self, why: Death) -> End {
        (self.shut, self.ended, self.broken) = (true, true, Some(why));
        self.ends += 1;
        End(self.ends)
    }

    /// Why it has ended, the reason once; `None` if it has been given out again since.
    pub(crate) fn verdict(&mut self, end: End) -> Option<Death> {
        let ended = self.ended && end.0 == self.ends;
        ended.then(|| self.broken.take().unwrap_or(Death::of(Cause::SenderClosed)))
    }

    /// All that hold one.
    pub(crate) fn all(&self) -> Vec<ContextId> {
        self.held.iter().map(|(id, _)| *id).collect()
    }

    fn place_of(&self, id: ContextId) -> Result<usize, usize> {
        self.held.binary_search_by_key(&id, |(id, _)| *id)
    }

    fn find_gift(&self, giver: ContextId, taker: ContextId) -> Result<usize, usize> {
        self.given.binary_search_by_key(&(giver, taker), |gift| (gift.giver, gift.taker))
    }

    fn end(&mut self) -> Option<End> {
        if self.ended || !self.held.is_empty() {
            return None;
        }
        self.ended = true;
        self.ends += 1;
        Some(End(self.ends))
    }
}

fn put_gift(gift: &Gift, w: &mut Writer<'_>) {
    match gift {
        Gift::Given => 0_u8.encode(w),
        Gift::TakenBack(why) => {
            1_u8.encode(w);
            why.encode(w);
        }
        Gift::Taken => 2_u8.encode(w),
    }
}

fn take_gift(r: &mut Reader<'_>) -> Result<Gift, Malformed> {
    match u8::decode(r)? {
        0 => Ok(Gift::Given),
        1 => Ok(Gift::TakenBack(Option::decode(r)?)),
        2 => Ok(Gift::Taken),
        _ => Err(Malformed("no such news of a Sender")),
    }
}

/// Tells the context of a Receiver what became of a Sender between this context and another.
pub(crate) fn tell(
    node: &Arc<Node>,
    owner: ContextId,
    handle: Handle,
    other: ContextId,
    gift: Gift,
) {
    if owner == node.id() {
        if let Some(holds) = node.listener(Handle::HOLD, Kind::Control) {
            holds.news(handle, owner, other, gift);
        }
        return;
    }
    let auth = node.id();
    let out =
        Outgoing { kind: Kind::Control, dst: owner, auth, handle: Handle::HOLD, reply_to: None };
    node.tell(&out, Lane::Quick, &|w| {
        handle.encode(w);
        other.encode(w);
        put_gift(&gift, w);
    });
}

/// Serves [`Handle::HOLD`] from now on: this context has a Receiver. One without hears of no gifts,
/// and a stock agent does not link this.
pub(crate) fn count(node: &Arc<Node>) {
    node.wrap(Handle::HOLD, |_| Arc::new(Holds(node.clone())));
}

struct Holds(Arc<Node>);

impl Deliver for Holds {
    fn message(&self, _: &mut Turn, message: Message) {
        let Holds(node) = self;
        let mut r = Reader::new(&message.data, None);
        let (Ok(handle), Ok(taker), Ok(gift)) =
            (Handle::decode(&mut r), ContextId::decode(&mut r), take_gift(&mut r))
        else {
            return;
        };
        let given = matches!(gift, Gift::Given);
        self.news(handle, message.src, taker, gift);
        let has_receiver = node.listener(handle, Kind::Data).is_some();
        if given && has_receiver && taker != node.id() && !probe(node, taker, handle) {
            let death = Death::of(Cause::NoRoute).at(taker);
            self.news(handle, message.src, taker, Gift::TakenBack(Some(death)));
        }
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {}

    fn news(&self, handle: Handle, from: ContextId, other: ContextId, gift: Gift) {
        if let Some(receiver) = self.0.listener(handle, Kind::Data) {
            receiver.news(handle, from, other, gift);
        }
    }
}

/// Says something to a new holder that it ignores: who was talked to, we are told the end of; and
/// if it has ended already, that comes back to the Receiver's handle. Returns whether a way leads
/// there.
pub(crate) fn probe(node: &Node, taker: ContextId, handle: Handle) -> bool {
    let (auth, reply_to) = (node.id(), Some(handle));
    let out = Outgoing { kind: Kind::Control, dst: taker, auth, handle: Handle::HOLD, reply_to };
    node.tell(&out, Lane::Quick, &|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    const A: ContextId = ContextId(1);
    const B: ContextId = ContextId(2);
    const C: ContextId = ContextId(3);

    /// Why it ends, now that it does.
    #[track_caller]
    fn why(holders: &mut Holders, end: Option<End>) -> Death {
        holders.verdict(end.unwrap()).unwrap()
    }

    #[test]
    fn the_last_holder_ends_it_cleanly() {
        let mut holders = Holders::default();
        holders.add(A);
        holders.add(B);
        holders.add(B);
        assert_eq!(holders.remove(A, None), None);
        assert_eq!(holders.remove(B, None), None);
        let end = holders.remove(B, None);
        assert_eq!(why(&mut holders, end), Death::of(Cause::SenderClosed));
        assert_eq!(holders.remove(B, None), None);
    }

    #[test]
    fn a_lost_holder_is_told_once_when_the_last_is_gone() {
        let mut holders = Holders::default();
        holders.add(A);
        holders.add(B);
        assert_eq!(holders.lost(A, &Death::of(Cause::Exited)), None);
        assert_eq!(holders.all(), [B]);
        let end = holders.remove(B, None);
        assert_eq!(why(&mut holders, end), Death::of(Cause::Exited));
        assert_eq!(why(&mut holders, end), Death::of(Cause::SenderClosed));
    }

    #[test]
    fn who_holds_nothing_ends_nothing_and_gives_nothing() {
        let mut holders = Holders::default();
        holders.add(A);
        holders.give(B, C);
        assert_eq!(holders.lost(B, &Death::of(Cause::Exited)), None);
        assert_eq!(holders.remove(B, Some(Death::of(Cause::Failed))), None);
        assert_eq!(holders.take_back(B, A, None), None);
        let end = holders.remove(A, None);
        assert_eq!(why(&mut holders, end), Death::of(Cause::SenderClosed));
    }

    #[test]
    fn a_gift_is_taken_back_by_its_giver_alone_and_also_when_that_holds_none() {
        let mut holders = Holders::default();
        holders.add(A);
        holders.give(A, B);
        holders.give(B, C);
        assert_eq!(holders.remove(A, None), None);
        assert_eq!(holders.take_back(C, B, None), None);
        assert_eq!(holders.take_back(A, B, None), None);
        assert_eq!(holders.take_back(A, B, None), None);
        assert_eq!(holders.all(), [C]);
        assert!(holders.take_back(B, C, None).is_some());
    }

    #[test]
    fn who_gives_to_ever_more_contexts_takes_no_more_memory() {
        let mut holders = Holders::default();
        holders.add(A);
        holders.add(B);
        for giver in [A, B] {
            for taker in 0..HOLDERS_MAX as u32 - 10 {
                holders.give(giver, ContextId(taker));
            }
        }
        assert_eq!((holders.held.len(), holders.given.len()), (HOLDERS_MAX - 10, HOLDERS_MAX));
        for taker in 0..20 {
            holders.add(ContextId(1 << 20 | taker));
            holders.give(A, ContextId(1 << 21 | taker));
        }
        assert!(!holders.is_held_by(ContextId(1 << 21)));
        // What the Receiver's own context gives is not for them to prevent.
        holders.give_always(C, ContextId(1 << 21));
        assert!(holders.is_held_by(ContextId(1 << 21)));
    }

    #[test]
    fn many_holders_end_in_less_than_the_square_of_their_number() {
        let (mut holders, exited) = (Holders::default(), Death::of(Cause::Exited));
        let ids = || (10..HOLDERS_MAX as u32).map(ContextId);
        holders.add(A);
        holders.add(C);
        for taker in ids() {
            holders.give(A, taker);
            holders.give(C, taker);
        }
        let begun = Instant::now();
        for id in [A].into_iter().chain(ids()) {
            assert_eq!(holders.lost(id, &exited), None);
        }
        assert_eq!((holders.all(), holders.given.len()), (vec![C], 0));
        // By the square it was minutes.
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    #[test]
    fn gifts_to_whom_there_is_no_way_are_forgotten_whatever_becomes_of_their_givers() {
        let (mut holders, no_route) = (Holders::default(), Death::of(Cause::NoRoute));
        holders.add(C);
        holders.add(A);
        for taker in 10..20 {
            holders.give(A, ContextId(taker));
            holders.give(A, ContextId(taker));
        }
        for taker in (10..20).chain(10..15) {
            assert_eq!(holders.unreachable(ContextId(taker), no_route.clone()), None);
        }
        assert!(!holders.is_held_by(ContextId(10)) && holders.is_held_by(ContextId(15)));
        assert_eq!(holders.lost(A, &Death::of(Cause::Exited)), None);
        assert_eq!(holders.unreachable(ContextId(15), no_route.clone()), None);
        assert_eq!((holders.all(), holders.given.len()), (vec![C], 4));
        // One that was given to nobody, and of which its taker has told.
        assert!(holders.unreachable(C, no_route).is_some());
    }

    #[test]
    fn what_a_lost_giver_gave_and_nobody_told_of_is_held_no_more() {
        let (mut holders, exited) = (Holders::default(), Death::of(Cause::Exited));
        holders.add(A);
        holders.give(A, B);
        holders.give(A, B);
        holders.taken(A, B);
        assert_eq!(holders.remove(A, None), None);
        assert_eq!(holders.lost(A, &exited), None, "one has got there");
        let end = holders.remove(B, None);
        assert_eq!(why(&mut holders, end), exited);
        assert_eq!(holders.take_back(A, B, None), None);
    }

    #[test]
    fn what_a_lost_giver_gave_is_held_again_once_the_taker_tells_of_it() {
        let mut holders = Holders::default();
        holders.add(A);
        holders.give(A, B);
        let end = holders.lost(A, &Death::of(Cause::Exited)).unwrap();
        assert!(!holders.is_held_by(B));
        holders.taken(A, B);
        assert!(holders.is_held_by(B) && holders.verdict(end).is_none());
        holders.taken(A, B);
        holders.taken(C, B);
        let end = holders.remove(B, None);
        assert_eq!(why(&mut holders, end).cause, Cause::Exited);
    }

    #[test]
    fn an_end_that_was_followed_by_another_gift_is_none() {
        let mut holders = Holders::default();
        holders.add(A);
        let first = holders.remove(A, Some(Death::of(Cause::Failed))).unwrap();
        holders.add(A);
        assert_eq!(holders.verdict(first), None);
        let second = holders.remove(A, None);
        assert_eq!(holders.verdict(first), None);
        assert_eq!(why(&mut holders, second), Death::of(Cause::Failed));
        let shut = holders.shut(Death::of(Cause::Shutdown));
        holders.add(A);
        assert_eq!(holders.verdict(shut), Some(Death::of(Cause::Shutdown)));
    }
}
