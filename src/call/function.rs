//! What makes a plain `fn` callable from another context.
//!
//! ```
//! use mitogen::{CallContext, function::{Function, Signature}};
//! use std::{io, path::Path};
//!
//! /// Bytes used below `path`. Runs wherever it is called.
//! fn disk_usage(path: &Path) -> io::Result<u64> {
//!     Ok(path.metadata()?.len())
//! }
//!
//! /// A function that wants its surroundings names them.
//! fn greet(_: &CallContext, names: Vec<String>) -> String {
//!     names.join(" and ")
//! }
//!
//! fn is_callable<F: Signature<M> + Function<M>, M>(_: F) {}
//! is_callable(disk_usage);
//! is_callable(greet);
//! is_callable(std::fs::read_to_string::<std::path::PathBuf>);
//! ```
//!
//! # What a remote function may be
//! Any plain `fn` that has a name: free, associated, of a trait, inside another function, or one
//! instance of a generic one (`sum::<u64>`, `chunk::<16>`).
//!
//! | it takes | the caller passes |
//! |---|---|
//! | a value: what has [`Decode`](crate::Decode) | the value or a reference to it |
//! | `&str`, `String` | `"text"`, a `String`, `&String` |
//! | `&Path`, `PathBuf` | the same, or `&Path`, `PathBuf`, `&PathBuf` |
//! | `&[u8]`, `Vec<u8>`, `Vec<T>` | a `Vec`, a slice, an array, or a reference to one |
//! | `&CallContext`, at any place | nothing: it is the call's surroundings |
//!
//! At most six arguments are passed: none as `()`, one as it is, several as a tuple. What is
//! borrowed lives until the function returns, and is not copied.
//!
//! It returns a value, or a `Result` of one. A `Result` on top is always the outcome of the call:
//! its error, of any type that converts into `Box<dyn Error>`, arrives as a
//! [`CallError`](crate::error::CallError) with the texts of all its sources. A `Result` further
//! inside is a value like others. Types of your own become values by
//! [`value!`](crate::value); with an `Encode` and `Decode` written by hand, they need
//! [`Reply`] too, in order to be returned.
//!
//! # What it may not be
//! | it is | write instead |
//! |---|---|
//! | a closure, a `fn` pointer: they have no name | a `fn`, and pass what it would capture |
//! | `async`, `unsafe`, `extern "C"`, one that never returns | a plain `fn` that calls it |
//! | of more than six arguments | a struct or a tuple for some of them |
//! | one that takes `&T` of another `T`, or `&mut T` | `T`, and return what it became |
//! | one that takes `&'static str`, or `f::<&Path>` of a generic `f` | `&str`; `f::<PathBuf>` |
//! | one that returns a borrow | an owned value: `String`, `Vec`, `PathBuf` |
//! | one that fails with `Box<dyn Error + Send + Sync>` | `Box<dyn Error>` |
//! | one of two that have one name, as in two blocks of a function | another name or place |
//!
//! The compiler refuses most of these where the function is registered or called, and names the
//! type at fault; of `&'static str` and `f::<&Path>` it says ``implementation of `FnOnce` is not
//! general enough``. A closure that captures nothing, and a second function of one name, are
//! refused when the program starts; a closure that captures a `Copy` value, when it is built (a
//! mere `cargo check` lets it pass).
//!
//! # Inference
//! An argument that is `x.into()`, `x.parse()?` or `x.collect()` as a whole has no type of its
//! own here: name it (`String::from(x)`, `x.parse::<u64>()?`). Integers are not widened: a `u32`
//! variable is no `u64`, though a literal is either. `Option<&str>` and `Vec<&str>` are not sent as
//! `Option<String>` and `Vec<String>`; `["a", "b"]` and `Some("a".into())` are.
//!
//! # How it runs
//! A context runs its functions one at a time, in the order in which they were sent, each on its
//! main thread; one with more [threads](crate::Connect::threads) begins them in that order. A
//! function that takes long, or waits, should look whether somebody still waits for it:
//! [`CallContext`] says how.
//!
//! A panic in a program that is built to unwind fails the call alone, with its message and place
//! (`no luck, at src/main.rs:7:5`), unless the program has set a panic hook that does not call the
//! one before. The context lives. In one that is built to abort, as the stock agents are, the
//! context ends.
//!
//! # Both ends
//! A function is known by its full name and by the *shape* of what it takes and returns: primitive
//! types, and names and order of fields and variants. Where shapes differ, the call fails with both
//! of them, before anything is decoded. `&str` and `String` have one shape, as any type has after
//! it was only moved or renamed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use crate::call::arguments::{Arguments, Sends};
use crate::call::call_context::CallContext;
use crate::call::reply::outcome;
pub use crate::call::reply::{Fails, Reply};
use crate::error::CallFailure;
use crate::wire::codec::{Decode, Malformed, Reader, Shape, Writer};

