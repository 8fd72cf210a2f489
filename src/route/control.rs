//! The tree's own business: what neighbours tell each other about contexts and ids.

use std::sync::Arc;

use crate::error::{Death, Result};
use crate::ids::{ContextId, Handle};
use crate::io::turn::Turn;
use crate::limits::LEASE_IDS;
use crate::route::lease::Lease;
use crate::route::node::{Node, Outgoing};
use crate::route::peer::broken;
use crate::route::pending::Deliver;
use crate::route::table::LinkId;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Writer};
use crate::wire::header::{Kind, Lane};
use crate::wire::message::Message;

/// Takes an id, once there is one, or why there is none.
type Taker = Box<dyn FnOnce(&mut Turn, Result<ContextId, Death>) + Send>;

impl Node {
    /// Tells the parent of a context that now lives below.
    pub fn announce(&self, id: ContextId) {
        let out = self.to_parent(Handle::ADD_ROUTE, None);
        if let Some(out) = out {
            self.tell(&out, Lane::Quick, &|w| id.encode(w));
        }
    }

    /// A child tells of a context that lives below it.
    pub(super) fn route_added(&self, link: LinkId, message: &Message) -> Result<(), Death> {
        self.only_neighbours(link, message, false)?;
        let id = decode(message, ContextId::decode)?;
        self.table().add_route(link, id).map_err(broken)?;
        self.announce(id);
        Ok(())
    }

    /// A neighbour tells that a context is gone.
    pub(super) fn route_deleted(
        &self,
        turn: &mut Turn,
        link: LinkId,
        message: &Message,
    ) -> Result<ContextId, Death> {
        self.only_neighbours(link, message, true)?;
        let (id, death) = decode(message, |r| Ok((ContextId::decode(r)?, Death::decode(r)?)))?;
        let lost = self.table().remove_route(link, id);
        if let Some(lost) = lost {
            self.lose(turn, lost, &death);
        }
        Ok(id)
    }

    /// Takes an id for a new child; asks the parent for more when the lease is used up.
    pub fn take_id(self: &Arc<Self>, turn: &mut Turn, taker: Taker) {
        let id = self.pool().take();
        match id {
            Some(id) => taker(turn, Ok(id)),
            None => self.ask_for_ids(turn, taker),
        }
    }

    fn ask_for_ids(self: &Arc<Self>, turn: &mut Turn, taker: Taker) {
        let parent = self.identity().parents.first().copied().unwrap_or(self.id());
        let wanted = Wanted { node: self.clone(), taker: taker_slot(taker) };
        match self.listen_for_answer(parent, Arc::new(wanted)) {
            Ok(handle) => {
                if let Some(out) = self.to_parent(Handle::ALLOCATE_ID, Some(handle)) {
                    self.tell(&out, Lane::Quick, &|w| w.put_varint(u64::from(LEASE_IDS)));
                }
            }
            // The waiter was dropped with its taker, which tells who asked.
            Err(_) => drop(turn),
        }
    }

    /// A child wants ids.
    pub(super) fn ids_wanted(&self, link: LinkId, message: &Message) -> Result<(), Death> {
        self.only_neighbours(link, message, false)?;
        let Some(handle) = message.reply_to else { return Ok(()) };
        let count = decode(message, |r| r.take_varint())?.min(u64::from(LEASE_IDS)) as u32;
        let lease = {
            let mut pool = self.pool();
            // Half of what is left at most, for others want some too.
            (0..32).find_map(|halved| pool.lease((count >> halved).max(1))).unwrap_or_default()
        };
        if 0 < lease.count {
            self.table().add_lease(link, lease);
        }
        let (dst, auth) = (message.src, self.id());
        let out = Outgoing { kind: Kind::Reply, dst, auth, handle, reply_to: None };
        self.tell(&out, Lane::Quick, &|w| {
            lease.first.encode(w);
            lease.count.encode(w);
        });
        Ok(())
    }

    fn to_parent(&self, handle: Handle, reply_to: Option<Handle>) -> Option<Outgoing> {
        let dst = *self.identity().parents.first()?;
        Some(Outgoing { kind: Kind::Control, dst, auth: self.id(), handle, reply_to })
    }

    /// Cuts off who sends, in its neighbour's name, what only neighbours may say.
    fn only_neighbours(
        &self,
        link: LinkId,
        message: &Message,
        or_parent: bool,
    ) -> Result<(), Death> {
        let child = self.table().child_of(link);
        let neighbour = match child {
            Some(child) => Some(child),
            None if or_parent => self.identity().parents.first().copied(),
            None => None,
        };
        if neighbour == Some(message.src) && message.auth == message.src {
            return Ok(());
        }
        Err(broken("only a neighbour may say this"))
    }
}

/// Waits for more ids from the parent.
struct Wanted {
    node: Arc<Node>,
    taker: std::sync::Mutex<Option<Taker>>,
}

fn taker_slot(taker: Taker) -> std::sync::Mutex<Option<Taker>> {
    std::sync::Mutex::new(Some(taker))
}

impl Wanted {
    fn take(&self) -> Option<Taker> {
        self.taker.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

impl Deliver for Wanted {
    fn message(&self, turn: &mut Turn, message: Message) {
        let lease =
            decode(&message, |r| Ok(Lease { first: u32::decode(r)?, count: u32::decode(r)? }));
        let id = match lease {
            Ok(lease) => {
                let mut pool = self.node.pool();
                pool.add(lease);
                pool.take().ok_or_else(|| Death::of(crate::error::Cause::Refused))
            }
            Err(death) => Err(death),
        };
        if let Some(taker) = self.take() {
            taker(turn, id);
        }
    }

    fn dead(&self, turn: &mut Turn, _: ContextId, death: Death) {
        if let Some(taker) = self.take() {
            taker(turn, Err(death));
        }
    }
}

fn decode<T>(
    message: &Message,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<T, Death> {
    let mut reader = Reader::new(&message.data, None);
    let value = read(&mut reader).map_err(|malformed| broken(malformed.0))?;
    reader.finish().map_err(|malformed| broken(malformed.0))?;
    Ok(value)
}

/// Appends what tells a child who it is.
pub fn put_identity(identity: &super::node::Identity, lease: Lease, w: &mut Writer<'_>) {
    identity.id.encode(w);
    w.put_varint(identity.parents.len() as u64);
    identity.parents.iter().for_each(|id| id.encode(w));
    identity.name.encode(w);
    identity.message_bytes_max.encode(w);
    lease.first.encode(w);
    lease.count.encode(w);
}

/// Takes what [`put_identity`] appended.
pub fn take_identity(r: &mut Reader<'_>) -> Result<(super::node::Identity, Lease), Malformed> {
    let id = ContextId::decode(r)?;
    let mut parents = Vec::new();
    for _ in 0..r.take_len()? {
        parents.push(ContextId::decode(r)?);
    }
    let name = String::decode(r)?;
    let message_bytes_max = u64::decode(r)?;
    let lease = Lease { first: u32::decode(r)?, count: u32::decode(r)? };
    Ok((super::node::Identity { id, parents, name, message_bytes_max }, lease))
}
