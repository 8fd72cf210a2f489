//! The header of a frame: tag, flags, then only the fields that are there.
//! Every header has one encoding; what is not that one is refused, so a hop may forward the bytes.

use crate::ids::{ContextId, Handle};
use crate::limits::{FRAGMENT_BYTES, HEADER_BYTES_MAX};
use crate::wire::codec::Malformed;
use crate::wire::varint::{self, Taken};

/// The high five bits of every frame's first byte: they expose a stream that lost its place.
const TAG: u8 = 0b1010_0000;
const KIND_MASK: u8 = 0b0000_0111;

/// The frame travels in the bulk lane.
const BULK: u8 = 1 << 0;
/// The authority is another context than the source, and named.
const AUTH: u8 = 1 << 1;
/// An answer is wanted; its handle is named.
const REPLY: u8 = 1 << 2;
/// The first fragment of several; the total is named.
const FIRST: u8 = 1 << 3;
/// A later fragment.
const NEXT: u8 = 1 << 4;
const FLAGS: u8 = BULK | AUTH | REPLY | FIRST | NEXT;

/// What a frame is; a handle accepts only its own kind, so no data is ever read as a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Asks for a function to be run.
    Call = 0,
    /// An item for a Receiver.
    Data = 1,
    /// The answer to a call or a control message.
    Reply = 2,
    /// In place of an answer or of further data: why there is none.
    Dead = 3,
    /// Room at the receiver, in bytes.
    Grant = 4,
    /// The tree's own business: routes, ids, connects, shutdown.
    Control = 5,
}

/// Which queue a frame travels in. Order is kept in each, not between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Small messages.
    Quick,
    /// Fragments, and what must stay behind them.
    Bulk,
}

/// Which part of a message a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first fragment; the message's length in bytes is announced with it.
    First(u64),
    /// A later fragment.
    Next,
}

/// All that a hop needs to know of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Its queue.
    pub lane: Lane,
    /// Which part of its message.
    pub part: Part,
    /// The context that it goes to.
    pub dst: ContextId,
    /// The context that it comes from; answers go there.
    pub src: ContextId,
    /// The context under whose authority it acts; most often the same.
    pub auth: ContextId,
    /// What it is for, in `dst`.
    pub handle: Handle,
    /// Where an answer goes, in `src`; none wants none.
    pub reply_to: Option<Handle>,
}

/// A header, and how the bytes of its frame divide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The header.
    pub header: Header,
    /// Bytes of the header.
    pub header_len: usize,
    /// Bytes of the payload, which follows it.
    pub payload_len: usize,
}

impl Decoded {
    /// Bytes of the whole frame.
    pub fn frame_len(&self) -> usize {
        self.header_len + self.payload_len
    }
}

impl Header {
    /// Appends the header of a frame with that many bytes of payload.
    pub fn encode_into(&self, payload_len: usize, out: &mut Vec<u8>) {
        let mut bytes = [0; HEADER_BYTES_MAX];
        let len = self.write(payload_len, &mut bytes);
        out.extend_from_slice(&bytes[..len]);
    }

    /// Writes the header at the head of `out`; returns its bytes.
    pub fn write(&self, payload_len: usize, out: &mut [u8; HEADER_BYTES_MAX]) -> usize {
        debug_assert_eq!(self.check(payload_len as u64), Ok(()));
        out[0] = TAG | self.kind as u8;
        out[1] = self.flags();
        let total = match self.part {
            Part::First(total) => Some(total),
            Part::Whole | Part::Next => None,
        };
        let fields = [
            Some(u64::from(self.dst.0)),
            Some(u64::from(self.src.0)),
            (self.auth != self.src).then_some(u64::from(self.auth.0)),
            Some(u64::from(self.handle.0)),
            self.reply_to.map(|handle| u64::from(handle.0)),
            total,
            Some(payload_len as u64),
        ];
        let mut len = 2;
        for field in fields.into_iter().flatten() {
            len += varint::write(field, &mut out[len..]);
        }
        len
    }

    /// Reads the header at the head of `bytes`: `None` if they end inside it. What is wrong is
    /// reported from the first byte that tells.
    pub fn decode(bytes: &[u8]) -> Result<Option<Decoded>, Malformed> {
        let [tag, rest @ ..] = bytes else { return Ok(None) };
        if tag & !KIND_MASK != TAG {
            return Err(Malformed("no frame begins here"));
        }
        let kind = Kind::of(tag & KIND_MASK)?;
        let [flags, rest @ ..] = rest else { return Ok(None) };
        let part = part_of(*flags)?;
        let mut fields = Fields { rest, short: false };
        let (header, payload_len) = fields.header(kind, *flags, part)?;
        if fields.short {
            return Ok(None);
        }
        header.check(payload_len)?;
        Ok(Some(Decoded {
            header,
            header_len: bytes.len() - fields.rest.len(),
            payload_len: payload_len as usize,
        }))
    }

