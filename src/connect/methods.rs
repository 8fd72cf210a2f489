//! The table of methods that addresses know. One more method is one more line here, and its file.

use crate::connect::options::sealed::Entry;
use crate::connect::{local, ssh, sudo};

/// All methods, by name.
pub(crate) static METHODS: [&Entry; 3] = [&local::ENTRY, &ssh::ENTRY, &sudo::ENTRY];

/// The method of this name.
pub(crate) fn find(name: &str) -> Option<&'static Entry> {
    METHODS.into_iter().find(|entry| entry.name == name)
}
