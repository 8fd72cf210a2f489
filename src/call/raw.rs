//! Messages of a program's own in a queue: what a [`Handler`](crate::Handler) is called for, to be
//! waited for instead.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::call::context::Context;
use crate::call::gate::{self, Gate, Origin, Place, Policy};
use crate::call::load::Load;
use crate::call::receiver::put_queue;
use crate::call::room::Rooms;
use crate::call::router::Router;
use crate::call::source::{Source, Stream, Taken, Watchable, Watched};
use crate::error::{Cause, Death, Error, ErrorKind, Result};
use crate::ids::{ContextId, Handle};
use crate::io::broker::Broker;
use crate::io::latch::Latch;
use crate::io::turn::Turn;
use crate::route::node::Node;
use crate::route::pending::Deliver;
use crate::route::policy::Arrival;
use crate::route::send::room_of;
use crate::wire::codec::Writer;
use crate::wire::header::Kind;
use crate::wire::message::Message;

/// What a [`RawReceiver`] is to take: see [`Router::raw_receiver`].
#[must_use = "nothing is received before `listen`"]
pub struct RawOptions {
    router: Router,
    place: Place,
    policy: Option<Policy>,
}

impl Router {
    /// A queue of messages to one handle of this context, to be waited for. Without options it is
    /// one that nobody can guess, and takes messages of anybody until it is dropped.
    ///
    /// ```
    /// use mitogen::{Handle, Message, Program, Result};
    ///
    /// # fn main() -> Result<()> {
    /// let router = Program::new().router()?;
    /// let inbox = router.raw_receiver().at(Handle::well_known(7)).listen()?;
    /// router.myself().send(Message::at(inbox.handle()).with_value("news")?)?;
    /// assert_eq!(inbox.get()?.value::<String>()?, "news");
    /// # Ok(()) }
    /// ```
    pub fn raw_receiver(&self) -> RawOptions {
        RawOptions { router: self.clone(), place: Place::default(), policy: None }
    }
}

impl RawOptions {
    /// At this handle, which is a [well-known](Handle::well_known) one.
    pub fn at(mut self, handle: Handle) -> RawOptions {
        self.place.at = Some(handle);
        self
    }

    /// One message only; what else has come then is refused.
    pub fn once(mut self) -> RawOptions {
        self.place.once = true;
        self
    }

    /// From this context only, whose end is that of the receiver, too. With [`RawOptions::once`],
    /// and without [`RawOptions::at`], it takes the answer to one message that is sent there with
    /// [`Message::reply_to`], or why there is none: as [`Context::send_async`] does.
    pub fn from(mut self, context: &Context) -> RawOptions {
        self.place.from = Some(context.clone());
        self
    }

    /// Only what this lets in: one of [`policy`](crate::policy), or one of your own, which is
    /// called by whoever takes a message. The log names it when it refuses something.
    pub fn policy<P>(self, policy: P) -> RawOptions
    where
        P: Fn(&Message, &Arrival<'_>) -> bool + Send + Sync + 'static,
    {
        RawOptions { policy: Some(Policy::of(policy)), ..self }
    }

    /// Begins to listen.
    ///
    /// # Errors
    /// As [`Router::add_handler`].
    pub fn listen(self) -> Result<RawReceiver> {
        let RawOptions { router, place, policy } = self;
        let from = place.sender(&router)?;
        let core = Arc::new_cyclic(|own| Core {
            own: own.clone(),
            node: Arc::downgrade(router.node()),
            from,
            rooms: Rooms::new(&router),
            queue: Latch::new(),
            ends: AtomicBool::new(false),
        });
        let handle = place.listen(&router, core.clone())?;
        if let Some(death) = gate::watch(&router, handle, from) {
            core.end(death);
        }
        let (gate, [taken, told]) = (Gate::new(policy), Default::default());
        Ok(RawReceiver { router, core, handle, once: place.once, gate, taken, told })
    }
}

/// Where messages to one handle of this context wait to be taken: of a program's own, undecoded.
/// Any number of threads may wait. Dropping it refuses what has come and what comes.
///
/// It ends with the only context that may send, if there is such a one, and with its router.
///
/// # Resources
/// At most 64 KiB of each sending context wait in it, where one counts for 16 KiB at most.
pub struct RawReceiver {
    router: Router,
    core: Arc<Core>,
    handle: Handle,
    once: bool,
    gate: Gate,
    /// Whether the only one was taken.
    taken: AtomicBool,
    /// Whether an iterator has said why it ended.
    told: AtomicBool,
}

struct Core {
    own: Weak<Core>,
    node: Weak<Node>,
    from: Option<ContextId>,
    rooms: Rooms,
    queue: Latch<Item>,
    /// Whether its end is queued.
    ends: AtomicBool,
}

enum Item {
    Message(Unread),
    End(Death),
}

/// A message that nobody has taken. Who waits for an answer to it is told so when it is dropped.
struct Unread {
    core: Arc<Core>,
    message: Option<Message>,
    origin: Origin,
    _load: Option<Load>,
}

impl Unread {
    fn take(mut self) -> Option<(Message, Origin)> {
        let message = self.message.take()?;
        self.core.make_room(&message);
        Some((message, self.origin))
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let Some(message) = self.message.take() else { return };
        self.core.make_room(&message);
        self.core.decline(&message, Cause::NoHandle);
    }
}

impl Deliver for Core {
    fn message(&self, _: &mut Turn, message: Message) {
        let (Some(core), Some(node)) = (self.own.upgrade(), self.node.upgrade()) else { return };
        let (src, handle) = (message.src, message.handle);
        let load = match self.rooms.admit(&node, &message) {
            Ok(load) => load,
            Err(death) => return node.end_room(src, handle, &death),
        };
        let origin = Origin::of(&node, &message);
        // What comes to a closed one is refused when it is dropped.
        let _ = self.queue.put(Item::Message(Unread {
            core,
            message: Some(message),
            origin,
            _load: load,
        }));
    }

