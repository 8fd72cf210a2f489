//! Children that a program talks to over a socket or a terminal, without a broker.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::failed;
use crate::error::{Error, ErrorKind, Exit, Result};
use crate::io::watch::Pause;
use crate::limits::{BROKER_STACK_BYTES, KILL_TIME};
use crate::sys::errno::Errno;
use crate::sys::spawn::{Program, Spawn, SpawnError, Step, c_strings, spawn};
use crate::sys::wait::Process;
use crate::sys::{fd, pipe, poll, pty, signal, thread};

/// A child of this program, in a session of its own, and our ends of what it talks by.
///
/// Dropping it closes these, and ends the child with SIGKILL, and what has stayed in its process
/// group; it is reaped in any case. One that may not be killed, as sudo, sees the closed ends.
/// If the program ends without that, it sees the closed ends, too.
#[derive(Debug)]
pub struct Child {
    /// Closed before the process is ended.
    ends: Ends,
    process: Owned,
}

/// Our ends of what it talks by.
#[derive(Debug)]
enum Ends {
    Socket(UnixStream),
    Tty(File),
    Both(UnixStream, File),
}

/// A process that ends with this. Away only while it is dropped.
#[derive(Debug)]
struct Owned(Option<Process>);

/// Starts a program whose standard input and output are one end of a socket; its standard error is
/// ours, and it has no controlling terminal. The first of its arguments is a path, or a name in
/// PATH.
///
/// # Errors
/// `System` if it cannot be executed, [`ErrorKind::Usage`] if there is no argument, or one with a
/// NUL.
pub fn create_child(argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Child> {
    let argv = words(argv)?;
    let (ours, theirs) = pipe::socketpair().map_err(before)?;
    let stdio = [theirs.as_fd(), theirs.as_fd(), fd::stderr()];
    let process = start(&argv, stdio, None)?;
    Ok(Child { ends: Ends::Socket(ours.into()), process })
}

/// Starts a program on a new terminal, raw and without echo, that is its standard input, output
/// and error, and its controlling one: `/dev/tty` is that.
///
/// # Errors
/// As [`create_child`].
pub fn tty_create_child(argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Child> {
    let argv = words(argv)?;
    let (ours, theirs) = terminal()?;
    let process = start(&argv, [theirs.as_fd(); 3], Some(theirs.as_fd()))?;
    Ok(Child { ends: Ends::Tty(ours.into()), process })
}

/// Starts a program as [`create_child`] does, but for its standard error, and its controlling
/// terminal, which are those of [`tty_create_child`]: a password is asked for there, while bytes
/// pass as fast as a socket carries them.
///
/// # Errors
/// As [`create_child`].
pub fn hybrid_tty_create_child(argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Child> {
    let argv = words(argv)?;
    let (socket, stdio) = pipe::socketpair().map_err(before)?;
    let (tty, errors) = terminal()?;
    let stdio = [stdio.as_fd(), stdio.as_fd(), errors.as_fd()];
    let process = start(&argv, stdio, Some(errors.as_fd()))?;
    Ok(Child { ends: Ends::Both(socket.into(), tty.into()), process })
}

fn words(argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Vec<CString>> {
    let words: Vec<Vec<u8>> =
        argv.into_iter().map(|word| word.as_ref().as_bytes().to_vec()).collect();
    if words.is_empty() {
        return Err(Error::usage("a command has at least its name"));
    }
    c_strings(&words).ok_or_else(|| Error::usage("an argument with a NUL in it"))
}

fn terminal() -> Result<(OwnedFd, OwnedFd)> {
    let pair = pty::open_pty().map_err(before)?;
    pty::make_raw(pair.follower.as_fd());
    Ok((pair.leader, pair.follower))
}

fn start(
    argv: &[CString],
    stdio: [BorrowedFd<'_>; 3],
    terminal: Option<BorrowedFd<'_>>,
) -> Result<Owned> {
    let program = Program::Search(&argv[0]);
    let started = spawn(&Spawn { terminal, session: true, ..Spawn::new(program, argv, stdio) });
    started.map(|process| Owned(Some(process))).map_err(
        |SpawnError { step, errno: Errno(errno) }| match step {
            Step::Exec => Error::system("executing a program", errno),
            _ => Error::system("starting a process", errno),
        },
    )
}

fn before(Errno(errno): Errno) -> Error {
    Error::system("making what a child talks by", errno)
}

impl Child {
    /// Its process id, and that of its process group.
    pub fn id(&self) -> u32 {
        self.process.0.as_ref().map_or(0, |process| process.id() as u32)
    }

    /// Our end of its standard input and output, in blocking mode; none if they are a terminal.
    pub fn socket(&self) -> Option<&UnixStream> {
        match &self.ends {
            Ends::Socket(socket) | Ends::Both(socket, _) => Some(socket),
            Ends::Tty(_) => None,
        }
    }

    /// Our end of its controlling terminal, if it has one. It does not block: a read finds
    /// [`io::ErrorKind::WouldBlock`](std::io::ErrorKind) where [`iter_read`](super::iter_read)
    /// waits.
    pub fn tty(&self) -> Option<&File> {
        match &self.ends {
            Ends::Tty(tty) | Ends::Both(_, tty) => Some(tty),
            Ends::Socket(_) => None,
        }
    }

    /// Has its standard input end, if that is a socket; its output can still be read.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for a terminal: its input has no end, but for the byte 4 where it is
    /// not raw. `System`.
    pub fn end_input(&self) -> Result<()> {
        let socket = self.socket();
        let socket = socket.ok_or_else(|| Error::usage("the input of a terminal has no end"))?;
        let ended = socket.shutdown(Shutdown::Write);
        ended.map_err(|e| Error::system("ending an input", e.raw_os_error().unwrap_or_default()))
    }

    /// How it ended; none while it lives.
    ///
    /// # Errors
    /// `System` if nobody knows, as the program ignores SIGCHLD.
    pub fn try_wait(&mut self) -> Result<Option<Exit>> {
        let Some(process) = &mut self.process.0 else { return Ok(None) };
        process.try_wait().map_err(|errno| failed("waiting for a child", errno))
    }

    /// Waits until it has ended, and says how. Neither its input is ended by that, nor its output
    /// read.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] past the deadline, [`ErrorKind::Interrupted`] after a signal; and as
    /// [`Child::try_wait`].
    pub fn wait(&mut self, deadline: Option<Instant>) -> Result<Exit> {
        let mut pause = Pause::FIRST;
        loop {
            if let Some(exit) = self.try_wait()? {
                return Ok(exit);
            }
            if deadline.is_some_and(|end| end <= Instant::now()) {
                return Err(Error::new(ErrorKind::Timeout));
            }
            let pidfd = self.process.0.as_ref().and_then(Process::pidfd);
            let again = match pidfd {
                Some(_) => deadline,
                None => Some(deadline.map_or(pause.next(), |end| end.min(pause.next()))),
            };
            poll::sleep(pidfd.as_slice(), again)
                .map_err(|errno| failed("waiting for a child", errno))?;
        }
    }

    /// Sends a signal, as 15 for SIGTERM, to it and its process group.
    ///
    /// # Errors
    /// `System` if it has ended, or may not be sent signals.
    pub fn kill(&self, signal: i32) -> Result<()> {
        let Some(process) = &self.process.0 else { return Ok(()) };
        process.kill_group(signal).map_err(|errno| failed("sending a signal", errno))
    }
}

/// What [`iter_read`](super::iter_read) and [`write_all`](super::write_all) talk to it by: the
/// socket, or else the terminal.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.ends {
            Ends::Socket(socket) | Ends::Both(socket, _) => socket.as_fd(),
            Ends::Tty(tty) => tty.as_fd(),
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let Some(mut process) = self.0.take() else { return };
        // It may have ended, or belong to another user.
        let _ = process.kill_group(signal::KILL);
        if let Ok(None) = process.wait_timeout(KILL_TIME) {
            let reap = Box::new(move || _ = process.wait());
            // Without a thread it waits for the end of the program.
            let _ = thread::spawn(c"mitogen-reap", BROKER_STACK_BYTES, reap);
        }
    }
}
