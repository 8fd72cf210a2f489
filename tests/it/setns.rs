//! Method `setns`, into real containers of Docker and LXC. LXD and systemd are not here: scripts
//! stand for their tools, which print what those print, with the number of a real process.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

use mitogen::error::{ConnectError, ConnectFailure, ErrorKind, Exit, Phase};
use mitogen::{ContainerKind, Context, Program, Result, Router, Setns, stock};

use crate::support::*;

const DOCKER: &[Need] = &[Need::Root, Need::Docker];
const LXC: &[Need] = &[Need::Root, Need::Lxc];
const SECOND: Duration = Duration::from_secs(1);
/// Each is a link in `/proc/<pid>/ns`.
const NAMESPACES: &str =
    "for n in ipc uts net pid cgroup mnt user; do readlink /proc/$0/ns/$n; done";

fn router() -> Router {
    Program::new().image(stock_image()).router().unwrap()
}

/// What a command in a context prints to its standard output; it must end with 0.
#[track_caller]
fn said(context: &Context, words: &[&str]) -> String {
    let output = context.router().receiver();
    let argv = words.iter().map(Into::into).collect();
    let call = context.call_async(stock::run, (stock::Command { argv }, output.to_sender()));
    let (mut text, mut errors) = (Vec::new(), Vec::new());
    for piece in output {
        match piece.unwrap() {
            stock::Output::Stdout(bytes) => text.extend(bytes),
            stock::Output::Stderr(bytes) => errors.extend(bytes),
        }
    }
    let ended = call.get().unwrap();
    let errors = String::from_utf8_lossy(&errors);
    assert_eq!(ended, stock::Ended::Exited(0), "{words:?}: {errors}");
    String::from_utf8(text).unwrap().trim_end().to_owned()
}

/// Runs a test with a container of Docker, of which nothing is left behind.
#[track_caller]
fn with_docker(test: impl FnOnce(&Router, &Docker, &str) + Send) {
    leaves_nothing(DOCKER, || {
        let docker = Docker::shared();
        let container = docker.container();
        let router = router();
        test(&router, &docker, &container);
        drop(router);
        assert_nothing_is_left();
    });
}

fn setns(router: &Router, docker: &Docker, container: &str) -> Setns {
    router.setns(ContainerKind::Docker, container).docker_path(docker.client())
}

#[track_caller]
fn failed(outcome: Result<Context>, expected: ConnectFailure) -> ConnectError {
    let error = outcome.map(|_| "a context").unwrap_err();
    let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
    assert_eq!(error.failure, expected, "{error}");
    assert!(error.hop.contains("setns:"), "{error}");
    error.clone()
}

/// The line of `/proc/self/status` that a command in the context has.
fn status(context: &Context, name: &str) -> String {
    line_of(&said(context, &["cat", "/proc/self/status"]), name)
}

fn line_of(status: &str, name: &str) -> String {
    status.lines().find(|line| line.starts_with(name)).unwrap().to_owned()
}

#[test]
fn root_is_in_the_container_of_docker_and_has_what_docker_gives() {
    with_docker(|router, docker, container| {
        let context = setns(router, docker, container).connect().unwrap();
        let identity = context.call(stock::identify, ()).unwrap();
        let there = |words: &[&str]| docker.ask(&[&["exec", container], words].concat());
        assert_eq!((&*identity.user, identity.host), ("root", there(&["hostname"])));
        assert!(1 < identity.pid && identity.pid < 100, "{}", identity.pid);
        let ours = |pid| said(&context, &["sh", "-c", NAMESPACES, pid]);
        assert_eq!(ours("self"), ours("1"));
        assert_eq!(ours("self").lines().count(), 7);
        for words in [&["ls", "/"][..], &["cat", "/etc/passwd"], &["ls", "/sys/class/net"]] {
            assert_eq!(said(&context, words), there(words), "{words:?}");
        }
        assert!(said(&context, &["ps"]).contains("mitogen:"));
        assert_eq!(said(&context, &["id", "-G"]), "0 77 79");
        let status_there = there(&["cat", "/proc/self/status"]);
        // The agent itself has executed nothing since.
        let of_agent = said(&context, &["cat", &format!("/proc/{}/status", identity.pid)]);
        for name in ["CapEff:", "CapPrm:", "CapBnd:", "CapInh:", "CapAmb:", "NoNewPrivs:"] {
            let there = line_of(&status_there, name);
            assert_eq!((status(&context, name), line_of(&of_agent, name)), (there.clone(), there));
        }
    });
}

