//! The terminal that a user sits at: how it passes keys, and how large it is.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use super::errno::{Result, check};

pub use super::errno::Errno;

/// How a terminal behaves.
#[derive(Clone, Copy)]
pub struct Mode(libc::termios);

impl Mode {
    /// That of this terminal.
    ///
    /// # Errors
    /// It is no terminal, or is gone.
    pub fn of(terminal: impl AsFd) -> Result<Mode> {
        let mut mode = MaybeUninit::uninit();
        let number = terminal.as_fd().as_raw_fd();
        // SAFETY: `mode` has room for the answer.
        check(unsafe { libc::tcgetattr(number, mode.as_mut_ptr()) })?;
        // SAFETY: tcgetattr succeeded, so it wrote all of it.
        Ok(Mode(unsafe { mode.assume_init() }))
    }

    /// The same, but it passes each key at once and shows none, and no key holds back what is
    /// written. Keys that send a signal still do.
    pub fn key_by_key(&self) -> Mode {
        let mut mode = self.0;
        mode.c_lflag &= !(libc::ICANON | libc::ECHO);
        mode.c_iflag &= !libc::IXON;
        mode.c_cc[libc::VMIN] = 1;
        mode.c_cc[libc::VTIME] = 0;
        Mode(mode)
    }

    /// Has a terminal behave so from now on. In the background it stops the process, by SIGTTOU.
    ///
    /// # Errors
    /// It is no terminal, or is gone.
    pub fn set(&self, terminal: impl AsFd) -> Result<()> {
        let number = terminal.as_fd().as_raw_fd();
        // SAFETY: reads the mode that it points to.
        check(unsafe { libc::tcsetattr(number, libc::TCSANOW, &self.0) }).map(|_| ())
    }
}

/// The lines and columns of a terminal; none if it has no size, or is no terminal.
pub fn size(terminal: impl AsFd) -> Option<(usize, usize)> {
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut size: libc::winsize = unsafe { MaybeUninit::zeroed().assume_init() };
    let number = terminal.as_fd().as_raw_fd();
    // SAFETY: the request fills the structure.
    check(unsafe { libc::ioctl(number, libc::TIOCGWINSZ as _, &mut size) }).ok()?;
    let (lines, columns) = (size.ws_row.into(), size.ws_col.into());
    (lines != 0 && columns != 0).then_some((lines, columns))
}

/// Whether nobody is left who reads what is written to a pipe or terminal.
pub fn is_unread(fd: impl AsFd) -> bool {
    let mut entry = libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one entry, ours to write; it does not wait.
    let found = check(unsafe { libc::poll(&mut entry, 1, 0) });
    found == Ok(1) && entry.revents & (libc::POLLERR | libc::POLLHUP) != 0
}

#[cfg(test)]
mod tests {
    use super::super::fd;
    use super::super::poll::sleep;
    use super::super::pty::open_pty;
    use super::*;

    #[test]
    fn keys_pass_at_once_and_unseen_until_the_mode_is_as_before() {
        let pty = open_pty().unwrap();
        let before = Mode::of(&pty.follower).unwrap();
        before.key_by_key().set(&pty.follower).unwrap();
        fd::write_all(pty.leader.as_fd(), b"q").unwrap();
        sleep(&[pty.follower.as_fd()], None).unwrap();
        let mut buffer = [0; 4];
        assert_eq!(fd::read(pty.follower.as_fd(), &mut buffer), Ok(1));
        assert!(fd::read(pty.leader.as_fd(), &mut buffer).is_err_and(|errno| errno.is_again()));
        before.set(&pty.follower).unwrap();
        let now = Mode::of(&pty.follower).unwrap().0;
        assert_eq!((now.c_lflag, now.c_iflag), (before.0.c_lflag, before.0.c_iflag));
        fd::write_all(pty.leader.as_fd(), b"q").unwrap();
        sleep(&[pty.leader.as_fd()], None).unwrap();
        assert_eq!(fd::read(pty.leader.as_fd(), &mut buffer), Ok(1));
    }

    #[test]
    fn who_has_left_is_missed() {
        let (read, write) = super::super::pipe::pipe().unwrap();
        assert!(!is_unread(&write));
        drop(read);
        super::super::testing::soon(|| is_unread(&write));
        let pty = open_pty().unwrap();
        assert!(!is_unread(&pty.follower));
        drop(pty.leader);
        super::super::testing::soon(|| is_unread(&pty.follower));
    }

    #[test]
    fn what_is_no_terminal_has_neither_mode_nor_size() {
        let null = fd::open_null().unwrap();
        assert!(Mode::of(&null).is_err());
        assert_eq!(size(&null), None);
        assert_eq!(size(&open_pty().unwrap().follower), None, "a new one has no size");
    }
}
