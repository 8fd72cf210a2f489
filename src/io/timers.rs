//! What is to happen later. A sorted list, since a loop has few timers and looks at the first.

use std::time::Instant;

use crate::io::turn::Turn;

/// What a timer does, on the loop's thread.
pub type Action = Box<dyn FnOnce(&mut Turn) + Send>;

/// Names a timer that was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId(u64);

/// The timers of one loop.
#[derive(Default)]
pub struct Timers {
    /// Sorted, the latest first.
    pending: Vec<(Instant, u64, Action)>,
    count: u64,
}

impl Timers {
    /// Runs `action` at `at`, or as soon after as the loop turns.
    pub fn set(&mut self, at: Instant, action: Action) -> TimerId {
        self.count += 1;
        let place = self.pending.partition_point(|(other, ..)| at < *other);
        self.pending.insert(place, (at, self.count, action));
        TimerId(self.count)
    }

    /// Forgets a timer; one that has run is forgotten already.
    pub fn cancel(&mut self, id: TimerId) {
        if let Some(at) = self.pending.iter().position(|(_, other, _)| *other == id.0) {
            drop(self.pending.remove(at));
        }
    }

    /// How many are set.
    pub fn count(&self) -> usize {
        self.pending.len()
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Instant> {
        self.pending.last().map(|(at, ..)| *at)
    }

    /// Takes one that is due.
    pub fn due(&mut self, now: Instant) -> Option<Action> {
        if now < self.next()? {
            return None;
        }
        self.pending.pop().map(|(.., action)| action)
    }
}
