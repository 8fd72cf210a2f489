//! The handles of one context: who listens, to what kind of message, from whom.

use std::sync::Arc;

use crate::error::{Cause, Death};
use crate::ids::{ContextId, Handle};
use crate::io::turn::Turn;
use crate::route::owed::Owed;
use crate::route::policy::{Arrival, Policy};
use crate::route::unguessable::{Gives, Unguessable};
use crate::sys::clock::Moment;
use crate::wire::codec::Writer;
use crate::wire::header::Kind;
use crate::wire::message::Message;

/// Takes what arrives at a handle. Called on the broker's thread, with no lock held.
pub trait Deliver: Send + Sync {
    /// A message has arrived.
    fn message(&self, turn: &mut Turn, message: Message);

    /// In place of a message: why `from` sends none, or no more.
    fn dead(&self, turn: &mut Turn, from: ContextId, death: &Death);

    /// `from` tells what became of a Sender to this handle between it and another context.
    fn news(&self, _handle: Handle, _from: ContextId, _other: ContextId, _gift: Gift) {}

    /// Whether messages wait here for a thread.
    fn is_behind(&self) -> bool {
        false
    }

    /// Who may send data, as far as that is known here.
    fn senders(&self) -> Vec<ContextId> {
        Vec::new()
    }

    /// Whether what is sent from here is refused at once.
    fn is_closed(&self) -> bool {
        false
    }

    /// Appends what is to arrive here, for who inspects this context: as the type `What` there. The
    /// handle of calls appends its two lists, of at most `max` calls each. Called with the handles
    /// locked.
    fn describe(&self, _max: usize, w: &mut Writer<'_>) {
        w.put_u8(0);
    }

    /// A context is gone; told to handles that data or calls arrive at.
    fn lost(&self, _turn: &mut Turn, _id: ContextId, _death: &Death) {}
}

/// What becomes of a Sender that is given to another context.
pub enum Gift {
    /// It is on its way.
    Given,
    /// It did not get there, and why, if the giver itself was not told.
    TakenBack(Option<Death>),
    /// It has got here, from the other.
    Taken,
}

/// Who listens at a handle.
pub struct Entry {
    /// The kind that it takes. Answers and data may also be dead.
    pub accepts: Kind,
    /// The only context that may send, and whose end ends the wait.
    pub from: Option<ContextId>,
    /// Who else may not send.
    pub policy: Policy,
    /// Whether one message is all.
    pub once: bool,
    /// Bytes of the call whose answer it takes.
    pub bytes: usize,
    /// Since when it listens.
    pub since: Moment,
    /// Where messages go.
    pub to: Arc<dyn Deliver>,
}

/// All handles of one context.
pub struct Handles {
    /// Sorted by handle.
    pub(super) entries: Vec<(Handle, Entry)>,
    /// For the next answer. It goes round, past those in use.
    pub(super) next: u32,
    went_round: bool,
    /// For data, from the first on: a stock agent, which takes none, does not link the cipher.
    unguessable: Option<Box<dyn Gives>>,
    closed: bool,
    /// What `bytes` of the entries add up to.
    pub owed: Owed,
}

/// Why a message is not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing listens at this handle: no longer, or it is one that everybody knows.
    Unheard,
    /// This handle was never given out: it was guessed.
    Guess,
    /// The handle takes another kind of message.
    Kind,
    /// The answer was asked of another.
    Source,
    /// What the handle's owner says.
    Policy,
}

impl Handles {
    /// No handles.
    pub fn new() -> Handles {
        let (entries, next) = (Vec::new(), Handle::FIRST_DYNAMIC.0);
        let (went_round, unguessable, closed, owed) = (false, None, false, Owed::default());
        Handles { entries, next, went_round, unguessable, closed, owed }
    }

    /// Listens at this handle. Fails if somebody does, or if the context is shut down.
    pub fn add(&mut self, handle: Handle, entry: Entry) -> Result<(), Cause> {
        if self.closed {
            return Err(Cause::Shutdown);
        }
        match self.entries.binary_search_by_key(&handle, |(h, _)| *h) {
            Ok(_) => Err(Cause::Refused),
            Err(at) => {
                self.entries.insert(at, (handle, entry));
                Ok(())
            }
        }
    }

    /// Listens at an unused handle, for an answer.
    pub fn add_answer(&mut self, entry: Entry) -> Result<Handle, Cause> {
        while self.find(Handle(self.next)).is_some() {
            self.advance();
        }
        let handle = Handle(self.next);
        self.advance();
        self.add(handle, entry).map(|()| handle)
    }

