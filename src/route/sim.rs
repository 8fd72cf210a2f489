//! A tree of contexts in memory, for tests: real nodes and peers, joined by bytes that move only
//! when, and as far as, the test says. No thread, no loop, and one descriptor, which takes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::identity::Identity;
use super::lease::Pool;
use super::node::{Node, Outgoing, Way};
use super::peer::{End, Guardian, Peer};
use super::pending::Deliver;
use super::sim_parcels::Parcel;
use super::terms::Terms;
use crate::error::{Cause, Death, Result};
use crate::ids::{ContextId, Handle};
use crate::io::broker::Broker;
use crate::io::outbox::Outbox;
use crate::io::side::Side;
use crate::io::turn::{Key, Protocol, Turn};
use crate::limits::{FRAGMENT_BYTES, OUTBOX_HIGH_WATER_BYTES};
use crate::sys::pipe::socketpair;
use crate::wire::frame::FrameBuf;
use crate::wire::framer::Framer;
use crate::wire::header::{Header, Kind, Part};
use crate::wire::message::Message;

/// A context of the tree, by the order of birth; the root is 0.
pub type Place = usize;
/// One direction of a link: down to the child of an even one's link, up from it on the next.
pub type Wire = usize;

/// What a context was told, in the order of the telling.
pub enum News {
    /// A message for whoever `at` names has arrived.
    Message(Place, At, Message),
    /// In place of one: why there is none.
    Dead(Place, At, Death),
    /// A context is gone, as one that listens for data was told.
    Lost(Place, At, ContextId, Death),
    /// An id for a new child.
    Id(Place, Result<ContextId, Death>),
    /// The link to its parent has ended.
    Orphaned(Place, Death),
}

/// What listens: one of the two handles for requests, or the number of a request or a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Open,
    Guarded,
    Request(usize),
    Stream(usize),
}

type Mail = Arc<Mutex<Vec<News>>>;

/// Puts what arrives into the mail.
struct Listener {
    place: Place,
    at: At,
    mail: Mail,
}

impl Deliver for Listener {
    fn message(&self, _: &mut Turn, message: Message) {
        self.mail.lock().unwrap().push(News::Message(self.place, self.at, message));
    }

    fn dead(&self, _: &mut Turn, _: ContextId, death: &Death) {
        self.mail.lock().unwrap().push(News::Dead(self.place, self.at, death.clone()));
    }

    fn lost(&self, _: &mut Turn, id: ContextId, death: &Death) {
        self.mail.lock().unwrap().push(News::Lost(self.place, self.at, id, death.clone()));
    }
}

/// Tells of the end of the link to the parent.
struct Watch(Place, bool, Mail);

impl Guardian for Watch {
    fn ended(&mut self, _: &mut Turn, _: Key) {}

    fn closed(&mut self, _: &mut Turn, why: &Death) {
        let Watch(place, is_parent, mail) = self;
        if *is_parent {
            mail.lock().unwrap().push(News::Orphaned(*place, why.clone()));
        }
    }
}

/// One context.
pub struct Context {
    pub node: Arc<Node>,
    pub id: ContextId,
    /// Its ancestors, the root first, and itself.
    pub path: Vec<Place>,
    /// Whether it still does anything. Nothing comes back to life.
    pub alive: bool,
    /// The link to its parent is whole; of the root, always.
    pub linked: bool,
    /// The directions that lead away from it.
    pub out: Vec<Wire>,
}

/// One direction of a link.
struct Line {
    from: Place,
    to: Place,
    outbox: Arc<Outbox>,
    /// Under way.
    bytes: Vec<u8>,
    /// Nothing is added to the bytes any more.
    cut: bool,
    /// At the end `to`; gone when its stream is closed.
    peer: Option<Peer>,
    /// Sees what `peer` gets.
    tap: Framer,
    listed: bool,
}

/// The tree, and what moves in it.
pub struct World {
    pub(super) turn: Turn,
    broker: Broker,
    pub contexts: Vec<Context>,
    pub by_id: BTreeMap<ContextId, Place>,
    lines: Vec<Line>,
    /// Directions that may have something to do, each once.
    busy: Vec<Wire>,
    mail: Mail,
    /// Messages of several fragments that wait for grants.
    pub(super) parcels: Vec<Parcel>,
    /// Handles at which an answer has arrived.
    answered: BTreeSet<(ContextId, Handle)>,
}

/// A side that takes no byte, so that all stays in its outbox.
fn full() -> Side {
    static FULL: OnceLock<[Side; 2]> = OnceLock::new();
    let sides = FULL.get_or_init(|| {
        let (full, other) = socketpair().unwrap();
        let full = Side::new(full);
        while full.write(&[0; 1 << 16]) != Some(0) {}
        [full, Side::new(other)]
    });
    sides[0].clone()
}

