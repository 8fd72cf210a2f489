//! Method `su`, by the real one.

use std::process::Command;
use std::time::{Duration, Instant};

use mitogen::Program;
use mitogen::error::{ConnectFailure, Exit};

use crate::support::*;

fn nothing(_: &TestUser) {}

#[test]
fn root_becomes_anybody_without_a_password() {
    leaves_nothing(&[Need::Root], || {
        let user = TestUser::create(None);
        let router = Program::new().image(stock_image()).router().unwrap();
        let other = router.su().username(&user.name).connect().unwrap();
        assert_eq!(who(&other), user.name);
        assert_eq!(prints(&router, &other, "echo $HOME"), user.home.display().to_string());
        let root = router.su().connect().unwrap();
        assert_eq!(who(&root), "root");
        let again = router.su().username(&user.name).via(&root).connect().unwrap();
        assert_eq!(who(&again), user.name);
    });
}

#[test]
fn an_account_without_a_login_shell_needs_one() {
    leaves_nothing(&[Need::Root], || {
        let router = Program::new().image(stock_image()).router().unwrap();
        let error =
            assert_refused(router.su().username("nobody").connect(), ConnectFailure::NoShell);
        assert!(error.to_string().contains("su can be given one with shell"), "{error}");
        let nobody = router.su().username("nobody").shell("/bin/sh").connect().unwrap();
        assert_eq!(who(&nobody), "nobody");
        let shell = router.su().username("nobody").shell("/no/such/shell").connect();
        assert_refused(shell, ConnectFailure::NoShell);
    });
}

#[test]
fn a_user_who_does_not_exist_is_denied_and_so_is_a_tool_that_does_not() {
    as_user(&[], nothing, |account| {
        for through in [None, Some(account.context)] {
            let su = || match through {
                None => account.router.su(),
                Some(context) => account.router.su().via(context),
            };
            let missing = su().username("no-such-user").password(PASSWORD).connect();
            let error = assert_refused(missing, ConnectFailure::Denied);
            assert!(error.tail.contains("no-such-user does not exist"), "{error}");
            let tool = su().su_path("no-such-su").connect();
            assert_refused(tool, ConnectFailure::NoTool("no-such-su".into()));
        }
    });
}

#[test]
fn a_user_needs_the_others_password() {
    let other = TestUser::create(Some("other horse"));
    as_user(&[], nothing, |account| {
        let su = || account.router.su().username(&other.name).via(account.context);
        let context = su().password("other horse").connect().unwrap();
        assert_eq!(who(&context), other.name);
        // What made the tool speak English is gone; no terminal was taken.
        let said = prints(account.router, &context, "echo ${LANGUAGE-none}; ps -o tty= -p $PPID");
        assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["none", "?"]);
        let error =
            assert_refused(su().password(PASSWORD).connect(), ConnectFailure::PasswordWrong);
        assert_eq!(error.tail.trim(), "su: Authentication failure");
        assert_eq!(error.exit, Some(Exit::Code(1)));
        assert_refused(su().connect(), ConnectFailure::PasswordRequired);
        assert_refused(
            account.router.su().via(account.context).password("x").connect(),
            ConnectFailure::PasswordWrong,
        );
    });
}

#[test]
fn what_is_missing_or_wrong_is_told_long_before_the_time_is_over() {
    let other = TestUser::create(Some("other horse"));
    as_user(&[], nothing, |account| {
        let su = || account.router.su().username(&other.name).via(account.context);
        let begun = Instant::now();
        assert_refused(su().connect(), ConnectFailure::PasswordRequired);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        let folder = tempfile::tempdir().unwrap();
        run(Command::new("chmod").arg("755").arg(folder.path()));
        let silent = script(folder.path(), "su", "exec sleep 1000");
        let su = su().su_path(silent).password("other horse");
        let begun = Instant::now();
        let timeout = Duration::from_millis(700);
        assert_refused(su.connect_timeout(timeout).connect(), ConnectFailure::Timeout);
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    });
}

#[test]
fn su_may_speak_other_languages() {
    let other = TestUser::create(Some("other horse"));
    for locale in ["LC_ALL=es_ES.UTF-8", "LC_ALL=ja_JP.UTF-8"] {
        as_user_with(&[Need::Locales], &[locale, "LANGUAGE="], nothing, |account| {
            let su = || account.router.su().username(&other.name).via(account.context);
            assert_eq!(who(&su().password("other horse").connect().unwrap()), other.name);
            let wrong = su().password("wrong horse").connect();
            assert_refused(wrong, ConnectFailure::PasswordWrong);
            // Where it cannot be made to speak English, its question is known all the same.
            let folder = tempfile::tempdir().unwrap();
            run(Command::new("chmod").arg("755").arg(folder.path()));
            let native = script(folder.path(), "su", "unset LANGUAGE\nexec su \"$@\"");
            let su = || su().su_path(&native);
            assert_eq!(who(&su().password("other horse").connect().unwrap()), other.name);
            assert_refused(su().connect(), ConnectFailure::PasswordRequired);
            let wrong = su().password("wrong horse");
            let error = assert_refused(wrong.connect(), ConnectFailure::Ended);
            assert!(!error.tail.is_ascii(), "this is English: {error}");
            let texts = ["fallo de autenticación", "認証失敗"];
            let wrong = su().password("wrong horse").incorrect_prompts(texts).connect();
            assert_refused(wrong, ConnectFailure::PasswordWrong);
        });
    }
}

#[test]
fn a_prompt_of_ones_own_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let strange = "printf 'Sesam> ' >&2; read -r word; case $word in open*) shift 2; \
                   exec sh \"$@\";; *) echo 'Go away!' >&2; exit 1;; esac";
    let strange = script(folder.path(), "su", strange);
    leaves_nothing(&[], || {
        let router = Program::new().image(stock_image()).router().unwrap();
        let su = || {
            let su = router.su().su_path(&strange).password_prompt("sesam> ");
            su.incorrect_prompts(["go away"])
        };
        // The script has `root -c` before its command.
        let error = su().password("wrong horse").connect();
        assert_refused(error, ConnectFailure::PasswordWrong);
        assert_refused(su().connect(), ConnectFailure::PasswordRequired);
    });
}
