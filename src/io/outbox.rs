//! What waits to be written to one descriptor: two lanes behind one lock. A thread with something
//! to send writes it there and then if nothing waits before it; only the loop disconnects.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Cause, Error, Result};
use crate::io::side::Side;
use crate::io::sleep::{self, Sleeper};
use crate::limits::{GATHER_AFTER, GATHER_BYTES_MAX, GATHER_GAP, MESSAGE_COST_BYTES};
use crate::limits::{
    OUTBOX_BYTES_MAX, OUTBOX_HIGH_WATER_BYTES, OUTBOX_KEPT_BYTES, OUTBOX_OWN_BYTES,
};
use crate::lock::{Held, Lock, rank};
use crate::sys::pipe::Wake;
#[cfg(test)]
use crate::wire::header::Header;
use crate::wire::header::Lane;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is on its way, or queued behind others that the loop is writing already.
    Taken,
    /// It is queued, and the loop must be told to write.
    Arm,
    /// The descriptor is closed, here or at the other end.
    Closed,
    /// The queue is full: the other end does not read.
    Full,
}

/// The way out to one descriptor, shared by all who write to it.
pub struct Outbox {
    state: Lock<State, { rank::OUTBOX }>,
}

struct State {
    side: Option<Side>,
    /// What is written before all else, from `from` on: what is left of a frame that was begun,
    /// then the quick lane. Its memory is all that its frames take.
    next: Vec<u8>,
    from: usize,
    bulk: VecDeque<Vec<u8>>,
    /// Invariant: the unwritten bytes of `next` and `bulk`; with the cost of each frame of `bulk`
    /// never above OUTBOX_BYTES_MAX, but for an image.
    bytes: usize,
    /// Invariant: true while `bytes` is not 0, once the loop was told.
    armed: bool,
    pace: Pace,
    waiting: Vec<Arc<Wake>>,
    /// What is left of the frame in `next` of which a test has taken a part.
    #[cfg(test)]
    begun: usize,
}

/// How small frames have come lately: one by one they are best written at once, many together by
/// one write.
#[derive(Default)]
struct Pace {
    last: Option<Instant>,
    /// How many came so close behind each other.
    run: u32,
}

impl Pace {
    /// Whether this frame is one of many.
    fn gathers(&mut self, bytes: usize) -> bool {
        let now = Instant::now();
        let last = self.last.replace(now);
        let is_close = last.is_some_and(|last| now.duration_since(last) < GATHER_GAP);
        self.run = if is_close { self.run.saturating_add(1) } else { 0 };
        GATHER_AFTER <= self.run && bytes <= GATHER_BYTES_MAX
    }
}

impl Outbox {
    /// An empty outbox that writes to `side`.
    pub fn new(side: Side) -> Outbox {
        Outbox {
            state: Lock::new(State {
                side: Some(side),
                next: Vec::new(),
                from: 0,
                bulk: VecDeque::new(),
                bytes: 0,
                armed: false,
                pace: Pace::default(),
                waiting: Vec::new(),
                #[cfg(test)]
                begun: 0,
            }),
        }
    }

    /// Writes one whole frame, or queues what is left of it.
    pub fn push(&self, frame: &[u8], lane: Lane) -> Pushed {
        self.push_within(OUTBOX_BYTES_MAX, frame, lane)
    }

    /// As [`Outbox::push`], of a frame that somebody else has sent: room is left for our own.
    pub fn forward(&self, frame: &[u8], lane: Lane) -> Pushed {
        self.push_within(OUTBOX_BYTES_MAX - OUTBOX_OWN_BYTES, frame, lane)
    }

    fn push_within(&self, bytes_max: usize, frame: &[u8], lane: Lane) -> Pushed {
        let mut state = self.lock();
        let gathers = state.pace.gathers(frame.len());
        let Some(side) = &state.side else { return Pushed::Closed };
        let mut written = 0;
        if state.bytes == 0 && !gathers {
            match side.write(frame) {
                Some(count) => written = count,
                // What has arrived meanwhile is still to be read, so the loop finds this out.
                None => return Pushed::Closed,
            }
        }
        let left = &frame[written..];
        if left.is_empty() {
            return Pushed::Taken;
        }
        if bytes_max < state.bytes + left.len() + state.cost() {
            return Pushed::Full;
        }
        state.enqueue(left, if 0 < written { Lane::Quick } else { lane });
        state.arm()
    }

