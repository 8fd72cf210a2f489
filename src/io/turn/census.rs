//! What a loop tells of itself.

use super::{Stream, Tenant, Turn};
use crate::io::census::{List, put_all, put_left};
use crate::wire::codec::Writer;

impl Turn {
    /// Appends whether the turn is lent, how many timers are set, and the milliseconds until the
    /// first is due.
    pub fn put_state(&self, w: &mut Writer<'_>) {
        put_all(&[self.is_lent.into(), self.timers.count() as u64], w);
        put_left(self.next_timer(), w);
    }

    /// Appends the streams of a tenant, then those of its children whose processes are watched.
    pub fn put_streams(&self, tenant: Tenant, max: usize, w: &mut Writer<'_>) {
        for of_children in [false, true] {
            let mut list = List::new(max);
            for stream in self.streams.iter().filter(|stream| stream.tenant == tenant) {
                match (of_children, &stream.protocol) {
                    (false, _) if list.has_room(w) => stream.put(w),
                    (true, Some(child)) if stream.role.is_process() && list.has_room(w) => {
                        child.describe(w);
                    }
                    _ => (),
                }
            }
            list.end(w);
        }
    }
}

impl Stream {
    fn put(&self, w: &mut Writer<'_>) {
        self.role.put(w);
        let (bytes, held) = self.outbox.as_ref().map_or((0, 0), |outbox| outbox.census());
        put_all(&[bytes as u64, held as u64, self.reading.into(), self.writing.into()], w);
    }
}
