//! Tests of `spawn`, which are longer than it.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::errno::Errno;
use super::spawn::{Program, Spawn, SpawnError, Step, spawn};
use super::thread::SignalsBlocked;
use super::wait::Process;
use super::{fd, host, limit, memfd, pipe, poll, pty, signal, testing};
use crate::error::Exit;

fn strings(texts: &[&str]) -> Vec<CString> {
    texts.iter().map(|text| CString::new(*text).unwrap()).collect()
}

/// Runs `script` with what `change` makes of the defaults: what it wrote to its stdout, and how
/// it ended.
#[track_caller]
fn sh(script: &str, change: impl FnOnce(&mut Spawn<'_>)) -> (String, Exit) {
    let argv = strings(&["sh", "-c", script]);
    run(Spawn::new(Program::Search(c"sh"), &argv, [fd::stdin(); 3]), change)
}

#[track_caller]
fn run(base: Spawn<'_>, change: impl FnOnce(&mut Spawn<'_>)) -> (String, Exit) {
    let null = fd::open_null().unwrap();
    let (read, write) = pipe::pipe().unwrap();
    let mut plan =
        Spawn { stdin: null.as_fd(), stdout: write.as_fd(), stderr: fd::stderr(), ..base };
    change(&mut plan);
    let mut child = spawn(&plan).unwrap();
    drop(write);
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    (text, child.wait().unwrap())
}

#[track_caller]
fn fails(plan: Spawn<'_>, step: Step, errno: Errno) {
    assert_eq!(spawn(&plan).unwrap_err(), SpawnError { step, errno });
}

#[test]
fn a_child_ends_with_its_code_or_its_signal() {
    assert_eq!(sh("exit 7", |_| ()).1, Exit::Code(7));
    assert_eq!(sh("kill -9 $$", |_| ()).1, Exit::Signal(signal::KILL));
}

#[test]
fn a_child_lives_until_it_is_killed_and_is_not_signalled_after() {
    let argv = strings(&["sleep", "1000"]);
    let stdio = [fd::stdin(), fd::stdout(), fd::stderr()];
    let plan = Spawn::new(Program::Search(c"sleep"), &argv, stdio);
    let mut child = spawn(&Spawn { group: true, ..plan }).unwrap();
    assert_eq!(child.try_wait(), Ok(None));
    child.kill_group(signal::TERM).unwrap();
    let pidfd = child.share_pidfd().unwrap();
    let ended = [pidfd.as_fd()];
    assert_eq!(poll::sleep(&ended, None), Ok(1));
    assert_eq!(child.try_wait(), Ok(Some(Exit::Signal(signal::TERM))));
    assert_eq!(child.try_wait(), Ok(Some(Exit::Signal(signal::TERM))));
    assert_eq!(child.kill(signal::TERM), Err(Errno::SRCH));
    assert_eq!(child.kill_group(signal::TERM), Err(Errno::SRCH));
}

#[test]
fn a_failure_names_its_step_and_leaves_no_child() {
    let folder = tempfile::tempdir().unwrap();
    let path = CString::new(folder.path().join("plain").to_str().unwrap()).unwrap();
    std::fs::write(folder.path().join("plain"), "no program").unwrap();
    let file = fd::open_read(&path).unwrap();
    let argv = strings(&["x"]);
    let plan = |program| Spawn::new(program, &argv, [fd::stdin(), fd::stdout(), fd::stderr()]);
    fails(plan(Program::Search(c"/no/such")), Step::Exec, Errno::NOENT);
    fails(plan(Program::Search(c"no-such-program")), Step::Exec, Errno::NOENT);
    fails(plan(Program::Search(c"")), Step::Exec, Errno::NOENT);
    fails(plan(Program::Search(&path)), Step::Exec, Errno::ACCES);
    fails(plan(Program::Fd(file.as_fd())), Step::Exec, Errno::ACCES);
    let good = plan(Program::Search(c"true"));
    fails(Spawn { cwd: Some(c"/no/such"), ..good }, Step::Directory, Errno::NOENT);
    fails(Spawn { terminal: Some(file.as_fd()), ..good }, Step::Terminal, Errno(libc::ENOTTY));
    // SAFETY: no such descriptor is open, which is what is tested.
    let closed = unsafe { BorrowedFd::borrow_raw(1_000_000) };
    fails(Spawn { stdout: closed, ..good }, Step::Stdio, Errno(libc::EBADF));
}

