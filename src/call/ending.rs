//! How a context is ended from here: asked, then cut off by its parent; or cut off at once.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use crate::call::context::Context;
use crate::call::router::Router;
use crate::error::{Cause, Death, Error, Result};
use crate::ids::{ContextId, Handle};
use crate::io::broker::Broker;
use crate::io::latch::Latch;
use crate::io::timers::TimerId;
use crate::io::turn::Turn;
use crate::limits::{SHUTDOWN_GRACE, SHUTDOWN_TOLD, SHUTDOWN_WAIT};
use crate::lock::Lock;
use crate::route::node::{Node, Outgoing};
use crate::route::pending::Deliver;
use crate::wire::codec::{Encode, Writer};
use crate::wire::frame::FrameBuf;
use crate::wire::header::{Kind, Lane};
use crate::wire::message::Message;

impl Context {
    /// Asks the context to end, and waits until it has. It gives its function, its children and
    /// what it started 3 seconds, then ends them and itself; the function
    /// [sees it](crate::CallContext::is_cancelled). If it has not ended then, or cannot
    /// (it was stopped), the context that started it cuts it off and kills it, where it lives below
    /// us. One that is gone already is fine.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](crate::error::ErrorKind) if it has not ended in 4 seconds, because
    /// something on the way there is stopped itself; `Closed` if it refuses, since we have no
    /// authority over it, and after the router's own shutdown; `Interrupted` after a signal.
    pub fn shutdown(&self) -> Result<()> {
        self.router().broker().forbid_own_thread()?;
        self.shutdown_async()?.wait().map(drop)
    }

    /// As [`Context::shutdown`], but does not wait: all of it happens whether somebody does or not.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::error::ErrorKind) after the router's own shutdown.
    pub fn shutdown_async(&self) -> Result<Ending> {
        let (node, id) = (self.router().node(), self.context_id());
        node.forbid_acting_for(self.authority(), id)?;
        let until = Instant::now() + SHUTDOWN_WAIT;
        let slot = Slot::new(node, id, self.authority());
        let reply_to = Some(node.listen_for_answer(id, slot.clone())?);
        let (kind, auth, handle) = (Kind::Control, self.authority(), Handle::SHUTDOWN);
        let out = Outgoing { kind, dst: id, auth, handle, reply_to };
        if id == node.id() {
            node.send(&out, FrameBuf::new())?;
        } else if !node.tell(&out, Lane::Quick, &|_| ()) {
            slot.decide(Ok(Death::of(Cause::NoRoute).at(id)));
        }
        let watched = slot.clone();
        node.broker().defer(move |turn| watched.watch(turn))?;
        Ok(Ending { slot, broker: node.broker().clone(), until })
    }
}

impl Router {
    /// Cuts a context off at once, without grace: its parent closes the connection and kills it,
    /// and all below it die. What waits for it fails with [`Cause::Shutdown`]. Returns without
    /// waiting for any of that.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::error::ErrorKind): with [`Cause::NoRoute`] if it does not live
    /// below this router's context, or is gone; after the router's shutdown. `Usage` if it belongs
    /// to another tree.
    pub fn disconnect(&self, context: &Context) -> Result<()> {
        if !self.same_tree(context.router()) {
            return Err(Error::usage("a context is disconnected by a router of its own tree"));
        }
        self.broker().forbid_copy()?;
        let (node, id) = (self.node().clone(), context.context_id());
        node.forbid_closed()?;
        if node.parent_of(id).is_none() {
            return Err(Death::of(Cause::NoRoute).at(id).into());
        }
        self.broker().defer(move |turn| cut_off(&node, turn, id, node.id()))
    }

    /// As [`Router::disconnect`], of all children of this router's context.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::error::ErrorKind) after the router's shutdown.
    pub fn disconnect_all(&self) -> Result<()> {
        self.broker().forbid_copy()?;
        self.node().forbid_closed()?;
        let node = self.node().clone();
        self.broker().defer(move |turn| {
            for id in node.children() {
                node.cut_off(turn, id);
            }
        })
    }
}

/// Has the parent of a context cut it off, if that lives below us.
fn cut_off(node: &Node, turn: &mut Turn, id: ContextId, auth: ContextId) {
    match node.parent_of(id) {
        Some(parent) if parent == node.id() => node.cut_off(turn, id),
        Some(dst) => {
            let (kind, handle) = (Kind::Control, Handle::DISCONNECT);
            let out = Outgoing { kind, dst, auth, handle, reply_to: None };
            node.tell(&out, Lane::Quick, &|w| id.encode(w));
        }
        None => (),
    }
}

