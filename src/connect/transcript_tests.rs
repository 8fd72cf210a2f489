//! What the known tools print, as their sources and manuals have it and as it was seen, in several
//! languages; played to the recipes that methods make, byte by byte and cut at every byte.

use std::sync::Arc;

use crate::connect::handshake::{Action, Handshake, Origin};
use crate::connect::meaning::told;
use crate::connect::options::sealed::Entry;
use crate::connect::options::{Base, Common, recipe};
use crate::connect::recipe::Recipe;
use crate::connect::stage::{answer_line, hex};
use crate::connect::{doas, ssh, su, sudo};
use crate::error::{ConnectFailure, Exit};
use crate::wire::PROTOCOL;

use Origin::{Stdout, Terminal};

const SECRET: &str = "canary-7Wq";
const NONCE: u64 = 0x11;
const ANSWER_NONCE: u64 = 0x22;

fn made(entry: &Entry, options: &[(&str, &str)]) -> Arc<Recipe> {
    let mut method = (entry.make)();
    for (key, value) in options {
        method.set(key, value).unwrap();
    }
    let base =
        Base { parent: None, title: "t", nonce: NONCE, answer_nonce: ANSWER_NONCE, asks: false };
    Arc::new(recipe(&*method, &Common::default(), &base).unwrap())
}

/// What came of an attempt: what was typed, and how it ended.
#[derive(Debug, PartialEq)]
struct Outcome {
    typed: Vec<String>,
    failure: Option<ConnectFailure>,
}

/// One attempt. A part of what is said ends where the tool waits: for an answer, or before it ends.
struct Attempt {
    handshake: Box<Handshake>,
    outcome: Outcome,
    settling: bool,
    is_over: bool,
}

impl Attempt {
    fn of(recipe: &Arc<Recipe>) -> Attempt {
        let mut handshake = Handshake::new(recipe.clone());
        handshake.started();
        let outcome = Outcome { typed: Vec::new(), failure: None };
        Attempt { handshake, outcome, settling: false, is_over: false }
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            assert!(!format!("{action:?}").contains(SECRET));
            match action {
                Action::Type(secret) => self.outcome.typed.push(secret.expose().to_owned()),
                Action::Settle => self.settling = true,
                Action::WantImage(target) => {
                    let _ = self.handshake.image(10, target.gzip);
                    self.handshake.pushed();
                }
                Action::Up => self.is_over = true,
                Action::Failed(failure) => {
                    let error = self.handshake.failed(failure, None);
                    self.end(*error);
                }
                Action::Send(_) | Action::Ask(_) => panic!("not foreseen"),
            }
        }
    }

    fn end(&mut self, error: crate::error::ConnectError) {
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
        self.outcome.failure = Some(error.failure);
        self.is_over = true;
    }

    fn says(&mut self, origin: Origin, piece: &[u8]) {
        if !self.is_over {
            let actions = self.handshake.input(origin, piece);
            self.act(actions);
        }
    }

    fn waits(&mut self) {
        while std::mem::take(&mut self.settling) && !self.is_over {
            let actions = self.handshake.settled();
            self.act(actions);
        }
    }
}

/// Plays what a tool says, cut where the number says: 0 is byte by byte. Then the shell and the
/// agent follow, or else it exits.
fn play(recipe: &Arc<Recipe>, says: &[&str], exit: Option<i32>, cut: usize) -> Outcome {
    let mut attempt = Attempt::of(recipe);
    let mut before = 0;
    for part in says {
        let part = part.as_bytes();
        let pieces: Vec<&[u8]> = match cut {
            0 => part.chunks(1).collect(),
            _ => {
                <[&[u8]; 2]>::from(part.split_at(cut.saturating_sub(before).min(part.len()))).into()
            }
        };
        pieces.into_iter().for_each(|piece| attempt.says(Terminal, piece));
        attempt.waits();
        before += part.len();
    }
    match exit {
        Some(code) if !attempt.is_over => {
            let error = told(&mut attempt.handshake, Exit::Code(code));
            attempt.end(*error);
        }
        Some(_) => (),
        None => {
            let nonce = String::from_utf8(hex(NONCE).to_vec()).unwrap();
            attempt.says(Stdout, format!("\nMGN0-{nonce} Linux x86_64\n").as_bytes());
            attempt.says(Stdout, &answer_line(ANSWER_NONCE, PROTOCOL));
            assert!(attempt.is_over, "neither up nor failed");
        }
    }
    attempt.outcome
}

