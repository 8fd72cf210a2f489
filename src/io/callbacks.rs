//! The thread that runs users' callbacks: one at a time, in order, so that the loop never waits for
//! user code, and a callback may wait for whatever it likes. It is started for the first.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Cause, Error, Result};
use crate::io::latch::Latch;
use crate::io::promise::promise;
use crate::limits::{CALLBACK_TIME, COPY_STACK_BYTES, LOOK_AGAIN_MAX};
use crate::lock::{self, Lock, rank};
use crate::sys::errno::Errno;
use crate::sys::{poll, thread};
use crate::trace::{self, Level};

/// What a user wants done.
pub type Callback = Box<dyn FnOnce() + Send>;

/// What a broker knows of its own.
pub trait Calls: Send + Sync {
    /// Has `callback` run behind those before it; `what` names it in the log.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::error::ErrorKind) after [`Calls::finish`], `System` if
    /// there is no room for a thread.
    fn run(self: Arc<Self>, what: &'static str, callback: Callback) -> Result<()>;

    /// Waits until those that were taken by now have run, for at most this long; a callback does
    /// not wait for itself. Returns whether they have.
    fn settle(self: Arc<Self>, limit: Duration) -> bool;

    /// Whether none runs, and none waits to.
    fn is_idle(&self) -> bool;

    /// Whether the calling thread runs these.
    fn is_current(&self) -> bool;

    /// Takes no more; those that were taken run.
    fn finish(&self);
}

/// One broker's.
pub struct Callbacks {
    /// None is the last.
    queue: Latch<Option<(&'static str, Callback)>>,
    /// Held while one is queued, so that none comes behind the last.
    state: Lock<State, { rank::CALLBACKS }>,
    /// How many were taken and have not run.
    pending: AtomicU32,
    /// Closed when the last has run.
    ended: Latch<()>,
}

#[derive(Default)]
struct State {
    started: bool,
    /// Whether none is taken any more.
    finished: bool,
    /// What runs, and since when; none once its length was told.
    running: Option<(&'static str, Instant)>,
}

thread_local! {
    /// Whose thread this is, by address.
    static SELF: Cell<usize> = const { Cell::new(0) };
}

impl Callbacks {
    /// None yet, and no thread.
    pub fn new() -> Arc<Callbacks> {
        let (queue, state, ended) = (Latch::new(), Lock::default(), Latch::new());
        Arc::new(Callbacks { queue, state, pending: AtomicU32::new(0), ended })
    }

    fn start(self: &Arc<Self>) -> Result<()> {
        let own = self.clone();
        let body = Box::new(move || own.main());
        let started = thread::spawn(c"mitogen-user", COPY_STACK_BYTES, body);
        started.map_err(|Errno(errno)| Error::system("starting a thread for callbacks", errno))
    }

    fn main(&self) {
        SELF.set(self as *const Callbacks as usize);
        loop {
            match self.queue.get() {
                Ok(Some((what, callback))) => {
                    self.call(what, callback);
                    self.pending.fetch_sub(1, Ordering::Relaxed);
                }
                Ok(None) => break,
                // There are too few descriptors to sleep on one.
                Err(_) => {
                    let _ = poll::sleep(&[], Instant::now().checked_add(LOOK_AGAIN_MAX));
                }
            }
        }
        self.ended.close();
    }

    fn call(&self, what: &'static str, callback: Callback) {
        self.state.lock().running = Some((what, Instant::now()));
        lock::assert_none_held("calling user code");
        if catch_unwind(AssertUnwindSafe(callback)).is_err() {
            trace::text(Level::Error, "a callback panicked", &[], what);
        }
        let running = self.state.lock().running.take();
        if let Some((what, since)) = running {
            let ran = since.elapsed();
            if CALLBACK_TIME < ran {
                trace::text(Level::Warn, "a callback took long, in ms:", &[millis(ran)], what);
            }
        }
    }