#[test]
fn a_user_of_the_container_is_at_home_there() {
    with_docker(|router, docker, container| {
        let worker = setns(router, docker, container).username(WORKER).connect().unwrap();
        assert_eq!(worker.call(stock::identify, ()).unwrap().user, WORKER);
        let ids =
            |name| format!("{name}:\t{0}\t{0}\t{0}\t{0}", if name == "Uid" { 1234 } else { 1235 });
        assert_eq!((status(&worker, "Uid:"), status(&worker, "Gid:")), (ids("Uid"), ids("Gid")));
        assert_eq!(said(&worker, &["id", "-G"]), "1235 77 78");
        assert_eq!(said(&worker, &["pwd"]), "/home/worker");
        let expected = "HOME=/home/worker\nLOGNAME=worker\n\
             PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
             SHELL=/bin/ash\nUSER=worker";
        assert_eq!(said(&worker, &["sh", "-c", "env -u PWD -u SHLVL | sort"]), expected);
        assert_eq!(status(&worker, "CapEff:"), "CapEff:\t0000000000000000");
        let homeless = setns(router, docker, container).username("homeless").connect().unwrap();
        assert_eq!(said(&homeless, &["pwd"]), "/");
        assert_eq!(said(&homeless, &["sh", "-c", "echo $HOME $SHELL"]), "/nowhere /bin/sh");
        // Another hop from there, in the same container.
        let inner = router.local().via(&worker).connect().unwrap();
        assert_eq!(inner.call(stock::identify, ()).unwrap().user, WORKER);
    });
}

#[test]
fn both_kinds_of_containers_of_lxc_are_entered() {
    leaves_nothing(LXC, || {
        for lxc in [Lxc::start(), Lxc::start_unprivileged()] {
            let router = router();
            let setns = || {
                let setns = router.setns(ContainerKind::Lxc, &lxc.name);
                setns.lxc_info_path(lxc.tool("lxc-info"))
            };
            let root = setns().connect().unwrap();
            let identity = root.call(stock::identify, ()).unwrap();
            assert_eq!((&*identity.user, &identity.host), ("root", &lxc.name));
            let ours = |pid| said(&root, &["sh", "-c", NAMESPACES, pid]);
            assert_eq!(ours("self"), ours("1"));
            assert_eq!(said(&root, &["ls", "/sys/class/net"]), "lo");
            said(&root, &["touch", "/root/made"]);
            let worker = setns().username(WORKER).connect().unwrap();
            assert_eq!(said(&worker, &["id"]), lxc.attach(&["su", WORKER, "-c", "id"]).trim_end());
            assert_eq!(status(&worker, "CapEff:"), "CapEff:\t0000000000000000");
            // Of the agent itself, too, which has executed nothing since.
            let pid = worker.call(stock::identify, ()).unwrap().pid;
            let of_agent = said(&root, &["cat", &format!("/proc/{pid}/status")]);
            for name in ["CapEff:", "CapPrm:", "CapInh:"] {
                assert_eq!(line_of(&of_agent, name), format!("{name}\t0000000000000000"));
            }
            lxc.stop();
            failed(setns().connect(), ConnectFailure::NoTarget);
            drop((root, worker, router));
            assert_nothing_is_left();
        }
    });
}

