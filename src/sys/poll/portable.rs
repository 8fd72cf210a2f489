//! The system's side of the loop's poller where there is no epoll: the `polling` crate in level
//! mode.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use polling::{Event, Events, PollMode, Poller};

use super::Interest;
use crate::sys::errno::{Errno, Result};
use crate::sys::pipe::Wake;

/// Events taken from the system at once.
// The minimum is not zero.
#[allow(clippy::unwrap_used)]
const BATCH: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// Watches descriptors that somebody else keeps open.
pub struct System {
    inner: Arc<Poller>,
    batch: Events,
    wake: Arc<Wake>,
}

/// Ends a wait of its [`Poller`](super::Poller), or a rest, from any thread: this one, or else the
/// next.
#[derive(Clone, Debug)]
pub struct Notifier(Arc<Poller>, Arc<Wake>);

impl Notifier {
    /// Ends the wait.
    pub fn notify(&self) {
        // What is full already is readable, so a failure is none.
        let _ = self.0.notify();
        self.1.wake();
    }

    /// What a rest sleeps on.
    pub(super) fn wake(&self) -> &Wake {
        &self.1
    }

    /// Readable while a wait would end at once.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl System {
    /// One with no descriptors.
    pub fn new() -> Result<System> {
        let inner = Arc::new(Poller::new().map_err(errno)?);
        Ok(System { inner, batch: Events::with_capacity(BATCH), wake: Arc::new(Wake::new()?) })
    }

    /// Watches `fd` for `is` from now on, and no longer for `was`. They differ; without an interest
    /// a descriptor is unknown to the system, which would report its end.
    pub fn set(&self, fd: &OwnedFd, key: usize, was: Interest, is: Interest) -> Result<()> {
        let event = Event::new(key, is.read, is.write);
        match (was, is) {
            // SAFETY: the Poller that this is of keeps the descriptor open, and has it leave when
            // it loses its interest, at the latest when the Poller is dropped.
            (Interest::NONE, _) => unsafe { self.inner.add_with_mode(fd, event, PollMode::Level) },
            (_, Interest::NONE) => self.inner.delete(fd),
            _ => self.inner.modify_with_mode(fd, event, PollMode::Level),
        }
        .map_err(errno)
    }

    /// Waits, and tells the keys of what can be read and what can be written. A signal may end it
    /// with nothing to tell.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
        tell: &mut dyn FnMut(usize, bool, bool),
    ) -> Result<()> {
        self.batch.clear();
        self.inner.wait(&mut self.batch, timeout).map_err(errno)?;
        self.batch.iter().for_each(|event| tell(event.key, event.readable, event.writable));
        Ok(())
    }

    /// What ends a wait.
    pub fn notifier(&self) -> Notifier {
        Notifier(self.inner.clone(), self.wake.clone())
    }
}

fn errno(error: io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EINVAL))
}
