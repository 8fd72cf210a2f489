//! What threads sleep on, run in every order that there is: the library's own source over locks and
//! wake-ups that a model checker schedules. What sleeps for ever in some order is a deadlock there.
#![allow(dead_code, unused_imports)]

/// All of the model's threads are one of the system's.
macro_rules! thread_local {
    ($(#[$doc:meta])* static $name:ident: Cell<usize> = $value:expr;) => {
        static $name: crate::floor::Nowhere = crate::floor::Nowhere;
    };
}

mod floor;

use floor::{error, limits, lock, sys, trace, wire};

#[path = "../../../src/io"]
mod io {
    pub mod callbacks;
    pub mod latch;
    pub mod lending;
    pub mod outbox;
    pub mod promise;
    pub mod sleep;
    pub use crate::floor::{side, turn};
}

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use error::ErrorKind;
use io::callbacks::{Callbacks, Calls};
use io::latch::Latch;
use io::lending::{Lending, Next};
use io::outbox::{Outbox, Pushed};
use io::promise::promise;
use io::side::Side;
use io::turn::{Arrivals, Turn};
use loom::thread::spawn;
use wire::header::Lane;

/// Switches of threads where neither waits: with so many almost all that can go wrong does.
const PREEMPTIONS: usize = 3;

fn main() {
    every_order("two sleepers get an item each", two_sleepers_get_an_item_each);
    every_order("who came late takes no sleeper's item", who_came_late_takes_no_sleepers_item);
    every_order("no item is lost with a wait that times out", no_item_is_lost_with_a_timeout);
    every_order("a wait that times out keeps no item", a_wait_that_times_out_keeps_no_item);
    every_order("closing wakes every sleeper", closing_wakes_every_sleeper);
    every_order("a promise is kept or known to be broken", a_promise_is_kept_or_broken);
    every_order("who waits for room wakes when there is", who_waits_for_room_wakes);
    every_order("closing wakes who waits for room", closing_wakes_who_waits_for_room);
    every_order("a frame is written by its pusher or by the loop", a_frame_leaves);
    every_order("what is gathered leaves", what_is_gathered_leaves);
    every_order("callbacks that are taken run", callbacks_that_are_taken_run);
    every_order("who waits gets what arrives, whoever has the turn", who_waits_gets_it);
    every_order("two who wait get theirs", two_who_wait_get_theirs);
    every_order("what is deferred is done while a turn is lent", what_is_deferred_is_done);
    every_order("who waits no more leaves the turn", who_waits_no_more_leaves_the_turn);
}

fn every_order(name: &str, model: fn()) {
    let (begun, orders) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    let count = orders.clone();
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        floor::begin();
        model();
    });
    let orders = orders.load(Ordering::Relaxed);
    println!("model: {name}: {orders} orders, {:.1?}", begun.elapsed());
}

fn two_sleepers_get_an_item_each() {
    let latch = Arc::new(Latch::new());
    let sleepers = [(); 2].map(|()| {
        let latch = latch.clone();
        spawn(move || latch.get().unwrap())
    });
    latch.put(1).unwrap();
    latch.put(2).unwrap();
    assert_eq!(sleepers.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>(), 3);
    assert!(latch.is_empty());
}

fn who_came_late_takes_no_sleepers_item() {
    let latch = Arc::new(Latch::new());
    let own = latch.clone();
    let sleeper = spawn(move || own.get().unwrap());
    latch.put(1).unwrap();
    match latch.try_get().unwrap() {
        // Then nobody slept yet, and the next is the sleeper's.
        Some(1) => latch.put(2).unwrap(),
        Some(_) => unreachable!(),
        None => (),
    }
    sleeper.join().unwrap();
    assert!(latch.try_get().unwrap().is_none());
}

