//! Tests in a process of their own, whose log and memory are theirs alone.

use std::process::Command;
use std::{env, fs};

use super::{leaves_nothing, told};

/// Tells a test that it runs in a process of its own.
const AGAIN: &str = "MITOGEN_TEST_AGAIN";

/// Runs the test of this name in a process of its own.
#[track_caller]
pub fn in_process_of_test(test: &str, inside: fn()) {
    if env::var_os(AGAIN).is_some() {
        return inside();
    }
    leaves_nothing(&[], || {
        let mut own = Command::new(env::current_exe().unwrap());
        own.args(["--exact", test, "--nocapture"]).env(AGAIN, "1");
        let output = own.env("RUST_BACKTRACE", "0").output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
    });
}

/// KiB that a process has of its own.
#[track_caller]
pub fn own_kib(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Voluntary context switches of the threads of a process, those with this name or all.
pub fn switches(pid: u32, name: Option<&str>) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of_task = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let field = |key| status.lines().find_map(|l| l.strip_prefix(key)).map(str::trim);
        let is_meant = name.is_none_or(|name| field("Name:") == Some(name));
        field("voluntary_ctxt_switches:")?.parse::<u64>().ok().filter(|_| is_meant)
    };
    tasks.filter_map(of_task).sum()
}
