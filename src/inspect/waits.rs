//! Who waits for whom in a tree, and how a tree is shown.

use std::fmt::{self, Display, Formatter};

use crate::ids::{ContextId, Handle};
use crate::inspect::show::{Named, Span, Threads, Times};
use crate::inspect::snapshot::{Awaited, Child, ChildState, Function, Running, Snapshot, What};
use crate::inspect::tree::{Entry, Tree};

/// Waits of each kind that are shown before all else.
const SHOWN_MAX: usize = 20;
/// Steps of the margin at most: who announces contexts says whose children they are.
const MARGIN_STEPS_MAX: usize = 32;

/// Calls of one function from one context to another that are not answered.
struct Wait<'a> {
    age_ms: u64,
    count: u64,
    waiter: &'a Entry,
    callee: ContextId,
    handle: Handle,
    function: &'a Function,
}

/// Threads that sleep until there is room.
struct Held<'a> {
    by: &'a Entry,
    threads: u64,
    /// For what they send, and where; none for calls of which too many bytes are unanswered.
    target: Option<(ContextId, Handle)>,
}

impl Tree {
    /// The entry of a context, if it is in this tree.
    pub fn entry(&self, id: ContextId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.context_id == id)
    }

    /// The calls that are not answered, the oldest first.
    fn waits(&self) -> Vec<Wait<'_>> {
        let mut waits: Vec<Wait<'_>> = Vec::new();
        for waiter in &self.entries {
            let Ok(snapshot) = &waiter.outcome else { continue };
            let begin = waits.len();
            for awaited in &snapshot.pending.first {
                let Awaited { handle, age_ms, context_id: Some(callee), .. } = *awaited else {
                    continue;
                };
                let What::Call(function) = &awaited.what else { continue };
                // They come the oldest first.
                let same =
                    |wait: &&mut Wait<'_>| wait.callee == callee && wait.function == function;
                match waits[begin..].iter_mut().find(same) {
                    Some(wait) => wait.count += 1,
                    None => {
                        waits.push(Wait { age_ms, count: 1, waiter, callee, handle, function });
                    }
                }
            }
        }
        waits.sort_by_key(|wait| std::cmp::Reverse(wait.age_ms));
        waits
    }

    /// The children that are being brought up, the oldest first, and by whom.
    fn connects(&self) -> Vec<(&Entry, &Child)> {
        let mut all: Vec<(&Entry, &Child)> = Vec::new();
        for entry in &self.entries {
            let children = entry.outcome.iter().flat_map(|snapshot| &snapshot.children.first);
            let starting = children.filter(|it| matches!(it.state, ChildState::Starting(_)));
            all.extend(starting.map(|child| (entry, child)));
        }
        all.sort_by_key(|(_, child)| std::cmp::Reverse(child.age_ms));
        all
    }

    /// Where threads sleep until they may send or call, those first where most do.
    fn held(&self) -> Vec<Held<'_>> {
        let mut all = Vec::new();
        for by in &self.entries {
            let Ok(snapshot) = &by.outcome else { continue };
            let rooms = snapshot.rooms.first.iter();
            let rooms = rooms.map(|it| (it.held_senders, Some((it.context_id, it.handle))));
            let held = rooms.chain([(snapshot.held_callers, None)]).filter(|it| 0 < it.0);
            all.extend(held.map(|(threads, target)| Held { by, threads, target }));
        }
        all.sort_by_key(|held| std::cmp::Reverse(held.threads));
        all
    }

    /// What the callee says of the oldest of these calls.
    fn fate(&self, wait: &Wait<'_>) -> String {
        let waiter = wait.waiter.context_id;
        match self.entry(wait.callee).map(|entry| &entry.outcome) {
            None => "which is none of these contexts".to_owned(),
            Some(Err(_)) => "which does not answer".to_owned(),
            Some(Ok(callee)) => callee.fate(waiter, wait.handle),
        }
    }
}

impl Snapshot {
    /// What became of a call to this context.
    fn fate(&self, caller: ContextId, handle: Handle) -> String {
        let mine = |id, reply_to| (id, reply_to) == (caller, handle);
        let runs = self.running.first.iter().find(|call| mine(call.caller_id, call.reply_to));
        let mut rooms = self.rooms.first.iter().filter(|room| 0 < room.held_senders);
        if runs.is_some() && rooms.any(|room| mine(room.context_id, room.handle)) {
            return format!("which has the answer, and waits for {caller} to take it");
        }
        if let Some(Running { age_ms, .. }) = runs {
            return format!("which has run it for {}", Span(*age_ms));
        }
        let oldest = self.running.first.iter().max_by_key(|call| call.age_ms);
        if self.queued.first.iter().any(|call| mine(call.caller_id, call.reply_to)) {
            return match oldest {
                Some(call) => format!("where it is queued, while {} runs", call.function),
                None => "where it is queued".to_owned(),
            };
        }
        match self.running.more | self.queued.more {
            0 => "where it is not: it, or its answer, is on the way".to_owned(),
            _ => "which tells of too many calls to see this one".to_owned(),
        }
    }
}

