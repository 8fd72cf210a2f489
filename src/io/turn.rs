//! The loop of one broker: streams, timers, and what other threads deferred. Whoever has the turn
//! owns all of it: the broker's thread, or one to which it is lent.

mod census;
mod leaving;
mod running;

use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Cause, Death, Error, Result};
use crate::io::broker::{Broker, Over};
use crate::io::census::{List, Role};
use crate::io::counters::{Count, Counting};
use crate::io::lending::Task;
use crate::io::outbox::Outbox;
use crate::io::side::{Read, Side};
use crate::io::timers::{Action, TimerId, Timers};
use crate::limits::{DRAIN_READS_MAX, READ_BYTES};
use crate::lock;
use crate::sys::errno::Errno;
use crate::sys::poll::{Event, Interest, Poller};
use crate::trace::{self, Level};
use crate::wire::codec::{Malformed, Writer};

/// Names a stream of one loop. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(usize);

/// One of those that a loop serves: a router. Its streams end with it. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenant(pub(super) u32);

/// What the bytes of a stream mean. Called by the holder of the turn only.
pub trait Protocol: Send {
    /// Bytes have arrived; for a watched descriptor there are none, it is ready.
    ///
    /// # Errors
    /// What breaks the protocol; it closes the stream.
    fn input(&mut self, turn: &mut Turn, key: Key, bytes: &[u8]) -> Result<(), Malformed>;

    /// The peer will send no more. Unless overridden, that closes the stream.
    fn ended(&mut self, turn: &mut Turn, key: Key) {
        turn.close(key, &Death::of(Cause::Disconnected));
    }

    /// The pause of a [`Turn::remind`] is over.
    fn reminded(&mut self, _turn: &mut Turn, _key: Key) {}

    /// The stream is closed; this is the last call.
    fn closed(&mut self, turn: &mut Turn, why: &Death);

    /// What the stream leads to, for who inspects this context. Asked once.
    fn role(&self) -> Role {
        Role::OTHER
    }

    /// Appends the child whose process it watches, as the type `Child` of a snapshot, if that is
    /// whether it is being brought up.
    fn describe(&self, _is_starting: bool, _list: &mut List, _w: &mut Writer<'_>) {}
}

/// The state of one loop.
pub struct Turn {
    pub(super) broker: Broker,
    poller: Poller,
    /// Sorted by key.
    streams: Vec<Stream>,
    keys: usize,
    timers: Timers,
    /// Deferred by others, the last first. Kept here, so that what a panic leaves of them is not
    /// dropped before it is known why.
    deferred: Vec<Task>,
    buffer: Vec<u8>,
    events: Vec<Event>,
    /// Whether the thread that has the turn is not the broker's.
    is_lent: bool,
    /// Whether a read took all that there was room for.
    has_more: bool,
    /// Whether a shutdown was asked for.
    stopping: bool,
    /// Whether that has waited long enough.
    is_late: bool,
    /// What the loop's end is followed by.
    pub(super) over: Over,
    /// What each tenant's end begins with.
    ends: Vec<(Tenant, End)>,
    pub(crate) counting: Counting,
}

/// What is done once, when a tenant or the loop is to end.
type End = Box<dyn FnOnce(&mut Turn, &Death) + Send>;

struct Stream {
    key: Key,
    tenant: Tenant,
    receive: Side,
    outbox: Option<Arc<Outbox>>,
    /// Whether the outbox writes to another descriptor than `receive`.
    split: bool,
    /// Whether it only tells that it is ready.
    watched: bool,
    /// Whether it outlives a shutdown's begin, as a watched one, a process, does.
    outlives: bool,
    reading: bool,
    writing: bool,
    role: Role,
    /// Away while it is called.
    protocol: Option<Box<dyn Protocol>>,
    /// How often it got another protocol: one that is replaced while it is called does not return.
    replaced: u32,
    closing: Option<Death>,
}

/// What a stream's protocol is called for.
type Call<'a> = &'a mut dyn FnMut(&mut dyn Protocol, &mut Turn) -> Result<(), Malformed>;

impl Turn {
    pub(crate) fn new(broker: Broker, poller: Poller, over: Over) -> Turn {
        Turn {
            broker,
            poller,
            streams: Vec::new(),
            keys: 0,
            timers: Timers::default(),
            deferred: Vec::new(),
            buffer: Vec::new(),
            events: Vec::new(),
            is_lent: false,
            has_more: false,
            stopping: false,
            is_late: false,
            over,
            ends: Vec::new(),
            counting: Counting::new(),
        }
    }

    /// Adds a stream of a tenant: what arrives on `receive` goes to `protocol`.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::error::ErrorKind) once the loop is to end, `System` if the
    /// descriptor cannot be watched; `protocol` is dropped.
    pub fn attach(
        &mut self,
        tenant: Tenant,
        receive: Side,
        outbox: Option<Arc<Outbox>>,
        protocol: Box<dyn Protocol>,
    ) -> Result<Key> {
        let key = self.attach_silent(tenant, receive, outbox)?;
        self.replace(key, protocol);
        Ok(key)
    }

