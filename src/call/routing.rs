//! Messages of a program's own, sent to handles that it has in other contexts.

use crate::call::context::Context;
use crate::call::router::Router;
use crate::error::{Death, Error, Result};
use crate::ids::{ContextId, Handle};
use crate::io::promise::promise;
use crate::io::turn::Turn;
use crate::route::node::Outgoing;
use crate::wire::codec::Malformed;
use crate::wire::frame::FrameBuf;
use crate::wire::header::Kind;
use crate::wire::message::Message;

impl Router {
    /// Sends a message to a handle of a program's own: one of [`Router::add_handler`], there.
    /// Sleeps while 64 KiB have not been taken there. Its source and authority are this context's.
    ///
    /// That it was sent does not say that it is taken: who wants to know, asks for an answer
    /// ([`Message::reply_to`]), and learns there that it was refused, or got nowhere.
    ///
    /// ```
    /// # use mitogen::{Handle, Handler, Message, Program, Result};
    /// # fn main() -> Result<()> {
    /// # let router = Program::new().router()?;
    /// let (tell, told) = std::sync::mpsc::channel();
    /// let handler = Handler::new(move |_, message| {
    ///     if let Ok(message) = message {
    ///         tell.send(message.data).unwrap();
    ///     }
    /// });
    /// let handle = router.add_handler(handler.at(Handle::well_known(7)))?;
    /// router.route(Message::to(router.context_id(), handle).with_data("news"))?;
    /// assert_eq!(told.recv().unwrap(), b"news");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind) for a handle of the protocol's own, `Closed`
    /// if no way leads there, `TooLarge`, `Interrupted` before anything was sent.
    pub fn route(&self, message: Message) -> Result<()> {
        let Message { dst, handle, reply_to, data, .. } = message;
        if handle < Handle::FIRST_DYNAMIC {
            return Err(Error::usage("handles below 256 are the protocol's own"));
        }
        self.node().forbid_closed()?;
        let kind = if handle < Handle::FIRST_RANDOM { Kind::Reply } else { Kind::Data };
        let payload = FrameBuf::encode(None, |w| w.put(&data));
        let payload = payload.map_err(|Malformed(why)| Error::usage(why))?;
        let out = Outgoing { kind, dst, auth: self.context_id(), handle, reply_to };
        self.node().send(&out, payload)
    }

    /// Answers a message. Returns whether an answer was asked for.
    ///
    /// # Errors
    /// As [`Router::route`].
    pub fn reply(&self, message: &Message, data: impl Into<Vec<u8>>) -> Result<bool> {
        let Some(handle) = message.reply_to else { return Ok(false) };
        self.route(Message::to(message.src, handle).with_data(data))?;
        Ok(true)
    }

    /// This very context.
    pub fn myself(&self) -> Context {
        Context::new(self, self.context_id(), self.name(), self.context_id())
    }

    /// The context that started this one; none in the master. Its name is empty.
    pub fn parent(&self) -> Option<Context> {
        self.parent_id().map(|id| self.context_by_id(id))
    }

    /// An id that no context of this tree has or gets. Where this context has none left, its parent
    /// is asked and waited for.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::error::ErrorKind) after the shutdown, or if the parent gives
    /// no more; `Interrupted` after a signal.
    pub fn allocate_id(&self) -> Result<ContextId> {
        self.broker().forbid_own_thread()?;
        self.node().forbid_closed()?;
        let (promise, answer) = promise();
        let node = self.node().clone();
        self.broker().defer(move |turn| {
            let taker = move |_: &mut Turn, id: Result<ContextId, Death>| promise.keep(id);
            node.take_id(turn, Box::new(taker));
        })?;
        Ok(self.broker().wait_for(&answer)??)
    }
}
