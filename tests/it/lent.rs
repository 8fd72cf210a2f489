//! A loop that is lent to the thread that waits: what that saves, and that nobody else notices.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mitogen::error::ErrorKind;
use mitogen::{Context, Program, Result, Sender};

use crate::support::*;

mitogen::test_agent!(program());

const MS: Duration = Duration::from_millis(1);
const LIMIT: Duration = Duration::from_secs(20);
const CALLS: u32 = 1000;

fn program() -> Program {
    let program = Program::new().function(empty).function(pid).function(nap).function(pour);
    program.function(call_often).function(call_and_wait).function(call_and_compute)
}

fn empty() {}

fn pid() -> u32 {
    std::process::id()
}

fn nap(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn pour(count: u32, out: Sender<u32>) -> Result<()> {
    (0..count).try_for_each(|i| out.send(i))
}

/// Calls another without a pause.
fn call_often(other: Context, count: u32) -> Result<()> {
    (0..count).try_for_each(|_| other.call(empty, ()))
}

/// The same, then makes one call that takes long.
fn call_and_wait(other: Context, ms: u64) -> Result<()> {
    call_often(other.clone(), 200)?;
    other.call(nap, ms)
}

/// Calls another for a while, and computes between the calls.
fn call_and_compute(other: Context, ms: u64) -> Result<u32> {
    let (begun, mut calls) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_millis(ms) {
        other.call(empty, ())?;
        calls += 1;
        let since = Instant::now();
        while since.elapsed() < MS * 4 / 5 {
            std::hint::spin_loop();
        }
    }
    Ok(calls)
}

/// A child, a child of that, and their processes.
struct Scene {
    near: Context,
    far: Context,
    pids: [u32; 2],
}

fn scene() -> Scene {
    let router = mitogen_test_program().router().unwrap();
    let near = router.local().connect().unwrap();
    let far = router.local().via(&near).connect().unwrap();
    let pids = [&near, &far].map(|context| context.call(pid, ()).unwrap());
    Scene { near, far, pids }
}

#[test]
fn a_thousand_calls_wake_neither_broker_more_than_now_and_then() {
    let _alone = alone();
    let scene = scene();
    let wakes = |_| {
        let before = scene.pids.map(|pid| switches(pid, Some("mitogen-broker")));
        scene.near.call(call_often, (&scene.far, CALLS)).unwrap();
        let after = scene.pids.map(|pid| switches(pid, Some("mitogen-broker")));
        (after[0] - before[0]).max(after[1] - before[1])
    };
    // Others may use the machine.
    let wakes: Vec<u64> = (0..10).map(wakes).collect();
    let least = *wakes.iter().min().unwrap();
    assert!(least < u64::from(CALLS) / 5, "{wakes:?} in {CALLS} calls");
}

#[test]
fn a_call_that_is_pending_for_long_wakes_nobody() {
    let _alone = alone();
    let scene = scene();
    let call = scene.near.call_async(call_and_wait, (&scene.far, 4000));
    let all = || scene.pids.map(|pid| switches(pid, None));
    std::thread::sleep(1000 * MS);
    let before = all();
    std::thread::sleep(2000 * MS);
    assert_eq!(all(), before);
    call.get_timeout(LIMIT).unwrap();
}

#[test]
fn a_message_passes_soon_while_the_hops_thread_calls_and_computes() {
    let _alone = alone();
    let scene = scene();
    let call = scene.near.call_async(call_and_compute, (&scene.far, 2000));
    let mut late = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        scene.far.call(empty, ()).unwrap();
        late.push(begun.elapsed());
        std::thread::sleep(3 * MS);
    }
    late.sort_unstable();
    let calls = call.get_timeout(LIMIT).unwrap();
    assert!(late[late.len() / 2] < 5 * MS && 100 < calls, "{calls} calls; {late:?}");
}

/// Calls with all kinds of deadlines from several threads, streams beside them, signals on top.
#[test]
#[allow(unsafe_code)]
fn nothing_is_lost_among_callers_that_time_out_and_are_interrupted() {
    extern "C" fn nothing(_: libc::c_int) {}
    let _beside = beside_others();
    // SAFETY: a handler that does nothing is safe to run at any moment.
    unsafe { libc::signal(libc::SIGUSR2, nothing as *const () as libc::sighandler_t) };
    let router = mitogen_test_program().router().unwrap();
    let child = router.local().connect().unwrap();
    let (end, is_over) = (Instant::now() + 3000 * MS, AtomicBool::new(false));
    std::thread::scope(|scope| {
        for seed in 1..=3u32 {
            let child = child.clone();
            let (tell, told) = std::sync::mpsc::channel();
            let is_over = &is_over;
            scope.spawn(move || {
                // SAFETY: takes nothing.
                tell.send(unsafe { libc::pthread_self() } as usize).unwrap();
                let mut random = seed;
                while Instant::now() < end {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let time = if random >> 30 == 0 { MS / 20 } else { LIMIT };
                    let got = child.call_async(empty, ()).get_timeout(time);
                    let kind = got.as_ref().map_err(|error| error.kind());
                    assert!(
                        matches!(kind, Ok(()) | Err(ErrorKind::Interrupted | ErrorKind::Timeout)),
                        "{got:?}"
                    );
                }
                while !is_over.load(Ordering::Relaxed) {
                    std::thread::sleep(MS);
                }
            });
            scope.spawn(move || {
                let thread = told.recv().unwrap() as libc::pthread_t;
                while Instant::now() < end {
                    // SAFETY: the thread lives until it is told that all is over.
                    unsafe { libc::pthread_kill(thread, libc::SIGUSR2) };
                    std::thread::sleep(7 * MS);
                }
            });
        }
        let (router, child, is_over) = (&router, &child, &is_over);
        scope.spawn(move || {
            while Instant::now() < end {
                let numbers = router.receiver::<u32>();
                child.call_no_reply(pour, (500, numbers.to_sender())).unwrap();
                assert!(numbers.into_iter().map(Result::unwrap).eq(0..500));
            }
            is_over.store(true, Ordering::Relaxed);
        });
    });
    child.call(empty, ()).unwrap();
}
