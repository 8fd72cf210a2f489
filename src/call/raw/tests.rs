//! Queues of messages, in one process.

use super::*;
use crate::limits::WINDOW_BYTES;
use crate::{CallContext, Handler, Program, Select, policy};

const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
const PORT: Handle = Handle::well_known(7);

fn router() -> Router {
    Program::new().function(send).function(ask).function(ask_thrice).router().unwrap()
}

/// Sends a message to whoever called.
fn send(cx: &CallContext, handle: u32, data: Vec<u8>) -> Result<()> {
    let caller = cx.router().context_by_id(cx.caller_id());
    caller.send(Message::at(Handle(handle)).with_data(data))
}

/// Asks whoever called; returns the answer, or why there is none.
fn ask(cx: &CallContext, handle: u32, data: Vec<u8>) -> String {
    let caller = cx.router().context_by_id(cx.caller_id());
    let question = Message::at(Handle(handle)).with_data(data);
    told(caller.send_await(question, Some(LIMIT)))
}

/// Asks three times at once.
fn ask_thrice(cx: &CallContext, handle: u32) -> Vec<String> {
    let caller = cx.router().context_by_id(cx.caller_id());
    let ask = |_| caller.send_async(Message::at(Handle(handle))).unwrap();
    let asked: Vec<_> = (0..3).map(ask).collect();
    asked.iter().map(|answer| told(answer.get_timeout(LIMIT))).collect()
}

fn told(answer: Result<Message>) -> String {
    match answer.map_err(Error::into_kind) {
        Ok(answer) => format!("{:?}", answer.data),
        Err(ErrorKind::Closed(death)) => format!("{:?} {}", death.cause, death.tail),
        Err(kind) => format!("{kind:?}"),
    }
}

#[track_caller]
fn assert_closed<T>(result: Result<T>, cause: Cause) {
    let error = result.map(drop).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Closed(death) if death.cause == cause), "{error}");
}

#[track_caller]
fn assert_usage<T>(result: Result<T>) {
    let error = result.map(drop).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Usage(_)), "{error}");
}

#[test]
fn messages_come_in_order_and_the_shutdown_is_the_end_once() {
    let router = router();
    let child = router.in_process().unwrap();
    let inbox = router.raw_receiver().at(PORT).listen().unwrap();
    assert!(inbox.is_empty() && inbox.try_get().unwrap().is_none() && inbox.handle() == PORT);
    assert_usage(router.raw_receiver().at(PORT).listen());
    for i in 0..100u8 {
        child.call(send, (PORT.0, vec![i])).unwrap();
    }
    let sizes: Vec<_> = (0..100).map(|_| inbox.get_timeout(LIMIT).unwrap()).collect();
    assert!(sizes.iter().enumerate().all(|(i, message)| {
        message.data == [i as u8] && message.src == child.context_id() && !message.is_dead()
    }));
    let error = inbox.get_timeout(PAUSE).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout), "{error}");
    child.call(send, (PORT.0, vec![1])).unwrap();
    router.shutdown();
    let rest: Vec<_> = (&inbox).collect();
    assert!(rest.len() == 2 && rest[0].is_ok(), "{rest:?}");
    assert_closed(inbox.get(), Cause::Shutdown);
    assert_closed(inbox.try_get(), Cause::Shutdown);
    assert_closed(router.raw_receiver().listen(), Cause::Shutdown);
}

#[test]
fn where_to_listen_is_checked_as_for_handlers() {
    let (router, other) = (router(), router());
    assert_usage(router.raw_receiver().at(Handle::CALL).listen());
    assert_usage(router.raw_receiver().at(Handle::FIRST_RANDOM).listen());
    assert_usage(router.raw_receiver().from(&other.myself()).listen());
    assert_usage(router.myself().send(Message::at(Handle::SHUTDOWN)));
    let (a, b) = (router.raw_receiver().listen().unwrap(), router.raw_receiver().listen().unwrap());
    assert_ne!(a.handle(), b.handle());
    drop(router.raw_receiver().at(PORT).listen().unwrap());
    drop(router.raw_receiver().at(PORT).listen().unwrap());
}

#[test]
fn the_only_one_who_may_send_ends_it_when_it_ends() {
    let router = router();
    let (one, other) = (router.in_process().unwrap(), router.in_process().unwrap());
    let inbox = router.raw_receiver().from(&one).listen().unwrap();
    let handle = inbox.handle().0;
    other.call(send, (handle, vec![1])).unwrap();
    assert_eq!(other.call(ask, (handle, vec![])).unwrap(), "Refused ");
    one.call(send, (handle, vec![2])).unwrap();
    assert_eq!(inbox.get_timeout(LIMIT).unwrap().data, [2]);
    one.call(send, (handle, vec![3])).unwrap();
    one.shutdown().unwrap();
    let rest: Vec<_> = inbox.into_iter().collect();
    assert!(rest.len() == 2 && rest[0].is_ok() && rest[1].is_err(), "{rest:?}");
    let gone = router.raw_receiver().from(&one).listen().unwrap();
    assert_closed(gone.get_timeout(LIMIT), Cause::NoRoute);
    assert_closed(one.send_await(Message::at(PORT), Some(LIMIT)), Cause::NoRoute);
}

