//! Descriptors of a program's own that a broker reads and writes beside its others: what arrives is
//! told on the thread for callbacks, within bounds.

#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};

use crate::error::{Cause, Death, Error, ErrorKind, Result};
use crate::io::broker::Broker;
use crate::io::census::Role;
use crate::io::outbox::{Outbox, Pushed};
use crate::io::promise::promise;
use crate::io::side::Side;
use crate::io::turn::{Key, Protocol, Tenant, Turn};
use crate::limits::{ATTACHED_BYTES_MAX, MESSAGE_COST_BYTES, OUTBOX_HIGH_WATER_BYTES};
use crate::lock::Lock;
use crate::sys::errno::Errno;
use crate::sys::pipe::Wake;
use crate::trace::{self, Level};
use crate::wire::codec::Malformed;
use crate::wire::header::Lane;

const WHAT: &str = "Broker::attach";

/// What becomes of a stream that is [attached](Broker::attach).
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// These bytes have arrived; at least one.
    Input(Vec<u8>),
    /// There is room again for who was refused it by [`Attached::try_send`].
    Writable,
    /// It is closed, and why; nothing more is told. [`Cause::Disconnected`] if the other end has
    /// closed it, [`Cause::ReceiverClosed`] after [`Attached::close`].
    Closed(Death),
}

/// The way out of a stream that is [attached](Broker::attach). Clones are the same; dropping them
/// closes nothing.
#[derive(Clone)]
pub struct Attached {
    core: Arc<Core>,
}

type Call = Box<dyn FnMut(&Attached, StreamEvent) + Send>;

struct Core {
    broker: Broker,
    tenant: Tenant,
    outbox: Arc<Outbox>,
    key: OnceLock<Key>,
    /// Away while it is called, and for good after the last time.
    call: Lock<Option<Call>>,
    state: Lock<State>,
}

#[derive(Default)]
struct State {
    /// Bytes that no callback has been given, with the cost of each piece.
    /// Invariant: ATTACHED_BYTES_MAX and one read at most.
    untold: usize,
    /// Whether the loop does not read, for the sake of that.
    is_paused: bool,
    /// Whether somebody was refused room.
    wants_room: bool,
    /// Why it is closed, once all that is queued is written.
    closing: Option<Death>,
    is_closed: bool,
    /// What the loop hears of room by, from the first that wants it.
    room: Option<(Arc<Wake>, Key)>,
}

impl Broker {
    /// Reads a descriptor of yours, which can be waited for: a socket, a pipe, a terminal; and has
    /// `call` called for what arrives, on the thread for callbacks, until it is closed. Where the
    /// other end reads, [`Attached::send`] writes. Its mode stays as it is; nobody else may read
    /// it.
    ///
    /// While 64 KiB wait for `call`, it is not read: so who writes there is slowed down. It is
    /// closed when the other end sends no more, `call` was told of all of it, and what was sent
    /// until then is written; by [`Attached::close`]; and with the broker.
    ///
    /// ```
    /// use mitogen::{Program, Result, StreamEvent};
    /// use std::os::unix::net::UnixStream;
    /// use std::io::{Read, Write};
    ///
    /// # fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    /// let router = Program::new().router()?;
    /// let (ours, mut theirs) = UnixStream::pair()?;
    /// let echo = router.broker().attach(ours, |stream, event| {
    ///     if let StreamEvent::Input(bytes) = event {
    ///         // Fails if it is closed meanwhile, which is told.
    ///         let _ = stream.send(&bytes);
    ///     }
    /// })?;
    /// theirs.write_all(b"hello")?;
    /// let mut back = [0; 5];
    /// theirs.read_exact(&mut back)?;
    /// assert_eq!(&back, b"hello");
    /// echo.close();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] once the broker has ended, `System` if the descriptor cannot be waited
    /// for, as that of a file; it is closed then, and `call` never called.
    ///
    /// # Resources
    /// Two descriptors more, from the first [`StreamEvent::Writable`] on.
    pub fn attach(
        &self,
        fd: impl Into<OwnedFd>,
        call: impl FnMut(&Attached, StreamEvent) + Send + 'static,
    ) -> Result<Attached> {
        let side = Side::new(fd.into());
        self.attach_sides(side.clone(), side, Box::new(call))
    }

    /// As [`Broker::attach`], of one descriptor to read and another to write, as of two pipes.
    ///
    /// # Errors
    /// As [`Broker::attach`].
    pub fn attach_pair(
        &self,
        receive: impl Into<OwnedFd>,
        transmit: impl Into<OwnedFd>,
        call: impl FnMut(&Attached, StreamEvent) + Send + 'static,
    ) -> Result<Attached> {
        let (receive, transmit) = (Side::new(receive.into()), Side::new(transmit.into()));
        self.attach_sides(receive, transmit, Box::new(call))
    }

