//! Many routers in one process: on one broker, or each on its own. What happens to one is no
//! other's business.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mitogen::error::{Cause, ConnectFailure, Death, ErrorKind};
use mitogen::{Broker, Call, Context, Error, Program, Router, Sender, stock};

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);
/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

fn add(a: u32, b: u32) -> u32 {
    a + b
}

fn count_up(to: u32, out: Sender<u32>) -> mitogen::Result<()> {
    (0..to).try_for_each(|number| out.send(number))
}

fn name_of(context: Context) -> u32 {
    context.context_id().0
}

fn program() -> Program {
    let program = Program::new().function(add).function(count_up).function(name_of);
    program.image(stock_image())
}

#[track_caller]
fn assert_shut_down<T>(outcome: Result<T, Error>) {
    let Err(error) = outcome else { panic!("a value") };
    let ErrorKind::Closed(Death { cause, .. }) = error.kind() else { panic!("{error}") };
    assert_eq!(*cause, Cause::Shutdown, "{error}");
}

#[track_caller]
fn pid(context: &Context) -> u32 {
    context.call(stock::identify, ()).unwrap().pid
}

fn brokers() -> usize {
    own_threads().iter().filter(|name| name.contains("mitogen-broker")).count()
}

/// A router with two contexts.
struct Tree {
    router: Router,
    near: Context,
    far: Context,
}

impl Tree {
    fn on(broker: &Broker) -> Tree {
        let router = program().broker(broker).router().unwrap();
        let near = router.local().connect().unwrap();
        let far = router.local().via(&near).connect().unwrap();
        Tree { router, near, far }
    }

    fn pids(&self) -> [u32; 2] {
        [pid(&self.near), pid(&self.far)]
    }

    /// A line of shell in the far context.
    fn shell(&self, line: &str) -> Call<stock::Ended> {
        let argv = ["sh", "-c", line].map(Into::into).to_vec();
        let output = self.router.receiver::<stock::Output>();
        self.far.call_async(stock::run, (stock::Command { argv }, output.to_sender()))
    }
}

/// The child is reaped already; what was below it ends by itself.
#[track_caller]
fn assert_gone([near, far]: [u32; 2]) {
    let lives = |pid| processes().iter().any(|process| process.pid == pid);
    assert!(!lives(near), "{near} of {:?}", processes());
    let is_gone = until(SECOND, || (!lives(far)).then_some(()));
    assert!(is_gone.is_some(), "{far} of {:?}", processes());
}

/// A client of ssh that says nothing, and does not end when it is asked to.
fn silent(folder: &Path) -> String {
    script(folder, "ssh", "trap '' TERM\nsleep 987654")
}

fn sleepers() -> usize {
    processes().iter().filter(|process| process.command.starts_with("sleep 987654")).count()
}

/// Calls a context over and over, until `over`; each call is to take no more than a moment.
fn is_served(context: &Context, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        context.call(stock::ping, ()).unwrap();
        assert!(begun.elapsed() < SECOND / 2, "{:?}", begun.elapsed());
    }
}

