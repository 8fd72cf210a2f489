//! The test hosts themselves: each real target works before anything of ours is tried on it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::*;

#[test]
fn ssh_lets_a_key_in() {
    let _company = beside_others();
    if !requires(&[Need::Root, Need::Sshd]) {
        return;
    }
    let (sshd, user) = (Sshd::start(), TestUser::create(None));
    let said = run(sshd.ssh(&user.name).arg("id -un"));
    assert_eq!(said.trim(), user.name);
    assert!(sshd.log().contains("Accepted publickey"), "{}", sshd.log());
}

#[test]
fn ssh_lets_a_password_in_where_it_was_asked_to() {
    let _company = beside_others();
    if !requires(&[Need::Root, Need::Sshd]) {
        return;
    }
    let (sshd, user) = (Sshd::with_passwords(), TestUser::create(Some("right horse")));
    let folder = tempfile::tempdir().unwrap();
    let helper = folder.path().join("askpass");
    let ask = |password: &str| {
        fs::write(&helper, format!("#!/bin/sh\necho '{password}'\n")).unwrap();
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o700)).unwrap();
        let mut command = sshd.ssh(&user.name);
        command.env("SSH_ASKPASS", &helper).env("SSH_ASKPASS_REQUIRE", "force");
        command.args(["-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1", "true"]);
        command.stdin(Stdio::null()).output().unwrap()
    };
    let (right, wrong) = (ask("right horse"), ask("wrong horse"));
    assert!(right.status.success(), "{}", told(&right));
    assert_eq!(wrong.status.code(), Some(255), "{}", told(&wrong));
}

#[test]
fn a_container_of_docker_runs_without_a_network_and_ends() {
    let _alone = alone();
    if !requires(&[Need::Root, Need::Docker]) {
        return;
    }
    let docker = Docker::shared();
    assert!(std::sync::Arc::ptr_eq(&docker, &Docker::shared()));
    let name = docker.container();
    assert_eq!(docker.containers(), [&*name]);
    assert_eq!(docker.ask(&["exec", "-u", WORKER, &name, "id", "-u"]), WORKER_UID.to_string());
    assert_eq!(docker.ask(&["exec", &name, "ls", "/sys/class/net"]), "lo");
    let pid = docker.pid(&name);
    let folder = docker.folder().file_name().unwrap().to_str().unwrap().to_owned();
    drop(docker);
    assert_eq!(containers_left(pid, &folder), Vec::<String>::new());
}

#[test]
fn a_container_of_lxc_runs_without_a_network_and_ends() {
    let _alone = alone();
    if !requires(&[Need::Root, Need::Lxc]) {
        return;
    }
    for lxc in [Lxc::start(), Lxc::start_unprivileged()] {
        assert_eq!(lxc.attach(&["id", "-un"]), "root\n");
        assert_eq!(lxc.attach(&["hostname"]).trim(), lxc.name);
        assert_eq!(lxc.attach(&["ls", "/sys/class/net"]), "lo\n");
        let (pid, name) = (lxc.pid(), lxc.name.clone());
        drop(lxc);
        assert_eq!(containers_left(pid, &name), Vec::<String>::new());
    }
}

/// Processes, mounts, folders and cgroups that a container or its daemon left behind.
fn containers_left(first: u32, name: &str) -> Vec<String> {
    let told = |process: &Process| process.command.contains(name) || process.pid == first;
    let running = processes().into_iter().filter(told).map(|process| format!("{process:?}"));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(name)).map(str::to_owned);
    let folders = run(Command::new("sh").args(["-c", "find /sys/fs/cgroup -type d"]));
    let temporary = run(Command::new("ls").arg(std::env::temp_dir()));
    let folders = format!("{folders}{temporary}");
    let folders = folders.lines().filter(|line| line.contains(name)).map(str::to_owned);
    running.chain(mounts).chain(folders).collect()
}

#[test]
fn sudo_asks_for_the_password_and_takes_it() {
    let _company = beside_others();
    if !requires(&[Need::Root, Need::Sudo]) {
        return;
    }
    let user = TestUser::create(Some("right horse"));
    let _rules = Sudoers::install(&format!("{} ALL=(root) ALL", user.name));
    let ask = |password: &str| {
        let mut command = user.command("sudo");
        command.args(["-S", "-k", "-p", "", "id", "-un"]).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let right = ask("right horse");
    assert_eq!(String::from_utf8_lossy(&right.stdout), "root\n", "{}", told(&right));
    assert!(!ask("wrong horse").status.success());
}

#[test]
fn a_wrong_rule_of_sudo_is_never_installed() {
    let _company = beside_others();
    if !requires(&[Need::Root, Need::Sudo]) {
        return;
    }
    let count = || fs::read_dir("/etc/sudoers.d").unwrap().flatten().filter(is_draft).count();
    assert!(std::panic::catch_unwind(|| Sudoers::install("this is no rule")).is_err());
    assert_eq!(count(), 0);
}

fn is_draft(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().ends_with(".draft")
}

#[test]
fn hosts_leave_nothing_behind() {
    let _alone = alone();
    if !requires(&[Need::Root, Need::Sshd, Need::Sudo]) {
        return;
    }
    let descriptors = own_descriptors();
    let (sshd, user) = (Sshd::start(), TestUser::create(None));
    let rules = Sudoers::install(&format!("{} ALL=(root) NOPASSWD: ALL", user.name));
    let mut session = sshd.ssh(&user.name).arg("exec sleep 1000").spawn().unwrap();
    let sleeps = |uid| processes().iter().any(|p| p.uid == uid && p.command.starts_with("sleep"));
    until(Duration::from_secs(10), || sleeps(user.uid).then_some(())).expect("no session");

    let (name, uid, home) = (user.name.clone(), user.uid, user.home.clone());
    drop((sshd, rules, user));
    session.wait().unwrap();
    assert!(!Command::new("id").arg(&name).output().unwrap().status.success());
    assert!(!home.exists());
    assert!(!processes().iter().any(|process| process.uid == uid));
    assert_eq!(own_descriptors(), descriptors);
    assert_nothing_is_left();
}

#[test]
fn an_agent_and_its_file_are_found() {
    let _alone = alone();
    assert_nothing_is_left();
    let mut agent = Command::new("sleep").arg0("mitogen:x@y:1").arg("1000").spawn().unwrap();
    let file = tempfile::Builder::new().prefix(".mgn-").tempfile_in("/var/tmp").unwrap();
    let found = until(Duration::from_secs(5), || processes_of_ours().pop()).unwrap();
    assert_eq!((found.pid, found.parent), (agent.id(), std::process::id()));
    assert_eq!(files_of_ours(), [file.path()]);
    assert!(std::panic::catch_unwind(assert_nothing_is_left).is_err());
    agent.kill().unwrap();
    agent.wait().unwrap();
    drop(file);
    assert_nothing_is_left();
}

#[test]
fn threads_and_descriptors_of_this_process_are_counted() {
    let _alone = alone();
    let before = own_descriptors().len();
    let file = fs::File::open("/dev/null").unwrap();
    assert_eq!(own_descriptors().len(), before + 1);
    drop(file);
    assert!(
        own_threads().iter().any(|name| name.starts_with("hosts::thre")),
        "{:?}",
        own_threads()
    );
}
