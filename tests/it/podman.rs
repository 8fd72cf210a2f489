//! Methods `podman` and `buildah`, by the real tools and a storage of the test's own.

use std::time::Duration;

use mitogen::error::{ConnectError, ConnectFailure, ErrorKind, Phase};
use mitogen::{Context, Program, Result, Router, stock};

use crate::support::*;

/// How soon a temporary container must be gone.
const GONE: Duration = Duration::from_secs(10);

#[track_caller]
fn with_podman(test: impl FnOnce(&Router, &Podman) + Send) {
    leaves_nothing(&[Need::Root, Need::Podman], || {
        let (router, podman) =
            (Program::new().image(stock_image()).router().unwrap(), Podman::new());
        test(&router, &podman);
        drop(router);
        assert_nothing_is_left();
    });
}

#[track_caller]
fn assert_fails(outcome: Result<Context>, failure: ConnectFailure, says: &str) -> ConnectError {
    let error = outcome.map(|_| "a context").unwrap_err();
    let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
    assert_eq!((&error.failure, error.phase), (&failure, Phase::Login), "{error}");
    assert!(error.tail.contains(says), "{error}");
    error.clone()
}

#[test]
fn a_context_runs_in_a_container_of_podman_or_the_failure_is_told() {
    with_podman(|router, podman| {
        let name = podman.container();
        let path = podman.tool("podman");
        let here = |name: &str| router.podman(name).podman_path(&path);
        let context = here(&name).connect().unwrap();
        assert_eq!(context.call(stock::identify, ()).unwrap().user, "root");
        let text = format!("local/podman:{WORKER}@{name}?podman_path={path}/local");
        let worker = router.connect(&text.parse().unwrap()).unwrap();
        assert_eq!(worker.call(stock::identify, ()).unwrap().user, WORKER);
        assert_eq!(worker.name(), text);
        context.shutdown().unwrap();

        assert_fails(here("no-such").connect(), ConnectFailure::NoTarget, "no such container");
        let nobody = here(&name).username("no-such-user").connect();
        assert_fails(nobody, ConnectFailure::Denied, "unable to find user");
        podman.ask("podman", &["exec", &name, "rm", "/bin/sh"]);
        assert_fails(here(&name).connect(), ConnectFailure::NoShell, "not found");
        podman.ask("podman", &["stop", "-t", "0", &name]);
        assert_fails(here(&name).connect(), ConnectFailure::NoTarget, "running containers");
    });
}

#[test]
fn a_temporary_container_of_podman_ends_with_its_context() {
    with_podman(|router, podman| {
        let image = |name: &str| router.podman_image(name).podman_path(podman.tool("podman"));
        let context = image("localhost/mitogen-test").username(WORKER).connect().unwrap();
        assert_eq!(context.call(stock::identify, ()).unwrap().user, WORKER);
        assert_eq!(podman.containers().len(), 1);
        context.shutdown().unwrap();
        let is_gone = || podman.containers().is_empty().then_some(());
        assert!(until(GONE, is_gone).is_some(), "{:?}", podman.containers());

        // However far it has come; a fast machine may be done by then.
        for timeout_ms in [20, 100, 200] {
            let timeout = Duration::from_millis(timeout_ms);
            let late = image("localhost/mitogen-test").connect_timeout(timeout).connect();
            if let Ok(context) = late {
                context.shutdown().unwrap();
            }
        }
        let is_client = |one: &Process| one.command.contains("run --rm");
        let is_over = || (!processes().iter().any(is_client)).then_some(());
        assert!(until(GONE, is_over).is_some());
        assert!(until(GONE, is_gone).is_some(), "{:?}", podman.containers());
    });
}

#[test]
fn a_context_runs_in_a_working_container_of_buildah() {
    with_podman(|router, podman| {
        let path = podman.tool("buildah");
        let name = podman.ask("buildah", &["from", "localhost/mitogen-test"]);
        let here = |name: &str| router.buildah(name).buildah_path(&path);
        let context = here(&name).connect().unwrap();
        assert_eq!(context.call(stock::identify, ()).unwrap().user, "root");
        let child = router.local().connect().unwrap();
        let worker = here(&name).username(WORKER).via(&child).connect().unwrap();
        assert_eq!(worker.call(stock::identify, ()).unwrap().user, WORKER);
        for context in [context, worker] {
            context.shutdown().unwrap();
        }
        assert_fails(here("no-such").connect(), ConnectFailure::NoTarget, "not known");
        let nobody = here(&name).username("no-such-user").connect();
        assert_fails(nobody, ConnectFailure::Denied, "no-such-user");
        podman.ask("buildah", &["run", &name, "--", "rm", "/bin/sh"]);
        assert_fails(here(&name).connect(), ConnectFailure::NoShell, "sh");
    });
}