impl Display for Tree {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (calls, connects, rooms) = (self.waits(), self.connects(), self.held());
        let shown = show_some(f, "calls", &calls, |f, wait| self.show_wait(f, wait))?
            + show_some(f, "connects", &connects, |f, (by, child)| show_connect(f, by, child))?
            + show_some(f, "waits for room", &rooms, |f, held| self.show_held(f, held))?;
        if 0 < shown {
            writeln!(f)?;
        }
        // Who stands above the next, from the first on.
        let mut above: Vec<&Entry> = Vec::new();
        for entry in &self.entries {
            above.truncate(entry.depth);
            let parent = above.last().filter(|it| Some(it.context_id) == entry.parent_id);
            entry.show(parent.copied(), f)?;
            above.push(entry);
        }
        Ok(())
    }
}

/// Shows the first of these, and how many more there are. Returns how many there are.
fn show_some<T>(
    f: &mut Formatter<'_>,
    what: &str,
    all: &[T],
    show: impl Fn(&mut Formatter<'_>, &T) -> fmt::Result,
) -> Result<usize, fmt::Error> {
    for one in all.iter().take(SHOWN_MAX) {
        show(f, one)?;
        writeln!(f)?;
    }
    if SHOWN_MAX < all.len() {
        writeln!(f, "and {} more {what}", all.len() - SHOWN_MAX)?;
    }
    Ok(all.len())
}

fn show_connect(f: &mut Formatter<'_>, by: &Entry, child: &Child) -> fmt::Result {
    let (who, whom, age) =
        (by.context_id, Named(child.context_id, &child.name), Span(child.age_ms));
    write!(f, "{who} waits for {whom} for {age}: pid {}, {}", child.pid, child.state)
}

impl Tree {
    fn show_wait(&self, f: &mut Formatter<'_>, wait: &Wait<'_>) -> fmt::Result {
        let (who, whom) = (wait.waiter.context_id, self.named(wait.callee));
        let (function, times, age) = (wait.function, Times(wait.count), Span(wait.age_ms));
        let fate = self.fate(wait);
        write!(f, "{who} waits for {function}{times} for {age}: in {whom}, {fate}")
    }

    fn show_held(&self, f: &mut Formatter<'_>, held: &Held<'_>) -> fmt::Result {
        let (who, threads) = (held.by.context_id, Threads(held.threads));
        write!(f, "{who} waits, in {threads}, ")?;
        let Some((context, handle)) = held.target else {
            return write!(f, "to call: too much is unanswered");
        };
        write!(f, "for {} to take what is sent to handle {handle}", self.named(context))?;
        let there = match self.entry(context).map(|entry| &entry.outcome) {
            None => return write!(f, ": it is none of these contexts"),
            Some(Err(_)) => return write!(f, ": it does not answer"),
            Some(Ok(there)) => there,
        };
        match there.receivers.first.iter().find(|it| it.handle == handle).map(|it| &it.what) {
            Some(What::Receiver(queue)) => write!(f, ": {queue}"),
            _ => Ok(()),
        }
    }

    fn named(&self, id: ContextId) -> Named<'_> {
        Named(id, self.entry(id).map_or("", |entry| &entry.name))
    }
}

impl Entry {
    fn show(&self, parent: Option<&Entry>, f: &mut Formatter<'_>) -> fmt::Result {
        let margin = "  ".repeat(self.depth.min(MARGIN_STEPS_MAX));
        match &self.outcome {
            Ok(snapshot) => {
                writeln!(f, "{margin}{}", snapshot.title())?;
                snapshot.show(f, &margin)
            }
            Err(error) => {
                let name = Named(self.context_id, &self.name);
                // What it quotes is not to look like lines of ours.
                let error = error.to_string().replace('\n', &["\n", &margin, "        "].concat());
                write!(f, "{margin}{name}: no answer: {error}")?;
                if let Some(Entry { context_id, outcome: Err(_), .. }) = parent {
                    write!(f, "; it is behind {context_id}, which does not answer either")?;
                }
                writeln!(f)
            }
        }
    }
}
