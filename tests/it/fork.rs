//! Copies of this very process: what they have of it, what they must not have, and how they end.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mitogen::error::{Cause, ConnectError, ConnectFailure, Death, ErrorKind, Exit, Phase};
use mitogen::{CallContext, Context, Error, ForkPromise, Program, Result, Router, stock};

use crate::support::*;

mitogen::test_agent!(program());

fn program() -> Program {
    let program = Program::new().function(add).function(who).function(noted).function(sleep);
    let program = program.function(leave).function(descriptors).function(fork_of_yours);
    let program = program.function(keep_stdout).function(is_kept);
    program.function(threads).allow_fork(promise())
}

fn add(a: u64, b: u64) -> u64 {
    a + b
}

/// The process, its parent, and its place in the tree.
fn who(cx: &CallContext) -> (u32, u32, u32, String) {
    let router = cx.router();
    let parent = std::os::unix::process::parent_id();
    (std::process::id(), parent, router.context_id().0, router.name().to_owned())
}

/// What a copy has noted, in memory that it shares with nobody.
static NOTE: AtomicU32 = AtomicU32::new(0);

fn noted() -> u32 {
    NOTE.load(Ordering::SeqCst)
}

/// Forks the process that is called.
fn fork_of_yours(cx: &CallContext, number: u32) -> Result<(u32, u32)> {
    let note = move || NOTE.store(noted() + number, Ordering::SeqCst);
    let copy = cx.router().fork(promise()).on_fork(note).connect()?;
    Ok((copy.call(noted, ())?, copy.call(stock::identify, ())?.pid))
}

