//! Calls among contexts of one process: many at once, failed, dropped, cut off. No test here starts
//! a process.

use std::time::{Duration, Instant};

use mitogen::error::{Cause, Death, ErrorKind};
use mitogen::{CallContext, Context, Error, Program, Router, Sender};

use crate::support::beside_others;

/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

fn program() -> Program {
    Program::new().function(add).function(fill).function(sum).function(never).function(name_of)
}

fn add(a: u32, b: u32) -> u32 {
    a + b
}

fn fill(byte: u8, count: usize) -> Vec<u8> {
    vec![byte; count]
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|b| u64::from(*b)).sum()
}

fn never(cx: &CallContext) {
    cx.router().broker().join();
}

fn name_of(context: Context) -> (u32, Context) {
    (context.context_id().0, context)
}

fn unregistered(_: Sender<u32>) {}

fn cause(error: &Error) -> Option<Cause> {
    match error.kind() {
        ErrorKind::Closed(Death { cause, .. }) => Some(*cause),
        _ => None,
    }
}

fn one() -> (Router, Context) {
    let router = program().router().unwrap();
    let context = router.in_process().unwrap();
    (router, context)
}

#[test]
fn an_unregistered_function_is_refused_before_anything_is_sent() {
    let _company = beside_others();
    let (router, context) = one();
    let numbers = router.receiver();
    let error = context.call(unregistered, numbers.to_sender()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Usage(_)), "{error}");
    let error = context.call_no_reply(unregistered, numbers.to_sender()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Usage(_)), "{error}");
    assert_eq!(numbers.into_iter().count(), 0);
}

#[test]
fn many_threads_call_at_once() {
    let _company = beside_others();
    let (_router, context) = one();
    std::thread::scope(|scope| {
        for thread in 0..64 {
            let context = &context;
            scope.spawn(move || {
                for i in 0..1000 {
                    assert_eq!(context.call(add, (thread, i)).unwrap(), thread + i);
                }
            });
        }
    });
}

#[test]
fn large_values_of_many_threads_stay_apart() {
    let _company = beside_others();
    let (_router, context) = one();
    std::thread::scope(|scope| {
        for thread in 1..=8u8 {
            let context = &context;
            scope.spawn(move || {
                for count in [20_000, 300_000, 1 << 20] {
                    let value = context.call(fill, (thread, count)).unwrap();
                    assert!(value.len() == count && value.iter().all(|b| *b == thread));
                    let total = context.call(sum, &value).unwrap();
                    assert_eq!(total, count as u64 * u64::from(thread));
                }
            });
        }
    });
}

#[test]
fn an_answer_beyond_the_limit_fails_the_call() {
    let _company = beside_others();
    let (_router, context) = one();
    let error = context.call_async(fill, (0, 129 << 20)).get_timeout(LIMIT).unwrap_err();
    assert_eq!(cause(&error), Some(Cause::TooLarge), "{error}");
    assert_eq!(context.call(add, (1, 2)).unwrap(), 3);
}

#[test]
fn arguments_beyond_the_limit_are_refused_here() {
    let _company = beside_others();
    let (_router, context) = one();
    let error = context.call(sum, vec![0; 129 << 20]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }), "{error}");
    assert_eq!(context.call(add, (1, 2)).unwrap(), 3);
}

#[test]
fn a_dropped_call_disturbs_no_other() {
    let _company = beside_others();
    let (_router, context) = one();
    for i in 0..1000 {
        drop(context.call_async(add, (i, 1)));
        assert_eq!(context.call(add, (i, 2)).unwrap(), i + 2);
    }
}

#[test]
fn a_call_times_out_and_the_next_is_answered() {
    let _company = beside_others();
    let (_router, context) = one();
    let other = context.router().in_process().unwrap();
    let began = Instant::now();
    let error = other.call_async(never, ()).get_timeout(Duration::from_millis(20)).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Timeout);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(context.call(add, (1, 2)).unwrap(), 3);
    other.shutdown().unwrap();
}

#[test]
fn a_shutdown_ends_every_pending_call_with_that_cause() {
    let _company = beside_others();
    let (router, context) = one();
    let calls: Vec<_> = (0..100).map(|_| context.call_async(never, ())).collect();
    router.shutdown();
    for call in calls {
        let error = call.get_timeout(LIMIT).unwrap_err();
        assert_eq!(cause(&error), Some(Cause::Shutdown), "{error}");
    }
}

#[test]
fn every_use_after_the_shutdown_fails_with_that_cause() {
    let _company = beside_others();
    let (router, context) = one();
    let numbers = router.receiver::<u32>();
    let out = numbers.to_sender();
    router.shutdown();
    router.shutdown();
    let errors = [
        context.call(add, (1, 2)).unwrap_err(),
        context.call_no_reply(add, (1, 2)).unwrap_err(),
        context.shutdown().unwrap_err(),
        router.in_process().unwrap_err(),
        out.send(1).unwrap_err(),
        numbers.get_timeout(LIMIT).unwrap_err(),
        router.receiver::<u32>().get_timeout(LIMIT).unwrap_err(),
        router.receiver::<u32>().to_sender().send(1).unwrap_err(),
    ];
    for (i, error) in errors.iter().enumerate() {
        assert_eq!(cause(error), Some(Cause::Shutdown), "{i}: {error}");
    }
    assert!(router.broker().join_timeout(Duration::ZERO));
}

#[test]
fn the_end_of_one_context_is_not_anothers() {
    let _company = beside_others();
    let (router, context) = one();
    let other = router.in_process().unwrap();
    let call = context.call_async(never, ());
    context.shutdown().unwrap();
    let error = call.get_timeout(LIMIT).unwrap_err();
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    assert_eq!(death.context, Some(context.context_id()));
    let error = context.call(add, (1, 2)).unwrap_err();
    assert!(cause(&error).is_some(), "{error}");
    assert_eq!(other.call(add, (1, 2)).unwrap(), 3);
    assert_eq!(router.children(), [other]);
}

#[test]
fn contexts_travel_both_ways() {
    let _company = beside_others();
    let (router, context) = one();
    let other = router.in_process().unwrap();
    let (id, back) = context.call(name_of, &other).unwrap();
    assert_eq!((id, &back), (other.context_id().0, &other));
    // It acts for the context that gave it, which may not call its sibling.
    let error = back.call(add, (1, 2)).unwrap_err();
    assert_eq!(cause(&error), Some(Cause::Refused), "{error}");
    let elsewhere = program().router().unwrap();
    let error = elsewhere.in_process().unwrap().call(name_of, &other).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Usage(_)), "{error}");
}

#[test]
fn a_context_that_never_was_answers_nothing_and_says_so() {
    let _company = beside_others();
    let (router, context) = one();
    let error = router.context_by_id(mitogen::ContextId(77_777)).call(add, (1, 2)).unwrap_err();
    assert_eq!(cause(&error), Some(Cause::NoRoute), "{error}");
    let there = context.call(name_of, router.context_by_id(mitogen::ContextId(0))).unwrap().1;
    let error = there.call(add, (1, 2)).unwrap_err();
    assert_eq!(cause(&error), Some(Cause::NoHandle), "{error}");
}
