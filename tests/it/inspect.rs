//! What contexts tell of themselves while something in them, or in others, is stuck.

use std::thread;
use std::time::Duration;

use mitogen::error::{Cause, Death, ErrorKind, Phase};
use mitogen::inspect::{Awaited, ChildState, End, Queue, Snapshot, Tree, What};
use mitogen::{CallContext, Context, ContextId, Error, ForkPromise, Program, Result, Router};
use mitogen::{Sender, stock};

use crate::support::{beside_others, leaves_nothing, signal, until};

mitogen::test_agent!(program());

fn program() -> Program {
    let program = Program::new().function(hang).function(flood).function(take).function(look_at);
    program.function(keep).allow_fork(promise())
}

#[allow(unsafe_code)] // the promise that forks ask for
fn promise() -> ForkPromise {
    // SAFETY: what copies run here allocates, which the system sees to, and calls the library.
    unsafe { ForkPromise::new() }
}

/// Says that it has begun, and then nothing until it is cancelled.
fn hang(cx: &CallContext, begun: Sender<()>) -> Result<()> {
    begun.send(())?;
    drop(begun);
    cx.sleep(Duration::from_secs(1000))
}

/// Sends until that fails.
fn flood(out: Sender<Vec<u8>>) {
    while out.send(vec![7; 10_000]).is_ok() {}
}

/// Takes an argument that is bulk.
fn take(bytes: Vec<u8>) -> usize {
    bytes.len()
}

/// Keeps a Sender until it is cancelled.
fn keep(cx: &CallContext, out: Sender<u64>) -> Result<()> {
    let slept = cx.sleep(Duration::from_secs(1000));
    drop(out);
    slept
}

/// Inspects another context, and says how that ended.
fn look_at(other: Context) -> String {
    match other.inspect(LIMIT) {
        Ok(snapshot) => format!("seen {}", snapshot.context_id),
        Err(error) => format!("{:?}", cause(&error)),
    }
}

const LIMIT: Duration = Duration::from_secs(20);

#[track_caller]
fn cause(error: &Error) -> Cause {
    let ErrorKind::Closed(Death { cause, .. }) = error.kind() else { panic!("{error}") };
    *cause
}

/// A router, and a child, its child, and one of that.
fn three_hops() -> (Router, [Context; 3]) {
    let router = mitogen_test_program().router().unwrap();
    let first = router.local().connect().unwrap();
    let second = router.local().via(&first).connect().unwrap();
    let third = router.local().via(&second).connect().unwrap();
    (router, [first, second, third])
}

/// Hangs there; returns when it does.
fn hang_in(context: &Context) -> mitogen::Call<()> {
    let begun = context.router().receiver();
    let call = context.call_async(hang, begun.to_sender());
    begun.get_timeout(LIMIT).unwrap();
    call
}

/// What a context tells, once it is as it should be.
#[track_caller]
fn seen(context: &Context, mut is_it: impl FnMut(&Snapshot) -> bool) -> Snapshot {
    let mut last = None;
    let found = until(LIMIT, || {
        let snapshot = context.inspect(LIMIT).unwrap();
        if is_it(&snapshot) {
            return Some(snapshot);
        }
        last = Some(snapshot);
        None
    });
    found.unwrap_or_else(|| panic!("{}", last.unwrap()))
}

#[track_caller]
fn of(tree: &Tree, id: ContextId) -> &Snapshot {
    tree.entry(id).unwrap().outcome.as_ref().unwrap()
}