    /// As [`Turn::attach`], for a protocol that must know the key: [`Turn::replace`] installs it.
    pub fn attach_silent(
        &mut self,
        tenant: Tenant,
        receive: Side,
        outbox: Option<Arc<Outbox>>,
    ) -> Result<Key> {
        if self.stopping {
            return Err(Error::closed(Cause::Shutdown));
        }
        self.add(tenant, receive, outbox, false)
    }

    /// Watches a descriptor that is never read: `protocol` is told when it is ready.
    pub fn watch(&mut self, tenant: Tenant, fd: Side, protocol: Box<dyn Protocol>) -> Result<Key> {
        let key = self.add(tenant, fd, None, true)?;
        self.replace(key, protocol);
        Ok(key)
    }

    fn add(
        &mut self,
        tenant: Tenant,
        receive: Side,
        outbox: Option<Arc<Outbox>>,
        watched: bool,
    ) -> Result<Key> {
        let key = Key(self.keys);
        let transmit = outbox.as_ref().and_then(|o| o.side());
        let raw = receive.as_fd().as_raw_fd();
        let split = transmit.as_ref().is_some_and(|side| side.as_fd().as_raw_fd() != raw);
        let failed = |Errno(errno)| Error::system("watching a descriptor", errno);
        self.poller.add(key.receive(), receive.shared(), Interest::READ).map_err(failed)?;
        if let (true, Some(side)) = (split, transmit) {
            if let Err(e) = self.poller.add(key.transmit(), side.shared(), Interest::NONE) {
                self.poller.remove(key.receive());
                return Err(failed(e));
            }
        }
        self.keys += 1;
        self.counting.high(Count::StreamsHigh, self.streams.len() + 1);
        self.streams.push(Stream {
            key,
            tenant,
            receive,
            outbox,
            split,
            watched,
            outlives: watched,
            reading: true,
            writing: false,
            role: Role::OTHER,
            protocol: None,
            replaced: 0,
            closing: None,
        });
        self.arm(key);
        Ok(key)
    }

    /// Has a shutdown not wait for what is watched.
    pub fn wait_no_longer(&mut self, key: Key) {
        if let Some(stream) = self.stream(key) {
            stream.outlives = false;
        }
    }

    /// Puts another protocol in a stream's place, also from inside the present one.
    pub fn replace(&mut self, key: Key, protocol: Box<dyn Protocol>) {
        if let Some(stream) = self.stream(key) {
            stream.replaced += 1;
            stream.role = protocol.role();
            stream.protocol = Some(protocol);
        }
    }

    /// Stops or resumes reading a stream. Only for streams that carry no frames: a context reads
    /// every connection always.
    pub fn set_reading(&mut self, key: Key, reading: bool) {
        if let Some(stream) = self.stream(key) {
            stream.reading = reading;
            self.apply_interest(key);
        }
    }

    /// Writes what a stream's outbox holds, now and as room comes.
    pub fn arm(&mut self, key: Key) {
        let Some(stream) = self.stream(key) else { return };
        let Some(outbox) = &stream.outbox else { return };
        stream.writing = outbox.flush();
        self.apply_interest(key);
    }

    /// Reads and hands on what has arrived on a stream by now, whoever goes on writing.
    pub fn drain(&mut self, key: Key) {
        for _ in 0..DRAIN_READS_MAX {
            if !self.read(key) {
                return;
            }
        }
    }

    /// Closes a stream: its descriptor leaves the poller, its outbox is closed, its protocol is
    /// told why.
    pub fn close(&mut self, key: Key, why: &Death) {
        let Ok(at) = self.streams.binary_search_by_key(&key, |s| s.key) else { return };
        let stream = &mut self.streams[at];
        if stream.protocol.is_none() {
            stream.closing.get_or_insert_with(|| why.clone());
            return;
        }
        let stream = self.streams.remove(at);
        self.let_go(stream, why);
    }

    /// Ends a stream that is one of the loop no more.
    #[inline(never)] // a frame of its own: smaller code
    fn let_go(&mut self, mut stream: Stream, why: &Death) {
        let key = stream.key;
        self.poller.remove(key.receive());
        if stream.split {
            self.poller.remove(key.transmit());
        }
        if let Some(outbox) = &stream.outbox {
            outbox.close();
            self.counting.add_outbox(outbox);
        }
        let protocol = stream.protocol.take();
        drop(stream);
        if let Some(mut protocol) = protocol {
            protocol.closed(self, why);
        }
    }

    /// Runs `action` at `at`, or as soon after as the loop turns.
    pub fn timer(&mut self, at: Instant, action: Action) -> TimerId {
        self.timers.set(at, action)
    }

    /// Tells a stream's protocol when this pause is over, behind what has arrived in it.
    pub fn remind(&mut self, key: Key, pause: Duration) {
        let now = Instant::now();
        let tell = move |turn: &mut Turn| {
            // If this very loop was held up, what it has not read yet came in time.
            turn.read(key);
            turn.call(key, &mut |protocol, turn| {
                protocol.reminded(turn, key);
                Ok(())
            });
        };
        self.timer(now.checked_add(pause).unwrap_or(now), Box::new(tell));
    }

