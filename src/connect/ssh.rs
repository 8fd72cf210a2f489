//! Method `ssh`: another machine, by OpenSSH's client.

use std::path::Path;

use crate::call::router::Router;
use crate::connect::options::sealed::{Describe, Entry};
use crate::connect::options::{Base, Connect, check_text, check_word, hints, password_prompts};
use crate::connect::recipe::{Meaning, Recipe, Start};
use crate::connect::stage::first_command;
use crate::error::ConnectFailure;
use crate::wire::secret::Secret;

/// Another machine, over ssh.
pub type Ssh = Connect<SshOptions>;

/// The options of [`Ssh`].
#[derive(Clone, Debug)]
pub struct SshOptions {
    hostname: String,
    username: Option<String>,
    port: Option<u16>,
    identity_file: Option<String>,
    check_host_keys: HostKeys,
    ssh_path: Option<String>,
    ssh_args: Vec<String>,
    password: Option<Secret>,
}

/// What is done about the keys by which hosts prove who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostKeys {
    /// A host whose key is not recorded, or is another than recorded, is refused.
    #[default]
    Enforce,
    /// A new host's key is recorded; a host with another key than recorded is refused.
    Accept,
    /// Keys are neither checked nor recorded.
    Ignore,
}

impl Router {
    /// A context on another machine: a name, an address, or an alias of ssh's configuration.
    pub fn ssh(&self, hostname: impl Into<String>) -> Ssh {
        let method = SshOptions { hostname: bare(hostname.into()), ..SshOptions::empty() };
        Connect::new(self, method)
    }
}

/// Options of ssh.
impl Connect<SshOptions> {
    /// The user to log in as. Default: ssh's own.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.method.username = Some(username.into());
        self
    }

    /// The TCP port. Default: ssh's own.
    pub fn port(mut self, port: u16) -> Self {
        self.method.port = Some(port);
        self
    }

    /// The file of the private key; no other key is tried then. Default: ssh's own.
    pub fn identity_file(mut self, path: impl AsRef<Path>) -> Self {
        self.method.identity_file = Some(path.as_ref().to_string_lossy().into_owned());
        self
    }

    /// What is done about hosts' keys. Default: [`HostKeys::Enforce`].
    pub fn check_host_keys(mut self, check: HostKeys) -> Self {
        self.method.check_host_keys = check;
        self
    }

    /// The client's name or path. Default: `ssh`.
    pub fn ssh_path(mut self, path: impl Into<String>) -> Self {
        self.method.ssh_path = Some(path.into());
        self
    }

    /// More arguments of the client, before the host's name. They stand behind our own, so that of
    /// options given twice, ours hold.
    pub fn ssh_args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.method.ssh_args = args.into_iter().map(Into::into).collect();
        self
    }

    /// The password to type if asked. Default: none; the client is told not to ask then.
    pub fn password(mut self, password: impl Into<Secret>) -> Self {
        self.method.password = Some(password.into());
        self
    }
}

/// Method `ssh` in addresses.
pub(crate) static ENTRY: Entry = Entry {
    name: "ssh",
    target: Some("hostname"),
    needs_target: true,
    user: Some("username"),
    port: Some("port"),
    options: &[
        "username",
        "port",
        "identity_file",
        "check_host_keys",
        "ssh_path",
        "ssh_args",
        "password",
    ],
    make: || Box::new(SshOptions::empty()),
};

/// What the client says, before a shell of the target has spoken.
const HINTS: &[(&str, &str, Meaning)] = &[
    ("Host key verification failed", "", Meaning::HostKey),
    ("ssh: ", "Could not resolve hostname", Meaning::HostUnknown),
    ("ssh: connect to ", ": Connection refused", Meaning::ConnectionRefused),
    ("ssh: connect to ", ": No route to host", Meaning::Unreachable),
    ("ssh: connect to ", ": Network is unreachable", Meaning::Unreachable),
    ("ssh: connect to ", ": Connection timed out", Meaning::Unreachable),
    ("", ": Permission denied (", Meaning::LoginRefused),
    ("Permission denied (", "", Meaning::LoginRefused),
    ("Too many authentication failures", "", Meaning::LoginRefused),
    ("Received disconnect from ", "Too many authentication failures", Meaning::LoginRefused),
];

