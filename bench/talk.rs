//! Rows of what threads and neighbours do to each other: two threads over latches, a small call
//! beside a neighbour's bulk, a call that nobody answers for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{process, thread};

use mitogen::{Context, Latch, Router, Sender};

use crate::floors::{self, BLOCK_BYTES};
use crate::measure::{self, Outcome, Samples, Track};
use crate::ours::{empty, pid};
use crate::report::Report;
use crate::rounds;

/// How long a call is watched that nobody answers.
const PENDING: Duration = Duration::from_secs(10);
/// Between the blocks of a reader that takes 1 MiB a second.
const SLOW_PAUSE: Duration = Duration::from_millis(1000 / ((1 << 20) / BLOCK_BYTES) as u64);

/// Sends random bytes until nobody takes any more.
pub fn pour_on(out: Sender<Vec<u8>>) {
    let block = floors::random_bytes(BLOCK_BYTES);
    while out.send(&block).is_ok() {}
}

/// Sleeps.
pub fn nap(millis: u64) {
    thread::sleep(Duration::from_millis(millis));
}

/// Two threads that hand one item to and fro, next to two that do so through two socket pairs.
pub fn latches(report: &mut Report) -> Outcome<()> {
    const TURNS: usize = 2000;
    let (floor, ours) = measure::in_turn(
        rounds(9),
        |taken| taken.take(floors::sockets_us(TURNS)),
        |taken| {
            let (there, back) = (Arc::new(Latch::new()), Arc::new(Latch::new()));
            let (far_there, far_back) = (there.clone(), back.clone());
            let far = thread::spawn(move || {
                while let Ok(item) = far_there.get() {
                    if far_back.put(item).is_err() {
                        return;
                    }
                }
            });
            let mut each = Track::default();
            each.block(&[], TURNS, || {
                there.put(0u8)?;
                back.get()?;
                Ok(())
            })?;
            there.close();
            taken.push(each.samples_us.median());
            far.join().map_err(|_| "the other thread panicked".into())
        },
    )?;
    report.samples("latch round trip, two threads", &floor, &ours)
}

/// A small call to one child of a hop while another child of that hop sends all that is taken of
/// it: by a reader that takes 1 MiB a second, or all there is. Next to the same call before.
pub fn beside_bulk(router: &Router, report: &mut Report) -> Outcome<()> {
    let hop = router.local().connect()?;
    let (quiet, loud) = (router.local().via(&hop).connect()?, router.local().via(&hop).connect()?);
    for (what, pause) in [("slow", SLOW_PAUSE), ("full-speed", Duration::ZERO)] {
        let (mut idle, mut busy) = (Samples::default(), Samples::default());
        for _ in 0..rounds(3) {
            idle.push(call_us(&quiet)?);
            let blocks = router.receiver::<Vec<u8>>();
            loud.call_no_reply(pour_on, blocks.to_sender())?;
            let over = Arc::new(AtomicBool::new(false));
            let told = over.clone();
            let reader = thread::spawn(move || {
                for block in &blocks {
                    if block.is_err() || told.load(Ordering::Relaxed) {
                        return;
                    }
                    thread::sleep(pause);
                }
            });
            thread::sleep(Duration::from_millis(300));
            busy.push(call_us(&quiet)?);
            over.store(true, Ordering::Relaxed);
            reader.join().map_err(|_| "the reader panicked")?;
        }
        report.samples(&format!("small call beside a {what} bulk"), &idle, &busy)?;
    }
    for context in [quiet, loud, hop] {
        context.shutdown()?;
    }
    Ok(())
}

/// Median of some hundred calls.
fn call_us(context: &Context) -> Outcome<f64> {
    let mut each = Track::default();
    each.block(&[], 300, || Ok(context.call(empty, ())?))?;
    Ok(each.samples_us.median())
}

/// A thread that waits for an answer which does not come; this one only sleeps and is not counted.
pub fn pending_wakeups(router: &Router, report: &mut Report) -> Outcome<()> {
    let (context, me) = (router.local().connect()?, process::id());
    let pid = context.call(pid, ())?;
    let long = PENDING + Duration::from_secs(2);
    let call = context.call_async(nap, long.as_millis() as u64);
    let waiter = thread::spawn(move || call.get());
    thread::sleep(Duration::from_secs(1));
    let before = measure::usage_without(&[me, pid], me)?;
    thread::sleep(PENDING);
    let after = measure::usage_without(&[me, pid], me)?;
    let wakeups = after.wakeups - before.wakeups;
    report.value("wake-ups of a call pending for 10 s", 0.0, wakeups as f64)?;
    waiter.join().map_err(|_| "the waiting thread panicked")??;
    Ok(context.shutdown()?)
}
