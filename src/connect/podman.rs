//! Method `podman`: a container of Podman that runs, or a temporary one made from an image.

use crate::call::router::Router;
use crate::connect::docker::{engine_argv, one_target};
use crate::connect::meaning::Meaning;
use crate::connect::options::Connect;
use crate::connect::options::sealed::Entry;

use crate::connect::tool::{HintRow, Tool, Words};

/// A container of Podman.
pub type Podman = Connect<PodmanOptions>;

/// The options of [`Podman`].
#[derive(Clone, Debug, Default)]
pub struct PodmanOptions(Words);

impl Router {
    /// A context in a running container of Podman, by its name or id.
    pub fn podman(&self, container: impl Into<String>) -> Podman {
        Connect::new(self, PodmanOptions(Words::of("container", container)))
    }

    /// A context in a new container, made from this image, which Podman pulls if it is not there.
    /// The container ends and is removed with the context. Its entry point is not run.
    pub fn podman_image(&self, image: impl Into<String>) -> Podman {
        Connect::new(self, PodmanOptions(Words::of("image", image)))
    }
}

/// Options of podman.
impl Connect<PodmanOptions> {
    /// The user to be there, or `user:group`. Default: the container's own, mostly root.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.method.0.put("username", username);
        self
    }

    /// The tool's name or path. Default: `podman`.
    pub fn podman_path(mut self, path: impl Into<String>) -> Self {
        self.method.0.put("podman_path", path);
        self
    }
}

/// Method `podman` in addresses.
pub(crate) static ENTRY: Entry = Entry {
    name: "podman",
    target: Some("container"),
    needs_target: false,
    user: Some("username"),
    port: None,
    options: &["image", "username", "podman_path"],
    make: || Box::new(PodmanOptions::default()),
};

impl Tool for PodmanOptions {
    const ENTRY: &'static Entry = &ENTRY;
    const HINTS: &'static [HintRow] = &[
        ("Error: ", "no such container", Meaning::NoTarget),
        ("Error: ", "container state improper", Meaning::NoTarget),
        ("Error: ", "did not resolve to an alias", Meaning::NoTarget),
        ("Error: ", "manifest unknown", Meaning::NoTarget),
        ("Error: ", "executable file `sh` not found", Meaning::NoShell),
        ("Error: ", "exec: \"sh\": ", Meaning::NoShell),
        ("Error: ", "unable to find user", Meaning::Denied),
        ("Error: ", ": dial tcp", Meaning::Unreachable),
    ];

    fn words(&self) -> &Words {
        &self.0
    }

    fn words_mut(&mut self) -> &mut Words {
        &mut self.0
    }

    fn argv(words: &Words) -> Vec<&str> {
        engine_argv(words, words.or("podman_path", "podman"))
    }

    fn check_all(words: &Words) -> Result<(), String> {
        one_target(words, ENTRY.name)
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
            &[("container", "app"), ("username", "me")],
            "podman exec -i -u me app sh -c",
        );
        assert_argv(&ENTRY, &[("container", "app"), ("podman_path", "/p")], "/p exec -i app sh -c");
    }

    #[test]
    fn what_the_tool_says_tells_the_failure() {
        for (line, failure) in [
            (r#"Error: no container with name or ID "app" found: no such container"#, NoTarget),
            ("Error: can only create exec sessions on x: container state improper", NoTarget),
            ("Error: unable to find user me: no matching entries in passwd file", Denied),
        ] {
            assert_hint(&ENTRY, line, failure);
        }
    }
}
