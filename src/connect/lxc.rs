//! Method `lxc`: a container of LXC, by lxc-attach.

use crate::call::router::Router;
use crate::connect::meaning::Meaning;
use crate::connect::options::Connect;
use crate::connect::options::sealed::Entry;

use crate::connect::tool::{HintRow, Tool, Words};

/// A container of LXC.
pub type Lxc = Connect<LxcOptions>;

/// The options of [`Lxc`].
#[derive(Clone, Debug, Default)]
pub struct LxcOptions(Words);

impl Router {
    /// A context in a running container of LXC. Nothing of our environment goes there.
    pub fn lxc(&self, container: impl Into<String>) -> Lxc {
        Connect::new(self, LxcOptions(Words::of("container", container)))
    }
}

/// Options of lxc.
impl Connect<LxcOptions> {
    /// The tool's name or path. Default: `lxc-attach`.
    pub fn lxc_attach_path(mut self, path: impl Into<String>) -> Self {
        self.method.0.put("lxc_attach_path", path);
        self
    }
}

/// Method `lxc` in addresses.
pub(crate) static ENTRY: Entry = Entry {
    name: "lxc",
    target: Some("container"),
    needs_target: true,
    user: None,
    port: None,
    options: &["lxc_attach_path"],
    make: || Box::new(LxcOptions::default()),
};

impl Tool for LxcOptions {
    const ENTRY: &'static Entry = &ENTRY;
    const HINTS: &'static [HintRow] = &[
        ("lxc-attach: ", "Failed to get init pid", Meaning::NoTarget),
        ("lxc-attach: ", "Failed to get attach context", Meaning::NoTarget),
        ("lxc-attach: ", "not running", Meaning::NoTarget),
        ("lxc-attach: ", "Failed to exec \"sh\"", Meaning::NoShell),
        ("lxc-attach: ", "You lack access to", Meaning::Denied),
        ("lxc-attach: ", "privileges to control", Meaning::Denied),
    ];

    fn words(&self) -> &Words {
        &self.0
    }

    fn words_mut(&mut self) -> &mut Words {
        &mut self.0
    }

    fn argv(words: &Words) -> Vec<&str> {
        let path = words.or("lxc_attach_path", "lxc-attach");
        vec![path, "--clear-env", "-n", words.or("container", ""), "--", "sh", "-c"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::tool::tests::{assert_argv, assert_hint};
    use crate::error::ConnectFailure::*;

    #[test]
    fn options_become_arguments() {
        assert_argv(&ENTRY, &[("container", "app")], "lxc-attach --clear-env -n app -- sh -c");
        assert_argv(
            &ENTRY,
            &[("container", "app"), ("lxc_attach_path", "/l")],
            "/l --clear-env -n app -- sh -c",
        );
    }

    #[test]
    fn what_the_tool_says_tells_the_failure() {
        for (line, failure) in [
            (
                "lxc-attach: app: attach.c: get: 406 Connection refused - Failed to get init pid",
                NoTarget,
            ),
            (
                r#"lxc-attach: app: attach.c: 18 No such file or directory - Failed to exec "sh""#,
                NoShell,
            ),
            ("lxc-attach: app: lxc_attach.c: main: 302 You lack access to /none/lxc", Denied),
        ] {
            assert_hint(&ENTRY, line, failure);
        }
    }
}
