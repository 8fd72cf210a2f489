//! Where the outcome of a connect is told: once, to whoever waits for it or is called with it.

use std::sync::Arc;

use crate::error::{Cause, Error, Result};
use crate::ids::ContextId;
use crate::io::latch::Latch;
use crate::lock::{self, Held, Lock};

/// A context that was reached, and what that took.
#[derive(Clone, Debug)]
pub struct Reached {
    /// Its id.
    pub id: ContextId,
    /// Its name.
    pub name: Arc<str>,
    /// Bytes that were written to bring it up.
    pub pushed_bytes: u64,
    /// Microseconds that it took.
    pub elapsed_us: u64,
}

/// Is called with the outcome, once, with no lock held.
pub type Then = Box<dyn FnOnce(Result<Reached>) + Send>;

/// One outcome.
#[derive(Default)]
pub struct Slot {
    state: Lock<State>,
    /// Closed when there is an outcome.
    decided: Latch<()>,
}

#[derive(Default)]
enum State {
    #[default]
    Open,
    Then(Then),
    Decided(Result<Reached>),
    Taken,
}

impl Slot {
    /// Tells the outcome. Only the first one counts.
    pub fn decide(&self, outcome: Result<Reached>) {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Open => {
                *state = State::Decided(outcome);
                drop(state);
                self.decided.close();
            }
            State::Then(then) => {
                drop(state);
                lock::assert_none_held("calling user code");
                then(outcome);
            }
            before => *state = before,
        }
    }

    /// Waits for the outcome. For one caller.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`](crate::error::ErrorKind) after a signal.
    pub fn wait(&self) -> Result<Reached> {
        self.decided.wait_closed(None)?;
        self.take().unwrap_or_else(|| Err(Error::closed(Cause::ReceiverClosed)))
    }

    /// Has `then` called with the outcome, at once if there is one.
    pub fn call(&self, then: Then) {
        let mut state = self.lock();
        if let State::Open = *state {
            *state = State::Then(then);
            return;
        }
        drop(state);
        if let Some(outcome) = self.take() {
            then(outcome);
        }
    }

    /// What is closed when there is an outcome.
    pub fn decided(&self) -> &Latch<()> {
        &self.decided
    }

    /// The outcome, if there is one that nobody took.
    pub fn take(&self) -> Option<Result<Reached>> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Decided(outcome) => Some(outcome),
            before => {
                *state = before;
                None
            }
        }
    }

    fn lock(&self) -> Held<'_, State> {
        self.state.lock()
    }
}
