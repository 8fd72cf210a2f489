//! What is promised of a turn that is lent, among threads.

use std::collections::HashSet;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::ThreadId;
use std::time::Duration;

use super::loans::Place;
use super::*;
use crate::error::{Cause, Error, ErrorKind};
use crate::io::broker::Broker;
use crate::io::outbox::Outbox;
use crate::io::side::Side;
use crate::io::turn::{Key, Protocol, Tenant};
use crate::sys::pipe::socketpair;
use crate::wire::codec::Malformed;

const LIMIT: Duration = Duration::from_secs(10);

/// Answers every byte with an item in a latch, on whatever thread serves it.
struct Answer {
    latch: Arc<Latch<ThreadId>>,
    panics: Arc<AtomicBool>,
    /// Done on the broker's own thread for each.
    at_home: Option<mpsc::Sender<ThreadId>>,
}

impl Protocol for Answer {
    fn input(&mut self, turn: &mut Turn, _: Key, bytes: &[u8]) -> Result<(), Malformed> {
        assert!(!self.panics.load(Ordering::Relaxed), "on purpose");
        assert!(turn.broker.is_current());
        if let Some(tell) = self.at_home.clone() {
            let tell = move |turn: &mut Turn| {
                assert!(turn.broker.is_current());
                tell.send(std::thread::current().id()).unwrap();
            };
            turn.at_home(Box::new(tell));
        }
        bytes.iter().for_each(|_| self.latch.put(std::thread::current().id()).unwrap());
        Ok(())
    }

    fn closed(&mut self, _: &mut Turn, _: &Death) {
        self.latch.close();
    }
}

/// A loop with links, each of which answers what is written to it.
struct Scene {
    broker: Broker,
    home: ThreadId,
    panics: Arc<AtomicBool>,
}

impl Scene {
    fn new() -> Scene {
        let broker = Broker::start().unwrap();
        let home = broker.defer_sync(|_| std::thread::current().id()).unwrap();
        Scene { broker, home, panics: Arc::default() }
    }

    fn stream(&self, at_home: Option<mpsc::Sender<ThreadId>>) -> Caller {
        let (ours, theirs) = socketpair().unwrap();
        let latch = Arc::new(Latch::new());
        let panics = self.panics.clone();
        let answer = Answer { latch: latch.clone(), panics, at_home };
        let attach = move |turn: &mut Turn| {
            let side = Side::new(ours);
            let outbox = Arc::new(Outbox::new(side.clone()));
            turn.attach(Tenant(7), side, Some(outbox), Box::new(answer)).unwrap();
        };
        self.broker.defer_sync(attach).unwrap();
        Caller { broker: self.broker.clone(), end: theirs.into(), latch }
    }

    fn link(&self) -> Caller {
        self.stream(None)
    }

    /// Calls until the calling thread answers itself.
    #[track_caller]
    fn borrow(&self, caller: &mut Caller) {
        let own = std::thread::current().id();
        assert!((0..100_000).any(|_| caller.call() == own), "it was never lent");
    }

    fn place(&self) -> Place {
        self.broker.lending().lock().loans.place()
    }

    #[track_caller]
    fn becomes(&self, place: Place) {
        let end = Instant::now() + LIMIT;
        while self.place() != place {
            assert!(Instant::now() < end, "it is {:?}", self.place());
            std::thread::yield_now();
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.broker.shutdown();
        self.broker.join();
    }
}

struct Caller {
    broker: Broker,
    end: UnixStream,
    latch: Arc<Latch<ThreadId>>,
}

impl Caller {
    fn send(&mut self) {
        self.end.write_all(b"x").unwrap();
    }

    /// Has something arrive, and waits for what comes of it. Returns whose thread served it.
    #[track_caller]
    fn call(&mut self) -> ThreadId {
        self.send();
        self.broker.wait(&self.latch, Instant::now().checked_add(LIMIT)).unwrap()
    }

