//! Codecs of numbers, truth, texts and ids.

use crate::ids::{ContextId, Handle};
use crate::sys::pages;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Shape, Writer};

impl Encode for u8 {
    fn encode(&self, w: &mut Writer<'_>) {
        w.put_u8(*self);
    }

    fn encode_all(items: &[u8], w: &mut Writer<'_>) {
        w.put(items);
    }
}

impl Decode for u8 {
    fn decode(r: &mut Reader<'_>) -> Result<u8, Malformed> {
        r.take_u8()
    }

    fn shape(s: &mut Shape) {
        s.word("u8");
    }

    fn decode_all(count: usize, r: &mut Reader<'_>) -> Result<Vec<u8>, Malformed> {
        let bytes = r.take(count)?;
        let mut all = Vec::with_capacity(bytes.len());
        pages::want_large(&all);
        all.extend_from_slice(bytes);
        Ok(all)
    }
}

macro_rules! unsigned {
    ($($t:ty)*) => { $(
        impl Encode for $t {
            fn encode(&self, w: &mut Writer<'_>) {
                w.put_varint(*self as u64);
            }
        }
        impl Decode for $t {
            fn decode(r: &mut Reader<'_>) -> Result<$t, Malformed> {
                <$t>::try_from(r.take_varint()?).map_err(|_| Malformed("a number out of range"))
            }
            fn shape(s: &mut Shape) {
                s.word(stringify!($t));
            }
        }
    )* };
}
unsigned!(u16 u32 u64 usize);

/// Small numbers of either sign become small: 0, -1, 1, -2 are 0, 1, 2, 3.
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

macro_rules! signed {
    ($($t:ty)*) => { $(
        impl Encode for $t {
            fn encode(&self, w: &mut Writer<'_>) {
                w.put_varint(zigzag(*self as i64));
            }
        }
        impl Decode for $t {
            fn decode(r: &mut Reader<'_>) -> Result<$t, Malformed> {
                let value = unzigzag(r.take_varint()?);
                <$t>::try_from(value).map_err(|_| Malformed("a number out of range"))
            }
            fn shape(s: &mut Shape) {
                s.word(stringify!($t));
            }
        }
    )* };
}
signed!(i16 i32 i64 isize);

macro_rules! fixed {
    ($($t:ty)*) => { $(
        impl Encode for $t {
            fn encode(&self, w: &mut Writer<'_>) {
                w.put(&self.to_le_bytes());
            }
        }
        impl Decode for $t {
            fn decode(r: &mut Reader<'_>) -> Result<$t, Malformed> {
                let mut bytes = [0; size_of::<$t>()];
                bytes.copy_from_slice(r.take(size_of::<$t>())?);
                Ok(<$t>::from_le_bytes(bytes))
            }
            fn shape(s: &mut Shape) {
                s.word(stringify!($t));
            }
        }
    )* };
}
fixed!(i8 u128 i128 f32 f64);

impl Encode for bool {
    fn encode(&self, w: &mut Writer<'_>) {
        w.put_u8(u8::from(*self));
    }
}

impl Decode for bool {
    fn decode(r: &mut Reader<'_>) -> Result<bool, Malformed> {
        match r.take_u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("neither true nor false")),
        }
    }

    fn shape(s: &mut Shape) {
        s.word("bool");
    }
}

impl Encode for char {
    fn encode(&self, w: &mut Writer<'_>) {
        u32::from(*self).encode(w);
    }
}

impl Decode for char {
    fn decode(r: &mut Reader<'_>) -> Result<char, Malformed> {
        char::from_u32(u32::decode(r)?).ok_or(Malformed("not a character"))
    }

    fn shape(s: &mut Shape) {
        s.word("char");
    }
}

impl Encode for str {
    fn encode(&self, w: &mut Writer<'_>) {
        w.put_bytes(self.as_bytes());
    }
}

impl Encode for String {
    fn encode(&self, w: &mut Writer<'_>) {
        self.as_str().encode(w);
    }
}

impl Decode for String {
    fn decode(r: &mut Reader<'_>) -> Result<String, Malformed> {
        let text = std::str::from_utf8(r.take_bytes()?).map_err(|_| Malformed("not UTF-8"))?;
        Ok(text.to_owned())
    }

    fn shape(s: &mut Shape) {
        s.word("str");
    }
}

macro_rules! ids {
    ($($t:ident $word:literal)*) => { $(
        impl Encode for $t {
            fn encode(&self, w: &mut Writer<'_>) {
                self.0.encode(w);
            }
        }
        impl Decode for $t {
            fn decode(r: &mut Reader<'_>) -> Result<$t, Malformed> {
                u32::decode(r).map($t)
            }
            fn shape(s: &mut Shape) {
                s.word($word);
            }
        }
    )* };
}
ids!(ContextId "context-id" Handle "handle");
