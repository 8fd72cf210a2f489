//! What is written, read and shown, without a process.

use std::time::Duration;

use super::ask::read;
use super::snapshot::*;
use super::tree::{Entry, Tree};
use crate::error::{Cause, Death, Error, ErrorKind, Phase};
use crate::ids::{ContextId, Handle};
use crate::io::counters::{Counters, HandlerTimes, PLACES, SlowDelivery};
use crate::limits::{INSPECTED_MAX, NAME_BYTES_MAX, SLOWEST_MAX, UNGRANTED_BYTES_MAX};
use crate::wire::codec::{Encode, Writer};

fn listed<T: Clone>(count: usize, item: T) -> Listed<T> {
    Listed { first: vec![item; count], more: u64::from(u32::MAX) }
}

fn most_counted() -> Counters {
    let many = 1 << 50;
    let (handle, source) = (u32::MAX, u32::MAX);
    let handler = HandlerTimes { handle, count: many, total_us: many, longest_us: many };
    Counters {
        uptime_us: many,
        turns: many,
        turns_lent: many,
        wakeups: many,
        tasks: many,
        timers: many,
        reads: many,
        read_bytes: many,
        writes: many,
        written_bytes: many,
        frames_received: many,
        frames_forwarded: many,
        frames_sent: many,
        messages_delivered: many,
        outbox_bytes_high: many,
        streams_high: many,
        tasks_high: many,
        handlers: vec![handler; PLACES],
        slowest: vec![SlowDelivery { handle, source, took_us: many }; SLOWEST_MAX],
    }
}

/// As long as an answer can be.
fn longest() -> Snapshot {
    let (id, handle, ms) = (ContextId(u32::MAX), Handle(u32::MAX), 1 << 36);
    let function = Function { fingerprint: u64::MAX, name: String::new() };
    let route = Route { context_id: id, via: id, parent_id: id };
    let end = End::Starting(id);
    let (queued_bytes, held_senders) = (1 << 32, 1 << 20);
    let stream = Stream { end, queued_bytes, held_senders, is_read: true, is_blocked: true };
    let (name, state) = ("x".repeat(64), ChildState::Starting(Phase::Login));
    let child = Child { context_id: id, name, pid: u32::MAX, state, age_ms: ms };
    let what = What::Call(function.clone());
    let pending = Awaited { handle, context_id: Some(id), age_ms: ms, what };
    let what = What::Receiver(Queue { values: 1 << 32, takers: 1 << 20, holders: listed(8, id) });
    let room = Room {
        context_id: id,
        handle,
        outstanding_bytes: 1 << 32,
        held_senders,
        is_announced: true,
    };
    let (reply_to, left_ms, is_cancelled) = (handle, Some(ms), true);
    let running = Running {
        function: function.clone(),
        caller_id: id,
        reply_to,
        age_ms: ms,
        left_ms,
        is_cancelled,
    };
    Snapshot {
        context_id: id,
        name: "n".repeat(NAME_BYTES_MAX),
        pid: u32::MAX,
        parent_ids: vec![id; 1000],
        age_ms: ms,
        is_ending: true,
        is_lent: true,
        timers: 1 << 32,
        next_timer_ms: Some(ms),
        held_callers: 1 << 20,
        routes: listed(INSPECTED_MAX, route),
        streams: listed(INSPECTED_MAX, stream),
        children: listed(INSPECTED_MAX, child),
        receivers: listed(INSPECTED_MAX, Awaited { what, ..pending.clone() }),
        pending: listed(INSPECTED_MAX, pending),
        rooms: listed(INSPECTED_MAX, room),
        running: listed(INSPECTED_MAX, running),
        queued: listed(
            INSPECTED_MAX,
            Queued { function, caller_id: id, reply_to, age_ms: ms, left_ms },
        ),
        counters: most_counted(),
    }
}

fn bytes(snapshot: &Snapshot) -> Vec<u8> {
    let mut w = Writer::new(Vec::new(), None);
    snapshot.encode(&mut w);
    w.finish().unwrap()
}

fn empty(id: u32) -> Snapshot {
    let mut snapshot = longest();
    (snapshot.context_id, snapshot.name) = (ContextId(id), String::new());
    snapshot.parent_ids.clear();
    (snapshot.pending, snapshot.receivers) = Default::default();
    (snapshot.running, snapshot.queued) = Default::default();
    (snapshot.routes, snapshot.streams) = Default::default();
    (snapshot.children, snapshot.rooms) = Default::default();
    snapshot
}

