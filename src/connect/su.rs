//! Method `su`: another account of the connecting context's machine, by its own password.

use crate::call::router::Router;
use crate::connect::escalation::{self, LIST_SEPARATOR, check_all, end_hints, list};
use crate::connect::meaning::Meaning;
use crate::connect::options::sealed::{Describe, Entry};
use crate::connect::options::{Base, Connect, check_text, check_word, hints, password_prompts};
use crate::connect::recipe::{Recipe, Start};
use crate::error::ConnectFailure;
use crate::wire::secret::Secret;

/// Another account, by su.
pub type Su = Connect<SuOptions>;

/// The options of [`Su`].
#[derive(Clone, Debug, Default)]
pub struct SuOptions {
    username: Option<String>,
    password: Option<Secret>,
    su_path: Option<String>,
    shell: Option<String>,
    password_prompt: Option<String>,
    incorrect_prompts: Option<Vec<String>>,
}

impl Router {
    /// A context that runs as another user, whose password is needed unless we are root.
    pub fn su(&self) -> Su {
        Connect::new(self, SuOptions::default())
    }
}

/// Options of su.
impl Connect<SuOptions> {
    /// The user to become. Default: root.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.method.username = Some(username.into());
        self
    }

    /// The user's password, to type if asked. Default: none.
    pub fn password(mut self, password: impl Into<Secret>) -> Self {
        self.method.password = Some(password.into());
        self
    }

    /// The tool's name or path. Default: `su`.
    pub fn su_path(mut self, path: impl Into<String>) -> Self {
        self.method.su_path = Some(path.into());
        self
    }

    /// The shell to use instead of the account's own (`-s`), which Linux lets root choose only: for
    /// accounts that have none to log in with. An absolute path. Default: the account's.
    pub fn shell(mut self, path: impl Into<String>) -> Self {
        self.method.shell = Some(path.into());
        self
    }

    /// What the line ends with at which the password is typed, whatever its case. Default:
    /// `Password:`, and what asks for a password in other languages.
    pub fn password_prompt(mut self, text: impl Into<String>) -> Self {
        self.method.password_prompt = Some(text.into());
        self
    }

    /// What stands in a line that means that the password is wrong, whatever the case; in addresses
    /// separated by `|`. Default: what the known kinds of su say.
    pub fn incorrect_prompts(mut self, texts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.method.incorrect_prompts = Some(texts.into_iter().map(Into::into).collect());
        self
    }
}

/// Method `su` in addresses.
pub(crate) static ENTRY: Entry = Entry {
    name: "su",
    target: Some("username"),
    needs_target: false,
    user: None,
    port: None,
    options: &["username", "su_path", "shell", "password_prompt", "incorrect_prompts", "password"],
    make: || Box::new(SuOptions::default()),
};

/// What means that the password is wrong: BSD; util-linux and shadow; busybox, old coreutils; AIX.
const INCORRECT: [&str; 5] = [
    "su: sorry",
    "su: authentication failure",
    "su: incorrect password",
    "account or password is incorrect",
    "3004-300",
];

/// What else the known kinds of su say.
const HINTS: &[(&str, &str, Meaning)] = &[
    ("su: user ", " does not exist", Meaning::Denied),
    ("su: unknown ", "", Meaning::Denied),
    ("No passwd entry for ", "", Meaning::Denied),
    ("su: who are you", "", Meaning::Denied),
    ("su: ", "Permission denied", Meaning::Denied),
    ("su: ", "not in the correct group", Meaning::Denied),
    ("su: ", "account has expired", Meaning::Denied),
    ("su: ", "must be run from a terminal", Meaning::NoTerminal),
    ("su: must be suid", "", Meaning::Denied),
    ("su: failed to execute ", "", Meaning::NoShell),
    ("su: cannot run ", "", Meaning::NoShell),
    ("su: no shell", "", Meaning::NoShell),
    ("This account is currently not available", "", Meaning::NoShell),
];

