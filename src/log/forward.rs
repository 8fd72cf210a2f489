//! An agent's records on their way to the master, and what is printed in it: one queue, in order.
//! Any thread adds to it; only the loop sends, while there is room there, and never waits. Nothing
//! here logs.

mod queue;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Cause, Death, Result};
use crate::ids::{ContextId, Handle};
use crate::io::lending;
use crate::io::side::Side;
use crate::io::sleep::{self, Sleeper};
use crate::io::turn::{Key, Protocol, Turn};
use crate::limits::{LOG_BARRIERS_MAX, LOG_BEHIND_BYTES, LOG_DRAINED_BYTES_MAX, LOG_PRINTED_BYTES};
use crate::limits::{LOG_QUEUE_BYTES, LOG_WAIT};
use crate::lock::{Held, Lock};
use crate::log::forward::queue::Queue;
use crate::log::stdio::{Printed, TARGETS};
use crate::route::credit::was_interrupted;
use crate::route::node::{Node, Outgoing};
use crate::sys::pipe::Wake;
use crate::sys::stdio;
use crate::trace::{self, Level, Record, Slot, TARGET, Take};
use crate::wire::codec::Malformed;
use crate::wire::header::Kind;

/// What one agent logs and prints.
pub struct Forward {
    node: Arc<Node>,
    state: Lock<State>,
    wait: Option<Wait>,
}

