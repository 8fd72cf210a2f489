//! Each way in which a connect can fail is an error of its own, in time, and nothing is left of it.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mitogen::error::{ConnectError, ConnectFailure, ErrorKind, Exit, Phase};
use mitogen::{Context, HostKeys, Image, Program, Result, Router, Ssh, stock};

use crate::support::*;

const SSH: &[Need] = &[Need::Root, Need::Sshd];

fn router() -> Router {
    Program::new().image(stock_image()).router().unwrap()
}

/// The failure of a connect that must fail.
#[track_caller]
fn failed(outcome: Result<Context>) -> ConnectError {
    let error = outcome.map(|_| "a context").unwrap_err();
    let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
    assert!(error.to_string().contains(&error.hop), "{error}");
    error.clone()
}

/// Runs a test with a client of ssh for a host that nobody is; then, the same from a child, whose
/// failures must be the same. The prefix is that of the hop's path.
#[track_caller]
fn here_and_behind(test: impl Fn(Ssh, &str) + Send + Sync) {
    leaves_nothing(&[Need::Sshd], || {
        let router = router();
        let ssh = |to| router.ssh(to).check_host_keys(HostKeys::Ignore).ssh_args(["-F", "none"]);
        test(ssh("127.0.0.1"), "ssh:127.0.0.1");
        let child = router.local().connect().unwrap();
        test(ssh("127.0.0.1").via(&child), "local/ssh:127.0.0.1");
        let second = router.local().name("second").via(&child).connect().unwrap();
        test(ssh("127.0.0.1").via(&second), "second/ssh:127.0.0.1");
        second.call(stock::ping, ()).unwrap();
        drop((child, second));
        drop(router);
        assert_nothing_is_left();
    });
}

fn plain_user() -> TestUser {
    TestUser::create(None)
}

/// A user who finds commands at home first.
fn home_first() -> TestUser {
    TestUser::with_bash("PATH=$HOME:$PATH")
}

#[track_caller]
fn assert_failed(error: &ConnectError, failure: ConnectFailure, phase: Phase, exit: Option<Exit>) {
    assert_eq!((&error.failure, error.phase, error.exit), (&failure, phase, exit), "{error}");
}

const SSH_FAILED: Option<Exit> = Some(Exit::Code(255));

#[test]
fn a_closed_port_refuses() {
    here_and_behind(|ssh, hop| {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = failed(ssh.port(port).connect());
        assert_failed(&error, ConnectFailure::ConnectionRefused, Phase::Login, SSH_FAILED);
        assert!(error.hop.starts_with(&format!("{hop}:{port}")), "{error}");
        assert!(error.tail.contains("Connection refused"), "{error}");
    });
}

#[test]
fn a_listener_that_never_speaks_is_given_up_in_time() {
    here_and_behind(|ssh, hop| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let begun = Instant::now();
        let error = failed(ssh.port(port).connect_timeout(Duration::from_millis(500)).connect());
        assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
        assert_failed(&error, ConnectFailure::Timeout, Phase::Login, None);
        assert!(error.hop.starts_with(hop), "{error}");
    });
}

#[test]
fn a_host_without_a_route_is_unreachable() {
    if !requires(&[Need::NetworkNamespaces]) {
        return;
    }
    here_and_behind(|ssh, hop| {
        let folder = tempfile::tempdir().unwrap();
        let path = script(folder.path(), "ssh", "exec unshare -n ssh \"$@\"");
        let error = failed(ssh.ssh_path(path).connect());
        assert_failed(&error, ConnectFailure::Unreachable, Phase::Login, SSH_FAILED);
        assert!(error.hop.starts_with(hop), "{error}");
        assert!(error.tail.contains("unreachable"), "{error}");
    });
}

#[test]
fn a_name_that_does_not_resolve_is_told() {
    leaves_nothing(SSH, || {
        let error = failed(router().ssh("no-such-host.invalid").ssh_args(["-F", "none"]).connect());
        assert_failed(&error, ConnectFailure::HostUnknown, Phase::Login, SSH_FAILED);
        assert_eq!(error.hop, "ssh:no-such-host.invalid?ssh_args=-F%20none");
    });
}

/// A new key that nobody knows.
fn key(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("key");
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path));
    path
}

