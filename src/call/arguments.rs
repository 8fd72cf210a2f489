//! What a caller may write for the arguments of a function: the values, or what is sent like them.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::wire::codec::{Encode, Writer};

/// What is sent exactly as a `T` would be: a `T`, a reference to one, `&str` for a `String`.
///
/// `Option` and `Vec` are sent as themselves alone: were `Option<&str>` sent as `Option<String>`
/// too, the type of a plain `None` would be ambiguous.
#[diagnostic::on_unimplemented(
    message = "the function takes `{T}` here, not `{Self}`",
    label = "expected something that is sent as `{T}`, found `{Self}`"
)]
pub trait Sends<T> {
    /// Appends the value.
    #[doc(hidden)]
    fn encode_as(&self, w: &mut Writer<'_>);

    /// Appends several; bytes are copied at once.
    #[doc(hidden)]
    fn encode_all_as(items: &[Self], w: &mut Writer<'_>)
    where
        Self: Sized,
    {
        for item in items {
            item.encode_as(w);
        }
    }
}

/// The arguments of a call: one as it is, several as a tuple, none as `()`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not match the function's arguments `{L}`",
    label = "expected `{L}`, found `{Self}`",
    note = "one argument is passed as it is, several as a tuple, none as `()`"
)]
pub trait Arguments<L> {
    /// Appends the arguments.
    #[doc(hidden)]
    fn encode_args(&self, w: &mut Writer<'_>);
}

impl<T: Encode> Sends<T> for T {
    fn encode_as(&self, w: &mut Writer<'_>) {
        self.encode(w);
    }

    fn encode_all_as(items: &[T], w: &mut Writer<'_>) {
        T::encode_all(items, w);
    }
}

impl<T: Encode> Sends<T> for &T {
    fn encode_as(&self, w: &mut Writer<'_>) {
        (*self).encode(w);
    }
}

/// Sends each of the types as the bytes of `$bytes`.
macro_rules! sends_bytes {
    ($sent:ty: $($t:ty)*, |$x:ident| $bytes:expr) => { $(
        impl Sends<$sent> for $t {
            fn encode_as(&self, w: &mut Writer<'_>) {
                let $x = self;
                w.put_bytes($bytes);
            }
        }
    )* };
}
sends_bytes!(String: &str &&str, |text| text.as_bytes());
sends_bytes!(PathBuf: &str &&str String &String, |text| text.as_bytes());
sends_bytes!(PathBuf: &Path &&Path, |path| path.as_os_str().as_bytes());

fn encode_items<A: Sends<T>, T>(items: &[A], w: &mut Writer<'_>) {
    w.put_varint(items.len() as u64);
    A::encode_all_as(items, w);
}

impl<A: Sends<T>, T> Sends<Vec<T>> for &[A] {
    fn encode_as(&self, w: &mut Writer<'_>) {
        encode_items(self, w);
    }
}

impl<A: Sends<T>, T, const N: usize> Sends<Vec<T>> for [A; N] {
    fn encode_as(&self, w: &mut Writer<'_>) {
        encode_items(self, w);
    }
}

impl<A: Sends<T>, T, const N: usize> Sends<Vec<T>> for &[A; N] {
    fn encode_as(&self, w: &mut Writer<'_>) {
        encode_items(*self, w);
    }
}

impl Arguments<()> for () {
    fn encode_args(&self, _: &mut Writer<'_>) {}
}

#[diagnostic::do_not_recommend]
impl<A: Sends<T>, T> Arguments<(T,)> for A {
    fn encode_args(&self, w: &mut Writer<'_>) {
        self.encode_as(w);
    }
}

macro_rules! arguments {
    ($($($a:ident $t:ident $x:ident)*;)*) => { $(
        impl<$($a: Sends<$t>, $t),*> Arguments<($($t),*)> for ($($a),*) {
            fn encode_args(&self, w: &mut Writer<'_>) {
                let ($($x),*) = self;
                $($x.encode_as(w);)*
            }
        }
    )* };
}
arguments! {
    A1 T1 a1 A2 T2 a2;
    A1 T1 a1 A2 T2 a2 A3 T3 a3;
    A1 T1 a1 A2 T2 a2 A3 T3 a3 A4 T4 a4;
    A1 T1 a1 A2 T2 a2 A3 T3 a3 A4 T4 a4 A5 T5 a5;
    A1 T1 a1 A2 T2 a2 A3 T3 a3 A4 T4 a4 A5 T5 a5 A6 T6 a6;
}

#[cfg(test)]
mod tests {
    use crate::call::registry::testing::call;
    use std::path::{Path, PathBuf};

    fn length(text: &str) -> usize {
        text.len()
    }

    #[test]
    fn texts_and_paths_are_sent_as_they_are() {
        let owned = String::from("abc");
        assert_eq!(call(length, &owned), Ok(3));
        assert_eq!(call(length, owned), Ok(3));
        for text in ["a", "b"].iter() {
            assert_eq!(call(length, text), Ok(1));
        }
        fn depth(path: &Path) -> usize {
            path.components().count()
        }
        let path = PathBuf::from("/a/b");
        assert_eq!(call(depth, path.as_path()), Ok(3));
        assert_eq!(call(depth, &path), Ok(3));
        assert_eq!(call(depth, "/a"), Ok(2));
    }

    #[test]
    fn slices_and_arrays_are_sent_as_vectors() {
        fn sum(values: Vec<u32>) -> u32 {
            values.iter().sum()
        }
        fn join(texts: Vec<String>) -> String {
            texts.concat()
        }
        assert_eq!(call(sum, [1, 2]), Ok(3));
        let array = &[1, 2];
        assert_eq!(call(sum, array), Ok(3));
        assert_eq!(call(sum, &[1, 2][..]), Ok(3));
        assert_eq!(call(sum, vec![]), Ok(0));
        assert_eq!(call(join, ["a", "b"]).unwrap(), "ab");
        fn bytes(bytes: &[u8]) -> Vec<u8> {
            bytes.to_vec()
        }
        assert_eq!(call(bytes, b"raw"), Ok(b"raw".to_vec()));
        assert_eq!(call(bytes, vec![1, 2]), Ok(vec![1, 2]));
    }

    #[test]
    fn options_and_tuples_infer() {
        fn or_zero(value: Option<String>) -> usize {
            value.map_or(0, |text| text.len())
        }
        assert_eq!(call(or_zero, None), Ok(0));
        assert_eq!(call(or_zero, Some("a".into())), Ok(1));
        fn one_tuple(pair: (u32, u64)) -> u64 {
            u64::from(pair.0) + pair.1
        }
        assert_eq!(call(one_tuple, (1, 2)), Ok(3));
    }
}
