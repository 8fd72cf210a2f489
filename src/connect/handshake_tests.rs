//! The handshake machine, played whole, and split at every place.

use std::sync::Arc;

use crate::connect::handshake::{Action, Handshake, Origin};
use crate::connect::meaning::told;
use crate::connect::options::{Base, Common, recipe, sealed};
use crate::connect::recipe::Recipe;
use crate::connect::stage::{answer_line, hex};
use crate::connect::{local, ssh, sudo};
use crate::error::{ConnectError, ConnectFailure, Exit, Phase};
use crate::limits::{CONNECT_TAIL_BYTES, NOISE_BYTES_MAX};
use crate::wire::PROTOCOL;

use Origin::{Stdout, Terminal};

const SECRET: &str = "hunter2";
const NONCE: u64 = 0x11;
const ANSWER_NONCE: u64 = 0x22;

fn recipe_of(entry: &sealed::Entry, options: &[(&str, &str)]) -> Recipe {
    let mut method = (entry.make)();
    for (key, value) in options {
        method.set(key, value).unwrap();
    }
    let base =
        Base { parent: None, title: "t", nonce: NONCE, answer_nonce: ANSWER_NONCE, asks: false };
    recipe(&*method, &Common::default(), &base).unwrap()
}

fn ssh() -> Recipe {
    recipe_of(&ssh::ENTRY, &[("hostname", "web")])
}

fn ssh_with_password() -> Recipe {
    recipe_of(&ssh::ENTRY, &[("hostname", "web"), ("password", SECRET)])
}

fn sudo_with_password() -> Recipe {
    recipe_of(&sudo::ENTRY, &[("password", SECRET)])
}

fn shell_line(rest: &str) -> String {
    format!("MGN0-{} {rest}", String::from_utf8(hex(NONCE).to_vec()).unwrap())
}

fn agent_line() -> String {
    String::from_utf8(answer_line(ANSWER_NONCE, PROTOCOL)).unwrap()
}

fn sudo_prompt() -> String {
    format!("[mitogen-{}]", String::from_utf8(hex(NONCE).to_vec()).unwrap())
}

/// What one attempt did, in words.
#[derive(Debug, Default, PartialEq, Eq)]
struct Played {
    actions: Vec<String>,
    failed: Option<ConnectError>,
    rest: Vec<u8>,
}

/// Plays what a child says, each text in pieces of at most `piece_bytes`, to its end.
fn play_in(recipe: &Recipe, says: &[(Origin, &str)], exit: i32, piece_bytes: usize) -> Played {
    let mut handshake = Handshake::new(Arc::new(recipe.clone()));
    handshake.started();
    let mut played = Played::default();
    for (origin, text) in says {
        for piece in text.as_bytes().chunks(piece_bytes) {
            if played.actions.last().is_some_and(|last| last == "up") {
                played.rest.extend_from_slice(piece);
                continue;
            }
            for action in handshake.input(*origin, piece) {
                played.act(&mut handshake, action);
            }
        }
    }
    if played.failed.is_none() && played.actions.last().is_none_or(|last| last != "up") {
        played.failed = Some(*told(&mut handshake, Exit::Code(exit)));
    }
    let tail = handshake.tail();
    assert!(!tail.contains(SECRET) && !tail.contains("MGN"), "{tail}");
    assert!(tail.len() <= CONNECT_TAIL_BYTES);
    played
}

impl Played {
    fn act(&mut self, handshake: &mut Handshake, action: Action) {
        assert!(!format!("{action:?}").contains(SECRET));
        match action {
            Action::Send(bytes) => {
                self.actions.push(format!("send {}", String::from_utf8_lossy(&bytes)));
            }
            Action::Type(secret) => self.actions.push(format!("type {}", secret.expose())),
            Action::WantImage(target) => {
                self.actions.push(format!("image {} {}", target.name(), target.gzip));
                assert!(handshake.image(10, target.gzip).ends_with(b"\n"));
                handshake.pushed();
            }
            Action::Up => {
                self.actions.push("up".to_owned());
                self.rest = handshake.rest();
            }
            Action::Settle => (),
            Action::Ask(question) => self.actions.push(format!("ask {question}")),
            Action::Failed(failure) => self.failed = Some(*handshake.failed(failure, None)),
        }
    }
}