/// Plays it whole and cut everywhere; what comes of it must always be this.
#[track_caller]
fn assert_plays(
    recipe: &Arc<Recipe>,
    says: &[&str],
    exit: Option<i32>,
    typed: &[&str],
    failure: Option<ConnectFailure>,
) {
    let expected =
        Outcome { typed: typed.iter().map(|text| (*text).to_owned()).collect(), failure };
    let bytes: usize = says.iter().map(|part| part.len()).sum();
    for cut in 0..=bytes {
        assert_eq!(play(recipe, says, exit, cut), expected, "{says:?} cut at {cut}");
    }
}

/// A prompt at which the right password leads on, a wrong one back to it or to the end; and which
/// is the end where there is no password.
#[track_caller]
fn assert_prompt(entry: &Entry, options: &[(&str, &str)], prompt: &str, refusal: &str) {
    let with = made(entry, &[options, &[("password", SECRET)]].concat());
    let newline = if with.as_su { "" } else { "\r\n" };
    assert_plays(&with, &[prompt, newline], None, &[SECRET], None);
    let wrong = Some(ConnectFailure::PasswordWrong);
    let refused = format!("{newline}{refusal}\r\n");
    assert_plays(&with, &[prompt, &refused], Some(1), &[SECRET], wrong.clone());
    let again = format!("{refused}{prompt}");
    assert_plays(&with, &[prompt, &again], Some(1), &[SECRET], wrong);
    if with.as_su {
        let without = made(entry, options);
        let required = Some(ConnectFailure::PasswordRequired);
        assert_plays(&without, &[prompt], Some(1), &[], required);
    }
}

fn mark() -> String {
    format!("[mitogen-{}]", String::from_utf8(hex(NONCE).to_vec()).unwrap())
}

#[test]
fn sudos_mark_is_known_in_whatever_stands_around_it() {
    let lecture = "\r\nWe trust you have received the usual lecture from the local System\r\n\
                   Administrator. It usually boils down to these three things:\r\n\r\n    \
                   #1) Respect the privacy of others.\r\n\r\n";
    let asks = format!("{} password for me: ", mark());
    for prompt in [
        asks.clone(),
        format!("{lecture}{asks}"),
        format!("[sudo: {asks}] Password: "),
        format!("[sudo: authenticate] {asks}"),
        format!("{} contraseña para yo:\u{a0}", mark()),
        format!("{} 私 のパスワード：", mark()),
        mark(),
    ] {
        for refusal in [
            "Sorry, try again.",
            "sudo: 1 incorrect password attempt",
            "sudo: no password was provided",
            "sudo: Authentication failed, try again.",
            "sudo: Maximum 3 incorrect authentication attempts",
        ] {
            assert_prompt(&sudo::ENTRY, &[], &prompt, refusal);
        }
    }
}

/// What Linux-PAM asks in the languages that it has, as su shows it.
const PAM: [&str; 31] = [
    "Password: ",
    "Password:",
    "Password:\u{a0}",
    "LDAP Password: ",
    "Contraseña: ",
    "Contrasinal: ",
    "Contrasenya: ",
    "Mot de passe\u{a0}: ",
    "Mot de passe : ",
    "Passwort: ",
    "Kennwort: ",
    "Senha: ",
    "Palavra-passe: ",
    "Parola: ",
    "Parolă: ",
    "Wachtwoord: ",
    "Lösenord: ",
    "Passord: ",
    "Adgangskode: ",
    "Salasana: ",
    "Parool: ",
    "Hasło: ",
    "Heslo: ",
    "Geslo: ",
    "Lozinka: ",
    "Jelszó: ",
    "Пароль: ",
    "パスワード:",
    "パスワード：",
    "密码：",
    "암호: ",
];

