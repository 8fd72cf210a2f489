//! Which bytes leave an outbox, when, and who is told.

use std::time::Duration;

use super::*;
use crate::error::ErrorKind;
use crate::io::side::Read;
use crate::sys::pipe::socketpair;

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

/// All that arrives while the outbox is flushed. After it there was a pause.
fn drain(outbox: &Outbox, side: &Side) -> Vec<u8> {
    outbox.lock().pace = Pace::default();
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
fn what_was_written_is_counted_and_what_waited_at_most() {
    let (outbox, side) = pair();
    fill(&outbox);
    let waited = outbox.queued();
    let arrived = drain(&outbox, &side).len();
    let Written { bytes, bytes_high, .. } = outbox.written();
    assert_eq!((bytes, bytes_high), (arrived, waited));
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
fn what_follows_something_that_has_arrived_leaves_at_once() {
    let (outbox, side) = pair();
    let mut buffer = [0; 10];
    assert_eq!(push_close(&outbox, b"gathered", Lane::Quick), Pushed::Arm);
    drain(&outbox, &side);
    outbox.heard();
    assert_eq!(outbox.push(b"next", Lane::Quick), Pushed::Taken);
    assert_eq!(side.read(&mut buffer), Read::Bytes(4));
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
    drain(&outbox, &side);
    assert!(outbox.lock().next.capacity() <= OUTBOX_KEPT_BYTES);
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
    let frames = outbox.written().frames;
    assert_eq!(outbox.send(&frame, Lane::Quick), Pushed::Full);
    assert_eq!((outbox.queued(), outbox.written().frames), (queued, frames));
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
    outbox.lock().pace = Pace::default();
    assert_eq!(outbox.push(b"x", Lane::Quick), Pushed::Closed);
}

#[test]
fn a_wait_for_room_times_out() {
    let (outbox, _side) = pair();
    drop(waiter(&outbox));
    let deadline = Instant::now() + Duration::from_millis(5);
    let error = outbox.wait_for_room(Some(deadline)).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Timeout);
    assert_eq!(outbox.lock().waiting.len(), 1, "who gave up is forgotten");
    outbox.close();
}
