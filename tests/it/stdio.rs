//! What functions print, and what programs print that they start: lines of the log, in order, all
//! of them, whatever is printed and however the process ends.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use mitogen::error::{Cause, Death, ErrorKind, Exit};
use mitogen::{Context, Error, Level, Program, Router, stock};

use crate::support::*;

mitogen::test_agent!(program());

const LIMIT: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const LINES: u64 = 1_000_000;
const BURST: u64 = 50_000;
const LONG_BYTES: usize = 64 << 20;

fn program() -> Program {
    Program::new()
        .function(pid)
        .function(count)
        .function(long_line)
        .function(raw)
        .function(mix)
        .function(end)
        .function(part)
        .function(part_together)
        .function(end_line)
        .function(start_printer)
        .function(print_for_ever)
}

fn pid() -> u32 {
    std::process::id()
}

fn count(lines: u64) {
    (0..lines).for_each(|line| println!("line {line}"));
}

/// One line without an end.
fn long_line(bytes: usize) {
    let block = vec![b'x'; 1 << 20];
    let mut out = std::io::stdout().lock();
    (0..bytes / block.len()).for_each(|_| out.write_all(&block).unwrap());
    out.write_all(b"end").unwrap();
}

fn raw(bytes: &[u8]) {
    std::io::stdout().write_all(bytes).unwrap();
}

fn mix(rounds: u32) {
    for round in 0..rounds {
        println!("{round} printed");
        mitogen::info!("{round} logged");
    }
    eprintln!("an error");
}

fn part() {
    print!("a part");
}

static INSIDE: AtomicU32 = AtomicU32::new(0);

/// Returns together with the other one that is called.
fn part_together(count: u32) {
    print!("x");
    INSIDE.fetch_add(1, Ordering::SeqCst);
    while INSIDE.load(Ordering::SeqCst) < count {
        std::hint::spin_loop();
    }
}

/// Prints without what this process keeps in its memory.
fn end_line() {
    fs::OpenOptions::new().write(true).open("/dev/stdout").unwrap().write_all(b"\n").unwrap();
}

/// Prints and ends this process in this way.
fn end(how: &str) {
    print!("last words\nand a part");
    eprintln!("of an error");
    match how {
        "exit" => std::process::exit(3),
        "abort" => {
            std::io::stdout().flush().unwrap();
            std::process::abort()
        }
        _ => signal(pid(), "KILL"),
    }
    thread::sleep(LIMIT);
}

/// Starts a program that prints when this has long returned.
fn start_printer() {
    let line = "while [ ! -e \"$1\" ]; do sleep 0.01; done; echo from the shell; echo err >&2";
    let file = env::temp_dir().join(format!("go-{}", pid()));
    let mut shell = Command::new("sh");
    drop(shell.args(["-c", line, "sh"]).arg(file).stdin(Stdio::null()).spawn().unwrap());
}

fn print_for_ever() {
    loop {
        println!("{}", "x".repeat(1000));
    }
}

/// Runs a test of this file in a process of its own, whose sink and memory are its own.
#[track_caller]
fn in_own_process(test: &str, inside: fn()) {
    in_process_of_test(&format!("stdio::{test}"), inside);
}

fn router() -> Router {
    mitogen_test_program().router().unwrap()
}

/// A line that has arrived: whose, of which target, its text, whether it goes on.
type Line = (String, String, String, bool);

/// Has records of this level come out here, but for the library's own.
fn listen(level: Level) -> Receiver<Line> {
    let (tell, told) = mpsc::channel();
    let sink = move |record: &mitogen::Record<'_>| {
        if record.target != "mitogen" {
            let texts = [record.name, record.target, record.text].map(str::to_owned);
            let [name, target, text] = texts;
            // A test that has seen enough has gone.
            let _ = tell.send((name, target, text, record.continues));
        }
    };
    mitogen::log_to(level, Box::new(sink));
    told
}

#[track_caller]
fn next(lines: &Receiver<Line>) -> (String, String) {
    let (_, target, text, continues) = lines.recv_timeout(LIMIT).unwrap();
    assert!(!continues, "{text}");
    (target, text)
}

#[track_caller]
fn death(error: &Error) -> &Death {
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    death
}

