//! Method `lxc`, by a container of the test's own.

use std::time::Duration;

use mitogen::error::{ConnectError, ConnectFailure, ErrorKind, Phase};
use mitogen::{Context, Lxc as Method, Program, Result, Router, stock};

use crate::support::*;

/// Runs a test with a running container, in which nothing of ours is left.
#[track_caller]
fn with_container(start: fn() -> Lxc, test: impl FnOnce(&Router, &Lxc) + Send) {
    leaves_nothing(&[Need::Root, Need::Lxc], || {
        let (router, lxc) = (Program::new().image(stock_image()).router().unwrap(), start());
        test(&router, &lxc);
        drop(router);
        assert_nothing_is_left();
        assert_no_tool_is_left(&lxc);
    });
}

#[track_caller]
fn assert_no_tool_is_left(lxc: &Lxc) {
    let is_tool = |one: &Process| one.command.contains(&format!("-n {} --", lxc.name));
    let left = || processes().into_iter().find(is_tool);
    let is_clean = until(Duration::from_secs(1), || left().is_none().then_some(()));
    assert!(is_clean.is_some(), "left behind: {:?}", left());
}

fn in_container(router: &Router, lxc: &Lxc) -> Method {
    router.lxc(&lxc.name).lxc_attach_path(lxc.tool("lxc-attach"))
}

#[track_caller]
fn failed(outcome: Result<Context>) -> ConnectError {
    let error = outcome.map(|_| "a context").unwrap_err();
    let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
    error.clone()
}

#[track_caller]
fn assert_runs(router: &Router, lxc: &Lxc) {
    let context = in_container(router, lxc).connect().unwrap();
    let identity = context.call(stock::identify, ()).unwrap();
    assert_eq!((&*identity.user, &identity.host), ("root", &lxc.name));

    let path = lxc.tool("lxc-attach");
    let text = format!("local/lxc:{}?lxc_attach_path={path}/local", lxc.name);
    let inner = router.connect(&text.parse().unwrap()).unwrap();
    assert_eq!(inner.call(stock::identify, ()).unwrap().host, lxc.name);
    assert_eq!(inner.name(), text);
    context.shutdown().unwrap();
    let files = lxc.attach(&["find", "/", "-xdev", "-name", ".mgn*"]);
    assert_eq!(files, "");
}

#[test]
fn a_context_runs_in_a_container() {
    with_container(Lxc::start, assert_runs);
}

#[test]
fn a_context_runs_in_a_container_with_users_of_its_own() {
    with_container(Lxc::start_unprivileged, assert_runs);
}

#[test]
fn nothing_of_our_environment_goes_into_the_container() {
    with_container(Lxc::start, |router, lxc| {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("export SECRET_OF_TEST=hunter2\nexec {} \"$@\"", lxc.tool("lxc-attach"));
        let tool = script(folder.path(), "lxc-attach", &text);
        let context = router.lxc(&lxc.name).lxc_attach_path(tool).connect().unwrap();
        let argv = ["sh", "-c", "env | grep -c SECRET; exit 0"].map(Into::into).to_vec();
        let output = router.receiver();
        context.call(stock::run, (stock::Command { argv }, output.to_sender())).unwrap();
        let said = output.into_iter().map(Result::unwrap).collect::<Vec<_>>();
        assert_eq!(said, [stock::Output::Stdout(b"0\n".to_vec())]);
    });
}

#[test]
fn each_failure_is_told() {
    with_container(Lxc::start, |router, lxc| {
        let path = lxc.tool("lxc-attach");
        let error = failed(router.lxc("no-such").lxc_attach_path(&path).connect());
        assert_eq!((&error.failure, error.phase), (&ConnectFailure::NoTarget, Phase::Login));

        let error = failed(router.lxc(&lxc.name).lxc_attach_path("/no/such/tool").connect());
        assert_eq!(error.failure, ConnectFailure::NoTool("/no/such/tool".to_owned()), "{error}");

        let folder = tempfile::tempdir().unwrap();
        let text = format!("sleep 1000 | {path} \"$@\"");
        let deaf = script(folder.path(), "lxc-attach", &text);
        let short = Duration::from_millis(500);
        let deaf = router.lxc(&lxc.name).lxc_attach_path(deaf).connect_timeout(short);
        assert_eq!(failed(deaf.connect()).failure, ConnectFailure::Timeout);
        assert_no_tool_is_left(lxc);

        let child = router.local().connect().unwrap();
        lxc.attach(&["rm", "/bin/sh"]);
        let error = failed(in_container(router, lxc).via(&child).connect());
        assert_eq!(error.failure, ConnectFailure::NoShell, "{error}");
        assert!(error.hop.starts_with("local/lxc:") && error.tail.contains("sh"), "{error}");

        lxc.stop();
        let error = failed(in_container(router, lxc).connect());
        assert_eq!(error.failure, ConnectFailure::NoTarget, "{error}");
    });
}
