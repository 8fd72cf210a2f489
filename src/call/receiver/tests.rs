//! What a Receiver does with those who do not keep to the rules.

use super::*;
use crate::call::room::ROOM_MAX;
use crate::route::node::Outgoing;
use crate::wire::codec::Encode;
use crate::wire::frame::FrameBuf;
use crate::wire::header::Kind;
use crate::wire::header::Lane;
use crate::{CallContext, Program, stock};

#[test]
fn who_sends_beyond_its_window_is_heard_no_more() {
    let router = crate::Program::new().router().unwrap();
    let numbers = router.receiver::<Vec<u8>>();
    let (src, handle) = (ContextId(9), *numbers.core.handle.get().unwrap());
    numbers.core.holders().add(src);
    let core = numbers.core.clone();
    let (kind, lane, dst) = (Kind::Data, Lane::Quick, ContextId::MASTER);
    let data = [&[0xe8, 7][..], &[0; 1000]].concat();
    let message = Message { kind, lane, dst, src, auth: src, handle, reply_to: None, data };
    let room = room_of(&message.data);
    let flood = move |turn: &mut Turn| {
        for _ in 0..1000 {
            core.message(turn, message.clone());
        }
    };
    router.broker().defer_sync(flood).unwrap();
    let mut items: Vec<_> = numbers.into_iter().collect();
    assert_eq!(items.len(), ROOM_MAX / room + 1);
    let error = items.pop().unwrap().unwrap_err();
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    assert_eq!((death.cause, death.context), (Cause::Protocol, Some(src)));
}

/// Sends to a Receiver that it was given no Sender to.
fn guess_right(cx: &CallContext, handle: u32) -> Result<()> {
    let node = cx.router().node();
    let (kind, auth, handle) = (Kind::Data, node.id(), Handle(handle));
    let out = Outgoing { kind, dst: ContextId::MASTER, auth, handle, reply_to: None };
    node.send(&out, FrameBuf::encode(None, |w| 13u32.encode(w)).unwrap())
}

/// Sends by the Sender that it was given.
fn send(out: Sender<u32>) -> Result<()> {
    out.send(7)
}

#[test]
fn a_right_guess_of_a_handle_reaches_no_receiver() {
    let router = Program::new().function(guess_right).function(send).router().unwrap();
    let children = [(); 2].map(|()| router.in_process().unwrap());
    let numbers = router.receiver::<u32>();
    let handle = numbers.core.handle.get().unwrap().0;
    let kept = numbers.to_sender();
    let [hostile, good] = children;
    let _ = hostile.call(guess_right, handle);
    good.call(send, numbers.to_sender()).unwrap();
    // Not even once it holds none any more.
    let _ = good.call(guess_right, handle);
    // A call's answer comes behind what its function sent.
    hostile.call(stock::ping, ()).unwrap();
    drop(kept);
    assert_eq!(numbers.into_iter().collect::<Result<Vec<_>>>().unwrap(), [7]);
}

#[test]
fn what_holders_make_up_keeps_no_place_from_those_that_the_program_gives_to() {
    let router = Program::new().function(send).router().unwrap();
    let children = [(); 2].map(|()| router.in_process().unwrap());
    let numbers = router.receiver::<u32>();
    let [hostile, good] = children.map(|child| (child.context_id(), child));
    numbers.core.holders().add(hostile.0);
    for taker in 0..crate::limits::HOLDERS_MAX as u32 + 10 {
        numbers.core.news(Handle(0), hostile.0, ContextId(1 << 20 | taker), Gift::Given);
    }
    good.1.call(send, numbers.to_sender()).unwrap();
    assert_eq!(numbers.get_timeout(Duration::from_secs(10)).unwrap(), 7);
}

/// Makes a stream of its own, and gives the Sender away; returns why the stream ended.
fn give_away(cx: &CallContext, to: Sender<Sender<u32>>) -> Result<String> {
    let numbers = cx.router().receiver();
    // It may be known already that nobody takes it.
    let _ = to.send(numbers.to_sender());
    let end = numbers.get_timeout(Duration::from_secs(10)).unwrap_err();
    Ok(format!("{:?}", end.kind()))
}

#[test]
fn a_sender_that_comes_to_a_closed_receiver_is_let_go_and_so_is_its_handle() {
    let router = Program::new().function(give_away).router().unwrap();
    let child = router.in_process().unwrap();
    let listens = |handle| router.node().listener(handle, Kind::Data).is_some();
    for is_closed_before in [true, false] {
        let senders = router.receiver::<Sender<u32>>();
        let handle = *senders.core.handle.get().unwrap();
        let out = senders.to_sender();
        if is_closed_before {
            senders.close();
            assert!(listens(handle));
        }
        let call = child.call_async(give_away, out);
        drop(senders);
        let end = call.get().unwrap();
        assert!(end.contains("SenderClosed"), "{end}");
        let begun = Instant::now();
        while listens(handle) {
            assert!(begun.elapsed() < Duration::from_secs(10), "it listens for ever");
        }
    }
    let unused = router.receiver::<u32>().keep_open();
    let handle = *unused.core.handle.get().unwrap();
    drop(unused);
    assert!(!listens(handle));
}

#[test]
fn what_is_kept_open_outlives_its_senders_and_ends_when_it_is_closed() {
    let router = Program::new().function(send).router().unwrap();
    let child = router.in_process().unwrap();
    let numbers = router.receiver::<u32>();
    drop(numbers.to_sender());
    // Its first end is taken back.
    let numbers = numbers.keep_open().keep_open();
    for _ in 0..3 {
        child.call(send, numbers.to_sender()).unwrap();
        assert_eq!(numbers.get_timeout(Duration::from_secs(10)).unwrap(), 7);
        let error = numbers.get_timeout(Duration::from_millis(5)).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Timeout);
    }
    assert!(numbers.is_empty());
    numbers.close();
    assert!(!numbers.is_empty() && (&numbers).next().is_none());
    let numbers = router.receiver::<u32>().keep_open();
    router.shutdown();
    let error = numbers.get().unwrap_err();
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    assert_eq!(death.cause, Cause::Shutdown);
}

#[test]
fn closing_ends_the_wait_of_every_thread_and_drops_what_is_queued() {
    let router = Program::new().router().unwrap();
    let numbers = router.receiver::<u32>();
    let out = numbers.to_sender();
    std::thread::scope(|scope| {
        let waits: Vec<_> = (0..8).map(|_| scope.spawn(|| numbers.get())).collect();
        std::thread::sleep(Duration::from_millis(5));
        numbers.close();
        for wait in waits {
            let error = wait.join().unwrap().unwrap_err();
            let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
            assert_eq!(death.cause, Cause::ReceiverClosed);
        }
    });
    assert!(out.send(1).is_err());
    let numbers = router.receiver::<u32>();
    numbers.to_sender().send(1).unwrap();
    router.broker().defer_sync(|_| ()).unwrap();
    numbers.close();
    assert!(numbers.try_get().is_err() && numbers.into_iter().next().is_none());
}
