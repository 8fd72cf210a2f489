//! The calls that a context was sent and has not answered: in which order they begin, and which
//! never do. Pure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::call::token::Token;
use crate::error::CallFailure;
use crate::ids::ContextId;
use crate::io::census::{List, put_all, put_left};
use crate::limits::CHAINS_MAX;
use crate::sys::clock::Moment;
use crate::wire::codec::{Decode, Malformed, Reader, Writer};
use crate::wire::message::Message;

/// In the byte behind a call's fingerprint: the milliseconds that it has follow.
pub(crate) const TIMED: u8 = 1;
/// In the same byte: the number of its chain follows.
pub(crate) const CHAINED: u8 = 2;

/// Names a call, or a chain, in the context that is called: the caller, and its number of that.
pub(crate) type Key = u64;

/// The key of what this caller gives this number: of a call, the handle where its answer goes.
pub(crate) fn key(caller: ContextId, number: u32) -> Key {
    u64::from(caller.0) << 32 | u64::from(number)
}

/// A call that has arrived; or, if no answer is wanted, the end of a chain.
pub(crate) struct Arrived {
    pub(crate) message: Message,
    key: Key,
    /// When its time is up.
    pub(crate) until: Option<Instant>,
    /// The chain that it is a link of; 0 if of none.
    pub(crate) chain: Key,
    /// Where its arguments begin; 0 if that cannot be told.
    pub(crate) args_at: usize,
    since: Moment,
}

impl Arrived {
    pub(crate) fn new(message: Message) -> Arrived {
        let key = key(message.src, message.reply_to.map_or(0, |handle| handle.0));
        let since = Moment::now();
        let mut call = Arrived { message, key, until: None, chain: 0, args_at: 0, since };
        // What is malformed is answered when it is its turn.
        call.args_at = call.read().unwrap_or(0);
        call
    }

    fn read(&mut self) -> Result<usize, Malformed> {
        let mut r = Reader::new(&self.message.data, None);
        r.take(8)?;
        let flags = r.take_u8()?;
        if flags & TIMED != 0 {
            let time = Duration::from_millis(r.take_varint()?);
            self.until = Instant::now().checked_add(time);
        }
        if flags & CHAINED != 0 {
            self.chain = key(self.message.src, u32::decode(&mut r)?);
        }
        match flags & !(TIMED | CHAINED) {
            0 => Ok(self.message.data.len() - r.rest().len()),
            _ => Err(Malformed("an unknown flag")),
        }
    }

    /// What names the function; 0 if even that is not there.
    pub(crate) fn fingerprint(&self) -> u64 {
        fingerprint_in(&self.message.data)
    }

    #[inline(never)] // from two places: smaller code
    fn put(&self, list: &mut List, w: &mut Writer<'_>) {
        if list.has_room(w) {
            put_call(self.key, self.fingerprint(), self.since, self.until, w);
        }
    }

    pub(crate) fn is_late(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }

    pub(crate) fn caller(&self) -> ContextId {
        self.message.src
    }
}

