//! Authority of one context over another that is not below it: given by those who have it by birth.

use std::sync::Arc;

use crate::call::context::Context;
use crate::error::{Death, Error, Result};
use crate::ids::{ContextId, Handle};
use crate::io::latch::Latch;
use crate::io::turn::Turn;
use crate::limits::GRANTS_MAX;
use crate::route::node::{Node, Outgoing, Payload};
use crate::route::pending::Deliver;
use crate::wire::codec::{Decode, Encode, Reader};
use crate::wire::frame::FrameBuf;
use crate::wire::header::Kind;
use crate::wire::message::Message;

impl Context {
    /// Lets `caller` do with this context what its ancestors may: call its functions, connect by
    /// way of it, end it. It is in force when this returns, and ends with `caller`, or by
    /// [`Context::revoke`]. Ancestors of this context can grant that, and itself; who was granted
    /// authority cannot pass it on.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::error::ErrorKind) if the context is gone, or refuses since we
    /// are no ancestor of it; `Usage` if it has granted that to 1,024 others; `Interrupted` after
    /// a signal.
    ///
    /// # Security
    /// `caller` can then do anything there. See [`security`](crate::manual::security).
    pub fn grant(&self, caller: &Context) -> Result<()> {
        self.change(caller, true)
    }

    /// Takes back what [`Context::grant`] gave. What `caller` has asked for before is done.
    ///
    /// # Errors
    /// As [`Context::grant`]; nothing was granted is none.
    pub fn revoke(&self, caller: &Context) -> Result<()> {
        self.change(caller, false)
    }

    fn change(&self, caller: &Context, gives: bool) -> Result<()> {
        let (node, id) = (self.router().node(), caller.context_id());
        if !self.router().same_tree(caller.router()) {
            return Err(Error::usage("a context of another tree can be granted nothing here"));
        }
        node.broker().forbid_own_thread()?;
        let answer = Arc::new(Answer::new());
        let reply_to = Some(node.listen_for_answer(self.context_id(), answer.clone())?);
        let (dst, auth) = (self.context_id(), self.authority());
        let out = Outgoing { kind: Kind::Control, dst, auth, handle: Handle::GRANT, reply_to };
        let payload: Payload<'_> = &|w| {
            gives.encode(w);
            id.encode(w);
        };
        let payload = FrameBuf::encode(None, payload).unwrap_or_default();
        let answered = node.send(&out, payload).and_then(|()| answer.get());
        reply_to.into_iter().for_each(|handle| node.unlisten(handle));
        match answered?? {
            true => Ok(()),
            false => Err(Error::usage(format!(
                "authority over this context is granted to {GRANTS_MAX} others: revoke some"
            ))),
        }
    }
}

/// Where it is told whether there was room.
type Answer = Latch<Result<bool, Death>>;

impl Deliver for Answer {
    fn message(&self, _: &mut Turn, message: Message) {
        // Nobody waits at a closed one.
        let _ = self.put(Ok(message.data == [1]));
    }

    fn dead(&self, _: &mut Turn, _: ContextId, death: &Death) {
        let _ = self.put(Err(death.clone()));
    }
}

/// Serves [`Handle::GRANT`]; and [`Handle::HOLD`], while there is no Receiver to be told of.
pub(crate) struct Grants(pub(crate) Arc<Node>);

impl Deliver for Grants {
    fn message(&self, _: &mut Turn, message: Message) {
        let Grants(node) = self;
        if message.handle != Handle::GRANT {
            return;
        }
        let mut r = Reader::new(&message.data, None);
        let (Ok(gives), Ok(id)) = (bool::decode(&mut r), ContextId::decode(&mut r)) else { return };
        let room = node.change_grant(id, gives);
        let Some(handle) = message.reply_to else { return };
        node.answer((message.src, handle), &|w| room.encode(w));
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {}
}

#[cfg(test)]
mod tests {
    use crate::error::{Cause, ErrorKind};
    use crate::{CallContext, Context, Error, Program, Result, Router};

    fn who(cx: &CallContext) -> u32 {
        cx.caller_id().0
    }

    /// Calls another context, which sees who calls.
    fn call(other: Context) -> Result<u32> {
        other.call(who, ())
    }

    /// Passes on authority over a context to another.
    fn pass_on(over: Context, to: Context) -> Result<()> {
        over.grant(&to)
    }

    fn tree() -> (Router, [Context; 3]) {
        let program = Program::new().function(who).function(call).function(pass_on);
        let router = program.router().unwrap();
        let children = [(); 3].map(|()| router.in_process().unwrap());
        (router, children)
    }

    #[track_caller]
    fn is_refused<T>(outcome: Result<T>) {
        let error = outcome.err().unwrap();
        let refused = Error::from(crate::error::Death::of(Cause::Refused));
        let ErrorKind::Call(failed) = error.kind() else { panic!("{error}") };
        let crate::error::CallFailure::Error { chain, .. } = &failed.failure else {
            panic!("{error}")
        };
        assert!(chain[0].contains(&refused.to_string()), "{error}");
    }

    #[test]
    fn siblings_call_each_other_from_the_grant_on_until_it_is_taken_back() {
        let (_router, [a, b, c]) = tree();
        for _ in 0..3 {
            is_refused(a.call(call, &b));
            b.grant(&a).unwrap();
            assert_eq!(a.call(call, &b).unwrap(), a.context_id().0);
            is_refused(b.call(call, &a));
            is_refused(c.call(call, &b));
            b.revoke(&a).unwrap();
        }
        b.revoke(&c).unwrap();
        is_refused(a.call(call, &b));
    }

    #[test]
    fn who_was_granted_authority_cannot_pass_it_on() {
        let (_router, [a, b, c]) = tree();
        b.grant(&a).unwrap();
        is_refused(a.call(pass_on, (&b, &c)));
        is_refused(a.call(pass_on, (&c, &a)));
        // But what is its own.
        a.call(pass_on, (&a, &c)).unwrap();
        assert_eq!(c.call(call, &a).unwrap(), c.context_id().0);
    }

    #[test]
    fn what_cannot_be_granted_says_why() {
        let (router, [a, b, _]) = tree();
        let (other, [stranger, ..]) = tree();
        assert!(matches!(a.grant(&stranger).unwrap_err().kind(), ErrorKind::Usage(_)));
        for id in 0..crate::limits::GRANTS_MAX as u32 {
            a.grant(&router.context_by_id(crate::ContextId(1 << 20 | id))).unwrap();
        }
        assert!(matches!(a.grant(&b).unwrap_err().kind(), ErrorKind::Usage(_)));
        other.shutdown();
        let error = other.context_by_id(stranger.context_id()).grant(&stranger).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Closed(_)), "{error}");
        b.shutdown().unwrap();
        assert!(matches!(b.grant(&a).unwrap_err().kind(), ErrorKind::Closed(_)));
    }
}
