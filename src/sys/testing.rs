//! For tests of this floor: a test that runs again as a process of its own, to be closed, killed
//! and looked at.

use std::process::Command;

const ROLE: &str = "MITOGEN_SYS_TEST_ROLE";

/// Whether this process was made by [`again`].
pub fn is_again() -> bool {
    std::env::var_os(ROLE).is_some()
}

/// The test of this path in a process of its own, where [`is_again`] holds.
pub fn again(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let test = test.strip_prefix("mitogen::").unwrap_or(test);
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, "1");
    command
}
