//! What a child and its process are, as this context tells who inspects it.

use super::Child;
use crate::io::census::{List, put_all};
use crate::limits::INSPECTED_NAME_BYTES_MAX;
use crate::sys::text::lossy;
use crate::wire::codec::Writer;

impl Child {
    /// Appends it, as the type `Child` of a snapshot, if that is whether it is being brought up.
    pub(super) fn describe(&self, is_starting: bool, list: &mut List, w: &mut Writer<'_>) {
        let state = self.lock();
        if state.attempt.is_some() != is_starting || !list.has_room(w) {
            return;
        }
        put_all(&[state.id.0.into()], w);
        let attempt = state.attempt.as_ref();
        let name = attempt.map_or("", |attempt| &attempt.handshake.recipe().name);
        // A character that is cut is shown as such.
        let name = lossy(&name.as_bytes()[..name.len().min(INSPECTED_NAME_BYTES_MAX)]);
        w.put_bytes(name.as_bytes());
        let ends = state.ending.is_some() || state.main.is_none();
        let how = match (state.exit, attempt) {
            (Some(_), _) => 4,
            _ if state.detached => 3,
            (_, Some(_)) => 0,
            _ => 1 + u64::from(ends),
        };
        put_all(&[state.process.id() as u64, how], w);
        if let (0, Some(attempt)) = (how, attempt) {
            put_all(&[attempt.handshake.phase() as u64], w);
        }
        put_all(&[state.since.age_ms()], w);
    }
}
