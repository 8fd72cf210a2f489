//! Method `sudo`: another account of the connecting context's machine.

mod args;

use self::args::Args;
use crate::call::router::Router;
use crate::connect::escalation;
use crate::connect::meaning::Meaning;
use crate::connect::options::sealed::{Describe, Entry};
use crate::connect::options::{
    Base, Connect, check_text, check_word, hints, parse_flag, password_prompts,
};
use crate::connect::recipe::{Pattern, Prompt, Recipe, Start};
use crate::connect::stage::hex;
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
    login: bool,
    selinux_role: Option<String>,
    selinux_type: Option<String>,
    sudo_args: Vec<String>,
    tty: bool,
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

    /// Whether a login shell of the new user is started first (`-i`), which reads its rc files.
    /// Default: no.
    pub fn login(mut self, login: bool) -> Self {
        self.method.login = login;
        self
    }

    /// The SELinux role to run in (`-r`). Default: the policy's.
    pub fn selinux_role(mut self, role: impl Into<String>) -> Self {
        self.method.selinux_role = Some(role.into());
        self
    }

    /// The SELinux type to run in (`-t`). Default: the role's.
    pub fn selinux_type(mut self, name: impl Into<String>) -> Self {
        self.method.selinux_type = Some(name.into());
        self
    }

    /// Options as sudo's own command line has them, as `["-H", "--user=deploy"]`: those that this
    /// builder has, and `-n`. They are read here, and hold where the builder's is not set; any
    /// other is an error when connecting. Default: none.
    pub fn sudo_args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.method.sudo_args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Whether sudo gets a terminal even without a password, for a sudoers file with `requiretty`.
    /// Terminals are few. Default: no.
    pub fn tty(mut self, tty: bool) -> Self {
        self.method.tty = tty;
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
    options: &[
        "username",
        "sudo_path",
        "set_home",
        "preserve_env",
        "login",
        "selinux_role",
        "selinux_type",
        "sudo_args",
        "tty",
        "password",
    ],
    make: || Box::new(SudoOptions::default()),
};

/// What sudo and sudo-rs say in English; in other languages the tail must do.
const HINTS: &[(&str, &str, Meaning)] = &[
    ("sudo: sh: ", "command not found", Meaning::NoShell),
    ("sudo: ", "a password is required", Meaning::PasswordRequired),
    ("sudo: ", "a terminal is required", Meaning::PasswordRequired),
    ("sudo: ", "interactive authentication is required", Meaning::PasswordRequired),
    ("", "is not in the sudoers file", Meaning::Denied),
    ("", "may not run sudo", Meaning::Denied),
    ("", "is not allowed to ", Meaning::Denied),
    ("sudo: ", "unknown user", Meaning::Denied),
    ("sudo: ", "not found", Meaning::Denied),
    ("sudo: ", "you must have a tty", Meaning::NoTerminal),
    ("sudo: ", "afraid I can't do that", Meaning::Denied),
    ("sudo: ", "account validation failure", Meaning::Denied),
    ("sudo: ", "no new privileges", Meaning::Denied),
    ("sudo: ", "effective uid is not 0", Meaning::Denied),
    ("sudo: ", "incorrect password", Meaning::PasswordWrong),
    ("sudo: ", "incorrect authentication", Meaning::PasswordWrong),
    ("sudo: ", "no password was provided", Meaning::PasswordWrong),
    ("Sorry, try again", "", Meaning::PasswordWrong),
    ("sudo: ", "authentication failed", Meaning::PasswordWrong),
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
            "login" => self.login = parse_flag(value)?,
            "selinux_role" => self.selinux_role = Some(text),
            "selinux_type" => self.selinux_type = Some(text),
            "sudo_args" => self.sudo_args = value.split_whitespace().map(str::to_owned).collect(),
            "tty" => self.tty = parse_flag(value)?,
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
            ("login", flag(self.login)),
            ("selinux_role", self.selinux_role.clone()),
            ("selinux_type", self.selinux_type.clone()),
            ("sudo_args", Some(self.sudo_args.join(" ")).filter(|args| !args.is_empty())),
            ("tty", flag(self.tty)),
            ("password", self.password.as_ref().map(|secret| secret.expose().to_owned())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }

    fn check(&self) -> Result<(), String> {
        for (key, value) in [
            ("username", &self.username),
            ("sudo_path", &self.sudo_path),
            ("selinux_role", &self.selinux_role),
            ("selinux_type", &self.selinux_type),
        ] {
            value.as_ref().map_or(Ok(()), |value| check_word(key, value))?;
        }
        Args::read(&self.sudo_args)?;
        self.password.as_ref().map_or(Ok(()), |secret| check_text("password", secret.expose()))
    }

    fn complete(&self, base: &Base<'_>, recipe: &mut Recipe) -> Result<(), ConnectFailure> {
        let prompt = [b"[mitogen-", &hex(base.nonce)[..], b"]"].concat();
        let may_ask = self.password.is_some() || recipe.asks;
        recipe.start = Start::Shell { argv: self.argv(base, may_ask, &prompt)?, nonce: base.nonce };
        recipe.same_root = true;
        recipe.terminal = may_ask || self.tty;
        recipe.secret = self.password.clone();
        recipe.env = escalation::env();
        recipe.hints = hints(HINTS);
        if may_ask {
            recipe.prompts = password_prompts(&[]);
            recipe.prompts.insert(0, Prompt::password(Pattern::line(b"", &prompt)));
        }
        Ok(())
    }
}