#[test]
fn the_child_has_three_descriptors_whatever_the_parent_left_open() {
    let leak = fd::open_null().unwrap();
    fd::set_cloexec(leak.as_fd(), false).unwrap();
    let high = fd::dup_above(leak.as_fd(), 500).unwrap();
    fd::set_cloexec(high.as_fd(), false).unwrap();
    // `ls` itself has the folder open as 3.
    assert_eq!(sh("exec ls /proc/self/fd", |_| ()).0, "0\n1\n2\n3\n");
}

#[test]
fn an_old_kernel_starts_closes_and_waits_all_the_same() {
    if testing::is_again() {
        testing::forget_new_calls();
        let leak = fd::open_null().unwrap();
        let high = [300, 511, 512, 1000].map(|min| fd::dup_above(leak.as_fd(), min).unwrap());
        for fd in &high {
            fd::set_cloexec(fd.as_fd(), false).unwrap();
        }
        assert_eq!(sh("exec ls /proc/self/fd", |_| ()).0, "0\n1\n2\n3\n");
        let argv = strings(&["sh", "-c", "sleep 0.05; exit 3"]);
        let stdio = [fd::stdin(), fd::stdout(), fd::stderr()];
        let mut child = spawn(&Spawn::new(Program::Search(c"sh"), &argv, stdio)).unwrap();
        assert!(child.pidfd().is_none());
        assert_eq!(child.wait_timeout(Duration::from_millis(1)), Ok(None));
        assert_eq!(child.wait_timeout(Duration::from_secs(9)), Ok(Some(Exit::Code(3))));
        let numbers = high.map(|fd| fd.into_raw_fd());
        fd::close_from(301, &[512]);
        assert_eq!(numbers.map(fd::is_open), [true, false, true, false]);
        // No more may be looked at by one call than the limit says.
        limit::set(limit::Nofile { soft: 310, hard: 310 }).unwrap();
        fd::close_from(3, &[]);
        assert_eq!(numbers.map(fd::is_open), [false, false, true, false]);
        signal::exit_now(42);
    }
    let test = concat!(module_path!(), "::an_old_kernel_starts_closes_and_waits_all_the_same");
    testing::ends_well(test);
}

#[test]
fn the_mode_of_the_given_descriptors_is_untouched() {
    let (ours, theirs) = pipe::socketpair().unwrap();
    let (_, exit) = sh("cat <&0 >/dev/null", |plan| {
        // SAFETY: `theirs` lives until the end of this test.
        plan.stdin = unsafe { BorrowedFd::borrow_raw(theirs.as_raw_fd()) };
        fd::write_all(ours.as_fd(), b"x").unwrap();
        drop(ours);
    });
    assert_eq!(exit, Exit::Code(0));
    assert!(!fd::is_nonblocking(theirs.as_fd()).unwrap());
    assert!(fd::is_cloexec(theirs.as_fd()).unwrap());
}

