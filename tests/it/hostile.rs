//! A hostile agent, which a real router has connected to: forges, guesses, claims what is not its
//! own, and lies in its answers. What it floods with is in `hostile_floods.rs`, what it
//! does with its room in `hostile_flow.rs`, what from behind an honest hop in `hostile_behind.rs`.

use std::env;

use mitogen::error::{Cause, ConnectFailure, ErrorKind, Exit};
use mitogen::{Context, stock};

use crate::support::hostile::{ARGUMENTS_AT, Attack, Evil, HOSTILE, arguments, sender_in};
use crate::support::scene::{
    GROWTH_MAX, Scene, death, give_context, give_sender, go, go_with, scene,
};
use crate::support::wire::{self, CALL, CONTROL, DATA, DEAD, Frame, REPLY, numbers};
use crate::{hostile_behind, hostile_floods, hostile_flow, hostile_logs};

const FORGED: &str = "refused: a forged source (source, authority, destination):";
const ANOTHER: &str = "refused: another was asked (source, authority, handle):";
const POLICY: &str = "refused by the handle's policy (source, authority, handle):";

const ATTACKS: &[(&str, Attack)] = &[
    ("end a sibling's call", end_a_siblings_call),
    ("give references", give_references),
    ("steal a route", steal_a_route),
    ("forge", forge),
    ("command", command),
    ("claim deaths", claim_deaths),
    ("lie about connects", lie_about_connects),
    ("answer twice", answer_twice),
    ("answer badly", answer_badly),
    ("guess handles", guess_handles),
    ("ask to leave and crash", ask_to_leave_and_crash),
];

/// Not a test: the hostile agent.
#[test]
fn agent() {
    let Ok(name) = env::var(HOSTILE) else { return };
    let others = [hostile_floods::ATTACKS, hostile_flow::ATTACKS, hostile_behind::ATTACKS];
    let others = others.into_iter().chain([hostile_logs::ATTACKS]);
    let mut all = ATTACKS.iter().chain(others.flatten());
    let (_, attack) = all.find(|(other, _)| *other == name).expect("no such attack");
    Evil::begin().play(*attack);
}

/// Has a child play this attack while the only call of another lasts.
fn beside_slow_call(scene: &Scene, attack: &str, meanwhile: impl FnOnce(&Context, &Context)) {
    let evil = scene.hostile(attack);
    let slow = scene.router.local().connect().unwrap();
    let output = scene.router.receiver();
    let argv = ["sleep", "0.3"].map(Into::into).to_vec();
    let call = slow.call_async(stock::run, (stock::Command { argv }, output.to_sender()));
    meanwhile(&evil, &slow);
    call.get().expect("the call of a sibling");
    slow.call(stock::ping, ()).unwrap();
}

fn end_a_siblings_call(evil: &mut Evil, call: &Frame) {
    let (own, sibling, last) = (evil.id, arguments(call)[0], call.reply_to.unwrap());
    let bodies = [(DEAD, wire::death(5, Some(sibling))), (REPLY, vec![0])];
    for (src, auth) in [(own, own), (own, sibling), (sibling, sibling), (sibling, own)] {
        for handle in last - 30..last + 10 {
            for (kind, body) in bodies.iter().filter(|_| (src, handle) != (own, last)) {
                let frame = evil.frame(*kind, handle, body);
                evil.send([Frame { src, auth, ..frame }]);
            }
        }
    }
    evil.answer_number(call, 0);
}

#[test]
fn a_forged_end_or_answer_does_not_end_the_call_of_a_sibling() {
    scene(|scene| {
        beside_slow_call(scene, "end a sibling's call", |evil, slow| {
            evil.call(go, vec![slow.context_id().0]).unwrap();
        });
        scene.assert_logged(FORGED);
        scene.assert_logged(ANOTHER);
    });
}

