//! Method `ssh` over a real sshd.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use mitogen::error::{ConnectError, ConnectFailure, ErrorKind, Exit, Phase};
use mitogen::{Address, Context, Error, HostKeys, Program, Router, stock};

use crate::support::*;

const NEEDS: &[Need] = &[Need::Root, Need::Sshd];

fn router() -> Router {
    Program::new().image(stock_image()).router().unwrap()
}

/// Runs a test with a server, a user and a router; nothing of the router's is left afterwards, not
/// even while the server still runs.
#[track_caller]
fn with_server(make: impl FnOnce() -> Sshd + Send, test: impl FnOnce(&Sshd, &TestUser) + Send) {
    leaves_nothing(NEEDS, || {
        let (sshd, user) = (make(), TestUser::create(Some("right horse")));
        test(&sshd, &user);
        assert_nothing_is_left();
        let of_user = || processes().into_iter().find(|process| process.uid == user.uid);
        let is_clean = until(Duration::from_secs(1), || of_user().is_none().then_some(()));
        assert!(is_clean.is_some(), "left behind: {:?}", of_user());
    });
}

fn user_of(context: &Context) -> String {
    context.call(stock::identify, ()).unwrap().user
}

#[track_caller]
fn failure(error: &Error) -> &ConnectError {
    let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
    error
}

#[test]
fn a_key_lets_us_in() {
    with_server(Sshd::start, |sshd, user| {
        let router = router();
        let context = sshd.connect(&router, user).connect().unwrap();
        let identity = context.call(stock::identify, ()).unwrap();
        assert_eq!(identity.user, user.name);
        assert_ne!(identity.pid, std::process::id());
        assert!(context.name().starts_with(&format!("ssh:{}@127.0.0.1:", user.name)), "{context}");
    });
}

#[test]
fn an_address_is_a_connection() {
    with_server(Sshd::start, |sshd, user| {
        let router = router();
        let address: Address = format!("{}/local", sshd.address(user)).parse().unwrap();
        let context = router.connect(&address).unwrap();
        assert_eq!(user_of(&context), user.name);
        let again = router.connect(&address).unwrap();
        assert_eq!(again, context);
        assert_eq!(router.children().len(), 1);
    });
}

#[test]
fn an_accepted_key_is_recorded_and_then_known() {
    with_server(Sshd::start, |sshd, user| {
        let folder = tempfile::tempdir().unwrap();
        let known = folder.path().join("known");
        let option = format!("UserKnownHostsFile={}", known.display());
        let connect = |check| {
            let ssh = sshd.connect_unknown(&router(), user).check_host_keys(check);
            ssh.ssh_args(["-F", "none", "-o", &option]).connect().map(drop)
        };
        let error = connect(HostKeys::Enforce).unwrap_err();
        assert_eq!(failure(&error).failure, ConnectFailure::HostKey);
        connect(HostKeys::Accept).unwrap();
        assert!(fs::read_to_string(&known).unwrap().contains(&sshd.port.to_string()));
        connect(HostKeys::Enforce).unwrap();
    });
}

#[test]
fn an_ignored_key_is_not_recorded() {
    with_server(Sshd::start, |sshd, user| {
        let folder = tempfile::tempdir().unwrap();
        let known = folder.path().join("known");
        let option = format!("UserKnownHostsFile={}", known.display());
        let router = router();
        let ssh = sshd.connect_unknown(&router, user).check_host_keys(HostKeys::Ignore);
        ssh.ssh_args(["-F", "none", "-o", &option]).connect().unwrap();
        assert!(!known.exists());
    });
}

#[test]
fn a_password_lets_us_in() {
    with_server(Sshd::with_passwords, |sshd, user| {
        let router = router();
        let known = format!("UserKnownHostsFile={}", sshd.known_hosts().display());
        let ssh = router.ssh("127.0.0.1").port(sshd.port).username(&user.name);
        let ssh = ssh.ssh_args(["-F", "none", "-o", &known]);
        let context = ssh.clone().password("right horse").connect().unwrap();
        assert_eq!(user_of(&context), user.name);

        let error = ssh.clone().password("wrong horse").connect().unwrap_err();
        let error = failure(&error);
        assert_eq!(error.failure, ConnectFailure::PasswordWrong, "{error}");
        assert_eq!((error.phase, error.exit), (Phase::Login, Some(Exit::Code(255))), "{error}");
        assert!(error.tail.contains("Permission denied"), "{error}");
        assert!(!error.to_string().contains("wrong horse"), "{error}");

        let error = ssh.connect().unwrap_err();
        assert_eq!(failure(&error).failure, ConnectFailure::PasswordRequired, "{error}");
    });
}

#[test]
fn ssh_then_sudo_then_local_are_three_hops() {
    with_server(Sshd::start, |sshd, user| {
        if !requires(&[Need::Sudo]) {
            return;
        }
        let _rules = Sudoers::install(&format!("{} ALL=(root) NOPASSWD: ALL", user.name));
        let router = router();
        let first = sshd.connect(&router, user).connect().unwrap();
        let second = router.sudo().via(&first).connect().unwrap();
        let third = router.local().via(&second).connect().unwrap();
        let users = [&first, &second, &third].map(user_of);
        assert_eq!(users, [&user.name[..], "root", "root"]);
        let pids = [&first, &second, &third].map(|c| c.call(stock::identify, ()).unwrap().pid);
        assert!(pids[0] != pids[1] && pids[1] != pids[2]);
        assert_eq!(third.name(), format!("{}/sudo/local", first.name()));
    });
}

#[test]
fn further_arguments_reach_the_client() {
    with_server(
        || Sshd::with("AcceptEnv MITOGEN_WORD\n"),
        |sshd, user| {
            let known = format!("UserKnownHostsFile={}", sshd.known_hosts().display());
            let ssh = ["-F", "none", "-o", &known, "-o", "SetEnv=MITOGEN_WORD=xyzzy"];
            let router = router();
            let context = sshd.connect(&router, user).ssh_args(ssh).connect().unwrap();
            let output = router.receiver();
            let argv = ["sh", "-c", "echo $MITOGEN_WORD"].map(Into::into).to_vec();
            let command = stock::Command { argv };
            context.call(stock::run, (command, output.to_sender())).unwrap();
            let said: Vec<stock::Output> = output.into_iter().map(Result::unwrap).collect();
            assert_eq!(said, [stock::Output::Stdout(b"xyzzy\n".to_vec())]);
        },
    );
}

#[test]
fn an_ipv6_address_is_a_host() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else { return };
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    with_server(
        || Sshd::with(&format!("ListenAddress [::1]:{port}\n")),
        |sshd, user| {
            let router = router();
            let key = sshd.identity_file().display().to_string();
            let ssh = router.ssh("[::1]").port(port).username(&user.name).identity_file(key);
            let ssh = ssh.check_host_keys(HostKeys::Ignore).ssh_args(["-F", "none"]);
            assert_eq!(user_of(&ssh.connect().unwrap()), user.name);
        },
    );
}
