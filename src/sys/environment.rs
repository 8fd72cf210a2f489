//! The environment of this process.

use std::ffi::c_char;
use std::ptr;

use super::text::cut;

unsafe extern "C" {
    static mut environ: *const *const c_char;
}

/// Makes this text, which is `NAME=value` and a NUL for each variable, the whole environment. For
/// the first moments of an agent only; what was there stays in memory.
pub fn replace(text: &[&[u8]]) {
    let mut rest = &*text.concat().leak();
    let mut list: Vec<*const c_char> = Vec::new();
    while !rest.is_empty() {
        list.push(cut(&mut rest, 0).as_ptr().cast());
    }
    list.push(ptr::null());
    // SAFETY: a null-terminated list of terminated texts that live as long as this process; nobody
    // reads the environment at this moment, as this is the only thread.
    unsafe { environ = list.leak().as_ptr() };
}

/// Removes a variable, so that no child inherits it. For the first moments of an agent only.
pub fn forget(name: &str) {
    // SAFETY: std's readers hold a lock that this takes; the caller is an agent that has not begun
    // to run foreign code, so nobody reads the environment behind std's back.
    unsafe { std::env::remove_var(name) };
}
