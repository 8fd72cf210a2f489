//! Questions and answers of the handshake machine, whole and cut at every byte, without a process.

use std::sync::Arc;

use crate::connect::handshake::{Action, Handshake, Origin};
use crate::connect::meaning::{Meaning, told};
use crate::connect::options::{hints, password_prompts};
use crate::connect::recipe::{Pattern, Prompt, Recipe, Reply, Start};
use crate::connect::stage::hex;
use crate::error::{ConnectFailure, Exit};
use crate::limits::QUESTION_BYTES_MAX;
use crate::sys::host::SU_READS_STDIN;
use crate::wire::secret::Secret;

use Origin::{Stdout, Terminal};

const SECRET: &str = "canary-7Wq";
const CODE: &str = "code-314159";
const NONCE: u64 = 0x11;

/// A recipe of a tool that asks `Password:` on a terminal, or may ask in other words.
fn recipe(secret: Option<&str>) -> Recipe {
    Recipe {
        name: "tool".to_owned(),
        start: Start::Shell { argv: vec![b"tool".to_vec()], nonce: NONCE },
        terminal: true,
        secret: secret.map(Secret::from),
        prompts: password_prompts(&[(b"Password:", b"Password:")]),
        ..Recipe::default()
    }
}

/// The same, where somebody answers what is not foreseen.
fn asking(secret: Option<&str>) -> Recipe {
    Recipe { asks: true, ..recipe(secret) }
}

/// The same for a tool that reads standard input.
fn su(secret: Option<&str>) -> Recipe {
    Recipe { terminal: false, as_su: true, ..recipe(secret) }
}

/// One attempt, played.
struct Play {
    handshake: Box<Handshake>,
    settles: usize,
}

impl Play {
    fn of(recipe: Recipe) -> Play {
        let mut handshake = Handshake::new(Arc::new(recipe));
        handshake.started();
        Play { handshake, settles: 0 }
    }

    /// What is done, in words, when the child says this.
    fn says(&mut self, origin: Origin, text: &str) -> Vec<String> {
        let actions = self.handshake.input(origin, text.as_bytes());
        self.told(actions)
    }

    /// The same when it is then silent.
    fn pause(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(left) = self.settles.checked_sub(1) {
            self.settles = left;
            let actions = self.handshake.settled();
            told.extend(self.told(actions));
        }
        told
    }

    fn answer(&mut self, text: Option<&str>) -> Vec<String> {
        let actions = self.handshake.answer(text.map(Secret::from));
        self.told(actions)
    }

    fn told(&mut self, actions: Vec<Action>) -> Vec<String> {
        let mut told = Vec::new();
        for action in actions {
            assert!(!format!("{action:?}").contains(SECRET));
            match action {
                Action::Settle => self.settles += 1,
                Action::Type(secret) => told.push(format!("type {}", secret.expose())),
                Action::Ask(question) => told.push(format!("ask {question}")),
                Action::Failed(failure) => {
                    told.push(format!("fail {failure:?}"));
                    self.handshake.failed(failure, None);
                }
                action => told.push(format!("{action:?}")),
            }
            assert!(self.settles <= 1, "timers pile up");
        }
        told
    }
}

/// Plays one transcript, whole, byte by byte, and cut in two at every byte; what is done must
/// always be the same. Behind each of its parts the tool waits.
#[track_caller]
fn assert_does(recipe: &Recipe, says: &[&str], does: &[&str]) {
    let bytes = says.iter().map(|part| part.len()).sum();
    for cut in 0..=bytes {
        let mut play = Play::of(recipe.clone());
        let (mut done, mut seen_bytes) = (Vec::new(), 0);
        for part in says {
            let (part, at) = (part.as_bytes(), cut.saturating_sub(seen_bytes).min(part.len()));
            let pieces: Vec<&[u8]> = match cut {
                0 => part.chunks(1).collect(),
                _ => vec![&part[..at], &part[at..]],
            };
            for piece in pieces {
                let actions = play.handshake.input(Terminal, piece);
                done.extend(play.told(actions));
            }
            done.extend(play.pause());
            seen_bytes += part.len();
        }
        assert_eq!(done, does, "{says:?} cut at {cut}");
        let error = play.handshake.closed(Some(Exit::Code(1)));
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
    }
}

const TYPED: &str = "type canary-7Wq";

#[test]
fn a_prompt_is_answered_at_once_and_what_holds_the_word_when_it_stands() {
    let mut play = Play::of(recipe(Some(SECRET)));
    assert_eq!(play.says(Terminal, "Password: "), [TYPED]);
    let mut play = Play::of(recipe(Some(SECRET)));
    assert_eq!(play.says(Terminal, "Contraseña de yo: "), [""; 0]);
    assert_eq!(play.pause(), [TYPED]);
}