    fn flags(&self) -> u8 {
        let part = match self.part {
            Part::Whole => 0,
            Part::First(_) => FIRST,
            Part::Next => NEXT,
        };
        part | if self.lane == Lane::Bulk { BULK } else { 0 }
            | if self.auth != self.src { AUTH } else { 0 }
            | if self.reply_to.is_some() { REPLY } else { 0 }
    }

    /// What holds of every frame, sent or received.
    fn check(&self, payload_len: u64) -> Result<(), Malformed> {
        let full = FRAGMENT_BYTES as u64;
        let (holds, lane) = match self.part {
            Part::Whole => (payload_len <= full, self.lane),
            Part::First(total) => (payload_len == full && full < total, Lane::Bulk),
            Part::Next => (0 < payload_len && payload_len <= full, Lane::Bulk),
        };
        match (holds, lane == self.lane) {
            (true, true) => Ok(()),
            (false, _) => Err(Malformed("a frame of a wrong length")),
            (_, false) => Err(Malformed("a fragment outside the bulk lane")),
        }
    }
}

impl Kind {
    fn of(bits: u8) -> Result<Kind, Malformed> {
        Ok(match bits {
            0 => Kind::Call,
            1 => Kind::Data,
            2 => Kind::Reply,
            3 => Kind::Dead,
            4 => Kind::Grant,
            5 => Kind::Control,
            _ => return Err(Malformed("an unknown kind of frame")),
        })
    }
}

/// The part that flags tell; the total of a first one is not known yet.
fn part_of(flags: u8) -> Result<Part, Malformed> {
    if flags & !FLAGS != 0 {
        return Err(Malformed("unknown flags"));
    }
    match (flags & FIRST != 0, flags & NEXT != 0) {
        (false, false) => Ok(Part::Whole),
        (true, false) => Ok(Part::First(0)),
        (false, true) => Ok(Part::Next),
        (true, true) => Err(Malformed("both the first fragment and a later one")),
    }
}

/// Takes the numbers of a header; once the bytes run out, every further one is 0.
struct Fields<'a> {
    rest: &'a [u8],
    short: bool,
}

