//! The thread that turns a loop, and the queue by which other threads reach it.

mod run;
mod sharing;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use crate::error::{Cause, Death, Error, ErrorKind, Result};
use crate::io::broker::sharing::User;
use crate::io::callbacks::{Callback, Callbacks, Calls};
use crate::io::latch::Latch;
use crate::io::lending::{self, Lending, Next, Task};
use crate::io::promise::{Promised, promise};
use crate::io::turn::{Key, Turn};
use crate::limits::BROKER_STACK_BYTES;
use crate::sys::errno::Errno;
use crate::sys::fork;
use crate::sys::poll::Poller;
use crate::sys::text::{Decimal, lossy};
use crate::sys::{signal, thread};
use crate::trace::{self, Level, panic_text};

/// Multiplexes the I/O of one or more routers on a thread of its own. Clones are the same broker.
///
/// A router makes one for itself, unless its program names one that it is to
/// [share](crate::Program::broker).
///
/// # Resources
/// One thread, and two descriptors on Linux.
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Shared>,
    /// Its share in the broker's life. Behind a pointer of no type, so that an agent, whose broker
    /// ends with the process, does not link the end.
    _user: Option<Arc<dyn Send + Sync>>,
}

struct Shared {
    lending: Lending,
    /// Those for whose sake it lives, if it ends with them.
    users: OnceLock<Weak<User>>,
    tenants: AtomicU32,
    /// Which copy of the process has its thread.
    generation: u32,
    /// From the first on: an agent, which has none, does not link what runs them.
    callbacks: OnceLock<Arc<dyn Calls>>,
    /// Closed when the loop has ended and let go of all that is the broker's.
    ended: Arc<Latch<()>>,
}

impl Broker {
    /// Starts a broker that lasts until it is shut down.
    ///
    /// # Errors
    /// As [`Broker::new`].
    pub(crate) fn start() -> Result<Broker> {
        Broker::start_with(end_loop)
    }

    /// Starts a broker whose failure ends the process.
    ///
    /// # Errors
    /// As [`Broker::new`].
    pub(crate) fn of_process() -> Result<Broker> {
        Broker::start_with(end_process)
    }

    #[inline(always)] // an agent calls it once
    fn start_with(over: Over) -> Result<Broker> {
        let failed = |Errno(errno)| Error::system("starting a broker", errno);
        let poller = Poller::new().map_err(failed)?;
        let broker = Broker::of(&poller);
        let own = broker.clone();
        let body = Box::new(move || own.main(poller, over));
        thread::spawn(c"mitogen-broker", BROKER_STACK_BYTES, body).map_err(failed)?;
        Ok(broker)
    }

    fn of(poller: &Poller) -> Broker {
        Broker {
            shared: Arc::new(Shared {
                lending: Lending::new(poller.notifier()),
                users: OnceLock::new(),
                tenants: AtomicU32::new(0),
                generation: fork::generation(),
                callbacks: OnceLock::new(),
                ended: Arc::new(Latch::new()),
            }),
            _user: None,
        }
    }

    /// One without a thread, and its turn: a test is its loop.
    #[cfg(test)]
    pub(crate) fn by_hand() -> (Broker, Turn) {
        let poller = Poller::new().unwrap();
        let broker = Broker::of(&poller);
        (broker.clone(), Turn::new(broker, poller, end_loop))
    }

    /// Runs `task` on the broker's thread, after what was deferred before.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] once the broker is shut down, or has failed; `task` is dropped.
    pub(crate) fn defer(&self, task: impl FnOnce(&mut Turn) + Send + 'static) -> Result<()> {
        self.enqueue(Box::new(task))
    }

    fn enqueue(&self, task: Task) -> Result<()> {
        self.forbid_copy()?;
        self.shared.lending.enqueue(task)
    }

