//! A real sshd on loopback, with a port, keys and a configuration of its own.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use mitogen::{Router, Ssh};
use tempfile::TempDir;

use super::{Need, TestUser, assert_nothing_is_left, leaves_nothing};
use super::{processes, run, signal, unique, until};

/// A running server; it and its sessions end when this is dropped.
pub struct Sshd {
    child: Child,
    folder: TempDir,
    /// Of a server that has rules of its own how people prove who they are.
    rules: Option<PathBuf>,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
}

impl Sshd {
    /// A server that takes the client key of [`Sshd::identity_file`] for every account.
    pub fn start() -> Sshd {
        Sshd::with("PasswordAuthentication no\n")
    }

    /// The same, which takes passwords too.
    pub fn with_passwords() -> Sshd {
        Sshd::with("PasswordAuthentication yes\n")
    }

    /// A server with these further lines of `sshd_config`.
    #[track_caller]
    pub fn with(lines: &str) -> Sshd {
        Sshd::run(lines, Path::new("/usr/sbin/sshd"), None)
    }

    /// A server that asks for nothing but what PAM asks for, by these rules.
    #[track_caller]
    pub fn with_pam(rules: &str) -> Sshd {
        // Its name is that of its rules.
        let name = format!("mitogen-test-{}", unique());
        let (program, path) = (env::temp_dir().join(&name), Path::new("/etc/pam.d").join(&name));
        std::os::unix::fs::symlink("/usr/sbin/sshd", &program).unwrap();
        fs::write(&path, rules).unwrap();
        let lines = "UsePAM yes\nKbdInteractiveAuthentication yes\nPasswordAuthentication no\n\
                     PubkeyAuthentication no\n";
        let sshd = Sshd::run(lines, &program, Some(path));
        fs::remove_file(&program).unwrap();
        sshd
    }

    #[track_caller]
    fn run(lines: &str, program: &Path, rules: Option<PathBuf>) -> Sshd {
        let folder = tempfile::Builder::new().prefix("sshd-of-test-").tempdir().unwrap();
        let path = folder.path();
        // A session reads the list of keys with the rights of its user.
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        make_key(&path.join("host_key"));
        make_key(&path.join("client_key"));
        fs::copy(path.join("client_key.pub"), path.join("authorized_keys")).unwrap();
        // Where the packaged server, which no test needs to have run, would have made it.
        let _ = fs::create_dir_all("/run/sshd");
        for _ in 0..10 {
            let port = free_port();
            fs::write(path.join("config"), config(path, port, lines)).unwrap();
            if let Some(child) = listening(program, path) {
                let key = fs::read_to_string(path.join("host_key.pub")).unwrap();
                let known = format!("[127.0.0.1]:{port} {key}");
                fs::write(path.join("known_hosts"), known).unwrap();
                return Sshd { child, folder, rules, port };
            }
        }
        panic!("sshd does not start:\n{}", read(&path.join("log")));
    }

    /// The private key that every account takes.
    pub fn identity_file(&self) -> PathBuf {
        self.folder.path().join("client_key")
    }

    /// A file with the server's key.
    pub fn known_hosts(&self) -> PathBuf {
        self.folder.path().join("known_hosts")
    }

    /// What the server has said so far.
    pub fn log(&self) -> String {
        read(&self.folder.path().join("log"))
    }

    /// Options by which ssh reaches this server and reads nothing of the user's own.
    pub fn ssh_options(&self) -> Vec<String> {
        let known = format!("UserKnownHostsFile={}", self.known_hosts().display());
        let key = self.identity_file().display().to_string();
        let words = ["-F", "none", "-i", &key, "-o", &known, "-o", "IdentitiesOnly=yes"];
        words.map(String::from).into()
    }

    /// A connection of `router` to this server by its key, with the host's key known.
    pub fn connect(&self, router: &Router, user: &TestUser) -> Ssh {
        self.connect_unknown(router, user).ssh_args([
            "-F",
            "none",
            "-o",
            &format!("UserKnownHostsFile={}", self.known_hosts().display()),
        ])
    }

