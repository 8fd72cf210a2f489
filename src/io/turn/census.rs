//! What a loop tells of itself.

use std::time::Instant;

use super::{Stream, Tenant, Turn};
use crate::io::census::{Role, put_list};
use crate::wire::codec::{Encode, Writer};

impl Turn {
    /// Appends whether the turn is lent, how many timers are set, and the milliseconds until the
    /// first is due.
    pub fn put_state(&self, w: &mut Writer<'_>) {
        self.is_lent.encode(w);
        w.put_varint(self.timers.count() as u64);
        let left = |at: Instant| at.saturating_duration_since(Instant::now()).as_millis() as u64;
        self.next_timer().map(left).encode(w);
    }

    /// Appends the streams of a tenant, then those of its children whose processes are watched.
    pub fn put_streams(&self, tenant: Tenant, max: usize, w: &mut Writer<'_>) {
        let own = |stream: &&Stream| stream.tenant == tenant;
        let all: Vec<&Stream> = self.streams.iter().filter(own).collect();
        put_list(all.len(), max, w, &mut |at, w| all[at].put(w));
        let is_child = |stream: &&&Stream| matches!(stream.role, Role::Process(_));
        let children = all.iter().filter(is_child).filter_map(|it| it.protocol.as_deref());
        let children: Vec<_> = children.collect();
        put_list(children.len(), max, w, &mut |at, w| children[at].describe(w));
    }
}

impl Stream {
    fn put(&self, w: &mut Writer<'_>) {
        self.role.put(w);
        let (bytes, held) = self.outbox.as_ref().map_or((0, 0), |outbox| outbox.census());
        w.put_varint(bytes as u64);
        w.put_varint(held as u64);
        self.reading.encode(w);
        self.writing.encode(w);
    }
}
