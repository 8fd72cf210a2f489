//! The command over a real sshd and a real sudo, and what is left of it when it ends.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{fs, io};

use serde_json::Value;

use crate::support::*;

/// A server, a user that it lets in, and what lets that user be nobody.
struct Hosts {
    sshd: Sshd,
    user: TestUser,
    _rules: Sudoers,
}

/// The hosts, unless this machine lacks something.
fn hosts() -> Option<Hosts> {
    if !requires(&[Need::Root, Need::Sshd, Need::Sudo]) {
        return None;
    }
    let user = TestUser::create(None);
    let rules = Sudoers::install(&format!("{} ALL=(nobody) NOPASSWD: ALL", user.name));
    Some(Hosts { sshd: Sshd::start(), user, _rules: rules })
}

impl Hosts {
    fn ssh(&self) -> String {
        let (user, port) = (&self.user.name, self.sshd.port);
        let key = self.sshd.identity_file();
        format!(
            "ssh:{user}@127.0.0.1:{port}?identity_file={}&check_host_keys=ignore",
            key.display()
        )
    }

    /// This machine, another one, another user there, and a child of that.
    fn addresses(&self) -> [String; 4] {
        let ssh = self.ssh();
        let sudo = format!("{ssh}/sudo:nobody");
        ["local".to_owned(), ssh, sudo.clone(), format!("{sudo}/local")]
    }
}

fn shipped(subcommand: &str, addresses: &[String]) -> Command {
    let mut command = Command::new(static_command());
    command.arg(subcommand).args(addresses);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn the_right_users_run_it_three_hops_away() {
    let _company = beside_others();
    let Some(hosts) = hosts() else { return };
    let addresses = hosts.addresses();
    let said = run(shipped("run", &addresses).args(["--", "id", "-un"]));
    let users = ["root", &hosts.user.name, "nobody", "nobody"];
    let mut expected: Vec<_> =
        addresses.iter().zip(users).map(|(address, user)| format!("{address}: {user}")).collect();
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort();
    expected.sort();
    assert_eq!(lines, expected);
}

#[test]
fn a_tree_over_ssh_and_sudo_shows_who_is_where() {
    let _company = beside_others();
    let Some(hosts) = hosts() else { return };
    let addresses = [&hosts.addresses()[..], &["local/sudo:nobody".to_owned()]].concat();
    let said = run(shipped("tree", &addresses).arg("--json"));
    let nodes: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(nodes.len(), addresses.len() + 1, "{said}");
    let find = |name: &str| nodes.iter().find(|node| node["name"] == name).unwrap();
    for (address, user) in addresses.iter().zip(["root", &hosts.user.name, "nobody", "nobody"]) {
        assert_eq!(find(address)["user"], user);
    }
    assert_eq!(find(&addresses[3])["parent"], find(&addresses[2])["id"]);
    assert_eq!(find(&addresses[2])["parent"], find(&addresses[1])["id"]);
    let pushed = |at: usize| find(&addresses[at])["pushed_bytes"].as_u64().unwrap();
    assert!(pushed(0) < 100 && 10_000 < pushed(1) && pushed(3) < 1_000, "{said}");
}

#[test]
fn a_dynamic_command_says_why_it_cannot_go_over_ssh_and_serves_sudo() {
    let _company = beside_others();
    let Some(hosts) = hosts() else { return };
    let mut command = Command::new(env!("CARGO_BIN_EXE_mitogen"));
    let output = command.args(["run", &hosts.ssh(), "local/sudo:nobody", "--", "id", "-un"]);
    let output = output.output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "local/sudo:nobody: nobody\n");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("a dynamic executable does not run on other machines"), "{said}");
}

/// A run of something that does not end by itself, everywhere.
struct Endless {
    master: Child,
    /// A word in the arguments of all that it runs.
    mark: String,
}

impl Endless {
    /// Starts it, and waits until all of it runs.
    fn start(addresses: &[String]) -> Endless {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mark = format!("1000.{}{count:03}", std::process::id());
        let mut command = shipped("run", addresses);
        let script = format!("sleep {mark}; true");
        let master = command.args(["--", "sh", "-c", &script]).process_group(0).spawn().unwrap();
        let endless = Endless { master, mark };
        let all = 2 * addresses.len();
        let is_complete = || (endless.commands().len() == all).then_some(());
        until(Duration::from_secs(20), is_complete)
            .unwrap_or_else(|| panic!("{:#?}", endless.commands()));
        endless
    }

