//! Handlers, in one process.

use super::*;
use crate::error::ErrorKind;
use crate::limits::WINDOW_BYTES;
use crate::{CallContext, Program, policy};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
const PORT: Handle = Handle::well_known(7);

/// What a handler got.
type Got = Result<Vec<u8>, Cause>;

fn router() -> Router {
    Program::new().function(send).function(send_counted).function(ask).router().unwrap()
}

/// Adds a handler as `make` wants it, and tells what it gets.
#[track_caller]
fn add(router: &Router, make: impl FnOnce(Handler) -> Handler) -> (Handle, Receiver<Got>) {
    let (tell, told) = channel();
    let handler = Handler::new(move |_, message| {
        let got = message.map(|message| message.data).map_err(|death| death.cause);
        // A test that is over has heard enough.
        let _ = tell.send(got);
    });
    (router.add_handler(make(handler)).unwrap(), told)
}

/// Sends a message to whoever called, as a child does that is told to.
fn send(cx: &CallContext, handle: u32, data: Vec<u8>) -> Result<()> {
    cx.router().route(Message::to(cx.caller_id(), Handle(handle)).with_data(data))
}

/// How many messages of [`send_counted`] have gone.
static SENT: AtomicUsize = AtomicUsize::new(0);

fn send_counted(cx: &CallContext, handle: u32, data: Vec<u8>) -> Result<()> {
    send(cx, handle, data).inspect(|()| _ = SENT.fetch_add(1, Ordering::Relaxed))
}

/// Asks whoever called; returns why there is no answer, or that there is one.
fn ask(cx: &CallContext, handle: u32) -> Result<String> {
    let there = cx.router().context_by_id(cx.caller_id());
    let (answer, told) = add(cx.router(), |handler| handler.once().from(&there));
    cx.router().route(Message::to(cx.caller_id(), Handle(handle)).reply_to(answer))?;
    Ok(format!("{:?}", told.recv_timeout(LIMIT)))
}

#[track_caller]
fn assert_usage<T>(result: Result<T>) {
    let error = result.map(drop).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Usage(_)), "{error}");
}

#[track_caller]
fn assert_closed<T>(result: Result<T>, cause: Cause) {
    let error = result.map(drop).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Closed(death) if death.cause == cause), "{error}");
}

/// Fails if what is refused takes room for good.
#[track_caller]
fn assert_sends_on(child: &Context, handle: Handle) {
    for _ in 0..2 * WINDOW_BYTES / 10_000 {
        let call = child.call_async(send, (handle.0, vec![0; 10_000]));
        call.get_timeout(LIMIT).unwrap();
    }
}

#[test]
fn messages_come_in_order_until_the_handler_is_deleted() {
    let router = router();
    let child = router.in_process().unwrap();
    let (handle, told) = add(&router, |handler| handler.at(PORT));
    for i in 0..100 {
        child.call(send, (handle.0, vec![i])).unwrap();
    }
    assert!((0..100).all(|i| told.recv_timeout(LIMIT).unwrap() == Ok(vec![i])));
    router.del_handler(handle).unwrap();
    assert_closed(router.del_handler(handle), Cause::NoHandle);
    child.call(send, (handle.0, vec![1])).unwrap();
    assert!(child.call(ask, handle.0).unwrap().contains("NoHandle"));
    assert!(told.recv_timeout(PAUSE).is_err());
    assert_sends_on(&child, handle);
    // It is free again, and what was refused before took no room for good.
    let (_, told) = add(&router, |handler| handler.at(PORT).once());
    child.call(send, (handle.0, vec![2])).unwrap();
    assert_eq!(told.recv_timeout(LIMIT).unwrap(), Ok(vec![2]));
    assert!(told.recv_timeout(LIMIT).is_err());
    assert_closed(router.del_handler(handle), Cause::NoHandle);
}