    /// Listens at a handle that nobody can guess. All of them follow from the first's key, which is
    /// to be random and secret.
    pub fn add_unguessable(&mut self, entry: Entry, key: fn() -> u64) -> Result<Handle, Cause> {
        let handle = loop {
            let make = || Box::new(Unguessable::new(key())) as Box<dyn Gives>;
            let handle = self.unguessable.get_or_insert_with(make).give();
            if self.find(handle).is_none() {
                break handle;
            }
        };
        self.add(handle, entry).map(|()| handle)
    }

    /// Puts somebody else before who listens at this handle, if somebody does.
    pub fn wrap(
        &mut self,
        handle: Handle,
        wrap: impl FnOnce(Arc<dyn Deliver>) -> Arc<dyn Deliver>,
    ) {
        if let Some(at) = self.find(handle) {
            let entry = &mut self.entries[at].1;
            entry.to = wrap(entry.to.clone());
        }
    }

    /// How many answers are awaited.
    pub fn answers(&self) -> usize {
        let (from, to) = (Handle::FIRST_DYNAMIC, Handle::FIRST_RANDOM);
        self.entries.partition_point(|(h, _)| *h < to)
            - self.entries.partition_point(|(h, _)| *h < from)
    }

    /// Listens no longer.
    pub fn remove(&mut self, handle: Handle) -> Option<Entry> {
        let at = self.find(handle)?;
        Some(self.take(at))
    }

    fn take(&mut self, at: usize) -> Entry {
        let entry = self.entries.remove(at).1;
        entry.settle(&mut self.owed);
        entry
    }

    /// Who is to get this message, or why nobody is.
    pub fn receiver(
        &mut self,
        message: &Message,
        arrival: &Arrival<'_>,
    ) -> Result<Arc<dyn Deliver>, Cause> {
        let at = self.place_of(message, arrival)?;
        let to = self.entries[at].1.to.clone();
        if self.entries[at].1.once {
            self.take(at);
        }
        Ok(to)
    }

    /// The entry that takes a message, of which only the head need be there; or why none does.
    pub fn place_of(&self, message: &Message, arrival: &Arrival<'_>) -> Result<usize, Cause> {
        let at = self.find(message.handle).ok_or(Cause::NoHandle)?;
        let entry = &self.entries[at].1;
        let wrong_source = entry.from.is_some_and(|from| from != message.src);
        if !entry.takes(message.kind) || wrong_source || !(entry.policy)(message, arrival) {
            return Err(Cause::Refused);
        }
        Ok(at)
    }

    /// By which rule nobody gets this message, as [`Handles::receiver`] said.
    pub fn rule(&self, message: &Message) -> Rule {
        let handle = message.handle;
        let Some(at) = self.find(handle) else {
            return if self.was_given(message) { Rule::Unheard } else { Rule::Guess };
        };
        let entry = &self.entries[at].1;
        if !entry.takes(message.kind) {
            return if self.was_given(message) { Rule::Kind } else { Rule::Guess };
        }
        let from_another = entry.from.is_some_and(|from| from != message.src);
        if from_another { Rule::Source } else { Rule::Policy }
    }

    /// Whether somebody may have been told to send such a message to its handle, now or once: else
    /// it is no late one.
    fn was_given(&self, message: &Message) -> bool {
        let handle = message.handle;
        if handle < Handle::FIRST_DYNAMIC || handle.is_well_known() {
            return true;
        }
        if Handle::FIRST_RANDOM <= handle {
            return self.unguessable.as_ref().is_some_and(|all| all.has_given(handle));
        }
        let is_answer = matches!(message.kind, Kind::Reply | Kind::Dead);
        is_answer && (self.went_round || handle.0 < self.next)
    }

    /// Who takes what is of this kind at this handle.
    pub fn listener(&self, handle: Handle, kind: Kind) -> Option<Arc<dyn Deliver>> {
        let entry = &self.entries[self.find(handle)?].1;
        (entry.accepts == kind).then(|| entry.to.clone())
    }

    /// Takes those whose wait ends with `id`, and names those that data or calls arrive at: whether
    /// the wait ends, and whose.
    pub fn lost(&mut self, id: ContextId) -> Vec<(bool, Arc<dyn Deliver>)> {
        let (mut concerned, owed) = (Vec::new(), &mut self.owed);
        self.entries.retain(|(_, entry)| {
            let ends = entry.from == Some(id);
            if ends || matches!(entry.accepts, Kind::Data | Kind::Call) {
                concerned.push((ends, entry.to.clone()));
            }
            let goes = ends && entry.once;
            if goes {
                entry.settle(owed);
            }
            !goes
        });
        concerned
    }

