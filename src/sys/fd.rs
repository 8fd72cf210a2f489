//! Descriptors: reading, writing, duplicating, opening. Nothing here sets O_NONBLOCK on what might
//! be shared: every holder of an inherited description would see it.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use libc::{c_int, c_short};

use super::errno::{Errno, Result, check, check_size, retry};
use super::text::{c_string, cut, fd_path};

#[cfg(not(target_vendor = "apple"))]
const SEND_FLAGS: c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
#[cfg(target_vendor = "apple")]
const SEND_FLAGS: c_int = libc::MSG_DONTWAIT;

/// How a descriptor can be used without blocking. Found once; it does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdKind {
    /// A socket: one call, with a flag.
    Socket,
    /// A pipe, a terminal or a file: asks `poll` first.
    Other,
}

impl FdKind {
    /// What `fd` is.
    pub fn of(fd: BorrowedFd<'_>) -> FdKind {
        let mut kind: c_int = 0;
        let mut bytes = size_of::<c_int>() as libc::socklen_t;
        // SAFETY: the value has room for the int that this option is, and `bytes` says so.
        let rc = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_TYPE,
                (&raw mut kind).cast(),
                &mut bytes,
            )
        };
        if rc == 0 { FdKind::Socket } else { FdKind::Other }
    }

    /// Reads what is there, without blocking: [`recv_nowait`] or [`read_nowait`].
    pub fn read(self, fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
        match self {
            FdKind::Socket => recv_nowait(fd, buffer),
            FdKind::Other => read_nowait(fd, buffer),
        }
    }

    /// Writes what there is room for, without blocking: [`send_nowait`] or [`write_nowait`].
    pub fn write(self, fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
        match self {
            FdKind::Socket => send_nowait(fd, bytes),
            FdKind::Other => write_nowait(fd, bytes),
        }
    }
}

/// Reads up to `buffer.len()` bytes; 0 at the end. May block.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    retry(|| {
        // SAFETY: the buffer is ours to write for its whole length.
        check_size(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
    })
}

/// Writes some of `bytes`, and says how many. May block.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    retry(|| {
        // SAFETY: the bytes are readable for their whole length.
        check_size(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
    })
}

/// Reads from a socket what is there; AGAIN if nothing is.
pub fn recv_nowait(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    let (start, length) = (buffer.as_mut_ptr(), buffer.len());
    retry(|| {
        // SAFETY: the buffer is ours to write for its whole length.
        check_size(unsafe { libc::recv(fd.as_raw_fd(), start.cast(), length, libc::MSG_DONTWAIT) })
    })
}

/// Writes to a socket what there is room for; AGAIN if there is none. Raises no SIGPIPE.
pub fn send_nowait(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    retry(|| {
        // SAFETY: the bytes are readable for their whole length.
        check_size(unsafe {
            libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), SEND_FLAGS)
        })
    })
}

/// Reads from a descriptor that may be in blocking mode what is there; AGAIN if nothing is. It asks
/// `poll` first, so it would block only if another process took the bytes in between.
pub fn read_nowait(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    if is_ready(fd, libc::POLLIN)? { read(fd, buffer) } else { Err(Errno::AGAIN) }
}

/// Writes to a pipe or terminal in blocking mode what surely fits: at most PIPE_BUF bytes, and only
/// when `poll` says that there is room; else AGAIN. It would block only if another process filled
/// that room in between. Raises SIGPIPE unless that is ignored.
pub fn write_nowait(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    if !is_ready(fd, libc::POLLOUT)? {
        return Err(Errno::AGAIN);
    }
    write(fd, &bytes[..bytes.len().min(libc::PIPE_BUF)])
}

/// Whether `fd` is ready, or closed on the other side, at this moment.
fn is_ready(fd: BorrowedFd<'_>, events: c_short) -> Result<bool> {
    poll(fd, events, 0)
}

fn poll(fd: BorrowedFd<'_>, events: c_short, timeout_ms: c_int) -> Result<bool> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one entry, ours to write.
    retry(|| check(unsafe { libc::poll(&mut entry, 1, timeout_ms) })).map(|ready| 0 < ready)
}

/// Reads up to `buffer.len()` bytes; 0 at the end. Blocks, even where whoever gave us `fd` has left
/// it in non-blocking mode.
pub fn read_blocking(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    loop {
        match read(fd, buffer) {
            Err(errno) if errno.is_again() => poll(fd, libc::POLLIN, -1)?,
            result => return result,
        };
    }
}

/// Writes all of `bytes`, blocking as long as it takes, in whatever mode `fd` is.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match write(fd, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => bytes = &bytes[n..],
            Err(errno) if errno.is_again() => _ = poll(fd, libc::POLLOUT, -1)?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Reads to the end, blocking as long as it takes; FBIG if there are more than `bytes_max`.
