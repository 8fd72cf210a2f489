//! A hostile agent that does not keep to the rules of room: leaves messages unfinished, sends more
//! than was granted, grants what is not its own. Its parent stays within bounds, others go on, and
//! what ends by it says why.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mitogen::error::{Cause, ErrorKind};
use mitogen::{Call, CallContext, Context, Program, Receiver, Sender, stock};

use crate::hostile_behind::behind;
use crate::hostile_floods::{OUTBOX_MAX, end_hostile};
use crate::support::hostile::{Attack, Evil, arguments, sender_in};
use crate::support::scene::{GROWTH_MAX, Scene, death, give_output, go, go_with, scene_of};
use crate::support::until;
use crate::support::wire::{self, DATA, FRAGMENT, Frame, GRANT, Part, REPLY};

pub const ATTACKS: &[(&str, Attack)] = &[
    ("hog", hog),
    ("outrun", outrun),
    ("half a stream", half_a_stream),
    ("whole after whole", whole_after_whole),
    ("grant for others", grant_for_others),
    ("grant malformed", grant_malformed),
    ("grant oddly", grant_oddly),
    ("grant all and stop", grant_all_and_stop),
];

/// What an honest answer of 16 MiB may take beside an attack, on a machine that has much to do.
const LARGE_MAX: Duration = Duration::from_secs(5);
const LARGE: usize = 16 << 20;
const MALFORMED: &str = "refused: malformed (source):";
const FORGED: &str = "refused: a forged source (source, authority, destination):";

fn give_bytes(count: usize) -> Vec<u8> {
    vec![7; count]
}

static KEPT: Mutex<Vec<Receiver<u32>>> = Mutex::new(Vec::new());

/// Gives a Sender of a Receiver that nobody takes from, in a context of the test's own process.
fn keep_receiver(cx: &CallContext) -> Sender<u32> {
    let receiver = cx.router().receiver();
    let sender = receiver.to_sender();
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(receiver);
    sender
}

fn with_large_values(program: Program) -> Program {
    program.function(give_bytes).function(keep_receiver)
}

fn scene(play: impl FnOnce(&Scene)) {
    scene_of(with_large_values, play);
}

/// Fails unless large values of a sibling arrive in time.
#[track_caller]
fn assert_large_values_arrive(sibling: &Context) {
    let begun = Instant::now();
    let got = sibling.call_async(give_bytes, LARGE).get_timeout(LARGE_MAX).expect("a large value");
    assert!(got.len() == LARGE && got.iter().all(|byte| *byte == 7));
    println!("16 MiB of a sibling took {:?}", begun.elapsed());
}

/// The first fragment of an answer that is said to be this long.
fn first_of_answer(evil: &Evil, call: &Frame, total: u64) -> Frame {
    // What it says first: a value.
    let payload = [&[0][..], &vec![7; FRAGMENT - 1]].concat();
    let frame = evil.frame_to(call.src, REPLY, call.reply_to.unwrap(), &payload);
    Frame { part: Part::First(total), bulk: true, ..frame }
}

/// Begins an answer to each call, and goes on with none; but answers those that name a number.
fn hog(evil: &mut Evil, call: &Frame) {
    if call.part != Part::Whole {
        return;
    }
    match arguments(call)[..] {
        [] => {
            let first = first_of_answer(evil, call, 100 << 20);
            evil.send([first]);
        }
        [number, ..] => evil.answer_number(call, number.into()),
    }
}

