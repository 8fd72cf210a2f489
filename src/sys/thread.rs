//! Threads, by `pthread_create`: `std::thread` would double the size of a small agent.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ptr;

use libc::{c_int, c_void};

use super::errno::{Errno, Result};

/// What a thread does.
pub type Body = Box<dyn FnOnce() + Send>;

struct Start {
    name: &'static CStr,
    body: Body,
}

/// Starts a thread with all signals blocked, that nobody waits for: who must know of its end has
/// `body` tell it. `name` shows in debuggers (15 bytes of it on Linux).
/// `stack_bytes` is a minimum; 0 means the system's default, which is small with musl.
/// A panic that leaves `body` ends the process.
pub fn spawn(name: &'static CStr, stack_bytes: usize, body: Body) -> Result<()> {
    let start = Box::into_raw(Box::new(Start { name, body }));
    let blocked = SignalsBlocked::new();
    let result = create(stack_bytes, start.cast());
    drop(blocked);
    if result.is_err() {
        // SAFETY: no thread was made, so the box is still ours alone.
        drop(unsafe { Box::from_raw(start) });
    }
    result
}

fn create(stack_bytes: usize, start: *mut c_void) -> Result<()> {
    let mut attributes = MaybeUninit::uninit();
    // SAFETY: initialises the attributes that it points to.
    check_number(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) })?;
    if stack_bytes != 0 {
        let bytes = stack_bytes.max(libc::PTHREAD_STACK_MIN).next_multiple_of(16 * 1024);
        // SAFETY: the attributes are initialised. A size that the system refuses changes nothing.
        unsafe { libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), bytes) };
    }
    // SAFETY: the attributes are initialised. It cannot fail: the state is a valid one.
    unsafe {
        libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED)
    };
    let mut thread = MaybeUninit::uninit();
    // SAFETY: the attributes are initialised, `thread` has room for a handle, and `start` is a
    // Start that the new thread becomes the owner of.
    let created = check_number(unsafe {
        libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), run, start)
    });
    // SAFETY: the attributes are initialised, and not used again.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    created
}

/// These calls return the error number itself.
fn check_number(rc: c_int) -> Result<()> {
    if rc == 0 { Ok(()) } else { Err(Errno(rc)) }
}

extern "C" fn run(start: *mut c_void) -> *mut c_void {
    // SAFETY: `spawn` made this box for us and gave it away.
    let Start { name, body } = *unsafe { Box::from_raw(start.cast::<Start>()) };
    #[cfg(target_os = "linux")]
    // SAFETY: names this thread; the text is terminated and copied.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, name.as_ptr())
    };
    #[cfg(not(target_os = "linux"))]
    let _ = name;
    body();
    ptr::null_mut()
}

/// All signals are blocked in this thread while this lives; then the mask is as before.
pub struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    /// Blocks them.
    pub fn new() -> SignalsBlocked {
        let mut all = MaybeUninit::uninit();
        // SAFETY: fills the set that it points to.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        let mut before = MaybeUninit::uninit();
        // SAFETY: the first set is initialised, the second has room. It cannot fail: the operation
        // is a valid one.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
        // SAFETY: pthread_sigmask wrote it.
        SignalsBlocked(unsafe { before.assume_init() })
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: restores the set that pthread_sigmask gave.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_its_name_and_all_signals_blocked() {
        let (send, receive) = std::sync::mpsc::channel();
        let body = move || {
            send.send(std::fs::read_to_string("/proc/thread-self/status").unwrap()).unwrap();
        };
        spawn(c"a-name", 64 * 1024, Box::new(body)).unwrap();
        let status = receive.recv().unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        let mask = u64::from_str_radix(blocked.trim(), 16).unwrap();
        assert!(status.starts_with("Name:\ta-name"));
        assert_eq!(mask & (1 << (libc::SIGTERM - 1)), 1 << (libc::SIGTERM - 1));
    }
}
