//! Select over what a program waits for in real contexts: calls, connects, streams, and all of
//! them, from this process and from children.
// A program writes `Select<_>`.
#![allow(elided_lifetimes_in_paths)]

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use mitogen::error::{Cause, ConnectFailure, ErrorKind};
use mitogen::{CallContext, Context, Error, Latch, Program, Result, Router};
use mitogen::{Select, Sender, stock};

use crate::support::*;

mitogen::test_agent!(program());

const LIMIT: Duration = Duration::from_secs(20);

fn program() -> Program {
    Program::new()
        .function(folder_bytes)
        .function(when_told)
        .function(count)
        .function(count_and_fail)
        .function(hold)
        .function(gather_below)
        .function(give_back)
        .function(fail)
}

/// Bytes of the files right in `folder`.
fn folder_bytes(folder: &Path) -> io::Result<u64> {
    std::fs::read_dir(folder)?.map(|entry| entry?.metadata().map(|about| about.len())).sum()
}

/// Returns `value` once it is told to: by the Sender that it gives out.
fn when_told(cx: &CallContext, value: u32, out: Sender<Sender<u32>>) -> Result<u32> {
    let told = cx.router().receiver();
    out.send(told.to_sender())?;
    drop(out);
    told.get().map(|more: u32| value + more)
}

fn count(to: u32, out: Sender<u32>) -> Result<()> {
    (0..to).try_for_each(|i| out.send(i))
}

fn count_and_fail(to: u32, out: Sender<u32>) -> Result<(), String> {
    count(to, out).map_err(|error| error.to_string())?;
    Err("enough".to_owned())
}

fn hold(cx: &CallContext, out: Sender<u32>) -> Result<()> {
    out.send(0)?;
    cx.router().broker().join();
    Ok(())
}

fn give_back(out: Sender<u32>) -> Sender<u32> {
    out
}

fn fail() -> Result<u32, &'static str> {
    Err("no")
}

/// What children of this context count, merged here.
fn gather_below(cx: &CallContext, contexts: u32, to: u32) -> Result<u32> {
    let below: Vec<_> = (0..contexts).map(|_| cx.router().in_process()).collect::<Result<_>>()?;
    let streams = Select::new();
    for context in &below {
        let numbers = cx.router().receiver();
        context.call_no_reply(count, (to, numbers.to_sender()))?;
        streams.add(numbers, |number: Result<u32>| number)?;
    }
    streams.sum()
}

/// Is not registered.
fn unknown() {}

fn tree<const N: usize>() -> (Router, [Context; N]) {
    let router = mitogen_test_program().router().unwrap();
    let contexts = std::array::from_fn(|_| router.in_process().unwrap());
    (router, contexts)
}

fn cause(error: &Error) -> Option<Cause> {
    let ErrorKind::Closed(death) = error.kind() else { return None };
    Some(death.cause)
}

#[track_caller]
fn soon<E>(select: &Select<'_, E>) -> Option<E> {
    select.next_timeout(LIMIT).unwrap()
}

#[test]
fn scatter_and_gather_is_one_line_and_so_is_each_with_its_key() {
    fn run(router: &Router) -> Result<()> {
        let hosts = [router.local().connect()?, router.connect(&"local/local".parse()?)?];
        let expected = hosts[0].call(folder_bytes, "/etc")?;

        let total: u64 = Select::all(hosts.iter().map(|h| h.call_async(folder_bytes, "/etc")))?
            .into_iter()
            .sum();
        assert_eq!(total, 2 * expected);

        let mut seen = vec![];
        for (host, bytes) in
            hosts.iter().map(|h| (h, h.call_async(folder_bytes, "/etc"))).collect::<Select<_>>()
        {
            assert_eq!(bytes?, expected);
            seen.push(host.context_id());
        }
        seen.sort_unstable();
        assert_eq!(seen, hosts.map(|host| host.context_id()));
        Ok(())
    }
    leaves_nothing(&[], || run(&mitogen_test_program().router().unwrap()).unwrap());
}

