//! Signals, and what ties processes together: groups, sessions, death with a parent.

use std::mem::MaybeUninit;
use std::ptr;

use libc::c_int;

use super::errno::{Errno, Result, check};

/// Asks a process to end.
pub const TERM: i32 = libc::SIGTERM;
/// Ends a process.
pub const KILL: i32 = libc::SIGKILL;
/// The terminal is gone.
pub const HUP: i32 = libc::SIGHUP;

/// Writing to what nobody reads becomes an error instead of our death.
pub fn ignore_pipe() {
    ignore(libc::SIGPIPE);
}

/// Ignores a signal; started programs still get its default.
pub fn ignore(signal: i32) {
    // SAFETY: ignoring runs no code.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Gives a signal its default effect.
pub fn restore(signal: i32) {
    // SAFETY: the default runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Unblocks all signals in this thread: whoever started us may have blocked some.
pub fn default_mask() {
    let mut none = MaybeUninit::uninit();
    // SAFETY: fills the set that it points to.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: the set is initialised; the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) };
}

/// All signals to their defaults, none blocked. For a child before `exec`: async-signal-safe.
/// While it runs all signals are blocked, so that no handler of the parent runs in the child.
pub fn reset_all() {
    for signal in 1..=64 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            restore(signal);
        }
    }
    default_mask();
}

/// Has the kernel kill this process when the thread that started it ends; SRCH if that process,
/// `parent`, has gone already. Does nothing but the check where the kernel cannot do that.
pub fn die_with_parent(parent: i32) -> Result<()> {
    #[cfg(target_os = "linux")]
    // SAFETY: takes numbers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) })?;
    // SAFETY: takes nothing.
    if unsafe { libc::getppid() } == parent { Ok(()) } else { Err(Errno::SRCH) }
}

/// Makes us the parent of whatever below us loses its own; only Linux can.
pub fn become_subreaper() -> Result<()> {
    #[cfg(target_os = "linux")]
    // SAFETY: takes numbers.
    return check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(|_| ());
    #[cfg(not(target_os = "linux"))]
    Err(Errno::NOSYS)
}

/// Signals every process of our process group, us included.
pub fn kill_own_group(signal: i32) {
    // SAFETY: takes numbers.
    unsafe { libc::kill(0, signal) };
}

/// Makes us the leader of a new session and process group, without a terminal; PERM if we lead a
/// group already.
pub fn start_session() -> Result<()> {
    // SAFETY: takes nothing.
    check(unsafe { libc::setsid() }).map(|_| ())
}

/// Whether we lead our process group, so that [`kill_own_group`] hits only what we started.
pub fn leads_group() -> bool {
    // SAFETY: takes nothing.
    let group = unsafe { libc::getpgrp() };
    // SAFETY: takes nothing.
    group == unsafe { libc::getpid() }
}

/// Takes every child that has ended, whoever started it; whether children remain. Only for an agent
/// that is about to end: it takes the exit status from [`super::wait::Process`] and from user code.
pub fn reap_orphans() -> bool {
    loop {
        // SAFETY: the status is not asked for.
        match check(unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) }) {
            Ok(0) => return true,
            Ok(_) | Err(Errno::INTR) => (),
            Err(_) => return false,
        }
    }
}

/// Ends this process at once: no destructors, no exit handlers, no flushing.
pub fn exit_now(code: c_int) -> ! {
    // SAFETY: takes a number, and does not return.
    unsafe { libc::_exit(code) }
}
