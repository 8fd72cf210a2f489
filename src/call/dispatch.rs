//! Runs the functions that others call, one at a time, in the order that the calls arrived.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::call::context::CallContext;
use crate::call::registry::{Entry, Found, put_failed};
use crate::call::router::Router;
use crate::call::scope::{Given, Scope};
use crate::error::{CallFailure, Cause, Death, ErrorKind, Result};
use crate::ids::{ContextId, Handle};
use crate::io::latch::Latch;
use crate::io::turn::Turn;
use crate::route::node::{Node, Outgoing};
use crate::route::pending::Deliver;
use crate::route::policy;
use crate::trace::{self, Level};
use crate::wire::codec::{Encode, Reader, Writer};
use crate::wire::frame::FrameBuf;
use crate::wire::header::Kind;
use crate::wire::message::Message;

/// The calls that wait for a context's thread.
#[derive(Default)]
pub(crate) struct Calls {
    queue: Latch<Message>,
    busy: AtomicBool,
}

impl Deliver for Calls {
    fn message(&self, _: &mut Turn, message: Message) {
        // After the end nobody runs it, and its caller learns of that end.
        let _ = self.queue.put(message);
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: Death) {
        self.queue.close();
    }
}

impl Calls {
    /// Listens for calls of those who have authority over this context.
    pub(crate) fn listen(node: &Arc<Node>) -> Result<Arc<Calls>> {
        let calls = Arc::new(Calls::default());
        node.listen(Handle::CALL, Kind::Call, policy::has_parent_authority, calls.clone())?;
        Ok(calls)
    }

    /// Whether a function runs, or waits to be run.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) || !self.queue.is_empty()
    }

    /// Runs calls until the context ends.
    pub(crate) fn serve(&self, router: &Router) {
        loop {
            match self.queue.get() {
                Ok(message) => {
                    self.busy.store(true, Ordering::Relaxed);
                    run(router, &message);
                    self.busy.store(false, Ordering::Relaxed);
                }
                Err(e) if matches!(e.kind(), ErrorKind::Closed(_)) => return,
                Err(_) => (),
            }
        }
    }
}

fn run(router: &Router, message: &Message) {
    let Some(handle) = message.reply_to else { return };
    let (payload, given) = answer(router, message);
    let (dst, auth) = (message.src, router.context_id());
    let out = Outgoing { kind: Kind::Reply, dst, auth, handle, reply_to: None };
    let Err(error) = router.node().send(&out, payload) else { return };
    if let Some(given) = given {
        given.take_back(None);
    }
    trace::event(Level::Debug, "an answer could not be sent", &[dst.0.into()]);
    if let ErrorKind::TooLarge { .. } = error.kind() {
        let death = Death::of(Cause::TooLarge).at(auth);
        if let Ok(payload) = FrameBuf::encode(None, |w| death.encode(w)) {
            // Who cannot be reached waits no longer.
            let _ = router.node().send(&Outgoing { kind: Kind::Dead, ..out }, payload);
        }
    }
}

/// The body of the answer to a call, and the Senders in it.
fn answer(router: &Router, message: &Message) -> (FrameBuf, Option<Given>) {
    let mut r = Reader::new(&message.data, None);
    let Ok(fingerprint) = r.take(8).map(|b| b.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    else {
        return (failed(&CallFailure::Arguments(String::new())), None);
    };
    match router.registry().find(fingerprint) {
        Found::Entry(entry) => serve(router, message, r.rest(), entry),
        Found::Unknown => (failed(&CallFailure::Unknown), None),
        Found::OtherSignature(entry) => {
            let there = entry.shape_text();
            (failed(&CallFailure::Signature { there, here: String::new() }), None)
        }
    }
}

fn serve(
    router: &Router,
    message: &Message,
    args: &[u8],
    entry: &Entry,
) -> (FrameBuf, Option<Given>) {
    let taken = Scope::from(router, message.src, message.auth);
    let given = Scope::to(router, message.src);
    let cx = CallContext::new(router, message.src);
    let mut failure = None;
    let body = catch_unwind(AssertUnwindSafe(|| {
        FrameBuf::encode(Some(&given), |w: &mut Writer<'_>| {
            let mut r = Reader::new(args, Some(&taken));
            failure = entry.serve(&cx, &mut r, w).err().map(|failure| *failure);
        })
    }));
    let body = match body {
        Ok(Ok(body)) => body,
        Ok(Err(malformed)) => {
            let why = CallFailure::Panic(malformed.0.to_owned());
            let body = failed(&why);
            failure = Some(why);
            body
        }
        Err(panic) => {
            let why = CallFailure::Panic(panic_text(&*panic));
            let body = failed(&why);
            failure = Some(why);
            body
        }
    };
    close_senders(&taken, failure.as_ref());
    let given = given.given();
    if failure.is_some() {
        given.take_back(None);
        return (body, None);
    }
    (body, Some(given))
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
        CallFailure::Error { chain, .. } => chain.join(": "),
        CallFailure::Panic(text) | CallFailure::Arguments(text) => text.clone(),
        CallFailure::Unknown | CallFailure::Signature { .. } => String::new(),
    }
}

fn failed(failure: &CallFailure) -> FrameBuf {
    FrameBuf::encode(None, |w| put_failed(failure, w)).unwrap_or_default()
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}