#[test]
fn calls_are_events_in_the_order_of_their_answers() {
    let _company = beside_others();
    let (router, contexts) = tree::<4>();
    let gates = router.receiver();
    let mut calls = vec![];
    let mut told: Vec<Sender<u32>> = vec![];
    for (context, i) in contexts.iter().zip(0..) {
        calls.push(context.call_async(when_told, (i, gates.to_sender())));
        told.push(gates.get_timeout(LIMIT).unwrap());
    }
    let select: Select<'_, _> = contexts.iter().map(Context::context_id).zip(calls).collect();
    for i in [2, 0, 3, 1] {
        assert!(select.try_next().is_none());
        told[i].send(100).unwrap();
        let (id, value) = soon(&select).unwrap();
        assert_eq!((id, value.unwrap()), (contexts[i].context_id(), 100 + i as u32));
    }
    assert!(soon(&select).is_none());
}

#[test]
fn in_order_is_what_can_be_zipped_however_late_the_first_is() {
    let _company = beside_others();
    let (router, contexts) = tree::<3>();
    let gates = router.receiver();
    let calls: Vec<_> = contexts
        .iter()
        .zip(0..)
        .map(|(context, i)| {
            let call = context.call_async(when_told, (i, gates.to_sender()));
            (call, gates.get_timeout(LIMIT).unwrap())
        })
        .collect();
    let (calls, mut told): (Vec<_>, Vec<Sender<u32>>) = calls.into_iter().unzip();
    let teller = thread::spawn(move || {
        while let Some(out) = told.pop() {
            out.send(0).unwrap();
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(Select::in_order(calls).unwrap(), [0, 1, 2]);
    teller.join().unwrap();
}

#[test]
fn the_first_call_that_fails_ends_all_and_the_others_are_given_up() {
    let _company = beside_others();
    let (router, [a, b]) = tree();
    let gates = router.receiver();
    let slow = a.call_async(when_told, (1, gates.to_sender()));
    let told: Sender<u32> = gates.get_timeout(LIMIT).unwrap();
    let error = Select::all([slow, b.call_async(fail, ())]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Call(_)), "{error}");
    // Nobody waits for it any more; a context that serves others goes on.
    let _ = told.send(0);
    drop(told);
    assert_eq!(a.call(stock::ping, ()).map_err(|error| error.to_string()), Ok(()));
}

#[test]
fn a_call_that_could_not_be_sent_is_an_event_like_others() {
    let _company = beside_others();
    let (_router, [a, b]) = tree();
    let calls = [("unknown", a.call_async(unknown, ())), ("ping", b.call_async(stock::ping, ()))];
    let mut select: Select<'_, _> = calls.into_iter().collect();
    let (name, result) = select.next_timeout(LIMIT).unwrap().unwrap();
    assert_eq!(name, "unknown");
    assert!(matches!(result.unwrap_err().kind(), ErrorKind::Usage(_)));
    assert!(matches!(Iterator::next(&mut select), Some(("ping", Ok(())))));
    assert!(Iterator::next(&mut select).is_none());
}

#[test]
fn a_stream_that_ends_leaves_silently_and_one_that_breaks_says_why_once() {
    let _company = beside_others();
    let (router, [a, b]) = tree();
    let (good, bad) = (router.receiver(), router.receiver());
    a.call_no_reply(count, (100, good.to_sender())).unwrap();
    b.call_no_reply(count_and_fail, (100, bad.to_sender())).unwrap();
    let streams = [("good", &good), ("bad", &bad)];
    let (mut sums, mut errors) = ([0, 0], vec![]);
    for (name, number) in streams.into_iter().collect::<Select<_>>() {
        match number {
            Ok(number) => sums[usize::from(name == "bad")] += number,
            Err(error) => errors.push((name, cause(&error), sums[1])),
        }
    }
    // What was sent before the end has come before it.
    assert_eq!((sums, errors), ([4950, 4950], vec![("bad", Some(Cause::Failed), 4950)]));
}

#[test]
fn what_was_queued_before_the_add_and_what_comes_after_it_arrives() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let numbers = router.receiver();
    a.call(count, (10, numbers.to_sender())).unwrap();
    assert!(!numbers.is_empty());
    let select = Select::new();
    select.add(&numbers, Result::unwrap).unwrap();
    assert_eq!(select.collect::<Vec<u32>>(), (0..10).collect::<Vec<_>>());
    assert!(numbers.get().is_err(), "it has ended");

    let numbers = router.receiver();
    let out = numbers.to_sender();
    let select = Select::new();
    select.add(&numbers, Result::unwrap).unwrap();
    a.call(count, (10, &out)).unwrap();
    // Drained by another thread, some of it.
    let mut rest = thread::scope(|scope| {
        scope.spawn(|| (0..5).map(|_| numbers.get().unwrap()).collect::<Vec<u32>>()).join().unwrap()
    });
    drop(out);
    rest.extend(select);
    assert_eq!(rest, (0..10).collect::<Vec<_>>());
}

#[test]
fn a_receiver_is_in_one_select_at_a_time() {
    let _company = beside_others();
    let router = mitogen_test_program().router().unwrap();
    let numbers = router.receiver::<u32>();
    let (one, two) = (Select::new(), Select::new());
    let key = one.add(&numbers, |_| ()).unwrap();
    for select in [&one, &two] {
        let error = select.add(&numbers, |_| ()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Usage(_)), "{error}");
    }
    one.remove(key);
    two.add(&numbers, |_| ()).unwrap();
}

