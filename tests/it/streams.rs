//! Streams among contexts of one process: who holds a Sender, who ends, and what the Receiver is
//! told. No test here starts a process.

use std::sync::mpsc;
use std::time::Duration;

use mitogen::error::{Cause, Death, ErrorKind};
use mitogen::{CallContext, Context, Error, Program, Receiver, Result, Router, Sender};

use crate::support::beside_others;

mitogen::value! {
    struct Named { name: String, out: Vec<Sender<u32>> }
}

/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(20);

fn program() -> Program {
    Program::new()
        .function(count)
        .function(count_in)
        .function(relay)
        .function(relay_call)
        .function(give_back)
        .function(keep)
        .function(hold_until_the_end)
        .function(nothings)
        .function(into_all)
        .function(reverse)
        .function(open_one)
        .function(panic_with)
        .function(one_and_wait)
        .function(send_until_closed)
        .function(child_of)
        .function(relay_many)
}

/// Another program's: it knows fewer functions.
fn count(to: u32, out: Sender<u32>) -> Result<()> {
    (0..to).try_for_each(|i| out.send(i))
}

/// Gives its Sender on to `other`, and drops it.
fn relay(to: u32, out: Sender<u32>, other: Context) -> Result<()> {
    other.call_no_reply(count, (to, out))
}

/// As `relay`, and waits for the answer.
fn relay_call(to: u32, out: Sender<u32>, other: Context) -> Result<()> {
    other.call(count, (to, out))
}

fn count_in(other: Context, to: u32, out: Sender<u32>) -> Result<()> {
    other.call(count, (to, out.clone()))?;
    out.send(to)
}

fn give_back(out: Sender<u32>) -> Sender<u32> {
    out
}

/// Keeps its Sender on a thread of its own until it is told otherwise, which is never.
fn keep(out: Sender<u32>, ready: Sender<()>) -> Result<()> {
    ready.send(())?;
    std::mem::forget(out);
    Ok(())
}

/// Holds its Sender until the context ends.
fn hold_until_the_end(cx: &CallContext, out: Sender<u32>) -> Result<()> {
    out.send(1)?;
    cx.router().broker().join();
    Ok(())
}

fn nothings(count: u32, out: Sender<()>, sent: Sender<u32>) -> Result<()> {
    for i in 0..count {
        out.send(())?;
        sent.send(i)?;
    }
    Ok(())
}

fn into_all(named: Named) -> Result<String> {
    named.out.iter().zip(0..).try_for_each(|(out, i)| out.send(i))?;
    Ok(named.name)
}

/// Makes a receiver here, hands its Sender out, and sums up what comes.
fn reverse(cx: &CallContext, to: Sender<Sender<u32>>) -> Result<u32> {
    let numbers = cx.router().receiver();
    to.send(numbers.to_sender())?;
    drop(to);
    numbers.into_iter().sum::<Result<u32>>()
}

fn open_one(out: Sender<Sender<u32>>, inner: Sender<u32>) -> Result<()> {
    out.send(inner)
}

fn panic_with(_: Sender<u32>) {
    panic!("over");
}

fn one_and_wait(out: Sender<u32>) -> Result<()> {
    out.send(7)?;
    std::thread::sleep(Duration::from_millis(300));
    Ok(())
}

fn send_until_closed(out: Sender<Vec<u8>>) -> String {
    loop {
        if let Err(error) = out.send(vec![0; 1000]) {
            return cause(&error).map_or(error.to_string(), |cause| format!("{cause:?}"));
        }
    }
}

/// A context below the one it is called in.
fn child_of(cx: &CallContext) -> Result<Context> {
    cx.router().in_process()
}

fn relay_many(out: Sender<u32>, others: Vec<Context>) -> Result<()> {
    others.iter().try_for_each(|other| other.call_no_reply(count, (10, &out)))
}

fn cause(error: &Error) -> Option<Cause> {
    match error.kind() {
        ErrorKind::Closed(Death { cause, .. }) => Some(*cause),
        _ => None,
    }
}

/// Runs what must not hang.
#[track_caller]
fn in_time<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    let thread = std::thread::spawn(move || done.send(test()));
    match wait.recv_timeout(LIMIT) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().unwrap_err())
        }
    }
}

/// A router with that many contexts inside of this process.
fn tree<const N: usize>() -> (Router, [Context; N]) {
    let router = program().router().unwrap();
    let contexts = std::array::from_fn(|_| router.in_process().unwrap());
    (router, contexts)
}

/// What a stream brings until its end.
#[track_caller]
fn all<T: mitogen::Decode + Send>(receiver: Receiver<T>) -> (Vec<T>, Option<Cause>) {
    let (mut values, mut end) = (Vec::new(), None);
    loop {
        match receiver.get_timeout(LIMIT) {
            Ok(value) => values.push(value),
            Err(error) => {
                let cause = cause(&error).unwrap_or_else(|| panic!("{error}"));
                if cause == Cause::SenderClosed {
                    return (values, end);
                }
                assert_eq!(end.replace(cause), None, "two ends");
            }
        }
    }
}

