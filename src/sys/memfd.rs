//! Executables in memory: a file that is in no directory.

use std::ffi::CStr;
#[cfg(target_os = "linux")]
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

#[cfg(target_os = "linux")]
use super::errno::check;
use super::errno::{Errno, Result};

/// An empty file in memory that can be executed once it is written. The name shows in
/// `/proc/<pid>/exe` only. ACCES where the administrator forbids it, NOSYS before Linux 3.17.
#[cfg(target_os = "linux")]
pub fn memfd(name: &CStr) -> Result<OwnedFd> {
    // Since Linux 6.3 it should be said that it will be executed; before, that is an error.
    match create(name, libc::MFD_CLOEXEC | libc::MFD_EXEC) {
        Err(Errno::INVAL) => create(name, libc::MFD_CLOEXEC),
        result => result,
    }
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