impl SudoOptions {
    fn argv(
        &self,
        base: &Base<'_>,
        may_ask: bool,
        prompt: &[u8],
    ) -> Result<Vec<Vec<u8>>, ConnectFailure> {
        let args = Args::read(&self.sudo_args).map_err(ConnectFailure::BadOption)?;
        let mut argv = Vec::new();
        let mut add = |words: &[&[u8]]| argv.extend(words.iter().map(|word| word.to_vec()));
        add(&[self.sudo_path.as_deref().unwrap_or("sudo").as_bytes()]);
        match may_ask {
            false => add(&[b"-n"]),
            // Somebody may read the question: `%p` is whose password it is for.
            true => add(&[b"-p", &[prompt, b" password for %p: "].concat()]),
        }
        let login = self.login || args.login;
        let flags: [(bool, &[u8]); 3] = [
            (self.set_home || args.set_home, b"-H"),
            (self.preserve_env || args.preserve_env, b"-E"),
            (login, b"-i"),
        ];
        for (set, flag) in flags {
            if set {
                add(&[flag]);
            }
        }
        let chosen = |ours: &Option<String>, parsed: Option<String>| ours.clone().or(parsed);
        if let Some(role) = chosen(&self.selinux_role, args.role) {
            add(&[b"-r", role.as_bytes()]);
        }
        if let Some(name) = chosen(&self.selinux_type, args.selinux_type) {
            add(&[b"-t", name.as_bytes()]);
        }
        let username = chosen(&self.username, args.user).unwrap_or_else(|| "root".to_owned());
        let script = escalation::script(base.nonce);
        let script = if login { without_dollars(&script) } else { script };
        add(&[b"-u", username.as_bytes(), b"--", b"sh", b"-c", &script]);
        Ok(argv)
    }
}

/// The same script in words that the login shell of `sudo -i` leaves alone: sudo quotes all for it
/// but the dollar.
fn without_dollars(script: &[u8]) -> Vec<u8> {
    let mut quoted = b"eval \"`printf '".to_vec();
    for byte in script {
        match byte {
            b'%' => quoted.extend_from_slice(b"%%"),
            b'$' | b'`' | b'\'' | b'"' | b'\\' => {
                quoted.extend([
                    b'\\',
                    b'0' + (byte >> 6),
                    b'0' + (byte >> 3 & 7),
                    b'0' + (byte & 7),
                ]);
            }
            byte => quoted.push(*byte),
        }
    }
    [&quoted[..], b"'`\""].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::escalation::tests::made;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn options_become_arguments() {
        let words = |options: &[(&str, &str)]| made(&ENTRY, options).unwrap().0;
        assert_eq!(words(&[]), "sudo -n -u root -- sh -c");
        assert_eq!(
            words(&[("username", "nobody"), ("password", "x"), ("set_home", "yes")]),
            "sudo -p [mitogen-0000000000000001] password for %p:  -H -u nobody -- sh -c",
        );
        assert_eq!(
            words(&[("sudo_path", "/s/sudo"), ("preserve_env", "yes"), ("login", "yes")]),
            "/s/sudo -n -E -i -u root -- sh -c",
        );
        assert_eq!(
            words(&[("selinux_role", "sysadm_r"), ("selinux_type", "sysadm_t")]),
            "sudo -n -r sysadm_r -t sysadm_t -u root -- sh -c",
        );
        assert_eq!(
            words(&[("sudo_args", "-HE -u joe --role=r --type t -n"), ("selinux_role", "s")]),
            "sudo -n -H -E -r s -t t -u joe -- sh -c",
        );
    }

    #[test]
    fn a_terminal_is_there_for_a_password_or_where_it_is_asked_for() {
        let terminal = |options: &[(&str, &str)]| made(&ENTRY, options).unwrap().1.terminal;
        assert!(!terminal(&[]) && terminal(&[("password", "x")]) && terminal(&[("tty", "yes")]));
    }

    #[test]
    fn what_sudo_would_take_for_an_option_is_refused() {
        for (key, value) in [
            ("username", "-s"),
            ("username", ""),
            ("sudo_path", "-s"),
            ("selinux_role", "-s"),
            ("selinux_type", ""),
            ("sudo_args", "--"),
        ] {
            assert!(SudoOptions::default().set(key, value).is_err(), "{key} {value}");
        }
        assert!(SudoOptions::default().set("password", "a\nb").is_err());
    }

    #[test]
    fn a_script_without_dollars_is_the_same_script() {
        let script = b"_x='a b';echo \"$_x\" `echo \\\\% c`; echo \"$(echo '100%')\"";
        let quoted = without_dollars(script);
        assert!(!quoted.contains(&b'$'));
        let told = |script: &[u8]| {
            let script = std::ffi::OsStr::from_bytes(script);
            std::process::Command::new("sh").arg("-c").arg(script).output().unwrap().stdout
        };
        assert_eq!(told(&quoted), told(script));
        assert_eq!(told(script), b"a b % c\n100%\n");
    }
}