    /// The contexts that somebody waits for.
    pub fn awaited(&self) -> Vec<ContextId> {
        let mut all = Vec::new();
        for (_, entry) in &self.entries {
            all.extend(entry.from);
            all.extend(entry.to.senders());
        }
        all
    }

    /// Takes everything; nothing is added any more.
    pub fn close(&mut self) -> Vec<(Handle, Entry)> {
        self.closed = true;
        self.owed.wake();
        std::mem::take(&mut self.entries)
    }

    /// Whether nothing is added any more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn find(&self, handle: Handle) -> Option<usize> {
        self.entries.binary_search_by_key(&handle, |(h, _)| *h).ok()
    }

    fn advance(&mut self) {
        self.next += 1;
        if self.next == Handle::FIRST_RANDOM.0 {
            self.next = Handle::FIRST_DYNAMIC.0;
            self.went_round = true;
        }
    }
}

impl Entry {
    fn settle(&self, owed: &mut Owed) {
        if let Some(from) = self.from.filter(|_| 0 < self.bytes) {
            owed.settle(from, self.bytes);
        }
    }

    fn takes(&self, kind: Kind) -> bool {
        let may_be_dead = matches!(self.accepts, Kind::Reply | Kind::Data);
        kind == self.accepts || kind == Kind::Dead && may_be_dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::policy::{anyone, has_parent_authority, is_ancestor, is_immediate_child};
    use crate::wire::header::Lane;

    const ME: ContextId = ContextId(3);
    const PARENT: ContextId = ContextId(2);
    const CHILD: ContextId = ContextId(9);
    const BELOW: ContextId = ContextId(10);

    impl Default for Handles {
        fn default() -> Handles {
            Handles::new()
        }
    }

    struct Nobody;

    impl Deliver for Nobody {
        fn message(&self, _: &mut Turn, _: Message) {}
        fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {}
    }

    fn entry(accepts: Kind, from: Option<ContextId>) -> Entry {
        let (once, to) = (from.is_some(), Arc::new(Nobody));
        let since = Moment::now();
        Entry { accepts, from, policy: anyone, once, bytes: 0, since, to }
    }

    fn message(kind: Kind, src: ContextId, auth: ContextId, handle: Handle) -> Message {
        let (lane, dst, reply_to, data) = (Lane::Quick, ME, None, Vec::new());
        Message { kind, lane, dst, src, auth, handle, reply_to, data }
    }

    const ARRIVAL: Arrival<'static> = Arrival {
        me: ME,
        parents: &[PARENT, ContextId::MASTER],
        is_child: false,
        is_neighbour: false,
        is_granted: false,
    };

    fn outcome(handles: &mut Handles, message: &Message) -> Result<(), Cause> {
        handles.receiver(message, &ARRIVAL).map(drop)
    }

    #[test]
    fn an_answer_is_taken_once_of_its_kind_from_who_was_asked() {
        for kind in [Kind::Reply, Kind::Dead] {
            let mut handles = Handles::default();
            let handle = handles.add_answer(entry(Kind::Reply, Some(CHILD))).unwrap();
            for (kind, src) in [
                (Kind::Reply, BELOW),
                (Kind::Dead, PARENT),
                (Kind::Call, CHILD),
                (Kind::Data, CHILD),
            ] {
                let wrong = message(kind, src, CHILD, handle);
                assert_eq!(outcome(&mut handles, &wrong), Err(Cause::Refused));
            }
            let right = message(kind, CHILD, CHILD, handle);
            assert_eq!(outcome(&mut handles, &right), Ok(()));
            assert_eq!(outcome(&mut handles, &right), Err(Cause::NoHandle));
        }
    }

    #[test]
    fn an_end_takes_the_answers_of_that_context_alone() {
        let mut handles = Handles::default();
        let a = handles.add_answer(entry(Kind::Reply, Some(CHILD))).unwrap();
        let b = handles.add_answer(entry(Kind::Reply, Some(BELOW))).unwrap();
        handles.add(Handle::FIRST_RANDOM, entry(Kind::Data, None)).unwrap();
        assert_eq!(handles.answers(), 2);
        let concerned: Vec<bool> = handles.lost(CHILD).iter().map(|(ends, _)| *ends).collect();
        assert_eq!((concerned, handles.answers()), (vec![true, false], 1));
        assert!(handles.remove(a).is_none() && handles.remove(b).is_some());
        assert!(handles.listener(Handle::FIRST_RANDOM, Kind::Data).is_some());
    }

