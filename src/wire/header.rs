//! The header of a frame: tag, flags, then only the fields that are there.

use crate::ids::{ContextId, Handle};

/// What a frame is; a handle accepts only its own kind, so no data is ever read as a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Asks for a function to be run.
    Call = 0,
    /// An item for a Receiver.
    Data = 1,
    /// The answer to a call or a control message.
    Reply = 2,
    /// In place of an answer or of further data: why there is none.
    Dead = 3,
    /// Room at the receiver, in bytes.
    Grant = 4,
    /// The tree's own business: routes, ids, connects, shutdown.
    Control = 5,
}

/// Which queue a frame travels in. Order is kept in each, not between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Small messages.
    Quick,
    /// Fragments, and what must stay behind them.
    Bulk,
}

/// Which part of a message a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first fragment; the message's length in bytes is announced with it.
    First(u64),
    /// A later fragment.
    Next,
}

/// All that a hop needs to know of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Its queue.
    pub lane: Lane,
    /// Which part of its message.
    pub part: Part,
    /// The context that it goes to.
    pub dst: ContextId,
    /// The context that it comes from; answers go there.
    pub src: ContextId,
    /// The context under whose authority it acts; most often the same.
    pub auth: ContextId,
    /// What it is for, in `dst`.
    pub handle: Handle,
    /// Where an answer goes, in `src`; none wants none.
    pub reply_to: Option<Handle>,
}
