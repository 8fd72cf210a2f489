//! The real targets that tests reach: a private sshd, throwaway users, sudo's rules; and the
//! checks that nothing is left of them. Whatever is started here is stopped when it is dropped.
#![allow(dead_code, unused_imports)]

mod account;
mod again;
mod built;
mod census;
mod doas_conf;
mod docker;
mod emulator;
mod heap;
pub mod hostile;
mod image;
mod leftovers;
mod lxc;
mod needs;
mod podman;
mod recording;
mod rootfs;
mod sizes;
pub mod scene;
mod sshd;
mod sudoers;
mod tmux;
mod user;
pub mod wire;

pub use account::{Account, PASSWORD, as_user, as_user_with, assert_refused, prints, who};
pub use again::{in_process_of_test, own_kib, switches};
pub use built::{leaver, static_command};
pub use census::{Census, bit, census, group_members, processor_time, stat_field};
pub use doas_conf::DoasConf;
pub use docker::{Docker, IMAGE};
pub use emulator::{Aarch64, two_cpus};
pub use heap::heap;
pub use image::{packed, packed_stock_image, stock_image, stock_image_bytes, stock_image_for};
pub use leftovers::{Process, alone, assert_nothing_is_left, beside_others};
pub use leftovers::{files_of_ours, leaves_nothing, own_descriptors, own_threads};
pub use leftovers::{processes, processes_of_ours};
pub use lxc::Lxc;
pub use needs::{Need, requires};
pub use podman::Podman;
pub use recording::{Recording, hear};
pub use rootfs::{WORKER, WORKER_GID, WORKER_GROUPS, WORKER_UID, make_rootfs};
pub use sizes::Sizes;
pub use sshd::{Sshd, with_server};
pub use sudoers::Sudoers;
pub use tmux::Tmux;
pub use user::TestUser;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A router of this program, and a child, its child, and one of that.
pub fn three_hops(program: mitogen::Program) -> (mitogen::Router, [mitogen::Context; 3]) {
    let router = program.router().unwrap();
    let first = router.local().connect().unwrap();
    let second = router.local().via(&first).connect().unwrap();
    let third = router.local().via(&second).connect().unwrap();
    (router, [first, second, third])
}

/// Looks until `found` gives something; none when the time is over.
pub fn until<T>(limit: Duration, mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = found() {
            return Some(value);
        }
        if end < Instant::now() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command that must end with 0, and returns what it wrote to its stdout.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", told(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How a command ended, and what it said, in one text.
pub fn told(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Sends a signal by its name (`TERM`). A process that is gone is no failure; one that is stopped
/// does nothing more when this returns.
pub fn signal(pid: u32, name: &str) {
    let line = format!("kill -{name} {pid} 2>/dev/null");
    let _ = Command::new("sh").args(["-c", &line]).status();
    if name == "STOP" {
        until(Duration::from_secs(1), || has_stopped(pid).then_some(()));
    }
}

/// Whether every thread of a process is stopped, or gone.
fn has_stopped(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 't', 'Z', 'X']))
    })
}

/// Writes a script that everybody may execute, and returns its path.
pub fn script(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A word that no other test of this machine uses.
pub fn unique() -> String {
    let folder = tempfile::Builder::new().prefix("t").rand_bytes(8).tempdir().unwrap();
    folder.path().file_name().unwrap().to_str().unwrap().to_lowercase()
}
