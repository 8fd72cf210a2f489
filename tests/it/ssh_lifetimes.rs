//! What `ssh` starts, what it leaves behind, and what it may wait for: clients that are given up,
//! masters of shared connections, proxies, terminals.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mitogen::error::{ConnectError, ConnectFailure, ErrorKind};
use mitogen::{Address, Context, Program, Result, Router, Ssh, stock};

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);

fn router() -> Router {
    Program::new().image(stock_image()).router().unwrap()
}

fn user() -> TestUser {
    TestUser::create(None)
}

fn pid(context: &Context) -> u32 {
    context.call(stock::identify, ()).unwrap().pid
}

#[track_caller]
fn failed(outcome: Result<Context>) -> ConnectError {
    let error = outcome.map(|_| "a context").unwrap_err();
    let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
    error.clone()
}

/// How many processes have this word among their arguments.
fn count(word: &str) -> usize {
    processes().iter().filter(|process| process.command.contains(word)).count()
}

/// Whether none has it, at several looks: a process that is being executed has none for a moment.
fn is_nowhere(word: &str) -> bool {
    (0..5).all(|_| {
        std::thread::sleep(Duration::from_millis(5));
        count(word) == 0
    })
}

/// Waits until none has it.
#[track_caller]
fn assert_ended(word: &str) {
    until(2 * SECOND, || is_nowhere(word).then_some(()));
    let all = processes();
    let left: Vec<_> = all.iter().filter(|process| process.command.contains(word)).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Connections that share one, whose master outlives them; it ends when this is dropped.
struct Shared<'a> {
    sshd: &'a Sshd,
    folder: tempfile::TempDir,
}

impl Shared<'_> {
    fn path(&self) -> String {
        format!("ControlPath={}/shared", self.folder.path().display())
    }

    fn connect(&self, router: &Router, user: &TestUser, level: u8) -> Ssh {
        let known = format!("UserKnownHostsFile={}", self.sshd.known_hosts().display());
        let path = self.path();
        let options = ["ControlMaster=auto", "ControlPersist=60", &path, &known];
        let words = options.iter().flat_map(|option| ["-o", option]);
        let ssh = self.sshd.connect(router, user).ssh_debug_level(level);
        ssh.ssh_args(["-F", "none"].into_iter().chain(words))
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        let mut end = Command::new("ssh");
        end.args(["-F", "none", "-O", "exit", "-o", &self.path(), "x"]).stderr(Stdio::null());
        let _ = end.status();
    }
}

#[test]
fn a_shared_connection_that_persists_delays_neither_connect_nor_end() {
    // With debug output the master keeps the client's standard error for itself.
    for level in [0, 1] {
        with_server(Sshd::start, user, |sshd, user| {
            let shared = Shared { sshd, folder: tempfile::tempdir().unwrap() };
            for _ in 0..2 {
                let router = router();
                let context = shared.connect(&router, user, level).connect().unwrap();
                assert_eq!(context.call(stock::identify, ()).unwrap().user, user.name);
                let begun = Instant::now();
                context.shutdown().unwrap();
                drop(router);
                // Who waited for the master would wait for three seconds.
                assert!(begun.elapsed() < 5 * SECOND / 2, "{:?}", begun.elapsed());
                assert_nothing_is_left();
                assert!(0 < count("shared [mux]"), "there is no master");
            }
            drop(shared);
            assert_ended("shared [mux]");
        });
    }
}

#[test]
fn a_failure_over_a_shared_connection_is_told_at_once() {
    let nologin = || TestUser::create(None).with_shell("/usr/sbin/nologin");
    for level in [0, 1] {
        with_server(Sshd::start, nologin, |sshd, user| {
            let shared = Shared { sshd, folder: tempfile::tempdir().unwrap() };
            let router = router();
            for _ in 0..2 {
                let begun = Instant::now();
                let error = failed(shared.connect(&router, user, level).connect());
                assert!(begun.elapsed() < 2 * SECOND, "{:?}: {error}", begun.elapsed());
                assert_eq!(error.failure, ConnectFailure::Ended, "{error}");
                assert!(error.tail.contains("not available"), "{error}");
            }
            assert!(0 < count("shared [mux]"), "there is no master");
            drop(shared);
            assert_ended("shared [mux]");
        });
    }
}

