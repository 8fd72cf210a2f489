//! Handlers: functions of a program's own that take messages which are no calls. They run on the
//! broker's thread for callbacks, one at a time, with no lock held.

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Weak};

use crate::call::context::Context;
use crate::call::gate::{self, Gate, Origin, Place, Policy};
use crate::call::room::Rooms;
use crate::call::router::Router;
use crate::error::{Cause, Death, Error, Result};
use crate::ids::{ContextId, Handle};
use crate::io::turn::Turn;
use crate::lock::Lock;
use crate::route::pending::Deliver;
use crate::route::policy::Arrival;
use crate::route::send::room_of;
use crate::trace::Level;
use crate::wire::codec::Writer;
use crate::wire::header::Kind;
use crate::wire::message::Message;

/// A function that takes messages at a handle, for [`Router::add_handler`].
///
/// It is called for each message, and once with the [`Death`] that ended it: the end of the only
/// context that may send, if there is such a one, or of this router. That is the last call.
///
/// All of it happens on one thread of the broker's: a handler that waits holds up the others, but
/// not the loop. It may call, connect and wait. While it runs, its senders have no more room than
/// 64 KiB each, and sleep for more. A panic in it is logged, and the next message is taken.
///
/// The router that it is given does not keep the tree up. One that it has captured does: as long as
/// the handler is there, the last clone of its router is not dropped.
#[must_use = "add it to a router with `add_handler`"]
pub struct Handler {
    call: Call,
    place: Place,
    policy: Option<Policy>,
    name: &'static str,
}

type Call = Box<dyn FnMut(&Router, Result<Message, Death>) + Send>;

impl Handler {
    /// Calls this for each message: of anybody, at a handle that nobody can guess, until
    /// [`Router::del_handler`].
    pub fn new(call: impl FnMut(&Router, Result<Message, Death>) + Send + 'static) -> Handler {
        let (call, name) = (Box::new(call), "a handler");
        Handler { call, place: Place::default(), policy: None, name }
    }

    /// At this handle, which is a [well-known](Handle::well_known) one.
    pub fn at(mut self, handle: Handle) -> Handler {
        self.place.at = Some(handle);
        self
    }

    /// For one message only.
    pub fn once(mut self) -> Handler {
        self.place.once = true;
        self
    }

    /// From this context only, whose end ends the handler, too. With [`Handler::once`], and without
    /// [`Handler::at`], it takes the answer to one message that is sent there with
    /// [`Message::reply_to`], or why there is none.
    pub fn from(mut self, context: &Context) -> Handler {
        self.place.from = Some(context.clone());
        self
    }

    /// Only what this lets in: one of [`policy`](crate::policy), or one of your own, which is
    /// called where the handler is. The log names it when it refuses something.
    pub fn policy<P>(self, policy: P) -> Handler
    where
        P: Fn(&Message, &Arrival<'_>) -> bool + Send + Sync + 'static,
    {
        Handler { policy: Some(Policy::of(policy)), ..self }
    }

    /// What the log calls it.
    pub(crate) fn named(self, name: &'static str) -> Handler {
        Handler { name, ..self }
    }
}

/// What a router remembers of its handlers.
#[derive(Default)]
struct Handlers(Lock<Listed>);

#[derive(Default)]
struct Listed {
    list: Vec<(Handle, Weak<Core>)>,
    /// How many make it worth looking for some that are gone.
    high: usize,
}

impl Router {
    /// Has messages to a handle of this context call a function. Returns the handle. Who is
    /// refused is told so if it asked for an answer.
    ///
    /// ```
    /// use mitogen::{Handle, Handler, Message, Program, Result, policy};
    ///
    /// # fn main() -> Result<()> {
    /// let router = Program::new().router()?;
    /// // Answers whoever has authority over this context.
    /// let echo = Handler::new(|router, message| {
    ///     if let Ok(message) = message {
    ///         let answered = router.reply(&message, message.data.clone());
    ///         assert_eq!(answered.ok(), Some(true));
    ///     }
    /// });
    /// let echo = router.add_handler(echo.policy(policy::has_parent_authority))?;
    ///
    /// // Asks it.
    /// let me = router.myself();
    /// let (tell, told) = std::sync::mpsc::channel();
    /// let answer = Handler::new(move |_, answer| tell.send(answer).unwrap()).once().from(&me);
    /// let answer = router.add_handler(answer)?;
    /// router.route(Message::to(me.context_id(), echo).with_data("hello").reply_to(answer))?;
    /// assert_eq!(told.recv().unwrap().unwrap().data, b"hello");
    ///
    /// router.del_handler(echo)?;
    /// assert!(router.del_handler(echo).is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind) if the handle is not a well-known one, or has
    /// a handler already, or if the context of [`Handler::from`] is of another tree, or if 65,536
    /// answers are awaited; `Closed` after the shutdown.
    pub fn add_handler(&self, handler: Handler) -> Result<Handle> {
        let Handler { call, place, policy, name } = handler;
        let from = place.sender(self)?;
        let core = Arc::new_cyclic(|own| Core {
            own: own.clone(),
            router: self.unowned(),
            from,
            once: place.once,
            gate: Gate::new(policy),
            name,
            rooms: Rooms::new(self),
            state: Lock::new(State { call: Some(call), ..State::default() }),
        });
        let handle = place.listen(self, core.clone())?;
        self.handlers().add(handle, &core);
        core.listens_at(handle);
        if let Some(death) = gate::watch(self, handle, from) {
            core.later(move |core| core.last(Err(death)));
        }
        Ok(handle)
    }

