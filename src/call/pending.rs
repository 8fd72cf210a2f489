//! What a caller waits for: the answer of a call, the end of a context.

use std::any::TypeId;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::call::reply::{ANSWER_FAILURE, ANSWER_VALUE};
use crate::call::router::Router;
use crate::call::scope::{Given, Scope};
use crate::error::{CallError, CallFailure, Death, Error, ErrorKind, Result};
use crate::ids::{ContextId, Handle};
use crate::io::latch::Latch;
use crate::io::turn::Turn;
use crate::route::node::Node;
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
        let message = pending.answer(deadline)?;
        let scope = Scope::from(&pending.router, message.src, message.auth);
        let mut r = Reader::new(&message.data[1..], Some(&scope));
        let value = R::decode(&mut r).and_then(|value| r.finish().map(|()| value));
        value.map_err(|Malformed(why)| Error::new(ErrorKind::Malformed(why)))
    }
}

/// A call that was sent, its types forgotten.
pub(crate) struct Pending {
    router: Router,
    given: Given,
    function: TypeId,
    handle: Handle,
    slot: Arc<Slot>,
}

/// Where the one answer of a call arrives.
type Slot = Latch<Result<Message, Death>>;

impl Deliver for Slot {
    fn message(&self, _: &mut Turn, message: Message) {
        // A closed slot is one that nobody waits at any more.
        let _ = self.put(Ok(message));
    }

    fn dead(&self, _: &mut Turn, _: ContextId, death: Death) {
        // As above.
        let _ = self.put(Err(death));
    }
}

impl Pending {
    pub(crate) fn new(
        router: &Router,
        callee: ContextId,
        function: TypeId,
        given: Given,
    ) -> Result<Pending> {
        let slot = Arc::new(Slot::new());
        let handle = router.node().listen_for_answer(callee, slot.clone())?;
        Ok(Pending { router: router.clone(), given, function, handle, slot })
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle
    }

    /// The call could not be sent.
    pub(crate) fn unsent(self) {
        self.given.take_back();
    }

    /// Waits for the body of a value: its first byte is `ANSWER_VALUE`.
    fn answer(&self, deadline: Option<Instant>) -> Result<Message> {
        let message = match self.slot.get_until(deadline)? {
            Ok(message) => message,
            Err(death) => {
                self.given.take_back();
                return Err(death.into());
            }
        };
        match message.data.first() {
            Some(&ANSWER_VALUE) => Ok(message),
            Some(&ANSWER_FAILURE) => Err(self.failure(&message)),
            _ => Err(Error::new(ErrorKind::Malformed("an answer of no kind"))),
        }
    }

    fn failure(&self, message: &Message) -> Error {
        let failure = match failure_in(message) {
            Ok(failure) => failure,
            Err(error) => return error,
        };
        let entry = self.router.registry().find_local(self.function);
        let failure = match (failure, entry) {
            (CallFailure::Signature { there, .. }, Some(entry)) => {
                self.given.take_back();
                CallFailure::Signature { there, here: entry.shape_text() }
            }
            (CallFailure::Unknown, _) => {
                self.given.take_back();
                CallFailure::Unknown
            }
            (failure, _) => failure,
        };
        let function = entry.map(|entry| entry.name()).unwrap_or_default().to_owned();
        CallError { function, failure }.into()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.router.node().unlisten(self.handle);
    }
}

/// Takes the answer of a call that nobody waits for.
pub(crate) struct Unawaited(pub(crate) Given);

impl Deliver for Unawaited {
    fn message(&self, _: &mut Turn, message: Message) {
        let Some(&ANSWER_FAILURE) = message.data.first() else { return };
        trace::event(Level::Warn, "a call without reply failed in", &[message.src.0.into()]);
        if let Ok(CallFailure::Unknown | CallFailure::Signature { .. }) = failure_in(&message) {
            self.0.take_back();
        }
    }

    fn dead(&self, _: &mut Turn, from: ContextId, _: Death) {
        trace::event(Level::Warn, "a call without reply was lost with", &[from.0.into()]);
        self.0.take_back();
    }
}

fn failure_in(message: &Message) -> Result<CallFailure> {
    CallFailure::decode(&mut Reader::new(&message.data[1..], None))
        .map_err(|Malformed(why)| Error::new(ErrorKind::Malformed(why)))
}

/// Waits for the end of a context.
pub(crate) struct Ended {
    node: Arc<Node>,
    handle: Handle,
    slot: Arc<Slot>,
}

impl Ended {
    pub(crate) fn watch(node: &Arc<Node>, id: ContextId) -> Result<Ended> {
        let slot = Arc::new(Slot::new());
        let handle = node.listen_for_answer(id, slot.clone())?;
        Ok(Ended { node: node.clone(), handle, slot })
    }

    pub(crate) fn wait(&self, timeout: Duration) -> Result<()> {
        self.slot.get_timeout(timeout).map(drop)
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.node.unlisten(self.handle);
    }
}
