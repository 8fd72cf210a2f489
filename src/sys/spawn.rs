//! Starting programs, at a cost that does not grow with ours: the child borrows our memory until it
//! executes. What it does meanwhile is in `postfork`.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::c_char;

use super::errno::Errno;
use super::limit::{self, Nofile};
use super::postfork::{self, Image, Plan};
use super::text::{Decimal, FD_FOLDER, c_string, fields, has};
use super::thread::SignalsBlocked;
use super::wait::Process;

pub use super::postfork::Step;

/// What to execute.
#[derive(Clone, Copy, Debug)]
pub enum Program<'a> {
    /// The first file of this name in our PATH; a name with a slash is a path.
    Search(&'a CStr),
    /// This open file: an executable, not a script.
    Fd(BorrowedFd<'a>),
}

/// A program to start. All signals have their defaults in it and none is blocked; it has no
/// descriptors but the three named here.
#[derive(Clone, Copy, Debug)]
pub struct Spawn<'a> {
    /// What to execute.
    pub program: Program<'a>,
    /// Its arguments, its name included.
    pub argv: &'a [CString],
    /// What its environment has instead of ours of those names: `NAME=value`; nothing by default.
    pub env: &'a [CString],
    /// Its working directory; ours by default.
    pub cwd: Option<&'a CStr>,
    /// Its standard input.
    pub stdin: BorrowedFd<'a>,
    /// Its standard output.
    pub stdout: BorrowedFd<'a>,
    /// Its standard error.
    pub stderr: BorrowedFd<'a>,
    /// A terminal that becomes its controlling one; implies a session.
    pub terminal: Option<BorrowedFd<'a>>,
    /// Whether it leads a session, and so a process group, of its own.
    pub session: bool,
    /// Whether it leads a process group of its own.
    pub group: bool,
    /// Whether the kernel kills it when the *thread* that starts it ends (Linux; a program that
    /// changes its user, as sudo does, undoes this).
    pub die_with_parent: bool,
    /// Its limit on descriptors, if not ours; by default what ours was before we raised it.
    pub nofile: Option<Nofile>,
    /// One more descriptor that it has, under the number that it has here, which is above 2.
    pub keep: Option<BorrowedFd<'a>>,
}

/// Why a program was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpawnError {
    /// What was being done.
    pub step: Step,
    /// What came of it.
    pub errno: Errno,
}

impl<'a> Spawn<'a> {
    /// A program with these arguments and standard descriptors, and all else at its default.
    pub fn new(program: Program<'a>, argv: &'a [CString], stdio: [BorrowedFd<'a>; 3]) -> Self {
        let [stdin, stdout, stderr] = stdio;
        Spawn {
            program,
            argv,
            env: &[],
            cwd: None,
            stdin,
            stdout,
            stderr,
            terminal: None,
            session: false,
            group: false,
            die_with_parent: false,
            nofile: limit::before_raise(),
            keep: None,
        }
    }
}

/// Starts a program, and returns once it executes. Under an emulator that has no `vfork` a program
/// that cannot be executed looks like one that exits with 127.
pub fn spawn(spawn: &Spawn<'_>) -> Result<Process, SpawnError> {
    let found = match spawn.program {
        Program::Search(name) => candidates(name),
        Program::Fd(_) => Vec::new(),
    };
    let plan = Plan {
        image: match spawn.program {
            Program::Search(_) => Image::Paths(pointers(&found)),
            Program::Fd(fd) => Image::Fd(fd.as_raw_fd()),
        },
        argv: ended(pointers(spawn.argv)),
        envp: environment(spawn.env),
        stdio: [spawn.stdin, spawn.stdout, spawn.stderr].map(|fd| fd.as_raw_fd()),
        terminal: spawn.terminal.map(|fd| fd.as_raw_fd()),
        directory: spawn.cwd.map_or(ptr::null(), CStr::as_ptr),
        session: spawn.session || spawn.terminal.is_some(),
        group: spawn.group,
        parent: spawn.die_with_parent.then(super::host::pid),
        nofile: spawn.nofile,
        keep: spawn.keep.map(|fd| fd.as_raw_fd()),
    };
    let blocked = SignalsBlocked::new();
    let result = launch(&plan);
    drop(blocked);
    result.map_err(|(step, errno)| SpawnError { step, errno })
}

/// The path by which who has this descriptor can execute it.
pub fn path_of(fd: BorrowedFd<'_>) -> Vec<u8> {
    [FD_FOLDER, Decimal::new(fd.as_raw_fd() as u64).bytes()].concat()
}

/// The words as [`Spawn`] takes them; none if there is a NUL in one.
pub fn c_strings(words: &[Vec<u8>]) -> Option<Vec<CString>> {
    let mut strings = Vec::with_capacity(words.len());
    for word in words {
        strings.push(c_string(word).ok()?);
    }
    Some(strings)
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).collect()
}

/// A list as C wants it.
fn ended(mut list: Vec<*const c_char>) -> Vec<*const c_char> {
    list.push(ptr::null());
    list
}

/// The paths at which a program of this name may be.
fn candidates(name: &CStr) -> Vec<CString> {
    let name = name.to_bytes();
    if name.is_empty() {
        return Vec::new();
    }
    if has(name, b'/') {
        return c_strings(&[name.to_vec()]).unwrap_or_default();
    }
    let path = our_environment().find_map(|variable| {
        // SAFETY: a terminated text of our environment, which a program with threads must not
        // change.
        unsafe { CStr::from_ptr(variable) }.to_bytes().strip_prefix(b"PATH=")
    });
    let path = path.unwrap_or(b"/usr/local/bin:/usr/bin:/bin");
    let mut paths = Vec::new();
    for folder in fields(path, b':') {
        paths.push([if folder.is_empty() { b"." } else { folder }, b"/", name].concat());
    }
    c_strings(&paths).unwrap_or_default()
}

