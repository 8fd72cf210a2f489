//! Chains: calls that are sent one behind the other without a wait, and fail as one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::call::arguments::Arguments;
use crate::call::context::Context;
use crate::call::function::{Function, Signature};
use crate::call::manner::Manner;
use crate::call::pending::{Call, tell_callee};
use crate::call::queue::CHAINED;
use crate::call::router::WeakRouter;
use crate::error::{Error, Result};
use crate::ids::{ContextId, Handle};
use crate::lock::Lock;
use crate::route::node::Outgoing;
use crate::wire::codec::Encode;
use crate::wire::header::Kind;

/// Calls of one context that build on each other: sent without a wait between them, and once one
/// has failed, none behind it is run.
///
/// All behind the first failure fail with that one, also where nobody waited for the call which
/// failed: so a failure of [`Chain::call_no_reply`] comes out of the next call that is waited for.
/// A call that was cancelled, or whose time was up, is a failure, too. In a context with several
/// [threads](crate::Connect::threads) a chain's calls still run one after the other.
///
/// ```
/// # use mitogen::{Program, Result};
/// fn make(name: &str) -> Result<(), String> {
///     if name.is_empty() { Err("no name".into()) } else { Ok(()) }
/// }
/// fn count(to: u32) -> u32 {
///     to
/// }
/// # fn main() -> Result<()> {
/// let router = Program::new().function(make).function(count).router()?;
/// let chain = router.in_process()?.chain();
/// chain.call_no_reply(make, "")?;
/// let error = chain.call(count, 3).unwrap_err();
/// assert!(error.to_string().contains("no name"));
/// # Ok(()) }
/// ```
///
/// Dropping it ends nothing that was sent.
pub struct Chain {
    /// With the chain as its manner.
    context: Context,
}

impl Context {
    /// A new chain of calls of this context, within the same [limit](Context::within).
    pub fn chain(&self) -> Chain {
        let ids = self.router().kept(|| ChainIds(AtomicU32::new(1)));
        let links = Links {
            router: self.router().downgrade(),
            callee: self.context_id(),
            auth: self.authority(),
            id: ids.0.fetch_add(1, Ordering::Relaxed),
            begun: AtomicBool::new(false),
            failed: Lock::default(),
        };
        let manner = self.manner().cloned().unwrap_or_default();
        Chain { context: self.with(Manner { chain: Some(Arc::new(links)), ..manner }) }
    }
}

impl Chain {
    /// As [`Context::call`], as a link of the chain.
    ///
    /// # Errors
    /// Also what the first failure of the chain was.
    pub fn call<F, M>(&self, function: F, args: impl Arguments<F::Args>) -> Result<F::Output>
    where
        F: Signature<M> + Function<M>,
    {
        self.context.call(function, args)
    }

    /// As [`Context::call_async`], as a link of the chain. Dropping the [`Call`] before its answer
    /// is there cancels it, and with it all behind it.
    pub fn call_async<F, M>(&self, function: F, args: impl Arguments<F::Args>) -> Call<F::Output>
    where
        F: Signature<M> + Function<M>,
    {
        self.context.call_async(function, args)
    }

    /// As [`Context::call_no_reply`], as a link of the chain.
    ///
    /// # Errors
    /// Those of sending; and what kept an earlier call from being sent.
    pub fn call_no_reply<F, M>(&self, function: F, args: impl Arguments<F::Args>) -> Result<()>
    where
        F: Signature<M> + Function<M>,
    {
        self.context.call_no_reply(function, args)
    }
}

/// The numbers of one router's chains.
struct ChainIds(AtomicU32);

/// What the calls of a chain have in common.
pub(crate) struct Links {
    router: WeakRouter,
    callee: ContextId,
    auth: ContextId,
    id: u32,
    /// Whether the callee may know of it.
    begun: AtomicBool,
    /// What kept a call from being sent: nobody there knows of it.
    failed: Lock<Option<Error>>,
}

impl Links {
    pub(crate) fn id(&self) -> u32 {
        self.begun.store(true, Ordering::Relaxed);
        self.id
    }

    pub(crate) fn check(&self) -> Result<()> {
        let failed = self.failed.lock();
        failed.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn fail(&self, error: &Error) {
        self.failed.lock().get_or_insert_with(|| error.clone());
    }
}

/// Has the callee forget it, behind its calls.
impl Drop for Links {
    fn drop(&mut self) {
        let Some(router) = self.router.upgrade().filter(|_| *self.begun.get_mut()) else { return };
        let (dst, auth, handle) = (self.callee, self.auth, Handle::CALL);
        let out = Outgoing { kind: Kind::Call, dst, auth, handle, reply_to: None };
        let lane = router.node().lane(dst, handle);
        tell_callee(&router, &out, lane, &|w| {
            w.put(&[0; 8]);
            w.put_u8(CHAINED);
            self.id.encode(w);
        });
    }
}
