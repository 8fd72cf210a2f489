//! Calls that nobody waits for any more: they never begin, or see it; and leave nothing behind.

use std::time::Duration;

use mitogen::error::{Cause, ErrorKind};
use mitogen::{CallContext, Context, Error, Program, Result, Sender, stock};

use crate::support::{
    beside_others, census, leaves_nothing, own_descriptors, own_threads, three_hops, until,
};

mitogen::test_agent!(program());

fn program() -> Program {
    Program::new()
        .function(wait)
        .function(begin)
        .function(spin)
        .function(relay)
        .function(pid)
        .function(work_until_asked)
}

const LIMIT: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(1000);

/// Says that it has begun, then waits until it is cancelled, and says so.
fn wait(cx: &CallContext, out: Sender<String>) -> Result<()> {
    out.send("begun")?;
    let slept = cx.sleep(LONG);
    out.send("cancelled")?;
    slept
}

/// As `wait`, by looking again and again.
fn spin(cx: &CallContext, out: Sender<String>) -> Result<()> {
    out.send("begun")?;
    while !cx.is_cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
    out.send("cancelled")
}

/// Returns how often it has slept, once it is to end.
fn work_until_asked(cx: &CallContext, begun: Sender<()>) -> Result<u32> {
    begun.send(())?;
    let mut naps = 0;
    while !cx.is_cancelled() {
        naps += 1;
        // Until it is asked, that is.
        let _ = cx.sleep(LONG);
    }
    Ok(naps)
}

/// Says that it has begun.
fn begin(out: Sender<String>, _: Vec<u8>) -> Result<()> {
    out.send("begun")
}

/// Calls `wait` further on, as a part of this call, by way of those in the list.
fn relay(cx: &CallContext, mut on: Vec<Context>, out: Sender<String>) -> Result<()> {
    let Some(next) = on.pop() else { return wait(cx, out) };
    cx.on(&next).call(relay, (on, out))
}

fn pid() -> u32 {
    std::process::id()
}

#[track_caller]
fn cause(error: &Error) -> Cause {
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    death.cause
}

#[test]
fn a_dropped_call_is_seen_three_hops_away_by_who_waits_and_by_who_looks() {
    leaves_nothing(&[], || {
        let (router, [_, _, far]) = three_hops(mitogen_test_program());
        for waits in [true, false] {
            let said = router.receiver::<String>();
            let call = match waits {
                true => far.call_async(wait, said.to_sender()),
                false => far.call_async(spin, said.to_sender()),
            };
            assert_eq!(said.get_timeout(LIMIT).unwrap(), "begun");
            drop(call);
            assert_eq!(said.get_timeout(LIMIT).unwrap(), "cancelled");
        }
        far.call(stock::ping, ()).unwrap();
    });
}

#[test]
fn what_waits_in_the_queue_is_taken_out_while_the_one_before_it_runs() {
    leaves_nothing(&[], || {
        let (router, [_, _, far]) = three_hops(mitogen_test_program());
        let (first, others) = (router.receiver::<String>(), router.receiver::<String>());
        let running = far.call_async(wait, first.to_sender());
        assert_eq!(first.get_timeout(LIMIT).unwrap(), "begun");
        // Some of them in many fragments.
        for bytes in [0, 10, 20_000, 5_000_000, 30] {
            drop(far.call_async(begin, (others.to_sender(), vec![7; bytes])));
        }
        let end = others.get_timeout(LIMIT).unwrap_err();
        assert_eq!(cause(&end), Cause::Cancelled);
        drop(running);
        assert_eq!(first.get_timeout(LIMIT).unwrap(), "cancelled");
        far.call(stock::ping, ()).unwrap();
    });
}

#[test]
fn a_cancelled_call_takes_along_the_calls_that_it_waits_for_hop_by_hop() {
    leaves_nothing(&[], || {
        let (router, [first, second, third]) = three_hops(mitogen_test_program());
        let said = router.receiver::<String>();
        let on = vec![third.clone(), second.clone()];
        let call = first.call_async(relay, (on, said.to_sender()));
        assert_eq!(said.get_timeout(LIMIT).unwrap(), "begun");
        drop(call);
        assert_eq!(said.get_timeout(LIMIT).unwrap(), "cancelled");
        for context in [&first, &second, &third] {
            context.call(stock::ping, ()).unwrap();
        }
    });
}

#[test]
fn a_wait_that_times_out_cancels_the_call() {
    let _company = beside_others();
    let (router, [_, _, far]) = three_hops(mitogen_test_program());
    let said = router.receiver::<String>();
    let call = far.call_async(wait, said.to_sender());
    assert_eq!(said.get_timeout(LIMIT).unwrap(), "begun");
    let error = call.get_timeout(Duration::from_millis(50)).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Timeout);
    assert_eq!(said.get_timeout(LIMIT).unwrap(), "cancelled");
}

#[test]
fn thousands_of_cancelled_calls_leave_no_thread_no_descriptor_and_no_memory() {
    leaves_nothing(&[], || {
        let router = mitogen_test_program().router().unwrap();
        let child = router.local().connect().unwrap();
        let pid = child.call(pid, ()).unwrap();
        let round = || {
            let said = router.receiver::<String>();
            let calls: Vec<_> = (0..2000)
                .map(|i| match i {
                    0 => child.call_async(wait, said.to_sender()),
                    _ => child.call_async(begin, (said.to_sender(), vec![7; 1000])),
                })
                .collect();
            assert_eq!(said.get_timeout(LIMIT).unwrap(), "begun");
            drop(calls);
            while said.get_timeout(LIMIT).is_ok() {}
            child.call(stock::ping, ()).unwrap();
        };
        round();
        let state = || (own_descriptors().len(), own_threads().len(), census(pid).kinds().len());
        let threads = census(pid).threads;
        let (before, memory) = (state(), resident(pid));
        (0..20).for_each(|_| round());
        assert_eq!(census(pid).threads, threads);
        assert!(until(LIMIT, || (state() == before).then_some(())).is_some(), "{:?}", state());
        // 40,000 calls of 1,000 bytes, of which nothing stays.
        let grown = resident(pid).saturating_sub(memory);
        assert!(grown < 4 << 20, "{grown} bytes more");
    });
}

/// Bytes that a process has in memory.
fn resident(pid: u32) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    4096 * text.split(' ').nth(1).unwrap().parse::<usize>().unwrap()
}

#[test]
fn a_function_sees_that_its_context_is_to_end_and_what_it_returns_then_arrives() {
    leaves_nothing(&[], || {
        let (router, chain) = three_hops(mitogen_test_program());
        let begun = router.receiver();
        let call = chain[2].call_async(work_until_asked, begun.to_sender());
        begun.get().unwrap();
        let asked = std::time::Instant::now();
        chain[0].shutdown().unwrap();
        assert_eq!(call.get().unwrap(), 1);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    });
}