    /// Has messages to this handle call its function no more; what has come and waits for it is
    /// refused.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::error::ErrorKind) with [`Cause::NoHandle`] if there is no
    /// handler, also since it has had its last call; with another after the shutdown.
    pub fn del_handler(&self, handle: Handle) -> Result<()> {
        self.broker().forbid_copy()?;
        self.node().forbid_closed()?;
        let core = self.handlers().remove(handle);
        let call = core.ok_or_else(|| Error::closed(Cause::NoHandle))?.end();
        call.map(drop).ok_or_else(|| Error::closed(Cause::NoHandle))
    }

    fn handlers(&self) -> Arc<Handlers> {
        self.kept(Handlers::default)
    }
}

impl Handlers {
    fn add(&self, handle: Handle, core: &Arc<Core>) {
        let mut listed = self.0.lock();
        if listed.high <= listed.list.len() {
            listed.list.retain(|(_, core)| 0 < core.strong_count());
            listed.high = 2 * listed.list.len() + 16;
        }
        listed.list.push((handle, Arc::downgrade(core)));
    }

    fn remove(&self, handle: Handle) -> Option<Arc<Core>> {
        let list = &mut self.0.lock().list;
        // The latest, where one before it has had its last call.
        let at = list.iter().rposition(|(other, _)| *other == handle)?;
        list.remove(at).1.upgrade()
    }
}

/// A handler that listens.
struct Core {
    own: Weak<Core>,
    /// One that does not keep the tree up.
    router: Router,
    from: Option<ContextId>,
    once: bool,
    gate: Gate,
    name: &'static str,
    rooms: Rooms,
    state: Lock<State>,
}

#[derive(Default)]
struct State {
    /// Away while it is called.
    call: Option<Call>,
    /// None for the moment before it is known.
    handle: Option<Handle>,
    /// Whether the last call is on its way: a sender can say again and again that it ends.
    ends: bool,
    /// Whether it is called no more.
    is_over: bool,
}

impl Deliver for Core {
    fn message(&self, _: &mut Turn, message: Message) {
        let (src, handle, node) = (message.src, message.handle, self.router.node());
        let load = match self.rooms.admit(node, &message) {
            Ok(load) => load,
            Err(death) => return node.end_room(src, handle, &death),
        };
        let origin = Origin::of(node, &message);
        self.later(move |core| {
            let _load = load;
            core.take(message, origin);
        });
    }

    fn dead(&self, _: &mut Turn, from: ContextId, death: &Death) {
        let is_end = self.from == Some(from);
        let is_own = from == self.router.context_id() && death.is_own();
        if (is_end || is_own) && !std::mem::replace(&mut self.state.lock().ends, true) {
            let death = death.clone();
            self.later(move |core| core.last(Err(death)));
        }
    }

    fn lost(&self, _: &mut Turn, id: ContextId, _: &Death) {
        self.rooms.forget(id);
    }

    fn describe(&self, _: usize, w: &mut Writer<'_>) {
        w.put_u8(5);
    }
}

impl Core {
    fn listens_at(&self, handle: Handle) {
        let is_over = {
            let mut state = self.state.lock();
            state.handle = Some(handle);
            state.is_over
        };
        if is_over {
            self.router.node().unlisten(handle);
        }
    }

    /// Has something done on the thread for callbacks.
    fn later(&self, what: impl FnOnce(&Core) + Send + 'static) {
        let Some(core) = self.own.upgrade() else { return };
        let run = self.router.broker().callback(self.name, Box::new(move || what(&core)));
        if run.is_err() {
            self.router.node().event(Level::Error, "nothing calls a handler any more", &[]);
        }
    }

    /// Takes the function away for good, and lets go of the handle.
    fn end(&self) -> Option<Call> {
        let (call, handle) = {
            let mut state = self.state.lock();
            let was_over = std::mem::replace(&mut state.is_over, true);
            if was_over {
                return None;
            }
            (state.call.take(), state.handle)
        };
        if let Some(handle) = handle {
            self.router.node().unlisten(handle);
        }
        // Away: what calls it drops it.
        Some(call.unwrap_or_else(|| Box::new(|_, _| ())))
    }

    fn last(&self, what: Result<Message, Death>) {
        if let Some(mut call) = self.end() {
            call(&self.router, what);
        }
    }

    fn take(&self, message: Message, origin: Origin) {
        let (src, handle, kind) = (message.src, message.handle, message.kind);
        let bytes = room_of(&message.data);
        let called = catch_unwind(AssertUnwindSafe(|| self.offer(message, origin)));
        if kind == Kind::Data {
            if let Some(bytes) = self.rooms.leaves(src, bytes, true) {
                self.router.node().grant(src, handle, bytes);
            }
        }
        called.unwrap_or_else(|panic| resume_unwind(panic));
    }

    fn offer(&self, message: Message, origin: Origin) {
        if self.state.lock().is_over {
            return self.router.node().decline(&message, Cause::NoHandle);
        }
        if self.gate.refuses(&self.router, &message, origin) {
            return self.refuse(&message);
        }
        if self.once {
            return self.last(Ok(message));
        }
        let Some(mut call) = self.state.lock().call.take() else { return };
        let called = catch_unwind(AssertUnwindSafe(|| call(&self.router, Ok(message))));
        let mut state = self.state.lock();
        if !state.is_over {
            state.call = Some(call);
        }
        drop(state);
        called.unwrap_or_else(|panic| resume_unwind(panic));
    }

    fn refuse(&self, message: &Message) {
        match message.kind {
            Kind::Data => self.router.node().decline(message, Cause::Refused),
            _ => self.last(Err(Death::of(Cause::Refused).at(message.src))),
        }
    }
}