    /// Waits until the last has run, for at most this long; a callback does not wait for itself.
    /// Returns whether it has.
    pub fn wait(&self, limit: Duration) -> bool {
        if !self.state.lock().started {
            return true;
        }
        !self.is_current() && self.ended.wait_closed(Instant::now().checked_add(limit)).is_ok()
    }
}

impl Calls for Callbacks {
    fn run(self: Arc<Self>, what: &'static str, callback: Callback) -> Result<()> {
        let mut state = self.state.lock();
        if state.finished {
            return Err(Error::closed(Cause::Shutdown));
        }
        if !state.started {
            self.start()?;
            state.started = true;
        }
        self.pending.fetch_add(1, Ordering::Relaxed);
        self.queue.put(Some((what, callback)))?;
        let slow = state.running.take_if(|(_, since)| CALLBACK_TIME < since.elapsed());
        drop(state);
        if let Some((what, _)) = slow {
            trace::text(Level::Warn, "a callback keeps others waiting", &[], what);
        }
        Ok(())
    }

    fn settle(self: Arc<Self>, limit: Duration) -> bool {
        if self.is_idle() || self.is_current() {
            return self.is_idle();
        }
        let (promise, done) = promise();
        match self.clone().run("the end", Box::new(move || promise.keep(()))) {
            Ok(()) => done.wait(Instant::now().checked_add(limit)).is_ok(),
            Err(_) => self.wait(limit),
        }
    }

    fn is_idle(&self) -> bool {
        self.pending.load(Ordering::Relaxed) == 0
    }

    fn is_current(&self) -> bool {
        SELF.get() == self as *const Callbacks as usize
    }

    fn finish(&self) {
        let mut state = self.state.lock();
        let last = state.started && !state.finished;
        state.finished = true;
        if last {
            // It is closed by nobody.
            let _ = self.queue.put(None);
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, mpsc};

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn they_run_in_order_on_a_thread_of_their_own_and_a_panic_ends_one_alone() {
        let callbacks = Callbacks::new();
        assert!(callbacks.wait(Duration::ZERO), "there is no thread before the first");
        let (tell, told) = mpsc::channel();
        for i in 0..100 {
            let (tell, own) = (tell.clone(), callbacks.clone());
            let callback = move || {
                tell.send((i, own.is_current(), own.wait(LIMIT))).unwrap();
                assert_ne!(i, 50, "on purpose");
            };
            callbacks.clone().run("a test", Box::new(callback)).unwrap();
        }
        callbacks.finish();
        callbacks.finish();
        assert!(callbacks.clone().run("too late", Box::new(|| ())).is_err());
        assert!(callbacks.wait(LIMIT) && !callbacks.is_current());
        assert!(told.try_iter().eq((0..100).map(|i| (i, true, false))));
    }

    #[test]
    fn of_many_that_come_first_at_once_while_it_ends_those_that_were_taken_run() {
        for round in 0..200 {
            let (callbacks, ran) = (&Callbacks::new(), Arc::new(AtomicUsize::new(0)));
            let barrier = &Barrier::new(16);
            let taken: usize = std::thread::scope(|scope| {
                let run = |place| {
                    let ran = ran.clone();
                    move || {
                        barrier.wait();
                        if place == round % 16 {
                            callbacks.finish();
                        }
                        let count = move || {
                            let _ = ran.fetch_add(1, Ordering::SeqCst);
                        };
                        callbacks.clone().run("a test", Box::new(count)).is_ok()
                    }
                };
                let threads: Vec<_> = (0..16).map(|place| scope.spawn(run(place))).collect();
                threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
            });
            assert!(callbacks.wait(LIMIT));
            assert_eq!(ran.load(Ordering::SeqCst), taken);
        }
    }

    #[test]
    fn who_waits_for_one_that_never_ends_is_let_go_in_time() {
        let callbacks = Callbacks::new();
        let (end, ended) = mpsc::channel::<()>();
        callbacks.clone().run("endless", Box::new(move || assert!(ended.recv().is_err()))).unwrap();
        callbacks.finish();
        assert!(!callbacks.wait(Duration::from_millis(20)));
        assert!(!callbacks.clone().settle(Duration::from_millis(20)) && !callbacks.is_idle());
        drop(end);
        assert!(callbacks.wait(LIMIT));
        assert!(callbacks.clone().settle(Duration::ZERO) && callbacks.is_idle());
    }
}
