//! The tree's own business: what neighbours tell each other about contexts and ids.

use std::sync::Arc;

use crate::error::{Cause, Death, Result};
use crate::ids::{ContextId, Handle};
use crate::io::turn::{Turn, broken};
use crate::limits::{LEASE_IDS, LEASE_IDS_MIN};
use crate::lock::Lock;
use crate::route::files::Files;
use crate::route::heartbeat::Heartbeat;
use crate::route::identity::Identity;
use crate::route::lease::Lease;
use crate::route::node::{Node, Outgoing, Payload};
use crate::route::pending::Deliver;
use crate::route::table::LinkId;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Writer};
use crate::wire::frame::{Frame, FrameBuf};
use crate::wire::header::{Header, Kind, Lane, Part};
use crate::wire::message::Message;

/// Takes an id, once there is one, or why there is none.
type Taker = Box<dyn FnOnce(&mut Turn, Result<ContextId, Death>) + Send>;
/// Goes on when ids have come, or not.
type Asked = Box<dyn FnOnce(&mut Turn, Result<(), Death>) + Send>;
/// Takes the parent's answer, or why there is none.
type Answered = Box<dyn FnOnce(&mut Turn, Result<Message, Death>) + Send>;

impl Node {
    /// Tells the parent of a child that this context has now.
    pub fn announce(&self, id: ContextId) {
        self.announce_of(id, self.id());
    }

    /// Tells the parent of a context that now lives below, and who started it.
    fn announce_of(&self, id: ContextId, parent: ContextId) {
        let out = self.to_parent(Handle::ADD_ROUTE, None);
        if let Some(out) = out {
            self.tell(&out, Lane::Quick, &|w| (id, parent).encode(w));
        }
    }

    /// A child tells of a context that lives below it.
    pub(super) fn route_added(&self, link: LinkId, message: &Message) -> Result<(), Malformed> {
        let (id, parent) = decode(message, <(ContextId, ContextId)>::decode)?;
        let news = self.table().add_route(link, id, parent).map_err(Malformed)?;
        if news {
            self.announce_of(id, parent);
        }
        Ok(())
    }

    /// A neighbour tells that a context is gone.
    pub(super) fn route_deleted(
        &self,
        turn: &mut Turn,
        link: LinkId,
        message: &Message,
    ) -> Result<ContextId, Malformed> {
        let (id, death) = decode(message, |r| Ok((ContextId::decode(r)?, Death::decode(r)?)))?;
        let lost = self.table().remove_route(link, id);
        if let Some(lost) = lost {
            self.lose(turn, lost, &death);
        }
        Ok(id)
    }

    /// Gives a context authority over this one, or takes it back. Returns whether there was room.
    pub fn change_grant(&self, id: ContextId, gives: bool) -> bool {
        if !gives {
            self.table().revoke(id);
            return true;
        }
        let room = self.table().grant(id);
        // It ignores this; but who was talked to, we are told the end of.
        let (auth, handle) = (self.id(), Handle::HOLD);
        let out = Outgoing { kind: Kind::Control, dst: id, auth, handle, reply_to: None };
        self.tell(&out, Lane::Quick, &|_| ());
        room
    }

    /// Takes an id for a new child; asks the parent for more when the lease is used up.
    pub fn take_id(self: &Arc<Self>, turn: &mut Turn, taker: Taker) {
        if self.table().is_full() {
            return hand_over(turn, taker, Err(Death::of(Cause::Refused)));
        }
        let id = self.pool().take();
        if let Some(id) = id {
            return hand_over(turn, taker, Ok(id));
        }
        let node = self.clone();
        let take = move |turn: &mut Turn, asked: Result<(), Death>| {
            let id = asked.and_then(|()| node.pool().take().ok_or(Death::of(Cause::Refused)));
            hand_over(turn, taker, id);
        };
        self.ask_for_ids(turn, Box::new(take));
    }

