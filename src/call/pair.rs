//! A stream in each direction as one thing: its two ends find each other by themselves.

use std::time::Duration;

use crate::call::arguments::Sends;
use crate::call::call_context::CallContext;
use crate::call::function::{Argument, List};
use crate::call::receiver::Receiver;
use crate::call::reply::Reply;
use crate::call::router::Router;
use crate::call::sender::Sender;
use crate::call::source::{Source, Stream, Taken, Watchable, Watched};
use crate::error::{CallFailure, Cause, Error, ErrorKind, Result};
use crate::io::broker::Broker;
use crate::io::latch::Latch;
use crate::lock::Lock;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Shape, Writer};

/// Sends values of `S` and gets values of `R`: one end of a stream in each direction. The other end
/// gets what this one sends.
///
/// [`Channel::pair`] makes one end, and what becomes the other where it arrives: the parameter of a
/// function, as a rule.
///
/// ```
/// use mitogen::{Channel, Program, Result};
///
/// /// Answers each number by its square. The channel ends when it is dropped.
/// fn square(numbers: Channel<u64, u32>) -> Result<()> {
///     for number in &numbers {
///         numbers.send(u64::from(number?).pow(2))?;
///     }
///     Ok(())
/// }
///
/// fn main() -> Result<()> {
///     Program::new().function(square).run(|router| {
///         let (squares, theirs) = Channel::<u32, u64>::pair(router);
///         router.local().connect()?.call_no_reply(square, theirs)?;
///         squares.send(3)?;
///         assert_eq!(squares.get()?, 9);
///         Ok(())
///     })
/// }
/// ```
///
/// It ends as a [`Receiver`] does, for the same reasons: silently when the other end was dropped,
/// with the reason when that failed, died, or never got there.
pub struct Channel<S, R> {
    receiver: Receiver<R>,
    out: Lock<Out<S>>,
    /// Where the other end's Sender arrives, if it is to come.
    greeting: Option<Receiver<Sender<S>>>,
    /// The right to wait for that; closed when `out` is not awaited any more.
    first: Latch<()>,
}

/// What this end sends by.
enum Out<S> {
    /// The other end has not told it yet.
    Awaited,
    Known(Sender<S>),
    /// The other end never will, or this end was closed.
    Over(Error),
}

/// The other end of a [`Channel`], on its way to whoever is to have it: as the argument for a
/// parameter of type `Channel`, or in any other value; once, but it can be sent on from there.
#[must_use = "dropping the other end closes the channel"]
pub struct ChannelEnd<S, R>(Lock<Option<Ends<S, R>>>);

struct Ends<S, R> {
    /// What this end is to send by.
    out: Sender<S>,
    /// By which the other is told what to send by.
    greeting: Sender<Sender<R>>,
}

impl<S: Decode, R: Decode> Channel<S, R> {
    /// This end of a new channel, and the other one, which is to be sent.
    pub fn pair(router: &Router) -> (Channel<S, R>, ChannelEnd<R, S>) {
        let (receiver, greeting) = (router.receiver(), router.receiver());
        let ends = Ends { out: receiver.to_sender(), greeting: greeting.to_sender() };
        let (out, first) = (Lock::new(Out::Awaited), Latch::new());
        // It is new, and not closed.
        let _ = first.put(());
        let mine = Channel { receiver, out, greeting: Some(greeting), first };
        (mine, ChannelEnd(Lock::new(Some(ends))))
    }

    /// Sends one value. Sleeps until the other end is there, and while it has no room.
    ///
    /// # Errors
    /// Those of [`Sender::send`]; [`ErrorKind::Closed`] with the reason if the other end never got
    /// there.
    pub fn send(&self, value: impl Sends<S>) -> Result<()> {
        self.sender()?.send(value)
    }

    /// Waits for the next value.
    ///
    /// # Errors
    /// As [`Receiver::get`].
    pub fn get(&self) -> Result<R> {
        self.receiver.get()
    }

    /// As [`Channel::get`], for at most this long.
    ///
    /// # Errors
    /// Also [`ErrorKind::Timeout`].
    pub fn get_timeout(&self, timeout: Duration) -> Result<R> {
        self.receiver.get_timeout(timeout)
    }

    /// The next value if one is there.
    ///
    /// # Errors
    /// As [`Channel::get`].
    pub fn try_get(&self) -> Result<Option<R>> {
        self.receiver.try_get()
    }

    /// What this end sends by; sleeps until the other end has told.
    fn sender(&self) -> Result<Sender<S>> {
        self.receiver.router().broker().forbid_copy()?;
        loop {
            match &*self.out.lock() {
                Out::Awaited => (),
                Out::Known(sender) => return Ok(sender.clone()),
                Out::Over(error) => return Err(error.clone()),
            }
            match self.first.get() {
                Err(error) if matches!(error.kind(), ErrorKind::Closed(_)) => continue,
                first => first?,
            }
            match self.greeting.as_ref().map_or(Err(closed()), Receiver::get) {
                Ok(sender) => self.settle(Out::Known(sender)),
                Err(error) if matches!(error.kind(), ErrorKind::Closed(_)) => {
                    self.settle(Out::Over(error));
                }
                Err(error) => {
                    // For the next to wait; if this end was closed meanwhile, nobody does.
                    let _ = self.first.put(());
                    return Err(error);
                }
            }
        }
    }

