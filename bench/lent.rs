//! What it brings that a loop's turn is lent, and what it costs others: each load with the turn
//! lent, next to the same where the broker's thread keeps it.

use std::thread;
use std::time::{Duration, Instant};

use mitogen::{Broker, CallContext, Context, Image, Program, Result, Router};

use crate::measure::{self, Outcome, Pinned, Samples, Track};
use crate::report::Report;
use crate::rounds;

/// Time that a thread computes between two calls.
const COMPUTES: Duration = Duration::from_micros(800);
/// Time between two calls of one who calls seldom.
const PAUSE: Duration = Duration::from_millis(3);
/// Threads that call at a time.
const CALLERS: usize = 4;

/// Costs nothing but the call.
fn nothing() {}

/// Which process this is.
fn process() -> u32 {
    std::process::id()
}

/// Has this process's broker keep the turn.
fn keep_turn(cx: &CallContext) {
    cx.router().broker().never_lend();
}

/// Calls another context for so long, and computes between the calls.
fn call_and_compute(other: Context, ms: u64) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(ms) {
        other.call(nothing, ())?;
        let since = Instant::now();
        while since.elapsed() < COMPUTES {
            std::hint::spin_loop();
        }
    }
    Ok(())
}

/// The functions of these rows.
pub fn add_to(program: Program) -> Program {
    program.function(nothing).function(process).function(keep_turn).function(call_and_compute)
}

/// A child with two children, and whether their brokers and ours lend.
struct Tree {
    _router: Router,
    near: Context,
    far: [Context; 2],
    /// Ours, and the child's.
    pids: [u32; 2],
}

impl Tree {
    fn new(lends: bool) -> Outcome<Tree> {
        let broker = Broker::new()?;
        let own = Image::file(std::env::current_exe()?)?;
        let router = add_to(Program::new()).broker(&broker).image(own).router()?;
        let near = router.local().connect()?;
        let far = || router.local().via(&near).connect();
        let far = [far()?, far()?];
        if !lends {
            broker.never_lend();
            [&near, &far[0], &far[1]].into_iter().try_for_each(|it| it.call(keep_turn, ()))?;
        }
        let pids = [process(), near.call(process, ())?];
        Ok(Tree { _router: router, near, far, pids })
    }

    fn call(&self) -> Outcome<()> {
        Ok(self.near.call(nothing, ())?)
    }

    /// Calls per second of several threads.
    fn crowd(&self) -> Outcome<f64> {
        const CALLS: usize = 3000;
        let begun = Instant::now();
        let work = || (0..CALLS).try_for_each(|_| self.near.call(nothing, ()));
        thread::scope(|scope| -> Outcome<()> {
            let threads: Vec<_> = (0..CALLERS).map(|_| scope.spawn(work)).collect();
            for it in threads {
                it.join().map_err(|_| "a caller panicked")??;
            }
            Ok(())
        })?;
        Ok((CALLERS * CALLS) as f64 / begun.elapsed().as_secs_f64())
    }

    /// Calls what is behind the child, while the child calls and computes.
    fn pass(&self, taken: &mut Samples) -> Outcome<()> {
        let busy = self.near.call_async(call_and_compute, (&self.far[0], 500));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(400) {
            let since = Instant::now();
            self.far[1].call(nothing, ())?;
            taken.push(since.elapsed().as_secs_f64() * 1e6);
        }
        Ok(busy.get()?)
    }
}

/// All of them.
pub fn rows(report: &mut Report) -> Outcome<()> {
    let (plain, lent) = (Tree::new(false)?, Tree::new(true)?);
    one_caller(report, &plain, &lent)?;
    seldom(report, &plain, &lent)?;
    let (kept, shared) = measure::in_turn(
        rounds(5),
        |taken| taken.take(plain.crowd()),
        |taken| taken.take(lent.crowd()),
    )?;
    report.samples("lent: calls of 4 callers", &kept, &shared)?;
    let (kept, shared) =
        measure::in_turn(rounds(3), |taken| plain.pass(taken), |taken| lent.pass(taken))?;
    report.samples("lent: forwarded while the hop computes", &kept, &shared)
}

fn one_caller(report: &mut Report, plain: &Tree, lent: &Tree) -> Outcome<()> {
    let pids = [plain.pids[0], plain.pids[1], lent.pids[1]];
    let _pinned = Pinned::new(&pids)?;
    let (mut kept, mut shared) = (Track::default(), Track::default());
    for _ in 0..rounds(5) {
        kept.block(&plain.pids, 1000, || plain.call())?;
        shared.block(&lent.pids, 1000, || lent.call())?;
    }
    report.samples("lent: one caller, one core", &kept.samples_us, &shared.samples_us)?;
    report.value("lent: processor time per call, one core", kept.cpu_us(), shared.cpu_us())
}

fn seldom(report: &mut Report, plain: &Tree, lent: &Tree) -> Outcome<()> {
    let call_seldom = |tree: &Tree| {
        thread::sleep(PAUSE);
        tree.call()
    };
    let (mut kept, mut shared) = (Track::default(), Track::default());
    for _ in 0..rounds(3) {
        kept.block(&plain.pids, 100, || call_seldom(plain))?;
        shared.block(&lent.pids, 100, || call_seldom(lent))?;
    }
    report.value("lent: wake-ups per call, one in 3 ms", kept.wakeups(), shared.wakeups())
}