#[test]
fn a_router_that_is_shut_down_ends_its_own_tree_alone() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let silent = silent(folder.path());
        let broker = Broker::new().unwrap();
        let [one, other] = [(); 2].map(|()| Tree::on(&broker));
        assert_eq!(brokers(), 1);
        assert_eq!(one.far.context_id(), other.far.context_id());
        let near_by = other.router.in_process().unwrap();
        let busy = other.router.receiver::<u32>();
        near_by.call_no_reply(count_up, (50_000, busy.to_sender())).unwrap();
        let kept_run = other.shell("sleep 2; exit 7");
        let (ended, kept) = (one.pids(), other.pids());
        let flying = (0..20).map(|_| one.router.ssh("web").ssh_path(&silent).start());
        let flying: Vec<_> = flying.collect();
        assert!(until(LIMIT, || (sleepers() == 10).then_some(())).is_some());
        let (run, numbers) = (one.shell("sleep 9876"), one.router.receiver::<u32>());
        let sender = numbers.to_sender();

        let (begun, over) = (Instant::now(), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| is_served(&other.far, &over));
            let waits = scope.spawn(|| assert_shut_down(numbers.get()));
            one.router.shutdown();
            assert!(begun.elapsed() < 2 * SECOND, "{:?}", begun.elapsed());
            waits.join().unwrap();
            over.store(true, Ordering::Relaxed);
        });
        assert_gone(ended);
        let left: Vec<u32> = processes().iter().map(|process| process.pid).collect();
        assert!(kept.iter().all(|pid| left.contains(pid)), "{kept:?} not in {left:?}");
        assert!(until(SECOND, || (sleepers() == 0).then_some(())).is_some());
        assert_shut_down(run.get());
        assert_shut_down(sender.send(1));
        assert_shut_down(one.router.local().connect());
        assert_shut_down(one.router.in_process());
        for one in flying {
            let error = one.wait().unwrap_err();
            let ErrorKind::Connect(failed) = error.kind() else { panic!("{error}") };
            assert_eq!(failed.failure, ConnectFailure::Cancelled);
        }

        assert_eq!(kept_run.get_timeout(LIMIT).unwrap(), stock::Ended::Exited(7));
        assert!(busy.into_iter().map(Result::unwrap).eq(0..50_000));
        other.router.local().connect().unwrap();
        assert_eq!(other.pids(), kept);
    });
}

#[test]
fn a_broker_lasts_as_long_as_its_last_router() {
    leaves_nothing(&[], || {
        let broker = Broker::new().unwrap();
        let [one, other] = [(); 2].map(|()| Tree::on(&broker));
        drop(broker);
        let pids = one.pids();
        drop(one);
        assert_gone(pids);
        assert_eq!(brokers(), 1);
        other.pids();
        // By any router of it one gets at the broker, but does not keep it.
        let kept = other.router.broker().clone();
        let third = program().broker(&kept).router().unwrap();
        drop(other);
        assert_eq!(third.in_process().unwrap().call(add, (1, 2)).unwrap(), 3);
        third.shutdown();
        assert!(kept.join_timeout(Duration::ZERO));
        assert_shut_down(program().broker(&kept).router());
    });
}

#[test]
fn a_broker_without_routers_lasts_as_long_as_its_last_clone() {
    leaves_nothing(&[], || {
        let broker = Broker::new().unwrap();
        let clone = broker.clone();
        drop(Tree::on(&broker));
        drop(broker);
        assert_nothing_is_left();
        assert_eq!(brokers(), 1);
        let program = program().broker(&clone);
        drop(clone);
        assert_eq!(brokers(), 1);
        program.router().unwrap().shutdown();
        assert_eq!(brokers(), 0);
    });
}

/// Nobody else waits for it any more.
#[allow(unsafe_code)]
fn reap(pid: u32) {
    // SAFETY: no status is wanted.
    let reaped = unsafe { libc::waitpid(pid as i32, std::ptr::null_mut(), 0) };
    assert_eq!(reaped, pid as i32);
}

#[test]
fn who_watches_a_process_keeps_no_broker() {
    leaves_nothing(&[], || {
        let broker = Broker::new().unwrap();
        let child = Command::new("sleep").arg("987654").spawn().unwrap();
        let (pid, (tell, told)) = (child.id(), mpsc::channel());
        broker.watch_process(child, move |status| tell.send(status.is_err()).unwrap());
        drop(broker);
        assert!(told.recv_timeout(LIMIT).unwrap());
        assert_eq!(brokers(), 0);
        signal(pid, "KILL");
        reap(pid);
    });
}

#[test]
fn a_broker_that_is_shut_down_ends_all_its_routers() {
    leaves_nothing(&[], || {
        let broker = Broker::new().unwrap();
        let trees = [(); 3].map(|()| Tree::on(&broker));
        let runs = trees.each_ref().map(|tree| tree.shell("sleep 9876"));
        let begun = Instant::now();
        broker.shutdown();
        broker.join();
        assert!(begun.elapsed() < 2 * SECOND, "{:?}", begun.elapsed());
        assert_nothing_is_left();
        runs.into_iter().for_each(|run| assert_shut_down(run.get()));
        for tree in &trees {
            assert_shut_down(tree.near.call(stock::ping, ()));
            assert_shut_down(tree.router.receiver::<u32>().get());
            tree.router.shutdown();
        }
        assert_shut_down(program().broker(&broker).router());
    });
}

