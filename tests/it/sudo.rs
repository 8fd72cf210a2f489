//! Method `sudo`, by the real one.

use std::process::Command;
use std::time::{Duration, Instant};

use mitogen::error::{ConnectFailure, Exit};
use mitogen::{Program, Sudo};

use crate::support::*;

/// Runs a test in a context of a user who is in sudoers as `rule` says, with these `Defaults`.
#[track_caller]
fn with_rule(rule: &str, test: impl FnOnce(&Account<'_>) + Send) {
    with_defaults("", rule, test);
}

#[track_caller]
fn with_defaults(defaults: &str, rule: &str, test: impl FnOnce(&Account<'_>) + Send) {
    as_user(&[Need::Sudo], |user| rules(user, defaults, rule), test);
}

fn rules(user: &TestUser, defaults: &str, rule: &str) -> Option<Sudoers> {
    let name = &user.name;
    let mut lines = Vec::new();
    if !defaults.is_empty() {
        lines.push(format!("Defaults:{name} {defaults}"));
    }
    if !rule.is_empty() {
        lines.push(format!("{name} {rule}"));
    }
    (!lines.is_empty()).then(|| Sudoers::install(&lines.join("\n")))
}

/// Root by a password must work here, and without one be refused, and with a wrong one.
#[track_caller]
fn assert_password_counts(account: &Account<'_>) {
    let sudo = || account.router.sudo().via(account.context);
    assert_eq!(who(&sudo().password(PASSWORD).connect().unwrap()), "root");
    assert_refused(sudo().password("wrong horse").connect(), ConnectFailure::PasswordWrong);
    assert_refused(sudo().connect(), ConnectFailure::PasswordRequired);
}

#[test]
fn without_a_password_we_become_another_user_and_back() {
    with_rule("ALL=(root,nobody) NOPASSWD: ALL", |account| {
        let sudo = |name: &str| account.router.sudo().username(name);
        let root = account.router.sudo().via(account.context).connect().unwrap();
        let nobody = sudo("nobody").via(account.context).connect().unwrap();
        assert_eq!((who(&root), who(&nobody)), ("root".into(), "nobody".into()));
        assert_eq!(who(&sudo("nobody").via(&root).connect().unwrap()), "nobody");
    });
}

#[test]
fn directly_we_become_another_user() {
    leaves_nothing(&[Need::Root, Need::Sudo], || {
        let router = Program::new().image(stock_image()).router().unwrap();
        let nobody = router.sudo().username("nobody").connect().unwrap();
        assert_eq!(who(&nobody), "nobody");
        let missing = router.sudo().username("no-such-user").connect();
        assert_refused(missing, ConnectFailure::Denied);
        let tool = router.sudo().sudo_path("/no/such/sudo").connect();
        let error = assert_refused(tool, ConnectFailure::NoTool("/no/such/sudo".into()));
        assert!(error.to_string().contains("/no/such/sudo is not installed"), "{error}");
    });
}

#[test]
fn the_right_password_lets_us_in() {
    with_rule("ALL=(root) ALL", |account| {
        let sudo = account.router.sudo().via(account.context);
        assert_eq!(who(&sudo.password(PASSWORD).connect().unwrap()), "root");
    });
}

#[test]
fn a_password_that_is_not_wanted_harms_nothing() {
    with_rule("ALL=(root) NOPASSWD: ALL", |account| {
        let sudo = account.router.sudo().via(account.context);
        assert_eq!(who(&sudo.password(PASSWORD).connect().unwrap()), "root");
    });
}

#[test]
fn the_wrong_password_is_told() {
    with_rule("ALL=(root) ALL", |account| {
        let sudo = account.router.sudo().via(account.context).password("wrong horse");
        let error = assert_refused(sudo.connect(), ConnectFailure::PasswordWrong);
        assert!(!error.tail.is_empty(), "{error}");
    });
}

#[test]
fn a_password_that_is_wanted_is_told() {
    with_rule("ALL=(root) ALL", |account| {
        let sudo = account.router.sudo().via(account.context);
        let error = assert_refused(sudo.connect(), ConnectFailure::PasswordRequired);
        assert_eq!(error.exit, Some(Exit::Code(1)), "{error}");
        assert!(error.tail.contains("a password is required"), "{error}");
    });
}

#[test]
fn who_is_not_in_sudoers_is_denied() {
    with_rule("", |account| {
        let sudo = account.router.sudo().via(account.context).password(PASSWORD);
        let error = assert_refused(sudo.connect(), ConnectFailure::Denied);
        assert_eq!(error.exit, Some(Exit::Code(1)), "{error}");
        assert!(error.tail.contains("is not in the sudoers file"), "{error}");
    });
}

#[test]
fn a_user_who_does_not_exist_is_denied() {
    with_rule("ALL=(ALL) NOPASSWD: ALL", |account| {
        let sudo = account.router.sudo().username("no-such-user").via(account.context);
        let error = assert_refused(sudo.connect(), ConnectFailure::Denied);
        assert!(error.tail.contains("unknown user"), "{error}");
    });
}

#[test]
fn the_sudoers_files_own_prompt_does_not_matter() {
    let prompt = "passprompt=\"Gib dein Geheimnis ein> \", passprompt_override";
    with_defaults(prompt, "ALL=(root) ALL", assert_password_counts);
}

#[test]
fn stars_for_what_is_typed_do_not_matter() {
    with_defaults("pwfeedback", "ALL=(root) ALL", |account| {
        assert_password_counts(account);
        let sudo = account.router.sudo().via(account.context).password("wrong horse");
        let error = assert_refused(sudo.connect(), ConnectFailure::PasswordWrong);
        assert!(!error.tail.contains('*'), "{error}");
    });
}

#[test]
fn a_terminal_that_sudo_insists_on_is_there() {
    with_defaults("requiretty", "ALL=(root) NOPASSWD: ALL", |account| {
        let sudo = || account.router.sudo().via(account.context);
        assert_refused(sudo().connect(), ConnectFailure::NoTerminal);
        assert_eq!(who(&sudo().tty(true).connect().unwrap()), "root");
        assert_eq!(who(&sudo().password("unused").connect().unwrap()), "root");
    });
    with_defaults("requiretty", "ALL=(root) ALL", |account| {
        let sudo = account.router.sudo().via(account.context);
        assert_eq!(who(&sudo.password(PASSWORD).connect().unwrap()), "root");
    });
}

#[test]
fn a_terminal_of_sudos_own_does_not_matter() {
    with_defaults("use_pty", "ALL=(root) ALL", assert_password_counts);
    with_defaults("use_pty", "ALL=(root) NOPASSWD: ALL", |account| {
        let sudo = account.router.sudo().via(account.context);
        assert_eq!(who(&sudo.connect().unwrap()), "root");
    });
}

#[test]
fn sudo_may_log_what_passes_through_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let defaults = format!("log_output, log_input, iolog_dir={at}, use_pty");
    with_defaults(&defaults, "ALL=(root) ALL", |account| {
        let root = account.router.sudo().via(account.context).password(PASSWORD).connect().unwrap();
        assert_eq!(who(&root), "root");
        // As much as needs many reads on the way.
        let said = prints(account.router, &root, "head -c 1000000 /dev/zero | tr '\\0' x");
        assert_eq!(said.len(), 1_000_000);
    });
}

#[test]
fn the_targets_password_is_typed_if_that_is_wanted() {
    let target = TestUser::create(Some("target horse"));
    let rule = "ALL=(ALL) ALL";
    with_defaults("targetpw", rule, |account| {
        let sudo = || account.router.sudo().username(&target.name).via(account.context);
        assert_eq!(who(&sudo().password("target horse").connect().unwrap()), target.name);
        assert_refused(sudo().password(PASSWORD).connect(), ConnectFailure::PasswordWrong);
    });
}

#[test]
fn sudo_may_speak_other_languages() {
    for locale in ["LC_ALL=es_ES.UTF-8", "LC_ALL=ja_JP.UTF-8"] {
        let needs = [Need::Sudo, Need::Locales];
        let variables = [locale, "LANGUAGE="];
        let prepare = |user: &TestUser| rules(user, "", "ALL=(root) ALL");
        as_user_with(&needs, &variables, prepare, |account| {
            assert_password_counts(account);
            // Even where it does not speak English, its question is known.
            let folder = tempfile::tempdir().unwrap();
            let native = script(folder.path(), "sudo", "unset LANGUAGE\nexec sudo \"$@\"");
            run(Command::new("chmod").arg("755").arg(folder.path()));
            let sudo = || account.router.sudo().sudo_path(&native).via(account.context);
            assert_eq!(who(&sudo().password(PASSWORD).connect().unwrap()), "root");
            let wrong = sudo().password("wrong horse").connect();
            let error = assert_refused(wrong, ConnectFailure::PasswordWrong);
            assert!(!error.tail.contains("try again"), "this is English: {error}");
        });
    }
}

#[test]
fn a_login_shell_and_arguments_in_sudos_own_words_hold() {
    with_rule("ALL=(ALL) NOPASSWD:SETENV: ALL", |account| {
        for shell in ["/bin/sh", "/bin/bash"] {
            let other = TestUser::create(None).with_shell(shell);
            std::fs::write(other.home.join(".profile"), "echo \"hello $USER\"\nexport MARK=$0\n")
                .unwrap();
            let says = |sudo: Sudo| {
                let context = sudo.via(account.context).connect().unwrap();
                assert_eq!(who(&context), other.name);
                prints(account.router, &context, "echo $HOME:$PWD:${MARK:+m}:${LANGUAGE-none}")
            };
            let home = other.home.display();
            let sudo = || account.router.sudo().username(&other.name);
            assert_eq!(says(sudo().login(true)), format!("{home}:{home}:m:none"));
            let sudo = account.router.sudo().sudo_args(["-Hu", &other.name, "-n"]);
            assert!(says(sudo).starts_with(&format!("{home}:/")));
        }
        let refused = account.router.sudo().via(account.context).sudo_args(["-S"]).connect();
        let error = refused.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("-S is not supported"), "{error}");
    });
}

#[test]
fn a_sudo_that_says_nothing_runs_out_of_time() {
    with_rule("", |account| {
        let folder = tempfile::tempdir().unwrap();
        run(Command::new("chmod").arg("755").arg(folder.path()));
        let silent = script(folder.path(), "sudo", "exec sleep 1000");
        let sudo = account.router.sudo().via(account.context).sudo_path(silent);
        let begun = Instant::now();
        let sudo = sudo.password(PASSWORD).connect_timeout(Duration::from_millis(700));
        assert_refused(sudo.connect(), ConnectFailure::Timeout);
        assert!(begun.elapsed() < Duration::from_secs(3));
    });
}