pub fn read_to_end(fd: BorrowedFd<'_>, bytes_max: usize) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = read(fd, &mut buffer)?;
        if n == 0 {
            return Ok(all);
        }
        if bytes_max - all.len() < n {
            return Err(Errno::FBIG);
        }
        all.extend_from_slice(&buffer[..n]);
    }
}

/// Reads from `offset` of a file, leaving its position alone; 0 at the end.
pub fn pread(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let (start, length) = (buffer.as_mut_ptr(), buffer.len());
    let offset = libc::off_t::try_from(offset).map_err(|_| Errno::INVAL)?;
    retry(|| {
        // SAFETY: the buffer is ours to write for its whole length.
        check_size(unsafe { libc::pread(fd.as_raw_fd(), start.cast(), length, offset) })
    })
}

/// How many bytes a file has. Its position is at the end then.
pub fn file_bytes(fd: BorrowedFd<'_>) -> Result<u64> {
    // SAFETY: takes no pointers.
    let end = unsafe { libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_END) };
    u64::try_from(end).map_err(|_| Errno::last())
}

/// Goes back to the beginning of a file.
pub fn rewind(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes no pointers.
    let at = unsafe { libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_SET) };
    if at < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// A duplicate numbered `min` or above, closed by `exec`.
pub fn dup_above(fd: BorrowedFd<'_>, min: i32) -> Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let number = check(unsafe { fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, min) })?;
    // SAFETY: the system has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes `target` (one of 0 to 2: other numbers belong to others) a duplicate of `fd`, which lives
/// through `exec`.
pub fn dup_onto(fd: BorrowedFd<'_>, target: i32) -> Result<()> {
    if fd.as_raw_fd() == target {
        return set_cloexec(fd, false);
    }
    // SAFETY: takes no pointers; the target is one of the standard descriptors, which nobody owns.
    retry(|| check(unsafe { libc::dup2(fd.as_raw_fd(), target) })).map(|_| ())
}

/// Whether `exec` closes it.
#[cfg(test)]
pub fn is_cloexec(fd: BorrowedFd<'_>) -> Result<bool> {
    // SAFETY: takes no pointers.
    let flags = check(unsafe { fcntl(fd.as_raw_fd(), libc::F_GETFD, 0) })?;
    Ok(flags & libc::FD_CLOEXEC != 0)
}

/// Does one thing of many to a descriptor. The C library's own, which sees to locks and owners,
/// too, would be the agent's largest system call.
///
/// # Safety
/// `operation` takes a number, or nothing, and no pointer.
#[cfg(target_os = "linux")]
pub unsafe fn fcntl(number: c_int, operation: c_int, argument: c_int) -> c_int {
    // SAFETY: by the contract no pointer is passed.
    unsafe { libc::syscall(libc::SYS_fcntl, number, operation, argument) as c_int }
}

#[cfg(not(target_os = "linux"))]
pub use libc::fcntl;

/// Says whether `exec` shall close it.
pub fn set_cloexec(fd: BorrowedFd<'_>, on: bool) -> Result<()> {
    let flags = if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: takes no pointers.
    check(unsafe { fcntl(fd.as_raw_fd(), libc::F_SETFD, flags) }).map(|_| ())
}

/// Whether its description is in non-blocking mode.
#[cfg(test)]
pub fn is_nonblocking(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(status_flags(fd)? & libc::O_NONBLOCK != 0)
}

/// Sets the mode of its description: only for one that no other process has, such as our end of a
/// pipe that we made.
pub fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> Result<()> {
    let before = status_flags(fd)?;
    let flags = if on { before | libc::O_NONBLOCK } else { before & !libc::O_NONBLOCK };
    // SAFETY: takes no pointers.
    check(unsafe { fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) }).map(|_| ())
}

fn status_flags(fd: BorrowedFd<'_>) -> Result<c_int> {
    // SAFETY: takes no pointers.
    check(unsafe { fcntl(fd.as_raw_fd(), libc::F_GETFL, 0) })
}

/// Whether a descriptor of this number is open.
pub fn is_open(number: i32) -> bool {
    // SAFETY: takes no pointers; a number that is not open is an error, not undefined.
    0 <= unsafe { fcntl(number, libc::F_GETFD, 0) }
}

/// Standard input. With [`stdout`] and [`stderr`], open from the start of the process
/// ([`fill_missing_stdio`] sees to it) and never closed.
pub fn stdin() -> BorrowedFd<'static> {
    // SAFETY: see above: 0 is replaced at times, but never closed.
    unsafe { BorrowedFd::borrow_raw(0) }
}

