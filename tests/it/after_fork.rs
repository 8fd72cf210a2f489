//! Copies of a process whose other threads are in the middle of something, and what becomes there
//! of what was made before.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mitogen::error::ErrorKind;
use mitogen::{Context, Error, ForkPromise, Program, Receiver, Router};

use crate::support::*;

mitogen::test_agent!(program());

fn program() -> Program {
    Program::new().function(add).function(noted).function(sleep)
}

fn add(a: u64, b: u64) -> u64 {
    a + b
}

/// What a copy has noted, in memory that it shares with nobody.
static NOTE: AtomicU32 = AtomicU32::new(0);

fn noted() -> u32 {
    NOTE.load(Ordering::SeqCst)
}

fn sleep(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

/// What other tests leave in this process (locks, threads, descriptors) the copies never use.
#[allow(unsafe_code)]
fn promise() -> ForkPromise {
    // SAFETY: what copies run here allocates, which the system sees to, and calls the library.
    unsafe { ForkPromise::new() }
}

fn router() -> Router {
    mitogen_test_program().router().unwrap()
}

const SECOND: Duration = Duration::from_secs(1);

type Numbers = Receiver<u64>;

/// What of the original does not fail by its usage in a copy.
fn wrong(router: &Router, child: &Context, numbers: &Numbers, kept: &Numbers) -> u32 {
    let usage = |error: Option<&Error>| {
        u32::from(!error.is_some_and(|error| matches!(error.kind(), ErrorKind::Usage(_))))
    };
    let results = [
        child.call(add, (1, 2)).err(),
        child.call_no_reply(add, (1, 2)).err(),
        child.shutdown().err(),
        router.local().connect().err(),
        router.local().via(child).connect().err(),
        router.connect(&"local".parse().unwrap()).err(),
        router.in_process().err(),
        numbers.get().err(),
        numbers.try_get().err(),
        numbers.to_sender().send(1u64).err(),
        router.receiver::<u64>().get().err(),
        kept.get_timeout(SECOND).err(),
    ];
    let wrong = results.iter().map(|error| usage(error.as_ref())).sum();
    router.shutdown();
    router.broker().join();
    wrong
}

#[test]
fn what_was_made_with_the_original_fails_in_a_copy_and_hangs_nowhere() {
    leaves_nothing(&[], || {
        let (router, other) = (router(), router());
        let [child, third] = [&router, &other].map(|router| router.local().connect().unwrap());
        let [numbers, kept] = [&router, &other].map(|router| router.receiver());
        let (own, call) = (router.clone(), third.call_async(sleep, 1000));
        let (sender, connecting) = (kept.to_sender(), other.local().start());
        let fork = router.fork(promise()).on_start(move |_| {
            let mut count = wrong(&own, &child, &numbers, &kept);
            count += u32::from(call.get().is_ok());
            count += u32::from(connecting.wait().is_ok());
            drop((own, child, third, numbers, kept, sender, other));
            NOTE.store(1000 + count, Ordering::SeqCst);
        });
        let copy = fork.connect_timeout(5 * SECOND).connect().unwrap();
        assert_eq!(copy.call_async(noted, ()).get_timeout(5 * SECOND).unwrap(), 1000);
        // Here all goes on.
        assert_eq!(router.local().connect().unwrap().call(add, (1, 2)).unwrap(), 3);
    });
}

#[allow(unsafe_code)]
unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(pid: i32, status: *mut i32, flags: i32) -> i32;
    fn _exit(status: i32) -> !;
}

#[test]
#[allow(unsafe_code)]
fn a_router_says_so_after_a_fork_of_the_programs_own() {
    leaves_nothing(&[], || {
        let router = router();
        let child = router.local().connect().unwrap();
        let numbers = router.receiver();
        let kept = router.receiver();
        // SAFETY: the copy does as a copy of the library's does, and ends by _exit.
        let pid = unsafe { fork() };
        if pid == 0 {
            let wrong = wrong(&router, &child, &numbers, &kept);
            let own = mitogen_test_program().router().unwrap();
            let works = own.local().connect().unwrap().call(add, (1, 2)).unwrap() == 3;
            own.shutdown();
            // SAFETY: takes a number.
            unsafe { _exit(if works { wrong as i32 } else { 100 }) };
        }
        let mut status = 0;
        // SAFETY: the status is ours to write.
        assert_eq!(unsafe { waitpid(pid, &mut status, 0) }, pid);
        assert_eq!(status, 0, "exit status in the second byte");
        assert_eq!(child.call(add, (1, 2)).unwrap(), 3);
    });
}

/// Tells others to end when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does what takes locks of the system and of the library, until told to end.
fn hammer(at: usize, router: &Router, child: &Context, ends: &AtomicBool) {
    let mut kept: Vec<Vec<u8>> = vec![Vec::new(); 64];
    for i in (0..).take_while(|_| !ends.load(Ordering::Relaxed)) {
        std::thread::sleep(Duration::from_micros(100));
        match at {
            0 => kept[i % 64] = vec![1; (i * 7919) % 100_000 + 1],
            1 => assert_eq!(child.call(add, (1, 2)).unwrap(), 3),
            2 => router.local().connect().unwrap().shutdown().unwrap(),
            3 => router.in_process().unwrap().shutdown().unwrap(),
            _ => drop(router.receiver::<u64>().get_timeout(Duration::from_micros(50))),
        }
    }
}

#[test]
fn copies_come_up_whatever_other_threads_do() {
    leaves_nothing(&[], || {
        let routers = [router(), router(), router()];
        let children = routers.each_ref().map(|router| router.local().connect().unwrap());
        let ends = AtomicBool::new(false);
        let heard = AtomicU32::new(0);
        let heard: &'static AtomicU32 = Box::leak(Box::new(heard));
        let sink = move |record: &mitogen::Record<'_>| {
            let bytes = record.to_string().len() as u32;
            let before = heard.fetch_add(bytes, Ordering::Relaxed);
            // So that many forks find it with another thread; not always, as then whoever waits for
            // it on a busy machine always finds it taken.
            if before % 1024 < bytes {
                std::thread::sleep(Duration::from_micros(50));
            }
        };
        mitogen::log_to(mitogen::Level::Io, Box::new(sink));
        std::thread::scope(|scope| {
            // By a panic, too: else the scope would wait for them for ever.
            let _end = End(&ends);
            for at in 0..5 {
                let (router, child) = (&routers[at % 3], &children[at % 3]);
                let ends = &ends;
                scope.spawn(move || hammer(at, router, child, ends));
            }
            for i in 0..150 {
                let begun = Instant::now();
                let fork = routers[i % 3].fork(promise()).on_start(|own| {
                    own.in_process().unwrap().shutdown().unwrap();
                });
                let copy = fork.connect().unwrap();
                assert_eq!(copy.call(add, (i as u64, 2)).unwrap(), i as u64 + 2);
                copy.shutdown().unwrap();
                assert!(begun.elapsed() < 10 * SECOND, "{:?}", begun.elapsed());
            }
        });
        assert!(mitogen::flush_log(10 * SECOND));
        assert!(0 < heard.load(Ordering::Relaxed));
        mitogen::log_to(mitogen::Level::Error, Box::new(|_| ()));
    });
}
