//! What waits for room and what does not, with a parent's end that is driven by hand.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::*;
use crate::io::broker::Broker;
use crate::limits::{FRAGMENT_BYTES, LOG_RECORD_BYTES_MAX, WINDOW_BYTES};
use crate::log::record::{self, Arrived};
use crate::route::identity::Identity;
use crate::route::lease::Pool;
use crate::route::peer::{End, Guardian, Peer};
use crate::route::send::room_of;
use crate::sys::{fd, pipe};
use crate::wire::codec::Reader;
use crate::wire::frame::{Frame, FrameBuf};
use crate::wire::framer::Framer;
use crate::wire::header::{Header, Lane, Part};
use crate::wire::varint;

const LIMIT: Duration = Duration::from_secs(10);
const MASTER: ContextId = ContextId::MASTER;
const PARENT: ContextId = ContextId(1);
const OWN: ContextId = ContextId(2);
const NONE: u8 = 0;
const INFO: u8 = Level::Info as u8;
/// Handles at which those above wait for answers.
const ASKED: u32 = 1 << 20;

/// Ends a link as agents do, but for the process.
struct Link(Arc<Forward>);

impl Guardian for Link {
    fn takes_logs(&mut self, turn: &mut Turn) {
        self.0.pump(turn);
    }

    fn ended(&mut self, turn: &mut Turn, key: Key) {
        turn.close(key, &Death::of(Cause::Disconnected));
    }

    fn closed(&mut self, turn: &mut Turn, why: &Death) {
        self.0.node().close(turn, why);
    }
}

/// What has come to those above.
struct Heard {
    header: Header,
    data: Vec<u8>,
}

impl Heard {
    fn is_log(&self, of: ContextId) -> bool {
        (self.header.dst, self.header.handle) == (of, Handle::FORWARD_LOG)
    }
}

/// An agent's queue, the pipes that are printed to, and all who are above.
struct Scene {
    forward: Arc<Forward>,
    printers: [File; 2],
    above: UnixStream,
    framer: Framer,
    heard: Vec<Heard>,
    asked: u32,
    _alone: MutexGuard<'static, ()>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        trace::take_from(Slot::Forward, None);
        self.forward.node().broker().shutdown();
        self.forward.node().broker().join();
    }
}

fn scene(level: u8) -> Scene {
    let alone = trace::SINKS.lock().unwrap_or_else(PoisonError::into_inner);
    let (id, parents, name) = (OWN, vec![PARENT, MASTER], "own".to_owned());
    let identity = Identity { id, parents, name, log_level: level, ..Identity::of_master() };
    let node = Node::new(identity, Pool::default(), Broker::start().unwrap());
    let pipes = [0, 1].map(|_| pipe::pipe().unwrap());
    for (read, write) in &pipes {
        fd::set_nonblocking(read.as_fd(), true).unwrap();
        fd::set_nonblocking(write.as_fd(), true).unwrap();
    }
    let [(out, to_out), (err, to_err)] = pipes;
    let (state, wait) =
        (Lock::new(State::new(&node, [out, err])), Some(Forward::take_waiting as _));
    let forward = Arc::new(Forward { node: node.clone(), state, wait });
    let (above, side) = pipe::socketpair().unwrap();
    let (side, own, link) = (Side::new(side), forward.clone(), Link(forward.clone()));
    let broker = node.broker().clone();
    let begun = broker.defer_sync(move |turn| {
        Peer::attach(&node, turn, End::Parent, side.clone(), side, Box::new(link))?;
        own.watch(turn)
    });
    begun.unwrap().unwrap();
    let above = UnixStream::from(above);
    above.set_read_timeout(Some(LIMIT)).unwrap();
    let printers = [to_out, to_err].map(File::from);
    let (framer, heard, asked) = (Framer::new(), Vec::new(), 0);
    Scene { forward, printers, above, framer, heard, asked, _alone: alone }
}

