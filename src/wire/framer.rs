//! Cuts what a stream brings into frames. Whole frames are lent out of the input, uncopied; only
//! the bytes of an unfinished one are kept. After malformed bytes a stream has no further frame.

use crate::limits::{FRAGMENT_BYTES, HEADER_BYTES_MAX};
use crate::wire::codec::Malformed;
use crate::wire::header::{Decoded, Header};

/// Keeps the unfinished frame of one stream.
#[derive(Default)]
pub struct Framer {
    /// The head of a frame: `tail.len() <= HEADER_BYTES_MAX + FRAGMENT_BYTES`, and at rest less
    /// than the frame.
    tail: Vec<u8>,
    /// The tail is whole and was lent; it goes when the next frame is looked for.
    lent: bool,
    broken: Option<Malformed>,
}

/// The frames of one piece of input. Look until there is none, or the rest of the input is lost.
#[must_use = "input that is not looked through is lost"]
pub struct Frames<'a> {
    framer: &'a mut Framer,
    input: &'a [u8],
}

/// One frame, as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// Its header.
    pub header: Header,
    /// What it carries.
    pub payload: &'a [u8],
    /// Header and payload, exactly as they came: what a hop forwards.
    pub whole: &'a [u8],
}

impl Framer {
    /// A stream of which nothing was read.
    pub fn new() -> Framer {
        Framer::default()
    }

    /// Takes what was read; call [`Frames::next`] until there is no more.
    pub fn feed<'a>(&'a mut self, input: &'a [u8]) -> Frames<'a> {
        Frames { framer: self, input }
    }

    /// Whether the stream is inside a frame: an end here cuts one.
    #[cfg(test)]
    pub(crate) fn is_inside_frame(&self) -> bool {
        !self.lent && !self.tail.is_empty()
    }

    fn release(&mut self) {
        if self.lent {
            // The memory too: of many idle streams each would keep a fragment's.
            self.tail = Vec::new();
            self.lent = false;
        }
    }

    /// Moves bytes of `input` to the tail, until it has `len` or the input ends.
    fn keep(&mut self, input: &mut &[u8], len: usize) {
        let (head, rest) = input.split_at(input.len().min(len.saturating_sub(self.tail.len())));
        self.tail.extend_from_slice(head);
        *input = rest;
        self.check();
    }

    /// Completes the frame in the tail out of `input`.
    fn complete(&mut self, input: &mut &[u8]) -> Result<Option<Decoded>, Malformed> {
        let (kept, all) = (self.tail.len(), *input);
        self.keep(input, HEADER_BYTES_MAX);
        let Some(decoded) = Header::decode(&self.tail)? else { return Ok(None) };
        if decoded.frame_len() < self.tail.len() {
            self.tail.truncate(decoded.frame_len());
            *input = &all[decoded.frame_len() - kept..];
        }
        self.tail.reserve_exact(decoded.frame_len() - self.tail.len());
        self.keep(input, decoded.frame_len());
        self.lent = self.tail.len() == decoded.frame_len();
        Ok(self.lent.then_some(decoded))
    }

    fn check(&self) {
        debug_assert!(self.tail.len() <= HEADER_BYTES_MAX + FRAGMENT_BYTES);
        debug_assert!(!self.lent);
    }
}

