//! Method `jail`: a jail of FreeBSD, by jexec.

use crate::call::router::Router;
use crate::connect::meaning::Meaning;
use crate::connect::options::Connect;
use crate::connect::options::sealed::Entry;

use crate::connect::tool::{HintRow, Tool, Words};

/// A jail of FreeBSD.
pub type Jail = Connect<JailOptions>;

/// The options of [`Jail`].
#[derive(Clone, Debug, Default)]
pub struct JailOptions(Words);

impl Router {
    /// A context in a running jail, by its name or number.
    pub fn jail(&self, jail: impl Into<String>) -> Jail {
        Connect::new(self, JailOptions(Words::of("jail", jail)))
    }
}

/// Options of jail.
impl Connect<JailOptions> {
    /// The user to be there, as the jail knows it. Default: root.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.method.0.put("username", username);
        self
    }

    /// The tool's name or path. Default: `/usr/sbin/jexec`.
    pub fn jexec_path(mut self, path: impl Into<String>) -> Self {
        self.method.0.put("jexec_path", path);
        self
    }
}

/// Method `jail` in addresses.
pub(crate) static ENTRY: Entry = Entry {
    name: "jail",
    target: Some("jail"),
    needs_target: true,
    user: Some("username"),
    port: None,
    options: &["username", "jexec_path"],
    make: || Box::new(JailOptions::default()),
};

impl Tool for JailOptions {
    const ENTRY: &'static Entry = &ENTRY;
    const HINTS: &'static [HintRow] = &[
        ("jexec: ", "not found", Meaning::NoTarget),
        ("jexec: execvp", "", Meaning::NoShell),
        ("jexec: ", "no such user", Meaning::Denied),
        ("jexec: ", "Operation not permitted", Meaning::Denied),
    ];

    fn words(&self) -> &Words {
        &self.0
    }

    fn words_mut(&mut self) -> &mut Words {
        &mut self.0
    }

    fn argv(words: &Words) -> Vec<&str> {
        // A `jexec` that is found first elsewhere is Java's.
        let head = [words.or("jexec_path", "/usr/sbin/jexec")].into_iter();
        let user = words.flag("-U", "username");
        head.chain(user).chain([words.or("jail", ""), "sh", "-c"]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::tool::tests::{assert_argv, assert_hint};
    use crate::error::ConnectFailure::*;

    #[test]
    fn options_become_arguments() {
        assert_argv(&ENTRY, &[("jail", "app")], "/usr/sbin/jexec app sh -c");
        assert_argv(
            &ENTRY,
            &[("jail", "3"), ("username", "me"), ("jexec_path", "jexec")],
            "jexec -U me 3 sh -c",
        );
    }

    #[test]
    fn what_the_tool_says_tells_the_failure() {
        for (line, failure) in [
            (r#"jexec: jail "app" not found"#, NoTarget),
            ("jexec: execvp: sh: No such file or directory", NoShell),
            ("jexec: me: no such user", Denied),
            ("jexec: jail_attach(3): Operation not permitted", Denied),
        ] {
            assert_hint(&ENTRY, line, failure);
        }
    }
}
