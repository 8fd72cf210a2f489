//! From a builder or an address to a context: what the caller waits for.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::call::context::Context;
use crate::call::router::Router;
use crate::call::source::{Source, Taken, Watchable, Watched};
use crate::connect::address::{Address, Hop};
use crate::connect::connects::{Connects, Leg, Work, failed, fresh};
use crate::connect::debugging::Debugging;
use crate::connect::options::{Connect, Method, path_name, recipe};
use crate::connect::request::{Answerer, Question};
use crate::connect::slot::{Reached, Slot};
use crate::error::{Cause, ConnectFailure, Error, ErrorKind, Result};
use crate::io::broker::Broker;
use crate::lock::Lock;
use crate::trace::{self, Level};
use crate::wire::secret::Secret;

/// A context that is being started. Dropping it gives the attempt up, and leaves nothing of it.
///
/// # Resources
/// No thread, however many there are. What is queued takes memory only.
#[must_use = "dropping a Connecting cancels it; `wait` or `then` gives the context"]
pub struct Connecting(Ticket);

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
    /// [`ErrorKind::Connect`](crate::error::ErrorKind) with all that is known of the failure, when
    /// the connect timeout is over at the latest; `Closed` after the shutdown; `Interrupted`
    /// after a signal.
    pub fn connect(self) -> Result<Context> {
        self.start().wait()
    }

    /// Starts the context, once there is room: a router makes 128 connects at a time (see
    /// [`Program::connects_at_once`](crate::Program::connects_at_once)), and 10 to one ssh server.
    /// Whatever goes wrong comes out of what is returned.
    pub fn start(self) -> Connecting {
        let Connect { router, via, common, answerer, method } = &self;
        let answerer = answerer.clone().or_else(|| Connects::of(router).answerer());
        let here = router.context_id();
        let at = via.as_ref().map_or(here, Context::context_id);
        if via.as_ref().is_some_and(|via| at != here && !router.same_tree(via.router())) {
            let what = "a context of another tree cannot make this connection";
            return Connecting::failed(router, Error::usage(what));
        }
        if via.as_ref().is_some_and(|via| via.authority() != here) {
            let what = "a context that was given by one without authority here makes no \
                        connections for it: use Router::context_by_id to act in your own name";
            return Connecting::failed(router, Error::usage(what));
        }
        let parent = match via {
            Some(via) => Some(via.name()),
            None if router.is_master() => None,
            None => Some(router.name()),
        };
        let mut recipe =
            match fresh(parent, answerer.is_some(), |base| recipe(method, common, base)) {
                Ok(recipe) => recipe,
                Err(failure) => {
                    let name = path_name(method, common, parent);
                    return Connecting::failed(router, failed(name, failure));
                }
            };
        Debugging::of(router).suggest(&mut recipe.terms.files);
        let (name, server) = (recipe.name.clone(), Hop::of(method, common).server(at));
        let work = Work::Recipe(Arc::new(recipe), at, server);
        Connecting::start(router, name, vec![Leg { key: None, work }], answerer)
    }
}

impl Connecting {
    /// Waits until the context is up.
    ///
    /// # Errors
    /// As [`Connect::connect`]. After a signal, the attempt is given up.
    pub fn wait(self) -> Result<Context> {
        self.wait_and_tell().map(|(context, _)| context)
    }

    /// Waits until the context is up; tells what that took.
    ///
    /// # Errors
    /// As [`Connecting::wait`].
    pub fn wait_and_tell(self) -> Result<(Context, Cost)> {
        let Connecting(ticket) = self;
        ticket.router.broker().forbid_own_thread()?;
        let reached = ticket.slot.wait().map_err(|error| ticket.explained(error))?;
        Ok((ticket.take(&reached), reached.cost()))
    }

    /// Has `then` called with what [`Connecting::wait`] would return, on the thread for callbacks,
    /// where it may connect, call and wait. So the outcomes of many can be gathered, as into one
    /// channel. It is called once, after a shutdown at once and maybe on this thread. A panic in it
    /// is logged.
    pub fn then(self, then: impl FnOnce(Result<Context>) + Send + 'static) {
        let Connecting(ticket) = self;
        let (slot, router) = (ticket.slot.clone(), ticket.router.clone());
        let (ticket, then): (_, Then) = (Some(ticket), Box::new(then));
        let told = Told { ticket, then: Some(then), outcome: None, was_queued: false };
        // If the broker has ended, it is told so by being dropped.
        let _ = router.broker().defer(move |_| {
            slot.call(Box::new(move |outcome| told.tell(outcome)));
        });
    }

    /// Gives the attempt up, as dropping it does: what is queued never starts, what was started is
    /// ended, and so is a context that has come up meanwhile. Does not wait for that.
    pub fn cancel(self) {}

    fn start(
        router: &Router,
        name: String,
        legs: Vec<Leg>,
        answerer: Option<Answerer>,
    ) -> Connecting {
        let (connects, slot) = (Connects::of(router), Arc::new(Slot::default()));
        let journey = Lock::new(Some(connects.start(name, legs, answerer, slot.clone())));
        Connecting(Ticket { router: router.clone(), connects, slot, journey })
    }

    /// One that has failed already.
    fn failed(router: &Router, error: Error) -> Connecting {
        let (connects, slot) = (Connects::of(router), Arc::new(Slot::default()));
        slot.decide(Err(error));
        Connecting(Ticket { router: router.clone(), connects, slot, journey: Lock::default() })
    }
}

impl Watched for Connecting {
    fn latch(&self) -> Option<&dyn Watchable> {
        Some(self.0.slot.decided())
    }

