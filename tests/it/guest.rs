//! An agent is a good guest: it has what it needs and no more, is where its login is, and hands
//! none of its own ways to what it starts.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{self, Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use mitogen::{CallContext, Context, Program, Router, stock};

use crate::support::*;

mitogen::test_agent!(program());

fn program() -> Program {
    let program = Program::new().function(run_by_std).function(leave_behind);
    program.function(own_child).function(wait_through_signals)
}

/// What a shell prints that a function has started as functions do.
fn run_by_std(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Leaves a process in the background, which nobody but the system can wait for.
fn leave_behind(line: &str) {
    let line = format!("({line}) </dev/null >/dev/null 2>&1 &");
    assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
}

/// How a child of the function's own ended that nobody waited for at once.
fn own_child() -> Option<i32> {
    let mut child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
    thread::sleep(Duration::from_millis(300));
    child.wait().unwrap().code()
}

/// How a wait of 500 ms ends that signals come into.
fn wait_through_signals(cx: &CallContext) -> String {
    let line = format!("sleep 0.1; for s in TERM HUP PIPE; do kill -$s {}; done", process::id());
    let mut sender = Command::new("sh").args(["-c", &line]).spawn().unwrap();
    let waited = cx.router().receiver::<u32>().get_timeout(Duration::from_millis(500));
    assert!(sender.wait().unwrap().success());
    waited.unwrap_err().to_string()
}

const SECOND: Duration = Duration::from_secs(1);
const HOSTS: &[Need] = &[Need::Root, Need::Sshd, Need::Sudo];
const HUP: u32 = 1;
const PIPE: u32 = 13;
const TERM: u32 = 15;
const CONT: u32 = 18;
/// The signals that the C library keeps for itself.
const LIBRARY: u64 = bit(32) | bit(33) | bit(34);
/// As a process that gives up.
const ABRT: u32 = 6;
/// Those by which std sees that a stack has overflowed.
const FAULTS: u64 = bit(7) | bit(11);

fn router() -> Router {
    Program::new().image(stock_image()).router().unwrap()
}

fn pid(context: &Context) -> u32 {
    context.call(stock::identify, ()).unwrap().pid
}

/// What a shell prints that the library has started.
fn run_by_library(context: &Context, line: &str) -> String {
    let output = context.router().receiver();
    let argv = ["sh", "-c", line].map(Into::into).to_vec();
    let call = context.call_async(stock::run, (stock::Command { argv }, output.to_sender()));
    let mut said = Vec::new();
    for piece in output {
        match piece.unwrap() {
            stock::Output::Stdout(bytes) | stock::Output::Stderr(bytes) => said.extend(bytes),
        }
    }
    assert_eq!(call.get().unwrap(), stock::Ended::Exited(0));
    String::from_utf8(said).unwrap()
}

#[track_caller]
fn assert_stdio_blocks(pid: u32) {
    for number in 0..3 {
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        assert_eq!(flags & 0o4000, 0, "{number} does not block");
    }
}

const WAKE_UP: &str = "anon_inode:[eventfd]";

/// What is the same in every agent, but for the descriptors of its connection: two of one socket or
/// two pipes.
#[track_caller]
pub fn assert_is_modest(context: &Context, connection: [&str; 4]) -> Census {
    let pid = pid(context);
    let census = census(pid);
    let mut expected = connection.to_vec();
    // Both ends of the two for what is printed; of those two it came with one is left.
    expected.extend(["pipe", "pipe", "pipe"]);
    expected.extend(["/dev/null", "anon_inode:[eventpoll]", WAKE_UP]);
    expected.sort();
    // A stock agent keeps its image open; a copy of a test has it at hand by its name.
    let image = fs::read_link(format!("/proc/{pid}/exe")).unwrap().display().to_string();
    let (images, others): (Vec<_>, Vec<_>) = census.kinds().into_iter().partition(|k| *k == image);
    assert!(images.len() <= 1, "{census:#?}");
    let wake_ups = others.iter().filter(|kind| **kind == WAKE_UP).count();
    let mut kinds = others;
    // The loop's; and one for each of the two threads that has slept without it.
    kinds.dedup_by(|a, b| a == b && *a == WAKE_UP);
    assert!(wake_ups <= 3, "{census:#?}");
    assert_eq!(kinds, expected, "{census:#?}");
    // One more for a thread of user code that sleeps.
    assert!(census.descriptors.len() <= 12 + wake_ups.saturating_sub(2), "{census:#?}");
    assert_eq!(census.descriptor(0), "/dev/null", "{census:#?}");
    assert_ne!(census.descriptor(1), census.descriptor(2), "{census:#?}");
    assert_stdio_blocks(pid);
    // The harness of a test waits on a thread of its own.
    let threads = 2 + usize::from(!census.threads.iter().any(|name| name.starts_with("mitogen:")));
    assert_eq!(census.threads.len(), threads, "{census:#?}");
    assert!(census.threads.contains(&"mitogen-broker".to_owned()), "{census:#?}");
    assert_eq!(census.blocked, 0, "{census:#?}");
    assert_eq!(census.ignored & !LIBRARY, 0, "{census:#?}");
    let caught = bit(HUP) | bit(PIPE) | bit(TERM);
    // By this an agent that the kernel watches over hears that its parent has ended.
    let all_caught = census.caught & !bit(CONT);
    // By that one with user code tells what was printed.
    let all_caught = all_caught & !bit(ABRT);
    assert_eq!(all_caught & !LIBRARY & !FAULTS, caught, "{census:#?}");
    assert_eq!(census.group, pid, "{census:#?}");
    assert!(census.children.is_empty(), "{census:#?}");
    census
}

pub const SOCKETS: [&str; 4] = ["socket", "socket", "pipe", "pipe"];

#[test]
fn a_fresh_local_agent_has_its_own_and_no_more() {
    leaves_nothing(&[], || {
        let router = router();
        let child = router.local().connect().unwrap();
        let grandchild = router.local().via(&child).connect().unwrap();
        for context in [&grandchild, &child] {
            if context == &child {
                grandchild.shutdown().unwrap();
            }
            let census = assert_is_modest(context, SOCKETS);
            assert_ne!(census.caught & bit(CONT), 0, "{census:#?}");
            assert_eq!(census.session, census.group, "{census:#?}");
            assert_eq!(census.directory, std::env::current_dir().unwrap());
            let own = self::census(process::id());
            let theirs = [&census.umask, &census.files_max, &census.processes_max];
            assert_eq!(theirs, [&own.umask, &own.files_max, &own.processes_max]);
            let user = run_by_library(context, "env");
            assert!(!user.contains("MITOGEN_TEST_AGENT"), "{user}");
        }
    });
}

#[test]
fn a_copy_of_a_test_has_its_own_and_no_more() {
    leaves_nothing(&[], || {
        let router = mitogen_test_program().router().unwrap();
        let child = router.local().connect().unwrap();
        assert_is_modest(&child, SOCKETS);
        let environment = child.call(run_by_std, "env").unwrap();
        assert!(!environment.contains("MITOGEN_TEST_AGENT"), "{environment}");
        assert_eq!(child.call(own_child, ()).unwrap(), Some(7));
    });
}

#[test]
fn a_connection_takes_three_descriptors() {
    leaves_nothing(&[], || {
        let router = router();
        let _first = router.local().connect().unwrap();
        let before = own_descriptors().len();
        let children: Vec<_> = (0..10).map(|_| router.local().connect().unwrap()).collect();
        let each = (own_descriptors().len() - before).div_ceil(children.len());
        assert!(each <= 3, "{each}: {:?}", own_descriptors());
    });
}

/// Signals are all as they were made, whoever starts a program.
#[track_caller]
fn assert_signals_at_default(status: &str) {
    for name in ["SigBlk:", "SigIgn:"] {
        let mask = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
        assert_eq!(mask & !LIBRARY, 0, "{status}");
    }
}

#[test]
fn what_is_started_in_an_agent_ignores_and_blocks_nothing() {
    leaves_nothing(&[], || {
        let router = mitogen_test_program().router().unwrap();
        let child = router.local().connect().unwrap();
        let line = "cat /proc/self/status; ls /proc/$$/fd; readlink /proc/$$/fd/0";
        let by_std = child.call(run_by_std, line).unwrap();
        for said in [by_std, run_by_library(&child, line)] {
            assert_signals_at_default(&said);
            assert!(said.ends_with("\n0\n1\n2\n/dev/null\n"), "{said}");
        }
    });
}

#[test]
fn signals_that_do_nothing_interrupt_no_wait() {
    leaves_nothing(&[], || {
        let router = mitogen_test_program().router().unwrap();
        let child = router.local().connect().unwrap();
        let error = child.call(wait_through_signals, ()).unwrap();
        assert!(error.contains("time"), "{error}");
    });
}

const MASTER: &str = "MITOGEN_TEST_GUEST_MASTER";

/// Not a test: a master, started in odd surroundings by one.
#[test]
fn master() {
    let Ok(address) = std::env::var(MASTER) else { return };
    let router = router();
    let child = router.connect(&address.parse().unwrap()).unwrap();
    let census = assert_is_modest(&child, SOCKETS);
    assert_eq!(census.files_max, "300", "{census:#?}");
    assert_eq!(census.umask, "0027", "{census:#?}");
    assert_signals_at_default(&run_by_library(&child, "cat /proc/self/status"));
    // Standard descriptors are open now, whichever were missing.
    for number in 0..3 {
        assert!(fs::exists(format!("/proc/self/fd/{number}")).unwrap());
    }
    drop(router);
    process::exit(42);
}

/// What closes these standard descriptors, one a bit, in a shell.
fn closed(missing: u32) -> String {
    let close = |number: u32| format!("{number}<&- ");
    (0..3).filter(|number| missing & (1 << number) != 0).map(close).collect()
}

/// A master that a shell has executed after it ran these lines.
fn start_master(prepare: &str, address: &str) -> Child {
    let line = format!(
        "umask 027; ulimit -S -n 300; trap '' HUP INT TERM CHLD USR1; {prepare}\n\
         exec {} --exact guest::master --nocapture --test-threads=1",
        std::env::current_exe().unwrap().display()
    );
    Command::new("bash").args(["-c", &line]).env(MASTER, address).spawn().unwrap()
}

#[test]
fn a_master_may_start_without_standard_descriptors_and_with_others_open() {
    leaves_nothing(&[], || {
        let mut masters = Vec::new();
        for missing in 0..8 {
            let prepare = format!("exec 7</dev/null 9</etc/passwd 200<. {}", closed(missing));
            masters.push((missing, start_master(&prepare, "local/local")));
        }
        for (missing, mut master) in masters {
            assert_eq!(master.wait().unwrap().code(), Some(42), "{missing:03b}");
        }
    });
}

#[test]
fn an_agent_behind_ssh_and_one_behind_sudo_are_where_their_login_is() {
    leaves_nothing(HOSTS, || {
        let rc = "exec 7</dev/null 9</etc/passwd; umask 037; ulimit -n 222; cd /usr/bin; \
                  trap '' HUP TERM INT USR1; export x=mine n=mine d=mine OWN=mine\n";
        let (sshd, user) = (Sshd::start(), TestUser::with_bash(rc));
        let _rules = Sudoers::install(&format!("{} ALL=(root) NOPASSWD: ALL", user.name));
        let router = router();
        let web = sshd.connect(&router, &user).connect().unwrap();
        let census = assert_is_modest(&web, ["pipe"; 4]);
        let place = |census: &Census| (census.directory.clone(), census.umask.clone());
        assert_eq!(place(&census), ("/usr/bin".into(), "0037".to_owned()), "{census:#?}");
        assert_eq!(census.files_max, "222", "{census:#?}");
        let said = run_by_library(&web, "env; cat /proc/self/status; umask; ulimit -n; pwd");
        assert!(said.ends_with("\n0037\n222\n/usr/bin\n"), "{said}");
        assert_signals_at_default(&said);
        assert!(said.contains("OWN=mine"), "{said}");

        let root = router.sudo().via(&web).connect().unwrap();
        let sudo = ["socket", "socket", "pipe", "pipe"];
        let census = assert_is_modest(&root, sudo);
        assert_eq!(census.directory, Path::new("/usr/bin"), "{census:#?}");
        assert_signals_at_default(&run_by_library(&root, "cat /proc/self/status"));
    });
}

#[test]
fn an_agent_that_may_not_read_its_directory_goes_to_the_root() {
    leaves_nothing(HOSTS, || {
        let user = TestUser::create(None);
        fs::set_permissions(&user.home, fs::Permissions::from_mode(0o700)).unwrap();
        let _rules = Sudoers::install(&format!("{} ALL=(nobody) NOPASSWD: ALL", user.name));
        let sshd = Sshd::start();
        let router = router();
        let web = sshd.connect(&router, &user).connect().unwrap();
        assert_eq!(census(pid(&web)).directory, user.home);
        let nobody = router.sudo().username("nobody").via(&web).connect().unwrap();
        assert_eq!(census(pid(&nobody)).directory, Path::new("/"));
        assert_eq!(run_by_library(&nobody, "pwd; id -un"), "/\nnobody\n");
    });
}

#[test]
fn an_agent_starts_where_next_to_nothing_is_allowed() {
    leaves_nothing(HOSTS, || {
        // The server's process of this user, the shell, and three more.
        let (sshd, user) = (Sshd::start(), TestUser::with_bash("ulimit -n 20; ulimit -u 5\n"));
        let router = router();
        let web = sshd.connect(&router, &user).connect().unwrap();
        let census = assert_is_modest(&web, ["pipe"; 4]);
        let limits = (census.files_max.as_str(), census.processes_max.as_str());
        assert_eq!(limits, ("20", "5"), "{census:#?}");
    });
}

/// The arguments of a process as `ps` shows them: what follows them is empty.
#[track_caller]
fn shown_title(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let text = String::from_utf8(line).unwrap();
    text.trim_end_matches('\0').to_owned()
}

#[test]
fn an_agent_is_called_as_it_was_asked_to_whatever_the_name() {
    leaves_nothing(HOSTS, || {
        let (sshd, user) = (Sshd::start(), TestUser::create(None));
        let router = router();
        let own = router.local().connect().unwrap().call(stock::identify, ()).unwrap();
        let starter = format!("mitogen:{}@{}:{}", own.user, own.host, process::id());
        assert_eq!(shown_title(pid(&router.local().connect().unwrap())), starter);
        let long = "é".repeat(200);
        for (name, shown) in [
            ("a b  c", "a b  c"),
            ("it's \"$HOME\" `id` \\ !x;#", "it's \"$HOME\" `id` \\ !x;#"),
            (&long, &long[..120]),
        ] {
            let local = router.local().name(name).connect().unwrap();
            let ssh = sshd.connect(&router, &user).name(name).connect().unwrap();
            for context in [local, ssh] {
                assert_eq!(shown_title(pid(&context)), format!("mitogen:{shown}"));
                assert_eq!(context.name(), name);
            }
        }
        for name in ["one\ntwo", "\u{1b}[2J", "\0"] {
            let error = router.local().name(name).connect().unwrap_err();
            assert!(error.to_string().contains("control character"), "{error}");
        }
    });
}

#[test]
fn what_a_function_left_behind_goes_to_the_system_and_ends_with_the_agent() {
    leaves_nothing(&[], || {
        let router = mitogen_test_program().router().unwrap();
        let child = router.local().connect().unwrap();
        let agent = pid(&child);
        for _ in 0..5 {
            child.call(leave_behind, "sleep 0.05").unwrap();
        }
        let gone = until(SECOND, || census(agent).children.is_empty().then_some(()));
        assert!(gone.is_some(), "{:?}", census(agent).children);

        child.call(leave_behind, "trap '' TERM HUP; exec sleep 100006").unwrap();
        let group = until(SECOND, || Some(group_members(agent)).filter(|all| 2 <= all.len()));
        assert!(group.is_some(), "{:?}", group_members(agent));
        let begun = Instant::now();
        child.shutdown().unwrap();
        let gone = until(SECOND, || group_members(agent).is_empty().then_some(()));
        // Who waited for it would wait for three seconds.
        assert!(gone.is_some() && begun.elapsed() < 2 * SECOND, "{:?}", group_members(agent));
    });
}

/// Whether an agent serves: the broker's thread is there.
fn comes_up(pid: u32) -> bool {
    until(SECOND, || (census(pid).threads.len() == 2).then_some(())).is_some()
}

#[track_caller]
fn assert_ends(mut child: Child) -> Option<i32> {
    let ended = until(SECOND, || child.try_wait().unwrap());
    let _ = child.kill();
    child.wait().unwrap();
    ended.expect("it goes on").code()
}

#[test]
fn an_agent_serves_on_descriptors_that_do_not_block() {
    leaves_nothing(&[], || {
        let recording = Recording::make(&router());
        let ((ours, theirs), (_, errors)) =
            (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        for end in [&theirs, &errors] {
            end.set_nonblocking(true).unwrap();
        }
        let mut command = recording.agent();
        command.arg(OsStr::from_bytes(b"mitogen:\xff\xfe")).stderr(OwnedFd::from(errors));
        command.stdin(OwnedFd::from(theirs.try_clone().unwrap())).stdout(OwnedFd::from(theirs));
        let child = command.spawn().unwrap();
        drop(command);
        hear(&mut BufReader::new(&ours), "MGN1-");
        for half in recording.frame.chunks(recording.frame.len().div_ceil(2)) {
            // It has nothing to read for a while.
            thread::sleep(Duration::from_millis(50));
            (&ours).write_all(half).unwrap();
        }
        assert!(comes_up(child.id()));
        assert_stdio_blocks(child.id());
        drop(ours);
        assert_ends(child);
    });
}

#[test]
fn an_agent_without_standard_descriptors_serves_or_ends() {
    leaves_nothing(&[], || {
        let recording = Recording::make(&router());
        for missing in 0..8 {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let agent = recording.agent();
            let mut command = Command::new("sh");
            command.args(["-c", &format!("exec \"$0\" \"$@\" {}", closed(missing))]);
            command.arg(agent.get_program()).args(agent.get_args());
            command.stdin(OwnedFd::from(theirs.try_clone().unwrap()));
            let child = command.stdout(OwnedFd::from(theirs)).spawn().unwrap();
            drop(command);
            // Nobody may be there to take it.
            let _ = (&ours).write_all(&recording.frame);
            if missing & 1 == 0 {
                assert!(comes_up(child.id()), "{missing:03b}");
                assert_stdio_blocks(child.id());
            } else {
                assert_eq!(assert_ends(child), Some(1), "{missing:03b}");
                continue;
            }
            drop(ours);
            assert_ends(child);
        }
    });
}
