//! What the contexts below send of their logs, on its way to the sink: the loop only queues it, and
//! room is given back when it was taken.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::call::load::Load;
use crate::call::room::Rooms;
use crate::call::router::{Names, Router};
use crate::error::{Cause, Death, Result};
use crate::ids::{ContextId, Handle};
use crate::io::turn::Turn;
use crate::limits::NAME_BYTES_MAX;
use crate::lock::Lock;
use crate::log::record;
use crate::log::sink::{Hall, Hand};
use crate::route::node::Node;
use crate::route::pending::Deliver;
use crate::route::policy;
use crate::route::send::room_of;
use crate::trace::{self, Level, Record, TARGET};
use crate::wire::codec::{Malformed, Reader};
use crate::wire::header::Kind;
use crate::wire::message::Message;

/// Serves [`Handle::FORWARD_LOG`] in the first context of a tree.
///
/// # Errors
/// As [`Node::listen`].
pub(crate) fn listen(router: &Router) -> Result<()> {
    let (node, rooms) = (Arc::downgrade(router.node()), Rooms::new(router));
    let to = Receive { node, rooms, names: router.names(), sources: Lock::default() };
    let to = Arc::new(Received(Arc::new(to)));
    router.node().listen(Handle::FORWARD_LOG, Kind::Data, policy::anyone, to)
}

struct Received(Arc<Receive>);

struct Receive {
    node: Weak<Node>,
    rooms: Rooms,
    names: Arc<Names>,
    /// Those below that have sent something, sorted.
    sources: Lock<Vec<Arc<Source>>>,
}

/// A context that has sent something.
struct Source {
    id: ContextId,
    /// The name of the nearest context above it that this one knows the name of.
    near: Arc<str>,
    /// Whether what it sends broke the rules, which is logged once.
    is_odd: AtomicBool,
}

impl Deliver for Received {
    fn message(&self, _: &mut Turn, message: Message) {
        let Received(own) = self;
        let Some(node) = own.node.upgrade() else { return };
        // Nobody would be told of the end of what does not live here.
        if node.parent_of(message.src).is_none() {
            return;
        }
        let source = own.source(&node, message.src);
        let load = match own.rooms.enters(&node, &message) {
            Ok(load) => load,
            Err(Cause::DoesNotRead) => {
                // It has kept to its window; the next may find room.
                node.grant(message.src, Handle::FORWARD_LOG, room_of(&message.data));
                return source.complain(&node, "a log is lost, since too much waits from there:");
            }
            Err(_) => return source.complain(&node, "sends more of its log than it may:"),
        };
        let wanted = trace::level_below() != 0;
        match wanted.then(Hall::of_process).flatten() {
            Some(hall) => {
                let own = own.clone();
                hall.batch(Box::new(move |hand| own.take_out(hand, &source, &message, load)));
            }
            None => own.leaves(message.src, room_of(&message.data)),
        }
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {}

    fn lost(&self, _: &mut Turn, id: ContextId, _: &Death) {
        let Received(own) = self;
        own.rooms.forget(id);
        let mut sources = own.sources.lock();
        if let Ok(at) = sources.binary_search_by_key(&id, |source| source.id) {
            sources.remove(at);
        }
    }
}

impl Receive {
    fn source(&self, node: &Node, id: ContextId) -> Arc<Source> {
        let place = |list: &[Arc<Source>]| list.binary_search_by_key(&id, |source| source.id);
        {
            let sources = self.sources.lock();
            if let Ok(at) = place(&sources) {
                return sources[at].clone();
            }
        }
        let near = self.nearest_name(node, id);
        let source = Arc::new(Source { id, near, is_odd: AtomicBool::new(false) });
        let mut sources = self.sources.lock();
        // Only the loop adds some.
        let at = place(&sources).unwrap_or_else(|at| at);
        sources.insert(at, source.clone());
        source
    }

    fn nearest_name(&self, node: &Node, mut id: ContextId) -> Arc<str> {
        while let Some(parent) = node.parent_of(id) {
            if let Some(name) = self.names.find(parent) {
                return name;
            }
            id = parent;
        }
        node.identity().name.as_str().into()
    }

    /// Hands over what has arrived in one message, and gives the room back.
    fn take_out(&self, hand: &Hand<'_>, source: &Source, message: &Message, load: Load) {
        if let Err(malformed) = self.hand_over(hand, source, &message.data) {
            source.once(|| {
                let (what, about) = ("sends what is no record:", [source.id.0.into()]);
                let text = malformed.0;
                let now = Record::now(Level::Warn, TARGET);
                hand.over(&Record { what, about: &about, text, ..self.stamped(now) });
            });
        }
        drop(load);
        self.leaves(source.id, room_of(&message.data));
    }

    fn hand_over(&self, hand: &Hand<'_>, source: &Source, batch: &[u8]) -> Result<(), Malformed> {
        let (known, context) = (self.names.find(source.id), Some(source.id));
        let tree = self.node.upgrade().map_or(0, |node| node.identity().tree);
        let mut r = Reader::new(batch, None);
        while let Some(arrived) = record::take(&mut r)? {
            let name = match &known {
                Some(name) => name.to_string(),
                None => source.name_claimed(&arrived.name),
            };
            hand.over(&arrived.as_record(tree, context, &name));
        }
        Ok(())
    }

    /// A record of this context's own, without its name.
    fn stamped<'a>(&self, record: Record<'a>) -> Record<'a> {
        let node = self.node.upgrade();
        let (tree, context) = node.map_or((0, None), |n| (n.identity().tree, Some(n.id())));
        Record { tree, context, ..record }
    }

    fn leaves(&self, src: ContextId, room: usize) {
        let granted = self.rooms.leaves(src, room, true);
        if let (Some(bytes), Some(node)) = (granted, self.node.upgrade()) {
            node.grant(src, Handle::FORWARD_LOG, bytes);
        }
    }
}

impl Source {
    fn once(&self, then: impl FnOnce()) {
        if !self.is_odd.swap(true, Ordering::Relaxed) {
            then();
        }
    }

    fn complain(&self, node: &Node, what: &'static str) {
        self.once(|| node.event(Level::Warn, what, &[self.id.0.into()]));
    }

    /// What a context that is not known says it is called: always below what is known, so that it
    /// cannot pose as another.
    fn name_claimed(&self, name: &str) -> String {
        let below = name.strip_prefix(&*self.near).and_then(|rest| rest.strip_prefix('/'));
        let mut name = [&self.near, "/", below.unwrap_or(name)].concat();
        while NAME_BYTES_MAX < name.len() {
            name.pop();
        }
        name
    }
}
