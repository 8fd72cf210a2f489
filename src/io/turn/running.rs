//! How a loop runs: on the broker's thread, or on one to which the turn is lent.

use std::time::{Duration, Instant};

use super::{Key, Turn};
use crate::io::counters::Count;
use crate::io::lending::{Next, Task};
use crate::sys::errno::Errno;
use crate::sys::poll::Event;

impl Turn {
    /// When the next timer is due.
    pub(in crate::io) fn next_timer(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The loop, on the broker's thread: the one place that blocks in poll. Returns when it is
    /// over, or to be lent; fails if poll does.
    pub(crate) fn run(&mut self) -> std::result::Result<(), Errno> {
        let mut served = false;
        loop {
            self.run_deferred();
            while let Some(action) = self.timers.due(Instant::now()) {
                self.counting.add(Count::Timers, 1);
                action(self);
            }
            let next = self.broker.next(served);
            if self.is_over() || next == Next::Lend {
                return Ok(());
            }
            let left = |at: Instant| at.saturating_duration_since(Instant::now());
            // What has just run here may have deferred something, which wakes nobody.
            let now = (next == Next::Work).then_some(Duration::ZERO);
            served = self.poll(now.or_else(|| self.next_timer().map(left)))?;
        }
    }

    /// The same on a thread to which the turn is lent, for what has arrived by now. Returns whether
    /// more may have.
    pub(in crate::io) fn serve_lent(&mut self) -> bool {
        (self.is_lent, self.has_more) = (true, false);
        self.counting.add(Count::TurnsLent, 1);
        // If poll fails, it does so for the broker as well.
        let _ = self.poll(Some(Duration::ZERO));
        self.is_lent = false;
        self.has_more
    }

    /// Waits until something has arrived, and serves that. Returns whether there was anything.
    fn poll(&mut self, timeout: Option<Duration>) -> std::result::Result<bool, Errno> {
        let mut events = std::mem::take(&mut self.events);
        self.poller.wait(&mut events, timeout)?;
        self.counting.add(Count::Turns, 1);
        self.counting.add(Count::Wakeups, usize::from(timeout != Some(Duration::ZERO)));
        for event in &events {
            self.serve(*event);
        }
        self.events = events;
        Ok(!self.events.is_empty())
    }

    /// The broker's thread has slept so often while others had the turn.
    pub(in crate::io) fn note_naps(&mut self, count: usize) {
        self.counting.add(Count::Wakeups, count);
    }

    /// Runs `task` on the broker's own thread: now, if this is it.
    pub fn at_home(&mut self, task: Task) {
        if self.is_lent {
            // An ended broker drops it, as all that it was to do.
            let _ = self.broker.defer(task);
        } else {
            task(self);
        }
    }

    /// Does what others have deferred.
    pub(crate) fn run_deferred(&mut self) {
        self.deferred = self.broker.take_deferred();
        self.counting.add(Count::Tasks, self.deferred.len());
        self.counting.high(Count::TasksHigh, self.deferred.len());
        self.deferred.reverse();
        while let Some(task) = self.deferred.pop() {
            task(self);
        }
    }

    fn serve(&mut self, event: Event) {
        let key = Key(event.key / 2);
        if event.write {
            self.arm(key);
        }
        if event.read && event.key == key.receive() {
            self.read(key);
        }
    }
}
