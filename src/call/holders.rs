//! Who holds Senders to a Receiver. Its context counts: one more when a copy is given to a context,
//! one less when a context drops its last of that copy, none when a context dies. It is sound since
//! messages keep their order on every path of the tree: the giver's news of a copy passes the node
//! where the paths meet before the copy does, and so before the taker's news of its end.

use std::sync::{Arc, Weak};

use crate::error::{Cause, Death};
use crate::ids::{ContextId, Handle};
use crate::io::turn::Turn;
use crate::route::node::{Node, Outgoing};
use crate::route::pending::Deliver;
use crate::wire::codec::{Decode, Encode, Reader};
use crate::wire::header::{Kind, Lane};
use crate::wire::message::Message;

/// The count of one Receiver. Pure.
#[derive(Default)]
pub(crate) struct Holders {
    /// Sorted by context; no count is 0.
    held: Vec<(ContextId, u32)>,
    /// The first end of a holder that was not clean.
    broken: Option<Death>,
    ended: bool,
}

impl Holders {
    /// `id` holds one more.
    pub(crate) fn add(&mut self, id: ContextId) {
        match self.held.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => self.held[at].1 += 1,
            Err(at) => self.held.insert(at, (id, 1)),
        }
    }

    /// `id` holds one less; with a reason, if it was not a clean end. Returns the end of all, if it
    /// was the last.
    pub(crate) fn remove(&mut self, id: ContextId, why: Option<Death>) -> Option<Death> {
        let at = self.held.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.held[at].1 -= 1;
        if self.held[at].1 == 0 {
            self.held.remove(at);
        }
        self.broken = self.broken.take().or(why);
        self.end()
    }

    /// `id` is gone.
    pub(crate) fn lost(&mut self, id: ContextId, why: &Death) -> Option<Death> {
        let at = self.held.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.held.remove(at);
        self.broken.get_or_insert_with(|| why.clone());
        self.end()
    }

    /// Whether `id` holds one.
    pub(crate) fn has(&self, id: ContextId) -> bool {
        self.held.binary_search_by_key(&id, |(id, _)| *id).is_ok()
    }

    /// All that hold one.
    pub(crate) fn all(&self) -> Vec<ContextId> {
        self.held.iter().map(|(id, _)| *id).collect()
    }

    fn end(&mut self) -> Option<Death> {
        if self.ended || !self.held.is_empty() {
            return None;
        }
        self.ended = true;
        Some(self.broken.take().unwrap_or(Death::of(Cause::SenderClosed)))
    }
}

/// Tells the context of a Receiver that `taker` holds a Sender more, or one less.
pub(crate) fn tell(
    node: &Arc<Node>,
    owner: ContextId,
    handle: Handle,
    taker: ContextId,
    taken_back: bool,
) {
    if owner == node.id() {
        if let Some(receiver) = node.data_at(handle) {
            receiver.held(owner, taker, taken_back);
        }
        return;
    }
    let auth = node.id();
    let out =
        Outgoing { kind: Kind::Control, dst: owner, auth, handle: Handle::HOLD, reply_to: None };
    node.tell(&out, Lane::Quick, &|w| {
        handle.encode(w);
        taker.encode(w);
        taken_back.encode(w);
    });
}

/// Serves [`Handle::HOLD`].
pub(crate) struct Holds(pub(crate) Weak<Node>);

impl Deliver for Holds {
    fn message(&self, _: &mut Turn, message: Message) {
        let Some(node) = self.0.upgrade() else { return };
        let mut r = Reader::new(&message.data, None);
        let (Ok(handle), Ok(taker), Ok(taken_back)) =
            (Handle::decode(&mut r), ContextId::decode(&mut r), bool::decode(&mut r))
        else {
            return;
        };
        let Some(receiver) = node.data_at(handle) else { return };
        receiver.held(message.src, taker, taken_back);
        // Whoever was talked to, we are told the end of.
        node.grant(taker, handle, 0);
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: Death) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ContextId = ContextId(1);
    const B: ContextId = ContextId(2);

    #[test]
    fn the_last_holder_ends_it_cleanly() {
        let mut holders = Holders::default();
        holders.add(A);
        holders.add(B);
        holders.add(B);
        assert_eq!(holders.remove(A, None), None);
        assert_eq!(holders.remove(B, None), None);
        assert_eq!(holders.remove(B, None), Some(Death::of(Cause::SenderClosed)));
        assert_eq!(holders.remove(B, None), None);
    }

    #[test]
    fn a_lost_holder_is_told_when_the_last_is_gone() {
        let mut holders = Holders::default();
        holders.add(A);
        holders.add(B);
        assert_eq!(holders.lost(A, &Death::of(Cause::Exited)), None);
        assert!(!holders.has(A) && holders.has(B));
        assert_eq!(holders.remove(B, None), Some(Death::of(Cause::Exited)));
    }

    #[test]
    fn who_holds_nothing_ends_nothing() {
        let mut holders = Holders::default();
        holders.add(A);
        assert_eq!(holders.lost(B, &Death::of(Cause::Exited)), None);
        assert_eq!(holders.remove(B, Some(Death::of(Cause::Failed))), None);
        assert_eq!(holders.remove(A, None), Some(Death::of(Cause::SenderClosed)));
    }
}
