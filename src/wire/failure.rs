//! Codecs of what travels in place of an answer: deaths, failed connects, failed calls.
//! Texts are cut when they are sent, and refused beyond their limit when they arrive.

use crate::error::{
    CallError, CallFailure, Cause, ConnectError, ConnectFailure, Death, Exit, Phase,
};
use crate::ids::ContextId;
use crate::limits::{CONNECT_TAIL_BYTES, ERROR_CHAIN_MAX, ERROR_TEXT_BYTES_MAX, TAIL_BYTES};
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Shape, Writer};

/// Appends as much of the head of `text` as may travel.
fn put_text(text: &str, w: &mut Writer<'_>) {
    let mut end = text.len().min(ERROR_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].encode(w);
}

/// Appends as much of the end of `text` as may travel: the last words count.
fn put_tail(bytes_max: usize, text: &str, w: &mut Writer<'_>) {
    let mut start = text.len().saturating_sub(bytes_max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].encode(w);
}

fn take_text(r: &mut Reader<'_>) -> Result<String, Malformed> {
    take_limited(ERROR_TEXT_BYTES_MAX, r)
}

fn take_limited(bytes_max: usize, r: &mut Reader<'_>) -> Result<String, Malformed> {
    let text = String::decode(r)?;
    if bytes_max < text.len() { Err(Malformed("an error's text is too long")) } else { Ok(text) }
}

fn put_chain(chain: &[String], w: &mut Writer<'_>) {
    let chain = &chain[..chain.len().min(ERROR_CHAIN_MAX)];
    w.put_varint(chain.len() as u64);
    for text in chain {
        put_text(text, w);
    }
}

fn take_chain(r: &mut Reader<'_>) -> Result<Vec<String>, Malformed> {
    let count = r.take_len()?;
    if ERROR_CHAIN_MAX < count {
        return Err(Malformed("an error's chain is too long"));
    }
    let mut chain = Vec::new();
    r.each(count, |r| {
        chain.push(take_text(r)?);
        Ok(())
    })?;
    Ok(chain)
}

impl Encode for Cause {
    fn encode(&self, w: &mut Writer<'_>) {
        w.put_u8(*self as u8);
    }
}

impl Decode for Cause {
    fn decode(r: &mut Reader<'_>) -> Result<Cause, Malformed> {
        Ok(match r.take_u8()? {
            0 => Cause::SenderClosed,
            1 => Cause::ReceiverClosed,
            2 => Cause::Shutdown,
            3 => Cause::NoRoute,
            4 => Cause::Disconnected,
            5 => Cause::Exited,
            6 => Cause::Protocol,
            7 => Cause::NoHandle,
            8 => Cause::Refused,
            9 => Cause::DoesNotRead,
            10 => Cause::Failed,
            11 => Cause::Cancelled,
            12 => Cause::TooLarge,
            _ => return Err(Malformed("an unknown cause")),
        })
    }

    fn shape(s: &mut Shape) {
        s.word("cause");
    }
}

impl Encode for Exit {
    fn encode(&self, w: &mut Writer<'_>) {
        match self {
            Exit::Code(code) => (0u8, code).encode(w),
            Exit::Signal(signal) => (1u8, signal).encode(w),
        }
    }
}

impl Decode for Exit {
    fn decode(r: &mut Reader<'_>) -> Result<Exit, Malformed> {
        match <(u8, i32)>::decode(r)? {
            (0, code) => Ok(Exit::Code(code)),
            (1, signal) => Ok(Exit::Signal(signal)),
            _ => Err(Malformed("an unknown way to end")),
        }
    }

    fn shape(s: &mut Shape) {
        s.word("exit");
    }
}

impl Encode for Death {
    fn encode(&self, w: &mut Writer<'_>) {
        (self.cause, self.context, self.exit).encode(w);
        put_tail(TAIL_BYTES, &self.tail, w);
    }
}

