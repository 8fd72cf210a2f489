//! Values to bytes and back, by position. The bytes do not describe themselves: both ends compare
//! the *shapes* of what they exchange before they exchange it.
//! Decoding never panics, never reserves memory on the word of a length, never recurses deeply.

use std::any::{Any, TypeId};

use crate::limits::{DECODE_RESERVE_BYTES_MAX, EMPTY_ITEMS_MAX};
use crate::limits::{LARGE_PAGES_BYTES_MIN, VALUE_DEPTH_MAX};
use crate::sys::pages;
use crate::wire::varint::{self, Taken};

mod primitive;
mod compound;
mod collection;
#[cfg(test)]
mod tests;

/// Bytes that do not mean what they should, and what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// A value that can be sent to another context.
///
/// Write your own types inside [`value!`](crate::value), which implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent to another context",
    label = "`{Self}` has no `Encode`",
    note = "if the type is yours, put its definition in `mitogen::value! {{ .. }}`"
)]
pub trait Encode {
    /// Appends the value. What cannot be sent is reported by [`Writer::fail`].
    fn encode(&self, w: &mut Writer<'_>);

    /// Appends several; bytes override it, to be copied at once.
    #[doc(hidden)]
    fn encode_all(items: &[Self], w: &mut Writer<'_>)
    where
        Self: Sized,
    {
        for item in items {
            item.encode(w);
        }
    }
}

/// A value that can arrive from another context.
///
/// Write your own types inside [`value!`](crate::value), which implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot arrive from another context",
    label = "`{Self}` has no `Decode`",
    note = "if the type is yours, put its definition in `mitogen::value! {{ .. }}`",
    note = "a remote function takes and returns values; it may also borrow `&str`, \
            `&[u8]`, `&Path`, and `&CallContext`"
)]
pub trait Decode: Encode + Sized + 'static {
    /// Takes the value from the head of the input.
    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed>;

    /// Describes the type's structure. Types of one shape have the same encoding and meaning.
    fn shape(s: &mut Shape);

    /// Takes `count` values; bytes override it, to be copied at once.
    #[doc(hidden)]
    fn decode_all(count: usize, r: &mut Reader<'_>) -> Result<Vec<Self>, Malformed> {
        let item_bytes = size_of::<Self>().max(1);
        let mut items = Vec::with_capacity(count.min(DECODE_RESERVE_BYTES_MAX / item_bytes));
        r.each(count, |r| {
            items.push(Self::decode(r)?);
            Ok(())
        })?;
        Ok(items)
    }

    /// Encodes: for `value!`, which names one trait per field, so that a wrong one is one error.
    #[doc(hidden)]
    fn __put(&self, w: &mut Writer<'_>) {
        self.encode(w);
    }
}

/// Collects the bytes of values.
pub struct Writer<'a> {
    bytes: Vec<u8>,
    scope: Option<&'a dyn Any>,
    failure: Option<&'static str>,
}

