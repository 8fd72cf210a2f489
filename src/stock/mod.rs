//! Functions that every program carries, and every stock agent.

use crate::call::registry::Registry;

pub(crate) fn register(_registry: &mut Registry) {}