impl World {
    /// The root alone; whether it keeps those below it apart.
    pub fn new(unidirectional: bool) -> World {
        let (broker, turn) = Broker::by_hand();
        let mut world = World {
            turn,
            broker,
            contexts: Vec::new(),
            by_id: BTreeMap::new(),
            lines: Vec::new(),
            busy: Vec::new(),
            mail: Mail::default(),
            parcels: Vec::new(),
            answered: BTreeSet::new(),
        };
        let message_bytes_max = 1 << 20;
        let root = Identity { message_bytes_max, unidirectional, ..Identity::of_master() };
        world.add(root, Pool::of_master(), Vec::new());
        world
    }

    fn add(&mut self, identity: Identity, pool: Pool, mut path: Vec<Place>) -> Place {
        let (place, id) = (self.contexts.len(), identity.id);
        let node = Node::new(identity, pool, self.broker.clone());
        path.push(place);
        assert_eq!(self.by_id.insert(id, place), None, "an id was given twice");
        let (alive, linked, out) = (true, true, Vec::new());
        self.contexts.push(Context { node, id, path, alive, linked, out });
        place
    }

    /// Who is to be told.
    pub fn listener(&self, place: Place, at: At) -> Arc<dyn Deliver> {
        Arc::new(Listener { place, at, mail: self.mail.clone() })
    }

    /// Asks for an id for a new child; it is [`News::Id`].
    pub fn want_id(&mut self, parent: Place) {
        let (node, mail) = (self.contexts[parent].node.clone(), self.mail.clone());
        let take = move |_: &mut Turn, id| mail.lock().unwrap().push(News::Id(parent, id));
        node.take_id(&mut self.turn, Box::new(take));
        self.stir(parent);
    }

    /// A child with this id is up, and announced.
    pub fn birth(&mut self, parent: Place, id: ContextId) -> Place {
        let node = self.contexts[parent].node.clone();
        let identity = node.identity().of_child(id, String::new(), &Terms::default());
        let lease = node.lease_for_child();
        let mut pool = Pool::default();
        pool.add(lease);
        let child = self.add(identity, pool, self.contexts[parent].path.clone());
        let down = Arc::new(Outbox::new(full()));
        let up = Arc::new(Outbox::new(full()));
        let at_child = self.peer(child, End::Parent, &up);
        let at_parent = self.peer(parent, End::Child(id, lease), &down);
        self.line(parent, child, down, at_child);
        self.line(child, parent, up, at_parent);
        node.announce(id);
        self.stir(parent);
        child
    }

    fn peer(&self, place: Place, end: End, outbox: &Arc<Outbox>) -> Peer {
        let is_parent = matches!(end, End::Parent);
        let guardian = Box::new(Watch(place, is_parent, self.mail.clone()));
        let node = &self.contexts[place].node;
        Peer::adopt(node, Key::of_none(), end, outbox.clone(), guardian)
    }

    fn line(&mut self, from: Place, to: Place, outbox: Arc<Outbox>, peer: Peer) {
        self.contexts[from].out.push(self.lines.len());
        let (bytes, tap, peer) = (Vec::new(), Framer::new(), Some(peer));
        self.lines.push(Line { from, to, outbox, bytes, cut: false, peer, tap, listed: false });
    }

