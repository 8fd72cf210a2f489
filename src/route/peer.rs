//! The framed protocol of one link: frames in, verified, then delivered or forwarded as they are.

use std::sync::Arc;

use crate::error::{Cause, Death, Result};
use crate::ids::{ContextId, Handle};
use crate::io::outbox::Outbox;
use crate::io::side::Side;
use crate::io::turn::{Key, Protocol, Turn};
use crate::limits::{BAD_HANDLES_MAX, FRAGMENT_BYTES};
use crate::route::lease::Lease;
use crate::route::node::{Node, Way};
use crate::route::table::LinkId;
use crate::trace::{self, Level};
use crate::wire::codec::Malformed;
use crate::wire::fragment::{Assembler, Step};
use crate::wire::framer::{Framer, Received};
use crate::wire::header::{Header, Kind, Part};
use crate::wire::message::Message;

/// What watches over a link on behalf of those who made it.
pub trait Guardian: Send {
    /// The peer will send no more. The guardian closes the stream, now or when it knows why.
    fn ended(&mut self, turn: &mut Turn, key: Key);

    /// The link is gone.
    fn closed(&mut self, turn: &mut Turn, why: &Death);
}

/// One link's protocol.
pub struct Peer {
    node: Arc<Node>,
    link: LinkId,
    framer: Framer,
    assembler: Assembler,
    guardian: Box<dyn Guardian>,
    /// Received, and not yet granted back to whoever sends them.
    ungranted: Vec<(ContextId, Handle, usize)>,
    refused: u32,
}

/// Who is at the other end of a link.
pub enum End {
    /// The parent.
    Parent,
    /// A child, and the ids that it may give out.
    Child(ContextId, Lease),
}

impl Peer {
    /// Makes a link of a connected pair of sides that no loop watches yet.
    pub fn attach(
        node: &Arc<Node>,
        turn: &mut Turn,
        end: End,
        receive: Side,
        transmit: Side,
        guardian: Box<dyn Guardian>,
    ) -> Result<Key> {
        let outbox = Arc::new(Outbox::new(transmit));
        let key = turn.attach_silent(receive, Some(outbox.clone()))?;
        let peer = Peer::adopt(node, key, end, outbox, guardian);
        turn.replace(key, Box::new(peer));
        Ok(key)
    }

    /// Turns a stream that is attached already into a link. The caller installs the protocol.
    pub fn adopt(
        node: &Arc<Node>,
        key: Key,
        end: End,
        outbox: Arc<Outbox>,
        guardian: Box<dyn Guardian>,
    ) -> Peer {
        let way = Arc::new(Way { outbox, key });
        let link = match end {
            End::Parent => node.table().add_parent(way),
            End::Child(id, lease) => node.table().add_child(id, lease, way),
        };
        Peer {
            node: node.clone(),
            link,
            framer: Framer::new(),
            assembler: Assembler::new(),
            guardian,
            ungranted: Vec::new(),
            refused: 0,
        }
    }

