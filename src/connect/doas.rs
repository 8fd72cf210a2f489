//! Method `doas`: another account of the connecting context's machine, as doas.conf allows.

use crate::call::router::Router;
use crate::connect::escalation::{self, LIST_SEPARATOR, check_all, end_hints, list};
use crate::connect::meaning::Meaning;
use crate::connect::options::sealed::{Describe, Entry};
use crate::connect::options::{Base, Connect, check_text, check_word, hints, password_prompts};
use crate::connect::recipe::{Recipe, Start};
use crate::error::ConnectFailure;
use crate::wire::secret::Secret;

/// Another account, by doas.
pub type Doas = Connect<DoasOptions>;

/// The options of [`Doas`].
#[derive(Clone, Debug, Default)]
pub struct DoasOptions {
    username: Option<String>,
    password: Option<Secret>,
    doas_path: Option<String>,
    password_prompt: Option<String>,
    incorrect_prompts: Option<Vec<String>>,
}

impl Router {
    /// A context that runs as another user, if doas.conf allows that.
    pub fn doas(&self) -> Doas {
        Connect::new(self, DoasOptions::default())
    }
}

/// Options of doas.
impl Connect<DoasOptions> {
    /// The user to become. Default: root.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.method.username = Some(username.into());
        self
    }

    /// The password of the user who connects, to type if asked. Default: none; doas must not ask
    /// then.
    pub fn password(mut self, password: impl Into<Secret>) -> Self {
        self.method.password = Some(password.into());
        self
    }

    /// The tool's name or path. Default: `doas`.
    pub fn doas_path(mut self, path: impl Into<String>) -> Self {
        self.method.doas_path = Some(path.into());
        self
    }

    /// What the line ends with at which the password is typed, whatever its case. Default:
    /// `Password:`, and what asks for a password in other languages.
    pub fn password_prompt(mut self, text: impl Into<String>) -> Self {
        self.method.password_prompt = Some(text.into());
        self
    }

    /// What stands in a line that means that the password is wrong, whatever the case; in addresses
    /// separated by `|`. Default: what the known kinds of doas say.
    pub fn incorrect_prompts(mut self, texts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.method.incorrect_prompts = Some(texts.into_iter().map(Into::into).collect());
        self
    }
}

/// Method `doas` in addresses.
pub(crate) static ENTRY: Entry = Entry {
    name: "doas",
    target: Some("username"),
    needs_target: false,
    user: None,
    port: None,
    options: &["username", "doas_path", "password_prompt", "incorrect_prompts", "password"],
    make: || Box::new(DoasOptions::default()),
};

/// What means that the password is wrong.
const INCORRECT: [&str; 3] =
    ["doas: authentication failed", "doas: authorization failed", "doas: incorrect password"];

/// What else doas says, OpenBSD's and opendoas.
const HINTS: &[(&str, &str, Meaning)] = &[
    ("doas: Authentication required", "", Meaning::PasswordRequired),
    ("doas: Authorization required", "", Meaning::PasswordRequired),
    ("doas: a tty is required", "", Meaning::PasswordRequired),
    ("doas: Operation not permitted", "", Meaning::Denied),
    ("doas: doas is not enabled", "", Meaning::Denied),
    ("doas: unknown user", "", Meaning::Denied),
    ("doas: no passwd entry for ", "", Meaning::Denied),
    ("doas: not installed setuid", "", Meaning::Denied),
    ("doas: /etc/doas.conf", "", Meaning::Denied),
    ("doas: sh: ", "not found", Meaning::NoShell),
    ("doas: sh: ", "No such file", Meaning::NoShell),
];

impl Describe for DoasOptions {
    fn entry(&self) -> &'static Entry {
        &ENTRY
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let text = value.to_owned();
        match key {
            "username" => self.username = Some(text),
            "doas_path" => self.doas_path = Some(text),
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
            ("doas_path", self.doas_path.clone()),
            ("password_prompt", self.password_prompt.clone()),
            ("incorrect_prompts", incorrect),
            ("password", self.password.as_ref().map(|secret| secret.expose().to_owned())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }

    fn check(&self) -> Result<(), String> {
        for (key, value) in [("username", &self.username), ("doas_path", &self.doas_path)] {
            value.as_ref().map_or(Ok(()), |value| check_word(key, value))?;
        }
        check_all(&self.password_prompt, &self.incorrect_prompts)?;
        self.password.as_ref().map_or(Ok(()), |secret| check_text("password", secret.expose()))
    }

    fn complete(&self, base: &Base<'_>, recipe: &mut Recipe) -> Result<(), ConnectFailure> {
        let path = self.doas_path.as_deref().unwrap_or("doas");
        let username = self.username.as_deref().unwrap_or("root");
        let may_ask = self.password.is_some() || recipe.asks;
        let mut argv = vec![path.as_bytes().to_vec()];
        if !may_ask {
            argv.push(b"-n".to_vec());
        }
        let words: [&[u8]; 5] = [b"-u", username.as_bytes(), b"--", b"sh", b"-c"];
        argv.extend(words.map(<[u8]>::to_vec));
        argv.push(escalation::script(base.nonce));
        recipe.start = Start::Shell { argv, nonce: base.nonce };
        recipe.same_root = true;
        recipe.terminal = may_ask;
        recipe.secret = self.password.clone();
        recipe.env = escalation::env();
        recipe.hints = hints(HINTS);
        recipe.hints.extend(end_hints(&self.incorrect_prompts, &INCORRECT));
        if may_ask {
            let text = self.password_prompt.as_deref().unwrap_or("Password:");
            recipe.prompts = password_prompts(&[(b"", text.trim().as_bytes())]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::escalation::tests::made;

    #[test]
    fn options_become_arguments() {
        assert_eq!(made(&ENTRY, &[]).unwrap().0, "doas -n -u root -- sh -c");
        let (words, recipe) = made(&ENTRY, &[("username", "nobody"), ("password", "x")]).unwrap();
        assert_eq!(words, "doas -u nobody -- sh -c");
        assert!(recipe.terminal && recipe.prompts[0].line.matches(b"\rdoas (me@here) password: "));
        assert_eq!(made(&ENTRY, &[("doas_path", "/d")]).unwrap().0, "/d -n -u root -- sh -c");
    }

    #[test]
    fn what_doas_would_take_for_an_option_is_refused() {
        for (key, value) in [
            ("username", "-s"),
            ("doas_path", ""),
            ("password", "a\nb"),
            ("password_prompt", " "),
            ("incorrect_prompts", "|"),
        ] {
            assert!(DoasOptions::default().set(key, value).is_err(), "{key} {value}");
        }
    }
}
