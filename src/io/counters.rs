//! What a broker counts: always, since it costs next to nothing; and how long deliveries take, if
//! that was asked for. Says nothing of what any message holds.

use std::time::Instant;

use crate::ids::{ContextId, Handle};
use crate::io::outbox::Outbox;
use crate::io::turn::Turn;
use crate::limits::SLOWEST_MAX;
use crate::wire::codec::Writer;

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

/// How many there are.
const COUNTS: usize = Count::TasksHigh as usize + 1;

/// As the fields are called.
pub(crate) const NAMES: &str = "turns turns_lent wakeups tasks timers reads read_bytes writes \
    written_bytes frames_received frames_forwarded frames_sent messages_delivered \
    outbox_bytes_high streams_high tasks_high";

/// Numbers in a fixed place, so that an agent has little to do with them.
pub(crate) struct Counting {
    /// What the holder of the turn counts, and what outboxes that are gone have.
    counts: [u64; COUNTS],
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
pub(crate) const PLACES: usize = Handle::INSPECT.0 as usize + 3;

impl Counting {
    /// Nothing yet.
    pub fn new() -> Counting {
        Counting { counts: [0; COUNTS], times: None, begun: Instant::now() }
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
}

impl Turn {
    /// The counts by now, those of all outboxes too.
    #[inline(never)] // from two places: smaller code
    pub(crate) fn counts(&self) -> [u64; COUNTS] {
        let Counting { counts, begun, .. } = self.counting;
        let mut all = Counting { counts, begun, times: None };
        self.outboxes().for_each(|outbox| all.add_outbox(outbox));
        all.counts
    }

    /// Appends what this broker has counted by now, as [`Counters`].
    pub(crate) fn put_counters(&self, w: &mut Writer<'_>) {
        w.put_varint(self.counting.uptime_us());
        self.counts().iter().for_each(|count| w.put_varint(*count));
        let none = Times::default();
        let times = self.counting.times.as_deref().unwrap_or(&none);
        w.put_varint(times.rows().count() as u64);
        for (handle, times) in times.rows() {
            w.put_varint(handle.into());
            times.iter().for_each(|time| w.put_varint(*time));
        }
        w.put_varint(times.slow().count() as u64);
        for (took_us, handle, source) in times.slow() {
            w.put_varint((*handle).into());
            w.put_varint((*source).into());
            w.put_varint(*took_us);
        }
    }
}

impl Times {
    /// The first handle of each row that has something, and the row.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (u32, &[u64; 3])> {
        let rows = self.handlers.iter().enumerate().filter(|(_, times)| 0 < times[0]);
        rows.map(|(place, times)| (number_of(place), times))
    }

    /// Those of the slowest that there are.
    pub(crate) fn slow(&self) -> impl Iterator<Item = &(u64, u32, u32)> {
        self.slowest.iter().filter(|(took_us, ..)| 0 < *took_us)
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
fn number_of(place: usize) -> u32 {
    match PLACES - place {
        1 => Handle::FIRST_RANDOM.0,
        2 => Handle::FIRST_DYNAMIC.0,
        _ => place as u32,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::io::broker::Broker;
    use crate::wire::codec::{Decode, Encode, Reader};

    fn bytes_of(put: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut w = Writer::new(Vec::new(), None);
        put(&mut w);
        w.finish().unwrap()
    }

    fn counters(turn: &Turn) -> Counters {
        let bytes = bytes_of(|w| turn.put_counters(w));
        let mut r = Reader::new(&bytes, None);
        let counters = Counters::decode(&mut r).unwrap();
        r.finish().unwrap();
        assert_eq!(bytes_of(|w| counters.encode(w)), bytes);
        counters
    }

    #[test]
    fn each_count_arrives_in_the_field_of_its_name() {
        let (_broker, mut turn) = Broker::by_hand();
        for place in 0..COUNTS {
            turn.counting.counts[place] = 1000 + place as u64;
        }
        let counters = format!("{:?}", counters(&turn));
        for (place, name) in NAMES.split(' ').enumerate() {
            let field = format!(" {name}: {},", 1000 + place);
            assert!(counters.contains(&field), "{field} is not in {counters}");
        }
        assert_eq!(NAMES.split(' ').count(), COUNTS);
        turn.counting.high(Count::TasksHigh, 7);
        turn.counting.add(Count::Turns, 7);
        assert_eq!(turn.counts()[..2], [1007, 1001]);
        assert_eq!(turn.counts()[COUNTS - 1], 1000 + COUNTS as u64 - 1);
    }

    #[test]
    fn deliveries_are_timed_by_kinds_of_handles_and_only_if_that_was_asked_for() {
        let (_broker, mut turn) = Broker::by_hand();
        let ago = |ms| Instant::now().checked_sub(Duration::from_millis(ms)).unwrap();
        assert!(turn.counting.begin().is_none());
        turn.counting.note(ago(5), Handle::CALL, ContextId(1));
        assert_eq!(counters(&turn).handlers, []);
        turn.counting.times = Some(Box::default());
        assert!(turn.counting.begin().is_some());
        let handles = [Handle::CALL, Handle::INSPECT, Handle(256), Handle(70_000)];
        let others = [Handle::FIRST_RANDOM, Handle(u32::MAX), Handle::well_known(3), Handle(19)];
        for (ms, handle) in (10..).step_by(10).zip(handles.into_iter().chain(others)) {
            turn.counting.note(ago(ms), handle, ContextId(ms as u32));
        }
        turn.counting.note(ago(1), Handle::CALL, ContextId(9));
        let Counters { handlers, slowest, .. } = counters(&turn);
        let counts: Vec<_> = handlers.iter().map(|times| (times.handle, times.count)).collect();
        assert_eq!(counts, [(1, 2), (17, 1), (256, 2), (1 << 30, 4)]);
        let call = &handlers[0];
        assert!(10_000 <= call.longest_us && call.longest_us + 1000 <= call.total_us, "{call:?}");
        let sources: Vec<_> = slowest.iter().map(|slow| slow.source).collect();
        assert_eq!(sources, [80, 70, 60, 50, 40, 30, 20, 10]);
        assert!(slowest.is_sorted_by(|a, b| a.took_us >= b.took_us), "{slowest:?}");
    }
}
