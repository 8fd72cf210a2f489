//! What a program does with a message of its own: a value in it, its answer, the word that there is
//! none.

use crate::error::{Death, Error, ErrorKind, Result};
use crate::ids::{ContextId, Handle};
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Writer};
use crate::wire::header::Kind;
use crate::wire::message::Message;

/// Nobody: who takes a message that is not on its way yet.
const NOBODY: ContextId = ContextId(u32::MAX);

impl Message {
    /// A message without payload to this handle of the context that it is sent through: for
    /// [`Context::send`](crate::Context::send) and its like.
    pub fn at(handle: Handle) -> Message {
        Message::to(NOBODY, handle)
    }

    /// The same, with this value as the payload; [`Message::value`] reads it.
    ///
    /// ```
    /// # use mitogen::{Handle, Message, Result};
    /// # fn main() -> Result<()> {
    /// let message = Message::at(Handle::well_known(1)).with_value(&(7u32, "seven".to_owned()))?;
    /// assert_eq!(message.value::<(u32, String)>()?, (7, "seven".to_owned()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if there is a [`Context`](crate::Context) or a
    /// [`Sender`](crate::Sender) in it: these travel in calls and streams.
    pub fn with_value<T: Encode + ?Sized>(self, value: &T) -> Result<Message> {
        let mut writer = Writer::new(Vec::new(), None);
        value.encode(&mut writer);
        let data = writer.finish().map_err(|Malformed(why)| Error::usage(why))?;
        Ok(Message { data, ..self })
    }

    /// The value that is the payload, if it was sent as one of this type: the bytes do not say.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] if it is none; [`ErrorKind::Closed`] of a dead message.
    pub fn value<T: Decode>(&self) -> Result<T> {
        if let Some(death) = self.death() {
            return Err(death.into());
        }
        let mut reader = Reader::new(&self.data, None);
        let value = T::decode(&mut reader).and_then(|value| reader.finish().map(|()| value));
        value.map_err(|Malformed(why)| Error::new(ErrorKind::Malformed(why)))
    }

    /// The same as a dead message: in place of a message, why none comes, or none any more. Whoever
    /// waits for it, with [`Handler::from`](crate::Handler::from) or in
    /// [`Context::send_await`](crate::Context::send_await), gets that as a [`Death`].
    pub fn dead(self, why: &Death) -> Message {
        let mut writer = Writer::new(Vec::new(), None);
        why.encode(&mut writer);
        // There is nothing in it that cannot be sent.
        let data = writer.finish().unwrap_or_default();
        Message { kind: Kind::Dead, data, ..self }
    }

    /// Whether it is a dead one.
    pub fn is_dead(&self) -> bool {
        self.kind == Kind::Dead
    }

    /// What a dead message says; none of any other.
    pub fn death(&self) -> Option<Death> {
        if !self.is_dead() {
            return None;
        }
        let death = Death::decode(&mut Reader::new(&self.data, None));
        Some(death.unwrap_or_else(|_| Death::of(crate::error::Cause::Protocol)))
    }

    /// A message without payload to who has sent this one, if that waits for an answer: to be
    /// given one, or to be made [`dead`](Message::dead), and sent by
    /// [`Router::route`](crate::Router::route).
    pub fn answer(&self) -> Option<Message> {
        Some(Message::to(self.src, self.reply_to?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Cause;

    fn message() -> Message {
        Message::at(Handle::well_known(3))
    }

    #[test]
    fn a_value_is_read_as_what_it_was_written_as_and_nothing_else() {
        let sent = message().with_value(&vec![1u64, 300]).unwrap();
        assert_eq!(sent.value::<Vec<u64>>().unwrap(), [1, 300]);
        let too_short = Message { data: sent.data[..2].to_vec(), ..sent.clone() };
        let too_long = Message { data: [&sent.data[..], &[0]].concat(), ..sent };
        for wrong in [too_short, too_long] {
            let error = wrong.value::<Vec<u64>>().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Malformed(_)), "{error}");
        }
    }

    #[test]
    fn a_dead_message_says_why_and_has_no_value() {
        assert!(!message().is_dead() && message().death().is_none());
        let why = Death { tail: "no more".into(), ..Death::of(Cause::Failed).at(ContextId(3)) };
        let dead = message().dead(&why);
        assert!(dead.is_dead() && dead.death() == Some(why.clone()));
        assert_eq!(dead.value::<()>().unwrap_err(), why);
        let garbage = Message { data: vec![255], ..dead };
        assert_eq!(garbage.death().map(|death| death.cause), Some(Cause::Protocol));
    }

    #[test]
    fn who_waits_for_no_answer_gets_none() {
        assert_eq!(message().answer(), None);
        let asks = Message { src: ContextId(9), ..message().reply_to(Handle(300)) };
        assert_eq!(asks.answer(), Some(Message::to(ContextId(9), Handle(300))));
    }
}
