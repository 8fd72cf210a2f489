//! Codecs of what travels in place of an answer: deaths, failed connects, failed calls.
//! Texts are cut when they are sent, and refused beyond their limit when they arrive.

use crate::error::{
    CallError, CallFailure, Cause, ConnectError, ConnectFailure, Death, Exit, Phase,
};
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
            13 => Cause::Unidirectional,
            14 => Cause::Silent,
            15 => Cause::BrokerFailed,
            16 => Cause::Detached,
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
        (self.cause, self.context, self.seen_by, self.exit).encode(w);
        put_tail(TAIL_BYTES, &self.tail, w);
    }
}

impl Decode for Death {
    fn decode(r: &mut Reader<'_>) -> Result<Death, Malformed> {
        Ok(Death {
            cause: Cause::decode(r)?,
            context: Option::decode(r)?,
            seen_by: Option::decode(r)?,
            exit: Option::decode(r)?,
            tail: take_limited(TAIL_BYTES, r)?,
        })
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