#[test]
fn su_and_doas_are_known_in_every_language() {
    for refusal in ["su: incorrect password", "su: Sorry", "Account or password is incorrect."] {
        assert_prompt(&su::ENTRY, &[], "Password: ", refusal);
    }
    for prompt in PAM {
        assert_prompt(&su::ENTRY, &[], prompt, "su: Authentication failure");
        assert_prompt(&doas::ENTRY, &[], prompt, "doas: Authentication failed");
    }
    for prompt in ["\rdoas (me@here) password: ", "doas (me@here) password: "] {
        assert_prompt(&doas::ENTRY, &[], prompt, "doas: Authentication failed");
        assert_prompt(&doas::ENTRY, &[], prompt, "doas: Authorization failed");
    }
    let aix = "root's Password: ";
    assert_prompt(&su::ENTRY, &[], aix, "3004-300 You entered an invalid login name or password.");
}

#[test]
fn ssh_is_known_in_its_own_words_and_in_those_of_the_hosts() {
    for prompt in [
        "me@web's password: ",
        "(me@web) Password: ",
        "(me@web) Contraseña: ",
        "Password: ",
        "Password for me@web: ",
        "(me@web) パスワード:",
        "* Welcome *\r\n* Never tell a password: we do not ask *\r\nme@web's password: ",
    ] {
        for refusal in [
            "Permission denied, please try again.\r\nme@web: Permission denied (password).",
            "me@web: Permission denied (keyboard-interactive).",
        ] {
            let options = [("hostname", "web")];
            assert_prompt(&ssh::ENTRY, &options, prompt, refusal);
        }
    }
}

#[test]
fn no_banner_makes_us_type() {
    let banner = "\r\n*** Passwords are secrets. ***\r\nYour password: never tell it.\r\n\
                  Enter password: not here\r\nWhat is a password? A word.\r\nパスワード：秘密\r\n\
                  Is the prompt Password: or password?\r\n";
    for (entry, options) in
        [(&sudo::ENTRY, vec![]), (&ssh::ENTRY, vec![("hostname", "web")]), (&doas::ENTRY, vec![])]
    {
        let recipe = made(entry, &[&options[..], &[("password", SECRET)]].concat());
        let failure = Some(ConnectFailure::Ended);
        // A banner is not cut where it would be a whole prompt: tools print it at once.
        let whole = play(&recipe, &[banner], Some(0), usize::MAX);
        assert_eq!(whole, Outcome { typed: vec![], failure: failure.clone() });
        if entry.name == "sudo" {
            assert_plays(&recipe, &[banner], Some(0), &[], failure);
        }
    }
}

#[test]
fn what_is_no_password_is_quoted_at_once() {
    let options = [("hostname", "web"), ("password", SECRET)];
    for (recipe, typed) in [
        (made(&ssh::ENTRY, &options), "me@web's password: "),
        (made(&doas::ENTRY, &[("password", SECRET)]), "doas (me@here) password: "),
    ] {
        for question in [
            "Verification code: ",
            "(me@web) Duo two-factor login for me\r\n\r\nPasscode or option (1-3): ",
            "Enter your PIN:",
            "Bestätigungscode：",
            "Continue? ",
        ] {
            let last = question.lines().last().unwrap().trim();
            let failure = Some(ConnectFailure::UnknownPrompt(last.to_owned()));
            assert_plays(&recipe, &[question], Some(1), &[], failure.clone());
            let behind = format!("\r\n{question}");
            assert_plays(&recipe, &[typed, &behind], Some(1), &[SECRET], failure);
        }
    }
}
