//! One context's place in the tree: sends, forwards, verifies and delivers. Any thread sends; what
//! arrives is handled by the holder of the turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Cause, Death, Error, Result};
use crate::ids::{ContextId, Handle};
use crate::io::broker::Broker;
use crate::io::counters::Count;
use crate::io::outbox::Outbox;
use crate::io::turn::{Key, Tenant, Turn};
use crate::limits::PENDING_CALLS_MAX;
use crate::lock::{self, Held, Lock, rank};
use crate::route::credit::Credit;
use crate::route::identity::Identity;
use crate::route::lease::{Lease, Pool};
use crate::route::pending::{Deliver, Entry, Handles};
use crate::route::policy::{Arrival, Policy, anyone};
use crate::route::refusal::Refusal;
use crate::route::table::{Lost, Table, Tell};
use crate::route::terms::Terms;
use crate::sys::clock::Moment;
use crate::sys::random;
use crate::trace::{self, Level, Record, TARGET};
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Writer};
use crate::wire::frame::FrameBuf;
use crate::wire::header::{Header, Kind, Lane, Part};
use crate::wire::message::Message;

/// The way out to a neighbour.
pub struct Way {
    /// What is to be written to it.
    pub outbox: Arc<Outbox>,
    /// Its stream.
    pub key: Key,
    /// Whether it leads to the parent.
    pub up: bool,
}

/// The routing state of one context.
pub struct Node {
    identity: Identity,
    /// Whether it has no parent any more.
    pub(super) detached: AtomicBool,
    /// Whether it was asked to end.
    pub(super) ending: AtomicBool,
    /// When it was made.
    pub(super) since: Moment,
    broker: Broker,
    tenant: Tenant,
    table: Lock<Table<Arc<Way>>, { rank::ROUTES }>,
    handles: Lock<Handles, { rank::HANDLES }>,
    pub(super) credit: Credit,
    /// Bytes of longer messages that were granted to all links, as an `Assembler` counts them.
    pub(super) ahead: AtomicUsize,
    /// Ids for children.
    pub(super) pool: Lock<Pool>,
}

/// Writes the payload of a small message.
pub type Payload<'a> = &'a dyn Fn(&mut Writer<'_>);

/// A message to be sent, but for its payload.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    /// What it is.
    pub kind: Kind,
    /// Where it goes.
    pub dst: ContextId,
    /// Under whose authority.
    pub auth: ContextId,
    /// What it is for there.
    pub handle: Handle,
    /// Where an answer goes here.
    pub reply_to: Option<Handle>,
}

impl Node {
    /// A context that no stream is attached to yet.
    pub fn new(identity: Identity, pool: Pool, broker: Broker) -> Arc<Node> {
        let table = Lock::new(Table::at_depth(identity.parents.len()));
        Arc::new(Node {
            identity,
            detached: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            since: Moment::now(),
            tenant: broker.tenant(),
            broker,
            table,
            handles: Lock::new(Handles::new()),
            credit: Credit::default(),
            ahead: AtomicUsize::new(0),
            pool: Lock::new(pool),
        })
    }

    /// Who this context is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its ancestors' ids, the nearest first: as its parent told it, until it left that.
    pub fn parents(&self) -> &[ContextId] {
        match self.detached.load(Ordering::Relaxed) {
            true => &[],
            false => &self.identity.parents,
        }
    }

    /// Who a new child of this context is.
    pub fn identity_of_child(&self, id: ContextId, name: String, terms: &Terms) -> Identity {
        let mut child = self.identity.of_child(id, name, terms);
        child.parents.truncate(1 + self.parents().len());
        child
    }

    /// This context's id.
    pub fn id(&self) -> ContextId {
        self.identity.id
    }

    /// The broker that serves it.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Whose its streams are.
    pub fn tenant(&self) -> Tenant {
        self.tenant
    }

    /// Listens at a handle of the protocol.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if somebody listens there, or after the shutdown.
    pub fn listen(
        &self,
        handle: Handle,
        accepts: Kind,
        policy: Policy,
        to: Arc<dyn Deliver>,
    ) -> Result<()> {
        self.broker.forbid_copy()?;
        let since = Moment::now();
        let entry = Entry { accepts, from: None, policy, once: false, bytes: 0, since, to };
        self.handles().add(handle, entry).map_err(|cause| self.closed(cause))
    }

