//! Pseudo-terminals, for tools that ask for a password on nothing else.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

#[cfg(any(test, not(target_os = "linux")))]
use super::errno::Errno;
use super::errno::{Result, check};
#[cfg(target_os = "linux")]
use super::text::{Decimal, c_string};
use super::{fd, fork};

/// Both ends of a new terminal. Neither becomes our controlling terminal.
#[derive(Debug)]
pub struct Pty {
    /// Our end. It does not block: its description is ours alone.
    pub leader: OwnedFd,
    /// The end of the program that believes in the terminal.
    pub follower: OwnedFd,
}

/// Opens a new terminal.
pub fn open_pty() -> Result<Pty> {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    // SAFETY: takes no pointers.
    let number = check(unsafe { libc::posix_openpt(flags) })?;
    // SAFETY: the system has just made this descriptor for us.
    let leader = unsafe { OwnedFd::from_raw_fd(number) };
    fd::set_cloexec(leader.as_fd(), true)?;
    // SAFETY: takes no pointers.
    check(unsafe { libc::grantpt(leader.as_raw_fd()) })?;
    // SAFETY: takes no pointers.
    check(unsafe { libc::unlockpt(leader.as_raw_fd()) })?;
    let follower = open_follower(&leader, flags)?;
    fd::set_nonblocking(leader.as_fd(), true)?;
    fork::mark(leader.as_fd());
    fork::mark(follower.as_fd());
    Ok(Pty { leader, follower })
}

#[cfg(target_os = "linux")]
fn open_follower(leader: &OwnedFd, flags: i32) -> Result<OwnedFd> {
    // By the leader and not by a path: /dev/pts may be another one's in a container.
    // SAFETY: this request takes flags.
    let number =
        unsafe { libc::ioctl(leader.as_raw_fd(), libc::TIOCGPTPEER as _, flags | libc::O_CLOEXEC) };
    if let Ok(number) = check(number) {
        // SAFETY: the system has just made this descriptor for us.
        return Ok(unsafe { OwnedFd::from_raw_fd(number) });
    }
    // Before Linux 4.13. Not by ptsname, which draws in all of printf.
    let mut number: libc::c_uint = 0;
    // SAFETY: the request writes one number.
    check(unsafe { libc::ioctl(leader.as_raw_fd(), libc::TIOCGPTN as _, &mut number) })?;
    let path = [b"/dev/pts/", Decimal::new(number.into()).bytes()].concat();
    fd::open(&c_string(&path)?, flags)
}

#[cfg(not(target_os = "linux"))]
fn open_follower(leader: &OwnedFd, flags: i32) -> Result<OwnedFd> {
    static NAMING: crate::lock::Lock<()> = crate::lock::Lock::new(());
    let _alone = NAMING.lock();
    // SAFETY: takes no pointers. The text is overwritten by the next call, so it is copied before
    // another thread may make one.
    let name = unsafe { libc::ptsname(leader.as_raw_fd()) };
    if name.is_null() {
        return Err(Errno::last());
    }
    let mut path: [libc::c_char; 128] = [0; 128];
    // SAFETY: the name is terminated, and the path's last byte stays zero.
    unsafe { libc::strncpy(path.as_mut_ptr(), name, path.len() - 1) };
    let path = path.map(|c: libc::c_char| c as u8);
    fd::open(std::ffi::CStr::from_bytes_until_nul(&path).map_err(|_| Errno::INVAL)?, flags)
}

/// Has a terminal pass bytes unchanged and without echo. Nothing happens to what is no terminal.
pub fn make_raw(fd: BorrowedFd<'_>) {
    if let Ok(mut mode) = mode_of(fd) {
        // SAFETY: changes the mode that it points to.
        unsafe { libc::cfmakeraw(&mut mode) };
        // SAFETY: reads the mode that it points to.
        unsafe { libc::tcsetattr(fd.as_raw_fd(), libc::TCSANOW, &mode) };
    }
}

fn mode_of(fd: BorrowedFd<'_>) -> Result<libc::termios> {
    let mut mode = MaybeUninit::uninit();
    // SAFETY: `mode` has room for the answer.
    check(unsafe { libc::tcgetattr(fd.as_raw_fd(), mode.as_mut_ptr()) })?;
    // SAFETY: tcgetattr succeeded, so it wrote all of it.
    Ok(unsafe { mode.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::super::poll::sleep;
    use super::super::testing;
    use super::*;

    /// Whether this is a terminal that does not echo, as when a program reads a password.
    fn echo_is_off(fd: BorrowedFd<'_>) -> bool {
        mode_of(fd).is_ok_and(|mode| mode.c_lflag & libc::ECHO == 0)
    }

    fn is_terminal(fd: BorrowedFd<'_>) -> bool {
        mode_of(fd).is_ok()
    }

    #[test]
    fn a_raw_terminal_passes_bytes_unchanged_and_does_not_echo() {
        let pty = open_pty().unwrap();
        assert!(!echo_is_off(pty.follower.as_fd()));
        make_raw(pty.follower.as_fd());
        assert!(echo_is_off(pty.follower.as_fd()));
        assert!(echo_is_off(pty.leader.as_fd()));
        let mut buffer = [0; 16];
        fd::write_all(pty.follower.as_fd(), b"a\nb").unwrap();
        sleep(&[pty.leader.as_fd()], None).unwrap();
        assert_eq!(fd::read(pty.leader.as_fd(), &mut buffer), Ok(3));
        assert_eq!(&buffer[..3], b"a\nb");
        fd::write_all(pty.leader.as_fd(), b"\x03\r").unwrap();
        assert_eq!(fd::read(pty.follower.as_fd(), &mut buffer), Ok(2));
        assert_eq!(fd::read(pty.leader.as_fd(), &mut buffer), Err(Errno::AGAIN));
    }

    #[test]
    fn both_ends_close_on_exec_and_a_closed_terminal_is_a_disconnect() {
        let pty = open_pty().unwrap();
        assert!(fd::is_cloexec(pty.leader.as_fd()).unwrap());
        assert!(fd::is_cloexec(pty.follower.as_fd()).unwrap());
        assert!(is_terminal(pty.follower.as_fd()));
        assert!(!is_terminal(fd::open_null().unwrap().as_fd()));
        drop(pty.follower);
        let read = || fd::read(pty.leader.as_fd(), &mut [0; 4]);
        testing::soon(|| read().is_err_and(Errno::is_disconnect));
    }
}