    /// The same, without what is known of the host's key.
    pub fn connect_unknown(&self, router: &Router, user: &TestUser) -> Ssh {
        let key = self.identity_file().display().to_string();
        let ssh = router.ssh("127.0.0.1").port(self.port).username(&user.name).identity_file(key);
        ssh.ssh_args(["-F", "none"])
    }

    /// The address of this server, for this user.
    pub fn address(&self, user: &TestUser) -> String {
        let (key, known) = (self.identity_file(), self.known_hosts());
        format!(
            "ssh:{}@127.0.0.1:{}?identity_file={}&ssh_args=-F none -o UserKnownHostsFile={}",
            user.name,
            self.port,
            key.display(),
            known.display()
        )
    }

    /// `ssh user@127.0.0.1`, to be followed by the remote command.
    pub fn ssh(&self, user: &str) -> Command {
        let mut command = Command::new("ssh");
        command.args(self.ssh_options()).args(["-o", "StrictHostKeyChecking=yes"]);
        command.arg("-p").arg(self.port.to_string()).arg(format!("{user}@127.0.0.1"));
        command
    }
}

/// Runs a test with a server and a user; nothing of ours is left of it, not even while the server
/// still runs.
#[track_caller]
pub fn with_server(
    make: impl FnOnce() -> Sshd + Send,
    user: impl FnOnce() -> TestUser + Send,
    test: impl FnOnce(&Sshd, &TestUser) + Send,
) {
    leaves_nothing(&[Need::Root, Need::Sshd], || {
        let (sshd, user) = (make(), user());
        test(&sshd, &user);
        assert_nothing_is_left();
        let of_user = || processes().into_iter().find(|process| process.uid == user.uid);
        let is_clean = until(Duration::from_secs(1), || of_user().is_none().then_some(()));
        assert!(is_clean.is_some(), "left behind: {:?}", of_user());
    });
}

impl Drop for Sshd {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("sshd on port {} said:\n{}", self.port, self.log());
        }
        // Sessions outlive the listener, so they are looked up while it is still their parent.
        let mut ended = vec![self.child.id()];
        let mut next = 0;
        while next < ended.len() {
            let parent = ended[next];
            let inner = processes().into_iter().filter(|process| process.parent == parent);
            ended.extend(inner.map(|process| process.pid));
            next += 1;
        }
        ended.iter().for_each(|pid| signal(*pid, "TERM"));
        let _ = self.child.wait();
        if let Some(rules) = &self.rules {
            let _ = fs::remove_file(rules);
        }
    }
}

fn make_key(path: &Path) {
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path));
}

/// Free a moment ago: who uses it must be ready for another to have been quicker.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn config(folder: &Path, port: u16, lines: &str) -> String {
    let folder = folder.display();
    // The first mention of an option counts; of this one the last.
    let startups = if lines.contains("MaxStartups") { "" } else { "MaxStartups 500\n" };
    format!(
        "{lines}{startups}\
         ListenAddress 127.0.0.1:{port}\n\
         HostKey {folder}/host_key\n\
         AuthorizedKeysFile {folder}/authorized_keys\n\
         PidFile none\n\
         StrictModes no\n\
         UsePAM no\n\
         PermitRootLogin yes\n\
         PubkeyAuthentication yes\n\
         KbdInteractiveAuthentication no\n\
         PrintMotd no\n\
         MaxSessions 500\n\
         LogLevel VERBOSE\n"
    )
}

/// The server, as soon as it listens; none if it ended instead.
fn listening(program: &Path, folder: &Path) -> Option<Child> {
    let log = folder.join("log");
    let mut command = Command::new(program);
    command.args(["-D", "-e", "-f"]).arg(folder.join("config")).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    let started = until(Duration::from_secs(20), || {
        let listens = read(&log).contains("Server listening on");
        let ended = child.try_wait().unwrap().is_some();
        (listens || ended).then_some(!ended)
    });
    if started == Some(true) {
        return Some(child);
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
