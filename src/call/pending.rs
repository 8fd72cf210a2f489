//! What a caller waits for: the answer of a call.

use std::any::{Any, TypeId};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use crate::call::context::Context;
use crate::call::manner::sooner;
use crate::call::queue::{fingerprint_in, put_function};
use crate::call::reply::{ANSWER_FAILURE, ANSWER_NOT_BEGUN, ANSWER_VALUE};
use crate::call::router::{Router, WeakRouter};
use crate::call::scope::{Given, Scope};
use crate::call::source::{Source, Taken, Watchable, Watched};
use crate::call::token::{Alarm, Cancels};
use crate::error::{CallError, CallFailure, Cause, Death, Error, ErrorKind, Result};
use crate::ids::{ContextId, Handle};
use crate::io::broker::Broker;
use crate::io::latch::Latch;
use crate::io::turn::Turn;
use crate::route::node::{Outgoing, Payload};
use crate::route::pending::Deliver;
use crate::trace::Level;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Writer};
use crate::wire::frame::FrameBuf;
use crate::wire::header::{Kind, Lane};
use crate::wire::message::Message;

/// A call whose answer is on its way.
///
/// Dropping it before the answer is there cancels the call, as the end of its time does: a function
/// that has not begun never does, and one that runs can [see it](crate::CallContext::is_cancelled).
#[must_use = "dropping a Call cancels it; call_no_reply sends one without waiting"]
pub struct Call<R> {
    pending: Result<Pending>,
    value: PhantomData<fn() -> R>,
}

impl<R: Decode> Call<R> {
    pub(crate) fn new(pending: Result<Pending>) -> Call<R> {
        Call { pending, value: PhantomData }
    }

    /// Waits for the value.
    ///
    /// # Errors
    /// As [`Context::call`](crate::Context::call).
    pub fn get(self) -> Result<R> {
        self.get_until(None)
    }

    /// Waits for the value, for at most this long; the call is cancelled then.
    ///
    /// # Errors
    /// Also [`ErrorKind::Timeout`].
    pub fn get_timeout(self, timeout: Duration) -> Result<R> {
        self.get_until(Instant::now().checked_add(timeout))
    }

    fn get_until(self, deadline: Option<Instant>) -> Result<R> {
        let pending = self.pending?;
        let answer = pending.answer(deadline)?;
        value_of(&pending, answer)
    }
}

fn value_of<R: Decode>(pending: &Pending, answer: Answer) -> Result<R> {
    let message = pending.open(answer)?;
    value_in(&pending.router, &message)
        .map_err(|Malformed(why)| Error::new(ErrorKind::Malformed(why)))
}

impl<R> Watched for Call<R> {
    fn latch(&self) -> Option<&dyn Watchable> {
        self.pending.as_ref().ok().map(|pending| &pending.slot.answer as &dyn Watchable)
    }

    fn broker(&self) -> Option<Broker> {
        self.pending.as_ref().ok().map(|pending| pending.router.broker().clone())
    }

    fn begin(&self) {
        if let Ok(pending) = &self.pending {
            pending.set_alarm();
        }
    }
}

/// It yields the value, or why there is none.
impl<R: Decode> Source for Call<R> {
    type Item = R;

    fn take(&self) -> Taken<R> {
        let pending = match &self.pending {
            Ok(pending) => pending,
            Err(error) => return Taken::Last(Err(error.clone())),
        };
        match pending.slot.answer.try_get() {
            Ok(Some(answer)) => Taken::Last(value_of(pending, answer)),
            Ok(None) => Taken::Nothing,
            Err(error) => Taken::Last(Err(error)),
        }
    }
}

/// Drops the Senders in an answer that nobody takes.
pub(crate) type Discard = fn(&Router, &Message);

/// As [`Discard`], of a value of this type.
pub(crate) fn discard<R: Decode>(router: &Router, message: &Message) {
    // What is malformed holds nothing that could be let go.
    let _ = value_in::<R>(router, message);
}

fn value_in<R: Decode>(router: &Router, message: &Message) -> Result<R, Malformed> {
    let scope = Scope::from(router, message.src, message.auth);
    let mut r = Reader::new(&message.data[1..], Some(&scope));
    R::decode(&mut r).and_then(|value| r.finish().map(|()| value))
}