    /// Listens for data from anyone who was given the handle, which nobody can guess.
    pub fn listen_for_data(&self, to: Arc<dyn Deliver>) -> Result<Handle> {
        self.broker.forbid_copy()?;
        self.listen_at(None, None, to)
    }

    /// Listens for data at a handle of a program's own, or at one that nobody can guess; `from`
    /// this context alone.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if somebody listens there, `Closed` after the shutdown.
    pub fn listen_at(
        &self,
        at: Option<Handle>,
        from: Option<ContextId>,
        to: Arc<dyn Deliver>,
    ) -> Result<Handle> {
        self.broker.forbid_copy()?;
        let (accepts, policy, once, since) = (Kind::Data, anyone, false, Moment::now());
        let entry = Entry { accepts, from, policy, once, bytes: 0, since, to };
        let added = match at {
            Some(handle) => self.handles().add(handle, entry).map(|()| handle),
            None => self.handles().add_unguessable(entry, random::u64),
        };
        added.map_err(|cause| match cause {
            Cause::Refused => Error::usage("something listens at this handle already"),
            cause => self.closed(cause),
        })
    }

    /// Puts somebody else before who listens at this handle, if somebody does.
    pub fn wrap(&self, handle: Handle, wrap: impl FnOnce(Arc<dyn Deliver>) -> Arc<dyn Deliver>) {
        self.handles().wrap(handle, wrap);
    }

    /// Listens for one answer of `from`. It comes, or its death does, or [`Node::unlisten`] ends
    /// the wait.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] after the shutdown, [`ErrorKind::Usage`] if too many are awaited.
    pub fn listen_for_answer(&self, from: ContextId, to: Arc<dyn Deliver>) -> Result<Handle> {
        self.broker.forbid_copy()?;
        self.add_answer(&mut self.handles(), from, 0, to)
    }

    pub(super) fn add_answer(
        &self,
        handles: &mut Handles,
        from: ContextId,
        bytes: usize,
        to: Arc<dyn Deliver>,
    ) -> Result<Handle> {
        if PENDING_CALLS_MAX <= handles.answers() {
            return Err(Error::usage("too many calls are unanswered: wait for some of them"));
        }
        let (accepts, from, policy, once) = (Kind::Reply, Some(from), anyone, true);
        let since = Moment::now();
        let entry = Entry { accepts, from, policy, once, bytes, since, to };
        handles.add_answer(entry).map_err(|cause| self.closed(cause))
    }

    /// Why nothing can be added, if not for this cause.
    fn closed(&self, cause: Cause) -> Error {
        self.broker.death(cause).into()
    }

    /// Listens no longer.
    pub fn unlisten(&self, handle: Handle) {
        if self.broker.is_copy() {
            return;
        }
        let removed = self.handles().remove(handle);
        drop(removed);
    }

    /// Sends a small message of the protocol to a neighbour or beyond. Never sleeps.
    /// Returns whether a way leads there.
    pub fn tell(&self, out: &Outgoing, lane: Lane, payload: Payload<'_>) -> bool {
        lock::assert_none_held("sending");
        if self.broker.is_copy() {
            return false;
        }
        let way = self.table().way_to(out.dst, None);
        if let Some(way) = &way {
            self.tell_by(way, out, lane, payload);
        }
        way.is_some()
    }

    fn tell_by(&self, way: &Way, out: &Outgoing, lane: Lane, payload: Payload<'_>) {
        self.tell_as(way, &self.header(out, lane, Part::Whole), payload);
    }

    pub(super) fn tell_as(&self, way: &Way, header: &Header, payload: Payload<'_>) {
        if let Ok(payload) = FrameBuf::encode(None, payload) {
            // Who does not read, or is gone, need not be told.
            let _ = self.push(way, header, payload.seal(header).as_bytes());
        }
    }

    /// Gives a sender room again.
    pub fn grant(&self, dst: ContextId, handle: Handle, bytes: usize) {
        if dst != self.id() {
            let out = Outgoing { kind: Kind::Grant, dst, auth: self.id(), handle, reply_to: None };
            self.tell(&out, Lane::Quick, &|w| w.put_varint(bytes as u64));
        }
    }