    /// Forgets a timer.
    pub fn cancel(&mut self, timer: TimerId) {
        self.timers.cancel(timer);
    }

    fn tell_ends(&mut self, why: &Death) {
        while let Some((_, end)) = self.ends.pop() {
            end(self, why);
        }
    }

    /// Tells all that is left that the loop has ended.
    pub(crate) fn end(&mut self, why: &Death) {
        self.is_lent = false;
        self.tell_ends(why);
        while let Some(stream) = self.streams.pop() {
            self.let_go(stream, why);
        }
    }

    /// The outboxes of its streams.
    pub(in crate::io) fn outboxes(&self) -> impl Iterator<Item = &Outbox> {
        self.streams.iter().filter_map(|stream| stream.outbox.as_deref())
    }

    /// Whether the loop is to end: what is attached now would be refused.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    pub(in crate::io) fn is_over(&self) -> bool {
        self.stopping && (self.streams.is_empty() || self.is_late)
    }

    /// Reads once. Returns whether there may be more.
    fn read(&mut self, key: Key) -> bool {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            // Zeroed by the kernel, whose pages take no memory until something is read into them.
            buffer = vec![0; READ_BYTES];
        }
        let more = self.read_into(key, &mut buffer);
        self.buffer = buffer;
        more
    }

    fn read_into(&mut self, key: Key, buffer: &mut [u8]) -> bool {
        let Some(stream) = self.stream(key) else { return false };
        // While its protocol is called, nobody could take what is read.
        if !stream.reading || stream.protocol.is_none() {
            return false;
        }
        if stream.watched {
            self.call(key, &mut |protocol, turn| protocol.input(turn, key, &[]));
            return false;
        }
        match stream.receive.read(buffer) {
            Read::Nothing => false,
            Read::Bytes(count) => {
                if trace::wanted(Level::Io) {
                    let about = [stream.receive.number(), count as u64];
                    trace::event(Level::Io, "read (descriptor, bytes):", &about);
                }
                self.counting.add(Count::Reads, 1);
                self.counting.add(Count::ReadBytes, count);
                self.has_more |= count == buffer.len();
                if let Some(outbox) = self.stream(key).and_then(|stream| stream.outbox.as_ref()) {
                    outbox.heard();
                }
                self.call(key, &mut |protocol, turn| protocol.input(turn, key, &buffer[..count]));
                true
            }
            Read::Disconnected => {
                self.set_reading(key, false);
                self.call(key, &mut |protocol, turn| {
                    protocol.ended(turn, key);
                    Ok(())
                });
                false
            }
        }
    }

    /// Calls a stream's protocol, which may close or replace itself meanwhile.
    fn call(&mut self, key: Key, f: Call<'_>) {
        let Some(stream) = self.stream(key) else { return };
        let replaced = stream.replaced;
        let Some(mut protocol) = stream.protocol.take() else { return };
        lock::assert_none_held("calling a protocol");
        let called = catch_unwind(AssertUnwindSafe(|| f(&mut *protocol, self)));
        let result = match called {
            Ok(result) => result,
            Err(panic) => {
                // It is told of the end, as all are.
                if let Some(stream) = self.stream(key) {
                    stream.protocol = Some(protocol);
                }
                resume_unwind(panic)
            }
        };
        let Some(stream) = self.stream(key) else { return };
        if stream.replaced == replaced {
            stream.protocol = Some(protocol);
        }
        let closing = stream.closing.take().or(result.err().map(broken));
        if let Some(why) = closing {
            self.close(key, &why);
        }
    }

    fn stream(&mut self, key: Key) -> Option<&mut Stream> {
        let at = self.streams.binary_search_by_key(&key, |s| s.key).ok()?;
        Some(&mut self.streams[at])
    }

    fn apply_interest(&mut self, key: Key) {
        let Some(stream) = self.stream(key) else { return };
        let (reading, writing, split) = (stream.reading, stream.writing, stream.split);
        let receive = Interest { read: reading, write: writing && !split };
        let mut failed = self.poller.change(key.receive(), receive).err();
        if split {
            let transmit = Interest { read: false, write: writing };
            failed = self.poller.change(key.transmit(), transmit).err().or(failed);
        }
        if let Some(Errno(errno)) = failed {
            trace::event(Level::Error, "watching a descriptor failed", &[errno as u64]);
        }
    }
}

/// The end of a stream whose peer breaks the protocol.
pub fn broken(malformed: Malformed) -> Death {
    trace::text(Level::Warn, "a peer broke the protocol", &[], malformed.0);
    Death { tail: malformed.0.to_owned(), ..Death::of(Cause::Protocol) }
}

impl Key {
    /// A stream's that no loop has.
    #[cfg(test)]
    pub(crate) fn of_none() -> Key {
        Key(usize::MAX / 2)
    }

    fn receive(self) -> usize {
        self.0 * 2
    }

    fn transmit(self) -> usize {
        self.0 * 2 + 1
    }
}
