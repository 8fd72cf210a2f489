//! Answers what this context is doing, on its loop. The lists are written as they are found, by
//! those whose they are: an agent makes no values of them.

use std::sync::Arc;

use crate::error::{Death, Result};
use crate::ids::{ContextId, Handle};
use crate::io::turn::Turn;
use crate::limits::INSPECTED_MAX;
use crate::route::node::Node;
use crate::route::pending::Deliver;
use crate::route::policy;
use crate::wire::codec::{Reader, Writer};
use crate::wire::header::Kind;
use crate::wire::message::Message;

/// Serves [`Handle::INSPECT`] for those who have authority over this context.
pub(crate) fn listen(node: &Arc<Node>) -> Result<()> {
    let to = Arc::new(Inspect(node.clone()));
    node.listen(Handle::INSPECT, Kind::Control, policy::has_parent_authority, to)
}

struct Inspect(Arc<Node>);

impl Deliver for Inspect {
    fn message(&self, turn: &mut Turn, message: Message) {
        let Some(handle) = message.reply_to else { return };
        let (turn, asker) = (&*turn, (message.src, handle));
        let wanted = Reader::new(&message.data, None).take_varint().unwrap_or(0);
        let max = wanted.min(INSPECTED_MAX as u64) as usize;
        self.0.answer(asker, &|w| put(&self.0, turn, asker, max, w));
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {}
}

/// Appends a [`Snapshot`](super::Snapshot) with lists of at most so many entries. The answer to
/// `asker` is not among those that are awaited.
fn put(node: &Node, turn: &Turn, asker: (ContextId, Handle), max: usize, w: &mut Writer<'_>) {
    node.put_self(turn, w);
    turn.put_state(w);
    node.put_routes(max, w);
    turn.put_streams(node.tenant(), max, w);
    node.put_rooms(max, w);
    node.put_listeners(asker, max, w);
    turn.put_counters(w);
}
