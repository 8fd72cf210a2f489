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
    /// An ancestor asks a context to cut a child of it off.
    pub const DISCONNECT: Handle = Handle(10);
    /// An ancestor gives another context authority over this one, or takes it back.
    pub const GRANT: Handle = Handle(11);
    /// A neighbour says that it is there.
    pub const BEAT: Handle = Handle(12);
    /// A child says that it leaves the tree.
    pub const DETACH: Handle = Handle(13);
    /// Who has called says that it waits for the answer no longer.
    pub const CANCEL: Handle = Handle(14);
    /// A context tells an ancestor what was logged and printed in it.
    pub const FORWARD_LOG: Handle = Handle(15);
    /// An ancestor says from which level on records are to be sent to the master; and may ask to be
    /// told when all that was logged before has been.
    pub const LOG_LEVEL: Handle = Handle(16);
    /// An ancestor asks what a context is doing.
    pub const INSPECT: Handle = Handle(17);
    /// Handles below this one are given out by this library's protocol alone.
    pub const FIRST_DYNAMIC: Handle = Handle(256);
    /// Receivers' handles are random and at least this, so that they cannot be guessed and never
    /// meet the handles of pending answers.
    pub const FIRST_RANDOM: Handle = Handle(1 << 30);

    /// A handle of a program's own that both ends know by its number, below 2^30. It never meets a
    /// random one. Whoever can reach the context may send there, if the policy allows it.
    pub const fn well_known(number: u32) -> Handle {
        Handle(WELL_KNOWN | (number & (WELL_KNOWN / 2 - 1)))
    }

    /// A handle that nobody can guess, made of random bits.
    pub(crate) const fn random(bits: u32) -> Handle {
        Handle(bits | Handle::FIRST_RANDOM.0)
    }

    /// Whether it is one of a program's own.
    pub(crate) const fn is_well_known(self) -> bool {
        self.0 & (3 << 30) == WELL_KNOWN
    }
}

/// The highest two bits of well-known handles: 10. Random ones have 01 or 11.
const WELL_KNOWN: u32 = 1 << 31;

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
