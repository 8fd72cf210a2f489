//! The end of a child's process: it is asked, then told, and always reaped.

use super::{Child, State};
use crate::io::turn::Turn;
use crate::limits::{KILL_TIME, REAP_GRACE};
use crate::sys::signal;

impl Child {
    /// Asks the process to end, as a tool must be that has processes of its own to tell; gives it a
    /// moment, then kills it.
    pub(super) fn end_process(&self, turn: &mut Turn) {
        let mut state = self.lock();
        if state.exit.is_some() || state.ending.is_some() {
            return;
        }
        state.signal(signal::TERM);
        drop(state);
        let timer = self.after(turn, REAP_GRACE, |child, _| child.lock().signal(signal::KILL));
        self.lock().ending = Some(timer);
    }

    /// Leaves the process alone from now on, which leaves the tree and will say when it is done.
    /// One that does not, since it has waited too long for this, stays a child.
    pub(super) fn let_live(&self, turn: &mut Turn) {
        let watch = {
            let mut state = self.lock();
            state.detached = true;
            state.watch
        };
        if let Some(key) = watch {
            turn.wait_no_longer(key);
        }
    }

    /// The process has ended: nobody need wait to kill it.
    pub(super) fn process_ended(&self, turn: &mut Turn) {
        let timer = self.lock().ending.take();
        if let Some(timer) = timer {
            turn.cancel(timer);
        }
    }
}

impl State {
    /// Kills the process, and takes its exit if that comes at once; nobody will look later.
    pub(super) fn kill_and_reap(&mut self) {
        if self.detached {
            return;
        }
        self.signal(signal::KILL);
        if self.exit.is_none() {
            // Another user's process cannot be killed; then it is not waited for.
            self.exit = self.process.wait_timeout(KILL_TIME).ok().flatten();
        }
    }

    /// Kills what is left of the process's group if the process has ended because it was asked to:
    /// a proxy or a pipe of a tool need not have heard that.
    pub(super) fn end_group(&mut self) {
        if self.ending.is_some() && self.process.is_zombie() {
            self.signal(signal::KILL);
        }
    }

    /// Sends a signal to the process and its group. A setuid tool of another user refuses that; it
    /// ends when its input does.
    fn signal(&mut self, signal: i32) {
        if self.exit.is_none() && !self.detached {
            // What is gone already, or is another user's, is left alone.
            let _ = self.process.kill_group(signal);
            let _ = self.process.kill(signal);
        }
    }
}
