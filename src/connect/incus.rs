//! Method `incus`: an instance of Incus.

use crate::call::router::Router;
use crate::connect::lxd::{LXD_HINTS, client_argv};
use crate::connect::options::Connect;
use crate::connect::options::sealed::Entry;
use crate::connect::tool::{HintRow, Tool, Words};

/// An instance of Incus.
pub type Incus = Connect<IncusOptions>;

/// The options of [`Incus`].
#[derive(Clone, Debug, Default)]
pub struct IncusOptions(Words);

impl Router {
    /// A context in a running instance, or in `remote:instance`.
    pub fn incus(&self, instance: impl Into<String>) -> Incus {
        Connect::new(self, IncusOptions(Words::of("instance", instance)))
    }
}

/// Options of incus.
impl Connect<IncusOptions> {
    /// The tool's name or path. Default: `incus`.
    pub fn incus_path(mut self, path: impl Into<String>) -> Self {
        self.method.0.put("incus_path", path);
        self
    }
}

/// Method `incus` in addresses.
pub(crate) static ENTRY: Entry = Entry {
    name: "incus",
    target: Some("instance"),
    needs_target: true,
    user: None,
    port: None,
    options: &["incus_path"],
    make: || Box::new(IncusOptions::default()),
};

impl Tool for IncusOptions {
    const ENTRY: &'static Entry = &ENTRY;
    const HINTS: &'static [HintRow] = LXD_HINTS;

    fn words(&self) -> &Words {
        &self.0
    }

    fn words_mut(&mut self) -> &mut Words {
        &mut self.0
    }

    fn argv(words: &Words) -> Vec<&str> {
        client_argv(words, words.or("incus_path", "incus"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::tool::tests::{assert_argv, assert_hint};
    use crate::error::ConnectFailure::*;

    #[test]
    fn options_become_arguments() {
        assert_argv(
            &ENTRY,
            &[("instance", "app")],
            "incus exec app --mode=non-interactive -- sh -c",
        );
        assert_argv(
            &ENTRY,
            &[("instance", "app"), ("incus_path", "/i")],
            "/i exec app --mode=non-interactive -- sh -c",
        );
    }

    #[test]
    fn what_the_tool_says_tells_the_failure() {
        for (line, failure) in [
            ("Error: Instance not found", NoTarget),
            ("Error: You don't have the needed permissions to talk to the incus daemon", Denied),
        ] {
            assert_hint(&ENTRY, line, failure);
        }
    }
}
