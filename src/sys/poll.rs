//! Waiting for descriptors: the loop's poller, level-triggered, and the one sleep of a user's
//! thread.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::errno::{Errno, Result, check};
use super::signal;

// `--cfg portable_poll` takes the other one on Linux, too: `make check-portable` tests it so.
#[cfg(all(target_os = "linux", not(portable_poll)))]
mod epoll;
#[cfg(any(not(target_os = "linux"), portable_poll))]
mod portable;
#[cfg(all(target_os = "linux", not(portable_poll)))]
use epoll as system;
#[cfg(any(not(target_os = "linux"), portable_poll))]
use portable as system;

pub use system::Notifier;
use system::System;

/// Descriptors that one [`sleep`] can watch: the bits of its answer.
pub const SLEEP_FDS_MAX: usize = 32;

/// What to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Something to read, or the end.
    pub read: bool,
    /// Room to write.
    pub write: bool,
}

impl Interest {
    /// Nothing at all, not even the end.
    pub const NONE: Interest = Interest { read: false, write: false };
    /// Reading only.
    pub const READ: Interest = Interest { read: true, write: false };
}

/// A descriptor that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key that it was added with.
    pub key: usize,
    /// It can be read; or it is closed or broken, whatever was asked for, and reading tells which.
    pub read: bool,
    /// It can be written, or is closed or broken; only if writing was asked for.
    pub write: bool,
}

struct Entry {
    key: usize,
    fd: Arc<OwnedFd>,
    interest: Interest,
}

/// The descriptors of one loop. It owns a share of each, so none is closed while it is watched.
/// An event may come once more after `change` or `remove` if it was already taken.
pub struct Poller {
    system: System,
    /// Sorted by key.
    entries: Vec<Entry>,
}

impl Poller {
    /// One with no descriptors.
    pub fn new() -> Result<Poller> {
        Ok(Poller { system: System::new()?, entries: Vec::new() })
    }

    /// Watches `fd` for `interest`, under a key that is not in use (EXIST), below `usize::MAX`.
    /// A regular file cannot be watched (PERM).
    pub fn add(&mut self, key: usize, fd: Arc<OwnedFd>, interest: Interest) -> Result<()> {
        let Err(at) = self.find(key) else { return Err(Errno::EXIST) };
        let mut entry = Entry { key, fd, interest: Interest::NONE };
        apply(&self.system, &mut entry, interest)?;
        self.entries.insert(at, entry);
        Ok(())
    }

    /// Waits for something else from now on; NOENT if the key is not there.
    pub fn change(&mut self, key: usize, interest: Interest) -> Result<()> {
        let at = self.find(key).map_err(|_| Errno::NOENT)?;
        apply(&self.system, &mut self.entries[at], interest)
    }

    /// Lets go of the descriptor; nothing happens if the key is not there.
    pub fn remove(&mut self, key: usize) {
        if let Ok(at) = self.find(key) {
            let mut entry = self.entries.remove(at);
            let _ = apply(&self.system, &mut entry, Interest::NONE);
        }
    }

    /// Waits until a descriptor is ready, the timeout runs out (`None`: never), or a notifier is
    /// used, and replaces `events`. A signal may end it with no events.
    pub fn wait(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> Result<()> {
        events.clear();
        let entries = &self.entries;
        self.system.wait(timeout, &mut |key, read, write| {
            if let Ok(at) = entries.binary_search_by_key(&key, |entry| entry.key) {
                events.push(Event { key, read, write: write && entries[at].interest.write });
            }
        })
    }

    /// What ends a wait.
    pub fn notifier(&self) -> Notifier {
        self.system.notifier()
    }

    fn find(&self, key: usize) -> std::result::Result<usize, usize> {
        self.entries.binary_search_by_key(&key, |entry| entry.key)
    }
}

impl Notifier {
    /// Sleeps until it is used, or the deadline: for a thread that stands by, while another has the
    /// poller.
    pub fn rest(&self, deadline: Option<Instant>) {
        // Whatever has ended the sleep: who rests looks why.
        let _ = sleep(&[self.wake().fd()], deadline);
        self.forget();
    }