#[test]
fn closing_a_receiver_removes_it_and_ends_the_wait_of_whoever_has_nothing_else() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let numbers = router.receiver();
    a.call(count, (10, numbers.to_sender())).unwrap();
    let select = Select::new();
    select.add(&numbers, Result::unwrap).unwrap();
    let out = numbers.to_sender();
    assert_eq!(soon::<u32>(&select), Some(0));
    thread::scope(|scope| {
        let wait = scope.spawn(|| while soon(&select).is_some() {});
        thread::sleep(Duration::from_millis(5));
        numbers.close();
        wait.join().unwrap();
    });
    assert!(out.send(1).is_err() && !select.has_sources());
}

mitogen::value! {
    #[derive(Debug, PartialEq)]
    struct Line { text: String }
}

#[derive(Debug)]
enum Event {
    Number(Result<u32>),
    Line(Result<Line>),
    Called(Result<u64>),
    Up(Result<Context>),
    Inner(Box<Event>),
    Stop,
}

#[test]
fn sources_of_every_kind_are_one_stream_of_events() {
    leaves_nothing(&[], || {
        let (router, [a]) = tree();
        let (numbers, lines) = (router.receiver(), router.receiver());
        let latch = Latch::<()>::new();
        let (inner, select) = (Select::new(), Select::new());
        select.add(&numbers, Event::Number).unwrap();
        let stop = select.add(&latch, |_| Event::Stop).unwrap();
        select.add(router.local().start(), Event::Up).unwrap();
        select.add(a.call_async(folder_bytes, "/etc"), Event::Called).unwrap();
        inner.add(&lines, Event::Line).unwrap();
        select.add(&inner, |event| Event::Inner(Box::new(event.unwrap()))).unwrap();
        a.call_no_reply(count, (3, numbers.to_sender())).unwrap();
        lines.to_sender().send(Line { text: "one".to_owned() }).unwrap();

        let (mut said, mut called) = (vec![], 0);
        for event in &select {
            match event {
                Event::Number(number) => said.push(number.unwrap().to_string()),
                Event::Inner(event) => match *event {
                    Event::Line(line) => said.push(line.unwrap().text),
                    event => panic!("{event:?}"),
                },
                Event::Called(bytes) => called += bytes.unwrap(),
                Event::Up(child) => {
                    // Adds while it iterates.
                    let child = child.unwrap();
                    select.add(child.call_async(folder_bytes, "/etc"), Event::Called).unwrap();
                    latch.put(()).unwrap();
                }
                Event::Stop => assert!(select.remove(stop)),
                Event::Line(_) => panic!("only inside of the other"),
            }
        }
        said.sort_unstable();
        assert_eq!(said, ["0", "1", "2", "one"]);
        assert_eq!(called, 2 * folder_bytes(Path::new("/etc")).unwrap());
    });
}