    /// Writes an image, or queues what is left of it, however large: it is read from here alone.
    pub fn push_image(&self, image: Vec<u8>) -> Pushed {
        let mut state = self.lock();
        if state.side.is_none() {
            return Pushed::Closed;
        }
        state.bytes += image.len();
        match state.is_written() {
            true => (state.next, state.from) = (image, 0),
            false => state.next.extend_from_slice(&image),
        }
        state.arm()
    }

    /// Writes what the descriptor takes. Returns whether more is left, so that the loop keeps
    /// watch.
    pub fn flush(&self) -> bool {
        let mut state = self.lock();
        let more = state.write_out();
        state.armed = more;
        if state.bytes <= OUTBOX_HIGH_WATER_BYTES / 2 {
            state.wake_all();
        }
        more
    }

    /// Sleeps while more than the high-water mark is queued. Never called on the loop's thread.
    pub fn wait_for_room(&self, deadline: Option<Instant>) -> Result<()> {
        let mut mine: Option<Sleeper> = None;
        loop {
            let wake = {
                let mut state = self.lock();
                if state.side.is_none() {
                    return Err(Error::closed(Cause::Disconnected));
                }
                if state.bytes <= OUTBOX_HIGH_WATER_BYTES {
                    return Ok(());
                }
                // Most find room, and need none.
                let wake = match &mut mine {
                    Some(wake) => wake,
                    none => none.insert(sleep::sleeper()?),
                };
                if !state.waiting.iter().any(|w| Arc::ptr_eq(w, wake)) {
                    state.waiting.push(Arc::clone(wake));
                }
                wake
            };
            sleep::sleep(wake, &[], deadline)?;
        }
    }

    /// Wakes this once when at most so many bytes are queued, at most half of the high-water mark,
    /// or when it is closed; maybe sooner.
    pub fn wake_at(&self, bytes_max: usize, wake: &Arc<Wake>) {
        let mut state = self.lock();
        if state.side.is_none() || state.bytes <= bytes_max {
            return wake.wake();
        }
        if !state.waiting.iter().any(|w| Arc::ptr_eq(w, wake)) {
            state.waiting.push(wake.clone());
        }
    }

    /// Forgets what is queued and lets go of the descriptor.
    pub fn close(&self) {
        let mut state = self.lock();
        state.side = None;
        state.drop_queued();
        state.wake_all();
    }

    /// Bytes that are queued.
    pub fn queued(&self) -> usize {
        self.lock().bytes
    }

    /// What the descriptor would take next, if it took so many bytes: all of one frame, or a part.
    #[cfg(test)]
    pub(crate) fn take(&self, bytes_max: usize) -> Vec<u8> {
        let mut state = self.lock();
        if state.is_written() && !state.advance() {
            return Vec::new();
        }
        let rest = &state.next[state.from..];
        let frame_bytes = match state.begun {
            0 => Header::decode(rest).unwrap().unwrap().frame_len(),
            left => left,
        };
        let taken = rest[..frame_bytes.min(bytes_max)].to_vec();
        state.begun = frame_bytes - taken.len();
        state.from += taken.len();
        state.bytes -= taken.len();
        state.armed = 0 < state.bytes;
        taken
    }

    /// The descriptor, while it is open.
    pub fn side(&self) -> Option<Side> {
        self.lock().side.clone()
    }

    fn lock(&self) -> Held<'_, State> {
        self.state.lock()
    }
}

impl State {
    /// Bytes that the queued frames take beside their own, so that small ones are not free.
    fn cost(&self) -> usize {
        self.bulk.len() * MESSAGE_COST_BYTES
    }

    fn enqueue(&mut self, bytes: &[u8], lane: Lane) {
        self.bytes += bytes.len();
        match lane {
            Lane::Quick => {
                if self.next.len() <= 2 * self.from {
                    self.next.drain(..self.from);
                    self.from = 0;
                }
                self.next.extend_from_slice(bytes);
            }
            Lane::Bulk => self.bulk.push_back(bytes.to_vec()),
        }
    }

    /// What to do about something that was queued.
    fn arm(&mut self) -> Pushed {
        if std::mem::replace(&mut self.armed, true) { Pushed::Taken } else { Pushed::Arm }
    }

    /// Whether there is nothing in `next`.
    fn is_written(&self) -> bool {
        self.from == self.next.len()
    }

    /// Goes on to the next frame of the bulk lane, when all before it is written.
    fn advance(&mut self) -> bool {
        self.from = 0;
        match self.bulk.pop_front() {
            Some(frame) => self.next = frame,
            None if OUTBOX_KEPT_BYTES < self.next.capacity() => self.next = Vec::new(),
            None => self.next.clear(),
        }
        !self.next.is_empty()
    }