/// Plays it split in every way, and gives what came of it, which must be the same.
#[track_caller]
fn play(recipe: &Recipe, says: &[(Origin, &str)], exit: i32) -> Played {
    let whole = play_in(recipe, says, exit, usize::MAX);
    let longest = says.iter().map(|(_, text)| text.len()).max().unwrap_or(1);
    for piece_bytes in (1..longest).filter(|bytes| *bytes < 200 || longest - 3 < *bytes) {
        assert_eq!(play_in(recipe, says, exit, piece_bytes), whole, "in pieces of {piece_bytes}");
    }
    whole
}

#[track_caller]
fn assert_up(recipe: &Recipe, says: &[(Origin, &str)], actions: &[&str], rest: &str) {
    let played = play(recipe, says, 0);
    assert_eq!(played.failed, None);
    assert_eq!(played.actions, actions);
    assert_eq!(played.rest, rest.as_bytes());
}

#[track_caller]
fn assert_fails(
    recipe: &Recipe,
    says: &[(Origin, &str)],
    exit: i32,
    failure: ConnectFailure,
    phase: Phase,
) -> ConnectError {
    let error = play(recipe, says, exit).failed.expect("it came up");
    assert_eq!((&error.failure, error.phase), (&failure, phase), "{error}");
    assert_eq!(error.hop, recipe.name);
    error
}

#[test]
fn a_plain_shell_comes_up() {
    let shell = "\n".to_owned() + &shell_line("/bin/gzip Linux x86_64\n");
    let agent = agent_line() + "frame\n";
    let says = [(Stdout, &*shell), (Stdout, &*agent)];
    assert_up(&ssh(), &says, &["image linux-x86_64 true", "up"], "frame\n");
}

#[test]
fn our_own_image_comes_up_without_a_shell_behind_noise() {
    let recipe = recipe_of(&local::ENTRY, &[]);
    let says = "\nrunning 1 test\ntest x ... ".to_owned() + &agent_line();
    assert_up(&recipe, &[(Stdout, &says)], &["up"], "");
}

#[test]
fn noise_before_the_shell_is_skipped() {
    let noise = "noise\n".repeat(100 * 1024 / 6);
    let shell = shell_line("Linux x86_64\n");
    let agent = agent_line();
    let says = [(Stdout, &*noise), (Terminal, "warning\n"), (Stdout, &shell), (Stdout, &agent)];
    assert_up(&ssh(), &says, &["image linux-x86_64 false", "up"], "");
}

#[test]
fn one_endless_line_is_too_much_noise() {
    let mut handshake = Handshake::new(Arc::new(ssh()));
    handshake.started();
    for _ in 0..NOISE_BYTES_MAX / 4096 {
        assert!(handshake.input(Stdout, &[b'x'; 4096]).is_empty());
    }
    let actions = handshake.input(Stdout, b"x");
    assert!(matches!(&actions[..], [Action::Failed(ConnectFailure::Protocol(_))]));
}

#[test]
fn a_mark_inside_a_line_or_with_another_nonce_is_noise() {
    let says = [
        (Stdout, "$ ".to_owned() + &shell_line("Linux x86_64\n")),
        (Stdout, shell_line("Linux x86_64\n").replace("11 ", "12 ")),
        (Stdout, shell_line("Linux x86_64")),
    ];
    let mut handshake = Handshake::new(Arc::new(ssh()));
    for (origin, text) in &says {
        assert!(handshake.input(*origin, text.as_bytes()).is_empty());
    }
}

#[test]
fn a_cooked_terminal_is_made_raw_first() {
    let shell = shell_line("gzip Linux aarch64\r\n");
    let raw = shell_line("\n").replace("MGN0", "MGN2");
    let echo = "stty raw -echo;echo MGN\"2\"-$_q #0000000000000011\r\n";
    let agent = agent_line();
    let says = [(Stdout, &*shell), (Stdout, echo), (Stdout, &raw), (Stdout, &agent)];
    let sent = "send stty raw -echo;echo MGN\"2\"-$_q #0000000000000011\n";
    assert_up(&ssh(), &says, &[sent, "image linux-aarch64 true", "up"], "");
    let says = [(Stdout, &*shell), (Stdout, &*raw.replace('\n', "\r\n"))];
    let failure = ConnectFailure::Protocol("a terminal that stays cooked".into());
    assert_fails(&ssh(), &says, 0, failure, Phase::Login);
}

