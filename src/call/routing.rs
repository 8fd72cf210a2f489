//! Messages of a program's own, sent to handles that it has in other contexts.

use std::time::Duration;

use crate::call::context::Context;
use crate::call::raw::RawReceiver;
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
        self.route_as(self.context_id(), message)
    }

    fn route_as(&self, auth: ContextId, message: Message) -> Result<()> {
        let is_dead = message.is_dead();
        let Message { dst, handle, reply_to, data, .. } = message;
        if handle < Handle::FIRST_DYNAMIC {
            return Err(Error::usage("handles below 256 are the protocol's own"));
        }
        self.node().forbid_closed()?;
        let kind = match is_dead {
            true => Kind::Dead,
            false if handle < Handle::FIRST_RANDOM => Kind::Reply,
            false => Kind::Data,
        };
        let payload = FrameBuf::encode(None, |w| w.put(&data));
        let payload = payload.map_err(|Malformed(why)| Error::usage(why))?;
        self.node().send(&Outgoing { kind, dst, auth, handle, reply_to }, payload)
    }

    /// Answers a message with these bytes. Returns whether an answer was asked for. For other
    /// answers there is [`Message::answer`].
    ///
    /// # Errors
    /// As [`Router::route`].
    pub fn reply(&self, message: &Message, data: impl Into<Vec<u8>>) -> Result<bool> {
        let Some(answer) = message.answer() else { return Ok(false) };
        self.route(answer.with_data(data))?;
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

impl Context {
    /// Sends a message to a handle of a program's own there: as [`Router::route`], whatever context
    /// the message names.
    ///
    /// # Errors
    /// As [`Router::route`].
    pub fn send(&self, message: Message) -> Result<()> {
        let message = Message { dst: self.context_id(), ..message };
        self.router().route_as(self.authority(), message)
    }

    /// As [`Context::send`], and gives what to wait for the one answer with: it comes, or why it
    /// does not, the end of this context included. The message's [`Message::reply_to`] is set.
    ///
    /// # Errors
    /// As [`Router::route`]; [`ErrorKind::Usage`](crate::error::ErrorKind) if 65,536 answers are
    /// awaited.
    pub fn send_async(&self, message: Message) -> Result<RawReceiver> {
        self.send_from(self.router().raw_receiver().from(self).once().listen()?, message)
    }

    /// As [`Context::send_async`], for any number of answers: until this context ends, or says by a
    /// [dead message](Message::dead) that no more come, or the receiver is dropped.
    ///
    /// # Errors
    /// As [`Router::route`].
    pub fn send_async_persist(&self, message: Message) -> Result<RawReceiver> {
        self.send_from(self.router().raw_receiver().from(self).listen()?, message)
    }

    /// As [`Context::send_async`], and waits for the answer, for at most this long if a time is
    /// given.
    ///
    /// ```
    /// # use mitogen::{Handler, Message, Program, Result};
    /// # use std::time::Duration;
    /// # fn main() -> Result<()> {
    /// # let router = Program::new().router()?;
    /// # let there = router.myself();
    /// let double = router.add_handler(Handler::new(|router, message| {
    ///     let Ok(message) = message else { return };
    ///     let Some(answer) = message.answer() else { return };
    ///     let doubled = message.value::<u32>().and_then(|n| answer.with_value(&(2 * n)));
    ///     let _ = doubled.and_then(|answer| router.route(answer));
    /// }))?;
    /// let question = Message::at(double).with_value(&21u32)?;
    /// let answer = there.send_await(question, Some(Duration::from_secs(10)))?;
    /// assert_eq!(answer.value::<u32>()?, 42);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Also those of [`RawReceiver::get_timeout`].
    pub fn send_await(&self, message: Message, timeout: Option<Duration>) -> Result<Message> {
        self.router().broker().forbid_own_thread()?;
        let answer = self.send_async(message)?;
        match timeout {
            Some(timeout) => answer.get_timeout(timeout),
            None => answer.get(),
        }
    }

    fn send_from(&self, answers: RawReceiver, message: Message) -> Result<RawReceiver> {
        self.send(message.reply_to(answers.handle()))?;
        Ok(answers)
    }
}
