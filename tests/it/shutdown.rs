//! Contexts that are asked to end, and those that are cut off: whatever they do meanwhile, at every
//! depth, and told why.

use std::io::Write;
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use mitogen::error::{Cause, Death, ErrorKind, Exit};
use mitogen::{Call, CallContext, Context, ContextId, Error, ForkPromise, Program, Receiver};
use mitogen::{Result, Router, Sender, stock};

use crate::support::*;

mitogen::test_agent!(program());

fn program() -> Program {
    let program = Program::new().function(hang).function(shut_down).function(disconnect);
    let program = program.function(wait_for_all).function(wait_for_the_end);
    program.allow_fork(promise())
}

/// What the tests leave in a process the copies never use.
#[allow(unsafe_code)]
fn promise() -> ForkPromise {
    // SAFETY: what copies run here allocates, which the system sees to, and calls the library.
    unsafe { ForkPromise::new() }
}

/// Never returns.
fn hang(how: u8) {
    match how {
        0 => loop {
            std::hint::spin_loop();
        },
        1 => block_all_signals(),
        2 => {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(b"held").unwrap();
            sleep_forever();
        }
        3 => leave_deaf_children(),
        _ => (),
    }
    sleep_forever();
}

/// The ways to hang.
const HOWS: u8 = 5;

fn sleep_forever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(1000));
    }
}

#[allow(unsafe_code, clippy::multiple_unsafe_ops_per_block)]
fn block_all_signals() {
    // SAFETY: a set of bits, which is filled before it is used.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
    }
}

/// Some of them outlive their own parent.
fn leave_deaf_children() {
    let deaf = "trap '' TERM HUP INT; sleep 100005 & sleep 100005";
    for line in [deaf.to_owned(), format!("({deaf}) & ({deaf}) &")] {
        // Nobody waits for them.
        drop(Command::new("sh").args(["-c", &line]).spawn().unwrap());
    }
}

fn deaf_children() -> usize {
    processes().iter().filter(|process| process.command.trim() == "sleep 100005").count()
}

#[track_caller]
fn assert_no_deaf_children() {
    let gone = until(SECOND, || (deaf_children() == 0).then_some(()));
    assert!(gone.is_some(), "{}", deaf_children());
}

fn wait_for_the_end(cx: &CallContext) {
    cx.router().broker().join();
}

fn shut_down(cx: &CallContext, id: u32) -> Result<()> {
    cx.router().context_by_id(ContextId(id)).shutdown()
}

fn disconnect(cx: &CallContext, id: u32) -> Result<()> {
    cx.router().disconnect(&cx.router().context_by_id(ContextId(id)))
}

const SECOND: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(3);

fn router() -> Router {
    mitogen_test_program().router().unwrap()
}

/// This many contexts, one behind the other.
fn chain(router: &Router, count: usize) -> Vec<Context> {
    let mut all: Vec<Context> = Vec::new();
    for _ in 0..count {
        all.push(below(router, all.last()));
    }
    all
}

/// A copy, since an agent of a test harness is not its process's first thread, and so is killed
/// alone where its parent ends.
fn below(router: &Router, parent: Option<&Context>) -> Context {
    let fork = router.fork(promise());
    if let Some(parent) = parent { fork.via(parent) } else { fork }.connect().unwrap()
}

fn pid(context: &Context) -> u32 {
    context.call(stock::identify, ()).unwrap().pid
}

#[track_caller]
fn death(error: &Error) -> &Death {
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    death
}

#[track_caller]
fn cause(outcome: Result<()>) -> Cause {
    death(&outcome.unwrap_err()).cause
}

/// Whether a process is gone, within a second.
fn is_gone(pid: u32) -> bool {
    let lives = || processes().iter().any(|process| process.pid == pid);
    until(SECOND, || (!lives()).then_some(())).is_some()
}

/// A context that is to be ended.
struct Victim {
    context: Context,
    pid: u32,
    parent: u32,
    depth: usize,
    call: Option<Call<()>>,
}

/// Below each context of a chain, and below the router: one that is stopped, and one for each way
/// to hang.
fn victims(router: &Router, chain: &[Context]) -> Vec<Victim> {
    let mut all = Vec::new();
    for depth in 0..=chain.len() {
        for how in 0..=HOWS {
            let parent = depth.checked_sub(1).map(|at| &chain[at]);
            let context = below(router, parent);
            let (pid, parent) = (pid(&context), parent.map_or(0, |it| it.context_id().0));
            let call = (how < HOWS).then(|| context.call_async(hang, how));
            if call.is_none() {
                signal(pid, "STOP");
            }
            all.push(Victim { context, pid, parent, depth, call });
        }
    }
    let deaf = 6 * (chain.len() + 1);
    let ready = until(20 * SECOND, || (deaf <= deaf_children()).then_some(()));
    assert!(ready.is_some(), "{} of {deaf}", deaf_children());
    all
}

