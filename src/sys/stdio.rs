//! An agent's standard output and error: pipes whose other ends it reads itself. And what is done
//! with them when user code ends the process.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use super::errno::Result;
use super::{fd, fork, pipe};

/// The standard error that this process came with; -1 until another was put in its place.
static INHERITED: AtomicI32 = AtomicI32::new(-1);
/// Whether something that was read here has not been sent yet.
static UNSENT: AtomicBool = AtomicBool::new(false);

/// Makes descriptors 1 and 2 the ends of pipes to write to, which block; returns the others, which
/// do not. The standard error so far is kept: see [`inherited`].
pub fn take_over() -> Result<[OwnedFd; 2]> {
    let kept = fd::dup_above(fd::stderr(), 3)?;
    let ends = [divert(1)?, divert(2)?];
    INHERITED.store(kept.into_raw_fd(), Ordering::Relaxed);
    Ok(ends)
}

fn divert(number: i32) -> Result<OwnedFd> {
    let (read, write) = pipe::pipe()?;
    fd::set_nonblocking(read.as_fd(), true)?;
    // What user code makes of it is user code's.
    fork::unmark(write.as_fd());
    fd::dup_onto(write.as_fd(), number)?;
    Ok(read)
}

/// The standard error that this process came with.
pub fn inherited() -> BorrowedFd<'static> {
    match INHERITED.load(Ordering::Relaxed) {
        -1 => fd::stderr(),
        // SAFETY: it is closed by `forget_inherited` only, when nobody uses it.
        kept => unsafe { BorrowedFd::borrow_raw(kept) },
    }
}

/// Lets go of it: in a process that leaves those who started it, or in a copy.
pub fn forget_inherited() {
    let kept = INHERITED.swap(-1, Ordering::Relaxed);
    if kept != -1 {
        // SAFETY: `take_over` gave it up to this number, which was here alone.
        drop(unsafe { OwnedFd::from_raw_fd(kept) });
    }
}

/// Whether the beginning of a line was read here, and not its end.
static BEGUN: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];

/// Notes for which pipes the beginning of a line was read, and not its end.
pub fn note_begun(begun: [bool; 2]) {
    for (place, begun) in BEGUN.iter().zip(begun) {
        place.store(begun, Ordering::Relaxed);
    }
}

/// Notes whether something that was read from the pipes has not been sent yet.
pub fn note_unsent(unsent: bool) {
    UNSENT.store(unsent, Ordering::Relaxed);
}

pub use last::{at_abort, at_exit, has_no_room, let_abort};

/// What an agent without user code does not link.
mod last {
    use std::os::fd::AsRawFd;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use libc::c_int;

    use super::super::ready::until_writable;
    use super::super::{host, signal};
    use super::*;
    use crate::limits::ABORT_LOOKS_MAX;
    use crate::lock::Lock;

    /// The ends of the pipes to read from, and what keeps them open.
    static READ: [AtomicI32; 2] = [const { AtomicI32::new(-1) }; 2];
    static KEPT: Lock<Ends> = Lock::new([None, None]);

    type Ends = [Option<Arc<OwnedFd>>; 2];

    /// Whether who prints must wait now, since what was printed before cannot be sent.
    pub fn has_no_room() -> bool {
        let now = Instant::now;
        UNSENT.load(Ordering::Relaxed) && until_writable(fd::stdout(), Some(now())) == Ok(false)
    }

    fn keep(ends: Ends) -> Ends {
        let mut kept = KEPT.lock();
        for (place, end) in READ.iter().zip(&ends) {
            place.store(end.as_ref().map_or(-1, |end| end.as_raw_fd()), Ordering::Relaxed);
        }
        std::mem::replace(&mut kept, ends)
    }

    /// SIGABRT has its default effect alone again.
    pub fn let_abort() {
        signal::restore(libc::SIGABRT);
        drop(keep([None, None]));
    }

    /// From now on SIGABRT has what these pipes hold written to the standard error that this
    /// process came with, before its default effect.
    pub fn at_abort(ends: Ends) {
        // In a copy these are the original's.
        std::mem::forget(keep(ends));
        extern "C" fn abort(_: c_int) {
            say_last_words();
            // The loop may have been faster with some of it.
            say_last_words();
            signal::restore(libc::SIGABRT);
            // It is blocked until this returns; `abort` raises it again in any case.
            // SAFETY: takes a number.
            unsafe { libc::raise(libc::SIGABRT) };
        }
        let handler: extern "C" fn(c_int) = abort;
        signal::handle(libc::SIGABRT, handler);
    }

    /// Async-signal-safe: atomic operations and system calls.
    fn say_last_words() {
        let pause = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let mut ended = [false; 2];
        for _ in 0..ABORT_LOOKS_MAX {
            let begun = [0, 1].map(|place| BEGUN[place].load(Ordering::Relaxed));
            for (place, own) in [fd::stdout(), fd::stderr()].into_iter().enumerate() {
                if begun[place] && !std::mem::replace(&mut ended[place], true) {
                    // Has the loop send that line. A full pipe has it awake already.
                    let _ = fd::set_nonblocking(own, true);
                    let _ = fd::write(own, b"\n");
                }
            }
            if begun == [false; 2] && !UNSENT.load(Ordering::Relaxed) {
                break;
            }
            // The loop has it in hand; unless it is the loop that aborts.
            // SAFETY: reads the time, and is told nothing.
            unsafe { libc::nanosleep(&pause, std::ptr::null_mut()) };
        }
        let mut bytes = [0; 512];
        for end in &READ {
            let number = end.load(Ordering::Relaxed);
            if number == -1 {
                continue;
            }
            // SAFETY: it is open: see `keep`.
            let end = unsafe { BorrowedFd::borrow_raw(number) };
            while let Ok(count @ 1..) = fd::read(end, &mut bytes) {
                // Without anybody who listens there is nobody to tell.
                let _ = fd::write_all(inherited(), &bytes[..count]);
            }
        }
    }

    type Flush = Box<dyn Fn() -> bool + Send + Sync>;

    /// The process whose end it is, what to do, and for how long at most.
    static AT_EXIT: Lock<Option<(i32, Flush, Duration)>> = Lock::new(None);

    /// When this process is ended by `exit`, `flush` is called again and again, until it says that
    /// all is done or this time is over. Not in a copy of it, nor by `_exit`.
    pub fn at_exit(limit: Duration, flush: Flush) {
        extern "C" fn call() {
            let Some((pid, flush, limit)) = AT_EXIT.lock().take() else { return };
            if pid != host::pid() {
                // It is a copy, and what the original owns is not dropped here.
                return std::mem::forget(flush);
            }
            let end = Instant::now() + limit;
            while !flush() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let before = AT_EXIT.lock().replace((host::pid(), flush, limit));
        if before.is_none() {
            // SAFETY: the function lives as long as the process.
            unsafe { libc::atexit(call) };
        }
        // In a copy it is the original's.
        std::mem::forget(before);
    }
}
