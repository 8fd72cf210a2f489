//! The guard of an agent: a process that has no other task than to outlive it, by SIGKILL too, and
//! then to end its process group, so that nothing which the agent's functions started lives on.
//!
//! It is a plain fork, not one that shares the agent's memory: the kernel kills all that share the
//! memory of a process that it ends for want of memory (or whose core it dumps, before Linux 5.16),
//! which is when a guard is needed most. It starts before the agent has grown, so it costs little.

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use libc::c_int;

use super::errno::{Errno, Result, check, retry};
use super::thread::SignalsBlocked;
use super::{fd, pipe, signal};

/// A guard on duty. Dropping this dismisses it; the end of our process sets it off.
#[derive(Debug)]
pub struct Guard {
    pid: c_int,
    /// The guard reads the other end. It closes with our process, and on exec.
    _lifeline: OwnedFd,
}

impl Guard {
    /// Starts one for our process group, which we must lead (PERM): call it after `start_session`.
    pub fn start() -> Result<Guard> {
        if !signal::leads_group() {
            return Err(Errno::PERM);
        }
        let (watched, lifeline) = pipe::pipe()?;
        let blocked = SignalsBlocked::new();
        let pid = fork()?;
        if pid == 0 {
            watch(watched.as_raw_fd());
        }
        drop(blocked);
        Ok(Guard { pid, _lifeline: lifeline })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: takes numbers. Nobody reaps it but us: `wait` passes over it by default.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        let flags = if cfg!(target_os = "linux") { WAIT_ALL } else { 0 };
        // SAFETY: the status is not asked for.
        let _ = retry(|| check(unsafe { libc::waitpid(self.pid, ptr::null_mut(), flags) }));
    }
}

/// `__WALL`: also children that do not send SIGCHLD.
const WAIT_ALL: c_int = 0x4000_0000;

/// On Linux without an exit signal, so that the guard is no child that a `wait` of others sees.
fn fork() -> Result<c_int> {
    #[cfg(target_os = "linux")]
    // SAFETY: a copy of this process. The child makes system calls only, and never returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) } as c_int;
    #[cfg(not(target_os = "linux"))]
    // SAFETY: as above.
    let pid = unsafe { libc::fork() };
    check(pid)
}

/// The guard's whole life, with all signals blocked: async-signal-safe calls only.
fn watch(lifeline: c_int) -> ! {
    // SAFETY: takes no pointers; the descriptors of this process are its own.
    unsafe { libc::dup2(lifeline, 0) };
    close_all_but_stdin();
    // SAFETY: a terminated path. It shall keep no file system busy.
    unsafe { libc::chdir(c"/".as_ptr()) };
    let mut byte = 0u8;
    // SAFETY: room for one byte. Nothing is ever written, so this returns at the end.
    let _ = retry(|| check(unsafe { libc::read(0, (&raw mut byte).cast(), 1) } as c_int));
    signal::kill_own_group(libc::SIGKILL);
    signal::exit_now(0)
}

fn close_all_but_stdin() {
    #[cfg(target_os = "linux")]
    // SAFETY: takes no pointers.
    if unsafe { libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0) } == 0 {
        return;
    }
    // SAFETY: takes no pointers; the descriptors of this process are its own.
    fd::each_open(1, i32::MAX, |number| _ = unsafe { libc::close(number) });
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::super::spawn::{Program, Spawn, spawn};
    use super::super::testing;
    use super::*;

    #[test]
    fn what_an_agent_started_ends_when_the_agent_is_killed() {
        if testing::is_again() {
            signal::start_session().unwrap();
            let _guard = Guard::start().unwrap();
            let argv = ["sh", "-c", "trap '' TERM HUP; sleep 1000; :"].map(CString::new);
            let argv = argv.map(|text| text.unwrap());
            let stdio = [fd::stdin(), fd::stdout(), fd::stderr()];
            spawn(&Spawn::new(Program::Search(c"sh"), &argv, stdio)).unwrap();
            assert!(signal::reap_children());
            fd::write_all(fd::stderr(), b"x").unwrap();
            loop {
                std::thread::park();
            }
        }
        let test = concat!(module_path!(), "::what_an_agent_started_ends_when_the_agent_is_killed");
        testing::dies_at_once_with(test);
    }

    #[test]
    fn a_dismissed_guard_harms_nobody_and_is_no_child_that_others_see() {
        if testing::is_again() {
            assert_eq!(Guard::start().unwrap_err(), Errno::PERM);
            signal::start_session().unwrap();
            let guard = Guard::start().unwrap();
            assert!(!signal::reap_children());
            let pid = guard.pid;
            drop(guard);
            // SAFETY: takes numbers.
            assert_eq!(check(unsafe { libc::kill(pid, 0) }), Err(Errno::SRCH));
            signal::exit_now(42);
        }
        let test = concat!(
            module_path!(),
            "::a_dismissed_guard_harms_nobody_and_is_no_child_that_others_see"
        );
        testing::ends_well(test);
    }
}
