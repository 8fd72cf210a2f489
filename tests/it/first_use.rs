//! What is made when it is first needed is first needed by sixteen threads at once, again and
//! again: all get what they want, and what shall be there once is.

use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;
use std::{env, fs, io, thread};

use mitogen::{Broker, CallContext, Context, Latch, Level, Program, Result, Router, Sender, stock};

use crate::support::*;

mitogen::test_agent!(program());

const THREADS: usize = 16;
/// Rounds of a test that makes a router for each.
const ROUNDS: usize = 30;
/// Rounds of a test that needs a process for each.
const PROCESSES: usize = 10;
/// Tells a test that it runs in a process of its own.
const AGAIN: &str = "MITOGEN_FIRST_USE";
/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(20);

fn program() -> Program {
    let program = Program::new().function(add).function(count).function(commands);
    program.function(connects).function(fail).function(receivers).function(latches)
}

fn add(a: u64, b: u64) -> u64 {
    a + b
}

fn fail() -> io::Result<()> {
    Err(io::Error::other("on purpose"))
}

fn count(to: u32, out: Sender<u32>) -> Result<()> {
    (0..to).try_for_each(|i| out.send(i))
}

/// Runs this on sixteen threads that begin together.
fn at_once<T: Send>(each: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let (barrier, each) = (&Barrier::new(THREADS), &each);
    let begin = move |place| {
        barrier.wait();
        each(place)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|place| scope.spawn(move || begin(place))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Runs a test of this file in processes of its own, one behind the other, where [`is_again`].
#[track_caller]
fn in_fresh_processes(test: &str, shell: &str) {
    let line = format!("{shell} exec \"$0\" --exact first_use::{test} --nocapture");
    for _ in 0..PROCESSES {
        let mut sh = Command::new("sh");
        sh.args(["-c", &line]).arg(env::current_exe().unwrap()).env(AGAIN, "1");
        let output = sh.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
    }
}

fn is_again() -> bool {
    env::var_os(AGAIN).is_some()
}

fn router() -> Router {
    mitogen_test_program().router().unwrap()
}

#[test]
fn the_first_routers_of_a_process() {
    if !is_again() {
        return leaves_nothing(&[], || in_fresh_processes("the_first_routers_of_a_process", ""));
    }
    let routers = at_once(|_| {
        let router = router();
        let child = router.local().connect().unwrap();
        assert_eq!(child.call(add, (1, 2)).unwrap(), 3);
        router
    });
    assert_eq!(threads_of_brokers(), THREADS);
    at_once(|place| routers[place].shutdown());
}

fn threads_of_brokers() -> usize {
    own_threads().iter().filter(|name| *name == "mitogen-broker").count()
}

#[test]
fn the_first_sleepers_of_a_process_each_have_a_wake_up_of_their_own() {
    if !is_again() {
        let test = "the_first_sleepers_of_a_process_each_have_a_wake_up_of_their_own";
        return leaves_nothing(&[], || in_fresh_processes(test, ""));
    }
    latches();
}

/// Each thread sleeps on a latch of its own, and all on one; each is given one item of both.
fn latches() -> u64 {
    let (own, shared) = ([(); THREADS].map(|()| Latch::new()), Latch::new());
    let gave = thread::scope(|scope| {
        let give = scope.spawn(|| {
            for (item, latch) in own.iter().enumerate().rev() {
                latch.put(item).unwrap();
                shared.put(item).unwrap();
            }
        });
        let mut got = at_once(|place| {
            assert_eq!(own[place].get_timeout(LIMIT).unwrap(), place);
            shared.get_timeout(LIMIT).unwrap()
        });
        give.join().unwrap();
        got.sort();
        got
    });
    assert_eq!(gave, (0..THREADS).collect::<Vec<_>>());
    gave.len() as u64
}

#[test]
fn whoever_raises_the_limit_first_no_child_gets_it() {
    if !is_again() {
        let test = "whoever_raises_the_limit_first_no_child_gets_it";
        return leaves_nothing(&[], || in_fresh_processes(test, "ulimit -S -n 300;"));
    }
    let router = router();
    let child = router.local().connect().unwrap();
    child.shutdown().unwrap();
    let limits = at_once(|_| {
        mitogen::raise_descriptor_limit().unwrap();
        let child = router.local().connect().unwrap();
        let pid = child.call(stock::identify, ()).unwrap().pid;
        census(pid).files_max
    });
    assert_eq!(limits, ["300"; THREADS]);
}

#[test]
fn the_first_to_listen_to_the_log() {
    if !is_again() {
        let test = "the_first_to_listen_to_the_log";
        return leaves_nothing(&[], || in_fresh_processes(test, ""));
    }
    let heard = Arc::new(Mutex::new([0; THREADS]));
    at_once(|place| {
        let heard = heard.clone();
        let sink = move |_: &mitogen::Record<'_>| heard.lock().unwrap()[place] += 1;
        mitogen::log_to(Level::Io, Box::new(sink));
        log_something();
    });
    // The last sink has heard the last of it, and only one has.
    let flushed = || assert!(mitogen::flush_log(Duration::from_secs(10)));
    flushed();
    let before = *heard.lock().unwrap();
    log_something();
    flushed();
    let after = *heard.lock().unwrap();
    assert_eq!(before.iter().zip(after).filter(|(before, after)| *before != after).count(), 1);
}

/// What fails and is not awaited is logged, before what was called later has its answer.
fn log_something() {
    let inner = router().in_process().unwrap();
    inner.call_no_reply(fail, ()).unwrap();
    inner.call(add, (1, 2)).unwrap();
}

#[test]
fn the_first_connects_of_a_router_by_one_address_are_one() {
    leaves_nothing(&[], || {
        for _ in 0..ROUNDS {
            let router = router();
            let contexts = at_once(|place| match place % 4 {
                0 => router.local().connect().unwrap(),
                1 => router.start(&"local".parse().unwrap()).wait().unwrap(),
                2 => router.in_process().unwrap(),
                _ => router.connect(&"local".parse().unwrap()).unwrap(),
            });
            let answers = at_once(|place| contexts[place].call(add, (place as u64, 1)).unwrap());
            assert!(answers.into_iter().eq(1..=THREADS as u64));
            let mut ids: Vec<_> = contexts.iter().map(Context::context_id).collect();
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), THREADS / 2 + 1);
            assert_eq!(router.children().len(), THREADS / 2 + 1);
        }
    });
}

