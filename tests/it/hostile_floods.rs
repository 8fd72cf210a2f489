//! What a hostile agent floods its parent with, or lets it wait for: the parent's memory stays
//! flat, and its other children are served meanwhile.

use std::io::Write;
use std::time::{Duration, Instant};

use mitogen::error::{Cause, ErrorKind};
use mitogen::{Context, stock};

use crate::support::hostile::{Attack, Evil, arguments, item, sender_in};
use crate::support::scene::{GROWTH_MAX, death, give_output, go, go_with, scene};
use crate::support::until;
use crate::support::wire::{
    self, CALL, CONTROL, DATA, DEAD, FRAGMENT, Frame, GRANT, Part, REPLY, numbers,
};

pub const ATTACKS: &[(&str, Attack)] = &[
    ("take ids", |evil, call| {
        take_ids(evil, arguments(call)[0]);
        evil.answer_number(call, 0);
    }),
    ("announce", announce),
    ("ask and do not listen", ask_and_do_not_listen),
    ("hold", hold),
    ("grant", grant),
    ("overfill", overfill),
    ("hold and overfill", hold_and_overfill),
    ("begin and never end", begin_and_never_end),
    ("print", print),
    ("send raw", send_raw),
    ("drip", drip),
    ("be silent", |_, _| {
        loop {
            std::thread::park();
        }
    }),
    ("grant and do not read", grant_and_do_not_read),
];

/// What an outbox may hold for a child that does not read.
pub const OUTBOX_MAX: u64 = 32 << 20;

/// Calls an attack that may end its context; whether it did not.
fn survives(evil: &Context, with: Vec<u32>) -> bool {
    match evil.call(go, with) {
        Ok(_) => true,
        outcome => {
            assert_eq!(death(outcome).cause, Cause::Protocol);
            false
        }
    }
}

/// Asks for ids this many times, and takes them as its own.
fn take_ids(evil: &mut Evil, times: u32) {
    for _ in 0..times {
        let frame = evil.frame(CONTROL, 4, &wire::varint(1024));
        evil.send([Frame { reply_to: Some(300), ..frame }]);
        let answer = evil.hear_until(|frame| frame.handle == 300);
        let mut fields = wire::Fields(&answer.payload);
        let (first, count) = (fields.number() as u32, fields.number() as u32);
        evil.ids.extend(first..first + count);
    }
}

#[test]
fn a_child_gets_no_more_ids_than_its_share() {
    scene(|scene| {
        let evil = scene.hostile("take ids");
        scene.grows_within(GROWTH_MAX, || {
            evil.call(go, vec![17_000]).unwrap();
        });
        let next = scene.router.local().connect().unwrap();
        let taken = next.context_id().0 - evil.context_id().0;
        assert!(taken < (1 << 24) + 10_000, "{taken}");
    });
}

/// Announces as many contexts as it may, and then those again and again.
fn announce(evil: &mut Evil, call: &Frame) {
    let [asks, again] = arguments(call)[..] else { return };
    take_ids(evil, asks);
    let (own, ids) = (evil.id, evil.ids.clone());
    let frames = (0..again).flat_map(|_| ids.iter().copied());
    let template = evil.frame(CONTROL, 2, b"");
    evil.send(frames.map(|id| {
        let payload = numbers(&[id.into(), own.into()]);
        Frame { payload, ..template.clone() }
    }));
    evil.answer_number(call, 0);
}

#[test]
fn a_child_that_announces_all_that_it_may_costs_little() {
    scene(|scene| {
        let evil = scene.hostile("announce");
        scene.grows_within(GROWTH_MAX, || evil.call(go, vec![15, 10]).unwrap());
        scene.router.local().connect().unwrap().call(stock::ping, ()).unwrap();
    });
}

#[test]
fn a_child_that_announces_more_than_it_may_is_cut_off() {
    scene(|scene| {
        let evil = scene.hostile("announce");
        scene.grows_within(GROWTH_MAX, || assert!(!survives(&evil, vec![64, 1])));
        scene.router.local().connect().unwrap().call(stock::ping, ()).unwrap();
    });
}

/// Asks for what is answered, a million times; the call names what.
fn ask_and_do_not_listen(evil: &mut Evil, call: &Frame) {
    let [what, times] = arguments(call)[..] else { return };
    let frame = match what {
        0 => evil.frame(CONTROL, 4, &wire::varint(1)),
        1 => evil.frame(CALL, 1, b""),
        2 => evil.frame_to(55_555, CALL, 1, b""),
        3 => evil.frame(DATA, 1 << 30, b""),
        4 => evil.frame(CONTROL, 9, &[&wire::varint(12)[..], b"linux-x86_64", &[1, 0]].concat()),
        5 => evil.frame(CONTROL, 6, &[0, 0]),
        _ => {
            let part = Part::First(1 << 60);
            Frame { part, ..evil.frame(CALL, 1, &[0; FRAGMENT]) }
        }
    };
    evil.send((0..times).map(|_| Frame { reply_to: Some(300), ..frame.clone() }));
    evil.answer_number(call, 0);
}

