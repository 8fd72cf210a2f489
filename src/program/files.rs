//! What a program is asked to leave of what it does: by itself, or by the environment.

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::call::router::Router;
use crate::connect::debugging::Debugging;
use crate::connect::options::check_folder;
use crate::error::{Death, Error, Result};
use crate::io::turn::Turn;
use crate::log::{debug, profile};
use crate::route::identity::Identity;
use crate::sys::errno::Errno;
use crate::trace::Level;

/// Names the folder for counters and times, unless the program does.
const PROFILING_VARIABLE: &str = "MITOGEN_PROFILING";

impl Router {
    /// Has this process write all that is logged in it from now on, at this level and above, to
    /// `mitogen.<process>.log` in `folder`, and each context that this router starts from now on,
    /// and what is below those, to a file of its own machine that is named so. Returns the path of
    /// this process's.
    ///
    /// Files are made anew, and are their owner's alone; if the name is taken, by a link too, `.1`
    /// to `.9` stand behind it. One has 64 MiB at most, and its last line says so then. A context
    /// that cannot make its file logs a warning, and lives all the same. A line is the time in
    /// microseconds since 1970, the level, the context's number where it is known, who logs, what
    /// happened, numbers and text; nothing in it is obeyed by a terminal. At
    /// [`Level::Io`] a busy context writes some megabytes per second.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind) if `folder` is no absolute path,
    /// `System` if the file of this process cannot be made there; nothing has changed then.
    ///
    /// # Security
    /// What functions log and print may be secret, and stands in these files; payloads and
    /// passwords that the library types never do.
    ///
    /// ```no_run
    /// # fn main() -> mitogen::Result<()> {
    /// let router = mitogen::Program::new().router()?;
    /// let path = router.enable_debug("/var/log/me", mitogen::Level::Debug)?;
    /// router.local().connect()?;
    /// println!("see {}", path.display());
    /// # Ok(()) }
    /// ```
    pub fn enable_debug(&self, folder: impl Into<String>, level: Level) -> Result<PathBuf> {
        self.broker().forbid_copy()?;
        let folder = folder.into();
        check_folder("folder", &folder).map_err(Error::usage)?;
        let path = debug::open(&folder, level)
            .map_err(|Errno(errno)| Error::system("making a debug file", errno))?;
        Debugging::of(self).set(level, folder);
        Ok(OsString::from_vec(path).into())
    }
}

/// Fails if a folder is no folder's path.
pub(super) fn check(master: &Identity) -> Result<()> {
    let folder = &master.files.profiling;
    if folder.is_empty() {
        return Ok(());
    }
    let check = check_folder(&["profiling, or ", PROFILING_VARIABLE].concat(), folder);
    check.map_err(Error::usage)
}

/// Has a master keep times, and write them at its end, if it was asked to.
pub(super) fn keep(router: &Router) -> Result<()> {
    let node = router.node().clone();
    if node.identity().files.profiling.is_empty() {
        return Ok(());
    }
    router.broker().defer(move |turn| {
        profile::begin(turn, &node);
        let end = Arc::downgrade(&node);
        let write = move |turn: &mut Turn, _: &Death| {
            if let Some(node) = end.upgrade() {
                profile::end(turn, &node);
            }
        };
        turn.at_end(node.tenant(), Box::new(write));
    })
}

/// The folder that the environment names for counters and times.
pub(super) fn profiling_of_environment() -> String {
    env::var(PROFILING_VARIABLE).unwrap_or_default()
}
