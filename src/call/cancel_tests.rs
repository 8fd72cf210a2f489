//! What is left of calls that were cancelled, or whose time was up: nothing, on both sides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::call::token::Token;
use crate::error::{Cause, Death, ErrorKind};
use crate::{
    CallContext, Channel, ChannelEnd, Context, Error, Program, Result, Router, Select, Sender,
    stock,
};

const LIMIT: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(100);

fn router() -> Router {
    let program = Program::new().function(wait).function(hold).function(count).function(relay);
    program.router().unwrap()
}

/// Says that it has begun, then waits until it is cancelled, and says that it was.
fn wait(cx: &CallContext, out: Sender<String>) -> Result<()> {
    out.send("begun")?;
    let slept = cx.sleep(LONG);
    assert!(cx.is_cancelled());
    out.send("cancelled")?;
    slept
}

fn hold(cx: &CallContext, ms: u64) {
    // Somebody else is to be cancelled.
    let _ = cx.cancelled().get_timeout(Duration::from_millis(ms));
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Nothing that is cancelled before it begins comes here.
fn count(_: Option<Sender<String>>, _: Vec<u8>) {
    COUNT.fetch_add(1, Ordering::Relaxed);
}

/// Waits for another context's call, as a part of this one.
fn relay(cx: &CallContext, to: Context, out: Sender<String>) -> Result<()> {
    cx.on(&to).call(wait, out)
}

#[track_caller]
fn cause(error: &Error) -> Cause {
    let ErrorKind::Closed(Death { cause, .. }) = error.kind() else { panic!("{error}") };
    *cause
}

/// Handles of answers that are awaited here.
#[track_caller]
fn settles(router: &Router) {
    let begun = Instant::now();
    while 0 < router.node().handles().answers() {
        assert!(begun.elapsed() < LIMIT, "{} answers", router.node().handles().answers());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_dropped_call_ends_the_sleep_of_its_function_and_its_stream() {
    let router = router();
    let child = router.in_process().unwrap();
    let said = router.receiver::<String>();
    let call = child.call_async(wait, said.to_sender());
    assert_eq!(said.get_timeout(LIMIT).unwrap(), "begun");
    drop(call);
    assert_eq!(said.get_timeout(LIMIT).unwrap(), "cancelled");
    let death = said.get_timeout(LIMIT).unwrap_err();
    assert_eq!(cause(&death), Cause::Failed);
    settles(&router);
    child.call(stock::ping, ()).unwrap();
}

#[test]
fn a_call_that_is_dropped_before_it_begins_never_does_and_gives_its_senders_back() {
    let router = router();
    let child = router.in_process().unwrap();
    let said = router.receiver::<String>();
    let busy = child.call_async(hold, 100_000);
    let small = child.call_async(count, (Some(said.to_sender()), vec![]));
    let large = child.call_async(count, (Some(said.to_sender()), vec![0; 1 << 20]));
    drop(small);
    drop(large);
    // The first function runs still.
    let death = said.get_timeout(LIMIT).unwrap_err();
    assert_eq!(cause(&death), Cause::Cancelled);
    assert_eq!(router.node().handles().answers(), 1);
    drop(busy);
    settles(&router);
    child.call(stock::ping, ()).unwrap();
    assert_eq!(COUNT.load(Ordering::Relaxed), 0);
}

#[test]
fn a_cancelled_call_ends_those_that_are_part_of_it() {
    let router = router();
    let (near, far) = (router.in_process().unwrap(), router.in_process().unwrap());
    // A child may not call its sibling by itself.
    far.grant(&near).unwrap();
    let said = router.receiver::<String>();
    let call = near.call_async(relay, (&far, said.to_sender()));
    assert_eq!(said.get_timeout(LIMIT).unwrap(), "begun");
    drop(call);
    assert_eq!(said.get_timeout(LIMIT).unwrap(), "cancelled");
    settles(&router);
    far.call(stock::ping, ()).unwrap();
    near.call(stock::ping, ()).unwrap();
}

#[test]
fn a_link_that_is_cancelled_before_it_begins_lets_those_before_it_run() {
    let router = router();
    let child = router.in_process().unwrap();
    let said = router.receiver::<String>();
    let busy = child.call_async(wait, said.to_sender());
    assert_eq!(said.get_timeout(LIMIT).unwrap(), "begun");
    let chain = child.chain();
    let first = chain.call_async(stock::ping, ());
    let second = chain.call_async(count, (Some(said.to_sender()), vec![]));
    let third = chain.call_async(stock::ping, ());
    drop(second);
    drop(busy);
    first.get_timeout(LIMIT).unwrap();
    assert_eq!(cause(&third.get_timeout(LIMIT).unwrap_err()), Cause::Cancelled);
    settles(&router);
}

fn give_back(out: Sender<String>) -> Sender<String> {
    out
}

#[test]
fn an_answer_behind_a_cancellation_that_nobody_took_gives_its_senders_back() {
    let router = Program::new().function(give_back).router().unwrap();
    let child = router.in_process().unwrap();
    let said = router.receiver::<String>();
    let token = Arc::<Token>::default();
    let cx = CallContext::new(&router, router.context_id(), None, &token);
    let call = cx.on(&child).call_async(give_back, said.to_sender());
    token.cancel();
    settles(&router);
    drop(call);
    let end = said.get_timeout(LIMIT).unwrap_err();
    assert_eq!(cause(&end), Cause::SenderClosed);
}

static ENDED: AtomicU32 = AtomicU32::new(0);

fn wait_for_the_end(cx: &CallContext, out: Sender<String>) -> Result<()> {
    out.send("begun")?;
    let slept = cx.sleep(LONG);
    ENDED.fetch_add(1, Ordering::Relaxed);
    slept
}

#[test]
fn a_context_that_ends_ends_the_sleep_of_its_function() {
    let router = Program::new().function(wait_for_the_end).router().unwrap();
    let child = router.in_process().unwrap();
    let said = router.receiver::<String>();
    let call = child.call_async(wait_for_the_end, said.to_sender());
    assert_eq!(said.get_timeout(LIMIT).unwrap(), "begun");
    child.shutdown().unwrap();
    let _ = call.get_timeout(LIMIT).unwrap_err();
    let begun = Instant::now();
    while ENDED.load(Ordering::Relaxed) == 0 {
        assert!(begun.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn nap(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

#[test]
fn the_limit_of_a_call_in_a_select_counts_however_stuck_the_other_side_is() {
    let router = Program::new().function(nap).router().unwrap();
    let child = router.in_process().unwrap();
    let (begun, select) = (Instant::now(), Select::new());
    let call = child.within(Duration::from_millis(50)).call_async(nap, 3000);
    select.add(call, |outcome| outcome).unwrap();
    let outcome = select.next_timeout(LIMIT).unwrap().unwrap();
    assert_eq!(*outcome.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(select.next_timeout(LIMIT).unwrap().is_none());
}

fn give_both(
    out: Sender<String>,
    end: ChannelEnd<u32, u32>,
) -> (Sender<String>, ChannelEnd<u32, u32>) {
    (out, end)
}

/// A moment that is another for each of these numbers.
fn spin(number: u64) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_micros(number * 7 % 120) {
        std::hint::spin_loop();
    }
}

#[test]
fn streams_end_that_were_given_with_a_call_and_come_with_its_answer_whenever_it_is_dropped() {
    let router = Program::new().function(give_both).router().unwrap();
    let child = router.in_process().unwrap();
    let said = router.receiver::<String>();
    let channels: Vec<_> = (0..1000)
        .map(|i| {
            let until = if i % 2 == 0 { LONG } else { Duration::from_micros(20 + i % 60) };
            let (mine, theirs) = Channel::<u32, u32>::pair(&router);
            let call = child.within(until).call_async(give_both, (said.to_sender(), theirs));
            let select = Select::new();
            select.add(call, drop).unwrap();
            spin(i);
            mine
        })
        .collect();
    settles(&router);
    for end in channels.iter().flat_map(|mine| [mine.get_timeout(LIMIT).err(), mine.send(1).err()])
    {
        assert!(matches!(end.as_ref().map(Error::kind), Some(ErrorKind::Closed(_))), "{end:?}");
    }
    let end = said.get_timeout(LIMIT).unwrap_err();
    assert!(matches!(end.kind(), ErrorKind::Closed(_)), "{end}");
}

#[test]
fn a_chain_breaks_at_the_link_that_is_cancelled_whenever_that_is() {
    let router = router();
    let child = router.in_process().unwrap();
    for round in 0..200 {
        let chain = child.chain();
        let mut calls: Vec<_> = (0..12).map(|_| chain.call_async(stock::ping, ())).collect();
        spin(round);
        let at = round as usize % 11;
        drop(calls.remove(at));
        let outcomes = calls.into_iter().map(|call| call.get_timeout(LIMIT));
        let good: Vec<bool> = outcomes
            .map(|got| got.map_err(|e| assert_eq!(cause(&e), Cause::Cancelled)).is_ok())
            .collect();
        assert!(good[..at].iter().all(|good| *good), "{at}: {good:?}");
        // It may have run by then.
        assert!(good[at..].iter().all(|behind| *behind == good[at]), "{at}: {good:?}");
    }
    settles(&router);
}
