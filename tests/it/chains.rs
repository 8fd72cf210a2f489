//! Chains of calls: sent without a wait, run in order, and failed as one.

use std::time::Duration;

use mitogen::error::{CallFailure, Cause, ErrorKind};
use mitogen::{CallContext, Context, Error, Program, Result, Sender, stock};

use crate::support::{beside_others, leaves_nothing};

mitogen::test_agent!(program());

fn program() -> Program {
    Program::new().function(say).function(fail).function(burst).function(wait)
}

const LIMIT: Duration = Duration::from_secs(20);

fn say(what: u32, out: Sender<u32>) -> Result<u32> {
    out.send(what).map(|()| what)
}

fn fail(why: &str) -> Result<(), String> {
    Err(why.to_owned())
}

fn burst() {
    panic!("burst");
}

fn wait(cx: &CallContext, out: Sender<u32>) -> Result<()> {
    out.send(0)?;
    cx.sleep(100 * LIMIT)
}

#[track_caller]
fn failure(error: &Error) -> &CallFailure {
    let ErrorKind::Call(error) = error.kind() else { panic!("{error}") };
    &error.failure
}

fn hops() -> (mitogen::Router, Context) {
    let router = mitogen_test_program().router().unwrap();
    let near = router.local().connect().unwrap();
    let far = router.local().via(&near).connect().unwrap();
    (router, far)
}

#[test]
fn all_behind_the_first_failure_fail_with_it_and_are_not_run() {
    leaves_nothing(&[], || {
        let (router, far) = hops();
        let said = router.receiver::<u32>();
        let chain = far.chain();
        let before: Vec<_> =
            (0..10).map(|i| chain.call_async(say, (i, said.to_sender()))).collect();
        let failing = chain.call_async(fail, "on purpose");
        let behind: Vec<_> =
            (10..20).map(|i| chain.call_async(say, (i, said.to_sender()))).collect();
        let others = far.call_async(say, (100, said.to_sender()));
        for (i, call) in before.into_iter().enumerate() {
            assert_eq!(call.get().unwrap(), i as u32);
        }
        let first = failing.get().unwrap_err();
        assert!(
            matches!(failure(&first), CallFailure::Error { chain, .. } if chain[0] == "on purpose")
        );
        for call in behind {
            assert_eq!(failure(&call.get().unwrap_err()), failure(&first));
        }
        assert_eq!(others.get().unwrap(), 100, "what is in no chain, or in another, goes on");
        assert_eq!(far.chain().call(say, (101, said.to_sender())).unwrap(), 101);
        let end = chain.call(say, (20, said.to_sender())).unwrap_err();
        assert_eq!(failure(&end), failure(&first));
        // Those that were not run gave their Senders back, so the stream has an end.
        let mut heard = Vec::new();
        while let Ok(what) = said.get_timeout(LIMIT) {
            heard.push(what);
        }
        assert_eq!(heard, (0..10).chain([100, 101]).collect::<Vec<_>>());
    });
}

#[test]
fn what_nobody_waited_for_fails_in_the_next_call_that_is_waited_for() {
    let _company = beside_others();
    let (router, far) = hops();
    let said = router.receiver::<u32>();
    let chain = far.chain();
    chain.call_no_reply(burst, ()).unwrap();
    chain.call_no_reply(say, (1, said.to_sender())).unwrap();
    let error = chain.call(say, (2, said.to_sender())).unwrap_err();
    assert!(matches!(failure(&error), CallFailure::Panic(text) if text.starts_with("burst, at ")));
    let text = error.to_string();
    assert!(text.starts_with("an earlier call of the chain panicked: burst"), "{text}");
    assert!(said.get_timeout(LIMIT).is_err());
}

#[test]
fn a_chain_that_was_dropped_is_forgotten_and_its_calls_still_run() {
    let _company = beside_others();
    let (router, far) = hops();
    let said = router.receiver::<u32>();
    // More than are remembered: were they not forgotten, the living one would be.
    let living = far.chain();
    living.call_no_reply(fail, "first of all").unwrap();
    for i in 0..300 {
        let chain = far.chain();
        chain.call_no_reply(say, (i, said.to_sender())).unwrap();
        chain.call_no_reply(fail, "dropped").unwrap();
    }
    let error = living.call(say, (1000, said.to_sender())).unwrap_err();
    assert!(error.to_string().contains("first of all"), "{error}");
    for i in 0..300 {
        assert_eq!(said.get_timeout(LIMIT).unwrap(), i);
    }
}

#[test]
fn a_cancelled_link_breaks_the_chain() {
    let _company = beside_others();
    let (router, far) = hops();
    for begins in [true, false] {
        let said = router.receiver::<u32>();
        let busy = (!begins).then(|| far.call_async(wait, said.to_sender()));
        let chain = far.chain();
        let call = chain.call_async(wait, said.to_sender());
        let behind = chain.call_async(stock::ping, ());
        assert_eq!(said.get_timeout(LIMIT).unwrap(), 0);
        drop(call);
        drop(busy);
        let error = behind.get().unwrap_err();
        let is_cancelled = match error.kind() {
            // The function returned what its sleep failed with.
            ErrorKind::Call(_) => begins,
            ErrorKind::Closed(death) => death.cause == Cause::Cancelled && !begins,
            _ => false,
        };
        assert!(is_cancelled, "{begins}: {error}");
    }
}

#[test]
fn a_call_that_is_not_sent_breaks_its_chain_too() {
    let _company = beside_others();
    let (router, far) = hops();
    let said = router.receiver::<u32>();
    let chain = far.chain();
    let error = chain.call(nowhere_known, ()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Usage(_)), "{error}");
    let again = chain.call(say, (1, said.to_sender())).unwrap_err();
    assert_eq!(again.to_string(), error.to_string());
    assert!(said.try_get().unwrap_or(None).is_none());
}

fn nowhere_known() {}