impl Fields<'_> {
    fn header(&mut self, kind: Kind, flags: u8, part: Part) -> Result<(Header, u64), Malformed> {
        let dst = ContextId(self.number32()?);
        let src = ContextId(self.number32()?);
        let auth = match flags & AUTH {
            0 => src,
            _ => ContextId(self.number32()?),
        };
        if flags & AUTH != 0 && auth == src && !self.short {
            return Err(Malformed("an authority that is the source is left out"));
        }
        let handle = Handle(self.number32()?);
        let reply_to = match flags & REPLY {
            0 => None,
            _ => Some(Handle(self.number32()?)),
        };
        let part = match part {
            Part::First(_) => Part::First(self.number(varint::BYTES_MAX)?),
            part => part,
        };
        let payload_len = u64::from(self.number32()?);
        let lane = if flags & BULK == 0 { Lane::Quick } else { Lane::Bulk };
        Ok((Header { kind, lane, part, dst, src, auth, handle, reply_to }, payload_len))
    }

    fn number32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.number(5)?).map_err(|_| Malformed("a field beyond 32 bits"))
    }

    /// A number of at most `len_max` bytes.
    fn number(&mut self, len_max: usize) -> Result<u64, Malformed> {
        if self.short {
            return Ok(0);
        }
        match varint::take(&self.rest[..self.rest.len().min(len_max)]) {
            Taken::Value(value, len) => {
                self.rest = &self.rest[len..];
                Ok(value)
            }
            Taken::Short if self.rest.len() < len_max => {
                self.short = true;
                Ok(0)
            }
            Taken::Short | Taken::Malformed => Err(Malformed("not a number")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Header = Header {
        kind: Kind::Call,
        lane: Lane::Quick,
        part: Part::Whole,
        dst: ContextId(5),
        src: ContextId(0),
        auth: ContextId(0),
        handle: Handle(1),
        reply_to: None,
    };
    const LONGEST: Header = Header {
        kind: Kind::Control,
        lane: Lane::Bulk,
        part: Part::First(u64::MAX),
        dst: ContextId(u32::MAX),
        src: ContextId(u32::MAX),
        auth: ContextId(u32::MAX - 1),
        handle: Handle(u32::MAX),
        reply_to: Some(Handle(u32::MAX)),
    };

    #[track_caller]
    fn both_ways(header: Header, payload_len: usize, bytes: &[u8]) {
        let mut out = Vec::new();
        header.encode_into(payload_len, &mut out);
        assert_eq!(out, bytes);
        let header_len = bytes.len();
        assert_eq!(Header::decode(bytes), Ok(Some(Decoded { header, header_len, payload_len })));
        for len in 0..header_len {
            assert_eq!(Header::decode(&bytes[..len]), Ok(None), "cut at {len}");
        }
    }

    #[track_caller]
    fn malformed(bytes: &[u8], why: &'static str) {
        assert_eq!(Header::decode(bytes), Err(Malformed(why)));
    }

    #[test]
    fn headers_have_these_bytes() {
        both_ways(QUICK, 3, &[0xa0, 0, 5, 0, 1, 3]);
        let call = Header { reply_to: Some(Handle(300)), ..QUICK };
        both_ways(call, 0, &[0xa0, 0b100, 5, 0, 1, 0xac, 2, 0]);
        let for_another = Header { kind: Kind::Data, auth: ContextId(7), ..QUICK };
        both_ways(for_another, 200, &[0xa1, 0b10, 5, 0, 7, 1, 0xc8, 1]);
        let first = Header { lane: Lane::Bulk, part: Part::First(16_385), ..QUICK };
        both_ways(first, 16_384, &[0xa0, 0b1001, 5, 0, 1, 0x81, 0x80, 1, 0x80, 0x80, 1]);
        let next = Header { lane: Lane::Bulk, part: Part::Next, ..QUICK };
        both_ways(next, 1, &[0xa0, 0b1_0001, 5, 0, 1, 1]);
        let bulk = Header { kind: Kind::Dead, lane: Lane::Bulk, ..QUICK };
        both_ways(bulk, 1, &[0xa3, 1, 5, 0, 1, 1]);
    }

    #[test]
    fn the_longest_header_has_room() {
        let mut out = Vec::new();
        LONGEST.encode_into(FRAGMENT_BYTES, &mut out);
        assert!(out.len() <= HEADER_BYTES_MAX);
        both_ways(LONGEST, FRAGMENT_BYTES, &out);
    }

    #[test]
    fn a_bad_tag_is_malformed_at_once() {
        for tag in (0..=255u8).filter(|tag| !(0xa0..=0xa5).contains(tag)) {
            assert!(Header::decode(&[tag]).is_err(), "{tag:#x}");
        }
    }

    #[test]
    fn bad_flags_are_malformed_at_once() {
        malformed(&[0xa0, 0b10_0000], "unknown flags");
        malformed(&[0xa0, 0b1000_0000], "unknown flags");
        malformed(&[0xa0, 0b1_1001], "both the first fragment and a later one");
    }

    #[test]
    fn only_the_one_encoding_is_taken() {
        let named = "an authority that is the source is left out";
        malformed(&[0xa0, 0b10, 5, 7, 7, 1, 0], named);
        malformed(&[0xa0, 0b10, 5, 0, 0], named);
        malformed(&[0xa0, 0, 0x85, 0], "not a number");
        assert_eq!(Header::decode(&[0xa0, 0b10, 5, 0]), Ok(None));
    }

    #[test]
    fn a_field_beyond_32_bits_is_malformed_as_soon_as_it_shows() {
        malformed(&[0xa0, 0, 0xff, 0xff, 0xff, 0xff, 0x1f], "a field beyond 32 bits");
        malformed(&[0xa0, 0, 0xff, 0xff, 0xff, 0xff, 0xff], "not a number");
    }

    #[test]
    fn lengths_that_lie_are_malformed() {
        let wrong = "a frame of a wrong length";
        malformed(&[0xa0, 0, 5, 0, 1, 0x81, 0x80, 1], wrong);
        malformed(&[0xa0, 0, 5, 0, 1, 0xff, 0xff, 0xff, 0xff, 0x0f], wrong);
        malformed(&[0xa0, 0b1_0001, 5, 0, 1, 0], wrong);
        malformed(&[0xa0, 0b1001, 5, 0, 1, 0x80, 0x80, 1, 0x80, 0x80, 1], wrong);
        malformed(&[0xa0, 0b1001, 5, 0, 1, 0x81, 0x80, 1, 0xff, 0x7f], wrong);
        malformed(&[0xa0, 0b1_0000, 5, 0, 1, 1], "a fragment outside the bulk lane");
    }
}