#[test]
fn the_longest_answer_may_be_sent_by_a_loop() {
    let bytes = bytes(&longest());
    assert!((bytes.len() as u64) < UNGRANTED_BYTES_MAX, "{} bytes", bytes.len());
    assert_eq!(read(&bytes).unwrap(), longest());
}

#[test]
fn an_answer_of_a_stranger_is_a_typed_error_wherever_it_is_cut_or_changed() {
    let whole = bytes(&longest());
    let malformed = |bytes: &[u8]| {
        let error = read(bytes).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Malformed(_)), "{error}");
    };
    for end in (0..whole.len()).step_by(31) {
        malformed(&whole[..end]);
    }
    malformed(&[&whole[..], &[0]].concat());
    malformed(&vec![0; UNGRANTED_BYTES_MAX as usize + 1]);
    for at in (0..whole.len()).step_by(17) {
        let mut changed = whole.clone();
        changed[at] ^= 0xff;
        // It may be another snapshot, or none.
        let Err(error) = read(&changed) else { continue };
        assert!(matches!(error.kind(), ErrorKind::Malformed(_)), "{error}");
    }
}

#[test]
fn what_a_stranger_calls_itself_is_shown_without_what_a_terminal_obeys() {
    let mut snapshot = empty(3);
    snapshot.name = "a\x1b[2J\nb".to_owned();
    let function = Function { fingerprint: 1, name: "f\x1b\n".to_owned() };
    let pending = Awaited {
        handle: Handle(300),
        context_id: Some(ContextId(4)),
        age_ms: 5,
        what: What::Call(function),
    };
    snapshot.pending = Listed { first: vec![pending], more: 0 };
    snapshot.children = longest().children;
    snapshot.children.first[0].name = "\u{202e}c".to_owned();
    let text = tree_of(vec![(snapshot, None)]).to_string();
    assert!(!text.contains(['\x1b', '\u{202e}']), "{text}");
    assert!(text.contains("3 (a\\x1b[2J b)") && text.contains("f\\x1b  for 5 ms"), "{text}");
}

#[test]
fn a_stranger_is_not_shown_as_another_context() {
    let there = || Snapshot { name: "ssh:other".to_owned(), ..empty(3) };
    let error = there().of(ContextId(4), "").unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Malformed(_)), "{error}");
    assert_eq!(there().of(ContextId(3), "ssh:evil").unwrap().name, "ssh:evil");
    assert_eq!(there().of(ContextId(3), "").unwrap().name, "ssh:other");
}

fn tree_of(all: Vec<(Snapshot, Option<u32>)>) -> Tree {
    let entry = |(snapshot, parent): (Snapshot, Option<u32>)| Entry {
        context_id: snapshot.context_id,
        name: snapshot.name.clone(),
        parent_id: parent.map(ContextId),
        depth: 0,
        round_trip: None,
        outcome: Ok(snapshot),
    };
    Tree::in_order(all.into_iter().map(entry).collect())
}

#[test]
fn a_tree_has_each_context_before_those_that_it_has_started() {
    let all = [(0, None), (1, Some(0)), (2, Some(0)), (9, Some(2)), (5, Some(1)), (7, Some(6))];
    let tree = tree_of(all.map(|(id, parent)| (empty(id), parent)).into());
    let order: Vec<_> = tree.entries.iter().map(|it| (it.context_id.0, it.depth)).collect();
    // The last one's parent ended meanwhile.
    assert_eq!(order, [(0, 0), (1, 1), (5, 2), (2, 1), (9, 2), (7, 0)]);
}

#[test]
fn calls_of_one_function_to_one_context_are_one_line_and_the_oldest_wait_is_the_first() {
    let function = |name: &str| Function { fingerprint: 1, name: name.to_owned() };
    let call = |handle, age_ms, name| Awaited {
        handle: Handle(handle),
        context_id: Some(ContextId(1)),
        age_ms,
        what: What::Call(function(name)),
    };
    let mut waiter = empty(0);
    let first = vec![call(300, 70_000, "old"), call(301, 60_000, "new"), call(302, 9_000, "new")];
    waiter.pending = Listed { first, more: 5 };
    let mut tree = tree_of(vec![(waiter, None), (empty(1), Some(0))]);
    let gone = Error::new(ErrorKind::Timeout);
    tree.entries[1].outcome = Err(gone);
    let text = tree.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "0 waits for old for 1 min 10 s: in 1, which does not answer");
    let second = "0 waits for new, 2 times, the oldest for 1 min 0 s: in 1, which does not answer";
    assert_eq!(lines[1], second);
    assert!(text.contains("waits     and 5 more"), "{text}");
}