    /// Runs `task` on the broker's thread and waits for what it returns.
    ///
    /// # Errors
    /// As [`Broker::defer`]; [`ErrorKind::Usage`] on the broker's own thread.
    pub(crate) fn defer_sync<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Turn) -> T + Send + 'static,
    ) -> Result<T> {
        self.forbid_own_thread()?;
        let (promise, answer) = promise();
        self.defer(move |turn| promise.keep(task(turn)))?;
        self.wait_for(&answer)
    }

    /// Takes the next item of what this broker's loop puts into `latch`; sleeps until there is one,
    /// and may turn the loop meanwhile.
    ///
    /// # Errors
    /// As [`Latch::get_timeout`].
    pub(crate) fn wait<T>(&self, latch: &Latch<T>, deadline: Option<Instant>) -> Result<T> {
        self.shared.lending.wait(latch, deadline)
    }

    /// Waits for what the loop has promised.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the loop ends first; [`ErrorKind::System`] as [`Latch::get`].
    pub(crate) fn wait_for<T>(&self, answer: &Promised<T>) -> Result<T> {
        answer.get().map_err(|error| match error.kind() {
            ErrorKind::Closed(_) => {
                // It ends in this moment: then it is known why.
                self.join();
                self.death(Cause::Shutdown).into()
            }
            _ => error,
        })
    }

    /// What ends with this cause; or, if the broker has failed, with that.
    pub(crate) fn death(&self, cause: Cause) -> Death {
        self.failure().unwrap_or(Death::of(cause))
    }

    /// What the broker has failed with, if it has.
    pub(crate) fn failure(&self) -> Option<Death> {
        if self.is_copy() {
            return None;
        }
        let closed = self.shared.lending.closed();
        closed.filter(|why| why.cause == Cause::BrokerFailed)
    }

    /// Runs a user's `callback` on the thread for these, behind those before it, with no lock held;
    /// `what` names it in the log.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] once the broker has ended, [`ErrorKind::System`] if there is no room
    /// for a thread; `callback` is dropped.
    pub(crate) fn callback(&self, what: &'static str, callback: Callback) -> Result<()> {
        self.forbid_copy()?;
        self.shared.callbacks().run(what, callback)
    }

    /// Waits until the callbacks that came by now have run, for at most this long; not on a
    /// broker's thread, and not in a callback. Returns whether they have.
    pub(crate) fn wait_for_callbacks(&self, limit: Duration) -> bool {
        let settle = |callbacks: &Arc<dyn Calls>| callbacks.clone().settle(limit);
        self.is_copy() || !lending::turns_one() && self.shared.callbacks.get().is_none_or(settle)
    }

    /// Whether a callback runs, or waits to.
    pub(crate) fn is_calling(&self) -> bool {
        self.shared.callbacks.get().is_some_and(|callbacks| !callbacks.is_idle())
    }

    /// Has the loop write what `key`'s outbox holds.
    pub(crate) fn arm(&self, key: Key) {
        // After the end there is nothing left to write to.
        let _ = self.defer(move |turn| turn.arm(key));
    }

    /// Asks the loop to end: every stream is closed. Returns at once; see [`Broker::join`].
    pub fn shutdown(&self) {
        // An ended broker is what was asked for.
        let _ = self.defer(Turn::stop);
    }

    /// Waits until the broker has ended; not on its own thread.
    pub fn join(&self) {
        if self.is_current() || self.is_copy() {
            return;
        }
        while self.shared.ended.wait_closed(None).is_err() {}
    }

    /// Waits until the broker has ended, for at most this long; not on its own thread. Returns
    /// whether it has.
    pub fn join_timeout(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let ended = &self.shared.ended;
        self.is_copy() || !self.is_current() && ended.wait_closed(deadline).is_ok()
    }

    /// Whether the calling thread turns this broker's loop: its own, or one that serves in its
    /// place.
    pub(crate) fn is_current(&self) -> bool {
        self.shared.lending.is_current()
    }

    /// Whether the process was forked since this was started: its thread is the original's, and
    /// its locks may be held for ever.
    pub(crate) fn is_copy(&self) -> bool {
        let now = fork::generation();
        now != 0 && now != self.shared.generation
    }

    /// Refuses what only the original can do.
    pub(crate) fn forbid_copy(&self) -> Result<()> {
        if self.is_copy() {
            return Err(Error::usage(
                "the process was forked since this router was made: use the copy's own, which \
                 on_start is given",
            ));
        }
        Ok(())
    }

    /// Refuses to wait on the thread that would have to do the work, and where there is none.
    pub(crate) fn forbid_own_thread(&self) -> Result<()> {
        self.forbid_copy()?;
        if self.is_current() {
            return Err(Error::usage("a callback of the broker must not wait for the broker"));
        }
        Ok(())
    }

    /// What was deferred, in order.
    pub(crate) fn take_deferred(&self) -> Vec<Task> {
        self.shared.lending.take_tasks()
    }

    /// Never has a thread that waits turn the loop: to be measured beside.
    #[doc(hidden)]
    pub fn never_lend(&self) {
        self.shared.lending.forbid();
    }

    #[cfg(test)]
    pub(crate) fn lending(&self) -> &Lending {
        &self.shared.lending
    }

    /// What the loop does next, which has `served` something or not.
    pub(crate) fn next(&self, served: bool) -> Next {
        self.shared.lending.next(served)
    }

    fn main(self, poller: Poller, over: Over) {
        let lending = &self.shared.lending;
        lending.settle();
        let mut turn = Box::new(Turn::new(self.clone(), poller, over));
        let ran = loop {
            let ran = catch_unwind(AssertUnwindSafe(|| turn.run()));
            if turn.is_over() || !matches!(ran, Ok(Ok(()))) {
                break ran;
            }
            turn = lending.lend(turn);
        };
        (turn.over)(turn, ran);
    }
}

