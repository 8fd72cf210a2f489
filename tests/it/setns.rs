//! Method `setns`, into real containers of Docker and LXC. LXD and systemd are not here: scripts
//! stand for their tools, which print what those print, of a real container's process.

use std::fs;
use std::time::{Duration, Instant};

use mitogen::error::{Cause, ConnectError, ConnectFailure, ErrorKind, Exit, Phase};
use mitogen::{ContainerKind, Context, Program, Result, Router, Setns, stock};

use crate::support::*;

const DOCKER: &[Need] = &[Need::Root, Need::Docker];
const LXC: &[Need] = &[Need::Root, Need::Lxc];
const SECOND: Duration = Duration::from_secs(1);

fn router() -> Router {
    Program::new().image(stock_image()).router().unwrap()
}

/// What a command in a context prints to its standard output; it must end with 0.
#[track_caller]
fn said(context: &Context, words: &[&str]) -> String {
    let output = context.router().receiver();
    let argv = words.iter().map(Into::into).collect();
    let call = context.call_async(stock::run, (stock::Command { argv }, output.to_sender()));
    let (mut text, mut errors) = (Vec::new(), Vec::new());
    for piece in output {
        match piece.unwrap() {
            stock::Output::Stdout(bytes) => text.extend(bytes),
            stock::Output::Stderr(bytes) => errors.extend(bytes),
        }
    }
    let ended = call.get().unwrap();
    let errors = String::from_utf8_lossy(&errors);
    assert_eq!(ended, stock::Ended::Exited(0), "{words:?}: {errors}");
    String::from_utf8(text).unwrap().trim_end().to_owned()
}

/// Runs a test with a container of Docker, of which nothing is left behind.
#[track_caller]
fn with_docker(test: impl FnOnce(&Router, &Docker, &str) + Send) {
    leaves_nothing(DOCKER, || {
        let docker = Docker::shared();
        let container = docker.container();
        let router = router();
        test(&router, &docker, &container);
        drop(router);
        assert_nothing_is_left();
    });
}

fn setns(router: &Router, docker: &Docker, container: &str) -> Setns {
    router.setns(ContainerKind::Docker, container).docker_path(docker.client())
}

#[track_caller]
fn failed(outcome: Result<Context>, expected: ConnectFailure) -> ConnectError {
    let error = outcome.map(|_| "a context").unwrap_err();
    let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
    assert_eq!(error.failure, expected, "{error}");
    assert!(error.hop.contains("setns:"), "{error}");
    error.clone()
}

#[test]
fn we_are_in_a_container_of_docker() {
    with_docker(|router, docker, container| {
        let context = setns(router, docker, container).connect().unwrap();
        let identity = context.call(stock::identify, ()).unwrap();
        assert_eq!(identity.user, "root");
        assert_eq!(identity.host, docker.ask(&["exec", container, "hostname"]));
        assert!(1 < identity.pid && identity.pid < 100, "{identity:?}");
        assert_eq!(said(&context, &["ls", "/sys/class/net"]), "lo");
        assert_eq!(said(&context, &["cat", "/etc/passwd"]), fs_of(docker, container));
        let namespaces = |pid: &str| {
            let line = format!(
                "for n in ipc uts net pid cgroup mnt user; do readlink /proc/{pid}/ns/$n; done"
            );
            said(&context, &["sh", "-c", &line])
        };
        assert_eq!(namespaces("self"), namespaces("1"));
        assert_eq!(said(&context, &["id", "-G"]), "0 77 79");
        // No more capabilities than Docker gives.
        let capabilities =
            |line: &str| line.lines().find(|line| line.starts_with("CapEff")).unwrap().to_owned();
        let status = docker.ask(&["exec", container, "cat", "/proc/self/status"]);
        assert_eq!(
            capabilities(&said(&context, &["cat", "/proc/self/status"])),
            capabilities(&status)
        );
    });
}

fn fs_of(docker: &Docker, container: &str) -> String {
    docker.ask(&["exec", container, "cat", "/etc/passwd"])
}
