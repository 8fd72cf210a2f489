//! The calls that a context was sent and has not answered: in which order they begin, and which
//! never do. Pure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::call::token::Token;
use crate::ids::{ContextId, Handle};
use crate::limits::CHAINS_MAX;
use crate::wire::codec::{Malformed, Reader};
use crate::wire::frame::FrameBuf;
use crate::wire::message::Message;

/// In the byte behind a call's fingerprint: the milliseconds that it has follow.
pub(crate) const TIMED: u8 = 1;
/// In the same byte: the number of its chain follows.
pub(crate) const CHAINED: u8 = 2;

/// Names a call in the context that it was sent to: the caller, and where the answer goes there.
pub(crate) type Key = (ContextId, Option<Handle>);

/// Names a chain in the same way: the caller, and the caller's number.
pub(crate) type Chain = (ContextId, u64);

/// A call that has arrived; or, if no answer is wanted, the end of a chain.
pub(crate) struct Arrived {
    pub(crate) message: Message,
    /// When its time is up.
    pub(crate) until: Option<Instant>,
    /// The caller's number of its chain; 0 if it is of none.
    chain: u64,
    /// Where its arguments begin; 0 if that cannot be told.
    pub(crate) args_at: usize,
}

impl Arrived {
    pub(crate) fn new(message: Message) -> Arrived {
        let mut call = Arrived { message, until: None, chain: 0, args_at: 0 };
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
            self.chain = r.take_varint()?;
        }
        match flags & !(TIMED | CHAINED) {
            0 => Ok(self.message.data.len() - r.rest().len()),
            _ => Err(Malformed("an unknown flag")),
        }
    }

    /// What names the function; 0 if even that is not there.
    pub(crate) fn fingerprint(&self) -> u64 {
        let bytes = self.message.data.get(..8).unwrap_or_default();
        bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte))
    }

    pub(crate) fn is_late(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }

    pub(crate) fn caller(&self) -> ContextId {
        self.message.src
    }

    /// Its chain, if it is a link of one.
    pub(crate) fn chain(&self) -> Option<Chain> {
        (self.chain != 0).then_some((self.message.src, self.chain))
    }

    fn key(&self) -> Key {
        (self.message.src, self.message.reply_to)
    }
}

/// A call that a thread has begun.
struct Running {
    key: Key,
    chain: u64,
    token: Arc<Token>,
}

#[derive(Default)]
pub(crate) struct Queue {
    /// What was sent first; its first is the last here.
    next: Vec<Arrived>,
    /// What was sent behind all that; in order.
    later: Vec<Arrived>,
    running: Vec<Running>,
    /// Chains of which a call has failed, and the answer to all behind it. The oldest first; at
    /// most CHAINS_MAX.
    broken: Vec<(Chain, FrameBuf)>,
    /// Threads that wait for something to do.
    sleeping: usize,
    /// How many of them are being woken.
    woken: usize,
}

impl Queue {
    /// Whether one of so many threads does something, or is to.
    pub(crate) fn is_busy(&self, threads: usize) -> bool {
        self.sleeping - self.woken < threads
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
        if self.next.is_empty() {
            std::mem::swap(&mut self.next, &mut self.later);
            self.next.reverse();
        }
        let call = pick(&mut self.next, &mut self.later, &|call| may_begin(&self.running, call))?;
        self.running.push(Running { key: call.key(), chain: call.chain, token: token.clone() });
        Some(call)
    }

    /// The thread of this token has ended its call.
    pub(crate) fn ended(&mut self, token: &Arc<Token>) {
        if let Some(at) = self.running.iter().position(|other| Arc::ptr_eq(&other.token, token)) {
            self.running.swap_remove(at);
        }
    }

    /// The token of this call, if it runs.
    pub(crate) fn running(&self, key: Key) -> Option<Arc<Token>> {
        self.running.iter().find(|other| other.key == key).map(|other| other.token.clone())
    }

    /// Takes this call, if it has not begun.
    pub(crate) fn remove(&mut self, key: Key) -> Option<Arrived> {
        pick(&mut self.next, &mut self.later, &|call| call.key() == key)
    }

    /// The answer to a call of a chain that is broken.
    pub(crate) fn refusal(&self, chain: Chain) -> Option<FrameBuf> {
        self.broken.iter().find(|(other, _)| *other == chain).map(|(_, answer)| answer.clone())
    }

    /// A call of this chain has failed: the answer to all behind it, if no other has before.
    pub(crate) fn fail(&mut self, chain: Chain, answer: &FrameBuf) {
        if self.broken.iter().any(|(other, _)| *other == chain) {
            return;
        }
        if CHAINS_MAX <= self.broken.len() {
            self.broken.remove(0);
        }
        self.broken.push((chain, answer.clone()));
    }

    /// Forgets a chain, or all of a caller that is gone.
    pub(crate) fn forget(&mut self, caller: ContextId, chain: Option<Chain>) {
        let is_it = |other: Chain| other.0 == caller && chain.is_none_or(|chain| chain == other);
        while let Some(at) = self.broken.iter().position(|(other, _)| is_it(*other)) {
            self.broken.remove(at);
        }
    }

    /// Takes all calls: those that never begin, and the tokens of those that run.
    pub(crate) fn close(&mut self) -> ([Vec<Arrived>; 2], Vec<Arc<Token>>) {
        let tokens = self.running.iter().map(|running| running.token.clone()).collect();
        ([std::mem::take(&mut self.next), std::mem::take(&mut self.later)], tokens)
    }
}

/// Whether no call runs that must end first.
fn may_begin(running: &[Running], call: &Arrived) -> bool {
    call.chain == 0
        || running.iter().all(|other| (other.key.0, other.chain) != (call.key().0, call.chain))
}

/// Takes the first that is wanted.
fn pick(
    next: &mut Vec<Arrived>,
    later: &mut Vec<Arrived>,
    wanted: &dyn Fn(&Arrived) -> bool,
) -> Option<Arrived> {
    if let Some(at) = next.iter().rposition(wanted) {
        return Some(next.remove(at));
    }
    let at = later.iter().position(wanted)?;
    Some(later.remove(at))
}
