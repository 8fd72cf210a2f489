//! Signals: whatever a thread waits for, a handler that ran on it ends the wait, with an error that
//! says so; and a program that handles none ends at once, wherever it waits, and leaves nothing.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::time::{Duration, Instant};
use std::{env, thread};

use mitogen::blocking::{create_child, iter_read, write_all};
use mitogen::error::ErrorKind;
use mitogen::{
    Broker, CallContext, Context, Error, Handle, Handler, Latch, Message, Program, Result, Router,
    Select, Sender, stock,
};

use crate::support::*;

mitogen::test_agent!(program());

const LIMIT: Duration = Duration::from_secs(10);

fn program() -> Program {
    Program::new().function(sleep).function(tell_when_asleep).function(keep).function(lend_sender)
}

/// Sleeps until its context ends.
fn sleep() {
    thread::sleep(Duration::from_secs(100_006));
}

/// The same; the sender hears when it has begun, and is never dropped.
fn tell_when_asleep(begun: Sender<u32>) -> Result<()> {
    begun.send(1)?;
    sleep();
    Ok(())
}

/// Takes messages, and no more than one.
fn keep(cx: &CallContext) -> Result<u32> {
    let handler = Handler::new(|_, _| sleep());
    cx.router().add_handler(handler).map(|handle| handle.0)
}

fn router() -> Router {
    mitogen_test_program().router().unwrap()
}

/// A child whose thread is taken.
fn stuck(router: &Router) -> Context {
    let (child, begun) = (router.local().connect().unwrap(), router.receiver());
    child.call_no_reply(tell_when_asleep, begun.to_sender()).unwrap();
    assert_eq!(begun.get_timeout(LIMIT).unwrap(), 1);
    child
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handle(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// Has SIGUSR1 handled; a call that it interrupts is made again by the system if `restarts`.
#[allow(unsafe_code, clippy::multiple_unsafe_ops_per_block)]
fn handle_signals(restarts: bool) {
    // SAFETY: all zeros are a sigaction, which is filled before it is used; the handler adds to an
    // atomic number only.
    let set = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = if restarts { libc::SA_RESTART } else { 0 };
        libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut())
    };
    assert_eq!(set, 0);
}

#[allow(unsafe_code)]
fn own_thread() -> usize {
    // SAFETY: takes nothing.
    unsafe { libc::pthread_self() as usize }
}

/// A signal to a thread of ours that lives.
#[allow(unsafe_code)]
fn interrupt(thread: usize) {
    // SAFETY: whoever calls this keeps the thread alive.
    let sent = unsafe { libc::pthread_kill(thread as libc::pthread_t, libc::SIGUSR1) };
    assert_eq!(sent, 0);
}

/// Whether a thread is asleep in a wait for descriptors.
fn is_asleep(thread: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

#[allow(unsafe_code)]
fn own_task() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::gettid() }
}

/// Fails unless a signal to the thread that waits, once that sleeps, ends the wait at once.
#[track_caller]
fn ends_by_a_signal<T>(name: &str, wait: impl FnOnce() -> Result<T> + Send) {
    let before = HANDLED.load(Ordering::Relaxed);
    let (tell, told) = channel();
    let (end, may_end) = sync_channel::<()>(0);
    let (outcome, took) = thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            tell.send((own_thread(), own_task())).unwrap();
            let error = wait().map(drop).unwrap_err();
            let ended = Instant::now();
            drop(tell);
            // It is sent signals no more.
            let _ = may_end.recv();
            (error, ended)
        });
        let (thread, task) = told.recv().unwrap();
        let mut first = None;
        // It may be asleep for something else before.
        while told.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
            if is_asleep(task) {
                interrupt(thread);
                first.get_or_insert_with(Instant::now);
            }
            thread::sleep(Duration::from_millis(20));
            assert!(first.is_none_or(|first| first.elapsed() < LIMIT), "{name} goes on");
        }
        drop(end);
        let (error, ended) = waiting.join().unwrap();
        let first = first.unwrap_or_else(|| panic!("{name} ended by itself: {error}"));
        (error, ended.saturating_duration_since(first))
    });
    assert!(matches!(outcome.kind(), ErrorKind::Interrupted), "{name}: {outcome}");
    assert!(took < Duration::from_secs(1), "{name}: {took:?}");
    assert!(before < HANDLED.load(Ordering::Relaxed), "{name}");
}

