//! What it costs a call that it could be logged, and is not: with a sink that takes warnings, of
//! which there are none, next to the same where nobody takes anything.

use mitogen::{Level, Router, log_at, log_to};

use crate::measure::{Outcome, Pinned, Track};
use crate::ours::{empty, pid};
use crate::report::Report;
use crate::rounds;

/// All of them. In each round, the child is told first of the level that counts.
pub fn rows(router: &Router, report: &mut Report) -> Outcome<()> {
    let context = router.local().connect()?;
    let pids = [pid(), context.call(pid, ())?];
    log_to(Level::Warn, Box::new(|record| eprintln!("{record}")));
    let _pinned = Pinned::new(&pids)?;
    let (mut without, mut with) = (Track::default(), Track::default());
    for _ in 0..rounds(10) {
        for (level, track) in [(None, &mut without), (Some(Level::Warn), &mut with)] {
            log_at(level);
            // What follows it there finds it done.
            (0..100).try_for_each(|_| context.call(empty, ()))?;
            track.block(&pids, 1000, || Ok(context.call(empty, ())?))?;
        }
    }
    log_at(None);
    context.shutdown()?;
    report.samples("silent: round trip, one core", &without.samples_us, &with.samples_us)?;
    report.value("silent: wake-ups per call, one core", without.wakeups(), with.wakeups())?;
    report.value("silent: processor time per call", without.cpu_us(), with.cpu_us())
}
