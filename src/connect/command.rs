//! Method `command`: whatever a command of the caller's leads to.

use crate::call::router::Router;
use crate::connect::options::sealed::{Describe, Entry};
use crate::connect::options::{
    Base, Connect, check_text, check_word, parse_flag, password_prompts,
};
use crate::connect::recipe::{Recipe, Start};
use crate::connect::stage::{first_command, first_script};
use crate::error::ConnectFailure;
use crate::wire::secret::Secret;

/// Whatever a command leads to.
pub type ByCommand = Connect<CommandOptions>;

/// The options of [`ByCommand`].
#[derive(Clone, Debug, Default)]
pub struct CommandOptions {
    argv: Vec<String>,
    shell_words: bool,
    terminal: bool,
    password: Option<Secret>,
}

impl Router {
    /// A context where this command leads, whose first word is a name in PATH or a path:
    /// `["vagrant", "ssh", "-c"]`. One argument is added, a command line for any login shell. What
    /// runs there has the command's standard input and output, which must pass bytes unchanged.
    pub fn command(&self, words: impl IntoIterator<Item = impl Into<String>>) -> ByCommand {
        let argv = words.into_iter().map(Into::into).collect();
        Connect::new(self, CommandOptions { argv, ..CommandOptions::default() })
    }
}

/// Options of command.
impl Connect<CommandOptions> {
    /// Whether the command takes a program and its arguments, as `chroot`, `nsenter` and `docker
    /// compose exec -T` do: then three arguments are added, `sh`, `-c` and a script. Default: no.
    pub fn shell_words(mut self, split: bool) -> Self {
        self.method.shell_words = split;
        self
    }

    /// Whether the command gets a terminal, as its controlling one and as standard error, to ask
    /// at; never as standard input or output. Default: if there is a password.
    pub fn terminal(mut self, wanted: bool) -> Self {
        self.method.terminal = wanted;
        self
    }

    /// The password to type, once, if the command's terminal asks for one, in words of any of the
    /// languages that tools speak. Default: none.
    pub fn password(mut self, password: impl Into<Secret>) -> Self {
        self.method.password = Some(password.into());
        self
    }
}

/// Method `command` in addresses.
pub(crate) static ENTRY: Entry = Entry {
    name: "command",
    target: Some("argv"),
    needs_target: false,
    user: None,
    port: None,
    options: &["argv", "shell_words", "terminal", "password"],
    make: || Box::new(CommandOptions::default()),
};

impl Describe for CommandOptions {
    fn entry(&self) -> &'static Entry {
        &ENTRY
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "argv" => self.argv = value.split_whitespace().map(str::to_owned).collect(),
            "shell_words" => self.shell_words = parse_flag(value)?,
            "terminal" => self.terminal = parse_flag(value)?,
            _ => self.password = Some(Secret::from(value.to_owned())),
        }
        check_password(self.password.as_ref())
    }

    fn values(&self) -> Vec<(&'static str, String)> {
        let flag = |set: bool| set.then(|| "yes".to_owned());
        [
            ("argv", Some(self.argv.join(" ")).filter(|argv| !argv.is_empty())),
            ("shell_words", flag(self.shell_words)),
            ("terminal", flag(self.terminal)),
            ("password", self.password.as_ref().map(|secret| secret.expose().to_owned())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }

    fn check(&self) -> Result<(), String> {
        let tool = self.argv.first().ok_or("no command: command:vagrant ssh -c")?;
        check_word("argv", tool)?;
        self.argv.iter().try_for_each(|word| check_text("argv", word))?;
        check_password(self.password.as_ref())
    }

    fn complete(&self, base: &Base<'_>, recipe: &mut Recipe) -> Result<(), ConnectFailure> {
        let mut argv: Vec<Vec<u8>> = self.argv.iter().map(|word| word.clone().into()).collect();
        match self.shell_words {
            false => argv.push(first_command(base.nonce)),
            true => argv.extend([b"sh".to_vec(), b"-c".to_vec(), first_script(base.nonce)]),
        }
        recipe.start = Start::Shell { argv, nonce: base.nonce };
        recipe.terminal = self.terminal || self.password.is_some();
        recipe.secret = self.password.clone();
        if recipe.terminal {
            recipe.prompts = password_prompts(&[]);
        }
        Ok(())
    }
}

fn check_password(password: Option<&Secret>) -> Result<(), String> {
    password.map_or(Ok(()), |secret| check_text("password", secret.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::tool::tests::{assert_argv, made};

    fn last_word(options: &[(&str, &str)]) -> Vec<u8> {
        match made(&ENTRY, options).unwrap().start {
            Start::Shell { argv, .. } => argv.last().unwrap().clone(),
            _ => panic!("no shell"),
        }
    }

    #[test]
    fn one_argument_is_added_or_three() {
        let argv = ("argv", "vagrant ssh  -c");
        assert_eq!(last_word(&[argv]), first_command(1));
        assert_argv(&ENTRY, &[argv, ("shell_words", "yes")], "vagrant ssh -c sh -c");
    }

    #[test]
    fn a_terminal_is_there_if_asked_for_or_for_a_password() {
        let argv = ("argv", "pbrun");
        assert!(!made(&ENTRY, &[argv]).unwrap().terminal);
        let asked = made(&ENTRY, &[argv, ("terminal", "yes")]).unwrap();
        assert!(asked.terminal && asked.secret.is_none());
        let recipe = made(&ENTRY, &[argv, ("password", "hunter2")]).unwrap();
        assert!(recipe.terminal && recipe.secret.is_some());
        assert!(recipe.prompts.iter().any(|prompt| prompt.line.matches(b"Your Password: ")));
        assert!(!format!("{recipe:?}").contains("hunter2"));
    }

    #[test]
    fn bad_commands_are_refused() {
        for argv in ["", " ", "-x", "a \x1b[m", "a\nb\0"] {
            assert!(made(&ENTRY, &[("argv", argv)]).is_err(), "{argv:?}");
        }
        assert!(made(&ENTRY, &[]).unwrap_err().contains("command:vagrant"));
        assert!(made(&ENTRY, &[("argv", "a"), ("password", "a\nb")]).is_err());
        assert!(made(&ENTRY, &[("argv", "a"), ("terminal", "perhaps")]).is_err());
    }
}