/// Answers with a reference to the context that is named first, at the handle that is named second
/// if there is one.
fn give_references(evil: &mut Evil, call: &Frame) {
    match arguments(call)[..] {
        [id, handle] => evil.answer(call, &numbers(&[id.into(), handle.into()])),
        [id, ..] => evil.answer(call, &[&numbers(&[id.into(), 1])[..], b"x"].concat()),
        _ => evil.answer_number(call, 0),
    }
}

#[test]
fn what_a_child_supplies_acts_in_its_name() {
    scene(|scene| {
        let evil = scene.hostile("give references");
        let sibling = scene.honest.context_id();
        let supplied = evil.call(give_context, vec![sibling.0]).unwrap();
        assert_eq!(supplied, scene.honest);
        let refused = death(supplied.call(stock::ping, ()));
        assert_eq!((refused.cause, refused.context), (Cause::Refused, Some(sibling)));
        assert!(supplied.shutdown().is_err(), "it was shut down");
        for id in [0, 55_555, u32::MAX] {
            let supplied = evil.call(give_context, vec![id]).unwrap();
            supplied.call(stock::ping, ()).unwrap_err();
        }
        for id in [0, sibling.0, evil.context_id().0, 55_555] {
            for handle in (0..20).chain([255, 256, 300, (1 << 30) - 1]) {
                let supplied = evil.call(give_sender, vec![id, handle]);
                let error = supplied.map(|_| "a Sender").unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::Malformed(_)), "{error}");
            }
            let supplied = evil.call(give_sender, vec![id, (1 << 30) + 1]).unwrap();
            // It may arrive nowhere, later.
            let _ = supplied.send(1);
        }
        evil.call(go, vec![]).unwrap();
    });
}

/// The id that its parent gives to the next child.
fn next_id(evil: &Evil) -> u32 {
    evil.ids.last().unwrap() + 1
}

fn steal_a_route(evil: &mut Evil, call: &Frame) {
    let id = match arguments(call)[..] {
        [number, offset] => number + offset,
        [id] => id,
        _ => next_id(evil),
    };
    let frame = evil.frame(CONTROL, 2, &numbers(&[id.into(), evil.id.into()]));
    evil.send([frame]);
    evil.answer_number(call, 0);
}

#[test]
fn routes_that_are_not_its_own_end_a_child_and_lead_nowhere() {
    scene(|scene| {
        let sibling = scene.honest.context_id().0;
        for stolen in [vec![], vec![sibling], vec![0], vec![u32::MAX], vec![sibling, 1]] {
            let evil = scene.hostile("steal a route");
            let end = death(evil.call(go, stolen.clone()));
            assert_eq!(end.cause, Cause::Protocol, "{stolen:?}");
            let next = scene.router.local().connect().unwrap();
            assert!(next.call(stock::identify, ()).is_ok(), "{stolen:?}");
            next.shutdown().unwrap();
        }
    });
}

/// Every combination of kind, source, authority, destination and handle, numbered; of those that
/// are counted, from the one that is named in the call.
fn combinations(evil: &Evil, call: &Frame) -> Vec<(u32, Frame)> {
    let (with, receiver) = (arguments(call), sender_in(call).1);
    let (sibling, last) = (with[0], call.reply_to.unwrap());
    let ids = [evil.id, 0, sibling, evil.ids[0], 55_555, u32::MAX];
    let handles: Vec<u32> = (1..=13).chain([256, last - 1, last - 2, last - 3, receiver]).collect();
    let mut all = Vec::new();
    for kind in 0..6 {
        for src in ids {
            for auth in ids {
                for dst in [0, sibling, 55_555] {
                    for handle in &handles {
                        let number = all.len() as u32;
                        let payload = payload_of(evil, kind, number);
                        let frame = Frame { src, auth, ..evil.frame(kind, *handle, &payload) };
                        all.push((number, Frame { dst, reply_to: Some(handle + 1), ..frame }));
                    }
                }
            }
        }
    }
    all
}

fn payload_of(evil: &Evil, kind: u8, number: u32) -> Vec<u8> {
    match kind {
        // What the parent has asked itself, of a function that would leave a trace.
        CALL => evil.heard[0].payload.clone(),
        DATA => wire::varint(number.into()),
        DEAD => wire::death(5, None),
        _ => vec![0],
    }
}

