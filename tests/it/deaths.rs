//! Whatever dies: within a second nothing is left of it and of what hung on it, and whoever waited
//! for it knows why.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mitogen::error::{Cause, ConnectFailure, Death, ErrorKind, Exit};
use mitogen::{Address, Call, Context, Error, Program, Receiver, Result, Router, stock};

use crate::support::*;

mitogen::test_agent!(program());

fn program() -> Program {
    Program::new().function(print_and_add).function(sleep)
}

/// Prints by all the ways that there are before it answers.
fn print_and_add(a: u64, b: u64) -> u64 {
    println!("\nMGN1-0000000000000000 1");
    std::io::stdout().write_all(&[0xff; 5000]).unwrap();
    std::io::stdout().flush().unwrap();
    assert!(Command::new("echo").arg("from a child").status().unwrap().success());
    a + b
}

fn sleep(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

const SECOND: Duration = Duration::from_secs(1);
/// Where a test of a whole tree needs ssh and sudo.
const HOSTS: &[Need] = &[Need::Root, Need::Sshd, Need::Sudo];

fn router() -> Router {
    Program::new().image(stock_image()).router().unwrap()
}

/// The contexts on the way to a tree's last, the nearest first. Bars stand between the hops.
fn connect_all(router: &Router, tree: &str) -> Vec<Context> {
    let hops: Vec<&str> = tree.split('|').collect();
    let addresses = (1..=hops.len()).map(|count| hops[..count].join("/"));
    addresses.map(|address| router.connect(&address.parse().unwrap()).unwrap()).collect()
}

fn pid(context: &Context) -> u32 {
    context.call(stock::identify, ()).unwrap().pid
}

/// A shell that waits for its own child, which sleeps for a time that nobody else sleeps for.
fn sleeper(seconds: u32) -> stock::Command {
    let line = format!("sleep {seconds}; true");
    stock::Command { argv: ["sh", "-c", &line].map(Into::into).to_vec() }
}

/// The shells and the sleepers of these seconds.
fn sleepers(seconds: u32) -> Vec<Process> {
    let (shell, sleep) = (format!("sh -c sleep {seconds}; true"), format!("sleep {seconds}"));
    let all = processes().into_iter();
    all.filter(|process| [&shell, &sleep].contains(&&process.command.trim().to_owned())).collect()
}

#[track_caller]
fn await_sleepers(seconds: u32, count: usize) {
    let came = until(10 * SECOND, || (sleepers(seconds).len() == count).then_some(()));
    assert!(came.is_some(), "{:?}", sleepers(seconds));
}

/// Fails unless, within a second, nothing of these users but of `kept` sleeps, and no agent lives.
#[track_caller]
fn assert_sleepers_end(seconds: u32, kept: usize) {
    let gone = until(SECOND, || (sleepers(seconds).len() <= kept).then_some(()));
    assert!(gone.is_some(), "{kept} of {:?}", sleepers(seconds));
}

#[track_caller]
fn death(error: &Error) -> &Death {
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    death
}

/// Runs a test on two trees: local ones, and one of ssh, sudo and local. Nothing of its user's is
/// left afterwards, even while the server still runs.
#[track_caller]
fn on_each_tree(test: impl Fn(&str) + Send + Sync) {
    leaves_nothing(&[], || test("local|local|local"));
    leaves_nothing(HOSTS, || {
        let (sshd, user) = (Sshd::start(), TestUser::create(None));
        let _rules = Sudoers::install(&format!("{} ALL=(root) NOPASSWD: ALL", user.name));
        test(&format!("{}|sudo|local", sshd.address(&user)));
        assert_nothing_is_left();
        let of_user = || processes().into_iter().find(|process| process.uid == user.uid);
        let is_clean = until(SECOND, || of_user().is_none().then_some(()));
        assert!(is_clean.is_some(), "left behind: {:?}", of_user());
    });
}

const MASTER: &str = "MITOGEN_TEST_MASTER";

/// Not a test: the master of a tree, to be killed by one.
#[test]
fn master() {
    let Ok(plan) = std::env::var(MASTER) else { return };
    let (seconds, tree) = plan.split_once(' ').unwrap();
    let router = router();
    let contexts = connect_all(&router, tree);
    let output = router.receiver();
    let run = |c: &Context| {
        let command = sleeper(seconds.parse().unwrap());
        c.call_async(stock::run, (command, output.to_sender()))
    };
    let calls: Vec<_> = contexts.iter().map(run).collect();
    println!("\nready");
    for call in calls {
        call.get().unwrap();
    }
}

fn spawn_master(tree: &str, seconds: u32) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "deaths::master", "--nocapture", "--test-threads=1"]);
    command.env(MASTER, format!("{seconds} {tree}")).stdout(Stdio::piped());
    command.spawn().unwrap()
}

