//! The system's side of the loop's poller on Linux: an epoll and an eventfd, and nothing else.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::Interest;
use crate::sys::errno::{Errno, Result, check};
use crate::sys::fork;
use crate::sys::pipe::Wake;

/// Events taken from the system at once.
const BATCH: usize = 64;
/// The notifier's key.
const NOTIFIED: u64 = u64::MAX;

/// Watches descriptors that somebody else keeps open.
pub struct System(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    epoll: OwnedFd,
    wake: Wake,
}

/// Ends a wait of its [`Poller`](super::Poller), or a rest, from any thread: this one, or else the
/// next.
#[derive(Clone, Debug)]
pub struct Notifier(Arc<Shared>);

impl Notifier {
    /// Ends the wait.
    pub fn notify(&self) {
        self.0.wake.wake();
    }

    /// What a rest sleeps on.
    pub(super) fn wake(&self) -> &Wake {
        &self.0.wake
    }

    /// Readable while a wait would end at once.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.epoll.as_fd()
    }
}

impl System {
    /// One with no descriptors.
    pub fn new() -> Result<System> {
        // SAFETY: takes no pointers.
        let number = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the system has just made this descriptor for us.
        let epoll = unsafe { OwnedFd::from_raw_fd(number) };
        fork::mark(epoll.as_fd());
        let system = System(Arc::new(Shared { epoll, wake: Wake::new()? }));
        system.control(libc::EPOLL_CTL_ADD, system.0.wake.fd(), NOTIFIED, Interest::READ)?;
        Ok(system)
    }

    /// Watches `fd` for `is` from now on, and no longer for `was`. They differ; without an interest
    /// a descriptor is unknown to the system, which would report its end.
    pub fn set(&self, fd: &OwnedFd, key: usize, was: Interest, is: Interest) -> Result<()> {
        let operation = match (was, is) {
            (Interest::NONE, _) => libc::EPOLL_CTL_ADD,
            (_, Interest::NONE) => libc::EPOLL_CTL_DEL,
            _ => libc::EPOLL_CTL_MOD,
        };
        self.control(operation, fd.as_fd(), key as u64, is)
    }

    fn control(&self, operation: i32, fd: BorrowedFd<'_>, key: u64, is: Interest) -> Result<()> {
        let read = if is.read { libc::EPOLLIN } else { 0 };
        let write = if is.write { libc::EPOLLOUT } else { 0 };
        let mut event = libc::epoll_event { events: (read | write) as u32, u64: key };
        // SAFETY: the event lives as long as the call.
        check(unsafe {
            libc::epoll_ctl(self.0.epoll.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event)
        })
        .map(drop)
    }

    /// Waits, and tells the keys of what can be read and what can be written. A signal may end it
    /// with nothing to tell.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
        tell: &mut dyn FnMut(usize, bool, bool),
    ) -> Result<()> {
        let mut batch = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        let (room, epoll) = (batch.len() as i32, self.0.epoll.as_raw_fd());
        // SAFETY: the batch is ours to write and has room for so many.
        let count = unsafe { libc::epoll_wait(epoll, batch.as_mut_ptr(), room, millis(timeout)) };
        let count = match check(count) {
            Err(Errno::INTR) => 0,
            count => count? as usize,
        };
        let ended = (libc::EPOLLHUP | libc::EPOLLERR) as u32;
        for event in &batch[..count] {
            if event.u64 == NOTIFIED {
                self.0.wake.drain();
                continue;
            }
            let read = event.events & (libc::EPOLLIN as u32 | ended) != 0;
            let write = event.events & (libc::EPOLLOUT as u32 | ended) != 0;
            tell(event.u64 as usize, read, write);
        }
        Ok(())
    }

    /// What ends a wait.
    pub fn notifier(&self) -> Notifier {
        Notifier(self.0.clone())
    }
}

/// Whole milliseconds, none of them too few; -1 is for ever.
fn millis(timeout: Option<Duration>) -> i32 {
    let Some(timeout) = timeout else { return -1 };
    let millis = timeout.as_secs().saturating_mul(1000);
    let millis = millis.saturating_add(timeout.subsec_nanos().div_ceil(1_000_000).into());
    millis.min(i32::MAX as u64) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_never_rounded_down() {
        assert_eq!(millis(None), -1);
        assert_eq!(millis(Some(Duration::ZERO)), 0);
        assert_eq!(millis(Some(Duration::from_nanos(1))), 1);
        assert_eq!(millis(Some(Duration::from_micros(2_001_000))), 2001);
        assert_eq!(millis(Some(Duration::MAX)), i32::MAX);
    }
}
