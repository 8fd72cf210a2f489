//! Sending: from a message of any size to frames in an outbox, at the pace of its destination.

use std::sync::Arc;
use std::time::Instant;

use crate::error::{Cause, Death, Error, ErrorKind, Result};
use crate::ids::{ContextId, Handle};
use crate::io::outbox::Pushed;
use crate::io::turn::Key;
use crate::limits::{FRAGMENT_BYTES, MESSAGE_COST_BYTES, UNGRANTED_BYTES_MAX};
use crate::lock;
use crate::route::credit::was_interrupted;
use crate::route::node::{Node, Outgoing, Payload, Way};
use crate::trace::{self, Level};
use crate::wire::fragment;
use crate::wire::frame::{Frame, FrameBuf};
use crate::wire::header::{Header, Kind, Lane, Part};
use crate::wire::message::Message;

impl Node {
    /// Sends a message of any size. On a user's thread this sleeps while there is no room on the
    /// way; on the broker's thread it never does.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if no route leads there or the destination ended,
    /// [`ErrorKind::TooLarge`], [`ErrorKind::Interrupted`] before anything was sent.
    pub fn send(self: &Arc<Self>, out: &Outgoing, payload: FrameBuf) -> Result<()> {
        self.send_until(out, payload, None)
    }

    /// As [`Node::send`], if it can begin until then. What has begun is finished.
    ///
    /// # Errors
    /// Also [`ErrorKind::Timeout`]; nothing was sent.
    pub fn send_until(
        self: &Arc<Self>,
        out: &Outgoing,
        payload: FrameBuf,
        deadline: Option<Instant>,
    ) -> Result<()> {
        lock::assert_none_held("sending");
        self.broker().forbid_copy()?;
        self.forbid_acting_for(out.auth, out.dst)?;
        let (bytes, bytes_max) =
            (payload.payload().len() as u64, self.identity().message_bytes_max);
        if bytes_max < bytes {
            return Err(Error::new(ErrorKind::TooLarge { bytes, bytes_max }));
        }
        if out.dst == self.id() {
            return self.send_to_self(out, payload);
        }
        if !payload.fits() {
            return self.send_fragments(out, payload.payload(), deadline);
        }
        let room = room_of(payload.payload());
        self.charge(out, room, deadline)?;
        let header = self.header(out, self.credit.lane((out.dst, out.handle)), Part::Whole);
        let sent = self.transmit(&header, payload.seal(&header).as_bytes(), deadline);
        self.uncharge_unsent(out, room, sent)
    }

    /// Sends data of one frame on the loop, if its destination has room for it now. Returns whether
    /// it has.
    ///
    /// # Errors
    /// Why it gets nowhere: it is lost.
    pub fn send_if_room(&self, out: &Outgoing, payload: &[u8]) -> Result<bool> {
        let (target, room) = ((out.dst, out.handle), room_of(payload));
        if !self.credit.try_take(target, room) {
            return Ok(false);
        }
        let header = self.header(out, self.credit.lane(target), Part::Whole);
        let sent = self.transmit(&header, Frame::new(&header, payload).as_bytes(), None);
        if sent.is_err() {
            self.credit.uncharge(target, room);
        }
        sent.map(|()| true)
    }

    /// Takes room for a message of data; sleeps until there is, if this thread may.
    fn charge(&self, out: &Outgoing, room: usize, deadline: Option<Instant>) -> Result<()> {
        if !self.is_charged(out) {
            return Ok(());
        }
        self.credit.take((out.dst, out.handle), room, false, deadline)
    }

    fn is_charged(&self, out: &Outgoing) -> bool {
        out.kind == Kind::Data && !self.broker().is_current()
    }

    /// Gives it back if the message did not begin.
    fn uncharge_unsent(&self, out: &Outgoing, room: usize, sent: Result<()>) -> Result<()> {
        if self.is_charged(out) && sent.is_err() {
            self.credit.uncharge((out.dst, out.handle), room);
        }
        sent
    }

    /// Answers who asked for something, here or elsewhere, with a small message.
    #[inline(never)] // smaller code
    pub fn answer(self: &Arc<Self>, asker: (ContextId, Handle), payload: Payload<'_>) {
        let ((dst, handle), auth) = (asker, self.id());
        let out = Outgoing { kind: Kind::Reply, dst, auth, handle, reply_to: None };
        if let Ok(payload) = FrameBuf::encode(None, payload) {
            // Who is gone need not be told.
            let _ = self.send(&out, payload);
        }
    }

    pub(super) fn header(&self, out: &Outgoing, lane: Lane, part: Part) -> Header {
        let Outgoing { kind, dst, auth, handle, reply_to } = *out;
        Header { kind, lane, part, dst, src: self.id(), auth, handle, reply_to }
    }

    /// Hands a message for this very context to the broker, as if it had arrived.
    fn send_to_self(self: &Arc<Self>, out: &Outgoing, payload: FrameBuf) -> Result<()> {
        let Outgoing { kind, dst, auth, handle, reply_to } = *out;
        let data = payload.payload().to_vec();
        let message =
            Message { kind, lane: Lane::Quick, dst, src: self.id(), auth, handle, reply_to, data };
        let node = self.clone();
        self.broker().defer(move |turn| {
            if let Err(refusal) = node.deliver(turn, message) {
                refusal.log(&node);
            }
        })
    }

