//! What waits to be written to one descriptor: two queues behind one lock. A thread with something
//! to send writes it there and then if nothing waits before it; only the loop disconnects.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Cause, Error, Result};
use crate::io::side::Side;
use crate::io::sleep;
use crate::limits::{MESSAGE_COST_BYTES, OUTBOX_BYTES_MAX};
use crate::limits::{OUTBOX_HIGH_WATER_BYTES, OUTBOX_OWN_BYTES};
use crate::lock::{Held, Lock, rank};
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
    state: Lock<State, { rank::OUTBOX }>,
}

struct State {
    side: Option<Side>,
    quick: VecDeque<Vec<u8>>,
    bulk: VecDeque<Vec<u8>>,
    /// A frame of which a part is written; it is finished before any other.
    begun: Option<(Vec<u8>, usize)>,
    /// Invariant: the unwritten bytes of `begun`, `quick` and `bulk`; with the cost of each frame
    /// never above OUTBOX_BYTES_MAX, but for an image.
    bytes: usize,
    /// Invariant: true while `bytes` is not 0, once the loop was told.
    armed: bool,
    waiting: Vec<Arc<Wake>>,
}

impl Outbox {
    /// An empty outbox that writes to `side`.
    pub fn new(side: Side) -> Outbox {
        Outbox {
            state: Lock::new(State {
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
        self.push_within(OUTBOX_BYTES_MAX, frame, lane)
    }

    /// As [`Outbox::push`], of a frame that somebody else has sent: room is left for our own.
    pub fn forward(&self, frame: &[u8], lane: Lane) -> Pushed {
        self.push_within(OUTBOX_BYTES_MAX - OUTBOX_OWN_BYTES, frame, lane)
    }

    fn push_within(&self, bytes_max: usize, frame: &[u8], lane: Lane) -> Pushed {
        let mut state = self.lock();
        let Some(side) = &state.side else { return Pushed::Closed };
        let mut written = 0;
        if state.bytes == 0 {
            match side.write(frame) {
                Some(count) => written = count,
                // What has arrived meanwhile is still to be read, so the loop finds this out.
                None => return Pushed::Closed,
            }
        }
        if written == frame.len() {
            return Pushed::Taken;
        }
        let left = frame.len() - written;
        if bytes_max < state.bytes + left + state.cost() {
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
        let wake = sleep::sleeper()?;
        loop {
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
            sleep::sleep(&wake, &[], deadline)?;
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
        let Some((frame, from)) = state.next() else { return Vec::new() };
        let to = frame.len().min(from.saturating_add(bytes_max));
        let taken = frame[from..to].to_vec();
        state.bytes -= taken.len();
        state.armed = 0 < state.bytes;
        if to < frame.len() {
            state.begun = Some((frame, to));
        }
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
        (self.quick.len() + self.bulk.len()) * MESSAGE_COST_BYTES
    }

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
        let frame = match self.quick.pop_front() {
            Some(frame) => frame,
            None => self.bulk.pop_front()?,
        };
        Some((frame, 0))
    }

    fn write_out(&mut self) -> bool {
        while let Some((frame, from)) = self.next() {
            let wrote = self.side.as_ref().and_then(|side| side.write(&frame[from..]));
            let Some(count) = wrote else {
                self.drop_queued();
                return false;
            };
            self.bytes -= count;
            if from + count < frame.len() {
                self.begun = Some((frame, from + count));
                return true;
            }
        }
        false
    }

    fn drop_queued(&mut self) {
        (self.quick, self.bulk, self.begun) = (VecDeque::new(), VecDeque::new(), None);
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