/// Whether a frame is by its source what it says, and by its place none that ends the link.
fn is_own(evil: &Evil, frame: &Frame) -> bool {
    [frame.src, frame.auth].iter().all(|id| *id == evil.id || evil.ids.contains(id))
}

/// What an honest child says, too, or is cut off for at once.
fn is_neighbours_word(evil: &Evil, frame: &Frame) -> bool {
    let is_word = frame.kind == CONTROL && [2, 3, 4, 12, 13].contains(&frame.handle);
    is_own(evil, frame) && frame.dst == 0 && is_word
}

/// Frames of one attack: fewer than a child is cut off for.
const CHUNK: usize = 900;

fn forge(evil: &mut Evil, call: &Frame) {
    if evil.heard.is_empty() {
        evil.heard.push(call.clone());
        return;
    }
    let from = arguments(call)[1] as usize;
    let all = combinations(evil, call);
    let count = all.len();
    let chunk = all.into_iter().skip(from).take(CHUNK).map(|(_, frame)| frame);
    let frames: Vec<_> = chunk.filter(|frame| !is_neighbours_word(evil, frame)).collect();
    evil.send(frames);
    evil.answer_number(call, count as u64);
}

#[test]
fn no_combination_of_forged_fields_is_delivered() {
    scene(|scene| {
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("was-here");
        let items = scene.router.receiver::<u32>();
        let keeper = items.to_sender();
        let (mut from, mut count) = (0, 1);
        while from < count {
            beside_slow_call(scene, "forge", |evil, slow| {
                let argv = vec!["touch".into(), trace.clone().into()];
                let output = scene.router.receiver();
                let touch = stock::Command { argv };
                evil.call_no_reply(stock::run, (touch, output.to_sender())).unwrap();
                let with = vec![slow.context_id().0, from];
                count = evil.call(go_with, (with, items.to_sender())).unwrap();
                evil.shutdown().unwrap();
            });
            from += CHUNK as u32;
        }
        assert!(!trace.exists(), "a call was run");
        scene.assert_logged(FORGED);
        scene.assert_logged(POLICY);
        drop(keeper);
        let arrived: Vec<u32> = items.into_iter().map_while(Result::ok).collect();
        // To the receiver's handle, from itself or what it may have started.
        assert!(arrived.len() <= 4, "{arrived:?}");
        assert!(arrived.iter().all(|number| number % 18 == 17), "{arrived:?}");
    });
}

/// Asks parent and sibling for what only their ancestors may. The answer has a bit for each cause
/// of a refusal, and bit 31 for each other answer.
fn command(evil: &mut Evil, call: &Frame) {
    let (sibling, mut causes) = (arguments(call)[0], 0);
    let mut asked = Vec::new();
    for dst in [0, sibling] {
        for handle in [1, 5, 6, 9, 10, 11] {
            let kind = if handle == 1 { CALL } else { CONTROL };
            let frame = evil.frame_to(dst, kind, handle, &[0; 12]);
            asked.push(Frame { reply_to: Some(handle + 1000 * (1 + dst)), ..frame });
        }
    }
    for frame in asked {
        let reply_to = frame.reply_to.unwrap();
        evil.send([frame]);
        let answer = evil.hear_until(|frame| frame.handle == reply_to);
        causes |= match answer.kind {
            DEAD => 1 << answer.payload[0],
            _ => 1 << 31,
        };
    }
    evil.answer_number(call, causes);
}

#[test]
fn commands_of_a_child_to_its_parent_and_siblings_are_refused() {
    scene(|scene| {
        let evil = scene.hostile("command");
        let causes = evil.call(go, vec![scene.honest.context_id().0]).unwrap();
        let refused = 1 << Cause::Refused as u32 | 1 << Cause::NoHandle as u32;
        // Images are there for the asking, or are refused in words of their own.
        assert_eq!(causes & !(1 << 31), refused, "{causes:b}");
        scene.assert_logged(POLICY);
    });
}