#[test]
fn an_unknown_uname_is_quoted_without_harm() {
    let junk = shell_line(&format!("\x1b[31mVAX {}\n", "x".repeat(9000)));
    let error = play(&ssh(), &[(Stdout, &junk)], 0).failed.unwrap();
    let ConnectFailure::TargetUnknown(says) = error.failure else { panic!("{error}") };
    assert!(says.starts_with("?[31mVAX xxx") && says.len() <= 200, "{says}");
    let silent = shell_line("\n");
    let failure = ConnectFailure::TargetUnknown(String::new());
    assert_fails(&ssh(), &[(Stdout, &silent)], 0, failure, Phase::Login);
}

#[test]
fn another_protocol_is_refused_with_both_versions() {
    let shell = shell_line("Linux x86_64\n");
    let agent = String::from_utf8(answer_line(ANSWER_NONCE, PROTOCOL + 1)).unwrap() + "rest";
    let failure = ConnectFailure::Version { ours: PROTOCOL, theirs: PROTOCOL + 1 };
    assert_fails(&ssh(), &[(Stdout, &shell), (Stdout, &agent)], 0, failure, Phase::Start);
    let agent = agent.replace(&format!(" {}\n", PROTOCOL + 1), " x\n");
    let failure = ConnectFailure::Protocol("no protocol number".into());
    assert_fails(&ssh(), &[(Stdout, &shell), (Stdout, &agent)], 0, failure, Phase::Start);
}

#[test]
fn a_password_is_typed_once_at_the_prompt() {
    let shell = shell_line("Linux x86_64\n");
    let agent = agent_line();
    for (recipe, prompt) in [
        (ssh_with_password(), "me@web's password: ".to_owned()),
        (ssh_with_password(), "(me@web) Password: ".to_owned()),
        (ssh_with_password(), "Password:".to_owned()),
        (sudo_with_password(), "The usual lecture.\r\n".to_owned() + &sudo_prompt()),
        (sudo_with_password(), format!("[sudo: {}] Password: ", sudo_prompt())),
    ] {
        let says = [(Terminal, &*prompt), (Terminal, "\r\n"), (Stdout, &shell), (Stdout, &agent)];
        assert_up(&recipe, &says, &["type hunter2", "image linux-x86_64 false", "up"], "");
    }
}

#[test]
fn stars_behind_the_prompt_are_no_second_prompt() {
    let shell = shell_line("Linux x86_64\n");
    let says = [(Terminal, &*sudo_prompt()), (Terminal, "*******"), (Stdout, &shell)];
    assert_eq!(play(&sudo_with_password(), &says, 0).actions.len(), 2);
}

#[test]
fn a_second_prompt_means_that_the_password_is_wrong() {
    let prompt = sudo_prompt();
    let again =
        [(Terminal, &*prompt), (Terminal, "\r\nSorry, try again.\r\n"), (Terminal, &prompt)];
    let failure = ConnectFailure::PasswordWrong;
    let error = assert_fails(&sudo_with_password(), &again, 1, failure.clone(), Phase::Login);
    assert_eq!(error.tail, "Sorry, try again.\n");
    let refused = [
        (Terminal, "me@web's password: "),
        (Terminal, "\r\nme@web: Permission denied (publickey,password).\r\n"),
    ];
    assert_fails(&ssh_with_password(), &refused, 255, failure, Phase::Login);
}

#[test]
fn a_prompt_without_a_password_says_that_one_is_required() {
    let recipe = Recipe { secret: None, ..sudo_with_password() };
    let failure = ConnectFailure::PasswordRequired;
    assert_fails(&recipe, &[(Terminal, &sudo_prompt())], 1, failure, Phase::Login);
}

#[test]
fn an_echoed_password_is_not_in_the_tail() {
    let says =
        [(Terminal, &*sudo_prompt()), (Terminal, "\r\nhunter2\r\nhunter2"), (Stdout, SECRET)];
    let failure = ConnectFailure::Ended;
    let error = assert_fails(&sudo_with_password(), &says, 1, failure, Phase::Login);
    assert_eq!(error.tail, "***\n***\n***\n");
}

#[test]
fn a_banner_that_speaks_of_passwords_is_no_prompt() {
    let says = [(Terminal, "Your password: keep it.\r\nPassword:\r\n is what we ask for\r\n")];
    let played = play_in(&ssh_with_password(), &says, 255, usize::MAX);
    assert_eq!(played.actions, Vec::<String>::new());
}

#[track_caller]
fn assert_hint(recipe: &Recipe, line: &str, exit: i32, failure: ConnectFailure) {
    let ended = line.to_owned() + "\r\n";
    for text in [line, &ended] {
        let error = assert_fails(recipe, &[(Terminal, text)], exit, failure.clone(), Phase::Login);
        assert_eq!((error.exit, error.tail.trim_end()), (Some(Exit::Code(exit)), line));
    }
}