#[test]
fn answers_that_a_child_does_not_read_do_not_pile_up() {
    let attacks = [(0, 20), (1, 20), (2, 20), (3, 20), (4, 15), (5, 20), (6, 13)];
    scene(|scene| {
        for (what, times) in attacks {
            let evil = scene.hostile("ask and do not listen");
            scene.grows_within(OUTBOX_MAX + GROWTH_MAX, || {
                // It is cut off at some time, or not.
                if let Err(error) = evil.call(go, vec![what, 1 << times]) {
                    println!("{what}: {error}");
                }
            });
            let _ = evil.shutdown();
        }
    });
}

/// Says that others hold the Sender that it was given, and that others hold what it guesses.
fn hold(evil: &mut Evil, call: &Frame) {
    let (_, handle) = sender_in(call);
    let template = evil.frame(CONTROL, 8, b"");
    evil.send((0..200_000).map(|n: u32| {
        let handle = if n % 2 == 0 { handle } else { handle ^ n };
        let payload = numbers(&[handle.into(), u64::from(n) * 7, u64::from(n % 3 == 0)]);
        Frame { payload, ..template.clone() }
    }));
    let leased = evil.ids.clone().into_iter();
    evil.send(leased.map(|id| {
        let payload = numbers(&[handle.into(), id.into(), 0]);
        Frame { payload, ..template.clone() }
    }));
    evil.answer_number(call, 0);
}

#[test]
fn holders_that_a_child_makes_up_are_limited_and_end_with_it() {
    scene(|scene| {
        let evil = scene.hostile("hold");
        let items = scene.router.receiver::<u32>();
        scene.grows_within(GROWTH_MAX, || {
            evil.call(go_with, (vec![], items.to_sender())).unwrap();
        });
        // Whether or not it tells.
        let _ = evil.shutdown();
        drop(items);
    });
}

fn grant(evil: &mut Evil, call: &Frame) {
    let template = evil.frame(GRANT, 0, &wire::varint(u64::from(u32::MAX)));
    let handles = (0..400_000u32).map(|n| n.wrapping_mul(2_654_435_761));
    evil.send(handles.map(|handle| Frame { handle, ..template.clone() }));
    let ends = [&[0][..], &wire::death(1, None)].concat();
    let template = evil.frame(GRANT, 0, &ends);
    let handles = (0..100_000u32).map(|n| n.wrapping_mul(2_654_435_761));
    evil.send(handles.map(|handle| Frame { handle, ..template.clone() }));
    evil.answer_number(call, 0);
}

#[test]
fn grants_of_what_was_never_sent_cost_nothing() {
    scene(|scene| {
        let evil = scene.hostile("grant");
        scene.grows_within(GROWTH_MAX, || evil.call(go, vec![]).unwrap());
    });
}

/// Sends without waiting for room: in its own name, or in those of all that it may have started.
fn overfill(evil: &mut Evil, call: &Frame) {
    let target = sender_in(call);
    let pretend = 0 < arguments(call)[0];
    let template = Frame { payload: vec![1; 16_000], ..item(evil, target, 0) };
    let (own, ids) = (evil.id, evil.ids.clone());
    evil.send((0..8000).map(|n| {
        let src = if pretend { ids[n % ids.len()] } else { own };
        Frame { src, auth: src, ..template.clone() }
    }));
    evil.answer_number(call, 0);
}

#[test]
fn who_sends_more_than_there_is_room_for_is_heard_no_more() {
    scene(|scene| {
        for pretend in [0, 1] {
            let evil = scene.hostile("overfill");
            let items = scene.router.receiver::<u32>();
            scene.grows_within(GROWTH_MAX, || {
                // It may be cut off.
                let _ = evil.call(go_with, (vec![pretend], items.to_sender()));
            });
        }
    });
}

