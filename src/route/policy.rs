//! Who may send to a handle. A policy decides by what a message says of its source, which was
//! verified on its way, and by where it has arrived. Pure.

use crate::ids::ContextId;
use crate::wire::message::Message;

/// What a policy knows besides the message.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The context that the message arrived in.
    pub me: ContextId,
    /// Its ancestors, the nearest first; none in the master.
    pub parents: &'a [ContextId],
    /// Whether a direct child has sent it.
    pub is_child: bool,
    /// Whether a direct child or the parent has sent it.
    pub is_neighbour: bool,
    /// Whether it acts under an authority that was granted ours, by
    /// [`Context::grant`](crate::Context::grant).
    pub is_granted: bool,
}

/// Decides whether a message may be delivered.
pub type Policy = fn(&Message, &Arrival<'_>) -> bool;

/// Lets everybody send.
pub fn anyone(_: &Message, _: &Arrival<'_>) -> bool {
    true
}

/// Lets ancestors send, this context itself, whom either has granted that, and who acts under the
/// authority of one of these.
pub fn has_parent_authority(message: &Message, at: &Arrival<'_>) -> bool {
    at.is_granted || is_ancestor(message, at)
}

/// Lets direct children send, for themselves.
pub fn is_immediate_child(message: &Message, at: &Arrival<'_>) -> bool {
    at.is_child && message.auth == message.src
}

/// As [`has_parent_authority`], but for those who were granted it: authority is not passed on.
pub(crate) fn is_ancestor(message: &Message, at: &Arrival<'_>) -> bool {
    message.auth == at.me || at.parents.contains(&message.auth)
}
