//! The limit on open descriptors, raised for us and put back for what we start.

// The numbers' types differ between systems.
#![allow(clippy::unnecessary_cast)]

use std::sync::OnceLock;

use super::errno::{Result, check};

/// What our limit was before we raised it.
static BEFORE: OnceLock<Nofile> = OnceLock::new();

/// How many descriptors a process may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nofile {
    /// The limit that counts.
    pub soft: u64,
    /// How far it may be raised.
    pub hard: u64,
}

/// Our limit.
pub fn nofile() -> Result<Nofile> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    ask(&mut limit)?;
    Ok(Nofile { soft: limit.rlim_cur as u64, hard: limit.rlim_max as u64 })
}

/// Raises our limit as far as it goes.
pub fn raise_nofile() -> Result<()> {
    let now = nofile()?;
    if now.soft < now.hard {
        // Before it is raised, so that whoever finds it raised finds this, too. A second time there
        // is nothing to raise, unless somebody has lowered it meanwhile.
        let _ = BEFORE.set(now);
        set(Nofile { soft: now.hard, hard: now.hard })?;
    }
    Ok(())
}

/// What our limit was before we raised it, for what we start: programs that use `select` break when
/// they inherit a large one. `None` if it is as it was.
pub fn before_raise() -> Option<Nofile> {
    BEFORE.get().copied()
}

/// Sets our limit. Safe between fork and exec.
pub fn set(limit: Nofile) -> Result<()> {
    let limit =
        libc::rlimit { rlim_cur: limit.soft as libc::rlim_t, rlim_max: limit.hard as libc::rlim_t };
    apply(&limit)
}

#[cfg(target_os = "linux")]
fn ask(limit: &mut libc::rlimit) -> Result<()> {
    let none = std::ptr::null();
    // SAFETY: writes to the limit that this points to, and reads none.
    check(unsafe { libc::prlimit(0, libc::RLIMIT_NOFILE, none, limit) }).map(|_| ())
}

#[cfg(not(target_os = "linux"))]
fn ask(limit: &mut libc::rlimit) -> Result<()> {
    // SAFETY: writes to the limit that this points to.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, limit) }).map(|_| ())
}

#[cfg(target_os = "linux")]
fn apply(limit: &libc::rlimit) -> Result<()> {
    // Not by setrlimit: musl's signals every thread, which a child before its exec does not have.
    let none = std::ptr::null_mut();
    // SAFETY: reads the limit that this points to, and writes none.
    check(unsafe { libc::prlimit(0, libc::RLIMIT_NOFILE, limit, none) }).map(|_| ())
}

#[cfg(not(target_os = "linux"))]
fn apply(limit: &libc::rlimit) -> Result<()> {
    // SAFETY: reads the limit that this points to.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, limit) }).map(|_| ())
}
