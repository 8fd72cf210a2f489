//! Method `kubectl`: a container of a pod of Kubernetes.

use crate::call::router::Router;
use crate::connect::meaning::Meaning;
use crate::connect::options::Connect;
use crate::connect::options::sealed::Entry;

use crate::connect::tool::{HintRow, Tool, Words};

/// A pod of Kubernetes.
pub type Kubectl = Connect<KubectlOptions>;

/// The options of [`Kubectl`].
#[derive(Clone, Debug, Default)]
pub struct KubectlOptions(Words);

impl Router {
    /// A context in a running pod; or in the first of `deploy/name`, `svc/name` and the like.
    pub fn kubectl(&self, pod: impl Into<String>) -> Kubectl {
        Connect::new(self, KubectlOptions(Words::of("pod", pod)))
    }
}

/// Options of kubectl.
impl Connect<KubectlOptions> {
    /// The container of the pod. Default: the pod's default one, or else its first.
    pub fn container(mut self, container: impl Into<String>) -> Self {
        self.method.0.put("container", container);
        self
    }

    /// The namespace of the pod. Default: that of the context.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.method.0.put("namespace", namespace);
        self
    }

    /// The entry of the kubeconfig file that names cluster and user. Default: its current one.
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.method.0.put("context", context);
        self
    }

    /// The tool's name or path. Default: `kubectl`.
    pub fn kubectl_path(mut self, path: impl Into<String>) -> Self {
        self.method.0.put("kubectl_path", path);
        self
    }

    /// More arguments of the tool, before its `exec`, as `["--kubeconfig", "/k"]`. In addresses
    /// they are separated by blanks.
    pub fn kubectl_args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.method.0.put_all("kubectl_args", args);
        self
    }
}

/// Method `kubectl` in addresses.
pub(crate) static ENTRY: Entry = Entry {
    name: "kubectl",
    target: Some("pod"),
    needs_target: true,
    user: None,
    port: None,
    options: &["container", "namespace", "context", "kubectl_path", "kubectl_args"],
    make: || Box::new(KubectlOptions::default()),
};

impl Tool for KubectlOptions {
    const ENTRY: &'static Entry = &ENTRY;
    const HINTS: &'static [HintRow] = &[
        ("error: context ", "does not exist", Meaning::NoTarget),
        ("", "context was not found", Meaning::NoTarget),
        ("Error from server (NotFound): ", "", Meaning::NoTarget),
        ("", "container not found", Meaning::NoTarget),
        ("", "not found in pod", Meaning::NoTarget),
        ("", "is not valid for pod", Meaning::NoTarget),
        ("", "in a completed pod", Meaning::NoTarget),
        ("", "pod does not exist", Meaning::NoTarget),
        ("", "does not have a host assigned", Meaning::NoTarget),
        ("", "exec: \"sh\": ", Meaning::NoShell),
        ("Error from server (Forbidden): ", "", Meaning::Denied),
        ("", "(Unauthorized)", Meaning::Denied),
        ("The connection to the server ", " was refused", Meaning::ConnectionRefused),
        ("Unable to connect to the server: ", "no such host", Meaning::HostUnknown),
        ("Unable to connect to the server: ", "", Meaning::Unreachable),
    ];

    fn words(&self) -> &Words {
        &self.0
    }

    fn words_mut(&mut self) -> &mut Words {
        &mut self.0
    }

    fn argv(words: &Words) -> Vec<&str> {
        let head = [words.or("kubectl_path", "kubectl")].into_iter();
        let args = words.all("kubectl_args").iter().map(|arg| &**arg);
        let (context, namespace) =
            (words.flag("--context", "context"), words.flag("--namespace", "namespace"));
        let exec = ["exec", "-i", words.or("pod", "")];
        let container = words.flag("-c", "container");
        let all = head.chain(args).chain(context).chain(namespace).chain(exec).chain(container);
        all.chain(["--", "sh", "-c"]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::tool::tests::{assert_argv, assert_hint};
    use crate::error::ConnectFailure::*;

    #[test]
    fn options_become_arguments() {
        assert_argv(&ENTRY, &[("pod", "web")], "kubectl exec -i web -- sh -c");
        assert_argv(
            &ENTRY,
            &[
                ("pod", "deploy/web"),
                ("container", "c"),
                ("namespace", "n"),
                ("context", "x"),
                ("kubectl_path", "/k"),
                ("kubectl_args", "-v 1"),
            ],
            "/k -v 1 --context x --namespace n exec -i deploy/web -c c -- sh -c",
        );
    }

    #[test]
    fn what_the_tool_says_tells_the_failure() {
        for (line, failure) in [
            (r#"Error from server (NotFound): pods "app" not found"#, NoTarget),
            (r#"error: unable to upgrade connection: container not found ("c")"#, NoTarget),
            ("Error in configuration: context was not found for specified context: x", NoTarget),
            (
                "error: cannot exec into a container in a completed pod; current phase is x",
                NoTarget,
            ),
            ("Error from server (BadRequest): container c is not valid for pod app", NoTarget),
            (r#"error: Internal error occurred: exec: "sh": executable file not found"#, NoShell),
            (r#"Error from server (Forbidden): pods "app" is forbidden"#, Denied),
            ("error: You must be logged in to the server (Unauthorized)", Denied),
            (
                "The connection to the server localhost:8080 was refused - did you specify",
                ConnectionRefused,
            ),
            ("Unable to connect to the server: dial tcp: lookup k8s: no such host", HostUnknown),
            ("Unable to connect to the server: dial tcp 1.2.3.4:6443: i/o timeout", Unreachable),
        ] {
            assert_hint(&ENTRY, line, failure);
        }
    }
}
