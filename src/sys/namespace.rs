//! The namespaces and the root of another process, a container's first: opened, entered, and left
//! to a child, as a user of that place. Only for a process that has one thread, is about to become
//! an agent, and ends where this fails: what is opened here is closed when the agent begins.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};

use libc::{c_int, c_long};

use super::errno::{Errno, Result, check};
use super::text::{Decimal, c_string, number_behind};
use super::thread::SignalsBlocked;
use super::wait::Process;
use super::{fd, host, signal};
use crate::error::Exit;
use crate::limits::CONTAINER_FILE_BYTES_MAX;

/// The namespaces that a process is in. That of users comes last: what we may do to the others is
/// gone then.
const NAMES: [&CStr; 7] =
    [c"ns/ipc", c"ns/uts", c"ns/net", c"ns/pid", c"ns/cgroup", c"ns/mnt", c"ns/user"];
const MOUNTS: usize = 5;
const USER: usize = 6;

/// Says in few words what failed, for the hints of a recipe, and ends this process.
pub fn fail(step: &[u8], Errno(errno): Errno) -> ! {
    let number = Decimal::new(errno.unsigned_abs().into());
    // Who does not hear it learns of the end.
    let _ = fd::write_all(
        fd::stderr(),
        &[b"mitogen-setns: ", number.bytes(), b" ", step, b"\n"].concat(),
    );
    signal::exit_now(1)
}

#[inline(never)] // smaller code
fn must(step: &[u8], result: Result<c_int>) -> c_int {
    result.unwrap_or_else(|errno| fail(step, errno))
}

/// A system call of three numbers, or fewer.
///
/// # Safety
/// As that call's.
#[inline(never)] // smaller code
unsafe fn call(number: c_long, a: usize, b: usize, c: usize) -> Result<c_int> {
    // SAFETY: by the contract of this function.
    check(unsafe { libc::syscall(number, a, b, c) } as c_int)
}

/// Where another process is.
pub struct Place {
    /// Its namespaces, as descriptors; -1 for what the kernel does not have.
    namespaces: [c_int; 7],
    root: c_int,
    /// `/proc/self/fd`, which another root may not have.
    own_files: c_int,
    /// The capabilities that it can have at most, one bit each.
    capabilities: u64,
    /// Whether what it executes gains nothing.
    gains_nothing: bool,
}

impl Place {
    /// Opens all that is there of a process. What is found is of one process, whatever becomes of
    /// its number meanwhile: all of it is looked for from its folder in /proc, which is our working
    /// directory then.
    pub fn open(pid: u64) -> Place {
        let folder = c_string(&[b"/proc/", Decimal::new(pid).bytes()].concat());
        must(b"process", host::chdir(&folder.unwrap_or_default()).map(|()| 0));
        let path = libc::O_PATH | libc::O_DIRECTORY;
        let status = read(c"status", open(c"status", libc::O_RDONLY));
        let mut namespaces = [-1; NAMES.len()];
        for (place, name) in namespaces.iter_mut().zip(NAMES) {
            *place = match open(name, libc::O_RDONLY) {
                Err(Errno::NOENT) => continue,
                file => must(name.to_bytes(), file),
            };
        }
        let root = must(b"root", open(c"root", path));
        // Then the number is another process's: the tool's host is another one, or the container's
        // process has ended.
        let here = must(b"root", open(c"/", path));
        let mounts = must(b"ns/mnt", open(c"/proc/self/ns/mnt", libc::O_RDONLY));
        if is_same(root, here) && is_same(namespaces[MOUNTS], mounts) {
            fail(b"container", Errno::NOENT);
        }
        Place {
            namespaces,
            root,
            own_files: must(b"files", open(c"/proc/self/fd", path)),
            capabilities: number_behind(&status, b"CapBnd:", 16).unwrap_or(0),
            gains_nothing: number_behind(&status, b"NoNewPrivs:", 10) == Some(1),
        }
    }