/// Answers with what it was asked; or with a reason, if that was `no`.
fn echo(router: &Router) -> Handle {
    let handler = Handler::new(|router, message| {
        let Ok(message) = message else { return };
        let Some(answer) = message.answer() else { return };
        let no = Death { tail: "no".into(), ..Death::of(Cause::Failed) };
        let answer = match &*message.data {
            b"no" => answer.dead(&no),
            b"never" => return,
            b"twice" => {
                router.route(answer.clone().with_data("first")).unwrap();
                router.route(answer.clone().with_data("second")).unwrap();
                answer.dead(&no)
            }
            data => answer.with_data(data),
        };
        // The second of two that only one is waited for is refused there.
        let _ = router.route(answer);
    });
    router.add_handler(handler).unwrap()
}

#[test]
fn an_answer_is_waited_for_or_why_there_is_none() {
    let router = router();
    let child = router.in_process().unwrap();
    let echo = echo(&router);
    let (here, nowhere) = (CallContext::local(&router), Handle::well_known(9).0);
    for is_here in [true, false] {
        let ask = |handle: u32, data: &[u8]| match is_here {
            true => ask(&here, handle, data.to_vec()),
            false => child.call(self::ask, (handle, data)).unwrap(),
        };
        assert_eq!(ask(echo.0, b"yes"), "[121, 101, 115]");
        assert_eq!(ask(echo.0, b"no"), "Failed no");
        assert_eq!(ask(nowhere, b""), "NoHandle ");
    }
    let me = router.myself();
    let late = me.send_await(Message::at(echo).with_data("never"), Some(PAUSE)).unwrap_err();
    assert!(matches!(late.kind(), ErrorKind::Timeout), "{late}");
    let answer = me.send_async(Message::at(echo).with_data("x")).unwrap();
    assert_eq!(answer.get_timeout(LIMIT).unwrap().data, b"x");
    assert_closed(answer.get(), Cause::ReceiverClosed);
    let unanswered = me.send_async(Message::at(echo).with_data("never")).unwrap();
    let handle = unanswered.handle();
    let listens = || router.node().listener(handle, Kind::Reply).is_some();
    assert!(listens());
    drop(unanswered);
    assert!(!listens());
}

#[test]
fn answers_come_until_who_was_asked_says_that_no_more_do() {
    let router = router();
    let me = router.myself();
    let question = || Message::at(echo(&router)).with_data("twice");
    let all: Vec<_> = me.send_async_persist(question()).unwrap().collect();
    assert_eq!(all[0].as_ref().unwrap().data, b"first");
    assert_eq!(all[1].as_ref().unwrap().data, b"second");
    assert_closed(all[2].clone(), Cause::Failed);
    assert_eq!(all.len(), 3);
    let one: Vec<_> = me.send_async(question()).unwrap().collect();
    assert!(one.len() == 1 && one[0].is_ok(), "{one:?}");
}

#[test]
fn a_policy_refuses_whoever_takes_and_who_asked_is_told() {
    let router = router();
    let child = router.in_process().unwrap();
    let options = router.raw_receiver().policy(|message: &Message, at: &Arrival<'_>| {
        assert!(at.is_child && at.is_neighbour);
        message.data == b"pass"
    });
    let inbox = options.listen().unwrap();
    let refused = child.call_async(ask, (inbox.handle().0, b"no"));
    let passed = child.call_async(ask, (inbox.handle().0, b"pass"));
    let message = inbox.get_timeout(LIMIT).unwrap();
    assert_eq!(message.data, b"pass");
    assert!(router.reply(&message, "it").unwrap());
    assert_eq!(refused.get().unwrap(), "Refused ");
    assert_eq!(passed.get().unwrap(), "[105, 116]");
    let options = router.raw_receiver().policy(policy::is_immediate_child);
    let inbox = options.from(&router.myself()).once().listen().unwrap();
    let question = Message::at(echo(&router)).reply_to(inbox.handle());
    router.myself().send(question).unwrap();
    assert_closed(inbox.get_timeout(LIMIT), Cause::Refused);
}

