//! Who may do what to whom, between real processes.

use std::time::Duration;

use mitogen::error::{Cause, Death, ErrorKind};
use mitogen::{CallContext, Context, ContextId, Program, Receiver, Result, Router, Sender, stock};

use crate::support::beside_others;

mitogen::test_agent!(program());

fn program() -> Program {
    Program::new()
        .function(child_of)
        .function(loose_child_of)
        .function(reach)
        .function(serve)
        .function(send_all)
        .function(nothing_soon)
        .function(make_use)
        .function(give)
}

fn child_of(cx: &CallContext) -> Result<u32> {
    Ok(cx.router().local().connect()?.context_id().0)
}

/// As [`child_of`], but asked to be less strict than it is.
fn loose_child_of(cx: &CallContext) -> Result<u32> {
    Ok(cx.router().local().unidirectional(false).connect()?.context_id().0)
}

/// How a call of another context ends, and who said so.
fn reach(other: Context) -> (String, Option<ContextId>) {
    match other.call(stock::ping, ()) {
        Ok(()) => ("called".to_owned(), None),
        Err(error) => why(error.kind()),
    }
}

fn why(error: &ErrorKind) -> (String, Option<ContextId>) {
    let ErrorKind::Closed(Death { cause, seen_by, .. }) = error else { panic!("{error:?}") };
    (format!("{cause:?}"), *seen_by)
}

/// Gives a Sender away, and says how the stream ends.
fn serve(cx: &CallContext, to: Sender<Sender<u32>>) -> Result<String> {
    let numbers: Receiver<u32> = cx.router().receiver();
    to.send(numbers.to_sender())?;
    drop(to);
    let ended = numbers.get_timeout(Duration::from_secs(30)).unwrap_err();
    Ok(why(ended.kind()).0)
}

/// Sends until that fails.
fn send_all(out: Sender<u32>) -> String {
    loop {
        if let Err(error) = out.send(1) {
            return why(error.kind()).0;
        }
    }
}

/// An answer that comes when nobody waits any more.
fn nothing_soon() {}

fn tree(program: Program) -> (Router, [Context; 2]) {
    let router = program.router().unwrap();
    let children = [(); 2].map(|()| router.local().connect().unwrap());
    (router, children)
}

/// Two contexts that this one starts, as the master sees them.
fn two_of(parent: &Context) -> [Context; 2] {
    [(); 2].map(|()| seen_by_master(parent, parent.call(child_of, ()).unwrap()))
}

fn seen_by_master(near: &Context, id: u32) -> Context {
    near.router().context_by_id(ContextId(id))
}

#[track_caller]
fn reaches(from: &Context, to: &Context, cause: Cause, said_by: Option<&Context>) {
    let (why, seen_by) = from.call(reach, to).unwrap();
    assert_eq!(why, format!("{cause:?}"));
    if let Some(said_by) = said_by {
        assert_eq!(seen_by, Some(said_by.context_id()));
    }
}

#[test]
fn nobody_talks_past_the_contexts_of_a_unidirectional_tree() {
    let _company = beside_others();
    let (router, [a, b]) = tree(mitogen_test_program().unidirectional(true));
    let master = router.context_by_id(ContextId::MASTER);
    let [below, beside] = two_of(&a);
    reaches(&a, &b, Cause::Unidirectional, Some(&master));
    reaches(&below, &b, Cause::Unidirectional, Some(&a));
    reaches(&below, &beside, Cause::Unidirectional, Some(&a));
    reaches(&b, &below, Cause::Unidirectional, Some(&master));
    // Ancestors are reached; they say no themselves.
    reaches(&below, &a, Cause::Refused, None);
    reaches(&below, &master, Cause::NoHandle, None);
    // And reach everybody.
    a.call(reach, &below).unwrap();
    below.call(stock::ping, ()).unwrap();
    b.grant(&a).unwrap();
    reaches(&a, &b, Cause::Unidirectional, Some(&master));
}

#[test]
fn a_sender_that_gets_past_a_unidirectional_context_fails_at_both_ends() {
    let _company = beside_others();
    let (router, [a, b]) = tree(mitogen_test_program().unidirectional(true));
    let senders = router.receiver();
    let served = b.call_async(serve, senders.to_sender());
    let out = senders.get_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(a.call(send_all, out).unwrap(), "Unidirectional");
    assert_eq!(served.get().unwrap(), "Unidirectional");
}

