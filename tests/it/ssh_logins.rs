//! How `ssh` proves who we are, and hosts who they are: passwords, keys, known and unknown hosts.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mitogen::error::{ConnectError, ConnectFailure, ErrorKind, Exit, Phase};
use mitogen::{Context, HostKeys, Program, Result, Router, Ssh, stock};

use crate::support::*;

const PASSWORD: &str = "right horse";
const SSH_FAILED: Option<Exit> = Some(Exit::Code(255));

fn router() -> Router {
    Program::new().image(stock_image()).router().unwrap()
}

fn user() -> TestUser {
    TestUser::create(Some(PASSWORD))
}

/// A connection without a key, to a host whose key is known.
fn without_key(sshd: &Sshd, router: &Router, user: &TestUser) -> Ssh {
    let known = format!("UserKnownHostsFile={}", sshd.known_hosts().display());
    let ssh = router.ssh("127.0.0.1").port(sshd.port).username(&user.name);
    ssh.ssh_args(["-F", "none", "-o", &known])
}

fn user_of(context: &Context) -> String {
    context.call(stock::identify, ()).unwrap().user
}

#[track_caller]
fn failed(outcome: Result<Context>) -> ConnectError {
    let error = outcome.map(|_| "a context").unwrap_err();
    let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
    assert!(!error.to_string().contains("horse"), "{error}");
    error.clone()
}

#[track_caller]
fn assert_login_fails(outcome: Result<Context>, failure: ConnectFailure) -> ConnectError {
    let error = failed(outcome);
    assert_eq!((&error.failure, error.phase), (&failure, Phase::Login), "{error}");
    error
}

/// Where the whole machine can see it: arguments and environments of all processes.
fn is_shown(secret: &str) -> bool {
    processes().iter().any(|process| {
        let folder = format!("/proc/{}", process.pid);
        let read = |name| fs::read(Path::new(&folder).join(name)).unwrap_or_default();
        [read("cmdline"), read("environ")]
            .iter()
            .any(|bytes| bytes.windows(secret.len()).any(|window| window == secret.as_bytes()))
    })
}

/// A right, a wrong and a missing password.
fn try_passwords(sshd: &Sshd, user: &TestUser) {
    let router = router();
    let ssh = || without_key(sshd, &router, user);
    let context = ssh().password(PASSWORD).connect().unwrap();
    assert_eq!(user_of(&context), user.name);
    assert!(!is_shown(PASSWORD));

    let error = ssh().password("wrong horse").connect();
    assert_login_fails(error, ConnectFailure::PasswordWrong);
    // Not asked for, since nobody would answer; and asked for.
    let error = assert_login_fails(ssh().connect(), ConnectFailure::PasswordRequired);
    assert_eq!(error.exit, SSH_FAILED, "{error}");
    assert!(error.tail.contains("Permission denied"), "{error}");
    let error = ssh().check_host_keys(HostKeys::Accept).connect();
    assert_login_fails(error, ConnectFailure::PasswordRequired);
    // The same from a child.
    let child = router.local().connect().unwrap();
    let ssh = || ssh().via(&child);
    assert_eq!(user_of(&ssh().password(PASSWORD).connect().unwrap()), user.name);
    assert_login_fails(ssh().password("wrong horse").connect(), ConnectFailure::PasswordWrong);
    assert_login_fails(ssh().connect(), ConnectFailure::PasswordRequired);
}

#[test]
fn a_password_is_typed_if_asked() {
    with_server(Sshd::with_passwords, user, try_passwords);
}

#[test]
fn a_password_is_typed_if_pam_asks() {
    const RULES: &str = "auth required pam_unix.so nodelay\n\
                         account required pam_permit.so\n\
                         session required pam_permit.so\n";
    with_server(|| Sshd::with_pam(RULES), user, try_passwords);
}

#[test]
fn a_user_who_does_not_exist_is_a_wrong_password_or_denied() {
    with_server(Sshd::with_passwords, user, |sshd, user| {
        let router = router();
        let nobody = |ssh: Ssh| ssh.username("no-such-user");
        let ssh = nobody(without_key(sshd, &router, user)).password(PASSWORD);
        assert_login_fails(ssh.connect(), ConnectFailure::PasswordWrong);
        assert_login_fails(nobody(sshd.connect(&router, user)).connect(), ConnectFailure::Denied);
    });
}