    /// Whether [`Channel::get`] would sleep: a hint, as [`Receiver::is_empty`] is.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }
}

impl<S, R> Channel<S, R> {
    /// Ends it from this side: what has arrived is dropped, every wait and every later use fails.
    /// What was sent arrives there, and then the end.
    pub fn close(&self) {
        if self.receiver.router().broker().is_copy() {
            return;
        }
        let before = std::mem::replace(&mut *self.out.lock(), Out::Over(closed()));
        drop(before);
        self.end_greeting();
        self.receiver.close();
    }

    /// Notes what is known of the other end, unless this one was closed.
    fn settle(&self, known: Out<S>) {
        let mut out = self.out.lock();
        let unused = match *out {
            Out::Awaited => std::mem::replace(&mut *out, known),
            _ => known,
        };
        drop(out);
        drop(unused);
        self.end_greeting();
    }

    fn end_greeting(&self) {
        self.first.close();
        if let Some(greeting) = &self.greeting {
            greeting.close();
        }
    }
}

fn closed() -> Error {
    Error::closed(Cause::ReceiverClosed)
}

impl<S: Decode, R: Decode> ChannelEnd<S, R> {
    /// Makes it an end that is used here. A parameter of type [`Channel`] does that by itself.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if it was sent already.
    pub fn open(self) -> Result<Channel<S, R>> {
        let ChannelEnd(mut ends) = self;
        let ends = ends.own().take();
        ends.map(Ends::open).ok_or_else(|| Error::usage(SENT_ALREADY))
    }
}

const SENT_ALREADY: &str = "this end of a channel was sent already: make another pair";

impl<S: Decode, R: Decode> Ends<S, R> {
    /// Tells the other end first of all what to send by.
    fn open(self) -> Channel<S, R> {
        let receiver = self.out.router().receiver();
        let sender = receiver.to_sender();
        let mut told = self.greeting.send(&sender);
        while matches!(&told, Err(error) if matches!(error.kind(), ErrorKind::Interrupted)) {
            told = self.greeting.send(&sender);
        }
        match told.map_err(Error::into_kind) {
            // The other end is gone: then nothing will come, for that reason.
            Err(ErrorKind::Closed(death)) if death.cause != Cause::ReceiverClosed => {
                sender.core().fail(death);
            }
            _ => (),
        }
        let (out, first) = (Lock::new(Out::Known(self.out)), Latch::new());
        Channel { receiver, out, greeting: None, first }
    }
}

/// It is gone from here then.
impl<S: Decode, R: Decode> Encode for ChannelEnd<S, R> {
    fn encode(&self, w: &mut Writer<'_>) {
        let ends = self.0.lock().take();
        match ends {
            Some(Ends { out, greeting }) => {
                out.encode(w);
                greeting.encode(w);
            }
            None => w.fail(SENT_ALREADY),
        }
    }
}

impl<S: Decode, R: Decode> Decode for ChannelEnd<S, R> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let ends = Ends { out: Sender::decode(r)?, greeting: Sender::decode(r)? };
        Ok(ChannelEnd(Lock::new(Some(ends))))
    }

    fn shape(s: &mut Shape) {
        s.word("channel");
        S::shape(s);
        R::shape(s);
    }
}

impl<S: Decode, R: Decode> Reply for ChannelEnd<S, R> {
    type Value = Self;

    fn into_reply(self) -> Result<Self, CallFailure> {
        Ok(self)
    }
}

/// What is sent is a [`ChannelEnd`], which is opened as it arrives.
impl<S: Decode, R: Decode> Argument for Channel<S, R> {
    type At<'a> = Channel<S, R>;
    type Before<Rest: List> = Rest::Push<ChannelEnd<S, R>>;

    fn take<'a>(_: &'a CallContext, r: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Ends { out: Sender::decode(r)?, greeting: Sender::decode(r)? }.open())
    }

    fn shape(s: &mut Shape) {
        <ChannelEnd<S, R> as Decode>::shape(s);
    }
}

/// Yields values until the end, as a [`Receiver`] does.
impl<S, R: Decode> Iterator for &Channel<S, R> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        (&self.receiver).next()
    }
}

/// Yields values until the end, as a [`Receiver`] does.
impl<S, R: Decode> Iterator for Channel<S, R> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        self.receiver.next()
    }
}

impl<S, R> Watched for Channel<S, R> {
    fn latch(&self) -> Option<&dyn Watchable> {
        self.receiver.latch()
    }

    fn broker(&self) -> Option<Broker> {
        Watched::broker(&self.receiver)
    }
}

/// It yields what a [`Receiver`] would.
impl<S, R: Decode> Source for Channel<S, R> {
    type Item = R;

    fn take(&self) -> Taken<R> {
        Source::take(&self.receiver)
    }
}

impl<S, R: Decode> Stream for Channel<S, R> {}