    fn dead(&self, _: &mut Turn, from: ContextId, death: &Death) {
        let is_end = self.from == Some(from);
        let me = self.node.upgrade().map(|node| node.id());
        if is_end || me == Some(from) && death.is_own() {
            self.end(death.clone());
        }
    }

    fn lost(&self, _: &mut Turn, id: ContextId, _: &Death) {
        self.rooms.forget(id);
    }

    fn describe(&self, max: usize, w: &mut Writer<'_>) {
        put_queue(self.queue.census(), &[], max, w);
    }
}

impl Core {
    fn end(&self, death: Death) {
        if !self.ends.swap(true, Ordering::Relaxed) {
            // A closed one has ended already.
            let _ = self.queue.put(Item::End(death));
        }
    }

    /// Gives its sender the room of a message again.
    fn make_room(&self, message: &Message) {
        let Some(node) = self.node.upgrade().filter(|_| message.kind == Kind::Data) else { return };
        if let Some(bytes) = self.rooms.leaves(message.src, room_of(&message.data), true) {
            node.grant(message.src, message.handle, bytes);
        }
    }

    fn decline(&self, message: &Message, cause: Cause) {
        if let Some(node) = self.node.upgrade() {
            node.decline(message, cause);
        }
    }
}

impl RawReceiver {
    /// The handle that others send to.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] with why no more come; [`ErrorKind::Interrupted`] after a signal.
    pub fn get(&self) -> Result<Message> {
        self.get_until(None)
    }

    /// As [`RawReceiver::get`], for at most this long.
    ///
    /// # Errors
    /// Also [`ErrorKind::Timeout`].
    pub fn get_timeout(&self, timeout: Duration) -> Result<Message> {
        self.get_until(Instant::now().checked_add(timeout))
    }

    /// The next message if one is there.
    ///
    /// # Errors
    /// As [`RawReceiver::get`].
    pub fn try_get(&self) -> Result<Option<Message>> {
        self.router.broker().forbid_copy()?;
        while let Some(item) = self.core.queue.try_get()? {
            if let Some(message) = self.open(item)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// Whether a `get` would sleep. Another thread may make the answer stale at once, and a policy
    /// may still refuse what is there.
    pub fn is_empty(&self) -> bool {
        self.router.broker().is_copy() || self.core.queue.is_empty()
    }

    /// Listens no more: what waits is refused, every wait fails.
    pub fn close(&self) {
        if !self.router.broker().is_copy() {
            self.router.node().unlisten(self.handle);
            self.core.queue.close();
        }
    }

    fn get_until(&self, deadline: Option<Instant>) -> Result<Message> {
        self.router.broker().forbid_copy()?;
        loop {
            let item = self.router.broker().wait(&self.core.queue, deadline)?;
            if let Some(message) = self.open(item)? {
                return Ok(message);
            }
        }
    }

    /// The message, unless it is refused.
    fn open(&self, item: Item) -> Result<Option<Message>> {
        let unread = match item {
            Item::Message(unread) => unread,
            Item::End(death) => {
                // It stays: the next to look finds it, too.
                let _ = self.core.queue.put(Item::End(death.clone()));
                return Err(death.into());
            }
        };
        let Some((message, origin)) = unread.take() else { return Ok(None) };
        let is_answer = message.kind != Kind::Data;
        if self.gate.refuses(&self.router, &message, origin) {
            if is_answer {
                self.close();
                return Err(Death::of(Cause::Refused).at(message.src).into());
            }
            self.core.decline(&message, Cause::Refused);
            return Ok(None);
        }
        if self.once {
            self.close();
            if self.taken.swap(true, Ordering::Relaxed) {
                self.core.decline(&message, Cause::NoHandle);
                return Ok(None);
            }
        }
        Ok(Some(message))
    }
}

impl Drop for RawReceiver {
    fn drop(&mut self) {
        self.close();
    }
}

/// Yields messages until the end: then one error that says why, unless it was closed here.
impl Iterator for &RawReceiver {
    type Item = Result<Message>;

    fn next(&mut self) -> Option<Result<Message>> {
        let got = self.get();
        if let Some(ErrorKind::Closed(death)) = got.as_ref().err().map(Error::kind) {
            let is_own = death.cause == Cause::ReceiverClosed;
            if is_own || self.told.swap(true, Ordering::Relaxed) {
                return None;
            }
        }
        Some(got)
    }
}

/// Yields messages until the end: then one error that says why, unless it was closed here.
impl Iterator for RawReceiver {
    type Item = Result<Message>;

    fn next(&mut self) -> Option<Result<Message>> {
        (&*self).next()
    }
}

impl Watched for RawReceiver {
    fn latch(&self) -> Option<&dyn Watchable> {
        Some(&self.core.queue)
    }

    fn broker(&self) -> Option<Broker> {
        Some(self.router.broker().clone())
    }
}

/// Yields messages until the end: then one error that says why, unless it was closed here.
impl Source for RawReceiver {
    type Item = Message;

    fn take(&self) -> Taken<Message> {
        match self.try_get() {
            Ok(None) => Taken::Nothing,
            Ok(Some(message)) => Taken::One(Ok(message)),
            Err(error) => match error.kind() {
                ErrorKind::Closed(death) if death.cause == Cause::ReceiverClosed => Taken::End,
                _ => Taken::Last(Err(error)),
            },
        }
    }
}

impl Stream for RawReceiver {}
