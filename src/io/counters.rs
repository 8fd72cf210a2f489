//! What a broker counts: always, since it costs next to nothing; and how long deliveries take, if
//! that was asked for. Says nothing of what any message holds.

use std::time::Instant;

use crate::ids::{ContextId, Handle};
use crate::io::outbox::Outbox;
use crate::io::turn::Turn;
use crate::limits::SLOWEST_MAX;

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

    /// How long a broker was busy with the messages to one handle.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct HandlerTimes {
        /// The handle's number. All answers are counted as 256, the first of their handles; all
        /// messages to receivers, and to handles of a program's own, as 2^30, the first of theirs.
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

/// What is counted, each a place in [`Counting::counts`], in the order of the fields and of
/// [`NAMES`].
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Count {
    Turns,
    TurnsLent,
    Wakeups,
    Tasks,
    Timers,
    Reads,
    ReadBytes,
    Writes,
    WrittenBytes,
    FramesReceived,
    FramesForwarded,
    FramesSent,
    MessagesDelivered,
    OutboxBytesHigh,
    StreamsHigh,
    TasksHigh,
}

/// As the fields are called.
pub(crate) const NAMES: &str = "turns turns_lent wakeups tasks timers reads read_bytes writes \
    written_bytes frames_received frames_forwarded frames_sent messages_delivered \
    outbox_bytes_high streams_high tasks_high";

/// Numbers in a fixed place, so that an agent has little to do with them.
pub(crate) struct Counting {
    /// What the holder of the turn counts, and what outboxes that are gone have.
    counts: [u64; Count::TasksHigh as usize + 1],
    /// Once deliveries are timed.
    pub times: Option<Box<Times>>,
    begun: Instant,
}

/// How long deliveries took.
#[derive(Default)]
pub(crate) struct Times {
    /// How many, the sum and the longest in microseconds: of each handle of the protocol, then of
    /// answers, then of what is left.
    pub handlers: [[u64; 3]; PLACES],
    /// Microseconds, handle and source; the slowest first.
    pub slowest: [(u64, u32, u32); SLOWEST_MAX],
}

/// Handles of the protocol, answers, and all others.
const PLACES: usize = Handle::INSPECT.0 as usize + 3;

impl Counting {
    /// Nothing yet.
    pub fn new() -> Counting {
        let counts = [0; Count::TasksHigh as usize + 1];
        Counting { counts, times: None, begun: Instant::now() }
    }

    /// Adds to a count.
    pub fn add(&mut self, count: Count, by: usize) {
        self.counts[count as usize] += by as u64;
    }

    /// Notes how much there is of something.
    pub fn high(&mut self, count: Count, now: usize) {
        let high = &mut self.counts[count as usize];
        *high = (*high).max(now as u64);
    }

    /// Adds what an outbox has counted.
    pub fn add_outbox(&mut self, outbox: &Outbox) {
        let written = outbox.written();
        self.add(Count::Writes, written.writes);
        self.add(Count::WrittenBytes, written.bytes);
        self.add(Count::FramesSent, written.frames);
        self.high(Count::OutboxBytesHigh, written.bytes_high);
    }

    /// The counts.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Microseconds since the broker was started.
    pub fn uptime_us(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    /// When a delivery begins, if it is timed.
    pub fn begin(&self) -> Option<Instant> {
        self.times.as_ref().map(|_| Instant::now())
    }

    /// Notes one that has ended.
    #[inline(never)] // seldom
    pub fn note(&mut self, begun: Instant, handle: Handle, source: ContextId) {
        let Some(times) = &mut self.times else { return };
        let took_us = begun.elapsed().as_micros() as u64;
        let of_handle = &mut times.handlers[place_of(handle)];
        of_handle[0] += 1;
        of_handle[1] += took_us;
        of_handle[2] = of_handle[2].max(took_us);
        let mut slow = (took_us, handle.0, source.0);
        for place in &mut times.slowest {
            if place.0 < slow.0 {
                std::mem::swap(place, &mut slow);
            }
        }
    }

    /// What there is by now, but for the outboxes that are in use.
    fn whole(&self) -> Counters {
        let of = |count: Count| self.counts[count as usize];
        let (mut handlers, mut slowest) = (Vec::new(), Vec::new());
        if let Some(times) = &self.times {
            for (place, [count, total_us, longest_us]) in times.handlers.into_iter().enumerate() {
                let handle = number_of(place);
                handlers.push(HandlerTimes { handle, count, total_us, longest_us });
            }
            for (took_us, handle, source) in times.slowest {
                slowest.push(SlowDelivery { handle, source, took_us });
            }
        }
        handlers.retain(|times| 0 < times.count);
        slowest.retain(|slow| 0 < slow.took_us);
        Counters {
            uptime_us: self.uptime_us(),
            turns: of(Count::Turns),
            turns_lent: of(Count::TurnsLent),
            wakeups: of(Count::Wakeups),
            tasks: of(Count::Tasks),
            timers: of(Count::Timers),
            reads: of(Count::Reads),
            read_bytes: of(Count::ReadBytes),
            writes: of(Count::Writes),
            written_bytes: of(Count::WrittenBytes),
            frames_received: of(Count::FramesReceived),
            frames_forwarded: of(Count::FramesForwarded),
            frames_sent: of(Count::FramesSent),
            messages_delivered: of(Count::MessagesDelivered),
            outbox_bytes_high: of(Count::OutboxBytesHigh),
            streams_high: of(Count::StreamsHigh),
            tasks_high: of(Count::TasksHigh),
            handlers,
            slowest,
        }
    }
}

impl Turn {
    /// What this broker has counted by now.
    pub fn counters(&self) -> Counters {
        let (counts, begun) = (self.counting.counts, self.counting.begun);
        let mut counting = Counting { counts, times: None, begun };
        self.outboxes().for_each(|outbox| counting.add_outbox(outbox));
        let Counters { handlers, slowest, .. } = self.counting.whole();
        Counters { handlers, slowest, ..counting.whole() }
    }
}

fn place_of(handle: Handle) -> usize {
    match handle.0 as usize {
        number if number < PLACES - 2 => number,
        _ if Handle::FIRST_DYNAMIC <= handle && handle < Handle::FIRST_RANDOM => PLACES - 2,
        _ => PLACES - 1,
    }
}

/// The first handle that is counted there.
pub(crate) fn number_of(place: usize) -> u32 {
    match PLACES - place {
        1 => Handle::FIRST_RANDOM.0,
        2 => Handle::FIRST_DYNAMIC.0,
        _ => place as u32,
    }
}
