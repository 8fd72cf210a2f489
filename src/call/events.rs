//! What a program is told of: that contexts end, and that its own does. What it does then runs on
//! the broker's thread for callbacks; a panic in it is logged, and the next still runs.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use crate::call::context::Context;
use crate::call::handler::Handler;
use crate::call::router::Router;
use crate::error::{Cause, Death, Result};
use crate::ids::{ContextId, Handle};
use crate::io::broker::Broker;
use crate::io::turn::Turn;
use crate::lock::Lock;
use crate::route::pending::Deliver;
use crate::wire::message::Message;

impl Router {
    /// Has `tell` called for each context whose end this one learns of: those below it, and those
    /// that it has talked to. Not of those that this router's own end ends.
    ///
    /// A [`Latch`](crate::Latch) makes a queue of it, to wait at:
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mitogen::{Latch, Program, Result};
    /// # fn main() -> Result<()> {
    /// # let router = Program::new().router()?;
    /// let gone = Arc::new(Latch::new());
    /// let queue = gone.clone();
    /// router.on_disconnect(move |context, death| {
    ///     // A closed latch takes none.
    ///     let _ = queue.put((context.clone(), death.clone()));
    /// })?;
    /// let child = router.in_process()?;
    /// child.shutdown()?;
    /// let (context, death) = gone.get()?;
    /// assert_eq!(context, child);
    /// println!("{context}: {death}");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::error::ErrorKind) after the shutdown.
    pub fn on_disconnect(&self, tell: impl FnMut(&Context, &Death) + Send + 'static) -> Result<()> {
        let ends = Arc::new_cyclic(|own| Ends {
            own: own.clone(),
            router: self.unowned(),
            tell: Lock::new(Some(Box::new(tell))),
        });
        self.node().listen_for_data(ends).map(drop)
    }

    /// Has `tell` called once, when this router ends, with the reason: its shutdown, or the failure
    /// of its broker. In a child it is called when the context is asked to end, and has the 3
    /// seconds that functions have. One whose connection to its parent ends, or that is killed, has
    /// none: there it is not called.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::error::ErrorKind) after the shutdown.
    pub fn on_shutdown(&self, tell: impl FnOnce(&Death) + Send + 'static) -> Result<()> {
        let end = Arc::new(Lock::new(Some(Box::new(tell) as Tell)));
        let asked = AsksToEnd { tell: end.clone(), broker: self.broker().clone() };
        let handler = Handler::new(move |_, message| {
            if let Err(death) = message {
                tell_once(&end, &death);
            }
        });
        self.add_handler(handler.policy(nobody).named(ON_SHUTDOWN))?;
        self.node().wrap(Handle::SHUTDOWN, |inner| Arc::new(Asked { asked, inner }));
        Ok(())
    }
}

impl Context {
    /// Has `tell` called once, when this context ends: at once if it is gone, or if nothing leads
    /// there; and when this router ends, after which nobody would know.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::error::ErrorKind) after the shutdown.
    pub fn on_disconnect(&self, tell: impl FnOnce(&Death) + Send + 'static) -> Result<()> {
        let end = Lock::new(Some(Box::new(tell) as Tell));
        let handler = Handler::new(move |_, message| {
            if let Err(death) = message {
                tell_once(&end, &death);
            }
        });
        let handler = handler.from(self).policy(nobody).named("Context::on_disconnect");
        self.router().add_handler(handler).map(drop)
    }
}

const ON_SHUTDOWN: &str = "on_shutdown";

type Tell = Box<dyn FnOnce(&Death) + Send>;
type TellOf = Box<dyn FnMut(&Context, &Death) + Send>;

fn tell_once(tell: &Lock<Option<Tell>>, death: &Death) {
    let tell = tell.lock().take();
    if let Some(tell) = tell {
        tell(death);
    }
}

/// Lets in no message.
fn nobody(_: &Message, _: &crate::policy::Arrival<'_>) -> bool {
    false
}

/// Hears of the end of every context.
struct Ends {
    own: Weak<Ends>,
    router: Router,
    /// Away while it is called.
    tell: Lock<Option<TellOf>>,
}

impl Deliver for Ends {
    fn message(&self, _: &mut Turn, message: Message) {
        // Nobody was told this handle.
        let why = Death::of(Cause::ReceiverClosed);
        self.router.node().end_room(message.src, message.handle, &why);
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {}

    fn lost(&self, _: &mut Turn, id: ContextId, death: &Death) {
        let Some(own) = self.own.upgrade() else { return };
        let death = death.clone();
        let tell = Box::new(move || own.tell(id, &death));
        // Dropped if the broker ends, as it does when the router does.
        let _ = self.router.broker().callback("Router::on_disconnect", tell);
    }
}

impl Ends {
    fn tell(&self, id: ContextId, death: &Death) {
        let Some(tell) = self.tell.lock().take() else { return };
        let mut away = Away { ends: self, tell: Some(tell) };
        if let Some(tell) = &mut away.tell {
            tell(&self.router.context_by_id(id), death);
        }
    }
}

/// Comes back, also from a panic.
struct Away<'a> {
    ends: &'a Ends,
    tell: Option<TellOf>,
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        *self.ends.tell.lock() = self.tell.take();
    }
}

/// Tells that this context is asked to end.
struct AsksToEnd {
    tell: Arc<Lock<Option<Tell>>>,
    broker: Broker,
}

/// What serves [`Handle::SHUTDOWN`], and who is told before.
struct Asked {
    asked: AsksToEnd,
    inner: Arc<dyn Deliver>,
}

impl Deliver for Asked {
    fn message(&self, turn: &mut Turn, message: Message) {
        let AsksToEnd { tell, broker } = &self.asked;
        let tell = tell.clone();
        let call = Box::new(move || tell_once(&tell, &Death::of(Cause::Shutdown)));
        // Who cannot be called is told by nobody; the end comes all the same.
        let _ = broker.callback(ON_SHUTDOWN, call);
        self.inner.message(turn, message);
    }

    fn dead(&self, turn: &mut Turn, from: ContextId, death: &Death) {
        self.inner.dead(turn, from, death);
    }
}