/// Standard output.
pub fn stdout() -> BorrowedFd<'static> {
    // SAFETY: as for stdin.
    unsafe { BorrowedFd::borrow_raw(1) }
}

/// Standard error.
pub fn stderr() -> BorrowedFd<'static> {
    // SAFETY: as for stdin.
    unsafe { BorrowedFd::borrow_raw(2) }
}

/// Opens /dev/null in the place of each standard descriptor that is missing, so that no other file
/// gets its number.
pub fn fill_missing_stdio() -> Result<()> {
    for number in 0..3 {
        if !is_open(number) {
            // SAFETY: the path is terminated. The lowest free number is this one.
            check(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) })?;
        }
    }
    Ok(())
}

/// Opens /dev/null for reading and writing.
pub fn open_null() -> Result<OwnedFd> {
    open(c"/dev/null", libc::O_RDWR)
}

/// Opens a file for reading.
pub fn open_read(path: &CStr) -> Result<OwnedFd> {
    open(path, libc::O_RDONLY)
}

/// The descriptor that [`keep_self_exe`] keeps, or -1.
static SELF_EXE: AtomicI32 = AtomicI32::new(-1);

/// Opens the file that this process executes, even if it was unlinked.
pub fn open_self_exe() -> Result<OwnedFd> {
    match kept_self_exe() {
        -1 => open_read(c"/proc/self/exe"),
        kept => {
            // Opened anew, so that it has a position of its own.
            open_read(&c_string(cut(&mut &fd_path(kept)[..], 0))?)
        }
    }
}

/// Keeps the file that this process executes open from now on: an emulator of another CPU knows it
/// by the name that it had when it was executed, which is soon another's or nobody's.
pub fn keep_self_exe() {
    let kept = open_self_exe().and_then(|file| dup_above(file.as_fd(), 3));
    // Where it cannot be opened now it cannot be later.
    if let Ok(file) = kept {
        SELF_EXE.store(file.into_raw_fd(), Ordering::Relaxed);
    }
}

/// The number of the descriptor that is kept; -1 if none is.
pub fn kept_self_exe() -> i32 {
    SELF_EXE.load(Ordering::Relaxed)
}

/// Removes a file's name.
pub fn unlink(path: &[u8]) -> Result<()> {
    let path = c_string(path)?;
    // SAFETY: the path is terminated.
    check(unsafe { libc::unlink(path.as_ptr()) }).map(|_| ())
}

/// Removes an empty directory.
pub fn remove_directory(path: &[u8]) -> Result<()> {
    let path = c_string(path)?;
    // SAFETY: the path is terminated.
    check(unsafe { libc::rmdir(path.as_ptr()) }).map(|_| ())
}