type Wait = (&'static str, fn(&Router, &Context));

/// Every kind of wait, with what keeps it waiting.
const WAITS: &[Wait] = &[
    ("Call::get", |_, child| {
        let call = child.call_async(sleep, ());
        ends_by_a_signal("Call::get", || call.get());
    }),
    ("Call::get_timeout", |_, child| {
        let call = child.call_async(sleep, ());
        ends_by_a_signal("Call::get_timeout", || call.get_timeout(LIMIT));
    }),
    ("Context::call", |_, child| {
        ends_by_a_signal("Context::call", || child.call(stock::ping, ()));
    }),
    ("Receiver::get", |router, _| {
        let items = router.receiver::<u32>();
        let sender = items.to_sender();
        ends_by_a_signal("Receiver::get", || items.get());
        sender.send(7).unwrap();
        assert_eq!(items.get_timeout(LIMIT).unwrap(), 7);
    }),
    ("Receiver::next", |router, _| {
        let items = router.receiver::<u32>();
        let sender = items.to_sender();
        ends_by_a_signal("Receiver::next", || (&items).next().unwrap());
        sender.send(7).unwrap();
        drop(sender);
        let rest: Vec<_> = items.into_iter().map(Result::unwrap).collect();
        assert_eq!(rest, [7], "an interrupted iteration goes on");
    }),
    ("Sender::send", |router, _| fill_a_receiver(router)),
    ("Router::route", |router, _| {
        let child = router.local().connect().unwrap();
        let handle = Handle(child.call(keep, ()).unwrap());
        let message = || Message::at(handle).with_data(vec![7; 10_000]);
        ends_by_a_signal("Router::route", || {
            loop {
                child.send(message())?;
            }
            #[allow(unreachable_code)]
            Ok(())
        });
        child.call(stock::ping, ()).unwrap();
    }),
    ("Connecting::wait", |router, _| {
        let starting = router.command(["sh", "-c", "exec sleep 100006"]).start();
        ends_by_a_signal("Connecting::wait", || starting.wait());
    }),
    ("Connect::connect", |router, _| {
        let connect = router.command(["sh", "-c", "exec sleep 100006"]);
        ends_by_a_signal("Connect::connect", || connect.connect());
    }),
    ("Latch::get", |_, _| {
        let latch = Latch::new();
        ends_by_a_signal("Latch::get", || latch.get());
        latch.put(7).unwrap();
        assert_eq!(latch.get().unwrap(), 7);
        ends_by_a_signal("Latch::get_timeout", || latch.get_timeout(LIMIT));
    }),
    ("Context::shutdown", |router, _| {
        let child = stuck(router);
        ends_by_a_signal("Context::shutdown", || child.shutdown());
        let _ = router.disconnect(&child);
    }),
    ("Ending::wait", |router, _| {
        let ending = stuck(router).shutdown_async().unwrap();
        ends_by_a_signal("Ending::wait", || ending.wait());
        ending.wait().unwrap();
    }),
    ("Context::send_await", |router, _| {
        let silent = router.add_handler(Handler::new(|_, _| ())).unwrap();
        let me = router.myself();
        let question = Message::at(silent);
        ends_by_a_signal("Context::send_await", || me.send_await(question, None));
    }),
    ("RawReceiver::get", |router, _| {
        let inbox = router.raw_receiver().listen().unwrap();
        ends_by_a_signal("RawReceiver::get", || inbox.get());
        router.myself().send(Message::at(inbox.handle())).unwrap();
        inbox.get_timeout(LIMIT).unwrap();
    }),
    ("Select::next", |router, _| {
        let inbox = router.raw_receiver().listen().unwrap();
        let select: Select<'_, _> = [((), &inbox)].into_iter().collect();
        ends_by_a_signal("Select::next", || select.next().unwrap().1);
        ends_by_a_signal("Select::next_timeout", || select.next_timeout(LIMIT));
        router.myself().send(Message::at(inbox.handle())).unwrap();
        select.next_timeout(LIMIT).unwrap().unwrap().1.unwrap();
    }),
    ("Broker::run_sync", |router, _| {
        let (go, gate) = channel::<()>();
        router.broker().run(move || assert!(gate.recv().is_err())).unwrap();
        ends_by_a_signal("Broker::run_sync", || router.broker().run_sync(|| ()));
        drop(go);
        router.broker().run_sync(|| ()).unwrap();
    }),
    ("Attached::send", |_, _| {
        let broker = Broker::new().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let attached = broker.attach(ours, |_, _| ()).unwrap();
        ends_by_a_signal("Attached::send", || {
            loop {
                attached.send(&[7; 1000])?;
            }
            #[allow(unreachable_code)]
            Ok(())
        });
        drop(theirs);
    }),
    ("blocking::iter_read", |_, _| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut reads = iter_read(&[ours.as_fd()], None);
        ends_by_a_signal("blocking::iter_read", || reads.next().unwrap());
        write_all(theirs.as_fd(), b"x", None).unwrap();
        assert_eq!(reads.next().unwrap().unwrap().bytes, b"x");
    }),
    ("blocking::write_all", |_, _| {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        ends_by_a_signal("blocking::write_all", || write_all(ours.as_fd(), &[7; 1_000_000], None));
    }),
    ("blocking::Child::wait", |_, _| {
        let mut child = create_child(["sleep", "100006"]).unwrap();
        ends_by_a_signal("blocking::Child::wait", || child.wait(None));
    }),
];

