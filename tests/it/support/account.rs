//! A context of a throwaway account, from which tests become other accounts.

use std::time::Duration;

use mitogen::error::{ConnectError, ConnectFailure, ErrorKind, Phase};
use mitogen::{Context, Error, Program, Router, stock};

use super::{
    Need, TestUser, assert_nothing_is_left, leaves_nothing, processes, stock_image, until,
};

/// The password of the account in [`as_user`].
pub const PASSWORD: &str = "right horse";

/// What a test in [`as_user`] has.
pub struct Account<'a> {
    pub router: &'a Router,
    /// The context, which runs as `user`.
    pub context: &'a Context,
    pub user: &'a TestUser,
}

/// Runs a test in a context of a new user, which ends when the test does; `prepare` makes what
/// lets the user do something, and it is removed afterwards. Nothing is left of it before the
/// user is removed.
#[track_caller]
pub fn as_user<T>(
    needs: &[Need],
    prepare: impl FnOnce(&TestUser) -> T + Send,
    test: impl FnOnce(&Account<'_>) + Send,
) {
    as_user_with(needs, &[], prepare, test);
}

/// The same, with `variables` in the environment of the context.
#[track_caller]
pub fn as_user_with<T>(
    needs: &[Need],
    variables: &[&str],
    prepare: impl FnOnce(&TestUser) -> T + Send,
    test: impl FnOnce(&Account<'_>) + Send,
) {
    leaves_nothing(&[&[Need::Root], needs].concat(), || {
        let user = TestUser::create(Some(PASSWORD));
        let prepared = prepare(&user);
        let router = Program::new().image(stock_image()).router().unwrap();
        let su = router.su().username(&user.name);
        let context = match variables {
            [] => su.connect().unwrap(),
            variables => su.wrapper([&["env"], variables].concat()).connect().unwrap(),
        };
        assert_eq!(who(&context), user.name);
        test(&Account { router: &router, context: &context, user: &user });
        drop((router, context));
        assert_nothing_is_left();
        let of_user = || processes().into_iter().find(|process| process.uid == user.uid);
        let is_clean = until(Duration::from_secs(1), || of_user().is_none().then_some(()));
        assert!(is_clean.is_some(), "left behind: {:?}", of_user());
        drop(prepared);
    });
}

/// The user that a context runs as.
#[track_caller]
pub fn who(context: &Context) -> String {
    context.call(stock::identify, ()).unwrap().user
}

/// Fails unless a login failed, for this reason, without a word of a password.
#[track_caller]
pub fn assert_refused(outcome: Result<Context, Error>, expected: ConnectFailure) -> ConnectError {
    let error = outcome.map(|_| "a context").unwrap_err();
    let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
    assert_eq!(error.failure, expected, "{error}");
    let phase = match expected {
        ConnectFailure::NoTool(_) => Phase::Spawn,
        _ => Phase::Login,
    };
    assert_eq!(error.phase, phase, "{error}");
    assert!(!format!("{error} {error:?}").contains("horse"), "{error}");
    error.clone()
}

/// What a line of shell prints in a context.
#[track_caller]
pub fn prints(router: &Router, context: &Context, line: &str) -> String {
    let argv = ["sh", "-c", line].map(Into::into).to_vec();
    let output = router.receiver();
    let call = context.call_async(stock::run, (stock::Command { argv }, output.to_sender()));
    let mut bytes = Vec::new();
    for piece in output {
        match piece.unwrap() {
            stock::Output::Stdout(piece) | stock::Output::Stderr(piece) => bytes.extend(piece),
        }
    }
    assert_eq!(call.get().unwrap(), stock::Ended::Exited(0));
    String::from_utf8(bytes).unwrap().trim_end().to_owned()
}
