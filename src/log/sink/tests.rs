//! What becomes of records on their way to the sink.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{MutexGuard, PoisonError};

use super::*;
use crate::limits::NAME_BYTES_MAX;

const LIMIT: Duration = Duration::from_secs(10);
const BY: &str = "by a test of the sink";

/// There is one sink for all; it is nobody's when this is dropped.
struct Alone(#[allow(dead_code)] MutexGuard<'static, ()>);

fn alone() -> Alone {
    Alone(trace::SINKS.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Drop for Alone {
    fn drop(&mut self) {
        log_to(Level::Error, Box::new(|_| ()));
        log_at(None);
        assert!(flush_log(LIMIT));
    }
}

fn say(level: Level, number: u64) {
    trace::text(level, "something", &[number], BY);
}

/// Passes on the numbers of what these tests say; others log, too.
fn noting(tell: Sender<u64>) -> Sink {
    Box::new(move |record| {
        if record.text == BY {
            // Who does not look any more does not care.
            let _ = tell.send(record.about[0]);
        }
    })
}

fn heard(told: &Receiver<u64>) -> Vec<u64> {
    assert!(flush_log(LIMIT));
    told.try_iter().collect()
}

#[test]
fn records_come_one_at_a_time_in_order_and_as_the_level_says() {
    let _alone = alone();
    let (tell, told) = channel();
    log_to(Level::Info, noting(tell));
    (0..1000).for_each(|number| say(Level::Info, number));
    assert!(heard(&told).into_iter().eq(0..1000));
    say(Level::Debug, 1);
    log_at(Level::Debug);
    say(Level::Debug, 2);
    log_at(Level::Warn);
    say(Level::Info, 3);
    say(Level::Warn, 4);
    log_at(None);
    say(Level::Error, 5);
    assert_eq!(heard(&told), [2, 4]);
}

#[test]
fn a_sink_that_panics_loses_its_record_and_takes_the_next() {
    let _alone = alone();
    let (tell, told) = channel();
    let note = noting(tell);
    log_to(
        Level::Error,
        Box::new(move |record| {
            note(record);
            assert!(record.text != BY || record.about != [1], "on purpose");
        }),
    );
    (0..3).for_each(|number| say(Level::Error, number));
    assert_eq!(heard(&told), [0, 1, 2]);
}

#[test]
fn a_sink_that_logs_waits_and_replaces_itself_gets_nothing_of_that_and_does_not_hang() {
    let _alone = alone();
    let (tell, told) = channel();
    let (count, counted) = channel();
    let (note, later) = (noting(tell.clone()), Lock::<_>::new(Some(noting(tell))));
    log_to(
        Level::Error,
        Box::new(move |record| {
            note(record);
            if record.text == BY {
                say(Level::Error, 100);
                assert!(!flush_log(LIMIT));
                let next = later.lock().take();
                next.into_iter().for_each(|next| log_to(Level::Error, next));
                count.send(0).unwrap();
            }
        }),
    );
    say(Level::Error, 1);
    assert_eq!(heard(&told), [1]);
    say(Level::Error, 2);
    assert_eq!(heard(&told), [2]);
    assert_eq!(counted.try_iter().count(), 1);
}

#[test]
fn of_two_that_set_a_sink_at_once_each_has_the_level_that_came_with_it() {
    let _alone = alone();
    for round in 0..500 {
        let (tell, told) = channel();
        let begin = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for level in [Level::Error, Level::Info] {
                let (tell, begin) = (tell.clone(), &begin);
                scope.spawn(move || {
                    let sink = Box::new(move |record: &Record<'_>| {
                        if record.text == BY {
                            tell.send((level, record.about[0])).unwrap();
                        }
                    });
                    begin.wait();
                    log_to(level, sink);
                });
            }
        });
        say(Level::Error, 1);
        say(Level::Info, 2);
        assert!(flush_log(LIMIT));
        let heard: Vec<_> = told.try_iter().collect();
        let own = heard[0].0;
        let rest = if own == Level::Info { vec![(own, 2)] } else { Vec::new() };
        assert_eq!(heard, [vec![(own, 1)], rest].concat(), "in round {round}");
    }
}

/// Logs as it is dropped, and says so.
struct Last(Sender<u64>);

impl Drop for Last {
    fn drop(&mut self) {
        say(Level::Error, 100);
        self.0.send(200).unwrap();
    }
}

#[test]
fn the_sink_before_gets_what_was_logged_before_and_is_dropped_then() {
    let _alone = alone();
    let (tell, told) = channel();
    let (first, last) = (noting(tell.clone()), Last(tell.clone()));
    log_to(
        Level::Error,
        Box::new(move |record| {
            let _ = &last;
            first(record);
        }),
    );
    say(Level::Error, 1);
    let second = noting(tell);
    log_to(
        Level::Error,
        Box::new(move |record| {
            if record.text == BY {
                assert!(record.about != [1], "it was logged before");
            }
            second(record);
        }),
    );
    say(Level::Error, 2);
    assert_eq!(heard(&told), [1, 200, 2]);
}

