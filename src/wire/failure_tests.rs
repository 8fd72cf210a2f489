//! Tests of failures on the wire: their bytes, their limits, and every way to be malformed.

use crate::error::{
    CallError, CallFailure, Cause, ConnectError, ConnectFailure, Death, Exit, Phase,
};
use crate::ids::ContextId;
use crate::limits::{CONNECT_TAIL_BYTES, ERROR_CHAIN_MAX, ERROR_TEXT_BYTES_MAX, TAIL_BYTES};
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Writer};

fn bytes_of(value: &impl Encode) -> Vec<u8> {
    let mut w = Writer::new(Vec::new(), None);
    value.encode(&mut w);
    w.finish().unwrap()
}

fn value_of<T: Decode>(bytes: &[u8]) -> Result<T, Malformed> {
    let mut r = Reader::new(bytes, None);
    let value = T::decode(&mut r)?;
    r.finish().map(|()| value)
}

#[track_caller]
fn both_ways<T: Decode + PartialEq + std::fmt::Debug>(value: T) {
    let bytes = bytes_of(&value);
    assert_eq!(value_of(&bytes), Ok(value));
    for len in 0..bytes.len() {
        assert!(value_of::<T>(&bytes[..len]).is_err(), "cut at {len}");
    }
}

fn death() -> Death {
    let (context, seen_by) = (Some(ContextId(5)), Some(ContextId(2)));
    let (cause, exit) = (Cause::Exited, Some(Exit::Signal(9)));
    Death { cause, context, seen_by, exit, tail: "bye\n".into() }
}

fn connect_error(failure: ConnectFailure) -> ConnectError {
    let (hop, tail) = ("ssh:web1".into(), "Permission denied".into());
    ConnectError {
        failure,
        phase: Phase::Login,
        hop,
        exit: Some(Exit::Code(255)),
        typed: true,
        tail,
    }
}

fn call_error(failure: CallFailure) -> CallError {
    CallError { function: "tool::f".into(), failure }
}

#[test]
fn a_death_has_these_bytes() {
    assert_eq!(bytes_of(&death()), [&[5, 1, 5, 1, 2, 1, 1, 18, 4][..], b"bye\n"].concat());
    assert_eq!(bytes_of(&Death::of(Cause::SenderClosed)), [0, 0, 0, 0, 0]);
}

#[test]
fn a_connect_error_has_these_bytes() {
    let bytes = bytes_of(&connect_error(ConnectFailure::Spawn(2)));
    let head = [&[1, 4, 2, 8][..], b"ssh:web1", &[1, 0, 0xfe, 3, 1, 17]].concat();
    assert_eq!(bytes, [&head[..], b"Permission denied"].concat());
}

#[test]
fn a_call_error_has_these_bytes() {
    let chain = vec!["a".to_owned(), "bc".to_owned()];
    let failure = CallFailure::Error { type_name: "E".into(), chain };
    let head = [&[7][..], b"tool::f", &[0, 1], b"E", &[2, 1], b"a", &[2], b"bc"].concat();
    assert_eq!(bytes_of(&call_error(failure)), head);
}

#[test]
fn every_cause_arrives_as_it_was() {
    for code in 0..=12u8 {
        let cause = value_of::<Cause>(&[code]).unwrap();
        assert_eq!(cause as u8, code);
        both_ways(Death { cause, ..death() });
    }
    for code in 0..=5u8 {
        assert_eq!(value_of::<Phase>(&[code]).unwrap() as u8, code);
    }
}