/// Sends until there is no room. What was interrupted was not sent.
fn fill_a_receiver(router: &Router) {
    let child = router.local().connect().unwrap();
    let items = router.receiver::<Sender<Vec<u8>>>();
    let lend = child.call_async(lend_sender, items.to_sender());
    let out = items.get_timeout(LIMIT).unwrap();
    ends_by_a_signal("Sender::send", || {
        loop {
            out.send(vec![7; 1000])?;
        }
        #[allow(unreachable_code)]
        Ok(())
    });
    drop((out, lend));
}

/// Gives a Sender of a Receiver that nobody takes from.
fn lend_sender(cx: &CallContext, to: Sender<Sender<Vec<u8>>>) -> Result<()> {
    let items = cx.router().receiver::<Vec<u8>>();
    to.send(items.to_sender())?;
    drop(to);
    sleep();
    Ok(())
}

#[test]
fn a_wait_ends_when_a_handler_ran_on_its_thread() {
    leaves_nothing(&[], || {
        let router = router();
        let child = stuck(&router);
        for restarts in [false, true] {
            handle_signals(restarts);
            // It waits for what it does again, which takes seconds.
            let waits = WAITS.iter().filter(|(name, _)| !restarts || *name != "Ending::wait");
            waits.for_each(|(_, wait)| wait(&router, &child));
        }
    });
}

#[test]
fn a_handler_that_ran_on_another_thread_ends_no_wait() {
    leaves_nothing(&[], || {
        handle_signals(false);
        let router = router();
        let items = router.receiver::<u32>();
        let _sender = items.to_sender();
        let over = AtomicBool::new(false);
        let before = HANDLED.load(Ordering::Relaxed);
        let error = thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let error = items.get_timeout(Duration::from_millis(300)).unwrap_err();
                over.store(true, Ordering::Relaxed);
                error
            });
            let own = own_thread();
            while !over.load(Ordering::Relaxed) {
                interrupt(own);
                thread::sleep(Duration::from_millis(1));
            }
            waiting.join().unwrap()
        });
        assert!(matches!(error.kind(), ErrorKind::Timeout), "{error}");
        assert!(before < HANDLED.load(Ordering::Relaxed));
    });
}

#[test]
fn threads_of_the_library_take_no_signal_that_is_for_the_process() {
    leaves_nothing(&[], || {
        let router = router();
        let child = router.local().connect().unwrap();
        router.broker().run_sync(|| ()).unwrap();
        let blocked = |task: &std::path::Path| {
            let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
            let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"))?;
            let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
            name.starts_with("mitogen-").then_some((name, mask & (1 << (libc::SIGUSR1 - 1)) != 0))
        };
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let ours: Vec<_> = tasks.filter_map(|task| blocked(&task.path())).collect();
        assert!(2 <= ours.len() && ours.iter().all(|(_, blocked)| *blocked), "{ours:?}");
        child.call(stock::ping, ()).unwrap();
    });
}

