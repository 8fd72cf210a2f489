//! What makes a plain `fn` callable from another context.

use std::error::Error;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use crate::call::arguments::{Arguments, Sends};
use crate::call::context::CallContext;
use crate::call::registry::ANSWER_VALUE;
use crate::error::CallFailure;
use crate::limits::{ERROR_CHAIN_MAX, ERROR_TEXT_BYTES_MAX};
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Shape, Writer};

/// A plain `fn`, whatever it takes and returns; `M` is its type as a `fn` pointer.
///
/// It bounds neither, so that the compiler always finds `M`, and then can tell which type of the
/// function is at fault. Always ask for both: `F: Signature<M> + Function<M>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be called from another context",
    label = "expected a plain `fn` of at most six arguments",
    note = "name the `fn` itself: not its result, not a `fn` pointer, not an `unsafe` or `extern` one",
    note = "more than six arguments: pass a struct or a tuple"
)]
pub trait Signature<M>: Copy + Send + Sync + 'static {}

/// A `fn` all of whose types can travel.
///
/// The compiler implements it for every such `fn`; [the module](self) says for which.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be called from another context",
    label = "expected a plain `fn` of at most six arguments",
    note = "name the `fn` itself: not its result, not a `fn` pointer, not an `unsafe` or `extern` one",
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
    note = "a remote function takes and returns values; it may also borrow `&str`, `&[u8]`, `&Path`, and `&CallContext`"
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

/// What a remote function may return: a value, or a `Result` of one.
#[diagnostic::on_unimplemented(
    message = "a remote function cannot return `{Self}`",
    label = "expected a value, or a `Result` of one",
    note = "if the type is yours, put its definition in `mitogen::value! {{ .. }}`",
    note = "it owns what it carries: return `String` for `&str`, `Vec` for a slice; an `async fn` returns no value"
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
    note = "it may be any type with `std::error::Error`, `String`, `&str`, or `Box<dyn Error>`; for `Box<dyn Error + Send + Sync>` write `Box<dyn Error>`"
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
    [] u16; [] u32; [] u64; [] usize; [] String;
}

/// What travels of an error: the texts, outermost first, shortened to what is reasonable.
fn failure(type_name: &str, error: &dyn Error) -> CallFailure {
    let mut chain = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause.filter(|_| chain.len() < ERROR_CHAIN_MAX) {
        chain.push(shortened(error.to_string()));
        cause = error.source();
    }
    CallFailure::Error { type_name: shortened(type_name.to_owned()), chain }
}

/// The text, cut at the last character boundary within the limit.
fn shortened(mut text: String) -> String {
    let mut end = text.len().min(ERROR_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

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
        s.word("vec");
        s.word("u8");
    }
}

impl Argument for &Path {
    type At<'a> = &'a Path;
    type Before<Rest: List> = Rest::Push<PathBuf>;

    fn take<'a>(_: &'a CallContext, r: &mut Reader<'a>) -> Result<&'a Path, Malformed> {
        Ok(Path::new(OsStr::from_bytes(r.take_bytes()?)))
    }

    fn shape(s: &mut Shape) {
        s.word("path");
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

/// Appends the value of a reply, or hands back its failure.
#[inline(never)]
fn outcome<R: Reply>(reply: R, w: &mut Writer<'_>) -> Result<(), Box<CallFailure>> {
    let value = reply.into_reply()?;
    w.put_u8(ANSWER_VALUE);
    value.encode(w);
    Ok(())
}

#[cold]
#[inline(never)]
fn malformed(malformed: Malformed) -> Box<CallFailure> {
    Box::new(CallFailure::Arguments(malformed.0.to_owned()))
}