#[test]
fn connects_are_events_as_they_come_up_or_fail() {
    leaves_nothing(&[], || {
        let router = mitogen_test_program().router().unwrap();
        let starting = [
            ("no tool", router.command(["/nowhere/tool"]).start()),
            ("never", router.command(["sh", "-c", "sleep 1000", "-"]).start()),
            ("up", router.local().start()),
        ];
        let mut select: Select<'_, _> = starting.into_iter().collect();
        let mut outcomes: Vec<_> = select.by_ref().take(2).collect();
        outcomes.sort_unstable_by_key(|(name, _)| *name);
        let (name, outcome) = outcomes.pop().unwrap();
        assert_eq!((name, outcome.unwrap().call(stock::ping, ()).unwrap()), ("up", ()));
        let (name, outcome) = outcomes.pop().unwrap();
        let error = outcome.unwrap_err();
        let ErrorKind::Connect(failed) = error.kind() else { panic!("{error}") };
        assert_eq!(name, "no tool");
        assert!(matches!(failed.failure, ConnectFailure::NoTool(_)), "{error}");
        let error = select.next_timeout(Duration::from_millis(20)).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Timeout);
        // The one that never comes up is given up, and leaves nothing.
        drop(select);
    });
}

#[test]
fn contexts_are_started_at_once_and_in_order() {
    leaves_nothing(&[], || {
        let router = mitogen_test_program().router().unwrap();
        let names = ["one", "two", "three"];
        let starting = names.map(|name| router.local().name(name).start());
        let hosts = Select::in_order(starting).unwrap();
        assert_eq!(hosts.iter().map(Context::name).collect::<Vec<_>>(), names);
    });
}

#[test]
fn whoever_dies_is_told_of_by_each_source_that_hung_on_it_and_by_no_other() {
    leaves_nothing(&[], || {
        let router = mitogen_test_program().router().unwrap();
        let [a, b] = [(); 2].map(|()| router.local().connect().unwrap());
        let (streams, gates) = ([router.receiver(), router.receiver()], router.receiver());
        a.call_no_reply(hold, streams[0].to_sender()).unwrap();
        assert_eq!(streams[0].get_timeout(LIMIT).unwrap(), 0);
        let select = Select::new();
        select.add(&streams[0], |number| ("stream of a", number)).unwrap();
        select.add(&streams[1], |number| ("stream of b", number)).unwrap();
        let call = a.call_async(when_told, (1, gates.to_sender()));
        select.add(call, |value| ("call of a", value)).unwrap();
        let call = b.call_async(when_told, (2, gates.to_sender()));
        let told: Sender<u32> = gates.get_timeout(LIMIT).unwrap();
        select.add(call, |value| ("call of b", value)).unwrap();
        let out = streams[1].to_sender();

        router.disconnect(&a).unwrap();
        let mut ends = [soon(&select).unwrap(), soon(&select).unwrap()];
        ends.sort_unstable_by_key(|(name, _)| *name);
        for (end, expected) in ends.into_iter().zip(["call of a", "stream of a"]) {
            let (name, error) = (end.0, end.1.unwrap_err());
            let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
            assert_eq!((name, death.context), (expected, Some(a.context_id())));
        }
        assert!(select.try_next().is_none());
        told.send(40).unwrap();
        assert!(matches!(soon(&select), Some(("call of b", Ok(42)))));
        drop(out);
        assert!(soon(&select).is_none());
    });
}