/// A call that was sent, its types forgotten.
pub(crate) struct Pending {
    router: Router,
    function: TypeId,
    handle: Handle,
    slot: Arc<Slot>,
    callee: ContextId,
    /// What tells a Select that its time is up, which no thread that waits there looks at.
    alarm: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// Where the one answer of a call arrives, whether somebody waits for it or not: it tells what
/// became of the Senders that went along.
struct Slot {
    answer: Latch<Answer>,
    /// Whether there is nothing left to cancel.
    answered: AtomicBool,
    /// When its time is up.
    until: Option<Instant>,
    router: WeakRouter,
    given: Given,
    discard: Discard,
    fingerprint: u64,
}

type Answer = Result<Message, Death>;

impl Slot {
    fn discard(&self, message: &Message) {
        if let (Some(&ANSWER_VALUE), Some(router)) = (message.data.first(), self.router.upgrade()) {
            (self.discard)(&router, message);
        }
    }
}

impl Deliver for Slot {
    fn message(&self, _: &mut Turn, message: Message) {
        self.answered.store(true, Ordering::Relaxed);
        self.given.take_back_unbegun(&message);
        if self.until.is_some_and(|until| until <= Instant::now()) {
            self.cancelled();
            return self.discard(&message);
        }
        if let Err(Ok(message)) = self.answer.offer(Ok(message)) {
            self.discard(&message);
        }
    }

    fn dead(&self, _: &mut Turn, _: ContextId, death: &Death) {
        self.answered.store(true, Ordering::Relaxed);
        self.given.take_back(Some(death));
        // A closed slot is one that nobody waits at any more.
        let _ = self.answer.put(Err(death.clone()));
    }

    fn describe(&self, _: usize, w: &mut Writer<'_>) {
        let is_dropped = self.answer.is_closed();
        w.put_u8(1 + u8::from(is_dropped));
        put_function(self.fingerprint, w);
    }
}

/// Ends the wait for a call that is part of one which was cancelled.
impl Cancels for Slot {
    fn cancelled(&self) {
        // A closed slot is one that nobody waits at any more.
        let _ = self.answer.put(Err(Death::of(Cause::Cancelled)));
    }
}

impl Pending {
    pub(crate) fn new(
        context: &Context,
        function: TypeId,
        given: Given,
        discard: Discard,
        payload: &[u8],
    ) -> Result<Pending> {
        let (bytes, fingerprint) = (payload.len(), fingerprint_in(payload));
        let (router, callee) = (context.router().clone(), context.context_id());
        let until = context.manner().and_then(|manner| manner.until);
        let (answer, answered, weak) = (Latch::new(), AtomicBool::new(false), router.downgrade());
        let slot =
            Arc::new(Slot { answer, answered, until, router: weak, given, discard, fingerprint });
        let handle = router.node().listen_for_call(callee, bytes, slot.clone(), until);
        let handle = handle.inspect_err(|_| slot.given.take_back(None))?;
        if let Some(token) = context.manner().and_then(|manner| manner.token.as_ref()) {
            let slot: Weak<Slot> = Arc::downgrade(&slot);
            token.listen(slot);
        }
        Ok(Pending { router, function, handle, slot, callee, alarm: OnceLock::new() })
    }

    fn set_alarm(&self) {
        let Some(until) = self.slot.until else { return };
        let (alarm, slot) = (Alarm::new(self.router.broker()), Arc::downgrade(&self.slot));
        let ring = move |_: &mut Turn| {
            if let Some(slot) = slot.upgrade() {
                slot.cancelled();
            }
        };
        alarm.set(until, Box::new(ring));
        self.alarm.get_or_init(|| Box::new(alarm));
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle
    }

    /// The call could not be sent.
    pub(crate) fn unsent(self) {
        self.slot.answered.store(true, Ordering::Relaxed);
        self.router.node().unlisten(self.handle);
        self.slot.given.take_back(None);
    }

    fn answer(&self, deadline: Option<Instant>) -> Result<Answer> {
        self.router.broker().forbid_copy()?;
        self.router.broker().wait(&self.slot.answer, sooner(deadline, self.slot.until))
    }

    /// The body of a value: its first byte is `ANSWER_VALUE`.
    fn open(&self, answer: Answer) -> Result<Message> {
        let message = answer.map_err(|death| self.death(death))?;
        match (message.data.first(), failure_in(&message)) {
            (Some(&ANSWER_VALUE), _) => Ok(message),
            (Some(&ANSWER_FAILURE), Some(failure)) => Err(self.failure(failure)),
            (Some(&ANSWER_NOT_BEGUN), Some(failure)) => {
                Err(CallError { function: EARLIER.to_owned(), failure }.into())
            }
            (Some(&(ANSWER_FAILURE | ANSWER_NOT_BEGUN)), None) if message.data.len() == 1 => {
                Err(self.death(Death::of(Cause::Cancelled).at(message.src)))
            }
            _ => Err(Error::new(ErrorKind::Malformed("an answer of no kind"))),
        }
    }

