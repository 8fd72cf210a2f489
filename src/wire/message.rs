//! One message, whole: what handlers get and what is sent.

use std::fmt;

use crate::ids::{ContextId, Handle};
use crate::wire::header::{Header, Kind, Lane, Part};

/// A message, as it is delivered to a handle.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// The queue it came by.
    pub lane: Lane,
    /// The context that it goes to.
    pub dst: ContextId,
    /// The context that it comes from.
    pub src: ContextId,
    /// The context under whose authority it acts.
    pub auth: ContextId,
    /// What it is for, in `dst`.
    pub handle: Handle,
    /// Where an answer goes, in `src`.
    pub reply_to: Option<Handle>,
    /// The payload.
    pub data: Vec<u8>,
}

impl Message {
    /// A message without payload to a handle of a program's own in another context, for
    /// [`Router::route`](crate::Router::route), which stamps its source and authority.
    pub fn to(dst: ContextId, handle: Handle) -> Message {
        let kind = if handle < Handle::FIRST_RANDOM { Kind::Reply } else { Kind::Data };
        let (lane, reply_to, data) = (Lane::Quick, None, Vec::new());
        Message { kind, lane, dst, src: dst, auth: dst, handle, reply_to, data }
    }

    /// The same, with this payload.
    pub fn with_data(self, data: impl Into<Vec<u8>>) -> Message {
        Message { data: data.into(), ..self }
    }

    /// The same; an answer is to come to this handle of ours.
    pub fn reply_to(self, handle: Handle) -> Message {
        Message { reply_to: Some(handle), ..self }
    }

    /// The message that begins with this header, and its whole payload.
    pub fn new(header: &Header, data: Vec<u8>) -> Message {
        let Header { kind, lane, part: _, dst, src, auth, handle, reply_to } = *header;
        Message { kind, lane, dst, src, auth, handle, reply_to, data }
    }

    /// The header of one frame that carries it all.
    pub fn header(&self) -> Header {
        let Message { kind, lane, dst, src, auth, handle, reply_to, .. } = *self;
        Header { kind, lane, part: Part::Whole, dst, src, auth, handle, reply_to }
    }
}

/// Ids, handles and size; never the payload.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.src)?;
        if let Some(handle) = self.reply_to {
            write!(f, ":{handle}")?;
        }
        write!(f, " -> {}:{}, {} bytes", self.dst, self.handle, self.data.len())?;
        if self.auth != self.src {
            write!(f, ", for {}", self.auth)?;
        }
        Ok(())
    }
}