#[test]
fn a_session_has_the_terminal_it_was_given() {
    let terminal = pty::open_pty().unwrap();
    let script = "cut -d' ' -f1,5,6,8 /proc/$$/stat; echo $$; echo hello >/dev/tty; tty <&2";
    let (text, exit) = sh(script, |plan| {
        // SAFETY: the terminal lives until the end of this test.
        let follower = unsafe { BorrowedFd::borrow_raw(terminal.follower.as_raw_fd()) };
        plan.terminal = Some(follower);
        plan.stderr = follower;
    });
    assert_eq!(exit, Exit::Code(0));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], [lines[1]; 4].join(" "));
    let mut said = [0; 64];
    assert_eq!(fd::read(terminal.leader.as_fd(), &mut said), Ok(7));
    assert_eq!(&said[..7], b"hello\r\n");
    let group = sh("cut -d' ' -f5,6 /proc/$$/stat; echo $$", |plan| plan.group = true).0;
    let fields: Vec<&str> = group.split_whitespace().collect();
    assert_eq!(fields[0], fields[2]);
    assert_ne!(fields[1], fields[2]);
}

#[test]
fn signals_have_their_defaults_and_none_is_blocked() {
    signal::ignore_pipe();
    let blocked = SignalsBlocked::new();
    let (text, _) = sh("while read a b; do echo $a $b; done </proc/$$/status", |_| ());
    drop(blocked);
    // The C library keeps two for itself: 32 and 33.
    let ours = !(3 << 31);
    for name in ["SigBlk: ", "SigIgn: "] {
        let mask = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        assert_eq!(u64::from_str_radix(mask, 16).unwrap() & ours, 0, "{text}");
    }
}

#[test]
fn environment_directory_and_limits_are_as_asked_for() {
    let say = "echo ${EXTRA-none} $(pwd) $(ulimit -n)";
    let extra = strings(&["EXTRA=1", "HOME=/h"]);
    let (text, _) = sh(say, |plan| {
        plan.cwd = Some(c"/usr");
        plan.nofile = Some(limit::Nofile { soft: 77, hard: 99 });
    });
    assert_eq!(text, "none /usr 77\n");
    let argv = strings(&["sh", "-c", "echo $EXTRA $HOME ${PATH:+path}"]);
    let base = Spawn::new(Program::Search(c"sh"), &argv, [fd::stdin(); 3]);
    assert_eq!(run(Spawn { env: &extra, ..base }, |_| ()).0, "1 /h path\n");
}

#[test]
fn a_raised_limit_on_descriptors_is_ours_alone() {
    if testing::is_again() {
        let login = limit::Nofile { soft: 77, hard: 99 };
        limit::set(login).unwrap();
        limit::raise_nofile().unwrap();
        limit::raise_nofile().unwrap();
        assert_eq!(limit::nofile().unwrap(), limit::Nofile { soft: 99, ..login });
        assert_eq!(sh("ulimit -S -n; ulimit -H -n", |_| ()).0, "77\n99\n");
        signal::exit_now(42);
    }
    testing::ends_well(concat!(module_path!(), "::a_raised_limit_on_descriptors_is_ours_alone"));
}

#[test]
fn a_program_in_memory_runs() {
    let image = memfd::memfd(c"image").unwrap();
    fd::write_all(image.as_fd(), &std::fs::read("/bin/echo").unwrap()).unwrap();
    let argv = strings(&["echo", "from memory"]);
    let base = Spawn::new(Program::Fd(image.as_fd()), &argv, [fd::stdin(); 3]);
    assert_eq!(run(base, |_| ()), ("from memory\n".to_owned(), Exit::Code(0)));
}

#[test]
fn a_large_limit_on_descriptors_costs_next_to_nothing() {
    if testing::is_again() {
        // A million, or as many as we may have.
        let million = limit::Nofile { soft: 1_000_000, hard: 1_000_000 };
        if limit::set(million).is_err() {
            let hard = limit::nofile().unwrap().hard;
            limit::set(limit::Nofile { soft: hard, hard }).unwrap();
        }
        let once = |_| {
            let begun = Instant::now();
            assert_eq!(sh(":", |_| ()).1, Exit::Code(0));
            begun.elapsed()
        };
        // The quickest: the machine may have other things to do.
        let start = || (0..20).map(once).min().unwrap_or_default();
        assert!(start() < Duration::from_millis(5), "{:?}", start());
        testing::forget_new_calls();
        assert!(start() < Duration::from_millis(200), "{:?}", start());
        signal::exit_now(42);
    }
    testing::ends_well(concat!(
        module_path!(),
        "::a_large_limit_on_descriptors_costs_next_to_nothing"
    ));
}

