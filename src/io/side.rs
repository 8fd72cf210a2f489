//! One direction of a connection: a descriptor that is closed once, read and written without
//! blocking, whose disconnects look like the end of a file whatever its kind.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::sys::errno::Errno;
use crate::sys::fd::FdKind;

/// A descriptor that a stream reads from, writes to, or both. Clones share it; the last one closes.
#[derive(Clone, Debug)]
pub struct Side {
    fd: Arc<OwnedFd>,
    kind: FdKind,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// So many bytes were taken; 0 if there is no room now.
    Bytes(usize),
    /// The other end is closed.
    Disconnected,
}

/// What became of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes arrived.
    Bytes(usize),
    /// Nothing is there now.
    Nothing,
    /// The other end is closed: end of file, a reset socket, a hung up terminal.
    Disconnected,
}

impl Side {
    /// Takes over a descriptor. Its flags stay as they are: others may share its description.
    pub fn new(fd: OwnedFd) -> Side {
        Side::sharing(Arc::new(fd))
    }

    /// The same of a descriptor that has another owner, too.
    pub fn sharing(fd: Arc<OwnedFd>) -> Side {
        Side { kind: FdKind::of(fd.as_fd()), fd }
    }

    /// The descriptor, shared with whoever watches it.
    pub(crate) fn shared(&self) -> Arc<OwnedFd> {
        self.fd.clone()
    }

    /// Reads what is there, at most `buffer.len()` bytes.
    ///
    /// # Errors
    /// Those of read(2) that do not mean a disconnect.
    pub fn read(&self, buffer: &mut [u8]) -> Result<Read> {
        match self.kind.read(self.fd.as_fd(), buffer) {
            Ok(0) => Ok(Read::Disconnected),
            Ok(count) => Ok(Read::Bytes(count)),
            Err(e) if e.is_again() => Ok(Read::Nothing),
            Err(e) if e.is_disconnect() => Ok(Read::Disconnected),
            Err(Errno(errno)) => Err(Error::system("read", errno)),
        }
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// Those of write(2) that do not mean a disconnect.
    pub fn write(&self, bytes: &[u8]) -> Result<Wrote> {
        match self.kind.write(self.fd.as_fd(), bytes) {
            Ok(count) => Ok(Wrote::Bytes(count)),
            Err(e) if e.is_again() => Ok(Wrote::Bytes(0)),
            Err(e) if e.is_disconnect() => Ok(Wrote::Disconnected),
            Err(Errno(errno)) => Err(Error::system("write", errno)),
        }
    }
}

impl AsFd for Side {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
