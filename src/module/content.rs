//! The bytes of an image, wherever they are: in this program, on its heap, or in a file that no
//! directory needs to know.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::error::ConnectFailure;
use crate::sys::errno::Errno;
use crate::sys::{fd, memfd};

/// Bytes that do not change. A clone is the same bytes.
#[derive(Clone)]
pub enum Content {
    /// A part of this program.
    Static(&'static [u8]),
    /// On the heap.
    Heap(Arc<Vec<u8>>),
    /// An open file, and its length; its position does not matter.
    File(Arc<OwnedFd>, u64),
}

/// An image, ready to be sent.
#[derive(Clone)]
pub struct Parcel {
    /// What is sent.
    pub content: Content,
    /// Whether that is gzip's output.
    pub gzipped: bool,
}

impl Parcel {
    /// All of it, behind these bytes.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn behind(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>, ConnectFailure> {
        let all = self.content.append_to(&mut bytes, 0, self.content.len());
        all.map(|()| bytes).map_err(|Errno(errno)| ConnectFailure::Spawn(errno))
    }
}

impl Content {
    /// All bytes of an open file.
    pub fn of_file(file: OwnedFd) -> Result<Content, Errno> {
        let bytes = fd::file_bytes(file.as_fd())?;
        Ok(Content::File(Arc::new(file), bytes))
    }

    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        match self {
            Content::Static(bytes) => bytes.len() as u64,
            Content::Heap(bytes) => bytes.len() as u64,
            Content::File(_, bytes) => *bytes,
        }
    }

    /// Appends the bytes from `at` on to `out`, `count` of them or those there are.
    pub fn append_to(&self, out: &mut Vec<u8>, at: u64, count: u64) -> Result<(), Errno> {
        let at = at.min(self.len());
        let count = count.min(self.len() - at) as usize;
        let (from, old) = (at as usize, out.len());
        match self {
            Content::Static(bytes) => out.extend_from_slice(&bytes[from..from + count]),
            Content::Heap(bytes) => out.extend_from_slice(&bytes[from..from + count]),
            Content::File(file, _) => {
                out.resize(old + count, 0);
                let mut filled = old;
                while filled < out.len() {
                    match fd::pread(file.as_fd(), &mut out[filled..], at + (filled - old) as u64)? {
                        // It is shorter than it was.
                        0 => return Err(Errno::IO),
                        more => filled += more,
                    }
                }
            }
        }
        Ok(())
    }

    /// All bytes, on the heap.
    pub fn to_vec(&self) -> Result<Vec<u8>, Errno> {
        let mut all = Vec::new();
        self.append_to(&mut all, 0, self.len())?;
        Ok(all)
    }

    /// A file of these bytes that can be executed, and changed by nobody: who executes it may have
    /// less rights than whoever executes it next.
    pub fn to_file(&self) -> Result<OwnedFd, Errno> {
        let file = memfd::memfd(c"mitogen-agent")?;
        match self {
            Content::Static(bytes) => fd::write_all(file.as_fd(), bytes)?,
            Content::Heap(bytes) => fd::write_all(file.as_fd(), bytes)?,
            Content::File(..) => fd::write_all(file.as_fd(), &self.to_vec()?)?,
        }
        memfd::seal(file.as_fd())?;
        Ok(file)
    }
}

/// Content that arrives piece by piece: in a file in memory, whose pages every process shares that
/// reads it; on the heap where there is no such thing.
pub enum Growing {
    /// A file in memory, and how much is in it.
    File(OwnedFd, u64),
    /// The heap.
    Heap(Vec<u8>),
}

impl Growing {
    /// Nothing has arrived.
    pub fn new() -> Growing {
        match memfd::memfd(c"mitogen-image") {
            Ok(file) => Growing::File(file, 0),
            Err(_) => Growing::Heap(Vec::new()),
        }
    }

    /// How many bytes have arrived.
    pub fn len(&self) -> u64 {
        match self {
            Growing::File(_, bytes) => *bytes,
            Growing::Heap(all) => all.len() as u64,
        }
    }

    /// More has arrived.
    pub fn add(&mut self, piece: &[u8]) -> Result<(), Errno> {
        match self {
            Growing::File(file, bytes) => {
                fd::write_all(file.as_fd(), piece)?;
                *bytes += piece.len() as u64;
            }
            Growing::Heap(all) => all.extend_from_slice(piece),
        }
        Ok(())
    }

    /// All has arrived.
    pub fn finish(self) -> Content {
        match self {
            Growing::File(file, bytes) => Content::File(Arc::new(file), bytes),
            Growing::Heap(all) => Content::Heap(Arc::new(all)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: &[u8] = b"0123456789";

    fn growing(mut growing: Growing) -> Content {
        assert_eq!(growing.len(), 0);
        for piece in [&BYTES[..3], &[], &BYTES[3..]] {
            growing.add(piece).unwrap();
        }
        assert_eq!(growing.len(), 10);
        growing.finish()
    }

    #[test]
    fn bytes_are_the_same_wherever_they_are() {
        let file = Content::Static(BYTES).to_file().unwrap();
        for content in [
            Content::Static(BYTES),
            Content::Heap(Arc::new(BYTES.to_vec())),
            Content::of_file(file).unwrap(),
            growing(Growing::new()),
            growing(Growing::Heap(Vec::new())),
        ] {
            assert_eq!(content.len(), 10);
            for (at, count, expected) in [
                (0, 10, BYTES),
                (2, 3, &BYTES[2..5]),
                (8, 10, &BYTES[8..]),
                (10, 1, b""),
                (u64::MAX, u64::MAX, b""),
            ] {
                let mut out = b">".to_vec();
                content.append_to(&mut out, at, count).unwrap();
                assert_eq!(out, [b">", expected].concat());
            }
            let copy = Content::of_file(content.to_file().unwrap()).unwrap();
            assert_eq!(copy.to_vec().unwrap(), BYTES);
        }
    }

    #[test]
    fn nobody_changes_what_the_next_child_executes() {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::from(Content::Static(BYTES).to_file().unwrap());
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let anew = std::fs::OpenOptions::new().write(true).open(path);
        for file in [Ok(file), anew].into_iter().flatten() {
            assert!(file.write_at(b"x", 0).is_err() && file.set_len(0).is_err());
        }
    }

    #[test]
    fn a_file_that_has_shrunk_is_an_error() {
        let file = Content::Static(BYTES).to_file().unwrap();
        let content = Content::File(Arc::new(file), 11);
        assert_eq!(content.to_vec(), Err(Errno::IO));
    }
}
