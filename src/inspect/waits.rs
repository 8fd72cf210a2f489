//! Who waits for whom in a tree, and how a tree is shown.

use std::fmt::{self, Display, Formatter};

use crate::ids::{ContextId, Handle};
use crate::inspect::show::{Named, Span, Times};
use crate::inspect::snapshot::{Awaited, Function, Running, Snapshot, What};
use crate::inspect::tree::{Entry, Tree};

/// Waits that are shown before all else.
const SHOWN_MAX: usize = 20;

/// Calls of one function from one context to another that are not answered.
struct Wait<'a> {
    age_ms: u64,
    count: u64,
    waiter: &'a Entry,
    callee: ContextId,
    handle: Handle,
    function: &'a Function,
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
        let waits = self.waits();
        for wait in waits.iter().take(SHOWN_MAX) {
            let whom = self.entry(wait.callee).map_or("", |entry| &entry.name);
            let (who, whom) = (wait.waiter.context_id, Named(wait.callee, whom));
            let (function, times, age) = (wait.function, Times(wait.count), Span(wait.age_ms));
            let fate = self.fate(wait);
            writeln!(f, "{who} waits for {function}{times} for {age}: in {whom}, {fate}")?;
        }
        if SHOWN_MAX < waits.len() {
            writeln!(f, "and {} more calls", waits.len() - SHOWN_MAX)?;
        }
        if !waits.is_empty() {
            writeln!(f)?;
        }
        self.entries.iter().try_for_each(|entry| self.show(entry, f))
    }
}

impl Tree {
    fn show(&self, entry: &Entry, f: &mut Formatter<'_>) -> fmt::Result {
        let margin = "  ".repeat(entry.depth);
        match &entry.outcome {
            Ok(snapshot) => {
                writeln!(f, "{margin}{}", snapshot.title())?;
                snapshot.show(f, &margin)
            }
            Err(error) => {
                let name = Named(entry.context_id, &entry.name);
                write!(f, "{margin}{name}: no answer: {error}")?;
                let parent = entry.parent_id.and_then(|id| self.entry(id));
                if let Some(Entry { context_id, outcome: Err(_), .. }) = parent {
                    write!(f, "; it is behind {context_id}, which does not answer either")?;
                }
                writeln!(f)
            }
        }
    }
}
