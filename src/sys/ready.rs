//! The wait of a user's thread for room to write to a descriptor of its own.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Instant;

use super::errno::{Errno, Result, check};
use super::signal;

/// Sleeps until `fd` can be written to, is closed or broken. Returns false if the deadline (`None`:
/// never) has passed. A signal ends it with INTR, but not one that is absorbed.
pub fn until_writable(fd: BorrowedFd<'_>, deadline: Option<Instant>) -> Result<bool> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    loop {
        let absorbed = signal::absorbed();
        let now = Instant::now();
        let left = deadline.map(|end| end.saturating_duration_since(now).as_micros());
        // In steps of at most a minute, so that no number overflows.
        let timeout_ms = left.map_or(-1, |micros| micros.div_ceil(1000).min(60_000) as libc::c_int);
        // SAFETY: one entry, ours to write.
        match check(unsafe { libc::poll(&mut entry, 1, timeout_ms) }) {
            Ok(0) if deadline.is_some_and(|end| end <= Instant::now()) => return Ok(false),
            Ok(0) => (),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) if signal::absorbed() != absorbed => (),
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::super::fd::{FdKind, send_nowait};
    use super::super::pipe::socketpair;
    use super::*;

    #[test]
    fn room_to_write_is_waited_for_until_it_is_there_or_the_time_is_up() {
        let (a, b) = socketpair().unwrap();
        assert_eq!(until_writable(a.as_fd(), None), Ok(true));
        while send_nowait(a.as_fd(), &[0; 4096]).is_ok() {}
        let end = Instant::now() + Duration::from_millis(20);
        assert_eq!(until_writable(a.as_fd(), Some(end)), Ok(false));
        assert!(end <= Instant::now());
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            let read = || FdKind::Socket.read(b.as_fd(), &mut buffer);
            super::super::testing::soon({
                let mut read = read;
                move || read().is_ok()
            });
            b
        });
        assert_eq!(until_writable(a.as_fd(), None), Ok(true));
        drop(reader.join().unwrap());
        assert_eq!(until_writable(a.as_fd(), None), Ok(true), "a broken one does not wait");
    }
}
