//! Runs the functions that others call, one at a time, in the order that the calls arrived.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::call::context::CallContext;
use crate::call::registry::{Found, put_failed};
use crate::call::router::Router;
use crate::call::scope::Scope;
use crate::error::{CallFailure, Cause, Death, ErrorKind, Result};
use crate::ids::{ContextId, Handle};
use crate::io::latch::Latch;
use crate::io::turn::Turn;
use crate::route::node::{Node, Outgoing, Payload};
use crate::route::pending::Deliver;
use crate::route::policy;
use crate::trace::{self, Level, panic_text};
use crate::wire::codec::{Encode, Reader, Writer};
use crate::wire::frame::FrameBuf;
use crate::wire::header::Kind;
use crate::wire::message::Message;

type Answer = Result<FrameBuf, Box<CallFailure>>;

/// The calls that wait for a context's thread.
pub(crate) struct Calls {
    queue: Latch<Message>,
    /// Whether that thread does something else than wait for calls.
    busy: AtomicBool,
}

impl Deliver for Calls {
    fn message(&self, _: &mut Turn, message: Message) {
        // After the end nobody runs it, and its caller learns of that end.
        let _ = self.queue.put(message);
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {
        self.queue.close();
    }
}

impl Calls {
    /// Listens for calls of those who have authority over this context.
    pub(crate) fn listen(node: &Arc<Node>) -> Result<Arc<Calls>> {
        let calls = Arc::new(Calls { queue: Latch::new(), busy: AtomicBool::new(true) });
        node.listen(Handle::CALL, Kind::Call, policy::has_parent_authority, calls.clone())?;
        Ok(calls)
    }

    /// Whether a function runs, or waits to be run; or what comes before the first.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) || !self.queue.is_empty()
    }

    /// Runs calls until the context ends.
    pub(crate) fn serve(&self, router: &Router) {
        loop {
            self.busy.store(false, Ordering::Relaxed);
            match router.broker().wait(&self.queue, None) {
                Ok(message) => {
                    self.busy.store(true, Ordering::Relaxed);
                    run(router, &message);
                }
                Err(e) if matches!(e.kind(), ErrorKind::Closed(_)) => return,
                Err(_) => (),
            }
        }
    }
}

fn run(router: &Router, message: &Message) {
    let Some(handle) = message.reply_to else { return };
    let taken = Scope::from(router, message.src, message.auth);
    let given = Scope::to(router, message.src);
    let answer = answer(router, message, &taken, &given);
    close_senders(&taken, answer.as_ref().err().map(|failure| &**failure));
    let (given, has_failed) = (given.given(), answer.is_err());
    let payload = answer.unwrap_or_else(|failure| {
        let failed: Payload<'_> = &|w| put_failed(&failure, w);
        FrameBuf::encode(None, failed).unwrap_or_default()
    });
    if has_failed {
        given.take_back(None);
    }
    let (dst, auth) = (message.src, router.context_id());
    let out = Outgoing { kind: Kind::Reply, dst, auth, handle, reply_to: None };
    let Err(error) = router.node().send(&out, payload) else { return };
    if !has_failed {
        given.take_back(None);
    }
    trace::event(Level::Debug, "an answer could not be sent", &[dst.0.into()]);
    if let ErrorKind::TooLarge { .. } = error.kind() {
        let death = Death::of(Cause::TooLarge).at(auth);
        let dead: Payload<'_> = &|w| death.encode(w);
        if let Ok(payload) = FrameBuf::encode(None, dead) {
            // Who cannot be reached waits no longer.
            let _ = router.node().send(&Outgoing { kind: Kind::Dead, ..out }, payload);
        }
    }
}

/// The body of the answer to a call that succeeds.
fn answer(router: &Router, message: &Message, taken: &Scope, given: &Scope) -> Answer {
    let mut r = Reader::new(&message.data, Some(taken));
    let Ok(fingerprint) = r.take(8) else {
        return Err(Box::new(CallFailure::Arguments(String::new())));
    };
    let fingerprint = fingerprint.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
    let entry = match router.registry().find(fingerprint) {
        Found::Entry(entry) => entry,
        Found::Unknown => return Err(Box::new(CallFailure::Unknown)),
        Found::OtherSignature(entry) => {
            let there = entry.shape_text();
            return Err(Box::new(CallFailure::Signature { there, here: String::new() }));
        }
    };
    let cx = CallContext::new(router, message.src);
    let mut outcome = Ok(());
    let body = catch_unwind(AssertUnwindSafe(|| {
        FrameBuf::encode(Some(given), |w: &mut Writer<'_>| outcome = entry.serve(&cx, &mut r, w))
    }));
    let why = match body {
        Ok(Ok(body)) => return outcome.map(|()| body),
        Ok(Err(malformed)) => malformed.0.to_owned(),
        Err(panic) => panic_text(&*panic),
    };
    Err(Box::new(CallFailure::Panic(why)))
}

/// Drops the Senders that came with a call; those of a failed one tell their Receivers so.
fn close_senders(scope: &Scope, failure: Option<&CallFailure>) {
    let taken = scope.taken();
    let Some(failure) = failure else { return };
    trace::event(Level::Warn, "a function failed", &[]);
    for core in &taken {
        core.fail(Death { tail: text_of(failure), ..Death::of(Cause::Failed) });
    }
}

fn text_of(failure: &CallFailure) -> String {
    match failure {
        CallFailure::Error { chain, .. } => {
            let mut text = String::new();
            for link in chain {
                if !text.is_empty() {
                    text.push_str(": ");
                }
                text.push_str(link);
            }
            text
        }
        CallFailure::Panic(text) | CallFailure::Arguments(text) => text.clone(),
        CallFailure::Unknown | CallFailure::Signature { .. } => String::new(),
    }
}