#[test]
fn a_stuck_call_three_hops_down_is_named_with_its_context_and_its_age() {
    leaves_nothing(&[], || {
        let (router, [first, second, far]) = three_hops();
        let call = hang_in(&far);
        let queued = far.call_async(stock::ping, ());
        let is_old = |it: &Snapshot| {
            it.running.first.iter().any(|it| 200 <= it.age_ms) && it.queued.count() == 1
        };
        let there = seen(&far, is_old);
        assert_eq!(there.pid, far_pid(&there, &second));

        let tree = router.inspect_tree(LIMIT);
        let ids: Vec<_> =
            tree.entries.iter().map(|entry| (entry.context_id, entry.depth)).collect();
        let [first, second, far_id] = [&first, &second, &far].map(Context::context_id);
        assert_eq!(ids, [(ContextId::MASTER, 0), (first, 1), (second, 2), (far_id, 3)]);
        // As its caller sees it, and as it is.
        let pending = calls(of(&tree, ContextId::MASTER));
        let running = &of(&tree, far_id).running.first;
        let What::Call(function) = &pending[0].what else { panic!("{tree}") };
        assert_eq!(pending.len(), 2);
        assert_eq!(function.name, std::any::type_name_of_val(&hang));
        assert_eq!((pending[0].context_id, pending[0].handle), (Some(far_id), running[0].reply_to));
        assert_eq!((&running[0].function, running[0].caller_id), (function, ContextId::MASTER));
        for age_ms in [pending[0].age_ms, running[0].age_ms] {
            assert!((200..20_000).contains(&age_ms), "{tree}");
        }
        assert_eq!(of(&tree, far_id).queued.count(), 1);
        // In between nothing waits.
        assert_eq!(of(&tree, second).pending.count() + of(&tree, second).running.count(), 0);
        assert_eq!(of(&tree, second).routes.first[0].context_id, far_id);
        assert_eq!(of(&tree, first).routes.count(), 2);

        let text = tree.to_string();
        let line = text.lines().next().unwrap();
        let name = far.name();
        let expected = format!("in {far_id} ({name}), which has run it for ");
        assert!(line.starts_with("0 waits for ") && line.contains("::hang for "), "{text}");
        assert!(line.contains(&expected), "{text}");
        assert!(text.contains("where it is queued, while it::inspect::hang runs"), "{text}");
        drop((call, queued));
    });
}

/// The calls that it waits for.
fn calls(snapshot: &Snapshot) -> Vec<&Awaited> {
    let all = snapshot.pending.first.iter();
    all.filter(|awaited| matches!(awaited.what, What::Call(_))).collect()
}

/// The process of the only child, as its parent sees it.
fn far_pid(there: &Snapshot, parent: &Context) -> u32 {
    let children = parent.inspect(LIMIT).unwrap().children.first;
    assert_eq!((children.len(), &children[0].state), (1, &ChildState::Up));
    assert_eq!(children[0].context_id, there.context_id);
    children[0].pid
}

#[test]
fn a_sender_that_waits_for_room_and_a_receiver_that_nobody_empties_are_seen_at_both_ends() {
    let _beside = beside_others();
    let router = mitogen_test_program().router().unwrap();
    let child = router.local().connect().unwrap();
    let values = router.receiver::<Vec<u8>>();
    let call = child.call_async(flood, values.to_sender());
    let there = seen(&child, |it| it.rooms.first.iter().any(|room| 0 < room.held_senders));
    let room = &there.rooms.first[0];
    assert_eq!((room.context_id, room.held_senders), (ContextId::MASTER, 1));
    assert!((50_000..=70_000).contains(&room.outstanding_bytes) && !room.is_announced, "{there}");
    assert!(there.to_string().contains("waits     a thread for 0 to take what is sent"), "{there}");
    let here = router.inspect().unwrap();
    let mut receivers = here.receivers.first.iter();
    let receiver = receivers.find(|it| it.handle == room.handle).unwrap();
    let What::Receiver(Queue { values: count, takers: 0, holders }) = &receiver.what else {
        panic!("{here}")
    };
    assert!(5 <= *count && holders.first == [child.context_id()], "{here}");
    drop(values);
    call.get_timeout(LIMIT).unwrap();
}

#[test]
fn a_thread_at_a_receiver_that_nobody_feeds_is_seen_and_who_could_feed_it() {
    let _beside = beside_others();
    let router = mitogen_test_program().router().unwrap();
    let child = router.local().connect().unwrap();
    let values = router.receiver::<u64>();
    let call = child.call_async(keep, values.to_sender());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| values.get_timeout(LIMIT));
        let me = router.myself();
        let fed_by = |it: &Snapshot| {
            let mut all = it.receivers.first.iter().map(|it| &it.what);
            all.any(|what| {
                let What::Receiver(Queue { values: 0, takers: 1, holders }) = what else {
                    return false;
                };
                holders.first == [child.context_id()]
            })
        };
        let here = seen(&me, fed_by);
        assert!(here.to_string().contains("waits     a thread for values at "), "{here}");
        drop(call);
        assert!(waiting.join().unwrap().is_err());
    });
}