    /// What was told since the last look.
    pub fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut *self.mail())
    }

    fn mail(&self) -> MutexGuard<'_, Vec<News>> {
        self.mail.lock().unwrap()
    }

    /// Does what a context has deferred, and lists the directions that have something to do now.
    pub fn stir(&mut self, place: Place) {
        self.turn.run_deferred();
        self.list(place);
        self.go_on();
    }

    pub(super) fn list(&mut self, place: Place) {
        for wire in &self.contexts[place].out {
            let line = &mut self.lines[*wire];
            if !line.listed && 0 < line.outbox.queued() {
                line.listed = true;
                self.busy.push(*wire);
            }
        }
    }

    /// Directions that have something to do, if there are any. Some may have nothing.
    pub fn busy(&self) -> &[Wire] {
        &self.busy
    }

    /// Whether nobody notices what a busy direction does.
    pub fn is_moot(&self, at: usize) -> bool {
        let line = &self.lines[self.busy[at]];
        line.cut && line.peer.is_none() || !self.contexts[line.to].alive
    }

    /// Has a direction that is busy write and deliver: of one frame at most, so many bytes at most.
    pub fn advance(&mut self, at: usize, write_max: usize, read_max: usize) {
        let wire = self.busy[at];
        let line = &mut self.lines[wire];
        if !line.cut {
            let written = line.outbox.take(write_max);
            line.bytes.extend_from_slice(&written);
        }
        let rest = line.bytes.split_off(line.bytes.len().min(read_max));
        let bytes = std::mem::replace(&mut line.bytes, rest);
        if !bytes.is_empty() {
            self.deliver(wire, &bytes);
        } else if line.cut {
            self.close(wire, &Death::of(Cause::Disconnected));
        }
        let line = &mut self.lines[wire];
        let over = line.cut && line.peer.is_none();
        if over || !line.cut && line.bytes.is_empty() && line.outbox.queued() == 0 {
            line.listed = false;
            // Others may have been added, none taken.
            assert_eq!(self.busy[at], wire);
            self.busy.swap_remove(at);
        }
    }

    fn deliver(&mut self, wire: Wire, bytes: &[u8]) {
        let (from, to) = (self.lines[wire].from, self.lines[wire].to);
        let Some(mut peer) = self.lines[wire].peer.take() else { return };
        let mut tap = std::mem::take(&mut self.lines[wire].tap);
        let mut frames = tap.feed(bytes);
        while let Some(frame) = frames.next() {
            let header = frame.unwrap().header;
            self.is_on_its_way(from, to, &header);
            let answers = matches!(header.kind, Kind::Reply | Kind::Dead);
            if answers && header.part != Part::Next && header.dst == self.contexts[to].id {
                let first = self.answered.insert((header.dst, header.handle));
                assert!(first, "a second answer: {header:?}");
            }
        }
        peer.input(&mut self.turn, Key::of_none(), bytes).unwrap();
        let line = &mut self.lines[wire];
        (line.tap, line.peer) = (tap, Some(peer));
        self.stir(to);
    }

    /// Each hop is the next one to the destination; only what is for somebody who is gone may go
    /// up instead, where that is known.
    fn is_on_its_way(&self, from: Place, to: Place, header: &Header) {
        let Some(&dst) = self.by_id.get(&header.dst) else { return };
        let next = self.next_hop(from, dst);
        let up = !self.reaches(from, dst) && self.is_above(to, from);
        assert!(next == Some(to) || up, "{header:?} goes from {from} to {to}, not {next:?}");
    }

    /// The neighbour that leads to another context.
    pub fn next_hop(&self, from: Place, to: Place) -> Option<Place> {
        let (here, there) = (&self.contexts[from].path, &self.contexts[to].path);
        match from == to {
            true => None,
            false if self.is_above(from, to) => Some(there[here.len()]),
            false => Some(here[here.len() - 2]),
        }
    }

    /// Whether a context is another's ancestor.
    pub fn is_above(&self, above: Place, below: Place) -> bool {
        above != below
            && self.contexts[below].path.get(self.contexts[above].path.len() - 1) == Some(&above)
    }

    /// Whether one of two is the other's ancestor.
    pub fn are_in_line(&self, a: Place, b: Place) -> bool {
        self.is_above(a, b) || self.is_above(b, a)
    }

    /// The nearest context that two have above them, or one of them.
    pub fn meeting(&self, a: Place, b: Place) -> Place {
        let (a, b) = (&self.contexts[a].path, &self.contexts[b].path);
        a.iter().zip(b).take_while(|(a, b)| a == b).last().map_or(0, |(place, _)| *place)
    }

    /// Whether both live, and all that is between them is whole.
    pub fn reaches(&self, a: Place, b: Place) -> bool {
        let meeting = self.contexts[self.meeting(a, b)].path.len();
        let whole = |place: &Place| self.contexts[*place].linked && self.contexts[*place].alive;
        let sides = [a, b].map(|side| self.contexts[side].path[meeting..].iter().all(whole));
        sides == [true, true] && self.contexts[self.meeting(a, b)].alive
    }

    /// Whether `a` could know `b` by now: where their ways meet, it is known.
    pub fn may_know(&self, a: Place, b: Place) -> bool {
        let meeting = self.meeting(a, b);
        meeting == b || self.contexts[meeting].node.below().contains(&self.contexts[b].id)
    }

    /// Cuts the link of a context to its parent. So many of the bytes under way are still read at
    /// each end; further ones are lost, or whoever sends them is told.
    pub fn cut(&mut self, child: Place, arrive: [usize; 2], told: bool) {
        let Some(down) = self.link_of(child) else { return };
        self.contexts[child].linked = false;
        for (wire, arrive) in [down, down + 1].into_iter().zip(arrive) {
            self.lines[wire].bytes.truncate(arrive);
            self.sever(wire, told);
        }
    }

    /// A context ends, as a process that is killed: what it has written still arrives, if the other
    /// end looks.
    pub fn kill(&mut self, place: Place, told: bool) {
        let out = self.contexts[place].out.clone();
        for wire in out {
            self.lines[wire].outbox.close();
            self.sever(wire, told);
            // What others still write to it goes nowhere.
            let back = wire ^ 1;
            self.lines[back].bytes.clear();
            self.lines[back].peer = None;
            self.sever(back, told);
        }
        self.end(place, &Death::of(Cause::Shutdown));
    }

    /// A context that finds its parent gone ends in good order.
    pub fn orphan(&mut self, place: Place, why: &Death) {
        if !self.contexts[place].alive {
            return;
        }
        self.end(place, why);
        for wire in self.contexts[place].out.clone() {
            self.lines[wire].outbox.close();
            self.sever(wire, true);
            self.close(wire ^ 1, &Death::of(Cause::Shutdown));
        }
    }

    fn end(&mut self, place: Place, why: &Death) {
        self.contexts[place].alive = false;
        let node = self.contexts[place].node.clone();
        node.close(&mut self.turn, why);
        self.stir(place);
    }

    /// Nothing is written to a direction any more; its end is read when all before is.
    fn sever(&mut self, wire: Wire, told: bool) {
        let line = &mut self.lines[wire];
        line.cut = true;
        if told {
            line.outbox.close();
        }
        if !line.listed {
            line.listed = true;
            self.busy.push(wire);
        }
    }

    /// The stream that reads this direction is closed: as the loop does it.
    fn close(&mut self, wire: Wire, why: &Death) {
        let (to, back) = (self.lines[wire].to, wire ^ 1);
        self.lines[back].outbox.close();
        let Some(mut peer) = self.lines[wire].peer.take() else { return };
        self.sever(back, true);
        peer.closed(&mut self.turn, why);
        self.lines[wire].bytes.clear();
        self.lines[wire].cut = true;
        self.stir(to);
    }

    fn link_of(&self, child: Place) -> Option<Wire> {
        // Its first way out is the one up.
        let up = *self.contexts[child].out.first()?;
        (0 < child).then_some(up ^ 1)
    }

    /// Sends as a user's thread would that never has to sleep. `None` if it would have to.
    pub fn send(&mut self, from: Place, out: &Outgoing, payload: &[u8]) -> Option<Result<()>> {
        let node = self.contexts[from].node.clone();
        let way = node.table().way_to(out.dst, None);
        let target = (out.dst, out.handle);
        let bytes = payload.len() + 64 * (1 + usize::from(out.kind == Kind::Data));
        let full = |way: &Arc<Way>| OUTBOX_HIGH_WATER_BYTES < way.outbox.queued() + bytes;
        let is_parcel = FRAGMENT_BYTES < payload.len() && out.kind != Kind::Data;
        if way.is_some_and(|way| full(&way))
            || !node.credit.has_room(target, bytes)
            || is_parcel && !node.credit.is_ready(target, None)
        {
            return None;
        }
        let sent = match is_parcel && out.dst != node.id() {
            true => self.begin(from, out, payload),
            false => node.send(out, FrameBuf::encode(None, |w| w.put(payload)).unwrap()),
        };
        self.stir(from);
        Some(sent)
    }

    /// Gives a sender room again.
    pub fn grant(&mut self, place: Place, to: ContextId, handle: Handle, bytes: usize) {
        self.contexts[place].node.grant(to, handle, bytes);
        self.stir(place);
    }

    /// Panics unless a living context is at rest: it knows those that live below and no others,
    /// waits for nobody, and has nothing to send.
    pub fn is_at_rest(&self, place: Place) {
        let context = &self.contexts[place];
        let below = context.node.below();
        let living = |(_, other): &(_, &Place)| {
            self.is_above(place, **other) && self.reaches(place, **other)
        };
        let all: Vec<_> = self.by_id.iter().filter(living).map(|(id, _)| *id).collect();
        assert_eq!(below, all, "{place} knows others below than live there");
        assert_eq!(context.node.handles().answers(), 0, "{place} waits for an answer");
        assert_eq!(context.node.credit.accounts(), [], "{place} waits for room");
        for id in &below {
            let path = &self.contexts[self.by_id[id]].path;
            let parent = self.contexts[path[path.len() - 2]].id;
            assert_eq!(context.node.parent_of(*id), Some(parent), "{place} errs in a parent");
        }
        for wire in &context.out {
            let (line, back) = (&self.lines[*wire], &self.lines[*wire ^ 1]);
            assert_eq!(
                (line.outbox.queued(), line.bytes.len()),
                (0, 0),
                "{place} has not sent all"
            );
            assert!(back.peer.as_ref().is_none_or(Peer::is_idle), "{place} expects more");
        }
    }
}