    /// Whether nothing is half arrived.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        !self.framer.is_inside_frame()
            && self.assembler.open_len() == 0
            && self.ungranted.is_empty()
    }

    fn receive(&mut self, turn: &mut Turn, frame: &Received<'_>) -> Result<(), Malformed> {
        let header = &frame.header;
        if !self.is_verified(header) {
            let numbers = [u64::from(header.src.0), u64::from(header.auth.0)];
            trace::event(Level::Warn, "dropped a message with a forged source", &numbers);
            return self.count_refused(None);
        }
        if header.dst != self.node.id() {
            self.forward(header, frame.whole);
            return Ok(());
        }
        let bytes_max = self.node.identity().message_bytes_max;
        let step = self.assembler.push(header, frame.payload, bytes_max);
        if header.part == Part::Next {
            let done = !matches!(step, Ok(Step::Partial));
            self.grant(header, frame.payload.len(), done);
        }
        match step {
            Ok(Step::Whole(message)) => self.deliver(turn, message),
            Ok(Step::Partial | Step::Ignored) => Ok(()),
            Ok(Step::TooLarge { .. }) => {
                self.node.answer_dead(header, Cause::TooLarge);
                Ok(())
            }
            // Not the link's fault, if a context far behind it sends such a thing.
            Err(malformed) => {
                trace::text(Level::Warn, "dropped a fragment", &[header.src.0.into()], malformed.0);
                self.count_refused(Some(header.src))
            }
        }
    }

    fn is_verified(&self, header: &Header) -> bool {
        let table = self.node.table();
        table.may_speak_for(self.link, header.src)
            && (header.auth == header.src || table.may_speak_for(self.link, header.auth))
    }

    fn forward(&self, header: &Header, whole: &[u8]) {
        let way = {
            let mut table = self.node.table();
            if let Part::First(_) = header.part {
                table.awaits(header.dst, header.src);
            }
            table.way_to(header.dst, Some(self.link))
        };
        let pushed = match way {
            Some(way) => self.node.push(&way, header, whole),
            None => Err(Cause::NoRoute),
        };
        if let (Err(cause), true) = (pushed, header.part != Part::Next) {
            self.node.answer_dead(header, cause);
        }
    }

    fn deliver(&mut self, turn: &mut Turn, message: Message) -> Result<(), Malformed> {
        match (message.kind, message.handle) {
            (Kind::Grant, _) => {
                if self.node.granted(&message).is_err() {
                    return self.count_refused(Some(message.src));
                }
                Ok(())
            }
            (Kind::Control, Handle::ADD_ROUTE) => self.node.route_added(self.link, &message),
            (Kind::Control, Handle::DEL_ROUTE) => {
                let gone = self.node.route_deleted(turn, self.link, &message)?;
                self.assembler.drop_from(gone);
                self.ungranted.retain(|(src, ..)| *src != gone);
                Ok(())
            }
            (Kind::Control, Handle::ALLOCATE_ID) => self.node.ids_wanted(turn, self.link, &message),
            _ => {
                self.node.deliver(turn, message);
                Ok(())
            }
        }
    }

    /// Gives back the room of a fragment, several at a time.
    fn grant(&mut self, header: &Header, bytes: usize, done: bool) {
        let place = (header.src, header.handle);
        let at = self.ungranted.iter().position(|(src, handle, _)| (*src, *handle) == place);
        let at = at.unwrap_or_else(|| {
            self.ungranted.push((place.0, place.1, 0));
            self.ungranted.len() - 1
        });
        self.ungranted[at].2 += bytes;
        if done || FRAGMENT_BYTES <= self.ungranted[at].2 {
            let (src, handle, bytes) = self.ungranted.swap_remove(at);
            self.node.grant(src, handle, bytes);
        }
    }

    /// A child that is refused again and again is cut off: for what itself sent, or for what it
    /// should have refused. What comes from behind it is not its fault.
    fn count_refused(&mut self, src: Option<ContextId>) -> Result<(), Malformed> {
        let child = self.node.table().child_of(self.link);
        if child.is_none() || src.is_some_and(|src| child != Some(src)) {
            return Ok(());
        }
        self.refused += 1;
        if BAD_HANDLES_MAX < self.refused {
            return Err(Malformed("sends what is refused, again and again"));
        }
        Ok(())
    }
}

impl Protocol for Peer {
    fn input(&mut self, turn: &mut Turn, _: Key, bytes: &[u8]) -> Result<(), Malformed> {
        // Lent out for the loop, since receiving needs the rest of us.
        let mut framer = std::mem::take(&mut self.framer);
        let mut frames = framer.feed(bytes);
        while let Some(frame) = frames.next() {
            self.receive(turn, &frame?)?;
        }
        self.framer = framer;
        Ok(())
    }

    fn ended(&mut self, turn: &mut Turn, key: Key) {
        self.guardian.ended(turn, key);
    }

    fn closed(&mut self, turn: &mut Turn, why: &Death) {
        let lost = self.node.table().remove_link(self.link);
        if let Some(lost) = lost {
            self.node.lose(turn, lost, why);
        }
        self.guardian.closed(turn, why);
    }
}