#[test]
fn a_shutdown_ends_within_the_grace_and_a_second_whatever_hangs_at_whatever_depth() {
    leaves_nothing(&[], || {
        let router = router();
        let chain = chain(&router, 2);
        let victims = victims(&router, &chain);
        let begun = Instant::now();
        let endings: Vec<_> =
            victims.iter().map(|victim| victim.context.shutdown_async().unwrap()).collect();
        assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
        let deaths: Vec<Death> = endings.iter().map(|ending| ending.wait().unwrap()).collect();
        assert!(begun.elapsed() < GRACE + SECOND, "{:?}", begun.elapsed());
        for (victim, (death, ending)) in victims.into_iter().zip(deaths.into_iter().zip(endings)) {
            let Victim { context, pid, parent, depth, call } = victim;
            assert_eq!(death, ending.wait_timeout(Duration::ZERO).unwrap());
            assert_eq!(death.context, Some(context.context_id()));
            assert_eq!(death.seen_by.map(|id| id.0), Some(parent));
            match call {
                Some(call) => {
                    assert_eq!((death.cause, death.exit), (Cause::Exited, Some(Exit::Code(0))));
                    assert_eq!(cause(call.get()), Cause::Exited);
                }
                None => assert_eq!((death.cause, death.exit), (Cause::Shutdown, None)),
            }
            assert!(is_gone(pid), "{pid} at depth {depth}");
            assert_eq!(cause(context.call(stock::ping, ())), Cause::NoRoute);
        }
        assert_no_deaf_children();
        // The chain itself is as it was.
        for context in chain {
            context.call(stock::ping, ()).unwrap();
        }
    });
}

#[test]
fn a_shutdown_of_the_first_takes_all_below_along_in_the_same_time() {
    leaves_nothing(&[], || {
        let router = router();
        let chain = chain(&router, 3);
        let calls: Vec<_> = chain.iter().map(|context| context.call_async(hang, 3)).collect();
        let pids: Vec<u32> = (0..3).map(|_| pid(&below(&router, Some(&chain[0])))).collect();
        let ready = until(20 * SECOND, || (18 <= deaf_children()).then_some(()));
        assert!(ready.is_some(), "{}", deaf_children());
        signal(pids[1], "STOP");
        let begun = Instant::now();
        chain[0].shutdown().unwrap();
        let took = begun.elapsed();
        assert!(GRACE < took && took < GRACE + SECOND, "{took:?}");
        for call in calls {
            let error = call.get_timeout(SECOND).unwrap_err();
            assert_eq!(death(&error).context, Some(chain[0].context_id()), "{error}");
        }
        assert!(pids.into_iter().all(is_gone));
        assert_nothing_is_left();
        assert_no_deaf_children();
    });
}

#[test]
fn what_is_stopped_on_the_way_is_told_as_a_timeout() {
    leaves_nothing(&[], || {
        let router = router();
        let chain = chain(&router, 3);
        let pids: Vec<u32> = chain.iter().map(pid).collect();
        signal(pids[1], "STOP");
        let begun = Instant::now();
        let ending = chain[2].shutdown_async().unwrap();
        let error = ending.wait().unwrap_err();
        let took = begun.elapsed();
        assert!(matches!(error.kind(), ErrorKind::Timeout), "{error}");
        assert!(took < GRACE + SECOND + SECOND / 4, "{took:?}");
        signal(pids[1], "CONT");
        let death = ending.wait_timeout(2 * SECOND).unwrap();
        assert_eq!(death.context, Some(chain[2].context_id()));
        chain[1].call(stock::ping, ()).unwrap();
    });
}

#[test]
fn whoever_has_authority_ends_a_context_and_nobody_else() {
    leaves_nothing(&[], || {
        let router = router();
        let chain = chain(&router, 4);
        let sibling = below(&router, None);
        let [a, b, c, d] = [0, 1, 2, 3].map(|at| chain[at].context_id().0);
        let begun = Instant::now();
        chain[0].call(shut_down, d).unwrap();
        assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
        // One that does not end by itself, from further above.
        signal(pid(&chain[2]), "STOP");
        let begun = Instant::now();
        chain[0].call(shut_down, c).unwrap();
        assert!(begun.elapsed() < GRACE + SECOND, "{:?}", begun.elapsed());
        for id in [a, sibling.context_id().0] {
            let error = chain[1].call(shut_down, id).unwrap_err().to_string();
            assert!(error.contains("refused by the receiver's policy"), "{error}");
        }
        for id in [0, a, b, c, d, sibling.context_id().0] {
            let error = chain[1].call(disconnect, id).unwrap_err().to_string();
            assert!(error.contains("no route leads there"), "{error}");
        }
        for context in [&chain[0], &chain[1], &sibling] {
            context.call(stock::ping, ()).unwrap();
        }
        chain[0].call(disconnect, b).unwrap();
        assert!(is_lost(&chain[1]));
        let error = router.context_by_id(ContextId(0)).shutdown().unwrap_err();
        assert_eq!(death(&error).cause, Cause::NoHandle);
    });
}