    fn broker(&self) -> Option<Broker> {
        Some(self.0.router.broker().clone())
    }
}

/// It yields the context, or why there is none.
impl Source for Connecting {
    type Item = Context;

    fn take(&self) -> Taken<Context> {
        let Connecting(ticket) = self;
        match ticket.slot.take() {
            None => Taken::Nothing,
            Some(Ok(reached)) => Taken::Last(Ok(ticket.take(&reached))),
            Some(Err(error)) => Taken::Last(Err(ticket.explained(error))),
        }
    }
}

/// The right to an outcome. Dropped, it gives up what it stands for.
struct Ticket {
    router: Router,
    connects: Arc<Connects>,
    slot: Arc<Slot>,
    journey: Lock<Option<u64>>,
}

impl Ticket {
    fn take(&self, reached: &Reached) -> Context {
        let journey = self.journey.lock().take();
        if let Some(journey) = journey {
            self.connects.keep(journey);
        }
        reached.context(&self.router)
    }

    /// What was cut short by a broker's failure failed for that reason.
    fn explained(&self, error: Error) -> Error {
        let is_cut_short = match error.kind() {
            ErrorKind::Closed(death) => death.is_own(),
            ErrorKind::Connect(error) => error.failure == ConnectFailure::Cancelled,
            _ => false,
        };
        match self.router.broker().failure() {
            Some(death) if is_cut_short => death.into(),
            _ => error,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(journey) = self.journey.own().take() {
            self.connects.cancel(journey);
        }
    }
}

/// Somebody to be called with an outcome, or with the lack of one.
struct Told {
    ticket: Option<Ticket>,
    then: Option<Then>,
    outcome: Option<Result<Reached>>,
    /// Whether the thread for callbacks has it, or has refused it.
    was_queued: bool,
}

type Then = Box<dyn FnOnce(Result<Context>) + Send>;

impl Told {
    fn tell(mut self, outcome: Result<Reached>) {
        self.outcome = Some(outcome);
        self.queue();
    }

    fn queue(mut self) {
        self.was_queued = true;
        let broker = self.ticket.as_ref().map(|ticket| ticket.router.broker().clone());
        // Where no callback runs any more it is called here.
        let _ = broker.map(|broker| broker.callback(THEN, Box::new(move || drop(self))));
    }
}

/// What the log calls it.
const THEN: &str = "Connecting::then";

impl Drop for Told {
    fn drop(&mut self) {
        let (Some(ticket), Some(then)) = (self.ticket.take(), self.then.take()) else { return };
        let outcome = self.outcome.take().unwrap_or(Err(Error::closed(Cause::Shutdown)));
        if !self.was_queued {
            // The loop, which ends, does not wait for user code.
            let (ticket, then, outcome) = (Some(ticket), Some(then), Some(outcome));
            return Told { ticket, then, outcome, was_queued: false }.queue();
        }
        let outcome = match outcome {
            Ok(reached) => Ok(ticket.take(&reached)),
            Err(error) => Err(ticket.explained(error)),
        };
        if catch_unwind(AssertUnwindSafe(|| then(outcome))).is_err() {
            trace::text(Level::Error, "a callback panicked", &[], THEN);
        }
    }
}

impl Reached {
    fn context(&self, router: &Router) -> Context {
        router.started(self.id, &self.name)
    }

    fn cost(&self) -> Cost {
        Cost { pushed_bytes: self.pushed_bytes, elapsed_us: self.elapsed_us }
    }
}

impl Router {
    /// The context at an address. Its hops are connected one behind the other; what two addresses
    /// have in common is connected once, however many ask at the same time.
    ///
    /// # Errors
    /// As [`Connect::connect`], of the hop that failed. What was connected for its sake is ended,
    /// unless another address leads through it.
    pub fn connect(&self, address: &Address) -> Result<Context> {
        self.start(address).wait()
    }

    /// As [`Router::connect`], without the wait.
    pub fn start(&self, address: &Address) -> Connecting {
        let leg = |(prefix, hop): (Address, &Hop)| Leg {
            key: Some(key_of(&prefix)),
            work: Work::Hop(hop.clone()),
        };
        let legs = address.prefixes().zip(address.hops()).map(leg).collect();
        let answerer = Connects::of(self).answerer();
        Connecting::start(self, address.to_string(), legs, answerer)
    }

    /// As [`Connect::on_prompt`], for all connects from now on that have none of their own, such
    /// as those of addresses.
    pub fn on_prompt<F>(&self, answer: F)
    where
        F: Fn(&Question) -> Option<Secret> + Send + Sync + 'static,
    {
        Connects::of(self).set_answerer(Arc::new(answer));
    }

    /// What it took to connect the last hop of an address that is connected.
    pub fn cost(&self, address: &Address) -> Option<Cost> {
        Connects::of(self).find(&key_of(address)).map(|reached| reached.cost())
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

#[cfg(test)]
mod tests {
    use crate::Program;
    use crate::io::turn::Turn;

    #[test]
    fn what_comes_as_the_broker_ends_is_told_on_the_thread_for_callbacks() {
        let router = Program::new().router().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let connecting = router.command(["sh", "-c", "exec sleep 1000"]).start();
        let (broker, here) = (router.broker().clone(), router.broker().clone());
        let end = move |turn: &mut Turn| {
            turn.stop();
            connecting.then(move |outcome| {
                tell.send((here.is_current(), outcome.is_err())).unwrap();
            });
        };
        broker.defer(end).unwrap();
        let limit = std::time::Duration::from_secs(10);
        assert_eq!(told.recv_timeout(limit).unwrap(), (false, true));
    }
}