#[test]
fn a_stopped_process_is_shown_as_what_does_not_answer_and_so_is_who_is_behind_it() {
    let _beside = beside_others();
    let (router, [first, second, _]) = three_hops();
    let other = router.local().connect().unwrap();
    let pid = first.inspect(LIMIT).unwrap().children.first[0].pid;
    signal(pid, "STOP");
    thread::scope(|scope| {
        let bulk = scope.spawn(|| second.call(take, vec![0; 1 << 20]));
        let me = router.myself();
        let here = seen(&me, |it| it.rooms.first.iter().any(|room| 0 < room.held_senders));
        let room = &here.rooms.first[0];
        assert!(room.is_announced && room.context_id == second.context_id(), "{here}");

        let tree = router.inspect_tree(Duration::from_millis(500));
        let answers: Vec<bool> = tree.entries.iter().map(|it| it.outcome.is_ok()).collect();
        let text = tree.to_string();
        assert_eq!(answers, [true, true, false, false, true], "{text}");
        for entry in &tree.entries[2..4] {
            let error = entry.outcome.as_ref().unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Timeout);
        }
        let second = second.context_id();
        assert!(text.contains("::take for "), "{text}");
        assert!(text.contains("which does not answer\n"), "{text}");
        let behind = format!("it is behind {second}, which does not answer either");
        assert!(text.contains(&behind), "{text}");
        assert_eq!(tree.entries[4].context_id, other.context_id());
        signal(pid, "CONT");
        assert_eq!(bulk.join().unwrap().unwrap(), 1 << 20);
    });
    assert!(router.inspect_tree(LIMIT).entries.iter().all(|entry| entry.outcome.is_ok()));
}

#[test]
fn a_connect_that_hangs_is_shown_as_a_child_that_is_starting_with_its_phase() {
    let _beside = beside_others();
    let router = mitogen_test_program().router().unwrap();
    let child = router.local().connect().unwrap();
    let deaf = router.command(["sh", "-c", "exec sleep 987", "x"]).name("deaf").via(&child);
    let starting = deaf.start();
    let there = seen(&child, |it| it.children.count() == 1);
    let begun = &there.children.first[0];
    assert_eq!(begun.state, ChildState::Starting(Phase::Login), "{there}");
    assert_eq!(begun.name, "deaf");
    assert!(there.streams.first.iter().any(|it| it.end == End::Starting(begun.context_id)));
    let text = there.to_string();
    assert!(text.contains("(deaf), pid ") && text.contains("while logging in"), "{text}");
    let here = router.inspect().unwrap();
    let connect = here.pending.first.iter().find(|it| it.what == What::Connect).unwrap();
    assert_eq!(connect.context_id, Some(child.context_id()));
    drop(starting);
    seen(&child, |it| it.children.count() == 0);
}

#[test]
fn what_hangs_is_told_though_there_is_too_much_to_tell() {
    let _beside = beside_others();
    let router = mitogen_test_program().router().unwrap();
    let many: Vec<_> = (0..130).map(|_| router.local().start()).collect();
    let many: Vec<Context> = many.into_iter().map(|start| start.wait().unwrap()).collect();
    let deaf = router.command(["sh", "-c", "exec sleep 987", "x"]).name("deaf");
    let starting = deaf.start();
    let me = router.myself();
    let here = seen(&me, |it| it.children.count() == 131);
    let state = |child: &mitogen::inspect::Child| child.state.clone();
    assert_eq!(state(&here.children.first[0]), ChildState::Starting(Phase::Login), "{here}");
    assert_eq!((state(&here.children.first[1]), here.children.more), (ChildState::Up, 3));

    let last = many.iter().max_by_key(|context| context.context_id()).unwrap();
    let pid = last.inspect(LIMIT).unwrap().pid;
    signal(pid, "STOP");
    // Until that is more than its socket takes.
    let mut calls = Vec::new();
    let here = seen(&me, |it| {
        calls.push(last.call_async(take, vec![0; 10_000]));
        it.streams.first[0].is_blocked
    });
    assert_eq!(here.streams.first[0].end, End::Child(last.context_id()), "{here}");
    assert!(here.streams.first.len() == 128 && 100 < here.streams.more, "{here}");
    let tree = router.inspect_tree(Duration::from_millis(500));
    assert_eq!(of(&tree, ContextId::MASTER).streams.first.len(), 128);
    let text = tree.to_string();
    assert!(text.contains("(deaf) for ") && text.contains("while logging in\n"), "{text}");
    signal(pid, "CONT");
    calls.into_iter().for_each(|call| assert_eq!(call.get_timeout(LIMIT).unwrap(), 10_000));
    drop(starting);
}

