//! What the contexts of a simulated tree say to each other, and what must become of it: each
//! request has one outcome, the answer or a death that is true; data arrives once, and in order.

use std::collections::VecDeque;

use super::node::Outgoing;
use super::policy;
use super::send::room_of;
use super::sim::{At, News, Place, World};
use crate::error::{Cause, Death, Error, ErrorKind};
use crate::ids::{ContextId, Handle};
use crate::wire::header::Kind;
use crate::wire::message::Message;

/// Takes requests from anyone.
const OPEN: Handle = Handle(100);
/// Takes requests that have an ancestor's authority.
const GUARDED: Handle = Handle(101);
/// Nothing listens here.
const NOWHERE: Handle = Handle(102);

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// An answer.
    Answer,
    /// An answer, of a context that may refuse it.
    Favour,
    /// Nothing that there is.
    Nothing,
    /// That the asked context sends data to the asking one.
    Stream,
}

#[derive(Debug)]
struct Request {
    from: Place,
    to: ContextId,
    wish: Wish,
    bytes: usize,
    asked: bool,
    /// What became of it.
    outcome: Option<Result<(), Death>>,
    /// The stream that it is for.
    stream: Option<usize>,
}

/// Data on its way from one context to a handle of another.
#[derive(Debug)]
struct Stream {
    owner: Place,
    handle: Handle,
    sender: ContextId,
    /// Lengths of what was sent, in order.
    sent: Vec<usize>,
    arrived: usize,
    /// Bytes of those that have arrived and were not taken.
    untaken: VecDeque<usize>,
    /// The sender was told that it is over.
    refused: bool,
    /// The owner was told that the sender is gone.
    lost: bool,
}

/// An answer that is owed.
struct Debt {
    by: Place,
    to: ContextId,
    handle: Handle,
    request: usize,
}

/// All that is said, and what became of it.
pub struct Traffic {
    unidirectional: bool,
    pub world: World,
    requests: Vec<Request>,
    streams: Vec<Stream>,
    debts: Vec<Debt>,
    /// Streams that their senders know of.
    offered: Vec<usize>,
    /// Ids that were given out, for whose child.
    coming: Vec<(Place, ContextId)>,
    /// Contexts that have asked for an id, and how many.
    pub asking: usize,
}

impl Traffic {
    /// Of the root alone; whether it keeps those below it apart.
    pub fn new(unidirectional: bool) -> Traffic {
        let mut traffic = Traffic {
            unidirectional,
            world: World::new(unidirectional),
            requests: Vec::new(),
            streams: Vec::new(),
            debts: Vec::new(),
            offered: Vec::new(),
            coming: Vec::new(),
            asking: 0,
        };
        traffic.settle_in(0);
        traffic
    }

    fn settle_in(&mut self, place: Place) {
        let node = &self.world.contexts[place].node;
        let listener = |at| self.world.listener(place, at);
        node.listen(OPEN, Kind::Call, policy::anyone, listener(At::Open)).unwrap();
        let guarded = policy::has_parent_authority;
        node.listen(GUARDED, Kind::Call, guarded, listener(At::Guarded)).unwrap();
    }

    /// A context begins to start a child.
    pub fn conceive(&mut self, parent: Place) {
        self.asking += 1;
        self.world.want_id(parent);
        self.read_news();
    }

    /// A child that has its id comes up. Returns it, if its parent still lives.
    pub fn bear(&mut self, number: usize) -> Option<Place> {
        let (parent, id) = self.coming.swap_remove(number);
        if !self.world.contexts[parent].alive {
            return None;
        }
        let child = self.world.birth(parent, id);
        self.settle_in(child);
        self.read_news();
        Some(child)
    }

    /// How many children could come up.
    pub fn to_bear(&self) -> usize {
        self.coming.len()
    }