    /// Asks the parent for ids, and goes on when they are in the pool.
    fn ask_for_ids(self: &Arc<Self>, turn: &mut Turn, asked: Asked) {
        let node = self.clone();
        let take = move |turn: &mut Turn, answer: Result<Message, Death>| {
            let lease =
                |r: &mut Reader<'_>| Ok(Lease { first: u32::decode(r)?, count: u32::decode(r)? });
            let lease = answer.and_then(|message| decode(&message, lease).map_err(broken));
            asked(turn, lease.map(|lease| node.pool().add(lease)));
        };
        let hops = self.identity().parents.len().saturating_sub(1);
        let count = (LEASE_IDS >> (2 * hops.min(8))).max(LEASE_IDS_MIN);
        let wanted: Payload<'_> = &|w| w.put_varint(u64::from(count));
        self.ask_parent(turn, Handle::ALLOCATE_ID, wanted, Box::new(take));
    }

    /// Asks the parent for something, and goes on with its answer. A master's are refused.
    pub fn ask_parent(
        &self,
        turn: &mut Turn,
        handle: Handle,
        question: Payload<'_>,
        answered: Answered,
    ) {
        let Some(&parent) = self.parents().first() else {
            return answered(turn, Err(Death::of(Cause::Refused)));
        };
        let waiting = Arc::new(Waiting(Lock::new(Some(answered))));
        let Ok(reply_to) = self.listen_for_answer(parent, waiting.clone()) else {
            return waiting.go_on(turn, Err(self.broker().death(Cause::Shutdown)));
        };
        let asked = self.to_parent(handle, Some(reply_to));
        if !asked.is_some_and(|out| self.tell(&out, Lane::Quick, question)) {
            self.unlisten(reply_to);
            waiting.go_on(turn, Err(Death::of(Cause::NoRoute)));
        }
    }

    /// A child wants ids: some of ours, or of those that our parent gives us for it.
    pub(super) fn ids_wanted(
        self: &Arc<Self>,
        turn: &mut Turn,
        link: LinkId,
        message: &Message,
    ) -> Result<(), Malformed> {
        let Some(handle) = message.reply_to else { return Ok(()) };
        let count = decode(message, |r| r.take_varint())?;
        // Few at a time would make for many leases, and for many questions to our parent.
        let count = count.clamp(LEASE_IDS_MIN.into(), LEASE_IDS.into()) as u32;
        let (child, node) = (message.src, self.clone());
        if !self.table().may_lease(link, count) {
            self.answer_ids(child, handle, Lease::default());
            return Ok(());
        }
        if !self.give_ids(link, child, handle, count) {
            self.table().ask(link, count);
            let give = move |_: &mut Turn, _: Result<(), Death>| {
                node.table().asked(link, count);
                if !node.give_ids(link, child, handle, count) {
                    node.answer_ids(child, handle, Lease::default());
                }
            };
            self.ask_for_ids(turn, Box::new(give));
        }
        Ok(())
    }

    /// Leases ids to a child: as many as wanted, or the half, and so on. Returns whether any; none
    /// if it was given too many meanwhile, or is gone.
    fn give_ids(&self, link: LinkId, child: ContextId, handle: Handle, count: u32) -> bool {
        if !self.table().may_lease(link, count) {
            return false;
        }
        let lease = self.pool().lease_up_to(count);
        let Some(lease) = lease else { return false };
        self.table().add_lease(link, lease);
        self.answer_ids(child, handle, lease);
        true
    }

    fn answer_ids(&self, child: ContextId, handle: Handle, lease: Lease) {
        let auth = self.id();
        let out = Outgoing { kind: Kind::Reply, dst: child, auth, handle, reply_to: None };
        self.tell(&out, Lane::Quick, &|w| {
            lease.first.encode(w);
            lease.count.encode(w);
        });
    }

    fn to_parent(&self, handle: Handle, reply_to: Option<Handle>) -> Option<Outgoing> {
        let dst = *self.parents().first()?;
        Some(Outgoing { kind: Kind::Control, dst, auth: self.id(), handle, reply_to })
    }
}

/// Waits for the parent's answer.
struct Waiting(Lock<Option<Answered>>);

impl Waiting {
    fn go_on(&self, turn: &mut Turn, answer: Result<Message, Death>) {
        let answered = self.0.lock().take();
        if let Some(answered) = answered {
            answered(turn, answer);
        }
    }
}