/// A plain `fn`, whatever it takes and returns; `M` is its type as a `fn` pointer.
///
/// It bounds neither, so that the compiler always finds `M`, and then can tell which type of the
/// function is at fault. Always ask for both: `F: Signature<M> + Function<M>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be called from another context",
    label = "expected a plain `fn` of at most six arguments",
    note = "name the `fn` itself: not its result, not a `fn` pointer, not an `unsafe` or `extern` \
            one",
    note = "more than six arguments: pass a struct or a tuple"
)]
pub trait Signature<M>: Copy + Send + Sync + 'static {}

/// A `fn` all of whose types can travel.
///
/// The compiler implements it for every such `fn`; [the module](self) says for which.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be called from another context",
    label = "expected a plain `fn` of at most six arguments",
    note = "name the `fn` itself: not its result, not a `fn` pointer, not an `unsafe` or `extern` \
            one",
    note = "more than six arguments: pass a struct or a tuple"
)]
pub trait Function<M>: Signature<M> {
    /// What is sent, as a tuple: the arguments but for `&CallContext`, and owned.
    type Args;
    /// What a call gives: the result, or what is in it if that is a `Result`.
    type Output: Decode;

    /// Calls the function with the arguments of `r`; its value goes to `w`.
    #[doc(hidden)]
    fn serve<'a>(
        &self,
        cx: &'a CallContext,
        r: &mut Reader<'a>,
        w: &mut Writer<'_>,
    ) -> Result<(), Box<CallFailure>>;

    /// Describes what is sent and what comes back.
    #[doc(hidden)]
    fn shape(s: &mut Shape);
}

/// The type of one parameter: a value, or `&str`, `&[u8]`, `&Path`, `&CallContext`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the parameter of a remote function",
    label = "`{Self}` cannot arrive from another context",
    note = "if the type is yours, put its definition in `mitogen::value! {{ .. }}`",
    note = "a remote function takes and returns values; it may also borrow `&str`, `&[u8]`, \
            `&Path`, and `&CallContext`"
)]
pub trait Argument {
    /// The same type, with the lifetime of one call.
    type At<'a>;
    /// The tuple of what is sent, when this parameter stands before `Rest`.
    type Before<Rest: List>: List;

    /// Takes the argument from what was sent.
    #[doc(hidden)]
    fn take<'a>(cx: &'a CallContext, r: &mut Reader<'a>) -> Result<Self::At<'a>, Malformed>;

    /// Describes what is sent.
    #[doc(hidden)]
    fn shape(s: &mut Shape);
}

/// A tuple of types that grows at its front, up to six.
pub trait List {
    /// The tuple with `T` before it.
    type Push<T>: List;
}

/// A tuple of at most six.
#[diagnostic::on_unimplemented(
    message = "a remote function takes at most six arguments",
    label = "expected a plain `fn` of at most six arguments",
    note = "more than six arguments: pass a struct or a tuple"
)]
pub trait AtMostSix {}

/// What stands for the tuple of more than six.
#[doc(hidden)]
pub struct TooManyArguments(());

impl<T: Decode> Argument for T {
    type At<'a> = T;
    type Before<Rest: List> = Rest::Push<T>;

