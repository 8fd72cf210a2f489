//! A private sshd on loopback with keys of its own; nothing of it is left when it is dropped.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use tempfile::TempDir;

use crate::measure::Outcome;

/// How long it may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The running server.
pub struct Sshd {
    child: Child,
    folder: TempDir,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    /// The only account that its key opens: the one that runs the bench.
    pub username: String,
}

impl Sshd {
    /// A server that takes as many at a time as come.
    pub fn start() -> Outcome<Sshd> {
        Sshd::with("MaxStartups 300\nMaxSessions 300\n")
    }

    /// A server with sshd's own limits.
    pub fn with_limits() -> Outcome<Sshd> {
        Sshd::with("")
    }

    /// Makes keys and a configuration, starts the server and waits until it listens.
    fn with(lines: &str) -> Outcome<Sshd> {
        let folder = TempDir::with_prefix("mitogen-bench-")?;
        for key in ["host", "user"] {
            make_key(&folder.path().join(key))?;
        }
        fs::copy(folder.path().join("user.pub"), folder.path().join("authorized_keys"))?;
        let username = String::from_utf8(Command::new("id").arg("-un").output()?.stdout)?;
        // Asking for port 0 finds one that is free; sshd itself cannot be asked which it got.
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let config = folder.path().join("sshd_config");
        fs::write(&config, configuration(folder.path(), port, lines))?;
        if username.trim() == "root" {
            // sshd as root wants the folder that its package's service would make.
            fs::create_dir_all("/run/sshd")?;
        }
        let child = Command::new("/usr/sbin/sshd")
            .arg("-D")
            .arg("-f")
            .arg(&config)
            .arg("-E")
            .arg(folder.path().join("log"))
            .stdin(Stdio::null())
            .spawn()?;
        let mut sshd = Sshd { child, folder, port, username: username.trim().to_owned() };
        sshd.wait_until_it_listens()?;
        Ok(sshd)
    }

    /// The private key that opens it.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("user")
    }

    /// `ssh host true`, as bare as ssh can be asked.
    pub fn ssh_true(&self) -> Outcome<()> {
        self.run_ssh_true(Command::new("ssh"))
    }

    /// The same so many times, ten at a time.
    pub fn many_ssh_true(&self, count: usize) -> Outcome<()> {
        let mut line = Command::new("sh");
        line.args(["-c", &format!("seq {count} | xargs -P10 -I@ ssh \"$@\""), "sh"]);
        self.run_ssh_true(line)
    }

    /// Runs `ssh`, with its arguments behind those that it has.
    fn run_ssh_true(&self, mut ssh: Command) -> Outcome<()> {
        let status = ssh
            .args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"])
            .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "GlobalKnownHostsFile=/dev/null", "-o", "ControlMaster=no"])
            .arg("-p")
            .arg(self.port.to_string())
            .arg("-i")
            .arg(self.key())
            .arg("-l")
            .arg(&self.username)
            .args(["127.0.0.1", "true"])
            .stdin(Stdio::null())
            .status()?;
        if status.success() { Ok(()) } else { Err(format!("ssh true: {status}").into()) }
    }

    /// Where it is and what opens it, for the scripts.
    pub fn to_json(&self) -> String {
        let (port, username, key) = (self.port, &self.username, self.key());
        let key = key.display();
        format!("{{\"port\": {port}, \"username\": \"{username}\", \"key\": \"{key}\"}}")
    }

    fn wait_until_it_listens(&mut self) -> Outcome<()> {
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if self.child.try_wait()?.is_some() || START_TIMEOUT < start.elapsed() {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(format!("sshd does not listen: {}", log.trim()).into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn make_key(path: &Path) -> Outcome<()> {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .stdin(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("ssh-keygen: {status}").into()) }
}

fn configuration(folder: &Path, port: u16, lines: &str) -> String {
    let folder = folder.display();
    format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n\
         AuthorizedKeysFile {folder}/authorized_keys\nPermitRootLogin prohibit-password\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\n\
         UseDNS no\nPrintMotd no\n{lines}"
    )
}
