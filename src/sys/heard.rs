//! Signals that a program hears of as bytes of a pipe, so that a plain thread can do what a handler
//! may not. Nothing changes for what is started: there all signals have their defaults.

use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use libc::c_int;

use super::errno::{Errno, Result};
use super::{fd, pipe, signal};

pub use super::signal::{HUP, TERM};

/// The user asks, as by Ctrl-C.
pub const INT: i32 = libc::SIGINT;
/// The user asks, as by Ctrl-\.
pub const QUIT: i32 = libc::SIGQUIT;
/// Whatever a program makes of it.
pub const USR1: i32 = libc::SIGUSR1;
/// The terminal has another size.
pub const WINCH: i32 = libc::SIGWINCH;
/// The user asks to stop, as by Ctrl-Z.
pub const TSTP: i32 = libc::SIGTSTP;
/// A stopped process goes on.
pub const CONT: i32 = libc::SIGCONT;

/// The end to write to; open until the process ends.
static PIPE: AtomicI32 = AtomicI32::new(NONE);
const NONE: i32 = -1;

/// Has each of these signals write its number, one byte, to the pipe of which this returns the
/// end to read from. Those that whoever started us has us ignore stay ignored. EXIST if it was
/// called before: there is one pipe for all.
pub fn hear(signals: &[i32]) -> Result<OwnedFd> {
    let (read, write) = pipe::pipe()?;
    fd::set_nonblocking(write.as_fd(), true)?;
    let number = write.as_raw_fd();
    PIPE.compare_exchange(NONE, number, Ordering::Relaxed, Ordering::Relaxed)
        .map_err(|_| Errno::EXIST)?;
    // The handlers stay, so it must.
    mem::forget(write);
    signals.iter().copied().filter(|signal| !is_ignored(*signal)).for_each(handle);
    Ok(read)
}

/// Has a signal, which was heard until now, take its default effect: if that is our end, this does
/// not return; if it is a stop, it returns when the process goes on, and the signal is heard again.
pub fn obey(number: i32) {
    signal::restore(number);
    // SAFETY: takes a number; by now no handler runs.
    unsafe { libc::raise(number) };
    handle(number);
}

fn is_ignored(number: i32) -> bool {
    // SAFETY: a structure of numbers and sets, for which zero is a value.
    let mut now: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: changes nothing, and has room for the answer.
    let known = unsafe { libc::sigaction(number, ptr::null(), &mut now) } == 0;
    known && now.sa_sigaction == libc::SIG_IGN
}

fn handle(number: i32) {
    let handler: extern "C" fn(c_int) = tell;
    // SAFETY: a structure of numbers and sets, for which zero is a value: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler may run at any moment: it does no more than atomic operations and one
    // write, and leaves the thread's error number as it was.
    unsafe { libc::sigaction(number, &action, ptr::null_mut()) };
}

/// Whoever waits in this thread waits on. A full pipe has enough to tell.
extern "C" fn tell(number: c_int) {
    let before = Errno::last();
    signal::count_absorbed();
    let byte = number as u8;
    // SAFETY: one byte, which lives as long as the call. The descriptor is never closed; in a copy
    // of this process no signal is heard.
    unsafe { libc::write(PIPE.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
    before.set_last();
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::poll::sleep;
    use super::super::testing;
    use super::*;

    fn raise(number: i32) {
        // SAFETY: takes a number.
        unsafe { libc::raise(number) };
    }

    #[test]
    fn signals_are_heard_in_order_and_end_no_sleep_but_those_ignored_stay_so() {
        if testing::is_again() {
            // SAFETY: ignoring runs no code.
            unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
            let heard = hear(&[USR1, WINCH, signal::HUP]).unwrap();
            assert_eq!(hear(&[INT]).unwrap_err(), Errno::EXIST);
            Errno(libc::E2BIG).set_last();
            [USR1, signal::HUP, WINCH, USR1].into_iter().for_each(raise);
            assert_eq!(Errno::last(), Errno(libc::E2BIG));
            let mut bytes = [0; 8];
            assert_eq!(fd::read(heard.as_fd(), &mut bytes), Ok(3));
            assert_eq!(bytes[..3], [USR1, WINCH, USR1].map(|number| number as u8));
            a_sleep_goes_on();
            signal::exit_now(42);
        }
        let test = "::signals_are_heard_in_order_and_end_no_sleep_but_those_ignored_stay_so";
        testing::ends_well(&[module_path!(), test].concat());
    }

    fn a_sleep_goes_on() {
        // SAFETY: takes nothing.
        let sleeper = unsafe { libc::pthread_self() } as usize;
        let end = Instant::now() + Duration::from_millis(50);
        let other = std::thread::spawn(move || {
            while Instant::now() < end {
                // SAFETY: the thread lives: it joins this one.
                unsafe { libc::pthread_kill(sleeper as libc::pthread_t, USR1) };
                std::thread::yield_now();
            }
        });
        assert_eq!(sleep(&[], Some(end)), Ok(0));
        other.join().unwrap();
    }

    #[test]
    fn what_is_obeyed_ends_the_process_as_if_it_had_not_been_heard() {
        use std::os::unix::process::ExitStatusExt;
        if testing::is_again() {
            let _heard = hear(&[signal::TERM]).unwrap();
            raise(signal::TERM);
            obey(signal::TERM);
            signal::exit_now(42);
        }
        let test = "::what_is_obeyed_ends_the_process_as_if_it_had_not_been_heard";
        let output = testing::output(&[module_path!(), test].concat());
        assert_eq!(output.status.signal(), Some(signal::TERM));
    }
}
