//! Method `setns`: a container of the connecting context's machine, entered without its tool, which
//! is asked for the number of the container's first process and nothing else.

use crate::call::router::Router;
use crate::connect::meaning::Meaning;
use crate::connect::options::sealed::{Describe, Entry};
use crate::connect::options::{Base, Connect, check_word, hints};
use crate::connect::recipe::Recipe;
use crate::error::ConnectFailure;

/// A container, by setns(2). On Linux, as root: [`sudo`](Router::sudo) comes first otherwise.
///
/// The agent is started from a file in memory: no file and no shell of the container is needed.
/// It is in the container's namespaces, has its root, a user of its, that user's groups, a login's
/// environment, and no capability that the container's first process cannot have. It is in neither
/// the control groups, nor the seccomp filter or security profile of the container: what is called
/// in it can do more than what `docker exec` starts, and uses resources of the connecting context.
pub type Setns = Connect<SetnsOptions>;

/// The options of [`Setns`].
#[derive(Clone, Debug)]
pub struct SetnsOptions {
    container: String,
    kind: Option<ContainerKind>,
    username: Option<String>,
    docker_path: Option<String>,
    lxc_path: Option<String>,
    lxc_info_path: Option<String>,
    machinectl_path: Option<String>,
}

/// What made a container, and so whom to ask about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerKind {
    /// Docker, by `docker inspect`.
    Docker,
    /// LXC, by `lxc-info`.
    Lxc,
    /// LXD, by `lxc info`.
    Lxd,
    /// systemd-nspawn, by `machinectl show`.
    Machinectl,
}

impl Router {
    /// A context in a running container of this machine, or of that of `via`.
    pub fn setns(&self, kind: ContainerKind, container: impl Into<String>) -> Setns {
        let container = container.into();
        Connect::new(self, SetnsOptions { container, kind: Some(kind), ..SetnsOptions::empty() })
    }
}

/// Options of setns.
impl Connect<SetnsOptions> {
    /// A user of the container, as its own /etc/passwd has it. Default: root.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.method.username = Some(username.into());
        self
    }

    /// Docker's tool, by name or path. Default: `docker`.
    pub fn docker_path(mut self, path: impl Into<String>) -> Self {
        self.method.docker_path = Some(path.into());
        self
    }

    /// LXD's tool, by name or path. Default: `lxc`.
    pub fn lxc_path(mut self, path: impl Into<String>) -> Self {
        self.method.lxc_path = Some(path.into());
        self
    }

    /// LXC's tool, by name or path. Default: `lxc-info`.
    pub fn lxc_info_path(mut self, path: impl Into<String>) -> Self {
        self.method.lxc_info_path = Some(path.into());
        self
    }

    /// systemd's tool, by name or path. Default: `machinectl`.
    pub fn machinectl_path(mut self, path: impl Into<String>) -> Self {
        self.method.machinectl_path = Some(path.into());
        self
    }
}

/// Method `setns` in addresses.
pub(crate) static ENTRY: Entry = Entry {
    name: "setns",
    target: Some("container"),
    needs_target: true,
    user: Some("username"),
    port: None,
    options: &[
        "container",
        "kind",
        "username",
        "docker_path",
        "lxc_path",
        "lxc_info_path",
        "machinectl_path",
    ],
    make: || Box::new(SetnsOptions::empty()),
};

/// What the tools say, and the agent before it is one (`agent/enter.rs`).
const HINTS: &[(&str, &str, Meaning)] = &[
    ("mitogen-setns: 3 stopped", "", Meaning::NoTarget),
    // It ended in the meantime.
    ("mitogen-setns: 2 process", "", Meaning::NoTarget),
    ("mitogen-setns: 2 users", "", Meaning::Denied),
    ("Error: No such object", "", Meaning::NoTarget),
    ("Error: No such container", "", Meaning::NoTarget),
    ("Error response from daemon: No such container", "", Meaning::NoTarget),
    ("", " doesn't exist", Meaning::NoTarget),
    ("Error: ", "not found", Meaning::NoTarget),
    ("", "No machine '", Meaning::NoTarget),
    ("", "Cannot connect to the Docker daemon", Meaning::Unreachable),
    ("", "permission denied while trying to connect", Meaning::Denied),
    ("", "Insufficent privileges", Meaning::Denied),
    ("mitogen-setns: ", "", Meaning::NotEntered),
];

