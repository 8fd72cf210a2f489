//! How the trees of this process hear of the level: hop by hop, each context tells its children.

use std::sync::{Arc, Weak};

use crate::ids::Handle;
use crate::lock::Lock;
use crate::route::node::{Node, Outgoing};
use crate::sys::fork;
use crate::trace;
use crate::wire::header::{Kind, Lane};

/// The contexts of this process that its own level holds for. A copy shares none with its original,
/// and may have been made while a lock was held.
static TREES: [Lock<Vec<Weak<Node>>>; 4] = [const { Lock::new(Vec::new()) }; 4];

fn trees() -> &'static Lock<Vec<Weak<Node>>> {
    &TREES[fork::generation() as usize % TREES.len()]
}

/// Has the children of this context told from now on when the level changes. One that is not an
/// agent, which is told by its parent.
pub(crate) fn register(node: &Arc<Node>) {
    let mut trees = trees().lock();
    trees.retain(|node| 0 < node.strong_count());
    trees.push(Arc::downgrade(node));
}

/// Tells all children of these contexts from which level on they are to send records.
pub(crate) fn tell_trees() {
    let nodes: Vec<_> = trees().lock().iter().filter_map(Weak::upgrade).collect();
    for node in nodes {
        let own = node.clone();
        // A child that comes up before this is told, and one that does later knows. An ended broker
        // has no children.
        let _ = node.broker().defer(move |_| tell_children(&own));
    }
}

/// As it is at this moment; on the loop, where children come up.
fn tell_children(node: &Node) {
    let level = trace::level_below();
    for dst in node.children() {
        let (kind, auth, handle) = (Kind::Control, node.id(), Handle::LOG_LEVEL);
        let out = Outgoing { kind, dst, auth, handle, reply_to: None };
        node.tell(&out, Lane::Quick, &|w| w.put_u8(level));
    }
}