#[test]
fn the_first_receivers_calls_and_sends_of_a_router() {
    leaves_nothing(&[], || {
        for _ in 0..ROUNDS {
            let router = router();
            let (child, inner) = (router.local().connect().unwrap(), router.in_process().unwrap());
            at_once(|place| {
                let numbers = router.receiver();
                let context = if place % 2 == 0 { &child } else { &inner };
                context.call_no_reply(count, (place as u32, numbers.to_sender())).unwrap();
                assert_eq!(numbers.into_iter().flatten().count(), place);
            });
            // All send by one Sender, then by one of each.
            let numbers = router.receiver();
            let sender = numbers.to_sender();
            at_once(|place| sender.send(place as u32).unwrap());
            at_once(|place| sender.clone().send(place as u32).unwrap());
            drop(sender);
            let mut all: Vec<u32> = numbers.into_iter().map(Result::unwrap).collect();
            all.sort();
            assert_eq!(all, (0..2 * THREADS as u32).map(|i| i / 2).collect::<Vec<_>>());
            at_once(|_| router.shutdown());
        }
    });
}

#[test]
fn the_first_and_the_last_routers_of_a_broker() {
    leaves_nothing(&[], || {
        for _ in 0..ROUNDS {
            let broker = Broker::new().unwrap();
            let routers = at_once(|place| {
                let router = mitogen_test_program().broker(&broker).router().unwrap();
                let context = match place % 4 {
                    0 => router.local().connect().unwrap(),
                    _ => router.in_process().unwrap(),
                };
                assert_eq!(context.call(add, (1, 2)).unwrap(), 3);
                Mutex::new(Some((router, context)))
            });
            // It lasts until the last of them is dropped, and no longer.
            let kept = routers[0].lock().unwrap().take();
            drop(broker);
            at_once(|place| drop(routers[place].lock().unwrap().take()));
            assert_eq!(kept.as_ref().unwrap().1.call(add, (1, 2)).unwrap(), 3);
            drop(kept);
        }
    });
}

