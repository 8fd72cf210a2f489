//! Copies of this process without `exec`: the promise that one takes, how a copy is told from its
//! original, and which descriptors it must not keep.

use std::cell::UnsafeCell;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::c_int;

use super::errno::{Result, check};
use super::thread::SignalsBlocked;
use super::wait::{Process, pidfd_of};
use super::{host, signal};
use crate::lock::{Held, Lock, rank};

/// More than 0 in a copy of a process that made use of this library, and more in each copy of a
/// copy. Written only while a copy has one thread; it stays 0 in the stock agent, where all that
/// looks at it vanishes.
static GENERATION: Generation = Generation(UnsafeCell::new(0));

struct Generation(UnsafeCell<u32>);

// SAFETY: it is written only while its process has one thread; those that come later see it.
unsafe impl Sync for Generation {}

/// The promise of whoever has a process forked by [`Router::fork`](crate::Router::fork) that the
/// program, and all that is linked to it, lives with the copy: see [`ForkPromise::new`].
#[derive(Clone, Copy, Debug)]
pub struct ForkPromise(());

impl ForkPromise {
    /// Makes the promise.
    ///
    /// A fork copies the memory and the descriptors of the process, but of its threads only one of
    /// this library's. What the library has itself is made whole in the copy: its descriptors are
    /// closed, its locks are free, it logs nowhere, all signals have their defaults. Of all else
    /// `on_fork` must take care, or it must not matter.
    ///
    /// # Safety
    /// Whoever makes it says that, whenever a fork happens, nothing that runs in the copy (the two
    /// hooks, what they own, the functions called there) is made unsound or stuck by these:
    ///
    /// 1. *Descriptors.* All files, pipes and sockets of the program are open in the copy, too, and
    ///    stay so until it closes them or ends: peers see no end, and locks of flock(2) last.
    /// 2. *Temporary files* that were removed keep their space until the copy has closed them.
    /// 3. *Shared connections.* A pool of connections, a session of TLS or of a database has one
    ///    other end and two users now.
    /// 4. *Signals.* Handlers are gone; timers, resource counters and children are the original's
    ///    alone.
    /// 5. *The process's number* is another one: lock files, names and caches made with it lie.
    /// 6. *Private memory* is copied page by page as either side writes to it, and counts twice.
    /// 7. *Mapped files* stay mapped; shared mappings are written to by both.
    /// 8. *Latency.* The original stands still for some 20 ms per GiB of its memory, and then pays
    ///    for each page that it writes to.
    /// 9. *Locks* that other threads held at that moment are held for ever, and what they guard may
    ///    be half changed: of the allocator, where the system does not see to it (glibc, and musl
    ///    since 1.2.2, do), of `std`'s stdout and stderr (a panic writes to that), environment and
    ///    panic hook, of any library.
    /// 10. *Thread-local values* of all threads are out of reach, and are never dropped; handles of
    ///     threads name none. Hooks and functions run on a new thread, with a stack of 8 MiB.
    /// 11. *Random generators* of the program go on with the same numbers on both sides.
    ///
    /// What the program's arguments were is overwritten in the copy with the name that `ps` shows.
    pub const unsafe fn new() -> ForkPromise {
        ForkPromise(())
    }
}

/// That of the command `mitogen`, whose copies do nothing but what this library does.
pub const fn promise_of_command() -> ForkPromise {
    ForkPromise(())
}

/// Has copies of this process know that they are some, whoever makes them. Descriptors that came
/// with an agent's start are marked, too.
pub fn watch() {
    static WATCHED: AtomicBool = AtomicBool::new(false);
    extern "C" fn count() {
        // SAFETY: no other thread is in this process yet.
        unsafe { *GENERATION.0.get() += 1 };
    }
    // Threads that come at once may each ask for it, and copies count further: nobody goes on
    // before it was asked for.
    if !WATCHED.load(Ordering::Acquire) {
        // SAFETY: the handler may run in any copy: all that it does is to add to a number. Where
        // there is no room for it, copies are not known as such.
        unsafe { pthread_atfork(None, None, Some(count)) };
        WATCHED.store(true, Ordering::Release);
    }
}

unsafe extern "C" {
    fn pthread_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> c_int;
}

/// Differs between a process and its copies, if [`watch`] was called before; 0 in what no copy is.
pub fn generation() -> u32 {
    // SAFETY: see Generation. Plain, and not atomic, so that the compiler sees where it stays 0.
    unsafe { *GENERATION.0.get() }
}

/// Held while descriptors are made and have no mark yet, and while a process is copied. Not the
/// same one in a copy that the program makes by itself, where nobody would let go of it.
static UNMARKED: [Lock<(), { rank::INNERMOST }>; 4] = [const { Lock::new(()) }; 4];

/// Keeps this process from being copied until descriptors that are made now have their mark.
pub fn wait() -> Held<'static, ()> {
    UNMARKED[generation() as usize % UNMARKED.len()].lock()
}

