//! The other end of a stream, which any context may hold: what is sent there waits for room.

use std::fmt::Display;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::call::arguments::Sends;
use crate::call::holders::{self};
use crate::call::reply::Reply;
use crate::call::router::Router;
use crate::call::scope::Scope;
use crate::error::{CallFailure, Cause, Death, Error, ErrorKind, Result};
use crate::ids::{ContextId, Handle};
use crate::lock::Lock;
use crate::route::node::{Outgoing, Payload};
use crate::route::pending::Gift;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Shape, Writer};
use crate::wire::frame::FrameBuf;
use crate::wire::header::Kind;

/// Sends values to a [`Receiver`](crate::Receiver), from any context. Cheap to clone; when the last
/// clone in a context is dropped, its Receiver is told: that closes it, or [`Sender::fail`] does.
pub struct Sender<T> {
    core: Arc<SenderCore>,
    value: PhantomData<fn(T)>,
}

impl<T: Decode> Reply for Sender<T> {
    type Value = Self;

    fn into_reply(self) -> Result<Self, CallFailure> {
        Ok(self)
    }
}

/// One context's share in a Sender: what its clones have in common.
pub(crate) struct SenderCore {
    router: Router,
    owner: ContextId,
    handle: Handle,
    auth: ContextId,
    failed: Lock<Option<Death>>,
}

impl SenderCore {
    pub(crate) fn new(
        router: &Router,
        owner: ContextId,
        handle: Handle,
        auth: ContextId,
    ) -> Arc<SenderCore> {
        if owner != router.context_id() {
            router.node().open_room(owner, handle);
        }
        Arc::new(SenderCore {
            router: router.clone(),
            owner,
            handle,
            auth,
            failed: Lock::new(None),
        })
    }

    /// The Receiver's end is to carry this reason.
    pub(crate) fn fail(&self, death: Death) {
        let mut failed = self.failed.lock();
        // The first reason is the one that counts.
        failed.get_or_insert(death);
    }

    fn send(&self, encode: &dyn Fn(&mut Writer<'_>), deadline: Option<Instant>) -> Result<()> {
        let node = self.router.node();
        node.broker().forbid_own_thread()?;
        let listener = || node.listener(self.handle, Kind::Data);
        if self.owner == node.id() && listener().is_none_or(|to| to.is_closed()) {
            return Err(self.without_receiver());
        }
        let scope = Scope::to(&self.router, self.owner);
        let payload = FrameBuf::encode(Some(&scope), encode);
        let given = scope.given();
        let sent = match payload {
            Ok(payload) => node.send_until(&self.outgoing(Kind::Data), payload, deadline),
            Err(Malformed(why)) => Err(Error::usage(why)),
        };
        if sent.is_err() {
            given.take_back(None);
        }
        sent
    }

    /// Why nobody listens here.
    fn without_receiver(&self) -> Error {
        let node = self.router.node();
        match node.is_closed() {
            true => node.broker().death(Cause::Shutdown).into(),
            false => Error::closed(Cause::ReceiverClosed),
        }
    }

    fn outgoing(&self, kind: Kind) -> Outgoing {
        Outgoing { kind, dst: self.owner, auth: self.auth, handle: self.handle, reply_to: None }
    }
}

/// Tells the Receiver, behind all that was sent. Never sleeps.
impl Drop for SenderCore {
    fn drop(&mut self) {
        let death = self.failed.own().take();
        let death = death.unwrap_or_else(|| Death::of(Cause::SenderClosed));
        let (out, node) = (self.outgoing(Kind::Dead), self.router.node());
        if self.owner == node.id() {
            let dead: Payload<'_> = &|w| death.encode(w);
            if let Ok(payload) = FrameBuf::encode(None, dead) {
                // After the end there is nobody to tell.
                let _ = node.send(&out, payload);
            }
            return;
        }
        let lane = node.lane(self.owner, self.handle);
        node.tell(&out, lane, &|w| death.encode(w));
        node.forget_room(self.owner, self.handle);
    }
}

impl<T> Sender<T> {
    pub(crate) fn of(core: Arc<SenderCore>) -> Sender<T> {
        Sender { core, value: PhantomData }
    }

    pub(crate) fn core(&self) -> &SenderCore {
        &self.core
    }

    pub(crate) fn router(&self) -> &Router {
        &self.core.router
    }