/// Takes a record of a user's thread, which may wait for room. Returns whether there was some.
type Wait = fn(&Arc<Forward>, &Record<'_>) -> bool;

struct State {
    queue: Queue,
    /// Records for which there was no room, here or on the way.
    dropped: u64,
    /// Whether the loop was told of what is here.
    scheduled: bool,
    /// Whether the loop is sending what it has taken out.
    in_hand: bool,
    printed: [Printed; 2],
    /// Which of them is read first.
    first: usize,
    /// Whether what is printed goes to the master.
    to_master: bool,
    /// Who is to be told when nothing is left.
    barriers: Vec<(ContextId, Handle)>,
    /// Who sleeps until there is room.
    waiting: Vec<Arc<Wake>>,
    keys: [Option<Key>; 2],
    is_reading: bool,
}

impl Forward {
    /// Takes records of the level that the context was told, and what comes out of these ends.
    pub fn new(node: &Arc<Node>, ends: [OwnedFd; 2], wait: Option<Wait>) -> Arc<Forward> {
        let level = node.identity().log_level;
        let state = Lock::new(State::new(node, ends));
        let forward = Arc::new(Forward { node: node.clone(), state, wait });
        let taker = Arc::new(Logged(forward.clone()));
        trace::take_by(Slot::Forward, Level::from_number(level), Some(taker));
        forward
    }

    /// Reads what is printed from now on, and sends it: there is a way now.
    ///
    /// # Errors
    /// As [`Turn::attach`].
    pub fn watch(self: &Arc<Self>, turn: &mut Turn) -> Result<()> {
        for place in 0..TARGETS.len() {
            let fd = self.lock().printed[place].fd();
            let Some(fd) = fd else { continue };
            let key =
                turn.watch(self.node.tenant(), Side::sharing(fd), Box::new(Ear(self.clone())))?;
            // It is no process that a shutdown waits for.
            turn.wait_no_longer(key);
            self.lock().keys[place] = Some(key);
        }
        self.pump(turn);
        Ok(())
    }

    /// Sends records of this level and above from now on. Returns whether what contexts below are
    /// to send is another now.
    pub fn set_level(&self, number: u8) -> bool {
        let before = trace::level_below();
        trace::take_from(Slot::Forward, Level::from_number(number));
        self.lock().to_master = is_for_master(number);
        trace::level_below() != before
    }

    /// Answers when all that was logged and printed before is on its way.
    pub fn answer_when_sent(&self, turn: &mut Turn, asker: (ContextId, Handle)) {
        let has_room = {
            let mut state = self.lock();
            let has_room = state.barriers.len() < LOG_BARRIERS_MAX;
            if has_room {
                state.barriers.push(asker);
                state.end_lines();
            }
            has_room
        };
        if has_room {
            self.pump(turn);
        } else {
            self.node.answer(asker, &|_| ());
        }
    }

    /// Ends unfinished lines and sends what there is room for. Returns whether that was all, and
    /// has left this process.
    pub fn finish(&self, turn: &mut Turn) -> bool {
        self.lock().end_lines();
        self.pump(turn);
        self.is_sent()
    }

    /// As [`Forward::finish`], on a thread that is not the loop's: to be called again.
    pub fn finish_elsewhere(self: &Arc<Self>) -> bool {
        let is_sent = self.is_sent();
        if !is_sent {
            let is_new = !std::mem::replace(&mut self.lock().scheduled, true);
            self.schedule(is_new);
        }
        is_sent
    }

    fn is_sent(&self) -> bool {
        let is_sent = {
            let mut state = self.lock();
            state.end_lines();
            state.drain(LOG_QUEUE_BYTES) && state.is_idle()
        };
        is_sent && self.node.has_told_parent()
    }

    /// Sends what is there, as much as there is room for at its destination.
    pub fn pump(&self, turn: &mut Turn) {
        let mut drained = self.prepare();
        while self.send_one() {
            if !drained {
                drained = self.prepare();
            }
        }
        self.set_reading(turn, drained);
        let answered = self.lock().settle(drained);
        for asker in answered {
            self.node.answer(asker, &|_| ());
        }
    }

    /// Takes what was printed. Returns whether that is all.
    fn prepare(&self) -> bool {
        let mut state = self.lock();
        state.scheduled = false;
        let drained = state.drain(LOG_PRINTED_BYTES);
        state.tell_dropped();
        drained
    }

    /// Sends one message, or loses it. Returns whether there was one, and room for it.
    fn send_one(&self) -> bool {
        let batch = {
            let mut state = self.lock();
            let Some(batch) = state.queue.batches.pop_front() else { return false };
            state.in_hand = true;
            batch
        };
        let parent = self.node.parents().first().copied();
        let dst = if batch.to_master { Some(ContextId::MASTER) } else { parent };
        let (auth, handle) = (self.node.id(), Handle::FORWARD_LOG);
        let sent = dst.map_or(Ok(true), |dst| {
            let out = Outgoing { kind: Kind::Data, dst, auth, handle, reply_to: None };
            self.node.send_if_room(&out, &batch.bytes)
        });
        let mut state = self.lock();
        state.in_hand = false;
        if matches!(sent, Ok(false)) {
            state.queue.batches.push_front(batch);
            return false;
        }
        state.queue.bytes = state.queue.bytes.saturating_sub(batch.bytes.len());
        if sent.is_err() {
            state.dropped += batch.records;
        }
        true
    }

    /// Reads only while there is room; what has ended is watched no longer.
    fn set_reading(&self, turn: &mut Turn, reading: bool) {
        let (keys, changes) = {
            let mut state = self.lock();
            let mut keys = [None; 2];
            for (place, key) in keys.iter_mut().enumerate() {
                let ended = state.printed[place].fd().is_none();
                *key = state.keys[place].map(|key| (key, ended));
            }
            (keys, std::mem::replace(&mut state.is_reading, reading) != reading)
        };
        for (key, ended) in keys.into_iter().flatten() {
            if ended {
                turn.close(key, &Death::of(Cause::Disconnected));
            } else if changes {
                turn.set_reading(key, reading);
            }
        }
    }

    /// Has the loop send what is there, if it was not told before.
    fn schedule(self: &Arc<Self>, is_new: bool) {
        if is_new {
            let own = self.clone();
            // An ended broker sends nothing.
            let _ = self.node.broker().defer(move |turn| own.pump(turn));
        }
    }

    /// The context that it is of.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Takes a record, behind all that was printed before. Without room it sleeps for a while, but
    /// not on a thread that turns a loop. Returns whether there was some.
    pub fn take_waiting(self: &Arc<Self>, record: &Record<'_>) -> bool {
        let (mut since, mut deadline, mut last) = (None, None, lending::turns_one());
        loop {
            let taken = self.try_take(record, &mut since, last);
            if taken || last {
                return taken;
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now().checked_add(LOG_WAIT));
            last = !self.wait_for_room(deadline);
        }
    }

    fn wait_for_room(&self, deadline: Option<Instant>) -> bool {
        loop {
            match self.sleep_for_room(deadline) {
                Err(error) if was_interrupted(&error) => (),
                slept => return slept.is_ok(),
            }
        }
    }

    fn sleep_for_room(&self, deadline: Option<Instant>) -> Result<()> {
        let mut mine: Option<Sleeper> = None;
        loop {
            let wake = {
                let mut state = self.lock();
                if state.queue.has_room() {
                    return Ok(());
                }
                let wake = match &mut mine {
                    Some(wake) => wake,
                    none => none.insert(sleep::sleeper()?),
                };
                if !state.waiting.iter().any(|other| Arc::ptr_eq(other, wake)) {
                    state.waiting.push(Arc::clone(wake));
                }
                wake
            };
            if let Err(error) = sleep::sleep(wake, &[], deadline) {
                self.lock().waiting.retain(|other| !Arc::ptr_eq(other, wake));
                return Err(error);
            }
        }
    }

    /// Takes a record if there is room, and if what was printed `since` its first try is before it.
    /// The `last` try needs room alone; without that the record is counted as dropped.
    fn try_take(
        self: &Arc<Self>,
        record: &Record<'_>,
        since: &mut Option<[usize; 2]>,
        last: bool,
    ) -> bool {
        if record.level == Level::Io {
            // Sending it would be logged as well.
            return true;
        }
        let (taken, is_new) = {
            let mut state = self.lock();
            let since = *since.get_or_insert(state.printed.each_ref().map(Printed::passed));
            let has_room = state.queue.has_room();
            if has_room {
                state.drain(LOG_DRAINED_BYTES_MAX);
            }
            let taken = has_room && (last || state.has_passed(since));
            if taken {
                state.queue.put(record, true, 1);
            } else if last {
                state.dropped += 1;
            }
            (taken, !std::mem::replace(&mut state.scheduled, true))
        };
        self.schedule(is_new);
        taken
    }

    /// Has what was printed and not read yet told by SIGABRT.
    pub fn guard_abort(&self) {
        let ends = [0, 1].map(|place| self.lock().printed[place].fd());
        stdio::at_abort(ends);
    }

    /// Sends and reads nothing more: this context has left its tree.
    pub fn leave(&self, turn: &mut Turn) {
        trace::take_by(Slot::Forward, None, None);
        let keys = {
            let mut state = self.lock();
            state.printed.iter_mut().for_each(Printed::close);
            (state.queue.batches, state.queue.bytes) = (VecDeque::new(), 0);
            state.wake();
            state.keys
        };
        for key in keys.into_iter().flatten() {
            turn.close(key, &Death::of(Cause::Detached));
        }
    }

    fn lock(&self) -> Guarded<'_> {
        let held = self.state.lock();
        // Whatever is read from now on.
        stdio::note_unsent(true);
        Guarded(held)
    }
}

