//! Files that are made so that nobody can have them lead elsewhere.

use std::os::fd::OwnedFd;

use super::errno::Result;
use super::fd::open;
use super::text::c_string;

/// Makes a file that is its owner's alone, to be added to. EXIST if there is anything of its name,
/// a link that leads nowhere too.
pub fn create(path: &[u8]) -> Result<OwnedFd> {
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    open(&c_string(path)?, flags)
}
