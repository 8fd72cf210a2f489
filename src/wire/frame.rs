//! One frame to be sent: its payload is written first, behind room for the header, which is written
//! when the payload's length is known. Nothing is copied or moved.

use std::any::Any;

use crate::limits::{FRAGMENT_BYTES, HEADER_BYTES_MAX, SMALL_FRAME_BYTES};
use crate::wire::codec::{Malformed, Writer};
use crate::wire::header::Header;

/// A payload that grows, with room before it for a header.
#[derive(Clone, PartialEq, Eq)]
pub struct FrameBuf {
    /// Room of `HEADER_BYTES_MAX` bytes, then the payload: `HEADER_BYTES_MAX <= bytes.len()`.
    bytes: Vec<u8>,
}

/// The bytes of one frame, header and payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Vec<u8>,
    /// Where the header begins: `start <= bytes.len()`.
    start: usize,
}

impl FrameBuf {
    /// An empty payload.
    pub fn new() -> FrameBuf {
        let mut bytes = Vec::with_capacity(SMALL_FRAME_BYTES);
        bytes.resize(HEADER_BYTES_MAX, 0);
        FrameBuf { bytes }
    }

    /// The payload that `write` encodes, or why a value of it cannot be sent.
    pub fn encode(
        scope: Option<&dyn Any>,
        write: impl FnOnce(&mut Writer<'_>),
    ) -> Result<FrameBuf, Malformed> {
        let mut writer = Writer::new(FrameBuf::new().bytes, scope);
        write(&mut writer);
        Ok(FrameBuf { bytes: writer.finish()? })
    }

    /// The payload so far.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES_MAX..]
    }

    /// Whether one frame can carry it; else it travels as fragments.
    pub fn fits(&self) -> bool {
        self.payload().len() <= FRAGMENT_BYTES
    }

    /// Writes the header close before the payload.
    ///
    /// # Panics
    ///
    /// In a debug build, if header and payload make no valid frame: a payload that does not fit.
    pub fn seal(mut self, header: &Header) -> Frame {
        let mut room = [0; HEADER_BYTES_MAX];
        let header_len = header.write(self.payload().len(), &mut room);
        let start = HEADER_BYTES_MAX - header_len;
        self.bytes[start..HEADER_BYTES_MAX].copy_from_slice(&room[..header_len]);
        Frame { bytes: self.bytes, start }
    }
}

impl Default for FrameBuf {
    fn default() -> FrameBuf {
        FrameBuf::new()
    }
}

impl Frame {
    /// A frame with a copy of this payload.
    pub fn new(header: &Header, payload: &[u8]) -> Frame {
        let mut bytes = Vec::with_capacity(HEADER_BYTES_MAX + payload.len());
        header.encode_into(payload.len(), &mut bytes);
        bytes.extend_from_slice(payload);
        Frame { bytes, start: 0 }
    }

    /// Header and payload.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ContextId, Handle};
    use crate::wire::header::{Kind, Lane, Part};

    const HEADER: Header = Header {
        kind: Kind::Call,
        lane: Lane::Quick,
        part: Part::Whole,
        dst: ContextId(5),
        src: ContextId(0),
        auth: ContextId(0),
        handle: Handle(1),
        reply_to: Some(Handle(256)),
    };

    #[test]
    fn a_sealed_frame_is_header_and_payload() {
        let frame = FrameBuf::encode(None, |w| w.put(b"abc")).unwrap().seal(&HEADER);
        assert_eq!(frame.as_bytes(), [&[0xa0, 4, 5, 0, 1, 0x80, 2, 3][..], b"abc"].concat());
        assert_eq!(Frame::new(&HEADER, b"abc").as_bytes(), frame.as_bytes());
    }

    #[test]
    fn sealing_does_not_move_the_payload() {
        let buf = FrameBuf::encode(None, |w| w.put(&[7; 1000])).unwrap();
        let before = buf.payload().as_ptr();
        let frame = buf.seal(&HEADER);
        let frame = frame.as_bytes();
        assert_eq!(frame[frame.len() - 1000..].as_ptr(), before);
    }

    #[test]
    fn a_value_that_cannot_be_sent_makes_no_frame() {
        let refused = FrameBuf::encode(None, |w| w.fail("no")).err();
        assert_eq!(refused, Some(Malformed("no")));
    }

    #[test]
    fn a_payload_of_one_fragment_fits() {
        let fits = |bytes: &[u8]| FrameBuf::encode(None, |w| w.put(bytes)).unwrap().fits();
        assert!(fits(&[0; FRAGMENT_BYTES]));
        assert!(!fits(&[0; FRAGMENT_BYTES + 1]));
    }
}
