//! The end of a stream of values of one type where they arrive: it stays, its Senders travel.

#[cfg(test)]
mod tests;

use std::marker::PhantomData;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use crate::call::holders::{self, End, Holders};
use crate::call::load::Load;
use crate::call::room::Rooms;
use crate::call::router::{Router, WeakRouter};
use crate::call::scope::Scope;
use crate::call::sender::{Sender, SenderCore};
use crate::call::source::{Source, Stream, Taken, Watchable, Watched};
use crate::error::{Cause, Death, Error, ErrorKind, Result};
use crate::ids::{ContextId, Handle};
use crate::io::broker::Broker;
use crate::io::census::{List, put_all};
use crate::io::latch::Latch;
use crate::io::turn::Turn;
use crate::limits::INSPECTED_HOLDERS_MAX;
use crate::lock::{Held, Lock};
use crate::route::credit::is_out_of_reach;
use crate::route::node::Node;
use crate::route::pending::{Deliver, Gift};
use crate::route::send::room_of;
use crate::wire::codec::{Decode, Malformed, Reader, Writer};
use crate::wire::message::Message;

/// Where values arrive that any holder of a [`Sender`] sends.
///
/// It ends when the last Sender, wherever it is, was dropped or has died with its context. Dropping
/// it fails every later send.
///
/// # Resources
/// At most 64 KiB of each sending context wait in it, where a value counts for 16 KiB at most; and
/// 64 MiB, or some of the largest values, of all that is behind one connection: who sends more is
/// told that this context does not read.
pub struct Receiver<T> {
    router: Router,
    core: Arc<Core>,
    /// Whether it holds itself.
    is_kept_open: bool,
    value: PhantomData<fn() -> T>,
}

/// It listens until it is closed and nobody holds a Sender any more: what comes to it meanwhile may
/// have Senders in it, which are let go.
struct Core {
    me: ContextId,
    /// Where it listens, or why it could not begin to.
    handle: OnceLock<Handle>,
    queue: Latch<Item>,
    holders: Lock<Holders>,
    node: Weak<Node>,
    router: WeakRouter,
    rooms: Rooms,
    /// Drops the Senders in what nobody takes.
    discard: fn(&Router, &Message),
}

enum Item {
    Data(Message, #[allow(dead_code, reason = "counts until it is dropped")] Load),
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
        self.leave_if_over();
    }

    /// Listens no longer if it is closed and nobody can send.
    fn leave_if_over(&self) {
        if !self.queue.is_closed() || !self.holders().is_empty() {
            return;
        }
        if let (Some(node), Some(handle)) = (self.node.upgrade(), self.handle.get()) {
            node.unlisten(*handle);
        }
    }

    fn discard(&self, message: &Message) {
        if let Some(router) = self.router.upgrade() {
            (self.discard)(&router, message);
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
        let Some(node) = self.node.upgrade() else { return };
        let load = match self.rooms.enters(&node, &message) {
            Ok(load) => load,
            Err(cause) => return self.cut_off(src, handle, cause),
        };
        if let Err(Item::Data(message, _)) = self.queue.offer(Item::Data(message, load)) {
            self.discard(&message);
            if src != self.me {
                self.end_room(src, handle, &Death::of(Cause::ReceiverClosed));
            }
        }
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

    fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    fn senders(&self) -> Vec<ContextId> {
        self.holders().all()
    }

    fn describe(&self, max: usize, w: &mut Writer<'_>) {
        put_queue(self.queue.census(), &self.senders(), max, w);
    }

    fn lost(&self, _: &mut Turn, id: ContextId, death: &Death) {
        self.rooms.forget(id);
        let end = self.holders().lost(id, death);
        self.end(end);
    }
}

/// Appends what waits in a receiver, and how many threads for it; and who may send.
pub(crate) fn put_queue(
    (values, takers): (usize, usize),
    holders: &[ContextId],
    max: usize,
    w: &mut Writer<'_>,
) {
    put_all(&[4, values as u64, takers as u64], w);
    let mut list = List::new(max.min(INSPECTED_HOLDERS_MAX));
    for id in holders {
        if list.has_room(w) {
            put_all(&[id.0.into()], w);
        }
    }
    list.end(w);
}

impl Core {
    /// Hears no more of a context that sends beyond its window, or of whom too much waits.
    fn cut_off(&self, src: ContextId, handle: Handle, cause: Cause) {
        let death = Death::of(cause).at(if cause == Cause::DoesNotRead { self.me } else { src });
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
            router: router.downgrade(),
            rooms: Rooms::new(router),
            discard: discard::<T>,
        });
        match router.node().listen_for_data(core.clone()) {
            Ok(handle) => {
                holders::count(router.node());
                core.handle.get_or_init(|| handle);
            }
            // It ends at once, and says why.
            Err(_) => core.shut(router.broker().death(Cause::Shutdown)),
        }
        Receiver { router: router.clone(), core, is_kept_open: false, value: PhantomData }
    }

