//! The environment of this process.

use std::ffi::c_char;
use std::ptr;

unsafe extern "C" {
    static mut environ: *const *const c_char;
}

/// Puts these variables, each its name with a `=` and its value, in the place of all others. For
/// the first moments of an agent only; what was there stays in memory.
pub fn replace(variables: &[[&[u8]; 2]]) {
    let mut list: Vec<*const c_char> = Vec::new();
    for [name, value] in variables {
        list.push([name, value, &b"\0"[..]].concat().leak().as_ptr().cast());
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