impl Describe for SuOptions {
    fn entry(&self) -> &'static Entry {
        &ENTRY
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let text = value.to_owned();
        match key {
            "username" => self.username = Some(text),
            "su_path" => self.su_path = Some(text),
            "shell" => self.shell = Some(text),
            "password_prompt" => self.password_prompt = Some(text),
            "incorrect_prompts" => self.incorrect_prompts = Some(list(value)),
            _ => self.password = Some(Secret::from(text)),
        }
        self.check()
    }

    fn values(&self) -> Vec<(&'static str, String)> {
        let incorrect = self.incorrect_prompts.as_ref().map(|texts| texts.join(LIST_SEPARATOR));
        [
            ("username", self.username.clone()),
            ("su_path", self.su_path.clone()),
            ("shell", self.shell.clone()),
            ("password_prompt", self.password_prompt.clone()),
            ("incorrect_prompts", incorrect),
            ("password", self.password.as_ref().map(|secret| secret.expose().to_owned())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }

    fn check(&self) -> Result<(), String> {
        let words = [("username", &self.username), ("su_path", &self.su_path)];
        for (key, value) in words.into_iter().chain([("shell", &self.shell)]) {
            value.as_ref().map_or(Ok(()), |value| check_word(key, value))?;
        }
        if self.shell.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Err("shell is no absolute path".to_owned());
        }
        check_all(&self.password_prompt, &self.incorrect_prompts)?;
        self.password.as_ref().map_or(Ok(()), |secret| check_text("password", secret.expose()))
    }

    fn complete(&self, base: &Base<'_>, recipe: &mut Recipe) -> Result<(), ConnectFailure> {
        let path = self.su_path.as_deref().unwrap_or("su");
        let username = self.username.as_deref().unwrap_or("root");
        let mut argv = vec![path.as_bytes().to_vec()];
        if let Some(shell) = &self.shell {
            argv.extend([b"-s".to_vec(), shell.clone().into_bytes()]);
        }
        let command = escalation::command(base.nonce);
        argv.extend([username.as_bytes().to_vec(), b"-c".to_vec(), command]);
        recipe.start = Start::Shell { argv, nonce: base.nonce };
        recipe.same_root = true;
        recipe.as_su = true;
        recipe.secret = self.password.clone();
        recipe.env = escalation::env();
        recipe.hints = hints(HINTS);
        recipe.hints.extend(end_hints(&self.incorrect_prompts, &INCORRECT));
        recipe.prompts = match &self.password_prompt {
            None => password_prompts(&[(b"Password:", b"Password:")]),
            Some(text) => password_prompts(&[(b"", text.trim().as_bytes())]),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::escalation::tests::made;

    #[test]
    fn options_become_arguments() {
        assert_eq!(made(&ENTRY, &[]).unwrap().0, "su root -c");
        let options = [("username", "nobody"), ("shell", "/bin/sh"), ("password", "x")];
        let (words, recipe) = made(&ENTRY, &options).unwrap();
        assert_eq!(words, "su -s /bin/sh nobody -c");
        assert!(recipe.as_su && !recipe.terminal && recipe.same_root);
        assert_eq!(made(&ENTRY, &[("su_path", "/s/su")]).unwrap().0, "/s/su root -c");
    }

    #[test]
    fn prompts_are_ones_own() {
        let options =
            [("password_prompt", "Geheim: "), ("incorrect_prompts", "su: nein|Gibt es nicht")];
        let (_, recipe) = made(&ENTRY, &options).unwrap();
        assert!(recipe.prompts[0].line.matches(b"root, geheim: "));
        let wrong = |line: &[u8]| {
            let hint = recipe.hints.iter().find(|hint| hint.line.matches(line));
            hint.is_some_and(|hint| hint.meaning == Meaning::PasswordWrong)
        };
        assert!(wrong(b"SU: Nein!") && wrong(b"gibt es nicht") && !wrong(b"su: sorry"));
    }

    #[test]
    fn what_su_would_take_for_an_option_is_refused() {
        for (key, value) in [
            ("username", "-s"),
            ("username", ""),
            ("su_path", "-s"),
            ("shell", "sh"),
            ("shell", "-x"),
            ("password", "a\nb"),
            ("password_prompt", ""),
            ("incorrect_prompts", ""),
        ] {
            assert!(SuOptions::default().set(key, value).is_err(), "{key} {value}");
        }
    }
}