    fn send_fragments(
        &self,
        out: &Outgoing,
        payload: &[u8],
        deadline: Option<Instant>,
    ) -> Result<()> {
        if self.broker().is_current() {
            // The loop waits for no grant.
            let (bytes, bytes_max) = (payload.len() as u64, UNGRANTED_BYTES_MAX);
            if bytes_max < bytes {
                return Err(Error::new(ErrorKind::TooLarge { bytes, bytes_max }));
            }
            return self.send_parts(out, payload, None, true);
        }
        let (target, announced) = ((out.dst, out.handle), out.kind != Kind::Data);
        let is_answer = matches!(out.kind, Kind::Reply | Kind::Dead);
        while let Err(error) = self.credit.begin(target, announced, deadline) {
            // Nobody could send an answer again.
            if !is_answer || !was_interrupted(&error) {
                return Err(error);
            }
        }
        let sent = self.send_parts(out, payload, deadline, false);
        // Behind an answer nothing goes there.
        self.credit.end(target, sent.is_ok() && !is_answer);
        sent
    }

    fn send_parts(
        &self,
        out: &Outgoing,
        payload: &[u8],
        mut deadline: Option<Instant>,
        at_once: bool,
    ) -> Result<()> {
        let (room, announced) = (room_of(payload), out.kind != Kind::Data);
        self.charge(out, room, deadline)?;
        for at in (0..payload.len()).step_by(FRAGMENT_BYTES) {
            let (target, bytes) = ((out.dst, out.handle), FRAGMENT_BYTES.min(payload.len() - at));
            let waits = 0 < at && !at_once;
            let take = || self.credit.take(target, bytes, announced, None);
            while let Some(error) = waits.then(take).and_then(Result::err) {
                // Inside a message a signal must not end a wait.
                if !was_interrupted(&error) {
                    return Err(error);
                }
            }
            let sent = self.transmit_part(out, payload, at, deadline.take());
            self.uncharge_unsent(out, room, sent)?;
        }
        Ok(())
    }

    /// Sends the fragment that begins at byte `at`.
    pub(super) fn transmit_part(
        &self,
        out: &Outgoing,
        payload: &[u8],
        at: usize,
        deadline: Option<Instant>,
    ) -> Result<()> {
        let Some((part, chunk)) = fragment::part_at(payload, at) else { return Ok(()) };
        let header = self.header(out, Lane::Bulk, part);
        self.transmit(&header, Frame::new(&header, chunk).as_bytes(), deadline)
    }

    /// Puts a frame of ours on the way to `dst`, after a wait for room if this thread may wait.
    fn transmit(&self, header: &Header, frame: &[u8], deadline: Option<Instant>) -> Result<()> {
        let dst = header.dst;
        let way = self.table().way_to(dst, None);
        let way = way.ok_or_else(|| Error::from(Death::of(Cause::NoRoute).at(dst)))?;
        if !self.broker().is_current() {
            while let Err(e) = way.outbox.wait_for_room(deadline) {
                match e.kind() {
                    // The push finds that, too, and says who cannot be reached.
                    ErrorKind::Closed(_) => break,
                    _ if was_interrupted(&e) => continue,
                    _ => return Err(e),
                }
            }
        }
        self.push(&way, header, frame).map_err(|cause| Death::of(cause).at(dst).into())
    }

    /// Writes a frame or queues it.
    ///
    /// # Errors
    /// Why it goes nowhere. Where that could not be told to who sent it, the link is closed: a lost
    /// answer, fragment or route would leave somebody waiting.
    pub fn push(&self, way: &Way, header: &Header, frame: &[u8]) -> Result<(), Cause> {
        trace_frame("frame out (kind, source, destination, handle, bytes):", header, frame);
        self.pushed(way.outbox.send(frame, header.lane), way, way.key, header)
    }

    /// As [`Node::push`], of what came by the link `from`. Where the way up is full, that link is
    /// the one to be closed: one child's flood must not cost all others theirs.
    pub fn forward(
        &self,
        way: &Way,
        from: Key,
        header: &Header,
        frame: &[u8],
    ) -> Result<(), Cause> {
        let guilty = if way.up { from } else { way.key };
        trace_frame("frame on (kind, source, destination, handle, bytes):", header, frame);
        self.pushed(way.outbox.forward(frame, header.lane), way, guilty, header)
    }

    fn pushed(&self, pushed: Pushed, way: &Way, guilty: Key, header: &Header) -> Result<(), Cause> {
        match pushed {
            Pushed::Taken => Ok(()),
            Pushed::Closed => Err(Cause::Disconnected),
            Pushed::Full => {
                let asks = header.kind == Kind::Data || header.reply_to.is_some();
                if !asks || header.part == Part::Next {
                    // An ended broker has closed it.
                    let _ = self.broker().defer(move |turn| {
                        turn.close(guilty, &Death::of(Cause::DoesNotRead));
                    });
                }
                Err(Cause::DoesNotRead)
            }
            Pushed::Arm => {
                // A stream that is not attached yet writes what is queued when it is.
                self.broker().arm(way.key);
                Ok(())
            }
        }
    }
}

/// Logs a frame, but for its payload.
pub fn trace_frame(what: &'static str, header: &Header, frame: &[u8]) {
    if trace::wanted(Level::Io) {
        let Header { kind, src, dst, handle, .. } = *header;
        let ids = [src.0, dst.0, handle.0].map(u64::from);
        trace::event(Level::Io, what, &[kind as u64, ids[0], ids[1], ids[2], frame.len() as u64]);
    }
}

/// What a message counts for at its receiver, until it is taken: its fragments behind the first are
/// granted as they arrive.
pub fn room_of(payload: &[u8]) -> usize {
    payload.len().min(FRAGMENT_BYTES) + MESSAGE_COST_BYTES
}