const WAITER: &str = "MITOGEN_TEST_WAITER";

/// Not a test: a program that waits for this or that, and handles no signal.
#[test]
fn waiter() {
    let Ok(what) = env::var(WAITER) else { return };
    let router = router();
    let near = stuck(&router);
    let far = router.local().via(&router.local().connect().unwrap()).connect().unwrap();
    let argv = ["sleep", "100006"].map(Into::into).to_vec();
    let output = router.receiver();
    let run = far.call_async(stock::run, (stock::Command { argv }, output.to_sender()));
    let child = create_child(["cat"]).unwrap();
    println!("\nready");
    let ended: Result<()> = match &*what {
        "call" => run.get().map(drop),
        "receiver" => output.get().map(drop),
        "latch" => Latch::<()>::new().get(),
        "connect" => router.command(["sh", "-c", "exec sleep 100006"]).connect().map(drop),
        "shutdown" => near.shutdown().and_then(|_| near.call(sleep, ())),
        "send" => loop {
            near.call_no_reply(stock::ping, ()).unwrap();
            if near.call_async(sleep, ()).get_timeout(LIMIT).is_ok() {
                break Ok(());
            }
        },
        "read" => iter_read(&[child.as_fd()], None).next().unwrap().map(drop),
        _ => panic!("no such wait"),
    };
    panic!("{ended:?}");
}

#[test]
fn a_program_that_handles_no_signal_ends_wherever_it_waits_and_leaves_nothing() {
    leaves_nothing(&[], || {
        for what in ["call", "receiver", "latch", "connect", "shutdown", "send", "read"] {
            for name in ["INT", "TERM"] {
                let mut command = Command::new(env::current_exe().unwrap());
                command.args(["--exact", "signals::waiter", "--nocapture", "--test-threads=1"]);
                let mut waiter = command.env(WAITER, what).stdout(Stdio::piped()).spawn().unwrap();
                let mut lines = BufReader::new(waiter.stdout.take().unwrap());
                let is_ready = lines.by_ref().lines().any(|line| line.unwrap() == "ready");
                assert!(is_ready, "{what}: {:?}", waiter.wait());
                thread::sleep(Duration::from_millis(50));
                let begun = Instant::now();
                signal(waiter.id(), name);
                let status = waiter.wait().unwrap();
                assert!(begun.elapsed() < Duration::from_secs(1), "{what}: {:?}", begun.elapsed());
                let number = if name == "INT" { libc::SIGINT } else { libc::SIGTERM };
                assert_eq!(status.signal(), Some(number), "{what}: {status}");
                assert_nothing_is_left();
                let sleepers = || {
                    let mut all = processes().into_iter();
                    all.any(|one| one.command.contains("sleep 100006")).then_some(())
                };
                let gone = until(Duration::from_secs(1), || sleepers().is_none().then_some(()));
                assert!(gone.is_some(), "{what}");
            }
        }
    });
}

/// What a program does that wants to end in order: its handler notes the signal, its wait returns.
#[test]
fn a_program_that_handles_its_signal_ends_in_order() {
    leaves_nothing(&[], || {
        handle_signals(false);
        let outcome: Result<(), Error> = thread::scope(|scope| {
            let (tell, told) = channel();
            let (end, may_end) = sync_channel::<()>(0);
            let program = scope.spawn(move || {
                let router = router();
                let child = router.local().connect()?;
                tell.send((own_thread(), own_task())).unwrap();
                let result = child.call(sleep, ());
                drop((child, router));
                drop(tell);
                let _ = may_end.recv();
                result
            });
            let (thread, task) = told.recv().unwrap();
            until(LIMIT, || is_asleep(task).then_some(())).unwrap();
            thread::sleep(Duration::from_millis(50));
            interrupt(thread);
            assert!(told.recv_timeout(LIMIT).is_err());
            drop(end);
            program.join().unwrap()
        });
        assert!(matches!(outcome.unwrap_err().kind(), ErrorKind::Interrupted));
    });
}