#[test]
fn who_holds_standard_error_and_output_does_not_delay_a_failure() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let text = "sleep 1357 & until grep -q sleep /proc/$!/comm; do :; done\n\
                    echo 'Host key verification failed.' >&2; exit 255";
        let path = script(folder.path(), "ssh", text);
        let router = router();
        for password in [false, true] {
            let ssh = router.ssh("x").ssh_path(&path);
            let ssh = if password { ssh.password("x") } else { ssh };
            let begun = Instant::now();
            let error = failed(ssh.connect());
            // The time for a connect is 30 seconds.
            assert!(begun.elapsed() < 5 * SECOND, "{:?}: {error}", begun.elapsed());
            assert_eq!(error.failure, ConnectFailure::HostKey, "{error}");
        }
        // What the stub left is the stub's; ours are the descriptors, which are counted.
        for process in processes().iter().filter(|process| process.command.contains("1357")) {
            signal(process.pid, "KILL");
        }
        assert_ended("1357");
    });
}

/// A proxy that never gets anywhere, and does not end when asked.
struct StuckProxy {
    folder: tempfile::TempDir,
    /// What it waits for.
    sleep: String,
}

impl StuckProxy {
    fn new(seconds: u32) -> StuckProxy {
        let folder = tempfile::tempdir().unwrap();
        let sleep = format!("sleep {seconds}");
        script(folder.path(), "proxy", &format!("trap '' TERM HUP; {sleep}; :"));
        StuckProxy { folder, sleep }
    }

    fn ssh(&self, router: &Router) -> Ssh {
        let option = format!("ProxyCommand={}/proxy", self.folder.path().display());
        router.ssh("web").ssh_args(["-F", "none", "-o", &option])
    }

    #[track_caller]
    fn assert_runs(&self) {
        assert!(until(2 * SECOND, || (0 < count(&self.sleep)).then_some(())).is_some());
    }
}

#[test]
fn a_proxy_ends_with_a_connect_that_is_given_up() {
    leaves_nothing(&[Need::Sshd], || {
        let router = router();
        let child = router.local().connect().unwrap();
        let proxy = StuckProxy::new(2468);
        for via in [None, Some(&child)] {
            for password in [false, true] {
                let ssh = proxy.ssh(&router).connect_timeout(SECOND / 2);
                let ssh = if password { ssh.password("x") } else { ssh };
                let ssh = via.map_or(ssh.clone(), |via| ssh.via(via));
                let connecting = ssh.start();
                proxy.assert_runs();
                let error = failed(connecting.wait());
                assert_eq!(error.failure, ConnectFailure::Timeout, "{error}");
                assert_ended(&proxy.sleep);
            }
        }
    });
}

#[test]
fn a_proxy_ends_with_the_router() {
    leaves_nothing(&[Need::Sshd], || {
        let router = router();
        let proxy = StuckProxy::new(2469);
        let connecting = proxy.ssh(&router).start();
        proxy.assert_runs();
        router.shutdown();
        let error = failed(connecting.wait());
        assert_eq!(error.failure, ConnectFailure::Cancelled, "{error}");
        assert_ended(&proxy.sleep);
    });
}

#[test]
fn a_proxy_that_reads_ends_with_a_program_that_is_killed() {
    leaves_nothing(&[Need::Sshd], || {
        let folder = tempfile::tempdir().unwrap();
        let proxy = script(folder.path(), "proxy-2470", "cat >/dev/null; :");
        let address = format!("ssh:web?ssh_args=-F none -o ProxyCommand={proxy}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_mitogen"));
        command.args(["run", &address, "--", "true"]).stderr(Stdio::null());
        let mut master = command.spawn().unwrap();
        assert!(until(2 * SECOND, || (2 < count("2470")).then_some(())).is_some());
        master.kill().unwrap();
        master.wait().unwrap();
        assert_ended("2470");
    });
}

