//! One direction of a connection: a descriptor that is closed once, read and written without
//! blocking, whose disconnects look like the end of a file whatever its kind.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::sys::fd::FdKind;

/// A descriptor that a stream reads from, writes to, or both. Clones share it; the last one closes.
#[derive(Clone, Debug)]
pub struct Side {
    fd: Arc<OwnedFd>,
    kind: FdKind,
}

/// What became of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes arrived.
    Bytes(usize),
    /// Nothing is there now.
    Nothing,
    /// The other end is closed: end of file, a reset socket, a hung up terminal. What fails in
    /// another way is as useless.
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

    /// The descriptor's number.
    pub(crate) fn number(&self) -> u64 {
        self.fd.as_raw_fd() as u64
    }

    /// Reads what is there, at most `buffer.len()` bytes.
    pub fn read(&self, buffer: &mut [u8]) -> Read {
        match self.kind.read(self.fd.as_fd(), buffer) {
            Ok(count) if 0 < count => Read::Bytes(count),
            Err(e) if e.is_again() => Read::Nothing,
            _ => Read::Disconnected,
        }
    }

    /// Writes as much as there is room for. Returns how many bytes; none if nobody takes any more.
    pub fn write(&self, bytes: &[u8]) -> Option<usize> {
        match self.kind.write(self.fd.as_fd(), bytes) {
            Ok(count) => Some(count),
            Err(e) if e.is_again() => Some(0),
            Err(_) => None,
        }
    }
}

impl AsFd for Side {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