/// A master whose contexts are connected.
fn start_master(tree: &str, seconds: u32) -> Child {
    let mut master = spawn_master(tree, seconds);
    let mut lines = BufReader::new(master.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "ready"), "{:?}", master.wait());
    master
}

#[test]
fn a_killed_master_takes_everything_along() {
    on_each_tree(|tree| {
        let mut master = start_master(tree, 100_001);
        await_sleepers(100_001, 6);
        master.kill().unwrap();
        master.wait().unwrap();
        assert_sleepers_end(100_001, 0);
        assert_nothing_is_left();
    });
}

#[test]
fn an_interrupted_master_takes_everything_along() {
    on_each_tree(|tree| {
        let mut master = start_master(tree, 100_002);
        await_sleepers(100_002, 6);
        signal(master.id(), "INT");
        master.wait().unwrap();
        assert_sleepers_end(100_002, 0);
        assert_nothing_is_left();
    });
}

/// What is pending in one context.
struct Waits {
    call: Call<stock::Ended>,
    output: Receiver<stock::Output>,
}

fn wait_in(router: &Router, context: &Context) -> Waits {
    let output = router.receiver();
    let call = context.call_async(stock::run, (sleeper(100_003), output.to_sender()));
    Waits { call, output }
}

impl Waits {
    /// Fails unless all of it ends in time, by the end of this context.
    #[track_caller]
    fn assert_lost(self, killed: &Context, expected: Option<Exit>, begun: Instant) {
        let left = || SECOND.saturating_sub(begun.elapsed());
        let call = self.call.get_timeout(left()).map(drop).unwrap_err();
        let output = self.output.get_timeout(left()).map(drop).unwrap_err();
        for error in [&call, &output] {
            let death = death(error);
            assert_eq!(death.cause, Cause::Exited, "{error}");
            assert_eq!(death.context, Some(killed.context_id()), "{error}");
            assert_eq!(death.exit, expected.or(death.exit), "{error}");
            assert!(death.exit.is_some(), "{error}");
        }
    }
}

#[test]
fn a_killed_context_fails_what_waits_for_it_and_for_those_below() {
    on_each_tree(|tree| {
        for killed in 0..3 {
            let router = router();
            let contexts = connect_all(&router, tree);
            let pids: Vec<u32> = contexts.iter().map(pid).collect();
            let waits: Vec<Waits> = contexts.iter().map(|c| wait_in(&router, c)).collect();
            await_sleepers(100_003, 6);
            let (begun, is_local) = (Instant::now(), tree.starts_with("local") || killed == 2);
            signal(pids[killed], "KILL");
            let exit = is_local.then_some(Exit::Signal(9));
            let mut waits = waits.into_iter();
            let alive: Vec<Waits> = waits.by_ref().take(killed).collect();
            for wait in waits {
                wait.assert_lost(&contexts[killed], exit, begun);
            }
            for context in &contexts[killed..] {
                let error = context.call(stock::ping, ()).unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::Closed(_)), "{error}");
            }
            assert_sleepers_end(100_003, 2 * killed);
            for wait in alive {
                assert!(wait.output.try_get().unwrap().is_none());
                let error = wait.call.get_timeout(Duration::ZERO).unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::Timeout), "{error}");
            }
            router.shutdown();
            assert_sleepers_end(100_003, 0);
            assert_nothing_is_left();
        }
    });
}

#[track_caller]
fn assert_ends_within(limit: Duration, end: impl FnOnce()) {
    let begun = Instant::now();
    end();
    assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
}

#[test]
fn a_killed_tool_is_the_end_of_its_context() {
    leaves_nothing(HOSTS, || {
        let (sshd, user) = (Sshd::start(), TestUser::create(None));
        let _rules = Sudoers::install(&format!("{} ALL=(root) NOPASSWD: ALL", user.name));
        let tree = format!("{}|sudo|local", sshd.address(&user));
        for (killed, tool) in [(0, "ssh "), (1, "sudo ")] {
            let router = router();
            let contexts = connect_all(&router, &tree);
            let waits: Vec<Waits> = contexts.iter().map(|c| wait_in(&router, c)).collect();
            await_sleepers(100_003, 6);
            let of_ours = processes_of_ours().into_iter();
            let mut tools = of_ours.filter(|process| process.command.starts_with(tool));
            let begun = Instant::now();
            signal(tools.next().unwrap().pid, "KILL");
            for wait in waits.into_iter().skip(killed) {
                wait.assert_lost(&contexts[killed], Some(Exit::Signal(9)), begun);
            }
            assert_sleepers_end(100_003, 2 * killed);
            router.shutdown();
            assert_nothing_is_left();
        }
    });
}