#[test]
fn a_line_goes_on_and_is_no_question_then() {
    let mut play = Play::of(recipe(Some(SECRET)));
    assert_eq!(play.says(Terminal, "Your password:"), [""; 0]);
    assert_eq!(play.says(Terminal, " keep it.\r\n"), [""; 0]);
    assert_eq!(play.pause(), [""; 0]);
    assert_eq!(play.says(Terminal, "Checking password: "), [""; 0]);
    assert_eq!(play.says(Terminal, "for a:"), [""; 0]);
    // The first silence was disturbed, the second is not.
    assert_eq!(play.settles, 1);
    let actions = play.handshake.settled();
    assert!(matches!(actions[..], [Action::Settle]), "{actions:?}");
    assert_eq!(play.pause(), [TYPED]);
}

#[test]
fn an_unknown_question_ends_the_attempt_and_is_quoted() {
    for question in ["Verification code: ", "Verification code:\u{a0}", "认证码：", "Go on? "] {
        let quoted = format!("fail UnknownPrompt({:?})", question.trim());
        assert_does(&recipe(Some(SECRET)), &["Welcome.\r\n", question], &[&quoted]);
    }
    let without = Recipe { terminal: false, ..recipe(None) };
    assert_does(&without, &["Verification code: "], &[]);
}

#[test]
fn somebody_answers_what_is_not_foreseen() {
    let mut play = Play::of(asking(Some(SECRET)));
    assert_eq!(play.says(Terminal, "Password: "), [TYPED]);
    assert_eq!(play.says(Terminal, "\r\n\x1b[1mVerification code: "), [""; 0]);
    assert_eq!(play.pause(), ["ask ?[1mVerification code:"]);
    assert_eq!(play.answer(Some(CODE)), [format!("type {CODE}")]);
    assert_eq!(play.says(Terminal, "\r\n"), [""; 0]);
    let echo = format!("echo {CODE} {SECRET}\r\n");
    assert_eq!(play.says(Terminal, &echo), [""; 0]);
    assert_eq!(play.handshake.tail(), "echo *** ***\n");
    // The same again means that it was wrong.
    assert_eq!(play.says(Terminal, "\x1b[1mVerification code: "), [""; 0]);
    assert_eq!(play.pause(), ["fail PasswordWrong"]);
}

#[test]
fn who_gives_no_answer_gets_a_failure_with_the_question() {
    let mut play = Play::of(asking(None));
    assert_eq!(play.says(Terminal, "Passcode or option (1-3): "), [""; 0]);
    assert_eq!(play.pause(), ["ask Passcode or option (1-3):"]);
    assert_eq!(play.answer(None), ["fail UnknownPrompt(\"Passcode or option (1-3):\")"]);
    assert_eq!(play.answer(Some(CODE)), [""; 0]);
}

#[test]
fn an_answer_to_a_question_that_is_gone_is_not_typed() {
    let mut play = Play::of(asking(None));
    play.says(Terminal, "Code: ");
    assert_eq!(play.pause(), ["ask Code:"]);
    play.says(Terminal, "\r\ntoo late\r\n");
    assert_eq!(play.answer(Some(CODE)), [""; 0]);
}

#[test]
fn an_answer_to_a_question_that_is_gone_is_not_taken_for_the_next_ones() {
    let mut play = Play::of(asking(None));
    play.says(Terminal, "Loading modules: ");
    assert_eq!(play.pause(), ["ask Loading modules:"]);
    play.says(Terminal, "done\r\nPassword: ");
    assert_eq!(play.pause(), [""; 0]);
    assert_eq!(play.answer(Some(CODE)), ["ask Password:"]);
    assert_eq!(play.answer(Some(SECRET)), [TYPED]);
}

#[test]
fn who_is_turned_away_after_an_answer_is_not_to_try_again() {
    for (asked, failure) in [(false, ConnectFailure::Busy), (true, ConnectFailure::Ended)] {
        let table = [("Connection closed by ", "", Meaning::Busy)];
        let mut play = Play::of(Recipe { hints: hints(&table), ..asking(None) });
        if asked {
            play.says(Terminal, "Code: ");
            play.pause();
            play.answer(Some(CODE));
        }
        play.says(Terminal, "\r\nConnection closed by 10.0.0.1 port 22\r\n");
        assert_eq!(told(&mut play.handshake, Exit::Code(255)).failure, failure);
    }
}

