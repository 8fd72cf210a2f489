//! A running LXC container in a folder of a test's own, without a network.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use tempfile::TempDir;

use super::rootfs::{INIT, clean_up, make_rootfs};
use super::{run, script, unique};

/// A container, which ends when this is dropped, and its files with it.
pub struct Lxc {
    folder: TempDir,
    /// What it is called.
    pub name: String,
}

/// Its tools that are told where it is.
const TOOLS: [&str; 3] = ["lxc-attach", "lxc-info", "lxc-stop"];

impl Lxc {
    #[track_caller]
    pub fn start() -> Lxc {
        Lxc::with("", 0)
    }

    /// One whose users are those of this machine from 100,000 on.
    #[track_caller]
    pub fn start_unprivileged() -> Lxc {
        let lines = "lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n";
        Lxc::with(lines, 100_000)
    }

    #[track_caller]
    fn with(lines: &str, shift: u32) -> Lxc {
        let folder = tempfile::Builder::new().prefix("lxc-of-test-").tempdir().unwrap();
        let name = format!("t{}", unique().replace(|c: char| !c.is_ascii_alphanumeric(), ""));
        let home = folder.path().join(&name);
        make_rootfs(&home.join("rootfs"), shift);
        // Who the container's root is must get there.
        run(Command::new("chmod").arg("755").arg(folder.path()).arg(&home));
        fs::write(home.join("config"), config(&home, &name, lines)).unwrap();
        for tool in TOOLS {
            let text = format!("exec {tool} -P {} \"$@\"", folder.path().display());
            script(folder.path(), tool, &text);
        }
        let lxc = Lxc { folder, name };
        let mut start = Command::new("/usr/bin/lxc-start");
        // Found by no path, newuidmap is not asked for leave: root needs none.
        start.env("PATH", "/nowhere").arg("-P").arg(lxc.folder.path());
        let log = lxc.folder.path().join("log");
        start.args(["-n", &lxc.name, "-l", "INFO", "-o"]).arg(&log);
        let output = start.output().unwrap();
        let log = fs::read_to_string(log).unwrap_or_default();
        assert!(output.status.success(), "{}\n{log}", super::told(&output));
        lxc
    }

    /// A tool (`lxc-attach`) that looks where this container is: what `lxc_path` is for.
    #[track_caller]
    pub fn tool(&self, name: &str) -> String {
        assert!(TOOLS.contains(&name), "{name}");
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// What a command in the container writes; it must end with 0.
    #[track_caller]
    pub fn attach(&self, words: &[&str]) -> String {
        let mut command = Command::new(self.tool("lxc-attach"));
        run(command.args(["-n", &self.name, "--"]).args(words))
    }

    /// The container's first process, as this machine counts.
    pub fn pid(&self) -> u32 {
        let mut command = Command::new(self.tool("lxc-info"));
        run(command.args(["-n", &self.name, "-p", "-H"])).trim().parse().unwrap()
    }

    /// Ends what runs in it; it stays there, stopped.
    pub fn stop(&self) {
        let mut command = Command::new(self.tool("lxc-stop"));
        let _ = command.args(["-n", &self.name, "-k"]).output();
    }
}

fn config(home: &Path, name: &str, lines: &str) -> String {
    format!(
        "lxc.rootfs.path = dir:{}/rootfs\n\
         lxc.uts.name = {name}\n\
         lxc.net.0.type = empty\n\
         lxc.init.cmd = {INIT}\n\
         lxc.autodev = 1\n\
         lxc.apparmor.profile = unconfined\n\
         lxc.mount.auto = cgroup:mixed proc:mixed sys:ro\n\
         lxc.mount.entry = shm dev/shm tmpfs defaults,create=dir 0 0\n\
         lxc.cgroup.dir = {name}\n\
         {lines}",
        home.display()
    )
}

impl Drop for Lxc {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("lxc said:\n{log}");
        }
        self.stop();
        clean_up(&self.name);
    }
}