#[test]
fn every_failure_arrives_as_it_was() {
    let text = || "why".to_owned();
    for code in (0..=20u8).filter(|code| ![1, 11, 12, 13, 14, 16, 17, 19, 20].contains(code)) {
        both_ways(connect_error(value_of(&[code]).unwrap()));
    }
    both_ways(connect_error(ConnectFailure::Spawn(13)));
    both_ways(connect_error(ConnectFailure::TargetUnknown(text())));
    both_ways(connect_error(ConnectFailure::NoImage { target: text(), available: text() }));
    both_ways(connect_error(ConnectFailure::ImageUnusable(text())));
    both_ways(connect_error(ConnectFailure::NoDirectory(text())));
    both_ways(connect_error(ConnectFailure::ImageDamaged));
    both_ways(connect_error(ConnectFailure::InputEnded));
    both_ways(connect_error(ConnectFailure::NoTerminal));
    both_ways(connect_error(ConnectFailure::UnknownPrompt(text())));
    both_ways(connect_error(ConnectFailure::NoTool(text())));
    both_ways(connect_error(ConnectFailure::Busy));
    both_ways(connect_error(ConnectFailure::HostKeyChanged));
    both_ways(connect_error(ConnectFailure::NoTarget));
    both_ways(connect_error(ConnectFailure::NotEntered));
    both_ways(connect_error(ConnectFailure::ForkForbidden));
    both_ways(connect_error(ConnectFailure::Version { ours: 1, theirs: 2 }));
    both_ways(connect_error(ConnectFailure::ViaGone(death())));
    both_ways(connect_error(ConnectFailure::BadOption(text())));
    both_ways(call_error(CallFailure::Panic(text())));
    both_ways(call_error(CallFailure::Unknown));
    both_ways(call_error(CallFailure::Signature { there: text(), here: text() }));
    both_ways(call_error(CallFailure::Arguments(text())));
}

#[test]
fn unknown_codes_are_malformed() {
    assert!(value_of::<Cause>(&[17]).is_err());
    assert!(value_of::<Phase>(&[6]).is_err());
    assert!(value_of::<Exit>(&[2, 0]).is_err());
    assert!(value_of::<ConnectFailure>(&[200]).is_err());
    assert!(value_of::<CallFailure>(&[5]).is_err());
}

#[test]
fn long_texts_are_cut_between_characters_when_they_are_sent() {
    let long = "é".repeat(ERROR_TEXT_BYTES_MAX);
    let sent = bytes_of(&call_error(CallFailure::Panic(format!("x{long}"))));
    let arrived = value_of::<CallError>(&sent).unwrap().failure;
    let CallFailure::Panic(text) = arrived else { panic!("{arrived:?}") };
    assert_eq!(text.len(), ERROR_TEXT_BYTES_MAX - 1);
    let sent = bytes_of(&Death { tail: format!("{long}x"), ..death() });
    let tail = value_of::<Death>(&sent).unwrap().tail;
    assert!(tail.len() == TAIL_BYTES - 1 && tail.ends_with("éx"));
    let both = ConnectError { tail: long, ..connect_error(ConnectFailure::Ended) };
    let tail = value_of::<ConnectError>(&bytes_of(&both)).unwrap().tail;
    assert_eq!(tail.len(), CONNECT_TAIL_BYTES);
}

#[test]
fn long_chains_are_cut_when_they_are_sent_and_refused_when_they_arrive() {
    let chain = vec!["a".to_owned(); ERROR_CHAIN_MAX + 1];
    let sent = bytes_of(&CallFailure::Error { type_name: "E".into(), chain });
    let CallFailure::Error { chain, .. } = value_of(&sent).unwrap() else { panic!() };
    assert_eq!(chain.len(), ERROR_CHAIN_MAX);
    let longer = [&[0, 1, b'E', ERROR_CHAIN_MAX as u8 + 1][..], &[0; 64]].concat();
    let refused = value_of::<CallFailure>(&longer);
    assert_eq!(refused, Err(Malformed("an error's chain is too long")));
}

#[test]
fn texts_beyond_their_limit_are_refused_when_they_arrive() {
    let text = bytes_of(&"x".repeat(TAIL_BYTES + 1));
    let refused = value_of::<Death>(&[&[0, 0, 0, 0][..], &text].concat());
    assert_eq!(refused, Err(Malformed("an error's text is too long")));
}