/// How a loop has ended: as it was asked to; as poll fails; or by a panic.
pub(crate) type Ran = Result<Result<(), Errno>, Box<dyn Any + Send>>;

/// What follows that.
pub(crate) type Over = fn(Box<Turn>, Ran);

/// Fails whatever waits for a loop that has ended.
pub(crate) fn end_loop(mut turn: Box<Turn>, ran: Ran) {
    let (shared, why) = (turn.broker.shared.clone(), why(ran));
    shared.lending.close(why.clone());
    // What panics is told no more, but all others are: each is taken before it is called.
    while catch_unwind(AssertUnwindSafe(|| turn.end(&why))).is_err() {}
    let _ = catch_unwind(AssertUnwindSafe(|| drop(turn)));
    while catch_unwind(AssertUnwindSafe(|| shared.drop_tasks())).is_err() {}
    shared.callbacks().finish();
    shared.ended.close();
}

/// Ends the process: whoever waits in it ends as well, and its parent learns of it.
fn end_process(_: Box<Turn>, ran: Ran) {
    if trace::wanted(Level::Error) {
        drop(why(ran));
    }
    signal::die()
}

fn why(ran: Ran) -> Death {
    match ran {
        Ok(Ok(())) => Death::of(Cause::Shutdown),
        Ok(Err(Errno(errno))) => {
            let number = Decimal::new(errno as u64);
            failed("poll failed with error number ", &lossy(number.bytes()))
        }
        Err(panic) => failed("the broker panicked: ", &panic_text(&*panic)),
    }
}

/// What a broker cannot go on with.
fn failed(what: &str, why: &str) -> Death {
    let tail = what.to_owned() + why;
    trace::text(Level::Error, "a broker failed", &[], &tail);
    Death { tail, ..Death::of(Cause::BrokerFailed) }
}

impl Shared {
    fn callbacks(&self) -> Arc<dyn Calls> {
        self.callbacks.get_or_init(|| Callbacks::new()).clone()
    }

    fn drop_tasks(&self) {
        while let Some(task) = self.lending.take_task() {
            drop(task);
        }
    }
}