impl<'a> Writer<'a> {
    /// A writer that appends to `bytes`. References to contexts need a `scope`.
    pub fn new(bytes: Vec<u8>, scope: Option<&'a dyn Any>) -> Writer<'a> {
        Writer { bytes, scope, failure: None }
    }

    /// Appends raw bytes.
    pub fn put(&mut self, bytes: &[u8]) {
        if LARGE_PAGES_BYTES_MIN <= bytes.len() {
            self.bytes.reserve(bytes.len());
            pages::want_large(&self.bytes);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends one byte.
    pub fn put_u8(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Appends a varint.
    pub fn put_varint(&mut self, value: u64) {
        varint::put(value, &mut self.bytes);
    }

    /// Appends a length and the bytes.
    pub fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_varint(bytes.len() as u64);
        self.put(bytes);
    }

    /// What the upper floors put around this encoding, if it is of that type.
    pub fn scope<T: 'static>(&self) -> Option<&'a T> {
        self.scope?.downcast_ref()
    }

    /// Reports that a value cannot be sent. The first report is kept, and fails the send.
    pub fn fail(&mut self, why: &'static str) {
        self.failure.get_or_insert(why);
    }

    /// The bytes, or the first failure.
    pub fn finish(self) -> Result<Vec<u8>, Malformed> {
        match self.failure {
            None => Ok(self.bytes),
            Some(why) => Err(Malformed(why)),
        }
    }
}

/// Takes values from bytes.
pub struct Reader<'a> {
    rest: &'a [u8],
    depth: u8,
    /// Items without a byte that may still come: they cost the sender nothing.
    empty_items_left: usize,
    scope: Option<&'a dyn Any>,
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`. References to contexts need a `scope`.
    pub fn new(bytes: &'a [u8], scope: Option<&'a dyn Any>) -> Reader<'a> {
        Reader { rest: bytes, depth: 0, empty_items_left: EMPTY_ITEMS_MAX, scope }
    }

    /// Takes `count` raw bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Malformed("too short"))?;
        self.rest = rest;
        Ok(head)
    }

    /// Takes one byte.
    pub fn take_u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    /// Takes a varint.
    pub fn take_varint(&mut self) -> Result<u64, Malformed> {
        match varint::take(self.rest) {
            Taken::Value(value, used) => {
                self.rest = &self.rest[used..];
                Ok(value)
            }
            Taken::Short => Err(Malformed("too short")),
            Taken::Malformed => Err(Malformed("not a number")),
        }
    }

    /// Takes a length.
    pub fn take_len(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.take_varint()?).map_err(|_| Malformed("a length beyond memory"))
    }

    /// Takes a length and that many bytes.
    pub fn take_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let count = self.take_len()?;
        self.take(count)
    }

    /// Runs `decode` one level deeper; fails where input nests too deeply.
    pub fn nested<T>(
        &mut self,
        decode: impl FnOnce(&mut Reader<'a>) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        if self.depth == VALUE_DEPTH_MAX {
            return Err(Malformed("nested too deeply"));
        }
        self.depth += 1;
        let value = decode(self);
        self.depth -= 1;
        value
    }

    /// Runs `decode` for each of `count` items; a count that the bytes left cannot hold is refused
    /// before the first. Items of no bytes draw on an allowance of the whole value.
    pub fn each(
        &mut self,
        count: usize,
        mut decode: impl FnMut(&mut Reader<'a>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        if self.rest.len().saturating_add(self.empty_items_left) < count {
            return Err(Malformed("a count beyond the input"));
        }
        for _ in 0..count {
            let before = self.rest.len();
            decode(self)?;
            if self.rest.len() == before {
                let left = self.empty_items_left.checked_sub(1);
                self.empty_items_left = left.ok_or(Malformed("too many empty items"))?;
            }
        }
        Ok(())
    }

    /// What the upper floors put around this decoding, if it is of that type.
    pub fn scope<T: 'static>(&self) -> Option<&'a T> {
        self.scope?.downcast_ref()
    }

    /// The bytes not taken yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Succeeds if all was taken.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("too long")) }
    }
}

/// The structure of a type, hashed as it is walked, and on request spelled out.
pub struct Shape {
    hash: u32,
    text: Option<String>,
    open: Vec<TypeId>,
}

impl Shape {
    /// The hash of what `walk` feeds.
    pub fn hash(walk: impl FnOnce(&mut Shape)) -> u32 {
        let mut shape = Shape { hash: FNV_BASIS, text: None, open: Vec::new() };
        walk(&mut shape);
        shape.hash
    }

    /// The words that `walk` feeds, separated by blanks.
    pub fn text(walk: impl FnOnce(&mut Shape)) -> String {
        let mut shape = Shape { hash: FNV_BASIS, text: Some(String::new()), open: Vec::new() };
        walk(&mut shape);
        shape.text.unwrap_or_default()
    }

    /// Feeds words, separated by blanks: a primitive's name, a field's, a bracket.
    pub fn word(&mut self, word: &str) {
        self.hash = fnv(self.hash, word.as_bytes());
        self.hash = fnv(self.hash, b" ");
        if let Some(text) = &mut self.text {
            if !text.is_empty() {
                *text += " ";
            }
            text.push_str(word);
        }
    }

    /// Feeds the inside of `T` by `walk`; where `T` is inside itself, only how many levels up.
    pub fn within<T: 'static>(&mut self, walk: impl FnOnce(&mut Shape)) {
        if self.enter(TypeId::of::<T>()) {
            walk(self);
            self.open.pop();
        }
    }

    /// Enters a type, unless this is inside of it already.
    fn enter(&mut self, id: TypeId) -> bool {
        match self.open.iter().rev().position(|open| *open == id) {
            Some(level) => (0..=level).for_each(|_| self.word("^")),
            None => {
                self.open.push(id);
                return true;
            }
        }
        false
    }
}

const FNV_BASIS: u32 = 0x811c_9dc5;

/// FNV-1a: small, and good enough to tell two builds apart; it protects from nothing.
pub fn fnv(hash: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// The hash of a name.
pub fn hash_name(name: &str) -> u32 {
    fnv(FNV_BASIS, name.as_bytes())
}