fn sleep(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

fn threads() -> Vec<String> {
    census(std::process::id()).threads
}

fn leave(status: i32) {
    std::process::exit(status);
}

/// Whether a function keeps others from printing.
static KEPT: AtomicU32 = AtomicU32::new(0);

fn keep_stdout(cx: &CallContext) -> Result<()> {
    let _kept = std::io::stdout().lock();
    KEPT.store(1, Ordering::SeqCst);
    cx.sleep(Duration::from_secs(60))
}

fn is_kept() -> bool {
    KEPT.load(Ordering::SeqCst) == 1
}

/// What is open above the standard ones.
fn descriptors() -> Vec<String> {
    let all = census(std::process::id()).descriptors.into_iter();
    let above = all.filter(|(number, what)| 2 < *number && !what.ends_with("/fd"));
    above.map(|(_, what)| what).collect()
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

fn failed(outcome: Result<Context>) -> ConnectError {
    match outcome.unwrap_err().into_kind() {
        ErrorKind::Connect(error) => error,
        kind => panic!("{}", format!("{kind:?}")),
    }
}

#[track_caller]
fn death(error: &Error) -> &Death {
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    death
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_copy_is_a_context_like_any_other() {
    leaves_nothing(&[], || {
        let router = router();
        let copy = router.fork(promise()).connect().unwrap();
        assert_eq!(copy.call(add, (1, 2)).unwrap(), 3);
        let (pid, parent, id, name) = copy.call(who, ()).unwrap();
        assert_eq!(parent, std::process::id());
        assert_eq!((id, &*name), (copy.context_id().0, "fork"));
        let all = copy.call(threads, ()).unwrap();
        assert!(all.len() == 3 && all[2].starts_with("mitogen:"), "{all:?}");
        assert_eq!(all[..2], ["mitogen-broker", "mitogen-copy"]);
        let command = processes().into_iter().find(|process| process.pid == pid).unwrap().command;
        assert!(command.starts_with("mitogen:"), "{command}");
        copy.shutdown().unwrap();
        let error = copy.call(add, (1, 2)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Closed(_)), "{error}");
    });
}

#[test]
fn the_hooks_see_the_memory_of_the_original_and_change_that_of_the_copy() {
    leaves_nothing(&[], || {
        let router = router();
        let table: Arc<Vec<u32>> = Arc::new((0..100_000).collect());
        let own = table.clone();
        NOTE.store(40, Ordering::SeqCst);
        let fork = router
            .fork(promise())
            .on_fork(|| NOTE.store(noted() + 1, Ordering::SeqCst))
            .on_start(move |_| NOTE.store(noted() * 2 + own[99_999], Ordering::SeqCst));
        let copies = [fork.clone(), fork].map(|fork| fork.connect().unwrap());
        for copy in copies {
            assert_eq!(copy.call(noted, ()).unwrap(), 41 * 2 + 99_999);
        }
        let released = until(SECOND, || (Arc::strong_count(&table) == 1).then_some(()));
        assert!(released.is_some(), "the hooks are dropped here, too");
        assert_eq!(noted(), 40);
    });
}

#[test]
fn on_start_may_send_and_connect_before_the_first_call() {
    leaves_nothing(&[], || {
        let router = router();
        let numbers = router.receiver::<u64>();
        let copy = router.fork(promise()).on_start(|own| {
            let child = own.local().connect().unwrap();
            let sum = child.call(add, (20, 2)).unwrap();
            NOTE.store(sum as u32, Ordering::SeqCst);
        });
        let copy = copy.connect().unwrap();
        assert_eq!(copy.call(noted, ()).unwrap(), 22);
        drop(numbers);
    });
}

#[test]
fn a_copy_has_descriptors_of_the_program_and_none_of_the_library() {
    leaves_nothing(&[], || {
        let pipes_before = descriptors().iter().filter(|one| one.starts_with("pipe:")).count();
        let [router, other, third] = [router(), router(), router()];
        let connect = |router: &Router| router.local().connect().unwrap();
        let _children = [&router, &router, &other, &third].map(connect);
        let _inside = router.in_process().unwrap();
        let file = tempfile::tempfile().unwrap();
        let copy = router.fork(promise()).connect().unwrap();
        let all = copy.call(descriptors, ()).unwrap();
        let count = |what: &str| all.iter().filter(|one| one.starts_with(what)).count();
        assert_eq!(count("socket:"), 2, "the link: {all:?}");
        // Of its own: both that it reads what is printed from, and what it came with as an error.
        let pipes = pipes_before + 3;
        assert_eq!((count("pipe:"), count("anon_inode:[pidfd]")), (pipes, 0), "{all:?}");
        assert_eq!(count("anon_inode:[eventpoll]"), 1, "{all:?}");
        assert_eq!(count("/tmp/"), 1, "the program's own: {all:?}");
        drop(file);
        // A second copy does not hold the first one's link.
        let second = router.fork(promise()).via(&copy).connect().unwrap();
        let all = second.call(descriptors, ()).unwrap();
        assert_eq!(all.iter().filter(|one| one.starts_with("socket:")).count(), 2, "{all:?}");
    });
}

#[test]
fn a_copy_keeps_nobody_from_seeing_the_end_of_a_connection() {
    leaves_nothing(&[], || {
        let router = router();
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("ended").display().to_string();
        // It leaves its group and outlives its kill, but not the end of its input.
        let text = format!("exec 3<&0\nsetsid sh -c 'cat <&3; echo >{at}' &\nexec sleep 1000");
        let tool = script(folder.path(), "ssh", &text);
        let held = router.ssh("nowhere").ssh_path(tool).connect_timeout(SECOND).start();
        std::thread::sleep(SECOND / 2);
        let _copy = router.fork(promise()).connect().unwrap();
        assert!(held.wait().is_err());
        let ended = until(5 * SECOND, || std::fs::metadata(&at).ok());
        assert!(ended.is_some(), "the copy holds our end");
    });
}

#[test]
fn a_copy_has_signals_at_their_defaults_and_a_session_of_its_own() {
    leaves_nothing(&[], || {
        let copy = router().fork(promise()).connect().unwrap();
        let pid = copy.call(who, ()).unwrap().0;
        let census = census(pid);
        assert_eq!((census.session, census.group), (pid, pid));
        // The C library keeps two for itself. HUP, PIPE and TERM do nothing; ABRT has what was
        // printed told; CONT says that the original has ended.
        let of_others = !(bit(32) | bit(33));
        assert_eq!(census.ignored & of_others, 0);
        let caught = bit(1) | bit(6) | bit(13) | bit(15) | bit(18);
        assert_eq!(census.caught & of_others, caught);
    });
}

#[test]
fn a_panic_in_on_fork_fails_the_connect() {
    leaves_nothing(&[], || {
        let fork = router().fork(promise()).on_fork(|| panic!("no lock could be broken"));
        let begun = Instant::now();
        let error = failed(fork.connect());
        assert_eq!((&error.failure, error.phase), (&ConnectFailure::Ended, Phase::Start));
        assert_eq!(error.exit, Some(Exit::Code(101)));
        assert!(error.tail.contains("no lock could be broken"), "{error}");
        // The time for a connect is 30 seconds.
        assert!(begun.elapsed() < 5 * SECOND, "{:?}", begun.elapsed());
    });
}

#[test]
fn a_copy_that_ends_in_on_fork_is_told_as_it_ended() {
    leaves_nothing(&[], || {
        let router = router();
        let error = failed(router.fork(promise()).on_fork(|| std::process::abort()).connect());
        assert_eq!((error.failure, error.exit), (ConnectFailure::Ended, Some(Exit::Signal(6))));
        let stuck = router.fork(promise()).on_fork(|| sleep(1000));
        let error = failed(stuck.connect_timeout(SECOND / 5).connect());
        assert_eq!(error.failure, ConnectFailure::Timeout);
    });
}

#[test]
fn a_panic_in_on_start_ends_the_context_and_is_told_to_who_waits() {
    leaves_nothing(&[], || {
        let copy = router().fork(promise()).on_start(|_| panic!("nothing to inherit"));
        let copy = copy.connect().unwrap();
        let error = copy.call(sleep, 1000).unwrap_err();
        let death = death(&error);
        assert_eq!((death.cause, death.exit), (Cause::Exited, Some(Exit::Code(101))), "{error}");
        assert!(death.tail.contains("nothing to inherit"), "{error}");
    });
}

#[test]
fn whoever_waits_for_a_copy_learns_how_it_ended() {
    leaves_nothing(&[], || {
        let router = router();
        let copy = router.fork(promise()).connect().unwrap();
        let pid = copy.call(who, ()).unwrap().0;
        let call = copy.call_async(sleep, 1000);
        signal(pid, "KILL");
        let error = call.get().unwrap_err();
        assert_eq!(death(&error).exit, Some(Exit::Signal(9)), "{error}");
        let copy = router.fork(promise()).connect().unwrap();
        let error = copy.call(leave, 7).unwrap_err();
        assert_eq!(death(&error).exit, Some(Exit::Code(7)), "{error}");
    });
}

#[test]
fn on_start_has_some_time_to_end_when_the_context_is_asked_to() {
    leaves_nothing(&[], || {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        let copy = router().fork(promise()).on_start(move |_| {
            std::thread::sleep(SECOND);
            std::fs::write(path, "done").unwrap();
        });
        copy.connect().unwrap().shutdown().unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "done");
    });
}

#[test]
fn what_only_this_process_could_run_goes_nowhere_else() {
    leaves_nothing(&[], || {
        let router = router();
        let child = router.local().connect().unwrap();
        let error = failed(router.fork(promise()).via(&child).on_start(|_| ()).connect());
        let ConnectFailure::BadOption(why) = &error.failure else { panic!("{error}") };
        assert!(why.contains("via"), "{error}");
        let error = failed(router.fork(promise()).wrapper(["nice"]).connect());
        assert!(matches!(error.failure, ConnectFailure::BadOption(_)), "{error}");
    });
}

#[test]
fn only_a_process_whose_program_allows_it_is_forked_for_others() {
    leaves_nothing(&[], || {
        let stock = Program::new().image(stock_image()).router().unwrap();
        let child = stock.local().connect().unwrap();
        let hop: mitogen::Address = "fork".parse().unwrap();
        let asked = [stock.fork(promise()).via(&child).connect(), stock.connect(&hop)];
        for error in asked.map(failed) {
            assert_eq!(error.failure, ConnectFailure::ForkForbidden);
            assert!(error.to_string().contains("allow_fork"), "{error}");
        }
        // Where the promise stands beside it, no program needs to allow it.
        let copy = stock.fork(promise()).connect().unwrap();
        let below = copy.call(stock::identify, ()).unwrap();
        assert_eq!(below.pid, stock.fork(promise()).via(&copy).connect().map_or(below.pid, |_| 0));
        // A copy has the images of its original.
        let own = stock.local().via(&copy).connect().unwrap();
        assert_ne!(own.call(stock::identify, ()).unwrap().pid, below.pid);
    });
}

#[test]
fn processes_are_forked_by_address_and_in_turn() {
    leaves_nothing(&[], || {
        let router = router();
        let address = "fork/fork/local/fork".parse().unwrap();
        let last = router.connect(&address).unwrap();
        assert_eq!(last.call(who, ()).unwrap().3, "fork/fork/local/fork");
        assert_eq!(last.call(add, (1, 2)).unwrap(), 3);
        let child = router.connect(&"fork/fork".parse().unwrap()).unwrap();
        NOTE.store(1, Ordering::SeqCst);
        let (note, pid) = child.call(fork_of_yours, 5).unwrap();
        assert_eq!(note, 5);
        assert_ne!(pid, child.call(who, ()).unwrap().0);
    });
}

#[test]
fn a_copy_answers_that_was_made_while_its_original_printed() {
    leaves_nothing(&[], || {
        let router = router();
        let child = router.local().threads(2).connect().unwrap();
        let printing = child.call_async(keep_stdout, ());
        assert!(until(SECOND, || child.call(is_kept, ()).unwrap().then_some(())).is_some());
        let copy = router.fork(promise()).via(&child).connect().unwrap();
        assert_eq!(copy.call_async(add, (1, 2)).get_timeout(10 * SECOND).unwrap(), 3);
        drop(printing);
    });
}

#[test]
fn a_copy_becomes_another_user() {
    leaves_nothing(&[Need::Root, Need::Sudo], || {
        let user = TestUser::create(None);
        let router = Program::new().image(stock_image()).router().unwrap();
        let copy = router.fork(promise()).connect().unwrap();
        let other = router.sudo().username(&user.name).via(&copy).connect().unwrap();
        assert_eq!(other.call(stock::identify, ()).unwrap().user, user.name);
        drop((other, copy));
        router.shutdown();
        let of_user = || processes().into_iter().any(|process| process.uid == user.uid);
        assert!(until(SECOND, || (!of_user()).then_some(())).is_some());
    });
}

const MASTER: &str = "MITOGEN_TEST_FORKING_MASTER";

/// Not a test: the original of copies, to be killed by one.
#[test]
fn master() {
    let Ok(plan) = std::env::var(MASTER) else { return };
    let router = router();
    if plan == "stuck" {
        let fork = router.fork(promise()).on_fork(|| {
            println!("\\nready");
            sleep(1000);
        });
        drop(fork.connect());
    } else {
        let copy = router.connect(&"fork/fork".parse().unwrap()).unwrap();
        println!("\nready");
        let _ = copy.call(sleep, 1000);
    }
}

#[test]
fn copies_end_with_their_original() {
    leaves_nothing(&[], || {
        for (plan, count) in [("up", 2), ("stuck", 1)] {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "fork::master", "--nocapture", "--test-threads=1"]);
            let mut master = command.env(MASTER, plan).stdout(Stdio::piped()).spawn().unwrap();
            let all = || processes_of_ours().len() == count;
            assert!(until(10 * SECOND, || all().then_some(())).is_some(), "{plan}");
            if plan == "up" {
                let mut lines = BufReader::new(master.stdout.as_mut().unwrap()).lines();
                assert!(lines.any(|line| line.unwrap() == "ready"));
            }
            master.kill().unwrap();
            master.wait().unwrap();
            assert_nothing_is_left();
        }
    });
}

#[test]
fn a_copy_ends_with_the_shutdown_of_its_router() {
    leaves_nothing(&[], || {
        let router = router();
        let copy = router.fork(promise()).connect().unwrap();
        let call = copy.call_async(sleep, 1000);
        router.shutdown();
        let error = call.get().unwrap_err();
        assert_eq!(death(&error).cause, Cause::Shutdown, "{error}");
        let error = router.fork(promise()).connect().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Closed(_)), "{error}");
    });
}

#[test]
fn the_command_forks_itself() {
    leaves_nothing(&[], || {
        let command = |args: &[&str]| {
            run(std::process::Command::new(env!("CARGO_BIN_EXE_mitogen")).args(args))
        };
        assert_eq!(command(&["run", "fork", "--", "echo", "here"]), "here\n");
        let tree = command(&["tree", "fork/fork", "fork/local", "local/fork"]);
        assert_eq!(tree.lines().filter(|line| line.contains("fork")).count(), 4, "{tree}");
    });
}
