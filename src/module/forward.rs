//! An image that is not here, asked of the parent: piece by piece, a few at a time, so that neither
//! side ever has much of it on the way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Cause, ConnectFailure, Death};
use crate::ids::{ContextId, Handle};
use crate::io::turn::Turn;
use crate::limits::{IMAGE_BYTES_MAX, IMAGE_PIECE_BYTES, IMAGE_PIECES_MAX};
use crate::module::content::{Growing, Parcel};
use crate::module::images::{Images, Outcome, Want, unreadable};
use crate::module::respond::{Piece, Request};
use crate::route::node::{Node, Outgoing};
use crate::route::pending::Deliver;
use crate::wire::codec::{Reader, Writer};
use crate::wire::header::{Kind, Lane};
use crate::wire::message::Message;

/// One image on its way.
struct Fetch {
    images: Arc<Images>,
    node: Arc<Node>,
    parent: ContextId,
    want: Want,
    state: Mutex<State>,
}

struct State {
    /// None when it is over.
    arrived: Option<Growing>,
    /// Bytes that were asked for. Invariant: a multiple of the piece, or more than there are.
    asked: u64,
}

/// One piece of it.
struct Asked {
    fetch: Arc<Fetch>,
    at: u64,
}

/// Asks the parent for an image; `images` learn the outcome.
pub fn ask(images: &Arc<Images>, node: &Arc<Node>, turn: &mut Turn, want: Want) {
    let Some(&parent) = node.identity().parents.first() else {
        let failure = ConnectFailure::ViaGone(Death::of(Cause::NoRoute));
        return images.arrived(turn, &want, &Err(failure));
    };
    let state = Mutex::new(State { arrived: Some(Growing::new()), asked: IMAGE_PIECE_BYTES });
    let (images, node) = (images.clone(), node.clone());
    Arc::new(Fetch { images, node, parent, want, state }).ask(turn, 0);
}

impl Fetch {
    /// Asks for the piece that begins at this byte.
    fn ask(self: &Arc<Self>, turn: &mut Turn, at: u64) {
        let listener = Arc::new(Asked { fetch: self.clone(), at });
        let Ok(handle) = self.node.listen_for_answer(self.parent, listener) else {
            return self.fail(turn, ConnectFailure::Cancelled);
        };
        let (dst, auth) = (self.parent, self.node.id());
        let reply_to = Some(handle);
        let out = Outgoing { kind: Kind::Control, dst, auth, handle: Handle::GET_IMAGE, reply_to };
        let request = Request { want: self.want.clone(), at };
        if !self.node.tell(&out, Lane::Quick, &|w: &mut Writer<'_>| request.put(w)) {
            self.node.unlisten(handle);
            self.fail(turn, ConnectFailure::ViaGone(Death::of(Cause::NoRoute)));
        }
    }

    /// Takes a piece. Returns from where on more is to be asked for, while there is more.
    fn take(&self, at: u64, piece: &Piece<'_>) -> Result<Vec<u64>, ConnectFailure> {
        let mut state = self.state();
        let State { arrived, asked } = &mut *state;
        let Some(growing) = arrived else { return Ok(Vec::new()) };
        let there = piece.total.saturating_sub(at).min(IMAGE_PIECE_BYTES);
        if IMAGE_BYTES_MAX < piece.total {
            return Err(ConnectFailure::ImageUnusable("the image is too large".to_owned()));
        }
        if growing.len() != at || there != piece.bytes.len() as u64 {
            return Err(ConnectFailure::Protocol("a piece of an image that was not asked for"));
        }
        growing.add(piece.bytes).map_err(unreadable)?;
        let mut next = Vec::new();
        let ahead = growing.len() + IMAGE_PIECES_MAX * IMAGE_PIECE_BYTES;
        while *asked < piece.total.min(ahead) {
            next.push(*asked);
            *asked += IMAGE_PIECE_BYTES;
        }
        Ok(next)
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deliver for Asked {
    fn message(&self, turn: &mut Turn, message: Message) {
        let piece = match Piece::take(&mut Reader::new(&message.data, None)) {
            Ok(Ok(piece)) => piece,
            Ok(Err(failure)) => return self.fetch.fail(turn, failure),
            Err(malformed) => return self.fetch.fail(turn, ConnectFailure::Protocol(malformed.0)),
        };
        match self.fetch.take(self.at, &piece) {
            Ok(next) => next.into_iter().for_each(|at| self.fetch.ask(turn, at)),
            Err(failure) => return self.fetch.fail(turn, failure),
        }
        self.fetch.finish(turn, &piece);
    }

    fn dead(&self, turn: &mut Turn, _: ContextId, death: Death) {
        self.fetch.fail(turn, ConnectFailure::ViaGone(death));
    }
}