#[test]
fn a_sender_in_a_call_that_is_refused_is_taken_back() {
    let _company = beside_others();
    let (router, [a, b]) = tree();
    for _ in 0..50 {
        let numbers = router.receiver();
        // A context has no authority over its sibling, so that refuses the call.
        a.call(relay, (100, numbers.to_sender(), &b)).unwrap();
        assert_eq!(all(numbers), (vec![], Some(Cause::Refused)));
        let numbers = router.receiver();
        let error = a.call(relay_call, (100, numbers.to_sender(), &b)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Call(_)), "{error}");
        assert!(all(numbers).1.is_some());
    }
}

#[test]
fn a_sender_given_down_the_tree_and_dropped_there_ends_the_stream() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let below = a.call(child_of, ()).unwrap();
    for _ in 0..50 {
        let numbers = router.receiver();
        a.call_no_reply(count_in, (&below, 100, numbers.to_sender())).unwrap();
        let expected: Vec<u32> = (0..=100).collect();
        assert_eq!(all(numbers), (expected, None));
    }
}

#[test]
fn a_sender_held_by_many_contexts_ends_with_the_last() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let below: Vec<Context> = (0..5).map(|_| a.call(child_of, ()).unwrap()).collect();
    for _ in 0..20 {
        let numbers = router.receiver();
        a.call_no_reply(relay_many, (numbers.to_sender(), &below)).unwrap();
        let (mut values, end) = all(numbers);
        values.sort_unstable();
        let expected: Vec<u32> = (0..50).map(|i| i / 5).collect();
        assert_eq!((values, end), (expected, None));
    }
}

#[test]
fn senders_of_several_contexts_reach_one_receiver() {
    let _company = beside_others();
    let (router, contexts) = tree::<4>();
    let numbers = router.receiver();
    let out = numbers.to_sender();
    for context in &contexts {
        context.call_no_reply(count, (1000, out.clone())).unwrap();
    }
    drop(out);
    let (mut values, end) = all(numbers);
    values.sort_unstable();
    assert_eq!((values.len(), end), (4000, None));
    assert!(values.chunks(4).zip(0..).all(|(four, i)| four == [i; 4]));
}

#[test]
fn a_sender_that_comes_back_in_a_result_still_sends() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let numbers = router.receiver();
    let out = a.call(give_back, numbers.to_sender()).unwrap();
    out.send(5).unwrap();
    drop(out);
    assert_eq!(all(numbers), (vec![5], None));
}

#[test]
fn a_sender_in_a_result_that_nobody_takes_holds_nothing() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let (one, two) = (router.receiver(), router.receiver());
    let answered = a.call_async(give_back, one.to_sender());
    a.call_no_reply(give_back, two.to_sender()).unwrap();
    a.call(mitogen::stock::ping, ()).unwrap();
    drop(answered);
    assert_eq!(all(one), (vec![], None));
    assert_eq!(all(two), (vec![], None));
    // One that has not begun by then is cancelled.
    let either = router.receiver();
    drop(a.call_async(give_back, either.to_sender()));
    assert!(matches!(all(either), (none, None | Some(Cause::Cancelled)) if none.is_empty()));
}

#[test]
fn the_end_of_a_holders_context_is_one_error_and_then_the_end() {
    let _company = beside_others();
    let (router, [a, b]) = tree();
    let numbers = router.receiver();
    a.call_no_reply(hold_until_the_end, numbers.to_sender()).unwrap();
    assert_eq!(numbers.get_timeout(LIMIT).unwrap(), 1);
    a.router().children().into_iter().find(|c| *c == a).unwrap().shutdown().unwrap();
    let mut rest = numbers.into_iter();
    let error = rest.next().unwrap().unwrap_err();
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    assert_eq!(death.context, Some(a.context_id()));
    assert!(rest.next().is_none() && rest.next().is_none());
    assert!(b.call(give_back, router.receiver().to_sender()).is_ok());
}

#[test]
fn a_sender_that_is_never_dropped_holds_until_its_context_ends() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let (numbers, ready) = (router.receiver(), router.receiver());
    a.call_no_reply(keep, (numbers.to_sender(), ready.to_sender())).unwrap();
    ready.get_timeout(LIMIT).unwrap();
    let error = numbers.get_timeout(Duration::from_millis(50)).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Timeout);
    a.shutdown().unwrap();
    assert!(matches!(all(numbers), (none, Some(_)) if none.is_empty()));
}

#[test]
fn a_panic_ends_the_streams_among_the_arguments_with_its_message() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let numbers = router.receiver();
    a.call(panic_with, numbers.to_sender()).unwrap_err();
    let error = numbers.get_timeout(LIMIT).unwrap_err();
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    assert_eq!(death.cause, Cause::Failed);
    assert!(death.tail.starts_with("over, at tests"), "{death}");
}

