//! How what a loop has is told to those who inspect it.

use crate::ids::ContextId;
use crate::wire::codec::{Encode, Writer};

/// What a stream leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Something else.
    Other,
    /// The parent.
    Parent,
    /// A child that is up.
    Child(ContextId),
    /// A child that is being brought up.
    Starting(ContextId),
    /// A child's terminal or standard error.
    Terminal(ContextId),
    /// A child's process.
    Process(ContextId),
    /// A process of the program's.
    Watched,
    /// A stream of the program's.
    Attached,
}

impl Role {
    /// Appends it.
    pub fn put(self, w: &mut Writer<'_>) {
        let (tag, id) = match self {
            Role::Other => (0, None),
            Role::Parent => (1, None),
            Role::Child(id) => (2, Some(id)),
            Role::Starting(id) => (3, Some(id)),
            Role::Terminal(id) => (4, Some(id)),
            Role::Process(id) => (5, Some(id)),
            Role::Watched => (6, None),
            Role::Attached => (7, None),
        };
        w.put_u8(tag);
        if let Some(id) = id {
            id.encode(w);
        }
    }
}

/// Appends the first `max` of `count` items by `put`, between how many these are, and how many
/// there are more.
pub fn put_list(
    count: usize,
    max: usize,
    w: &mut Writer<'_>,
    put: &mut dyn FnMut(usize, &mut Writer<'_>),
) {
    let first = count.min(max);
    w.put_varint(first as u64);
    for at in 0..first {
        put(at, w);
    }
    w.put_varint((count - first) as u64);
}
