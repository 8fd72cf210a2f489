//! What a function may return, and what becomes of it: a value, or a failure in words.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::error::Error;
use std::ffi::OsString;
use std::hash::{BuildHasher, Hash};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::CallFailure;
use crate::ids::{ContextId, Handle};
use crate::limits::ERROR_CHAIN_MAX;
use crate::wire::codec::{Decode, Writer};
use crate::wire::secret::Secret;

/// The first byte of an answer's body: the value follows.
pub const ANSWER_VALUE: u8 = 0;
/// The first byte of an answer's body: the failure follows; nothing, if the function was cancelled.
pub const ANSWER_FAILURE: u8 = 1;
/// The first byte of an answer's body: the function was not run, and never is. The failure of one
/// before it in its chain follows; nothing, if it was cancelled itself, or that one was.
pub const ANSWER_NOT_BEGUN: u8 = 2;

/// What a remote function may return: a value, or a `Result` of one.
#[diagnostic::on_unimplemented(
    message = "a remote function cannot return `{Self}`",
    label = "expected a value, or a `Result` of one",
    note = "if the type is yours, put its definition in `mitogen::value! {{ .. }}`",
    note = "it owns what it carries: return `String` for `&str`, `Vec` for a slice; an `async fn` \
            returns no value"
)]
pub trait Reply {
    /// The value on success.
    type Value: Decode;

    /// The outcome of the call.
    #[doc(hidden)]
    fn into_reply(self) -> Result<Self::Value, CallFailure>;
}

/// What may be the error of a remote function: all that converts into `Box<dyn Error>`.
///
/// Its message and those of its sources arrive, and the name of its type.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a remote function",
    label = "`{Self}` does not convert into `Box<dyn Error>`",
    note = "it may be any type with `std::error::Error`, `String`, `&str`, or `Box<dyn Error>`; \
            for `Box<dyn Error + Send + Sync>` write `Box<dyn Error>`"
)]
pub trait Fails {
    /// The error, its type forgotten.
    #[doc(hidden)]
    fn boxed(self) -> Box<dyn Error>;
}

#[diagnostic::do_not_recommend]
impl<E: Into<Box<dyn Error>>> Fails for E {
    fn boxed(self) -> Box<dyn Error> {
        self.into()
    }
}

impl<T: Decode, E: Fails> Reply for Result<T, E> {
    type Value = T;

    fn into_reply(self) -> Result<T, CallFailure> {
        self.map_err(|error| failure(std::any::type_name::<E>(), &*error.boxed()))
    }
}

