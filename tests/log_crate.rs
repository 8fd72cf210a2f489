//! The bridge to the `log` crate, both ways.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::time::{Duration, Instant};

use mitogen::{Level, Program, flush_log, log_at, log_to_crate};

mitogen::test_agent!(program());

fn program() -> Program {
    Program::new().function(say).function(hand_over)
}

/// Hands records to the `log` crate here, too, and says one thing.
fn hand_over() -> bool {
    log_to_crate(Level::Info);
    log::info!(target: "a::library", "once");
    flush_log(Duration::from_secs(20))
}

/// Logs as any library does; and whether a detail would be formatted.
fn say() -> bool {
    log::info!(target: "a::library", "{} {}", "hello", 1);
    log::debug!(target: "a::library", "a detail");
    log::trace!(target: "a::library", "not among it");
    log::info!(target: "\x1b[2J\n", "\x1b[2J\n");
    log::log_enabled!(target: "a::library", log::Level::Debug)
}

/// The program's own logger.
struct Logger;

static HEARD: Mutex<Vec<(log::Level, String, String)>> = Mutex::new(Vec::new());

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let (level, target) = (record.level(), record.target().to_owned());
        // What it logs through us goes nowhere: else it would never end.
        mitogen::error!("again");
        HEARD.lock().unwrap().push((level, target, record.args().to_string()));
    }

    fn flush(&self) {}
}

#[test]
fn records_of_the_log_crate_travel_and_come_out_there() {
    log::set_logger(&Logger).unwrap();
    log_to_crate(Level::Info);
    let router = mitogen_test_program().router().unwrap();
    let child = router.local().connect().unwrap();
    assert!(!child.call(say, ()).unwrap());
    log_at(Level::Debug);
    let limit = Duration::from_secs(20);
    let begun = Instant::now();
    while !child.call(say, ()).unwrap() {
        assert!(begun.elapsed() < limit, "the level never came");
    }
    let other = router.local().connect().unwrap();
    assert!(other.call(hand_over, ()).unwrap());
    router.shutdown();
    assert!(flush_log(limit));
    log_at(None);
    let all = std::mem::take(&mut *HEARD.lock().unwrap());
    let of = |text: &str| {
        let found = all.iter().find(|(_, target, said)| target == "a::library" && said == text);
        found.map(|(level, ..)| *level)
    };
    assert_eq!(of("local: hello 1"), Some(log::Level::Info), "{all:?}");
    assert_eq!(of("local: a detail"), Some(log::Level::Debug), "{all:?}");
    assert_eq!(of("local: not among it"), None);
    let count = all.iter().filter(|(.., said)| said.contains("once")).count();
    assert_eq!(count, 1, "{all:?}");
    let obeyed = |text: &str| text.contains(char::is_control);
    assert!(all.iter().any(|(_, target, _)| target == r"\x1b[2J\n"), "{all:?}");
    assert!(!all.iter().any(|(_, target, said)| obeyed(target) || obeyed(said)), "{all:?}");
    let ours =
        |text: &str| all.iter().any(|(_, target, said)| target == "mitogen" && said.contains(text));
    assert!(ours("master: a context is up: 1 "), "{all:?}");
    assert!(!all.iter().any(|(.., said)| said.contains("again")));
}
