//! Pairs of connected descriptors. All of them are closed by `exec`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::c_int;

use super::errno::{Result, check};
use super::{fd, fork};

/// Bytes asked for in each direction of a socketpair; the system may give less. Enough for several
/// fragments, so that a bulk sender and its reader take turns seldom.
const SOCKET_BUFFER_BYTES: c_int = 512 * 1024;

/// A pipe: the end to read from, the end to write to. No copy of this process keeps them.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    let _unmarked = fork::wait();
    #[cfg(not(target_vendor = "apple"))]
    // SAFETY: `ends` has room for the two numbers.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    #[cfg(target_vendor = "apple")]
    // SAFETY: `ends` has room for the two numbers.
    check(unsafe { libc::pipe(ends.as_mut_ptr()) })?;
    own_both(ends)
}

/// A descriptor that is never readable: a datagram socket without a name.
pub fn never_ready() -> Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let number = check(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0) })?;
    // SAFETY: the system has just made this descriptor for us.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    fd::set_cloexec(socket.as_fd(), true)?;
    Ok(socket)
}

/// A pipe that holds 4 KiB.
#[cfg(test)]
pub fn small_pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe()?;
    // SAFETY: this command takes a number and no pointer.
    check(unsafe { libc::fcntl(read.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) })?;
    Ok((read, write))
}

/// Two connected stream sockets that block, as programs expect of their stdin and stdout. No copy
/// of this process keeps them.
pub fn socketpair() -> Result<(OwnedFd, OwnedFd)> {
    #[cfg(not(target_vendor = "apple"))]
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    #[cfg(target_vendor = "apple")]
    let kind = libc::SOCK_STREAM;
    let mut ends = [-1; 2];
    let _unmarked = fork::wait();
    // SAFETY: `ends` has room for the two numbers.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) })?;
    let (a, b) = own_both(ends)?;
    for end in [&a, &b] {
        enlarge(end.as_fd());
    }
    Ok((a, b))
}

fn own_both(ends: [c_int; 2]) -> Result<(OwnedFd, OwnedFd)> {
    // SAFETY: the system has just made this descriptor for us, and nobody else knows it.
    let a = unsafe { OwnedFd::from_raw_fd(ends[0]) };
    // SAFETY: as above.
    let b = unsafe { OwnedFd::from_raw_fd(ends[1]) };
    fork::mark(a.as_fd());
    fork::mark(b.as_fd());
    if cfg!(target_vendor = "apple") {
        fd::set_cloexec(a.as_fd(), true)?;
        fd::set_cloexec(b.as_fd(), true)?;
    }
    Ok((a, b))
}

/// Asks for a larger send buffer; a refusal only costs speed.
fn enlarge(fd: BorrowedFd<'_>) {
    let bytes = SOCKET_BUFFER_BYTES;
    // SAFETY: the option's value is the int that this points to, with its size.
    let _ = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw const bytes).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
}

/// A descriptor that becomes readable when any thread says so, and stays so until drained.
/// It never blocks.
#[derive(Debug)]
pub struct Wake {
    read: OwnedFd,
    /// The end to write to, where it is not the same.
    write: Option<OwnedFd>,
}

impl Wake {
    /// A new one, not readable yet.
    pub fn new() -> Result<Wake> {
        #[cfg(target_os = "linux")]
        {
            // SAFETY: takes no pointers.
            let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
            if let Ok(number) = check(event) {
                // SAFETY: the system has just made this descriptor for us.
                let read = unsafe { OwnedFd::from_raw_fd(number) };
                return Ok(Wake { read, write: None });
            }
        }
        let (read, write) = pipe()?;
        fd::set_nonblocking(read.as_fd(), true)?;
        fd::set_nonblocking(write.as_fd(), true)?;
        Ok(Wake { read, write: Some(write) })
    }

    /// Makes it readable. Where it already is, nothing changes.
    pub fn wake(&self) {
        let end = self.write.as_ref().unwrap_or(&self.read);
        // A full pipe or counter is readable, which is all that is wanted.
        let _ = fd::write(end.as_fd(), &1u64.to_ne_bytes());
    }

    /// Makes it unreadable; whether it was readable.
    pub fn drain(&self) -> bool {
        let mut was_readable = false;
        let mut buffer = [0; 64];
        while let Ok(1..) = fd::read(self.fd(), &mut buffer) {
            was_readable = true;
            if self.write.is_none() {
                break;
            }
        }
        was_readable
    }

    /// What to wait on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_is_readable_once_however_often_it_was_woken() {
        let wake = Wake::new().unwrap();
        assert!(!wake.drain());
        wake.wake();
        wake.wake();
        assert!(wake.drain());
        assert!(!wake.drain());
    }

    #[test]
    fn nothing_is_made_while_the_process_is_copied() {
        let (tell, told) = std::sync::mpsc::channel();
        let copying = fork::wait();
        let make = move || tell.send((pipe().is_ok(), socketpair().is_ok())).unwrap();
        std::thread::spawn(make);
        let pause = std::time::Duration::from_millis(50);
        assert!(told.recv_timeout(pause).is_err());
        drop(copying);
        assert_eq!(told.recv_timeout(200 * pause), Ok((true, true)));
    }

    #[test]
    fn both_ends_of_a_socketpair_block_and_close_on_exec() {
        let (a, b) = socketpair().unwrap();
        for end in [&a, &b] {
            assert!(!fd::is_nonblocking(end.as_fd()).unwrap());
            assert!(fd::is_cloexec(end.as_fd()).unwrap());
        }
    }
}
