//! A Docker daemon of a test's own, which shares nothing with one that the machine may run.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::rootfs::{INIT, clean_up, make_rootfs};
use super::{processes, run, script, signal, unique, until};

static SHARED: Mutex<Weak<Docker>> = Mutex::new(Weak::new());

/// A running daemon; it, its containers and its files are gone when this is dropped.
pub struct Docker {
    daemon: Child,
    folder: TempDir,
    client: String,
}

/// The image that every daemon has: see `rootfs.rs`.
pub const IMAGE: &str = "mitogen-test";

impl Docker {
    /// The daemon that the tests of this moment share; the last of them stops it.
    pub fn shared() -> Arc<Docker> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let docker = Arc::new(Docker::start());
            *shared = Arc::downgrade(&docker);
            docker
        })
    }

    #[track_caller]
    fn start() -> Docker {
        let folder = tempfile::Builder::new().prefix("docker-of-test-").tempdir().unwrap();
        let path = folder.path();
        fs::create_dir(path.join("root")).unwrap();
        make_rootfs(&path.join("root"), 0);
        let socket = format!("unix://{}/socket", path.display());
        // Any other daemon's address is of no concern.
        let text = format!("unset DOCKER_HOST DOCKER_CONTEXT\nexec docker -H {socket} \"$@\"");
        let client = script(path, "docker", &text);
        let daemon = daemon(path, &socket);
        let mut docker = Docker { daemon, folder, client };
        let is_up = until(Duration::from_secs(30), || {
            let ended = docker.daemon.try_wait().unwrap().is_some();
            (ended || docker.answers()).then_some(!ended)
        });
        assert_eq!(is_up, Some(true), "dockerd does not start:\n{}", docker.log());
        let pack = "tar -C \"$1/root\" -c . | \"$1/docker\" import - \"$2\"";
        run(Command::new("sh").args(["-ec", pack, "sh"]).arg(docker.folder.path()).arg(IMAGE));
        docker
    }

    fn answers(&self) -> bool {
        let mut command = self.command(&["version"]);
        command.stdin(Stdio::null()).output().unwrap().status.success()
    }

    /// The client that asks this daemon: what `docker_path` is for.
    pub fn client(&self) -> &str {
        &self.client
    }

    /// `docker` with these words.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        command.args(words);
        command
    }

    /// The client's answer, which must be a success.
    #[track_caller]
    pub fn ask(&self, words: &[&str]) -> String {
        run(&mut self.command(words)).trim().to_owned()
    }

    /// A container that runs until this is dropped, without a network.
    #[track_caller]
    pub fn container(&self) -> String {
        self.container_with(&[])
    }

    /// The same, with further options of `docker run`.
    #[track_caller]
    pub fn container_with(&self, options: &[&str]) -> String {
        let name = format!("c{}", unique().replace(|c: char| !c.is_ascii_alphanumeric(), ""));
        let start = ["run", "-d", "--network", "none", "--name", &name];
        self.ask(&[&start[..], options, &[IMAGE, INIT]].concat());
        name
    }

    /// The process of a container that is the first there, as this machine counts.
    pub fn pid(&self, container: &str) -> u32 {
        self.ask(&["inspect", "--format", "{{.State.Pid}}", container]).parse().unwrap()
    }

    /// The containers that there are, stopped ones included.
    pub fn containers(&self) -> Vec<String> {
        let names = self.ask(&["ps", "-a", "--format", "{{.Names}}"]);
        names.lines().map(str::to_owned).collect()
    }

    /// A folder that goes with the daemon.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the daemon has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// Its mounts are its own, and `/run` is empty there: nothing of it outlasts its processes.
fn daemon(folder: &Path, socket: &str) -> Child {
    let text = "mount -t tmpfs tmpfs /run && exec dockerd \"$@\"";
    let option = |name: &str, file: &str| format!("--{name}={}/{file}", folder.display());
    let log = fs::File::create(folder.join("log")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", text, "sh"]);
    command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
    command.args(["--storage-driver=vfs", "--exec-opt=native.cgroupdriver=cgroupfs", "-H", socket]);
    command.arg(option("data-root", "data")).arg(option("exec-root", "exec"));
    command.arg(option("pidfile", "pid")).arg(format!("--cgroup-parent=/{}", name_of(folder)));
    // What a daemon of the machine is told to do is not for this one.
    fs::write(folder.join("daemon.json"), "{}").unwrap();
    command.arg(option("config-file", "daemon.json"));
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    command.env("PATH", path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().unwrap()
}

fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap().to_str().unwrap().to_owned()
}

impl Drop for Docker {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("dockerd said:\n{}", self.log());
        }
        let remove = "ids=$(\"$0\" ps -aq) && [ -z \"$ids\" ] || \"$0\" rm -fv $ids";
        let _ = Command::new("sh").args(["-c", remove, &self.client]).output();
        // Asked to end, it takes seconds; there is nothing left that it would save.
        let inner = processes().into_iter().filter(|one| one.parent == self.daemon.id());
        let inner: Vec<u32> = inner.map(|process| process.pid).collect();
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        inner.iter().for_each(|pid| signal(*pid, "KILL"));
        clean_up(&name_of(self.folder.path()));
    }
}
