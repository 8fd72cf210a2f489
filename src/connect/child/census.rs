//! What a child and its process are, as this context tells who inspects it.

use super::Child;
use crate::limits::INSPECTED_NAME_BYTES_MAX;
use crate::wire::codec::{Encode, Writer};

impl Child {
    /// Appends it, as the type `Child` of a snapshot.
    pub(super) fn describe(&self, w: &mut Writer<'_>) {
        let state = self.lock();
        state.id.encode(w);
        let attempt = state.attempt.as_ref();
        let name = attempt.map_or("", |attempt| &attempt.handshake.recipe().name);
        let mut end = name.len().min(INSPECTED_NAME_BYTES_MAX);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        w.put_bytes(&name.as_bytes()[..end]);
        w.put_varint(state.process.id() as u64);
        let ends = state.ending.is_some() || state.main.is_none();
        w.put_u8(match (state.exit, attempt) {
            (Some(_), _) => 4,
            _ if state.detached => 3,
            (_, Some(_)) => 0,
            _ => 1 + u8::from(ends),
        });
        if let (None, false, Some(attempt)) = (state.exit, state.detached, attempt) {
            attempt.handshake.phase().encode(w);
        }
        w.put_varint(state.since.age_ms());
    }
}