/// The child's environment as `exec` wants it.
fn environment(extra: &[CString]) -> Vec<*const c_char> {
    let mut list = pointers(extra);
    for ours in our_environment() {
        // SAFETY: a terminated text of our environment.
        let text = unsafe { CStr::from_ptr(ours) };
        if !extra.iter().any(|other| name_of(other) == name_of(text)) {
            list.push(ours);
        }
    }
    ended(list)
}

fn name_of(variable: &CStr) -> &[u8] {
    fields(variable.to_bytes(), b'=').next().unwrap_or_default()
}

fn our_environment() -> impl Iterator<Item = *const c_char> {
    unsafe extern "C" {
        static mut environ: *const *const c_char;
    }
    // SAFETY: it is set before `main`, and must not change while a program has threads.
    let mut next = unsafe { environ };
    std::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        // SAFETY: the list is null-terminated, and its end has not been passed.
        let variable = unsafe { *next };
        if variable.is_null() {
            return None;
        }
        // SAFETY: this is not the end, so the next is within the list.
        next = unsafe { next.add(1) };
        Some(variable)
    })
}

#[cfg(target_os = "linux")]
use linux::launch;

#[cfg(target_os = "linux")]
mod linux {
    use std::cell::Cell;
    use std::os::fd::{FromRawFd, OwnedFd};

    use libc::{c_int, c_void};

    use super::super::errno::check;
    use super::*;

    /// The child's stack: its few calls, the dynamic linker's lookups, and the vector registers
    /// that those save.
    const STACK_BYTES: usize = 64 * 1024;

    struct Job<'a> {
        plan: &'a Plan,
        failure: Cell<Option<(Step, Errno)>>,
    }

    /// Starts the child, and returns once it has executed the program or failed.
    pub(super) fn launch(plan: &Plan) -> Result<Process, (Step, Errno)> {
        let job = Job { plan, failure: Cell::new(None) };
        let mut stack: Vec<u128> = Vec::with_capacity(STACK_BYTES / size_of::<u128>());
        let (pid, pidfd) = clone(&job, &mut stack).map_err(|errno| (Step::Clone, errno))?;
        // SAFETY: the kernel has just made this descriptor for us, if any.
        let pidfd = (0 <= pidfd).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
        let mut process = Process::new(pid, pidfd);
        match job.failure.take() {
            None => Ok(process),
            Some(failure) => {
                let _ = process.wait();
                Err(failure)
            }
        }
    }

    /// The new process, and its pidfd or -1.
    fn clone(job: &Job<'_>, stack: &mut Vec<u128>) -> Result<(c_int, c_int), Errno> {
        let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
        // ThreadSanitizer would take what the child does for what we do.
        let shared = if cfg!(race) { 0 } else { libc::CLONE_VM };
        let flags = shared | libc::CLONE_VFORK | libc::SIGCHLD;
        let job: *const Job<'_> = job;
        let mut pidfd: c_int = -1;
        let mut attempt = |flags| {
            // SAFETY: the child has this stack, and we sleep until it no longer uses it nor the
            // job. All signals are blocked, so no handler of ours runs in it. A kernel that knows
            // no pidfds leaves that argument alone.
            check(unsafe {
                libc::clone(child, top.cast(), flags, job as *mut c_void, &raw mut pidfd)
            })
        };
        match attempt(flags | libc::CLONE_PIDFD) {
            // An emulator may refuse the flag that it does not know.
            Err(Errno::INVAL) => attempt(flags).map(|pid| (pid, pidfd_open(pid))),
            result => result.map(|pid| (pid, pidfd)),
        }
    }

    fn pidfd_open(pid: c_int) -> c_int {
        // SAFETY: takes numbers. The child is not reaped yet, so the number is its own.
        unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) as c_int }
    }

    extern "C" fn child(job: *mut c_void) -> c_int {
        // SAFETY: `clone` passed this job, and its owner sleeps until we are done with it.
        let job = unsafe { &*job.cast::<Job<'_>>() };
        job.failure.set(Some(postfork::become_program(job.plan)));
        super::super::signal::exit_now(127)
    }
}

/// Starts the child with `fork`, and waits until it has executed the program or failed: then the
/// pipe that `exec` closes says so.
#[cfg(not(target_os = "linux"))]
fn launch(plan: &Plan) -> Result<Process, (Step, Errno)> {
    use std::os::fd::AsFd;

    use super::{errno::check, fd, pipe::pipe, signal};

    let (read, write) = pipe().map_err(|errno| (Step::Clone, errno))?;
    // SAFETY: the child does only what is safe after fork, and never returns.
    let pid = check(unsafe { libc::fork() }).map_err(|errno| (Step::Clone, errno))?;
    if pid == 0 {
        let (step, errno) = postfork::become_program(plan);
        let [a, b, c, d] = errno.0.to_ne_bytes();
        let _ = fd::write(write.as_fd(), &[step as u8, a, b, c, d]);
        signal::exit_now(127);
    }
    drop(write);
    let mut process = Process::new(pid, None);
    let mut failure = [0; 5];
    let Ok(5) = fd::read(read.as_fd(), &mut failure) else { return Ok(process) };
    let _ = process.wait();
    let [step, a, b, c, d] = failure;
    let steps = [
        Step::Clone,
        Step::Session,
        Step::Terminal,
        Step::Stdio,
        Step::Directory,
        Step::Limit,
        Step::Parent,
    ];
    let step = steps.into_iter().find(|known| *known as u8 == step).unwrap_or(Step::Exec);
    Err((step, Errno(i32::from_ne_bytes([a, b, c, d]))))
}
