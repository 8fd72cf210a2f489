//! What a child does between `clone` and `exec`. It may share the memory of its parent, whose
//! threads may hold any lock: so async-signal-safe calls only, nothing is allocated, nothing
//! panics, and a failure is a return value.

use std::convert::Infallible;

use libc::{c_char, c_int};

use super::errno::{Errno, check, retry};
use super::limit::{self, Nofile};
use super::text::fd_path;

/// What was being done when a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Making the process.
    Clone,
    /// Putting it in a session or group of its own.
    Session,
    /// Giving it its controlling terminal.
    Terminal,
    /// Giving it its stdin, stdout and stderr.
    Stdio,
    /// Changing to its working directory.
    Directory,
    /// Setting its limit on descriptors.
    Limit,
    /// Tying its life to ours.
    Parent,
    /// Executing the program.
    Exec,
}

/// How the file to execute is named.
pub enum Image {
    /// By these paths, in this order; null-terminated.
    Paths(Vec<*const c_char>),
    /// By an open descriptor.
    Fd(c_int),
}

/// All that the child needs, made beforehand. The pointers lead to terminated texts and
/// null-terminated lists that outlive it.
pub struct Plan {
    /// What to execute.
    pub image: Image,
    /// Its arguments.
    pub argv: Vec<*const c_char>,
    /// Its environment.
    pub envp: Vec<*const c_char>,
    /// Its standard descriptors, by any numbers.
    pub stdio: [c_int; 3],
    /// Its controlling terminal.
    pub terminal: Option<c_int>,
    /// Its working directory, or null for ours.
    pub directory: *const c_char,
    /// Whether it leads a session.
    pub session: bool,
    /// Whether it leads a process group.
    pub group: bool,
    /// The process whose end it shall not survive.
    pub parent: Option<c_int>,
    /// Its limit on descriptors, if not ours.
    pub nofile: Option<Nofile>,
    /// A descriptor above the standard ones that it has, too.
    pub keep: Option<c_int>,
}

type Result<T> = std::result::Result<T, (Step, Errno)>;

/// Becomes the program, or returns why not.
pub fn become_program(plan: &Plan) -> (Step, Errno) {
    match prepare(plan).and_then(|image| execute(plan, image)) {
        Err(failure) => failure,
        Ok(never) => match never {},
    }
}

/// Everything up to `exec`. Returns where the image's descriptor is now, or -1.
fn prepare(plan: &Plan) -> Result<c_int> {
    if plan.session {
        // SAFETY: takes nothing.
        at(Step::Session, unsafe { libc::setsid() })?;
    } else if plan.group {
        // SAFETY: takes no pointers.
        at(Step::Session, unsafe { libc::setpgid(0, 0) })?;
    }
    if let Some(terminal) = plan.terminal {
        // SAFETY: this request takes a number.
        at(Step::Terminal, unsafe { libc::ioctl(terminal, libc::TIOCSCTTY as _, 0) })?;
    }
    let image = match plan.image {
        Image::Fd(number) => above_stdio(number)?,
        Image::Paths(_) => -1,
    };
    stdio(plan.stdio)?;
    if !plan.directory.is_null() {
        // SAFETY: a terminated text, see Plan.
        at(Step::Directory, unsafe { libc::chdir(plan.directory) })?;
    }
    if let Some(nofile) = plan.nofile {
        limit::set(nofile).map_err(|errno| (Step::Limit, errno))?;
    }
    if let Some(parent) = plan.parent {
        super::signal::die_with_parent(parent).map_err(|errno| (Step::Parent, errno))?;
    }
    close_the_rest_on_exec();
    if let Some(keep) = plan.keep {
        // SAFETY: takes no pointers; the table of descriptors is the child's own.
        at(Step::Stdio, unsafe { super::fd::fcntl(keep, libc::F_SETFD, 0) })?;
    }
    super::signal::reset_all();
    Ok(image)
}

fn at(step: Step, rc: c_int) -> Result<c_int> {
    check(rc).map_err(|errno| (step, errno))
}

/// Makes them 0, 1 and 2, which live through `exec`. First all are moved out of the way.
fn stdio(mut sources: [c_int; 3]) -> Result<()> {
    for source in &mut sources {
        *source = above_stdio(*source)?;
    }
    for (target, source) in sources.into_iter().enumerate() {
        // SAFETY: takes no pointers; the table of descriptors is the child's own.
        let dup = || check(unsafe { libc::dup2(source, target as c_int) });
        retry(dup).map_err(|errno| (Step::Stdio, errno))?;
    }
    Ok(())
}

fn above_stdio(number: c_int) -> Result<c_int> {
    if 2 < number {
        return Ok(number);
    }
    // SAFETY: takes no pointers.
    at(Step::Stdio, unsafe { super::fd::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })
}

/// Ours all close on exec; those that others opened carelessly shall, too.
fn close_the_rest_on_exec() {
    #[cfg(target_os = "linux")]
    // SAFETY: takes no pointers; the table of descriptors is the child's own.
    if unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } == 0
    {
        return;
    }
    super::fd::each_open(3, i32::MAX, |number| {
        // SAFETY: takes no pointers.
        unsafe { super::fd::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    });
}

fn execute(plan: &Plan, image: c_int) -> Result<Infallible> {
    let errno = match &plan.image {
        Image::Paths(paths) => exec_first(plan, paths),
        Image::Fd(_) => exec_fd(plan, image),
    };
    Err((Step::Exec, errno))
}

/// Tries each path, as a shell does: one that is not there is passed over.
fn exec_first(plan: &Plan, paths: &[*const c_char]) -> Errno {
    let mut why = Errno::NOENT;
    for &path in paths.iter().take_while(|path| !path.is_null()) {
        match exec(plan, path) {
            Errno::NOENT | Errno::NOTDIR => (),
            Errno::ACCES => why = Errno::ACCES,
            errno => return errno,
        }
    }
    why
}

fn exec(plan: &Plan, path: *const c_char) -> Errno {
    // SAFETY: a terminated text and null-terminated lists of such, see Plan.
    unsafe { libc::execve(path, plan.argv.as_ptr(), plan.envp.as_ptr()) };
    Errno::last()
}

fn exec_fd(plan: &Plan, image: c_int) -> Errno {
    #[cfg(target_os = "linux")]
    // SAFETY: a terminated text and null-terminated lists of such, see Plan.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            image,
            c"".as_ptr(),
            plan.argv.as_ptr(),
            plan.envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    #[cfg(target_os = "linux")]
    if !matches!(Errno::last(), Errno::NOSYS | Errno::NOENT) {
        return Errno::last();
    }
    // What binfmt_misc runs for another CPU opens the file when exec would have closed it. An
    // agent closes it as it starts.
    // SAFETY: takes no pointers; the table of descriptors is the child's own.
    unsafe { super::fd::fcntl(image, libc::F_SETFD, 0) };
    exec(plan, fd_path(image).as_ptr().cast())
}