/// What is recorded of the server's key.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Recorded {
    Nothing,
    Its,
    Anothers,
}

fn public_key(folder: &Path) -> String {
    let path = folder.join("key");
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path));
    fs::read_to_string(path.with_extension("pub")).unwrap()
}

#[test]
fn hosts_keys_are_checked_in_three_ways() {
    use ConnectFailure::{HostKey, HostKeyChanged};
    with_server(Sshd::start, user, |sshd, user| {
        let folder = tempfile::tempdir().unwrap();
        let (its, anothers) = (sshd.known_hosts(), public_key(folder.path()));
        let known = folder.path().join("known");
        let file = format!("UserKnownHostsFile={}", known.display());
        let router = router();
        let child = router.local().connect().unwrap();
        for (check, recorded, failure) in [
            (HostKeys::Enforce, Recorded::Nothing, Some(HostKey)),
            (HostKeys::Enforce, Recorded::Its, None),
            (HostKeys::Enforce, Recorded::Anothers, Some(HostKeyChanged)),
            (HostKeys::Accept, Recorded::Nothing, None),
            (HostKeys::Accept, Recorded::Its, None),
            (HostKeys::Accept, Recorded::Anothers, Some(HostKeyChanged)),
            (HostKeys::Ignore, Recorded::Nothing, None),
            (HostKeys::Ignore, Recorded::Its, None),
            (HostKeys::Ignore, Recorded::Anothers, None),
        ] {
            for via in [None, Some(&child)] {
                let before = match recorded {
                    Recorded::Nothing => String::new(),
                    Recorded::Its => fs::read_to_string(&its).unwrap(),
                    Recorded::Anothers => format!("[127.0.0.1]:{} {anothers}", sshd.port),
                };
                fs::write(&known, &before).unwrap();
                let ssh = sshd.connect_unknown(&router, user).check_host_keys(check);
                let ssh = ssh.ssh_args(["-F", "none", "-o", &file]);
                let ssh = via.map_or(ssh.clone(), |via| ssh.via(via));
                match (ssh.connect(), &failure) {
                    (Ok(context), None) => assert_eq!(user_of(&context), user.name),
                    (outcome, failure) => {
                        let failure = failure.clone().unwrap_or(ConnectFailure::Cancelled);
                        let error = assert_login_fails(outcome, failure);
                        assert_eq!(error.exit, SSH_FAILED, "{error}");
                    }
                }
                let after = fs::read_to_string(&known).unwrap();
                let is_new = check == HostKeys::Accept && recorded == Recorded::Nothing;
                assert_eq!(after != before, is_new, "{check:?} {recorded:?}: {after}");
                assert_eq!(is_new, after.starts_with("[127.0.0.1]:") && before.is_empty());
            }
        }
    });
}

/// A stub that poses as a client before 8.0 of a host that it does not know. It talks on its
/// terminal; then it is the target.
const OLD_CLIENT: &str = r#"
printf 'The authenticity of host x cannot be established.\r\n' >/dev/tty
printf 'Are you sure you want to continue connecting (yes/no)? ' >/dev/tty
read -r answer </dev/tty
test "$answer" = yes || exit 255
printf "me@x's password: " >/dev/tty
read -r answer </dev/tty
test "$answer" = 'right horse' || exit 255
for last do :; done
exec sh -c "$last"
"#;

#[test]
fn an_old_client_is_answered_and_then_the_password_typed() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let path = script(folder.path(), "ssh", OLD_CLIENT);
        let router = router();
        let ssh = router.ssh("x").ssh_path(&path).check_host_keys(HostKeys::Accept);
        ssh.password(PASSWORD).connect().unwrap().call(stock::ping, ()).unwrap();
    });
}