    /// Sends one value. Sleeps while the receiver has no room.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the receiver is closed or its context gone,
    /// [`ErrorKind::TooLarge`]; [`ErrorKind::Interrupted`] after a signal, and nothing was sent.
    pub fn send(&self, value: impl Sends<T>) -> Result<()> {
        self.core.send(&|w| value.encode_as(w), None)
    }

    /// As [`Sender::send`], if there is room within this time. A value of more than 16 KiB that
    /// has begun to travel by then is finished, however long that takes.
    ///
    /// # Errors
    /// Also [`ErrorKind::Timeout`]: nothing was sent.
    pub fn send_timeout(&self, value: impl Sends<T>, timeout: Duration) -> Result<()> {
        self.core.send(&|w| value.encode_as(w), Instant::now().checked_add(timeout))
    }

    /// Sends one value if there is room for it now. Returns whether it did; nothing was sent if
    /// not. Of a value of more than 16 KiB the first 16 find room, and the rest is waited for.
    ///
    /// # Errors
    /// As for [`Sender::send`].
    pub fn try_send(&self, value: impl Sends<T>) -> Result<bool> {
        match self.core.send(&|w| value.encode_as(w), Some(Instant::now())) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::Timeout) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Drops this clone, and says why there is no more: once the last clone in this context is
    /// dropped, the Receiver yields, behind all that was sent, an error of [`Cause::Failed`] with
    /// this reason. The first reason counts.
    ///
    /// ```
    /// use mitogen::{Program, Sender, error::ErrorKind};
    ///
    /// fn count(to: u32, out: Sender<u32>) -> mitogen::Result<()> {
    ///     (0..to).try_for_each(|i| out.send(i))?;
    ///     out.fail("that is all I know");
    ///     Ok(())
    /// }
    ///
    /// # fn main() -> mitogen::Result<()> {
    /// let router = Program::new().function(count).router()?;
    /// let numbers = router.receiver();
    /// router.in_process()?.call_no_reply(count, (2, numbers.to_sender()))?;
    /// assert_eq!((numbers.get()?, numbers.get()?), (0, 1));
    /// let error = numbers.get().unwrap_err();
    /// let ErrorKind::Closed(why) = error.kind() else { panic!("{error}") };
    /// assert_eq!(why.tail, "that is all I know");
    /// # Ok(()) }
    /// ```
    pub fn fail(self, reason: impl Display) {
        self.core.fail(Death { tail: reason.to_string(), ..Death::of(Cause::Failed) });
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender::of(self.core.clone())
    }
}

impl<T: Decode> Encode for Sender<T> {
    fn encode(&self, w: &mut Writer<'_>) {
        let Some(scope) = w.scope::<Scope>() else {
            return w.fail("a Sender travels only in calls and channels");
        };
        if !scope.router.same_tree(&self.core.router) {
            return w.fail("a Sender of another tree cannot be sent through this one");
        }
        let (owner, handle) = (self.core.owner, self.core.handle);
        holders::tell(self.core.router.node(), owner, handle, scope.peer, Gift::Given);
        scope.give(owner, handle);
        owner.encode(w);
        handle.encode(w);
    }
}

impl<T: Decode> Decode for Sender<T> {
    fn decode(r: &mut Reader<'_>) -> Result<Sender<T>, Malformed> {
        let scope = r.scope::<Scope>().ok_or(Malformed("a Sender outside a call or channel"))?;
        let (owner, handle) = (ContextId::decode(r)?, Handle::decode(r)?);
        if handle < Handle::FIRST_RANDOM || handle.is_well_known() {
            return Err(Malformed("a Sender to a handle that is no Receiver's"));
        }
        if owner != scope.peer {
            holders::tell(scope.router.node(), owner, handle, scope.peer, Gift::Taken);
        }
        // A Receiver goes by who holds its Senders. Below us we are believed to be anybody, and so
        // are who gave it; beyond us nobody would believe that.
        let node = scope.router.node();
        let is_below = owner == node.id() || node.parent_of(owner).is_some();
        let auth = if is_below { scope.auth } else { node.id() };
        let core = SenderCore::new(&scope.router, owner, handle, auth);
        scope.take(&core);
        Ok(Sender::of(core))
    }

    fn shape(s: &mut Shape) {
        s.word("sender");
        T::shape(s);
    }
}
