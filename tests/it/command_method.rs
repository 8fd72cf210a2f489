//! Method `command`: tools of this machine that the library knows nothing of.

use std::time::Duration;

use mitogen::error::{ConnectError, ConnectFailure, ErrorKind, Phase};
use mitogen::{Context, Program, Result, Router, stock};

use crate::support::*;

#[track_caller]
fn with_child(test: impl FnOnce(&Router, &Context) + Send) {
    leaves_nothing(&[], || {
        let router = Program::new().image(stock_image()).router().unwrap();
        let child = router.local().connect().unwrap();
        test(&router, &child);
        drop((router, child));
        assert_nothing_is_left();
    });
}

#[track_caller]
fn failed(outcome: Result<Context>) -> ConnectError {
    let error = outcome.map(|_| "a context").unwrap_err();
    let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
    error.clone()
}

/// What a shell command prints in a context.
#[track_caller]
fn prints(router: &Router, context: &Context, command: &str) -> String {
    let argv = ["sh", "-c", command].map(Into::into).to_vec();
    let output = router.receiver();
    context.call(stock::run, (stock::Command { argv }, output.to_sender())).unwrap();
    let said = output.into_iter().map(|piece| match piece.unwrap() {
        stock::Output::Stdout(bytes) | stock::Output::Stderr(bytes) => bytes,
    });
    String::from_utf8(said.collect::<Vec<_>>().concat()).unwrap()
}

#[test]
fn a_line_for_a_shell_or_the_words_of_a_command_are_added() {
    with_child(|router, child| {
        for via in [false, true] {
            let line = router.command(["env", "MARK=a b", "sh", "-c"]);
            let line = if via { line.via(child) } else { line }.connect().unwrap();
            assert_eq!(prints(router, &line, "echo \"$MARK\""), "a b\n");
        }
        let words = router.command(["env", "-i", "PATH=/usr/bin:/bin", "MARK=c"]).shell_words(true);
        let words = words.connect().unwrap();
        assert_eq!(prints(router, &words, "echo $MARK $USER"), "c\n");
        let name = "command:env%20-i%20PATH=%2Fusr%2Fbin%3A%2Fbin%20MARK=c?shell_words=yes";
        assert_eq!(words.name(), name);

        for text in [
            "command:env MARK=d sh -c",
            "local/command:env MARK=d?shell_words=yes",
            "command?argv=/usr/bin/env MARK=d /bin/sh -c/local",
        ] {
            let context = router.connect(&text.parse().unwrap()).unwrap();
            assert_eq!(prints(router, &context, "echo $MARK"), "d\n", "{text}");
        }
    });
}

#[test]
fn other_roots_and_namespaces_are_reached() {
    if !requires(&[Need::Root, Need::NetworkNamespaces]) {
        return;
    }
    with_child(|router, child| {
        let words =
            ["unshare", "--uts", "--net", "sh", "-c", "hostname elsewhere; exec \"$@\"", "sh"];
        let context = router.command(words).shell_words(true).via(child).connect().unwrap();
        assert_eq!(context.call(stock::identify, ()).unwrap().host, "elsewhere");
        let pid = context.call(stock::identify, ()).unwrap().pid;
        let inner = format!("nsenter -t {pid} -u --");
        let inner = router.command(inner.split(' ')).shell_words(true).connect().unwrap();
        assert_eq!(inner.call(stock::identify, ()).unwrap().host, "elsewhere");
    });
}

#[test]
fn a_tool_asks_for_its_password_at_a_terminal() {
    with_child(|router, child| {
        let folder = tempfile::tempdir().unwrap();
        let text = "exec 3<>/dev/tty\n\
                    printf 'Passphrase or password of the vault: ' >&3\n\
                    read -r said <&3; echo >&3\n\
                    [ \"$said\" = 'right horse' ] || { echo 'no entry' >&2; exit 7; }\n\
                    [ -t 0 ] && exit 8\n\
                    exec sh -c \"$1\"";
        let tool = script(folder.path(), "vault", text);
        let command = || router.command([&tool]);
        let context = command().password("right horse").via(child).connect().unwrap();
        assert_eq!(prints(router, &context, "echo in"), "in\n");

        let error = failed(command().password("wrong horse").connect());
        assert!(error.tail.contains("no entry"), "{error}");
        assert!(!error.to_string().contains("horse"), "{error}");
        let error = failed(command().connect());
        assert!(error.tail.contains("/dev/tty"), "{error}");
        assert_eq!(error.phase, Phase::Login, "{error}");
        let error = failed(command().terminal(true).connect());
        assert_eq!(error.failure, ConnectFailure::PasswordRequired, "{error}");
    });
}

#[test]
fn banners_are_skipped_and_failures_told() {
    with_child(|router, child| {
        let banner =
            ["sh", "-c", "echo Welcome; echo Last login: never >&2; exec \"$0\" -c \"$1\"", "sh"];
        let context = router.command(banner).connect().unwrap();
        assert_eq!(prints(router, &context, "echo in"), "in\n");

        let error = failed(router.command(["no-such-tool", "-c"]).via(child).connect());
        assert_eq!(error.failure, ConnectFailure::NoTool("no-such-tool".to_owned()), "{error}");
        assert!(error.hop.starts_with("local/command:no-such-tool"), "{error}");
        let error =
            failed(router.command(["sh", "-c", "echo Who are you? >&2; exit 3", "x"]).connect());
        assert!(error.failure == ConnectFailure::Ended && error.tail.contains("Who"), "{error}");
        let empty = tempfile::tempdir().unwrap();
        let path = format!("PATH={}", empty.path().display());
        let without = router.command(["/usr/bin/env", &path]).shell_words(true);
        assert_eq!(failed(without.connect()).failure, ConnectFailure::NoShell);
        let short = Duration::from_millis(300);
        let deaf = router.command(["sh", "-c", "exec sleep 1000", "x"]).connect_timeout(short);
        assert_eq!(failed(deaf.connect()).failure, ConnectFailure::Timeout);
    });
}