impl Scene {
    /// Runs this on the loop.
    fn turn<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Forward, &mut Turn) -> T + Send + 'static,
    ) -> T {
        let own = self.forward.clone();
        self.forward.node().broker().defer_sync(move |turn| f(&own, turn)).unwrap()
    }

    fn say(
        &mut self,
        kind: Kind,
        src: ContextId,
        handle: Handle,
        reply_to: Option<Handle>,
        data: &[u8],
    ) {
        let (lane, part, auth) = (Lane::Quick, Part::Whole, src);
        let header = Header { kind, lane, part, dst: OWN, src, auth, handle, reply_to };
        self.above.write_all(Frame::new(&header, data).as_bytes()).unwrap();
    }

    /// Gives room for so many bytes, as this context.
    fn grant(&mut self, src: ContextId, bytes: usize) {
        let mut data = Vec::new();
        varint::put(bytes as u64, &mut data);
        self.say(Kind::Grant, src, Handle::FORWARD_LOG, None, &data);
    }

    /// Hears all until something has arrived.
    #[track_caller]
    fn hear_until(&mut self, found: impl Fn(&Heard) -> bool) {
        while !self.heard.iter().any(&found) {
            let mut bytes = [0; 4096];
            let count = self.above.read(&mut bytes).unwrap();
            assert_ne!(count, 0, "cut off");
            let mut frames = self.framer.feed(&bytes[..count]);
            while let Some(frame) = frames.next() {
                let frame = frame.unwrap();
                self.heard.push(Heard { header: frame.header, data: frame.payload.to_vec() });
            }
        }
    }

    /// Waits until all was done that was said before: what nobody takes is answered.
    #[track_caller]
    fn settle(&mut self) {
        self.turn(|_, _| ());
        let mark = self.ask();
        self.say(Kind::Call, PARENT, Handle(200), Some(mark), b"");
        self.hear_until(|heard| heard.header.handle == mark);
        self.heard.retain(|heard| heard.header.handle != mark);
    }

    fn ask(&mut self) -> Handle {
        self.asked += 1;
        Handle(ASKED + self.asked)
    }

    /// Has the loop answer at the handle that is returned, when all is sent.
    fn wait_for_all(&mut self) -> Handle {
        let mark = self.ask();
        self.turn(move |own, turn| own.answer_when_sent(turn, (MASTER, mark)));
        mark
    }

    fn has_answered(&self, mark: Handle) -> bool {
        self.heard.iter().any(|heard| heard.header.handle == mark)
    }

    /// The records that have come to this context, in order.
    fn records(&self, of: ContextId) -> Vec<Arrived> {
        let mut all = Vec::new();
        for heard in self.heard.iter().filter(|heard| heard.is_log(of)) {
            let mut r = Reader::new(&heard.data, None);
            all.extend(std::iter::from_fn(|| record::take(&mut r).unwrap()));
        }
        all
    }

    fn texts(&self, of: ContextId) -> Vec<String> {
        self.records(of).into_iter().map(|record| record.text).collect()
    }

    /// The room that has been taken there.
    fn taken(&self, of: ContextId) -> usize {
        let all = self.heard.iter().filter(|heard| heard.is_log(of));
        all.map(|heard| room_of(&heard.data)).sum()
    }

    /// Grants what has arrived until all is here.
    #[track_caller]
    fn grant_all(&mut self) {
        let mut granted = [0, 0];
        for _ in 0..100 {
            self.settle();
            for (granted, of) in granted.iter_mut().zip([MASTER, PARENT]) {
                let taken = self.taken(of);
                if *granted < taken {
                    self.grant(of, taken - std::mem::replace(granted, taken));
                }
            }
            self.settle();
            if granted == [MASTER, PARENT].map(|of| self.taken(of)) {
                return;
            }
        }
        panic!("it never ends");
    }

    /// Prints lines with numbers until nobody reads them; how many.
    fn print_until_stuck(&mut self, first: usize) -> usize {
        let mut next = first;
        loop {
            match self.printers[0].write_all(line(next).as_bytes()) {
                Ok(()) => {
                    next += 1;
                    assert!(next < first + 5000, "it is read for ever");
                }
                // Lines are shorter than what a pipe takes at once, or not at all.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.settle();
                    if !self.forward.lock().is_reading {
                        return next;
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Logs numbers from 0 until nothing is sent and there is no room; which was dropped.
    fn log_until_stuck(&mut self) -> u64 {
        for number in 0.. {
            if !self.log(number) {
                return number;
            }
            self.settle();
        }
        unreachable!()
    }

    /// Logs on another thread, as user code does; returns when that waits for room.
    fn log_waiting(&self) -> thread::JoinHandle<bool> {
        let own = self.forward.clone();
        let waits = thread::spawn(move || {
            let text = "waited";
            Logged(own).take_waiting(&Record { text, ..Record::now(Level::Info, "here") })
        });
        let begun = Instant::now();
        while self.forward.lock().waiting.is_empty() {
            assert!(begun.elapsed() < LIMIT / 2, "it does not wait");
            thread::yield_now();
        }
        waits
    }

    /// Logs this with the number, as the library does; whether it was taken.
    fn log(&self, number: u64) -> bool {
        let text = "x".repeat(1000);
        let record = Record::now(Level::Info, "here");
        Logged(self.forward.clone()).take(&Record { about: &[number], text: &text, ..record })
    }
}

fn line(number: usize) -> String {
    format!("{number:0>99}\n")
}

/// The texts of such lines.
fn lines(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| line(number).trim_end().to_owned()).collect()
}

#[test]
fn without_room_nothing_is_sent_or_read_until_there_is_some() {
    for (level, to) in [(INFO, MASTER), (NONE, PARENT)] {
        let mut scene = scene(level);
        let count = scene.print_until_stuck(0);
        let taken = scene.taken(to);
        assert!((WINDOW_BYTES - FRAGMENT_BYTES..=WINDOW_BYTES).contains(&taken), "{taken}");
        assert!(scene.forward.lock().queue.bytes < LOG_PRINTED_BYTES + LOG_RECORD_BYTES_MAX);
        let heard = scene.heard.len();
        scene.turn(|own, turn| own.pump(turn));
        scene.settle();
        assert_eq!(scene.heard.len(), heard);
        // Of another there is none to give.
        scene.grant(if to == MASTER { PARENT } else { MASTER }, WINDOW_BYTES);
        scene.settle();
        assert_eq!(scene.heard.len(), heard);
        scene.grant(to, taken);
        scene.settle();
        assert!(heard < scene.heard.len());
        // The room that was there at first is granted twice; that is no harm.
        scene.grant_all();
        assert_eq!(scene.texts(to), lines(0..count));
        assert!(scene.heard.iter().all(|heard| heard.is_log(to)));
        let state = scene.forward.lock();
        assert!(state.is_reading && state.is_idle() && state.queue.bytes == 0);
    }
}

#[test]
fn lines_and_records_keep_their_order_over_stops() {
    let mut scene = scene(INFO);
    let (mut number, mut wanted) = (0, Vec::new());
    for _ in 0..5 {
        // Until records have no room either.
        loop {
            scene.printers[0].write_all(line(number).as_bytes()).unwrap();
            wanted.push(line(number).trim_end().to_owned());
            number += 1;
            if !scene.log(number as u64) {
                break;
            }
            wanted.push("x".repeat(1000));
        }
        scene.grant_all();
    }
    // What says how many were dropped comes where there is room for it.
    let all = scene.records(MASTER).into_iter();
    let (dropped, others): (Vec<_>, Vec<_>) = all.partition(|one| one.what.contains("dropped"));
    assert!(others.into_iter().map(|record| record.text).eq(wanted));
    assert!(dropped.into_iter().map(|record| record.about).eq([[1]; 5].map(Vec::from)));
}

#[test]
fn records_beyond_the_room_are_dropped_and_counted_once() {
    let mut scene = scene(INFO);
    let taken = scene.log_until_stuck();
    assert!((0..99).all(|_| !scene.log(7)));
    scene.settle();
    let bytes = scene.forward.lock().queue.bytes;
    assert!((LOG_QUEUE_BYTES..LOG_QUEUE_BYTES + LOG_RECORD_BYTES_MAX).contains(&bytes), "{bytes}");
    scene.grant_all();
    // The one with which it began, and these.
    let expected: Vec<_> = (0..taken).chain([100]).map(|number| vec![number]).collect();
    let all = scene.records(MASTER);
    assert!(all.iter().map(|record| &record.about).eq(&expected));
    assert!(all.last().unwrap().what.contains("were dropped"));
    assert!(all.iter().all(|record| record.name == "own"));
    assert!(scene.log(5));
    scene.grant_all();
    assert_eq!(scene.records(MASTER).len(), expected.len() + 1);
}

#[test]
fn records_lost_on_a_link_that_is_full_are_counted_with_the_next_that_arrives() {
    let mut scene = scene(INFO);
    let filler = scene.turn(|own, _| {
        let (kind, dst, auth, handle) = (Kind::Data, MASTER, OWN, Handle(300));
        let out = Outgoing { kind, dst, auth, handle, reply_to: None };
        let fits = |number: usize, bytes: usize| {
            let mut data = vec![0; bytes];
            data[..8].copy_from_slice(&number.to_le_bytes());
            own.node.send(&out, FrameBuf::encode(None, |w| w.put(&data)).unwrap()).is_ok()
        };
        let many = (0..5000).find(|number| !fits(*number, 20_000)).unwrap();
        // Less than any record takes.
        (many..5000).find(|number| !fits(*number, 8)).unwrap()
    });
    for number in 0..10 {
        assert!(scene.log(number));
        // Who tells of it is lost as well.
        scene.turn(|own, turn| own.pump(turn));
    }
    assert_eq!(scene.forward.lock().dropped, 10);
    let last = (filler - 1).to_le_bytes();
    scene.hear_until(|one| one.header.handle == Handle(300) && one.data.starts_with(&last));
    assert!(scene.log(10));
    scene.grant_all();
    let all = scene.records(MASTER);
    let (told, others): (Vec<_>, Vec<_>) = all.iter().partition(|one| one.what.contains("dropped"));
    assert_eq!(told.iter().map(|one| one.about[0]).sum::<u64>(), 10);
    assert!(others.iter().map(|one| one.about[0]).eq([10]));
}

#[test]
fn a_record_of_a_users_waits_for_room_and_comes_in_its_order() {
    let mut scene = scene(INFO);
    let taken = scene.log_until_stuck();
    let waits = scene.log_waiting();
    scene.settle();
    assert!(!waits.is_finished());
    let room = scene.taken(MASTER);
    scene.grant(MASTER, room);
    assert!(waits.join().unwrap());
    scene.settle();
    scene.grant_all();
    let all = scene.texts(MASTER);
    assert_eq!(all.len() as u64, taken + 2);
    assert_eq!(all.iter().filter(|text| *text == "waited").count(), 1);
    assert!(scene.forward.lock().waiting.is_empty());
}

#[test]
fn who_waits_for_the_end_is_answered_behind_the_last_line_and_one_too_many_at_once() {
    let mut scene = scene(INFO);
    let count = scene.print_until_stuck(0);
    let marks: Vec<Handle> = (0..LOG_BARRIERS_MAX).map(|_| scene.wait_for_all()).collect();
    scene.settle();
    assert!(!marks.iter().any(|mark| scene.has_answered(*mark)));
    let one_too_many = scene.wait_for_all();
    scene.settle();
    assert!(scene.has_answered(one_too_many) && !scene.has_answered(marks[0]));
    scene.grant_all();
    assert_eq!(scene.texts(MASTER), lines(0..count));
    let last = scene.heard.iter().rposition(|heard| heard.is_log(MASTER)).unwrap();
    let behind: Vec<_> = scene.heard[last + 1..].iter().map(|heard| heard.header.handle).collect();
    assert_eq!(behind, marks);
    // Whoever comes now is the first again; and part of a line is a line for his sake.
    scene.printers[1].write_all(b"a part").unwrap();
    let mark = scene.wait_for_all();
    scene.settle();
    assert!(scene.has_answered(mark));
    assert_eq!(scene.texts(MASTER).last().unwrap(), "a part");
}

#[test]
fn the_level_changes_while_things_wait_and_nothing_sticks_or_changes_its_order() {
    let mut scene = scene(INFO);
    let mut first = 0;
    for round in 0..6 {
        first = scene.print_until_stuck(first);
        // Room for some of what is in the middle.
        scene.grant(MASTER, FRAGMENT_BYTES);
        scene.grant(PARENT, FRAGMENT_BYTES);
        scene.settle();
        let level = if round % 2 == 0 { NONE } else { INFO };
        scene.turn(move |own, _| own.set_level(level));
        // Takes what was printed before it, room or not.
        let _ = scene.log(0);
    }
    let mark = scene.wait_for_all();
    scene.grant_all();
    assert!(scene.has_answered(mark));
    let of = |of: ContextId| -> Vec<usize> {
        let all = scene.records(of).into_iter().filter(|record| record.target == "stdout");
        all.map(|record| record.text.parse().unwrap()).collect()
    };
    let [to_master, to_parent] = [of(MASTER), of(PARENT)];
    assert!(to_master.is_sorted() && to_parent.is_sorted());
    let counts = [to_master.len(), to_parent.len()];
    // How many depends on when the loop has read.
    assert!(counts.iter().all(|count| 0 < *count), "{counts:?}");
    let mut all = [to_master, to_parent].concat();
    all.sort();
    assert!(all.into_iter().eq(0..first));
    let state = scene.forward.lock();
    assert!(state.is_idle() && state.queue.bytes == 0 && state.is_reading);
}

#[test]
fn without_anybody_above_nothing_waits_for_ever() {
    let mut scene = scene(INFO);
    scene.log_until_stuck();
    let waits = scene.log_waiting();
    scene.wait_for_all();
    let end = UnixStream::pair().unwrap().0;
    drop(std::mem::replace(&mut scene.above, end));
    let begun = Instant::now();
    while !scene.turn(|own, turn| own.finish(turn)) {
        assert!(begun.elapsed() < LIMIT, "it never ends");
        thread::yield_now();
    }
    waits.join().unwrap();
    assert!(begun.elapsed() < LIMIT / 2);
    assert!(scene.forward.lock().barriers.is_empty());
}

#[test]
fn who_has_left_reads_and_keeps_nothing() {
    let mut scene = scene(INFO);
    scene.log_until_stuck();
    let waits = scene.log_waiting();
    scene.turn(|own, turn| own.leave(turn));
    waits.join().unwrap();
    scene.turn(|own, turn| own.pump(turn));
    let state = scene.forward.lock();
    assert!(state.queue.bytes <= LOG_RECORD_BYTES_MAX);
    assert!(state.printed.iter().all(|printed| printed.fd().is_none()));
    drop(state);
    // Nobody reads: whoever prints is told so.
    let error = scene.printers[0].write_all(b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}