#[test]
fn answers_that_are_never_finished_cost_a_fragment_each_and_others_get_theirs() {
    scene(|scene| {
        let sibling = scene.router.in_process().unwrap();
        for _ in 0..3 {
            let evil = scene.hostile("hog");
            let calls: Vec<Call<u32>> = scene.grows_within(GROWTH_MAX, || {
                let calls = (0..200).map(|_| evil.call_async(go, vec![])).collect();
                assert_eq!(evil.call(go, vec![1]).unwrap(), 1);
                calls
            });
            assert_large_values_arrive(&sibling);
            // Another that behaves so takes no more from the rest.
            let second = scene.hostile("hog");
            let more: Vec<Call<u32>> = (0..200).map(|_| second.call_async(go, vec![])).collect();
            assert_eq!(second.call(go, vec![1]).unwrap(), 1);
            assert_large_values_arrive(&sibling);
            let _ = (evil.shutdown(), second.shutdown());
            for call in calls.into_iter().chain(more) {
                let end = death(call.get_timeout(LARGE_MAX));
                assert!(matches!(end.cause, Cause::Exited | Cause::Disconnected), "{end:?}");
            }
        }
        assert_large_values_arrive(&sibling);
    });
}

/// Begins an answer of 200 MiB, which is too large, and sends all of it, though nothing is granted.
/// (Of one that is not too large each fragment is granted as soon as the one before has come.)
fn outrun(evil: &mut Evil, call: &Frame) {
    if let Some(number) = arguments(call).first() {
        return evil.answer_number(call, (*number).into());
    }
    let total = 200 << 20;
    let first = first_of_answer(evil, call, total);
    let next = Frame { part: Part::Next, payload: vec![7; FRAGMENT], ..first.clone() };
    evil.send([first]);
    evil.send((1..total as usize / FRAGMENT).map(|_| next.clone()));
}

#[test]
fn who_sends_beyond_what_was_granted_is_cut_off() {
    scene(|scene| {
        let sibling = scene.router.in_process().unwrap();
        for _ in 0..3 {
            let evil = scene.hostile("outrun");
            let end = scene.grows_within(GROWTH_MAX, || {
                death(evil.call_async(go, vec![]).get_timeout(LARGE_MAX))
            });
            assert_eq!(end.cause, Cause::Protocol, "{end:?}");
            assert_eq!(end.context, Some(evil.context_id()));
            assert_large_values_arrive(&sibling);
        }
        scene.assert_logged(MALFORMED);
        scene.router.local().connect().unwrap().call(stock::ping, ()).unwrap();
    });
}

/// What an agent of this machine uses, in bytes: now, and at most since it started.
fn memory_of(context: &Context) -> [u64; 2] {
    let pid = context.call(stock::identify, ()).unwrap().pid;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    ["VmRSS:", "VmHWM:"].map(|field| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    })
}

#[test]
fn a_hop_holds_an_outbox_at_most_of_what_is_sent_beyond_the_grants_of_another() {
    behind("outrun", |scene, evil, sibling| {
        let hop = scene.router.children().into_iter().find(|child| *child != scene.honest);
        let hop = hop.unwrap();
        let [before, _] = memory_of(&hop);
        let outrun = evil.call_async(go, vec![]);
        // The flood goes by, faster than its destination takes it. Or its link is closed.
        sibling.call(stock::ping, ()).unwrap();
        let answered = evil.call_async(go, vec![5]).get_timeout(LARGE_MAX);
        assert!(answered.is_ok_and(|number| number == 5) || evil.call(go, vec![6]).is_err());
        sibling.call(stock::ping, ()).unwrap();
        let [_, highest] = memory_of(&hop);
        println!("the hop grew by {} KiB", highest.saturating_sub(before) >> 10);
        assert!(highest < before + OUTBOX_MAX + GROWTH_MAX, "{before} {highest}");
        scene.assert_logged(MALFORMED);
        // Its answer is none, and it is over with it.
        let _ = evil.shutdown();
        death(outrun.get_timeout(LARGE_MAX));
    });
}

/// Begins many values for a Receiver, each as large as one may be, and ends none.
fn half_a_stream(evil: &mut Evil, call: &Frame) {
    let ((owner, handle), total) = (sender_in(call), arguments(call)[0]);
    let template = evil.frame_to(owner, DATA, handle, &[7; FRAGMENT]);
    for number in 0..1000 {
        let part = Part::First(total.into());
        let first = Frame { part, bulk: true, reply_to: Some(number), ..template.clone() };
        let next = Frame { part: Part::Next, ..first.clone() };
        // All but the last.
        let rest = (0..total as usize / FRAGMENT - 2).map(|_| next.clone());
        evil.send([first].into_iter().chain(rest));
    }
    evil.answer_number(call, 0);
}