    /// A Sender to this receiver, to be sent along as an argument, or used here.
    pub fn to_sender(&self) -> Sender<T> {
        let owner = self.router.context_id();
        if !self.router.broker().is_copy() {
            self.core.holders().add(owner);
        }
        let handle = self.core.handle.get().copied().unwrap_or(Handle::FIRST_DYNAMIC);
        Sender::of(SenderCore::new(&self.router, owner, handle, owner))
    }

    /// Waits for the next value.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] after the end, with [`Cause::SenderClosed`] if it was a clean one;
    /// [`ErrorKind::Malformed`]; [`ErrorKind::Interrupted`] after a signal.
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

    /// Whether [`Receiver::get`] would sleep: a hint, since other threads may take what is there,
    /// and values come at any time.
    pub fn is_empty(&self) -> bool {
        self.router.broker().is_copy() || self.core.queue.is_empty()
    }

    /// Has it outlive its Senders: it ends by [`Receiver::close`] or with its router alone, and is
    /// not told of holders that fail or die. For one that gives out Senders all the time.
    pub fn keep_open(mut self) -> Receiver<T> {
        if !self.router.broker().is_copy() && !self.is_kept_open {
            self.core.holders().add(self.core.me);
            self.is_kept_open = true;
        }
        self
    }

    fn get_until(&self, deadline: Option<Instant>) -> Result<T> {
        self.router.broker().forbid_copy()?;
        loop {
            if let Some(value) = self.open(self.router.broker().wait(&self.core.queue, deadline)?) {
                return value;
            }
        }
    }

    /// The value; none for an end that is none any more.
    fn open(&self, item: Item) -> Option<Result<T>> {
        match item {
            Item::Data(message, _) => {
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
    pub(crate) fn router(&self) -> &Router {
        &self.router
    }

    /// Ends it from this side: what is queued is dropped, every wait and every later send fails.
    pub fn close(&self) {
        let (core, node) = (&self.core, self.router.node());
        if node.broker().is_copy() {
            return;
        }
        let Some(untaken) = core.queue.close_and_take() else { return };
        for item in untaken {
            if let Item::Data(message, _) = item {
                core.discard(&message);
            }
        }
        if self.is_kept_open {
            core.holders().remove(core.me, None);
        }
        core.leave_if_over();
        let Some(handle) = core.handle.get() else { return };
        let holders = core.holders().all();
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

impl<T> Watched for Receiver<T> {
    fn latch(&self) -> Option<&dyn Watchable> {
        Some(&self.core.queue)
    }

    fn broker(&self) -> Option<Broker> {
        Some(self.router.broker().clone())
    }
}

/// Its end is silent if it is a clean one, else the reason.
impl<T: Decode> Source for Receiver<T> {
    type Item = T;

    fn take(&self) -> Taken<T> {
        match self.try_get() {
            Ok(Some(value)) => Taken::One(Ok(value)),
            Ok(None) => Taken::Nothing,
            Err(error) if is_end(&error) => Taken::End,
            Err(error) if matches!(error.kind(), ErrorKind::Malformed(_)) => Taken::One(Err(error)),
            Err(error) => Taken::Last(Err(error)),
        }
    }
}

impl<T: Decode> Stream for Receiver<T> {}

fn is_end(error: &Error) -> bool {
    let ErrorKind::Closed(death) = error.kind() else { return false };
    matches!(death.cause, Cause::SenderClosed | Cause::ReceiverClosed)
}
