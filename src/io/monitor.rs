//! Processes that a program has started by itself, and whose end it wants to be told of.

#[cfg(test)]
mod tests;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, ExitStatus};
use std::sync::Arc;

use crate::error::{Cause, Death, Error};
use crate::io::broker::Broker;
use crate::io::census::Role;
use crate::io::turn::{Key, Protocol, Tenant, Turn};
use crate::io::watch::{self, Pause};
use crate::lock::Lock;
use crate::sys::wait::pidfd_of;
use crate::trace::{self, Level};
use crate::wire::codec::Malformed;

const WHAT: &str = "Broker::watch_process";

type Tell = Box<dyn FnOnce(io::Result<ExitStatus>) + Send>;

impl Broker {
    /// Has `tell` called once, when this process of yours has ended, with how; on the thread for
    /// callbacks. No other child of the program is touched, and no handler of SIGCHLD installed.
    /// Its standard input is closed, if that is a pipe.
    ///
    /// It gets an error if the broker ends first, or if nobody knows how the process ended, as
    /// somebody else has waited for it, or the program ignores SIGCHLD. The process is not ended by
    /// that.
    ///
    /// ```
    /// # use std::process::Command;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let router = mitogen::Program::new().router()?;
    /// let (tell, told) = std::sync::mpsc::channel();
    /// let child = Command::new("sh").args(["-c", "exit 3"]).spawn()?;
    /// router.broker().watch_process(child, move |status| tell.send(status).unwrap());
    /// assert_eq!(told.recv()??.code(), Some(3));
    /// # Ok(()) }
    /// ```
    ///
    /// # Resources
    /// A descriptor, until the process has ended.
    pub fn watch_process(
        &self,
        mut child: Child,
        tell: impl FnOnce(io::Result<ExitStatus>) + Send + 'static,
    ) {
        drop(child.stdin.take());
        let (tell, broker): (Tell, _) = (Box::new(tell), self.weak());
        let report = Report { tell: Some(tell), outcome: None, broker, was_queued: false };
        let watched = (child, report);
        // Dropped if the broker has ended, and so told.
        let _ = self.defer(move |turn| Watched::begin(turn, watched.0, watched.1));
    }
}

/// Tells how a process ended when it is dropped; or, if that is not known, why not.
struct Report {
    tell: Option<Tell>,
    outcome: Option<io::Result<ExitStatus>>,
    broker: Broker,
    /// Whether the thread for callbacks has it, or has refused it.
    was_queued: bool,
}

impl Report {
    fn tell(mut self, outcome: io::Result<ExitStatus>) {
        self.outcome = Some(outcome);
        self.queue();
    }

    fn queue(mut self) {
        self.was_queued = true;
        // Where no callback runs any more it is called here.
        let _ = self.broker.clone().callback(WHAT, Box::new(move || drop(self)));
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let Some(tell) = self.tell.take() else { return };
        let outcome = self.outcome.take().unwrap_or_else(|| {
            let death = self.broker.death(Cause::Shutdown);
            Err(io::Error::other(Error::from(death)))
        });
        if !self.was_queued {
            // The loop, which ends, does not wait for user code.
            let (outcome, broker) = (Some(outcome), self.broker.clone());
            return Report { tell: Some(tell), outcome, broker, was_queued: false }.queue();
        }
        if catch_unwind(AssertUnwindSafe(|| tell(outcome))).is_err() {
            trace::text(Level::Error, "a callback panicked", &[], WHAT);
        }
    }
}

/// A process that has not ended, as far as is known.
struct Watched {
    tenant: Tenant,
    state: Lock<State>,
}

struct State {
    /// Until its end is told.
    child: Option<(Child, Report)>,
    pause: Pause,
}

impl Watched {
    fn begin(turn: &mut Turn, child: Child, report: Report) {
        if turn.is_stopping() {
            return;
        }
        let tenant = report.broker.tenant();
        let pidfd = i32::try_from(child.id()).ok().and_then(pidfd_of).map(Arc::new);
        let state = State { child: Some((child, report)), pause: Pause::FIRST };
        let watched = Arc::new(Watched { tenant, state: Lock::new(state) });
        let make = || Box::new(Watch(watched.clone())) as Box<dyn Protocol>;
        match watch::process(turn, tenant, pidfd, &make) {
            Ok((key, must_look)) => {
                turn.at_end(tenant, Box::new(move |turn, why| turn.close(key, why)));
                if must_look {
                    watched.look_later(turn);
                }
            }
            Err(error) => watched.tell(Err(io::Error::other(error))),
        }
    }

    fn look_later(self: &Arc<Self>, turn: &mut Turn) {
        let at = self.state.lock().pause.next();
        let own = self.clone();
        let look = move |turn: &mut Turn| {
            if !own.look(turn) {
                own.look_later(turn);
            }
        };
        turn.timer(at, Box::new(look));
    }

    /// Whether there is nothing more to be looked for.
    fn look(&self, turn: &mut Turn) -> bool {
        let outcome = match &mut self.state.lock().child {
            Some((child, _)) => child.try_wait(),
            None => return true,
        };
        let Some(outcome) = outcome.transpose() else { return false };
        self.tell(outcome);
        turn.tell_ends_of(self.tenant, &Death::of(Cause::Exited));
        true
    }

    fn tell(&self, outcome: io::Result<ExitStatus>) {
        let child = self.state.lock().child.take();
        if let Some((_, report)) = child {
            report.tell(outcome);
        }
    }
}

/// Hears of the end of the process.
struct Watch(Arc<Watched>);

impl Protocol for Watch {
    fn input(&mut self, turn: &mut Turn, _: Key, _: &[u8]) -> Result<(), Malformed> {
        self.0.look(turn);
        Ok(())
    }

    fn closed(&mut self, _: &mut Turn, why: &Death) {
        self.0.tell(Err(io::Error::other(Error::from(why.clone()))));
    }

    fn role(&self) -> Role {
        Role::WATCHED
    }
}