impl Deliver for Waiting {
    fn message(&self, turn: &mut Turn, message: Message) {
        self.go_on(turn, Ok(message));
    }

    fn dead(&self, turn: &mut Turn, _: ContextId, death: &Death) {
        self.go_on(turn, Err(death.clone()));
    }
}

/// Who takes an id starts a process, which ends with the thread that does: not with one to which
/// the loop is lent.
#[inline(never)] // from three places: smaller code
fn hand_over(turn: &mut Turn, taker: Taker, id: Result<ContextId, Death>) {
    turn.at_home(Box::new(move |turn| taker(turn, id)));
}

fn decode<T>(
    message: &Message,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<T, Malformed> {
    let mut reader = Reader::new(&message.data, None);
    let value = read(&mut reader)?;
    reader.finish().map(|()| value)
}

/// The first frame to a new agent: who it is.
pub fn configure(identity: &Identity, lease: Lease) -> Frame {
    let parent = identity.parents.first().copied().unwrap_or(ContextId::MASTER);
    let payload: Payload<'_> = &|w| put_identity(identity, lease, w);
    let payload = FrameBuf::encode(None, payload);
    let header = Header {
        kind: Kind::Control,
        lane: Lane::Quick,
        part: Part::Whole,
        dst: identity.id,
        src: parent,
        auth: parent,
        handle: Handle::CONFIGURE,
        reply_to: None,
    };
    payload.unwrap_or_default().seal(&header)
}

/// Appends what tells a child who it is.
fn put_identity(identity: &Identity, lease: Lease, w: &mut Writer<'_>) {
    identity.id.encode(w);
    w.put_varint(identity.parents.len() as u64);
    identity.parents.iter().for_each(|id| id.encode(w));
    identity.name.encode(w);
    identity.message_bytes_max.encode(w);
    identity.unidirectional.encode(w);
    identity.heartbeat.interval_ms.encode(w);
    identity.heartbeat.count.encode(w);
    identity.threads.encode(w);
    w.put_u8(identity.log_level);
    identity.files.put(w);
    lease.first.encode(w);
    lease.count.encode(w);
}

/// Takes what [`put_identity`] appended.
pub fn take_identity(r: &mut Reader<'_>) -> Result<(Identity, Lease), Malformed> {
    let id = ContextId::decode(r)?;
    let mut parents = Vec::new();
    for _ in 0..r.take_len()? {
        parents.push(ContextId::decode(r)?);
    }
    let name = String::decode(r)?;
    let message_bytes_max = u64::decode(r)?;
    let unidirectional = bool::decode(r)?;
    let heartbeat = Heartbeat { interval_ms: u32::decode(r)?, count: u32::decode(r)? };
    let threads = u32::decode(r)?;
    let (log_level, mut files) = (r.take_u8()?, Files::default());
    files.fill(r)?;
    let lease = Lease { first: u32::decode(r)?, count: u32::decode(r)? };
    let identity = Identity {
        id,
        parents,
        name,
        message_bytes_max,
        unidirectional,
        heartbeat,
        threads,
        log_level,
        tree: 0,
        files,
    };
    Ok((identity, lease))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Lease = Lease { first: 100, count: 10 };

    #[test]
    fn an_identity_survives_its_encoding() {
        let identity = Identity {
            id: ContextId(7),
            parents: vec![ContextId(3), ContextId::MASTER],
            name: "local/local".to_owned(),
            message_bytes_max: 5,
            unidirectional: true,
            heartbeat: Heartbeat { interval_ms: 300, count: 2 },
            threads: 3,
            log_level: 4,
            tree: 0,
            files: Files { debug: "5/a".to_owned(), profiling: "/b".to_owned() },
        };
        let bytes = FrameBuf::encode(None, |w| put_identity(&identity, LEASE, w))
            .unwrap()
            .payload()
            .to_vec();
        let mut r = Reader::new(&bytes, None);
        assert_eq!(take_identity(&mut r).unwrap(), (identity, LEASE));
        for len in 0..bytes.len() {
            assert!(take_identity(&mut Reader::new(&bytes[..len], None)).is_err());
        }
    }
}