    fn wait(&self, time: Duration) -> Result<ThreadId> {
        self.broker.wait(&self.latch, Instant::now().checked_add(time))
    }
}

/// Has a thread borrow the turn and sleep with it, until the latch of its caller is closed.
fn sleep_with_it(scene: &Scene) -> (std::thread::JoinHandle<()>, Arc<Latch<ThreadId>>) {
    let mut caller = scene.link();
    let (latch, sleeps) = (caller.latch.clone(), Arc::new(AtomicBool::new(false)));
    let told = sleeps.clone();
    let sleeper = std::thread::spawn(move || {
        let own = std::thread::current().id();
        loop {
            caller.send();
            match caller.wait(LIMIT) {
                Ok(id) if id != own => continue,
                Ok(_) => sleeps.store(true, Ordering::SeqCst),
                Err(_) => return,
            }
            let slept = caller.broker.wait(&caller.latch, None);
            sleeps.store(false, Ordering::SeqCst);
            if slept.is_err() {
                return;
            }
        }
    });
    let end = Instant::now() + LIMIT;
    while !told.load(Ordering::SeqCst) || scene.place() != Place::Lent {
        assert!(Instant::now() < end, "it is {:?}", scene.place());
        std::thread::sleep(5 * TURN_NAP);
        if told.load(Ordering::SeqCst) && scene.place() == Place::Broker {
            // The broker was faster: once more.
            latch.put(scene.home).unwrap();
        }
    }
    (sleeper, latch)
}

#[test]
fn a_lone_caller_serves_itself_and_the_broker_has_the_turn_when_it_calls_no_more() {
    let scene = Scene::new();
    let mut caller = scene.link();
    assert_eq!(caller.call(), scene.home);
    scene.borrow(&mut caller);
    scene.becomes(Place::Broker);
    assert_eq!(caller.call(), scene.home);
}

#[test]
fn what_is_deferred_runs_at_home_whoever_has_the_turn() {
    let scene = Scene::new();
    let run = || scene.broker.defer_sync(|_| std::thread::current().id()).unwrap();
    let mut caller = scene.link();
    for _ in 0..20 {
        scene.borrow(&mut caller);
        assert_eq!(run(), scene.home);
    }
    let (sleeper, latch) = sleep_with_it(&scene);
    let begun = Instant::now();
    assert_eq!(run(), scene.home);
    assert!(begun.elapsed() < LIMIT / 10);
    latch.close();
    sleeper.join().unwrap();
}

#[test]
fn what_must_be_done_at_home_is_when_a_borrower_serves_it() {
    let scene = Scene::new();
    let (tell, told) = mpsc::channel();
    let mut caller = scene.link();
    let mut starter = scene.stream(Some(tell));
    let mut served_by = HashSet::new();
    for _ in 0..200 {
        scene.borrow(&mut caller);
        served_by.insert(starter.call());
        assert_eq!(told.recv_timeout(LIMIT), Ok(scene.home));
    }
    assert!(served_by.contains(&std::thread::current().id()), "only the broker has served it");
}

#[test]
fn timers_run_at_home_while_a_borrower_sleeps() {
    let scene = Scene::new();
    let (tell, told) = mpsc::channel();
    let mut caller = scene.link();
    let begun = Instant::now();
    let set = move |turn: &mut Turn| {
        let tell = move |_: &mut Turn| tell.send(std::thread::current().id()).unwrap();
        turn.timer(Instant::now() + 200 * TURN_NAP, Box::new(tell));
    };
    scene.broker.defer(set).unwrap();
    scene.borrow(&mut caller);
    assert_eq!(caller.wait(LIMIT / 5).unwrap_err().kind(), &ErrorKind::Timeout);
    assert_eq!(told.try_recv(), Ok(scene.home));
    assert!(LIMIT / 5 <= begun.elapsed());
}

#[test]
fn what_nobody_waits_for_is_served_soon_while_a_borrower_computes() {
    let scene = Scene::new();
    let (mut caller, mut other) = (scene.link(), scene.link());
    let mut late = Vec::new();
    for _ in 0..20 {
        scene.borrow(&mut caller);
        let begun = Instant::now();
        other.send();
        while other.latch.is_empty() {
            assert!(begun.elapsed() < LIMIT, "nobody serves it");
            std::thread::yield_now();
        }
        late.push(begun.elapsed());
        assert_eq!(other.latch.get().unwrap(), scene.home);
    }
    late.sort_unstable();
    // On a busy machine others run first, but not always.
    assert!(late[late.len() / 4] < 10 * TURN_NAP, "{late:?}");
}

#[test]
fn a_borrower_serves_what_others_wait_for() {
    let scene = Scene::new();
    let (sleeper, latch) = sleep_with_it(&scene);
    let mut caller = scene.link();
    for _ in 0..1000 {
        caller.call();
    }
    latch.close();
    sleeper.join().unwrap();
}

#[test]
fn a_wait_that_times_out_leaves_the_turn_in_good_hands() {
    let scene = Scene::new();
    let (mut caller, mut other) = (scene.link(), scene.link());
    for pause in [0, 1, 5] {
        scene.borrow(&mut caller);
        let error = caller.wait(pause * TURN_NAP).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Timeout);
        other.send();
        assert_eq!(other.latch.get_timeout(LIMIT).unwrap(), scene.home);
    }
}

