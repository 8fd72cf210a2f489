//! How the end of a process is heard of: by its pidfd, or by a look from time to time where the
//! kernel has none that can be waited for (Linux before 5.3, sandboxes that refuse it, other
//! systems).

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::io::side::Side;
use crate::io::turn::{Key, Protocol, Tenant, Turn};
use crate::limits::LOOK_AGAIN_MAX;
use crate::sys::errno::Errno;
use crate::sys::pipe;
use crate::sys::wait::LOOK_AGAIN_FIRST;

/// Has a protocol that `make` makes called when the process may have ended. Returns its key, and
/// whether it must look by itself, as nothing calls it.
pub fn process(
    turn: &mut Turn,
    tenant: Tenant,
    pidfd: Option<Arc<OwnedFd>>,
    make: &dyn Fn() -> Box<dyn Protocol>,
) -> Result<(Key, bool)> {
    if let Some(pidfd) = pidfd {
        // Linux 5.2 makes pidfds, but cannot wait for them.
        if let Ok(key) = turn.watch(tenant, Side::sharing(pidfd), make()) {
            return Ok((key, false));
        }
    }
    let never = pipe::never_ready().map_err(|Errno(e)| Error::system("watching", e))?;
    turn.watch(tenant, Side::new(never), make()).map(|key| (key, true))
}

/// When to look again: soon at first.
#[derive(Clone, Copy)]
pub struct Pause(Duration);

impl Pause {
    /// Before the first look.
    pub const FIRST: Pause = Pause(LOOK_AGAIN_FIRST);

    /// The next time to look.
    pub fn next(&mut self) -> Instant {
        let pause = self.0;
        self.0 = (2 * pause).min(LOOK_AGAIN_MAX);
        Instant::now() + pause
    }
}
