//! Method `ssh`: another machine, by OpenSSH's client.

mod client;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use crate::call::router::Router;
use crate::connect::options::sealed::{Describe, Entry};
use crate::connect::options::{Base, Connect, check_text, check_word, parse_flag};
use crate::connect::recipe::{Recipe, Start};
use crate::connect::stage::first_command;
use crate::error::ConnectFailure;
use crate::limits::{KEEPALIVE_COUNT, KEEPALIVE_INTERVAL};
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
    identities_only: bool,
    check_host_keys: HostKeys,
    compression: Option<bool>,
    keepalive_interval_s: u32,
    keepalive_count: u32,
    ssh_debug_level: u8,
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
    /// A new host's key is recorded; a host with another key than recorded is refused. Costs a pty
    /// for each connection, of which a machine has some thousands at most.
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

    /// The file of the private key, on the machine where ssh runs; a `~` in front is expanded
    /// there, by ssh. No password and no other key is tried then, but for those that ssh's
    /// configuration names. Default: ssh's own.
    pub fn identity_file(mut self, path: impl AsRef<Path>) -> Self {
        self.method.identity_file = Some(path.as_ref().to_string_lossy().into_owned());
        self
    }

    /// Whether an `identity_file` or a `password` keeps ssh from trying the keys of its agent and
    /// those with the usual names. Default: yes.
    pub fn identities_only(mut self, only: bool) -> Self {
        self.method.identities_only = only;
        self
    }

    /// What is done about hosts' keys. Default: [`HostKeys::Enforce`].
    pub fn check_host_keys(mut self, check: HostKeys) -> Self {
        self.method.check_host_keys = check;
        self
    }

    /// Whether ssh compresses what it carries. It costs more than it saves but on slow lines: the
    /// agent's image is compressed already. Default: what ssh's configuration says, else no.
    pub fn compression(mut self, compression: bool) -> Self {
        self.method.compression = Some(compression);
        self
    }

    /// After how long a silence ssh asks the server whether it is still there, in whole seconds,
    /// rounded up; zero: never. Default: 15 s.
    pub fn keepalive_interval(mut self, interval: Duration) -> Self {
        self.method.keepalive_interval_s = whole_seconds(interval);
        self
    }

    /// How many such questions may go without an answer, one interval after the other, before the
    /// connection counts as broken. Default: 3.
    pub fn keepalive_count(mut self, count: u32) -> Self {
        self.method.keepalive_count = count;
        self
    }

    /// How much ssh says of what it does, from 0 to 3: it is in errors' texts, and in the log at
    /// level `info`. Default: 0, its errors only.
    pub fn ssh_debug_level(mut self, level: u8) -> Self {
        self.method.ssh_debug_level = level;
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

    /// The password to type if asked; costs a pty. Default: none; ssh is told not to ask then.
    pub fn password(mut self, password: impl Into<Secret>) -> Self {
        self.method.password = Some(password.into());
        self
    }
}

/// `-vvv`; the client knows no more.
const DEBUG_LEVEL_MAX: u8 = 3;

/// The largest number that every client takes.
const CLIENT_NUMBER_MAX: u32 = i32::MAX as u32;

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
        "identities_only",
        "check_host_keys",
        "compression",
        "keepalive_interval",
        "keepalive_count",
        "ssh_debug_level",
        "ssh_path",
        "ssh_args",
        "password",
    ],
    make: || Box::new(SshOptions::empty()),
};

impl SshOptions {
    fn empty() -> SshOptions {
        SshOptions {
            hostname: String::new(),
            username: None,
            port: None,
            identity_file: None,
            identities_only: true,
            check_host_keys: HostKeys::Enforce,
            compression: None,
            keepalive_interval_s: whole_seconds(KEEPALIVE_INTERVAL),
            keepalive_count: KEEPALIVE_COUNT,
            ssh_debug_level: 0,
            ssh_path: None,
            ssh_args: Vec::new(),
            password: None,
        }
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
            "identities_only" => self.identities_only = parse_flag(value)?,
            "check_host_keys" => self.check_host_keys = HostKeys::parse(value)?,
            "compression" => self.compression = Some(parse_flag(value)?),
            "keepalive_interval" => self.keepalive_interval_s = parse_number(key, value)?,
            "keepalive_count" => self.keepalive_count = parse_number(key, value)?,
            "ssh_debug_level" => self.ssh_debug_level = parse_number(key, value)?,
            "ssh_path" => self.ssh_path = Some(text),
            "ssh_args" => self.ssh_args = value.split_whitespace().map(str::to_owned).collect(),
            _ => self.password = Some(Secret::from(text)),
        }
        self.check()
    }

    fn values(&self) -> Vec<(&'static str, String)> {
        let default = SshOptions::empty();
        let flag = |value| if value { "yes" } else { "no" }.to_owned();
        let changed = |is: bool, text: String| is.then_some(text);
        let only = (self.identities_only, default.identities_only);
        let keys = (self.check_host_keys, default.check_host_keys);
        let interval = (self.keepalive_interval_s, default.keepalive_interval_s);
        let count = (self.keepalive_count, default.keepalive_count);
        let level = self.ssh_debug_level;
        let args = changed(!self.ssh_args.is_empty(), self.ssh_args.join(" "));
        [
            ("hostname", Some(self.hostname.clone())),
            ("username", self.username.clone()),
            ("port", self.port.map(|port| port.to_string())),
            ("identity_file", self.identity_file.clone()),
            ("identities_only", changed(only.0 != only.1, flag(only.0))),
            ("check_host_keys", changed(keys.0 != keys.1, keys.0.text().to_owned())),
            ("compression", self.compression.map(flag)),
            ("keepalive_interval", changed(interval.0 != interval.1, interval.0.to_string())),
            ("keepalive_count", changed(count.0 != count.1, count.0.to_string())),
            ("ssh_debug_level", changed(level != 0, level.to_string())),
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
        if CLIENT_NUMBER_MAX < self.keepalive_interval_s.max(self.keepalive_count) {
            return Err(format!("a keepalive number is above {CLIENT_NUMBER_MAX}"));
        }
        if self.keepalive_count == 0 {
            return Err("keepalive_count is 0; keepalive_interval=0 switches it off".to_owned());
        }
        if DEBUG_LEVEL_MAX < self.ssh_debug_level {
            return Err(format!("ssh_debug_level is a number from 0 to {DEBUG_LEVEL_MAX}"));
        }
        for arg in &self.ssh_args {
            check_text("ssh_args", arg)?;
        }
        self.password.as_ref().map_or(Ok(()), |secret| check_text("password", secret.expose()))
    }

    fn complete(&self, base: &Base<'_>, recipe: &mut Recipe) -> Result<(), ConnectFailure> {
        recipe.terminal = recipe.asks || self.may_ask();
        let argv = self.argv(recipe.terminal, first_command(base.nonce));
        recipe.start = Start::Shell { argv, nonce: base.nonce };
        recipe.secret = self.password.clone();
        recipe.hints = self.hints();
        if recipe.terminal {
            recipe.prompts = self.prompts(recipe.asks);
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

fn parse_number<T: std::str::FromStr>(key: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{key} is no number that it can be"))
}

fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

/// An IPv6 address without the brackets that ssh does not want.
fn bare(hostname: String) -> String {
    match hostname.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) if address.contains(':') => address.to_owned(),
        _ => hostname,
    }
}
