//! Announced messages in the simulated tree: what a thread would wait for in the middle of one,
//! they wait for here.

use super::node::Outgoing;
use super::sim::{Place, World};
use crate::error::Result;
use crate::limits::FRAGMENT_BYTES;
use crate::wire::header::Kind;

/// One that has begun.
pub struct Parcel {
    from: Place,
    out: Outgoing,
    payload: Vec<u8>,
    /// The byte from which on it is still to be sent.
    sent: usize,
}

impl World {
    /// Begins an announced message, as [`Node::send`] does.
    pub fn begin(&mut self, from: Place, out: &Outgoing, payload: &[u8]) -> Result<()> {
        let node = self.contexts[from].node.clone();
        node.credit.begin((out.dst, out.handle), true, None)?;
        if let Err(error) = node.transmit_part(out, payload, 0, None) {
            node.credit.end((out.dst, out.handle), false);
            return Err(error);
        }
        let (out, payload, sent) = (*out, payload.to_vec(), FRAGMENT_BYTES);
        self.parcels.push(Parcel { from, out, payload, sent });
        Ok(())
    }

    /// Has each announced message go on as far as it may.
    pub fn go_on(&mut self) {
        for at in (0..self.parcels.len()).rev() {
            let from = self.parcels[at].from;
            if !self.goes_on(at) {
                self.parcels.swap_remove(at);
            }
            self.turn.run_deferred();
            self.list(from);
        }
    }

    /// Returns whether it is not over.
    fn goes_on(&mut self, at: usize) -> bool {
        let Parcel { from, out, payload, sent } = &mut self.parcels[at];
        let (from, out, target) = (*from, *out, (out.dst, out.handle));
        let node = self.contexts[from].node.clone();
        while *sent < payload.len() {
            let bytes = FRAGMENT_BYTES.min(payload.len() - *sent);
            if self.contexts[from].alive && !node.credit.is_ready(target, Some(bytes)) {
                return true;
            }
            let went = node.credit.take(target, bytes, true, None);
            if went.and_then(|()| node.transmit_part(&out, payload, *sent, None)).is_err() {
                break;
            }
            *sent += bytes;
        }
        node.credit.end(target, *sent == payload.len() && out.kind == Kind::Call);
        false
    }
}
