//! Long messages travel as fragments and are put together at their destination.
//! Nothing is allocated on the word of an announced length: memory follows what has arrived.

use crate::ids::{ContextId, Handle};
use crate::limits::{ASSEMBLED_MESSAGES_MAX, ASSEMBLIES_MAX, ASSEMBLY_STEP_BYTES, FRAGMENT_BYTES};
use crate::wire::codec::Malformed;
use crate::wire::header::{Header, Part};
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

/// Which message a fragment belongs to: its sender finishes or gives up one before the next.
type Key = (ContextId, Handle, Option<Handle>);

/// One half-arrived message: `arrived < total`, and `data.len() == arrived` unless refused.
struct Assembly {
    header: Header,
    number: u64,
    refused: bool,
    total: u64,
    arrived: u64,
    data: Vec<u8>,
}

impl Assembler {
    /// Nothing has arrived.
    pub fn new() -> Assembler {
        Assembler::default()
    }

    /// Takes a frame that is for us. A message of more than `bytes_max` bytes is refused, and one
    /// with which those that are open would have more than `ASSEMBLED_MESSAGES_MAX` times as many.
    ///
    /// # Errors
    ///
    /// Malformed is a later fragment without its first, one that differs from it in kind,
    /// destination or authority, one beyond the announced length or short before it; more than
    /// `ASSEMBLIES_MAX` open messages.
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
            Part::Next => self.go_on(header, payload),
        }
    }

    /// Forgets the unfinished messages of a context.
    pub fn drop_from(&mut self, src: ContextId) {
        while let Some(at) = self.open.iter().position(|open| open.header.src == src) {
            self.open.remove(at);
        }
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
        let open = self.open.iter().filter(|open| !open.refused).map(|open| open.total);
        let budget = bytes_max.saturating_mul(ASSEMBLED_MESSAGES_MAX);
        let refused = bytes_max < total || budget < open.sum::<u64>().saturating_add(total);
        self.begun += 1;
        let number = self.begun;
        let data = Vec::new();
        let mut assembly = Assembly { header: *header, number, refused, total, arrived, data };
        if !refused {
            assembly.keep(payload);
        }
        self.open.insert(at, assembly);
        Ok(if refused { Step::TooLarge { total } } else { Step::Partial })
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

    fn go_on(&mut self, header: &Header, payload: &[u8]) -> Result<Step, Malformed> {
        let found = self.find(&key(header));
        let at = found.map_err(|_| Malformed("a fragment without its first"))?;
        let assembly = &mut self.open[at];
        assembly.check(header, payload.len())?;
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
        Ok(())
    }

    /// Room grows with what has arrived: `capacity <= max(2 * arrived, ASSEMBLY_STEP_BYTES)`, and
    /// never more than the total.
    fn keep(&mut self, payload: &[u8]) {
        let len = self.data.len();
        if self.data.capacity() - len < payload.len() {
            let left = usize::try_from(self.total).map_or(usize::MAX, |total| total - len);
            let ahead = len.max(ASSEMBLY_STEP_BYTES - FRAGMENT_BYTES);
            self.data.reserve_exact(left.min(ahead.max(payload.len())));
        }
        self.data.extend_from_slice(payload);
    }
}

