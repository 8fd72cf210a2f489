//! Every login shell that a target's user may have, through a real sshd, with rc files that get in
//! the way. What each reads for a command of ssh: bash `.bashrc`, zsh `.zshenv`, the two csh
//! `.cshrc`, fish its `config.fish`; the others nothing of their own. All have `.ssh/rc`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use mitogen::error::{ConnectError, ConnectFailure, ErrorKind, Exit, Phase};
use mitogen::{Context, Error, Program, Router, stock};

use crate::support::*;

const NEEDS: &[Need] = &[Need::Root, Need::Sshd, Need::Shells];

/// A shell's path, and its rc file, if it reads one.
const SHELLS: [(&str, Option<&str>); 9] = [
    ("/bin/dash", None),
    ("/bin/bash", Some(".bashrc")),
    ("/usr/bin/zsh", Some(".zshenv")),
    ("ash", None),
    ("/usr/bin/mksh", None),
    ("/usr/bin/ksh93", None),
    ("/usr/bin/fish", Some(".config/fish/config.fish")),
    ("/usr/bin/tcsh", Some(".cshrc")),
    ("/usr/bin/bsd-csh", Some(".cshrc")),
];

fn router() -> Router {
    Program::new().image(stock_image()).router().unwrap()
}

/// Connects once with each of these shells, after `prepare` has been told shell and rc file.
#[track_caller]
fn with_each(
    shells: impl Iterator<Item = (&'static str, Option<&'static str>)> + Send,
    prepare: impl Fn(&TestUser, &str, Option<&Path>) + Send + Sync,
    check: impl Fn(&str, Result<Context, Error>) + Send + Sync,
) {
    leaves_nothing(NEEDS, || {
        let sshd = Sshd::start();
        let bin = tempfile::tempdir_in("/opt").unwrap();
        run(std::process::Command::new("chmod").arg("755").arg(bin.path()));
        let ash = script(bin.path(), "ash", "exec busybox ash \"$@\"");
        for (shell, rc) in shells {
            let path = if shell == "ash" { &ash } else { shell };
            let user = TestUser::create(None).with_shell(path);
            let rc = rc.map(|rc| user.home.join(rc));
            rc.iter().for_each(|rc| fs::create_dir_all(rc.parent().unwrap()).unwrap());
            prepare(&user, shell, rc.as_deref());
            run(std::process::Command::new("chown").args(["-R", &user.name]).arg(&user.home));
            let router = router();
            let outcome = sshd.connect(&router, &user).connect();
            if let Ok(context) = &outcome {
                assert_eq!(context.call(stock::identify, ()).unwrap().user, user.name, "{shell}");
            }
            check(shell, outcome);
            drop(router);
            assert_nothing_is_left();
        }
    });
}

fn with_rc() -> impl Iterator<Item = (&'static str, Option<&'static str>)> + Send {
    SHELLS.into_iter().filter(|(_, rc)| rc.is_some())
}

fn comes_up(shell: &str, outcome: Result<Context, Error>) {
    outcome.unwrap_or_else(|error| panic!("{shell}: {error}"));
}

#[test]
fn any_login_shell_will_do() {
    with_each(SHELLS.into_iter(), |_, _, _| (), comes_up);
}

#[test]
fn an_rc_file_may_print() {
    let prepare = |user: &TestUser, _: &str, rc: Option<&Path>| {
        let noise = "echo Welcome to `hostname`; sh -c 'echo warning >&2; printf unfinished'\n";
        rc.iter().for_each(|rc| fs::write(rc, noise.replace('`', "")).unwrap());
        fs::create_dir(user.home.join(".ssh")).unwrap();
        fs::write(user.home.join(".ssh/rc"), "echo from ssh rc; echo and errors >&2\n").unwrap();
    };
    with_each(SHELLS.into_iter(), prepare, comes_up);
}

#[test]
fn an_rc_file_that_reads_gets_an_empty_line() {
    let prepare = |_: &TestUser, shell: &str, rc: Option<&Path>| {
        let read = if shell.ends_with("csh") { "set answer = $<\n" } else { "read answer\n" };
        fs::write(rc.unwrap(), ["echo 'Continue? '\n", read].concat()).unwrap();
    };
    let begun = Instant::now();
    with_each(with_rc(), prepare, comes_up);
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn an_rc_file_that_exits_is_told_with_its_status_and_words() {
    let prepare = |_: &TestUser, _: &str, rc: Option<&Path>| {
        fs::write(rc.unwrap(), "echo no entry today\nexit 3\n").unwrap();
    };
    with_each(with_rc(), prepare, |shell, outcome| {
        if shell != "/bin/bash" && shell != "/usr/bin/zsh" {
            // There `exit` ends the file alone.
            return comes_up(shell, outcome);
        }
        let error = outcome.map(drop).unwrap_err();
        let ErrorKind::Connect(ConnectError { failure, phase, exit, tail, .. }) = error.kind()
        else {
            panic!("{shell}: {error}")
        };
        assert_eq!((failure, phase), (&ConnectFailure::Ended, &Phase::Login), "{shell}: {error}");
        assert_eq!(*exit, Some(Exit::Code(3)), "{shell}: {error}");
        assert!(tail.contains("no entry today"), "{shell}: {error}");
        let text = error.to_string();
        assert!(text.contains("exit status 3") && text.contains("no entry today"), "{text}");
    });
}
