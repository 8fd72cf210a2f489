//! Method `doas`, by the real one.

use std::process::Command;
use std::time::{Duration, Instant};

use mitogen::Program;
use mitogen::error::ConnectFailure;

use crate::support::*;

#[track_caller]
fn with_rule(rule: &str, test: impl FnOnce(&Account<'_>) + Send) {
    let prepare = |user: &TestUser| DoasConf::install(&rule.replace("USER", &user.name));
    as_user(&[Need::Doas], prepare, test);
}

#[test]
fn without_a_password_we_become_another_user_directly_and_from_afar() {
    with_rule("permit nopass USER as nobody\npermit nopass root as nobody", |account| {
        let doas = || account.router.doas().username("nobody");
        assert_eq!(who(&doas().connect().unwrap()), "nobody");
        let nobody = doas().via(account.context).connect().unwrap();
        assert_eq!(who(&nobody), "nobody");
        assert_eq!(prints(account.router, &nobody, "echo ${LANGUAGE-none}"), "none");
        let unused = doas().via(account.context).password("unused").connect().unwrap();
        assert_eq!(who(&unused), "nobody");
    });
}

#[test]
fn a_password_is_typed_and_the_wrong_one_told() {
    with_rule("permit USER as root", |account| {
        let doas = || account.router.doas().via(account.context);
        assert_eq!(who(&doas().password(PASSWORD).connect().unwrap()), "root");
        let wrong = doas().password("wrong horse").connect();
        let error = assert_refused(wrong, ConnectFailure::PasswordWrong);
        assert!(error.tail.contains("Authentication failed"), "{error}");
        let error = assert_refused(doas().connect(), ConnectFailure::PasswordRequired);
        assert!(error.tail.contains("Authentication required"), "{error}");
    });
}

#[test]
fn who_has_no_rule_and_who_does_not_exist_is_denied() {
    with_rule("permit USER as nobody", |account| {
        let doas = || account.router.doas().via(account.context);
        let error = assert_refused(doas().connect(), ConnectFailure::Denied);
        assert!(error.tail.contains("Operation not permitted"), "{error}");
        let missing = doas().username("no-such-user").connect();
        let error = assert_refused(missing, ConnectFailure::Denied);
        assert!(error.tail.contains("unknown user"), "{error}");
        let error = assert_refused(account.router.doas().connect(), ConnectFailure::Denied);
        assert!(error.tail.contains("Operation not permitted"), "{error}");
    });
}

#[test]
fn a_doas_that_is_not_there_or_says_nothing_is_told() {
    leaves_nothing(&[], || {
        let router = Program::new().image(stock_image()).router().unwrap();
        let missing = router.doas().doas_path("no-such-doas").connect();
        let error = assert_refused(missing, ConnectFailure::NoTool("no-such-doas".into()));
        assert!(error.to_string().contains("no-such-doas is not installed"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        run(Command::new("chmod").arg("755").arg(folder.path()));
        let silent = script(folder.path(), "doas", "exec sleep 1000");
        let begun = Instant::now();
        let doas = router.doas().doas_path(silent).password(PASSWORD);
        let timeout = Duration::from_millis(700);
        assert_refused(doas.connect_timeout(timeout).connect(), ConnectFailure::Timeout);
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    });
}