/// Whether calls of it fail, within a second.
fn is_lost(context: &Context) -> bool {
    until(SECOND, || context.call(stock::ping, ()).err()).is_some()
}

#[test]
fn an_ending_that_nobody_waits_for_happens_and_one_of_what_is_gone_is_fine() {
    leaves_nothing(&[], || {
        let router = router();
        let [calm, stopped] = [(); 2].map(|()| below(&router, None));
        let pids = [&calm, &stopped].map(pid);
        signal(pids[1], "STOP");
        let begun = Instant::now();
        for context in [&calm, &stopped] {
            drop(context.shutdown_async().unwrap());
        }
        assert!(is_gone(pids[0]));
        let limit = GRACE + SECOND + SECOND / 2;
        let lives = |pid| processes().iter().any(|process| process.pid == pid);
        assert!(until(limit, || (!lives(pids[1])).then_some(())).is_some());
        assert!(begun.elapsed() < limit);
        for context in [&calm, &stopped] {
            let death = context.shutdown_async().unwrap().wait().unwrap();
            assert_eq!(death, context.shutdown_async().unwrap().wait().unwrap());
            assert_eq!((death.cause, death.context), (Cause::NoRoute, Some(context.context_id())));
            context.shutdown().unwrap();
        }
        let last = below(&router, None);
        let pid = pid(&last);
        let ending = last.shutdown_async().unwrap();
        router.shutdown();
        assert!(is_gone(pid));
        // Whichever came first.
        let cause = ending.wait().map_or_else(|error| death(&error).cause, |death| death.cause);
        assert!(matches!(cause, Cause::Shutdown | Cause::Exited), "{cause:?}");
        let error = last.shutdown_async().map(drop).unwrap_err();
        assert_eq!(death(&error).cause, Cause::Shutdown);
    });
}

#[test]
fn a_disconnect_takes_all_below_along_at_once_at_any_depth() {
    leaves_nothing(&[], || {
        let router = router();
        let chain = chain(&router, 4);
        let pids: Vec<u32> = chain.iter().map(pid).collect();
        let mut calls: Vec<_> = chain.iter().map(|context| context.call_async(hang, 3)).collect();
        let ready = until(20 * SECOND, || (24 <= deaf_children()).then_some(()));
        assert!(ready.is_some(), "{}", deaf_children());
        signal(pids[3], "STOP");
        for (first, parent) in [(2, chain[1].context_id()), (0, ContextId(0))] {
            router.disconnect(&chain[first]).unwrap();
            let begun = Instant::now();
            for call in calls.drain(first..) {
                let error = call.get_timeout(SECOND).unwrap_err();
                let death = death(&error);
                assert_eq!((death.cause, death.exit), (Cause::Shutdown, None), "{error}");
                assert_eq!(death.context, Some(chain[first].context_id()), "{error}");
                assert_eq!(death.seen_by, Some(parent), "{error}");
            }
            assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
            assert!(pids[first..].iter().all(|pid| is_gone(*pid)));
            let deaf = until(SECOND, || (deaf_children() <= 6 * first).then_some(()));
            assert!(deaf.is_some(), "{}", deaf_children());
            assert_eq!(cause(router.disconnect(&chain[first])), Cause::NoRoute);
        }
    });
}

#[test]
fn all_children_are_disconnected_at_once_and_others_may_come() {
    leaves_nothing(&[], || {
        let router = router();
        let other = Program::new().router().unwrap();
        let mut all: Vec<Context> = (0..3).map(|_| below(&router, None)).collect();
        let pids: Vec<u32> = all.iter().map(pid).collect();
        all.push(router.in_process().unwrap());
        let error = other.disconnect(&all[0]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Usage(_)), "{error}");
        let call = all[3].call_async(wait_for_the_end, ());
        router.disconnect_all().unwrap();
        let none = until(SECOND, || router.children().is_empty().then_some(()));
        assert!(none.is_some());
        assert_eq!(cause(call.get()), Cause::Shutdown);
        assert!(all.iter().all(is_lost));
        assert!(pids.into_iter().all(is_gone));
        below(&router, None).call(stock::ping, ()).unwrap();
        let itself = router.context_by_id(ContextId(0));
        assert_eq!(cause(router.disconnect(&itself)), Cause::NoRoute);
        router.shutdown();
        assert_eq!(cause(router.disconnect(&all[0])), Cause::Shutdown);
        assert_eq!(cause(router.disconnect_all()), Cause::Shutdown);
    });
}

