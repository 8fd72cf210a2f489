//! The framed protocol of one link: frames in, verified, then delivered or forwarded as they are.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Cause, Death, Result};
use crate::ids::{ContextId, Handle};
use crate::io::census::Role;
use crate::io::counters::Count;
use crate::io::outbox::Outbox;
use crate::io::side::Side;
use crate::io::turn::{Key, Protocol, Turn};
use crate::limits::{ANNOUNCED_BYTES_MAX, BAD_HANDLES_MAX, LOGGED_REFUSALS_MAX};
use crate::route::heartbeat::{Heartbeat, Pulse};
use crate::route::lease::Lease;
use crate::route::node::{Node, Way};
use crate::route::pending::Rule;
use crate::route::refusal::Refusal;
use crate::route::send::trace_frame;
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

    /// The peer, a child, has logged or printed something: encoded records of its own, as it says.
    fn printed(&mut self, _records: &[u8]) {}

    /// There is room for what is logged and printed here.
    fn takes_logs(&mut self, _: &mut Turn) {}

    /// The peer, a child, leaves the tree. Returns whether it may; then its process is left alone,
    /// and the link is closed when it is `done`.
    fn detaches(&mut self, _: &mut Turn, _done: bool) -> bool {
        false
    }
}

/// One link's protocol.
pub struct Peer {
    node: Arc<Node>,
    key: Key,
    link: LinkId,
    framer: Framer,
    assembler: Assembler,
    /// What it had granted when that was last noted.
    ahead: usize,
    guardian: Box<dyn Guardian>,
    pulse: Pulse,
    /// Who is at the other end; none is the parent.
    child: Option<ContextId>,
    /// Messages that nobody sends who keeps to the rules.
    faults: u32,
    logged: u32,
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
    ///
    /// # Errors
    /// As [`Turn::attach`]; [`ErrorKind::Closed`](crate::error::ErrorKind) if the node is closed.
    pub fn attach(
        node: &Arc<Node>,
        turn: &mut Turn,
        end: End,
        receive: Side,
        transmit: Side,
        guardian: Box<dyn Guardian>,
    ) -> Result<Key> {
        let outbox = Arc::new(Outbox::new(transmit));
        node.forbid_closed()?;
        let key = turn.attach_silent(node.tenant(), receive, Some(outbox.clone()))?;
        let heartbeat = match end {
            End::Parent => node.identity().heartbeat,
            End::Child(..) => Heartbeat::default(),
        };
        let mut peer = Peer::adopt(node, key, end, outbox, guardian);
        peer.keep_alive(turn, key, heartbeat);
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
        let way = Arc::new(Way { outbox, key, up: matches!(end, End::Parent) });
        let (link, child) = match end {
            End::Parent => (node.table().add_parent(way), None),
            End::Child(id, lease) => (node.table().add_child(id, lease, way), Some(id)),
        };
        Peer {
            node: node.clone(),
            key,
            link,
            framer: Framer::new(),
            assembler: Assembler::new(),
            ahead: 0,
            guardian,
            pulse: Pulse::default(),
            child,
            faults: 0,
            logged: 0,
        }
    }

    /// Has this end say that it is there, and notice when the other does no more.
    pub fn keep_alive(&mut self, turn: &mut Turn, key: Key, heartbeat: Heartbeat) {
        self.pulse.start(turn, key, heartbeat);
    }