    fn attach_sides(&self, receive: Side, transmit: Side, call: Call) -> Result<Attached> {
        self.forbid_own_thread()?;
        let core = Arc::new(Core {
            broker: self.weak(),
            tenant: self.tenant(),
            outbox: Arc::new(Outbox::new(transmit)),
            key: OnceLock::new(),
            call: Lock::new(Some(call)),
            state: Lock::default(),
        });
        let (promise, begun) = promise();
        let own = core.clone();
        self.defer(move |turn| promise.keep(own.begin(turn, receive)))?;
        loop {
            match self.wait_for(&begun) {
                // It takes a moment, and must not be in doubt.
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted) => (),
                begun => return begun?.map(|()| Attached { core }),
            }
        }
    }
}

impl Attached {
    /// Sends bytes; sleeps while 256 KiB wait to be written. Those of several threads may mix where
    /// they are more than 16 KiB. On the thread for callbacks it holds up the others.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if it is closed, and why; [`ErrorKind::Interrupted`] after a signal,
    /// before anything was sent.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        self.core.broker.forbid_own_thread()?;
        for (number, chunk) in bytes.chunks(crate::limits::CHUNK_BYTES).enumerate() {
            while let Err(error) = self.core.outbox.wait_for_room(None) {
                match error.kind() {
                    ErrorKind::Interrupted if 0 < number => (),
                    // The push says why.
                    ErrorKind::Closed(_) => break,
                    _ => return Err(error),
                }
            }
            self.core.push(chunk)?;
        }
        Ok(())
    }

    /// Sends what there is room for, and says how many bytes; never sleeps. If they are less,
    /// [`StreamEvent::Writable`] is told when there is room again.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if it is closed, and why.
    pub fn try_send(&self, bytes: &[u8]) -> Result<usize> {
        self.core.broker.forbid_copy()?;
        let room = OUTBOX_HIGH_WATER_BYTES.saturating_sub(self.core.outbox.queued());
        let count = room.min(bytes.len());
        self.core.push(&bytes[..count])?;
        if count < bytes.len() {
            let own = self.core.clone();
            self.core.broker.defer(move |turn| own.want_room(turn))?;
        }
        Ok(count)
    }

    /// Closes it when all that was sent is written; what arrives is read no more. Returns at once.
    pub fn close(&self) {
        self.core.close_soon(Cause::ReceiverClosed);
    }
}

impl Core {
    fn begin(self: Arc<Self>, turn: &mut Turn, receive: Side) -> Result<()> {
        let key = turn.attach_silent(self.tenant, receive, Some(self.outbox.clone()))?;
        self.key.get_or_init(|| key);
        turn.replace(key, Box::new(Input(self)));
        Ok(())
    }

    fn push(&self, bytes: &[u8]) -> Result<()> {
        if let Some(death) = self.state.lock().closing.clone() {
            return Err(death.into());
        }
        match self.outbox.push(bytes, Lane::Quick) {
            Pushed::Taken => (),
            Pushed::Arm => _ = self.key.get().map(|key| self.broker.arm(*key)),
            Pushed::Closed | Pushed::Full => return Err(Error::closed(Cause::Disconnected)),
        }
        Ok(())
    }

    /// Has an event told, behind those before it.
    fn tell(self: &Arc<Self>, event: StreamEvent) {
        let own = self.clone();
        let told = self.broker.callback(WHAT, Box::new(move || own.call(event)));
        if told.is_err() {
            trace::event(Level::Error, "nothing tells of a stream any more", &[]);
        }
    }

    fn call(self: Arc<Self>, event: StreamEvent) {
        let (is_last, bytes) = match &event {
            StreamEvent::Input(bytes) => (false, cost_of(bytes)),
            StreamEvent::Closed(_) => (true, 0),
            StreamEvent::Writable => (false, 0),
        };
        let Some(mut call) = self.call.lock().take() else { return };
        let attached = Attached { core: self.clone() };
        let called = catch_unwind(AssertUnwindSafe(|| call(&attached, event)));
        if !is_last {
            *self.call.lock() = Some(call);
        }
        self.told(bytes);
        called.unwrap_or_else(|panic| resume_unwind(panic));
    }

    /// Goes on reading when little waits.
    fn told(self: &Arc<Self>, bytes: usize) {
        let mut state = self.state.lock();
        state.untold = state.untold.saturating_sub(bytes);
        let resumes = state.is_paused && state.untold <= ATTACHED_BYTES_MAX / 2;
        state.is_paused &= !resumes;
        drop(state);
        if resumes {
            let own = self.clone();
            // An ended broker reads no more.
            let _ = self.broker.defer(move |turn| own.resume(turn));
        }
    }

    fn resume(&self, turn: &mut Turn) {
        let may_read = {
            let state = self.state.lock();
            state.closing.is_none() && !state.is_paused
        };
        if let Some(key) = self.key.get().filter(|_| may_read) {
            turn.set_reading(*key, true);
        }
    }

