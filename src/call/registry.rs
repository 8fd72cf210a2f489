//! The functions of a program, by what the near side knows of one (its type) and by what the far
//! side is told (its fingerprint). It refuses what could be taken for something else.

use std::any::{TypeId, type_name};

use crate::call::call_context::CallContext;
use crate::call::function::{Function, Signature};
use crate::error::CallFailure;
use crate::wire::codec::{Encode, Reader, Shape, Writer, hash_name};

type Outcome = Result<(), Box<CallFailure>>;
type Thunk =
    dyn for<'a> Fn(&'a CallContext, &mut Reader<'a>, &mut Writer<'_>) -> Outcome + Send + Sync;

/// One function of the program.
pub struct Entry {
    name: &'static str,
    id: TypeId,
    fingerprint: u64,
    shape: fn(&mut Shape),
    thunk: &'static Thunk,
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

    /// Calls the function with the arguments of `r` and appends the answer's body to `w`. Fails as
    /// the function does, or its arguments.
    pub fn serve<'a>(
        &self,
        cx: &'a CallContext,
        r: &mut Reader<'a>,
        w: &mut Writer<'_>,
    ) -> Outcome {
        (self.thunk)(cx, r, w)
    }
}

/// Appends the body of the answer to a call that failed, or to one behind it in its chain; without
/// a failure, it was cancelled.
pub fn put_failed(kind: u8, failure: Option<&CallFailure>, w: &mut Writer<'_>) {
    w.put_u8(kind);
    if let Some(failure) = failure {
        failure.encode(w);
    }
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
    /// Sorted by fingerprint.
    entries: Vec<Entry>,
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
        // As the function has no size, this takes no memory.
        let thunk: Box<Thunk> = Box::new(move |cx, r, w| function.serve(cx, r, w));
        let thunk = Box::leak(thunk);
        self.insert(type_name::<F>(), TypeId::of::<F>(), F::shape, thunk);
    }

    #[track_caller]
    fn insert(
        &mut self,
        name: &'static str,
        id: TypeId,
        shape: fn(&mut Shape),
        thunk: &'static Thunk,
    ) {
        if name.ends_with("{{closure}}") {
            panic!("a closure has no name of its own: write fn instead of {name}");
        }
        if self.find_local(id).is_some() {
            return;
        }
        let name_hash = hash_name(name);
        if let Some(other) = self.named(name_hash) {
            refuse(name, other.name);
        }
        let fingerprint = u64::from(name_hash) << 32 | u64::from(Shape::hash(shape));
        let at = self.entries.partition_point(|other| other.fingerprint < fingerprint);
        self.entries.insert(at, Entry { name, id, fingerprint, shape, thunk });
    }

    /// The registered function of this type: what a caller has in hand.
    pub fn find_local(&self, id: TypeId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
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
        let at = self.entries.partition_point(|entry| entry.fingerprint < first);
        self.entries.get(at).filter(|entry| (entry.fingerprint >> 32) as u32 == name_hash)
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

#[cfg(test)]
pub mod testing {
    use super::*;
    use crate::call::arguments::Arguments;
    use crate::call::reply::{ANSWER_FAILURE, ANSWER_VALUE};
    use crate::wire::codec::Decode;
    use std::fmt;

    /// Calls by way of bytes, as another context would.
    #[track_caller]
    pub fn call<F, M>(f: F, args: impl Arguments<F::Args>) -> Result<F::Output, CallFailure>
    where
        F: Signature<M> + Function<M>,
    {
        let mut registry = Registry::new();
        registry.add(f);
        let fingerprint = registry.find_local(TypeId::of::<F>()).unwrap().fingerprint();
        let mut w = Writer::new(Vec::new(), None);
        args.encode_args(&mut w);
        let sent = w.finish().unwrap();
        let Found::Entry(entry) = registry.find(fingerprint) else { panic!("not found") };
        let mut w = Writer::new(Vec::new(), None);
        let served = entry.serve(&surroundings(), &mut Reader::new(&sent, None), &mut w);
        if let Err(failure) = &served {
            put_failed(ANSWER_FAILURE, Some(failure), &mut w);
        }
        let answer = w.finish().unwrap();
        let mut r = Reader::new(&answer[1..], None);
        let outcome = match answer[0] {
            ANSWER_VALUE => Ok(F::Output::decode(&mut r).unwrap()),
            _ => Err(CallFailure::decode(&mut r).unwrap()),
        };
        r.finish().unwrap();
        assert_eq!(served.is_ok(), outcome.is_ok());
        outcome
    }

    /// The surroundings of a call that nobody makes.
    pub fn surroundings() -> CallContext {
        CallContext::local(&crate::Program::new().router().unwrap())
    }

    /// The type's name and the texts of a failed call.
    #[track_caller]
    pub fn failed<T: fmt::Debug>(outcome: Result<T, CallFailure>) -> (String, Vec<String>) {
        match outcome {
            Err(CallFailure::Error { type_name, chain }) => (type_name, chain),
            other => panic!("{other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::surroundings;
    use super::*;
    use std::io;
    use std::path::{Path, PathBuf};

    fn none() -> u32 {
        7
    }
    fn unit(_: u32) {}
    fn length(text: &str) -> usize {
        text.len()
    }

    #[track_caller]
    fn served(registry: &Registry, fingerprint: u64, bytes: &[u8]) -> CallFailure {
        let Found::Entry(entry) = registry.find(fingerprint) else { panic!("not found") };
        let mut w = Writer::new(Vec::new(), None);
        let served = entry.serve(&surroundings(), &mut Reader::new(bytes, None), &mut w);
        *served.unwrap_err()
    }

    #[test]
    fn arguments_that_do_not_decode_fail_the_call() {
        let mut registry = Registry::new();
        registry.add(length);
        let fingerprint = registry.find_local(id(length)).unwrap().fingerprint();
        let failure = |bytes: &[u8]| served(&registry, fingerprint, bytes);
        assert_eq!(failure(&[]), CallFailure::Arguments("too short".into()));
        assert_eq!(failure(&[1, 0xff]), CallFailure::Arguments("not UTF-8".into()));
        assert_eq!(failure(&[0, 0]), CallFailure::Arguments("too long".into()));
    }

    fn id<F: 'static>(_: F) -> TypeId {
        TypeId::of::<F>()
    }

    #[test]
    fn what_is_not_there_is_unknown_or_of_another_signature() {
        let mut registry = Registry::new();
        registry.add(length);
        registry.add(none);
        registry.add(unit);
        registry.add(unit);
        assert!(registry.find_local(id(id::<u8>)).is_none());
        for function in [id(length), id(none), id(unit)] {
            let entry = registry.find_local(function).unwrap();
            let fingerprint = entry.fingerprint();
            assert!(matches!(registry.find(fingerprint), Found::Entry(e) if e.name == entry.name));
            let other = registry.find(fingerprint ^ 1);
            assert!(matches!(other, Found::OtherSignature(e) if e.name == entry.name));
            assert!(matches!(registry.find(fingerprint ^ 1 << 32), Found::Unknown));
        }
        assert!(matches!(registry.find(0), Found::Unknown));
        assert!(matches!(registry.find(u64::MAX), Found::Unknown));
    }

    #[test]
    fn a_shape_is_told_in_words_and_borrows_look_like_values() {
        fn owned(_: String, _: Vec<u8>, _: PathBuf) -> io::Result<u64> {
            Ok(0)
        }
        fn borrowed(_: &CallContext, _: &str, _: &[u8], _: &Path) -> u64 {
            0
        }
        let mut registry = Registry::new();
        registry.add(owned);
        registry.add(borrowed);
        let text = registry.find_local(id(owned)).unwrap().shape_text();
        assert_eq!(text, registry.find_local(id(borrowed)).unwrap().shape_text());
        assert_eq!(text, "fn str vec u8 path -> u64");
    }

    #[test]
    #[should_panic = "a closure has no name of its own: write fn instead of mitogen::"]
    fn a_closure_is_refused() {
        Registry::new().add(|a: u32| a);
    }

    #[test]
    #[should_panic = "::twin: rename one or move it"]
    fn two_functions_of_one_name_are_refused() {
        let mut registry = Registry::new();
        {
            fn twin() {}
            registry.add(twin);
        }
        {
            fn twin() {}
            registry.add(twin);
        }
    }

    #[test]
    #[should_panic = "the names plumless and buckeroo have one hash: rename one of the functions"]
    fn names_of_one_hash_are_refused() {
        refuse("plumless", "buckeroo");
    }
}