/// Makes up contexts that have a Sender each, and fills the room of all of them.
fn hold_and_overfill(evil: &mut Evil, call: &Frame) {
    take_ids(evil, 3);
    let target = sender_in(call);
    let (own, ids) = (evil.id, evil.ids.clone());
    let (route, held) = (evil.frame(CONTROL, 2, b""), evil.frame(CONTROL, 8, b""));
    evil.send(ids.iter().map(|id| {
        let payload = numbers(&[(*id).into(), own.into()]);
        Frame { payload, ..route.clone() }
    }));
    evil.send(ids.iter().map(|id| {
        let payload = numbers(&[target.1.into(), (*id).into(), 0]);
        Frame { payload, ..held.clone() }
    }));
    let item = Frame { payload: vec![1; 16_000], ..item(evil, target, 0) };
    evil.send(ids.iter().flat_map(|id| {
        let frame = Frame { src: *id, auth: *id, ..item.clone() };
        (0..5).map(move |_| frame.clone())
    }));
    evil.answer_number(call, 0);
}

#[test]
fn who_speaks_for_many_has_the_room_of_a_thousand() {
    scene(|scene| {
        let evil = scene.hostile("hold and overfill");
        let items = scene.router.receiver::<u32>();
        let sender = items.to_sender();
        // All of it would be twice as much and more.
        scene.grows_within((64 << 20) + GROWTH_MAX, || {
            evil.call(go_with, (vec![], sender)).unwrap();
        });
        let _ = evil.shutdown();
        // What had no room ended the stream first.
        let ends = |error: &mitogen::Error| matches!(error.kind(), ErrorKind::Closed(_));
        let why = items.into_iter().filter_map(Result::err).find(ends).unwrap();
        assert_eq!(death::<()>(Err(why)).cause, Cause::DoesNotRead);
    });
}

/// Begins messages of all sizes, and ends none.
fn begin_and_never_end(evil: &mut Evil, call: &Frame) {
    let (which, own) = (arguments(call)[0], call.reply_to.unwrap());
    let whole = vec![7; FRAGMENT];
    let first = |evil: &Evil, kind, handle, total| {
        let bulk = true;
        Frame { bulk, part: Part::First(total), ..evil.frame(kind, handle, &whole) }
    };
    let (kind, handle) =
        [(CALL, 1), (CONTROL, 6), (DATA, 1 << 30), (REPLY, own + 7), (DEAD, 5)][which as usize % 5];
    if which < 5 {
        // Many that are small.
        let frame = first(evil, kind, handle, 20_000);
        evil.send((0..1000).map(|n| Frame { reply_to: Some(n), ..frame.clone() }));
    } else {
        // A few that are large.
        for n in 0..2 {
            let frame = first(evil, kind, handle, 120 << 20);
            let frame = Frame { reply_to: Some(n), ..frame };
            evil.send([frame.clone()]);
            evil.send((0..3000).map(|_| Frame { part: Part::Next, ..frame.clone() }));
        }
    }
    evil.answer_number(call, 0);
}

#[test]
fn messages_that_never_end_take_no_room_where_nobody_waits_for_them() {
    scene(|scene| {
        for which in 0..10 {
            let evil = scene.hostile("begin and never end");
            scene.grows_within(GROWTH_MAX, || {
                // It may be cut off.
                let _ = evil.call(go, vec![which]);
            });
            let _ = evil.shutdown();
        }
    });
}

/// Prints lines, and one line that has no end.
fn print(evil: &mut Evil, call: &Frame) {
    let mut stderr = std::io::stderr();
    let lines = "\x1b[31mred\x1b]0;title\x07\u{202e} and more of it\r\n".repeat(1000);
    for _ in 0..100 {
        stderr.write_all(lines.as_bytes()).unwrap();
    }
    for _ in 0..1000 {
        stderr.write_all(&[b'x'; 16_384]).unwrap();
    }
    evil.answer_number(call, 0);
}

#[test]
fn what_a_child_prints_is_harmless_and_not_kept() {
    scene(|scene| {
        let evil = scene.hostile("print");
        scene.grows_within(GROWTH_MAX, || evil.call(go, vec![]).unwrap());
        scene.assert_logged("stderr");
    });
}

/// Frames that are none: 4 GiB of payload, a payload larger than a fragment, unknown kinds and
/// flags, numbers that are too long.
fn send_raw(evil: &mut Evil, call: &Frame) {
    let honest = evil.frame(DATA, 1 << 30, b"");
    let header = honest.header();
    let bytes = match arguments(call)[0] {
        0 => [&header[..], &[0xff, 0xff, 0xff, 0xff, 0x0f]].concat(),
        1 => [&header[..], &wire::varint(FRAGMENT as u64 + 1)].concat(),
        2 => [&header[..], &[0xff; 9], &[1]].concat(),
        3 => [&[0xa6], &header[1..], &[0]].concat(),
        4 => [&[0xa1, 0xe0], &header[2..], &[0]].concat(),
        5 => [&[0xa1, 0], &[0xff; 40][..]].concat(),
        6 => [&header[..], &[0x80, 0]].concat(),
        7 => Frame { part: Part::First(5), payload: vec![0; 5], ..honest }.bytes(),
        8 => Frame { part: Part::Next, ..honest }.bytes(),
        9 => vec![0; 100_000],
        _ => Frame { auth: honest.src ^ 1, ..honest }.header()[..2]
            .iter()
            .copied()
            .chain(wire::numbers(&[0, honest.src.into(), honest.src.into(), 1, 0]))
            .collect(),
    };
    let filler = Frame { payload: vec![0; FRAGMENT], ..evil.frame(DATA, 1 << 30, b"") };
    evil.say(&bytes);
    evil.send((0..1000).map(|_| filler.clone()));
    evil.answer_number(call, 0);
}