impl ContainerKind {
    /// All kinds, by name.
    const ALL: [(&'static str, ContainerKind); 4] = [
        ("docker", ContainerKind::Docker),
        ("lxc", ContainerKind::Lxc),
        ("lxd", ContainerKind::Lxd),
        ("machinectl", ContainerKind::Machinectl),
    ];

    fn parse(text: &str) -> Result<ContainerKind, String> {
        let found = ContainerKind::ALL.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, kind)| kind).ok_or("none of docker, lxc, lxd, machinectl".to_owned())
    }

    fn name(self) -> &'static str {
        ContainerKind::ALL.into_iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

impl SetnsOptions {
    fn empty() -> SetnsOptions {
        SetnsOptions {
            container: String::new(),
            kind: None,
            username: None,
            docker_path: None,
            lxc_path: None,
            lxc_info_path: None,
            machinectl_path: None,
        }
    }

    /// What stands in front of the number in the answer, in whatever case; and whom to ask, how.
    fn question(&self, kind: ContainerKind) -> (&'static str, Vec<&str>) {
        let container = &*self.container;
        match kind {
            ContainerKind::Docker => {
                let tool = self.docker_path.as_deref().unwrap_or("docker");
                let format = "--format={{.State.Pid}}";
                ("", vec![tool, "inspect", "--type=container", format, container])
            }
            ContainerKind::Lxc => {
                let tool = self.lxc_info_path.as_deref().unwrap_or("lxc-info");
                ("", vec![tool, "-n", container, "-p", "-H"])
            }
            ContainerKind::Lxd => {
                ("pid:", vec![self.lxc_path.as_deref().unwrap_or("lxc"), "info", container])
            }
            ContainerKind::Machinectl => {
                let tool = self.machinectl_path.as_deref().unwrap_or("machinectl");
                ("Leader=", vec![tool, "show", "--property=Leader", container])
            }
        }
    }
}

impl Describe for SetnsOptions {
    fn entry(&self) -> &'static Entry {
        &ENTRY
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let text = value.to_owned();
        match key {
            "container" => self.container = text,
            "kind" => self.kind = Some(ContainerKind::parse(value)?),
            "username" => self.username = Some(text),
            "docker_path" => self.docker_path = Some(text),
            "lxc_path" => self.lxc_path = Some(text),
            "lxc_info_path" => self.lxc_info_path = Some(text),
            _ => self.machinectl_path = Some(text),
        }
        check_word(key, value)
    }

    fn values(&self) -> Vec<(&'static str, String)> {
        [
            ("container", Some(self.container.clone())),
            ("kind", self.kind.map(|kind| kind.name().to_owned())),
            ("username", self.username.clone()),
            ("docker_path", self.docker_path.clone()),
            ("lxc_path", self.lxc_path.clone()),
            ("lxc_info_path", self.lxc_info_path.clone()),
            ("machinectl_path", self.machinectl_path.clone()),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }

    fn check(&self) -> Result<(), String> {
        self.values().iter().try_for_each(|(key, value)| check_word(key, value))?;
        match self.kind {
            None => Err("setns needs a kind: docker, lxc, lxd or machinectl".to_owned()),
            Some(ContainerKind::Lxd) if self.container.contains(':') => {
                Err("setns enters instances of its own machine, and of no remote".to_owned())
            }
            Some(_) => Ok(()),
        }
    }

    fn complete(&self, _: &Base<'_>, recipe: &mut Recipe) -> Result<(), ConnectFailure> {
        let bad = |why: &str| Err(ConnectFailure::BadOption(why.to_owned()));
        let Some(kind) = self.kind else { return bad("setns needs a kind") };
        if !recipe.memfd {
            return bad("setns starts the agent from a file in memory; memfd=no forbids that");
        }
        let (label, tool) = self.question(kind);
        let username = self.username.as_deref().unwrap_or("root");
        // In front of our words: there is no directory to remove.
        let words = ["", username, label].into_iter().chain(tool);
        recipe.orders = words.map(|word| word.as_bytes().to_vec()).collect();
        recipe.hints = hints(HINTS);
        Ok(())
    }
}