    /// Whether nothing is half arrived.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        !self.framer.is_inside_frame() && self.assembler.is_idle() && self.ahead == 0
    }

    fn receive(&mut self, turn: &mut Turn, frame: &Received<'_>) -> Result<(), Malformed> {
        let header = &frame.header;
        turn.counting.add(Count::FramesReceived, 1);
        trace_frame("frame in (kind, source, destination, handle, bytes):", header, frame.whole);
        if !self.is_verified(header) {
            let about = [header.src.0.into(), header.auth.0.into(), header.dst.0.into()];
            const WHAT: &str = "refused: a forged source (source, authority, destination):";
            self.log(Level::Warn, WHAT, &about, "");
            return self.fault(None);
        }
        let is_log = (header.kind, header.handle) == (Kind::Data, Handle::FORWARD_LOG);
        if is_log && self.child == Some(header.src) {
            self.guardian.printed(frame.payload);
        }
        if header.dst != self.node.id() {
            let passed = self.forward(header, frame.whole);
            turn.counting.add(Count::FramesForwarded, usize::from(passed));
            return Ok(());
        }
        let mut bytes_max = self.node.identity().message_bytes_max;
        if let Part::First(_) = header.part {
            let (head, bytes) = (Message::new(header, Vec::new()), frame.payload.len());
            if let Err(refusal) = self.node.admit(turn, &head, bytes) {
                self.refused(header.src, &refusal)?;
                bytes_max = 0;
            }
        }
        let step = self.assembler.push(header, frame.payload, bytes_max);
        if header.part != Part::Whole {
            self.make_room(header, frame.payload.len(), matches!(step, Ok(Step::Whole(_))));
        }
        match step {
            Ok(Step::Whole(message)) => self.deliver(turn, message),
            Ok(Step::Partial | Step::Ignored) => Ok(()),
            Ok(Step::TooLarge { .. }) if bytes_max == 0 => Ok(()),
            Ok(Step::TooLarge { total }) => {
                let about = [header.src.0.into(), header.handle.0.into(), total];
                const WHAT: &str = "refused: too large (source, handle, bytes):";
                self.log(Level::Warn, WHAT, &about, "");
                self.node.answer_dead(header, Cause::TooLarge);
                Ok(())
            }
            Err(malformed) => self.malformed(header.src, malformed),
        }
    }

    /// Grants what may follow of a message of several parts, or tells that all of it is there.
    fn make_room(&mut self, header: &Header, bytes: usize, is_whole: bool) {
        self.count_ahead();
        let bytes = match (header.kind, header.part) {
            (Kind::Data, Part::Next) => Some(bytes),
            (Kind::Data, _) => None,
            (Kind::Reply | Kind::Dead, _) if is_whole => None,
            _ if is_whole => Some(0),
            _ => {
                // Own ones count twice: what is left is as much as this link has.
                let taken = self.node.ahead.load(Ordering::Relaxed) + self.ahead;
                let spare = ANNOUNCED_BYTES_MAX.saturating_sub(taken as u64);
                Some(self.assembler.grant(header, spare) as usize).filter(|bytes| 0 < *bytes)
            }
        };
        self.count_ahead();
        if let Some(bytes) = bytes {
            self.node.grant(header.src, header.handle, bytes);
        }
    }

    /// Notes what this link was granted by now.
    fn count_ahead(&mut self) {
        let before = std::mem::replace(&mut self.ahead, self.assembler.ahead() as usize);
        // Only who has the turn changes it.
        let all = self.node.ahead.load(Ordering::Relaxed) - before + self.ahead;
        self.node.ahead.store(all, Ordering::Relaxed);
    }

    /// Nothing more comes.
    fn forget_unfinished(&mut self) {
        self.assembler = Assembler::new();
        self.count_ahead();
    }

    fn is_verified(&self, header: &Header) -> bool {
        let table = self.node.table();
        table.may_speak_for(self.link, header.src)
            && (header.auth == header.src || table.may_speak_for(self.link, header.auth))
    }

    /// Returns whether it could.
    fn forward(&mut self, header: &Header, whole: &[u8]) -> bool {
        let Err(cause) = self.try_forward(header, whole) else { return true };
        if header.part != Part::Next {
            let about = [header.src.0.into(), header.dst.0.into()];
            let (level, what) = match cause {
                Cause::Unidirectional => {
                    (Level::Error, "refused: this context is unidirectional (source, destination):")
                }
                _ => (Level::Debug, "a message cannot be forwarded (source, destination):"),
            };
            self.log(level, what, &about, "");
            self.node.answer_dead(header, cause);
        }
        false
    }

    fn try_forward(&self, header: &Header, whole: &[u8]) -> Result<(), Cause> {
        let from_child = self.child.is_some();
        if !self.node.identity().lets_pass(from_child, header.src, header.dst) {
            // Who is gone is gone for everybody; so is who should be found where this comes from,
            // though that may still have to be told.
            let table = self.node.table();
            let is_gone = table.is_gone(header.dst)
                || from_child && table.may_speak_for(self.link, header.dst);
            return Err(if is_gone { Cause::NoRoute } else { Cause::Unidirectional });
        }
        let way = {
            let mut table = self.node.table();
            if let Part::First(_) = header.part {
                table.awaits(header.dst, header.src);
            }
            table.way_to(header.dst, Some(self.link))
        };
        self.node.forward(&*way.ok_or(Cause::NoRoute)?, self.key, header, whole)
    }

    fn deliver(&mut self, turn: &mut Turn, message: Message) -> Result<(), Malformed> {
        let is_for_neighbours = matches!(
            message.handle,
            Handle::ADD_ROUTE | Handle::DEL_ROUTE | Handle::ALLOCATE_ID | Handle::DETACH
        );
        if message.kind == Kind::Control && is_for_neighbours && !self.is_neighbours(&message) {
            // Whoever is behind the link, or beyond us, can send this; the link goes on.
            let about = [message.src.0.into(), message.auth.0.into(), message.handle.0.into()];
            const WHAT: &str = "refused: no neighbour's word (source, authority, handle):";
            self.log(Level::Warn, WHAT, &about, "");
            self.node.refuse(turn, &message, Cause::Refused);
            return self.fault(Some(message.src));
        }
        match (message.kind, message.handle) {
            (Kind::Grant, _) => match self.node.granted(&message) {
                Ok(()) if message.handle == Handle::FORWARD_LOG => {
                    self.guardian.takes_logs(turn);
                    Ok(())
                }
                Ok(()) => Ok(()),
                Err(malformed) => self.malformed(message.src, malformed),
            },
            (Kind::Control, Handle::ADD_ROUTE) => self.node.route_added(self.link, &message),
            (Kind::Control, Handle::DEL_ROUTE) => {
                let gone = self.node.route_deleted(turn, self.link, &message)?;
                self.assembler.drop_from(gone);
                self.count_ahead();
                Ok(())
            }
            // That it came was heard.
            (Kind::Control, Handle::BEAT) => Ok(()),
            (Kind::Control, Handle::DETACH) => {
                let may = self.guardian.detaches(turn, message.reply_to.is_none());
                self.node.answer_leaver(&message, may);
                Ok(())
            }
            (Kind::Control, Handle::ALLOCATE_ID) => self.node.ids_wanted(turn, self.link, &message),
            _ => {
                let src = message.src;
                let Err(refusal) = self.node.deliver(turn, message) else { return Ok(()) };
                self.refused(src, &refusal)
            }
        }
    }

    fn refused(&mut self, src: ContextId, refusal: &Refusal) -> Result<(), Malformed> {
        let (level, what) = refusal.words();
        self.log(level, what, &refusal.about, "");
        if refusal.rule == Rule::Guess { self.fault(Some(src)) } else { Ok(()) }
    }

    /// Whether a neighbour says this, in its own name, that may: a child, or of an end the parent.
    fn is_neighbours(&self, message: &Message) -> bool {
        let parent = self.node.identity().parents.first().copied();
        let parent = parent.filter(|_| message.handle == Handle::DEL_ROUTE);
        self.child.or(parent) == Some(message.src) && message.auth == message.src
    }

    fn malformed(&mut self, src: ContextId, why: Malformed) -> Result<(), Malformed> {
        self.log(Level::Warn, "refused: malformed (source):", &[src.0.into()], why.0);
        self.fault(Some(src))
    }

    /// A child is cut off for too many faults: its own, or such as it should have refused. What
    /// comes from behind it is not its fault.
    fn fault(&mut self, src: Option<ContextId>) -> Result<(), Malformed> {
        if self.child.is_none() || src.is_some_and(|src| self.child != Some(src)) {
            return Ok(());
        }
        self.faults += 1;
        if BAD_HANDLES_MAX < self.faults {
            return Err(Malformed("sends what is refused, again and again"));
        }
        Ok(())
    }

    fn log(&mut self, level: Level, what: &'static str, about: &[u64], text: &str) {
        if !trace::wanted(level) || LOGGED_REFUSALS_MAX < self.logged {
            return;
        }
        self.logged += 1;
        if self.logged <= LOGGED_REFUSALS_MAX {
            return self.node.text(level, what, about, text);
        }
        let neighbour = self.child.or(self.node.identity().parents.first().copied());
        let about: Vec<u64> = neighbour.into_iter().map(|id| id.0.into()).collect();
        self.node.event(
            level,
            "what else is refused by this link is not logged (neighbour):",
            &about,
        );
    }
}

