//! From a builder or an address to a context: what the caller waits for.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::call::context::Context;
use crate::call::router::{Prefix, Reached, Router};
use crate::connect::address::{Address, Hop};
use crate::connect::child::Connected;
use crate::connect::options::sealed::Describe;
use crate::connect::options::{Base, Common, Connect, Method, recipe};
use crate::connect::recipe::Recipe;
use crate::connect::request::{self, Refusal};
use crate::error::{Cause, ConnectError, ConnectFailure, Death, Error, ErrorKind, Phase, Result};
use crate::io::latch::Latch;
use crate::io::turn::Turn;
use crate::limits::SHUTDOWN_GRACE;
use crate::sys::{host, random};

/// Where the outcome of an attempt arrives.
type Outcome = Latch<std::result::Result<Connected, Refusal>>;

/// A context that is being started. Dropping it does not stop the attempt.
#[must_use = "`wait` gives the context"]
pub struct Connecting {
    router: Router,
    name: String,
    outcome: Result<Arc<Outcome>>,
    /// Longer than the attempt may take.
    patience: Duration,
}

/// What it took to start a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Bytes that were written to bring the agent up, its image included.
    pub pushed_bytes: u64,
    /// Microseconds from the start of the process to the agent's first word.
    pub elapsed_us: u64,
}

impl<M: Method> Connect<M> {
    /// Starts the context and waits until it is up.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] with all that is known of the failure, within the connect timeout;
    /// [`ErrorKind::Closed`] after the shutdown; [`ErrorKind::System`] with `EINTR` after a signal.
    pub fn connect(self) -> Result<Context> {
        self.start().wait()
    }

    /// Starts the context. Whatever goes wrong comes out of what is returned.
    pub fn start(self) -> Connecting {
        start(&self.router, self.via.as_ref(), &self.method, &self.common)
    }
}

impl Connecting {
    /// Waits until the context is up.
    ///
    /// # Errors
    /// As [`Connect::connect`].
    pub fn wait(self) -> Result<Context> {
        self.wait_and_tell().map(|(context, _)| context)
    }

    /// Waits until the context is up; tells what that took.
    ///
    /// # Errors
    /// As [`Connect::connect`].
    pub fn wait_and_tell(self) -> Result<(Context, Cost)> {
        self.router.broker().forbid_own_thread()?;
        let outcome = match self.outcome?.get_timeout(self.patience) {
            // Who makes the connection has timers of its own, but may itself be stuck.
            Err(error) if *error.kind() == ErrorKind::Timeout => {
                return Err(failed(self.name, ConnectFailure::Timeout).into());
            }
            outcome => outcome?,
        };
        match outcome {
            Ok(Connected { id, pushed_bytes, elapsed_us }) => {
                let context = Context::new(&self.router, id, &self.name, self.router.context_id());
                Ok((context, Cost { pushed_bytes, elapsed_us }))
            }
            Err(Refusal::Failed(mut error)) => {
                if error.hop.is_empty() {
                    error.hop = self.name;
                }
                Err(Error::from(*error))
            }
            Err(Refusal::Gone(death)) => {
                Err(failed(self.name, ConnectFailure::ViaGone(death)).into())
            }
        }
    }
}

fn failed(hop: String, failure: ConnectFailure) -> ConnectError {
    ConnectError { failure, phase: Phase::Prepare, hop, exit: None, tail: String::new() }
}

fn start(
    router: &Router,
    via: Option<&Context>,
    method: &dyn Describe,
    common: &Common,
) -> Connecting {
    let parent = match via {
        Some(via) => Some(via.name()),
        None if router.is_master() => None,
        None => Some(router.name()),
    };
    let title = title();
    let (nonce, answer_nonce) = (random::u64(), random::u64());
    let base = Base { parent, title: &title, nonce, answer_nonce };
    match recipe(method, common, &base) {
        Ok(recipe) => {
            let name = recipe.name.clone();
            let patience = Duration::from_millis(recipe.timeout_ms).saturating_add(SHUTDOWN_GRACE);
            let outcome = begin(router, via, recipe);
            Connecting { router: router.clone(), name, outcome, patience }
        }
        Err(failure) => {
            let name = Hop::of(method, common).to_string();
            let outcome = Err(failed(name.clone(), failure).into());
            Connecting { router: router.clone(), name, outcome, patience: Duration::ZERO }
        }
    }
}

