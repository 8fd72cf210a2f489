//! What a caller waits for: the answer of a call.

use std::any::TypeId;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::call::reply::{ANSWER_FAILURE, ANSWER_VALUE};
use crate::call::router::{Router, WeakRouter};
use crate::call::scope::{Given, Scope};
use crate::call::source::{Source, Taken, Watchable, Watched};
use crate::error::{CallError, CallFailure, Cause, Death, Error, ErrorKind, Result};
use crate::ids::{ContextId, Handle};
use crate::io::broker::Broker;
use crate::io::latch::Latch;
use crate::io::turn::Turn;
use crate::route::pending::Deliver;
use crate::trace::{self, Level};
use crate::wire::codec::{Decode, Malformed, Reader};
use crate::wire::message::Message;

/// A call whose answer is on its way. Dropping it cancels the wait; the function runs all the same.
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
}

/// Where the one answer of a call arrives, whether somebody waits for it or not: it tells what
/// became of the Senders that went along.
struct Slot {
    answer: Latch<Answer>,
    router: WeakRouter,
    given: Given,
    discard: Discard,
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
        self.given.take_back_unknown(&message);
        if self.answer.is_closed() {
            return self.discard(&message);
        }
        // Closed in this moment: as if it were lost.
        let _ = self.answer.put(Ok(message));
    }

    fn dead(&self, _: &mut Turn, _: ContextId, death: &Death) {
        self.given.take_back(Some(death));
        // A closed slot is one that nobody waits at any more.
        let _ = self.answer.put(Err(death.clone()));
    }
}

impl Pending {
    pub(crate) fn new(
        router: &Router,
        callee: ContextId,
        function: TypeId,
        given: Given,
        discard: Discard,
    ) -> Result<Pending> {
        let (answer, weak) = (Latch::new(), router.downgrade());
        let slot = Arc::new(Slot { answer, router: weak, given, discard });
        let handle = router.node().listen_for_answer(callee, slot.clone());
        let handle = handle.inspect_err(|_| slot.given.take_back(None))?;
        Ok(Pending { router: router.clone(), function, handle, slot })
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle
    }

    /// The call could not be sent.
    pub(crate) fn unsent(self) {
        self.router.node().unlisten(self.handle);
        self.slot.given.take_back(None);
    }

    fn answer(&self, deadline: Option<Instant>) -> Result<Answer> {
        self.router.broker().forbid_copy()?;
        self.router.broker().wait(&self.slot.answer, deadline)
    }

    /// The body of a value: its first byte is `ANSWER_VALUE`.
    fn open(&self, answer: Answer) -> Result<Message> {
        let message = answer?;
        match (message.data.first(), failure_in(&message)) {
            (Some(&ANSWER_VALUE), _) => Ok(message),
            (_, Some(failure)) => Err(self.failure(failure)),
            _ => Err(Error::new(ErrorKind::Malformed("an answer of no kind"))),
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
        let unread = self.slot.answer.try_get();
        self.slot.answer.close();
        if let Ok(Some(Ok(message))) = unread {
            self.slot.discard(&message);
        }
    }
}

/// Takes the answer of a call that nobody waits for.
pub(crate) struct Unawaited {
    pub(crate) router: WeakRouter,
    pub(crate) given: Given,
    pub(crate) discard: Discard,
}

impl Deliver for Unawaited {
    fn message(&self, _: &mut Turn, message: Message) {
        if let (Some(&ANSWER_VALUE), Some(router)) = (message.data.first(), self.router.upgrade()) {
            return (self.discard)(&router, &message);
        }
        trace::event(Level::Warn, "a call without reply failed in", &[message.src.0.into()]);
        self.given.take_back_unknown(&message);
    }

    fn dead(&self, _: &mut Turn, from: ContextId, death: &Death) {
        trace::event(Level::Warn, "a call without reply was lost with", &[from.0.into()]);
        self.given.take_back(Some(death));
    }
}

impl Given {
    /// Takes them back if the function was not run.
    fn take_back_unknown(&self, message: &Message) {
        if let Some(CallFailure::Unknown | CallFailure::Signature { .. }) = failure_in(message) {
            self.take_back(Some(&Death::of(Cause::Failed).at(message.src)));
        }
    }
}

/// The failure that an answer tells, if it tells a readable one.
fn failure_in(message: &Message) -> Option<CallFailure> {
    let (&ANSWER_FAILURE, rest) = message.data.split_first()? else { return None };
    CallFailure::decode(&mut Reader::new(rest, None)).ok()
}
