//! What waits to be sent to the master or the parent: encoded records, many in one message.

use std::collections::VecDeque;

use crate::ids::ContextId;
use crate::limits::{FRAGMENT_BYTES, LOG_QUEUE_BYTES, LOG_RECORD_BYTES_MAX};
use crate::log::record;
use crate::route::identity::Identity;
use crate::trace::Record;
use crate::wire::codec::Writer;

/// What waits to be sent.
pub struct Queue {
    /// Each is one message.
    pub batches: VecDeque<Batch>,
    /// Invariant: what the batches hold; at most LOG_DRAINED_BYTES_MAX and one record.
    pub bytes: usize,
    /// Whose records they are.
    pub id: ContextId,
    /// Its name.
    pub name: String,
}

/// Encoded records that travel together.
pub struct Batch {
    /// Whether the master gets them, or the parent.
    pub to_master: bool,
    /// The message.
    pub bytes: Vec<u8>,
    /// How many are lost if it is; one that tells of others counts as these.
    pub records: u64,
}

impl Queue {
    /// An empty one of this context.
    pub fn of(identity: &Identity) -> Queue {
        let (id, name) = (identity.id, identity.name.clone());
        Queue { batches: VecDeque::new(), bytes: 0, id, name }
    }

    /// Whether one more record may be added.
    pub fn has_room(&self) -> bool {
        self.bytes < LOG_QUEUE_BYTES
    }

    /// Appends a record, which stands for so many, to the last message, if it is for the same and
    /// has room.
    pub fn put(&mut self, record: &Record<'_>, to_master: bool, records: u64) {
        let mut batch = match self.batches.pop_back() {
            Some(last) if last.to_master == to_master && last.bytes.len() <= BATCH_BYTES => last,
            other => {
                self.batches.extend(other);
                Batch { to_master, bytes: Vec::new(), records: 0 }
            }
        };
        let before = batch.bytes.len();
        let mut w = Writer::new(batch.bytes, None);
        let is_own = record.tree == 0 && record.context.is_none_or(|id| id == self.id);
        // The master knows this context's name, and not of which other this one speaks.
        let of_other =
            if is_own { String::new() } else { [record.name, " ", record.target].concat() };
        let target = if is_own { record.target } else { &of_other };
        record::put(&Record { name: &self.name, target, ..*record }, &mut w);
        batch.bytes = w.finish().unwrap_or_default();
        batch.records += records;
        self.bytes += batch.bytes.len() - before;
        self.batches.push_back(batch);
    }
}

/// Bytes of a message to which the largest record can be added.
const BATCH_BYTES: usize = FRAGMENT_BYTES - LOG_RECORD_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Level, TARGET};
    use crate::wire::codec::Reader;

    #[test]
    fn what_another_context_has_said_is_not_taken_for_ones_own() {
        let id = ContextId(2);
        let mut queue =
            Queue::of(&Identity { id, name: "own".to_owned(), ..Identity::of_master() });
        let of = |target| Record::now(Level::Info, target);
        let child = Record { context: Some(ContextId(9)), name: "own/child", ..of("stderr") };
        // Of a tree that this process is the master of, and has the same number there.
        let nested = Record { tree: 1, context: Some(id), name: "own", ..of("stdout") };
        let own = Record { context: Some(id), name: "own", ..of(TARGET) };
        [child, nested, own, of("here")].iter().for_each(|record| queue.put(record, true, 1));
        let mut r = Reader::new(&queue.batches[0].bytes, None);
        for target in ["own/child stderr", "own stdout", TARGET, "here"] {
            let record = record::take(&mut r).unwrap().unwrap();
            assert_eq!((&*record.target, &*record.name), (target, "own"));
        }
    }
}