#[test]
fn a_question_that_is_not_foreseen_fails_at_once_and_is_quoted() {
    const STUB: &str = "printf '(me@x) Verification code: ' >/dev/tty; read -r code </dev/tty";
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let path = script(folder.path(), "ssh", STUB);
        let router = router();
        let begun = Instant::now();
        let error = failed(router.ssh("x").ssh_path(&path).password(PASSWORD).connect());
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        let question = ConnectFailure::UnknownPrompt("(me@x) Verification code:".to_owned());
        assert_eq!((&error.failure, error.phase), (&question, Phase::Login), "{error}");
    });
}

/// Makes a user's file of this key, as ssh wants it.
fn install_key(user: &TestUser, sshd: &Sshd, path: &str) {
    let path = user.home.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::copy(sshd.identity_file(), &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    run(Command::new("chown").arg("-R").arg(&user.name).arg(&user.home));
}

/// Runs a test with a context of the user on this machine, from which to go on.
#[track_caller]
fn from_user(test: impl FnOnce(&Sshd, &TestUser, &Context) + Send) {
    if !requires(&[Need::Sudo]) {
        return;
    }
    with_server(Sshd::start, user, |sshd, user| {
        // The key of the host is read by the user.
        let there = user.home.join("known_hosts");
        fs::copy(sshd.known_hosts(), &there).unwrap();
        let router = router();
        let context = router.sudo().username(&user.name).set_home(true).connect().unwrap();
        test(sshd, user, &context);
    });
}

fn from_there(sshd: &Sshd, user: &TestUser, via: &Context) -> Ssh {
    let known = format!("UserKnownHostsFile={}/known_hosts", user.home.display());
    let ssh = via.router().ssh("127.0.0.1").port(sshd.port).username(&user.name).via(via);
    ssh.ssh_args(["-F", "none", "-o", &known])
}

#[test]
fn a_key_below_the_home_of_the_one_who_connects_is_found_there() {
    from_user(|sshd, user, via| {
        install_key(user, sshd, "keys/one");
        let ssh = || from_there(sshd, user, via);
        let denied = |ssh: Ssh| assert_login_fails(ssh.connect(), ConnectFailure::Denied);
        assert_eq!(user_of(&ssh().identity_file("~/keys/one").connect().unwrap()), user.name);
        let other = format!("~{}/keys/one", user.name);
        assert_eq!(user_of(&ssh().identity_file(other).connect().unwrap()), user.name);
        let error = denied(ssh().identity_file("~/keys/two"));
        assert!(error.tail.contains(&format!("{}/keys/two", user.home.display())), "{error}");
    });
}

#[test]
fn a_key_that_is_named_keeps_the_usual_ones_out() {
    from_user(|sshd, user, via| {
        install_key(user, sshd, ".ssh/id_ed25519");
        let ssh = || from_there(sshd, user, via);
        assert_eq!(user_of(&ssh().connect().unwrap()), user.name);
        let none = || ssh().identity_file("/no/such/key");
        assert_login_fails(none().connect(), ConnectFailure::Denied);
        assert_login_fails(ssh().password(PASSWORD).connect(), ConnectFailure::Denied);
        assert_eq!(user_of(&none().identities_only(false).connect().unwrap()), user.name);
    });
}

#[test]
fn a_key_with_a_passphrase_is_passed_over() {
    from_user(|sshd, user, via| {
        install_key(user, sshd, ".ssh/id_ed25519");
        let key = user.home.join(".ssh/id_ed25519");
        run(Command::new("ssh-keygen").args(["-q", "-p", "-N", "a phrase", "-f"]).arg(&key));
        let ssh = from_there(sshd, user, via);
        assert_login_fails(ssh.clone().connect(), ConnectFailure::Denied);
        let asking = ssh.check_host_keys(HostKeys::Accept);
        assert_login_fails(asking.connect(), ConnectFailure::Denied);
    });
}

#[test]
fn a_server_that_takes_no_more_is_busy() {
    with_server(
        || Sshd::with("MaxStartups 1\n"),
        user,
        |sshd, user| {
            let router = router();
            let _first = TcpStream::connect(("127.0.0.1", sshd.port)).unwrap();
            // It is asked again until the time is over.
            let ssh = || sshd.connect(&router, user).connect_timeout(Duration::from_secs(1));
            let error = assert_login_fails(ssh().connect(), ConnectFailure::Busy);
            assert_eq!(error.exit, SSH_FAILED, "{error}");
            assert!(error.to_string().contains("MaxStartups"), "{error}");
            let child = router.local().connect().unwrap();
            assert_login_fails(ssh().via(&child).connect(), ConnectFailure::Busy);
        },
    );
}

#[test]
fn a_server_that_hangs_up_at_once_is_busy() {
    leaves_nothing(&[Need::Sshd], || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let over = Arc::new(AtomicBool::new(false));
        let hangs_up = thread::spawn({
            let over = over.clone();
            move || {
                let mut clients = listener.incoming().map(|client| client.unwrap());
                clients.by_ref().take_while(|_| !over.load(Ordering::SeqCst)).count()
            }
        });
        let ssh = router().ssh("127.0.0.1").port(port).ssh_args(["-F", "none"]);
        let ssh = ssh.connect_timeout(Duration::from_secs(2));
        assert_login_fails(ssh.connect(), ConnectFailure::Busy);
        over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", port)));
        assert!(2 <= hangs_up.join().unwrap());
    });
}