/// Copies this process. In the copy, which gets `None`, this thread is the only one; all signals
/// are blocked in it and have their defaults, and the copy ends with the thread that made it.
pub fn fork(_: ForkPromise) -> Result<Option<Process>> {
    let original = host::pid();
    let blocked = SignalsBlocked::new();
    // Of either process this thread lets it go.
    let _marked = wait();
    // SAFETY: all that the copy may not do its maker has promised.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 {
        std::mem::forget(blocked);
        signal::restore_all();
        if signal::die_with_parent(original).is_err() {
            signal::exit_now(1);
        }
        return Ok(None);
    }
    drop(blocked);
    Ok(Some(Process::new(pid, pidfd_of(pid))))
}

/// Waits without end: for the thread that a copy began with, whose stack is small.
pub fn rest() -> ! {
    loop {
        // SAFETY: takes nothing.
        unsafe { libc::pause() };
    }
}

/// Closes what [`mark`] marked: only in a copy, before anything else is opened, since its owners
/// are on the stacks of threads that are not there.
pub fn close_marked() {
    #[cfg(target_os = "linux")]
    linux::close_marked();
}

/// Marks a descriptor of ours that a copy must not keep: the other side would wait for its end. The
/// mark is its description's, so that there are no numbers to keep account of.
pub fn mark(fd: BorrowedFd<'_>) {
    let _ = fd;
    #[cfg(target_os = "linux")]
    linux::set_mark(fd, linux::MARK);
}

/// Takes the mark away.
pub fn unmark(fd: BorrowedFd<'_>) {
    let _ = fd;
    #[cfg(target_os = "linux")]
    linux::set_mark(fd, 0);
}

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::AsRawFd;

    use super::super::fd;
    use super::*;

    /// The command that sets which signal tells that a description is ready, where that was asked
    /// for by O_ASYNC, which nobody does; and the one that asks for it.
    const F_SETSIG: c_int = 10;
    const F_GETSIG: c_int = 11;

    /// The mark: a signal that would tell nobody anything.
    pub const MARK: c_int = libc::SIGCONT;

    /// Sets the mark, or takes it away.
    pub fn set_mark(fd: BorrowedFd<'_>, mark: c_int) {
        // SAFETY: this command takes a number and no pointer.
        unsafe { fd::fcntl(fd.as_raw_fd(), F_SETSIG, mark) };
    }

    /// Closes what has the mark.
    pub fn close_marked() {
        fn close(number: c_int) {
            // SAFETY: takes numbers.
            if 2 < number && unsafe { fd::fcntl(number, F_GETSIG, 0) } == MARK {
                // SAFETY: takes a number. By the contract of `close_marked` no owner is left.
                unsafe { libc::close(number) };
            }
        }
        // Limits of a million are common, and it is all the same to a process without /proc.
        let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
            return fd::each_open(3, c_int::MAX, close);
        };
        let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        numbers.collect::<Vec<c_int>>().into_iter().for_each(close);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd, IntoRawFd};

    use super::super::{fd, pipe, testing};
    use super::*;

    #[test]
    fn what_is_marked_is_closed_and_nothing_else() {
        if testing::is_again() {
            let null = fd::open_null().unwrap();
            let [marked, shared, plain, unmarked] =
                [40, 41, 50, 60].map(|min| fd::dup_above(fd::open_null().unwrap().as_fd(), min));
            let all = [marked, shared, plain, unmarked].map(|fd| fd.unwrap().into_raw_fd());
            for number in [all[0], all[3]] {
                // SAFETY: it is open.
                mark(unsafe { BorrowedFd::borrow_raw(number) });
            }
            // SAFETY: as above.
            let again = fd::dup_above(unsafe { BorrowedFd::borrow_raw(all[0]) }, 70).unwrap();
            // SAFETY: as above.
            unmark(unsafe { BorrowedFd::borrow_raw(all[3]) });
            let again = again.into_raw_fd();
            close_marked();
            assert_eq!(all.map(fd::is_open), [false, true, true, true]);
            assert!(!fd::is_open(again) && fd::is_open(null.as_raw_fd()));
            let (a, b) = pipe::socketpair().unwrap();
            let pair = [a.into_raw_fd(), b.into_raw_fd()];
            close_marked();
            assert_eq!(pair.map(fd::is_open), [false, false]);
            signal::exit_now(42);
        }
        testing::ends_well(concat!(module_path!(), "::what_is_marked_is_closed_and_nothing_else"));
    }

    #[test]
    fn a_copy_knows_that_it_is_one_and_its_end_is_told() {
        if testing::is_again() {
            watch();
            watch();
            assert_eq!(generation(), 0);
            match fork(promise_of_command()).unwrap() {
                None => signal::exit_now(generation() as c_int),
                Some(mut process) => {
                    assert_eq!(process.wait(), Ok(crate::error::Exit::Code(1)));
                }
            }
            assert_eq!(generation(), 0);
            signal::exit_now(42);
        }
        testing::ends_well(concat!(
            module_path!(),
            "::a_copy_knows_that_it_is_one_and_its_end_is_told"
        ));
    }
}
