//! Asks contexts what they are doing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::call::context::Context;
use crate::call::registry::{Found, Registry};
use crate::call::router::Router;
use crate::error::{Cause, Death, Error, ErrorKind, Result};
use crate::ids::{ContextId, Handle};
use crate::inspect::snapshot::{Function, Snapshot, What};
use crate::inspect::tree::{Entry, Tree};
use crate::io::latch::Latch;
use crate::io::turn::Turn;
use crate::limits::{
    INSPECT_WAIT, INSPECTED_ENTRY_BYTES, INSPECTED_MAX, INSPECTED_TREE_BYTES, UNGRANTED_BYTES_MAX,
};
use crate::route::node::{Outgoing, Payload};
use crate::route::pending::Deliver;
use crate::wire::codec::{Decode, Malformed, Reader};
use crate::wire::frame::FrameBuf;
use crate::wire::header::{Kind, Lane};
use crate::wire::message::Message;

impl Router {
    /// What this context is doing. Its loop tells it: in at most 3 seconds, if that is held up.
    ///
    /// # Errors
    /// As [`Context::inspect`].
    pub fn inspect(&self) -> Result<Snapshot> {
        self.myself().inspect(INSPECT_WAIT)
    }

    /// What this context and all below it are doing: all are asked at once, and those that have
    /// not answered within `limit` are shown so. After the shutdown nobody answers.
    ///
    /// Of ten thousand contexts each tells less: all of it together has some MiB at most.
    pub fn inspect_tree(&self, limit: Duration) -> Tree {
        let deadline = Instant::now().checked_add(limit);
        let me = self.myself();
        let mut below = self.node().below();
        let shared = INSPECTED_TREE_BYTES / (below.len() + 1) / INSPECTED_ENTRY_BYTES;
        let entries = shared.clamp(2, INSPECTED_MAX);
        // First, so that what it waits for is not these answers. It needs no room on a line.
        let own = Asked::ask(&me, INSPECTED_MAX).and_then(|asked| asked.get(deadline));
        let mut all = vec![entry(&me, None, own)];
        let asked: Vec<_> = below
            .drain(..)
            .map(|id| {
                let context = self.context_by_id(id);
                let asked = Asked::ask(&context, entries);
                (context, self.node().parent_of(id), asked)
            })
            .collect();
        for (context, parent, asked) in asked {
            let told = asked.and_then(|asked| asked.get(deadline));
            all.push(entry(&context, parent, told));
        }
        Tree::in_order(all)
    }
}

fn entry(context: &Context, parent_id: Option<ContextId>, outcome: Result<Told>) -> Entry {
    let told = outcome.as_ref().map(|(snapshot, _)| snapshot.name.as_str());
    let name = told.unwrap_or(context.name()).to_owned();
    let round_trip = outcome.as_ref().ok().map(|(_, took)| *took);
    let (context_id, outcome) = (context.context_id(), outcome.map(|(snapshot, _)| snapshot));
    Entry { context_id, name, parent_id, depth: 0, round_trip, outcome }
}

impl Context {
    /// What this context is doing, or [`ErrorKind::Timeout`] if it does not tell within `limit`:
    /// then it is stopped, or something on the way there is. What its functions do is no matter.
    ///
    /// # Errors
    /// Also [`ErrorKind::Closed`] if it is gone, or refuses since we have no authority over it, or
    /// after the shutdown; `Malformed` if it answers what is no snapshot; `Interrupted` after a
    /// signal; `Usage` on a broker's own thread.
    pub fn inspect(&self, limit: Duration) -> Result<Snapshot> {
        let deadline = Instant::now().checked_add(limit);
        Asked::ask(self, INSPECTED_MAX)?.get_once(deadline).map(|(snapshot, _)| snapshot)
    }
}

/// Where an answer arrives, and when.
type Answer = Latch<(Instant, Result<Message, Death>)>;

/// What a context told, and how long that took.
type Told = (Snapshot, Duration);