fn no_item_is_lost_with_a_timeout() {
    let latch = Arc::new(Latch::new());
    let threads = [(); 2].map(|()| {
        let latch = latch.clone();
        spawn(move || match latch.get_timeout(Duration::ZERO) {
            Ok(item) => item,
            Err(error) => {
                assert_eq!(*error.kind(), ErrorKind::Timeout);
                0
            }
        })
    });
    latch.put(1).unwrap();
    let got: u32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(latch.try_get().unwrap().unwrap_or(0) + got, 1);
}

/// Who was promised an item in the moment its time was over takes it, or another sleeper gets it.
fn a_wait_that_times_out_keeps_no_item() {
    let latch = Arc::new(Latch::new());
    let (timed, other) = (latch.clone(), latch.clone());
    let timed = spawn(move || timed.get_timeout(Duration::ZERO).is_ok());
    let other = spawn(move || other.get().unwrap());
    latch.put(1).unwrap();
    if timed.join().unwrap() {
        latch.put(2).unwrap();
    }
    other.join().unwrap();
    assert!(latch.is_empty());
}

fn closing_wakes_every_sleeper() {
    let latch = Arc::new(Latch::<u32>::new());
    let sleepers = [(); 2].map(|()| {
        let latch = latch.clone();
        spawn(move || latch.get().is_err())
    });
    latch.close();
    assert!(sleepers.into_iter().all(|thread| thread.join().unwrap()));
}

fn a_promise_is_kept_or_broken() {
    for keeps in [true, false] {
        let (promise, promised) = promise();
        let waiter = spawn(move || promised.get().ok());
        if keeps {
            promise.keep(7);
        } else {
            drop(promise);
        }
        assert_eq!(waiter.join().unwrap(), keeps.then_some(7));
    }
}

/// An outbox in which more waits than it should.
fn full() -> (Arc<Outbox>, Side) {
    let side = Side::with_room(0);
    let outbox = Arc::new(Outbox::new(side.clone()));
    for _ in 0..=limits::OUTBOX_HIGH_WATER_BYTES {
        outbox.push(b"x", Lane::Quick);
    }
    (outbox, side)
}

fn who_waits_for_room_wakes() {
    let (outbox, side) = full();
    let waiters = [(); 2].map(|()| {
        let outbox = outbox.clone();
        spawn(move || outbox.wait_for_room(None).unwrap())
    });
    side.make_room(1);
    outbox.flush();
    side.make_room(100);
    assert!(!outbox.flush());
    waiters.into_iter().for_each(|thread| thread.join().unwrap());
}

fn closing_wakes_who_waits_for_room() {
    let (outbox, _side) = full();
    let own = outbox.clone();
    let waiter = spawn(move || own.wait_for_room(None).is_err());
    outbox.close();
    assert!(waiter.join().unwrap());
    assert_eq!(outbox.push(b"x", Lane::Quick), Pushed::Closed);
}

/// The loop is told of what is queued, whoever queues it while it flushes.
fn a_frame_leaves() {
    let side = Side::with_room(1);
    let outbox = Arc::new(Outbox::new(side.clone()));
    let pushers = [(); 2].map(|()| {
        let outbox = outbox.clone();
        spawn(move || outbox.push(b"xy", Lane::Quick) == Pushed::Arm)
    });
    side.make_room(1);
    let more = outbox.flush();
    let told = pushers.into_iter().fold(more, |told, thread| told | thread.join().unwrap());
    assert!(outbox.queued() == 0 || told);
}

/// Whoever is told to tell the loop does, and the loop writes.
fn what_is_gathered_leaves() {
    let outbox = Arc::new(Outbox::new(Side::with_room(100)));
    let pushers = [(); 2].map(|()| {
        let outbox = outbox.clone();
        spawn(move || {
            for _ in 0..2 {
                if outbox.push(b"x", Lane::Quick) == Pushed::Arm {
                    assert!(!outbox.flush());
                }
            }
        })
    });
    pushers.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(outbox.queued(), 0);
}