/// Opens with these flags, and O_CLOEXEC.
pub fn open(path: &CStr, flags: c_int) -> Result<OwnedFd> {
    retry(|| {
        // What is made is its owner's alone.
        let (flags, mode) = (flags | libc::O_CLOEXEC, 0o600 as libc::c_uint);
        // SAFETY: the path is terminated; the mode is an int, as it must be behind `...`.
        let number = check(unsafe { libc::open(path.as_ptr(), flags, mode) })?;
        // SAFETY: the system has just made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    })
}

/// Closes every descriptor numbered `first` or above, but those in `keep`: what leaked into this
/// process from whoever started it. Only at the start of a process, before anything else is opened.
pub fn close_from(first: i32, keep: &[i32]) {
    let mut low = first.max(3);
    loop {
        let kept = keep.iter().copied().filter(|&number| low <= number).min();
        if low < kept.unwrap_or(i32::MAX) {
            close_between(low, kept.map_or(i32::MAX, |number| number - 1));
        }
        match kept {
            None => return,
            Some(number) => low = number + 1,
        }
    }
}

/// Closes every descriptor: for a process that will use none any more.
#[cfg(target_os = "linux")]
pub fn close_all() {
    close_between(0, i32::MAX);
}

/// Closes the descriptors from `low` to `high`, both included.
fn close_between(low: i32, high: i32) {
    #[cfg(target_os = "linux")]
    // SAFETY: takes no pointers; by the contract of `close_from` nobody owns these.
    if unsafe { libc::syscall(libc::SYS_close_range, low, high, 0) } == 0 {
        return;
    }
    // SAFETY: takes no pointers; by the contract of `close_from` nobody owns this.
    each_open(low, high, |number| _ = unsafe { libc::close(number) });
}

/// Calls `act` with the number of each open descriptor from `low` to `high`, many looked at by one
/// call: limits of a million are common. Safe between fork and exec.
pub fn each_open(low: i32, high: i32, act: fn(i32)) {
    const AT_ONCE: usize = 256;
    let limit = super::limit::nofile().map_or(1024, |limit| limit.soft);
    let end = high.saturating_add(1).min(i32::try_from(limit).unwrap_or(1 << 20));
    let mut entries = [libc::pollfd { fd: -1, events: 0, revents: 0 }; AT_ONCE];
    // More than the limit are refused.
    let at_once = AT_ONCE.min(end.max(1) as usize);
    for first in (low..end).step_by(at_once) {
        let count = at_once.min((end - first) as usize);
        for (entry, number) in entries.iter_mut().zip(first..) {
            *entry = libc::pollfd { fd: number, events: 0, revents: 0 };
        }
        // SAFETY: so many entries, ours to write.
        let looked = unsafe { libc::poll(entries.as_mut_ptr(), count as libc::nfds_t, 0) };
        for entry in &entries[..count] {
            if looked < 0 || entry.revents & libc::POLLNVAL == 0 {
                act(entry.fd);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::pipe::{pipe, socketpair};
    use super::super::testing;
    use super::*;

    #[test]
    fn nothing_to_read_is_again_and_a_closed_end_is_the_end() {
        for (a, b) in [socketpair().unwrap(), pipe().unwrap()] {
            let kind = FdKind::of(a.as_fd());
            let mut buffer = [0; 8];
            assert_eq!(kind.read(a.as_fd(), &mut buffer), Err(Errno::AGAIN));
            assert_eq!(kind.write(b.as_fd(), b"abc"), Ok(3));
            assert_eq!(kind.read(a.as_fd(), &mut buffer), Ok(3));
            drop(b);
            testing::soon(|| kind.read(a.as_fd(), &mut buffer) == Ok(0));
        }
    }

    #[test]
    fn writing_to_what_nobody_reads_stops_without_blocking() {
        for (_a, b) in [socketpair().unwrap(), pipe().unwrap()] {
            let kind = FdKind::of(b.as_fd());
            let block = [7; 100_000];
            while kind.write(b.as_fd(), &block).is_ok() {}
            assert_eq!(kind.write(b.as_fd(), &block), Err(Errno::AGAIN));
            assert!(!is_nonblocking(b.as_fd()).unwrap());
        }
    }

    #[test]
    fn a_socket_whose_peer_is_gone_is_a_disconnect_without_a_signal() {
        let (a, b) = socketpair().unwrap();
        assert_eq!(FdKind::of(a.as_fd()), FdKind::Socket);
        drop(b);
        testing::soon(|| send_nowait(a.as_fd(), b"x").is_err_and(Errno::is_disconnect));
    }

    #[test]
    fn duplicates_close_on_exec_and_are_where_they_were_asked_to_be() {
        let null = open_null().unwrap();
        let above = dup_above(null.as_fd(), 100).unwrap();
        assert!(99 < above.as_raw_fd());
        assert!(is_cloexec(above.as_fd()).unwrap());
        assert!(is_open(above.as_raw_fd()));
        set_cloexec(above.as_fd(), false).unwrap();
        assert!(!is_cloexec(above.as_fd()).unwrap());
    }

    #[test]
    fn closing_from_a_number_spares_what_is_kept_and_what_is_below() {
        if testing::is_again() {
            let null = open_null().unwrap();
            let [a, b, c] = [20, 30, 40].map(|min| dup_above(null.as_fd(), min).unwrap());
            let numbers = [a, b, c].map(std::os::fd::IntoRawFd::into_raw_fd);
            close_from(10, &[40, 30]);
            assert_eq!(numbers.map(is_open), [false, true, true]);
            assert!(is_open(null.as_raw_fd()));
            close_from(30, &[]);
            assert_eq!(numbers.map(is_open), [false, false, false]);
            super::super::signal::exit_now(42);
        }
        testing::ends_well(concat!(
            module_path!(),
            "::closing_from_a_number_spares_what_is_kept_and_what_is_below"
        ));
    }

    #[test]
    fn a_file_is_read_whole_or_refused() {
        let exe = open_self_exe().unwrap();
        let bytes = std::fs::metadata("/proc/self/exe").unwrap().len();
        assert!(1000 < bytes);
        let mut head = [0; 4];
        assert_eq!(pread(exe.as_fd(), &mut head, 0), Ok(4));
        assert_eq!(&head, b"\x7fELF");
        assert_eq!(pread(exe.as_fd(), &mut head, bytes), Ok(0));
        assert_eq!(read_to_end(exe.as_fd(), 1000), Err(Errno::FBIG));
        assert_eq!(open_read(c"/nowhere/at/all").unwrap_err(), Errno::NOENT);
    }
}