#[test]
fn a_wrong_key_is_denied() {
    with_server(Sshd::start, plain_user, |sshd, user| {
        let folder = tempfile::tempdir().unwrap();
        let key = key(folder.path()).display().to_string();
        let router = router();
        let error = failed(sshd.connect(&router, user).identity_file(&key).connect());
        assert_failed(&error, ConnectFailure::Denied, Phase::Login, SSH_FAILED);
        assert!(error.tail.contains("Permission denied"), "{error}");

        let child = router.local().connect().unwrap();
        let error = failed(sshd.connect(&router, user).identity_file(&key).via(&child).connect());
        assert_failed(&error, ConnectFailure::Denied, Phase::Login, SSH_FAILED);
        assert!(error.hop.starts_with("local/ssh:"), "{error}");
    });
}

#[test]
fn a_shell_that_prints_much_first_is_no_failure() {
    let user = || TestUser::with_bash("head -c 100000 /dev/zero | tr '\\0' 'x\\n'\necho noise >&2");
    with_server(Sshd::start, user, |sshd, user| {
        let context = sshd.connect(&router(), user).connect().unwrap();
        assert_eq!(context.call(stock::identify, ()).unwrap().user, user.name);
    });
}

#[test]
fn a_shell_that_prints_without_end_is_given_up() {
    with_server(
        Sshd::start,
        || TestUser::with_bash("exec yes"),
        |sshd, user| {
            let router = router();
            let error = failed(sshd.connect(&router, user).connect());
            let too_much = ConnectFailure::Protocol("too much of it before the agent".into());
            assert_failed(&error, too_much, Phase::Login, None);
            assert!(error.tail.ends_with("y\ny\n"), "{error}");
        },
    );
}

#[test]
fn a_shell_that_exits_at_once_is_told_with_its_words() {
    with_server(
        Sshd::start,
        || TestUser::create(None).with_shell("/usr/sbin/nologin"),
        |sshd, user| {
            let error = failed(sshd.connect(&router(), user).connect());
            assert_failed(&error, ConnectFailure::Ended, Phase::Login, Some(Exit::Code(1)));
            assert!(error.tail.contains("not available"), "{error}");
        },
    );
}

#[test]
fn a_target_without_sh_is_told() {
    with_server(
        Sshd::start,
        || TestUser::with_bash("PATH=/nonexistent"),
        |sshd, user| {
            let error = failed(sshd.connect(&router(), user).connect());
            assert_failed(&error, ConnectFailure::NoShell, Phase::Login, Some(Exit::Code(127)));
            assert!(error.tail.contains("sh: not found"), "{error}");
        },
    );
}

#[test]
fn a_uname_that_prints_junk_is_told() {
    with_server(Sshd::start, home_first, |sshd, user| {
        script(&user.home, "uname", "echo Plan9 'of\x1b[31m' mips");
        let error = failed(sshd.connect(&router(), user).connect());
        let ConnectFailure::TargetUnknown(says) = &error.failure else { panic!("{error}") };
        assert!(says.starts_with("Plan9 of?[31m mips"), "{says:?}");
        assert_eq!(error.phase, Phase::Login);
    });
}

#[test]
fn a_cpu_without_an_image_is_told() {
    with_server(Sshd::start, plain_user, |sshd, user| {
        let image = Image::embedded("plan9-mips", b"no matter");
        let router = Program::new().image(image).router().unwrap();
        let error = failed(sshd.connect(&router, user).connect());
        let ConnectFailure::NoImage { target, available } = &error.failure else {
            panic!("{error}")
        };
        let here = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
        assert_eq!((target, &available[..]), (&here, "plan9-mips"));
    });
}

#[test]
fn an_image_of_another_cpu_or_of_zeros_is_not_sent() {
    // The machine's number in the head of the file.
    let mut bytes = stock_image_bytes();
    let other = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    bytes[18] = other;
    let target = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    let bytes: &'static [u8] = bytes.leak();
    let router = || Program::new().image(Image::embedded(&target, bytes)).router().unwrap();
    with_server(Sshd::start, plain_user, |sshd, user| {
        for bytes in [bytes, &[0; 100_000]] {
            for bytes in [bytes, packed(bytes)] {
                let image = Image::embedded(&target, bytes);
                let router = Program::new().image(image).router().unwrap();
                let error = failed(sshd.connect(&router, user).connect());
                let ConnectFailure::ImageUnusable(why) = &error.failure else { panic!("{error}") };
                assert!(why.contains("is for ") || why.contains("is no executable"), "{error}");
                assert_eq!(error.phase, Phase::Push, "{error}");
            }
        }
    });
    leaves_nothing(&[], || {
        let error = failed(router().local().connect());
        assert_eq!(error.failure, ConnectFailure::ImageDoesNotRun, "{error}");
    });
}