#[test]
fn who_is_not_there_is_told() {
    with_docker(|router, docker, container| {
        let error = failed(setns(router, docker, "nobody").connect(), ConnectFailure::NoTarget);
        assert!(error.tail.contains("No such"), "{error}");
        assert_eq!((error.exit, error.phase), (Some(Exit::Code(1)), Phase::Login), "{error}");
        let user = setns(router, docker, container).username("nemo");
        failed(user.connect(), ConnectFailure::Denied);
        docker.ask(&["kill", container]);
        failed(setns(router, docker, container).connect(), ConnectFailure::NoTarget);
        let lxc = router.setns(ContainerKind::Lxc, "nobody");
        if requires(LXC) {
            failed(lxc.connect(), ConnectFailure::NoTarget);
        }
        let nowhere = setns(router, docker, container).docker_path("/nowhere/docker");
        failed(nowhere.connect(), ConnectFailure::NoTool("/nowhere/docker".to_owned()));
        let unreachable =
            script(docker.folder(), "unreachable", "exec docker -H unix:///nowhere/socket \"$@\"");
        let setns = setns(router, docker, container).docker_path(unreachable);
        failed(setns.connect(), ConnectFailure::Unreachable);
    });
}

#[test]
fn a_tool_that_does_not_answer_is_not_waited_for() {
    leaves_nothing(&[Need::Root], || {
        let folder = tempfile::tempdir().unwrap();
        let slow = script(folder.path(), "slow", "sleep 4321; echo 1");
        let endless = script(folder.path(), "endless", "exec yes 1");
        let refuses = script(folder.path(), "refuses", "echo no, thanks >&2; exit 42");
        let silent = script(folder.path(), "silent", "exit 0");
        let router = router();
        let setns = |path: &str| router.setns(ContainerKind::Docker, "x").docker_path(path);
        let began = Instant::now();
        failed(setns(&slow).connect_timeout(SECOND / 2).connect(), ConnectFailure::Timeout);
        assert!(began.elapsed() < 2 * SECOND, "{:?}", began.elapsed());
        let is_slow = |process: &Process| process.command.contains("4321");
        let ended = until(SECOND, || (!processes().iter().any(is_slow)).then_some(()));
        assert!(ended.is_some(), "the tool is still there");
        failed(setns(&endless).connect(), ConnectFailure::NotEntered);
        let error = failed(setns(&refuses).connect(), ConnectFailure::Ended);
        assert_eq!((error.exit, error.tail.trim()), (Some(Exit::Code(42)), "no, thanks"));
        failed(setns(&silent).connect(), ConnectFailure::NoTarget);
    });
}

/// What the other tools print, of a real process.
#[test]
fn lxd_and_systemd_are_asked_as_they_want_to_be() {
    with_docker(|router, docker, container| {
        let pid = docker.pid(container);
        let lxc = format!(
            "[ \"$*\" = 'info web' ] && printf 'Name: web\\nStatus: RUNNING\\nType: container\\n\
             Architecture: x86_64\\nPID: {pid}\\nCreated: 2024/01/01 00:00 UTC\\n\\nResources:\\n  \
             Processes: 9\\n'"
        );
        let machinectl = format!("[ \"$*\" = 'show --property=Leader web' ] && echo Leader={pid}");
        let lxd = router.setns(ContainerKind::Lxd, "web");
        let lxd = lxd.lxc_path(script(docker.folder(), "lxc", &lxc));
        let machine = router.setns(ContainerKind::Machinectl, "web");
        let machine = machine.machinectl_path(script(docker.folder(), "machinectl", &machinectl));
        let host = docker.ask(&["exec", container, "hostname"]);
        for setns in [lxd, machine] {
            let context = setns.connect().unwrap();
            assert_eq!(context.call(stock::identify, ()).unwrap().host, host);
        }
    });
}

