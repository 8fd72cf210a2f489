//! How a child's process is watched, and what is done when it has ended.

use super::Child;
use crate::error::{Cause, Death, Result};
use crate::io::census::{List, Role};
use crate::io::turn::{Key, Protocol, Tenant, Turn};
use crate::io::watch;
use crate::wire::codec::{Malformed, Writer};

impl Child {
    /// Watches the process; the loop lasts until this is closed.
    pub(super) fn watch(&self, turn: &mut Turn, tenant: Tenant) -> Result<Key> {
        let pidfd = self.lock().process.share_pidfd();
        let make = || Box::new(Watch(self.clone())) as Box<dyn Protocol>;
        let (key, must_look) = watch::process(turn, tenant, pidfd, &make)?;
        if must_look {
            self.look_later(turn);
        }
        Ok(key)
    }

    fn look_later(&self, turn: &mut Turn) {
        let (at, child) = (self.lock().look_pause.next(), self.clone());
        let look = move |turn: &mut Turn| {
            if child.lock().watch.is_some() && !child.look(turn) {
                child.look_later(turn);
            }
        };
        turn.timer(at, Box::new(look));
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

    fn role(&self) -> Role {
        Role::process(self.0.lock().id)
    }

    fn describe(&self, is_starting: bool, list: &mut List, w: &mut Writer<'_>) {
        self.0.describe(is_starting, list, w);
    }
}
