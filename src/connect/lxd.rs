//! Method `lxd`: an instance of LXD, by its client `lxc`.

use crate::call::router::Router;
use crate::connect::meaning::Meaning;
use crate::connect::options::Connect;
use crate::connect::options::sealed::Entry;

use crate::connect::tool::{HintRow, Tool, Words};

/// An instance of LXD.
pub type Lxd = Connect<LxdOptions>;

/// The options of [`Lxd`].
#[derive(Clone, Debug, Default)]
pub struct LxdOptions(Words);

impl Router {
    /// A context in a running instance, or in `remote:instance`.
    pub fn lxd(&self, instance: impl Into<String>) -> Lxd {
        Connect::new(self, LxdOptions(Words::of("instance", instance)))
    }
}

/// Options of lxd.
impl Connect<LxdOptions> {
    /// The tool's name or path. Default: `lxc`.
    pub fn lxc_path(mut self, path: impl Into<String>) -> Self {
        self.method.0.put("lxc_path", path);
        self
    }
}

/// Method `lxd` in addresses.
pub(crate) static ENTRY: Entry = Entry {
    name: "lxd",
    target: Some("instance"),
    needs_target: true,
    user: None,
    port: None,
    options: &["lxc_path"],
    make: || Box::new(LxdOptions::default()),
};

impl Tool for LxdOptions {
    const ENTRY: &'static Entry = &ENTRY;
    const HINTS: &'static [HintRow] = LXD_HINTS;

    fn words(&self) -> &Words {
        &self.0
    }

    fn words_mut(&mut self) -> &mut Words {
        &mut self.0
    }

    fn argv(words: &Words) -> Vec<&str> {
        client_argv(words, words.or("lxc_path", "lxc"))
    }
}

/// What the clients of LXD and of Incus say.
pub const LXD_HINTS: &[HintRow] = &[
    ("Error: Command not found", "", Meaning::NoShell),
    ("Error: ", "permission denied", Meaning::Denied),
    ("Error: ", "needed permissions", Meaning::Denied),
    ("Error: ", "not found", Meaning::NoTarget),
    ("Error: ", "not running", Meaning::NoTarget),
    ("Error: The remote", "doesn't exist", Meaning::NoTarget),
    ("Error: ", "appear to be started", Meaning::Unreachable),
    ("Error: ", "unix.socket", Meaning::Unreachable),
];

/// The command line of both.
pub fn client_argv<'a>(words: &'a Words, path: &'a str) -> Vec<&'a str> {
    let instance = words.or("instance", "");
    vec![path, "exec", instance, "--mode=non-interactive", "--", "sh", "-c"]
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
            &[("instance", "far:app")],
            "lxc exec far:app --mode=non-interactive -- sh -c",
        );
        assert_argv(
            &ENTRY,
            &[("instance", "app"), ("lxc_path", "/l")],
            "/l exec app --mode=non-interactive -- sh -c",
        );
    }

    #[test]
    fn what_the_tool_says_tells_the_failure() {
        for (line, failure) in [
            ("Error: Instance not found", NoTarget),
            ("Error: Instance is not running", NoTarget),
            ("Error: Command not found", NoShell),
            (r#"Error: Get "http://unix.socket/1.0": dial unix /x: permission denied"#, Denied),
            ("Error: The LXD daemon doesn't appear to be started (socket path: /x)", Unreachable),
            (r#"Error: Get "http://unix.socket/1.0": dial unix /x: no such file"#, Unreachable),
        ] {
            assert_hint(&ENTRY, line, failure);
        }
    }
}