/// Makes values results of functions. Not a blanket: `Result` would be one of them, and is not.
macro_rules! reply {
    ($([$($generics:tt)*] $t:ty;)*) => { $(
        impl<$($generics)*> Reply for $t {
            type Value = Self;

            fn into_reply(self) -> Result<Self, CallFailure> {
                Ok(self)
            }
        }
    )* };
}
reply! {
    [] u8; [] u16; [] u32; [] u64; [] u128; [] usize;
    [] i8; [] i16; [] i32; [] i64; [] i128; [] isize;
    [] f32; [] f64; [] bool; [] char; [] String; [] PathBuf; [] OsString; [] Duration; [] Secret;
    [] ContextId; [] Handle;
    [T: Decode] Option<T>; [T: Decode] Box<T>; [T: Decode] Vec<T>;
    [T: Decode, const N: usize] [T; N];
    [K: Decode + Ord, V: Decode] BTreeMap<K, V>; [T: Decode + Ord] BTreeSet<T>;
    [K: Decode + Eq + Hash, V: Decode, S: BuildHasher + Default + 'static] HashMap<K, V, S>;
    [T: Decode + Eq + Hash, S: BuildHasher + Default + 'static] HashSet<T, S>;
    [] (); [A: Decode] (A,); [A: Decode, B: Decode] (A, B);
    [A: Decode, B: Decode, C: Decode] (A, B, C);
    [A: Decode, B: Decode, C: Decode, D: Decode] (A, B, C, D);
    [A: Decode, B: Decode, C: Decode, D: Decode, E: Decode] (A, B, C, D, E);
    [A: Decode, B: Decode, C: Decode, D: Decode, E: Decode, F: Decode] (A, B, C, D, E, F);
    [A: Decode, B: Decode, C: Decode, D: Decode, E: Decode, F: Decode, G: Decode]
        (A, B, C, D, E, F, G);
    [A: Decode, B: Decode, C: Decode, D: Decode, E: Decode, F: Decode, G: Decode, H: Decode]
        (A, B, C, D, E, F, G, H);
}

/// Appends the value of a reply, or hands back its failure.
#[inline(never)]
pub fn outcome<R: Reply>(reply: R, w: &mut Writer<'_>) -> Result<(), Box<CallFailure>> {
    let value = reply.into_reply()?;
    w.put_u8(ANSWER_VALUE);
    value.__put(w);
    Ok(())
}

/// What travels of an error: the texts, outermost first. They are cut as they are sent.
fn failure(type_name: &str, error: &dyn Error) -> CallFailure {
    let mut chain = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause.filter(|_| chain.len() < ERROR_CHAIN_MAX) {
        chain.push(error.to_string());
        cause = error.source();
    }
    CallFailure::Error { type_name: type_name.to_owned(), chain }
}

#[cfg(test)]
mod tests {
    use crate::call::registry::testing::{call, failed};
    use std::{fmt, io};

    #[test]
    fn a_result_on_top_is_the_outcome_and_inside_is_a_value() {
        fn outcome(good: u32) -> io::Result<u32> {
            if good == 1 { Ok(2) } else { Err(io::Error::from_raw_os_error(2)) }
        }
        fn value(_: u32) -> Result<Result<u32, String>, String> {
            Ok(Err("inside".into()))
        }
        fn many() -> Vec<Result<u32, String>> {
            vec![Ok(1), Err("x".into())]
        }
        assert_eq!(call(outcome, 1), Ok(2));
        assert_eq!(failed(call(outcome, 0)).1, ["No such file or directory (os error 2)"]);
        assert_eq!(call(value, 0), Ok(Err("inside".into())));
        assert_eq!(call(many, ()), Ok(many()));
    }

    #[derive(Debug)]
    struct Outer(Option<Box<Outer>>, u32);
    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "level {}", self.1)
        }
    }
    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(self.0.as_deref()?)
        }
    }

    #[test]
    fn errors_of_every_kind_arrive_with_their_causes() {
        fn text() -> Result<(), &'static str> {
            Err("text")
        }
        fn string() -> Result<(), String> {
            Err("string".into())
        }
        fn boxed() -> Result<(), Box<dyn std::error::Error>> {
            Err("boxed".into())
        }
        fn chain() -> Result<(), Outer> {
            Err(Outer(Some(Box::new(Outer(None, 2))), 1))
        }
        assert_eq!(failed(call(text, ())), ("&str".into(), vec!["text".into()]));
        assert_eq!(failed(call(string, ())).1, ["string"]);
        assert_eq!(failed(call(boxed, ())).1, ["boxed"]);
        let (type_name, chain) = failed(call(chain, ()));
        assert!(type_name.ends_with("reply::tests::Outer"), "{type_name}");
        assert_eq!(chain, ["level 1", "level 2"]);
    }

    #[test]
    fn an_error_that_goes_on_and_on_is_cut() {
        fn endless() -> Result<(), Outer> {
            Err((0..100).fold(Outer(None, 0), |inner, level| Outer(Some(Box::new(inner)), level)))
        }
        fn wordy() -> Result<(), String> {
            Err("é".repeat(10_000))
        }
        assert_eq!(failed(call(endless, ())).1.len(), crate::limits::ERROR_CHAIN_MAX);
        let bytes = failed(call(wordy, ())).1[0].len();
        assert_eq!(bytes, crate::limits::ERROR_TEXT_BYTES_MAX);
    }
}
