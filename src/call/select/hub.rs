//! Which sources of a Select have something, in the order in which they said so, and the sleep of
//! those who wait for that. It knows the sources by their keys alone, and holds as many at most.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::error::Result;
use crate::io::broker::Broker;
use crate::io::latch::{Latch, Watcher};
use crate::lock::{Held, Lock};

/// No two sources have one key, whatever Select they are in.
static KEYS: AtomicU64 = AtomicU64::new(1);

pub(crate) struct Hub {
    state: Lock<State>,
    /// What is slept on, and what a Select around this one watches. At most one item.
    wake: Latch<()>,
}

#[derive(Default)]
struct State {
    /// Sorted by key.
    live: VecDeque<(u64, Stage)>,
    /// The keys that are `Ready`. Invariant: if there is one, or no source, then `told`, or a
    /// thread looks.
    ready: VecDeque<u64>,
    /// Whether `wake` has an item, or is about to.
    told: bool,
    closed: bool,
}

/// Where a source stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has nothing.
    Idle,
    /// It may have something.
    Ready,
    /// A thread looks what it has.
    Looked,
    /// The same, and it said meanwhile that it has something.
    Again,
}

impl State {
    fn place_of(&self, key: u64) -> Option<usize> {
        self.live.binary_search_by_key(&key, |(key, _)| *key).ok()
    }
}

impl Hub {
    pub(crate) fn new() -> Arc<Hub> {
        Arc::new(Hub { state: Lock::default(), wake: Latch::new() })
    }

    /// A new source's key; none once it is closed.
    pub(crate) fn enter(&self) -> Option<u64> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        let key = KEYS.fetch_add(1, Ordering::Relaxed);
        state.live.push_back((key, Stage::Idle));
        Some(key)
    }

    /// What a source calls when it may have something.
    pub(crate) fn watcher(self: &Arc<Hub>, key: u64) -> Watcher {
        let hub = self.clone();
        Arc::new(move || hub.ring(key))
    }

    /// A source may have something.
    pub(crate) fn ring(&self, key: u64) {
        let mut state = self.state.lock();
        let Some(at) = state.place_of(key) else { return };
        match state.live[at].1 {
            Stage::Idle => self.line_up(state, at),
            Stage::Looked => state.live[at].1 = Stage::Again,
            Stage::Ready | Stage::Again => (),
        }
    }

    /// Whether this is a source's key.
    pub(crate) fn has(&self, key: u64) -> bool {
        self.state.lock().place_of(key).is_some()
    }

    /// The next source to look at; by one thread at a time, until [`Hub::done`].
    pub(crate) fn pop(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let key = state.ready.pop_front()?;
        if let Some(at) = state.place_of(key) {
            state.live[at].1 = Stage::Looked;
        }
        if !state.ready.is_empty() {
            self.tell(state);
        }
        Some(key)
    }

    /// It was looked at, and may have `more`: then it is the last in the line.
    pub(crate) fn done(&self, key: u64, more: bool) {
        let mut state = self.state.lock();
        let Some(at) = state.place_of(key) else { return };
        match more || state.live[at].1 == Stage::Again {
            true => self.line_up(state, at),
            false => state.live[at].1 = Stage::Idle,
        }
    }

    /// It is a source no more. Returns whether it was.
    pub(crate) fn leave(&self, key: u64) -> bool {
        let mut state = self.state.lock();
        let Some(at) = state.place_of(key) else { return false };
        if state.live.remove(at).is_some_and(|(_, stage)| stage == Stage::Ready) {
            state.ready.retain(|other| *other != key);
        }
        if state.live.is_empty() {
            self.tell(state);
        }
        true
    }

    /// Whether there is no source. Then it wakes who sleeps still.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.state.lock();
        let is_over = state.live.is_empty();
        if is_over {
            self.tell(state);
        }
        is_over
    }

    pub(crate) fn has_sources(&self) -> bool {
        !self.state.lock().live.is_empty()
    }

    /// Whether no source says that it has something.
    pub(crate) fn is_idle(&self) -> bool {
        self.state.lock().ready.is_empty()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Ends every sleep, and takes no source any more.
    pub(crate) fn close(&self) {
        *self.state.lock() = State { closed: true, ..State::default() };
        self.wake.close();
    }

    /// Sleeps until there is something to look at, or no source; also now and then without.
    ///
    /// # Errors
    /// As [`Latch::get_timeout`].
    pub(crate) fn sleep(&self, broker: Option<&Broker>, deadline: Option<Instant>) -> Result<()> {
        match broker {
            Some(broker) => broker.wait(&self.wake, deadline)?,
            None => self.wake.get_until(deadline)?,
        }
        self.state.lock().told = false;
        Ok(())
    }

    /// Has the next item of [`Hub::wake`] be told of again, to who watches rather than sleeps.
    pub(crate) fn heard(&self) {
        if let Ok(Some(())) = self.wake.try_get() {
            self.state.lock().told = false;
        }
    }

    /// What tells that there is something to look at, or no source.
    pub(crate) fn wake(&self) -> &Latch<()> {
        &self.wake
    }

    /// How many keys it holds, those that wait to be looked at twice.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let state = self.state.lock();
        state.live.len() + state.ready.len()
    }

    fn line_up(&self, mut state: Held<'_, State>, at: usize) {
        state.live[at].1 = Stage::Ready;
        let key = state.live[at].0;
        state.ready.push_back(key);
        self.tell(state);
    }

    fn tell(&self, mut state: Held<'_, State>) {
        let was_told = std::mem::replace(&mut state.told, true);
        let closed = state.closed;
        drop(state);
        if !was_told && !closed {
            // It was closed in this moment: then nobody sleeps.
            let _ = self.wake.put(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Whether somebody who sleeps would be woken.
    fn wakes(hub: &Hub) -> bool {
        hub.sleep(None, Instant::now().checked_add(Duration::from_millis(1))).is_ok()
    }

    #[test]
    fn what_is_left_in_the_line_wakes_another_thread() {
        let hub = Hub::new();
        let keys = [(); 2].map(|()| hub.enter().unwrap());
        keys.iter().for_each(|key| hub.ring(*key));
        assert!(wakes(&hub) && hub.pop() == Some(keys[0]));
        // Whoever has the first may take its time.
        assert!(wakes(&hub) && hub.pop() == Some(keys[1]));
        assert!(!wakes(&hub) && hub.pop().is_none());
    }

    #[test]
    fn what_comes_while_a_source_is_looked_at_has_it_looked_at_again() {
        let hub = Hub::new();
        let key = hub.enter().unwrap();
        hub.ring(key);
        assert_eq!(hub.pop(), Some(key));
        hub.ring(key);
        assert_eq!(hub.pop(), None, "by one thread at a time");
        hub.done(key, false);
        assert_eq!(hub.pop(), Some(key));
        hub.done(key, false);
        assert_eq!(hub.pop(), None);
    }
}