#[test]
fn handles_are_a_programs_own_and_each_has_one_handler() {
    let (router, other) = (router(), router());
    let handler = || Handler::new(|_, _| ());
    for handle in [Handle::CALL, Handle(300), Handle(1 << 30), Handle(u32::MAX)] {
        assert_usage(router.add_handler(handler().at(handle)));
        assert_closed(router.del_handler(handle), Cause::NoHandle);
    }
    router.add_handler(handler().at(PORT)).unwrap();
    assert_usage(router.add_handler(handler().at(PORT)));
    assert_usage(router.add_handler(handler().from(&other.myself())));
    assert_usage(router.route(Message::to(router.context_id(), Handle::SHUTDOWN)));
    router.shutdown();
    assert_closed(router.add_handler(handler()), Cause::Shutdown);
    assert_closed(router.del_handler(PORT), Cause::Shutdown);
    assert_closed(router.route(Message::to(router.context_id(), PORT)), Cause::Shutdown);
    assert_closed(router.allocate_id(), Cause::Shutdown);
}

#[test]
fn the_only_one_who_may_send_ends_the_handler_when_it_ends() {
    let router = router();
    let (one, other) = (router.in_process().unwrap(), router.in_process().unwrap());
    let (handle, told) = add(&router, |handler| handler.from(&one));
    other.call(send, (handle.0, vec![1])).unwrap();
    assert!(other.call(ask, handle.0).unwrap().contains("Refused"));
    assert_sends_on(&other, handle);
    one.call(send, (handle.0, vec![2])).unwrap();
    assert_eq!(told.recv_timeout(LIMIT).unwrap(), Ok(vec![2]));
    one.shutdown().unwrap();
    assert!(told.recv_timeout(LIMIT).unwrap().is_err());
    assert!(told.recv_timeout(LIMIT).is_err(), "it was dropped");
    let (_, told) = add(&router, |handler| handler.from(&one));
    assert_eq!(told.recv_timeout(LIMIT).unwrap(), Err(Cause::NoRoute));
    let (_, told) = add(&router, |handler| handler.from(&one).once());
    other.shutdown().unwrap();
    assert!(told.recv_timeout(PAUSE).is_err(), "nothing was sent that it could answer");
}

#[test]
fn a_policy_refuses_and_a_panic_in_it_or_in_the_handler_is_that_messages_alone() {
    let router = router();
    let child = router.in_process().unwrap();
    let (handle, told) = add(&router, |handler| {
        handler.once().policy(|message: &Message, at: &Arrival<'_>| {
            assert!(at.is_child && at.is_neighbour && at.me == ContextId::MASTER);
            assert_ne!(message.data, b"panic", "on purpose");
            message.data == b"pass"
        })
    });
    assert!(child.call(ask, handle.0).unwrap().contains("Refused"));
    for data in ["panic", "no", "pass", "late"] {
        child.call(send, (handle.0, data.as_bytes())).unwrap();
    }
    assert_eq!(told.recv_timeout(LIMIT).unwrap(), Ok(b"pass".to_vec()));
    assert!(told.recv_timeout(LIMIT).is_err());
    let (handle, told) = add(&router, |h| h.policy(policy::has_parent_authority));
    assert!(child.call(ask, handle.0).unwrap().contains("Refused"));
    router.route(Message::to(router.context_id(), handle)).unwrap();
    assert_eq!(told.recv_timeout(LIMIT).unwrap(), Ok(Vec::new()));
    let (tell, told) = channel();
    let handler = Handler::new(move |_, message| {
        let data = message.unwrap().data;
        assert_ne!(data, b"panic", "on purpose");
        tell.send(data).unwrap();
    });
    let handle = router.add_handler(handler).unwrap();
    for data in ["panic", "next"] {
        child.call(send, (handle.0, data.as_bytes())).unwrap();
    }
    assert_eq!(told.recv_timeout(LIMIT).unwrap(), b"next");
}

#[test]
fn a_handler_answers_and_who_asks_hears_of_it_once() {
    let router = router();
    let child = router.in_process().unwrap();
    let echo = Handler::new(|router, message| {
        let Ok(message) = message else { return };
        let asked = router.reply(&message, message.data.clone()).unwrap();
        assert_eq!(asked, message.reply_to.is_some());
    });
    let echo = router.add_handler(echo).unwrap();
    child.call(send, (echo.0, vec![1])).unwrap();
    assert!(child.call(ask, echo.0).unwrap().contains("Ok(Ok("));
    // An answer may also go to a handle that stays.
    let (inbox, told) = add(&router, |handler| handler);
    for i in 0..3 {
        let question = Message::to(router.context_id(), echo).with_data([i]);
        router.route(question.reply_to(inbox)).unwrap();
        assert_eq!(told.recv_timeout(LIMIT).unwrap(), Ok(vec![i]));
    }
}

