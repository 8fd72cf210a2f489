//! Method `docker`, by a daemon of the test's own: containers that run, and temporary ones.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mitogen::error::{ConnectError, ConnectFailure, ErrorKind, Exit, Phase};
use mitogen::{Address, Context, Docker as Method, Image, Program, Result, Router, stock};

use crate::support::*;

const HERE: &[Need] = &[Need::Root, Need::Docker];

/// How soon a temporary container must be gone.
const GONE: Duration = Duration::from_secs(10);

fn router() -> Router {
    Program::new().image(stock_image()).router().unwrap()
}

/// Runs a test beside a daemon, at which nothing of ours is left before the daemon ends.
#[track_caller]
fn with_docker(test: impl FnOnce(&Router, &Docker) + Send) {
    leaves_nothing(HERE, || {
        let (router, docker) = (router(), Docker::shared());
        test(&router, &docker);
        drop(router);
        assert_nothing_is_left();
        assert_clients_are_gone(&docker);
    });
}

/// Fails unless, within a second, no client of the daemon is left.
#[track_caller]
fn assert_clients_are_gone(docker: &Docker) {
    let is_clean = until(Duration::from_secs(1), || client(docker).is_none().then_some(()));
    assert!(is_clean.is_some(), "left behind: {:?}", client(docker));
}

/// A client of the daemon that is still there.
fn client(docker: &Docker) -> Option<Process> {
    let socket = socket_of(docker);
    processes().into_iter().find(|one| one.command.contains(&socket) && !is_daemon(one))
}

fn socket_of(docker: &Docker) -> String {
    format!("{}/socket", docker.client().trim_end_matches("/docker"))
}

fn is_daemon(process: &Process) -> bool {
    process.command.contains("--data-root")
}

fn in_container(router: &Router, docker: &Docker, name: &str) -> Method {
    router.docker(name).docker_path(docker.client())
}

#[track_caller]
fn failed(outcome: Result<Context>) -> ConnectError {
    let error = outcome.map(|_| "a context").unwrap_err();
    let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
    error.clone()
}

#[track_caller]
fn assert_fails(outcome: Result<Context>, failure: ConnectFailure, says: &str) -> ConnectError {
    let error = failed(outcome);
    assert_eq!((&error.failure, error.phase), (&failure, Phase::Login), "{error}");
    assert!(error.tail.contains(says), "{error}");
    error
}

#[test]
fn a_context_runs_in_a_container_as_whom_we_want() {
    with_docker(|router, docker| {
        let name = docker.container();
        let context = in_container(router, docker, &name).connect().unwrap();
        let identity = context.call(stock::identify, ()).unwrap();
        assert_eq!(identity.user, "root");
        assert!(name != identity.host && docker.ask(&["ps", "-q"]).starts_with(&identity.host));
        assert_eq!(context.name(), format!("docker:{name}?docker_path={}", docker.client()));

        let worker = in_container(router, docker, &name).username(WORKER).connect().unwrap();
        assert_eq!(worker.call(stock::identify, ()).unwrap().user, WORKER);
        let text = format!("local/docker:{WORKER}@{name}?docker_path={}", docker.client());
        let address: Address = text.parse().unwrap();
        let same = router.connect(&address).unwrap();
        assert_eq!(same.call(stock::identify, ()).unwrap().user, WORKER);
        assert_eq!(same.name(), text);

        for context in [context, worker, same] {
            context.shutdown().unwrap();
        }
        let files = docker.ask(&["exec", &name, "find", "/", "-xdev", "-name", ".mgn*"]);
        assert_eq!(files, "");
    });
}

#[test]
fn the_way_leads_through_ssh_and_sudo() {
    if !requires(&[Need::Sshd, Need::Sudo]) {
        return;
    }
    with_docker(|router, docker| {
        let (sshd, user) = (Sshd::start(), TestUser::create(None));
        let rules = Sudoers::install(&format!("{} ALL=(root) NOPASSWD: ALL", user.name));
        let web = sshd.connect(router, &user).connect().unwrap();
        let root = router.sudo().via(&web).connect().unwrap();
        // Where the client is, only root may look.
        let name = docker.container();
        let app = in_container(router, docker, &name).via(&root).connect().unwrap();
        assert_eq!(app.call(stock::identify, ()).unwrap().user, "root");
        let inner = router.local().via(&app).connect().unwrap();
        assert_ne!(inner.call(stock::identify, ()).unwrap().host, name);
        web.shutdown().unwrap();
        assert_nothing_is_left();
        drop((rules, user));
    });
}