    /// A context asks another for something.
    pub fn ask(&mut self, from: Place, to: ContextId, wish: Wish, bytes: usize) {
        let number = self.requests.len();
        let listener = self.world.listener(from, At::Request(number));
        let node = &self.world.contexts[from].node;
        let Ok(reply_to) = node.listen_for_answer(to, listener) else {
            return assert!(!self.world.contexts[from].alive, "a living context is shut down");
        };
        let stream = (wish == Wish::Stream).then(|| self.open_stream(from, to));
        let (asked, outcome) = (false, None);
        self.requests.push(Request { from, to, wish, bytes, asked, outcome, stream });
        let handle = match wish {
            Wish::Answer | Wish::Stream => OPEN,
            Wish::Favour => GUARDED,
            Wish::Nothing => NOWHERE,
        };
        let (kind, reply_to) = (Kind::Call, Some(reply_to));
        let auth = self.world.contexts[from].id;
        let out = Outgoing { kind, dst: to, auth, handle, reply_to };
        let sent = self.world.send(from, &out, &payload(number, 0, bytes));
        if let Some(Ok(())) = sent {
            return self.read_news();
        }
        // As a call that could not be sent; one that would have to sleep is none.
        self.world.contexts[from].node.unlisten(out.reply_to.unwrap());
        let outcome = match sent {
            Some(Err(error)) => {
                self.is_true(from, to, &death_of(&error));
                Err(death_of(&error))
            }
            _ => Ok(()),
        };
        self.requests[number].outcome = Some(outcome);
        self.read_news();
    }

    fn open_stream(&mut self, owner: Place, sender: ContextId) -> usize {
        let number = self.streams.len();
        let listener = self.world.listener(owner, At::Stream(number));
        let handle = self.world.contexts[owner].node.listen_for_data(listener).unwrap();
        let (sent, untaken) = Default::default();
        let (arrived, refused, lost) = (0, false, false);
        self.streams.push(Stream { owner, handle, sender, sent, arrived, untaken, refused, lost });
        number
    }

    /// How many answers are owed.
    pub fn debts(&self) -> usize {
        self.debts.len()
    }

    /// An answer that is owed is given.
    pub fn answer(&mut self, number: usize, bytes: usize) {
        let Debt { by, to, handle, request } = self.debts.swap_remove(number);
        if !self.world.contexts[by].alive {
            return;
        }
        let auth = self.world.contexts[by].id;
        let out = Outgoing { kind: Kind::Reply, dst: to, auth, handle, reply_to: None };
        match self.world.send(by, &out, &payload(request, 0, bytes)) {
            Some(Ok(())) => (),
            Some(Err(error)) => self.is_true(by, to, &death_of(&error)),
            None => self.debts.push(Debt { by, to, handle, request }),
        }
        self.read_news();
    }

    /// How many streams have a sender that lives.
    pub fn streams(&self) -> usize {
        self.offered.len()
    }

    /// The sender of a stream sends the next.
    pub fn feed(&mut self, number: usize, bytes: usize) {
        let number = self.offered[number];
        let Stream { owner, handle, sender, ref sent, refused, .. } = self.streams[number];
        let (from, dst) = (self.world.by_id[&sender], self.world.contexts[owner].id);
        if refused || !self.world.contexts[from].alive {
            return;
        }
        let payload = payload(number, sent.len(), bytes);
        let out = Outgoing { kind: Kind::Data, dst, auth: sender, handle, reply_to: None };
        match self.world.send(from, &out, &payload) {
            Some(Ok(())) => self.streams[number].sent.push(payload.len()),
            Some(Err(error)) => {
                self.streams[number].refused = true;
                self.is_true(from, dst, &death_of(&error));
            }
            None => (),
        }
        self.read_news();
    }

    /// How many streams there are.
    pub fn all_streams(&self) -> usize {
        self.streams.len()
    }

    /// The owner of a stream takes what came first. Returns whether something did.
    pub fn take(&mut self, number: usize) -> bool {
        let stream = &mut self.streams[number];
        let (owner, sender, handle) = (stream.owner, stream.sender, stream.handle);
        let Some(bytes) = stream.untaken.pop_front() else { return false };
        if self.world.contexts[owner].alive {
            self.world.grant(owner, sender, handle, room_of(&vec![0; bytes]));
            self.read_news();
        }
        true
    }

