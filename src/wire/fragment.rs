//! Long messages travel as fragments and are put together at their destination.
//! Nothing is allocated on the word of an announced length: memory follows what has arrived.

#[cfg(test)]
mod tests;

use crate::ids::{ContextId, Handle};
use crate::limits::{ANNOUNCED_WINDOW_BYTES, ASSEMBLED_MESSAGES_MAX, ASSEMBLIES_MAX};
use crate::limits::{ASSEMBLY_STEP_BYTES, FRAGMENT_BYTES, UNGRANTED_BYTES_MAX};
use crate::sys::pages;
use crate::wire::codec::Malformed;
use crate::wire::header::{Header, Kind, Part};
use crate::wire::message::Message;

/// The part of `payload` that begins at byte `at`, and its bytes; `None` at the end. A payload that
/// fits into one frame, the empty one too, is one whole part.
///
/// `at` is 0 or where an earlier part ended. Fragments travel in the bulk lane.
pub fn part_at(payload: &[u8], at: usize) -> Option<(Part, &[u8])> {
    let rest = payload.get(at..)?;
    let chunk = &rest[..rest.len().min(FRAGMENT_BYTES)];
    match (at, chunk.len()) {
        (0, all) if all == payload.len() => Some((Part::Whole, chunk)),
        (0, _) => Some((Part::First(payload.len() as u64), chunk)),
        (_, 0) => None,
        _ => Some((Part::Next, chunk)),
    }
}

/// All parts of `payload` in order.
#[cfg(any(test, feature = "fuzzing"))]
pub fn split(payload: &[u8]) -> impl Iterator<Item = (Part, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (part, chunk) = part_at(payload, at)?;
        // Behind the one part of an empty payload there is no other.
        at += chunk.len().max(1);
        Some((part, chunk))
    })
}

/// What became of a frame that was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It completes this message.
    Whole(Message),
    /// It was kept; more must follow.
    Partial,
    /// Its message is longer than allowed and is refused; the fragments that follow are ignored.
    TooLarge {
        /// The message's length in bytes.
        total: u64,
    },
    /// It belongs to a refused message.
    Ignored,
}

/// Puts together the fragments that come by one stream.
#[derive(Default)]
pub struct Assembler {
    /// Sorted by key, no key twice; `len() <= ASSEMBLIES_MAX`.
    open: Vec<Assembly>,
    /// Messages begun so far; tells the oldest.
    begun: u64,
}

/// Which message a fragment belongs to: its sender finishes or gives up one before the next. To
/// where an answer goes there is only one.
type Key = (ContextId, Handle, Option<Handle>);

/// One half-arrived message: `arrived < total`, and `data.len() == arrived` unless refused.
struct Assembly {
    header: Header,
    number: u64,
    refused: bool,
    total: u64,
    arrived: u64,
    /// Where the bytes end that were granted. Invariant: `granted <= total`.
    granted: u64,
    data: Vec<u8>,
}

impl Assembler {
    /// Nothing has arrived.
    pub fn new() -> Assembler {
        Assembler::default()
    }

    /// Takes a frame that is for us. A message of more than `bytes_max` bytes is refused, and one
    /// of data or control with which what has arrived of those would be more than
    /// `ASSEMBLED_MESSAGES_MAX` times as much.
    ///
    /// # Errors
    ///
    /// Malformed is a later fragment without its first, one that differs from it in kind,
    /// destination or authority, one beyond the announced length or short before it, or beyond what
    /// was granted; more than `ASSEMBLIES_MAX` open messages.
    pub fn push(
        &mut self,
        header: &Header,
        payload: &[u8],
        bytes_max: u64,
    ) -> Result<Step, Malformed> {
        match header.part {
            Part::Whole if bytes_max < payload.len() as u64 => {
                Ok(Step::TooLarge { total: payload.len() as u64 })
            }
            Part::Whole => Ok(Step::Whole(Message::new(header, payload.to_vec()))),
            Part::First(total) => self.begin(header, total, payload, bytes_max),
            Part::Next => self.go_on(header, payload, bytes_max),
        }
    }

    /// Grants more of an unfinished message, if it is time to. Each may have one fragment on its
    /// way, always, so that none waits for another; and more as long as `spare_bytes` are left,
    /// the less of them the more are on their way. Returns how many bytes more may come.
    pub fn grant(&mut self, header: &Header, spare_bytes: u64) -> u64 {
        match self.find(&key(header)) {
            Ok(at) => self.open[at].grant(spare_bytes),
            Err(_) => 0,
        }
    }

    /// Bytes that were granted and have not arrived, but for one fragment of each message.
    pub fn ahead(&self) -> u64 {
        self.open.iter().map(|open| open.coming().saturating_sub(FRAGMENT_BYTES as u64)).sum()
    }

    /// Forgets the unfinished messages of a context.
    pub fn drop_from(&mut self, src: ContextId) {
        while let Some(at) = self.open.iter().position(|open| open.header.src == src) {
            self.open.remove(at);
        }
    }

