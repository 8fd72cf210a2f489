//! What a context does about logs and standard output: its own go to the master, those of its
//! children pass through, or end here.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::call::router::Router;
use crate::error::{Death, Result};
use crate::ids::{ContextId, Handle};
use crate::io::promise::promise;
use crate::io::turn::Turn;
use crate::limits::{EXIT_FLUSH, STDOUT_WAIT};
use crate::log::forward::Forward;
use crate::log::level;
use crate::route::node::Node;
use crate::route::pending::Deliver;
use crate::route::policy;
use crate::route::send::room_of;
use crate::sys::errno::Errno;
use crate::sys::{stdio, thread};
use crate::trace::Record;
use crate::wire::codec::Reader;
use crate::wire::header::Kind;
use crate::wire::message::Message;

/// What an agent does for the sake of user code; one without any does not link it.
#[derive(Clone, Copy)]
pub(crate) struct ForUsers {
    /// Writes out what was printed and is still in this process's memory.
    pub flush: fn(),
    /// Sees to it that what was printed is told when user code ends the process.
    pub guard: fn(&Router, &Arc<Forward>),
    /// Takes a record of a user's thread, which may wait for room; whether there was some.
    pub wait: fn(&Arc<Forward>, &Record<'_>) -> bool,
}

/// That of every program's agent.
pub(crate) const FOR_USERS: ForUsers =
    ForUsers { flush: flush_stdout, guard: guard_ends, wait: Forward::take_waiting };

/// Whether nobody waits to write out what was printed: it may be for ever, where a thread that
/// prints has no room, or where in a copy one of the original's was printing. It has std's lock.
static CAN_FLUSH: AtomicBool = AtomicBool::new(true);

/// After a call.
fn flush_stdout() {
    if stdio::has_no_room() {
        // Who has found that for another call waits still.
        let _ = flush_elsewhere();
    } else if CAN_FLUSH.load(Ordering::Relaxed) {
        flush();
    }
}

fn flush() {
    // Who has closed it wants nothing printed.
    let _ = std::io::stdout().flush();
}

/// Writes out what was printed and is still in this process's memory, on a thread that may wait for
/// ever; this one waits for a while.
///
/// # Errors
/// No room for a thread.
pub(super) fn flush_elsewhere() -> Result<(), Errno> {
    if !CAN_FLUSH.swap(false, Ordering::Relaxed) {
        return Ok(());
    }
    let (promise, flushed) = promise();
    let body = move || {
        flush();
        CAN_FLUSH.store(true, Ordering::Relaxed);
        promise.keep(());
    };
    let spawned = thread::spawn(c"mitogen-stdout", 0, Box::new(body));
    match &spawned {
        // Nobody is told whether it has.
        Ok(()) => _ = flushed.wait(Instant::now().checked_add(STDOUT_WAIT)),
        Err(_) => CAN_FLUSH.store(true, Ordering::Relaxed),
    }
    spawned
}

/// In a copy, while its standard output leads nowhere: there goes what its original had in memory,
/// and writes out itself.
///
/// # Errors
/// No room for a thread.
pub(super) fn forget_printed() -> Result<(), Errno> {
    // Who waits did so in the original.
    CAN_FLUSH.store(true, Ordering::Relaxed);
    flush_elsewhere()
}

/// What an agent's router keeps for who leaves the tree.
#[derive(Default)]
pub(super) struct Logs(OnceLock<Arc<Forward>>);

impl Logs {
    /// What this context forwards by; none if it is no agent.
    pub fn of(router: &Router) -> Option<Arc<Forward>> {
        router.kept(Logs::default).0.get().cloned()
    }
}

fn guard_ends(router: &Router, forward: &Arc<Forward>) {
    // Nobody else has set it.
    let _ = router.kept(Logs::default).0.set(forward.clone());
    let own = forward.clone();
    stdio::at_exit(EXIT_FLUSH, Box::new(move || own.finish_elsewhere()));
    forward.guard_abort();
}

/// Serves [`Handle::LOG_LEVEL`] in an agent.
pub(super) fn listen(node: &Arc<Node>, forward: &Arc<Forward>) -> Result<()> {
    let level = Arc::new(LogLevel { node: node.clone(), forward: forward.clone() });
    node.listen(Handle::LOG_LEVEL, Kind::Control, policy::is_ancestor, level)
}

/// Serves [`Handle::FORWARD_LOG`] in a context that is no master.
pub(super) fn listen_below(node: &Arc<Node>) -> Result<()> {
    let below = Arc::new(Below(node.clone()));
    node.listen(Handle::FORWARD_LOG, Kind::Data, policy::is_immediate_child, below)
}

struct LogLevel {
    node: Arc<Node>,
    forward: Arc<Forward>,
}

impl Deliver for LogLevel {
    fn message(&self, turn: &mut Turn, message: Message) {
        let Ok(number) = Reader::new(&message.data, None).take_u8() else { return };
        // One that only waits has told nothing new.
        if self.forward.set_level(number) || message.reply_to.is_none() {
            level::tell_children(&self.node);
            // Those of trees of its own.
            level::changed();
        }
        if let Some(handle) = message.reply_to {
            self.forward.answer_when_sent(turn, (message.src, handle));
        }
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {}
}

/// Takes what children print while the master does not want to know: who watches over their links
/// has seen it.
struct Below(Arc<Node>);

impl Deliver for Below {
    fn message(&self, _: &mut Turn, message: Message) {
        self.0.grant(message.src, Handle::FORWARD_LOG, room_of(&message.data));
    }

    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {}
}