#[test]
fn somebody_is_asked_for_the_password_that_is_not_there() {
    let mut play = Play::of(asking(None));
    assert_eq!(play.says(Terminal, "Password: "), [""; 0]);
    assert_eq!(play.pause(), ["ask Password:"]);
    assert_eq!(play.answer(Some(SECRET)), [TYPED]);
    assert_eq!(play.says(Terminal, "\r\nSorry.\r\nPassword: "), [""; 0]);
    assert_eq!(play.pause(), ["fail PasswordWrong"]);
    assert_does(&recipe(None), &["Password: "], &["fail PasswordRequired"]);
}

#[test]
fn a_mark_of_ours_is_not_shown_to_who_is_asked() {
    let line = Pattern::line(b"", b"[mark]");
    let recipe = Recipe { prompts: vec![Prompt::password(line)], ..asking(None) };
    assert_does(&recipe, &["[mark] password for me: "], &["ask password for me:"]);
}

#[test]
fn a_password_is_typed_once() {
    for again in ["\r\nSorry, try again.\r\nPassword: ", "\r\nPassword: "] {
        let does = [TYPED, "fail PasswordWrong"];
        assert_does(&recipe(Some(SECRET)), &["Password: ", again], &does);
    }
    let says = ["Clave y contraseña: ", "\r\nNo.\r\nClave y contraseña: "];
    assert_does(&recipe(Some(SECRET)), &says, &[TYPED, "fail PasswordWrong"]);
    let does = [TYPED, "fail UnknownPrompt(\"New password:\")"];
    assert_does(&recipe(Some(SECRET)), &["Password: ", "\r\nNew password: "], &does);
}

#[test]
fn a_hosts_key_is_accepted_in_words() {
    let line = Pattern { ends: b"?".to_vec(), ..Pattern::line(b"Are you sure", b"(yes/no") };
    let question = Prompt { line, reply: Reply::Yes };
    let mut recipe = recipe(Some(SECRET));
    recipe.prompts.insert(0, question);
    let question = "The authenticity of host 'web' can't be established.\r\n\
                    Are you sure you want to continue connecting (yes/no/[fingerprint])? ";
    assert_does(&recipe, &[question, "\r\nPassword: "], &["type yes", TYPED]);
}

#[test]
fn on_standard_input_the_tool_goes_on_behind_its_prompt() {
    if !SU_READS_STDIN {
        return;
    }
    let mut play = Play::of(su(Some(SECRET)));
    assert_eq!(play.says(Terminal, "Password:"), [TYPED]);
    assert_eq!(play.says(Terminal, " su: Authentication failure\n"), [""; 0]);
    assert_eq!(play.handshake.tail().trim_start(), "su: Authentication failure\n");
    let new = "Changing the password of me.\nNew password: ";
    assert_does(
        &su(Some(SECRET)),
        &["Password: ", new],
        &[TYPED, "fail UnknownPrompt(\"New password:\")"],
    );
    assert_does(&su(Some(SECRET)), &["Password: ", "Password: "], &[TYPED, "fail PasswordWrong"]);
    // Nothing is typed that could be taken for the password.
    assert!(Play::of(su(Some(SECRET))).handshake.quiet().is_empty());
    let mut play = Play::of(su(Some(SECRET)));
    assert_eq!(play.says(Stdout, "Password: "), [TYPED]);
    assert_eq!(play.says(Stdout, "\nsu: incorrect password\n"), [""; 0]);
}

#[test]
fn stars_do_not_tell_how_long_the_password_is() {
    let marker = format!("[mitogen-{}]", String::from_utf8_lossy(&hex(NONCE)));
    let line = Pattern::line(b"", marker.as_bytes());
    let recipe = Recipe { prompts: vec![Prompt::password(line)], ..recipe(Some(SECRET)) };
    for prompt in [marker.clone(), format!("[sudo: {marker}] Password: ")] {
        assert_does(&recipe, &[&prompt, "*****\x08 \x08*\r\nno\r\n"], &[TYPED]);
        let mut play = Play::of(recipe.clone());
        play.says(Terminal, &prompt);
        play.says(Terminal, "****");
        assert_eq!(play.handshake.tail(), "");
        play.says(Terminal, "*\r\nno\r\n");
        assert_eq!(play.handshake.tail(), "no\n");
    }
}

#[test]
fn a_long_question_is_quoted_in_part() {
    let mut play = Play::of(recipe(None));
    play.says(Terminal, &("x".repeat(3000) + ": "));
    let failed = play.pause().concat();
    assert!(failed.starts_with("fail UnknownPrompt(\"xxx") && failed.ends_with("xx:\")"));
    assert!(failed.len() < QUESTION_BYTES_MAX + 30);
}
