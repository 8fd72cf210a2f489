//! Functions that every program carries, and every stock agent: call them like any other, as in
//! `context.call(stock::identify, ())`.

mod command;
mod identity;

pub use command::{Command, Ended, Output, run};
pub use identity::{Identity, identify, ping};

pub(crate) use command::{Held, guard_processes, hold, start_tool};

use crate::call::registry::Registry;

/// A registry of these functions.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.add(identify);
    registry.add(ping);
    registry.add(run);
    registry
}