impl SshOptions {
    fn empty() -> SshOptions {
        SshOptions {
            hostname: String::new(),
            username: None,
            port: None,
            identity_file: None,
            check_host_keys: HostKeys::Enforce,
            ssh_path: None,
            ssh_args: Vec::new(),
            password: None,
        }
    }

    fn argv(&self, command: Vec<u8>) -> Vec<Vec<u8>> {
        let mut argv = vec![self.ssh_path.clone().unwrap_or_else(|| "ssh".to_owned())];
        let mut add = |words: &[&str]| argv.extend(words.iter().map(|word| (*word).to_owned()));
        add(&["-T", "-o", "LogLevel=ERROR"]);
        match self.password {
            None => add(&["-o", "BatchMode=yes"]),
            Some(_) => add(&["-o", "BatchMode=no", "-o", "NumberOfPasswordPrompts=1"]),
        }
        match self.check_host_keys {
            HostKeys::Enforce => add(&["-o", "StrictHostKeyChecking=yes"]),
            HostKeys::Accept => add(&["-o", "StrictHostKeyChecking=accept-new"]),
            HostKeys::Ignore => {
                add(&["-o", "StrictHostKeyChecking=no"]);
                add(&["-o", "UserKnownHostsFile=/dev/null"]);
                add(&["-o", "GlobalKnownHostsFile=/dev/null"]);
            }
        }
        if self.identity_file.is_some() || self.password.is_some() {
            add(&["-o", "IdentitiesOnly=yes"]);
        }
        if let Some(path) = &self.identity_file {
            add(&["-i", path]);
        }
        if let Some(username) = &self.username {
            add(&["-l", username]);
        }
        if let Some(port) = self.port {
            add(&["-p", &port.to_string()]);
        }
        argv.extend(self.ssh_args.iter().cloned());
        argv.push(self.hostname.clone());
        argv.into_iter().map(String::into_bytes).chain([command]).collect()
    }
}

impl Describe for SshOptions {
    fn entry(&self) -> &'static Entry {
        &ENTRY
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let text = value.to_owned();
        match key {
            "hostname" => self.hostname = bare(text),
            "username" => self.username = Some(text),
            "port" => self.port = Some(parse_port(value)?),
            "identity_file" => self.identity_file = Some(text),
            "check_host_keys" => self.check_host_keys = HostKeys::parse(value)?,
            "ssh_path" => self.ssh_path = Some(text),
            "ssh_args" => self.ssh_args = value.split_whitespace().map(str::to_owned).collect(),
            _ => self.password = Some(Secret::from(text)),
        }
        self.check()
    }

    fn values(&self) -> Vec<(&'static str, String)> {
        let keys = Some(self.check_host_keys).filter(|keys| *keys != HostKeys::default());
        let args = Some(self.ssh_args.join(" ")).filter(|args| !args.is_empty());
        [
            ("hostname", Some(self.hostname.clone())),
            ("username", self.username.clone()),
            ("port", self.port.map(|port| port.to_string())),
            ("identity_file", self.identity_file.clone()),
            ("check_host_keys", keys.map(|keys| keys.text().to_owned())),
            ("ssh_path", self.ssh_path.clone()),
            ("ssh_args", args),
            ("password", self.password.as_ref().map(|secret| secret.expose().to_owned())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }

    fn check(&self) -> Result<(), String> {
        check_word("hostname", &self.hostname)?;
        if self.hostname.contains(['/', '@', '[', ']', ' ']) {
            return Err("no host name; a user goes in username, a port in port".to_owned());
        }
        if let Some(username) = &self.username {
            check_word("username", username)?;
        }
        for (key, path) in [("identity_file", &self.identity_file), ("ssh_path", &self.ssh_path)] {
            path.as_ref().map_or(Ok(()), |path| check_word(key, path))?;
        }
        for arg in &self.ssh_args {
            check_text("ssh_args", arg)?;
        }
        self.password.as_ref().map_or(Ok(()), |secret| check_text("password", secret.expose()))
    }

    fn complete(&self, base: &Base<'_>, recipe: &mut Recipe) -> Result<(), ConnectFailure> {
        let argv = self.argv(first_command(base.nonce));
        recipe.start = Start::Shell { argv, nonce: base.nonce };
        recipe.terminal = self.password.is_some();
        recipe.secret = self.password.clone();
        recipe.hints = hints(HINTS);
        if recipe.terminal {
            let questions: [(&[u8], &[u8]); 3] =
                [(b"", b"'s password:"), (b"(", b") Password:"), (b"Password:", b"Password:")];
            recipe.prompts = password_prompts(&questions);
        }
        Ok(())
    }
}

impl HostKeys {
    fn parse(text: &str) -> Result<HostKeys, String> {
        match text {
            "enforce" => Ok(HostKeys::Enforce),
            "accept" => Ok(HostKeys::Accept),
            "ignore" => Ok(HostKeys::Ignore),
            _ => Err("check_host_keys is enforce, accept or ignore".to_owned()),
        }
    }

    fn text(self) -> &'static str {
        match self {
            HostKeys::Enforce => "enforce",
            HostKeys::Accept => "accept",
            HostKeys::Ignore => "ignore",
        }
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if 0 < port && !text.starts_with('+') => Ok(port),
        _ => Err("a port is a number from 1 to 65535".to_owned()),
    }
}

