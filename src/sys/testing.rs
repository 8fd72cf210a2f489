//! For tests of this floor: a test that runs again as a process of its own, to be closed, killed
//! and looked at.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROLE: &str = "MITOGEN_SYS_TEST_ROLE";

/// Whether this process was made by this module.
pub fn is_again() -> bool {
    std::env::var_os(ROLE).is_some()
}

/// Runs the test of this path in a process of its own, where [`is_again`] holds, and which must end
/// by `exit_now(42)`.
#[track_caller]
pub fn ends_well(test: &str) {
    let output = again(test).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(42), "{}", String::from_utf8_lossy(&output.stderr));
}

fn again(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let test = test.strip_prefix("mitogen::").unwrap_or(test);
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, "1");
    command
}

/// Starts the test again, waits until it has written a byte to its stderr, kills it, and waits
/// until everything that holds its stderr has ended.
#[track_caller]
pub fn dies_at_once_with(test: &str) {
    let mut victim = again(test).stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let mut stderr = victim.stderr.take().unwrap();
    stderr.read_exact(&mut [0]).unwrap();
    victim.kill().unwrap();
    let killed = Instant::now();
    stderr.read_to_end(&mut Vec::new()).unwrap();
    assert!(killed.elapsed() < Duration::from_secs(1));
    victim.wait().unwrap();
}

/// Waits for what must come soon. Another test that forks may hold a copy of our descriptors for a
/// moment, so the end of a stream may be late.
#[track_caller]
pub fn soon(mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < give_up);
        std::thread::yield_now();
    }
}