fn claim_deaths(evil: &mut Evil, call: &Frame) {
    let (own, mut frames) = (evil.id, Vec::new());
    for id in arguments(call).into_iter().chain([0, own, evil.ids[0], 55_555, u32::MAX]) {
        let body = [wire::varint(id.into()), wire::death(5, Some(id))].concat();
        frames.push(evil.frame(CONTROL, 3, &body));
        frames.push(evil.frame(DEAD, 3, &body));
    }
    for sibling in arguments(call) {
        for handle in [2, 3, 4, 12, 13] {
            frames.push(evil.frame_to(sibling, CONTROL, handle, b""));
        }
    }
    evil.send(frames);
    evil.answer_number(call, 0);
}

#[test]
fn the_deaths_of_others_that_a_child_claims_are_not_believed() {
    scene(|scene| {
        beside_slow_call(scene, "claim deaths", |evil, slow| {
            let siblings = [slow, &scene.honest].map(|context| context.context_id().0);
            evil.call(go, siblings.to_vec()).unwrap();
            evil.call(go, siblings.to_vec()).unwrap();
        });
    });
}

/// Keeps the ids that it is told, and names them, one after the other, as contexts that it started.
fn lie_about_connects(evil: &mut Evil, call: &Frame) {
    if call.kind == CALL {
        evil.heard = vec![call.clone()];
        return evil.answer_number(call, next_id(evil).into());
    }
    let Some(told) = evil.heard.first_mut() else { return };
    let mut ids = arguments(told);
    let id = if ids.is_empty() { evil.id } else { ids.remove(0) };
    let rest: Vec<u64> = ids.iter().map(|id| (*id).into()).collect();
    let count = wire::varint(rest.len() as u64);
    told.payload = [vec![0; ARGUMENTS_AT], count, numbers(&rest)].concat();
    evil.answer(call, &numbers(&[id.into(), 1, 1]));
}

#[test]
fn a_hop_does_not_pass_others_off_as_what_it_started() {
    scene(|scene| {
        let hop = scene.router.local().connect().unwrap();
        let behind = scene.router.local().via(&hop).connect().unwrap();
        let evil = scene.hostile("lie about connects");
        let next = evil.call(go, vec![]).unwrap();
        let others = [&scene.honest, &hop, &behind].map(|context| context.context_id().0);
        let ids = [&others[..], &[0, evil.context_id().0, next, next + 9, u32::MAX]].concat();
        evil.call(go, ids.clone()).unwrap();
        for id in ids {
            let outcome = scene.router.local().via(&evil).connect();
            let error = outcome.map(|context| format!("{context:?}")).unwrap_err();
            let ErrorKind::Connect(error) = error.kind() else { panic!("{id}: {error}") };
            assert!(matches!(error.failure, ConnectFailure::Protocol(_)), "{id}: {error}");
        }
        for context in [&hop, &behind] {
            context.call(stock::ping, ()).unwrap();
        }
        assert_eq!(scene.router.local().connect().unwrap().context_id().0, next);
    });
}

fn answer_twice(evil: &mut Evil, call: &Frame) {
    evil.answer_number(call, 1);
    evil.answer_number(call, 2);
    let dead = evil.frame(DEAD, call.reply_to.unwrap(), &wire::death(5, Some(evil.id)));
    evil.send([dead]);
}

#[test]
fn only_the_first_answer_counts() {
    scene(|scene| {
        let evil = scene.hostile("answer twice");
        for _ in 0..100 {
            assert_eq!(evil.call(go, vec![]).unwrap(), 1);
        }
        scene.assert_logged("nothing listens there (source, authority, handle):");
    });
}

/// Bodies that are no answers to who expects a number.
const BAD_BODIES: [&[u8]; 12] = [
    b"",
    b"\x00",
    b"\x00\xff\xff\xff\xff\xff",
    b"\x00\x80\x00",
    b"\x00\x01\x01",
    b"\x01",
    b"\x01\x00",
    b"\x01\x03go\x00\x05error\xff\xff\xff\xff\x0f",
    b"\x01\x02go\x63",
    b"\x01\x02go\x01\x04\xff\xfe\xfd\xfc",
    b"\x02",
    b"\xff\xff\xff\xff",
];

