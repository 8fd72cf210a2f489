//! Method `sudo`, by the real one.

use std::time::Duration;

use mitogen::error::{ConnectError, ConnectFailure, ErrorKind, Exit, Phase};
use mitogen::{Context, Error, Program, Router, stock};

use crate::support::*;

/// Runs a test in a context of a user who is in sudoers as `rule` says, which ends when the test
/// does. Nothing is left of it before the user is removed.
#[track_caller]
fn as_user(rule: &str, test: impl FnOnce(&Router, &Context) + Send) {
    leaves_nothing(&[Need::Root, Need::Sudo], || {
        let user = TestUser::create(Some("right horse"));
        let rules = (!rule.is_empty()).then(|| Sudoers::install(&format!("{} {rule}", user.name)));
        let router = Program::new().image(stock_image()).router().unwrap();
        let context = router.sudo().username(&user.name).connect().unwrap();
        assert_eq!(context.call(stock::identify, ()).unwrap().user, user.name);
        test(&router, &context);
        drop((router, context));
        assert_nothing_is_left();
        let of_user = || processes().into_iter().find(|process| process.uid == user.uid);
        let is_clean = until(Duration::from_secs(1), || of_user().is_none().then_some(()));
        assert!(is_clean.is_some(), "left behind: {:?}", of_user());
        drop(rules);
    });
}

#[track_caller]
fn assert_fails(outcome: Result<Context, Error>, expected: ConnectFailure) -> ConnectError {
    let error = outcome.map(|_| "a context").unwrap_err();
    let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
    assert_eq!(error.failure, expected, "{error}");
    assert_eq!(error.phase, Phase::Login, "{error}");
    assert!(error.hop.starts_with("sudo:mgn") && error.hop.contains("/sudo"), "{error}");
    assert!(!error.to_string().contains("horse"), "{error}");
    error.clone()
}

#[test]
fn without_a_password_we_become_another_user_and_back() {
    as_user("ALL=(root,nobody) NOPASSWD: ALL", |router, context| {
        let root = router.sudo().via(context).connect().unwrap();
        let nobody = router.sudo().username("nobody").via(context).connect().unwrap();
        assert_eq!(root.call(stock::identify, ()).unwrap().user, "root");
        assert_eq!(nobody.call(stock::identify, ()).unwrap().user, "nobody");
        let back = router.sudo().username("nobody").via(&root).connect().unwrap();
        assert_eq!(back.call(stock::identify, ()).unwrap().user, "nobody");
    });
}

#[test]
fn the_right_password_lets_us_in() {
    as_user("ALL=(root) ALL", |router, context| {
        let root = router.sudo().via(context).password("right horse").connect().unwrap();
        assert_eq!(root.call(stock::identify, ()).unwrap().user, "root");
    });
}

#[test]
fn a_password_that_is_not_wanted_harms_nothing() {
    as_user("ALL=(root) NOPASSWD: ALL", |router, context| {
        let root = router.sudo().via(context).password("right horse").connect().unwrap();
        assert_eq!(root.call(stock::identify, ()).unwrap().user, "root");
    });
}

#[test]
fn the_wrong_password_is_told() {
    as_user("ALL=(root) ALL", |router, context| {
        let sudo = router.sudo().via(context).password("wrong horse");
        let error = assert_fails(sudo.connect(), ConnectFailure::PasswordWrong);
        assert!(!error.tail.is_empty(), "{error}");
    });
}

#[test]
fn a_password_that_is_wanted_is_told() {
    as_user("ALL=(root) ALL", |router, context| {
        let sudo = router.sudo().via(context);
        let error = assert_fails(sudo.connect(), ConnectFailure::PasswordRequired);
        assert_eq!(error.exit, Some(Exit::Code(1)), "{error}");
        assert!(error.tail.contains("a password is required"), "{error}");
    });
}

#[test]
fn who_is_not_in_sudoers_is_denied() {
    as_user("", |router, context| {
        let sudo = router.sudo().via(context).password("right horse");
        let error = assert_fails(sudo.connect(), ConnectFailure::Denied);
        assert_eq!(error.exit, Some(Exit::Code(1)), "{error}");
        assert!(error.tail.contains("is not in the sudoers file"), "{error}");
    });
}

#[test]
fn a_user_who_does_not_exist_is_denied() {
    as_user("ALL=(ALL) NOPASSWD: ALL", |router, context| {
        let sudo = router.sudo().username("no-such-user").via(context);
        let error = assert_fails(sudo.connect(), ConnectFailure::Denied);
        assert!(error.tail.contains("unknown user"), "{error}");
    });
}
