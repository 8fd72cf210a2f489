//! What a program holds may be dropped in any order, on any threads: nothing hangs or stays.

use std::any::Any;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use mitogen::{Broker, CallContext, Program, Sender};

use crate::support::*;

/// Longer than all of one test may take.
const LIMIT: Duration = Duration::from_secs(100);

fn never(cx: &CallContext) {
    cx.router().broker().join();
}

fn send_on(out: Sender<u32>) {
    // Whoever listens may be gone.
    while out.send(1).is_ok() {}
}

type Thing = Box<dyn Any + Send>;
const THINGS: usize = 8;

/// One of each, all of one router, at work.
fn things() -> [Thing; THINGS] {
    let broker = Broker::new().unwrap();
    let program = Program::new().function(never).function(send_on).image(stock_image());
    let router = program.broker(&broker).router().unwrap();
    let (context, busy) = (router.in_process().unwrap(), router.in_process().unwrap());
    let receiver = router.receiver::<u32>();
    let sender = receiver.to_sender();
    busy.call_no_reply(send_on, receiver.to_sender()).unwrap();
    let call = context.call_async(never, ());
    let starting = router.ssh("x").ssh_path("/nowhere/ssh").start();
    [
        Box::new(broker),
        Box::new(router),
        Box::new(context),
        Box::new(busy),
        Box::new(receiver),
        Box::new(sender),
        Box::new(call),
        Box::new(starting),
    ]
}

/// The `number`-th order of so many things.
fn order(mut number: usize) -> Vec<usize> {
    let mut left: Vec<usize> = (0..THINGS).collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        order.push(left.remove(number % left.len()));
        number /= left.len() + 1;
    }
    order
}

/// Runs rounds on several threads, each in no more than the time of all.
#[track_caller]
fn on_threads(rounds: usize, round: impl Fn(usize) + Send + Sync + 'static) {
    const THREADS: usize = 4;
    let (round, (tell, told)) = (Arc::new(round), mpsc::channel());
    for first in 0..THREADS {
        let (tell, round) = (tell.clone(), round.clone());
        thread::spawn(move || {
            for number in (first..rounds).step_by(THREADS) {
                round(number);
                tell.send(number).unwrap();
            }
        });
    }
    drop(tell);
    let (mut done, end) = (vec![false; rounds], Instant::now() + LIMIT);
    loop {
        match told.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(number) => done[number] = true,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("one of {:?} hangs", missing(&done)),
        }
    }
    assert_eq!(missing(&done), None, "its order panics");
}

fn missing(done: &[bool]) -> Option<usize> {
    done.iter().position(|done| !done)
}

#[test]
fn things_are_dropped_in_any_order() {
    leaves_nothing(&[], || {
        const ORDERS: usize = 40_320;
        assert_eq!(order(ORDERS - 1), [7, 6, 5, 4, 3, 2, 1, 0]);
        // A sample in which each is at each place.
        on_threads(ORDERS / 101, |number| {
            let mut things = things().map(Some);
            for at in order(101 * number) {
                drop(things[at].take());
            }
        });
    });
}

#[test]
fn things_are_dropped_by_as_many_threads_at_once() {
    leaves_nothing(&[], || {
        on_threads(150, |_| {
            let barrier = Barrier::new(THINGS);
            thread::scope(|scope| {
                for thing in things() {
                    scope.spawn(|| {
                        barrier.wait();
                        drop(thing);
                    });
                }
            });
        });
    });
}

#[test]
fn things_are_dropped_in_a_callback() {
    leaves_nothing(&[], || {
        on_threads(50, |number| {
            let router = Program::new().image(stock_image()).router().unwrap();
            let starting = router.ssh("x").ssh_path("/nowhere/ssh").start();
            let (tell, told) = mpsc::channel();
            let things = (things(), router);
            starting.then(move |outcome| {
                assert!(outcome.is_err());
                let (things, router) = things;
                let mut things = things.map(Some);
                for at in order(397 * number) {
                    drop(things[at].take());
                }
                drop(router);
                tell.send(()).unwrap();
            });
            told.recv().unwrap();
        });
    });
}