#[test]
fn frames_that_cannot_be_end_the_child_before_any_room_is_made() {
    scene(|scene| {
        scene.grows_within(GROWTH_MAX, || {
            for which in 0..=10 {
                let evil = scene.hostile("send raw");
                assert!(!survives(&evil, vec![which]), "{which}");
            }
        });
    });
}

/// Sends a frame byte by byte, and never the last.
fn drip(evil: &mut Evil, call: &Frame) {
    let bytes = Frame { part: Part::First(1 << 60), ..evil.frame(CALL, 1, &[0; FRAGMENT]) }.bytes();
    evil.answer_number(call, 0);
    for byte in bytes {
        evil.say(&[byte]);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_child_that_is_slow_or_silent_holds_up_nobody() {
    scene(|scene| {
        let (slow, silent) = (scene.hostile("drip"), scene.hostile("be silent"));
        slow.call(go, vec![]).unwrap();
        let second = Duration::from_secs(1);
        let error = silent.call_async(go, vec![]).get_timeout(second).unwrap_err();
        assert!(matches!(error.kind(), mitogen::error::ErrorKind::Timeout), "{error}");
        let begun = Instant::now();
        for context in [&slow, &silent] {
            // Neither hears it; both are ended.
            let _ = context.call_async(go, vec![]).get_timeout(second / 10);
        }
        scene.router.local().connect().unwrap();
        assert!(begun.elapsed() < 5 * second);
    });
}

/// Gives a Sender to itself, then room for all that is sent to it, and reads none of it.
fn grant_and_do_not_read(evil: &mut Evil, call: &Frame) {
    if arguments(call).is_empty() {
        return evil.answer(call, &numbers(&[evil.id.into(), 1 << 30]));
    }
    let sibling = arguments(call)[0];
    evil.answer_number(call, 0);
    let grant = evil.frame_to(sibling, GRANT, 1 << 30, &wire::varint(1 << 30));
    loop {
        evil.send([grant.clone()]);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_siblings_send_to_a_child_that_does_not_read_is_refused_in_time() {
    scene(|scene| {
        let (evil, sibling) = (scene.hostile("grant and do not read"), scene.router.local());
        let sibling = sibling.connect().unwrap();
        let sink = evil.call(give_output, vec![]).unwrap();
        evil.call(go, vec![sibling.context_id().0]).unwrap();
        scene.grows_within(OUTBOX_MAX + GROWTH_MAX, || {
            let argv = ["cat", "/dev/zero"].map(Into::into).to_vec();
            let ended = sibling.call(stock::run, (stock::Command { argv }, sink)).unwrap();
            assert_eq!(ended, stock::Ended::Killed(9));
        });
        sibling.call(stock::ping, ()).unwrap();
        end_hostile();
    });
}

#[test]
fn a_child_that_does_not_read_is_told_off_or_waited_for_but_stops_nobody() {
    scene(|scene| {
        let evil = scene.hostile("be silent");
        scene.grows_within(OUTBOX_MAX + GROWTH_MAX, || {
            std::thread::scope(|scope| {
                let senders: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            let large = vec![1; 12_000];
                            while evil.call_no_reply(go, large.clone()).is_ok() {}
                        })
                    })
                    .collect();
                until(Duration::from_millis(1500), || None::<()>);
                // The threads wait for room; its end wakes them.
                end_hostile();
                senders.into_iter().for_each(|sender| sender.join().unwrap());
            });
        });
    });
}

/// Ends contexts that hear nothing: by their processes.
pub fn end_hostile() {
    let hostile = crate::support::processes();
    let name = format!("{}=", crate::support::hostile::HOSTILE);
    for process in hostile.iter().filter(|process| process.parent == std::process::id()) {
        let environment = std::fs::read(format!("/proc/{}/environ", process.pid));
        let environment = environment.unwrap_or_default();
        if String::from_utf8_lossy(&environment).contains(&name) {
            crate::support::signal(process.pid, "KILL");
        }
    }
}