#[test]
fn what_functions_left_ends_with_the_parent_that_was_killed() {
    leaves_nothing(&[], || {
        let router = router();
        let first = below(&router, None);
        let second = below(&router, Some(&first));
        let copy = router.fork(promise()).via(&second).connect().unwrap();
        let stopped = below(&router, Some(&first));
        let all = [&second, &copy, &stopped, &below(&router, Some(&copy))];
        let (first_pid, stopped_pid) = (pid(&first), pid(&stopped));
        let calls = all.map(|context| context.call_async(hang, 3));
        let ready = until(20 * SECOND, || (24 <= deaf_children()).then_some(()));
        assert!(ready.is_some(), "{}", deaf_children());
        signal(stopped_pid, "STOP");
        let begun = Instant::now();
        signal(first_pid, "KILL");
        for call in calls {
            let error = call.get_timeout(SECOND).unwrap_err();
            let death = death(&error);
            assert_eq!((death.cause, death.exit), (Cause::Exited, Some(Exit::Signal(9))));
            assert_eq!(death.context, Some(first.context_id()), "{error}");
            assert!(error.to_string().contains("memory"), "{error}");
        }
        assert_no_deaf_children();
        assert_nothing_is_left();
        assert!(begun.elapsed() < 2 * SECOND, "{:?}", begun.elapsed());
    });
}

/// Where the waits of [`wait_for_all`] tell their ends.
static TOLD: Mutex<Option<mpsc::Sender<(usize, Error)>>> = Mutex::new(None);

/// Waits in every way that there is, until each fails.
fn wait_for_all(cx: &CallContext, give: Sender<Sender<u32>>, full: Sender<Vec<u8>>) -> Result<()> {
    let router = cx.router();
    let receiver: Receiver<u32> = router.receiver();
    give.send(receiver.to_sender())?;
    let child = router.local().connect()?;
    let silent = || router.command(["sh", "-c", "exec sleep 100006"]);
    let fill = || {
        loop {
            if let Err(error) = full.send(vec![0; 10_000]) {
                return error;
            }
        }
    };
    let waits: [&(dyn Fn() -> Error + Sync); 6] = [
        &|| receiver.get().unwrap_err(),
        &fill,
        &|| child.call(hang, HOWS).unwrap_err(),
        &|| silent().connect().unwrap_err(),
        &|| silent().via(&child).connect().unwrap_err(),
        &|| silent().start().wait().unwrap_err(),
    ];
    let tell = TOLD.lock().unwrap().take().unwrap();
    thread::scope(|scope| {
        for (number, wait) in waits.into_iter().enumerate() {
            let tell = tell.clone();
            scope.spawn(move || tell.send((number, wait())));
        }
    });
    Ok(())
}

#[test]
fn a_lost_parent_fails_every_wait_of_a_context_whose_process_stays() {
    leaves_nothing(&[], || {
        let router = router();
        let context = router.in_process().unwrap();
        let (tell, told) = mpsc::channel();
        *TOLD.lock().unwrap() = Some(tell);
        let (given, full) = (router.receiver(), router.receiver());
        let waits = (given.to_sender(), full.to_sender());
        let call = context.call_async(wait_for_all, waits);
        let _held: Sender<u32> = given.get().unwrap();
        // All of them wait, and none ends by itself.
        let is_silent = |process: &Process| process.command.trim() == "sleep 100006";
        let commands = || processes().into_iter().filter(is_silent).count();
        assert!(until(20 * SECOND, || (commands() == 3).then_some(())).is_some());
        assert!(told.recv_timeout(SECOND / 5).is_err());
        router.disconnect(&context).unwrap();
        let begun = Instant::now();
        assert_eq!(cause(call.get()), Cause::Shutdown);
        let mut ended = Vec::new();
        while ended.len() < 6 {
            let next = told.recv_timeout(SECOND.saturating_sub(begun.elapsed()));
            let (number, error) = next.unwrap_or_else(|_| panic!("only {ended:?}"));
            let is_told = matches!(error.kind(), ErrorKind::Closed(_) | ErrorKind::Connect(_));
            assert!(is_told, "{number}: {error}");
            ended.push((number, error));
        }
        assert!(told.recv().is_err());
        assert!(until(SECOND, || (commands() == 0).then_some(())).is_some());
    });
}
