//! A queue that threads sleep on: the only place where this library blocks a user's thread.
//! It sleeps on a descriptor that is lent to it for the wait, so a signal interrupts it and
//! descriptors are bounded by the threads that sleep, not by what they wait for.

use std::collections::VecDeque;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Cause, Error, ErrorKind, Result};
use crate::limits::IDLE_WAKES_MAX;
use crate::lock::{self, Lock, rank};
use crate::sys::errno::Errno;
use crate::sys::fork;
use crate::sys::pipe::Wake;
use crate::sys::poll::{self, SLEEP_FDS_MAX};

/// Wake-up descriptors that nobody sleeps on. Not one per thread: what is torn down at a thread's
/// end would weigh more in an agent than all of this.
static IDLE: Lock<Idle, { rank::IDLE }> = Lock::new(Idle { generation: 0, wakes: Vec::new() });

struct Idle {
    /// Which copy of the process they belong to: the wake-ups of another would be taken from it.
    generation: u32,
    wakes: Vec<Arc<Wake>>,
}

/// Keeps other threads from the list while this process is copied: in the copy nobody would let it
/// go. There it is empty.
pub(crate) struct Held {
    _idle: lock::Held<'static, Idle>,
}

/// Until it is dropped, in the original and in the copy.
pub(crate) fn hold() -> Held {
    Held { _idle: idle() }
}

/// A wake-up descriptor that nobody else sleeps on while this lives. Who was woken by it before may
/// still be known to somebody, so a wake-up can be stale.
pub(crate) struct Sleeper(Arc<Wake>);

/// One that is idle, or a new one.
pub(crate) fn sleeper() -> Result<Sleeper> {
    let idle = idle().wakes.pop();
    if let Some(wake) = idle {
        return Ok(Sleeper(wake));
    }
    let wake = Wake::new().map_err(|Errno(e)| Error::system("making a latch", e))?;
    Ok(Sleeper(Arc::new(wake)))
}

fn idle() -> lock::Held<'static, Idle> {
    let mut idle = IDLE.lock();
    let now = fork::generation();
    if now != 0 && idle.generation != now {
        *idle = Idle { generation: now, wakes: Vec::new() };
    }
    idle
}

impl Deref for Sleeper {
    type Target = Arc<Wake>;

    fn deref(&self) -> &Arc<Wake> {
        &self.0
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let mut idle = idle();
        if idle.wakes.len() < IDLE_WAKES_MAX {
            idle.wakes.push(self.0.clone());
        }
    }
}

/// Sleeps until `wake` is woken, one of `also` (few) is readable, or the deadline. A wake-up may be
/// stale: the caller looks at its condition again.
///
/// # Errors
/// [`ErrorKind::Timeout`] past the deadline; [`ErrorKind::System`] with `EINTR` after a signal.
pub(crate) fn sleep(wake: &Wake, also: &[BorrowedFd<'_>], deadline: Option<Instant>) -> Result<()> {
    let mut fds = [wake.fd(); SLEEP_FDS_MAX];
    fds[1..=also.len()].copy_from_slice(also);
    match poll::sleep(&fds[..=also.len()], deadline) {
        Ok(0) => Err(Error::new(ErrorKind::Timeout)),
        Ok(ready) => {
            if ready & 1 != 0 {
                wake.drain();
            }
            Ok(())
        }
        Err(Errno(errno)) => Err(Error::system("waiting", errno)),
    }
}

/// A first-in first-out queue for any number of threads. Each item wakes one sleeper, the one that
/// has slept longest; closing wakes all.
///
/// # Resources
/// None of its own but memory; a thread that sleeps is lent a descriptor.
pub struct Latch<T> {
    state: Lock<State<T>>,
}

/// One item to come; that it does not is known when this is dropped.
pub(crate) struct Promise<T>(Arc<Promised<T>>);

/// Where a promise is kept.
pub(crate) struct Promised<T> {
    item: Lock<Option<T>>,
    /// Closed when the item is there, or will not come.
    done: Latch<()>,
}

/// A promise, and where it is kept.
pub(crate) fn promise<T>() -> (Promise<T>, Arc<Promised<T>>) {
    let promised = Arc::new(Promised { item: Lock::new(None), done: Latch::new() });
    (Promise(promised.clone()), promised)
}

impl<T> Promise<T> {
    /// Hands over what was promised.
    pub(crate) fn keep(self, item: T) {
        *self.0.item() = Some(item);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.0.done.close();
    }
}

impl<T> Promised<T> {
    /// The item; sleeps until there is one. For one caller.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the promise was not kept; [`ErrorKind::System`] as [`Latch::get`].
    pub(crate) fn get(&self) -> Result<T> {
        self.done.wait_closed(None)?;
        self.item().take().ok_or_else(|| Error::closed(Cause::ReceiverClosed))
    }

    /// Sleeps until the promise is kept or will not be.
    ///
    /// # Errors
    /// As [`Latch::get_timeout`].
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Result<()> {
        self.done.wait_closed(deadline)
    }

    fn item(&self) -> lock::Held<'_, Option<T>> {
        self.item.lock()
    }
}