fn room(context: u32, held_senders: u64) -> Room {
    let (context_id, handle) = (ContextId(context), Handle(1 << 30));
    Room { context_id, handle, outstanding_bytes: 65_000, held_senders, is_announced: false }
}

fn child(id: u32, age_ms: u64, state: ChildState) -> Child {
    Child { context_id: ContextId(id), name: format!("ssh:web{id}"), pid: 40 + id, state, age_ms }
}

#[test]
fn connects_and_senders_that_wait_are_told_behind_the_calls_and_before_all_else() {
    let (mut me, mut hop) = (empty(0), empty(1));
    (me.held_callers, hop.held_callers) = (0, 3);
    let states = [ChildState::Starting(Phase::Login), ChildState::Up, ChildState::Ending];
    let late = child(6, 70_000, ChildState::Starting(Phase::Push));
    me.children.first = (3..).zip(states).map(|(id, state)| child(id, 5000, state)).collect();
    hop.children.first = vec![late];
    me.rooms.first = vec![room(1, 0)];
    hop.rooms.first = vec![room(0, 1), room(2, 1), room(9, 0), room(8, 1)];
    let holders = Listed { first: vec![ContextId(1)], more: 0 };
    me.receivers.first.push(Awaited {
        handle: Handle(1 << 30),
        age_ms: 5,
        context_id: None,
        what: What::Receiver(Queue { values: 6, takers: 0, holders }),
    });
    let mut tree = tree_of(vec![(me, None), (hop, Some(0)), (empty(2), Some(0))]);
    tree.entries[2].outcome = Err(Error::new(ErrorKind::Timeout));
    let text = tree.to_string();
    let summary: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
    let room = "to take what is sent to handle 1073741824:";
    let expected = [
        "1 waits for 6 (ssh:web6) for 1 min 10 s: pid 46, it is being connected, while sending the \
         agent",
        "0 waits for 3 (ssh:web3) for 5.0 s: pid 43, it is being connected, while logging in",
        "1 waits, in 3 threads, to call: too much is unanswered",
        &format!("1 waits, in a thread, for 0 {room} 6 values wait in it, from 1"),
        &format!("1 waits, in a thread, for 2 {room} it does not answer"),
        &format!("1 waits, in a thread, for 8 {room} it is none of these contexts"),
    ];
    assert_eq!(summary, expected, "{text}");
}

#[test]
fn of_what_waits_the_first_twenty_of_a_kind_are_told() {
    let starting = |id| child(id, 1000 - u64::from(id), ChildState::Starting(Phase::Login));
    let mut me = empty(0);
    (me.held_callers, me.children.first) = (0, (1..31).map(starting).collect());
    let text = tree_of(vec![(me, None)]).to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[19].starts_with("0 waits for 20 (ssh:web20) for 980 ms: "), "{text}");
    assert_eq!(lines[20..22], ["and 10 more connects", ""], "{text}");
}

#[test]
fn an_answer_that_its_caller_does_not_take_is_told_to_be_there() {
    let function = || Function { fingerprint: 7, name: "f".to_owned() };
    let (mut me, mut callee) = (empty(0), empty(1));
    let (handle, what) = (Handle(1 << 30), What::Call(function()));
    me.pending.first.push(Awaited { handle, age_ms: 9, context_id: Some(ContextId(1)), what });
    let (caller_id, left_ms) = (ContextId(0), None);
    let (reply_to, is_cancelled) = (handle, false);
    let function = function();
    let running = Running { function, caller_id, reply_to, age_ms: 8, left_ms, is_cancelled };
    callee.running.first.push(running);
    callee.rooms.first = vec![room(0, 1)];
    let shown = |callee: &Snapshot| {
        let text = tree_of(vec![(me.clone(), None), (callee.clone(), Some(0))]).to_string();
        text.lines().next().unwrap().to_owned()
    };
    let answered = "0 waits for f for 9 ms: in 1, which has the answer, and waits for 0 to take it";
    assert_eq!(shown(&callee), answered);
    callee.rooms.first = vec![room(0, 0), room(2, 1)];
    assert_eq!(shown(&callee), "0 waits for f for 9 ms: in 1, which has run it for 8 ms");
}

