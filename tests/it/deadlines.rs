//! Limits of time that travel with calls.

use std::time::{Duration, Instant};

use mitogen::error::ErrorKind;
use mitogen::{CallContext, Context, Error, Program, Result, Sender, stock};

use crate::support::{beside_others, leaves_nothing, processor_time, three_hops};

mitogen::test_agent!(program());

fn program() -> Program {
    let program = Program::new().function(nap).function(note).function(left).function(pass_on);
    program.function(stubborn).function(pid)
}

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(20);

/// Sleeps for ten seconds, and says when it was cancelled.
fn nap(cx: &CallContext, out: Sender<String>) -> Result<()> {
    let begun = Instant::now();
    let slept = cx.sleep(10 * SECOND);
    assert!(cx.deadline().is_some());
    let ms = begun.elapsed().as_millis();
    out.send(format!("{} after {ms} ms", if cx.is_cancelled() { "cancelled" } else { "slept" }))?;
    // Until the time of what waits behind is up by this context's clock, too.
    std::thread::sleep(SECOND / 10);
    slept
}

/// Sleeps and looks at nothing.
fn stubborn(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Says that it has begun.
fn note(out: Sender<String>) -> Result<()> {
    out.send("begun")
}

/// Milliseconds that are left; 0 without a limit.
fn left(cx: &CallContext) -> u64 {
    let until = cx.deadline();
    until.map_or(0, |until| until.saturating_duration_since(Instant::now()).as_millis() as u64)
}

/// What is left there, asked as a part of this call after a while.
fn pass_on(cx: &CallContext, to: Context, ms: u64) -> Result<u64> {
    std::thread::sleep(Duration::from_millis(ms));
    cx.on(&to).call(left, ())
}

fn pid() -> u32 {
    std::process::id()
}

#[track_caller]
fn timed_out<T>(outcome: Result<T, Error>) {
    let error = outcome.map(drop).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Timeout, "{error}");
}

#[test]
fn ten_seconds_of_work_with_one_second_of_time_end_after_one_three_hops_away() {
    leaves_nothing(&[], || {
        let (router, [_, _, far]) = three_hops(mitogen_test_program());
        let (said, late) = (router.receiver::<String>(), router.receiver::<String>());
        let begun = Instant::now();
        let hasty = far.within(SECOND);
        let call = hasty.call_async(nap, said.to_sender());
        // Their time is up while they wait; and nobody waits for some of them.
        let waiting: Vec<_> = (0..100).map(|_| hasty.call_async(note, late.to_sender())).collect();
        for _ in 0..100 {
            hasty.call_no_reply(note, late.to_sender()).unwrap();
        }
        timed_out(call.get());
        let took = begun.elapsed();
        assert!(SECOND <= took && took < SECOND + SECOND / 2, "{took:?}");
        let heard = said.get_timeout(LIMIT).unwrap();
        let ms: u64 = heard.split(' ').nth(2).unwrap().parse().unwrap();
        assert!(heard.starts_with("cancelled after ") && ms < 1500, "{heard}");
        waiting.into_iter().for_each(|call| timed_out(call.get()));
        // The stream ends with the last of them, and none has begun.
        let end = late.get_timeout(LIMIT).unwrap_err();
        assert!(matches!(end.kind(), ErrorKind::Closed(_)), "{end}");
        far.call(stock::ping, ()).unwrap();
    });
}

#[test]
fn a_function_that_looks_at_nothing_holds_up_nobodys_error_and_lets_nothing_late_begin() {
    let _company = beside_others();
    let (router, [_, _, far]) = three_hops(mitogen_test_program());
    let late = router.receiver::<String>();
    let begun = Instant::now();
    let hasty = far.within(SECOND / 5);
    let stuck = hasty.call_async(stubborn, 1500);
    let behind = hasty.call_async(note, late.to_sender());
    timed_out(behind.get());
    timed_out(stuck.get());
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    assert!(late.get_timeout(LIMIT).is_err());
    far.call(stock::ping, ()).unwrap();
    assert!(3 * SECOND / 2 <= begun.elapsed());
}

#[test]
fn what_is_left_travels_and_the_sooner_limit_counts() {
    let _company = beside_others();
    let (_router, [near, _, far]) = three_hops(mitogen_test_program());
    assert_eq!(far.call(left, ()).unwrap(), 0);
    let left_there = far.within(100 * SECOND).call(left, ()).unwrap();
    assert!((90_000..=100_000).contains(&left_there), "{left_there}");
    let left_there = far.within(100 * SECOND).within(50 * SECOND).call(left, ()).unwrap();
    assert!((40_000..=50_000).contains(&left_there), "{left_there}");
    let left_there = far.within(50 * SECOND).within(100 * SECOND).call(left, ()).unwrap();
    assert!((40_000..=50_000).contains(&left_there), "{left_there}");
    let left_there = near.within(100 * SECOND).call(pass_on, (&far, 300)).unwrap();
    assert!((90_000..=99_700).contains(&left_there), "{left_there}");
    assert_eq!(near.call(pass_on, (&far, 0)).unwrap(), 0);
    timed_out(near.within(SECOND / 10).call(pass_on, (&far, 300)));
    timed_out(near.within(Duration::ZERO).call(left, ()));
    assert_eq!(0, near.within(Duration::MAX).call(left, ()).unwrap());
}

#[test]
fn a_call_whose_time_is_up_is_cancelled_there_though_nobody_says_so() {
    let _company = beside_others();
    let (router, [_, _, far]) = three_hops(mitogen_test_program());
    let said = router.receiver::<String>();
    // Nobody waits for it, so nobody here notices the end of its time.
    let call = far.within(SECOND / 5).call_async(nap, said.to_sender());
    assert!(said.get_timeout(LIMIT).unwrap().starts_with("cancelled"));
    far.call(stock::ping, ()).unwrap();
    timed_out(call.get());
}

#[test]
fn calls_whose_time_is_far_off_cost_no_processor_time() {
    let _company = beside_others();
    let router = mitogen_test_program().router().unwrap();
    let child = router.local().connect().unwrap();
    let pid = child.call(pid, ()).unwrap();
    let said = router.receiver::<String>();
    let call = child.within(100 * SECOND).call_async(nap, said.to_sender());
    std::thread::sleep(SECOND / 2);
    let before = processor_time(pid).unwrap();
    std::thread::sleep(SECOND);
    assert!(processor_time(pid).unwrap() - before < Duration::from_millis(20));
    drop(call);
}