struct State<T> {
    /// Invariant: at least as many as `sleepers.promised`; more only while nobody sleeps
    /// unpromised.
    queue: VecDeque<T>,
    sleepers: Sleepers,
    closed: bool,
}

/// The threads that sleep on one latch, in the order they came. Who was promised an item takes the
/// first that is there when it goes. It knows nothing of the items' type, so that a latch of one
/// more type costs few bytes.
#[derive(Default)]
struct Sleepers {
    list: Vec<(u64, Arc<Wake>)>,
    /// How many, from the first on, were promised an item.
    promised: usize,
    tickets: u64,
}

impl Sleepers {
    fn enter(&mut self) -> Result<(u64, Sleeper)> {
        let wake = sleeper()?;
        self.tickets += 1;
        self.list.push((self.tickets, Arc::clone(&wake)));
        Ok((self.tickets, wake))
    }

    /// Promises an item to the first who has none.
    fn promise(&mut self) -> Option<Arc<Wake>> {
        let (_, wake) = self.list.get(self.promised)?;
        self.promised += 1;
        Some(wake.clone())
    }

    /// Lets a thread go if it was promised an item, then with its place in the queue; or if it
    /// `must` go.
    fn leave(&mut self, ticket: u64, must: bool) -> Left {
        let Some(at) = self.list.iter().position(|(other, _)| *other == ticket) else {
            return Left::Empty;
        };
        let promised = at < self.promised;
        if !promised && !must {
            return Left::Stays;
        }
        self.list.remove(at);
        self.promised -= usize::from(promised);
        if promised { Left::WithItem } else { Left::Empty }
    }

    fn wake_all(&self) {
        for (_, wake) in &self.list {
            wake.wake();
        }
    }
}

enum Left {
    Stays,
    Empty,
    WithItem,
}

impl<T> Default for Latch<T> {
    fn default() -> Latch<T> {
        Latch::new()
    }
}

impl<T> Latch<T> {
    /// An empty latch.
    pub fn new() -> Latch<T> {
        let (queue, sleepers) = (VecDeque::new(), Sleepers::default());
        Latch { state: Lock::new(State { queue, sleepers, closed: false }) }
    }

