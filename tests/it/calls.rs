//! Calls, streams and ends, through a context in this process and through real children.

use std::io;
use std::path::Path;
use std::time::Duration;

use mitogen::error::{CallFailure, Cause, ErrorKind};
use mitogen::{CallContext, Context, Program, Result, Router, Sender};

use crate::support::beside_others;

mitogen::test_agent!(program());

fn program() -> Program {
    Program::new()
        .function(add)
        .function(fail)
        .function(file_size)
        .function(who_called)
        .function(count)
        .function(count_then_fail)
        .function(blob)
        .function(length)
        .function(explode)
        .function(fail_for_reasons)
        .function(pid)
}

fn add(a: u32, b: u32) -> u32 {
    a + b
}

fn fail() -> io::Result<()> {
    Err(io::Error::other("no luck"))
}

const EXPLODES_AT: u32 = line!() + 3;

fn explode() {
    panic!("boom");
}

fn file_size(path: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.len())
}

fn who_called(cx: &CallContext) -> String {
    format!("{} for {}", cx.context_id(), cx.caller_id())
}

fn count(to: u32, out: Sender<u32>) -> Result<()> {
    (0..to).try_for_each(|i| out.send(i))
}

fn count_then_fail(out: Sender<u32>) -> Result<(), String> {
    out.send(1).map_err(|e| e.to_string())?;
    Err("enough".to_owned())
}

fn blob(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| i as u8).collect()
}

fn length(bytes: &[u8]) -> usize {
    bytes.len()
}

fn pid() -> u32 {
    std::process::id()
}

/// Runs a test on a context in this process, on a child, and on a child's child.
#[track_caller]
fn everywhere(test: impl Fn(&Router, &Context)) {
    let _company = beside_others();
    let router = mitogen_test_program().router().unwrap();
    let inside = router.in_process().unwrap();
    test(&router, &inside);
    let child = router.local().connect().unwrap();
    test(&router, &child);
    let grandchild = router.local().via(&child).connect().unwrap();
    test(&router, &grandchild);
    router.shutdown();
}

#[test]
fn functions_are_called_and_answer() {
    everywhere(|_, context| {
        assert_eq!(context.call(add, (1, 2)).unwrap(), 3);
        assert!(0 < context.call(file_size, "/etc/passwd").unwrap());
        let id = context.context_id();
        assert_eq!(context.call(who_called, ()).unwrap(), format!("{id} for 0"));
    });
}

#[test]
fn a_childs_functions_run_in_another_process() {
    let _company = beside_others();
    let router = mitogen_test_program().router().unwrap();
    let child = router.local().connect().unwrap();
    assert_ne!(child.call(pid, ()).unwrap(), std::process::id());
}

#[test]
fn failures_arrive_with_their_message() {
    everywhere(|_, context| {
        let error = context.call(fail, ()).unwrap_err();
        assert!(error.to_string().contains("no luck"), "{error}");
        let error = context.call(explode, ()).unwrap_err();
        let ErrorKind::Call(error) = error.kind() else { panic!("{error}") };
        let CallFailure::Panic(text) = &error.failure else { panic!("{error:?}") };
        let place = concat!("boom, at ", file!(), ":");
        let line: Option<u32> =
            text.strip_prefix(place).and_then(|rest| rest.split(':').next()?.parse().ok());
        assert_eq!(line, Some(EXPLODES_AT), "{text}");
        assert_eq!(context.call(add, (1, 2)).unwrap(), 3);
    });
}

#[derive(Debug)]
struct Link(&'static str, Option<Box<Link>>);

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Link {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.1.as_deref().map(|link| link as _)
    }
}

fn fail_for_reasons() -> Result<(), Link> {
    Err(Link("above", Some(Box::new(Link("between", Some(Box::new(Link("below", None))))))))
}

#[test]
fn failures_arrive_with_their_sources() {
    everywhere(|_, context| {
        let error = context.call(fail_for_reasons, ()).unwrap_err();
        let ErrorKind::Call(error) = error.kind() else { panic!("{error}") };
        let CallFailure::Error { type_name, chain } = &error.failure else { panic!("{error}") };
        assert!(type_name.ends_with("calls::Link"), "{type_name}");
        assert_eq!(*chain, ["above", "between", "below"]);
    });
}

