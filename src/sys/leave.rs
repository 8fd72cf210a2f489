//! What a process does to live on without those who started it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::errno::Result;
use super::{fd, signal, stdio};

/// Makes this process independent: its parent's end is not its own, nor is a terminal's; SIGTERM
/// ends it; and its standard descriptors, but for files, lead nowhere.
pub fn live_alone() -> Result<()> {
    let null = fd::open_null()?;
    signal::outlive_parent();
    // Who leads a group cannot start a session, and needs none: signals that end it come to groups.
    let _ = signal::start_session();
    signal::restore(signal::TERM);
    for (number, standard) in [fd::stdin(), fd::stdout(), fd::stderr()].into_iter().enumerate() {
        if is_connected(standard) {
            fd::dup_onto(null.as_fd(), number as i32)?;
        }
    }
    stdio::forget_inherited();
    stdio::let_abort();
    Ok(())
}

/// Whether somebody is at its other end: of a pipe, a socket, or a terminal.
fn is_connected(fd: BorrowedFd<'_>) -> bool {
    let mut about = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: room for the answer.
    unsafe { libc::fstat(fd.as_raw_fd(), about.as_mut_ptr()) };
    // SAFETY: numbers, for which zero is a value.
    let kind = unsafe { about.assume_init() }.st_mode & libc::S_IFMT;
    // SAFETY: takes a number.
    let is_terminal = unsafe { libc::isatty(fd.as_raw_fd()) } == 1;
    kind == libc::S_IFIFO || kind == libc::S_IFSOCK || is_terminal
}