/// A sink that stops at the first record until it is let go.
fn stuck(tell: Sender<u64>, dropped: Sender<u64>) -> (Sink, Arc<AtomicBool>) {
    let free = Arc::new(AtomicBool::new(false));
    let (note, wait) = (noting(tell), free.clone());
    let sink = Box::new(move |record: &Record<'_>| {
        while !wait.load(SeqCst) {
            std::thread::yield_now();
        }
        if record.what.starts_with("records were dropped") {
            dropped.send(record.about[0]).unwrap();
        }
        note(record);
    });
    (sink, free)
}

#[test]
fn what_finds_no_room_is_dropped_and_counted_and_nobody_waits() {
    let _alone = alone();
    let ((tell, told), (tell_dropped, told_dropped)) = (channel(), channel());
    let (sink, free) = stuck(tell, tell_dropped);
    log_to(Level::Error, sink);
    let count = 3 * (LOG_QUEUED_BYTES_MAX / 40) as u64;
    (0..count).for_each(|number| say(Level::Error, number));
    assert!(!flush_log(Duration::from_millis(10)));
    let queued = Hall::known().unwrap().budget.lock().queued;
    assert!(queued <= LOG_QUEUED_BYTES_MAX && LOG_QUEUED_BYTES_MAX / 2 < queued, "{queued}");
    free.store(true, SeqCst);
    let taken = heard(&told).len() as u64;
    // It is told when the queue is empty, or before the next that finds room.
    say(Level::Error, 1);
    let taken = taken + heard(&told).len() as u64;
    let dropped: u64 = told_dropped.try_iter().sum();
    // Others log, too.
    assert!(count < taken + dropped && taken + dropped < count + 100, "{taken} {dropped}");
}

#[test]
fn who_waits_for_room_loses_nothing_beside_others_who_wait() {
    const THREADS: u64 = 8;
    let _alone = alone();
    let ((tell, told), (tell_dropped, told_dropped)) = (channel(), channel());
    let (sink, free) = stuck(tell, tell_dropped);
    log_to(Level::Error, sink);
    // Few fit, so that there is seldom room for all.
    let name = "x".repeat(NAME_BYTES_MAX);
    let count = 20 * (LOG_QUEUED_BYTES_MAX / name.len()) as u64 / THREADS;
    let write = move |name: &str, first: u64| {
        for number in first..first + count {
            let now = Record::now(Level::Error, TARGET);
            trace::record_waiting(&Record { name, about: &[number], text: BY, ..now });
        }
    };
    let firsts = [0, 1, 2, 3, 4, 5, 6, 7].map(|thread| thread * count);
    let writers = firsts.map(|first| {
        let name = name.clone();
        std::thread::spawn(move || write(&name, first))
    });
    let is_full = || 1 < Hall::known().unwrap().budget.lock().waiting.len();
    while !is_full() {
        std::thread::yield_now();
    }
    free.store(true, SeqCst);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let all = heard(&told);
    for first in firsts {
        let own = all.iter().copied().filter(|number| number / count == first / count);
        assert!(own.eq(first..first + count), "{} of {count}", all.len());
    }
    assert_eq!(told_dropped.try_iter().sum::<u64>(), 0);
}

#[test]
fn what_was_dropped_is_told_before_a_flush_is_over() {
    let _alone = alone();
    let ((tell, _told), (tell_dropped, told_dropped)) = (channel(), channel());
    let (sink, free) = stuck(tell, tell_dropped);
    log_to(Level::Error, sink);
    let has_room = || {
        say(Level::Error, 0);
        Hall::known().unwrap().budget.lock().dropped == 0
    };
    while has_room() {}
    let is_behind = |before: usize| before < Hall::known().unwrap().queue.census().0;
    let before = Hall::known().unwrap().queue.census().0;
    let flush = std::thread::spawn(move || {
        assert!(flush_log(LIMIT));
        told_dropped.try_iter().sum::<u64>()
    });
    while !is_behind(before) {
        std::thread::yield_now();
    }
    free.store(true, SeqCst);
    assert!(0 < flush.join().unwrap());
}

#[test]
fn the_end_of_a_router_waits_once_for_a_sink_that_takes_nothing() {
    let _alone = alone();
    let ((tell, _told), (tell_dropped, _told_dropped)) = (channel(), channel());
    let (sink, free) = stuck(tell, tell_dropped);
    log_to(Level::Error, sink);
    say(Level::Error, 1);
    let router = crate::Program::new().router().unwrap();
    let begun = Instant::now();
    router.shutdown();
    router.shutdown();
    drop(router);
    let took = begun.elapsed();
    free.store(true, SeqCst);
    assert!(LOG_FLUSH_TIME <= took && took < 2 * LOG_FLUSH_TIME, "{took:?}");
}
