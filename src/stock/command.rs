//! Runs a command and streams what it prints. Its process dies with the thread that runs it, which
//! waits for its end; its output waits in its pipes while the receiver has no room.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicBool, Ordering};

use std::time::Instant;

use crate::call::sender::Sender;
use crate::error::{Error, ErrorKind, Exit};
use crate::io::sleep;
use crate::limits::{FRAGMENT_BYTES, LOOK_AGAIN_MAX};
use crate::lock::{self, Lock};
use crate::sys::errno::Errno;
use crate::sys::fd::{self, FdKind};
use crate::sys::guard::Guard;
use crate::sys::pipe;
use crate::sys::signal;
use crate::sys::spawn::{Program, Spawn, SpawnError, c_strings, spawn};
use crate::sys::wait::{LOOK_AGAIN_FIRST, Process};

/// Bytes that a pipe holds at most, unless its owner is privileged: Linux's limit.
const PIPE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes read at once: with the item's own few they fit one frame.
const CHUNK_BYTES: usize = FRAGMENT_BYTES - 64;

crate::value! {
    /// A command to be run. Its standard input is empty; its environment and working directory are
    /// the context's.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Command {
        /// The program, looked up in PATH, and its arguments.
        pub argv: Vec<OsString>,
    }

    /// A piece of what a command printed.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Output {
        /// To its standard output.
        Stdout(Vec<u8>),
        /// To its standard error.
        Stderr(Vec<u8>),
    }

    /// How a command ended.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Ended {
        /// By exiting, with this status.
        Exited(i32),
        /// By this signal.
        Killed(i32),
        /// It could not be started; the error number.
        NotStarted(i32),
    }
}

/// Whether this process is an agent, whose group is its own.
static IS_AGENT: AtomicBool = AtomicBool::new(false);
static GUARD: Lock<Option<Guard>> = Lock::new(None);

/// Has what is started from now on die with this process, by whatever it dies.
pub(crate) fn guard_processes() {
    IS_AGENT.store(true, Ordering::Relaxed);
}

/// Keeps other threads from the guard while this process is copied: in the copy nobody would let it
/// go.
pub(crate) struct Held(lock::Held<'static, Option<Guard>>);

/// Until it is dropped in the original, or left behind in the copy.
pub(crate) fn hold() -> Held {
    Held(GUARD.lock())
}

impl Held {
    /// In a copy: the guard stays the original's.
    pub(crate) fn leave_behind(mut self) {
        std::mem::forget(self.0.take());
    }
}

/// Runs a command to its end and sends what it prints. If the receiver ends first, or the output
/// cannot be waited for, the command is killed.
///
/// What it leaves in the background keeps running, but is not listened to, until the context ends.
pub fn run(command: Command, out: Sender<Output>) -> Ended {
    if IS_AGENT.load(Ordering::Relaxed) {
        let mut guard = GUARD.lock();
        // Without a guard a SIGKILL of the context would leave the command's children; no more.
        if guard.is_none() {
            *guard = Guard::start().ok();
        }
    }
    let mut running = match start(command) {
        Ok(running) => running,
        Err(Errno(errno)) => return Ended::NotStarted(errno),
    };
    if running.pump(&out).is_none() {
        // Gone already is as good.
        let _ = running.process.kill(signal::KILL);
    }
    match running.process.wait() {
        Ok(Exit::Code(code)) => Ended::Exited(code),
        Ok(Exit::Signal(signal)) => Ended::Killed(signal),
        Err(Errno(errno)) => Ended::NotStarted(errno),
    }
}

struct Running {
    process: Process,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

fn start(command: Command) -> Result<Running, Errno> {
    let words: Vec<Vec<u8>> = command.argv.into_iter().map(OsString::into_vec).collect();
    let (stderr, stderr_end) = pipe::pipe()?;
    let (process, stdout) = start_tool(&words, stderr_end.as_fd())?;
    Ok(Running { process, stdout: Some(stdout), stderr: Some(stderr) })
}

/// Starts a program of which we read what it prints, and which dies with the thread that starts it.
#[inline(never)] // smaller code
pub(crate) fn start_tool(
    words: &[Vec<u8>],
    stderr: BorrowedFd<'_>,
) -> Result<(Process, OwnedFd), Errno> {
    let argv = c_strings(words).ok_or(Errno::INVAL)?;
    let name = argv.first().ok_or(Errno::INVAL)?;
    let (stdout, stdout_end) = pipe::pipe()?;
    let null = fd::open_null()?;
    let stdio = [null.as_fd(), stdout_end.as_fd(), stderr];
    let process =
        spawn(&Spawn { die_with_parent: true, ..Spawn::new(Program::Search(name), &argv, stdio) });
    Ok((process.map_err(|SpawnError { errno, .. }| errno)?, stdout))
}

impl Running {
    /// Sends what comes until the process has ended and what it had printed by then was sent. None
    /// if that cannot be done.
    fn pump(&mut self, out: &Sender<Output>) -> Option<()> {
        let wake = sleep::sleeper().ok()?;
        let mut pause = LOOK_AGAIN_FIRST;
        loop {
            // What was printed before the end is in the pipes when the end is seen.
            let ended = self.process.try_wait().ok()?.is_some();
            if ended {
                return self.drain(out);
            }
            if self.send_ready(out)? {
                pause = LOOK_AGAIN_FIRST;
                continue;
            }
            let ended = self.process.pidfd();
            let again = if ended.is_none() { Instant::now().checked_add(pause) } else { None };
            pause = (2 * pause).min(LOOK_AGAIN_MAX);
            let mut fds = Vec::new();
            let [stdout, stderr] = [&self.stdout, &self.stderr].map(Option::as_ref);
            for fd in [ended, stdout.map(AsFd::as_fd), stderr.map(AsFd::as_fd)] {
                let Some(fd) = fd else { continue };
                fds.push(fd);
            }
            match sleep::sleep(&wake, &fds, again) {
                Err(error) if !is_stale(&error) => return None,
                _ => (),
            }
        }
    }

    /// Sends what the pipes hold, whoever else goes on writing to them.
    fn drain(&mut self, out: &Sender<Output>) -> Option<()> {
        for _ in 0..PIPE_BYTES_MAX / CHUNK_BYTES {
            if !self.send_ready(out)? {
                break;
            }
        }
        Some(())
    }

    /// Sends a piece of each pipe that has one. Returns whether there may be more; None if nobody
    /// receives it.
    fn send_ready(&mut self, out: &Sender<Output>) -> Option<bool> {
        let printed = send_piece(&mut self.stdout, Output::Stdout, out)?;
        let complained = send_piece(&mut self.stderr, Output::Stderr, out)?;
        Some(printed || complained)
    }
}

fn send_piece(
    pipe: &mut Option<OwnedFd>,
    wrap: fn(Vec<u8>) -> Output,
    out: &Sender<Output>,
) -> Option<bool> {
    let Some(end) = pipe else { return Some(false) };
    let mut bytes = vec![0; CHUNK_BYTES];
    match FdKind::Other.read(end.as_fd(), &mut bytes) {
        Ok(count) if 0 < count => {
            bytes.truncate(count);
            out.send(wrap(bytes)).ok()?;
            return Some(true);
        }
        Err(e) if e.is_again() => (),
        _ => *pipe = None,
    }
    Some(false)
}

/// Whether a sleep has ended only for us to look again.
fn is_stale(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Interrupted)
}