    /// Where its time is up, the callee may have said so first.
    fn death(&self, death: Death) -> Error {
        match (death.cause, self.slot.until) {
            (Cause::Cancelled, Some(until)) if until <= Instant::now() => {
                Error::new(ErrorKind::Timeout)
            }
            _ => death.into(),
        }
    }

    fn failure(&self, failure: CallFailure) -> Error {
        let entry = self.router.registry().find_local(self.function);
        let failure = match (failure, entry) {
            (CallFailure::Signature { there, .. }, Some(entry)) => {
                CallFailure::Signature { there, here: entry.shape_text() }
            }
            (failure, _) => failure,
        };
        let function = entry.map(|entry| entry.name()).unwrap_or_default().to_owned();
        CallError { function, failure }.into()
    }
}

/// The answer is still listened for, for the sake of the Senders that went along or come with it.
impl Drop for Pending {
    fn drop(&mut self) {
        if self.router.broker().is_copy() {
            return;
        }
        let unread = self.slot.answer.close_and_take().into_iter().flatten();
        unread.flatten().for_each(|message| self.slot.discard(&message));
        if !self.slot.answered.load(Ordering::Relaxed) {
            let (dst, auth, handle) = (self.callee, self.router.context_id(), Handle::CANCEL);
            let out = Outgoing { kind: Kind::Control, dst, auth, handle, reply_to: None };
            // Behind the call, whichever way that took.
            tell_callee(&self.router, &out, Lane::Bulk, &|w| self.handle.encode(w));
        }
    }
}

/// Says something small to who was called. Never sleeps.
pub(crate) fn tell_callee(router: &Router, out: &Outgoing, lane: Lane, what: Payload<'_>) {
    let node = router.node();
    // Who is gone need not be told.
    if out.dst != node.id() {
        node.tell(out, lane, what);
    } else if let Ok(payload) = FrameBuf::encode(None, what) {
        let _ = node.send(out, payload);
    }
}

/// Takes the answer of a call that nobody waits for.
pub(crate) struct Unawaited {
    pub(crate) router: WeakRouter,
    pub(crate) given: Given,
    pub(crate) discard: Discard,
    pub(crate) fingerprint: u64,
}

impl Deliver for Unawaited {
    fn message(&self, _: &mut Turn, message: Message) {
        if let (Some(&ANSWER_VALUE), Some(router)) = (message.data.first(), self.router.upgrade()) {
            return (self.discard)(&router, &message);
        }
        self.complain("a call without reply failed in", message.src);
        self.given.take_back_unbegun(&message);
    }

    fn dead(&self, _: &mut Turn, from: ContextId, death: &Death) {
        self.complain("a call without reply was lost with", from);
        self.given.take_back(Some(death));
    }

    fn describe(&self, _: usize, w: &mut Writer<'_>) {
        w.put_u8(2);
        put_function(self.fingerprint, w);
    }
}

impl Unawaited {
    fn complain(&self, what: &'static str, callee: ContextId) {
        if let Some(router) = self.router.upgrade() {
            router.node().event(Level::Warn, what, &[callee.0.into()]);
        }
    }
}

impl Given {
    /// Takes them back if the function was not run.
    fn take_back_unbegun(&self, message: &Message) {
        let failure = failure_in(message);
        let cause = match (message.data.first(), &failure) {
            (Some(&ANSWER_NOT_BEGUN), None) => Cause::Cancelled,
            (Some(&ANSWER_NOT_BEGUN), _) => Cause::Failed,
            (_, Some(CallFailure::Unknown | CallFailure::Signature { .. })) => Cause::Failed,
            _ => return,
        };
        self.take_back(Some(&Death::of(cause).at(message.src)));
    }
}

/// The failure that an answer tells, if it tells a readable one.
fn failure_in(message: &Message) -> Option<CallFailure> {
    let (&(ANSWER_FAILURE | ANSWER_NOT_BEGUN), rest) = message.data.split_first()? else {
        return None;
    };
    CallFailure::decode(&mut Reader::new(rest, None)).ok()
}

/// What is said in place of the name of a function that failed before in a chain.
const EARLIER: &str = "an earlier call of the chain";