#[test]
fn each_failure_is_told() {
    with_docker(|router, docker| {
        let here = |name: &str| in_container(router, docker, name);
        let error = assert_fails(here("no-such").connect(), ConnectFailure::NoTarget, "No such");
        assert_eq!(error.exit, Some(Exit::Code(1)), "{error}");

        let name = docker.container();
        let nobody = here(&name).username("no-such-user").connect();
        assert_fails(nobody, ConnectFailure::Denied, "unable to find user");

        let child = router.local().connect().unwrap();
        docker.ask(&["pause", &name]);
        let paused = here(&name).via(&child).connect();
        let error = assert_fails(paused, ConnectFailure::NoTarget, "is paused");
        assert!(error.hop.starts_with("local/docker:"), "{error}");
        docker.ask(&["unpause", &name]);

        docker.ask(&["exec", &name, "rm", "/bin/sh"]);
        assert_fails(here(&name).connect(), ConnectFailure::NoShell, "executable file not found");
        docker.ask(&["stop", "-t", "0", &name]);
        assert_fails(here(&name).connect(), ConnectFailure::NoTarget, "is not running");
    });
}

#[test]
fn a_daemon_that_is_not_there_or_does_not_let_us_in_is_told() {
    with_docker(|router, docker| {
        let folder = tempfile::tempdir().unwrap();
        let with = |text: &str| {
            let client = script(folder.path(), "client", text);
            router.docker("app").docker_path(client).connect()
        };
        let nowhere = with("exec docker -H unix:///nonexistent/socket \"$@\"");
        assert_fails(nowhere, ConnectFailure::Unreachable, "daemon");
        let socket = socket_of(docker);
        let open = format!("chmod 711 {}", socket.trim_end_matches("/socket"));
        run(Command::new("sh").args(["-c", &open]));
        let text = format!("exec setpriv --reuid 65534 docker -H unix://{socket} \"$@\"");
        assert_fails(with(&text), ConnectFailure::Denied, "permission denied");

        let error = failed(router.docker("app").docker_path("/no/such/docker").connect());
        assert_eq!(error.failure, ConnectFailure::NoTool("/no/such/docker".to_owned()));
        let error = failed(router.docker("app").docker_path("no-such-docker").connect());
        assert!(error.to_string().contains("no-such-docker"), "{error}");
    });
}

#[test]
fn a_daemon_that_does_not_answer_is_given_up_in_time() {
    with_docker(|router, docker| {
        let name = docker.container();
        let daemon = processes().into_iter().find(is_daemon).unwrap();
        signal(daemon.pid, "STOP");
        let short = Duration::from_millis(500);
        let error = failed(in_container(router, docker, &name).connect_timeout(short).connect());
        let image = router.docker_image(IMAGE).docker_path(docker.client());
        let other = failed(image.connect_timeout(short).connect());
        signal(daemon.pid, "CONT");
        assert_eq!(
            (error.failure, other.failure),
            (ConnectFailure::Timeout, ConnectFailure::Timeout)
        );
        assert_clients_are_gone(docker);
        assert_only(docker, &[&name]);
    });
}

/// Fails unless, soon, these containers are all that there are.
#[track_caller]
fn assert_only(docker: &Docker, names: &[&str]) {
    let is_so = until(GONE, || (docker.containers() == names).then_some(()));
    assert!(is_so.is_some(), "left behind: {}", docker.ask(&["ps", "-a", "--no-trunc"]));
}

fn temporary(router: &Router, docker: &Docker) -> Method {
    router.docker_image(IMAGE).docker_path(docker.client())
}

#[test]
fn a_temporary_container_ends_with_its_context() {
    with_docker(|router, docker| {
        let context = temporary(router, docker).username(WORKER).connect().unwrap();
        assert_eq!(context.call(stock::identify, ()).unwrap().user, WORKER);
        let name = &docker.containers()[0];
        let log = ["inspect", "--format", "{{.HostConfig.LogConfig.Type}}", name];
        assert_eq!(docker.ask(&log), "none");
        context.shutdown().unwrap();
        assert_only(docker, &[]);

        let child = router.local().connect().unwrap();
        let text = format!("local/docker?image={IMAGE}&docker_path={}", docker.client());
        let context = router.connect(&text.parse().unwrap()).unwrap();
        assert_eq!(context.call(stock::identify, ()).unwrap().user, "root");
        drop((child, context));
        router.shutdown();
        assert_only(docker, &[]);
    });
}

