//! Answers children that ask for images: from what this context holds, or can get. They ask by
//! name; a name is looked up, and is never a path.

use std::sync::Arc;

use crate::error::{ConnectFailure, Death, Result};
use crate::ids::{ContextId, Handle};
use crate::io::turn::Turn;
use crate::limits::{IMAGE_NAME_BYTES_MAX, IMAGE_PIECE_BYTES};
use crate::module::content::Parcel;
use crate::module::images::{Images, Outcome, Want, unreadable};
use crate::route::node::{Node, Outgoing};
use crate::route::pending::Deliver;
use crate::route::policy;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Writer};
use crate::wire::header::{Kind, Lane};
use crate::wire::message::Message;

/// What a child asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// Which image.
    pub want: Want,
    /// From which byte on.
    pub at: u64,
}

/// What it gets.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Whether the image is gzip's output.
    pub gzipped: bool,
    /// Bytes of the whole image.
    pub total: u64,
    /// Those that were asked for, at most `IMAGE_PIECE_BYTES`.
    pub bytes: &'a [u8],
}

/// Serves [`Handle::GET_IMAGE`] for the direct children.
///
/// # Errors
/// [`ErrorKind::Closed`](crate::error::ErrorKind) after the shutdown.
pub fn listen(node: &Arc<Node>, images: &Arc<Images>) -> Result<()> {
    let responder = Responder { node: node.clone(), images: images.clone() };
    node.listen(Handle::GET_IMAGE, Kind::Control, policy::anyone, Arc::new(responder))
}

struct Responder {
    node: Arc<Node>,
    images: Arc<Images>,
}

impl Deliver for Responder {
    fn message(&self, turn: &mut Turn, message: Message) {
        let (node, Some(handle)) = (&self.node, message.reply_to) else { return };
        let (dst, auth) = (message.src, node.id());
        let out = Outgoing { kind: Kind::Reply, dst, auth, handle, reply_to: None };
        let is_neighbour = message.auth == dst && node.is_child(dst);
        let request = Request::take(&mut Reader::new(&message.data, None));
        let request = request.ok().filter(|_| is_neighbour);
        let Some(Request { want, at }) = request else {
            let failure = ConnectFailure::Protocol("no request for an image".into());
            return answer(node, &out, |w| put_failure(&failure, w));
        };
        let to = node.clone();
        let taker = move |_: &mut Turn, outcome: &Outcome| match outcome {
            Ok(parcel) => answer(&to, &out, |w| put_piece(parcel, at, w)),
            Err(failure) => answer(&to, &out, |w| put_failure(failure, w)),
        };
        self.images.want(node, turn, want, false, Box::new(taker));
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {}
}

/// Sends an answer of one frame, behind what is more urgent.
fn answer(node: &Node, out: &Outgoing, body: impl Fn(&mut Writer<'_>)) {
    // A child that is gone needs none.
    let _ = node.tell(out, Lane::Bulk, &body);
}

/// Appends the piece of this image that begins at this byte.
fn put_piece(parcel: &Parcel, at: u64, w: &mut Writer<'_>) {
    let mut bytes = Vec::new();
    match parcel.content.append_to(&mut bytes, at, IMAGE_PIECE_BYTES) {
        Ok(()) => {
            let (gzipped, total) = (parcel.gzipped, parcel.content.len());
            Piece { gzipped, total, bytes: &bytes }.put(w);
        }
        Err(errno) => put_failure(&unreadable(errno), w),
    }
}

const PIECE: u8 = 0;
const FAILURE: u8 = 1;

fn put_failure(failure: &ConnectFailure, w: &mut Writer<'_>) {
    w.put_u8(FAILURE);
    failure.encode(w);
}

impl Request {
    /// Appends it.
    pub fn put(&self, w: &mut Writer<'_>) {
        w.put_bytes(self.want.target.as_bytes());
        w.put_u8(u8::from(self.want.gzip));
        w.put_varint(self.at);
    }

    /// Takes what [`Request::put`] appended, and all of it.
    pub fn take(r: &mut Reader<'_>) -> Result<Request, Malformed> {
        let name = r.take_bytes()?;
        let target = std::str::from_utf8(name).map_err(|_| Malformed("a name that is no text"))?;
        if IMAGE_NAME_BYTES_MAX < target.len() {
            return Err(Malformed("a name that is too long"));
        }
        let want = Want { target: target.to_owned(), gzip: bool::decode(r)? };
        let at = r.take_varint()?;
        if r.rest().is_empty() { Ok(Request { want, at }) } else { Err(Malformed("too long")) }
    }
}

impl<'a> Piece<'a> {
    /// Appends it.
    pub fn put(&self, w: &mut Writer<'_>) {
        w.put_u8(PIECE);
        w.put_u8(u8::from(self.gzipped));
        w.put_varint(self.total);
        w.put(self.bytes);
    }

    /// Takes a piece, or why there is none.
    pub fn take(r: &mut Reader<'a>) -> Result<Result<Piece<'a>, ConnectFailure>, Malformed> {
        match r.take_u8()? {
            PIECE => {
                let (gzipped, total) = (bool::decode(r)?, r.take_varint()?);
                Ok(Ok(Piece { gzipped, total, bytes: r.rest() }))
            }
            FAILURE => ConnectFailure::decode(r).map(Err),
            _ => Err(Malformed("an answer of no kind")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(put: impl Fn(&mut Writer<'_>)) -> Vec<u8> {
        let mut w = Writer::new(Vec::new(), None);
        put(&mut w);
        w.finish().unwrap()
    }

    fn request(target: &str) -> Request {
        Request { want: Want { target: target.to_owned(), gzip: true }, at: 70_000 }
    }

    #[test]
    fn requests_and_pieces_survive_their_encoding_and_no_truncation() {
        let request = request("linux-aarch64");
        let bytes = bytes_of(|w| request.put(w));
        assert_eq!(Request::take(&mut Reader::new(&bytes, None)), Ok(request));
        for count in 0..bytes.len() {
            assert!(Request::take(&mut Reader::new(&bytes[..count], None)).is_err());
        }
        assert!(Request::take(&mut Reader::new(&[&bytes[..], b"x"].concat(), None)).is_err());
        let piece = Piece { gzipped: true, total: 1 << 40, bytes: b"abc" };
        let bytes = bytes_of(|w| piece.put(w));
        assert_eq!(Piece::take(&mut Reader::new(&bytes, None)), Ok(Ok(piece)));
        let failure = ConnectFailure::NoImage { target: "a-b".into(), available: "c-d".into() };
        let bytes = bytes_of(|w| put_failure(&failure, w));
        assert_eq!(Piece::take(&mut Reader::new(&bytes, None)), Ok(Err(failure)));
        assert!(Piece::take(&mut Reader::new(&[2], None)).is_err());
    }

    #[test]
    fn a_name_has_a_length_that_is_allowed() {
        for (bytes, allowed) in [(IMAGE_NAME_BYTES_MAX, true), (IMAGE_NAME_BYTES_MAX + 1, false)] {
            let bytes = bytes_of(|w| request(&"n".repeat(bytes)).put(w));
            assert_eq!(Request::take(&mut Reader::new(&bytes, None)).is_ok(), allowed);
        }
    }

    #[test]
    fn the_longest_piece_fits_one_frame() {
        let bytes = vec![0; IMAGE_PIECE_BYTES as usize];
        let longest = bytes_of(|w| Piece { gzipped: true, total: u64::MAX, bytes: &bytes }.put(w));
        assert!(longest.len() <= crate::limits::FRAGMENT_BYTES);
    }
}