impl Decode for Death {
    fn decode(r: &mut Reader<'_>) -> Result<Death, Malformed> {
        let (cause, context, exit) = <(Cause, Option<ContextId>, Option<Exit>)>::decode(r)?;
        Ok(Death { cause, context, exit, tail: take_limited(TAIL_BYTES, r)? })
    }

    fn shape(s: &mut Shape) {
        s.word("death");
    }
}

impl Encode for Phase {
    fn encode(&self, w: &mut Writer<'_>) {
        w.put_u8(*self as u8);
    }
}

impl Decode for Phase {
    fn decode(r: &mut Reader<'_>) -> Result<Phase, Malformed> {
        Ok(match r.take_u8()? {
            0 => Phase::Prepare,
            1 => Phase::Spawn,
            2 => Phase::Login,
            3 => Phase::Push,
            4 => Phase::Start,
            5 => Phase::Configure,
            _ => return Err(Malformed("an unknown phase")),
        })
    }

    fn shape(s: &mut Shape) {
        s.word("phase");
    }
}

impl Encode for ConnectError {
    fn encode(&self, w: &mut Writer<'_>) {
        (&self.failure, self.phase).encode(w);
        put_text(&self.hop, w);
        (self.exit, self.typed).encode(w);
        put_tail(CONNECT_TAIL_BYTES, &self.tail, w);
    }
}

impl Decode for ConnectError {
    fn decode(r: &mut Reader<'_>) -> Result<ConnectError, Malformed> {
        Ok(ConnectError {
            failure: ConnectFailure::decode(r)?,
            phase: Phase::decode(r)?,
            hop: take_text(r)?,
            exit: Option::decode(r)?,
            typed: bool::decode(r)?,
            tail: take_limited(CONNECT_TAIL_BYTES, r)?,
        })
    }

    fn shape(s: &mut Shape) {
        s.word("connect-error");
    }
}

impl ConnectFailure {
    fn code(&self) -> u8 {
        match self {
            Self::Timeout => 0,
            Self::Spawn(_) => 1,
            Self::Ended => 2,
            Self::PasswordRequired => 3,
            Self::PasswordWrong => 4,
            Self::Denied => 5,
            Self::HostKey => 6,
            Self::HostUnknown => 7,
            Self::ConnectionRefused => 8,
            Self::Unreachable => 9,
            Self::NoShell => 10,
            Self::TargetUnknown(_) => 11,
            Self::NoImage { .. } => 12,
            Self::ImageUnusable(_) => 13,
            Self::NoDirectory(_) => 14,
            Self::ImageDoesNotRun => 15,
            Self::Version { .. } => 16,
            Self::Protocol(_) => 17,
            Self::Cancelled => 18,
            Self::ViaGone(_) => 19,
            Self::BadOption(_) => 20,
            Self::ImageDamaged => 21,
            Self::InputEnded => 22,
            Self::UnknownPrompt(_) => 23,
            Self::NoTool(_) => 24,
            Self::Busy => 25,
            Self::HostKeyChanged => 26,
            Self::NoTarget => 27,
            Self::NoTerminal => 28,
            Self::NotEntered => 29,
            Self::ForkForbidden => 30,
        }
    }
}

impl Encode for ConnectFailure {
    fn encode(&self, w: &mut Writer<'_>) {
        w.put_u8(self.code());
        match self {
            Self::Spawn(errno) => errno.encode(w),
            Self::TargetUnknown(text)
            | Self::ImageUnusable(text)
            | Self::NoDirectory(text)
            | Self::BadOption(text)
            | Self::UnknownPrompt(text)
            | Self::NoTool(text) => put_text(text, w),
            Self::Protocol(text) => put_text(text, w),
            Self::NoImage { target, available } => {
                put_text(target, w);
                put_text(available, w);
            }
            Self::Version { ours, theirs } => (ours, theirs).encode(w),
            Self::ViaGone(death) => death.encode(w),
            _ => (),
        }
    }
}

