//! What a context says of a message that gets nowhere: no wait for an answer, or for room, is left
//! without an end.

use std::sync::Arc;

use crate::error::{Cause, Death};
use crate::ids::{ContextId, Handle};
use crate::io::turn::Turn;
use crate::route::node::{Node, Outgoing, Payload};
use crate::route::pending::Rule;
use crate::route::send::room_of;
use crate::trace::Level;
use crate::wire::codec::{Encode, Writer};
use crate::wire::header::{Header, Kind, Lane, Part};
use crate::wire::message::Message;

/// A message that a context did not take.
pub struct Refusal {
    /// Why.
    pub rule: Rule,
    /// Who sent it, under whose authority, and to which handle.
    pub about: [u64; 3],
}

impl Refusal {
    pub(super) fn of(message: &Message, rule: Rule) -> Refusal {
        let (src, auth, handle) = (message.src.0, message.auth.0, message.handle.0);
        Refusal { rule, about: [src.into(), auth.into(), handle.into()] }
    }

    /// How much it matters, and what is logged.
    pub(super) fn words(&self) -> (Level, &'static str) {
        match self.rule {
            Rule::Unheard => (Level::Debug, "nothing listens there (source, authority, handle):"),
            Rule::Guess => {
                (Level::Warn, "refused: a handle never given out (source, authority, handle):")
            }
            Rule::Kind => {
                (Level::Warn, "refused: not the handle's kind (source, authority, handle):")
            }
            Rule::Source => {
                (Level::Warn, "refused: another was asked (source, authority, handle):")
            }
            Rule::Policy => {
                (Level::Warn, "refused by the handle's policy (source, authority, handle):")
            }
        }
    }

    /// Logs one of a message that came by no link.
    pub(super) fn log(&self, node: &Node) {
        let (level, what) = self.words();
        node.event(level, what, &self.about);
    }
}

impl Node {
    /// Tells a sender that there will be no room any more, and why.
    pub fn end_room(&self, dst: ContextId, handle: Handle, death: &Death) {
        let out = Outgoing { kind: Kind::Grant, dst, auth: self.id(), handle, reply_to: None };
        self.tell(&out, Lane::Quick, &|w| put_end_of_room(death, w));
    }

    /// Says that a message of a program's own was not taken, if its sender waits for an answer.
    pub fn decline(self: &Arc<Self>, message: &Message, cause: Cause) {
        let (node, refused) = (self.clone(), Message { data: Vec::new(), ..message.clone() });
        // An ended broker has ended every wait.
        let _ = self.broker().defer(move |turn| node.answer_refused(turn, &refused, cause));
    }

    /// Answers a message that nobody takes, if its sender waits for an answer.
    pub(super) fn refuse(&self, turn: &mut Turn, message: &Message, cause: Cause) {
        if message.kind == Kind::Data && message.src != self.id() {
            if cause == Cause::NoHandle && !message.handle.is_well_known() {
                // A Receiver that is not there is one that was closed.
                let why = Death::of(Cause::ReceiverClosed);
                self.end_room(message.src, message.handle, &why);
            } else {
                // This one is refused, and not what follows.
                self.grant(message.src, message.handle, room_of(&message.data));
            }
        }
        self.answer_refused(turn, message, cause);
    }

    fn answer_refused(&self, turn: &mut Turn, message: &Message, cause: Cause) {
        let death = Death::of(cause).at(self.id());
        let Some(handle) = message.reply_to else { return };
        if message.src == self.id() {
            let to = self.handles().remove(handle);
            if let Some(entry) = to {
                entry.to.dead(turn, self.id(), &death);
            }
            return;
        }
        let (dst, auth) = (message.src, self.id());
        let out = Outgoing { kind: Kind::Dead, dst, auth, handle, reply_to: None };
        self.tell(&out, Lane::Quick, &|w| death.encode(w));
    }

    /// Says, in the name of the unreachable destination, that a message did not get there.
    pub(super) fn answer_dead(&self, header: &Header, cause: Cause) {
        let death = Death::of(cause).at(header.dst).seen_by(self.id());
        if let Kind::Dead | Kind::Grant = header.kind {
            return;
        }
        if header.kind == Kind::Data || header.part != Part::Whole {
            let answer = answer_to(header, Kind::Grant, header.handle);
            self.tell_back(&answer, &|w| put_end_of_room(&death, w));
        }
        if let Some(handle) = header.reply_to {
            self.tell_back(&answer_to(header, Kind::Dead, handle), &|w| death.encode(w));
        }
    }

    fn tell_back(&self, answer: &Header, payload: Payload<'_>) {
        let way = self.table().way_to(answer.dst, None);
        if let Some(way) = way {
            self.tell_as(&way, answer, payload);
        }
    }
}

fn put_end_of_room(death: &Death, w: &mut Writer<'_>) {
    w.put_varint(0);
    death.encode(w);
}

/// The header of what is said, in the name of its destination, to who sent a message.
fn answer_to(header: &Header, kind: Kind, handle: Handle) -> Header {
    Header {
        kind,
        lane: Lane::Quick,
        part: Part::Whole,
        dst: header.src,
        src: header.dst,
        auth: header.dst,
        handle,
        reply_to: None,
    }
}