/// What names the function in the body of a call; 0 if even that is not there.
pub(crate) fn fingerprint_in(body: &[u8]) -> u64 {
    let bytes = body.get(..8).unwrap_or_default();
    bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

/// A call that a thread has begun.
struct Running {
    key: Key,
    chain: Key,
    fingerprint: u64,
    since: Moment,
    until: Option<Instant>,
    token: Arc<Token>,
    /// Whether its function has, and it answers.
    has_returned: bool,
}

#[derive(Default)]
pub(crate) struct Queue {
    /// What was sent first; its first is the last here.
    next: Vec<Arrived>,
    /// What was sent behind all that; in order.
    later: Vec<Arrived>,
    /// The oldest first.
    running: Vec<Running>,
    /// Chains of which a call has failed, and how; nothing, if it was cancelled. The oldest first;
    /// at most CHAINS_MAX.
    broken: Vec<(Key, Option<Box<CallFailure>>)>,
    /// Threads that wait for something to do.
    sleeping: usize,
    /// How many of them are being woken.
    woken: usize,
}

impl Queue {
    /// Whether one of so many threads does something, or is to.
    pub(crate) fn is_busy(&self, threads: usize) -> bool {
        // A signal may have woken it before it was.
        self.sleeping.saturating_sub(self.woken) < threads
    }

    /// Whether a call waits to be begun.
    pub(crate) fn has_next(&self) -> bool {
        !self.next.is_empty() || !self.later.is_empty()
    }

    /// Appends a call. Returns whether a thread is to be woken.
    pub(crate) fn push(&mut self, call: Arrived) -> bool {
        let wakes = self.woken < self.sleeping && may_begin(&self.running, &call);
        self.woken += usize::from(wakes);
        self.later.push(call);
        wakes
    }

    /// A thread that found nothing sleeps from now on.
    pub(crate) fn sleeps(&mut self) {
        self.sleeping += 1;
    }

    /// It does no longer; because it was `woken`, or for another reason.
    pub(crate) fn wakes(&mut self, woken: bool) {
        self.sleeping -= 1;
        self.woken -= usize::from(woken);
    }

    /// The first that may begin, which the thread of this token now has.
    pub(crate) fn take(&mut self, token: &Arc<Token>) -> Option<Arrived> {
        self.line_up();
        let may_begin = |call: &Arrived| may_begin(&self.running, call);
        let (list, at) = find(&mut self.next, &mut self.later, &may_begin)?;
        let call = list.remove(at);
        let (fingerprint, since) = (call.fingerprint(), Moment::now());
        let Arrived { key, chain, until, .. } = call;
        let token = token.clone();
        let has_returned = false;
        self.running.push(Running { key, chain, fingerprint, since, until, token, has_returned });
        Some(call)
    }

    /// The thread of this token has ended its call.
    pub(crate) fn ended(&mut self, token: &Arc<Token>) {
        if let Some(at) = self.running.iter().position(|other| Arc::ptr_eq(&other.token, token)) {
            self.running.remove(at);
        }
    }

    /// The token of this call, if it runs.
    pub(crate) fn running(&self, key: Key) -> Option<Arc<Token>> {
        self.running.iter().find(|other| other.key == key).map(|other| other.token.clone())
    }

    /// The function of this token has returned. Returns whether no other is at work.
    pub(crate) fn returned(&mut self, token: &Arc<Token>) -> bool {
        let mut all = self.running.iter_mut();
        if let Some(running) = all.find(|other| Arc::ptr_eq(&other.token, token)) {
            running.has_returned = true;
        }
        self.running.iter().all(|running| running.has_returned)
    }

    /// The tokens of all calls that run.
    pub(crate) fn all_running(&self) -> Vec<Arc<Token>> {
        self.running.iter().map(|running| running.token.clone()).collect()
    }

    /// Takes this call, if it has not begun. A link of a chain stays in its place, and its time is
    /// up: those before it are run.
    pub(crate) fn remove(&mut self, key: Key) -> Option<Arrived> {
        self.line_up();
        let (list, at) = find(&mut self.next, &mut self.later, &|call| call.key == key)?;
        if list[at].chain != 0 {
            list[at].until = Some(Instant::now());
            return None;
        }
        Some(list.remove(at))
    }

    /// Has those that were sent first where they are taken without a look at all others.
    fn line_up(&mut self) {
        if self.next.is_empty() {
            std::mem::swap(&mut self.next, &mut self.later);
            self.next.reverse();
        }
    }

    /// How the first of a chain failed that did, if one has.
    pub(crate) fn failure(&self, chain: Key) -> Option<Option<&CallFailure>> {
        let (_, failure) = self.broken.iter().find(|(other, _)| *other == chain)?;
        Some(failure.as_deref())
    }

    /// A call of this chain has failed.
    pub(crate) fn fail(&mut self, chain: Key, failure: Option<Box<CallFailure>>) {
        if chain == 0 || self.failure(chain).is_some() {
            return;
        }
        if CHAINS_MAX <= self.broken.len() {
            self.broken.remove(0);
        }
        self.broken.push((chain, failure));
    }

    /// Forgets the chains from the first of these to the last.
    pub(crate) fn forget(&mut self, first: Key, last: Key) {
        let is_it = |(chain, _): &(Key, _)| (first..=last).contains(chain);
        while let Some(at) = self.broken.iter().position(is_it) {
            self.broken.remove(at);
        }
    }

    /// Appends those that run, and those that wait, the first first; as a snapshot has them.
    pub(crate) fn describe(&self, max: usize, w: &mut Writer<'_>) {
        let mut list = List::new(max);
        for Running { key, fingerprint, since, until, token, .. } in &self.running {
            if list.has_room(w) {
                put_call(*key, *fingerprint, *since, *until, w);
                put_all(&[token.is_cancelled().into()], w);
            }
        }
        list.end(w);
        let mut list = List::new(max);
        self.next.iter().rev().for_each(|call| call.put(&mut list, w));
        self.later.iter().for_each(|call| call.put(&mut list, w));
        list.end(w);
    }

    /// Drops all that waits.
    pub(crate) fn close(&mut self) {
        self.next.clear();
        self.later.clear();
    }

    /// Takes the token of a call that runs.
    pub(crate) fn give_up(&mut self) -> Option<Arc<Token>> {
        Some(self.running.pop()?.token)
    }
}

/// Whether no call runs that must end first.
fn may_begin(running: &[Running], call: &Arrived) -> bool {
    call.chain == 0 || running.iter().all(|other| other.chain != call.chain)
}

/// Appends what is told of a call.
#[inline(never)] // from two places: smaller code
fn put_call(key: Key, fingerprint: u64, since: Moment, until: Option<Instant>, w: &mut Writer<'_>) {
    let (caller, number) = (key >> 32, key & u64::from(u32::MAX));
    put_all(&[fingerprint, 0, caller, number, since.age_ms()], w);
    put_left(until, w);
}

/// Appends what names a function; who has asked looks for a name.
pub(crate) fn put_function(fingerprint: u64, w: &mut Writer<'_>) {
    put_all(&[fingerprint, 0], w);
}

/// Where the first is that is wanted.
fn find<'a>(
    next: &'a mut Vec<Arrived>,
    later: &'a mut Vec<Arrived>,
    wanted: &dyn Fn(&Arrived) -> bool,
) -> Option<(&'a mut Vec<Arrived>, usize)> {
    if let Some(at) = next.iter().rposition(wanted) {
        return Some((next, at));
    }
    let at = later.iter().position(wanted)?;
    Some((later, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Handle;
    use crate::wire::codec::Encode;

    const A: ContextId = ContextId(7);
    const B: ContextId = ContextId(8);

    /// Of this caller, which wants the answer at this handle; in this chain unless that is 0.
    fn call(src: ContextId, number: u32, chain: u32) -> Arrived {
        let mut w = Writer::new(Vec::new(), None);
        w.put(&[0; 8]);
        w.put_u8(if chain == 0 { 0 } else { CHAINED });
        if chain != 0 {
            chain.encode(&mut w);
        }
        let data = w.finish().unwrap();
        let message = Message { src, data, ..Message::to(ContextId(1), Handle::CALL) };
        Arrived::new(message.reply_to(Handle(number)))
    }

    /// What is taken and ended: each call's number, and whether its time is up.
    fn drain(queue: &mut Queue) -> Vec<(u32, bool)> {
        let token = Arc::default();
        let take = || {
            let call = queue.take(&token)?;
            queue.ended(&token);
            Some((call.message.reply_to?.0, call.is_late()))
        };
        std::iter::from_fn(take).collect()
    }

    #[test]
    fn who_cancels_reaches_calls_of_its_own_alone_and_moves_no_other() {
        let mut queue = Queue::default();
        for number in 300..304 {
            queue.push(call(A, number, 0));
            queue.push(call(B, number, 0));
        }
        assert!(queue.remove(key(ContextId(9), 301)).is_none());
        for src in [A, B] {
            assert_eq!(queue.remove(key(src, 301)).map(|call| call.caller()), Some(src));
            assert!(queue.remove(key(src, 301)).is_none());
        }
        queue.push(call(A, 304, 0));
        assert!(queue.remove(key(A, 304)).is_some() && queue.remove(key(B, 303)).is_some());
        let left = [300, 300, 302, 302, 303].map(|number| (number, false));
        assert_eq!(drain(&mut queue), left);
    }

    #[test]
    fn a_link_that_is_cancelled_keeps_its_place() {
        let mut queue = Queue::default();
        for number in 300..303 {
            queue.push(call(A, number, 5));
        }
        assert!(queue.remove(key(A, 301)).is_none());
        assert_eq!(drain(&mut queue), [(300, false), (301, true), (302, false)]);
    }

    #[test]
    fn the_call_that_has_run_for_the_longest_is_told_first() {
        let mut queue = Queue::default();
        let tokens: [Arc<Token>; 4] = Default::default();
        for (number, token) in (300..).zip(&tokens) {
            queue.push(call(A, number, 0));
            assert!(queue.take(token).is_some());
        }
        queue.ended(&tokens[0]);
        let mut w = Writer::new(Vec::new(), None);
        queue.describe(1, &mut w);
        let bytes = w.finish().unwrap();
        let mut told = Reader::new(&bytes, None);
        let [is_one, function, name, caller, reply_to] = [(); 5].map(|()| told.take_varint());
        assert_eq!([is_one, function, name, caller], [Ok(1), Ok(0), Ok(0), Ok(A.0.into())]);
        assert_eq!(reply_to, Ok(301));
    }

    #[test]
    fn a_thread_that_a_signal_wakes_before_it_is_told_is_busy() {
        let mut queue = Queue::default();
        queue.sleeps();
        assert!(!queue.is_busy(1) && queue.push(call(A, 300, 0)) && queue.is_busy(1));
        queue.wakes(false);
        assert!(queue.is_busy(1) && drain(&mut queue).len() == 1);
        queue.sleeps();
        queue.wakes(true);
        queue.sleeps();
        assert!(!queue.is_busy(1));
    }
}