    fn write_out(&mut self) -> bool {
        while !self.is_written() || self.advance() {
            let wrote = self.side.as_ref().and_then(|side| side.write(&self.next[self.from..]));
            let Some(count) = wrote else {
                self.drop_queued();
                return false;
            };
            self.bytes -= count;
            self.from += count;
            if !self.is_written() {
                return true;
            }
        }
        false
    }

    fn drop_queued(&mut self) {
        (self.next, self.from, self.bulk) = (Vec::new(), 0, VecDeque::new());
        self.bytes = 0;
    }

    fn wake_all(&mut self) {
        for wake in &self.waiting {
            wake.wake();
        }
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::io::side::Read;
    use crate::sys::pipe::socketpair;
    use std::time::Duration;

    fn pair() -> (Arc<Outbox>, Side) {
        let (a, b) = socketpair().unwrap();
        (Arc::new(Outbox::new(Side::new(a))), Side::new(b))
    }

    /// Pushes frames until one does not leave at once; returns the bytes pushed before it.
    fn fill(outbox: &Outbox) -> usize {
        let frame = [9; 1 << 16];
        let mut bytes = 0;
        while outbox.push(&frame, Lane::Bulk) == Pushed::Taken {
            bytes += frame.len();
        }
        bytes
    }

    /// All that arrives while the outbox is flushed.
    fn drain(outbox: &Outbox, side: &Side) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
        loop {
            outbox.flush();
            match side.read(&mut buffer) {
                Read::Bytes(count) => all.extend_from_slice(&buffer[..count]),
                Read::Nothing => return all,
                Read::Disconnected => panic!("closed"),
            }
        }
    }

    #[test]
    fn a_frame_leaves_at_once_while_nothing_waits() {
        let (outbox, side) = pair();
        assert_eq!(outbox.push(b"now", Lane::Bulk), Pushed::Taken);
        let mut buffer = [0; 10];
        assert_eq!(side.read(&mut buffer), Read::Bytes(3));
        assert_eq!(outbox.queued(), 0);
        assert!(!outbox.flush());
    }

    /// Pushes a frame as if another had just been the last of many.
    fn push_close(outbox: &Outbox, frame: &[u8], lane: Lane) -> Pushed {
        let last = Instant::now().checked_add(Duration::from_secs(60));
        outbox.lock().pace = Pace { last, run: GATHER_AFTER };
        outbox.push(frame, lane)
    }

    #[test]
    fn small_frames_that_come_close_to_each_other_leave_together() {
        let (outbox, side) = pair();
        let mut buffer = [0; 100];
        for _ in 0..2 {
            assert_eq!(push_close(&outbox, b"b1", Lane::Bulk), Pushed::Arm);
            assert_eq!(push_close(&outbox, b"q1", Lane::Quick), Pushed::Taken);
            assert_eq!(push_close(&outbox, &[b'x'; GATHER_BYTES_MAX], Lane::Bulk), Pushed::Taken);
            assert_eq!(side.read(&mut buffer), Read::Nothing);
            let all = drain(&outbox, &side);
            assert_eq!((&all[..6], all.len()), (&b"q1b1xx"[..], 4 + GATHER_BYTES_MAX));
        }
        assert!(outbox.lock().next.capacity() <= OUTBOX_KEPT_BYTES);
    }

    #[test]
    fn the_first_frames_and_large_ones_and_those_that_come_one_by_one_leave_at_once() {
        let (outbox, side) = pair();
        let mut buffer = [0; GATHER_BYTES_MAX + 1];
        let mut leaves = |frame: &[u8], run, gap| {
            let last = Instant::now().checked_sub(gap);
            outbox.lock().pace = Pace { last, run };
            assert_eq!(outbox.push(frame, Lane::Quick), Pushed::Taken);
            assert_eq!(side.read(&mut buffer), Read::Bytes(frame.len()));
        };
        leaves(b"first", GATHER_AFTER - 2, Duration::ZERO);
        leaves(b"later", GATHER_AFTER, GATHER_GAP);
        leaves(&[0; GATHER_BYTES_MAX + 1], GATHER_AFTER, Duration::ZERO);
    }