/// An IPv6 address without the brackets that ssh does not want.
fn bare(hostname: String) -> String {
    match hostname.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) if address.contains(':') => address.to_owned(),
        _ => hostname,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::options::{Common, recipe};

    const BASE: Base<'_> = Base { parent: None, title: "t", nonce: 1, answer_nonce: 2 };

    fn made(options: &[(&str, &str)]) -> Result<Recipe, String> {
        let mut method = SshOptions::empty();
        for (key, value) in options {
            method.set(key, value)?;
        }
        recipe(&method, &Common::default(), &BASE).map_err(|why| why.to_string())
    }

    #[track_caller]
    fn assert_argv(options: &[(&str, &str)], expected: &str) {
        let Ok(Recipe { start: Start::Shell { argv, .. }, .. }) = made(options) else {
            panic!("no recipe")
        };
        assert_eq!(argv.last(), Some(&first_command(1)));
        let words = argv[..argv.len() - 1].iter().map(|word| String::from_utf8_lossy(word));
        assert_eq!(words.collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn options_become_arguments() {
        const HEAD: &str = "ssh -T -o LogLevel=ERROR -o BatchMode=";
        assert_argv(&[("hostname", "web")], &format!("{HEAD}yes -o StrictHostKeyChecking=yes web"));
        assert_argv(
            &[("hostname", "[::1]"), ("port", "22"), ("username", "me"), ("ssh_args", "-4 -v")],
            &format!("{HEAD}yes -o StrictHostKeyChecking=yes -l me -p 22 -4 -v ::1"),
        );
        assert_argv(
            &[("hostname", "web"), ("password", "x"), ("check_host_keys", "accept")],
            &format!(
                "{HEAD}no -o NumberOfPasswordPrompts=1 -o StrictHostKeyChecking=accept-new \
                 -o IdentitiesOnly=yes web"
            ),
        );
        assert_argv(
            &[("hostname", "web"), ("identity_file", "/k"), ("check_host_keys", "ignore")],
            &format!(
                "{HEAD}yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
                 -o GlobalKnownHostsFile=/dev/null -o IdentitiesOnly=yes -i /k web"
            ),
        );
    }

    #[test]
    fn a_terminal_is_there_for_a_password_only() {
        let without = made(&[("hostname", "web")]).unwrap();
        assert!(!without.terminal && without.secret.is_none());
        let with = made(&[("hostname", "web"), ("password", "x")]).unwrap();
        assert!(with.terminal && with.secret.is_some());
        assert_eq!(with.name, "ssh:web?password=***");
    }

    #[test]
    fn what_the_client_would_take_for_an_option_is_refused() {
        for host in ["", "-oProxyCommand=x", "a b", "a\0b", "me@web", "a/b", "[::1]:22"] {
            assert!(made(&[("hostname", host)]).is_err(), "{host}");
        }
        for (key, value) in [("username", "-x"), ("username", ""), ("port", "0"), ("port", "x")] {
            assert!(made(&[("hostname", "web"), (key, value)]).is_err(), "{key} {value}");
        }
        assert!(made(&[]).is_err());
    }
}
