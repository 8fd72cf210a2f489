//! Streams of values of one type: a Receiver stays, its Senders travel.

#[cfg(test)]
mod tests;

use std::marker::PhantomData;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use crate::call::arguments::Sends;
use crate::call::holders::{self, End, Holders};
use crate::call::reply::Reply;
use crate::call::room::Rooms;
use crate::call::router::Router;
use crate::call::scope::Scope;
use crate::error::{CallFailure, Cause, Death, Error, ErrorKind, Result};
use crate::ids::{ContextId, Handle};
use crate::io::latch::Latch;
use crate::io::turn::Turn;
use crate::lock::{Held, Lock};
use crate::route::credit::is_out_of_reach;
use crate::route::node::{Node, Outgoing, Payload};
use crate::route::pending::{Deliver, Gift};
use crate::route::send::room_of;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Shape, Writer};
use crate::wire::frame::FrameBuf;
use crate::wire::header::Kind;
use crate::wire::message::Message;

/// Where values arrive that any holder of a [`Sender`] sends.
///
/// It ends when the last Sender, wherever it is, was dropped or has died with its context. Dropping
/// it fails every later send.
///
/// # Resources
/// At most 64 KiB of each sending context wait in it, or one message that is larger.
pub struct Receiver<T> {
    router: Router,
    core: Arc<Core>,
    /// Drops the Senders in what nobody has taken.
    discard: fn(&Router, &Message),
    value: PhantomData<fn() -> T>,
}

struct Core {
    me: ContextId,
    /// Where it listens, or why it could not begin to.
    handle: OnceLock<Handle>,
    queue: Latch<Item>,
    holders: Lock<Holders>,
    node: Weak<Node>,
    rooms: Rooms,
}

enum Item {
    Data(Message),
    End(End),
}

impl Core {
    fn holders(&self) -> Held<'_, Holders> {
        self.holders.lock()
    }

    fn end(&self, end: Option<End>) {
        if let Some(end) = end {
            // A closed receiver needs no end.
            let _ = self.queue.put(Item::End(end));
        }
    }

    fn shut(&self, why: Death) {
        let end = self.holders().shut(why);
        self.end(Some(end));
    }
}

impl Deliver for Core {
    fn message(&self, _: &mut Turn, message: Message) {
        let (src, handle) = (message.src, message.handle);
        if src != self.me && !self.holders().is_held_by(src) {
            // Who has only guessed the handle learns nothing, not even that it was right.
            return self.end_room(src, handle, &Death::of(Cause::ReceiverClosed));
        }
        if !self.rooms.enters(src, room_of(&message.data)) {
            return self.cut_off(src, handle);
        }
        // What comes to a closed receiver is dropped; its sender was told.
        let _ = self.queue.put(Item::Data(message));
    }

    fn dead(&self, _: &mut Turn, from: ContextId, death: &Death) {
        // What a Sender of this context says of itself is one of these two.
        if from == self.me && !matches!(death.cause, Cause::SenderClosed | Cause::Failed) {
            return self.shut(death.clone());
        }
        let end = match death.cause {
            Cause::SenderClosed => self.holders().remove(from, None),
            // It was not `from` who says so.
            cause if is_out_of_reach(cause) => self.holders().unreachable(from, death.clone()),
            _ => self.holders().remove(from, Some(death.clone())),
        };
        self.end(end);
    }

    fn news(&self, _: Handle, from: ContextId, other: ContextId, gift: Gift) {
        let end = match gift {
            Gift::Given if from == self.me => {
                self.holders().give_always(from, other);
                None
            }
            gift => self.holders().hear(from, other, gift),
        };
        self.end(end);
    }

    fn senders(&self) -> Vec<ContextId> {
        self.holders().all()
    }

    fn lost(&self, _: &mut Turn, id: ContextId, death: &Death) {
        self.rooms.forget(id);
        let end = self.holders().lost(id, death);
        self.end(end);
    }
}

impl Core {
    /// Hears no more of a context that sends beyond its window.
    fn cut_off(&self, src: ContextId, handle: Handle) {
        let death = Death::of(Cause::Protocol).at(src);
        let end = self.holders().lost(src, &death);
        self.end(end);
        self.end_room(src, handle, &death);
    }

    fn end_room(&self, src: ContextId, handle: Handle, death: &Death) {
        if let Some(node) = self.node.upgrade() {
            node.end_room(src, handle, death);
        }
    }
}

impl<T: Decode> Receiver<T> {
    pub(crate) fn new(router: &Router) -> Receiver<T> {
        let core = Arc::new(Core {
            me: router.context_id(),
            handle: OnceLock::new(),
            queue: Latch::new(),
            holders: Lock::default(),
            node: Arc::downgrade(router.node()),
            rooms: Rooms::new(router.context_id()),
        });
        match router.node().listen_for_data(core.clone()) {
            Ok(handle) => {
                holders::count(router.node());
                core.handle.get_or_init(|| handle);
            }
            // It ends at once, and says why.
            Err(_) => core.shut(router.broker().death(Cause::Shutdown)),
        }
        let discard = discard::<T>;
        Receiver { router: router.clone(), core, discard, value: PhantomData }
    }

    /// A Sender to this receiver, to be sent along as an argument, or used here.
    pub fn to_sender(&self) -> Sender<T> {
        let owner = self.router.context_id();
        self.core.holders().add(owner);
        let handle = self.core.handle.get().copied().unwrap_or(Handle::FIRST_DYNAMIC);
        let core = SenderCore::new(&self.router, owner, handle, owner);
        Sender { core, value: PhantomData }
    }