#[test]
fn a_shutdown_at_the_worst_time_ends_everything_that_it_waits_for() {
    leaves_nothing(&[], || {
        for wait_first in [true, false] {
            let (router, [a]) = tree();
            let (numbers, gates) = (router.receiver::<u32>(), router.receiver());
            let select = Select::new();
            select.add(&numbers, |number| number.map(|_| ())).unwrap();
            let call = a.call_async(when_told, (1, gates.to_sender()));
            select.add(call, |value| value.map(|_| ())).unwrap();
            let connect = router.command(["sh", "-c", "sleep 1000", "-"]).start();
            select.add(connect, |context| context.map(|_| ())).unwrap();
            let end = || {
                if wait_first {
                    thread::sleep(Duration::from_millis(20));
                }
                router.shutdown();
            };
            thread::scope(|scope| {
                scope.spawn(end);
                let begun = Instant::now();
                let ends: Vec<_> = select.map(|end| end.unwrap_err()).collect();
                assert!(ends.len() == 3 && begun.elapsed() < LIMIT / 2, "{ends:?}");
                assert!(ends.iter().filter(|e| cause(e) == Some(Cause::Shutdown)).count() >= 2);
            });
            let error = Select::all([a.call_async(stock::ping, ())]).unwrap_err();
            assert_eq!(cause(&error), Some(Cause::Shutdown), "{error}");
        }
    });
}

#[test]
fn dropping_a_select_gives_up_the_calls_in_it() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let numbers = router.receiver();
    let select = Select::new();
    select.add(a.call_async(give_back, numbers.to_sender()), |_| ()).unwrap();
    let key = select.add(a.call_async(give_back, numbers.to_sender()), |_| ()).unwrap();
    select.remove(key);
    drop(select);
    // The Senders that come back are nobody's; or they were never taken.
    let error = numbers.get_timeout(LIMIT).unwrap_err();
    assert!(matches!(cause(&error), Some(Cause::SenderClosed | Cause::Cancelled)), "{error}");
}

#[test]
fn work_is_handed_out_as_contexts_come_free() {
    let _company = beside_others();
    let (_router, contexts) = tree::<3>();
    let (mut left, mut done) = (0..300_u64, 0);
    let select = Select::new();
    let hand_out = |context: usize, left: &mut std::ops::Range<u64>| {
        if left.next().is_some() {
            let call = contexts[context].call_async(stock::ping, ());
            select.add(call, move |end| (context, end)).unwrap();
        }
    };
    (0..3).for_each(|context| hand_out(context, &mut left));
    for (context, end) in &select {
        end.unwrap();
        done += 1;
        hand_out(context, &mut left);
    }
    assert_eq!((done, left), (300, 300..300));
}

#[test]
fn thousands_of_calls_are_waited_for_at_once_by_several_threads() {
    let _company = beside_others();
    let (_router, contexts) = tree::<2>();
    let calls = (0..4000).map(|i| (i, contexts[i % 2].call_async(stock::ping, ())));
    let select: Select<'_, _> = calls.collect();
    let mut seen: Vec<usize> = thread::scope(|scope| {
        let wait = || {
            let (mut seen, mut events) = (vec![], &select);
            while let Some((i, end)) = Iterator::next(&mut events) {
                end.unwrap();
                seen.push(i);
            }
            seen
        };
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(wait)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    seen.sort_unstable();
    assert_eq!(seen, (0..4000).collect::<Vec<_>>());
}

#[test]
fn it_works_in_children_too_and_through_hops() {
    leaves_nothing(&[], || {
        let router = mitogen_test_program().router().unwrap();
        let far = router.connect(&"local/local".parse().unwrap()).unwrap();
        assert_eq!(far.call(gather_below, (4, 1000)).unwrap(), 4 * 499_500);
    });
}
