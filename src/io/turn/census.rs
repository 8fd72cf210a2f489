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

    /// Appends the streams of a tenant, first those that wait; then those of its children whose
    /// processes are watched, first those that are being brought up.
    pub fn put_streams(&self, tenant: Tenant, max: usize, w: &mut Writer<'_>) {
        for of_children in [false, true] {
            let mut list = List::new(max);
            // What may be why something hangs is not to be among the rest, which is not told.
            for is_first in [true, false] {
                for stream in self.streams.iter().filter(|stream| stream.tenant == tenant) {
                    match (of_children, &stream.protocol) {
                        (false, _) => stream.put(is_first, &mut list, w),
                        (true, Some(child)) => child.describe(is_first, &mut list, w),
                        _ => (),
                    }
                }
            }
            list.end(w);
        }
    }
}

impl Stream {
    /// Appends it, if that is whether it waits.
    fn put(&self, waits: bool, list: &mut List, w: &mut Writer<'_>) {
        if (self.writing || !self.reading) != waits || !list.has_room(w) {
            return;
        }
        self.role.put(w);
        let (bytes, held) = self.outbox.as_ref().map_or((0, 0), |outbox| outbox.census());
        put_all(&[bytes as u64, held as u64, self.reading.into(), self.writing.into()], w);
    }
}