    /// What COMMAND is there: the shells and what they started.
    fn commands(&self) -> Vec<Process> {
        let marked = |process: &Process| {
            process.command.contains(&self.mark) && process.pid != self.master.id()
        };
        processes().into_iter().filter(marked).collect()
    }

    /// The agents that this master started, and their guards, by the name that they take.
    fn agents(&self) -> Vec<Process> {
        let end = format!(":{}", self.master.id());
        let is_ours = |command: &str| {
            let name = command.split(' ').next().unwrap_or("");
            name.starts_with("mitogen:") && name.ends_with(&end)
        };
        processes().into_iter().filter(|process| is_ours(&process.command)).collect()
    }

    /// Fails unless within a second nothing is left of it. Returns how the master ended, and what
    /// it printed.
    #[track_caller]
    fn ends(mut self, watched: &[Process]) -> (ExitStatus, String) {
        let left = || {
            let mut left = self.commands();
            left.extend(self.agents());
            let again = processes();
            let is_watched =
                |p: &Process| watched.iter().any(|w| (w.pid, &w.command) == (p.pid, &p.command));
            left.extend(again.into_iter().filter(is_watched));
            left
        };
        let gone = until(Duration::from_secs(1), || left().is_empty().then_some(()));
        assert!(gone.is_some(), "{:#?}", left());
        let mut said = String::new();
        for mut stream in [
            Box::new(self.master.stdout.take().unwrap()) as Box<dyn io::Read>,
            Box::new(self.master.stderr.take().unwrap()),
        ] {
            stream.read_to_string(&mut said).unwrap();
        }
        (self.master.wait().unwrap(), said)
    }
}

/// Everything below a process.
fn below(pid: u32) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    let mut next = vec![pid];
    while let Some(parent) = next.pop() {
        for process in processes().into_iter().filter(|process| process.parent == parent) {
            next.push(process.pid);
            found.push(process);
        }
    }
    found
}

#[test]
fn control_c_ends_everything_everywhere_quietly() {
    let _company = beside_others();
    let Some(hosts) = hosts() else { return };
    let mut addresses = hosts.addresses().to_vec();
    addresses.push("sudo:nobody".to_owned());
    let endless = Endless::start(&addresses);
    // Each has a guard.
    assert_eq!(endless.agents().len(), 2 * addresses.len(), "{:#?}", endless.agents());
    let watched = below(endless.master.id());
    run(Command::new("sh").args(["-c", &format!("kill -INT -{}", endless.master.id())]));
    let (status, said) = endless.ends(&watched);
    assert_eq!((status.signal(), &*said), (Some(2), ""));
}

#[test]
fn a_killed_master_leaves_nothing() {
    let _company = beside_others();
    let Some(hosts) = hosts() else { return };
    let mut addresses = hosts.addresses().to_vec();
    addresses.push("sudo:nobody".to_owned());
    let endless = Endless::start(&addresses);
    let watched = below(endless.master.id());
    signal(endless.master.id(), "KILL");
    let (status, said) = endless.ends(&watched);
    assert_eq!((status.signal(), &*said), (Some(9), ""));
}

/// Tells an agent from its guard.
fn leads_its_group(process: &Process) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
    let group = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(2));
    group == Some(&process.pid.to_string())
}

#[test]
fn a_killed_context_takes_what_it_runs_and_what_is_below() {
    let _company = beside_others();
    let Some(hosts) = hosts() else { return };
    let addresses = hosts.addresses();
    let endless = Endless::start(&addresses);
    let watched = below(endless.master.id());
    let agents: Vec<Process> = endless.agents().into_iter().filter(leads_its_group).collect();
    assert_eq!(agents.len(), addresses.len(), "{agents:#?}");
    agents.iter().for_each(|agent| signal(agent.pid, "KILL"));
    let (status, said) = endless.ends(&watched);
    assert_eq!(status.code(), Some(255), "{said}");
    for address in addresses {
        assert!(said.contains(&format!("mitogen: {address}: context ")), "{said}");
    }
}
