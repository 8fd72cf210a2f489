//! Method `buildah`: a working container of Buildah.

use crate::call::router::Router;
use crate::connect::meaning::Meaning;
use crate::connect::options::Connect;
use crate::connect::options::sealed::Entry;

use crate::connect::tool::{HintRow, Tool, Words};

/// A working container of Buildah.
pub type Buildah = Connect<BuildahOptions>;

/// The options of [`Buildah`].
#[derive(Clone, Debug, Default)]
pub struct BuildahOptions(Words);

impl Router {
    /// A context in a working container, as `buildah from` makes them.
    pub fn buildah(&self, container: impl Into<String>) -> Buildah {
        Connect::new(self, BuildahOptions(Words::of("container", container)))
    }
}

/// Options of buildah.
impl Connect<BuildahOptions> {
    /// The user to be there, or `user:group`. Default: the container's own, mostly root.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.method.0.put("username", username);
        self
    }

    /// The tool's name or path. Default: `buildah`.
    pub fn buildah_path(mut self, path: impl Into<String>) -> Self {
        self.method.0.put("buildah_path", path);
        self
    }
}

/// Method `buildah` in addresses.
pub(crate) static ENTRY: Entry = Entry {
    name: "buildah",
    target: Some("container"),
    needs_target: true,
    user: Some("username"),
    port: None,
    options: &["username", "buildah_path"],
    make: || Box::new(BuildahOptions::default()),
};

impl Tool for BuildahOptions {
    const ENTRY: &'static Entry = &ENTRY;
    const HINTS: &'static [HintRow] = &[
        ("", "container not known", Meaning::NoTarget),
        ("", "executable file `sh` not found", Meaning::NoShell),
        ("", "exec: \"sh\": ", Meaning::NoShell),
        ("", "unknown user", Meaning::Denied),
        ("Error: ", "permission denied", Meaning::Denied),
    ];

    fn words(&self) -> &Words {
        &self.0
    }

    fn words_mut(&mut self) -> &mut Words {
        &mut self.0
    }

    fn argv(words: &Words) -> Vec<&str> {
        let head = [words.or("buildah_path", "buildah"), "run"].into_iter();
        let user = words.flag("--user", "username");
        head.chain(user).chain([words.or("container", ""), "--", "sh", "-c"]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::tool::tests::{assert_argv, assert_hint};
    use crate::error::ConnectFailure::*;

    #[test]
    fn options_become_arguments() {
        assert_argv(&ENTRY, &[("container", "app")], "buildah run app -- sh -c");
        assert_argv(
            &ENTRY,
            &[("container", "app"), ("username", "me:us"), ("buildah_path", "/b")],
            "/b run --user me:us app -- sh -c",
        );
    }

    #[test]
    fn what_the_tool_says_tells_the_failure() {
        let line = "Error: reading build container \"app\": container not known";
        assert_hint(&ENTRY, line, NoTarget);
        let line = "error running container: exec: \"sh\": executable file not found in $PATH";
        assert_hint(&ENTRY, line, NoShell);
    }
}