#[test]
fn what_the_tool_says_tells_the_failure() {
    use ConnectFailure::*;
    for (line, failure) in [
        ("me@web: Permission denied (publickey).", Denied),
        ("Permission denied (publickey,password).", PasswordRequired),
        ("-bash: /etc/rc: Permission denied", Ended),
        ("Host key verification failed.", HostKey),
        ("ssh: connect to host web port 22: Connection refused", ConnectionRefused),
        ("ssh: connect to host web port 22: No route to host", Unreachable),
        ("ssh: connect to host web port 22: Network is unreachable", Unreachable),
        ("ssh: connect to host web port 22: Connection timed out", Unreachable),
        ("ssh: Could not resolve hostname web: Name or service not known", HostUnknown),
        ("my rc: Connection refused", Ended),
    ] {
        assert_hint(&ssh(), line, 255, failure);
    }
    let sudo = recipe_of(&sudo::ENTRY, &[]);
    for (line, failure) in [
        ("sudo: a password is required", PasswordRequired),
        ("me is not in the sudoers file.", Denied),
        ("Sorry, user me may not run sudo on web.", Denied),
        ("Sorry, user me is not allowed to execute '/bin/sh -c x' as root on web.", Denied),
        ("sudo: unknown user: nemo", Denied),
        ("sudo: unknown user nemo", Denied),
        ("sudo: sh: command not found", NoShell),
    ] {
        assert_hint(&sudo, line, 1, failure);
    }
    assert_hint(&ssh(), "bash: line 1: exec: sh: not found", 127, NoShell);
    assert_hint(&ssh(), "bash: line 1: exec: sh: not found", 1, Ended);
}

#[test]
fn the_words_of_a_denied_sudo_count_though_the_password_was_right() {
    let says = [(Terminal, &*sudo_prompt()), (Terminal, "\r\nme is not in the sudoers file.\r\n")];
    let failure = ConnectFailure::Denied;
    assert_fails(&sudo_with_password(), &says, 1, failure, Phase::Login);
}

#[test]
fn hints_of_the_login_do_not_count_behind_it() {
    let shell = shell_line("Linux x86_64\n");
    let says = [(Stdout, &*shell), (Terminal, "Host key verification failed.\n")];
    assert_fails(&ssh(), &says, 255, ConnectFailure::Ended, Phase::Start);
}

#[test]
fn an_image_that_cannot_be_executed_is_told_from_a_lost_connection() {
    let shell = shell_line("Linux x86_64\n");
    let says = [(Stdout, &*shell), (Terminal, "sh: 1: exec: /proc/self/fd/4: Exec format error\n")];
    let failure = ConnectFailure::ImageDoesNotRun;
    assert_fails(&ssh(), &says, 126, failure.clone(), Phase::Start);
    assert_fails(&ssh(), &says, 1, failure.clone(), Phase::Start);
    assert_fails(&ssh(), &[(Stdout, &*shell)], 126, failure, Phase::Start);
    assert_fails(&ssh(), &[(Stdout, &*shell)], 255, ConnectFailure::Ended, Phase::Start);
}

#[test]
fn a_stream_cut_in_the_image_has_ended_in_the_push() {
    let mut handshake = Handshake::new(Arc::new(ssh()));
    handshake.started();
    let actions = handshake.input(Stdout, shell_line("Linux x86_64\n").as_bytes());
    assert!(matches!(actions[..], [Action::WantImage(_)]));
    let _ = handshake.image(1000, false);
    let error = handshake.closed(Some(Exit::Signal(9)));
    assert_eq!((error.failure, error.phase), (ConnectFailure::Ended, Phase::Push));
}

fn nowhere_line(rest: &str) -> String {
    shell_line(rest).replace("MGN0", "MGN3")
}

#[test]
fn a_target_without_a_directory_lists_those_it_tried() {
    let shell = shell_line("Linux x86_64\n");
    let first = nowhere_line("0 /dev/shm: Permission denied;\n");
    let memory = nowhere_line("0 memfd_create: no perl or python3;\n");
    let last = nowhere_line("0 /tmp: Permission denied; .: \x1b[m;\n");
    let says = [(Stdout, &*shell), (Stdout, &first), (Stdout, &memory), (Stdout, &last)];
    let tried = "/dev/shm: Permission denied; memfd_create: no perl or python3; \
                 /tmp: Permission denied; .: ?[m;";
    let failure = ConnectFailure::NoDirectory(tried.to_owned());
    assert_fails(&ssh(), &says, 1, failure, Phase::Start);
}

