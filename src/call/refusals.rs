//! How many times something was refused: the first are logged, and a flood of it fills no log.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::limits::LOGGED_REFUSALS_MAX;

/// Those of one sort.
#[derive(Default)]
pub(crate) struct Refusals(AtomicU32);

impl Refusals {
    /// Counts one more. Returns whether it is to be logged.
    pub(crate) fn count(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) < LOGGED_REFUSALS_MAX
    }
}
