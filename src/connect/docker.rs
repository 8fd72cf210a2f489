//! Method `docker`: a container that runs, or a temporary one made from an image.

use crate::call::router::Router;
use crate::connect::meaning::Meaning;
use crate::connect::options::Connect;
use crate::connect::options::sealed::Entry;

use crate::connect::tool::{HintRow, Tool, Words};

/// A container of Docker.
pub type Docker = Connect<DockerOptions>;

/// The options of [`Docker`].
#[derive(Clone, Debug, Default)]
pub struct DockerOptions(Words);

impl Router {
    /// A context in a running container of Docker, by its name or id.
    pub fn docker(&self, container: impl Into<String>) -> Docker {
        Connect::new(self, DockerOptions(Words::of("container", container)))
    }

    /// A context in a new container, made from this image, which Docker pulls if it is not there.
    /// The container ends and is removed with the context. Its entry point is not run.
    pub fn docker_image(&self, image: impl Into<String>) -> Docker {
        Connect::new(self, DockerOptions(Words::of("image", image)))
    }
}

/// Options of docker.
impl Connect<DockerOptions> {
    /// The user to be there, or `user:group`. Default: the container's own, mostly root.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.method.0.put("username", username);
        self
    }

    /// The tool's name or path. Default: `docker`.
    pub fn docker_path(mut self, path: impl Into<String>) -> Self {
        self.method.0.put("docker_path", path);
        self
    }
}

/// Method `docker` in addresses.
pub(crate) static ENTRY: Entry = Entry {
    name: "docker",
    target: Some("container"),
    needs_target: false,
    user: Some("username"),
    port: None,
    options: &["image", "username", "docker_path"],
    make: || Box::new(DockerOptions::default()),
};

impl Tool for DockerOptions {
    const ENTRY: &'static Entry = &ENTRY;
    const HINTS: &'static [HintRow] = &[
        ("", "no such container", Meaning::NoTarget),
        ("", "is not running", Meaning::NoTarget),
        ("", "is paused", Meaning::NoTarget),
        ("", "is restarting", Meaning::NoTarget),
        ("", "pull access denied", Meaning::NoTarget),
        ("", "manifest unknown", Meaning::NoTarget),
        ("", "invalid reference format", Meaning::NoTarget),
        ("", "exec: \"sh\": ", Meaning::NoShell),
        ("", "unable to find user", Meaning::Denied),
        ("", "permission denied while trying to connect", Meaning::Denied),
        ("", "Cannot connect to the Docker daemon", Meaning::Unreachable),
        ("", "failed to connect to the docker API", Meaning::Unreachable),
        ("", ": dial tcp", Meaning::Unreachable),
    ];

    fn words(&self) -> &Words {
        &self.0
    }

    fn words_mut(&mut self) -> &mut Words {
        &mut self.0
    }

    fn argv(words: &Words) -> Vec<&str> {
        engine_argv(words, words.or("docker_path", "docker"))
    }

    fn check_all(words: &Words) -> Result<(), String> {
        one_target(words, ENTRY.name)
    }
}

/// Keeps the tool out of reach of the signals that end an attempt, and of the one that its parent's
/// death sends: a tool that is killed when it has made a container but not started it leaves that
/// behind. It ends by itself, soon after its input does.
const SHIELD: &str = "command -v \"$1\" >/dev/null||{ echo \"$1: no such tool here\" >&2;exit 1;};\
    command -v setsid >/dev/null||exec \"$@\";\
    exec 3<&0;setsid \"$@\" <&3 3<&- & exec 3<&- </dev/null >/dev/null;wait $!";
/// Stays the first process of a new container: it reaps what others leave there.
const FIRST: &str = "sh -c \"$0\";exit $?";

/// The command line of Docker, and of those who take the same words.
pub fn engine_argv<'a>(words: &'a Words, path: &'a str) -> Vec<&'a str> {
    let user = words.flag("-u", "username");
    match words.value("image") {
        None => [path, "exec", "-i"]
            .into_iter()
            .chain(user)
            .chain([words.or("container", ""), "sh", "-c"])
            .collect(),
        // All that the agent says would go to a log file otherwise.
        Some(image) => ["sh", "-c", SHIELD, "sh", path, "run", "--rm", "-i"]
            .into_iter()
            .chain(["--log-driver", "none", "--entrypoint", "sh"])
            .chain(user)
            .chain([image, "-c", FIRST])
            .collect(),
    }
}

/// Fails unless there is a container or an image, and not both.
pub fn one_target(words: &Words, name: &str) -> Result<(), String> {
    match (words.value("container"), words.value("image")) {
        (Some(_), None) | (None, Some(_)) => Ok(()),
        (None, None) => Err(format!("no container ({name}:NAME), and no {name}?image=NAME")),
        (Some(_), Some(_)) => Err("a container and an image, where one is wanted".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::tool::tests::{assert_argv, assert_hint, made};
    use crate::error::ConnectFailure::*;

    #[test]
    fn options_become_arguments() {
        assert_argv(&ENTRY, &[("container", "app")], "docker exec -i app sh -c");
        assert_argv(
            &ENTRY,
            &[("container", "app"), ("username", "me:us"), ("docker_path", "/d")],
            "/d exec -i -u me:us app sh -c",
        );
        let run = "docker run --rm -i --log-driver none --entrypoint sh -u me busybox:1 -c";
        let options = [("image", "busybox:1"), ("username", "me")];
        assert_argv(&ENTRY, &options, &format!("sh -c {SHIELD} sh {run} {FIRST}"));
    }

    #[test]
    fn one_container_or_one_image_is_wanted() {
        assert!(made(&ENTRY, &[]).unwrap_err().contains("docker?image="));
        assert!(made(&ENTRY, &[("container", "a"), ("image", "b")]).is_err());
        for key in ["container", "image", "username", "docker_path"] {
            assert!(made(&ENTRY, &[(key, "-t")]).unwrap_err().contains("begins with"));
            assert!(made(&ENTRY, &[(key, "")]).unwrap_err().contains("empty"));
        }
    }

    #[test]
    fn what_docker_says_tells_the_failure() {
        const DAEMON: &str = "Error response from daemon: ";
        for (line, failure) in [
            ("No such container: app", NoTarget),
            ("container 9a8 is not running", NoTarget),
            ("Container app is paused, unpause the container before exec", NoTarget),
            ("pull access denied for app, repository does not exist", NoTarget),
            ("unable to find user me: no matching entries in passwd file", Denied),
            (r#"OCI runtime exec failed: exec: "sh": executable file not found"#, NoShell),
            ("Get \"https://hub.test/v2/\": dial tcp: lookup hub.test: no such host", Unreachable),
            ("no space left on device", Ended),
        ] {
            assert_hint(&ENTRY, &format!("{DAEMON}{line}"), failure);
        }
        let line = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the \
                    docker daemon running?";
        assert_hint(&ENTRY, line, Unreachable);
        let line = "permission denied while trying to connect to the Docker daemon socket at x";
        assert_hint(&ENTRY, line, Denied);
    }
}