/// A context that was asked to end, by [`Context::shutdown_async`]. Dropping it only gives up the
/// wait.
pub struct Ending {
    slot: Arc<Slot>,
    broker: Broker,
    /// When it cannot come any more.
    until: Instant,
}

impl Ending {
    /// Waits until it has ended, and tells how: by itself ([`Cause::Exited`]), cut off
    /// ([`Cause::Shutdown`]), or before it was asked ([`Cause::NoRoute`]). Waits for at most 4
    /// seconds from when it was asked.
    ///
    /// # Errors
    /// As [`Context::shutdown`].
    pub fn wait(&self) -> Result<Death> {
        self.wait_until(Some(self.until))
    }

    /// As [`Ending::wait`], for at most this long from now.
    ///
    /// # Errors
    /// As [`Context::shutdown`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Death> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<Death> {
        if self.slot.outcome.get().is_none() {
            self.broker.forbid_own_thread()?;
            self.slot.decided.wait_closed(deadline)?;
        }
        let outcome = self.slot.outcome.get().cloned();
        outcome.unwrap_or(Err(Death::of(Cause::Shutdown))).map_err(Error::from)
    }
}

/// Where the end is told.
struct Slot {
    me: Weak<Slot>,
    node: Weak<Node>,
    id: ContextId,
    auth: ContextId,
    /// How it ended; or why that will not be known.
    outcome: OnceLock<Result<Death, Death>>,
    /// Closed when there is an outcome.
    decided: Latch<()>,
    /// Cuts it off.
    force: Lock<Option<TimerId>>,
}

impl Slot {
    fn new(node: &Arc<Node>, id: ContextId, auth: ContextId) -> Arc<Slot> {
        Arc::new_cyclic(|me| Slot {
            me: me.clone(),
            node: Arc::downgrade(node),
            id,
            auth,
            outcome: OnceLock::new(),
            decided: Latch::new(),
            force: Lock::default(),
        })
    }

    /// Only the first one counts.
    fn decide(&self, outcome: Result<Death, Death>) {
        // As it says.
        let _ = self.outcome.set(outcome);
        self.decided.close();
    }

    /// Has it cut off when it has had its time.
    fn watch(self: Arc<Self>, turn: &mut Turn) {
        if self.outcome.get().is_some() {
            return;
        }
        let slot = self.clone();
        let at = Instant::now() + SHUTDOWN_GRACE + SHUTDOWN_TOLD;
        let timer = turn.timer(at, Box::new(move |turn| slot.cut_off(turn)));
        *self.force.lock() = Some(timer);
    }

    fn cut_off(&self, turn: &mut Turn) {
        *self.force.lock() = None;
        if let Some(node) = self.node.upgrade() {
            cut_off(&node, turn, self.id, self.auth);
        }
    }

    /// It was not asked, since it or a hop does not read. Its end is waited for still.
    fn was_not_asked(&self, turn: &mut Turn) -> bool {
        let (Some(me), Some(node)) = (self.me.upgrade(), self.node.upgrade()) else { return false };
        let listens = node.listen_for_answer(self.id, me).is_ok();
        self.cut_off(turn);
        listens
    }
}

impl Deliver for Slot {
    /// None is an answer: what says so is cut off at once.
    fn message(&self, turn: &mut Turn, _: Message) {
        self.was_not_asked(turn);
    }

    fn dead(&self, turn: &mut Turn, from: ContextId, death: &Death) {
        let timer = self.force.lock().take();
        if let Some(timer) = timer {
            turn.cancel(timer);
        }
        if death.cause == Cause::DoesNotRead && self.was_not_asked(turn) {
            return;
        }
        let refused =
            matches!(death.cause, Cause::Refused | Cause::NoHandle | Cause::Unidirectional);
        let is_ours = self.node.upgrade().is_none_or(|node| from == node.id());
        let death = death.clone();
        self.decide(if refused || is_ours { Err(death) } else { Ok(death) });
    }

    fn describe(&self, _: usize, w: &mut Writer<'_>) {
        w.put_u8(6);
    }
}