#[test]
fn a_heartbeat_is_a_timer_that_is_due_soon() {
    let _beside = beside_others();
    let router = mitogen_test_program().router().unwrap();
    let child = router.local().heartbeat(Duration::from_secs(5)).connect().unwrap();
    for snapshot in [router.inspect().unwrap(), child.inspect(LIMIT).unwrap()] {
        let next_ms = snapshot.next_timer_ms.unwrap();
        assert!(1 <= snapshot.timers && next_ms <= 5000, "{snapshot}");
    }
}

#[test]
fn ten_thousand_calls_that_are_not_answered_fit_one_answer() {
    let _beside = beside_others();
    let router = mitogen_test_program().router().unwrap();
    let child = router.local().connect().unwrap();
    let stuck = hang_in(&child);
    let many: Vec<_> = (0..10_000).map(|_| child.call_async(stock::ping, ())).collect();
    let here = router.inspect().unwrap();
    assert!(10_001 <= here.pending.count() && here.pending.first.len() == 128);
    let What::Call(function) = &calls(&here)[0].what else { panic!("{here}") };
    assert!(function.name.ends_with("::hang"), "{here}");
    let there = seen(&child, |it| it.queued.count() == 10_000);
    assert!(there.running.count() == 1 && there.queued.first.len() == 128);
    assert!(there.to_string().contains("and 9872 more"), "{there}");
    drop(stuck);
    many.into_iter().for_each(|call| call.get_timeout(LIMIT).unwrap());
}

#[test]
fn after_the_shutdown_nobody_answers_and_the_error_says_why() {
    let _beside = beside_others();
    let router = mitogen_test_program().router().unwrap();
    let child = router.local().connect().unwrap();
    child.shutdown().unwrap();
    let gone = child.inspect(LIMIT).unwrap_err();
    assert_eq!(cause(&gone), Cause::NoRoute);
    router.shutdown();
    for error in [router.inspect().unwrap_err(), child.inspect(LIMIT).unwrap_err()] {
        assert_eq!(cause(&error), Cause::Shutdown);
    }
    let tree = router.inspect_tree(LIMIT);
    assert_eq!(tree.entries.len(), 1);
    assert_eq!(cause(tree.entries[0].outcome.as_ref().unwrap_err()), Cause::Shutdown);
    assert!(tree.to_string().contains("no answer: "));
}

#[test]
fn a_context_may_not_inspect_those_beside_or_above_it_unless_that_was_granted() {
    let _beside = beside_others();
    let router = mitogen_test_program().router().unwrap();
    let [one, other] = [0, 1].map(|_| router.local().connect().unwrap());
    assert_eq!(one.call(look_at, &other).unwrap(), "Refused");
    assert_eq!(one.call(look_at, router.myself()).unwrap(), "Refused");
    other.grant(&one).unwrap();
    let seen = format!("seen {}", other.context_id());
    assert_eq!(one.call(look_at, &other).unwrap(), seen);
    assert_eq!(one.call(look_at, &one).unwrap(), format!("seen {}", one.context_id()));
}

#[test]
fn contexts_in_this_process_and_copies_of_it_answer_too() {
    let _beside = beside_others();
    let router = mitogen_test_program().router().unwrap();
    let copy = router.fork(promise()).connect().unwrap();
    let inner = router.in_process().unwrap();
    for context in [&copy, &inner] {
        let call = hang_in(context);
        let there = context.inspect(LIMIT).unwrap();
        assert_eq!(there.parent_ids, [ContextId::MASTER]);
        assert!(there.running.first[0].function.name.ends_with("::hang"), "{there}");
        assert!(there.streams.first.iter().any(|stream| stream.end == End::Parent), "{there}");
        assert_eq!(there.pid == std::process::id(), context == &inner);
        drop(call);
    }
    let children = router.inspect().unwrap().children;
    assert_eq!(children.first[0].pid, copy.inspect(LIMIT).unwrap().pid);
}
