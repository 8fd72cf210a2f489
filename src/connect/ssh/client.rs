//! What OpenSSH's client is told, what it asks, and what its words mean, from version 6.6 to 10.
//!
//! It expands a `~` in the name of a key file itself, on the machine where it runs; nobody else
//! does. A new host's key is accepted by an answer to its question: the option that does so,
//! `accept-new`, came with 7.6, and the clients that a jump host starts are not told of it.

use super::{HostKeys, SshOptions};
use crate::connect::meaning::{Hint, Meaning};
use crate::connect::options::{hints, password_prompts};
use crate::connect::recipe::{Pattern, Prompt, Reply};

impl SshOptions {
    /// Whether the client may ask something that we have an answer to.
    pub(super) fn may_ask(&self) -> bool {
        self.password.is_some() || self.check_host_keys == HostKeys::Accept
    }

    /// The client and its arguments, the remote command last; it asks nothing unless it may.
    pub(super) fn argv(&self, may_ask: bool, command: Vec<u8>) -> Vec<Vec<u8>> {
        let mut argv = vec![self.ssh_path.clone().unwrap_or_else(|| "ssh".to_owned()), "-T".into()];
        match self.ssh_debug_level {
            // Errors only: what else it says on a connection is no failure of ours.
            0 => option(&mut argv, "LogLevel", "ERROR"),
            level => argv.push(["-", &"v".repeat(level.into())].concat()),
        }
        self.add_login(may_ask, &mut argv);
        self.add_host_keys(&mut argv);
        self.add_link(&mut argv);
        if let Some(username) = &self.username {
            argv.extend(["-l".into(), username.clone()]);
        }
        if let Some(port) = self.port {
            argv.extend(["-p".into(), port.to_string()]);
        }
        argv.extend(self.ssh_args.iter().cloned());
        argv.push(self.hostname.clone());
        argv.into_iter().map(String::into_bytes).chain([command]).collect()
    }

    fn add_login(&self, may_ask: bool, argv: &mut Vec<String>) {
        match may_ask {
            false => option(argv, "BatchMode", "yes"),
            true => {
                option(argv, "BatchMode", "no");
                option(argv, "NumberOfPasswordPrompts", "1");
            }
        }
        if let Some(path) = &self.identity_file {
            argv.extend(["-i".into(), path.clone()]);
        }
        if self.identities_only && (self.identity_file.is_some() || self.password.is_some()) {
            option(argv, "IdentitiesOnly", "yes");
            // With a list of keys, even an empty one, the client tries no default ones; else it
            // would if the file above is not there.
            option(argv, "IdentityFile", "none");
        }
    }

    fn add_host_keys(&self, argv: &mut Vec<String>) {
        match self.check_host_keys {
            HostKeys::Enforce => option(argv, "StrictHostKeyChecking", "yes"),
            HostKeys::Accept => {
                option(argv, "StrictHostKeyChecking", "ask");
                // Else clients before 8.5 may ask another question that looks the same.
                option(argv, "CheckHostIP", "no");
            }
            HostKeys::Ignore => {
                option(argv, "StrictHostKeyChecking", "no");
                option(argv, "UserKnownHostsFile", "/dev/null");
                option(argv, "GlobalKnownHostsFile", "/dev/null");
            }
        }
    }

    fn add_link(&self, argv: &mut Vec<String>) {
        if let Some(compression) = self.compression {
            option(argv, "Compression", if compression { "yes" } else { "no" });
        }
        option(argv, "ServerAliveInterval", &self.keepalive_interval_s.to_string());
        if 0 < self.keepalive_interval_s {
            option(argv, "ServerAliveCountMax", &self.keepalive_count.to_string());
        }
    }

