//! For tests of this floor: a test that runs again as a process of its own, to be closed, killed
//! and looked at.

use std::io::Read;
use std::process::{Command, Output, Stdio};
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
    let output = output(test);
    assert_eq!(output.status.code(), Some(42), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs the test of this path in a process of its own, where [`is_again`] holds.
pub fn output(test: &str) -> Output {
    again(test).stdin(Stdio::null()).output().unwrap()
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

/// Makes the kernel one that has neither pidfds nor `close_range`, for this process and all that it
/// starts.
#[cfg(target_os = "linux")]
pub fn forget_new_calls() {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W};

    const NUMBER: u32 = 0;
    const FIRST_ARGUMENT: u32 = 16;
    let step = |code, k, jt, jf| libc::sock_filter { code: code as u16, jt, jf, k };
    let is = |call: i64, jt, jf| step(BPF_JMP | BPF_JEQ | BPF_K, call as u32, jt, jf);
    let answer = |errno: i32| step(BPF_RET | BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0);
    let mut filter = [
        step(BPF_LD | BPF_W | BPF_ABS, NUMBER, 0, 0),
        is(libc::SYS_pidfd_open, 6, 0),
        is(libc::SYS_close_range, 5, 0),
        is(libc::SYS_clone3, 4, 0),
        is(libc::SYS_clone, 0, 2),
        step(BPF_LD | BPF_W | BPF_ABS, FIRST_ARGUMENT, 0, 0),
        step(BPF_JMP | BPF_JSET | BPF_K, libc::CLONE_PIDFD as u32, 2, 0),
        step(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
        answer(libc::ENOSYS),
        answer(libc::EINVAL),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: takes numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    let flags = libc::SECCOMP_FILTER_FLAG_TSYNC;
    // SAFETY: a program of so many steps, which is copied; it is for every thread.
    let rc = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
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
