//! What printing and logging cost where nothing is printed, and where the master is slow to take
//! it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mitogen::{Level, Program, log_to, stock};

use crate::guest::{SOCKETS, assert_is_modest};
use crate::support::*;

mitogen::test_agent!(program());

const LIMIT: Duration = Duration::from_secs(20);
const SECOND: Duration = Duration::from_secs(1);
const LINE_BYTES: usize = 1000;
const LINES: usize = 10_000;

fn program() -> Program {
    Program::new().function(pid).function(print).function(print_beside)
}

fn pid() -> u32 {
    std::process::id()
}

fn print(lines: usize) {
    let line = "x".repeat(LINE_BYTES - 1);
    (0..lines).for_each(|_| println!("{line}"));
}

/// Has another thread print until it must wait for good.
#[allow(unsafe_code)]
fn print_beside() {
    thread::spawn(|| print(LINES));
    let (events, revents) = (libc::POLLOUT, 0);
    let mut stdout = libc::pollfd { fd: 1, events, revents };
    loop {
        // SAFETY: one entry, ours to write.
        let ready = unsafe { libc::poll(&mut stdout, 1, 0) };
        let full_for_long = ready == 0 && {
            thread::sleep(SECOND / 2);
            // SAFETY: as above.
            unsafe { libc::poll(&mut stdout, 1, 500) == 0 }
        };
        if full_for_long {
            return;
        }
    }
}

/// Counts the records, and takes so long for each that was printed.
fn count_records(pause: Duration) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counts = count.clone();
    let sink = move |record: &mitogen::Record<'_>| {
        if record.target == "stdout" {
            thread::sleep(pause);
        }
        counts.fetch_add(1, Ordering::SeqCst);
    };
    log_to(Level::Info, Box::new(sink));
    count
}

#[test]
fn idle_contexts_that_log_wake_nobody_print_nothing_and_stay_modest() {
    let name = "stdio_slow::idle_contexts_that_log_wake_nobody_print_nothing_and_stay_modest";
    in_process_of_test(name, || {
        let count = count_records(Duration::ZERO);
        for program in [Program::new().image(stock_image()), mitogen_test_program()] {
            let (router, hops) = three_hops(program);
            assert_is_modest(&hops[2], SOCKETS);
            let pids = hops.each_ref().map(|hop| hop.call(stock::identify, ()).unwrap().pid);
            let own = [std::process::id()];
            let all = || pids.iter().chain(&own).map(|pid| switches(*pid, None)).sum::<u64>();
            // What was begun settles.
            thread::sleep(SECOND / 2);
            let quiet = || {
                let before = (pids.map(|pid| switches(pid, None)), count.load(Ordering::SeqCst));
                let mine = all();
                thread::sleep(2 * SECOND);
                let after = (pids.map(|pid| switches(pid, None)), count.load(Ordering::SeqCst));
                // This thread has slept.
                assert!(all() - mine < 5);
                (before == after).then_some(())
            };
            assert!(until(LIMIT, quiet).is_some(), "they are never quiet");
            router.shutdown();
        }
    });
}

#[test]
fn a_slow_sink_holds_up_who_prints_and_neither_calls_nor_the_end() {
    let name = "stdio_slow::a_slow_sink_holds_up_who_prints_and_neither_calls_nor_the_end";
    in_process_of_test(name, || {
        let count = count_records(Duration::from_millis(100));
        let router = mitogen_test_program().router().unwrap();
        let first = router.local().connect().unwrap();
        let second = router.local().via(&first).connect().unwrap();
        let third = router.local().via(&second).threads(2).connect().unwrap();
        let hops = [&first, &second, &third];
        let pids = hops.map(|hop| hop.call(pid, ()).unwrap());
        let pids = [pids[0], pids[1], pids[2], std::process::id()];
        let before = pids.map(own_kib);
        let printing = third.call_async(print, LINES);
        let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
        while begun.elapsed() < 3 * SECOND {
            for hop in hops {
                let begun = Instant::now();
                hop.call(pid, ()).unwrap();
                slowest = slowest.max(begun.elapsed());
            }
            thread::sleep(Duration::from_millis(5));
        }
        let taken = count.load(Ordering::SeqCst);
        assert!((10..100).contains(&taken), "{taken} records");
        let grown: Vec<_> = pids.iter().zip(before).map(|(pid, kib)| own_kib(*pid) - kib).collect();
        assert!(grown.iter().all(|kib| *kib < 2048), "{grown:?} KiB");
        assert!(slowest < SECOND, "{slowest:?}");
        let begun = Instant::now();
        router.shutdown();
        let elapsed = begun.elapsed();
        eprintln!("grew by {grown:?} KiB; a call took {slowest:?} at most; the end {elapsed:?}");
        assert!(printing.get().is_err());
        // To gather the log; for user code that does not return; for the sink.
        assert!(elapsed < SECOND + 3 * SECOND + 3 * SECOND + SECOND, "{elapsed:?}");
    });
}

#[test]
fn a_thread_that_waits_as_it_prints_does_not_hold_up_the_answers_of_others() {
    let name =
        "stdio_slow::a_thread_that_waits_as_it_prints_does_not_hold_up_the_answers_of_others";
    in_process_of_test(name, || {
        let is_free = Arc::new(AtomicBool::new(false));
        let (count, free) = (Arc::new(AtomicU64::new(0)), is_free.clone());
        let counts = count.clone();
        let sink = move |record: &mitogen::Record<'_>| {
            while !free.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            counts.fetch_add((record.target == "stdout").into(), Ordering::SeqCst);
        };
        log_to(Level::Info, Box::new(sink));
        let router = mitogen_test_program().router().unwrap();
        let child = router.local().connect().unwrap();
        child.call_async(print_beside, ()).get_timeout(LIMIT).unwrap();
        for _ in 0..100 {
            child.call_async(pid, ()).get_timeout(LIMIT).unwrap();
        }
        is_free.store(true, Ordering::SeqCst);
        let all = || (count.load(Ordering::SeqCst) == LINES as u64).then_some(());
        assert!(until(LIMIT, all).is_some(), "{count:?} of {LINES} lines");
        router.shutdown();
    });
}
