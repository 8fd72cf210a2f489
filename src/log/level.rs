//! How the trees of this process hear of the level: hop by hop, each context tells its children.

use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::error::{Death, Result};
use crate::ids::{ContextId, Handle};
use crate::io::latch::Latch;
use crate::io::turn::Turn;
use crate::limits::{LOG_ASKED_MAX, LOG_GATHER_TIME};
use crate::lock::Lock;
use crate::log::sink::may_wait;
use crate::route::credit::was_interrupted;
use crate::route::node::{Node, Outgoing};
use crate::route::pending::Deliver;
use crate::route::policy;
use crate::sys::fork;
use crate::trace;
use crate::wire::header::{Kind, Lane};
use crate::wire::message::Message;

/// The contexts of this process that its own level holds for. A copy shares none with its original,
/// and may have been made while a lock was held.
static TREES: [Lock<Trees>; 4] = [const { Lock::new(Trees { list: Vec::new(), tell: None }) }; 4];

struct Trees {
    list: Vec<Weak<Node>>,
    /// As [`tell_trees`], once there is one: an agent without them does not link it.
    tell: Option<fn()>,
}

fn trees() -> &'static Lock<Trees> {
    &TREES[fork::generation() as usize % TREES.len()]
}

/// Has the children of this context told from now on when the level changes. One that is not an
/// agent, which is told by its parent.
pub(crate) fn register(node: &Arc<Node>) {
    let mut trees = trees().lock();
    trees.tell = Some(tell_trees);
    trees.list.retain(|node| 0 < node.strong_count());
    trees.list.push(Arc::downgrade(node));
}

/// Serves [`Handle::LOG_LEVEL`] in a context of this process, whose records are here already.
///
/// # Errors
/// As [`Node::listen`].
pub(crate) fn serve_in_process(node: &Arc<Node>) -> Result<()> {
    register(node);
    let to = Arc::new(Here(Arc::downgrade(node)));
    node.listen(Handle::LOG_LEVEL, Kind::Control, policy::is_ancestor, to)
}

struct Here(Weak<Node>);

impl Deliver for Here {
    fn message(&self, _: &mut Turn, message: Message) {
        if let (Some(handle), Some(node)) = (message.reply_to, self.0.upgrade()) {
            node.answer((message.src, handle), &|_| ());
        }
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {}
}

/// The level of this process is another one.
pub(crate) fn changed() {
    let tell = trees().lock().tell;
    if let Some(tell) = tell {
        tell();
    }
}

/// Tells all children of these contexts from which level on they are to send records.
fn tell_trees() {
    let nodes: Vec<_> = trees().lock().list.iter().filter_map(Weak::upgrade).collect();
    for node in nodes {
        let own = node.clone();
        // A child that comes up before this is told, and one that does later knows. An ended broker
        // has no children.
        let _ = node.broker().defer(move |_| tell_children(&own));
    }
}

/// As it is at this moment; on the loop, where children come up.
pub(crate) fn tell_children(node: &Node) {
    for id in node.children() {
        tell(node, id, None);
    }
}

/// Tells one context the level. Returns whether there is a way there.
fn tell(node: &Node, dst: ContextId, reply_to: Option<Handle>) -> bool {
    let (kind, auth, handle) = (Kind::Control, node.id(), Handle::LOG_LEVEL);
    let out = Outgoing { kind, dst, auth, handle, reply_to };
    node.tell(&out, Lane::Quick, &|w| w.put_u8(trace::level_below()))
}

/// Waits, for a second at most, until every context below has sent what was logged and printed in
/// it by now, or is gone. With the log off there is nothing to wait for, and nobody is asked.
pub(crate) fn gather(node: &Arc<Node>) {
    if trace::level_below() == 0 || !may_wait() || node.is_closed() {
        return;
    }
    let deadline = Instant::now().checked_add(LOG_GATHER_TIME);
    let (answers, mut asked) = (Arc::new(Answers(Latch::new())), 0);
    let mut below = node.below().into_iter();
    loop {
        while asked < LOG_ASKED_MAX {
            let Some(id) = below.next() else { break };
            asked += usize::from(ask(node, id, &answers));
        }
        if asked == 0 {
            return;
        }
        match node.broker().wait(&answers.0, deadline) {
            Ok(()) => asked -= 1,
            Err(error) if was_interrupted(&error) => (),
            Err(_) => return,
        }
    }
}

/// Asks one context to tell when all was sent. Returns whether it, or its end, will.
fn ask(node: &Node, id: ContextId, answers: &Arc<Answers>) -> bool {
    let Ok(handle) = node.listen_for_answer(id, answers.clone()) else { return false };
    let is_told = tell(node, id, Some(handle));
    if !is_told {
        node.unlisten(handle);
    }
    is_told
}

/// Where an item comes for each that has answered, or is gone.
struct Answers(Latch<()>);

impl Deliver for Answers {
    fn message(&self, _: &mut Turn, _: Message) {
        // It is never closed.
        let _ = self.0.put(());
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {
        let _ = self.0.put(());
    }
}
