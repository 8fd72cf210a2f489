//! Functions of a program that run where its callbacks do: in order, one at a time, and not on the
//! loop's thread.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::error::{Cause, ErrorKind, Result};
use crate::io::broker::Broker;
use crate::io::promise::promise;

const WHAT: &str = "Broker::run";

impl Broker {
    /// Runs `task` soon, behind the callbacks that are due by now, and before those to come: so it
    /// meets none of them. Not on the loop's thread, which never waits for a program's code.
    /// Returns at once. A panic in it is logged.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] once the broker has ended, `System` if there is no room for a thread;
    /// `task` is dropped then. What was taken runs, also at the end.
    pub fn run(&self, task: impl FnOnce() + Send + 'static) -> Result<()> {
        self.callback(WHAT, Box::new(task)).map_err(|error| match error.kind() {
            ErrorKind::Closed(_) => self.death(Cause::Shutdown).into(),
            _ => error,
        })
    }

    /// As [`Broker::run`], and waits for what `task` returns. In a callback `task` is called at
    /// once. A panic in it goes on here.
    ///
    /// ```
    /// # fn main() -> mitogen::Result<()> {
    /// let router = mitogen::Program::new().router()?;
    /// let broker = router.broker().clone();
    /// let nested = router.broker().run_sync(move || broker.run_sync(|| 42))?;
    /// assert_eq!(nested?, 42);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Also [`ErrorKind::Interrupted`] after a signal: `task` runs all the same.
    pub fn run_sync<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        self.forbid_own_thread()?;
        if self.is_callback() {
            return Ok(task());
        }
        let (promise, answer) = promise();
        self.run(move || promise.keep(catch_unwind(AssertUnwindSafe(task))))?;
        match self.wait_for(&answer)? {
            Ok(value) => Ok(value),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Whether the calling thread is the one for callbacks.
    fn is_callback(&self) -> bool {
        self.shared.callbacks.get().is_some_and(|callbacks| callbacks.is_current())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn tasks_run_in_order_on_the_thread_for_callbacks_and_one_may_wait_for_another() {
        let broker = Broker::new().unwrap();
        let (tell, told) = channel();
        for i in 0..100 {
            let (tell, own) = (tell.clone(), broker.weak());
            let task = move || {
                let nested = own.run_sync(move || i).unwrap();
                let is_loop = own.is_current();
                tell.send((nested, own.is_callback(), is_loop)).unwrap();
                assert_ne!(i, 50, "on purpose");
            };
            broker.run(task).unwrap();
        }
        broker.run_sync(|| ()).unwrap();
        assert!(told.try_iter().eq((0..100).map(|i| (i, true, false))));
        assert!(!broker.is_callback());
    }

    #[test]
    fn the_loop_goes_on_while_a_task_waits() {
        let broker = Broker::new().unwrap();
        let (go, gate) = channel::<()>();
        broker.run(move || gate.recv().unwrap()).unwrap();
        broker.defer_sync(|_| ()).unwrap();
        go.send(()).unwrap();
        broker.run_sync(|| ()).unwrap();
    }

    #[test]
    fn a_panic_goes_on_where_somebody_waits_for_the_task() {
        let broker = Broker::new().unwrap();
        let waits = catch_unwind(AssertUnwindSafe(|| broker.run_sync(|| panic!("on purpose"))));
        assert_eq!(waits.unwrap_err().downcast_ref(), Some(&"on purpose"));
        assert_eq!(broker.run_sync(|| 7).unwrap(), 7);
    }

    #[test]
    fn what_was_taken_before_the_end_runs_and_nothing_after_it() {
        let broker = Broker::start().unwrap();
        let (tell, told) = channel();
        let (go, gate) = channel::<()>();
        broker.run(move || gate.recv().unwrap()).unwrap();
        broker.run(move || tell.send(()).unwrap()).unwrap();
        broker.shutdown();
        broker.join();
        go.send(()).unwrap();
        told.recv_timeout(Duration::from_secs(10)).unwrap();
        for ended in [broker.run(|| ()), broker.run_sync(|| ())] {
            let error = ended.unwrap_err();
            let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
            assert_eq!(death.cause, Cause::Shutdown);
        }
        let broker = Broker::start().unwrap();
        broker.defer(|_| panic!("on purpose")).unwrap();
        broker.join();
        let error = broker.run_sync(|| ()).unwrap_err();
        let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
        assert_eq!(death.cause, Cause::BrokerFailed);
    }
}