/// As a container of systemd-nspawn may be: its root is not that of its namespace of mounts.
#[test]
fn the_root_is_that_of_the_process() {
    leaves_nothing(&[Need::Root, Need::Docker], || {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        make_rootfs(&root, 0);
        fs::write(root.join("here"), "").unwrap();
        run(Command::new("cp").arg("-a").arg("/dev/null").arg(root.join("dev/null")));
        let mut sleep = Command::new("setpriv");
        let sleep =
            sleep.args(["--no-new-privs", "chroot"]).arg(&root).args(["/bin/sleep", "1000"]);
        let mut sleep = sleep.spawn().unwrap();
        let its_root = format!("/proc/{}/root", sleep.id());
        let is_there = || (fs::read_link(&its_root).unwrap() == root).then_some(());
        until(SECOND, is_there).unwrap();
        let knows = script(folder.path(), "knows", &format!("echo Leader={}", sleep.id()));
        let router = router();
        let local = router.local().connect().unwrap();
        let setns = router.setns(ContainerKind::Machinectl, "x").machinectl_path(knows);
        let context = setns.username(WORKER).via(&local).connect().unwrap();
        assert_eq!(said(&context, &["ls", "/here"]), "/here");
        assert_eq!(said(&context, &["pwd"]), "/home/worker");
        // There is no /proc.
        let pid = context.call(stock::identify, ()).unwrap().pid;
        let of_agent = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert_eq!(line_of(&of_agent, "NoNewPrivs:"), "NoNewPrivs:\t1");
        // Its executable is nobody else's.
        let file = |context: &Context| {
            let pid = context.call(stock::identify, ()).unwrap().pid;
            let status = fs::metadata(format!("/proc/{pid}/exe")).unwrap();
            (status.dev(), status.ino())
        };
        assert_ne!(file(&local), file(&context));
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        // It lives in none of the other's namespaces, so it did not end with it.
        context.call(stock::ping, ()).unwrap();
        drop((context, local, router));
        assert_nothing_is_left();
    });
}

/// A tool may speak of another machine, or of a process that has ended since.
#[test]
fn a_number_that_is_no_container_of_ours_is_not_entered() {
    leaves_nothing(&[Need::Root], || {
        let folder = tempfile::tempdir().unwrap();
        let knows = script(folder.path(), "knows", &format!("echo {}", std::process::id()));
        let setns = router().setns(ContainerKind::Docker, "x").docker_path(knows);
        let error = failed(setns.connect(), ConnectFailure::NotEntered);
        assert!(error.tail.contains("mitogen-setns: 2 container"), "{error}");
    });
}

#[test]
fn through_ssh_as_a_user_and_sudo_we_get_there_too() {
    leaves_nothing(&[DOCKER, &[Need::Sshd, Need::Sudo]].concat(), || {
        let docker = Docker::shared();
        let container = docker.container();
        let (sshd, user) = (Sshd::start(), TestUser::create(None));
        let rules = Sudoers::install(&format!("{} ALL=(root) NOPASSWD: ALL", user.name));
        let router = router();
        let ssh = sshd.address(&user);
        let last =
            format!("setns:{WORKER}@{container}?kind=docker&docker_path={}", docker.client());
        let address = format!("{ssh}/sudo/{last}").parse().unwrap();
        let context = router.connect(&address).unwrap();
        assert_eq!(said(&context, &["id", "-un"]), WORKER);
        assert!(context.name().ends_with(&format!("/sudo/{last}")), "{}", context.name());
        // Who is not root may not ask, and does not get in.
        let setns = |tool| format!("{ssh}/setns:{container}?kind=docker&docker_path={tool}");
        let connect = |tool| router.connect(&setns(tool).parse().unwrap());
        failed(connect(docker.client()), ConnectFailure::Denied);
        let tool = format!("echo {}", docker.pid(&container));
        let tool = script(docker.folder(), "knows", &tool);
        failed(connect(&tool), ConnectFailure::NotEntered);
        drop((context, router));
        assert_nothing_is_left();
        drop((rules, user));
    });
}

/// The processes of a context: the one that waits outside, and the agent.
fn pair(docker: &Docker, container: &str) -> [u32; 2] {
    let first = docker.pid(container);
    let place = fs::read_link(format!("/proc/{first}/ns/pid")).unwrap();
    let is_there = |pid| fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|is| is == place);
    let ours = processes_of_ours();
    let agent = ours.iter().find(|process| is_there(process.pid)).unwrap();
    let guard = ours.iter().find(|process| process.pid == agent.parent).unwrap();
    assert!(!is_there(guard.pid));
    [guard.pid, agent.pid]
}