/// Calls `run`, and fails if one of these processes takes more memory meanwhile, or another context
/// does not answer.
#[track_caller]
fn stays_flat(context: &Context, other: &Context, run: impl FnOnce(&Context) + Send) {
    let pids = [context, other].map(|context| context.call(pid, ()).unwrap());
    let pids = [pids[0], pids[1], std::process::id()];
    let before = pids.map(own_kib);
    let (mut most, mut slowest) = (before, Duration::ZERO);
    thread::scope(|scope| {
        let running = scope.spawn(|| run(context));
        while !running.is_finished() {
            let begun = Instant::now();
            other.call(stock::ping, ()).unwrap();
            slowest = slowest.max(begun.elapsed());
            for (most, pid) in most.iter_mut().zip(pids) {
                *most = own_kib(pid).max(*most);
            }
            thread::sleep(Duration::from_millis(5));
        }
        running.join().unwrap();
    });
    let grown = [0, 1, 2].map(|at| most[at] - before[at]);
    eprintln!("grew by {grown:?} KiB; a ping took {slowest:?} at most");
    assert!(grown.iter().all(|kib| *kib < 4096), "{grown:?} KiB");
    assert!(slowest < SECOND, "{slowest:?}");
}

#[test]
fn a_million_lines_arrive_in_order_and_nothing_grows() {
    in_own_process("a_million_lines_arrive_in_order_and_nothing_grows", || {
        let (tell, told) = mpsc::channel();
        let next = Mutex::new(0);
        let sink = move |record: &mitogen::Record<'_>| {
            if record.target == "stdout" {
                let mut next = next.lock().unwrap();
                assert_eq!(record.text, format!("line {next}"));
                *next += 1;
                if *next % LINES == 0 {
                    tell.send(()).unwrap();
                }
            }
        };
        mitogen::log_to(Level::Info, Box::new(sink));
        let router = router();
        let context = router.local().connect().unwrap();
        let other = router.local().connect().unwrap();
        // What is used once stays.
        context.call(pid, ()).unwrap();
        stays_flat(&context, &other, move |context| {
            let begun = Instant::now();
            context.call(count, LINES).unwrap();
            told.recv_timeout(LIMIT).unwrap();
            eprintln!("a million lines took {:?}", begun.elapsed());
        });
    });
}

#[test]
fn a_line_of_64_mib_arrives_in_parts_and_nothing_grows() {
    in_own_process("a_line_of_64_mib_arrives_in_parts_and_nothing_grows", || {
        let (tell, told) = mpsc::channel();
        let sum = Arc::new(Mutex::new(0));
        let own = sum.clone();
        let sink = move |record: &mitogen::Record<'_>| {
            if record.target == "stdout" {
                *own.lock().unwrap() += record.text.len();
                if !record.continues {
                    tell.send(record.text.ends_with("end")).unwrap();
                }
            }
        };
        mitogen::log_to(Level::Info, Box::new(sink));
        let router = router();
        let context = router.local().connect().unwrap();
        let other = router.local().connect().unwrap();
        stays_flat(&context, &other, move |context| {
            context.call(long_line, LONG_BYTES).unwrap();
            // Its end.
            context.call(raw, b"\n").unwrap();
            assert!(told.recv_timeout(LIMIT).unwrap());
        });
        assert_eq!(*sum.lock().unwrap(), LONG_BYTES + 3);
    });
}

#[test]
fn every_byte_arrives_or_is_replaced_and_corrupts_nothing() {
    in_own_process("every_byte_arrives_or_is_replaced_and_corrupts_nothing", || {
        let lines = listen(Level::Info);
        let router = router();
        let context = router.local().connect().unwrap();
        let every: Vec<u8> = (0..=255).cycle().take(1024).chain(*b"\n").collect();
        context.call(raw, &every[..]).unwrap();
        let expected = String::from_utf8_lossy(&every).into_owned();
        for line in expected.strip_suffix('\n').unwrap().split('\n') {
            assert_eq!(next(&lines), ("stdout".to_owned(), line.to_owned()));
        }
        context.call(stock::ping, ()).unwrap();
    });
}

#[test]
fn what_one_thread_prints_and_logs_three_hops_down_arrives_in_that_order() {
    in_own_process("what_one_thread_prints_and_logs_three_hops_down_arrives_in_that_order", || {
        let lines = listen(Level::Info);
        let (_router, hops) = three_hops(mitogen_test_program());
        hops[2].call(mix, 1000).unwrap();
        for round in 0..1000 {
            assert_eq!(next(&lines), ("stdout".to_owned(), format!("{round} printed")));
            let (name, target, text, _) = lines.recv_timeout(LIMIT).unwrap();
            assert_eq!(text, format!("{round} logged"));
            assert!(target.ends_with("stdio"), "{target}");
            assert_eq!(name, hops[2].name());
        }
        assert_eq!(next(&lines), ("stderr".to_owned(), "an error".to_owned()));
    });
}

