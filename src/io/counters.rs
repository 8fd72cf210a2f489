//! What a broker counts: always, since it costs next to nothing; and how long deliveries take, if
//! that was asked for. Says nothing of what any message holds.

use std::time::{Duration, Instant};

use crate::ids::{ContextId, Handle};
use crate::io::outbox::Written;
use crate::limits::{SLOWEST_MAX, TIMED_HANDLES_MAX};

crate::value! {
    /// What one broker has done since it was started, and what it has had at most.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Counters {
        /// Microseconds since the broker was started.
        pub uptime_us: u64,
        /// Turns of the loop: how often it served what had arrived, or found nothing.
        pub turns: u64,
        /// How many of them a thread made that waited for an answer, in the broker's place.
        pub turns_lent: u64,
        /// Sleeps of the broker's own thread that have ended.
        pub wakeups: u64,
        /// Tasks that other threads had it do.
        pub tasks: u64,
        /// Timers that went off.
        pub timers: u64,
        /// Reads that brought something.
        pub reads: u64,
        /// Bytes that they brought.
        pub read_bytes: u64,
        /// Writes of which something was taken, by whatever thread.
        pub writes: u64,
        /// Bytes that were taken.
        pub written_bytes: u64,
        /// Frames that arrived from neighbours.
        pub frames_received: u64,
        /// How many of them were for others, and were passed on.
        pub frames_forwarded: u64,
        /// Frames that were sent to neighbours, but for those that were passed on.
        pub frames_sent: u64,
        /// Messages that were for a context of this broker, and were given to who listens.
        pub messages_delivered: u64,
        /// Bytes that waited in the fullest outbox at most.
        pub outbox_bytes_high: u64,
        /// Descriptors that were served at a time at most.
        pub streams_high: u64,
        /// Tasks that waited at a time at most.
        pub tasks_high: u64,
        /// What deliveries took, by handle; empty unless they are
        /// [timed](crate::Connect::profiling).
        pub handlers: Vec<HandlerTimes>,
        /// The slowest of them, at most eight, the slowest first.
        pub slowest: Vec<SlowDelivery>,
    }

    /// How long a broker was busy with the messages to one handle. Those of a program's own beyond
    /// the first few hundred are counted with the receivers.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct HandlerTimes {
        /// The handle's number. All answers are counted as 256, the first of their handles; all
        /// messages to receivers as 2^30, the first of theirs.
        pub handle: u32,
        /// Messages.
        pub count: u64,
        /// Microseconds that all of them took.
        pub total_us: u64,
        /// Microseconds that the longest took.
        pub longest_us: u64,
    }

    /// One delivery.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct SlowDelivery {
        /// The number of the handle.
        pub handle: u32,
        /// The number of the context that the message came from.
        pub source: u32,
        /// Microseconds that it took.
        pub took_us: u64,
    }
}

impl Counters {
    /// Notes a delivery.
    pub(crate) fn note(&mut self, handle: Handle, source: ContextId, took: Duration) {
        let took_us = took.as_micros() as u64;
        let kind = kind_of(handle).0;
        let at = self.handlers.iter().position(|times| times.handle == kind);
        let at = at.unwrap_or_else(|| {
            let others = HandlerTimes { handle: Handle::FIRST_RANDOM.0, ..HandlerTimes::default() };
            if self.handlers.is_empty() {
                self.handlers.push(others.clone());
            }
            if kind == others.handle || self.handlers.len() == TIMED_HANDLES_MAX {
                return 0;
            }
            self.handlers.push(HandlerTimes { handle: kind, ..others });
            self.handlers.len() - 1
        });
        let times = &mut self.handlers[at];
        times.count += 1;
        times.total_us += took_us;
        times.longest_us = times.longest_us.max(took_us);
        let at = self.slowest.iter().position(|slow| slow.took_us < took_us);
        let at = at.unwrap_or(self.slowest.len());
        if at < SLOWEST_MAX {
            self.slowest.truncate(SLOWEST_MAX - 1);
            let slow = SlowDelivery { handle: handle.0, source: source.0, took_us };
            self.slowest.insert(at, slow);
        }
    }

    /// Adds what an outbox has counted.
    pub(crate) fn add_outbox(&mut self, outbox: &Written) {
        self.writes += outbox.writes;
        self.written_bytes += outbox.bytes;
        self.frames_sent += outbox.frames;
        self.outbox_bytes_high = self.outbox_bytes_high.max(outbox.bytes_high);
    }
}

/// Handles that are many are counted together.
fn kind_of(handle: Handle) -> Handle {
    if handle.is_well_known() || handle < Handle::FIRST_DYNAMIC {
        handle
    } else if handle < Handle::FIRST_RANDOM {
        Handle::FIRST_DYNAMIC
    } else {
        Handle::FIRST_RANDOM
    }
}

/// When a broker was started, and what it counts by itself.
pub(crate) struct Counting {
    /// What the holder of the turn counts, and what outboxes that are gone have.
    pub counts: Counters,
    /// Whether deliveries are timed.
    pub times: bool,
    begun: Instant,
}

impl Counting {
    /// Nothing yet.
    pub fn new() -> Counting {
        Counting { counts: Counters::default(), times: false, begun: Instant::now() }
    }

    /// What there is by now.
    pub fn now(&self) -> Counters {
        let uptime_us = self.begun.elapsed().as_micros() as u64;
        Counters { uptime_us, ..self.counts.clone() }
    }
}
