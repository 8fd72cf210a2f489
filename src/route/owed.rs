//! What the calls of one context have on their way that are not answered: bounded for each that is
//! called, for it keeps them until it runs them.

use std::sync::Arc;
use std::time::Instant;

use crate::error::{ErrorKind, Result};
use crate::ids::{ContextId, Handle};
use crate::io::sleep::{self, Sleeper};
use crate::limits::{CALLED_BYTES_MAX, CALLED_WAIT, FRAGMENT_BYTES};
use crate::route::node::Node;
use crate::route::pending::Deliver;
use crate::sys::pipe::Wake;
use crate::wire::header::Kind;

/// Bytes of unanswered calls.
#[derive(Default)]
pub struct Owed {
    /// Sorted by who is called; no count is 0.
    list: Vec<(ContextId, usize)>,
    /// Who sleeps until there are fewer.
    waiting: Vec<Arc<Wake>>,
    /// What counts down. From the first call on: a stock agent, which makes none, does not link it.
    settle: Option<fn(&mut Owed, ContextId, usize)>,
}

impl Owed {
    /// Whether a call of so many bytes may be made now.
    pub fn has_room(&self, callee: ContextId, bytes: usize) -> bool {
        let owed = self.place(callee).map_or(0, |at| self.list[at].1);
        owed == 0 || owed + bytes <= CALLED_BYTES_MAX
    }

    /// It is made.
    pub fn add(&mut self, callee: ContextId, bytes: usize) {
        self.settle = Some(Owed::settle_now);
        match self.place(callee) {
            Ok(at) => self.list[at].1 += bytes,
            Err(at) if 0 < bytes => self.list.insert(at, (callee, bytes)),
            Err(_) => (),
        }
    }

    /// It is answered, or nobody listens for that any more.
    pub fn settle(&mut self, callee: ContextId, bytes: usize) {
        if let Some(settle) = self.settle {
            settle(self, callee, bytes);
        }
    }

    fn settle_now(&mut self, callee: ContextId, bytes: usize) {
        let Ok(at) = self.place(callee) else { return };
        self.list[at].1 -= bytes;
        if self.list[at].1 == 0 {
            self.list.remove(at);
        }
        self.wake();
    }

    /// Wakes a thread when there are fewer.
    pub fn wait(&mut self, wake: &Arc<Wake>) {
        self.waiting.push(wake.clone());
    }

    /// Forgets a thread that waits no longer.
    pub fn leave(&mut self, wake: &Arc<Wake>) {
        self.waiting.retain(|other| !Arc::ptr_eq(other, wake));
    }

    /// How many threads sleep.
    pub fn held(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes that one context has not answered.
    #[cfg(test)]
    pub fn bytes_to(&self, callee: ContextId) -> usize {
        self.place(callee).map_or(0, |at| self.list[at].1)
    }

    /// Wakes all that wait.
    pub fn wake(&mut self) {
        for wake in self.waiting.drain(..) {
            wake.wake();
        }
    }

    fn place(&self, callee: ContextId) -> Result<usize, usize> {
        self.list.binary_search_by_key(&callee, |(id, _)| *id)
    }
}

impl Node {
    /// As [`Node::listen_for_answer`], to a call of so many bytes. Sleeps while too many of those
    /// to `from` are unanswered; unless who is called may wait for us in turn.
    ///
    /// # Errors
    /// Also [`ErrorKind::Interrupted`], and [`ErrorKind::Timeout`].
    pub fn listen_for_call(
        &self,
        from: ContextId,
        bytes: usize,
        to: Arc<dyn Deliver>,
        deadline: Option<Instant>,
    ) -> Result<Handle> {
        self.broker().forbid_copy()?;
        let bytes = if from == self.id() { 0 } else { bytes.min(FRAGMENT_BYTES) };
        let (mut sleeper, mut is_behind) = (None::<Sleeper>, false);
        loop {
            {
                let mut handles = self.handles();
                if let Some(sleeper) = &sleeper {
                    handles.owed.leave(sleeper);
                }
                if is_behind || handles.is_closed() || handles.owed.has_room(from, bytes) {
                    let handle = self.add_answer(&mut handles, from, bytes, to)?;
                    handles.owed.add(from, bytes);
                    return Ok(handle);
                }
                if let Some(sleeper) = &sleeper {
                    handles.owed.wait(sleeper);
                }
            }
            let Some(sleeper) = &sleeper else {
                sleeper = Some(sleep::sleeper()?);
                continue;
            };
            // Calls of this context that wait may be what those that are unanswered wait for.
            let calls = self.listener(Handle::CALL, Kind::Call);
            let now = Instant::now();
            let look_again = calls.as_ref().and_then(|_| now.checked_add(CALLED_WAIT));
            let end = [look_again, deadline].into_iter().flatten().min();
            let is_over = deadline.is_some_and(|deadline| deadline <= now);
            match sleep::sleep(sleeper, &[], end) {
                Err(error) if is_over || !matches!(error.kind(), ErrorKind::Timeout) => {
                    self.handles().owed.leave(sleeper);
                    return Err(error);
                }
                Err(_) => is_behind = calls.is_some_and(|calls| calls.is_behind()),
                Ok(_) => (),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{BAD, Inbox, tree};
    use super::*;

    #[test]
    fn who_gives_up_waiting_for_an_answer_is_forgotten() {
        let tree = tree();
        let call = |deadline| {
            let to = Arc::new(Inbox::default());
            tree.root.listen_for_call(BAD, FRAGMENT_BYTES, to, deadline)
        };
        for _ in 0..CALLED_BYTES_MAX / FRAGMENT_BYTES {
            call(None).unwrap();
        }
        let error = call(Some(Instant::now())).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Timeout);
        assert!(tree.root.handles().owed.waiting.is_empty());
    }
}
