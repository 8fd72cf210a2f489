//! Blocking input and output of a program's own: reads, writes and children with a deadline, on the
//! calling thread alone. None of it needs a [`Broker`](crate::Broker), or holds one up.
//!
//! A terminal, a socket and a pipe each have an error of their own for an other end that is closed.
//! Here all of them are an end.
//!
//! ```
//! use std::os::fd::AsFd;
//! use std::time::{Duration, Instant};
//! use mitogen::blocking::{create_child, iter_read, write_all};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let deadline = Some(Instant::now() + Duration::from_secs(10));
//! let mut child = create_child(["tr", "a-z", "A-Z"])?;
//! write_all(child.as_fd(), b"hello", deadline)?;
//! child.end_input()?;
//! let mut said = Vec::new();
//! for chunk in iter_read(&[child.as_fd()], deadline) {
//!     said.extend(chunk?.bytes);
//! }
//! assert_eq!(said, b"HELLO");
//! assert_eq!(child.wait(deadline)?, mitogen::error::Exit::Code(0));
//! # Ok(()) }
//! ```

mod child;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use crate::error::{Cause, Death, Error, ErrorKind, Result};
use crate::limits::{CHUNK_BYTES, TAIL_BYTES};
use crate::sys::errno::Errno;
use crate::sys::fd::FdKind;
use crate::sys::poll::{self, SLEEP_FDS_MAX};
use crate::sys::ready::until_writable;
use crate::sys::text::lossy;

pub use child::{Child, create_child, hybrid_tty_create_child, tty_create_child};

/// Makes a call that reads or writes, again after each signal. Returns none if the other end is
/// closed: EIO of a terminal, ECONNRESET of a socket, EPIPE of a pipe.
///
/// ```
/// # use std::io::Write;
/// # use std::os::unix::net::UnixStream;
/// # fn main() -> std::io::Result<()> {
/// let (mut here, there) = UnixStream::pair()?;
/// drop(there);
/// assert_eq!(mitogen::blocking::io_op(|| here.write(b"x"))?, None);
/// # Ok(()) }
/// ```
///
/// # Errors
/// Any other.
pub fn io_op<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<Option<T>> {
    loop {
        match call() {
            Ok(value) => return Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) if is_disconnect(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

fn is_disconnect(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|number| Errno(number).is_disconnect())
}

/// Writes all of `bytes`; sleeps while there is no room, until `deadline` at the latest.
///
/// # Errors
/// [`ErrorKind::Timeout`]; [`ErrorKind::Interrupted`] after a signal; [`ErrorKind::Closed`] if
/// nobody reads any more; `System`. A part may have been written.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8], deadline: Option<Instant>) -> Result<()> {
    let kind = FdKind::of(fd);
    while !bytes.is_empty() {
        match kind.write(fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(errno) if errno.is_again() => match until_writable(fd, deadline) {
                Ok(true) => (),
                Ok(false) => return Err(Error::new(ErrorKind::Timeout)),
                Err(errno) => return Err(failed("waiting to write", errno)),
            },
            Err(errno) if errno.is_disconnect() => return Err(Error::closed(Cause::Disconnected)),
            Err(errno) => return Err(failed("writing", errno)),
        }
    }
    Ok(())
}

fn failed(doing: &'static str, errno: Errno) -> Error {
    match errno {
        Errno::INTR => Error::new(ErrorKind::Interrupted),
        Errno(number) => Error::system(doing, number),
    }
}

/// Reads what comes from some descriptors, at most 32, until all of them have ended, or the
/// deadline. Whoever else reads them takes from this.
pub fn iter_read<'a>(fds: &[BorrowedFd<'a>], deadline: Option<Instant>) -> IterRead<'a> {
    let open = fds.iter().enumerate().map(|(at, fd)| (at, *fd, FdKind::of(*fd))).collect();
    IterRead { open, deadline, next: 0, tail: Vec::new(), is_over: false }
}

/// What was read at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Which of the descriptors it is from: its place in the list.
    pub from: usize,
    /// The bytes; at least one, at most 16 KiB.
    pub bytes: Vec<u8>,
}

/// Yields chunks until every descriptor has ended: see [`iter_read`].
///
/// # Errors
/// [`ErrorKind::Timeout`], once; [`ErrorKind::Interrupted`] after a signal, and may go on then;
/// `System` ends it. [`IterRead::tail`] has what came before.
#[derive(Debug)]
#[must_use = "it reads as it is iterated"]
pub struct IterRead<'a> {
    /// Those that have not ended, with their places in the list.
    open: Vec<(usize, BorrowedFd<'a>, FdKind)>,
    deadline: Option<Instant>,
    /// Of `open`, who is looked at first: none is to starve another.
    next: usize,
    tail: Vec<u8>,
    is_over: bool,
}

impl IterRead<'_> {
    /// The last that was read, of at most 2 KiB: for an error that says what came before it.
    pub fn tail(&self) -> String {
        lossy(&self.tail)
    }

    /// The end of what was waited for, with the tail: for a program that expected more.
    ///
    /// ```
    /// # use std::os::fd::AsFd;
    /// # use mitogen::blocking::{create_child, iter_read};
    /// # fn main() -> mitogen::Result<()> {
    /// let child = create_child(["echo", "no such user"])?;
    /// let mut reads = iter_read(&[child.as_fd()], None);
    /// assert!(reads.by_ref().flatten().all(|chunk| !chunk.bytes.ends_with(b"ready\n")));
    /// assert!(reads.ended().to_string().contains("no such user"));
    /// # Ok(()) }
    /// ```
    pub fn ended(&self) -> Error {
        Death { tail: self.tail(), ..Death::of(Cause::Disconnected) }.into()
    }

    fn wait(&self) -> Result<u32> {
        if SLEEP_FDS_MAX < self.open.len() {
            return Err(Error::usage("iter_read takes at most 32 descriptors"));
        }
        let fds: Vec<_> = self.open.iter().map(|(_, fd, _)| *fd).collect();
        match poll::sleep(&fds, self.deadline) {
            Ok(0) => Err(Error::new(ErrorKind::Timeout)),
            Ok(ready) => Ok(ready),
            Err(errno) => Err(failed("waiting to read", errno)),
        }
    }

    /// Reads from the first that is ready; none if there was nothing, or an end.
    fn read(&mut self, ready: u32) -> Result<Option<Chunk>> {
        let count = self.open.len();
        let mut places = (0..count).map(|step| (self.next + step) % count);
        let Some(at) = places.find(|at| ready & (1 << at) != 0) else { return Ok(None) };
        self.next = at + 1;
        let (from, fd, kind) = self.open[at];
        let mut bytes = vec![0; CHUNK_BYTES];
        match kind.read(fd, &mut bytes) {
            Ok(count) if 0 < count => {
                bytes.truncate(count);
                self.tail.extend_from_slice(&bytes);
                self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
                Ok(Some(Chunk { from, bytes }))
            }
            Err(errno) if errno.is_again() => Ok(None),
            Err(errno) if !errno.is_disconnect() => Err(failed("reading", errno)),
            _ => {
                self.open.remove(at);
                Ok(None)
            }
        }
    }
}

impl Iterator for IterRead<'_> {
    type Item = Result<Chunk>;

    fn next(&mut self) -> Option<Result<Chunk>> {
        while !self.is_over && !self.open.is_empty() {
            match self.wait().and_then(|ready| self.read(ready)) {
                Ok(None) => (),
                Ok(Some(chunk)) => return Some(Ok(chunk)),
                Err(error) => {
                    self.is_over = !matches!(error.kind(), ErrorKind::Interrupted);
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
