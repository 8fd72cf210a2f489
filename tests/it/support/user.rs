//! A throwaway account.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, iter};

use super::{processes, run, signal, unique, until};

/// A number that no account had before: what an earlier one still had running would count against
/// this one's limits.
fn fresh_uid() -> u32 {
    static FIRST: OnceLock<u32> = OnceLock::new();
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let since_epoch = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = *FIRST.get_or_init(|| since_epoch().subsec_micros() / 25);
    let next = || 20_000 + (first + TAKEN.fetch_add(1, Ordering::Relaxed)) % 40_000;
    // A run that was killed has left its own.
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    iter::repeat_with(next).find(|uid| !accounts.contains(&format!(":{uid}:"))).unwrap()
}

/// An account with a home of its own; gone, with its processes and files, when this is dropped.
pub struct TestUser {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
}

impl TestUser {
    /// Makes one. Without a password it can be entered by key or by root only.
    pub fn create(password: Option<&str>) -> TestUser {
        let name = format!("mgn{}", unique());
        let home = PathBuf::from(format!("/home/{name}"));
        // `*` and not `!`: sshd takes the latter for a locked account, which no key opens.
        let (uid, shell) = (fresh_uid().to_string(), "/bin/sh");
        let uid = ["--uid", &uid];
        let rest = ["--create-home", "--shell", shell, "--password", "*", &name];
        alter(&[&["useradd"], &uid[..], &rest].concat());
        let user = TestUser { uid: id(&name, "-u"), gid: id(&name, "-g"), name, home };
        run(Command::new("chmod").arg("755").arg(&user.home));
        if let Some(password) = password {
            user.set_password(password);
        }
        user
    }

    /// The same, with bash, which reads what `rc` says whenever sshd starts it.
    pub fn with_bash(rc: &str) -> TestUser {
        let user = TestUser::create(None).with_shell("/bin/bash");
        fs::write(user.home.join(".bashrc"), rc).unwrap();
        user
    }

    /// The same user with this login shell.
    pub fn with_shell(self, shell: &str) -> TestUser {
        alter(&["usermod", "--shell", shell, &self.name]);
        self
    }

    fn set_password(&self, password: &str) {
        let mut command = Command::new("chpasswd");
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let line = format!("{}:{password}\n", self.name);
        child.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// A command that this user runs, at home, with an environment of the user's own.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.uid(self.uid).gid(self.gid).current_dir(&self.home).env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin").env("HOME", &self.home);
        command.env("USER", &self.name).env("LOGNAME", &self.name);
        command
    }
}

impl Drop for TestUser {
    fn drop(&mut self) {
        let of_user = |uid| processes().into_iter().filter(move |process| process.uid == uid);
        until(Duration::from_secs(5), || {
            of_user(self.uid).for_each(|process| signal(process.pid, "KILL"));
            of_user(self.uid).next().is_none().then_some(())
        });
        alter(&["userdel", "--remove", "--force", &self.name]);
    }
}

fn id(name: &str, what: &str) -> u32 {
    run(Command::new("id").args([what, name])).trim().parse().unwrap()
}

/// Runs a command that changes the list of users, which only one may do at a time.
fn alter(line: &[&str]) {
    let mut last = String::new();
    let done = until(Duration::from_secs(20), || {
        let output = Command::new(line[0]).args(&line[1..]).output().unwrap();
        last = super::told(&output);
        (output.status.success() || !last.contains("lock")).then_some(output.status.success())
    });
    if done != Some(true) {
        eprintln!("{line:?}: {last}");
    }
}
