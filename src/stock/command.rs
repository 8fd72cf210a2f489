//! Runs a command and streams what it prints. Its process is the broker's child, so that it dies
//! with the context; its output waits in its pipes while the receiver has no room.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::call::channel::Sender;
use crate::call::context::CallContext;
use crate::error::{Error, ErrorKind, Exit, Result};
use crate::io::latch;
use crate::limits::FRAGMENT_BYTES;
use crate::sys::errno::Errno;
use crate::sys::fd::{self, FdKind};
use crate::sys::guard::Guard;
use crate::sys::pipe;
use crate::sys::poll::Interest;
use crate::sys::signal;
use crate::sys::spawn::{Program, Spawn, SpawnError, spawn};
use crate::sys::wait::Process;

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
    }
}

/// Whether this process is an agent, whose group is its own.
static IS_AGENT: AtomicBool = AtomicBool::new(false);
static GUARD: OnceLock<Option<Guard>> = OnceLock::new();

/// Has what is started from now on die with this process, by whatever it dies.
pub(crate) fn guard_processes() {
    IS_AGENT.store(true, Ordering::Relaxed);
}

/// Runs a command to its end and sends what it prints. Fails if it cannot be started.
///
/// What it leaves in the background keeps running, but is not listened to, until the context ends.
///
/// # Errors
/// `System` with the error number if the command cannot be started; `Closed` if the receiver ended
/// first, and then the command is killed.
pub fn run(cx: &CallContext, command: Command, out: Sender<Output>) -> Result<Ended> {
    if IS_AGENT.load(Ordering::Relaxed) {
        // Without a guard a SIGKILL of the context would leave the command's children; no more.
        GUARD.get_or_init(|| Guard::start().ok());
    }
    let argv: Vec<CString> = command
        .argv
        .iter()
        .map(|word| CString::new(word.as_bytes()))
        .collect::<Result<_, _>>()
        .map_err(|_| Error::usage("an argument of the command has a NUL in it"))?;
    if argv.is_empty() {
        return Err(Error::usage("there is no command"));
    }
    let mut running = cx.router().broker().defer_sync(move |_| start(&argv))??;
    let result = running.pump(&out);
    if result.is_err() {
        // Gone already is as good.
        let _ = running.process.kill(signal::KILL);
    }
    let exit = running.process.wait().map_err(system("waiting for the command"))?;
    result?;
    Ok(match exit {
        Exit::Code(code) => Ended::Exited(code),
        Exit::Signal(signal) => Ended::Killed(signal),
    })
}

struct Running {
    process: Process,
    ended: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

fn start(argv: &[CString]) -> Result<Running> {
    let pair = || pipe::pipe().map_err(system("making a pipe"));
    let ((stdout, stdout_end), (stderr, stderr_end)) = (pair()?, pair()?);
    let null = fd::open_null().map_err(system("opening /dev/null"))?;
    let stdio = [null.as_fd(), stdout_end.as_fd(), stderr_end.as_fd()];
    let process = spawn(&Spawn {
        die_with_parent: true,
        ..Spawn::new(Program::Search(&argv[0]), argv, stdio)
    });
    let process = process.map_err(|SpawnError { errno, .. }| {
        Error::new(ErrorKind::System { doing: "starting the command", errno: errno.0 })
    })?;
    let ended = process.dup_pidfd();
    Ok(Running { process, ended, stdout: Some(stdout), stderr: Some(stderr) })
}

impl Running {
    /// Sends what comes until the process has ended and what it had printed by then was sent.
    fn pump(&mut self, out: &Sender<Output>) -> Result<()> {
        let wake = latch::sleeper()?;
        loop {
            // What was printed before the end is in the pipes when the end is seen.
            let ended = self.process.try_wait().map_err(system("waiting for the command"))?;
            while self.send_ready(out)? {}
            if ended.is_some() {
                return Ok(());
            }
            let fds = [&self.ended, &self.stdout, &self.stderr];
            let fds = fds.into_iter().flatten().map(|fd| (fd.as_fd(), Interest::READ));
            let fds: Vec<(BorrowedFd<'_>, Interest)> = fds.collect();
            match latch::sleep(&wake, &fds, None) {
                Err(error) if !is_interrupted(&error) => return Err(error),
                _ => (),
            }
        }
    }

    /// Sends a piece of each pipe that has one. Returns whether there may be more.
    fn send_ready(&mut self, out: &Sender<Output>) -> Result<bool> {
        let mut more = false;
        for (pipe, wrap) in [
            (&mut self.stdout, Output::Stdout as fn(Vec<u8>) -> Output),
            (&mut self.stderr, Output::Stderr),
        ] {
            let Some(end) = pipe else { continue };
            let mut bytes = vec![0; CHUNK_BYTES];
            match FdKind::Other.read(end.as_fd(), &mut bytes) {
                Ok(0) => *pipe = None,
                Ok(count) => {
                    bytes.truncate(count);
                    out.send(wrap(bytes))?;
                    more = true;
                }
                Err(e) if e.is_again() => (),
                Err(_) => *pipe = None,
            }
        }
        Ok(more)
    }
}

fn is_interrupted(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::System { errno, .. } if Errno(*errno) == Errno::INTR)
}

fn system(doing: &'static str) -> impl Fn(Errno) -> Error {
    move |Errno(errno)| Error::system(doing, errno)
}