/// Starts a `sleep` that dies with us and holds `tie`.
fn sleeper(tie: BorrowedFd<'_>) -> Process {
    let argv = strings(&["sleep", "1000"]);
    let plan = Spawn::new(Program::Search(c"sleep"), &argv, [fd::stdin(), tie, fd::stderr()]);
    spawn(&Spawn { die_with_parent: true, ..plan }).unwrap()
}

#[test]
fn a_child_dies_with_the_thread_that_started_it() {
    let (read, write) = pipe::pipe().unwrap();
    let (send, receive) = mpsc::channel();
    let starter = std::thread::spawn(move || {
        let child = sleeper(write.as_fd());
        drop(write);
        receive.recv().unwrap();
        child
    });
    assert_eq!(fd::read_nowait(read.as_fd(), &mut [0; 1]), Err(Errno::AGAIN));
    send.send(()).unwrap();
    let mut child = starter.join().unwrap();
    assert_eq!(fd::read(read.as_fd(), &mut [0; 1]), Ok(0));
    assert_eq!(child.wait(), Ok(Exit::Signal(signal::KILL)));
}

#[test]
fn a_child_dies_with_a_process_that_is_killed() {
    if testing::is_again() {
        let _child = sleeper(fd::stderr());
        fd::write_all(fd::stderr(), b"x").unwrap();
        loop {
            std::thread::park();
        }
    }
    let test = concat!(module_path!(), "::a_child_dies_with_a_process_that_is_killed");
    testing::dies_at_once_with(test);
}

#[test]
fn a_parent_without_standard_descriptors_can_start_a_child() {
    if testing::is_again() {
        let (read, write) = pipe::pipe().unwrap();
        let null = fd::open_null().unwrap();
        for number in 0..3 {
            // SAFETY: nobody else uses them in this process from here on.
            unsafe { libc::close(number) };
        }
        // The child's stdin is our 1, its stdout our 0: both must move out of the way first.
        fd::dup_onto(write.as_fd(), 0).unwrap();
        fd::dup_onto(null.as_fd(), 1).unwrap();
        drop(write);
        let argv = strings(&["sh", "-c", "read x; echo got:$x:"]);
        let plan = Spawn::new(Program::Search(c"sh"), &argv, [fd::stdin(); 3]);
        let plan = Spawn { stdin: fd::stdout(), stdout: fd::stdin(), ..plan };
        let exit = spawn(&plan).and_then(|mut child| {
            child.wait().map_err(|errno| SpawnError { step: Step::Parent, errno })
        });
        let mut said = [0; 64];
        let n = fd::read(read.as_fd(), &mut said).unwrap_or(0);
        fd::fill_missing_stdio().unwrap_or_else(|_| signal::exit_now(3));
        if !fd::is_open(2) {
            signal::exit_now(4);
        }
        let good = exit == Ok(Exit::Code(0)) && &said[..n] == b"got::\n";
        signal::exit_now(if good { 42 } else { 1 });
    }
    let test = concat!(module_path!(), "::a_parent_without_standard_descriptors_can_start_a_child");
    testing::ends_well(test);
}

#[test]
fn a_child_whose_parent_has_gone_already_learns_it() {
    if testing::is_again() {
        assert_eq!(signal::die_with_parent(std::os::unix::process::parent_id() as i32), Ok(()));
        assert_eq!(signal::die_with_parent(host::pid()), Err(Errno::SRCH));
        signal::exit_now(42);
    }
    let test = concat!(module_path!(), "::a_child_whose_parent_has_gone_already_learns_it");
    testing::ends_well(test);
}