    fn take<'a>(_: &'a CallContext, r: &mut Reader<'a>) -> Result<T, Malformed> {
        T::decode(r)
    }

    fn shape(s: &mut Shape) {
        T::shape(s);
    }
}

impl Argument for &CallContext {
    type At<'a> = &'a CallContext;
    type Before<Rest: List> = Rest;

    fn take<'a>(cx: &'a CallContext, _: &mut Reader<'a>) -> Result<&'a CallContext, Malformed> {
        Ok(cx)
    }

    fn shape(_: &mut Shape) {}
}

impl Argument for &str {
    type At<'a> = &'a str;
    type Before<Rest: List> = Rest::Push<String>;

    fn take<'a>(_: &'a CallContext, r: &mut Reader<'a>) -> Result<&'a str, Malformed> {
        std::str::from_utf8(r.take_bytes()?).map_err(|_| Malformed("not UTF-8"))
    }

    fn shape(s: &mut Shape) {
        <String as Decode>::shape(s);
    }
}

impl Argument for &[u8] {
    type At<'a> = &'a [u8];
    type Before<Rest: List> = Rest::Push<Vec<u8>>;

    fn take<'a>(_: &'a CallContext, r: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
        r.take_bytes()
    }

    fn shape(s: &mut Shape) {
        <Vec<u8> as Decode>::shape(s);
    }
}

impl Argument for &Path {
    type At<'a> = &'a Path;
    type Before<Rest: List> = Rest::Push<PathBuf>;

    fn take<'a>(_: &'a CallContext, r: &mut Reader<'a>) -> Result<&'a Path, Malformed> {
        Ok(Path::new(OsStr::from_bytes(r.take_bytes()?)))
    }

    fn shape(s: &mut Shape) {
        <PathBuf as Decode>::shape(s);
    }
}

macro_rules! lists {
    ($($($t:ident)* => $pushed:ty;)*) => { $(
        impl<$($t),*> AtMostSix for ($($t,)*) {}
        impl<$($t),*> List for ($($t,)*) {
            type Push<Front> = $pushed;
        }
    )* };
}
lists! {
    => (Front,);
    A => (Front, A);
    A B => (Front, A, B);
    A B C => (Front, A, B, C);
    A B C D => (Front, A, B, C, D);
    A B C D E => (Front, A, B, C, D, E);
    A B C D E G => TooManyArguments;
}

impl List for TooManyArguments {
    type Push<Front> = TooManyArguments;
}

/// The tuple of what the parameters send.
macro_rules! sent {
    () => { () };
    ($first:ident $($rest:ident)*) => { <$first as Argument>::Before<sent!($($rest)*)> };
}

/// The three impls of one arity. What depends on the function itself is kept thin: taking the
/// arguments and storing the outcome are compiled once per list of types.
macro_rules! arity {
    ($take:ident: $($t:ident $x:ident)* $(; $($bound:tt)*)?) => {
        impl<Fun, R, $($t),*> Signature<fn($($t),*) -> R> for Fun
        where
            Fun: Fn($($t),*) -> R + Copy + Send + Sync + 'static,
        {
        }

        #[inline(never)]
        #[allow(unused_variables, clippy::type_complexity)]
        fn $take<'a, $($t: Argument),*>(
            cx: &'a CallContext,
            r: &mut Reader<'a>,
        ) -> Result<($($t::At<'a>,)*), Box<CallFailure>> {
            $(let $x = $t::take(cx, r).map_err(malformed)?;)*
            if !r.rest().is_empty() {
                return Err(malformed(Malformed("too long")));
            }
            Ok(($($x,)*))
        }

        impl<Fun, R, $($t),*> Function<fn($($t),*) -> R> for Fun
        where
            Fun: Signature<fn($($t),*) -> R>,
            $($t: Argument,)*
            R: Reply,
            Fun: for<'a> Fn($($t::At<'a>),*) -> R,
            $($($bound)*)?
        {
            type Args = sent!($($t)*);
            type Output = R::Value;

            fn serve<'a>(
                &self,
                cx: &'a CallContext,
                r: &mut Reader<'a>,
                w: &mut Writer<'_>,
            ) -> Result<(), Box<CallFailure>> {
                let ($($x,)*) = $take::<$($t),*>(cx, r)?;
                outcome(self($($x),*), w)
            }

            fn shape(s: &mut Shape) {
                s.word("fn");
                $(<$t as Argument>::shape(s);)*
                s.word("->");
                <R::Value as Decode>::shape(s);
            }
        }
    };
}

