//! The handles of a context against what they must do by the plainest means, in any order.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::pending::{Deliver, Entry, Handles};
use super::policy::{Arrival, anyone};
use crate::error::{Cause, Death};
use crate::ids::{ContextId, Handle};
use crate::io::turn::Turn;
use crate::wire::header::{Kind, Lane};
use crate::wire::message::Message;

/// Listens, and is told from others by its address alone.
struct Nobody(#[allow(dead_code)] u32);

impl Deliver for Nobody {
    fn message(&self, _: &mut Turn, _: Message) {}
    fn dead(&self, _: &mut Turn, _: ContextId, _: &Death) {}
}

/// Lets those send who act for themselves.
fn for_themselves(message: &Message, _: &Arrival<'_>) -> bool {
    message.auth == message.src
}

/// What happens to the handles of a context.
#[derive(Clone, Debug)]
enum Step {
    Add { handle: usize, accepts: Kind, from: Option<u32>, once: bool, strict: bool },
    AddAnswer { from: u32 },
    Remove(usize),
    Receive { handle: usize, kind: Kind, src: u32, auth: u32 },
    Lost(u32),
    Close,
}

/// Handles that are tried: standard ones, a random one; beyond these, those that were given out.
const HANDLES: [Handle; 3] = [Handle::CALL, Handle(100), Handle::FIRST_RANDOM];

fn kind() -> impl Strategy<Value = Kind> {
    use Kind::{Call, Control, Data, Dead, Grant, Reply};
    proptest::sample::select(vec![Call, Data, Reply, Reply, Dead, Dead, Grant, Control])
}

fn step() -> impl Strategy<Value = Step> {
    let (handle, id) = (|| 0..12usize, || 1..5u32);
    let add = (0..3usize, kind(), proptest::option::of(id()), any::<bool>(), any::<bool>());
    let receive = (handle(), kind(), id(), id());
    prop_oneof![
        30 => add.prop_map(|(handle, accepts, from, once, strict)| {
            Step::Add { handle, accepts, from, once, strict }
        }),
        40 => id().prop_map(|from| Step::AddAnswer { from }),
        10 => handle().prop_map(Step::Remove),
        80 => receive.prop_map(|(handle, kind, src, auth)| {
            Step::Receive { handle, kind, src, auth }
        }),
        15 => id().prop_map(Step::Lost),
        1 => Just(Step::Close),
    ]
}

/// Who listens, as the oracle knows it.
#[derive(Clone)]
struct Listening {
    accepts: Kind,
    from: Option<u32>,
    once: bool,
    strict: bool,
    bytes: usize,
    to: Arc<dyn Deliver>,
}

impl Listening {
    fn entry(&self) -> Entry {
        let policy = if self.strict { for_themselves } else { anyone };
        let (accepts, from, once) = (self.accepts, self.from.map(ContextId), self.once);
        let since = crate::sys::clock::Moment::now();
        Entry { accepts, from, policy, once, bytes: self.bytes, since, to: self.to.clone() }
    }

    fn takes(&self, kind: Kind, src: u32, auth: u32) -> bool {
        let ends = kind == Kind::Dead && [Kind::Reply, Kind::Data].contains(&self.accepts);
        let asked = self.from.is_none() || self.from == Some(src);
        (kind == self.accepts || ends) && asked && (!self.strict || src == auth)
    }
}

#[derive(Default)]
struct Pair {
    handles: Handles,
    oracle: BTreeMap<Handle, Listening>,
    /// Those that were given out for answers, the last first; none is given twice.
    given: Vec<Handle>,
    closed: bool,
    count: u32,
}

impl Pair {
    fn handle(&self, number: usize) -> Handle {
        HANDLES.iter().chain(self.given.iter().rev()).nth(number).copied().unwrap_or(Handle(9999))
    }

    fn listening(&mut self, accepts: Kind, from: Option<u32>) -> Listening {
        self.count += 1;
        let to = Arc::new(Nobody(self.count));
        let bytes = self.count as usize % 3;
        Listening { accepts, from, once: true, strict: false, bytes, to }
    }

    fn apply(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Add { handle, accepts, from, once, strict } => {
                let new = Listening { once, strict, ..self.listening(accepts, from) };
                let handle = HANDLES[handle];
                let expected = match (self.closed, self.oracle.contains_key(&handle)) {
                    (true, _) => Err(Cause::Shutdown),
                    (false, true) => Err(Cause::Refused),
                    (false, false) => Ok(()),
                };
                prop_assert_eq!(self.handles.add(handle, new.entry()), expected);
                if expected.is_ok() {
                    self.owe(&new);
                    self.oracle.insert(handle, new);
                }
            }
            Step::AddAnswer { from } => self.add_answer(from)?,
            Step::Remove(number) => {
                let handle = self.handle(number);
                let removed = self.handles.remove(handle).map(|entry| address(&entry.to));
                let expected = self.oracle.remove(&handle).map(|entry| address(&entry.to));
                prop_assert_eq!(removed, expected);
            }
            Step::Receive { handle, kind, src, auth } => {
                self.receive(self.handle(handle), kind, src, auth)?;
            }
            Step::Lost(id) => self.lose(id)?,
            Step::Close => {
                let closed = self.handles.close();
                let closed: Vec<_> = closed.iter().map(|(h, e)| (*h, address(&e.to))).collect();
                let all = std::mem::take(&mut self.oracle).into_iter();
                let all: Vec<_> = all.map(|(h, e)| (h, address(&e.to))).collect();
                prop_assert_eq!(closed, all);
                self.closed = true;
            }
        }
        prop_assert_eq!(self.handles.is_closed(), self.closed);
        for id in (1..5).filter(|_| !self.closed) {
            let owed = self.oracle.values().filter(|entry| entry.from == Some(id));
            let owed = owed.map(|entry| entry.bytes).sum::<usize>();
            prop_assert_eq!(self.handles.owed.bytes_to(ContextId(id)), owed);
        }
        let is_answer = |h: &&Handle| (Handle::FIRST_DYNAMIC..Handle::FIRST_RANDOM).contains(*h);
        prop_assert_eq!(self.handles.answers(), self.oracle.keys().filter(is_answer).count());
        Ok(())
    }

    /// Notes the bytes of the call, as who makes one does.
    fn owe(&mut self, new: &Listening) {
        if let Some(from) = new.from {
            self.handles.owed.add(ContextId(from), new.bytes);
        }
    }

    fn add_answer(&mut self, from: u32) -> Result<(), TestCaseError> {
        let new = self.listening(Kind::Reply, Some(from));
        let added = self.handles.add_answer(new.entry());
        prop_assert_eq!(added.err(), self.closed.then_some(Cause::Shutdown));
        if let Ok(handle) = added {
            prop_assert!(!self.given.contains(&handle), "{handle} is given twice");
            prop_assert!((Handle::FIRST_DYNAMIC..Handle::FIRST_RANDOM).contains(&handle));
            self.given.push(handle);
            self.owe(&new);
            self.oracle.insert(handle, new);
        }
        Ok(())
    }

    fn receive(
        &mut self,
        handle: Handle,
        kind: Kind,
        src: u32,
        auth: u32,
    ) -> Result<(), TestCaseError> {
        let (src_id, auth_id, reply_to) = (ContextId(src), ContextId(auth), None);
        let (lane, dst, data) = (Lane::Quick, ContextId(7), Vec::new());
        let message =
            Message { kind, lane, dst, src: src_id, auth: auth_id, handle, reply_to, data };
        let (is_child, is_neighbour, is_granted) = (false, false, false);
        let arrival = Arrival { me: dst, parents: &[], is_child, is_neighbour, is_granted };
        let to = self.handles.receiver(&message, &arrival).map(|to| address(&to));
        let expected = match self.oracle.get(&handle) {
            None => Err(Cause::NoHandle),
            Some(entry) if !entry.takes(kind, src, auth) => Err(Cause::Refused),
            Some(entry) => Ok(address(&entry.to)),
        };
        prop_assert_eq!(to, expected);
        let data = self.handles.listener(handle, Kind::Data).map(|to| address(&to));
        let listens = self.oracle.get(&handle).filter(|entry| entry.accepts == Kind::Data);
        let listens = listens.filter(|entry| !(entry.once && expected.is_ok()));
        prop_assert_eq!(data, listens.map(|entry| address(&entry.to)));
        if expected.is_ok() && self.oracle[&handle].once {
            self.oracle.remove(&handle);
        }
        Ok(())
    }

    fn lose(&mut self, id: u32) -> Result<(), TestCaseError> {
        let lost = self.handles.lost(ContextId(id));
        let lost: Vec<_> = lost.iter().map(|(ends, to)| (*ends, address(to))).collect();
        let ends = |entry: &Listening| entry.from == Some(id);
        let concerned =
            |entry: &&Listening| ends(entry) || [Kind::Data, Kind::Call].contains(&entry.accepts);
        let expected = self.oracle.values().filter(concerned);
        let expected: Vec<_> = expected.map(|entry| (ends(entry), address(&entry.to))).collect();
        prop_assert_eq!(lost, expected);
        self.oracle.retain(|_, entry| !(ends(entry) && entry.once));
        Ok(())
    }
}

fn address(to: &Arc<dyn Deliver>) -> usize {
    Arc::as_ptr(to).cast::<()>() as usize
}

proptest! {
    #[test]
    fn handles_do_as_the_oracle(steps in proptest::collection::vec(step(), 0..200)) {
        let mut pair = Pair::default();
        for step in &steps {
            pair.apply(step)?;
        }
    }
}
