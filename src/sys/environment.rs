//! The environment of this process.

/// Removes a variable, so that no child inherits it. For the first moments of an agent only.
pub fn forget(name: &str) {
    // SAFETY: std's readers hold a lock that this takes; the caller is an agent that has not begun
    // to run foreign code, so nobody reads the environment behind std's back.
    unsafe { std::env::remove_var(name) };
}
