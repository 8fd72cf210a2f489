//! Identities: contexts, handles, and the handles that every context serves.
//! They are types, so that one is never taken for another.

use std::fmt;

/// Names one context of a tree. The first process, the *master*, is 0; no id is ever used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextId(pub u32);

impl ContextId {
    /// The first process of the tree.
    pub const MASTER: ContextId = ContextId(0);
}

/// Names one destination of messages inside a context.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u32);

impl Handle {
    /// Calls of functions; served by an agent's dispatcher.
    pub const CALL: Handle = Handle(1);
    /// A child tells of a context that lives below it.
    pub const ADD_ROUTE: Handle = Handle(2);
    /// A neighbour tells of a context that is gone, and why.
    pub const DEL_ROUTE: Handle = Handle(3);
    /// A child asks for ids to give to children of its own.
    pub const ALLOCATE_ID: Handle = Handle(4);
    /// An ancestor asks a context to end.
    pub const SHUTDOWN: Handle = Handle(5);
    /// An ancestor asks a context to start a child.
    pub const CONNECT: Handle = Handle(6);
    /// The first message to a new context: who it is.
    pub const CONFIGURE: Handle = Handle(7);
    /// A context that holds a Sender tells the Receiver's context that another holds one, too.
    pub const HOLD: Handle = Handle(8);
    /// A child asks for a piece of an image.
    pub const GET_IMAGE: Handle = Handle(9);
    /// Handles below this one are given out by this library's protocol alone.
    pub const FIRST_DYNAMIC: Handle = Handle(256);
    /// Receivers' handles are random and at least this, so that they cannot be guessed and never
    /// meet the handles of pending answers.
    pub const FIRST_RANDOM: Handle = Handle(1 << 30);
}

impl fmt::Display for ContextId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ContextId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
