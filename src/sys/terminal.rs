//! The terminal that a user sits at: how it passes keys, and how large it is.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use super::errno::{Result, check};

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
    fn what_is_no_terminal_has_neither_mode_nor_size() {
        let null = fd::open_null().unwrap();
        assert!(Mode::of(&null).is_err());
        assert_eq!(size(&null), None);
        assert_eq!(size(&open_pty().unwrap().follower), None, "a new one has no size");
    }
}