impl Frames<'_> {
    /// The next whole frame; `None` when more input is needed. Malformed bytes are reported once
    /// for each piece of input, and nothing follows them.
    #[allow(clippy::should_implement_trait, reason = "a frame may lie in the framer itself")]
    pub fn next(&mut self) -> Option<Result<Received<'_>, Malformed>> {
        self.framer.release();
        if self.input.is_empty() {
            return None;
        }
        match self.look() {
            Ok(None) => None,
            Ok(Some(decoded)) => Some(Ok(self.lend(decoded))),
            Err(malformed) => {
                self.framer.broken = Some(malformed);
                self.input = &[];
                Some(Err(malformed))
            }
        }
    }

    /// Looks for a whole frame: at the head of the input, or in the tail, where it is `lent` then.
    fn look(&mut self) -> Result<Option<Decoded>, Malformed> {
        if let Some(malformed) = self.framer.broken {
            return Err(malformed);
        }
        if !self.framer.tail.is_empty() {
            return self.framer.complete(&mut self.input);
        }
        let found = Header::decode(self.input)?;
        if found.is_some_and(|decoded| decoded.frame_len() <= self.input.len()) {
            return Ok(found);
        }
        self.framer.tail.reserve_exact(found.map_or(0, |decoded| decoded.frame_len()));
        self.framer.keep(&mut self.input, HEADER_BYTES_MAX + FRAGMENT_BYTES);
        Ok(None)
    }

    fn lend(&mut self, decoded: Decoded) -> Received<'_> {
        let whole = if self.framer.lent {
            self.framer.tail.as_slice()
        } else {
            let (whole, rest) = self.input.split_at(decoded.frame_len());
            self.input = rest;
            whole
        };
        Received { header: decoded.header, payload: &whole[decoded.header_len..], whole }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ContextId, Handle};
    use crate::wire::frame::Frame;
    use crate::wire::header::{Kind, Lane, Part};

    fn frame(payload: &[u8]) -> Vec<u8> {
        let header = Header {
            kind: Kind::Data,
            lane: Lane::Quick,
            part: Part::Whole,
            dst: ContextId(300),
            src: ContextId(1),
            auth: ContextId(1),
            handle: Handle(1 << 30),
            reply_to: None,
        };
        Frame::new(&header, payload).as_bytes().to_vec()
    }

    /// Three frames: of no payload, of a full fragment, of three bytes.
    fn three() -> Vec<u8> {
        [frame(b""), frame(&[7; FRAGMENT_BYTES]), frame(b"abc")].concat()
    }

    fn drain(frames: &mut Frames<'_>, out: &mut Vec<Vec<u8>>) -> Result<(), Malformed> {
        while let Some(received) = frames.next() {
            let received = received?;
            assert!(received.whole.ends_with(received.payload));
            out.push(received.whole.to_vec());
        }
        Ok(())
    }

    #[track_caller]
    fn comes_in_pieces_of(piece_bytes: usize) {
        let (mut framer, mut out) = (Framer::new(), Vec::new());
        for piece in three().chunks(piece_bytes) {
            drain(&mut framer.feed(piece), &mut out).unwrap();
        }
        assert_eq!(out.concat(), three());
        assert_eq!(out.len(), 3);
        assert!(!framer.is_inside_frame());
    }

    #[test]
    fn frames_come_whole_from_pieces_of_any_size() {
        for piece_bytes in [1, 2, 3, 7, 11, 41, 42, 43, 1000, 16_383, 16_384, 16_400, 40_000] {
            comes_in_pieces_of(piece_bytes);
        }
    }

    #[test]
    fn whole_frames_are_not_copied() {
        let input = three();
        let mut framer = Framer::new();
        let mut frames = framer.feed(&input);
        assert_eq!(frames.next().unwrap().unwrap().whole.as_ptr(), input.as_ptr());
        assert_eq!(frames.next().unwrap().unwrap().payload.len(), FRAGMENT_BYTES);
        assert_eq!(frames.next().unwrap().unwrap().payload, b"abc");
        assert_eq!(frames.next(), None);
    }

    #[test]
    fn every_truncation_waits_for_more() {
        let whole = frame(b"abc");
        for len in 0..whole.len() {
            let mut framer = Framer::new();
            assert_eq!(framer.feed(&whole[..len]).next(), None, "cut at {len}");
            assert_eq!(framer.is_inside_frame(), 0 < len);
            let mut frames = framer.feed(&whole[len..]);
            assert_eq!(frames.next().unwrap().unwrap().whole, whole, "cut at {len}");
            assert_eq!(frames.next(), None);
        }
    }

    #[test]
    fn nothing_follows_malformed_bytes() {
        let input = [frame(b"a"), vec![0x55], frame(b"b")].concat();
        let (mut framer, mut out) = (Framer::new(), Vec::new());
        let malformed = Err(Malformed("no frame begins here"));
        assert_eq!(drain(&mut framer.feed(&input), &mut out), malformed);
        assert_eq!(out, [frame(b"a")]);
        assert_eq!(framer.feed(&frame(b"c")).next(), Some(Err(Malformed("no frame begins here"))));
        assert_eq!(framer.feed(b"").next(), None);
    }

    #[test]
    fn an_idle_stream_keeps_no_memory() {
        let (mut framer, mut out) = (Framer::new(), Vec::new());
        let whole = frame(&[1; 9000]);
        drain(&mut framer.feed(&whole[..100]), &mut out).unwrap();
        assert!(framer.tail.capacity() <= whole.len());
        drain(&mut framer.feed(&whole[100..]), &mut out).unwrap();
        assert_eq!(framer.tail.capacity(), 0);
    }
}
