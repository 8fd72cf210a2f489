//! Tests of a broker: its order, its ends, and its failures.

use super::*;
use crate::error::ErrorKind;
use std::sync::mpsc;

fn is_shut_down<T>(result: Result<T>) -> bool {
    matches!(result.err().map(Error::into_kind), Some(ErrorKind::Closed(_)))
}

#[test]
fn tasks_run_in_order_on_one_thread_that_knows_itself() {
    let broker = Broker::start().unwrap();
    let (tell, told) = mpsc::channel();
    for i in 0..100 {
        let (own, tell) = (broker.clone(), tell.clone());
        broker.defer(move |_| tell.send((i, own.is_current())).unwrap()).unwrap();
    }
    broker.defer_sync(|_| ()).unwrap();
    assert!(told.try_iter().eq((0..100).map(|i| (i, true))));
    assert!(!broker.is_current());
    broker.shutdown();
    broker.join();
}

#[test]
fn nobody_waits_for_the_loop_on_its_own_thread() {
    let broker = Broker::start().unwrap();
    let own = broker.clone();
    let refused = broker.defer_sync(move |_| {
        own.join();
        own.defer_sync(|_| ()).unwrap_err()
    });
    assert!(matches!(refused.unwrap().kind(), ErrorKind::Usage(_)));
    broker.shutdown();
    broker.join();
}

#[test]
fn all_fails_after_the_shutdown_and_what_was_deferred_is_dropped() {
    let broker = Broker::start().unwrap();
    broker.shutdown();
    broker.shutdown();
    broker.join();
    broker.join();
    let (tell, told) = mpsc::channel::<()>();
    assert!(is_shut_down(broker.defer(move |_| tell.send(()).unwrap())));
    assert!(told.recv().is_err());
    assert!(is_shut_down(broker.defer_sync(|_| ())));
    assert!(broker.join_timeout(Duration::ZERO));
}

#[test]
fn a_task_that_comes_too_late_fails_its_waiter() {
    for _ in 0..200 {
        let broker = Broker::start().unwrap();
        let other = broker.clone();
        let waiter = std::thread::spawn(move || while other.defer_sync(|_| ()).is_ok() {});
        broker.shutdown();
        broker.join();
        waiter.join().unwrap();
    }
}

#[track_caller]
fn assert_failed<T>(result: Result<T>, tail: &str) {
    let error = result.map(drop).unwrap_err();
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    assert_eq!((death.cause, &*death.tail), (Cause::BrokerFailed, tail));
}

#[test]
fn a_panic_is_the_reason_for_all_that_waits_and_all_that_comes_later() {
    let broker = Broker::start().unwrap();
    let (own, tenant) = (broker.clone(), broker.tenant());
    let why = "the broker panicked: on purpose";
    let (tell, told) = mpsc::channel();
    broker.defer(move |turn| turn.at_end(tenant, Box::new(|_, _| panic!("by an end")))).unwrap();
    let note = move |turn: &mut Turn| {
        turn.at_end(tenant, Box::new(move |_, death| tell.send(death.clone()).unwrap()));
    };
    broker.defer(note).unwrap();
    broker.defer(move |turn| turn.at_end(tenant, Box::new(|_, _| panic!("by another")))).unwrap();
    // The waiter's task is behind the one that panics: both are in the queue before either
    // runs.
    let (begin, begun) = mpsc::channel();
    let hold = move |_: &mut Turn| {
        own.defer(|_| panic!("on purpose")).unwrap();
        begin.send(()).unwrap();
        while own.shared.lending.tasks_len() < 2 {
            std::thread::yield_now();
        }
    };
    broker.defer(hold).unwrap();
    begun.recv().unwrap();
    assert_failed(broker.defer_sync(|_| ()), why);
    assert_failed(broker.defer_sync(|_| ()), why);
    assert_failed(broker.defer(|_| ()), why);
    assert_eq!(told.recv().unwrap().tail, why);
    assert_eq!(broker.death(Cause::Shutdown).cause, Cause::BrokerFailed);
    broker.join();
}

#[test]
fn a_task_that_panics_fails_who_waits_for_it_with_what_it_says() {
    let broker = Broker::start().unwrap();
    let result = broker.defer_sync(|_| panic!("number {}", 7));
    assert_failed::<()>(result, "the broker panicked: number 7");
}

#[test]
fn any_number_of_threads_wait_for_the_end() {
    let broker = Broker::start().unwrap();
    assert!(!broker.join_timeout(Duration::from_millis(1)));
    std::thread::scope(|scope| {
        for i in 0..4 {
            let broker = &broker;
            scope.spawn(move || match i % 2 {
                0 => broker.join(),
                _ => assert!(broker.join_timeout(Duration::from_secs(10))),
            });
        }
        broker.shutdown();
    });
}