    /// Waits for the next value.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] after the end, with [`Cause::SenderClosed`] if it was a clean one;
    /// [`ErrorKind::Malformed`]; [`ErrorKind::System`] with `EINTR` after a signal.
    pub fn get(&self) -> Result<T> {
        self.get_until(None)
    }

    /// As [`Receiver::get`], for at most this long.
    ///
    /// # Errors
    /// Also [`ErrorKind::Timeout`].
    pub fn get_timeout(&self, timeout: Duration) -> Result<T> {
        self.get_until(Instant::now().checked_add(timeout))
    }

    /// The next value if one is there.
    ///
    /// # Errors
    /// As [`Receiver::get`].
    pub fn try_get(&self) -> Result<Option<T>> {
        self.router.broker().forbid_copy()?;
        while let Some(item) = self.core.queue.try_get()? {
            if let Some(value) = self.open(item) {
                return value.map(Some);
            }
        }
        Ok(None)
    }

    fn get_until(&self, deadline: Option<Instant>) -> Result<T> {
        self.router.broker().forbid_copy()?;
        loop {
            if let Some(value) = self.open(self.core.queue.get_until(deadline)?) {
                return value;
            }
        }
    }

    /// The value; none for an end that is none any more.
    fn open(&self, item: Item) -> Option<Result<T>> {
        match item {
            Item::Data(message) => {
                self.grant(&message);
                let value = decode(&self.router, &message);
                Some(value.map_err(|Malformed(why)| Error::new(ErrorKind::Malformed(why))))
            }
            Item::End(end) => {
                let death = self.core.holders().verdict(end)?;
                // The end stays: the next to look finds it, too.
                self.core.end(Some(end));
                Some(Err(death.into()))
            }
        }
    }

    /// Gives its sender room again.
    fn grant(&self, message: &Message) {
        if let Some(bytes) = self.core.rooms.leaves(message.src, room_of(&message.data), false) {
            self.router.node().grant(message.src, message.handle, bytes);
        }
    }
}

impl<T> Receiver<T> {
    /// Ends it from this side: what is queued is dropped, every wait and every later send fails.
    pub fn close(&self) {
        let node = self.router.node();
        if node.broker().is_copy() {
            return;
        }
        if let Some(handle) = self.core.handle.get() {
            node.unlisten(*handle);
        }
        while let Ok(Some(item)) = self.core.queue.try_get() {
            if let Item::Data(message) = item {
                (self.discard)(&self.router, &message);
            }
        }
        self.core.queue.close();
        let Some(handle) = self.core.handle.get() else { return };
        let holders = self.core.holders().all();
        for id in holders.into_iter().filter(|id| *id != node.id()) {
            node.end_room(id, *handle, &Death::of(Cause::ReceiverClosed));
        }
    }
}

fn decode<T: Decode>(router: &Router, message: &Message) -> Result<T, Malformed> {
    let scope = Scope::from(router, message.src, message.auth);
    let mut r = Reader::new(&message.data, Some(&scope));
    T::decode(&mut r).and_then(|value| r.finish().map(|()| value))
}

fn discard<T: Decode>(router: &Router, message: &Message) {
    // What is malformed holds nothing that could be let go.
    let _ = decode::<T>(router, message);
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Yields values until the end: nothing after a clean one, else one error that says why.
impl<T: Decode> Iterator for &Receiver<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        match self.get() {
            Err(error) if is_end(&error) => None,
            result => Some(result),
        }
    }
}

/// Yields values until the end: nothing after a clean one, else one error that says why.
impl<T: Decode> Iterator for Receiver<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        (&*self).next()
    }
}

fn is_end(error: &Error) -> bool {
    let ErrorKind::Closed(death) = error.kind() else { return false };
    matches!(death.cause, Cause::SenderClosed | Cause::ReceiverClosed)
}

/// Sends values to a [`Receiver`], from any context. Cheap to clone; when the last clone in a
/// context is dropped, its Receiver is told.
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
    fn new(router: &Router, owner: ContextId, handle: Handle, auth: ContextId) -> Arc<SenderCore> {
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

    fn send(&self, encode: &dyn Fn(&mut Writer<'_>)) -> Result<()> {
        let node = self.router.node();
        node.broker().forbid_own_thread()?;
        if self.owner == node.id() && node.listener(self.handle, Kind::Data).is_none() {
            return Err(self.without_receiver());
        }
        let scope = Scope::to(&self.router, self.owner);
        let payload = FrameBuf::encode(Some(&scope), encode);
        let given = scope.given();
        let sent = match payload {
            Ok(payload) => node.send(&self.outgoing(Kind::Data), payload),
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
    /// Sends one value. Sleeps while the receiver has no room.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the receiver is closed or its context gone,
    /// [`ErrorKind::TooLarge`], [`ErrorKind::System`] with `EINTR` after a signal.
    pub fn send(&self, value: impl Sends<T>) -> Result<()> {
        self.core.send(&|w| value.encode_as(w))
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender { core: self.core.clone(), value: PhantomData }
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
        Ok(Sender { core, value: PhantomData })
    }

    fn shape(s: &mut Shape) {
        s.word("sender");
        T::shape(s);
    }
}
