//! What a hostile agent sends as its log: nobody's memory grows, nobody else is spoken for, and no
//! terminal obeys.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mitogen::{ContextId, Level, flush_log, log_to, stock};

use crate::support::hostile::{Attack, Evil, arguments};
use crate::support::scene::{GROWTH_MAX, go, scene};
use crate::support::until;
use crate::support::wire::{DATA, Frame, varint};

pub const ATTACKS: &[(&str, Attack)] = &[
    ("log beyond the window", log_beyond_the_window),
    ("log what is malformed", log_what_is_malformed),
    ("log in another's name", log_in_anothers_name),
];

const FORWARD_LOG: u32 = 15;
const WARN: u8 = 2;

/// A record as it travels.
fn record(target: &str, name: &str, text: &str) -> Vec<u8> {
    let mut bytes = varint(1_700_000_000_000_000);
    bytes.extend([WARN, 0]);
    for text in [target, name, "", "", text] {
        bytes.extend(varint(text.len() as u64));
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// Many times what it has room for, whatever is granted.
fn log_beyond_the_window(evil: &mut Evil, call: &Frame) {
    let batch = record("evil", "evil", &"x".repeat(8000)).repeat(2);
    let frame = evil.frame_to(0, DATA, FORWARD_LOG, &batch);
    for _ in 0..arguments(call)[0] {
        evil.send([frame.clone()]);
    }
    evil.answer_number(call, 0);
}

#[test]
fn a_log_beyond_its_window_costs_no_memory_and_is_told_once() {
    scene(|scene| {
        let evil = scene.hostile("log beyond the window");
        let stuck = Arc::new(Mutex::new(()));
        let (waits, complaints) = (stuck.clone(), Arc::new(Mutex::new(0)));
        let told = complaints.clone();
        log_to(
            Level::Debug,
            Box::new(move |record| {
                drop(waits.lock());
                *told.lock().unwrap() += u32::from(record.what.contains("more of its log than"));
            }),
        );
        let held = stuck.lock().unwrap();
        scene.grows_within(GROWTH_MAX, || {
            evil.call(go, vec![4000]).unwrap();
            scene.honest.call(stock::ping, ()).unwrap();
        });
        drop(held);
        assert!(flush_log(Duration::from_secs(20)));
        assert_eq!(*complaints.lock().unwrap(), 1);
    });
}

/// No record, half of one, one of no level, one that says that it is longer than it is.
fn log_what_is_malformed(evil: &mut Evil, call: &Frame) {
    let good = record("evil", "evil", "good");
    let mut no_level = good.clone();
    no_level[varint(1_700_000_000_000_000).len()] = 9;
    let half = good[..good.len() / 2].to_vec();
    let long = [&good[..good.len() - 5], &varint(1 << 40), b"x"].concat();
    for bad in [vec![0xff; 100], half, no_level, long, Vec::new()] {
        let frame = evil.frame_to(0, DATA, FORWARD_LOG, &bad);
        evil.send([frame]);
    }
    let frame = evil.frame_to(0, DATA, FORWARD_LOG, &good);
    evil.send([frame]);
    evil.answer_number(call, 0);
}

/// A record, and whom it is said to be of.
type Heard = (Option<ContextId>, String, String);

fn listen() -> Arc<Mutex<Vec<Heard>>> {
    let heard = Arc::<Mutex<Vec<Heard>>>::default();
    let to = heard.clone();
    log_to(
        Level::Debug,
        Box::new(move |record| {
            let line = record.to_string();
            to.lock().unwrap().push((record.context, record.name.to_owned(), line));
        }),
    );
    heard
}

#[test]
fn a_malformed_log_is_told_once_and_what_follows_is_heard() {
    scene(|scene| {
        let evil = scene.hostile("log what is malformed");
        let heard = listen();
        for _ in 0..20 {
            evil.call(go, vec![0]).unwrap();
        }
        let count = |what: &str| {
            assert!(flush_log(Duration::from_secs(20)));
            heard.lock().unwrap().iter().filter(|(.., line)| line.contains(what)).count()
        };
        let all = until(Duration::from_secs(10), || (count("evil: good") == 20).then_some(()));
        assert!(all.is_some(), "{:?}", heard.lock().unwrap());
        assert_eq!(count("sends what is no record"), 1);
    });
}

/// As another context, with escapes and lines that look like others'.
fn log_in_anothers_name(evil: &mut Evil, call: &Frame) {
    let other = arguments(call)[0];
    let text = "x\x1b[2J\r\nError master: all is lost\u{202e}";
    let batch = record("evil\x1b[0m\n", "master\n", text);
    let frame = evil.frame_to(0, DATA, FORWARD_LOG, &batch);
    for (src, auth) in [(other, other), (0, 0), (evil.id, other), (evil.ids[0], evil.ids[0])] {
        evil.send([Frame { src, auth, ..frame.clone() }]);
    }
    evil.send([frame]);
    evil.answer_number(call, 0);
}

#[test]
fn a_log_is_of_who_has_sent_it_and_no_terminal_obeys_it() {
    scene(|scene| {
        let evil = scene.hostile("log in another's name");
        let heard = listen();
        evil.call(go, vec![scene.honest.context_id().0]).unwrap();
        let ours = || {
            assert!(flush_log(Duration::from_secs(20)));
            let all = heard.lock().unwrap();
            let ours = all.iter().filter(|(.., line)| line.contains("all is lost"));
            ours.cloned().collect::<Vec<_>>()
        };
        let all = until(Duration::from_secs(10), || Some(ours()).filter(|all| !all.is_empty()));
        let all = all.expect("nothing was heard");
        assert_eq!(all.len(), 1, "{all:?}");
        let (context, name, line) = &all[0];
        assert_eq!((*context, &**name), (Some(evil.context_id()), evil.name()));
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
    });
}