arity!(take0:);
arity!(take1: A a);
arity!(take2: A a B b);
arity!(take3: A a B b C c);
arity!(take4: A a B b C c D d);
arity!(take5: A a B b C c D d E e);
arity!(take6: A a B b C c D d E e G g);
arity!(take7: A a B b C c D d E e G g H h; sent!(A B C D E G H): AtMostSix);

#[cold]
#[inline(never)]
fn malformed(malformed: Malformed) -> Box<CallFailure> {
    Box::new(CallFailure::Arguments(malformed.0.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::registry::testing::{call, failed};

    fn none() -> u32 {
        7
    }
    fn unit(_: u32) {}
    fn length(text: &str) -> usize {
        text.len()
    }
    fn six(a: u16, b: u32, c: u64, d: &str, e: &[u8], f: &Path) -> String {
        format!("{a} {b} {c} {d} {e:?} {}", f.display())
    }
    fn six_and_context(a: u16, b: u16, c: u16, _: &CallContext, d: u16, e: u16, f: u16) -> u16 {
        a + b + c + d + e + f
    }
    fn context_first(_: &CallContext, text: String) -> String {
        text
    }
    fn one_lifetime<'a>(_: &'a CallContext, a: &'a str, b: &'a str) -> String {
        [a, b].concat()
    }
    fn two_lifetimes<'a, 'b>(_: &CallContext, a: &'a str, b: &'b str) -> String {
        let both: (&'a str, &'b str) = (a, b);
        [both.0, both.1].concat()
    }
    fn konst<const N: u32>() -> u32 {
        N
    }
    fn generic<T: Decode + Into<u64>>(value: T) -> u64 {
        value.into()
    }
    trait Named {
        fn name() -> String;
    }
    struct S;
    impl S {
        fn associated(value: u32) -> u32 {
            value + 1
        }
    }
    impl Named for S {
        fn name() -> String {
            "S".into()
        }
    }

    #[test]
    fn functions_of_every_arity_are_called() {
        assert_eq!(call(none, ()), Ok(7));
        assert_eq!(call(unit, 1), Ok(()));
        assert_eq!(call(length, "four"), Ok(4));
        let args = (1, 2, 3, "x", b"y", "/z");
        assert_eq!(call(six, args).unwrap(), "1 2 3 x [121] /z");
    }

    #[test]
    fn the_context_is_no_argument_and_stands_anywhere() {
        assert_eq!(call(six_and_context, (1, 2, 3, 4, 5, 6)), Ok(21));
        assert_eq!(call(context_first, "x").unwrap(), "x");
        assert_eq!(call(one_lifetime, ("a", "b")).unwrap(), "ab");
        assert_eq!(call(two_lifetimes, ("a", String::from("b"))).unwrap(), "ab");
    }

    #[test]
    fn functions_of_every_kind_are_called() {
        fn inner() -> u32 {
            8
        }
        assert_eq!(call(konst::<3>, ()), Ok(3));
        assert_eq!(call(generic::<u32>, 5), Ok(5));
        assert_eq!(call(S::associated, 1), Ok(2));
        assert_eq!(call(<S as Named>::name, ()).unwrap(), "S");
        assert_eq!(call(inner, ()), Ok(8));
        let called = || {
            fn inside_a_closure() -> u32 {
                9
            }
            call(inside_a_closure, ())
        };
        assert_eq!(called(), Ok(9));
        let (type_name, _) = failed(call(std::fs::read_to_string::<PathBuf>, "/no/such/file"));
        assert_eq!(type_name, "std::io::error::Error");
    }
}
