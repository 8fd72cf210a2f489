//! A program that prints without end beside what else is printed and logged in its context: nobody
//! else waits for its end.

use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use mitogen::{CallContext, Level, Program, Router, log_to};

use crate::support::*;

mitogen::test_agent!(program());

const LIMIT: Duration = Duration::from_secs(30);
/// More short lines than a pipe holds.
const LINES: u32 = 50_000;
/// Lines of a flood that runs.
const FLOOD: u32 = 10_000;

fn program() -> Program {
    Program::new().function(flood).function(log).function(print_to).function(count_and_log)
}

/// Has a program print the shortest lines without end, there, until this is asked to end.
fn flood(cx: &CallContext, to_stderr: bool) {
    let line = if to_stderr { "exec yes >&2" } else { "exec yes" };
    let mut shell = Command::new("sh");
    let mut flood = shell.args(["-c", line]).stdin(Stdio::null()).spawn().unwrap();
    while !cx.is_cancelled() {
        thread::sleep(Duration::from_millis(10));
    }
    flood.kill().unwrap();
    flood.wait().unwrap();
}

fn log(records: u32) {
    (0..records).for_each(|number| mitogen::info!("record {number}"));
}

fn print_to(stderr: bool) {
    if stderr {
        eprintln!("beside");
    } else {
        println!("beside");
    }
}

fn count_and_log(lines: u32) {
    (0..lines).for_each(|line| println!("{line}"));
    mitogen::info!("logged");
}

/// All texts; of the flood only the first that shows that it runs.
fn listen() -> Receiver<String> {
    let (tell, told) = mpsc::channel();
    let floods = Mutex::new(0);
    let sink = move |record: &mitogen::Record<'_>| {
        let mut floods = floods.lock().unwrap();
        *floods += u32::from(record.text == "y");
        if record.target != "mitogen" && (record.text != "y" || *floods % FLOOD == 0) {
            // A test that has seen enough has gone.
            let _ = tell.send(record.text.to_owned());
        }
    };
    log_to(Level::Info, Box::new(sink));
    told
}

/// The next that is none of the flood's.
#[track_caller]
fn next(lines: &Receiver<String>) -> String {
    let until = Instant::now() + LIMIT;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let line = lines.recv_timeout(left).expect("it never comes");
        if line != "y" {
            return line;
        }
    }
}

/// Runs a test of this file in a process of its own, whose sink is its own.
#[track_caller]
fn in_own_process(test: &str, inside: fn()) {
    in_process_of_test(&format!("stdio_floods::{test}"), inside);
}

fn router() -> Router {
    mitogen_test_program().router().unwrap()
}

#[test]
fn what_is_logged_beside_a_flood_arrives_and_nobody_waits_for_its_end() {
    in_own_process("what_is_logged_beside_a_flood_arrives_and_nobody_waits_for_its_end", || {
        let lines = listen();
        let router = router();
        let context = router.local().threads(2).connect().unwrap();
        let _flooding = context.call_async(flood, false);
        assert_eq!(lines.recv_timeout(LIMIT).unwrap(), "y");
        let begun = Instant::now();
        context.call_async(log, 20).get_timeout(LIMIT).expect("it hangs");
        eprintln!("20 records took {:?}", begun.elapsed());
        (0..20).for_each(|number| assert_eq!(next(&lines), format!("record {number}")));
    });
}

#[test]
fn one_of_the_two_is_read_while_the_other_is_flooded() {
    in_own_process("one_of_the_two_is_read_while_the_other_is_flooded", || {
        for to_stderr in [false, true] {
            let lines = listen();
            let router = router();
            let context = router.local().threads(2).connect().unwrap();
            let _flooding = context.call_async(flood, to_stderr);
            assert_eq!(lines.recv_timeout(LIMIT).unwrap(), "y");
            context.call_async(print_to, !to_stderr).get_timeout(LIMIT).expect("it hangs");
            assert_eq!(next(&lines), "beside");
        }
    });
}

#[test]
fn what_is_logged_comes_behind_more_short_lines_than_a_pipe_holds() {
    in_own_process("what_is_logged_comes_behind_more_short_lines_than_a_pipe_holds", || {
        let lines = listen();
        let router = router();
        let context = router.local().connect().unwrap();
        for _ in 0..3 {
            context.call(count_and_log, LINES).unwrap();
            for line in 0..LINES {
                assert_eq!(lines.recv_timeout(LIMIT).unwrap(), line.to_string());
            }
            assert_eq!(lines.recv_timeout(LIMIT).unwrap(), "logged");
        }
    });
}
