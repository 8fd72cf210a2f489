//! A queue that threads sleep on: the only place where this library blocks a user's thread for an
//! item.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Cause, Error, ErrorKind, Result};
use crate::io::sleep::{Seat, Slept};
use crate::lock::{self, Lock};
use crate::sys::pipe::Wake;

/// A first-in first-out queue for any number of threads. Each item wakes one sleeper, the one that
/// has slept longest; closing wakes all.
///
/// # Resources
/// None of its own but memory; a thread that sleeps is lent a descriptor.
pub struct Latch<T> {
    state: Lock<State<T>>,
}

struct State<T> {
    /// Invariant: at least as many as `sleepers.promised`; more only while nobody sleeps
    /// unpromised.
    queue: VecDeque<T>,
    sleepers: Sleepers,
    closed: bool,
    watcher: Option<Watcher>,
}

/// Told after each item that was put, and of the close; with no lock held, and on any thread.
pub(crate) type Watcher = Arc<dyn Fn() + Send + Sync>;

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
    fn enter(&mut self, seat: &mut Seat) -> Result<()> {
        let wake = Arc::clone(seat.prepare()?);
        self.tickets += 1;
        self.list.push((self.tickets, wake));
        seat.ticket = Some(self.tickets);
        Ok(())
    }

    /// Promises an item to the first who has none.
    fn promise(&mut self) -> Option<Arc<Wake>> {
        let (_, wake) = self.list.get(self.promised)?;
        self.promised += 1;
        Some(wake.clone())
    }

    /// Lets a thread go if it was promised an item; or if it `must` go. Returns whether it has a
    /// place in the queue.
    fn leave(&mut self, seat: &mut Seat, must: bool) -> bool {
        let Some(at) = self.list.iter().position(|(ticket, _)| Some(*ticket) == seat.ticket) else {
            return false;
        };
        let promised = at < self.promised;
        if promised || must {
            self.list.remove(at);
            self.promised -= usize::from(promised);
            seat.ticket = None;
        }
        promised
    }

    fn wake_all(&self) {
        for (_, wake) in &self.list {
            wake.wake();
        }
    }
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
        Latch { state: Lock::new(State { queue, sleepers, closed: false, watcher: None }) }
    }

    /// Appends an item, and wakes the thread that has slept longest.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the latch is closed; the item is dropped.
    pub fn put(&self, item: T) -> Result<()> {
        self.offer(item).map_err(|_| Error::closed(Cause::ReceiverClosed))
    }

    /// As [`Latch::put`]; gives the item back if it is closed.
    pub(crate) fn offer(&self, item: T) -> Result<(), T> {
        let mut state = self.lock();
        if state.closed {
            return Err(item);
        }
        state.queue.push_back(item);
        let (wake, watcher) = (state.sleepers.promise(), state.watcher.clone());
        drop(state);
        if let Some(wake) = wake {
            wake.wake();
        }
        if let Some(watcher) = watcher {
            watcher();
        }
        Ok(())
    }

    /// The next item; sleeps until there is one.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] once the latch is closed; [`ErrorKind::Interrupted`] if this thread
    /// handled a signal meanwhile.
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
        let (mut seat, mut slept) = (Seat::default(), Slept::Awake);
        loop {
            if let Some(got) = self.look(&mut seat, slept) {
                return got;
            }
            slept = seat.sleep(deadline);
        }
    }

    /// Ends the wait at `seat` if there is an item for it, if the latch is closed, or if its sleep
    /// has failed; else it is to sleep, or has given up its place.
    pub(crate) fn look(&self, seat: &mut Seat, slept: Slept) -> Option<Result<T>> {
        let mut state = self.lock();
        let must = state.closed || !matches!(slept, Slept::Awake);
        let promised = state.sleepers.leave(seat, must);
        if state.closed {
            return Some(Err(Error::closed(Cause::ReceiverClosed)));
        }
        if promised {
            return state.queue.pop_front().map(Ok);
        }
        match slept {
            Slept::Failed(error) => Some(Err(error)),
            Slept::Awake if seat.ticket.is_none() => match state.surplus() {
                Some(item) => Some(Ok(item)),
                None => state.sleepers.enter(seat).err().map(Err),
            },
            _ => None,
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
        !state.closed && state.queue.len() <= state.sleepers.promised
    }

    /// How many items there are, and how many threads sleep for one.
    pub(crate) fn census(&self) -> (usize, usize) {
        let state = self.lock();
        (state.queue.len(), state.sleepers.list.len())
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Drops what is queued and wakes every sleeper; from now on all fails. Closing twice is fine.
    pub fn close(&self) {
        drop(self.close_and_take());
    }

    /// As [`Latch::close`]; gives what is queued. None if it was closed before.
    pub(crate) fn close_and_take(&self) -> Option<VecDeque<T>> {
        let mut state = self.lock();
        let was_closed = std::mem::replace(&mut state.closed, true);
        let queue = std::mem::take(&mut state.queue);
        state.sleepers.wake_all();
        let watcher = state.watcher.clone();
        drop(state);
        if let Some(watcher) = watcher {
            watcher();
        }
        (!was_closed).then_some(queue)
    }

    /// Has `watcher` called from now on; what is there already it is not told. Returns whether
    /// nobody watches yet.
    pub(crate) fn watch(&self, watcher: Watcher) -> bool {
        let mut state = self.lock();
        let free = state.watcher.is_none();
        if free {
            state.watcher = Some(watcher);
        }
        free
    }

    /// Ends that, if it is this one who watches; a call of it may still be under way.
    pub(crate) fn unwatch(&self, watcher: &Watcher) {
        let mut state = self.lock();
        let is_it = |own: &mut Watcher| std::ptr::addr_eq(Arc::as_ptr(own), Arc::as_ptr(watcher));
        let watcher = state.watcher.take_if(is_it);
        drop(state);
        drop(watcher);
    }

    fn lock(&self) -> lock::Held<'_, State<T>> {
        self.state.lock()
    }
}

impl<T> State<T> {
    /// An item that nobody was promised.
    fn surplus(&mut self) -> Option<T> {
        if self.sleepers.promised < self.queue.len() { self.queue.pop_front() } else { None }
    }
}