    /// Enters all but the namespace of users, and makes the root ours. Who is started afterwards is
    /// in the namespace of processes; we are not.
    pub fn enter(&self) {
        // Nobody there shall get hold of our memory, or of the file that we execute.
        // SAFETY: takes numbers.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
        (0..USER).for_each(|which| self.enter_one(which));
        // SAFETY: takes a number.
        must(b"root", unsafe { call(libc::SYS_fchdir, self.root as usize, 0, 0) });
        // SAFETY: a terminated path.
        must(b"root", unsafe { call(libc::SYS_chroot, address(c"."), 0, 0) });
    }

    /// Enters the namespace of users.
    pub fn enter_users(&self) {
        self.enter_one(USER);
    }

    /// Becomes a user with these groups and no others. We, and what is executed afterwards, have
    /// the capabilities of this place at most; we have none, unless the user is root.
    pub fn become_user(&self, uid: u32, gid: u32, groups: &[u32]) {
        for number in 0..64 {
            if self.capabilities >> number & 1 == 0 {
                // One that the kernel does not know is nobody's.
                // SAFETY: takes numbers.
                unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number as c_long, 0, 0, 0) };
            }
        }
        let (uid, gid, list) = (uid as usize, gid as usize, groups.as_ptr().expose_provenance());
        // The C library would have all threads do this, and needs much for it.
        // SAFETY: so many numbers.
        must(b"groups", unsafe { call(SETGROUPS, groups.len(), list, 0) });
        // SAFETY: takes numbers.
        must(b"gid", unsafe { call(SETRESGID, gid, gid, gid) });
        // SAFETY: takes numbers.
        must(b"uid", unsafe { call(SETRESUID, uid, uid, uid) });
        // What is executed is held to the bounds; we would go on with all that we have.
        let (head, mut sets) = ([VERSION_3, 0], [0u32; 6]);
        if uid == 0 {
            // SAFETY: the head says that twice three sets follow, for which there is room.
            let rc = unsafe { libc::syscall(libc::SYS_capget, head.as_ptr(), sets.as_mut_ptr()) };
            must(b"capabilities", check(rc as c_int));
            for (place, set) in sets.iter_mut().enumerate() {
                *set &= (self.capabilities >> (place / 3 * 32)) as u32;
            }
        }
        // SAFETY: as above.
        let rc = unsafe { libc::syscall(libc::SYS_capset, head.as_ptr(), sets.as_ptr()) };
        must(b"capabilities", check(rc as c_int));
        if self.gains_nothing {
            // SAFETY: takes numbers.
            unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        }
    }

    fn enter_one(&self, which: usize) {
        let number = self.namespaces[which];
        if number < 0 {
            return;
        }
        // SAFETY: takes numbers.
        let entered = unsafe { call(libc::SYS_setns, number as usize, 0, 0) };
        // We were in that namespace of users already. (That we have other threads is said of the
        // one before.)
        if which != USER || entered != Err(Errno::INVAL) {
            must(NAMES[which].to_bytes(), entered);
        }
    }

    /// A file that whoever rules there may have made; empty if there is none. A device or a pipe
    /// is not opened.
    #[inline(never)] // smaller code
    pub fn read(&self, path: &CStr) -> Vec<u8> {
        let found = match open(path, libc::O_PATH) {
            Err(Errno::NOENT) => return Vec::new(),
            found => must(path.to_bytes(), found),
        };
        if u32::from(about(found).stx_mode) & libc::S_IFMT != libc::S_IFREG {
            fail(path.to_bytes(), Errno(libc::ENODEV));
        }
        let name = c_string(Decimal::new(found as u64).bytes()).unwrap_or_default();
        // SAFETY: a terminated path, flags that make no file.
        let file = unsafe { call(libc::SYS_openat, self.own_files as usize, address(&name), 0) };
        read(path, file)
    }
}

