//! What a program is told of the end of contexts, in the master and in children.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use mitogen::error::{Cause, Death};
use mitogen::{CallContext, Context, Latch, Program, Result, Router, Sender, stock};

use crate::support::*;

mitogen::test_agent!(program());

const LIMIT: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

fn program() -> Program {
    let program = Program::new().function(kill_own_child).function(tell_ends).function(tell_end);
    program.function(grandchild).function(sleep)
}

fn sleep(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

fn grandchild(cx: &CallContext) -> Result<Context> {
    cx.router().local().connect()
}

/// Starts a child, kills it, and returns what this context was told of that.
fn kill_own_child(cx: &CallContext) -> Result<String> {
    let (ends, one) = (Arc::new(Latch::new()), Arc::new(Latch::new()));
    let (all, own) = (ends.clone(), one.clone());
    let child = cx.router().local().connect()?;
    cx.router().on_disconnect(move |context, death| {
        drop(all.put((context.context_id(), context.name().to_owned(), death.clone())));
    })?;
    child.on_disconnect(move |death| drop(own.put(death.clone())))?;
    signal(child.call(stock::identify, ())?.pid, "KILL");
    let ((id, name, death), other) = (ends.get_timeout(LIMIT)?, one.get_timeout(LIMIT)?);
    assert_eq!((id, &*name, &death), (child.context_id(), child.name(), &other));
    Ok(format!("{:?} {:?}", death.cause, death.exit))
}

/// Tells of the end of each of these contexts, as the one that this runs in hears of it.
fn tell_ends(cx: &CallContext, others: Vec<Context>, out: Sender<String>) -> Result<()> {
    for other in others {
        let (out, id) = (out.clone(), other.context_id());
        other.on_disconnect(move |death| drop(out.send(format!("{id} {:?}", death.cause))))?;
    }
    let _ = cx;
    Ok(())
}

/// Tells when this context is asked to end, as late as it may.
fn tell_end(cx: &CallContext, ms: u64, out: Sender<String>) -> Result<()> {
    cx.router().on_shutdown(move |death| {
        std::thread::sleep(Duration::from_millis(ms));
        drop(out.send(format!("{:?}", death.cause)));
    })
}

fn router() -> Router {
    mitogen_test_program().router().unwrap()
}

#[test]
fn a_child_is_told_of_the_end_of_its_own_child() {
    leaves_nothing(&[], || {
        let child = router().local().connect().unwrap();
        assert_eq!(child.call(kill_own_child, ()).unwrap(), "Exited Some(Signal(9))");
    });
}

#[test]
fn an_end_is_told_to_all_who_asked_wherever_they_are_within_a_second() {
    leaves_nothing(&[], || {
        let router = router();
        let (tell, told) = channel();
        router
            .on_disconnect(move |context, death| {
                tell.send((context.clone(), death.clone())).unwrap();
            })
            .unwrap();
        let (a, b) = (router.local().connect().unwrap(), router.local().connect().unwrap());
        let below = a.call(grandchild, ()).unwrap();
        let ends = router.receiver();
        b.call(tell_ends, (vec![below.clone(), a.clone()], ends.to_sender())).unwrap();
        let pid = a.call(stock::identify, ()).unwrap().pid;
        let killed = Instant::now();
        signal(pid, "KILL");
        let mut expected =
            vec![format!("{} Exited", a.context_id()), format!("{} Exited", below.context_id())];
        let mut heard: Vec<String> = (0..2).map(|_| ends.get_timeout(LIMIT).unwrap()).collect();
        expected.sort();
        heard.sort();
        assert_eq!(heard, expected);
        let (first, second) = (told.recv().unwrap(), told.recv().unwrap());
        assert_eq!([first.0, second.0], [a.clone(), below]);
        assert_eq!((first.1.cause, second.1.cause), (Cause::Exited, Cause::Exited));
        assert!(killed.elapsed() < SECOND, "{:?}", killed.elapsed());
        // One that is gone is told at once, here and there.
        b.call(tell_ends, (vec![a.clone()], ends.to_sender())).unwrap();
        assert_eq!(ends.get_timeout(LIMIT).unwrap(), format!("{} NoRoute", a.context_id()));
    });
}

#[test]
fn who_is_asked_to_end_has_time_to_say_so_but_not_more_than_the_grace() {
    leaves_nothing(&[], || {
        let router = router();
        let child = router.local().connect().unwrap();
        let ends = router.receiver();
        child.call(tell_end, (200, ends.to_sender())).unwrap();
        child.shutdown().unwrap();
        assert_eq!(ends.get_timeout(LIMIT).unwrap(), "Shutdown");
        // One that takes too long is ended.
        let child = router.local().connect().unwrap();
        child.call(tell_end, (100_000, ends.to_sender())).unwrap();
        let begun = Instant::now();
        child.shutdown().unwrap();
        assert!(begun.elapsed() < 5 * SECOND, "{:?}", begun.elapsed());
        // One that is killed says nothing.
        let child = router.local().connect().unwrap();
        child.call(tell_end, (0, ends.to_sender())).unwrap();
        let pid = child.call(stock::identify, ()).unwrap().pid;
        signal(pid, "KILL");
        let said = ends.get_timeout(LIMIT);
        assert!(said.is_err(), "{said:?}");
    });
}

#[test]
fn a_program_hears_of_its_own_end_before_its_main_is_over() {
    leaves_nothing(&[], || {
        let told: Arc<Latch<Death>> = Arc::default();
        let own = told.clone();
        let router = router();
        router
            .on_shutdown(move |death| {
                std::thread::sleep(Duration::from_millis(200));
                drop(own.put(death.clone()));
            })
            .unwrap();
        let child = router.local().connect().unwrap();
        let call = child.call_async(sleep, 100);
        router.shutdown();
        assert_eq!(told.try_get().unwrap().map(|death| death.cause), Some(Cause::Shutdown));
        assert!(call.get().is_err());
    });
}
