//! What must hold of any bytes. Each function takes some and panics where it does not; the fuzz
//! targets and the tests only feed them.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::error::{CallError, ConnectError, Death};
use crate::limits::{FRAGMENT_BYTES, HEADER_BYTES_MAX};
use crate::wire::codec::{Decode, Malformed, Reader, Writer};
use crate::wire::fragment::{Assembler, Step, split};
use crate::wire::framer::{Framer, Received};
use crate::wire::header::{Header, Part};
use crate::wire::secret::Secret;
use crate::wire::varint::{self, Taken};

/// A stream means the same however it is cut, and each frame is the one encoding of its header.
pub fn framer(bytes: &[u8]) {
    let at_once = frames(bytes, bytes.len().max(1));
    for piece_bytes in [1, 2, 41, 1000] {
        assert_eq!(frames(bytes, piece_bytes), at_once, "in pieces of {piece_bytes} bytes");
    }
    assert!(bytes.starts_with(&at_once.0.concat()));
}

/// A header that decodes has no other encoding, and more bytes never change what was decided.
pub fn header(bytes: &[u8]) {
    let Ok(Some(decoded)) = Header::decode(bytes) else { return };
    let mut encoded = Vec::new();
    decoded.header.encode_into(decoded.payload_len, &mut encoded);
    assert_eq!(encoded, bytes[..decoded.header_len]);
    assert!(decoded.header_len <= HEADER_BYTES_MAX && decoded.payload_len <= FRAGMENT_BYTES);
    for len in 0..decoded.header_len {
        assert_eq!(Header::decode(&bytes[..len]), Ok(None));
    }
}

/// A number that decodes has no other encoding.
pub fn number(bytes: &[u8]) {
    if let Taken::Value(value, len) = varint::take(bytes) {
        let mut encoded = Vec::new();
        varint::put(value, &mut encoded);
        assert_eq!(encoded, bytes[..len]);
    }
}

/// Frames out of any bytes never break the assembler, and what it puts together would be sent as
/// the very frames it came by. Messages of more than `bytes_max` bytes are refused.
pub fn assembler(bytes: &[u8], bytes_max: u64) {
    let (mut framer, mut assembler) = (Framer::new(), Assembler::new());
    let mut frames = framer.feed(bytes);
    while let Some(Ok(Received { header, payload, .. })) = frames.next() {
        match assembler.push(&header, payload, bytes_max) {
            Ok(Step::Whole(message)) if header.part == Part::Whole => {
                assert_eq!((message.header(), &message.data[..]), (header, payload));
            }
            Ok(Step::Whole(message)) => {
                let parts: Vec<_> = split(&message.data).collect();
                assert!(2 <= parts.len());
                assert_eq!(parts.last(), Some(&(Part::Next, payload)));
            }
            Ok(Step::Partial | Step::TooLarge { .. } | Step::Ignored) => (),
            Err(Malformed(_)) => return,
        }
    }
}

/// No bytes make a decoder panic; of what decodes, the bytes are the one encoding.
pub fn values(bytes: &[u8]) {
    value::<(u8, i8, u16, i16, u32, i32, u64, i64)>(bytes);
    value::<(usize, isize, u128, i128, f32, f64, bool, char)>(bytes);
    value::<Vec<(String, Option<Duration>)>>(bytes);
    value::<Vec<Vec<Result<u16, [u8; 3]>>>>(bytes);
    value::<(Secret, Box<u8>, Vec<()>, Vec<u8>)>(bytes);
    value::<Death>(bytes);
    value::<CallError>(bytes);
    decoded::<ConnectError>(bytes);
    decoded::<BTreeMap<u8, BTreeSet<u16>>>(bytes);
    decoded::<HashMap<String, Vec<u64>>>(bytes);
}

/// Decodes only; for types of which some values have several encodings.
fn decoded<T: Decode>(bytes: &[u8]) -> Option<(T, usize)> {
    let mut r = Reader::new(bytes, None);
    let value = T::decode(&mut r).ok()?;
    Some((value, bytes.len() - r.rest().len()))
}