#[test]
fn the_first_callbacks_of_a_router() {
    leaves_nothing(&[], || {
        for _ in 0..ROUNDS {
            let router = router();
            let (tell, told) = mpsc::channel();
            at_once(|_| {
                let tell = tell.clone();
                let wrong = router.ssh("web").ssh_path("/no/such/ssh").start();
                wrong.then(move |outcome| tell.send(outcome.is_err()).unwrap());
            });
            for _ in 0..THREADS {
                assert_eq!(told.recv_timeout(LIMIT), Ok(true));
            }
        }
    });
}

#[test]
fn an_image_that_all_want_packed_is_packed_once() {
    let test = "an_image_that_all_want_packed_is_packed_once";
    if !is_again() {
        return leaves_nothing(&[], || {
            let folder = tempfile::tempdir().unwrap();
            let real = "PATH=${PATH#*:}; exec gzip \"$@\"";
            script(folder.path(), "gzip", &format!("echo \"$*\" >>\"$0.runs\"\n{real}"));
            script(
                folder.path(),
                "ssh",
                "for last do :; done; PATH=${PATH#*:} exec sh -c \"$last\"",
            );
            let runs = folder.path().join("gzip.runs");
            for _ in 0..PROCESSES {
                let _ = fs::remove_file(&runs);
                let mut own = Command::new(env::current_exe().unwrap());
                own.args(["--exact", &format!("first_use::{test}"), "--nocapture"]);
                let path = env::var("PATH").unwrap();
                own.env("PATH", format!("{}:{path}", folder.path().display())).env(AGAIN, "1");
                let output = own.output().unwrap();
                assert!(output.status.success(), "{}", told(&output));
                assert_eq!(fs::read_to_string(&runs).unwrap(), "-1c\n");
            }
        });
    }
    let router = Program::new().image(stock_image()).router().unwrap();
    let contexts = at_once(|place| router.ssh(format!("host-{place}")).connect().unwrap());
    at_once(|place| contexts[place].call(stock::ping, ()).unwrap());
}

#[test]
fn threads_of_a_child_that_use_what_it_has_never_used() {
    leaves_nothing(&[], || {
        for _ in 0..PROCESSES {
            let router = router();
            let [one, two, three, four] = [(); 4].map(|()| router.local().connect().unwrap());
            let pid = one.call(stock::identify, ()).unwrap().pid;
            assert_eq!(one.call(commands, ()).unwrap(), THREADS as u64);
            // Its guard.
            assert_eq!(census(pid).children.len(), 1, "{:?}", census(pid).children);
            assert_eq!(two.call(connects, ()).unwrap(), THREADS as u64 / 2 + 1);
            assert_eq!(three.call(receivers, ()).unwrap(), THREADS as u64);
            assert_eq!(four.call(latches, ()).unwrap(), THREADS as u64);
        }
    });
}

/// The first commands of a context. Returns how many ended well and said what they should.
fn commands(cx: &CallContext) -> u64 {
    let said = at_once(|place| {
        let output = cx.router().receiver();
        let argv = ["echo".to_owned(), place.to_string()].map(Into::into).to_vec();
        let ended = stock::run(stock::Command { argv }, output.to_sender());
        assert_eq!(ended, stock::Ended::Exited(0));
        let pieces = output.into_iter().map(|piece| match piece.unwrap() {
            stock::Output::Stdout(bytes) | stock::Output::Stderr(bytes) => bytes,
        });
        pieces.flatten().collect::<Vec<u8>>() == format!("{place}\n").into_bytes()
    });
    said.into_iter().filter(|well| *well).count() as u64
}

/// The first connects of a context. Returns how many contexts they led to.
fn connects(cx: &CallContext) -> u64 {
    let router = cx.router();
    let contexts = at_once(|place| match place % 2 {
        0 => router.local().connect().unwrap(),
        _ => router.connect(&"local".parse().unwrap()).unwrap(),
    });
    at_once(|place| contexts[place].call(stock::ping, ()).unwrap());
    let mut ids: Vec<_> = contexts.iter().map(Context::context_id).collect();
    ids.sort();
    ids.dedup();
    ids.len() as u64
}

/// The first receivers of a context, and calls of itself. Returns how many had all.
fn receivers(cx: &CallContext) -> Result<u64> {
    let inner = cx.router().in_process()?;
    let heard = at_once(|place| {
        let numbers = cx.router().receiver();
        inner.call_no_reply(count, (place as u32, numbers.to_sender())).unwrap();
        numbers.into_iter().flatten().count() == place
    });
    Ok(heard.into_iter().filter(|well| *well).count() as u64)
}
