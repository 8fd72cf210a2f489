//! The budgets of the design, each measured next to its floor in one run:
//! `cargo bench --bench budgets -- [--floors] [--versus [FILE]] [WORD...]`.
//!
//! `--floors` measures nothing of ours. `--versus` has `bench/versus/run.sh` measure the original
//! and execnet too; what it last took stays in the table; a FILE.jsonl is shown instead. A WORD
//! selects the rows that contain it. `RUNS=5` takes five times as many samples as the default,
//! which is made to be quick.

mod floors;
mod lent;
mod measure;
mod ours;
mod report;
mod silent;
mod sshd;
mod talk;

use std::process::Command;
use std::{env, fs};

use floors::{Echo, SUDO_TRUE, TRUE};
use measure::{Outcome, Pinned, Samples, Track};
use report::Report;
use sshd::Sshd;

/// Where `bench/versus/run.sh` leaves its rows.
const VERSUS_FILE: &str = "target/versus.jsonl";

fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let Some(outcome) = floors::play_role(&arguments) {
        return outcome;
    }
    if arguments.contains(&"--floors") {
        return master(&arguments, &floors_alone);
    }
    ours::run(|rows| master(&arguments, rows))
}

fn master(arguments: &[&str], rows: &dyn Fn(&mut Report)) -> Outcome<()> {
    let mut report = Report::new(words(arguments))?;
    rows(&mut report);
    finish(arguments, &mut report)
}

/// What is neither an option nor the value of one. Cargo itself adds `--bench`.
fn words(arguments: &[&str]) -> Vec<String> {
    let file = versus(arguments).flatten();
    let words = arguments.iter().filter(|word| !word.starts_with("--") && Some(**word) != file);
    words.map(|word| (*word).to_owned()).collect()
}

/// Whether `--versus` was given, and the file after it.
fn versus<'a>(arguments: &[&'a str]) -> Option<Option<&'a str>> {
    let at = arguments.iter().position(|&argument| argument == "--versus")?;
    Some(arguments.get(at + 1).copied().filter(|next| next.ends_with(".jsonl")))
}

/// Adds the rows of other programs, if there are any, and prints the table.
fn finish(arguments: &[&str], report: &mut Report) -> Outcome<()> {
    match versus(arguments) {
        Some(Some(path)) => report.merge(path)?,
        Some(None) => {
            let mut script = Command::new("sh");
            script.arg("bench/versus/run.sh").env("FLOORS", env::current_exe()?);
            if !script.status()?.success() {
                report.remark("the original and execnet: bench/versus/run.sh failed");
            }
        }
        None => (),
    }
    if versus(arguments).flatten().is_none() && fs::exists(VERSUS_FILE)? {
        report.merge(VERSUS_FILE)?;
    }
    report.print();
    Ok(())
}

/// How many samples to take when the quick run takes `quick`.
fn rounds(quick: usize) -> usize {
    quick * env::var("RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// The floors without anything of ours beside them.
fn floors_alone(report: &mut Report) {
    report.try_rows("local connect", |report| {
        floor_of(report, "local connect and first call", 50, || floors::spawn_and_wait(&TRUE))
    });
    report.try_rows("ssh connect", |report| {
        let sshd = Sshd::start()?;
        floor_of(report, "ssh connect and first call", 5, || sshd.ssh_true())
    });
    report.try_rows("sudo connect", |report| {
        floor_of(report, "sudo connect and first call", 20, || floors::spawn_and_wait(&SUDO_TRUE))
    });
    report.try_rows("round trip", |report| ping_pong_alone(report, "one core"));
    report.try_rows("round trip", |report| ping_pong_alone(report, "scheduler free"));
    report.try_rows("bulk", |report| {
        report.value("bulk through one Sender", floors::bulk_mb_per_s(512)?, f64::NAN)
    });
    report.try_rows("processor time per context", |report| {
        let cpu_ms = floors::spawn_cpu_ms(rounds(100), &TRUE)?;
        report.value("processor time per context of a fan-out", cpu_ms, f64::NAN)
    });
}

fn floor_of(
    report: &mut Report,
    what: &str,
    quick: usize,
    mut work: impl FnMut() -> Outcome<()>,
) -> Outcome<()> {
    let (floor, none) =
        measure::in_turn(rounds(quick), |taken| taken.time_ms(&mut work), |_| Ok(()))?;
    report.samples(what, &floor, &none)
}

fn ping_pong_alone(report: &mut Report, cores: &str) -> Outcome<()> {
    let mut echo = Echo::start()?;
    let pids = echo.pids();
    let _pinned = if cores == "one core" { Some(Pinned::new(&pids)?) } else { None };
    let mut track = Track::default();
    track.block(&pids, rounds(5000), || echo.ping())?;
    let none = Samples::default();
    report.samples(&format!("round trip, {cores}"), &track.samples_us, &none)?;
    report.value(&format!("wake-ups per call, {cores}"), track.wakeups(), f64::NAN)?;
    report.value(&format!("processor time per call, {cores}"), track.cpu_us(), f64::NAN)
}