#[test]
fn values_that_are_never_finished_are_limited_and_end_with_their_sender() {
    const VALUE: usize = 1 << 20;
    let small = |program: Program| program.message_bytes_max(VALUE as u64);
    scene_of(small, |scene| {
        for _ in 0..3 {
            let (items, others) = (scene.router.receiver::<u32>(), scene.router.receiver());
            let evil = scene.hostile("half a stream");
            // Four of the largest values, and the first fragments of those that are refused.
            scene.grows_within(GROWTH_MAX + 6 * VALUE as u64, || {
                // It may be cut off.
                let _ = evil.call(go_with, (vec![VALUE as u32], items.to_sender()));
            });
            assert!(items.try_get().unwrap().is_none(), "one is finished");
            let argv = ["head", "-c", "3000000", "/dev/zero"].map(Into::into).to_vec();
            let print = stock::Command { argv };
            scene.honest.call_no_reply(stock::run, (print, others.to_sender())).unwrap();
            let printed = others.into_iter().map(|output| match output.unwrap() {
                stock::Output::Stdout(bytes) => bytes.len(),
                _ => 0,
            });
            assert_eq!(printed.sum::<usize>(), 3_000_000);
            let _ = evil.shutdown();
            assert!(items.get_timeout(LARGE_MAX).is_err());
        }
    });
}

/// Sends values that are finished, each as large as one may be, without a look at any grant.
fn whole_after_whole(evil: &mut Evil, call: &Frame) {
    let ((owner, handle), total) = (sender_in(call), arguments(call)[0]);
    let whole = evil.frame_to(owner, DATA, handle, &[7; FRAGMENT]);
    let first = Frame { part: Part::First(total.into()), bulk: true, ..whole };
    let next = Frame { part: Part::Next, ..first.clone() };
    for _ in 0..200 {
        let rest = (0..total as usize / FRAGMENT - 1).map(|_| next.clone());
        evil.send([first.clone()].into_iter().chain(rest));
    }
    evil.answer_number(call, 0);
}

#[test]
fn large_values_that_nobody_takes_are_as_few_as_the_window_has_room_for() {
    const VALUE: usize = 1 << 20;
    let small = |program: Program| program.message_bytes_max(VALUE as u64);
    scene_of(small, |scene| {
        let items = scene.router.receiver::<u32>();
        let evil = scene.hostile("whole after whole");
        scene.grows_within(GROWTH_MAX + 6 * VALUE as u64, || {
            // It may be cut off.
            let _ = evil.call(go_with, (vec![VALUE as u32], items.to_sender()));
        });
        let values = items.into_iter().filter(|item| {
            let Err(error) = item else { return false };
            matches!(error.kind(), ErrorKind::Malformed(_))
        });
        let _ = evil.shutdown();
        let count = values.count();
        println!("{count} values of 1 MiB had room");
        assert!(count <= 5, "{count} values are in a window of four fragments");
    });
}

/// Grants what others are to grant: in their name, in its own, and in its own for their handles.
fn grant_for_others(evil: &mut Evil, call: &Frame) {
    let ((owner, handle), others) = (sender_in(call), arguments(call));
    let ids = [&others[..], &[evil.id, owner, 0, evil.ids[0], u32::MAX]].concat();
    let sizes = [1, FRAGMENT as u64, 1 << 20, u64::from(u32::MAX), u64::MAX].map(wire::varint);
    let end = [&[0][..], &wire::death(1, None)].concat();
    let mut frames = Vec::new();
    for src in ids.iter().copied() {
        for dst in [0].into_iter().chain(others.iter().copied()) {
            for payload in sizes.iter().chain([&end]) {
                let template = evil.frame_to(dst, GRANT, handle, payload);
                for auth in [src, evil.id] {
                    frames.push(Frame { src, auth, ..template.clone() });
                }
            }
        }
    }
    evil.send(frames);
    evil.answer_number(call, 0);
}