#[test]
fn the_image_is_sent_again_to_the_next_place() {
    let shell = shell_line("Linux x86_64\n");
    let full = nowhere_line("1 /dev/shm: no room;\n");
    let first = nowhere_line("0 /run: Permission denied;\n");
    let memory = shell_line("\n").replace("MGN0", "MGN6");
    let agent = agent_line();
    let says = [&*shell, &full, &first, &memory, &agent].map(|text| (Stdout, text));
    let played = play(&ssh(), &says, 0);
    assert_eq!(played.failed, None);
    let image = "image linux-x86_64 false";
    let asks_for_memory = |text: &String| text.contains("memfd_create");
    assert_eq!(played.actions[..2], [image, image]);
    assert!(asks_for_memory(&played.actions[2]), "{:?}", played.actions);
    assert_eq!(played.actions[3..], [image, "up"]);
    let without = Recipe { memfd: false, ..ssh() };
    let played = play(&without, &says[..3], 0);
    assert_eq!(played.actions, [image, image, image]);
}

#[test]
fn a_target_that_sends_us_up_and_down_the_ladder_is_left() {
    let shell = shell_line("Linux x86_64\n");
    for (rest, failure) in [
        ("3 x\n", ConnectFailure::Protocol("more places than there are".into())),
        ("x\n", ConnectFailure::Protocol("no number of places".into())),
        ("\n", ConnectFailure::Protocol("no number of places".into())),
    ] {
        let nowhere = nowhere_line(rest);
        let says = [(Stdout, &*shell), (Stdout, &nowhere)];
        assert_fails(&ssh(), &says, 1, failure, Phase::Start);
    }
    let again = nowhere_line("1 x\n");
    let says = [(Stdout, &*shell), (Stdout, &again), (Stdout, &again)];
    let failure = ConnectFailure::Protocol("more places than there are".into());
    assert_fails(&ssh(), &says, 1, failure, Phase::Start);
}

#[test]
fn a_shell_without_input_and_a_damaged_image_are_told() {
    let shell = shell_line("Linux x86_64\n");
    let deaf = shell_line("\n").replace("MGN0", "MGN5");
    let damaged = shell_line("\n").replace("MGN0", "MGN4");
    for (says, failure) in
        [(&deaf, ConnectFailure::InputEnded), (&damaged, ConnectFailure::ImageDamaged)]
    {
        let says = [(Stdout, &*shell), (Stdout, says)];
        assert_fails(&ssh(), &says, 0, failure, Phase::Start);
    }
}

#[test]
fn silence_is_met_with_an_empty_line() {
    let mut handshake = Handshake::new(Arc::new(ssh_with_password()));
    handshake.started();
    let actions = handshake.quiet();
    assert!(matches!(&actions[..], [Action::Send(line)] if line == b"\n"));
}

#[test]
fn after_the_shell_has_spoken_there_is_no_nudge() {
    let mut handshake = Handshake::new(Arc::new(ssh()));
    handshake.started();
    handshake.input(Stdout, shell_line("Linux x86_64\n").as_bytes());
    assert!(handshake.quiet().is_empty());
}

#[test]
fn a_timeout_names_the_phase_and_the_tail() {
    let mut handshake = Handshake::new(Arc::new(ssh()));
    handshake.started();
    handshake.input(Terminal, b"wait\x1b[0m\nfor it");
    let error = handshake.failed(ConnectFailure::Timeout, None);
    assert_eq!((error.failure, error.phase), (ConnectFailure::Timeout, Phase::Login));
    assert_eq!(error.tail, "wait?[0m\nfor it\n");
}

#[test]
fn a_tools_words_are_known_where_one_of_them_is_the_password() {
    for password in ["password", "a"] {
        let options = [("hostname", "web"), ("password", password)];
        let mut handshake = Handshake::new(Arc::new(recipe_of(&ssh::ENTRY, &options)));
        handshake.started();
        handshake.input(Terminal, b"me@web's password: ");
        handshake.input(Terminal, b"\r\nme@web: Permission denied (publickey,password).\r\n");
        let error = told(&mut handshake, Exit::Code(255));
        assert_eq!(error.failure, ConnectFailure::PasswordWrong, "{error}");
    }
}