#[test]
fn what_is_printed_before_the_process_ends_itself_arrives() {
    in_own_process("what_is_printed_before_the_process_ends_itself_arrives", || {
        let lines = listen(Level::Info);
        let router = router();
        for _ in 0..20 {
            let context = router.local().connect().unwrap();
            let error = context.call(end, "exit").unwrap_err();
            assert_eq!(death(&error).exit, Some(Exit::Code(3)));
            let mut all: Vec<_> = (0..3).map(|_| next(&lines)).collect();
            all.sort();
            let expected =
                [("stderr", "of an error"), ("stdout", "and a part"), ("stdout", "last words")];
            assert_eq!(all, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        }
    });
}

#[test]
fn the_last_words_of_who_aborts_or_exits_are_in_its_death_with_the_log_off() {
    leaves_nothing(&[], || {
        let router = router();
        for (how, exit) in [("exit", Exit::Code(3)), ("abort", Exit::Signal(6))] {
            for _ in 0..20 {
                let context = router.local().connect().unwrap();
                let error = context.call(end, how).unwrap_err();
                let death = death(&error);
                assert_eq!((death.cause, death.exit), (Cause::Exited, Some(exit)));
                for text in ["last words", "and a part", "of an error"] {
                    assert!(death.tail.contains(text), "{how}: {:?}", death.tail);
                }
            }
        }
    });
}

#[test]
fn a_clean_end_loses_no_line_and_no_part_of_one() {
    in_own_process("a_clean_end_loses_no_line_and_no_part_of_one", || {
        let lines = listen(Level::Info);
        for _ in 0..10 {
            let (router, hops) = three_hops(mitogen_test_program());
            let counting = hops[2].call_async(count, 1000);
            hops[1].call(part, ()).unwrap();
            counting.get().unwrap();
            router.shutdown();
            let mut all: Vec<_> = (0..1001).map(|_| next(&lines).1).collect();
            let at = all.iter().position(|text| text == "a part").unwrap();
            all.remove(at);
            assert!(all.into_iter().eq((0..1000).map(|line| format!("line {line}"))));
        }
    });
}

#[test]
fn a_context_that_is_asked_to_end_sends_all_lines_first() {
    in_own_process("a_context_that_is_asked_to_end_sends_all_lines_first", || {
        let lines = listen(Level::Info);
        let router = router();
        for _ in 0..5 {
            let context = router.local().connect().unwrap();
            context.call(count, 3000).unwrap();
            context.call(part, ()).unwrap();
            context.shutdown().unwrap();
            (0..3000).for_each(|line| assert_eq!(next(&lines).1, format!("line {line}")));
            assert_eq!(next(&lines).1, "a part");
        }
    });
}

#[test]
fn parts_of_lines_of_functions_that_return_together_arrive() {
    in_own_process("parts_of_lines_of_functions_that_return_together_arrive", || {
        let lines = listen(Level::Info);
        let router = router();
        let context = router.local().threads(2).connect().unwrap();
        for round in 0..300 {
            let both = [0, 1].map(|_| context.call_async(part_together, 2 * round + 2));
            both.into_iter().for_each(|call| call.get().unwrap());
            context.call(end_line, ()).unwrap();
            assert_eq!(next(&lines).1, "xx", "in round {round}");
        }
    });
}

#[test]
fn a_program_that_outlives_the_call_prints_on() {
    in_own_process("a_program_that_outlives_the_call_prints_on", || {
        let lines = listen(Level::Info);
        let router = router();
        let context = router.local().connect().unwrap();
        // More than is read at once: what is read no more for a while is read again.
        context.call(count, BURST).unwrap();
        (0..BURST).for_each(|line| assert_eq!(next(&lines).1, format!("line {line}")));
        context.call(start_printer, ()).unwrap();
        let pid = context.call(pid, ()).unwrap();
        let file = env::temp_dir().join(format!("go-{pid}"));
        fs::write(&file, "").unwrap();
        let mut all = [next(&lines), next(&lines)];
        all.sort();
        fs::remove_file(file).unwrap();
        let expected = [("stderr", "err"), ("stdout", "from the shell")];
        assert_eq!(all, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    });
}

#[test]
fn who_prints_more_than_the_sink_takes_waits_and_nobody_else() {
    in_own_process("who_prints_more_than_the_sink_takes_waits_and_nobody_else", || {
        let (go, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let sink = move |record: &mitogen::Record<'_>| {
            if record.target == "stdout" {
                // Until the test has gone on.
                let _ = gate.lock().unwrap().recv();
            }
        };
        mitogen::log_to(Level::Info, Box::new(sink));
        let router = router();
        let context = router.local().threads(2).connect().unwrap();
        let pid = context.call(pid, ()).unwrap();
        let printing = context.call_async(print_for_ever, ());
        let is_stuck = || {
            let before = processor_time(pid);
            thread::sleep(Duration::from_millis(200));
            (processor_time(pid) == before).then_some(())
        };
        until(LIMIT, is_stuck).unwrap();
        let before = own_kib(pid);
        (0..100).for_each(|_| context.call(stock::ping, ()).unwrap());
        assert!(own_kib(pid) < before + 512);
        drop((go, printing));
    });
}
