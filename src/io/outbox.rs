//! What waits to be written to one descriptor: two queues behind one lock. A thread with something
//! to send writes it there and then if nothing waits before it; only the loop disconnects.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::error::{Cause, Error, Result};
use crate::io::latch;
use crate::io::side::{Side, Wrote};
use crate::limits::{OUTBOX_BYTES_MAX, OUTBOX_HIGH_WATER_BYTES};
use crate::sys::pipe::Wake;
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
    state: Mutex<State>,
}

struct State {
    side: Option<Side>,
    quick: VecDeque<Vec<u8>>,
    bulk: VecDeque<Vec<u8>>,
    /// A frame of which a part is written; it is finished before any other.
    begun: Option<(Vec<u8>, usize)>,
    /// Invariant: the unwritten bytes of `begun`, `quick` and `bulk`; never above
    /// OUTBOX_BYTES_MAX, but for an image.
    bytes: usize,
    /// Invariant: true while `bytes` is not 0, once the loop was told.
    armed: bool,
    waiting: Vec<Arc<Wake>>,
}

impl Outbox {
    /// An empty outbox that writes to `side`.
    pub fn new(side: Side) -> Outbox {
        Outbox {
            state: Mutex::new(State {
                side: Some(side),
                quick: VecDeque::new(),
                bulk: VecDeque::new(),
                begun: None,
                bytes: 0,
                armed: false,
                waiting: Vec::new(),
            }),
        }
    }

    /// Writes one whole frame, or queues what is left of it.
    pub fn push(&self, frame: &[u8], lane: Lane) -> Pushed {
        let mut state = self.lock();
        let Some(side) = &state.side else { return Pushed::Closed };
        let mut written = 0;
        if state.bytes == 0 {
            match side.write(frame) {
                Ok(Wrote::Bytes(count)) => written = count,
                // What has arrived meanwhile is still to be read, so the loop finds this out.
                Ok(Wrote::Disconnected) | Err(_) => return Pushed::Closed,
            }
        }
        if written == frame.len() {
            return Pushed::Taken;
        }
        let left = frame.len() - written;
        if OUTBOX_BYTES_MAX < state.bytes + left {
            return Pushed::Full;
        }
        state.enqueue(frame, written, lane);
        if std::mem::replace(&mut state.armed, true) { Pushed::Taken } else { Pushed::Arm }
    }

    /// Writes an image, or queues what is left of it, however large: it is read from here alone.
    pub fn push_image(&self, image: Vec<u8>) -> Pushed {
        let mut state = self.lock();
        if state.side.is_none() {
            return Pushed::Closed;
        }
        state.bytes += image.len();
        state.quick.push_back(image);
        if std::mem::replace(&mut state.armed, true) { Pushed::Taken } else { Pushed::Arm }
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
        loop {
            let wake = latch::sleeper()?;
            {
                let mut state = self.lock();
                if state.side.is_none() {
                    return Err(Error::closed(Cause::Disconnected));
                }
                if state.bytes <= OUTBOX_HIGH_WATER_BYTES {
                    return Ok(());
                }
                if !state.waiting.iter().any(|w| Arc::ptr_eq(w, &wake)) {
                    state.waiting.push(wake.clone());
                }
            }
            latch::sleep(&wake, &[], deadline)?;
        }
    }

    /// Forgets what is queued and lets go of the descriptor.
    pub fn close(&self) {
        let mut state = self.lock();
        state.side = None;
        state.quick.clear();
        state.bulk.clear();
        state.begun = None;
        state.bytes = 0;
        state.wake_all();
    }

    /// Bytes that are queued.
    pub fn queued(&self) -> usize {
        self.lock().bytes
    }

    /// The descriptor, while it is open.
    pub fn side(&self) -> Option<Side> {
        self.lock().side.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enqueue(&mut self, frame: &[u8], written: usize, lane: Lane) {
        self.bytes += frame.len() - written;
        if 0 < written {
            self.begun = Some((frame[written..].to_vec(), 0));
            return;
        }
        match lane {
            Lane::Quick => self.quick.push_back(frame.to_vec()),
            Lane::Bulk => self.bulk.push_back(frame.to_vec()),
        }
    }

    fn next(&mut self) -> Option<(Vec<u8>, usize)> {
        if let Some(begun) = self.begun.take() {
            return Some(begun);
        }
        let frame = self.quick.pop_front().or_else(|| self.bulk.pop_front())?;
        Some((frame, 0))
    }

    fn write_out(&mut self) -> bool {
        while let Some((frame, from)) = self.next() {
            let Some(side) = &self.side else { return false };
            match side.write(&frame[from..]) {
                Ok(Wrote::Bytes(count)) => {
                    self.bytes -= count;
                    if from + count < frame.len() {
                        self.begun = Some((frame, from + count));
                        return true;
                    }
                }
                Ok(Wrote::Disconnected) | Err(_) => {
                    self.quick.clear();
                    self.bulk.clear();
                    self.bytes = 0;
                    return false;
                }
            }
        }
        false
    }

    fn wake_all(&mut self) {
        for wake in self.waiting.drain(..) {
            wake.wake();
        }
    }
}
