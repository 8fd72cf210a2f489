//! Contexts that run several functions at a time: as many as they have threads, and no more.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mitogen::error::{ConnectFailure, ErrorKind};
use mitogen::{CallContext, Context, Program, Result, Router, Sender, stock};

use crate::support::{beside_others, census, leaves_nothing, until};

mitogen::test_agent!(program());

fn program() -> Program {
    Program::new().function(meet).function(enter).function(pid).function(most)
}

const LIMIT: Duration = Duration::from_secs(20);

static INSIDE: AtomicU32 = AtomicU32::new(0);
static MOST: AtomicU32 = AtomicU32::new(0);

/// Says that it has begun, and waits until so many are inside, or it is cancelled.
fn meet(cx: &CallContext, number: u32, count: u32, out: Sender<u32>) -> Result<()> {
    out.send(number)?;
    INSIDE.fetch_add(1, Ordering::SeqCst);
    while INSIDE.load(Ordering::SeqCst) < count {
        cx.sleep(Duration::from_millis(1))?;
    }
    Ok(())
}

/// Notes how many are inside at most.
fn enter(ms: u64) {
    let inside = INSIDE.fetch_add(1, Ordering::SeqCst) + 1;
    MOST.fetch_max(inside, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(ms));
    INSIDE.fetch_sub(1, Ordering::SeqCst);
}

fn most() -> u32 {
    MOST.load(Ordering::SeqCst)
}

fn pid() -> u32 {
    std::process::id()
}

fn pool(threads: u32) -> (Router, Context) {
    let router = mitogen_test_program().router().unwrap();
    let child = router.local().threads(threads).connect().unwrap();
    (router, child)
}

/// Fails unless a process has so many threads for calls beside its first.
#[track_caller]
fn has_more_threads(pid: u32, count: usize) {
    let threads = || census(pid).threads.iter().filter(|name| *name == "mitogen-call").count();
    // Each gives itself its name.
    let found = until(LIMIT, || (threads() == count).then_some(()));
    assert!(found.is_some(), "{:?}", census(pid).threads);
}

#[test]
fn so_many_calls_run_at_once_and_begin_in_the_order_sent() {
    leaves_nothing(&[], || {
        let (router, child) = pool(4);
        let pid = child.call(pid, ()).unwrap();
        has_more_threads(pid, 3);
        let begun = router.receiver::<u32>();
        // A fifth would be needed, and does not begin.
        let calls: Vec<_> =
            (0..6).map(|i| child.call_async(meet, (i, 5, begun.to_sender()))).collect();
        let mut first: Vec<u32> = (0..4).map(|_| begun.get_timeout(LIMIT).unwrap()).collect();
        first.sort();
        assert_eq!(first, [0, 1, 2, 3]);
        assert!(begun.get_timeout(Duration::from_millis(100)).is_err());
        let mut calls = calls.into_iter();
        drop(calls.next());
        assert_eq!(begun.get_timeout(LIMIT).unwrap(), 4);
        calls.for_each(|call| call.get_timeout(LIMIT).unwrap());
        assert_eq!(begun.get_timeout(LIMIT).unwrap(), 5);
        child.shutdown().unwrap();
    });
}

#[test]
fn no_more_than_that_run_at_once_and_without_a_pool_one() {
    let _company = beside_others();
    for (threads, expected) in [(1, 1), (3, 3)] {
        let (_router, child) = pool(threads);
        let calls: Vec<_> = (0..30).map(|_| child.call_async(enter, 5)).collect();
        calls.into_iter().for_each(|call| call.get().unwrap());
        assert_eq!(child.call(most, ()).unwrap(), expected);
    }
}

#[test]
fn the_calls_of_one_chain_run_one_after_the_other_and_others_meanwhile() {
    let _company = beside_others();
    let (router, child) = pool(4);
    let chain = child.chain();
    let calls: Vec<_> = (0..30).map(|_| chain.call_async(enter, 3)).collect();
    calls.into_iter().for_each(|call| call.get().unwrap());
    assert_eq!(child.call(most, ()).unwrap(), 1);
    // Behind one that stands still, those of others begin.
    let begun = router.receiver::<u32>();
    let stands = chain.call_async(meet, (0, 1000, begun.to_sender()));
    let blocked = chain.call_async(meet, (1, 0, begun.to_sender()));
    assert_eq!(begun.get_timeout(LIMIT).unwrap(), 0);
    child.call(stock::ping, ()).unwrap();
    let other = child.chain();
    other.call(meet, (2, 0, begun.to_sender())).unwrap();
    assert_eq!(begun.get_timeout(LIMIT).unwrap(), 2);
    assert!(begun.get_timeout(Duration::from_millis(50)).is_err());
    drop((stands, blocked));
    child.call(stock::ping, ()).unwrap();
}

#[test]
fn a_pool_is_busy_until_the_last_of_its_functions_has_ended() {
    let _company = beside_others();
    let (_router, child) = pool(2);
    let pid = child.call(pid, ()).unwrap();
    let slow = child.call_async(enter, 700);
    assert!(until(LIMIT, || (child.call(most, ()).unwrap() == 1).then_some(())).is_some());
    let ending = child.shutdown_async().unwrap();
    ending.wait().unwrap();
    // The function had the time that an end gives.
    slow.get().unwrap();
    let is_gone = || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(());
    assert!(until(LIMIT, is_gone).is_some());
}

#[test]
fn an_address_says_how_many_threads_and_a_bad_number_is_refused() {
    let _company = beside_others();
    let router = mitogen_test_program().router().unwrap();
    let text = "local?threads=3";
    assert_eq!(text.parse::<mitogen::Address>().unwrap().to_string(), text);
    let child = router.connect(&text.parse().unwrap()).unwrap();
    has_more_threads(child.call(pid, ()).unwrap(), 2);
    let below = router.local().via(&child).threads(2).connect().unwrap();
    has_more_threads(below.call(pid, ()).unwrap(), 1);
    for count in [0, 257] {
        let error = router.local().threads(count).connect().unwrap_err();
        let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
        assert!(matches!(error.failure, ConnectFailure::BadOption(_)), "{error}");
    }
    assert!("local?threads=0".parse::<mitogen::Address>().is_err());
}
