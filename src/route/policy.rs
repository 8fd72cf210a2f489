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
    /// The direct child by whose link it came; none from the parent or from here.
    pub child: Option<ContextId>,
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

/// Lets the direct child send that stands at the other end of the link, and nobody behind it.
pub fn is_immediate_child(message: &Message, at: &Arrival<'_>) -> bool {
    at.child == Some(message.src) && message.auth == message.src
}

/// Lets the direct child or the direct parent send: what neighbours tell each other.
pub fn is_neighbour(message: &Message, at: &Arrival<'_>) -> bool {
    is_immediate_child(message, at)
        || at.child.is_none() && at.parents.first() == Some(&message.src)
}