    #[test]
    fn what_is_written_takes_no_memory_while_more_is_queued() {
        let (outbox, side) = pair();
        fill(&outbox);
        let (mut buffer, mut high) = (vec![0; 1 << 16], 0);
        for _ in 0..1000 {
            outbox.push(&buffer, Lane::Quick);
            high = high.max(outbox.queued());
            let mut left = buffer.len();
            while 0 < left {
                let Read::Bytes(count) = side.read(&mut buffer[..left]) else { panic!() };
                left -= count;
                outbox.flush();
            }
            assert!(0 < outbox.queued() && outbox.lock().next.len() <= 3 * high);
        }
        assert!(high < 1 << 18, "{high}");
    }

    #[test]
    fn a_begun_frame_is_finished_then_the_quick_lane_goes_first_each_in_order() {
        let (outbox, side) = pair();
        let before = 4 << 20;
        assert_eq!(outbox.push(&vec![9; before], Lane::Bulk), Pushed::Arm);
        assert!(outbox.queued() < before);
        for (frame, lane) in
            [(b"b1", Lane::Bulk), (b"q1", Lane::Quick), (b"b2", Lane::Bulk), (b"q2", Lane::Quick)]
        {
            assert_eq!(outbox.push(frame, lane), Pushed::Taken, "the loop was told already");
        }
        let all = drain(&outbox, &side);
        assert!(all[..before].iter().all(|byte| *byte == 9));
        assert_eq!(&all[before..], b"q1q2b1b2");
        assert_eq!(outbox.queued(), 0);
        assert_eq!(outbox.push(b"x", Lane::Quick), Pushed::Taken);
    }

    #[test]
    fn the_loop_is_told_once_until_all_has_left() {
        let (outbox, side) = pair();
        for _ in 0..2 {
            fill(&outbox);
            assert_eq!(outbox.push(&[1; 100], Lane::Quick), Pushed::Taken);
            drain(&outbox, &side);
        }
    }

    #[test]
    fn a_queue_that_is_full_takes_no_frame_and_keeps_what_it_has() {
        let (outbox, _side) = pair();
        fill(&outbox);
        let frame = vec![1; 1 << 20];
        while outbox.push(&frame, Lane::Bulk) != Pushed::Full {}
        let queued = outbox.queued();
        assert!(queued <= OUTBOX_BYTES_MAX && OUTBOX_BYTES_MAX < queued + frame.len());
        assert_eq!(outbox.push(&frame, Lane::Quick), Pushed::Full);
        assert_eq!(outbox.queued(), queued);
    }

    #[test]
    fn an_image_is_taken_however_large() {
        let (outbox, side) = pair();
        let image = vec![3; OUTBOX_BYTES_MAX + 1];
        assert_eq!(outbox.push_image(image), Pushed::Arm);
        assert_eq!(outbox.push(b"x", Lane::Quick), Pushed::Full);
        assert_eq!(drain(&outbox, &side).len(), OUTBOX_BYTES_MAX + 1);
    }

    /// A thread that waits for room above the high-water mark.
    fn waiter(outbox: &Arc<Outbox>) -> std::thread::JoinHandle<Result<()>> {
        fill(outbox);
        while outbox.queued() <= OUTBOX_HIGH_WATER_BYTES {
            outbox.push(&[1; 1 << 16], Lane::Bulk);
        }
        let own = outbox.clone();
        let thread = std::thread::spawn(move || own.wait_for_room(None));
        while outbox.lock().waiting.is_empty() {
            std::thread::yield_now();
        }
        thread
    }

    #[test]
    fn who_waits_for_room_wakes_when_there_is() {
        let (outbox, side) = pair();
        let thread = waiter(&outbox);
        drain(&outbox, &side);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn closing_and_a_peers_end_wake_who_waits() {
        let (outbox, _side) = pair();
        let thread = waiter(&outbox);
        outbox.close();
        let error = thread.join().unwrap().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Closed(_)), "{error}");
        assert_eq!(outbox.push(b"x", Lane::Quick), Pushed::Closed);
        assert_eq!(outbox.push_image(vec![1]), Pushed::Closed);
        assert!(outbox.side().is_none());

        let (outbox, side) = pair();
        let thread = waiter(&outbox);
        drop(side);
        assert!(!outbox.flush());
        thread.join().unwrap().unwrap();
        assert_eq!(outbox.push(b"x", Lane::Quick), Pushed::Closed);
    }

    #[test]
    fn a_wait_for_room_times_out() {
        let (outbox, _side) = pair();
        drop(waiter(&outbox));
        let deadline = Instant::now() + Duration::from_millis(5);
        let error = outbox.wait_for_room(Some(deadline)).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Timeout);
        outbox.close();
    }
}