impl Protocol for Peer {
    fn input(&mut self, turn: &mut Turn, _: Key, bytes: &[u8]) -> Result<(), Malformed> {
        self.pulse.hear();
        // Lent out for the loop, since receiving needs the rest of us.
        let mut framer = std::mem::take(&mut self.framer);
        let mut frames = framer.feed(bytes);
        while let Some(frame) = frames.next() {
            if let Err(broken) = frame.and_then(|frame| self.receive(turn, &frame)) {
                let child = self.child.map_or(0, |id| id.0.into());
                self.node.text(
                    Level::Warn,
                    "cut off, for what it sends (child):",
                    &[child],
                    broken.0,
                );
                return Err(broken);
            }
        }
        self.framer = framer;
        Ok(())
    }

    fn ended(&mut self, turn: &mut Turn, key: Key) {
        self.pulse.stop();
        self.guardian.ended(turn, key);
    }

    fn reminded(&mut self, turn: &mut Turn, key: Key) {
        if let Some(neighbour) = self.child.or(self.node.identity().parents.first().copied()) {
            self.pulse.beat(&self.node, turn, key, neighbour);
        }
    }

    fn closed(&mut self, turn: &mut Turn, why: &Death) {
        self.forget_unfinished();
        let lost = self.node.table().remove_link(self.link);
        if let Some(lost) = lost {
            self.node.lose(turn, lost, why);
        }
        self.guardian.closed(turn, why);
    }

    fn role(&self) -> Role {
        self.child.map_or(Role::PARENT, Role::child)
    }
}

/// It may have given way to another protocol, and was not closed then.
impl Drop for Peer {
    fn drop(&mut self) {
        self.forget_unfinished();
    }
}