#[test]
fn a_slow_handler_slows_who_sends_and_the_room_comes_back() {
    let router = router();
    let child = router.in_process().unwrap();
    let (go, gate) = channel::<()>();
    let (tell, told) = channel();
    let handler = Handler::new(move |_, message| {
        gate.recv().unwrap();
        tell.send(message.unwrap().data.len()).unwrap();
    });
    let handle = router.add_handler(handler).unwrap();
    const BYTES: usize = 10_000;
    for _ in 0..20 {
        child.call_no_reply(send_counted, (handle.0, vec![0; BYTES])).unwrap();
    }
    std::thread::sleep(2 * PAUSE);
    let sent = SENT.load(Ordering::Relaxed);
    assert!(sent * BYTES <= WINDOW_BYTES, "{sent} were sent at once");
    (0..20).for_each(|_| go.send(()).unwrap());
    assert!((0..20).all(|_| told.recv_timeout(LIMIT).unwrap() == BYTES));
}

#[test]
fn whatever_ends_the_router_is_told_to_every_handler_once() {
    for way in 0..3 {
        let router = router();
        let node = Arc::downgrade(router.node());
        let (_, all) = add(&router, |handler| handler);
        let (_, once) = add(&router, |handler| handler.once());
        let (_, answer) = add(&router, |handler| handler.once().from(&router.myself()));
        let (deleted, gone) = add(&router, |handler| handler);
        router.del_handler(deleted).unwrap();
        let broker = router.broker().clone();
        let expected = match way {
            0 => {
                router.shutdown();
                Cause::Shutdown
            }
            1 => Cause::Shutdown,
            _ => {
                broker.defer(|_| panic!("on purpose")).unwrap();
                Cause::BrokerFailed
            }
        };
        drop(router);
        for told in [all, once, answer] {
            assert_eq!(told.recv_timeout(LIMIT).unwrap(), Err(expected), "{way}");
            assert!(told.recv_timeout(LIMIT).is_err(), "it was dropped");
        }
        assert!(gone.recv_timeout(LIMIT).is_err());
        assert!(broker.wait_for_callbacks(LIMIT));
        drop(broker);
        let freed = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            node.strong_count() == 0
        });
        assert!(freed, "{way}: {}", node.strong_count());
    }
}

#[test]
fn a_sender_that_says_again_and_again_that_it_ends_takes_no_memory_while_another_is_called() {
    let router = router();
    let child = router.in_process().unwrap();
    let (go_on, held) = channel::<()>();
    let slow = Handler::new(move |_, _| _ = held.recv_timeout(LIMIT));
    let slow = router.add_handler(slow).unwrap();
    router.route(Message::to(router.context_id(), slow)).unwrap();
    let (handle, told) = add(&router, |handler| handler.from(&child));
    let (node, id) = (router.node().clone(), child.context_id());
    let says = move |turn: &mut Turn| {
        for _ in 0..1000 {
            let message = Message::to(node.id(), handle);
            let death = [Cause::Exited as u8, 0, 0, 0, 0].to_vec();
            let said = Message { kind: Kind::Dead, src: id, auth: id, data: death, ..message };
            assert!(node.deliver(turn, said).is_ok());
        }
    };
    router.broker().defer_sync(says).unwrap();
    let handlers = router.handlers();
    let held =
        |(other, core): &(Handle, Weak<Core>)| (*other == handle).then(|| core.strong_count());
    let count = handlers.0.lock().list.iter().find_map(held).unwrap();
    assert!(count < 10, "{count}");
    drop(go_on);
    assert_eq!(told.recv_timeout(LIMIT).unwrap(), Err(Cause::Exited));
    assert!(told.recv_timeout(LIMIT).is_err(), "it was called again");
}