    /// The client's questions. The host's words are in those for a password of its second kind
    /// ("keyboard-interactive"), which clients before 8.4 show as they are. A key's passphrase is
    /// not known here; `asks` says that somebody may know it.
    pub(super) fn prompts(&self, asks: bool) -> Vec<Prompt> {
        let mut all = self.password_prompts();
        if self.check_host_keys == HostKeys::Accept {
            let line =
                Pattern::ending(b"Are you sure you want to continue connecting (yes/no", b")?");
            all.insert(0, Prompt { line, reply: Reply::Yes });
        }
        if !asks {
            let [passphrase, pin] =
                [&b"Enter passphrase for key '"[..], b"Enter PIN for "].map(|starts| Prompt {
                    line: Pattern::ending(starts, b":"),
                    reply: Reply::Nothing,
                });
            all.splice(0..0, [passphrase, pin]);
        }
        all
    }

    fn password_prompts(&self) -> Vec<Prompt> {
        let named = |starts: &[u8], ends: &[u8]| Pattern {
            holds: b"@".to_vec(),
            ..Pattern::ending(starts, ends)
        };
        let exact = vec![
            named(b"", b"'s password:"),
            named(b"(", b"password:"),
            Pattern { holds: b") password for ".to_vec(), ..named(b"(", b":") },
            Pattern::ending(b"password:", b"password:"),
            Pattern::ending(b"password for ", b":"),
        ];
        exact.into_iter().map(Prompt::password).chain(password_prompts(&[])).collect()
    }

    /// What the client's words mean.
    pub(super) fn hints(&self) -> Vec<Hint> {
        let asked = match (&self.password, &self.identity_file) {
            (Some(_), _) => Meaning::LoginRefused,
            // Who named a key file means to use it: that a password would do as well is no news.
            (None, Some(_)) => Meaning::Denied,
            (None, None) => Meaning::PasswordRequired,
        };
        // The methods by which the server would still let us in, a key first.
        let refused = ["password).", "keyboard-interactive)."].map(|ends| Hint {
            line: Pattern {
                holds: b"Permission denied (".to_vec(),
                ..Pattern::ending(b"", ends.as_bytes())
            },
            meaning: asked,
        });
        let mut all = hints(HINTS);
        all.extend(refused);
        all.extend(hints(LATE_HINTS));
        all
    }
}

fn option(argv: &mut Vec<String>, key: &str, value: &str) {
    argv.extend(["-o".into(), [key, "=", value].concat()]);
}

/// What the client says, before a shell of the target has spoken: what a line begins with, and what
/// stands in it. The first that is met decides, so causes stand before what they lead to.
const HINTS: &[(&str, &str, Meaning)] = &[
    ("@ ", "REMOTE HOST IDENTIFICATION HAS CHANGED", Meaning::HostKeyChanged),
    ("Host key for ", " has changed and you have requested strict", Meaning::HostKeyChanged),
    ("", " was revoked and you have requested strict", Meaning::HostKeyChanged),
    ("Warning: the ", " differs from the key for the IP address", Meaning::HostKeyChanged),
    ("Host key verification failed", "", Meaning::HostKey),
    ("ssh: ", "Could not resolve hostname", Meaning::HostUnknown),
    ("ssh: connect to ", ": Connection refused", Meaning::ConnectionRefused),
    ("ssh: connect to ", ": No route to host", Meaning::Unreachable),
    ("ssh: connect to ", " is unreachable", Meaning::Unreachable),
    ("ssh: connect to ", " is down", Meaning::Unreachable),
    ("ssh: connect to ", " timed out", Meaning::Unreachable),
    ("Connection timed out during banner exchange", "", Meaning::Unreachable),
    ("Permission denied, please try again", "", Meaning::PasswordWrong),
];

/// The same, which [`SshOptions::hints`] puts behind what depends on options.
const LATE_HINTS: &[(&str, &str, Meaning)] = &[
    ("", ": Permission denied (", Meaning::Denied),
    ("Permission denied (", "", Meaning::Denied),
    ("Too many authentication failures", "", Meaning::LoginRefused),
    ("Received disconnect from ", "Too many authentication failures", Meaning::LoginRefused),
    ("ssh_exchange_identification: ", "Connection ", Meaning::Busy),
    ("kex_exchange_identification: ", "Connection ", Meaning::Busy),
    // From 9.3 on this is all that is said.
    ("Connection reset by ", " port ", Meaning::Busy),
    ("Connection closed by ", "", Meaning::Busy),
];
