//! Events, in one process.

use super::*;
use crate::{CallContext, Latch, Program};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

fn router() -> Router {
    Program::new().function(end_of).function(grandchild).router().unwrap()
}

#[track_caller]
fn told_of(context: &Context) -> Receiver<Death> {
    let (tell, told) = channel();
    // A test that is over has heard enough.
    context.on_disconnect(move |death| drop(tell.send(death.clone()))).unwrap();
    told
}

/// Why this one ended.
fn end_of(other: Context) -> Result<String> {
    let ended = Arc::new(Latch::new());
    let own = ended.clone();
    other.on_disconnect(move |death| drop(own.put(death.cause)))?;
    Ok(format!("{:?}", ended.get_timeout(LIMIT)?))
}

fn grandchild(cx: &CallContext) -> Result<Context> {
    cx.router().in_process()
}

#[test]
fn the_end_of_a_context_is_told_once_also_afterwards() {
    let router = router();
    let (a, b) = (router.in_process().unwrap(), router.in_process().unwrap());
    let (of_a, of_b, again) = (told_of(&a), told_of(&b), told_of(&a));
    a.shutdown().unwrap();
    for told in [of_a, again] {
        assert_eq!(told.recv_timeout(LIMIT).unwrap().context, Some(a.context_id()));
        assert!(told.recv_timeout(LIMIT).is_err(), "it was dropped");
    }
    assert_eq!(told_of(&a).recv_timeout(LIMIT).unwrap().cause, Cause::NoRoute);
    assert!(of_b.recv_timeout(PAUSE).is_err());
    let (me, never) = (told_of(&router.myself()), router.context_by_id(ContextId(1_000_000)));
    assert_eq!(told_of(&never).recv_timeout(LIMIT).unwrap().cause, Cause::NoRoute);
    router.shutdown();
    for told in [of_b, me] {
        assert_eq!(told.recv_timeout(LIMIT).unwrap().cause, Cause::Shutdown);
    }
    assert!(b.on_disconnect(|_| ()).is_err());
    assert!(router.on_disconnect(|_, _| ()).is_err() && router.on_shutdown(|_| ()).is_err());
}

#[test]
fn a_context_hears_of_the_end_of_one_that_is_not_below_it() {
    let router = router();
    let (a, b) = (router.in_process().unwrap(), router.in_process().unwrap());
    let call = b.call_async(end_of, &a);
    std::thread::sleep(PAUSE);
    a.shutdown().unwrap();
    assert_eq!(call.get().unwrap(), "Disconnected");
    // It is gone already.
    assert_eq!(b.call(end_of, &a).unwrap(), "NoRoute");
}

#[test]
fn every_end_is_told_with_the_name_that_it_had_and_panics_are_survived() {
    let router = router();
    let (tell, told) = channel();
    let mut count = 0;
    let note = move |context: &Context, _: &Death| {
        tell.send((context.context_id(), context.name().to_owned())).unwrap();
        count += 1;
        assert_ne!(count, 1, "on purpose");
    };
    router.on_disconnect(note).unwrap();
    let (other, others) = channel();
    router.on_disconnect(move |context, _| other.send(context.clone()).unwrap()).unwrap();
    let child = router.in_process().unwrap();
    assert_eq!(router.children()[0].name(), "master/in_process");
    let below = child.call(grandchild, ()).unwrap();
    child.shutdown().unwrap();
    let mut ends = [(); 2].map(|()| told.recv_timeout(LIMIT).unwrap());
    ends.sort();
    let mut expected =
        [(child.context_id(), "master/in_process".into()), (below.context_id(), String::new())];
    expected.sort();
    assert_eq!(ends, expected);
    assert!((0..2).all(|_| others.recv_timeout(LIMIT).is_ok()));
    drop(others);
    router.in_process().unwrap();
    router.shutdown();
    // What its own end ends is not told, and what told it is dropped.
    assert!(told.recv_timeout(LIMIT).is_err());
}

#[test]
fn the_end_of_a_router_is_told_before_its_shutdown_is_over() {
    for way in 0..3 {
        let router = router();
        let (tell, told) = channel();
        router.on_shutdown(|_| panic!("on purpose")).unwrap();
        router
            .on_shutdown(move |death| {
                std::thread::sleep(PAUSE);
                tell.send(death.cause).unwrap();
            })
            .unwrap();
        match way {
            0 => router.shutdown(),
            1 => drop(router),
            _ => {
                router.broker().defer(|_| panic!("on purpose")).unwrap();
                assert_eq!(told.recv_timeout(LIMIT).unwrap(), Cause::BrokerFailed);
                continue;
            }
        }
        assert_eq!(told.try_recv().unwrap(), Cause::Shutdown);
        assert!(told.recv_timeout(LIMIT).is_err(), "it was dropped");
    }
}
