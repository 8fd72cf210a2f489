//! Executables in memory: a file that is in no directory.

use std::ffi::CStr;
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::os::fd::{BorrowedFd, OwnedFd};

use super::errno::{Errno, Result};
#[cfg(target_os = "linux")]
use super::errno::{check, check_size};

/// An empty file in memory that can be executed once it is written. The name shows in
/// `/proc/<pid>/exe` only. ACCES where the administrator forbids it, NOSYS before Linux 3.17.
#[cfg(target_os = "linux")]
pub fn memfd(name: &CStr) -> Result<OwnedFd> {
    // Since Linux 6.3 it should be said that it will be executed; before, that is an error.
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    match create(name, flags | libc::MFD_EXEC) {
        Err(Errno::INVAL) => create(name, flags),
        result => result,
    }
}

/// Has nobody change a file in memory any more, whoever gets hold of it.
#[cfg(target_os = "linux")]
pub fn seal(file: BorrowedFd<'_>) -> Result<()> {
    let content = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
    // SAFETY: this command takes a number and no pointer.
    let rc = unsafe {
        super::fd::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, content | libc::F_SEAL_SEAL)
    };
    check(rc).map(drop)
}

/// A copy in memory of an open file, which nobody changes any more.
#[cfg(target_os = "linux")]
pub fn sealed_copy(file: BorrowedFd<'_>) -> Result<OwnedFd> {
    const AT_ONCE: usize = 1 << 30;
    let (copy, mut at) = (memfd(c"mitogen-agent")?, 0);
    // SAFETY: `at` is ours to read and to write.
    while check_size(unsafe {
        libc::sendfile(copy.as_raw_fd(), file.as_raw_fd(), &mut at, AT_ONCE)
    })? != 0
    {}
    seal(copy.as_fd())?;
    Ok(copy)
}

/// There is no such thing here: NOSYS.
#[cfg(not(target_os = "linux"))]
pub fn sealed_copy(_file: BorrowedFd<'_>) -> Result<OwnedFd> {
    Err(Errno::NOSYS)
}

/// There is no such thing here: NOSYS.
#[cfg(not(target_os = "linux"))]
pub fn seal(_file: BorrowedFd<'_>) -> Result<()> {
    Err(Errno::NOSYS)
}

/// There is no such thing here: NOSYS.
#[cfg(not(target_os = "linux"))]
pub fn memfd(_name: &CStr) -> Result<OwnedFd> {
    Err(Errno::NOSYS)
}

#[cfg(target_os = "linux")]
fn create(name: &CStr, flags: libc::c_uint) -> Result<OwnedFd> {
    // SAFETY: the name is terminated.
    let number = check(unsafe { libc::memfd_create(name.as_ptr(), flags) })?;
    // SAFETY: the system has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