    /// A grant has arrived: room, or the end of it.
    pub(super) fn granted(&self, message: &Message) -> Result<(), Malformed> {
        let mut r = Reader::new(&message.data, None);
        let (bytes, target) = (r.take_len()?, (message.src, message.handle));
        if r.rest().is_empty() {
            self.credit.grant(target, bytes);
        } else {
            self.credit.refuse(target, Death::decode(&mut r)?);
        }
        r.finish()
    }

    /// Who takes what is of this kind at this handle of ours.
    pub fn listener(&self, handle: Handle, kind: Kind) -> Option<Arc<dyn Deliver>> {
        self.handles().listener(handle, kind)
    }

    /// The lane that keeps the order of what was sent to this handle before.
    pub fn lane(&self, dst: ContextId, handle: Handle) -> Lane {
        if self.broker.is_copy() {
            return Lane::Quick;
        }
        self.credit.lane((dst, handle))
    }

    /// A Sender of this context sends to this handle, until [`Node::forget_room`].
    pub fn open_room(&self, dst: ContextId, handle: Handle) {
        self.credit.open((dst, handle));
    }

    /// Nothing more is sent to this handle.
    pub fn forget_room(&self, dst: ContextId, handle: Handle) {
        if !self.broker.is_copy() {
            self.credit.forget((dst, handle));
        }
    }