    /// A direction moves.
    pub fn advance(&mut self, at: usize, write_max: usize, read_max: usize) {
        self.world.advance(at, write_max, read_max);
        self.read_news();
    }

    /// A link is cut.
    pub fn cut(&mut self, child: Place, arrive: [usize; 2], told: bool) {
        self.world.cut(child, arrive, told);
        self.read_news();
    }

    /// A context is killed.
    pub fn kill(&mut self, place: Place, told: bool) {
        self.world.kill(place, told);
        self.read_news();
    }

    /// Holds all that contexts were told against what is true.
    fn read_news(&mut self) {
        loop {
            let news = self.world.news();
            if news.is_empty() {
                return;
            }
            for news in news {
                self.read(news);
            }
        }
    }

    fn read(&mut self, news: News) {
        match news {
            News::Message(place, At::Request(number), message) => {
                self.is_answered(place, number, &message);
            }
            News::Message(place, At::Stream(number), message) => {
                self.is_next(place, number, &message);
            }
            News::Message(place, at, message) => self.is_asked(place, at, &message),
            News::Dead(place, At::Request(number), death) => {
                self.is_refused(place, number, death);
            }
            // A stream that ends with its owner.
            News::Dead(place, ..) => assert!(!self.world.contexts[place].alive),
            News::Lost(place, at, id, death) => self.is_lost(place, at, id, &death),
            News::Id(place, id) => {
                self.asking -= 1;
                match id {
                    Ok(id) => self.coming.push((place, id)),
                    Err(death) => {
                        let cut_off = !self.world.reaches(0, place);
                        assert!(cut_off, "{place} gets no id: {death:?}");
                    }
                }
            }
            News::Orphaned(place, why) => self.world.orphan(place, &why),
        }
    }

    fn is_asked(&mut self, place: Place, at: At, message: &Message) {
        let (number, _) = number_in(&message.data);
        let request = &mut self.requests[number];
        let (from, to) = (request.from, self.world.contexts[place].id);
        assert_eq!((request.to, self.world.contexts[from].id), (to, message.src), "{request:?}");
        assert!(!std::mem::replace(&mut request.asked, true), "asked twice: {request:?}");
        assert_eq!(request.bytes, message.data.len());
        let passes = !self.unidirectional || self.world.are_in_line(from, place);
        assert!(passes, "kept apart: {request:?}");
        let guarded = request.wish == Wish::Favour;
        assert_eq!(guarded, at == At::Guarded, "{request:?}");
        assert!(!guarded || from == place || self.world.is_above(from, place), "{request:?}");
        let handle = message.reply_to.unwrap();
        self.debts.push(Debt { by: place, to: message.src, handle, request: number });
        if let Some(stream) = request.stream {
            let owner = self.world.contexts[from].id;
            self.world.contexts[place].node.open_room(owner, self.streams[stream].handle);
            self.offered.push(stream);
        }
    }

    fn is_answered(&mut self, place: Place, number: usize, message: &Message) {
        let request = &mut self.requests[number];
        assert_eq!(number_in(&message.data), (number, 0), "{message:?}: {request:?}");
        assert_eq!((request.from, request.to), (place, message.src), "{message:?}: {request:?}");
        assert!(request.asked && request.outcome.is_none(), "{message:?}: {request:?}");
        request.outcome = Some(Ok(()));
    }

    fn is_refused(&mut self, place: Place, number: usize, death: Death) {
        let request = &self.requests[number];
        let (to, wish) = (request.to, request.wish);
        assert!(request.outcome.is_none() && request.from == place, "{death:?}: {request:?}");
        let above = self.world.by_id.get(&to).is_some_and(|to| self.world.is_above(place, *to));
        let named = death.context == Some(to);
        match death.cause {
            Cause::NoHandle => assert!(wish == Wish::Nothing && named, "{death:?}: {request:?}"),
            Cause::Refused => assert!(wish == Wish::Favour && !above && named, "{request:?}"),
            Cause::Unidirectional => {
                let to = self.world.by_id.get(&to);
                let apart = to.is_none_or(|to| !self.world.are_in_line(place, *to));
                assert!(self.unidirectional && apart && named, "{death:?}: {request:?}");
            }
            _ => self.is_true(place, to, &death),
        }
        self.requests[number].outcome = Some(Err(death));
    }

