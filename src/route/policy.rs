//! Who may send to a handle.

use crate::ids::ContextId;
use crate::wire::message::Message;

/// What a policy knows besides the message.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The context that the message arrived in.
    pub me: ContextId,
    /// Its ancestors, the nearest first.
    pub parents: &'a [ContextId],
}

/// Decides whether a message may be delivered.
pub type Policy = fn(&Message, &Arrival<'_>) -> bool;

/// Lets everybody send.
pub fn anyone(_: &Message, _: &Arrival<'_>) -> bool {
    true
}

/// Lets ancestors send, this context itself, and who acts under their authority.
pub fn has_parent_authority(message: &Message, at: &Arrival<'_>) -> bool {
    message.auth == at.me || at.parents.contains(&message.auth)
}
