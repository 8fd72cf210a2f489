//! A storm: a random tree of a hundred processes, in which calls fly and streams flow while
//! contexts are killed and stopped. Every call ends, with a value or a reason that names the right
//! cause.

mod fate;
mod functions;
mod traffic;
mod tree;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mitogen::error::{Cause, ErrorKind};
use mitogen::{Program, stock};

use crate::support::*;
use fate::Fates;
use functions::{End, adopt, hear, pass, relay};
use traffic::Traffic;
use tree::{Random, Tree};

mitogen::test_agent!(program());

fn program() -> Program {
    functions::add_to(Program::new())
}

const SECOND: Duration = Duration::from_secs(1);
/// Contexts of a tree, each a process.
const CONTEXTS: usize = 100;
/// Threads that call.
const CALLERS: usize = 12;
/// How long contexts are killed and stopped.
const STORM: Duration = Duration::from_secs(4);
/// More than any operation may take: no context is stopped for more than a second.
const LIMIT: Duration = Duration::from_secs(20);
/// Seeds of one run, unless one is given.
const SEEDS: u64 = 3;
/// The seed to take, in place of new ones.
const SEED: &str = "MITOGEN_STORM_SEED";

/// Runs a test with some seeds, which it says.
#[track_caller]
fn with_seeds(test: fn(u64)) {
    let given = std::env::var(SEED).ok().map(|seed| seed.parse().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    let seeds = given.map_or(now..now + SEEDS, |seed: u64| seed..seed + 1);
    for seed in seeds {
        println!("the seed: {SEED}={seed}");
        leaves_nothing(&[], || {
            test(seed);
            // Copies of this binary have names of their own.
            let gone = until(SECOND, || Tree::processes().is_empty().then_some(()));
            assert!(gone.is_some(), "left behind: {:?}", Tree::processes());
        });
    }
}

/// What the callers do, until they are told to end; and why one of them failed.
struct Callers<'a> {
    tree: &'a Tree,
    fates: &'a Fates<'a>,
    /// What each is doing, and since when.
    doing: Vec<Mutex<Option<(Instant, String)>>>,
    over: AtomicBool,
    failed: Mutex<Vec<String>>,
    done: Mutex<Vec<(&'static str, bool)>>,
}

impl<'a> Callers<'a> {
    fn new(tree: &'a Tree, fates: &'a Fates<'a>) -> Callers<'a> {
        let doing = (0..CALLERS).map(|_| Mutex::default()).collect();
        let over = AtomicBool::new(false);
        Callers { tree, fates, doing, over, failed: Mutex::default(), done: Mutex::default() }
    }

    /// What one caller does, until it is over or something goes wrong.
    fn call(&self, caller: usize, seed: u64) {
        let mut traffic = Traffic::new(self.tree, self.fates, Random(seed ^ (caller as u64) << 40));
        while !self.over.load(Ordering::SeqCst) {
            let operation = traffic.choose();
            *self.doing[caller].lock().unwrap() = Some((Instant::now(), format!("{operation:?}")));
            let outcome = traffic.perform(&operation);
            *self.doing[caller].lock().unwrap() = None;
            match outcome {
                Ok(whole) => self.done.lock().unwrap().push((operation.name(), whole)),
                Err(why) => {
                    self.failed.lock().unwrap().push(format!("{operation:?}: {why}"));
                    self.over.store(true, Ordering::SeqCst);
                }
            }
        }
    }

    /// Waits until every caller has ended. If one hangs, says what it does, and ends its wait.
    fn join(&self) {
        self.over.store(true, Ordering::SeqCst);
        loop {
            let busy: Vec<_> =
                self.doing.iter().filter_map(|d| d.lock().unwrap().clone()).collect();
            if busy.is_empty() {
                return;
            }
            let hung = busy.iter().filter(|(since, _)| LIMIT < since.elapsed());
            let hung: Vec<String> = hung.map(|(_, what)| format!("hung: {what}")).collect();
            if !hung.is_empty() {
                self.failed.lock().unwrap().extend(hung);
                return self.tree.router.shutdown();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Fails if a caller did; else says what they did.
    #[track_caller]
    fn assert_well(&self) {
        let failed = self.failed.lock().unwrap();
        assert!(failed.is_empty(), "{}\n{}", failed.join("\n"), self.fates.told());
        let done = self.done.lock().unwrap();
        let mut names: Vec<&str> = done.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let count = |well| done.iter().filter(|one| **one == (name, well)).count();
            println!("  {name}: {} ended well, {} with a death", count(true), count(false));
        }
    }
}

#[test]
fn in_a_storm_of_kills_and_stops_every_call_ends_and_names_the_right_cause() {
    with_seeds(|seed| {
        let tree = Tree::grow(seed, CONTEXTS);
        let fates = Fates::new(&tree, seed);
        let callers = Callers::new(&tree, &fates);
        std::thread::scope(|scope| {
            for caller in 0..CALLERS {
                let callers = &callers;
                scope.spawn(move || callers.call(caller, seed));
            }
            let end = Instant::now() + STORM;
            while Instant::now() < end && !callers.over.load(Ordering::SeqCst) {
                fates.strike();
            }
            fates.calm();
            callers.join();
        });
        callers.assert_well();
        println!("  {}", fates.told());
        assert_those_left_answer(&tree, &fates);
        let begun = Instant::now();
        tree.router.shutdown();
        assert!(begun.elapsed() < 3 * SECOND, "{:?}", begun.elapsed());
    });
}

/// Fails unless each context answers that has neither been killed nor lives below such a one, and
/// the end of each other is known.
#[track_caller]
fn assert_those_left_answer(tree: &Tree, fates: &Fates<'_>) {
    for (at, node) in tree.nodes.iter().enumerate() {
        let answer = node.context.call_async(stock::ping, ()).get_timeout(LIMIT);
        match answer {
            Ok(()) => assert!(!fates.is_doomed(at), "{at} lives"),
            Err(error) => fates.explain(&End::of(&error), &[at]).unwrap(),
        }
    }
    let lives = |at: &usize| !fates.is_doomed(*at);
    let children = (0..tree.nodes.len()).filter(|at| tree.nodes[*at].parent.is_none());
    assert_eq!(tree.router.children().len(), children.filter(lives).count());
    let doomed: Vec<u32> = (0..tree.nodes.len())
        .filter(|at| fates.is_doomed(*at))
        .map(|at| tree.nodes[at].pid)
        .collect();
    let left = || Tree::processes().into_iter().find(|process| doomed.contains(&process.pid));
    let gone = until(SECOND, || left().is_none().then_some(()));
    assert!(gone.is_some(), "left behind: {:?}", left());
}

#[test]
fn a_shutdown_amid_stopped_contexts_ends_every_call_and_leaves_nothing() {
    with_seeds(|seed| {
        let tree = Tree::grow(seed, CONTEXTS);
        let fates = Fates::new(&tree, seed);
        let callers = Callers::new(&tree, &fates);
        std::thread::scope(|scope| {
            for caller in 0..CALLERS {
                let callers = &callers;
                scope.spawn(move || callers.call(caller, seed));
            }
            std::thread::sleep(SECOND / 2);
            for _ in 0..CONTEXTS / 4 {
                fates.stop_one();
            }
            let waiting = tree.nodes.iter().map(|node| node.context.call_async(stock::ping, ()));
            let waiting: Vec<_> = waiting.collect();
            std::thread::sleep(SECOND / 10);
            fates.end();
            let begun = Instant::now();
            tree.router.shutdown();
            assert!(begun.elapsed() < 3 * SECOND, "{:?}", begun.elapsed());
            callers.join();
            let mut ended = 0;
            for error in waiting.into_iter().filter_map(|call| call.get_timeout(SECOND).err()) {
                let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
                assert_eq!(death.cause, Cause::Shutdown, "{error}");
                ended += 1;
            }
            assert!(CONTEXTS / 4 <= ended, "{ended}");
        });
        callers.assert_well();
    });
}

#[test]
fn a_stream_ends_whose_sender_was_given_to_one_that_refuses_it_by_one_that_is_killed() {
    leaves_nothing(&[], || {
        let router = mitogen_test_program().router().unwrap();
        let [giver, taker] = [(), ()].map(|()| router.local().connect().unwrap());
        let pids = [&giver, &taker].map(|c| c.call(stock::identify, ()).unwrap().pid);
        signal(pids[1], "STOP");
        let numbers = router.receiver();
        // A sibling has no authority to call it.
        let args = (&taker, 1, 1, numbers.to_sender());
        assert!(giver.call(relay, args).unwrap().is_none());
        signal(pids[0], "KILL");
        assert!(until(SECOND, || (router.children().len() == 1).then_some(())).is_some());
        signal(pids[1], "CONT");
        let error = numbers.get_timeout(5 * SECOND).map(drop).unwrap_err();
        assert_eq!(End::of(&error).context, Some(giver.context_id().0), "{error}");
        taker.call(stock::ping, ()).unwrap();
    });
}

#[test]
fn a_stream_goes_on_whose_sender_had_arrived_when_the_one_that_gave_it_is_killed() {
    leaves_nothing(&[], || {
        let router = mitogen_test_program().router().unwrap();
        let taker = router.local().connect().unwrap();
        let giver = router.local().via(&taker).connect().unwrap();
        let pid = giver.call(stock::identify, ()).unwrap().pid;
        let (ways, taken) = (router.receiver(), router.receiver());
        let adopting = taker.call_async(adopt, (ways.to_sender(), taken.to_sender()));
        let (way, numbers) = (ways.get_timeout(LIMIT).unwrap(), router.receiver());
        giver.call(pass, (&way, numbers.to_sender())).unwrap();
        taken.get_timeout(LIMIT).unwrap();
        signal(pid, "KILL");
        assert!(until(SECOND, || giver.call(stock::ping, ()).err()).is_some());
        drop(way);
        adopting.get_timeout(LIMIT).unwrap();
        let heard = hear(numbers);
        assert_eq!(heard.counts, [(taker.context_id().0, 10)], "{heard:?}");
        assert!(heard.in_order && heard.end.is_none(), "{heard:?}");
    });
}