fn answer_badly(evil: &mut Evil, call: &Frame) {
    let (which, handle) = (arguments(call)[0] as usize, call.reply_to.unwrap());
    let frame = match BAD_BODIES.get(which / 2) {
        Some(body) => {
            let kind = if which % 2 == 0 { REPLY } else { DEAD };
            evil.frame(kind, handle, body)
        }
        None => evil.frame(REPLY, handle, &vec![1; wire::FRAGMENT]),
    };
    evil.send([frame]);
}

#[test]
fn answers_that_do_not_read_are_typed_errors() {
    scene(|scene| {
        let evil = scene.hostile("answer badly");
        for which in 0..=2 * BAD_BODIES.len() as u32 {
            let error = evil.call(go, vec![which]).unwrap_err();
            let kind = error.kind();
            let is_typed = match kind {
                // Some bodies can be read as the end of a cancelled call, or as a failure.
                ErrorKind::Closed(death) => {
                    matches!(death.cause, Cause::Protocol | Cause::Cancelled)
                }
                ErrorKind::Malformed(_) | ErrorKind::Call(_) => true,
                _ => false,
            };
            assert!(is_typed, "{which}: {error}");
        }
    });
}

/// Sends to handles that were never given out: as many as the call says.
fn guess_handles(evil: &mut Evil, call: &Frame) {
    let template = evil.frame(DATA, 0, &wire::varint(1));
    let handles = (0..arguments(call)[0]).map(|n| n.wrapping_mul(2_654_435_761) | 1 << 30);
    evil.send(handles.map(|handle| Frame { handle, ..template.clone() }));
    evil.answer_number(call, 0);
}

#[test]
fn handles_that_a_child_guesses_reach_nobody_and_end_it_after_a_thousand() {
    scene(|scene| {
        let evil = scene.hostile("guess handles");
        let items = scene.router.receiver::<u32>();
        let keeper = items.to_sender();
        evil.call(go, vec![900]).unwrap();
        let end = death(evil.call(go, vec![200]));
        assert_eq!((end.cause, end.context), (Cause::Protocol, Some(evil.context_id())));
        scene.assert_logged("refused: a handle never given out (source, authority, handle):");
        scene.assert_logged("what else is refused by this link is not logged (neighbour):");
        scene.assert_logged("cut off, for what it sends (child):");
        drop(keeper);
        assert_eq!(items.into_iter().count(), 0);
    });
}

#[test]
fn a_shell_that_babbles_before_it_is_an_agent_is_given_up() {
    scene(|scene| {
        scene.grows_within(GROWTH_MAX, || {
            for line in ["", "MGN0-0000000000000000 Linux x86_64", "MGN1-0000000000000000 1"] {
                let babble = format!("exec yes '{line}'");
                let command = ["sh", "-c", &babble, "sh"];
                let outcome = scene.router.command(command).connect();
                let error = outcome.map(drop).unwrap_err();
                let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
                let gave_up = matches!(error.failure, ConnectFailure::Protocol(_));
                assert!(gave_up && error.tail.len() < 8192, "{line}: {error}");
            }
        });
    });
}

/// Is let go, and ends in another way.
fn ask_to_leave_and_crash(evil: &mut Evil, _: &Frame) {
    evil.send([Frame { reply_to: Some(301), ..evil.frame(CONTROL, 13, b"") }]);
    evil.hear_until(|frame| frame.handle == 301);
    std::process::exit(7);
}

#[test]
fn who_was_let_go_and_crashed_has_not_left() {
    scene(|scene| {
        let evil = scene.hostile("ask to leave and crash");
        let death = death(evil.call(go, Vec::new()));
        assert_eq!((death.cause, death.exit), (Cause::Exited, Some(Exit::Code(7))));
    });
}
