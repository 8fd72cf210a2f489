//! Signals, and what ties processes together: groups, sessions, death with a parent.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use libc::c_int;

use super::errno::{Errno, Result, check};
use super::host;

/// Asks a process to end.
pub const TERM: i32 = libc::SIGTERM;
/// Ends a process.
pub const KILL: i32 = libc::SIGKILL;
/// The terminal is gone.
pub const HUP: i32 = libc::SIGHUP;
/// Nobody reads what was written.
pub const PIPE: i32 = libc::SIGPIPE;

/// How often a signal was absorbed.
static ABSORBED: AtomicU32 = AtomicU32::new(0);

/// Writing to what nobody reads becomes an error instead of our death.
pub fn ignore_pipe() {
    // SAFETY: ignoring runs no code.
    unsafe { libc::signal(PIPE, libc::SIG_IGN) };
}

/// The process that ours must not outlive; 0 is one outside our namespace.
static PARENT: AtomicI32 = AtomicI32::new(NONE);
const NONE: i32 = -1;

/// Has a signal do nothing here. Unlike an ignored one it has its default effect in whatever is
/// started, by whomever.
pub fn absorb(signal: i32) {
    extern "C" fn count(signal: c_int) {
        count_absorbed();
        end_if_orphaned(signal);
    }
    handle(signal, count);
}

/// Has a signal call `handler`, which may run at any moment: it does no more than atomic operations
/// and system calls.
pub(super) fn handle(signal: i32, handler: extern "C" fn(c_int)) {
    // SAFETY: a structure of numbers and sets, for which zero is a value: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler is one that may run at any moment.
    unsafe { libc::sigaction(signal, &action, ptr::null_mut()) };
}

/// Has calls that a signal has interrupted be made again: async-signal-safe.
pub fn count_absorbed() {
    ABSORBED.fetch_add(1, Ordering::Relaxed);
}

/// How often a signal was absorbed: a call that one has interrupted is to be made again.
pub fn absorbed() -> u32 {
    ABSORBED.load(Ordering::Relaxed)
}

/// Has the kernel reap our children, so that no wait learns how they ended.
#[cfg(test)]
pub fn ignore_children() {
    // SAFETY: ignoring runs no code.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Gives a signal its default effect.
pub fn restore(signal: i32) {
    // SAFETY: a structure of numbers and sets, for which zero is a value: the default, no flags.
    let action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the default runs no code of ours.
    unsafe { libc::sigaction(signal, &action, ptr::null_mut()) };
}

/// Unblocks all signals in this thread: whoever started us may have blocked some.
pub fn default_mask() {
    let mut none = MaybeUninit::uninit();
    // SAFETY: fills the set that it points to.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: the set is initialised; the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) };
}

/// Gives every signal that whoever started us ignored its default effect: `exec` passes that on.
pub fn restore_ignored() {
    for signal in 1..65 {
        // SAFETY: a structure of numbers and sets, for which zero is a value.
        let mut now: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: changes nothing, and has room for the answer.
        let known = unsafe { libc::sigaction(signal, ptr::null(), &mut now) } == 0;
        if known && now.sa_sigaction == libc::SIG_IGN {
            restore(signal);
        }
    }
}

/// All signals to their defaults, none blocked. For a child before `exec`: async-signal-safe.
/// While it runs all signals are blocked, so that no handler of the parent runs in the child.
pub fn reset_all() {
    restore_all();
    default_mask();
}

/// All signals to their defaults, whether blocked or not.
pub fn restore_all() {
    for signal in 1..65 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            restore(signal);
        }
    }
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

/// Where the kernel would kill this process alone as its parent ends, has it end with its whole
/// group instead, which it must lead; also if it is stopped then. Only on the thread that the
/// process began with: what the kernel does is tied to that.
#[cfg(target_os = "linux")]
pub fn die_with_group() {
    let mut now: c_int = 0;
    // SAFETY: room for the answer.
    unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut now) };
    if now != KILL {
        return;
    }
    PARENT.store(host::parent(), Ordering::Relaxed);
    absorb(libc::SIGCONT);
    // SAFETY: takes numbers. A parent that has ended by now has killed us.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGCONT, 0, 0, 0) };
}

/// Nothing that the kernel does with it.
#[cfg(not(target_os = "linux"))]
pub fn die_with_group() {}

/// What a signal means that comes as the parent ends, and at other times: async-signal-safe.
fn end_if_orphaned(signal: c_int) {
    let parent = PARENT.load(Ordering::Relaxed);
    if signal == libc::SIGCONT && parent != NONE && host::parent() != parent {
        die();
    }
}

/// Lets this process live on when its parent ends.
pub fn outlive_parent() {
    PARENT.store(NONE, Ordering::Relaxed);
    #[cfg(target_os = "linux")]
    // SAFETY: takes numbers.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, 0, 0, 0, 0)
    };
}

/// Ends this process and its group, if it leads one, at once.
pub fn die() -> ! {
    if leads_group() {
        kill_own_group(KILL);
    }
    exit_now(1)
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
pub fn reap_children() -> bool {
    loop {
        // SAFETY: the status is not asked for.
        match check(unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) }) {
            Ok(0) => return true,
            Ok(_) | Err(Errno::INTR) => (),
            Err(_) => return false,
        }
    }
}

/// Whether this process may have had children: one lives, or one was waited for.
pub fn had_children() -> bool {
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: there is room for the answer.
    let known = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) } == 0;
    !known || 0 < usage.ru_maxrss || reap_children()
}

/// Ends this process at once: no destructors, no exit handlers, no flushing.
pub fn exit_now(code: c_int) -> ! {
    // SAFETY: takes a number, and does not return.
    unsafe { libc::_exit(code) }
}
