//! Method `sudo`: another account of the connecting context's machine.

use crate::call::router::Router;
use crate::connect::options::sealed::{Describe, Entry};
use crate::connect::options::{Base, Connect, check_text, check_word, hints, parse_flag};
use crate::connect::recipe::{Meaning, Pattern, Prompt, Recipe, Start};
use crate::connect::stage::{first_script, hex};
use crate::error::ConnectFailure;
use crate::wire::secret::Secret;

/// Another account, by sudo.
pub type Sudo = Connect<SudoOptions>;

/// The options of [`Sudo`].
#[derive(Clone, Debug, Default)]
pub struct SudoOptions {
    username: Option<String>,
    sudo_path: Option<String>,
    set_home: bool,
    preserve_env: bool,
    password: Option<Secret>,
}

impl Router {
    /// A context that runs as another user.
    pub fn sudo(&self) -> Sudo {
        Connect::new(self, SudoOptions::default())
    }
}

/// Options of sudo.
impl Connect<SudoOptions> {
    /// The user to become. Default: root.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.method.username = Some(username.into());
        self
    }

    /// The tool's name or path. Default: `sudo`.
    pub fn sudo_path(mut self, path: impl Into<String>) -> Self {
        self.method.sudo_path = Some(path.into());
        self
    }

    /// Whether HOME becomes the new user's (`-H`). Default: as the sudoers file says.
    pub fn set_home(mut self, set: bool) -> Self {
        self.method.set_home = set;
        self
    }

    /// Whether the environment is kept (`-E`). Default: as the sudoers file says.
    pub fn preserve_env(mut self, preserve: bool) -> Self {
        self.method.preserve_env = preserve;
        self
    }

    /// The password to type if asked, whosever sudo wants. Default: none; sudo must not ask then.
    pub fn password(mut self, password: impl Into<Secret>) -> Self {
        self.method.password = Some(password.into());
        self
    }
}

/// Method `sudo` in addresses.
pub(crate) static ENTRY: Entry = Entry {
    name: "sudo",
    target: Some("username"),
    needs_target: false,
    user: None,
    port: None,
    options: &["username", "sudo_path", "set_home", "preserve_env", "password"],
    make: || Box::new(SudoOptions::default()),
};

/// What sudo and sudo-rs say in English; in other languages the tail must do.
const HINTS: &[(&str, &str, Meaning)] = &[
    ("sudo: ", "a password is required", Meaning::PasswordRequired),
    ("sudo: ", "a terminal is required", Meaning::PasswordRequired),
    ("sudo: ", "interactive authentication is required", Meaning::PasswordRequired),
    ("", "is not in the sudoers file", Meaning::Denied),
    ("", "may not run sudo", Meaning::Denied),
    ("", "is not allowed to ", Meaning::Denied),
    ("sudo: ", "unknown user", Meaning::Denied),
    ("sudo: ", "you must have a tty", Meaning::Denied),
    ("sudo: ", "incorrect password", Meaning::PasswordWrong),
    ("sudo: ", "incorrect authentication", Meaning::PasswordWrong),
    ("sudo: ", "no password was provided", Meaning::PasswordWrong),
    ("Sorry, try again", "", Meaning::PasswordWrong),
    ("sudo: ", "authentication failed", Meaning::PasswordWrong),
    ("sudo: sh: ", "command not found", Meaning::NoShell),
];

impl Describe for SudoOptions {
    fn entry(&self) -> &'static Entry {
        &ENTRY
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let text = value.to_owned();
        match key {
            "username" => self.username = Some(text),
            "sudo_path" => self.sudo_path = Some(text),
            "set_home" => self.set_home = parse_flag(value)?,
            "preserve_env" => self.preserve_env = parse_flag(value)?,
            _ => self.password = Some(Secret::from(text)),
        }
        self.check()
    }

    fn values(&self) -> Vec<(&'static str, String)> {
        let flag = |set: bool| set.then(|| "yes".to_owned());
        [
            ("username", self.username.clone()),
            ("sudo_path", self.sudo_path.clone()),
            ("set_home", flag(self.set_home)),
            ("preserve_env", flag(self.preserve_env)),
            ("password", self.password.as_ref().map(|secret| secret.expose().to_owned())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }

    fn check(&self) -> Result<(), String> {
        for (key, value) in [("username", &self.username), ("sudo_path", &self.sudo_path)] {
            value.as_ref().map_or(Ok(()), |value| check_word(key, value))?;
        }
        self.password.as_ref().map_or(Ok(()), |secret| check_text("password", secret.expose()))
    }

    fn complete(&self, base: &Base<'_>, recipe: &mut Recipe) -> Result<(), ConnectFailure> {
        let prompt = [b"[mitogen-", &hex(base.nonce)[..], b"]"].concat();
        let path = self.sudo_path.as_deref().unwrap_or("sudo");
        let username = self.username.as_deref().unwrap_or("root");
        let mut argv = vec![path.as_bytes().to_vec()];
        let mut add = |words: &[&[u8]]| argv.extend(words.iter().map(|word| word.to_vec()));
        match self.password {
            None => add(&[b"-n"]),
            Some(_) => add(&[b"-p", &prompt]),
        }
        if self.set_home {
            add(&[b"-H"]);
        }
        if self.preserve_env {
            add(&[b"-E"]);
        }
        add(&[b"-u", username.as_bytes(), b"--", b"sh", b"-c", &first_script(base.nonce)]);
        recipe.start = Start::Shell { argv, nonce: base.nonce };
        recipe.same_root = true;
        recipe.terminal = self.password.is_some();
        recipe.secret = self.password.clone();
        recipe.hints = hints(HINTS);
        if recipe.terminal {
            recipe.prompts = vec![Prompt::password(Pattern::line(b"", &prompt))];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::options::{Common, recipe};

    #[track_caller]
    fn assert_argv(options: &[(&str, &str)], expected: &str) {
        let mut method = SudoOptions::default();
        for (key, value) in options {
            method.set(key, value).unwrap();
        }
        let base = Base { parent: Some("ssh:web"), title: "t", nonce: 1, answer_nonce: 2 };
        let recipe = recipe(&method, &Common::default(), &base).unwrap();
        assert_eq!(recipe.terminal, method.password.is_some());
        let Start::Shell { argv, .. } = recipe.start else { panic!("no shell") };
        assert_eq!(argv.last(), Some(&first_script(1)));
        let words = argv[..argv.len() - 1].iter().map(|word| String::from_utf8_lossy(word));
        assert_eq!(words.collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn options_become_arguments() {
        assert_argv(&[], "sudo -n -u root -- sh -c");
        assert_argv(
            &[("username", "nobody"), ("password", "x"), ("set_home", "yes")],
            "sudo -p [mitogen-0000000000000001] -H -u nobody -- sh -c",
        );
        assert_argv(
            &[("sudo_path", "/s/sudo"), ("preserve_env", "yes")],
            "/s/sudo -n -E -u root -- sh -c",
        );
    }

    #[test]
    fn what_sudo_would_take_for_an_option_is_refused() {
        for (key, value) in [("username", "-s"), ("username", ""), ("sudo_path", "-s")] {
            assert!(SudoOptions::default().set(key, value).is_err(), "{key} {value}");
        }
        assert!(SudoOptions::default().set("password", "a\nb").is_err());
    }
}