#[test]
fn closing_it_wakes_every_wait_and_refuses_what_nobody_took() {
    let router = router();
    let child = router.in_process().unwrap();
    let inbox = router.raw_receiver().listen().unwrap();
    std::thread::scope(|scope| {
        let waits: Vec<_> = (0..4).map(|_| scope.spawn(|| inbox.get_timeout(LIMIT))).collect();
        std::thread::sleep(PAUSE);
        inbox.close();
        waits.into_iter().for_each(|wait| {
            assert_closed(wait.join().unwrap(), Cause::ReceiverClosed);
        });
    });
    for once in [false, true] {
        let options = router.raw_receiver().at(PORT);
        let inbox = if once { options.once() } else { options }.listen().unwrap();
        let asked = child.call_async(ask_thrice, PORT.0);
        let message = inbox.get_timeout(LIMIT).unwrap();
        if !once {
            while inbox.is_empty() {
                std::thread::yield_now();
            }
            drop(inbox);
        }
        router.reply(&message, "x").unwrap();
        assert_eq!(asked.get_timeout(LIMIT).unwrap(), ["[120]", "NoHandle ", "NoHandle "]);
    }
}

#[test]
fn a_slow_receiver_slows_who_sends_and_the_room_comes_back() {
    let router = router();
    let child = router.in_process().unwrap();
    let inbox = router.raw_receiver().listen().unwrap();
    const BYTES: usize = 10_000;
    let calls: Vec<_> = (0..3 * WINDOW_BYTES / BYTES)
        .map(|n| child.call_async(send, (inbox.handle().0, vec![n as u8; BYTES])))
        .collect();
    // Its sender, which runs one call at a time, sleeps.
    std::thread::sleep(2 * PAUSE);
    let mut waiting = 0;
    while inbox.try_get().unwrap().is_some() {
        waiting += 1;
        if waiting * BYTES <= WINDOW_BYTES {
            continue;
        }
        break;
    }
    assert!(waiting * BYTES <= WINDOW_BYTES + BYTES, "{waiting}");
    for _ in waiting..calls.len() {
        assert_eq!(inbox.get_timeout(LIMIT).unwrap().data.len(), BYTES);
    }
    calls.into_iter().for_each(|call| call.get_timeout(LIMIT).unwrap());
    let large = child.call_async(send, (inbox.handle().0, vec![7; 1 << 20]));
    assert_eq!(inbox.get_timeout(LIMIT).unwrap().data, vec![7; 1 << 20]);
    large.get_timeout(LIMIT).unwrap();
    // What is refused takes no room for good.
    let calls: Vec<_> = (0..WINDOW_BYTES / BYTES)
        .map(|_| child.call_async(send, (inbox.handle().0, vec![0; BYTES])))
        .collect();
    let handle = inbox.handle();
    inbox.close();
    calls.into_iter().for_each(|call| call.get_timeout(LIMIT).unwrap());
    for _ in 0..2 * WINDOW_BYTES / BYTES {
        child.call_async(send, (handle.0, vec![0; BYTES])).get_timeout(LIMIT).unwrap();
    }
}

#[test]
fn of_two_who_take_a_message_at_once_where_one_is_all_one_gets_it() {
    let router = router();
    let both = std::sync::Barrier::new(2);
    let options =
        router.raw_receiver().at(PORT).once().policy(move |_: &Message, _: &Arrival<'_>| {
            both.wait();
            true
        });
    let inbox = options.listen().unwrap();
    let me = router.myself();
    let asked = [(); 2].map(|()| me.send_async(Message::at(PORT)).unwrap());
    let got = std::thread::scope(|scope| {
        let waits = [(); 2].map(|()| scope.spawn(|| inbox.get_timeout(LIMIT)));
        waits.map(|wait| wait.join().unwrap())
    });
    assert_eq!(got.iter().filter(|got| got.is_ok()).count(), 1, "{got:?}");
    drop(inbox);
    let message = got.into_iter().find_map(Result::ok).unwrap();
    router.reply(&message, "x").unwrap();
    let told = asked.map(|answer| self::told(answer.get_timeout(LIMIT)));
    assert!(told.contains(&"[120]".into()) && told.contains(&"NoHandle ".into()), "{told:?}");
}

#[test]
fn a_select_has_what_comes_to_each_and_one_end() {
    let router = router();
    let (a, b) = (router.raw_receiver().listen().unwrap(), router.raw_receiver().listen().unwrap());
    let select: Select<'_, _> = [("a", &a), ("b", &b)].into_iter().collect();
    for (name, inbox) in [("b", &b), ("a", &a), ("b", &b)] {
        router.myself().send(Message::at(inbox.handle()).with_data(name)).unwrap();
        let (from, message) = select.next().unwrap();
        assert_eq!((from, &*message.unwrap().data), (name, name.as_bytes()));
    }
    a.close();
    assert!(matches!(select.next_timeout(PAUSE).unwrap_err().kind(), ErrorKind::Timeout));
    router.shutdown();
    let (from, end) = select.next().unwrap();
    assert_eq!(from, "b");
    assert_closed(end, Cause::Shutdown);
    assert!(select.next().is_none());
}