fn key(header: &Header) -> Key {
    (header.src, header.handle, header.reply_to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::header::{Kind, Lane};

    const HEADER: Header = Header {
        kind: Kind::Data,
        lane: Lane::Bulk,
        part: Part::Whole,
        dst: ContextId(0),
        src: ContextId(5),
        auth: ContextId(5),
        handle: Handle(1 << 30),
        reply_to: None,
    };
    const BYTES_MAX: u64 = 1024 * 1024;

    fn payload(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i / 7) as u8).collect()
    }

    fn first(total: u64) -> Header {
        Header { part: Part::First(total), ..HEADER }
    }

    fn next() -> Header {
        Header { part: Part::Next, ..HEADER }
    }

    fn begin(assembler: &mut Assembler, header: Header) -> Result<Step, Malformed> {
        assembler.push(&header, &[1; FRAGMENT_BYTES], BYTES_MAX)
    }

    #[track_caller]
    fn travels(len: usize, parts: usize) {
        let (mut assembler, payload) = (Assembler::new(), payload(len));
        assert_eq!(split(&payload).count(), parts);
        for (i, (part, chunk)) in split(&payload).enumerate() {
            let step = assembler.push(&Header { part, ..HEADER }, chunk, BYTES_MAX).unwrap();
            if i + 1 < parts {
                assert_eq!(step, Step::Partial);
            } else {
                assert_eq!(step, Step::Whole(Message::new(&HEADER, payload.clone())));
            }
        }
        assert_eq!(assembler.open_len(), 0);
    }

    #[test]
    fn messages_of_any_length_arrive_as_they_were() {
        travels(0, 1);
        travels(1, 1);
        travels(FRAGMENT_BYTES, 1);
        travels(FRAGMENT_BYTES + 1, 2);
        travels(2 * FRAGMENT_BYTES, 2);
        travels(2 * FRAGMENT_BYTES + 1, 3);
        travels(BYTES_MAX as usize, 64);
    }

    #[test]
    fn messages_of_several_senders_and_calls_interleave() {
        let mut assembler = Assembler::new();
        let other = Header { src: ContextId(6), auth: ContextId(6), ..next() };
        let call = Header { reply_to: Some(Handle(256)), ..next() };
        let total = FRAGMENT_BYTES as u64 + 1;
        for header in [call, other, next()] {
            begin(&mut assembler, Header { part: Part::First(total), ..header }).unwrap();
        }
        for header in [other, next(), call] {
            let step = assembler.push(&header, &[2], BYTES_MAX).unwrap();
            let Step::Whole(message) = step else { panic!("{step:?}") };
            assert_eq!((message.src, message.reply_to), (header.src, header.reply_to));
            assert_eq!(message.data.len() as u64, total);
        }
    }

    #[test]
    fn a_message_too_large_is_refused_and_the_rest_of_it_ignored() {
        let mut assembler = Assembler::new();
        let total = BYTES_MAX + 1;
        assert_eq!(begin(&mut assembler, first(total)), Ok(Step::TooLarge { total }));
        for _ in 0..63 {
            assert_eq!(begin(&mut assembler, next()), Ok(Step::Ignored));
        }
        assert_eq!(assembler.push(&next(), &[1], BYTES_MAX), Ok(Step::Ignored));
        assert_eq!(assembler.open_len(), 0);
        assert!(assembler.push(&next(), &[1], BYTES_MAX).is_err());
        let whole = assembler.push(&HEADER, &[0; 9], 8);
        assert_eq!(whole, Ok(Step::TooLarge { total: 9 }));
    }

    #[test]
    fn a_sender_may_stop_in_a_refused_message_and_begin_another() {
        let mut assembler = Assembler::new();
        begin(&mut assembler, first(u64::MAX)).unwrap();
        assert_eq!(begin(&mut assembler, first(20_000)), Ok(Step::Partial));
        for reply_to in 0..2 * ASSEMBLIES_MAX as u32 {
            let header = Header { reply_to: Some(Handle(reply_to)), ..first(u64::MAX) };
            assert_eq!(begin(&mut assembler, header), Ok(Step::TooLarge { total: u64::MAX }));
        }
        assert_eq!(assembler.open_len(), ASSEMBLIES_MAX);
        let rest = vec![1; 20_000 - FRAGMENT_BYTES];
        assert!(matches!(assembler.push(&next(), &rest, BYTES_MAX), Ok(Step::Whole(_))));
    }

    #[test]
    fn a_flood_of_unfinished_messages_is_malformed() {
        let mut assembler = Assembler::new();
        let mut open = |i| {
            let header = Header { handle: Handle(i), ..first(20_000) };
            assembler.push(&header, &[1; FRAGMENT_BYTES], 1 << 40)
        };
        for i in 0..ASSEMBLIES_MAX as u32 {
            assert_eq!(open(i), Ok(Step::Partial));
        }
        assert_eq!(open(u32::MAX), Err(Malformed("too many unfinished messages")));
    }

    #[test]
    fn fragments_out_of_place_are_malformed() {
        let mut assembler = Assembler::new();
        assert_eq!(begin(&mut assembler, next()), Err(Malformed("a fragment without its first")));
        begin(&mut assembler, first(20_000)).unwrap();
        let call = begin(&mut assembler, Header { kind: Kind::Call, ..next() });
        assert_eq!(call, Err(Malformed("a fragment that differs from its first")));
        let auth = begin(&mut assembler, Header { auth: ContextId(0), ..next() });
        assert_eq!(auth, Err(Malformed("a fragment that differs from its first")));
    }

    #[test]
    fn an_unfinished_message_gives_way_to_the_next_under_its_key() {
        let mut assembler = Assembler::new();
        assert_eq!(begin(&mut assembler, first(20_000)), Ok(Step::Partial));
        assert_eq!(begin(&mut assembler, first(16_385)), Ok(Step::Partial));
        assert_eq!(assembler.open_len(), 1);
        let step = assembler.push(&next(), &[1], BYTES_MAX);
        assert!(matches!(step, Ok(Step::Whole(message)) if message.data.len() == 16_385));
    }

    #[test]
    fn all_unfinished_messages_together_have_a_budget() {
        let mut assembler = Assembler::new();
        let mut open = |i| begin(&mut assembler, Header { handle: Handle(i), ..first(BYTES_MAX) });
        for i in 0..ASSEMBLED_MESSAGES_MAX as u32 {
            assert_eq!(open(i), Ok(Step::Partial));
        }
        assert_eq!(open(u32::MAX), Ok(Step::TooLarge { total: BYTES_MAX }));
    }

    #[test]
    fn fragments_of_a_wrong_length_are_malformed() {
        let wrong = Err(Malformed("a fragment of a wrong length"));
        let mut assembler = Assembler::new();
        begin(&mut assembler, first(20_000)).unwrap();
        assert_eq!(begin(&mut assembler, next()), wrong);
        assert_eq!(assembler.push(&next(), &[1; 3_615], BYTES_MAX), wrong);
        assert_eq!(assembler.push(&next(), &[1; 3_617], BYTES_MAX), wrong);
        assert!(matches!(assembler.push(&next(), &[1; 3_616], BYTES_MAX), Ok(Step::Whole(_))));
    }

    #[test]
    fn what_a_lost_context_left_unfinished_is_forgotten() {
        let mut assembler = Assembler::new();
        begin(&mut assembler, first(20_000)).unwrap();
        begin(&mut assembler, Header { src: ContextId(6), ..first(20_000) }).unwrap();
        assembler.drop_from(ContextId(5));
        assert_eq!(assembler.open_len(), 1);
        assert_eq!(begin(&mut assembler, first(20_000)), Ok(Step::Partial));
    }

    #[test]
    fn memory_follows_what_has_arrived() {
        let mut assembler = Assembler::new();
        assembler.push(&first(u64::MAX), &[0; FRAGMENT_BYTES], u64::MAX).unwrap();
        for fragments in 2..=200 {
            assembler.push(&next(), &[0; FRAGMENT_BYTES], u64::MAX).unwrap();
            let bytes_max = (2 * fragments * FRAGMENT_BYTES).max(ASSEMBLY_STEP_BYTES);
            assert!(assembler.open[0].data.capacity() <= bytes_max);
        }
    }
}