fn callbacks_that_are_taken_run() {
    let (callbacks, ran) = (Callbacks::new(), Arc::new(AtomicUsize::new(0)));
    let threads = [(); 2].map(|()| {
        let (callbacks, ran) = (callbacks.clone(), ran.clone());
        let run = move || _ = ran.fetch_add(1, Ordering::SeqCst);
        spawn(move || usize::from(callbacks.run("a model", Box::new(run)).is_ok()))
    });
    callbacks.finish();
    let taken: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(taken == 0 || callbacks.wait(Duration::MAX));
    assert_eq!(ran.load(Ordering::SeqCst), taken);
}

/// A loop with so many latches, whose thread has lent the turn or is about to.
struct Loop {
    lending: Arc<Lending>,
    latches: Vec<Arc<Latch<()>>>,
    arrivals: Arrivals,
    broker: loom::thread::JoinHandle<()>,
}

impl Loop {
    fn new(latches: usize) -> Loop {
        let notifier = sys::poll::Notifier::new();
        let latches: Vec<_> = (0..latches).map(|_| Arc::default()).collect();
        let (turn, arrivals) = Turn::new(&notifier, &latches);
        let lending = Arc::new(Lending::new(notifier));
        let own = lending.clone();
        let broker = spawn(move || turn_it(&own, own.lend(Box::new(turn))));
        Loop { lending, latches, arrivals, broker }
    }

    /// A thread that waits for what comes into a latch; with a deadline, perhaps in vain.
    fn waiter(&self, number: usize, deadline: Option<Instant>) -> loom::thread::JoinHandle<bool> {
        let (lending, latch) = (self.lending.clone(), self.latches[number].clone());
        spawn(move || lending.wait(&latch, deadline).is_ok())
    }

    fn end(self) {
        self.lending.enqueue(Box::new(|turn| turn.is_over = true)).unwrap();
        self.broker.join().unwrap();
    }
}

/// As a broker's thread does.
fn turn_it(lending: &Lending, mut turn: Box<Turn>) {
    let mut served = false;
    loop {
        lending.take_tasks().into_iter().for_each(|task| task(&mut turn));
        if turn.is_over {
            return;
        }
        match lending.next(served) {
            Next::Work => served = false,
            Next::Lend => (turn, served) = (lending.lend(turn), false),
            Next::Sleep => {
                turn.poll();
                served = true;
            }
        }
    }
}

fn who_waits_gets_it() {
    let a_loop = Loop::new(1);
    a_loop.arrivals.arrive(0);
    assert!(a_loop.lending.wait(&a_loop.latches[0], None).is_ok());
    a_loop.arrivals.arrive(0);
    assert!(a_loop.lending.wait(&a_loop.latches[0], None).is_ok());
    a_loop.end();
}

fn two_who_wait_get_theirs() {
    let a_loop = Loop::new(2);
    let waiter = a_loop.waiter(0, None);
    a_loop.arrivals.arrive(0);
    a_loop.arrivals.arrive(1);
    assert!(a_loop.lending.wait(&a_loop.latches[1], None).is_ok());
    assert!(waiter.join().unwrap());
    a_loop.end();
}

fn what_is_deferred_is_done() {
    let a_loop = Loop::new(1);
    let waiter = a_loop.waiter(0, None);
    let put = |turn: &mut Turn| turn.latches[0].put(()).unwrap();
    a_loop.lending.enqueue(Box::new(put)).unwrap();
    assert!(waiter.join().unwrap());
    a_loop.end();
}

/// One that times out with the turn, or without; then nobody of this library waits for an item.
fn who_waits_no_more_leaves_the_turn() {
    let a_loop = Loop::new(2);
    let timed = a_loop.waiter(0, Some(Instant::now()));
    a_loop.arrivals.arrive(1);
    a_loop.latches[1].get().unwrap();
    timed.join().unwrap();
    a_loop.end();
}
