//! Runs the functions that others call, in the order that the calls arrived: one at a time, or as
//! many as there are threads that serve.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::call::call_context::CallContext;
use crate::call::panics;
use crate::call::queue::{Arrived, Queue, key};
use crate::call::registry::{Found, put_failed};
use crate::call::reply::{ANSWER_FAILURE, ANSWER_NOT_BEGUN};
use crate::call::router::Router;
use crate::call::scope::Scope;
use crate::call::token::Token;
use crate::error::{CallFailure, Cause, Death, ErrorKind, Result};
use crate::ids::{ContextId, Handle};
use crate::io::latch::Latch;
use crate::io::turn::Turn;
use crate::lock::Lock;
use crate::route::node::{Node, Outgoing, Payload};
use crate::route::pending::Deliver;
use crate::route::policy;
use crate::trace::Level;
use crate::wire::codec::{Decode, Encode, Reader, Writer};
use crate::wire::frame::FrameBuf;
use crate::wire::header::Kind;
use crate::wire::message::Message;

type Answer = Result<FrameBuf, Box<CallFailure>>;

/// The calls of a context, and the threads that run them.
pub(crate) struct Calls {
    node: Arc<Node>,
    queue: Lock<Queue>,
    /// An item for each thread that is woken.
    ready: Latch<()>,
    /// Writes out what functions have printed.
    flush: Option<fn()>,
}

impl Deliver for Calls {
    fn message(&self, _: &mut Turn, message: Message) {
        if message.handle == Handle::CANCEL {
            return self.cancel(&message);
        }
        if self.queue.lock().push(Arrived::new(message)) {
            // After the end nobody runs it, and its caller learns of that end.
            let _ = self.ready.put(());
        }
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {
        self.ready.close();
        self.queue.lock().close();
        let give_up = || self.queue.lock().give_up();
        while let Some(token) = give_up() {
            token.cancel();
        }
    }

    fn lost(&self, _: &mut Turn, id: ContextId, _: &Death) {
        self.queue.lock().forget(key(id, 0), key(id, u32::MAX));
    }

    fn describe(&self, max: usize, w: &mut Writer<'_>) {
        self.queue.lock().describe(max, w);
    }

    fn is_behind(&self) -> bool {
        self.queue.lock().has_next()
    }
}

impl Calls {
    /// Listens for calls of those who have authority over this context.
    pub(crate) fn listen(node: &Arc<Node>, flush: Option<fn()>) -> Result<Arc<Calls>> {
        let (queue, ready) = (Lock::default(), Latch::new());
        let calls = Arc::new(Calls { node: node.clone(), queue, ready, flush });
        node.listen(Handle::CALL, Kind::Call, policy::has_parent_authority, calls.clone())?;
        // Who may is who called.
        node.listen(Handle::CANCEL, Kind::Control, policy::anyone, calls.clone())?;
        Ok(calls)
    }

    /// Whether a function runs, or waits to be run; or what comes before the first.
    pub(crate) fn is_busy(&self) -> bool {
        self.queue.lock().is_busy(self.threads() as usize)
    }

    /// Has the functions that run see that they are to end; what they answer is sent.
    pub(crate) fn end(&self) {
        let running = self.queue.lock().all_running();
        running.iter().for_each(|token| token.end());
    }

    /// How many threads are to run them.
    pub(crate) fn threads(&self) -> u32 {
        self.node.identity().threads
    }

    /// Runs calls until the context ends. Several threads may.
    pub(crate) fn serve(&self, router: &Router) {
        let mut token = Arc::default();
        while let Some(call) = self.next(router, &token) {
            self.run(router, &call, &token);
            drop(call);
            self.queue.lock().ended(&token);
            // One that nobody has kept or used serves again.
            if Arc::get_mut(&mut token).is_none_or(|token| !token.is_new()) {
                token = Arc::default();
            }
        }
    }

    fn next(&self, router: &Router, token: &Arc<Token>) -> Option<Arrived> {
        let mut woken = None;
        loop {
            {
                let mut queue = self.queue.lock();
                if let Some(woken) = woken {
                    queue.wakes(woken);
                }
                let taken = queue.take(token);
                if taken.is_some() {
                    return taken;
                }
                queue.sleeps();
            }
            let waited = router.broker().wait(&self.ready, None);
            woken = Some(waited.is_ok());
            if waited.is_err_and(|e| matches!(e.kind(), ErrorKind::Closed(_))) {
                return None;
            }
        }
    }

    /// A caller says that it waits for a call no longer.
    fn cancel(&self, message: &Message) {
        let Ok(handle) = Handle::decode(&mut Reader::new(&message.data, None)) else { return };
        let key = key(message.src, handle.0);
        let mut queue = self.queue.lock();
        let token = queue.running(key);
        let call = if token.is_none() { queue.remove(key) } else { None };
        drop(queue);
        if let Some(token) = token {
            token.cancel();
        }
        if let Some(call) = call {
            self.refuse(&call);
        }
    }