/// A stub that poses as ssh: it is the target.
const TARGET: &str = "for last do :; done; exec sh -c \"$last\"";

#[test]
fn all_that_is_printed_on_a_terminal_just_before_the_end_arrives() {
    // 64 KB, more than a terminal's queue; the last line of them tells the failure.
    const STUB: &str = "echo 'Too many authentication failures' >/dev/tty\n\
                        seq -f '%063.0f' 1000 >/dev/tty\n\
                        echo 'Host key verification failed.' >/dev/tty; exit 255";
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let path = script(folder.path(), "ssh", STUB);
        let router = router();
        for _ in 0..5 {
            let error = failed(router.ssh("x").ssh_path(&path).password("?").connect());
            assert_eq!(error.failure, ConnectFailure::HostKey, "{error}");
            assert!(error.tail.ends_with("0001000\nHost key verification failed.\n"), "{error}");
        }
    });
}

#[test]
fn an_agent_outlives_its_last_terminal() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let path = script(folder.path(), "ssh", TARGET);
        let router = router();
        let context = router.ssh("x").ssh_path(&path).password("y").connect().unwrap();
        let agent = pid(&context);
        let mut open = census(agent).descriptors.into_iter().map(|(_, path)| path);
        let terminal = open.find(|path| path.starts_with("/dev/pts/")).unwrap();
        // TIOCVHANGUP: nobody has it any more, and who was in its session is told.
        let line = "open(T, '+<', $ARGV[0]) && ioctl(T, 0x5437, 0) || die $!";
        run(Command::new("perl").args(["-e", line, &terminal]));
        context.call(stock::ping, ()).unwrap();
        assert_eq!(pid(&context), agent);
    });
}

#[test]
fn ssh_then_ssh_are_two_hops() {
    with_server(Sshd::start, user, |sshd, user| {
        if !Path::new("/usr/bin/ssh").exists() {
            return;
        }
        // The second hop's client runs as the user, who has the key and the host's key.
        let (key, known) = (user.home.join("key"), user.home.join("known_hosts"));
        run(Command::new("install")
            .args(["-m", "600", "-o", &user.name])
            .args([sshd.identity_file(), key.clone()]));
        run(Command::new("install").args(["-m", "644"]).args([sshd.known_hosts(), known.clone()]));
        let second = format!(
            "ssh:{}@127.0.0.1:{}?identity_file=~%2Fkey&ssh_args=-F none -o UserKnownHostsFile={}",
            user.name,
            sshd.port,
            known.display()
        );
        let address: Address = format!("{}/{second}", sshd.address(user)).parse().unwrap();
        let router = router();
        let context = router.connect(&address).unwrap();
        assert_eq!(context.call(stock::identify, ()).unwrap().user, user.name);
        assert_eq!(router.children().len(), 1);
        // The same failure as here, with the path of both hops.
        let error = format!("{}/{second}", sshd.address(user)).replace("%2Fkey", "%2Fnone");
        let error = failed(router.connect(&error.parse::<Address>().unwrap()));
        assert_eq!(error.failure, ConnectFailure::Denied, "{error}");
        assert_eq!(error.hop.matches("ssh:").count(), 2, "{error}");
    });
}

#[test]
fn a_silent_server_is_given_up_in_time_behind_another_hop() {
    with_server(Sshd::start, user, |sshd, user| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = router();
        let first = sshd.connect(&router, user).connect().unwrap();
        let begun = Instant::now();
        let ssh = router.ssh("127.0.0.1").port(port).via(&first).ssh_args(["-F", "none"]);
        let error = failed(ssh.connect_timeout(SECOND / 2).connect());
        assert!(begun.elapsed() < 2 * SECOND, "{:?}", begun.elapsed());
        assert_eq!(error.failure, ConnectFailure::Timeout, "{error}");
    });
}