#[test]
fn every_use_of_a_sender_fails_once_its_receiver_is_closed() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let blobs = router.receiver();
    let (mine, also_mine) = (blobs.to_sender(), blobs.to_sender());
    let call = a.call_async(send_until_closed, blobs.to_sender());
    // Its window is full by now, or will be.
    blobs.get_timeout(LIMIT).unwrap();
    blobs.close();
    assert_eq!(call.get_timeout(LIMIT).unwrap(), "ReceiverClosed");
    for out in [mine, also_mine] {
        let error = out.send(vec![1]).unwrap_err();
        assert_eq!(cause(&error), Some(Cause::ReceiverClosed), "{error}");
    }
    let error = blobs.get().unwrap_err();
    assert_eq!(cause(&error), Some(Cause::ReceiverClosed), "{error}");
}

#[test]
fn a_sender_to_a_receiver_that_was_closed_before_its_first_value_fails() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let blobs = router.receiver();
    let out = blobs.to_sender();
    drop(blobs);
    assert_eq!(a.call(send_until_closed, out).unwrap(), "ReceiverClosed");
}

#[test]
fn clones_are_one_holder() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let numbers = router.receiver();
    let out = numbers.to_sender();
    let clones: Vec<_> = (0..10).map(|_| out.clone()).collect();
    a.call(count, (1, &out)).unwrap();
    drop(out);
    clones[9].send(9).unwrap();
    drop(clones);
    assert_eq!(all(numbers), (vec![0, 9], None));
}

#[test]
fn senders_travel_deep_inside_of_values() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let receivers: Vec<Receiver<u32>> = (0..20).map(|_| router.receiver()).collect();
    let out = receivers.iter().map(Receiver::to_sender).collect();
    let name = a.call(into_all, Named { name: "many".to_owned(), out }).unwrap();
    assert_eq!(name, "many");
    for (i, receiver) in receivers.into_iter().enumerate() {
        assert_eq!(all(receiver), (vec![i as u32], None));
    }
}

#[test]
fn a_stream_of_senders_leads_back() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let senders = router.receiver::<Sender<u32>>();
    let call = a.call_async(reverse, senders.to_sender());
    let out = senders.get_timeout(LIMIT).unwrap();
    for i in 0..1000 {
        out.send(i).unwrap();
    }
    drop(out);
    assert_eq!(call.get_timeout(LIMIT).unwrap(), 499_500);
    assert_eq!(all(senders).0.len(), 0);
}

#[test]
fn senders_that_a_receiver_did_not_take_hold_nothing() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let (senders, numbers) = (router.receiver(), router.receiver());
    a.call(open_one, (senders.to_sender(), numbers.to_sender())).unwrap();
    drop(senders);
    assert_eq!(all(numbers), (vec![], None));
}

#[test]
fn a_sender_of_another_tree_is_refused() {
    let _company = beside_others();
    let (_router, [a]) = tree();
    let (other, [_]) = tree();
    let numbers = other.receiver();
    let error = a.call(count, (1, numbers.to_sender())).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Usage(_)), "{error}");
    assert_eq!(all(numbers), (vec![], None));
    let error = a.call(relay, (1, other.receiver().to_sender(), &a)).unwrap_err();
    assert!(error.to_string().contains("another tree"), "{error}");
}

#[test]
fn a_receiver_outlives_a_first_sender_while_it_makes_more() {
    let _company = beside_others();
    let (router, [a]) = tree();
    for _ in 0..20 {
        let numbers = router.receiver();
        for _ in 0..5 {
            a.call(count, (2, numbers.to_sender())).unwrap();
        }
        assert_eq!(all(numbers).0, [0, 1].repeat(5));
    }
}

#[test]
fn empty_values_wait_for_room_too() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let (nothing, sent) = (router.receiver(), router.receiver());
    a.call_no_reply(nothings, (300_000, nothing.to_sender(), sent.to_sender())).unwrap();
    let mut last = 0;
    while let Ok(number) = sent.get_timeout(Duration::from_millis(500)) {
        last = number;
    }
    assert!(last < 100_000, "{last} were sent to who takes none");
    drop(sent);
    assert!(last <= nothing.into_iter().take_while(Result::is_ok).count() as u32);
}

#[test]
fn a_timeout_leaves_the_stream_as_it_was() {
    let _company = beside_others();
    let (router, [a]) = tree();
    let numbers = router.receiver();
    a.call_no_reply(one_and_wait, numbers.to_sender()).unwrap();
    assert_eq!(numbers.get_timeout(LIMIT).unwrap(), 7);
    let error = numbers.get_timeout(Duration::from_millis(1)).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Timeout);
    assert_eq!(all(numbers), (vec![], None));
}

#[test]
fn receivers_contexts_and_routers_are_dropped_in_any_order() {
    let _company = beside_others();
    in_time(|| {
        for order in 0..6 {
            let (router, [a]) = tree();
            let numbers = router.receiver();
            let out = numbers.to_sender();
            let call = a.call_async(count, (u32::MAX, &out));
            numbers.get_timeout(LIMIT).unwrap();
            let mut all: [Option<Box<dyn Send>>; 5] = [
                Some(Box::new(router)),
                Some(Box::new(a)),
                Some(Box::new(numbers)),
                Some(Box::new(out)),
                Some(Box::new(call)),
            ];
            for i in 0..5 {
                all[(i * (1 + order % 4) + order) % 5] = None;
            }
        }
    });
}