    /// Answers a call that is cancelled before it has begun.
    fn refuse(&self, call: &Arrived) {
        self.queue.lock().fail(call.chain, None);
        self.answer(call, failed(ANSWER_NOT_BEGUN, None));
    }

    fn answer(&self, call: &Arrived, answer: FrameBuf) {
        // Who cannot be reached waits no longer.
        let _ = self.try_answer(call, Kind::Reply, answer);
    }

    fn try_answer(&self, call: &Arrived, kind: Kind, answer: FrameBuf) -> Result<()> {
        let Some(handle) = call.message.reply_to else { return Ok(()) };
        let (dst, auth) = (call.caller(), self.node.id());
        self.node.send(&Outgoing { kind, dst, auth, handle, reply_to: None }, answer)
    }

    /// Writes out what was printed, unless another function runs: one that prints more than is
    /// taken keeps the lock for that, and must not hold up the answers of others.
    fn flush_printed(&self, token: &Arc<Token>) {
        if let Some(flush) = self.flush {
            if self.queue.lock().returned(token) {
                flush();
            }
        }
    }

    /// Runs a call, or answers why not.
    fn run(&self, router: &Router, call: &Arrived, token: &Arc<Token>) {
        if call.message.reply_to.is_none() {
            return self.queue.lock().forget(call.chain, call.chain);
        }
        if call.chain != 0 {
            let queue = self.queue.lock();
            let refusal = queue.failure(call.chain).map(|why| failed(ANSWER_NOT_BEGUN, why));
            drop(queue);
            if let Some(refusal) = refusal {
                return self.answer(call, refusal);
            }
        }
        if call.is_late() {
            return self.refuse(call);
        }
        let taken = Scope::from(router, call.caller(), call.message.auth);
        let given = Scope::to(router, call.caller());
        let answer = answer(router, call, token, &taken, &given);
        self.flush_printed(token);
        close_senders(router, &taken, answer.as_ref().err().map(|failure| &**failure));
        let (given, has_failed) = (given.given(), answer.is_err() || token.is_given_up());
        let answer = match answer {
            Ok(value) if !has_failed => value,
            other => {
                let failure = other.err();
                let answer = failed(ANSWER_FAILURE, failure.as_deref());
                if call.chain != 0 {
                    self.queue.lock().fail(call.chain, failure);
                }
                answer
            }
        };
        if has_failed {
            given.take_back(None);
        }
        let Err(error) = self.try_answer(call, Kind::Reply, answer) else { return };
        if !has_failed {
            given.take_back(None);
        }
        self.node.event(Level::Debug, "an answer could not be sent", &[call.caller().0.into()]);
        if let ErrorKind::TooLarge { .. } = error.kind() {
            let death = Death::of(Cause::TooLarge).at(self.node.id());
            let dead: Payload<'_> = &|w| death.encode(w);
            if let Ok(payload) = FrameBuf::encode(None, dead) {
                // Who cannot be reached waits no longer.
                let _ = self.try_answer(call, Kind::Dead, payload);
            }
        }
    }
}

/// The body of the answer to a call that failed so, or that was cancelled.
fn failed(kind: u8, failure: Option<&CallFailure>) -> FrameBuf {
    let body = FrameBuf::encode(None, |w| put_failed(kind, failure, w));
    body.unwrap_or_default()
}

/// The body of the answer to a call that succeeds.
fn answer(
    router: &Router,
    call: &Arrived,
    token: &Arc<Token>,
    taken: &Scope,
    given: &Scope,
) -> Answer {
    if call.args_at == 0 {
        return Err(Box::new(CallFailure::Arguments(String::new())));
    }
    let entry = match router.registry().find(call.fingerprint()) {
        Found::Entry(entry) => entry,
        Found::Unknown => return Err(Box::new(CallFailure::Unknown)),
        Found::OtherSignature(entry) => {
            let there = entry.shape_text();
            return Err(Box::new(CallFailure::Signature { there, here: String::new() }));
        }
    };
    let mut r = Reader::new(&call.message.data[call.args_at..], Some(taken));
    let cx = CallContext::new(router, call.caller(), call.until, token);
    let mut outcome = Ok(());
    let body = catch_unwind(AssertUnwindSafe(|| {
        FrameBuf::encode(Some(given), |w: &mut Writer<'_>| outcome = entry.serve(&cx, &mut r, w))
    }));
    let why = match body {
        Ok(Ok(body)) => return outcome.map(|()| body),
        Ok(Err(malformed)) => malformed.0.to_owned(),
        Err(panic) => panics::text(&*panic),
    };
    Err(Box::new(CallFailure::Panic(why)))
}

/// Drops the Senders that came with a call; those of a failed one tell their Receivers so.
fn close_senders(router: &Router, scope: &Scope, failure: Option<&CallFailure>) {
    let taken = scope.taken();
    let Some(failure) = failure else { return };
    router.node().event(Level::Warn, "a function failed", &[]);
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