    /// What a policy is to know of a message that has arrived.
    pub fn arrival(&self, message: &Message) -> Arrival<'_> {
        let (me, parents) = (self.id(), &*self.identity.parents);
        let table = self.table();
        let (is_child, is_granted) = (table.is_child(message.src), table.is_granted(message.auth));
        let is_neighbour = is_child || parents.first() == Some(&message.src);
        Arrival { me, parents, is_child, is_neighbour, is_granted }
    }

    /// Delivers a whole message that came by a link, or from here; or answers that nobody takes it.
    ///
    /// # Errors
    /// What there is to log of a message that was refused.
    pub fn deliver(&self, turn: &mut Turn, message: Message) -> Result<(), Refusal> {
        lock::assert_none_held("delivering");
        let arrival = self.arrival(&message);
        let receiver = self.handles().receiver(&message, &arrival);
        let to = match receiver {
            Ok(to) => to,
            Err(cause) => return Err(self.refused(turn, &message, cause)),
        };
        turn.counting.add(Count::MessagesDelivered, 1);
        let (handle, src, begun) = (message.handle, message.src, turn.counting.begin());
        match message.kind {
            Kind::Dead => to.dead(turn, src, &death_in(&message)),
            _ => to.message(turn, message),
        }
        if let Some(begun) = begun {
            turn.counting.note(begun, handle, src);
        }
        Ok(())
    }

    /// Whether somebody takes a message of which the first of several parts has arrived, with so
    /// many bytes; if nobody does its sender learns that now, before there is room for it.
    ///
    /// # Errors
    /// What there is to log of it.
    pub fn admit(&self, turn: &mut Turn, head: &Message, bytes: usize) -> Result<(), Refusal> {
        let arrival = self.arrival(head);
        let place = self.handles().place_of(head, &arrival);
        let Err(cause) = place else { return Ok(()) };
        match head.kind {
            // The rest of its room is granted as that of any message that is refused.
            Kind::Data => self.grant(head.src, head.handle, bytes),
            _ => self.end_room(head.src, head.handle, &Death::of(cause).at(self.id())),
        }
        Err(self.refused(turn, head, cause))
    }

    fn refused(&self, turn: &mut Turn, message: &Message, cause: Cause) -> Refusal {
        let rule = self.handles().rule(message);
        self.refuse(turn, message, cause);
        Refusal::of(message, rule)
    }

    /// Ends every wait for the contexts that are gone, and tells those who knew them.
    pub fn lose(&self, turn: &mut Turn, lost: Lost<Arc<Way>>, death: &Death) {
        lock::assert_none_held("telling of an end");
        // What happened to the first took the others along.
        let context = death.context.or(lost.contexts.first().copied());
        let death = Death { context, ..death.clone() }.seen_by(self.id());
        // In the order of the contexts.
        let mut tell = lost.tell.iter().peekable();
        for &id in &lost.contexts {
            let concerned = self.handles().lost(id);
            self.credit.lost(id, &death);
            for (ends, to) in &concerned {
                match ends {
                    true => to.dead(turn, id, &death),
                    false => to.lost(turn, id, &death),
                }
            }
            while let Some(tell) = tell.next_if(|tell| tell.gone == id) {
                self.tell_of_end(tell, &death);
            }
        }
    }

    fn tell_of_end(&self, tell: &Tell<Arc<Way>>, death: &Death) {
        let Some(dst) = tell.child.or(self.identity.parents.first().copied()) else { return };
        let (auth, handle) = (self.id(), Handle::DEL_ROUTE);
        let out = Outgoing { kind: Kind::Control, dst, auth, handle, reply_to: None };
        // Behind all that the lost context sent.
        self.tell_by(&tell.way, &out, Lane::Bulk, &|w| {
            tell.gone.encode(w);
            death.encode(w);
        });
    }

    /// Whether [`Node::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.handles().is_closed()
    }

    /// Refuses what would outlive the end of this context.
    pub fn forbid_closed(&self) -> Result<()> {
        if self.is_closed() {
            return Err(self.closed(Cause::Shutdown));
        }
        Ok(())
    }

    /// Fails every wait and every later use. Those who listen, many of whom keep this context, are
    /// let go.
    pub fn close(&self, turn: &mut Turn, death: &Death) {
        let all = self.handles().close();
        self.credit.close(death);
        for (_, entry) in &all {
            entry.to.dead(turn, self.id(), death);
        }
    }

    pub(super) fn table(&self) -> Held<'_, Table<Arc<Way>>> {
        self.table.lock()
    }

    /// The direct children.
    pub fn children(&self) -> Vec<ContextId> {
        if self.broker.is_copy() {
            return Vec::new();
        }
        self.table().children()
    }

    /// Every context below.
    pub fn below(&self) -> Vec<ContextId> {
        self.table().below()
    }

    /// Whether `id` may be what another context says that it has started. If that lives below, its
    /// announcement came before; what lives elsewhere nobody can know.
    pub fn may_have_started(&self, by: ContextId, id: ContextId) -> bool {
        if self.table().parent_of(by).is_some() {
            return self.parent_of(id) == Some(by);
        }
        let Identity { id: own, parents, .. } = &self.identity;
        let is_kin = id == *own || id == by || parents.contains(&id);
        !is_kin && self.table().parent_of(id).is_none()
    }

    /// Fails where what this context says to `dst` in the name of `auth` would be taken for forged:
    /// a reference that one from beyond us gave leads nowhere beyond us.
    pub fn forbid_acting_for(&self, auth: ContextId, dst: ContextId) -> Result<()> {
        if auth == self.id() || dst == self.id() || self.table().may_act_for(auth, dst) {
            return Ok(());
        }
        Err(Death::of(Cause::Refused).at(dst).seen_by(self.id()).into())
    }

    /// The context that started one which lives below.
    pub fn parent_of(&self, id: ContextId) -> Option<ContextId> {
        self.table().parent_of(id).map(|parent| parent.unwrap_or(self.id()))
    }

    /// The direct child by whose link `id` is reached, or could be, if one is.
    pub fn child_towards(&self, id: ContextId) -> Option<ContextId> {
        self.table().child_towards(id)
    }

    /// Whether it is a direct child.
    pub fn is_child(&self, id: ContextId) -> bool {
        self.table().is_child(id)
    }

    /// Logs that `what` happened in this context, about these numbers.
    pub fn event(&self, level: Level, what: &'static str, about: &[u64]) {
        self.text(level, what, about, "");
    }

    /// As [`Node::event`], with text.
    #[inline(never)] // smaller code
    pub fn text(&self, level: Level, what: &'static str, about: &[u64], text: &str) {
        if trace::wanted(level) {
            let Identity { id, name, tree, .. } = &self.identity;
            let (tree, context) = (*tree, Some(*id));
            let now = Record::now(level, TARGET);
            trace::record(&Record { tree, context, name, what, about, text, ..now });
        }
    }

    pub(super) fn pool(&self) -> Held<'_, Pool> {
        self.pool.lock()
    }

    /// Ids for a new child to give out.
    pub fn lease_for_child(&self) -> Lease {
        self.pool().gift()
    }

    pub(crate) fn handles(&self) -> Held<'_, Handles> {
        self.handles.lock()
    }
}

/// What a dead message says; an unreadable one is a broken protocol.
fn death_in(message: &Message) -> Death {
    Death::decode(&mut Reader::new(&message.data, None)).unwrap_or(Death::of(Cause::Protocol))
}