#[test]
fn one_is_said_to_be_behind_its_own_parent_alone_and_what_an_error_quotes_is_no_line_of_its_own() {
    let all = [(0, None), (1, Some(0)), (2, Some(1)), (3, Some(1)), (4, Some(0)), (5, Some(9))];
    let mut tree = tree_of(all.map(|(id, parent)| (empty(id), parent)).into());
    for entry in &mut tree.entries[1..] {
        entry.outcome = Err(Error::new(ErrorKind::Timeout));
    }
    let death = Death { tail: "0 waits for\n4 (x)".to_owned(), ..Death::of(Cause::Exited) };
    tree.entries[4].outcome = Err(death.into());
    let text = tree.to_string();
    let silent = text.lines().filter(|line| line.contains("no answer"));
    let behind = silent.map(|line| line.split_once("behind ").map_or("", |(_, id)| &id[..1]));
    assert_eq!(behind.collect::<Vec<_>>(), ["", "1", "1", "", ""], "{text}");
    assert!(!text.lines().any(|line| ["0 waits for", "4 (x)"].contains(&line)), "{text}");
}

#[test]
fn contexts_that_a_stranger_announces_each_below_the_other_have_a_margin_that_ends() {
    let many = 20_000;
    let all = (0..many).map(|id| (empty(id), id.checked_sub(1))).collect();
    let mut tree = tree_of(all);
    tree.entries.iter_mut().for_each(|it| it.outcome = Err(Error::new(ErrorKind::Timeout)));
    assert_eq!(tree.entries.last().unwrap().depth, many as usize - 1);
    let text = tree.to_string();
    assert!(text.len() < 200 * many as usize, "{} bytes", text.len());
    assert_eq!(text.matches("which does not answer either").count(), many as usize - 1);
}

#[test]
fn what_a_context_writes_is_what_the_type_says() {
    let router = crate::Program::new().router().unwrap();
    let receiver = router.receiver::<u32>();
    let _sender = receiver.to_sender();
    let _context = router.in_process().unwrap();
    let snapshot = router.inspect().unwrap();
    assert_eq!(read(&bytes(&snapshot)).unwrap(), snapshot);
    assert_eq!((snapshot.pid, snapshot.name.as_str()), (std::process::id(), "master"));
    // Not even this answer.
    assert_eq!(snapshot.pending.count(), 0, "{snapshot}");
    assert!(!snapshot.is_ending && snapshot.parent_ids.is_empty());
    let one =
        |it: &&Awaited| matches!(&it.what, What::Receiver(queue) if queue.holders.count() == 1);
    assert_eq!(snapshot.receivers.first.iter().filter(one).count(), 1);
    assert_eq!(snapshot.routes.first[0].parent_id, ContextId::MASTER);
}

#[test]
fn a_callee_that_tells_of_countless_calls_is_shown() {
    let function = Function { fingerprint: 7, name: "f".to_owned() };
    let (mut me, mut callee) = (empty(0), empty(1));
    me.pending.first.push(Awaited {
        handle: Handle(2000),
        age_ms: 1,
        context_id: Some(ContextId(1)),
        what: What::Call(function),
    });
    (callee.running.more, callee.queued.more) = (u64::MAX, 1);
    let shown = tree_of(vec![(me, None), (callee, Some(0))]).to_string();
    assert!(shown.contains("tells of too many calls"), "{shown}");
}

#[test]
fn a_timer_that_is_due_in_ages_is_told() {
    let router = crate::Program::new().router().unwrap();
    let far = Duration::from_secs(u64::MAX / 4);
    let silent = ["sh", "-c", "exec sleep 1000"];
    let starting = router.command(silent).connect_timeout(far).start();
    let mut there = router.inspect().unwrap();
    while there.children.first.is_empty() {
        there = router.inspect().unwrap();
    }
    assert!(there.timers != 0 && there.next_timer_ms.is_some(), "{there}");
    router.shutdown();
    drop(starting);
}
