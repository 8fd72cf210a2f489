//! A process that we started: how it ended, and signals to it. Never touches other children.

use std::mem::MaybeUninit;
#[cfg(target_os = "linux")]
use std::os::fd::FromRawFd;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libc::c_int;

use super::errno::{Errno, Result, check, retry};
use super::fork;
use super::poll;
use crate::error::Exit;
use crate::limits::LOOK_AGAIN_MAX;

/// How soon a process is looked at again, where nothing tells of its end; then it doubles.
pub const LOOK_AGAIN_FIRST: Duration = Duration::from_millis(1);

/// A child. Dropping this neither ends nor reaps it.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: Option<Arc<OwnedFd>>,
    end: End,
}

#[derive(Clone, Copy, Debug)]
enum End {
    /// It may live, or wait to be reaped: its number is its own.
    NotSeen,
    Seen(Exit),
    /// Somebody else has reaped it.
    Stolen,
}

impl Process {
    pub(super) fn new(pid: i32, pidfd: Option<OwnedFd>) -> Process {
        if let Some(pidfd) = &pidfd {
            fork::mark(pidfd.as_fd());
        }
        Process { pid, pidfd: pidfd.map(Arc::new), end: End::NotSeen }
    }

    /// Its process id.
    pub fn id(&self) -> i32 {
        self.pid
    }

    /// Readable once it has ended; `None` where the kernel has no such thing, and once its end was
    /// seen.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(|fd| fd.as_fd())
    }

    /// The same descriptor, for a poller.
    pub fn share_pidfd(&self) -> Option<Arc<OwnedFd>> {
        self.pidfd.clone()
    }

    /// How it ended, or `None` while it lives. Remembers what it has seen.
    /// CHILD if somebody else has reaped it, or the program ignores SIGCHLD.
    pub fn try_wait(&mut self) -> Result<Option<Exit>> {
        self.wait_with(libc::WNOHANG)
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> Result<Exit> {
        loop {
            if let Some(exit) = self.wait_with(0)? {
                return Ok(exit);
            }
        }
    }

    /// Waits until it has ended, for at most this long; `None` if it has not.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<Exit>> {
        let end = Instant::now() + timeout;
        let mut pause = LOOK_AGAIN_FIRST;
        loop {
            let exit = self.try_wait()?;
            let now = Instant::now();
            if exit.is_some() || end <= now {
                return Ok(exit);
            }
            let again = if self.pidfd.is_some() { end } else { end.min(now + pause) };
            poll::sleep(self.pidfd().as_slice(), Some(again)).or_else(|errno| match errno {
                Errno::INTR => Ok(0),
                errno => Err(errno),
            })?;
            pause = (2 * pause).min(LOOK_AGAIN_MAX);
        }
    }

    fn wait_with(&mut self, flags: c_int) -> Result<Option<Exit>> {
        match self.end {
            End::Seen(exit) => return Ok(Some(exit)),
            End::Stolen => return Err(Errno::CHILD),
            End::NotSeen => (),
        }
        let mut status = 0;
        // SAFETY: the status is ours to write.
        match retry(|| check(unsafe { libc::waitpid(self.pid, &mut status, flags) })) {
            Ok(0) => Ok(None),
            Ok(_) => {
                let exit = exit_of(status);
                self.end = End::Seen(exit);
                self.pidfd = None;
                Ok(Some(exit))
            }
            Err(errno) => {
                self.end = End::Stolen;
                self.pidfd = None;
                Err(errno)
            }
        }
    }

    /// Whether it has ended and was not waited for: its number and its group's are its own still.
    pub fn is_zombie(&self) -> bool {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: room for the answer.
        let seen = unsafe { libc::waitid(libc::P_PID, self.pid as _, info.as_mut_ptr(), flags) };
        // SAFETY: zeros are one, and stay where nothing has ended.
        let says = unsafe { info.assume_init() };
        matches!(self.end, End::NotSeen) && seen == 0 && says.si_signo != 0
    }

    /// Sends it a signal; SRCH once it was seen to have ended, as the number may be another's then.
    pub fn kill(&self, signal: i32) -> Result<()> {
        self.signal(self.pid, signal)
    }

    /// Sends a signal to the process group that it leads; SRCH as for [`Process::kill`].
    pub fn kill_group(&self, signal: i32) -> Result<()> {
        self.signal(-self.pid, signal)
    }

    fn signal(&self, whom: i32, signal: i32) -> Result<()> {
        if !matches!(self.end, End::NotSeen) {
            return Err(Errno::SRCH);
        }
        // SAFETY: takes numbers. It has not been reaped, so the number is still its own.
        check(unsafe { libc::kill(whom, signal) }).map(|_| ())
    }
}

/// What tells of the end of a child that is not reaped; `None` where the kernel has no such thing.
pub fn pidfd_of(pid: i32) -> Option<OwnedFd> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: takes numbers. The child is not reaped yet, so the number is its own.
        let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as c_int;
        // SAFETY: the kernel has just made this descriptor for us.
        check(number).ok().map(|number| unsafe { OwnedFd::from_raw_fd(number) })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pid;
        None
    }
}

fn exit_of(status: c_int) -> Exit {
    if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Code(libc::WEXITSTATUS(status))
    }
}