    /// Appends an item, and wakes the thread that has slept longest.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the latch is closed; the item is dropped.
    pub fn put(&self, item: T) -> Result<()> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::closed(Cause::ReceiverClosed));
        }
        state.queue.push_back(item);
        let wake = state.sleepers.promise();
        drop(state);
        if let Some(wake) = wake {
            wake.wake();
        }
        Ok(())
    }

    /// The next item; sleeps until there is one.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] once the latch is closed; [`ErrorKind::System`] with `EINTR` if a
    /// signal was handled by this thread meanwhile.
    pub fn get(&self) -> Result<T> {
        self.get_until(None)
    }

    /// As [`Latch::get`], for at most this long.
    ///
    /// # Errors
    /// Also [`ErrorKind::Timeout`].
    pub fn get_timeout(&self, timeout: Duration) -> Result<T> {
        self.get_until(Instant::now().checked_add(timeout))
    }

    /// The next item, if there is one that no sleeper was promised.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the latch is closed.
    pub fn try_get(&self) -> Result<Option<T>> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::closed(Cause::ReceiverClosed));
        }
        Ok(state.surplus())
    }

    /// As [`Latch::get`], until `deadline`.
    pub(crate) fn get_until(&self, deadline: Option<Instant>) -> Result<T> {
        let (ticket, wake) = {
            let mut state = self.lock();
            if state.closed {
                return Err(Error::closed(Cause::ReceiverClosed));
            }
            if let Some(item) = state.surplus() {
                return Ok(item);
            }
            state.sleepers.enter()?
        };
        loop {
            let slept = sleep(&wake, &[], deadline);
            if let Some(result) = self.leave(ticket, slept.err()) {
                return result;
            }
        }
    }

    /// Sleeps until it is closed, for those that carry nothing; errors as of [`Latch::get_until`].
    pub(crate) fn wait_closed(&self, deadline: Option<Instant>) -> Result<()> {
        match self.get_until(deadline) {
            Err(error) if !matches!(error.kind(), ErrorKind::Closed(_)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether a `get` would sleep. Another thread may make the answer stale at once.
    pub fn is_empty(&self) -> bool {
        let state = self.lock();
        state.queue.len() <= state.sleepers.promised
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Drops what is queued and wakes every sleeper; from now on all fails. Closing twice is fine.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let dropped = std::mem::take(&mut state.queue);
        state.sleepers.wake_all();
        drop(state);
        drop(dropped);
    }

    fn lock(&self) -> lock::Held<'_, State<T>> {
        self.state.lock()
    }

    /// Ends the wait of `ticket` if it got an item, if the latch closed, or if its sleep failed.
    fn leave(&self, ticket: u64, failed: Option<Error>) -> Option<Result<T>> {
        let mut state = self.lock();
        let must = failed.is_some() || state.closed;
        let left = state.sleepers.leave(ticket, must);
        if state.closed {
            return Some(Err(Error::closed(Cause::ReceiverClosed)));
        }
        match left {
            Left::Stays => None,
            Left::WithItem => state.queue.pop_front().map(Ok),
            Left::Empty => failed.map(Err),
        }
    }
}

impl<T> State<T> {
    /// An item that nobody was promised.
    fn surplus(&mut self) -> Option<T> {
        if self.sleepers.promised < self.queue.len() { self.queue.pop_front() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_out_in_the_order_they_went_in() {
        let latch = Latch::new();
        for i in 0..10 {
            latch.put(i).unwrap();
        }
        let out: Vec<i32> = (0..10).map(|_| latch.get().unwrap()).collect();
        assert_eq!(out, (0..10).collect::<Vec<_>>());
        assert!(latch.try_get().unwrap().is_none());
    }

    #[test]
    fn of_many_descriptors_that_were_lent_few_are_kept() {
        let lent: Vec<Sleeper> = (0..3 * IDLE_WAKES_MAX).map(|_| sleeper().unwrap()).collect();
        drop(lent);
        assert!(idle().wakes.len() <= IDLE_WAKES_MAX);
    }

    #[test]
    fn a_wait_times_out_and_leaves_no_waiter() {
        let latch = Latch::<()>::new();
        let error = latch.get_timeout(Duration::from_millis(5)).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Timeout);
        latch.put(()).unwrap();
        assert!(!latch.is_empty());
    }

    #[test]
    fn closing_wakes_every_sleeper() {
        let latch = Arc::new(Latch::<u8>::new());
        let sleepers: Vec<_> = (0..4)
            .map(|_| {
                let latch = latch.clone();
                std::thread::spawn(move || latch.get().is_err())
            })
            .collect();
        while latch.lock().sleepers.list.len() < 4 {
            std::thread::yield_now();
        }
        latch.close();
        assert!(sleepers.into_iter().all(|s| s.join().unwrap()));
        assert!(latch.put(1).is_err());
    }

    #[test]
    fn many_threads_get_every_item_once() {
        let latch = Arc::new(Latch::<u32>::new());
        let getters: Vec<_> = (0..8)
            .map(|_| {
                let latch = latch.clone();
                std::thread::spawn(move || {
                    (0..500).map(|_| latch.get().unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();
        for i in 0..4000 {
            latch.put(i).unwrap();
        }
        let mut all: Vec<u32> = getters.into_iter().flat_map(|g| g.join().unwrap()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..4000).collect::<Vec<_>>());
    }

    #[test]
    fn who_comes_later_leaves_an_item_for_each_thread_that_slept() {
        let latch = Arc::new(Latch::<u32>::new());
        let sleepers: Vec<_> = (0..8)
            .map(|i| {
                let own = latch.clone();
                let sleeper = std::thread::spawn(move || own.get().unwrap());
                while latch.lock().sleepers.list.len() <= i {
                    std::thread::yield_now();
                }
                sleeper
            })
            .collect();
        (0..8).for_each(|i| latch.put(i).unwrap());
        latch.put(8).unwrap();
        let mut got = vec![latch.get().unwrap()];
        assert_eq!(latch.try_get().unwrap(), None);
        got.extend(sleepers.into_iter().map(|s| s.join().unwrap()));
        got.sort_unstable();
        assert_eq!(got, (0..=8).collect::<Vec<_>>());
    }

    #[test]
    fn no_item_is_lost_between_timeouts_and_puts() {
        let latch = Arc::new(Latch::<u32>::new());
        let getters: Vec<_> = (0..4)
            .map(|i| {
                let latch = latch.clone();
                std::thread::spawn(move || {
                    let mut got = Vec::new();
                    loop {
                        match latch.get_timeout(Duration::from_micros(i * 30)) {
                            Ok(u32::MAX) => return got,
                            Ok(item) => got.push(item),
                            Err(e) => assert_eq!(*e.kind(), ErrorKind::Timeout),
                        }
                    }
                })
            })
            .collect();
        for i in 0..3000 {
            latch.put(i).unwrap();
            if i % 7 == 0 {
                std::thread::sleep(Duration::from_micros(40));
            }
        }
        (0..4).for_each(|_| latch.put(u32::MAX).unwrap());
        let mut all: Vec<u32> = getters.into_iter().flat_map(|g| g.join().unwrap()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..3000).collect::<Vec<_>>());
        assert!(latch.is_empty() && latch.lock().sleepers.list.is_empty());
    }

    #[test]
    fn closing_beats_what_is_queued() {
        let latch = Latch::new();
        let item = Arc::new(());
        latch.put(item.clone()).unwrap();
        latch.close();
        latch.close();
        assert_eq!(Arc::strong_count(&item), 1);
        for result in [latch.get().map(Some), latch.try_get(), latch.put(item).map(|()| None)] {
            let error = result.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Closed(_)), "{error}");
        }
    }
}