fn address(text: &CStr) -> usize {
    text.as_ptr().expose_provenance()
}

fn open(path: &CStr, flags: c_int) -> Result<c_int> {
    fd::open(path, flags).map(IntoRawFd::into_raw_fd)
}

fn read(path: &CStr, file: Result<c_int>) -> Vec<u8> {
    // SAFETY: it was opened for this.
    let file = unsafe { OwnedFd::from_raw_fd(must(path.to_bytes(), file)) };
    fd::read_to_end(file.as_fd(), CONTAINER_FILE_BYTES_MAX)
        .unwrap_or_else(|errno| fail(path.to_bytes(), errno))
}

/// What is known of an open file.
#[inline(never)] // smaller code
fn about(number: c_int) -> libc::statx {
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut status: libc::statx = unsafe { MaybeUninit::zeroed().assume_init() };
    let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_TYPE | libc::STATX_INO);
    let path = c"".as_ptr();
    // SAFETY: a terminated path, and room for the answer.
    let rc = unsafe { libc::syscall(libc::SYS_statx, number, path, flags, mask, &raw mut status) };
    must(b"statx", check(rc as c_int));
    status
}

fn is_same(a: c_int, b: c_int) -> bool {
    let (a, b) = (about(a), about(b));
    (a.stx_ino, a.stx_dev_major, a.stx_dev_minor) == (b.stx_ino, b.stx_dev_major, b.stx_dev_minor)
}

#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
use libc::{SYS_setgroups as SETGROUPS, SYS_setresgid as SETRESGID, SYS_setresuid as SETRESUID};
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
use libc::{
    SYS_setgroups32 as SETGROUPS, SYS_setresgid32 as SETRESGID, SYS_setresuid32 as SETRESUID,
};

/// How `capset` is told that there are 64 bits of capabilities.
const VERSION_3: u32 = 0x2008_0522;

/// Makes a child, and returns there, the number of its parent: which stays to wait for it, holds
/// nothing, ends as the child ends, and dies with `parent`, which started us.
pub fn go_on_in_child(parent: c_int) -> c_int {
    let guard = host::pid();
    let blocked = SignalsBlocked::new();
    let child = must(b"fork", fork());
    if child != 0 {
        watch(child, parent);
    }
    drop(blocked);
    guard
}

/// Has the child die with its parent. A change of user undoes this.
pub fn live_with(guard: c_int) {
    // A parent outside our namespace of processes has no number, alive or not: the end of one that
    // died before this shows as the end of our input only.
    let tied = signal::die_with_parent(0).or_else(|_| signal::die_with_parent(guard));
    must(b"guard", tied.map(|()| 0));
}

fn fork() -> Result<c_int> {
    // There is one thread, so that nobody holds a lock that the C library would have to look after.
    #[cfg(target_env = "musl")]
    use bare::_Fork as fork;
    #[cfg(not(target_env = "musl"))]
    use libc::fork;
    // SAFETY: as there is one thread, the child may do all that we may.
    check(unsafe { fork() })
}

#[cfg(target_env = "musl")]
mod bare {
    unsafe extern "C" {
        /// As `fork`, without what a process with threads would need.
        pub fn _Fork() -> libc::c_int;
    }
}

/// The parent's whole life, with all signals blocked.
fn watch(child: c_int, parent: c_int) -> ! {
    fd::close_all();
    let mut child = Process::new(child, None);
    // Who changes its namespace of users is not killed with its parent any more.
    if signal::die_with_parent(parent).is_err() {
        let _ = child.kill(signal::KILL);
    }
    match child.wait() {
        Ok(Exit::Code(code)) => signal::exit_now(code),
        Ok(Exit::Signal(number)) => {
            signal::restore(number);
            signal::default_mask();
            // SAFETY: takes numbers.
            unsafe { libc::kill(host::pid(), number) };
            signal::exit_now(128 + number)
        }
        Err(_) => signal::exit_now(1),
    }
}
