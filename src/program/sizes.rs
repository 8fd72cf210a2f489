//! The largest message that a program allows, in all of its tree: that many bytes, and one more.

use crate::call::call_context::CallContext;
use crate::call::context::Context;
use crate::error::{Cause, ErrorKind, Result};
use crate::{Program, Router, Sender, program, stock};

crate::test_agent!(Program::new().function(sum).function(fill).function(pass).function(send_all));

const LIMIT: u64 = 100_000;

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

fn fill(byte: u8, count: u64) -> Vec<u8> {
    vec![byte; count as usize]
}

/// What `sum` is told by a neighbour that this context makes.
fn pass(cx: &CallContext, count: u64) -> Result<u64> {
    let near = cx.router().in_process()?;
    near.call(sum, vec![1; count as usize])
}

/// Sends one message for each count; of those that are too large it tells how much too large.
fn send_all(counts: Vec<u64>, out: Sender<Vec<u8>>) -> Vec<u64> {
    let send = |count: u64| match out.send(vec![1; count as usize]) {
        Ok(()) => 0,
        Err(error) => excess(error.kind()),
    };
    counts.into_iter().map(send).collect()
}

#[track_caller]
fn excess(kind: &ErrorKind) -> u64 {
    let ErrorKind::TooLarge { bytes, bytes_max } = kind else { panic!("{kind:?}") };
    assert_eq!(*bytes_max, LIMIT);
    bytes - bytes_max
}

fn tree() -> (Router, [Context; 3]) {
    let router = mitogen_test_program().message_bytes_max(LIMIT).router().unwrap();
    let child = router.local().connect().unwrap();
    let grandchild = router.local().via(&child).connect().unwrap();
    let near = router.in_process().unwrap();
    (router, [child, grandchild, near])
}

/// The most bytes that `sum` can be sent.
fn most(context: &Context) -> u64 {
    let error = context.call(sum, vec![1; LIMIT as usize]).unwrap_err();
    LIMIT - excess(error.kind())
}

#[test]
fn arguments_of_the_largest_size_arrive_and_one_byte_more_is_refused_before_it_is_sent() {
    let (_router, contexts) = tree();
    for context in &contexts {
        let most = most(context);
        assert_eq!(context.call(sum, vec![1; most as usize]).unwrap(), most);
        let one_more = vec![1; most as usize + 1];
        let error = context.call(sum, one_more.clone()).unwrap_err();
        assert_eq!(excess(error.kind()), 1);
        let error = context.call_no_reply(sum, one_more).unwrap_err();
        assert_eq!(excess(error.kind()), 1);
        context.call(stock::ping, ()).unwrap();
    }
}

#[test]
fn a_value_of_the_largest_size_arrives_and_of_a_larger_one_the_caller_is_told() {
    let (_router, contexts) = tree();
    for context in &contexts {
        // The kind of the answer, and the length.
        let most = LIMIT - 4;
        assert_eq!(context.call(fill, (7, most)).unwrap(), vec![7; most as usize]);
        let error = context.call(fill, (7, most + 1)).unwrap_err();
        let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
        assert_eq!((death.cause, death.context), (Cause::TooLarge, Some(context.context_id())));
        context.call(stock::ping, ()).unwrap();
    }
}

#[test]
fn a_stream_goes_on_behind_what_was_too_large_for_it() {
    let (router, contexts) = tree();
    for context in &contexts {
        let most = LIMIT - 3;
        let values = router.receiver::<Vec<u8>>();
        let counts = vec![most, most + 1, 5, 2 * most, most];
        let call = context.call_async(send_all, (counts, values.to_sender()));
        let lengths: Vec<u64> =
            values.into_iter().map(|value| value.unwrap().len() as u64).collect();
        assert_eq!(lengths, [most, 5, most]);
        assert_eq!(call.get().unwrap(), [0, 1, 0, most, 0]);
    }
}

#[test]
fn every_context_of_the_tree_has_the_limit_from_its_parent() {
    let (_router, contexts) = tree();
    for context in &contexts {
        let most = most(context);
        assert_eq!(context.call(pass, most).unwrap(), most);
        let error = context.call(pass, most + 1).unwrap_err();
        assert!(error.to_string().contains("is too large: at most 100000"), "{error}");
    }
}

#[test]
fn a_limit_that_is_too_low_is_refused() {
    for bytes in [0, 1, program::MESSAGE_BYTES_MIN - 1] {
        let error = Program::new().message_bytes_max(bytes).router().err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::Usage(_)), "{error}");
    }
    for bytes in [program::MESSAGE_BYTES_MIN, u64::MAX] {
        let router = mitogen_test_program().message_bytes_max(bytes).router().unwrap();
        let child = router.local().connect().unwrap();
        assert_eq!(child.call(sum, vec![1; 60_000]).unwrap(), 60_000);
    }
}