#[test]
fn a_master_that_is_killed_while_it_connects_leaves_nothing() {
    on_each_tree(|tree| {
        // Early and late, wherever it happens to be then.
        for delay_ms in (0..500).step_by(25) {
            let mut master = spawn_master(tree, 100_004);
            std::thread::sleep(Duration::from_millis(delay_ms));
            master.kill().unwrap();
            master.wait().unwrap();
            assert_nothing_is_left();
            assert_sleepers_end(100_004, 0);
        }
    });
}

#[test]
fn a_stopped_context_does_not_hold_a_shutdown_up() {
    on_each_tree(|tree| {
        for stopped in 0..3 {
            let router = router();
            let contexts = connect_all(&router, tree);
            signal(pid(&contexts[stopped]), "STOP");
            let call = contexts[2].call_async(stock::ping, ());
            assert_ends_within(3 * SECOND, || router.shutdown());
            let error = call.get().unwrap_err();
            assert_eq!(death(&error).cause, Cause::Shutdown, "{error}");
            if tree.starts_with("ssh") {
                // Behind ssh or sudo nobody has the right to kill it; nor sudo, which stops itself
                // when what it runs is stopped.
                until(SECOND, || {
                    let left = processes_of_ours();
                    left.iter().for_each(|process| signal(process.pid, "CONT"));
                    left.is_empty().then_some(())
                });
            }
            assert_nothing_is_left();
        }
    });
}

#[test]
fn a_busy_context_does_not_hold_a_shutdown_up() {
    on_each_tree(|tree| {
        let router = router();
        let contexts = connect_all(&router, tree);
        let waits: Vec<Waits> = contexts.iter().map(|c| wait_in(&router, c)).collect();
        await_sleepers(100_003, 6);
        assert_ends_within(3 * SECOND, || router.shutdown());
        assert_sleepers_end(100_003, 0);
        for Waits { call, output } in waits {
            let errors = [call.get().unwrap_err(), output.get().map(drop).unwrap_err()];
            assert_eq!(errors.each_ref().map(|e| death(e).cause), [Cause::Shutdown; 2]);
        }
    });
}

#[test]
fn one_busy_context_is_shut_down_in_time() {
    leaves_nothing(&[], || {
        let router = mitogen_test_program().router().unwrap();
        let child = router.local().connect().unwrap();
        let grandchild = router.local().via(&child).connect().unwrap();
        let calls = [&child, &grandchild].map(|context| context.call_async(sleep, 1000));
        assert_ends_within(5 * SECOND, || child.shutdown().unwrap());
        for call in calls {
            let error = call.get_timeout(SECOND).unwrap_err();
            let death = death(&error);
            assert!(matches!(death.cause, Cause::Exited | Cause::Disconnected), "{error}");
        }
        assert_nothing_is_left();
    });
}

#[test]
fn a_busy_thread_of_our_own_does_not_hold_a_shutdown_up() {
    leaves_nothing(&[], || {
        let router = mitogen_test_program().router().unwrap();
        let child = router.local().connect().unwrap();
        let calls = [1000; 10].map(|seconds| child.call_async(sleep, seconds));
        assert_ends_within(3 * SECOND, || router.shutdown());
        for call in calls {
            assert_eq!(death(&call.get().unwrap_err()).cause, Cause::Shutdown);
        }
    });
}

#[test]
fn a_panic_in_the_program_tears_everything_down() {
    on_each_tree(|tree| {
        let program = Program::new().image(stock_image());
        let ended = catch_unwind(AssertUnwindSafe(|| {
            program.run(|router| -> Result<()> {
                let contexts = connect_all(router, tree);
                contexts[2].call(stock::ping, ())?;
                std::panic::resume_unwind(Box::new("on purpose"));
            })
        }));
        assert_eq!(ended.unwrap_err().downcast_ref(), Some(&"on purpose"));
        assert_nothing_is_left();
    });
}

#[test]
fn an_error_of_the_program_tears_everything_down() {
    on_each_tree(|tree| {
        let run = Program::new().image(stock_image()).run(|router| {
            connect_all(router, tree);
            Err::<(), Error>(router.connect(&"ssh:-".parse()?).unwrap_err())
        });
        run.unwrap_err();
        assert_nothing_is_left();
    });
}