#[test]
fn routers_of_one_broker_have_nothing_else_in_common() {
    let _company = beside_others();
    let broker = Broker::new().unwrap();
    let routers = [(); 2].map(|()| program().broker(&broker).router().unwrap());
    let [mine, theirs] = routers.each_ref().map(|router| router.in_process().unwrap());
    assert_eq!(mine.context_id(), theirs.context_id());
    assert_ne!(mine, theirs);
    let usage = |error: Error| assert!(matches!(error.kind(), ErrorKind::Usage(_)), "{error}");
    usage(mine.call(name_of, &theirs).unwrap_err());
    let numbers = routers[0].receiver::<u32>();
    usage(theirs.call(count_up, (3, numbers.to_sender())).unwrap_err());
    usage(routers[0].local().via(&theirs).connect().unwrap_err());
    // The one's contexts are not behind the other.
    let another = routers[0].in_process().unwrap();
    let unknown = routers[1].context_by_id(another.context_id());
    let error = unknown.call(add, (1, 2)).unwrap_err();
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    assert_eq!(death.cause, Cause::NoRoute);
    mine.shutdown().unwrap();
    assert!(mine.call(add, (1, 2)).is_err());
    assert_eq!(theirs.call(add, (1, 2)).unwrap(), 3);
    assert_eq!(routers.each_ref().map(|router| router.children().len()), [1, 1]);
}

#[test]
fn a_router_dropped_in_a_callback_ends_alone() {
    leaves_nothing(&[], || {
        let broker = Broker::new().unwrap();
        let other = Tree::on(&broker);
        let Tree { router, near, far } = Tree::on(&broker);
        let (tell, told) = mpsc::channel();
        let starting = router.local().start();
        drop((router, near, far));
        // What is given here is the last that holds the router.
        starting.then(move |context| {
            let begun = Instant::now();
            drop(context.unwrap());
            tell.send(begun.elapsed()).unwrap();
        });
        assert!(told.recv_timeout(LIMIT).unwrap() < SECOND);
        let pids = other.pids();
        let ours = || processes_of_ours().len() == pids.len();
        assert!(until(2 * SECOND, || ours().then_some(())).is_some(), "{:?}", processes());
    });
}

#[test]
fn fifty_routers_come_and_go_on_brokers_of_their_own() {
    leaves_nothing(&[], || {
        thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(comes_and_goes);
            }
        });
        // Those of contexts in this process end by themselves.
        assert!(until(SECOND, || (brokers() == 0).then_some(())).is_some());
        assert_nothing_is_left();
    });
}

/// A router of its own, with two contexts of which one is a process.
fn comes_and_goes() {
    let router = program().router().unwrap();
    let (near, far) = (router.in_process().unwrap(), router.local().connect().unwrap());
    let numbers = router.receiver::<u32>();
    near.call_no_reply(count_up, (1000, numbers.to_sender())).unwrap();
    pid(&far);
    assert!(numbers.into_iter().map(Result::unwrap).eq(0..1000));
    assert_eq!(near.call(add, (1, 2)).unwrap(), 3);
}

#[test]
fn hundreds_of_routers_come_and_go_on_one_broker() {
    leaves_nothing(&[], || {
        let broker = Broker::new().unwrap();
        let descriptors = own_descriptors().len();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let tree = program().broker(&broker).router().unwrap();
                        let child = tree.local().connect().unwrap();
                        pid(&child);
                    }
                });
            }
        });
        assert_nothing_is_left();
        assert_eq!(brokers(), 1);
        // But for the wake-ups of threads that wait.
        assert!(own_descriptors().len() <= descriptors + 4, "{:?}", own_descriptors());
    });
}