impl Decode for ConnectFailure {
    fn decode(r: &mut Reader<'_>) -> Result<ConnectFailure, Malformed> {
        let code = r.take_u8()?;
        let text = match code {
            11..=14 | 17 | 20 | 23 | 24 => take_text(r)?,
            _ => String::new(),
        };
        Ok(match code {
            0 => Self::Timeout,
            1 => Self::Spawn(i32::decode(r)?),
            2 => Self::Ended,
            3 => Self::PasswordRequired,
            4 => Self::PasswordWrong,
            5 => Self::Denied,
            6 => Self::HostKey,
            7 => Self::HostUnknown,
            8 => Self::ConnectionRefused,
            9 => Self::Unreachable,
            10 => Self::NoShell,
            11 => Self::TargetUnknown(text),
            12 => Self::NoImage { target: text, available: take_text(r)? },
            13 => Self::ImageUnusable(text),
            14 => Self::NoDirectory(text),
            15 => Self::ImageDoesNotRun,
            16 => Self::Version { ours: u32::decode(r)?, theirs: u32::decode(r)? },
            17 => Self::Protocol(text.into()),
            18 => Self::Cancelled,
            19 => Self::ViaGone(Death::decode(r)?),
            20 => Self::BadOption(text),
            21 => Self::ImageDamaged,
            22 => Self::InputEnded,
            23 => Self::UnknownPrompt(text),
            24 => Self::NoTool(text),
            25 => Self::Busy,
            26 => Self::HostKeyChanged,
            27 => Self::NoTarget,
            28 => Self::NoTerminal,
            29 => Self::NotEntered,
            30 => Self::ForkForbidden,
            _ => return Err(Malformed("an unknown failure to connect")),
        })
    }

    fn shape(s: &mut Shape) {
        s.word("connect-failure-3");
    }
}

impl Encode for CallError {
    fn encode(&self, w: &mut Writer<'_>) {
        put_text(&self.function, w);
        self.failure.encode(w);
    }
}

impl Decode for CallError {
    fn decode(r: &mut Reader<'_>) -> Result<CallError, Malformed> {
        Ok(CallError { function: take_text(r)?, failure: CallFailure::decode(r)? })
    }

    fn shape(s: &mut Shape) {
        s.word("call-error");
    }
}

impl Encode for CallFailure {
    fn encode(&self, w: &mut Writer<'_>) {
        match self {
            Self::Error { type_name, chain } => {
                w.put_u8(0);
                put_text(type_name, w);
                put_chain(chain, w);
            }
            Self::Panic(message) => {
                w.put_u8(1);
                put_text(message, w);
            }
            Self::Unknown => w.put_u8(2),
            Self::Signature { there, here } => {
                w.put_u8(3);
                put_text(there, w);
                put_text(here, w);
            }
            Self::Arguments(why) => {
                w.put_u8(4);
                put_text(why, w);
            }
        }
    }
}

impl Decode for CallFailure {
    fn decode(r: &mut Reader<'_>) -> Result<CallFailure, Malformed> {
        Ok(match r.take_u8()? {
            0 => Self::Error { type_name: take_text(r)?, chain: take_chain(r)? },
            1 => Self::Panic(take_text(r)?),
            2 => Self::Unknown,
            3 => Self::Signature { there: take_text(r)?, here: take_text(r)? },
            4 => Self::Arguments(take_text(r)?),
            _ => return Err(Malformed("an unknown failure of a call")),
        })
    }

    fn shape(s: &mut Shape) {
        s.word("call-failure");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let exit = Some(Exit::Signal(9));
        Death { cause: Cause::Exited, context: Some(ContextId(5)), exit, tail: "bye\n".into() }
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
        assert_eq!(bytes_of(&death()), [&[5, 1, 5, 1, 1, 18, 4][..], b"bye\n"].concat());
        assert_eq!(bytes_of(&Death::of(Cause::SenderClosed)), [0, 0, 0, 0]);
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
        assert!(value_of::<Cause>(&[13]).is_err());
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
        let refused = value_of::<Death>(&[&[0, 0, 0][..], &text].concat());
        assert_eq!(refused, Err(Malformed("an error's text is too long")));
    }
}