fn begin(router: &Router, via: Option<&Context>, recipe: Recipe) -> Result<Arc<Outcome>> {
    let outcome = Arc::new(Outcome::new());
    let here = router.context_id();
    let via = match via {
        Some(via) if via.context_id() != here && !router.same_tree(via.router()) => {
            return Err(Error::usage("a context of another tree cannot make this connection"));
        }
        via => via.map_or(here, Context::context_id),
    };
    let answer = outcome.clone();
    let taker = Box::new(move |_: &mut Turn, result: Result<Connected, Refusal>| {
        // Who asked may have given up.
        let _ = answer.put(result);
    });
    match request::ask(router.node(), via, &recipe, None, taker).map_err(Error::into_kind) {
        Ok(_) => (),
        // One that is gone already is a failed connect, as one that goes meanwhile is.
        Err(ErrorKind::Closed(death)) if death.cause != Cause::Shutdown => {
            outcome.put(Err(Refusal::Gone(death)))?;
        }
        Err(kind) => return Err(Error::new(kind)),
    }
    Ok(outcome)
}

/// Who starts an agent: what `ps` shows there.
fn title() -> String {
    let digits = host::pid().to_string();
    ["mitogen:", &host::user_name(), "@", &host::uname().nodename, ":", &digits].concat()
}

impl Router {
    /// The context at an address. Its hops are connected one behind the other; what two addresses
    /// have in common is connected once, however many threads ask at the same time.
    ///
    /// # Errors
    /// As [`Connect::connect`], of the hop that failed.
    pub fn connect(&self, address: &Address) -> Result<Context> {
        let mut here = None;
        for (prefix, hop) in address.prefixes().zip(address.hops()) {
            here = Some(self.connect_prefix(here.as_ref(), &prefix, hop)?);
        }
        here.ok_or_else(|| Error::usage("an address without hops"))
    }

    /// What it took to connect the last hop of an address that is connected.
    pub fn cost(&self, address: &Address) -> Option<Cost> {
        let key = key_of(address);
        let prefix = self.connected().iter().find(|(k, _)| *k == key)?.1.clone();
        let &Reached { pushed_bytes, elapsed_us, .. } = prefix.result.get()?.as_ref().ok()?;
        Some(Cost { pushed_bytes, elapsed_us })
    }

    fn connect_prefix(
        &self,
        via: Option<&Context>,
        address: &Address,
        hop: &Hop,
    ) -> Result<Context> {
        let key = key_of(address);
        let (prefix, is_first) = self.prefix(&key);
        if is_first {
            let (common, method) = hop.options();
            let result = start(self, via, &*method, &common).wait_and_tell();
            if result.is_err() {
                self.connected().retain(|(_, p)| !Arc::ptr_eq(p, &prefix));
            }
            let result = result.map(|(context, Cost { pushed_bytes, elapsed_us })| {
                let (id, name) = (context.context_id(), context.name().into());
                Reached { id, name, pushed_bytes, elapsed_us }
            });
            // Nobody else sets it.
            let _ = prefix.result.set(result);
            prefix.ready.close();
        }
        prefix.ready.wait_closed(None)?;
        let result = prefix.result.get().cloned();
        let reached = result.unwrap_or_else(|| Err(Death::of(Cause::Cancelled).into()))?;
        Ok(Context::new(self, reached.id, &reached.name, self.context_id()))
    }

    /// The entry of an address, and whether the caller is the first and must connect it.
    fn prefix(&self, key: &str) -> (Arc<Prefix>, bool) {
        let mut connected = self.connected();
        let below = self.node().below();
        connected.retain(|(_, prefix)| match prefix.result.get() {
            Some(Ok(reached)) => below.binary_search(&reached.id).is_ok(),
            _ => true,
        });
        if let Some((_, prefix)) = connected.iter().find(|(k, _)| k == key) {
            return (prefix.clone(), false);
        }
        let prefix = Arc::new(Prefix { result: OnceLock::new(), ready: Latch::new() });
        connected.push((key.to_owned(), prefix.clone()));
        (prefix, true)
    }
}

/// Tells addresses apart, also by their passwords, without keeping those.
fn key_of(address: &Address) -> String {
    let mut hasher = DefaultHasher::new();
    for hop in address.hops() {
        hop.values().hash(&mut hasher);
    }
    [&address.to_string(), "#", &hasher.finish().to_string()].concat()
}
