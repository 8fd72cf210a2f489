//! What a function sees of the call that it serves.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::call::context::Context;
use crate::call::manner::{Manner, sooner};
use crate::call::router::Router;
use crate::call::token::{Cancels, Token};
use crate::error::{Cause, Error, ErrorKind, Result};
use crate::ids::ContextId;
use crate::io::broker::Broker;
use crate::io::latch::Latch;

/// The surroundings of a call, for a function that names `&CallContext` among its parameters.
///
/// A call is *cancelled* once its [`Call`](crate::Call) was dropped, or its time is up: nobody
/// waits for the answer any more. Then [`CallContext::is_cancelled`] says so, which a long loop
/// looks at; [`CallContext::sleep`] ends; [`CallContext::cancelled`] has an item; and calls through
/// [`CallContext::on`] end, and are cancelled in their turn, however many contexts that is. A
/// function that looks at none of these runs to its end.
///
/// ```
/// use mitogen::{CallContext, Result};
/// use std::time::Duration;
///
/// /// Looks once a second, until nobody waits for it any more.
/// fn wait_for_file(cx: &CallContext, path: &std::path::Path) -> Result<()> {
///     while !path.exists() {
///         cx.sleep(Duration::from_secs(1))?;
///     }
///     Ok(())
/// }
/// ```
pub struct CallContext {
    router: Router,
    caller: ContextId,
    until: Option<Instant>,
    token: Arc<Token>,
}

impl CallContext {
    /// The surroundings of a call that this very context makes of itself: for tests of functions.
    pub fn local(router: &Router) -> CallContext {
        CallContext::new(router, router.context_id(), None, &Arc::default())
    }

    pub(crate) fn new(
        router: &Router,
        caller: ContextId,
        until: Option<Instant>,
        token: &Arc<Token>,
    ) -> CallContext {
        CallContext { router: router.clone(), caller, until, token: token.clone() }
    }

    /// The id of the context that the function runs in.
    pub fn context_id(&self) -> ContextId {
        self.router.context_id()
    }

    /// The id of the context that calls.
    pub fn caller_id(&self) -> ContextId {
        self.caller
    }

    /// The context that calls.
    pub fn caller(&self) -> Context {
        self.router.context_by_id(self.caller)
    }

    /// The parent of the context that the function runs in; none in the master.
    pub fn parent(&self) -> Option<Context> {
        self.router.parent()
    }

    /// The router of the context that the function runs in.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// The broker of the context that the function runs in.
    pub fn broker(&self) -> &Broker {
        self.router.broker()
    }

    /// Whether nobody waits for the answer any more, or the context was asked to end, or has ended.
    /// What a function returns that was to end soon, and did, reaches its caller.
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled() || self.until.is_some_and(|until| until <= Instant::now())
    }

    /// When the call's time is up, if the caller has set a limit.
    pub fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// Sleeps for this long.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] with [`Cause::Cancelled`], at once, when the call is cancelled, or the
    /// context ends; [`ErrorKind::Interrupted`] after a signal.
    pub fn sleep(&self, time: Duration) -> Result<()> {
        self.router.node().forbid_closed()?;
        let end = Instant::now().checked_add(time);
        let latch = self.listening();
        match self.broker().wait(&latch, sooner(end, self.until)) {
            Err(error) if *error.kind() != ErrorKind::Timeout => Err(error),
            _ if self.is_cancelled() => Err(Error::closed(Cause::Cancelled)),
            _ => Ok(()),
        }
    }

    /// A latch that gets one item when the call is cancelled: to wait for that, or for something
    /// else, whatever is first.
    pub fn cancelled(&self) -> Arc<Latch<()>> {
        if let Some(until) = self.until {
            self.token.cancel_at(until, self.broker());
        }
        self.listening()
    }

    fn listening(&self) -> Arc<Latch<()>> {
        let latch = Arc::new(Latch::new());
        let listener: Weak<Latch<()>> = Arc::downgrade(&latch);
        self.token.listen(listener as Weak<dyn Cancels>);
        latch
    }

    /// The same context, for calls that are part of this one: they have until its deadline, and
    /// when it is cancelled so are they, but for those of
    /// [`call_no_reply`](Context::call_no_reply), which are on their own. Who waits for one of them
    /// then gets [`ErrorKind::Closed`] with [`Cause::Cancelled`].
    pub fn on(&self, context: &Context) -> Context {
        let manner = context.manner().cloned().unwrap_or_default().by(self.until);
        context.with(Manner { token: Some(self.token.clone()), ..manner })
    }
}
