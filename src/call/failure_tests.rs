//! A broker that fails on purpose, while everything that can wait does.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::error::{Cause, Death, ErrorKind};
use crate::{
    CallContext, Context, Error, Handle, Handler, Latch, Message, Program, Result, Router, Sender,
};

const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

fn sleep(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// A Sender whose Receiver nobody reads.
fn unread(cx: &CallContext) -> Sender<Vec<u8>> {
    let receiver = cx.router().receiver();
    let sender = receiver.to_sender();
    std::mem::forget(receiver);
    sender
}

/// Does what waits on a thread of its own.
fn waits<T>(wait: impl FnOnce() -> Result<T> + Send + 'static) -> Receiver<Option<Error>> {
    let (tell, told) = channel();
    std::thread::spawn(move || tell.send(wait().err()));
    told
}

/// Makes the router's broker panic.
fn fail(router: &Router) {
    router.broker().defer(|_| panic!("on purpose")).unwrap();
}

#[track_caller]
fn assert_failed(error: &Error) {
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    let expected = (Cause::BrokerFailed, "the broker panicked: on purpose");
    assert_eq!((death.cause, &*death.tail), expected);
}

/// What tells of an end by being called: a handler, the end of a context and of the router, that of
/// a process, and a thread at a Latch that one of these puts something into.
fn callbacks(router: &Router, child: &Context) -> [Receiver<Option<Error>>; 5] {
    let [handler, ends, end, process, latch] = [(); 5].map(|()| channel());
    let tell = handler.0;
    let call = move |_: &Router, message: Result<Message, Death>| {
        drop(tell.send(message.err().map(Error::from)));
    };
    router.add_handler(Handler::new(call)).unwrap();
    let tell = ends.0;
    child.on_disconnect(move |death| drop(tell.send(Some(death.clone().into())))).unwrap();
    let tell = end.0;
    router.on_shutdown(move |death| drop(tell.send(Some(death.clone().into())))).unwrap();
    let tell = process.0;
    let started = std::process::Command::new("sleep").arg("3").spawn().unwrap();
    router.broker().watch_process(started, move |status| {
        let inner = status.err().and_then(|error| error.into_inner());
        drop(tell.send(inner.and_then(|inner| inner.downcast().ok()).map(|error| *error)));
    });
    let (queue, tell) = (Arc::new(Latch::new()), latch.0);
    let own = queue.clone();
    router.on_shutdown(move |death| own.put(death.clone()).unwrap()).unwrap();
    std::thread::spawn(move || tell.send(queue.get().ok().map(Error::from)));
    [handler.1, ends.1, end.1, process.1, latch.1]
}

#[test]
fn whatever_waits_while_the_broker_panics_is_told_so_and_so_is_all_that_comes_later() {
    let router = Program::new().function(sleep).function(unread).router().unwrap();
    let child = router.in_process().unwrap();
    let receiver = router.receiver::<u64>();
    let sender = child.call(unread, ()).unwrap();
    let (own, there) = (receiver.to_sender(), child.clone());
    let call = child.call_async(sleep, 1000);
    let queued = child.call_async(sleep, 0);
    let connecting = router.command(["sh", "-c", "sleep 1000; true"]).start();
    let (by_then, then) = channel();
    let other = router.command(["sh", "-c", "sleep 1000; true"]).start();
    other.then(move |outcome| drop(by_then.send(outcome.err())));
    let [handler, ends, end, process, latch] = callbacks(&router, &child);
    let waits = [
        handler,
        ends,
        end,
        process,
        latch,
        waits(move || call.get()),
        waits(move || queued.get_timeout(LIMIT)),
        waits(move || receiver.get()),
        waits(move || -> Result<()> {
            loop {
                sender.send(vec![0; 1000])?;
            }
        }),
        waits(move || connecting.wait()),
        then,
    ];
    for wait in &waits {
        assert_eq!(wait.recv_timeout(PAUSE).err(), Some(RecvTimeoutError::Timeout));
    }
    fail(&router);
    for (i, wait) in waits.iter().enumerate() {
        let error = wait.recv_timeout(LIMIT).unwrap_or_else(|e| panic!("{i}: {e}")).unwrap();
        assert_failed(&error);
    }
    let later = [
        there.call(sleep, 0).err(),
        there.call_no_reply(sleep, 0).err(),
        there.shutdown().err(),
        own.send(1).err(),
        router.receiver::<u64>().get().err(),
        router.command(["true"]).connect().err(),
        router.connect(&"local".parse().unwrap()).err(),
        router.in_process().err(),
        router.add_handler(Handler::new(|_, _| ())).err(),
        router.route(Message::to(there.context_id(), Handle::well_known(1))).err(),
        router.allocate_id().err(),
        router.on_shutdown(|_| ()).err(),
        router.on_disconnect(|_, _| ()).err(),
        there.on_disconnect(|_| ()).err(),
    ];
    for (i, error) in later.into_iter().enumerate() {
        assert_failed(&error.unwrap_or_else(|| panic!("{i}")));
    }
    router.shutdown();
    router.broker().join();
}

#[test]
fn the_memory_of_a_failed_broker_is_freed() {
    let router = Program::new().router().unwrap();
    let node = Arc::downgrade(router.node());
    let (keeps, kept) = mpsc::channel::<()>();
    router.broker().defer(move |_| panic!("on purpose")).unwrap();
    // Behind the panic, or too late: dropped in any case.
    let _ = router.broker().defer(move |_| drop(keeps));
    assert!(kept.recv_timeout(LIMIT).is_err());
    router.broker().join();
    drop(router);
    assert_eq!(node.strong_count(), 0);
}
