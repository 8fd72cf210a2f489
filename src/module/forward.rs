//! An image that is not here, asked of the parent: piece by piece, a few at a time, so that neither
//! side ever has much of it on the way.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{ConnectFailure, Death};
use crate::ids::Handle;
use crate::io::turn::Turn;
use crate::limits::{IMAGE_BYTES_MAX, IMAGE_PIECE_BYTES, IMAGE_PIECES_MAX};
use crate::lock::{Held, Lock};
use crate::module::content::{Growing, Parcel};
use crate::module::images::{Images, Outcome, Want, unreadable};
use crate::module::respond::{Piece, Request};
use crate::route::node::{Node, Payload};
use crate::wire::codec::{Malformed, Reader};
use crate::wire::message::Message;

/// One image on its way.
struct Fetch {
    images: Arc<Images>,
    node: Arc<Node>,
    want: Want,
    state: Lock<State>,
}

struct State {
    /// None when it is over.
    arrived: Option<Growing>,
    /// Bytes that were asked for. Invariant: a multiple of the piece, or more than there are.
    asked: u64,
}

/// Asks the parent for an image; `images` learn the outcome.
pub fn ask(images: &Arc<Images>, node: &Arc<Node>, turn: &mut Turn, want: Want) {
    let state = Lock::new(State { arrived: Some(Growing::new()), asked: IMAGE_PIECE_BYTES });
    let (images, node) = (images.clone(), node.clone());
    Arc::new(Fetch { images, node, want, state }).ask(turn, 0);
}

impl Fetch {
    /// Asks for the piece that begins at this byte.
    fn ask(self: &Arc<Self>, turn: &mut Turn, at: u64) {
        let fetch = self.clone();
        let request = Request { want: self.want.clone(), at };
        let answered = move |turn: &mut Turn, answer: Result<Message, Death>| {
            let failed = answer.map_err(ConnectFailure::ViaGone);
            if let Err(failure) = failed.and_then(|message| fetch.answered(turn, at, &message)) {
                fetch.fail(turn, failure);
            }
        };
        let question: Payload<'_> = &|w| request.put(w);
        self.node.ask_parent(turn, Handle::GET_IMAGE, question, Box::new(answered));
    }

    fn answered(
        self: &Arc<Self>,
        turn: &mut Turn,
        at: u64,
        message: &Message,
    ) -> Result<(), ConnectFailure> {
        let piece = Piece::take(&mut Reader::new(&message.data, None));
        let piece =
            piece.unwrap_or_else(|Malformed(why)| Err(ConnectFailure::Protocol(why.into())))?;
        let mut next = self.take(at, &piece)?;
        while next.start < next.end {
            self.ask(turn, next.start);
            next.start += IMAGE_PIECE_BYTES;
        }
        self.finish(turn, &piece);
        Ok(())
    }

    /// Takes a piece. Returns what more is to be asked for.
    fn take(&self, at: u64, piece: &Piece<'_>) -> Result<Range<u64>, ConnectFailure> {
        let mut state = self.state();
        let State { arrived, asked } = &mut *state;
        let Some(growing) = arrived else { return Ok(0..0) };
        let there = piece.total.saturating_sub(at).min(IMAGE_PIECE_BYTES);
        if IMAGE_BYTES_MAX < piece.total {
            return Err(ConnectFailure::ImageUnusable("the image is too large".to_owned()));
        }
        if growing.len() != at || there != piece.bytes.len() as u64 {
            return Err(ConnectFailure::Protocol(
                "a piece of an image that was not asked for".into(),
            ));
        }
        growing.add(piece.bytes).map_err(unreadable)?;
        let first = *asked;
        let ahead = growing.len() + IMAGE_PIECES_MAX * IMAGE_PIECE_BYTES;
        while *asked < piece.total.min(ahead) {
            *asked += IMAGE_PIECE_BYTES;
        }
        Ok(first..*asked)
    }

    fn fail(&self, turn: &mut Turn, failure: ConnectFailure) {
        let was_open = self.state().arrived.take().is_some();
        if was_open {
            self.tell(turn, &Err(failure));
        }
    }

    /// Tells the outcome, if all has arrived.
    fn finish(&self, turn: &mut Turn, piece: &Piece<'_>) {
        let whole = {
            let mut state = self.state();
            let is_whole = state.arrived.as_ref().is_some_and(|all| all.len() == piece.total);
            is_whole.then(|| state.arrived.take()).flatten()
        };
        if let Some(whole) = whole {
            let (content, gzipped) = (whole.finish(), piece.gzipped);
            self.tell(turn, &Ok(Parcel { content, gzipped }));
        }
    }

    fn tell(&self, turn: &mut Turn, outcome: &Outcome) {
        self.images.arrived(turn, &self.want, outcome);
    }

    fn state(&self) -> Held<'_, State> {
        self.state.lock()
    }
}