#[test]
fn whoever_dies_nothing_is_left() {
    with_docker(|router, docker, container| {
        for which in 0..2 {
            let context = setns(router, docker, container).connect().unwrap();
            context.call(stock::ping, ()).unwrap();
            let pair = pair(docker, container);
            assert!(census(pair[0]).descriptors.is_empty());
            signal(pair[0], "TERM");
            context.call(stock::ping, ()).unwrap();
            signal(pair[which], "KILL");
            let left = || processes().into_iter().filter(|process| pair.contains(&process.pid));
            let gone = until(SECOND, || left().next().is_none().then_some(()));
            assert!(
                gone.is_some(),
                "{which} was killed, and there are {:?}",
                left().collect::<Vec<_>>()
            );
            let Err(error) = context.call(stock::ping, ()) else { panic!("a call was answered") };
            let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
            assert!(matches!(death.exit, None | Some(Exit::Signal(9))), "{death}");
            assert_nothing_is_left();
        }
    });
}

#[test]
fn the_end_of_the_context_that_connects_and_of_the_container_is_the_end() {
    with_docker(|router, docker, container| {
        let middle = router.local().connect().unwrap();
        let context = setns(router, docker, container).via(&middle).connect().unwrap();
        context.call(stock::ping, ()).unwrap();
        let pid = middle.call(stock::identify, ()).unwrap().pid;
        // Not even the end of its input tells the agent, which is stopped.
        let pair = pair(docker, container);
        signal(pair[1], "STOP");
        signal(pid, "KILL");
        assert_nothing_is_left();
        assert!(context.call(stock::ping, ()).is_err());
        let context = setns(router, docker, container).connect().unwrap();
        context.call(stock::ping, ()).unwrap();
        docker.ask(&["kill", container]);
        assert!(context.call(stock::ping, ()).is_err());
        assert_nothing_is_left();
    });
}

#[test]
fn what_a_hostile_container_has_in_place_of_its_users_is_not_taken() {
    with_docker(|router, docker, container| {
        // Docker itself reads those files, and would wait for the pipe.
        let root = format!("/proc/{}/root", docker.pid(container));
        let there = |line: &str| run(Command::new("sh").args(["-ec", line]).current_dir(&root));
        let connect = |user: &str| setns(router, docker, container).username(user).connect();
        there("echo evil:x:4294967295:0::/:/bin/sh >>etc/passwd");
        failed(connect("evil"), ConnectFailure::Denied);
        // A pipe that nobody writes to; a device; more than a megabyte; itself.
        for line in [
            "mkfifo etc/passwd",
            "mknod etc/passwd c 1 5",
            "dd if=/dev/zero of=etc/passwd bs=1M count=2",
            "ln -s /etc/passwd etc/passwd",
            "mkdir etc/passwd",
        ] {
            there(&format!("rm -rf etc/passwd && {line} 2>/dev/null"));
            let error = failed(connect("root"), ConnectFailure::NotEntered);
            assert!(error.tail.contains("/etc/passwd"), "{error}");
        }
        // A link leads to the container's files, never to ours.
        there("rm -rf etc/passwd && ln -s /../../../../tmp/list etc/passwd");
        there("echo evil:x:77:77::/tmp:/bin/sh >tmp/list");
        assert_eq!(said(&connect("evil").unwrap(), &["id", "-u"]), "77");
        // Without any list there is root.
        there("rm -rf etc/passwd etc/group");
        assert_eq!(said(&connect("root").unwrap(), &["pwd"]), "/");
        failed(connect("evil"), ConnectFailure::Denied);
    });
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_started() {
    leaves_nothing(&[], || {
        let router = router();
        let setns = |name: &str| router.setns(ContainerKind::Docker, name);
        let far = router.setns(ContainerKind::Lxd, "far:x");
        let near = || setns("x");
        for setns in [setns("-x"), setns(""), near().username("-u"), near().memfd(false), far] {
            let error = setns.connect().map(|_| "a context").unwrap_err();
            let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
            assert!(matches!(error.failure, ConnectFailure::BadOption(_)), "{error}");
        }
        // A test binary has threads, which the kernel would refuse.
        let router = Program::new().self_agent(&[]).router().unwrap();
        failed(router.setns(ContainerKind::Lxc, "x").connect(), ConnectFailure::NotEntered);
    });
}
