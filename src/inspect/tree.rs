//! What all contexts of a tree are doing, as one of them sees it.

use std::time::Duration;

use crate::error::Error;
use crate::ids::ContextId;
use crate::inspect::snapshot::Snapshot;

/// The contexts from one on downwards. [`Display`](std::fmt::Display) shows all, and who waits for
/// whom first.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Each context before those that it has started; the one that has asked is the first.
    pub entries: Vec<Entry>,
}

/// One context of a [`Tree`].
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its id.
    pub context_id: ContextId,
    /// Its name, as far as it is known here: of one that does not answer, if it was started here.
    pub name: String,
    /// Who started it; none of the one that has asked.
    pub parent_id: Option<ContextId>,
    /// How many contexts are between it and the one that has asked, that one counted.
    pub depth: usize,
    /// How long it took to answer, if it did: one round trip, beside those of all others.
    pub round_trip: Option<Duration>,
    /// What it is doing; or why that is not known:
    /// [`ErrorKind::Timeout`](crate::error::ErrorKind) if it did not answer in time.
    pub outcome: Result<Snapshot, Error>,
}

impl Tree {
    /// Has each context stand before those that it has started, in the order of ids; the first
    /// entry is the one that has asked.
    pub(super) fn in_order(all: Vec<Entry>) -> Tree {
        let mut left: Vec<Option<Entry>> = all.into_iter().map(Some).collect();
        let mut children: Vec<(ContextId, usize)> = Vec::new();
        for (at, entry) in left.iter().enumerate() {
            if let Some(Entry { parent_id: Some(parent), .. }) = entry {
                children.push((*parent, at));
            }
        }
        children.sort_unstable();
        let mut entries = Vec::with_capacity(left.len());
        let mut next = vec![(0, 0)];
        while let Some((at, depth)) = next.pop() {
            let Some(entry) = left.get_mut(at).and_then(Option::take) else { continue };
            let first = children.partition_point(|(parent, _)| *parent < entry.context_id);
            let own = children[first..].iter().take_while(|(id, _)| *id == entry.context_id);
            let own: Vec<usize> = own.map(|(_, at)| *at).collect();
            next.extend(own.into_iter().rev().map(|at| (at, depth + 1)));
            entries.push(Entry { depth, ..entry });
        }
        // Those whose parent ended while they were asked about.
        entries.extend(left.into_iter().flatten());
        Tree { entries }
    }
}
