//! Tests of recipes: what they are on the wire, and what lines match.

use crate::connect::recipe::*;
use crate::route::files::Files;
use crate::route::heartbeat::Heartbeat;
use crate::route::terms::Terms;
use crate::wire::codec::{Decode, Encode, Reader, Writer};
use crate::wire::secret::Secret;

fn recipe() -> Recipe {
    Recipe {
        name: "ssh:web/sudo".to_owned(),
        title: "mitogen:me@here:1".to_owned(),
        start: Start::Shell { argv: vec![b"sudo".to_vec(), b"sh".to_vec()], nonce: u64::MAX },
        answer_nonce: 7,
        env: vec![b"LANGUAGE=C".to_vec()],
        terminal: true,
        as_su: false,
        asks: true,
        secret: Some(Secret::from("hunter2")),
        prompts: vec![
            Prompt::password(Pattern::ending(b"", b"password:")),
            Prompt { reply: Reply::PasswordOnceSettled, ..Prompt::default() },
            Prompt { reply: Reply::Yes, ..Prompt::default() },
            Prompt { reply: Reply::Nothing, ..Prompt::default() },
        ],
        hints: Vec::new(),
        timeout_ms: 30_000,
        same_root: false,
        directory: Some(b"/opt".to_vec()),
        memfd: false,
        wrapper: vec![b"nice".to_vec()],
        pipes: Some(true),
        terms: Terms {
            unidirectional: Some(false),
            heartbeat: Heartbeat { interval_ms: 500, count: 4 },
            threads: 7,
            files: Files { debug: "4/d".to_owned(), profiling: "/p".to_owned() },
        },
        orders: Vec::new(),
    }
}

fn bytes_of(recipe: &Recipe) -> Vec<u8> {
    let mut w = Writer::new(Vec::new(), None);
    recipe.encode(&mut w);
    w.finish().unwrap()
}

#[test]
fn a_recipe_arrives_as_it_was_sent() {
    let own = Recipe { start: Start::Own, secret: None, directory: None, ..recipe() };
    let [mut none, mut others] = [own.clone(), own.clone()];
    (none.terminal, none.asks) = (false, false);
    (others.as_su, others.same_root, others.memfd) = (true, true, true);
    others.orders = vec![b"root".to_vec(), Vec::new()];
    let fork = Recipe { start: Start::Fork(None), ..own.clone() };
    for sent in [recipe(), own, none, others, fork] {
        let bytes = bytes_of(&sent);
        let mut r = Reader::new(&bytes, None);
        let arrived = Recipe::decode(&mut r).unwrap();
        assert_eq!(format!("{arrived:?}"), format!("{sent:?}"));
        assert_eq!(arrived.secret.is_some(), sent.secret.is_some());
        assert!(arrived.secret.is_none_or(|secret| secret.expose() == "hunter2"));
        assert_eq!(r.finish(), Ok(()));
    }
}

#[test]
fn a_truncated_recipe_is_malformed() {
    let bytes = bytes_of(&recipe());
    for count in 0..bytes.len() {
        assert!(Recipe::decode(&mut Reader::new(&bytes[..count], None)).is_err());
    }
}

#[test]
fn a_pattern_matches_start_middle_and_end() {
    let pattern = Pattern { ends: b":".to_vec(), ..Pattern::line(b"(", b") Password") };
    assert!(pattern.matches(b"(me@here) password for me: "));
    assert!(!pattern.matches(b"x(me@here) Password: "));
    assert!(!pattern.matches(b"(me@here) Password: x"));
    assert!(!pattern.matches(b"("));
}

#[test]
fn blanks_that_no_ascii_has_count_as_blanks() {
    let password = Pattern::ending(b"", b"password:");
    for line in
        ["Password:", "\rPassword:\u{a0}", " Password: \u{202f}\u{a0} ", "Password:\u{3000}"]
    {
        assert!(password.matches(line.as_bytes()) && is_question(line.as_bytes()), "{line:?}");
    }
    for line in ["Mot de passe\u{a0}: ", "パスワード：", "続けますか？ ", "Go on? "] {
        assert!(is_question(line.as_bytes()), "{line:?}");
    }
    assert!(!is_question(b"Password: x") && !is_question(b" ") && !is_question(b""));
}

#[test]
fn debug_does_not_show_the_secret() {
    assert!(!format!("{:?}", recipe()).contains("hunter2"));
}