#[test]
fn a_stream_that_is_cut_inside_the_image_is_told() {
    with_server(Sshd::start, plain_user, |sshd, user| {
        let target = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
        let image = Image::embedded(&target, packed_stock_image());
        let router = Program::new().image(image).router().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let whole = packed_stock_image().len();
        for bytes in [1, 100, 3_000, 20_000, whole / 2, whole / 10 * 9] {
            let text = format!("head -c {bytes} | ssh \"$@\"");
            let path = script(folder.path(), "ssh", &text);
            let begun = Instant::now();
            let error = failed(sshd.connect(&router, user).ssh_path(path).connect());
            assert!(begun.elapsed() < Duration::from_secs(10), "{bytes}: {error}");
            let ended = matches!(error.phase, Phase::Push | Phase::Start);
            assert!(ended, "{bytes}: {error}");
            let failure = &error.failure;
            let cut = matches!(failure, ConnectFailure::Ended | ConnectFailure::InputEnded);
            assert!(cut, "{bytes}: {error}");
            let was_told = *failure == ConnectFailure::InputEnded;
            assert!(was_told || error.exit.is_some(), "{bytes}: {error}");
            assert_nothing_is_left();
        }
    });
}

/// Speaks the first stage as a target does, and then as an agent of another build.
const OTHER_VERSION: &str = r#"
for last do :; done
nonce=${last#*q=}
nonce=${nonce%%;*}
echo "MGN0-$nonce Linux $(uname -m)"
read -r line
nonce=${line#*n=}
nonce=${nonce%%;*}
echo "MGN1-$nonce 999"
head -c 100000 /dev/urandom
exec sleep 1000"#;

#[test]
fn a_peer_of_another_version_is_refused() {
    here_and_behind(|ssh, hop| {
        let folder = tempfile::tempdir().unwrap();
        let path = script(folder.path(), "ssh", OTHER_VERSION);
        let error = failed(ssh.ssh_path(path).connect());
        let ConnectFailure::Version { ours, theirs } = error.failure else { panic!("{error}") };
        assert_ne!(ours, theirs);
        assert_eq!((theirs, error.phase), (999, Phase::Start), "{error}");
        assert!(error.to_string().contains(&format!("{ours}, the agent 999")), "{error}");
        assert!(error.hop.starts_with(hop), "{error}");
    });
}

#[test]
fn a_client_that_is_not_there_cannot_be_started() {
    here_and_behind(|ssh, hop| {
        let error = failed(ssh.ssh_path("/no/such/ssh").connect());
        let missing = ConnectFailure::NoTool("/no/such/ssh".to_owned());
        assert_failed(&error, missing, Phase::Spawn, None);
        assert!(error.hop.starts_with(hop), "{error}");
        assert!(error.to_string().contains("/no/such/ssh is not installed"), "{error}");
    });
}

#[test]
fn a_context_that_is_gone_connects_nothing() {
    leaves_nothing(&[], || {
        let router = router();
        let child = router.local().connect().unwrap();
        let grandchild = router.local().via(&child).connect().unwrap();
        child.shutdown().unwrap();
        for (via, hop) in [(&child, "local/local"), (&grandchild, "local/local/local")] {
            let error = failed(router.local().via(via).connect());
            assert!(matches!(error.failure, ConnectFailure::ViaGone(_)), "{error}");
            assert_eq!((&error.hop[..], error.phase), (hop, Phase::Prepare), "{error}");
        }
    });
}

#[test]
fn a_context_that_dies_while_it_connects_is_told() {
    leaves_nothing(&[Need::Sshd], || {
        let router = router();
        let child = router.local().connect().unwrap();
        let pid = child.call(stock::identify, ()).unwrap().pid;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ssh = router.ssh("127.0.0.1").port(port).ssh_args(["-F", "none"]).via(&child).start();
        // The client has come: the child is in the middle of it.
        let _client = listener.accept().unwrap();
        signal(pid, "KILL");
        let error = failed(ssh.wait());
        assert!(matches!(error.failure, ConnectFailure::ViaGone(_)), "{error}");
        assert!(error.hop.starts_with("local/ssh:127.0.0.1"), "{error}");
        assert_nothing_is_left();
    });
}

#[test]
fn an_executable_of_something_else_is_no_agent() {
    leaves_nothing(&[], || {
        let image = Image::file("/bin/true").unwrap();
        let error = failed(Program::new().image(image).router().unwrap().local().connect());
        assert_failed(&error, ConnectFailure::Ended, Phase::Start, Some(Exit::Code(0)));
        assert_eq!(error.hop, "local");
    });
}