#[test]
fn a_panic_on_a_borrowers_thread_ends_the_broker_and_not_the_borrower() {
    let scene = Scene::new();
    let mut caller = scene.link();
    scene.borrow(&mut caller);
    scene.panics.store(true, Ordering::Relaxed);
    caller.send();
    let error = caller.wait(LIMIT).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Closed(_)), "{error}");
    scene.broker.join();
    let failure = scene.broker.failure().unwrap();
    assert_eq!((failure.cause, &*failure.tail), BROKER_PANICKED);
    assert!(!turns_one());
}

const BROKER_PANICKED: (Cause, &str) = (Cause::BrokerFailed, "the broker panicked: on purpose");

#[test]
fn the_loop_ends_while_it_is_lent() {
    for _ in 0..50 {
        let scene = Scene::new();
        let (sleeper, _latch) = sleep_with_it(&scene);
        drop(scene);
        sleeper.join().unwrap();
    }
}

#[test]
fn a_borrower_that_serves_must_not_wait_for_the_loop() {
    let scene = Scene::new();
    let mut caller = scene.link();
    let (refused, refusals) = mpsc::channel();
    struct Refused(mpsc::Sender<(ThreadId, Error)>, Arc<Latch<ThreadId>>);
    impl Protocol for Refused {
        fn input(&mut self, turn: &mut Turn, _: Key, _: &[u8]) -> Result<(), Malformed> {
            let own = std::thread::current().id();
            let refused = turn.broker.clone().defer_sync(|_| ()).unwrap_err();
            turn.broker.clone().join();
            self.0.send((own, refused)).unwrap();
            self.1.put(own).unwrap();
            Ok(())
        }

        fn closed(&mut self, _: &mut Turn, _: &Death) {}
    }
    let (ours, theirs) = socketpair().unwrap();
    let latch = Arc::new(Latch::new());
    let protocol = Box::new(Refused(refused, latch.clone()));
    let attach = move |turn: &mut Turn| {
        turn.attach(Tenant(7), Side::new(ours), None, protocol).map(drop).unwrap();
    };
    scene.broker.defer_sync(attach).unwrap();
    let mut other = Caller { broker: scene.broker.clone(), end: theirs.into(), latch };
    let own = std::thread::current().id();
    let is_own = (0..1000).any(|_| {
        scene.borrow(&mut caller);
        other.call() == own
    });
    assert!(is_own && refusals.try_iter().all(|(_, e)| matches!(e.kind(), ErrorKind::Usage(_))));
}

/// Threads that call with all kinds of deadlines while others only send, and one defers.
#[test]
fn nothing_is_lost_and_nobody_hangs_in_a_crowd_that_comes_and_goes() {
    let scene = Scene::new();
    let end = Instant::now() + Duration::from_secs(3);
    let mut streamed = scene.link();
    std::thread::scope(|scope| {
        for seed in 1..=3u64 {
            let mut caller = scene.link();
            scope.spawn(move || {
                let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let mut owed = 0;
                while Instant::now() < end {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed);
                    let kind = random >> 60;
                    caller.send();
                    owed += 1;
                    let time = if kind < 2 { kind as u32 * TURN_NAP / 10 } else { LIMIT };
                    match caller.wait(time) {
                        Ok(_) => owed -= 1,
                        Err(error) => assert!(is_timeout(&error) && kind < 2, "{error}"),
                    }
                    if kind == 3 {
                        std::thread::sleep(2 * TURN_NAP);
                    }
                    // Alone for a while.
                    if kind == 4 && seed == 1 {
                        for _ in 0..50 {
                            caller.call();
                        }
                    }
                }
                for _ in 0..owed {
                    caller.wait(LIMIT).unwrap();
                }
                assert!(caller.latch.is_empty());
            });
        }
        let broker = &scene.broker;
        scope.spawn(move || {
            let mut sent = 0;
            while Instant::now() < end {
                streamed.send();
                sent += 1;
                std::thread::sleep(TURN_NAP / 4);
            }
            for _ in 0..sent {
                streamed.latch.get_timeout(LIMIT).unwrap();
            }
            assert!(streamed.latch.is_empty());
        });
        scope.spawn(move || {
            while Instant::now() < end {
                broker.defer_sync(|_| ()).unwrap();
                std::thread::sleep(3 * TURN_NAP);
            }
        });
    });
}

fn is_timeout(error: &Error) -> bool {
    *error.kind() == ErrorKind::Timeout
}