/// A context that was asked.
struct Asked {
    router: Router,
    /// Which, and its name if that is known.
    whom: (ContextId, String),
    handle: Handle,
    answer: Arc<Answer>,
    begun: Instant,
}

impl Asked {
    /// Asks for lists of at most so many entries. Never sleeps.
    fn ask(context: &Context, entries: usize) -> Result<Asked> {
        let (router, dst, auth) = (context.router(), context.context_id(), context.authority());
        let node = router.node();
        node.broker().forbid_own_thread()?;
        node.forbid_closed()?;
        node.forbid_acting_for(auth, dst)?;
        let answer = Arc::new(Answer::new());
        let handle = node.listen_for_answer(dst, answer.clone())?;
        let begun = Instant::now();
        let whom = (dst, context.name().to_owned());
        let asked = Asked { router: router.clone(), whom, handle, answer, begun };
        let reply_to = Some(handle);
        let out = Outgoing { kind: Kind::Control, dst, auth, handle: Handle::INSPECT, reply_to };
        let wanted: Payload<'_> = &|w| w.put_varint(entries as u64);
        if dst == node.id() {
            node.send(&out, FrameBuf::encode(None, wanted).unwrap_or_default())?;
        } else if !node.tell(&out, Lane::Quick, wanted) {
            return Err(Death::of(Cause::NoRoute).at(dst).into());
        }
        Ok(asked)
    }

    /// As [`Asked::get_once`]; a signal does not end it.
    fn get(self, deadline: Option<Instant>) -> Result<Told> {
        loop {
            match self.get_once(deadline) {
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted) => continue,
                told => return told,
            }
        }
    }

    fn get_once(&self, deadline: Option<Instant>) -> Result<Told> {
        let (at, message) = self.router.broker().wait(&self.answer, deadline)?;
        let (id, name) = &self.whom;
        let mut snapshot = read(&message?.data)?.of(*id, name)?;
        snapshot.resolve(self.router.registry());
        Ok((snapshot, at.saturating_duration_since(self.begun)))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.router.node().unlisten(self.handle);
    }
}

impl Deliver for Answer {
    fn message(&self, _: &mut Turn, message: Message) {
        // Nobody waits at a closed one.
        let _ = self.put((Instant::now(), Ok(message)));
    }

    fn dead(&self, _: &mut Turn, _: ContextId, death: &Death) {
        let _ = self.put((Instant::now(), Err(death.clone())));
    }
}

/// The snapshot in an answer, which a stranger may have made.
pub(super) fn read(bytes: &[u8]) -> Result<Snapshot> {
    let read = || {
        if UNGRANTED_BYTES_MAX < bytes.len() as u64 {
            return Err(Malformed("a snapshot that is too long"));
        }
        let mut r = Reader::new(bytes, None);
        let snapshot = Snapshot::decode(&mut r)?;
        r.finish().map(|()| snapshot)
    };
    read().map_err(|Malformed(why)| Error::new(ErrorKind::Malformed(why)))
}

impl Snapshot {
    /// That of this context, under the name that it has here, whatever it calls itself.
    pub(super) fn of(mut self, id: ContextId, name: &str) -> Result<Snapshot> {
        if self.context_id != id {
            return Err(Error::new(ErrorKind::Malformed("a snapshot of another context")));
        }
        if !name.is_empty() {
            name.clone_into(&mut self.name);
        }
        Ok(self)
    }

    /// Gives the functions the names that this program knows for them.
    fn resolve(&mut self, registry: &Registry) {
        let pending = self.pending.first.iter_mut().filter_map(|awaited| match &mut awaited.what {
            What::Call(function) | What::CallNoReply(function) => Some(function),
            _ => None,
        });
        let running = self.running.first.iter_mut().map(|call| &mut call.function);
        let queued = self.queued.first.iter_mut().map(|call| &mut call.function);
        for Function { fingerprint, name } in pending.chain(running).chain(queued) {
            if let Found::Entry(entry) | Found::OtherSignature(entry) = registry.find(*fingerprint)
            {
                *name = entry.name().to_owned();
            }
        }
    }
}
