//! Links that are cut on purpose: to a child, and to a parent that lets us go.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::error::{Cause, Death, Result};
use crate::ids::{ContextId, Handle};
use crate::io::turn::{Key, Protocol, Turn};
use crate::limits::DETACH_WAIT;
use crate::route::lease::FIRST_HIGH;
use crate::route::node::{Node, Outgoing};
use crate::route::pending::Deliver;
use crate::wire::codec::{Encode, Malformed};
use crate::wire::header::{Kind, Lane};
use crate::wire::message::Message;

impl Node {
    /// Ends the link to a child, if it is one; whoever watches over it ends its process.
    pub fn cut_off(&self, turn: &mut Turn, child: ContextId) {
        let way = {
            let mut table = self.table();
            let is_child = table.is_child(child);
            is_child.then(|| table.way_to(child, None)).flatten()
        };
        if let Some(way) = way {
            turn.close(way.key, &Death::of(Cause::Shutdown).at(child));
        }
    }

    /// Tells a child whether it may leave.
    pub(super) fn answer_leaver(&self, message: &Message, may: bool) {
        let Some(handle) = message.reply_to else { return };
        let kind = if may { Kind::Reply } else { Kind::Dead };
        let out = Outgoing { kind, dst: message.src, auth: self.id(), handle, reply_to: None };
        // Of no meaning where it may.
        let death = Death::of(Cause::Refused).at(self.id());
        self.tell(&out, Lane::Quick, &|w| death.encode(w));
    }

    /// Tells the parent, behind all that was sent before, that this context leaves the tree; `to`
    /// gets the answer. Returns where.
    ///
    /// # Errors
    /// As [`Node::listen_for_answer`]; [`ErrorKind::Closed`](crate::error::ErrorKind) without a
    /// parent.
    pub fn ask_to_leave(&self, to: Arc<dyn Deliver>) -> Result<Handle> {
        let nowhere = || Death::of(Cause::NoRoute);
        let dst = *self.parents().first().ok_or_else(nowhere)?;
        let reply_to = self.listen_for_answer(dst, to)?;
        let (kind, auth, handle) = (Kind::Control, self.id(), Handle::DETACH);
        let out = Outgoing { kind, dst, auth, handle, reply_to: Some(reply_to) };
        if !self.tell(&out, Lane::Bulk, &|_| ()) {
            self.unlisten(reply_to);
            return Err(nowhere().into());
        }
        Ok(reply_to)
    }

    /// Tells the parent, behind all that was sent before, to close the link: a tool between us
    /// need not do that when we do.
    fn say_goodbye(&self) {
        let Some(&dst) = self.parents().first() else { return };
        let (kind, auth, handle) = (Kind::Control, self.id(), Handle::DETACH);
        self.tell(&Outgoing { kind, dst, auth, handle, reply_to: None }, Lane::Bulk, &|_| ());
    }

    /// Whether the parent has all that was sent to it.
    pub fn has_told_parent(&self) -> bool {
        let way = self.parents().first().and_then(|parent| self.table().way_to(*parent, None));
        way.is_none_or(|way| way.outbox.queued() == 0)
    }

    /// Ends the link to the parent, without a word to who watches over it: from now on this context
    /// is the first of a tree of its own. What waits for a context that is not below fails, calls
    /// are taken no more, and there are ids for children of its own.
    pub fn leave(&self, turn: &mut Turn) {
        self.say_goodbye();
        let awaited = [self.handles().awaited(), self.credit.targets()].concat();
        let beyond = awaited.into_iter().filter(|id| *id != self.id()).collect();
        let left = self.table().leave(beyond);
        let Some((way, lost)) = left else { return };
        self.detached.store(true, Ordering::Relaxed);
        if self.id().0 < FIRST_HIGH {
            self.pool().add_high();
        }
        let death = Death::of(Cause::Detached).at(self.id());
        turn.live_on();
        turn.replace(way.key, Box::new(Deaf));
        let (key, why) = (way.key, death.clone());
        let close = move |turn: &mut Turn| turn.close(key, &why);
        match way.outbox.queued() {
            0 => close(turn),
            _ => drop(turn.timer(Instant::now() + DETACH_WAIT, Box::new(close))),
        }
        self.lose(turn, lost, &death);
        let calls = self.handles().remove(Handle::CALL);
        if let Some(calls) = calls {
            calls.to.dead(turn, self.id(), &death);
        }
    }
}

/// What a stream becomes that is to be closed.
struct Deaf;

impl Protocol for Deaf {
    fn input(&mut self, _: &mut Turn, _: Key, _: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }

    fn closed(&mut self, _: &mut Turn, _: &Death) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::lease::Lease;
    use crate::route::table::{Table, Tell};

    #[test]
    fn a_context_that_leaves_loses_all_that_does_not_live_below_and_tells_who_talked_to_it() {
        let (child, below, beyond) = (ContextId(7), ContextId(100), ContextId(50));
        let mut table = Table::<u8>::default();
        let parent = table.add_parent(0);
        let link = table.add_child(child, Lease { first: 100, count: 10 }, 1);
        table.add_route(link, below, child).unwrap();
        assert_eq!(table.way_to(beyond, Some(link)), Some(0));
        assert_eq!(table.way_to(below, Some(parent)), Some(1));
        let awaited = vec![ContextId::MASTER, below, ContextId::MASTER];
        let (way, lost) = table.leave(awaited).unwrap();
        assert_eq!((way, lost.contexts), (0, vec![ContextId::MASTER, beyond]));
        assert_eq!(lost.tell, [Tell { gone: beyond, child: Some(child), way: 1 }]);
        assert_eq!(table.way_to(ContextId::MASTER, None), None);
        assert_eq!(table.way_to(below, None), Some(1));
        assert!(table.leave(Vec::new()).is_none());
    }
}