#[test]
fn what_is_left_behind_in_a_temporary_container_is_reaped() {
    with_docker(|router, docker| {
        let context = temporary(router, docker).connect().unwrap();
        let argv = ["sh", "-c", "sleep 0.2 & exit 0"].map(Into::into).to_vec();
        let output = router.receiver();
        let ended = context.call(stock::run, (stock::Command { argv }, output.to_sender()));
        assert_eq!(ended.unwrap(), stock::Ended::Exited(0));
        let name = &docker.containers()[0];
        let look = "cat /proc/[0-9]*/status | grep -A2 '^Name:.sleep'; true";
        let sleeper = || docker.ask(&["exec", name, "sh", "-c", look]);
        assert!(sleeper().contains("sleep"), "the test is too slow");
        let is_reaped = until(GONE, || sleeper().is_empty().then_some(()));
        assert!(is_reaped.is_some(), "{}", sleeper());
    });
}

#[test]
fn nothing_is_left_of_a_temporary_container_that_cannot_be_used() {
    with_docker(|router, docker| {
        let name = docker.container();
        docker.ask(&["exec", &name, "rm", "/bin/sh"]);
        docker.ask(&["commit", &name, "without-sh"]);
        docker.ask(&["rm", "-f", &name]);
        let image = |image: &str| router.docker_image(image).docker_path(docker.client());
        assert_fails(image("without-sh").connect(), ConnectFailure::NoShell, "executable file");
        assert_only(docker, &[]);

        let nobody = temporary(router, docker).username("no-such-user").connect();
        assert_fails(nobody, ConnectFailure::Denied, "unable to find user");
        assert_only(docker, &[]);

        // Nobody listens there: no registry is asked.
        let pulled = image("localhost:1/no-such-image").connect();
        assert_fails(pulled, ConnectFailure::Unreachable, "localhost:1");

        let other = Image::embedded("plan9-mips", b"no matter");
        let elsewhere = Program::new().image(other).router().unwrap();
        let error = failed(temporary(&elsewhere, docker).connect());
        assert!(matches!(error.failure, ConnectFailure::NoImage { .. }), "{error}");
        assert_only(docker, &[]);
    });
}

const CLIENT: &str = "MITOGEN_TEST_DOCKER";

/// Not a test: connects to a temporary container, says so, and stays until it is killed.
#[test]
fn program() {
    if let Some(client) = std::env::var_os(CLIENT) {
        let router = router();
        let docker = router.docker_image(IMAGE).docker_path(client.to_str().unwrap());
        let _context = docker.connect().unwrap();
        println!("connected");
        loop {
            std::thread::park();
        }
    }
}

fn start_program(docker: &Docker) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "docker::program", "--test-threads=1", "--nocapture"]);
    command.env(CLIENT, docker.client()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn nothing_is_left_of_a_temporary_container_whose_program_is_killed() {
    with_docker(|_, docker| {
        // A container takes a third of a second to be made, on a daemon that copies the image.
        for delay_ms in [30, 150, 300, 1000] {
            let mut program = start_program(docker);
            std::thread::sleep(Duration::from_millis(delay_ms));
            program.kill().unwrap();
            program.wait().unwrap();
            assert!(until(GONE, || client(docker).is_none().then_some(())).is_some());
            assert_only(docker, &[]);
        }
    });
}

#[test]
fn nothing_is_left_of_a_temporary_container_that_comes_too_late() {
    with_docker(|router, docker| {
        for timeout_ms in [60, 150, 300] {
            let timeout = Duration::from_millis(timeout_ms);
            let outcome = temporary(router, docker).connect_timeout(timeout).connect();
            if let Ok(context) = outcome {
                context.shutdown().unwrap();
            }
            assert!(until(GONE, || client(docker).is_none().then_some(())).is_some());
            assert_only(docker, &[]);
        }
    });
}
