//! A process that we started: how it ended, and signals to it. Never touches other children.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libc::c_int;

use super::errno::{Errno, Result, check, retry};
use crate::error::Exit;

/// A child. Dropping this neither ends nor reaps it.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: Option<OwnedFd>,
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
        Process { pid, pidfd, end: End::NotSeen }
    }

    /// Readable once it has ended; `None` where the kernel has no such thing.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Another descriptor of the same kind, for a poller.
    pub fn dup_pidfd(&self) -> Option<OwnedFd> {
        super::fd::dup_above(self.pidfd()?, 3).ok()
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
                Ok(Some(exit))
            }
            Err(errno) => {
                self.end = End::Stolen;
                Err(errno)
            }
        }
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

fn exit_of(status: c_int) -> Exit {
    if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Code(libc::WEXITSTATUS(status))
    }
}
