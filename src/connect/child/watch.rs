//! How a child's process is watched: by its pidfd, or by a look from time to time where the kernel
//! has none that can be waited for (Linux before 5.3, sandboxes that refuse it, other systems).

use super::Child;
use crate::error::{Cause, Death, Error, Result};
use crate::io::side::Side;
use crate::io::turn::{Key, Protocol, Tenant, Turn};
use crate::limits::LOOK_AGAIN_MAX;
use crate::sys::errno::Errno;
use crate::sys::pipe;
use crate::wire::codec::Malformed;

impl Child {
    /// Watches the process; the loop lasts until this is closed.
    pub(super) fn watch(&self, turn: &mut Turn, tenant: Tenant) -> Result<Key> {
        let pidfd = self.lock().process.share_pidfd();
        if let Some(pidfd) = pidfd {
            // Linux 5.2 makes pidfds, but cannot wait for them.
            let watch = Box::new(Watch(self.clone()));
            if let Ok(key) = turn.watch(tenant, Side::sharing(pidfd), watch) {
                return Ok(key);
            }
        }
        let never = pipe::never_ready().map_err(|Errno(e)| Error::system("watching", e))?;
        let key = turn.watch(tenant, Side::new(never), Box::new(Watch(self.clone())))?;
        self.look_later(turn);
        Ok(key)
    }

    fn look_later(&self, turn: &mut Turn) {
        let pause = {
            let mut state = self.lock();
            let next = (2 * state.look_pause).min(LOOK_AGAIN_MAX);
            std::mem::replace(&mut state.look_pause, next)
        };
        self.after(turn, pause, |child, turn| {
            if child.lock().watch.is_some() && !child.look(turn) {
                child.look_later(turn);
            }
        });
    }

    /// Whether the process has ended; then all of it has.
    fn look(&self, turn: &mut Turn) -> bool {
        let exit = {
            let mut state = self.lock();
            state.end_group();
            state.process.try_wait()
        };
        if let Ok(None) = exit {
            return false;
        }
        let watch = self.lock().watch.take();
        self.exited(turn, exit.ok().flatten());
        if let Some(key) = watch {
            turn.close(key, &Death::of(Cause::Exited));
        }
        true
    }
}

/// Hears of the end of the process.
struct Watch(Child);

impl Protocol for Watch {
    fn input(&mut self, turn: &mut Turn, _: Key, _: &[u8]) -> std::result::Result<(), Malformed> {
        self.0.look(turn);
        Ok(())
    }

    fn closed(&mut self, _: &mut Turn, _: &Death) {
        let mut state = self.0.lock();
        state.watch = None;
        state.kill_and_reap();
    }
}