    /// Whether nothing is expected: who was refused need not go on.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.open.iter().all(|open| open.refused)
    }

    /// Messages that are half arrived.
    #[cfg(test)]
    pub(crate) fn open_len(&self) -> usize {
        self.open.len()
    }

    fn begin(
        &mut self,
        header: &Header,
        total: u64,
        payload: &[u8],
        bytes_max: u64,
    ) -> Result<Step, Malformed> {
        let arrived = payload.len() as u64;
        if total <= arrived {
            return Err(Malformed("a fragment that is all of its message"));
        }
        let at = self.room_for(header)?;
        let refused = bytes_max < total || self.is_full(header, bytes_max);
        self.begun += 1;
        let (number, granted, data) = (self.begun, arrived, Vec::new());
        let mut assembly =
            Assembly { header: *header, number, refused, total, arrived, granted, data };
        if !refused {
            assembly.keep(payload);
        }
        self.open.insert(at, assembly);
        Ok(if refused { Step::TooLarge { total } } else { Step::Partial })
    }

    /// Whether no more is kept of messages that may never be finished. Answers were asked for, each
    /// once, and who may call is trusted.
    fn is_full(&self, header: &Header, bytes_max: u64) -> bool {
        let is_anyones = |header: &Header| matches!(header.kind, Kind::Data | Kind::Control);
        let open = self.open.iter().filter(|open| is_anyones(&open.header));
        let budget = bytes_max.saturating_mul(ASSEMBLED_MESSAGES_MAX);
        is_anyones(header) && budget < open.map(|open| open.data.len() as u64).sum::<u64>()
    }

    /// Where a message that begins now goes. One that was left unfinished gives way to the next
    /// under its key, since a sender begins none inside another; the oldest refused one when there
    /// are too many.
    fn room_for(&mut self, header: &Header) -> Result<usize, Malformed> {
        let found = self.find(&key(header));
        match found {
            Ok(at) => {
                self.open.remove(at);
                Ok(at)
            }
            Err(at) if self.open.len() < ASSEMBLIES_MAX => Ok(at),
            Err(at) => {
                let refused = (0..self.open.len()).filter(|at| self.open[*at].refused);
                let oldest = refused.min_by_key(|at| self.open[*at].number);
                let oldest = oldest.ok_or(Malformed("too many unfinished messages"))?;
                self.open.remove(oldest);
                Ok(at - usize::from(oldest < at))
            }
        }
    }

    fn go_on(
        &mut self,
        header: &Header,
        payload: &[u8],
        bytes_max: u64,
    ) -> Result<Step, Malformed> {
        let found = self.find(&key(header));
        let at = found.map_err(|_| Malformed("a fragment without its first"))?;
        let is_full = self.is_full(header, bytes_max);
        let assembly = &mut self.open[at];
        assembly.check(header, payload.len())?;
        if is_full && !assembly.refused {
            (assembly.refused, assembly.data) = (true, Vec::new());
            assembly.arrived += payload.len() as u64;
            return Ok(Step::TooLarge { total: assembly.total });
        }
        assembly.arrived += payload.len() as u64;
        if !assembly.refused {
            assembly.keep(payload);
        }
        if assembly.arrived < assembly.total {
            return Ok(if assembly.refused { Step::Ignored } else { Step::Partial });
        }
        let done = self.open.remove(at);
        let message = || Message::new(&done.header, done.data);
        Ok(if done.refused { Step::Ignored } else { Step::Whole(message()) })
    }

    fn find(&self, wanted: &Key) -> Result<usize, usize> {
        self.open.binary_search_by(|open| key(&open.header).cmp(wanted))
    }
}

impl Assembly {
    /// What holds of every later fragment of `len` bytes. Each but the last is full.
    fn check(&self, header: &Header, len: usize) -> Result<(), Malformed> {
        let first = &self.header;
        if (first.kind, first.dst, first.auth) != (header.kind, header.dst, header.auth) {
            return Err(Malformed("a fragment that differs from its first"));
        }
        let left = self.total - self.arrived;
        if left < len as u64 || len < FRAGMENT_BYTES && (len as u64) < left {
            return Err(Malformed("a fragment of a wrong length"));
        }
        let (is_data, to) = (first.kind == Kind::Data, self.arrived + len as u64);
        if !is_data && self.granted.max(UNGRANTED_BYTES_MAX) < to {
            return Err(Malformed("a fragment that was not granted"));
        }
        Ok(())
    }

    /// Bytes that were granted and have not arrived.
    fn coming(&self) -> u64 {
        self.granted.saturating_sub(self.arrived)
    }

    fn grant(&mut self, spare_bytes: u64) -> u64 {
        const FRAGMENT: u64 = FRAGMENT_BYTES as u64;
        // A loop sends without a grant.
        self.granted = self.granted.max(self.arrived);
        let (coming, left) = (self.granted - self.arrived, self.total - self.granted);
        let window = FRAGMENT + ANNOUNCED_WINDOW_BYTES.min(spare_bytes / 2);
        if self.refused || window / 2 < coming {
            return 0;
        }
        let whole = (window.saturating_sub(coming) / FRAGMENT) * FRAGMENT;
        let more = left.min(if coming == 0 { whole.max(FRAGMENT) } else { whole });
        self.granted += more;
        more
    }

    /// Room grows with what has arrived: `capacity <= max(2 * arrived, ASSEMBLY_STEP_BYTES)`, and
    /// never more than the total.
    fn keep(&mut self, payload: &[u8]) {
        let len = self.data.len();
        if self.data.capacity() - len < payload.len() {
            let left = usize::try_from(self.total).map_or(usize::MAX, |total| total - len);
            let ahead = len.max(ASSEMBLY_STEP_BYTES - FRAGMENT_BYTES);
            self.data.reserve_exact(left.min(ahead.max(payload.len())));
            pages::want_large(&self.data);
        }
        self.data.extend_from_slice(payload);
    }
}

fn key(header: &Header) -> Key {
    let is_answer = matches!(header.kind, Kind::Reply | Kind::Dead);
    (header.src, header.handle, header.reply_to.filter(|_| !is_answer))
}