#[test]
fn only_the_master_makes_a_context_less_strict_than_its_parent() {
    let _company = beside_others();
    let (router, [a, _]) = tree(mitogen_test_program().unidirectional(true));
    let strict = seen_by_master(&a, a.call(loose_child_of, ()).unwrap());
    let [one, other] = two_of(&strict);
    reaches(&one, &other, Cause::Unidirectional, Some(&strict));
    let loose = router.local().via(&a).unidirectional(false).connect().unwrap();
    let [one, other] = two_of(&loose);
    reaches(&one, &other, Cause::Refused, None);
}

#[test]
fn one_context_alone_may_be_unidirectional() {
    let _company = beside_others();
    let (router, [a, b]) = tree(mitogen_test_program());
    reaches(&a, &b, Cause::Refused, None);
    let strict = router.local().unidirectional(true).connect().unwrap();
    let [one, other] = two_of(&strict);
    reaches(&one, &other, Cause::Unidirectional, Some(&strict));
    reaches(&one, &a, Cause::Unidirectional, Some(&strict));
    reaches(&a, &one, Cause::Unidirectional, Some(&strict));
    reaches(&strict, &a, Cause::Refused, None);
}

#[test]
fn what_was_granted_holds_between_processes() {
    let _company = beside_others();
    let (_router, [a, b]) = tree(mitogen_test_program());
    reaches(&a, &b, Cause::Refused, None);
    b.grant(&a).unwrap();
    assert_eq!(a.call(reach, &b).unwrap().0, "called");
    reaches(&b, &a, Cause::Refused, None);
    b.revoke(&a).unwrap();
    reaches(&a, &b, Cause::Refused, None);
}

/// Calls that are given up; with `MITOGEN_SOAK` a million.
fn given_up() -> u32 {
    if std::env::var_os("MITOGEN_SOAK").is_some() { 1_000_000 } else { 20_000 }
}

#[test]
fn nobody_is_cut_off_for_answers_that_come_late() {
    let _company = beside_others();
    let (_router, [a, _]) = tree(mitogen_test_program());
    for _ in 0..given_up() {
        // Mostly before it came.
        let _ = a.call_async(nothing_soon, ()).get_timeout(Duration::ZERO);
    }
    a.call(stock::ping, ()).unwrap();
}

/// What one context gives another: a context, and a Sender to a stream of somebody else's.
type Gift = (Context, Sender<u32>);

/// Takes one gift, sends into its Sender, and says how a call and a connect by its Context end.
fn make_use(cx: &CallContext, to: Sender<Sender<Gift>>) -> Result<(String, String)> {
    let gifts: Receiver<Gift> = cx.router().receiver();
    to.send(gifts.to_sender())?;
    drop(to);
    let (context, out) = gifts.get_timeout(Duration::from_secs(30))?;
    out.send(7)?;
    let connected = cx.router().local().via(&context).connect();
    Ok((reach(context).0, connected.map(|it| it.to_string()).unwrap_or_else(|e| e.to_string())))
}

fn give(to: Sender<Gift>, context: Context, out: Sender<u32>) -> Result<()> {
    to.send((context, out))
}

#[test]
fn what_a_sibling_gives_streams_and_calls_nothing_in_its_name() {
    let _company = beside_others();
    let (router, [a, b]) = tree(mitogen_test_program());
    let [below, _] = two_of(&b);
    // A child of who takes it; a context beside both; the master.
    let master = router.context_by_id(ContextId::MASTER);
    for target in [&below, &a, &master] {
        let (ways, numbers) = (router.receiver(), router.receiver::<u32>());
        let used = b.call_async(make_use, ways.to_sender());
        let way: Sender<Gift> = ways.get_timeout(Duration::from_secs(30)).unwrap();
        a.call(give, (way, target, numbers.to_sender())).unwrap();
        assert_eq!(numbers.get_timeout(Duration::from_secs(30)).unwrap(), 7);
        let (called, connected) = used.get_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(called, "Refused", "{target}");
        assert!(connected.contains("in your own name"), "{connected}");
        assert!(numbers.into_iter().next().is_none(), "it ends with its last Sender");
    }
}