/// Whether lines of what is printed are wanted at this level.
fn is_for_master(level: u8) -> bool {
    Level::Info as u8 <= level
}

/// Takes what is logged.
struct Logged(Arc<Forward>);

impl Take for Logged {
    fn take(&self, record: &Record<'_>) -> bool {
        self.0.try_take(record, &mut None, true)
    }

    fn take_waiting(&self, record: &Record<'_>) -> bool {
        self.0.wait.map_or_else(|| self.take(record), |wait| wait(&self.0, record))
    }
}

/// Hears that something was printed.
struct Ear(Arc<Forward>);

impl Protocol for Ear {
    fn input(&mut self, turn: &mut Turn, _: Key, _: &[u8]) -> std::result::Result<(), Malformed> {
        self.0.pump(turn);
        Ok(())
    }

    fn closed(&mut self, _: &mut Turn, _: &Death) {}
}

/// The state, while one thread has it.
struct Guarded<'a>(Held<'a, State>);

impl Deref for Guarded<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl DerefMut for Guarded<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.0
    }
}

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        stdio::note_begun([0, 1].map(|place| self.printed[place].has_begun()));
        stdio::note_unsent(!self.is_idle());
    }
}

impl State {
    fn new(node: &Node, ends: [OwnedFd; 2]) -> State {
        let identity = node.identity();
        State {
            queue: Queue::of(identity),
            dropped: 0,
            // What is sent before there is a way would be lost.
            scheduled: true,
            in_hand: false,
            printed: ends.map(Printed::new),
            first: 0,
            to_master: is_for_master(identity.log_level),
            barriers: Vec::new(),
            waiting: Vec::new(),
            keys: [None; 2],
            is_reading: true,
        }
    }

    /// Whether nothing waits to be sent.
    fn is_idle(&self) -> bool {
        self.queue.batches.is_empty() && !self.in_hand
    }

    fn end_lines(&mut self) {
        self.printed.iter_mut().for_each(Printed::end_line);
    }

    /// Takes what was printed, up to so many bytes in all. Returns whether that is all; else the
    /// other one is first the next time, so that neither waits for the end of the other.
    fn drain(&mut self, bytes_max: usize) -> bool {
        let (queue, to_master) = (&mut self.queue, self.to_master);
        let time_us = Record::now(Level::Info, "").time_us;
        for place in [self.first, 1 - self.first] {
            if bytes_max <= queue.bytes {
                self.first = place;
                return false;
            }
            let drained = self.printed[place].drain(&mut |text, continues| {
                let record = Record::now(Level::Info, TARGETS[place]);
                queue.put(&Record { time_us, text, continues, ..record }, to_master, 1);
                queue.bytes < bytes_max
            });
            if !drained {
                self.first = 1 - place;
                return false;
            }
        }
        self.first = 0;
        true
    }

    /// Whether all that was printed before they had `passed` so much is in the queue.
    fn has_passed(&self, since: [usize; 2]) -> bool {
        let mut both = self.printed.iter().zip(since);
        both.all(|(printed, since)| LOG_BEHIND_BYTES <= printed.passed().wrapping_sub(since))
    }

    /// Says how many records were dropped, once there is room for that.
    fn tell_dropped(&mut self) {
        if 0 < self.dropped && self.queue.has_room() {
            let (about, what) = (&[self.dropped], "records were dropped, for want of room:");
            let record = Record::now(Level::Error, TARGET);
            self.queue.put(&Record { about, what, ..record }, true, self.dropped);
            self.dropped = 0;
        }
    }

    /// Wakes those who wait for room; takes those who wait for the end, if this is it.
    fn settle(&mut self, drained: bool) -> Vec<(ContextId, Handle)> {
        if self.queue.has_room() {
            self.wake();
        }
        if drained && self.is_idle() { std::mem::take(&mut self.barriers) } else { Vec::new() }
    }

    fn wake(&mut self) {
        for wake in self.waiting.drain(..) {
            wake.wake();
        }
    }
}