#[test]
fn what_a_talkative_client_says_is_neither_a_question_nor_a_failure() {
    with_server(Sshd::with_passwords, user, |sshd, user| {
        let router = router();
        for level in 1..=3 {
            let ssh = || without_key(sshd, &router, user).ssh_debug_level(level);
            let context = ssh().password(PASSWORD).connect().unwrap();
            assert_eq!(user_of(&context), user.name);
            let error = ssh().password("wrong horse").connect();
            assert_login_fails(error, ConnectFailure::PasswordWrong);
            let error = assert_login_fails(ssh().connect(), ConnectFailure::PasswordRequired);
            assert!(error.tail.contains("debug1: "), "{error}");
        }
    });
}

#[test]
fn the_client_takes_compression_and_keepalive_as_they_are_said() {
    leaves_nothing(&[Need::Sshd], || {
        let folder = tempfile::tempdir().unwrap();
        // It says how it understands its arguments.
        let text = "ssh -G \"$@\" | grep -e serveralive -e compression";
        let path = script(folder.path(), "ssh", text);
        let router = router();
        let says = |change: fn(Ssh) -> Ssh| {
            let ssh = router.ssh("web").ssh_path(&path).ssh_args(["-F", "none"]);
            failed(change(ssh).connect()).tail
        };
        let tail = says(|ssh| ssh);
        assert!(tail.contains("serveraliveinterval 15\n"), "{tail}");
        assert!(tail.contains("serveralivecountmax 3\n"), "{tail}");
        assert!(tail.contains("compression no\n"), "{tail}");
        let tail = says(|ssh| ssh.compression(true).keepalive_interval(Duration::ZERO));
        assert!(tail.contains("serveraliveinterval 0\n"), "{tail}");
        assert!(tail.contains("compression yes\n"), "{tail}");
    });
}

#[test]
fn a_new_host_is_accepted_and_then_the_password_typed() {
    with_server(Sshd::with_passwords, user, |sshd, user| {
        let folder = tempfile::tempdir().unwrap();
        let known = format!("UserKnownHostsFile={}/known", folder.path().display());
        let router = router();
        let ssh = router.ssh("127.0.0.1").port(sshd.port).username(&user.name);
        let ssh = ssh.ssh_args(["-F", "none", "-o", &known]).check_host_keys(HostKeys::Accept);
        let context = ssh.compression(true).password(PASSWORD).connect().unwrap();
        assert_eq!(user_of(&context), user.name);
    });
}

#[test]
fn who_was_turned_away_is_told_so_though_the_last_try_runs_out_of_time() {
    leaves_nothing(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let been = folder.path().join("been").display().to_string();
        let text = format!(
            "[ -e {been} ]&&exec sleep 1000\n>{been}\n\
             echo 'Connection closed by 10.0.0.1 port 22' >&2\nexit 255"
        );
        let path = script(folder.path(), "ssh", &text);
        let ssh = router().ssh("x").ssh_path(path).connect_timeout(Duration::from_secs(3));
        assert_login_fails(ssh.connect(), ConnectFailure::Busy);
    });
}