/// Waits until a count stands still, and returns it.
fn settled(count: &AtomicU32) -> u32 {
    let (mut last, mut since) = (count.load(Ordering::Relaxed), Instant::now());
    until(LARGE_MAX, || {
        let now = count.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (Duration::from_millis(200) < since.elapsed()).then_some(())
    });
    last
}

#[test]
fn room_that_another_grants_is_none() {
    scene(|scene| {
        let (keeper, evil) =
            (scene.router.in_process().unwrap(), scene.hostile("grant for others"));
        let out = keeper.call(keep_receiver, ()).unwrap();
        let sent = Arc::new(AtomicU32::new(0));
        let sending = thread::spawn({
            let (out, sent) = (out.clone(), sent.clone());
            move || {
                loop {
                    if let Err(error) = out.send(1) {
                        return error;
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let before = settled(&sent);
        assert!(0 < before && before < 2000, "{before}");
        evil.call(go_with, (vec![keeper.context_id().0], out.clone())).unwrap();
        scene.assert_logged(FORGED);
        assert_eq!(settled(&sent), before, "a grant that was forged made room");
        // The only one who may make room does.
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap();
        (0..before).for_each(|_| assert_eq!(kept.get_timeout(LARGE_MAX).unwrap(), 1));
        assert!(before < settled(&sent));
        drop((kept, out));
        let error = sending.join().unwrap();
        let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
        assert_eq!(death.cause, Cause::ReceiverClosed);
    });
}

#[test]
fn what_a_sibling_sends_waits_for_who_takes_it_whatever_others_grant() {
    scene(|scene| {
        let (sibling, evil) =
            (scene.router.local().connect().unwrap(), scene.hostile("grant for others"));
        let output = scene.router.receiver();
        let argv = ["cat", "/dev/zero"].map(Into::into).to_vec();
        let endless = stock::Command { argv };
        let call = sibling.call_async(stock::run, (endless, output.to_sender()));
        let items = scene.router.receiver::<u32>();
        scene.grows_within(GROWTH_MAX, || {
            let others = vec![sibling.context_id().0];
            evil.call(go_with, (others, items.to_sender())).unwrap();
            thread::sleep(Duration::from_millis(200));
        });
        let mut bytes = 0;
        while let Some(stock::Output::Stdout(chunk)) = output.try_get().unwrap() {
            bytes += chunk.len();
            // Each that is taken makes room for another.
            if 1 << 20 < bytes {
                break;
            }
        }
        assert!(0 < bytes, "nothing has come");
        drop(output);
        assert_eq!(call.get_timeout(LARGE_MAX).unwrap(), stock::Ended::Killed(9));
    });
}

/// Grants that are none, so many times.
fn grant_malformed(evil: &mut Evil, call: &Frame) {
    let times = arguments(call)[0];
    let death = wire::death(1, None);
    let payloads: [&[u8]; 8] = [
        b"",
        b"\x80",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x00\x00\x00",
        b"\x05\x01\x00",
        &[&[0][..], &death, b"x"].concat(),
        &[&[0][..], &death[..2]].concat(),
        b"\x00\xff\x00\x00\x00\x00",
    ];
    let template = evil.frame(GRANT, call.reply_to.unwrap(), b"");
    let frames = (0..times as usize).map(|n| {
        let payload = payloads[n % payloads.len()].to_vec();
        Frame { payload, reply_to: (n % 3 == 0).then_some(300), ..template.clone() }
    });
    evil.send(frames);
    let parts = [Part::First(100_000), Part::Next];
    let parts = parts.map(|part| Frame { part, payload: vec![1; FRAGMENT], ..template.clone() });
    evil.send(parts);
    evil.answer_number(call, 0);
}

#[test]
fn grants_that_mean_nothing_are_refused_and_too_many_of_them_end_the_child() {
    scene(|scene| {
        let evil = scene.hostile("grant malformed");
        evil.call(go, vec![80]).unwrap();
        assert!(70 < scene.logged(MALFORMED), "{}", scene.logged(MALFORMED));
        let end = death(evil.call(go, vec![1100]));
        assert_eq!(end.cause, Cause::Protocol);
    });
}

/// Grants a large call byte by byte, and too much, and says in the middle that all is there; then
/// takes it, and answers.
fn grant_oddly(evil: &mut Evil, call: &Frame) {
    let Part::First(total) = call.part else {
        return evil.answer_number(call, 0);
    };
    let grant = |evil: &Evil, bytes: u64| evil.frame(GRANT, 1, &wire::varint(bytes));
    let (byte, none) = (grant(evil, 1), grant(evil, 0));
    evil.send((0..2 * FRAGMENT).map(|_| byte.clone()));
    evil.send((0..100).map(|_| none.clone()));
    for bytes in [FRAGMENT as u64 - 1, u64::from(u32::MAX), 1 << 62, u64::MAX >> 1, total] {
        let frame = grant(evil, bytes);
        evil.send([frame]);
    }
    let mut arrived = call.payload.len() as u64;
    while arrived < total {
        arrived += evil.hear_until(|frame| frame.part == Part::Next).payload.len() as u64;
    }
    evil.send([none]);
    evil.answer_number(call, total);
}

#[test]
fn a_large_call_ends_whatever_is_granted_for_it() {
    scene(|scene| {
        let evil = scene.hostile("grant oddly");
        for n in 0..5 {
            let count = 1_000_000 + n;
            let call = evil.call_async(go, vec![0; count]);
            // A byte for each number, and what stands before them.
            let got = call.get_timeout(LARGE_MAX).unwrap() as usize;
            assert!(count < got && got < count + 64, "{got}");
            assert_eq!(evil.call(go, vec![]).unwrap(), 0);
        }
    });
}

/// Grants all that there is of a large call, again and again, and reads none of it.
fn grant_all_and_stop(evil: &mut Evil, call: &Frame) {
    if call.part == Part::Whole {
        return evil.answer(call, &wire::numbers(&[evil.id.into(), 1 << 30]));
    }
    let grant = evil.frame(GRANT, 1, &wire::varint(u64::from(u32::MAX)));
    let of_stream = Frame { handle: 1 << 30, ..grant.clone() };
    loop {
        evil.send([grant.clone(), of_stream.clone()]);
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn who_grants_all_and_reads_nothing_holds_up_its_callers_alone_and_until_it_ends() {
    scene(|scene| {
        let evil = scene.hostile("grant all and stop");
        let sink = evil.call(give_output, vec![]).unwrap();
        let argument = vec![0; 8 << 20];
        thread::scope(|scope| {
            let call = scope.spawn(|| evil.call(go, argument));
            let stream = scope.spawn(|| {
                loop {
                    let output = stock::Output::Stdout(vec![7; 100_000]);
                    if let Err(error) = sink.send(output) {
                        return error;
                    }
                }
            });
            thread::sleep(Duration::from_millis(300));
            scene.grows_within(GROWTH_MAX, || thread::sleep(Duration::from_millis(500)));
            assert!(!call.is_finished() && !stream.is_finished());
            scene.router.local().connect().unwrap().call(stock::ping, ()).unwrap();
            let begun = Instant::now();
            end_hostile();
            let end = death(call.join().unwrap());
            // Who sends in that moment finds no way there any more.
            let ends = [Cause::Exited, Cause::Disconnected, Cause::NoRoute];
            assert!(ends.contains(&end.cause), "{end:?}");
            death(Err::<(), _>(stream.join().unwrap()));
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        });
    });
}
