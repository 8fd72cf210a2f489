//! The functions of a program, by what the near side knows of one (its type) and by what the far
//! side is told (its fingerprint). It refuses what could be taken for something else.

use std::any::{TypeId, type_name};

use crate::call::context::CallContext;
use crate::call::function::{Function, Signature};
use crate::error::CallFailure;
use crate::wire::codec::{Encode, Reader, Shape, Writer, hash_name};

/// The first byte of an answer's body: the value follows.
pub const ANSWER_VALUE: u8 = 0;
/// The first byte of an answer's body: the failure follows.
pub const ANSWER_FAILURE: u8 = 1;

type Outcome = Result<(), Box<CallFailure>>;
type Thunk =
    dyn for<'a> Fn(&'a CallContext, &mut Reader<'a>, &mut Writer<'_>) -> Outcome + Send + Sync;

/// One function of the program.
pub struct Entry {
    name: &'static str,
    fingerprint: u64,
    shape: fn(&mut Shape),
    thunk: Box<Thunk>,
}

impl Entry {
    /// The function's full path, generics included.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What names the function on the wire: 32 bits of its name, then 32 of its shape.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// What the function takes and returns, in words; walked anew each time.
    pub fn shape_text(&self) -> String {
        Shape::text(self.shape)
    }

    /// Calls the function with the arguments of `r` and appends the answer's body to `w`. A
    /// failure, of the function or of its arguments, is part of the body, and is returned too.
    pub fn serve<'a>(
        &self,
        cx: &'a CallContext,
        r: &mut Reader<'a>,
        w: &mut Writer<'_>,
    ) -> Outcome {
        let outcome = (self.thunk)(cx, r, w);
        if let Err(failure) = &outcome {
            put_failed(failure, w);
        }
        outcome
    }
}

/// Appends the body of the answer to a call that failed.
pub fn put_failed(failure: &CallFailure, w: &mut Writer<'_>) {
    w.put_u8(ANSWER_FAILURE);
    put_failure(failure, w);
}

/// What a fingerprint from another context leads to.
pub enum Found<'a> {
    /// The function.
    Entry(&'a Entry),
    /// A function of that name which takes or returns something else.
    OtherSignature(&'a Entry),
    /// No function of that name.
    Unknown,
}

/// The functions of a program.
#[derive(Default)]
pub struct Registry {
    entries: Vec<Entry>,
    /// Sorted, with the index of the entry.
    by_type: Vec<(TypeId, usize)>,
    /// Sorted, with the index of the entry.
    by_fingerprint: Vec<(u64, usize)>,
}

impl Registry {
    /// A registry of no function.
    pub fn new() -> Registry {
        Registry::default()
    }

    /// Adds a function; again is no mistake.
    ///
    /// # Panics
    /// If it is a closure, or cannot be told from another function by its name.
    #[track_caller]
    pub fn add<F, M>(&mut self, function: F)
    where
        F: Signature<M> + Function<M>,
    {
        const {
            assert!(
                size_of::<F>() == 0,
                "only a plain fn can be registered: a closure that captures and a fn pointer have \
                 no name"
            );
        }
        let thunk: Box<Thunk> = Box::new(move |cx, r, w| function.serve(cx, r, w));
        self.insert(type_name::<F>(), TypeId::of::<F>(), F::shape, thunk);
    }

    #[track_caller]
    fn insert(&mut self, name: &'static str, id: TypeId, shape: fn(&mut Shape), thunk: Box<Thunk>) {
        if name.ends_with("{{closure}}") {
            panic!("a closure has no name of its own: write fn instead of {name}");
        }
        let Err(type_at) = self.by_type.binary_search_by_key(&id, |(id, _)| *id) else {
            return;
        };
        let name_hash = hash_name(name);
        if let Some(other) = self.named(name_hash) {
            refuse(name, other.name);
        }
        let fingerprint = u64::from(name_hash) << 32 | u64::from(Shape::hash(shape));
        let at = self.by_fingerprint.partition_point(|(other, _)| *other < fingerprint);
        self.by_type.insert(type_at, (id, self.entries.len()));
        self.by_fingerprint.insert(at, (fingerprint, self.entries.len()));
        self.entries.push(Entry { name, fingerprint, shape, thunk });
    }

    /// The registered function of this type: what a caller has in hand.
    pub fn find_local(&self, id: TypeId) -> Option<&Entry> {
        let at = self.by_type.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(&self.entries[self.by_type[at].1])
    }

    /// The registered function of this fingerprint: what a called context is told.
    pub fn find(&self, fingerprint: u64) -> Found<'_> {
        match self.named((fingerprint >> 32) as u32) {
            Some(entry) if entry.fingerprint == fingerprint => Found::Entry(entry),
            Some(entry) => Found::OtherSignature(entry),
            None => Found::Unknown,
        }
    }

    /// The one function whose name has this hash.
    fn named(&self, name_hash: u32) -> Option<&Entry> {
        let first = u64::from(name_hash) << 32;
        let at = self.by_fingerprint.partition_point(|(other, _)| *other < first);
        let (found, index) = *self.by_fingerprint.get(at)?;
        ((found >> 32) as u32 == name_hash).then(|| &self.entries[index])
    }
}

#[cold]
#[track_caller]
fn refuse(name: &str, other: &str) -> ! {
    if name == other {
        panic!("two functions are named {name}: rename one or move it");
    }
    panic!("the names {name} and {other} have one hash: rename one of the functions");
}

fn put_failure(failure: &CallFailure, w: &mut Writer<'_>) {
    let (kind, texts): (u8, &[&String]) = match failure {
        CallFailure::Error { type_name, chain } => {
            w.put_u8(0);
            type_name.encode(w);
            w.put_varint(chain.len() as u64);
            return chain.iter().for_each(|text| text.encode(w));
        }
        CallFailure::Panic(text) => (1, &[text]),
        CallFailure::Unknown => (2, &[]),
        CallFailure::Signature { there, here } => (3, &[there, here]),
        CallFailure::Arguments(text) => (4, &[text]),
    };
    w.put_u8(kind);
    texts.iter().for_each(|text| text.encode(w));
}
