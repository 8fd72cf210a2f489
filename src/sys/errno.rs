//! Error numbers, and the one place where an interrupted call is made again.

use libc::c_int;

/// What the functions of this floor return.
pub type Result<T> = std::result::Result<T, Errno>;

/// A system's error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Not permitted.
    pub const PERM: Errno = Errno(libc::EPERM);
    /// No such file or directory.
    pub const NOENT: Errno = Errno(libc::ENOENT);
    /// No such process.
    pub const SRCH: Errno = Errno(libc::ESRCH);
    /// A signal came first.
    pub const INTR: Errno = Errno(libc::EINTR);
    /// The device failed, or a terminal's other end is closed.
    pub const IO: Errno = Errno(libc::EIO);
    /// The kernel cannot execute this file's format.
    pub const NOEXEC: Errno = Errno(libc::ENOEXEC);
    /// No such child.
    pub const CHILD: Errno = Errno(libc::ECHILD);
    /// It would block, or a resource is short.
    pub const AGAIN: Errno = Errno(libc::EAGAIN);
    /// Access denied.
    pub const ACCES: Errno = Errno(libc::EACCES);
    /// It exists already.
    pub const EXIST: Errno = Errno(libc::EEXIST);
    /// A part of the path is no directory.
    pub const NOTDIR: Errno = Errno(libc::ENOTDIR);
    /// An argument makes no sense to the kernel.
    pub const INVAL: Errno = Errno(libc::EINVAL);
    /// Larger than the caller allows.
    pub const FBIG: Errno = Errno(libc::EFBIG);
    /// Nobody reads the other end.
    pub const PIPE: Errno = Errno(libc::EPIPE);
    /// The kernel has no such call.
    pub const NOSYS: Errno = Errno(libc::ENOSYS);
    /// The peer threw the connection away.
    pub const CONNRESET: Errno = Errno(libc::ECONNRESET);

    /// The error number of this thread's last failed call.
    pub fn last() -> Errno {
        // SAFETY: the address is valid for as long as the thread lives.
        Errno(unsafe { *place() })
    }

    /// Makes it that of this thread's last failed call, as a handler must that has made others.
    pub fn set_last(self) {
        // SAFETY: as above, and nobody else uses it meanwhile.
        unsafe { *place() = self.0 };
    }

    /// Whether a stream that says so has ended, as at an end of file.
    pub fn is_disconnect(self) -> bool {
        matches!(self, Errno::IO | Errno::CONNRESET | Errno::PIPE)
    }

    /// Whether to try again once the descriptor is ready.
    pub fn is_again(self) -> bool {
        self.0 == libc::EAGAIN || self.0 == libc::EWOULDBLOCK
    }
}

/// Where the system keeps this thread's error number.
fn place() -> *mut c_int {
    #[cfg(any(target_os = "linux", target_os = "emscripten"))]
    let place = libc::__errno_location;
    #[cfg(any(target_os = "macos", target_os = "ios", target_os = "freebsd"))]
    let place = libc::__error;
    // SAFETY: takes nothing.
    unsafe { place() }
}

/// The result of a call that returns -1 on failure.
pub fn check(rc: c_int) -> Result<c_int> {
    if rc < 0 { Err(Errno::last()) } else { Ok(rc) }
}

/// The number of bytes that a call moved, or its error.
pub fn check_size(rc: isize) -> Result<usize> {
    usize::try_from(rc).map_err(|_| Errno::last())
}

/// Makes a call until it is not interrupted by a signal.
pub fn retry<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => (),
            result => return result,
        }
    }
}