#[test]
fn a_dropped_router_tears_everything_down() {
    on_each_tree(|tree| {
        let router = router();
        let mut contexts = connect_all(&router, tree);
        drop(router);
        let last = contexts.pop().unwrap();
        drop(contexts);
        last.call(stock::ping, ()).unwrap();
        drop(last);
        assert_nothing_is_left();
    });
}

#[test]
fn use_after_the_shutdown_is_told() {
    leaves_nothing(&[], || {
        let router = router();
        let child = router.local().connect().unwrap();
        let (receiver, other) = (router.receiver::<stock::Output>(), router.receiver::<u32>());
        let sender = other.to_sender();
        router.shutdown();
        router.shutdown();

        let address: Address = "local/local".parse().unwrap();
        let errors = [
            router.local().connect().map(drop),
            router.local().via(&child).connect().map(drop),
            router.local().start().wait().map(drop),
            router.connect(&address).map(drop),
            router.in_process().map(drop),
            child.call(stock::ping, ()),
            child.call_async(stock::ping, ()).get(),
            child.call_no_reply(stock::ping, ()),
            receiver.get().map(drop),
            other.get().map(drop),
            router.receiver::<u32>().get().map(drop),
            router.receiver::<u32>().to_sender().send(1),
            sender.send(1),
            child.shutdown(),
        ];
        for (place, error) in errors.into_iter().enumerate() {
            let error = error.expect_err(&format!("number {place}"));
            let ErrorKind::Closed(death) = error.kind() else { panic!("number {place}: {error}") };
            assert_eq!(death.cause, Cause::Shutdown, "number {place}: {error}");
        }
        assert_eq!(router.children(), []);
        assert_nothing_is_left();
    });
}

#[test]
fn connects_in_flight_end_with_the_router() {
    leaves_nothing(&[Need::Sshd], || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for waits in [true, false] {
            let router = router();
            let child = router.local().connect().unwrap();
            let silent = || router.ssh("127.0.0.1").port(port).ssh_args(["-F", "none"]);
            let local = [(); 10].map(|()| router.local().start());
            let silent = [silent().start(), silent().via(&child).start()];
            let _clients = [listener.accept().unwrap(), listener.accept().unwrap()];
            if !waits {
                drop((child, local, silent));
                assert_ends_within(3 * SECOND, || drop(router));
                continue;
            }
            assert_ends_within(3 * SECOND, || router.shutdown());
            for connecting in silent {
                let error = connecting.wait().unwrap_err();
                match error.kind() {
                    ErrorKind::Connect(e) => match &e.failure {
                        ConnectFailure::Cancelled => (),
                        ConnectFailure::ViaGone(death) => assert_eq!(death.cause, Cause::Shutdown),
                        _ => panic!("{error}"),
                    },
                    _ => panic!("{error}"),
                }
            }
            for connecting in local {
                // Some may have come up before.
                if let Ok(context) = connecting.wait() {
                    assert_eq!(
                        death(&context.call(stock::ping, ()).unwrap_err()).cause,
                        Cause::Shutdown
                    );
                }
            }
        }
    });
}

#[test]
fn two_hundred_children_come_and_go() {
    leaves_nothing(&[], || {
        let router = router();
        let starting: Vec<_> = (0..200).map(|_| router.local().start()).collect();
        let children: Vec<Context> = starting.into_iter().map(|c| c.wait().unwrap()).collect();
        let calls: Vec<_> = children.iter().map(|c| c.call_async(stock::identify, ())).collect();
        let mut pids: Vec<u32> = calls.into_iter().map(|call| call.get().unwrap().pid).collect();
        pids.sort();
        pids.dedup();
        assert_eq!(pids.len(), 200);
        assert_eq!(router.children().len(), 200);
        // One by one, then all at once.
        for child in &children[..10] {
            child.shutdown().unwrap();
        }
        assert_eq!(router.children().len(), 190);
        assert_ends_within(5 * SECOND, || router.shutdown());
    });
}

#[test]
fn what_a_function_prints_is_no_part_of_the_stream() {
    leaves_nothing(&[], || {
        let router = mitogen_test_program().router().unwrap();
        let child = router.local().connect().unwrap();
        let grandchild = router.local().via(&child).connect().unwrap();
        for context in [&child, &grandchild] {
            let calls: Vec<_> =
                (0..50).map(|i| context.call_async(print_and_add, (i, 1_u64))).collect();
            for (i, call) in calls.into_iter().enumerate() {
                assert_eq!(call.get().unwrap(), i as u64 + 1);
            }
        }
    });
}