    /// Forgets that it was used.
    pub fn forget(&self) {
        self.wake().drain();
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        // A notifier, or a child before it executes, may keep the system's side alive beyond the
        // descriptors.
        for entry in &mut self.entries {
            let _ = apply(&self.system, entry, Interest::NONE);
        }
    }
}

/// Tells the system the interest that `entry` shall have from now on.
fn apply(system: &System, entry: &mut Entry, interest: Interest) -> Result<()> {
    if entry.interest != interest {
        system.set(&entry.fd, entry.key, entry.interest, interest)?;
        entry.interest = interest;
    }
    Ok(())
}

/// Sleeps until one of at most [`SLEEP_FDS_MAX`] descriptors is readable, closed or broken, or the
/// deadline (`None`: never) has passed. Returns a bit for each that is ready, the first the lowest;
/// 0 means that the time is up. A signal ends it with INTR, so that Ctrl-C reaches a user's thread;
/// but not one that is absorbed.
pub fn sleep(fds: &[BorrowedFd<'_>], deadline: Option<Instant>) -> Result<u32> {
    let mut entries = [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; SLEEP_FDS_MAX];
    let entries = entries.get_mut(..fds.len()).ok_or(Errno::INVAL)?;
    for (entry, fd) in entries.iter_mut().zip(fds) {
        entry.fd = fd.as_raw_fd();
    }
    let mut absorbed = signal::absorbed();
    let left = || deadline.map(|end| end.saturating_duration_since(Instant::now()));
    while let Err(errno) = poll_once(entries, left()) {
        if errno != Errno::INTR || signal::absorbed() == absorbed {
            return Err(errno);
        }
        absorbed = signal::absorbed();
    }
    let bits = entries.iter().enumerate();
    Ok(bits.fold(0, |bits, (i, entry)| bits | (u32::from(entry.revents != 0) << i)))
}

#[cfg(not(target_vendor = "apple"))]
fn poll_once(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> Result<()> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the entries are ours to write, the timeout is null or lives as long as the call, and
    // a null mask leaves the signals alone.
    let rc =
        unsafe { libc::ppoll(entries.as_mut_ptr(), entries.len() as _, timeout, std::ptr::null()) };
    check(rc).map(|_| ())
}

#[cfg(target_vendor = "apple")]
fn poll_once(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> Result<()> {
    let millis = timeout.map_or(-1, |timeout| timeout.as_micros().div_ceil(1000) as i32);
    // SAFETY: the entries are ours to write.
    check(unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as _, millis) }).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::fd;
    use super::super::pipe::{Wake, pipe, socketpair};
    use super::super::testing;
    use super::*;

    fn wait(poller: &mut Poller) -> Vec<Event> {
        let mut events = Vec::new();
        poller.wait(&mut events, Some(Duration::from_secs(10))).unwrap();
        events
    }

    fn nothing(poller: &mut Poller) {
        let mut events = vec![Event { key: 1, read: true, write: true }];
        poller.wait(&mut events, Some(Duration::from_millis(1))).unwrap();
        assert_eq!(events, []);
    }

    #[test]
    fn a_closed_pipe_reports_read_every_time_until_it_is_removed() {
        let (read, write) = pipe().unwrap();
        let mut poller = Poller::new().unwrap();
        poller.add(5, Arc::new(read), Interest::READ).unwrap();
        nothing(&mut poller);
        drop(write);
        for _ in 0..2 {
            assert_eq!(wait(&mut poller), [Event { key: 5, read: true, write: false }]);
        }
        poller.remove(5);
        nothing(&mut poller);
    }

    #[test]
    fn a_lone_hang_up_counts_as_read_for_a_side_that_only_writes() {
        let (read, write) = pipe().unwrap();
        let mut poller = Poller::new().unwrap();
        fd::set_nonblocking(write.as_fd(), true).unwrap();
        while fd::write(write.as_fd(), &[0; 4096]).is_ok() {}
        poller.add(9, Arc::new(write), Interest { read: false, write: true }).unwrap();
        nothing(&mut poller);
        drop(read);
        assert_eq!(wait(&mut poller), [Event { key: 9, read: true, write: true }]);
    }

    #[test]
    fn a_side_without_interest_is_silent_even_when_its_peer_closes() {
        let (a, b) = socketpair().unwrap();
        let mut poller = Poller::new().unwrap();
        poller.add(2, Arc::new(a), Interest { read: true, write: true }).unwrap();
        assert_eq!(wait(&mut poller), [Event { key: 2, read: false, write: true }]);
        poller.change(2, Interest::NONE).unwrap();
        drop(b);
        nothing(&mut poller);
        poller.change(2, Interest::READ).unwrap();
        assert_eq!(wait(&mut poller), [Event { key: 2, read: true, write: false }]);
        assert_eq!(poller.change(3, Interest::READ), Err(Errno::NOENT));
    }

    #[test]
    fn the_poller_keeps_a_descriptor_open_until_it_is_removed() {
        let (a, b) = socketpair().unwrap();
        let a = Arc::new(a);
        let mut poller = Poller::new().unwrap();
        poller.add(2, Arc::clone(&a), Interest::READ).unwrap();
        assert_eq!(poller.add(2, Arc::clone(&a), Interest::READ), Err(Errno::EXIST));
        drop(a);
        assert_eq!(fd::send_nowait(b.as_fd(), b"x"), Ok(1));
        assert_eq!(wait(&mut poller), [Event { key: 2, read: true, write: false }]);
        let notifier = poller.notifier();
        drop(poller);
        notifier.notify();
        testing::soon(|| fd::send_nowait(b.as_fd(), b"x") == Err(Errno::PIPE));
    }

    #[test]
    fn notify_ends_a_wait_of_another_thread_and_one_to_come() {
        let mut poller = Poller::new().unwrap();
        let notifier = poller.notifier();
        notifier.notify();
        let mut events = Vec::new();
        poller.wait(&mut events, None).unwrap();
        let other = std::thread::spawn(move || notifier.notify());
        poller.wait(&mut events, None).unwrap();
        assert_eq!(events, []);
        other.join().unwrap();
    }

    #[test]
    fn a_sleep_says_which_are_ready_or_that_the_time_is_up() {
        let (a, b) = (Wake::new().unwrap(), Wake::new().unwrap());
        let fds = [a.fd(), b.fd()];
        let end = Instant::now() + Duration::from_millis(20);
        assert_eq!(sleep(&fds, Some(end)), Ok(0));
        assert!(end <= Instant::now());
        b.wake();
        assert_eq!(sleep(&fds, None), Ok(2));
        a.wake();
        assert_eq!(sleep(&fds, None), Ok(3));
    }

    #[test]
    fn a_signal_ends_a_sleep() {
        extern "C" fn nothing(_: i32) {}
        // SAFETY: a handler that does nothing is safe to run at any moment.
        unsafe { libc::signal(libc::SIGUSR2, nothing as *const () as libc::sighandler_t) };
        // SAFETY: takes nothing.
        let sleeper = unsafe { libc::pthread_self() } as usize;
        let (send, receive) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            while receive.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                // SAFETY: the thread lives: it joins this one.
                unsafe { libc::pthread_kill(sleeper as libc::pthread_t, libc::SIGUSR2) };
                std::thread::yield_now();
            }
        });
        assert_eq!(sleep(&[], None), Err(Errno::INTR));
        drop(send);
        other.join().unwrap();
    }
}