    fn is_next(&mut self, place: Place, number: usize, message: &Message) {
        let stream = &mut self.streams[number];
        assert_eq!((stream.owner, stream.sender), (place, message.src), "{message:?}");
        assert_eq!(number_in(&message.data), (number, stream.arrived), "{message:?}");
        assert_eq!(stream.sent[stream.arrived], message.data.len(), "{message:?}");
        assert!(!stream.lost, "{message:?} comes from one who is gone");
        stream.arrived += 1;
        stream.untaken.push_back(message.data.len());
    }

    fn is_lost(&mut self, place: Place, at: At, id: ContextId, death: &Death) {
        self.is_true(place, id, death);
        if let At::Stream(number) = at {
            let stream = &mut self.streams[number];
            stream.lost |= stream.sender == id;
        }
    }

    /// Who is said to be gone is gone, or cannot be reached from here; and so is whom a wait was
    /// for. A context that is itself at its end need not name anybody.
    fn is_true(&self, place: Place, of: ContextId, death: &Death) {
        if !self.world.contexts[place].alive {
            return;
        }
        for id in [Some(of), death.context].into_iter().flatten() {
            let Some(&gone) = self.world.by_id.get(&id) else { continue };
            assert!(!self.world.reaches(place, gone), "{death:?}, told {place} of {of}, is a lie");
        }
        assert!(death.context.is_some(), "{death:?}, told {place} of {of}, names nobody");
        // Whoever saw it saw it from where nobody gets there.
        let by = death.seen_by.map(|id| self.world.by_id[&id]);
        let gone = death.context.and_then(|id| self.world.by_id.get(&id));
        if let (Some(by), Some(gone)) = (by, gone) {
            assert!(!self.world.reaches(by, *gone), "{death:?}, told {place} of {of}: not seen");
        }
    }

    /// When all is delivered: everybody was told what became of what, and nothing is left over.
    pub fn is_at_rest(&mut self) {
        for request in &self.requests {
            assert!(request.outcome.is_some(), "nobody was told: {request:?}");
        }
        for (number, stream) in self.streams.iter().enumerate() {
            let sender = self.world.by_id.get(&stream.sender);
            let whole = sender.is_some_and(|sender| self.world.reaches(stream.owner, *sender));
            let alive = self.world.contexts[stream.owner].alive;
            let known = self.offered.contains(&number);
            assert!(
                whole || !alive || !known || stream.lost,
                "not told of its sender's end: {stream:?}"
            );
            assert!(!whole || stream.sent.len() == stream.arrived, "data was lost: {stream:?}");
        }
        for stream in &self.offered {
            let Stream { owner, handle, sender, .. } = self.streams[*stream];
            let sender = &self.world.contexts[self.world.by_id[&sender]];
            sender.node.forget_room(self.world.contexts[owner].id, handle);
        }
        for place in 0..self.world.contexts.len() {
            if self.world.contexts[place].alive {
                self.world.is_at_rest(place);
            }
        }
    }
}

/// Something that tells which it is, and is of one piece.
fn payload(number: usize, place: usize, bytes: usize) -> Vec<u8> {
    let mut payload = vec![(number + place) as u8; bytes];
    payload[..8].copy_from_slice(&(number as u64).to_le_bytes());
    payload[8..16].copy_from_slice(&(place as u64).to_le_bytes());
    payload
}

fn number_in(payload: &[u8]) -> (usize, usize) {
    let number = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap()) as usize;
    let (number, place) = (number(0), number(8));
    let whole = vec![(number + place) as u8; payload.len() - 16];
    assert!(payload[16..] == whole, "of two pieces");
    (number, place)
}

fn death_of(error: &Error) -> Death {
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    death.clone()
}