    #[test]
    fn handle_numbers_go_round_past_those_in_use() {
        let mut handles = Handles::default();
        let first = handles.add_answer(entry(Kind::Reply, Some(CHILD))).unwrap();
        handles.next = Handle::FIRST_RANDOM.0 - 1;
        let last = handles.add_answer(entry(Kind::Reply, Some(CHILD))).unwrap();
        let again = handles.add_answer(entry(Kind::Reply, Some(CHILD))).unwrap();
        let numbers = (first.0, last.0, again.0);
        assert_eq!(numbers, (256, Handle::FIRST_RANDOM.0 - 1, 257));
    }

    #[test]
    fn what_is_refused_names_the_rule() {
        let mut handles = Handles::default();
        let answer = handles.add_answer(entry(Kind::Reply, Some(CHILD))).unwrap();
        let given_up = handles.add_answer(entry(Kind::Reply, Some(CHILD))).unwrap();
        let data = handles.add_unguessable(entry(Kind::Data, None), || 7).unwrap();
        let closed = handles.add_unguessable(entry(Kind::Data, None), || 7).unwrap();
        handles.remove(given_up);
        handles.remove(closed);
        let never = Handle(given_up.0 + 1);
        let guess = Handle(data.0 ^ 1);
        let (call, reply, dead, sent) = (Kind::Call, Kind::Reply, Kind::Dead, Kind::Data);
        for (kind, src, handle, rule) in [
            (reply, CHILD, given_up, Rule::Unheard),
            (dead, BELOW, given_up, Rule::Unheard),
            (reply, CHILD, never, Rule::Guess),
            (sent, CHILD, given_up, Rule::Guess),
            (call, CHILD, answer, Rule::Guess),
            (reply, BELOW, answer, Rule::Source),
            (sent, CHILD, closed, Rule::Unheard),
            (dead, CHILD, closed, Rule::Unheard),
            (call, CHILD, data, Rule::Kind),
            (sent, CHILD, guess, Rule::Guess),
            (dead, CHILD, guess, Rule::Guess),
            (call, CHILD, Handle::CALL, Rule::Unheard),
            (sent, CHILD, Handle::well_known(3), Rule::Unheard),
            (sent, CHILD, data, Rule::Policy),
        ] {
            let refused = message(kind, src, src, handle);
            assert_eq!(handles.rule(&refused), rule, "{kind:?} {src} {handle}");
        }
    }

    #[test]
    fn nothing_is_added_where_somebody_listens_or_after_the_end() {
        let mut handles = Handles::default();
        handles.add(Handle::CALL, entry(Kind::Call, None)).unwrap();
        assert_eq!(handles.add(Handle::CALL, entry(Kind::Call, None)), Err(Cause::Refused));
        assert_eq!(handles.close().len(), 1);
        assert_eq!(handles.add(Handle::CALL, entry(Kind::Call, None)), Err(Cause::Shutdown));
        assert_eq!(handles.add_answer(entry(Kind::Reply, None)), Err(Cause::Shutdown));
        assert!(handles.is_closed() && handles.close().is_empty());
    }

    /// Who may: this context and its parent for themselves; the child for itself, for the parent
    /// and for who lives below; who lives below, for itself.
    #[track_caller]
    fn lets(policy: Policy, expected: [bool; 6]) {
        let cases = [
            (ME, ME),
            (PARENT, PARENT),
            (CHILD, CHILD),
            (CHILD, PARENT),
            (CHILD, BELOW),
            (BELOW, BELOW),
        ];
        let let_in = cases.map(|(src, auth)| {
            let arrival = Arrival { is_child: src == CHILD, ..ARRIVAL };
            policy(&message(Kind::Call, src, auth, Handle::CALL), &arrival)
        });
        assert_eq!(let_in, expected);
    }

    #[test]
    fn policies_let_in_whom_they_say() {
        lets(anyone, [true; 6]);
        lets(has_parent_authority, [true, true, false, true, false, false]);
        lets(is_ancestor, [true, true, false, true, false, false]);
        lets(is_immediate_child, [false, false, true, false, false, false]);
    }

    #[test]
    fn who_was_granted_authority_has_that_of_a_parent_but_is_no_ancestor() {
        let granted = Arrival { is_granted: true, ..ARRIVAL };
        let call = message(Kind::Call, BELOW, BELOW, Handle::CALL);
        assert!(has_parent_authority(&call, &granted) && !is_ancestor(&call, &granted));
        assert!(!is_immediate_child(&call, &granted));
    }
}