fn value<T: Decode>(bytes: &[u8]) {
    let Some((value, len)) = decoded::<T>(bytes) else { return };
    let mut w = Writer::new(Vec::new(), None);
    value.encode(&mut w);
    assert_eq!(w.finish().as_deref(), Ok(&bytes[..len]));
}

/// The frames of `bytes`, fed in pieces, and what was wrong, once for all.
fn frames(bytes: &[u8], piece_bytes: usize) -> (Vec<Vec<u8>>, Option<Malformed>) {
    let (mut framer, mut out, mut wrong) = (Framer::new(), Vec::new(), None);
    for piece in bytes.chunks(piece_bytes) {
        let mut frames = framer.feed(piece);
        while let Some(frame) = frames.next() {
            match frame {
                Ok(received) => {
                    header(received.whole);
                    assert_eq!(wrong, None, "a frame after malformed bytes");
                    out.push(received.whole.to_vec());
                }
                Err(malformed) => {
                    assert!(wrong.is_none_or(|wrong| wrong == malformed));
                    wrong = Some(malformed);
                }
            }
        }
    }
    (out, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ContextId, Handle};
    use crate::wire::frame::Frame;
    use crate::wire::header::{Kind, Lane};
    use proptest::prelude::*;

    fn all(bytes: &[u8]) {
        framer(bytes);
        header(bytes);
        number(bytes);
        assembler(bytes, 100);
        assembler(bytes, u64::MAX);
        values(bytes);
    }

    prop_compose! {
        fn any_header()(
            kind in prop::sample::select(vec![
                Kind::Call, Kind::Data, Kind::Reply, Kind::Dead, Kind::Grant, Kind::Control,
            ]),
            bulk: bool, ids in any::<[u32; 4]>(), own: bool, reply_to: Option<u32>,
        ) -> Header {
            Header {
                kind,
                lane: if bulk { Lane::Bulk } else { Lane::Quick },
                part: Part::Whole,
                dst: ContextId(ids[0]),
                src: ContextId(ids[1]),
                auth: ContextId(if own { ids[1] } else { ids[2] }),
                handle: Handle(ids[3]),
                reply_to: reply_to.map(Handle),
            }
        }
    }

    /// The frames of messages, one after the other.
    fn stream(messages: &[(Header, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (header, payload) in messages {
            for (part, chunk) in split(payload) {
                let lane = if part == Part::Whole { header.lane } else { Lane::Bulk };
                let frame = Frame::new(&Header { part, lane, ..*header }, chunk);
                out.extend_from_slice(frame.as_bytes());
            }
        }
        out
    }

    proptest! {
        #[test]
        fn random_bytes_break_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            all(&bytes);
        }

        #[test]
        fn bytes_like_frames_break_nothing(
            mut bytes in prop::collection::vec(0u8..32, 0..100), kind in 0u8..8,
        ) {
            bytes.insert(0, 0xa0 | kind);
            all(&bytes);
        }

        #[test]
        fn streams_arrive_as_they_were(
            messages in prop::collection::vec(
                (any_header(), prop::collection::vec(any::<u8>(), 0..300)), 0..8,
            ),
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = stream(&messages);
            let (frames, wrong) = frames(&bytes, bytes.len().max(1));
            prop_assert_eq!((frames.len(), wrong), (messages.len(), None));
            all(&bytes);
            all(&bytes[..cut.index(bytes.len() + 1)]);
        }

        #[test]
        fn a_stream_with_one_bit_flipped_breaks_nothing(
            header in any_header(), at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let mut bytes = stream(&[(header, vec![1; 20]), (header, vec![2; 30])]);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            all(&bytes);
        }
    }

    #[test]
    fn every_truncation_of_a_long_message_breaks_nothing() {
        let long = Header {
            kind: Kind::Data,
            lane: Lane::Quick,
            part: Part::Whole,
            dst: ContextId(1),
            src: ContextId(2),
            auth: ContextId(3),
            handle: Handle(4),
            reply_to: None,
        };
        let bytes = stream(&[(long, vec![9; 2 * FRAGMENT_BYTES + 5])]);
        for len in (0..bytes.len()).filter(|len| len % FRAGMENT_BYTES < 40) {
            assembler(&bytes[..len], u64::MAX);
        }
    }
}
