//! The sleep of a user's thread, on a descriptor that is lent to it for the wait: so a signal
//! interrupts it, and descriptors are bounded by the threads that sleep, not by what they wait for.

use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::IDLE_WAKES_MAX;
use crate::lock::{self, Lock, rank};
use crate::sys::errno::Errno;
use crate::sys::fork;
use crate::sys::pipe::Wake;
use crate::sys::poll::{self, SLEEP_FDS_MAX};

/// Wake-up descriptors that nobody sleeps on. Not one per thread: what is torn down at a thread's
/// end would weigh more in an agent than all of this.
static IDLE: Lock<Idle, { rank::IDLE }> = Lock::new(Idle { generation: 0, wakes: Vec::new() });

struct Idle {
    /// Which copy of the process they belong to: the wake-ups of another would be taken from it.
    generation: u32,
    wakes: Vec<Arc<Wake>>,
}

/// Keeps other threads from the list while this process is copied: in the copy nobody would let it
/// go. There it is empty.
pub(crate) struct Held {
    _idle: lock::Held<'static, Idle>,
}

/// Until it is dropped, in the original and in the copy.
pub(crate) fn hold() -> Held {
    Held { _idle: idle() }
}

/// A wake-up descriptor that nobody else sleeps on while this lives. Who was woken by it before may
/// still be known to somebody, so a wake-up can be stale.
pub(crate) struct Sleeper(Arc<Wake>);

/// One that is idle, or a new one.
pub(crate) fn sleeper() -> Result<Sleeper> {
    let idle = idle().wakes.pop();
    if let Some(wake) = idle {
        return Ok(Sleeper(wake));
    }
    let wake = Wake::new().map_err(|Errno(e)| Error::system("making a latch", e))?;
    Ok(Sleeper(Arc::new(wake)))
}

fn idle() -> lock::Held<'static, Idle> {
    let mut idle = IDLE.lock();
    let now = fork::generation();
    if now != 0 && idle.generation != now {
        *idle = Idle { generation: now, wakes: Vec::new() };
    }
    idle
}

impl Deref for Sleeper {
    type Target = Arc<Wake>;

    fn deref(&self) -> &Arc<Wake> {
        &self.0
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let mut idle = idle();
        if idle.wakes.len() < IDLE_WAKES_MAX {
            idle.wakes.push(self.0.clone());
        }
    }
}

/// Sleeps until `wake` is woken, one of `also` (few) is readable, or the deadline. A wake-up may be
/// stale: the caller looks at its condition again. Returns a bit for each that is ready, the lowest
/// for `wake`.
///
/// # Errors
/// [`ErrorKind::Timeout`] past the deadline; [`ErrorKind::Interrupted`] after a signal.
pub(crate) fn sleep(
    wake: &Wake,
    also: &[BorrowedFd<'_>],
    deadline: Option<Instant>,
) -> Result<u32> {
    let mut fds = [wake.fd(); SLEEP_FDS_MAX];
    fds[1..=also.len()].copy_from_slice(also);
    match poll::sleep(&fds[..=also.len()], deadline) {
        Ok(0) => Err(Error::new(ErrorKind::Timeout)),
        Ok(ready) => {
            if ready & 1 != 0 {
                wake.drain();
            }
            Ok(ready)
        }
        Err(Errno::INTR) => Err(Error::new(ErrorKind::Interrupted)),
        Err(Errno(errno)) => Err(Error::system("waiting", errno)),
    }
}

/// A thread's place where it waits. It needs nothing before it sleeps.
#[derive(Default)]
pub(crate) struct Seat {
    wake: Option<Sleeper>,
    /// Its number among those that sleep there, while it is one of them.
    pub(super) ticket: Option<u64>,
}

impl Seat {
    /// What it sleeps on, once it has looked in vain.
    pub(super) fn wake(&self) -> Option<&Arc<Wake>> {
        self.wake.as_deref()
    }

    /// The same, before the first sleep.
    pub(super) fn prepare(&mut self) -> Result<&Arc<Wake>> {
        let wake = match self.wake.take() {
            Some(wake) => wake,
            None => sleeper()?,
        };
        Ok(self.wake.insert(wake))
    }

    /// Sleeps there.
    pub(crate) fn sleep(&self, deadline: Option<Instant>) -> Slept {
        let Some(wake) = self.wake() else { return Slept::Awake };
        sleep(wake, &[], deadline).map_or_else(Slept::Failed, |_| Slept::Awake)
    }
}

/// How a thread comes to look at what it waits for.
#[derive(Default)]
pub(crate) enum Slept {
    /// It is there, or was woken.
    #[default]
    Awake,
    /// It has something else to do first, and gives up its place.
    Rises,
    /// Its sleep has failed, and so does its wait.
    Failed(Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_descriptors_that_were_lent_few_are_kept() {
        let lent: Vec<Sleeper> = (0..3 * IDLE_WAKES_MAX).map(|_| sleeper().unwrap()).collect();
        drop(lent);
        assert!(idle().wakes.len() <= IDLE_WAKES_MAX);
    }
}