    fn arrived(self: &Arc<Self>, turn: &mut Turn, key: Key, bytes: &[u8]) {
        let mut state = self.state.lock();
        state.untold += cost_of(bytes);
        let pauses = ATTACHED_BYTES_MAX <= state.untold;
        state.is_paused = pauses;
        drop(state);
        if pauses {
            turn.set_reading(key, false);
        }
        self.tell(StreamEvent::Input(bytes.to_vec()));
    }

    /// The other end sends no more. Who is told of what it sent may still answer.
    fn ended(self: &Arc<Self>, turn: &mut Turn) {
        let own = self.clone();
        let close = Box::new(move || own.close_soon(Cause::Disconnected));
        if self.broker.callback(WHAT, close).is_err() {
            self.close(turn, Death::of(Cause::Disconnected));
        }
    }

    fn close_soon(self: &Arc<Self>, cause: Cause) {
        let own = self.clone();
        // An ended broker has closed it.
        let _ = self.broker.defer(move |turn| own.close(turn, Death::of(cause)));
    }

    /// Closes the stream, now or when nothing waits to be written.
    fn close(self: &Arc<Self>, turn: &mut Turn, why: Death) {
        let Some(key) = self.key.get() else { return };
        self.state.lock().closing.get_or_insert(why);
        turn.set_reading(*key, false);
        self.look_for_room(turn);
    }

    fn want_room(self: &Arc<Self>, turn: &mut Turn) {
        self.state.lock().wants_room = true;
        self.look_for_room(turn);
    }

    /// Does what was waiting for room, or sees to it that this is called again when there is some.
    fn look_for_room(self: &Arc<Self>, turn: &mut Turn) {
        let (closing, is_closed) = {
            let state = self.state.lock();
            (state.closing.clone(), state.is_closed)
        };
        let Some(key) = self.key.get().filter(|_| !is_closed) else { return };
        let queued_max = if closing.is_some() { 0 } else { OUTBOX_HIGH_WATER_BYTES / 2 };
        if queued_max < self.outbox.queued() {
            if let Err(why) = self.watch_room(turn, queued_max) {
                turn.close(*key, &why);
            }
            return;
        }
        match closing {
            Some(why) => turn.close(*key, &why),
            None if std::mem::take(&mut self.state.lock().wants_room) => {
                self.tell(StreamEvent::Writable);
            }
            None => (),
        }
    }

    fn watch_room(self: &Arc<Self>, turn: &mut Turn, queued_max: usize) -> Result<(), Death> {
        let known = self.state.lock().room.as_ref().map(|(wake, _)| wake.clone());
        let wake = match known {
            Some(wake) => wake,
            None => self.make_room(turn).map_err(|_| Death::of(Cause::Disconnected))?,
        };
        self.outbox.wake_at(queued_max, &wake);
        Ok(())
    }

    /// Makes what the loop hears of room by.
    fn make_room(self: &Arc<Self>, turn: &mut Turn) -> Result<Arc<Wake>> {
        let failed = |Errno(errno)| Error::system("waiting for room", errno);
        let wake = Arc::new(Wake::new().map_err(failed)?);
        let read = wake.fd().as_fd().try_clone_to_owned();
        let read =
            read.map_err(|e| Error::system("waiting for room", e.raw_os_error().unwrap_or(0)))?;
        let hears = Box::new(Room(self.clone()));
        let key = turn.attach(self.tenant, Side::new(read), None, hears)?;
        self.state.lock().room = Some((wake.clone(), key));
        Ok(wake)
    }

    fn closed(self: &Arc<Self>, turn: &mut Turn, why: &Death) {
        let (room, why) = {
            let mut state = self.state.lock();
            state.is_closed = true;
            let why = state.closing.get_or_insert_with(|| why.clone()).clone();
            (state.room.take(), why)
        };
        if let Some((_, key)) = room {
            turn.close(key, &why);
        }
        self.tell(StreamEvent::Closed(why));
    }
}

fn cost_of(bytes: &[u8]) -> usize {
    bytes.len() + MESSAGE_COST_BYTES
}

/// What arrives.
struct Input(Arc<Core>);

impl Protocol for Input {
    fn input(&mut self, turn: &mut Turn, key: Key, bytes: &[u8]) -> Result<(), Malformed> {
        self.0.arrived(turn, key, bytes);
        Ok(())
    }

    fn ended(&mut self, turn: &mut Turn, _: Key) {
        self.0.ended(turn);
    }

    fn closed(&mut self, turn: &mut Turn, why: &Death) {
        self.0.closed(turn, why);
    }

    fn role(&self) -> Role {
        Role::ATTACHED
    }
}

/// Hears that the outbox has room.
struct Room(Arc<Core>);

impl Protocol for Room {
    fn input(&mut self, turn: &mut Turn, _: Key, _: &[u8]) -> Result<(), Malformed> {
        self.0.look_for_room(turn);
        Ok(())
    }

    fn closed(&mut self, _: &mut Turn, _: &Death) {}
}