#[test]
fn calls_answer_in_any_order() {
    everywhere(|_, context| {
        let calls: Vec<_> = (0..500).map(|i| context.call_async(add, (i, 1))).collect();
        for (i, call) in calls.into_iter().enumerate().rev() {
            assert_eq!(call.get().unwrap(), i as u32 + 1);
        }
    });
}

#[test]
fn a_stream_ends_with_its_last_sender() {
    everywhere(|router, context| {
        let numbers = router.receiver::<u32>();
        context.call_no_reply(count, (10_000, numbers.to_sender())).unwrap();
        let numbers: Result<Vec<u32>> = numbers.into_iter().collect();
        assert_eq!(numbers.unwrap(), (0..10_000).collect::<Vec<_>>());
    });
}

#[test]
fn a_stream_of_a_failed_function_ends_with_its_failure() {
    everywhere(|router, context| {
        let numbers = router.receiver::<u32>();
        context.call_no_reply(count_then_fail, numbers.to_sender()).unwrap();
        let items: Vec<Result<u32>> = numbers.into_iter().take(3).collect();
        assert_eq!(items.len(), 2, "{items:?}");
        let ErrorKind::Closed(death) = items[1].as_ref().unwrap_err().kind() else { panic!() };
        assert_eq!((death.cause, &*death.tail), (Cause::Failed, "enough"));
    });
}

#[test]
fn large_values_travel_both_ways() {
    everywhere(|_, context| {
        for bytes in [16 * 1024 - 20, 16 * 1024, 16 * 1024 + 1, 1 << 20, 20 << 20] {
            let value = context.call(blob, bytes).unwrap();
            assert_eq!(value, blob(bytes));
            assert_eq!(context.call(length, &value[..]).unwrap(), bytes);
        }
    });
}

#[test]
fn an_answer_that_is_too_large_fails_its_call() {
    let _company = beside_others();
    let router = mitogen_test_program().router().unwrap();
    let context = router.in_process().unwrap();
    let call = context.call_async(blob, (128 << 20) + 1);
    let error = call.get_timeout(Duration::from_secs(60)).unwrap_err();
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    assert_eq!(death.cause, Cause::TooLarge);
}

#[test]
fn a_closed_receiver_stops_its_senders() {
    everywhere(|router, context| {
        let numbers = router.receiver::<u32>();
        let call = context.call_async(count, (u32::MAX, numbers.to_sender()));
        assert_eq!(numbers.get().unwrap(), 0);
        drop(numbers);
        let error = call.get_timeout(Duration::from_secs(10)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Call(_)), "{error}");
    });
}

#[test]
fn a_context_that_is_shut_down_fails_its_calls() {
    let _company = beside_others();
    let router = mitogen_test_program().router().unwrap();
    let child = router.local().connect().unwrap();
    let grandchild = router.local().via(&child).connect().unwrap();
    child.shutdown().unwrap();
    for context in [&child, &grandchild] {
        let error = context.call(add, (1, 2)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Closed(_)), "{error}");
    }
}

#[test]
fn chains_of_any_depth_get_their_ids() {
    let _company = beside_others();
    let router = mitogen_test_program().router().unwrap();
    let mut deepest = router.local().connect().unwrap();
    for _ in 0..14 {
        deepest = router.local().via(&deepest).connect().unwrap();
    }
    assert_eq!(deepest.call(add, (20, 22)).unwrap(), 42);
}

/// Not a test of its own: what the next one runs in a process that was started as an agent.
#[test]
fn a_router_made_too_early() {
    let _company = beside_others();
    if std::env::var_os("MITOGEN_TEST_AGENT").is_some() {
        let error = program().router().map(drop).unwrap_err();
        assert!(error.to_string().contains("never called Program::run"), "{error}");
    }
}

#[test]
fn a_process_started_as_an_agent_makes_no_router_before_it_is_one() {
    let _company = beside_others();
    let own = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(own);
    child.args(["--exact", "calls::a_router_made_too_early", "--nocapture"]);
    let output = child.env("MITOGEN_TEST_AGENT", "mitogen-agent-0").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
