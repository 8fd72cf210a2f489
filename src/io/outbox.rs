//! What waits to be written to one descriptor: two lanes behind one lock. A thread with something
//! to send writes it there and then if nothing waits before it; only the loop disconnects.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
use crate::trace::{self, Level};
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
    /// Something has arrived since the last frame. Beside the lock, which is held while a thread
    /// writes: the loop does not wait for that to go on reading.
    heard: AtomicBool,
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
    written: Written,
    /// What is left of the frame in `next` of which a test has taken a part.
    #[cfg(test)]
    begun: usize,
}

/// What one outbox counts.
#[derive(Clone, Copy, Default)]
pub struct Written {
    /// Writes of which something was taken.
    pub writes: usize,
    /// Bytes that were taken.
    pub bytes: usize,
    /// Frames of our own.
    pub frames: usize,
    /// Bytes that waited at most.
    pub bytes_high: usize,
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
                written: Written::default(),
                #[cfg(test)]
                begun: 0,
            }),
            heard: AtomicBool::new(false),
        }
    }

    /// Writes a piece of what is not divided into frames, or queues what is left of it.
    pub fn push(&self, piece: &[u8], lane: Lane) -> Pushed {
        self.push_within(OUTBOX_BYTES_MAX, 0, piece, lane)
    }

    /// Writes one whole frame, or queues what is left of it.
    pub fn send(&self, frame: &[u8], lane: Lane) -> Pushed {
        self.push_within(OUTBOX_BYTES_MAX, 1, frame, lane)
    }

    /// As [`Outbox::send`], of a frame that somebody else has sent: room is left for our own.
    pub fn forward(&self, frame: &[u8], lane: Lane) -> Pushed {
        self.push_within(OUTBOX_BYTES_MAX - OUTBOX_OWN_BYTES, 0, frame, lane)
    }

    fn push_within(&self, bytes_max: usize, frames: usize, frame: &[u8], lane: Lane) -> Pushed {
        let mut state = self.lock();
        if self.heard.load(Ordering::Relaxed) {
            self.heard.store(false, Ordering::Relaxed);
            state.pace = Pace::default();
        }
        let before = state.written;
        let pushed = state.push_within(bytes_max, frames, frame, lane);
        tell_written(state, before);
        pushed
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

    /// Something has arrived from where this leads: what is sent next may be the answer, or what
    /// was waiting for one.
    pub fn heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Writes what the descriptor takes. Returns whether more is left, so that the loop keeps
    /// watch.
    pub fn flush(&self) -> bool {
        let mut state = self.lock();
        let before = state.written;
        let more = state.write_out();
        state.armed = more;
        if state.bytes <= OUTBOX_HIGH_WATER_BYTES / 2 {
            state.wake_all();
        }
        tell_written(state, before);
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
            if let Err(error) = sleep::sleep(wake, &[], deadline) {
                // Else a descriptor of each who gave up would stay as long as nothing is read.
                self.lock().waiting.retain(|other| !Arc::ptr_eq(other, wake));
                return Err(error);
            }
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

    /// What was written by now.
    pub fn written(&self) -> Written {
        self.lock().written
    }

    /// Bytes that are queued.
    pub fn queued(&self) -> usize {
        self.lock().bytes
    }

    /// Bytes that are queued, and how many threads sleep until there are fewer.
    pub fn census(&self) -> (usize, usize) {
        let state = self.lock();
        (state.bytes, state.waiting.len())
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

/// Logs what was written meanwhile, once nothing is held.
#[inline]
fn tell_written(state: Held<'_, State>, before: Written) {
    if trace::wanted(Level::Io) && before.writes != state.written.writes {
        let fd = state.side.as_ref().map_or(0, Side::number);
        let (bytes, writes) =
            (state.written.bytes.wrapping_sub(before.bytes), state.written.writes - before.writes);
        drop(state);
        trace::event(
            Level::Io,
            "wrote (descriptor, bytes, writes):",
            &[fd, bytes as u64, writes as u64],
        );
    }
}

impl Written {
    /// Notes a write of which so many bytes were taken.
    fn add(&mut self, bytes: usize) {
        self.writes += usize::from(0 < bytes);
        self.bytes = self.bytes.wrapping_add(bytes);
    }
}

impl State {
    /// Bytes that the queued frames take beside their own, so that small ones are not free.
    fn cost(&self) -> usize {
        self.bulk.len() * MESSAGE_COST_BYTES
    }

    fn push_within(&mut self, bytes_max: usize, frames: usize, frame: &[u8], lane: Lane) -> Pushed {
        let gathers = self.pace.gathers(frame.len());
        let Some(side) = &self.side else { return Pushed::Closed };
        let mut written = 0;
        if self.bytes == 0 && !gathers {
            match side.write(frame) {
                Some(count) => written = count,
                // What has arrived meanwhile is still to be read, so the loop finds this out.
                None => return Pushed::Closed,
            }
            // To write takes longer than all else, when it wakes somebody.
            self.pace.last = Some(Instant::now());
            self.written.add(written);
        }
        let left = &frame[written..];
        if !left.is_empty() && bytes_max < self.bytes + left.len() + self.cost() {
            return Pushed::Full;
        }
        self.written.frames += frames;
        if left.is_empty() {
            return Pushed::Taken;
        }
        self.enqueue(left, if 0 < written { Lane::Quick } else { lane });
        self.arm()
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
        self.written.bytes_high = self.written.bytes_high.max(self.bytes);
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
            self.written.add(count);
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
