//! Codecs of what is made of a fixed number of other values: references, boxes, options, results,
//! tuples, arrays, durations. There is no `Decode` of a reference: functions borrow instead.

use core::time::Duration;

use crate::wire::codec::{Decode, Encode, Malformed, Reader, Shape, Writer};

impl<T: Encode + ?Sized> Encode for &T {
    fn encode(&self, w: &mut Writer<'_>) {
        (**self).encode(w);
    }
}

impl<T: Encode + ?Sized> Encode for Box<T> {
    fn encode(&self, w: &mut Writer<'_>) {
        (**self).encode(w);
    }
}

impl<T: Decode> Decode for Box<T> {
    fn decode(r: &mut Reader<'_>) -> Result<Box<T>, Malformed> {
        r.nested(T::decode).map(Box::new)
    }

    fn shape(s: &mut Shape) {
        T::shape(s);
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, w: &mut Writer<'_>) {
        w.put_u8(u8::from(self.is_some()));
        if let Some(value) = self {
            value.encode(w);
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(r: &mut Reader<'_>) -> Result<Option<T>, Malformed> {
        match r.take_u8()? {
            0 => Ok(None),
            1 => T::decode(r).map(Some),
            _ => Err(Malformed("neither something nor nothing")),
        }
    }

    fn shape(s: &mut Shape) {
        s.word("option");
        T::shape(s);
    }
}

impl<T: Encode, E: Encode> Encode for Result<T, E> {
    fn encode(&self, w: &mut Writer<'_>) {
        w.put_u8(u8::from(self.is_err()));
        match self {
            Ok(value) => value.encode(w),
            Err(error) => error.encode(w),
        }
    }
}

impl<T: Decode, E: Decode> Decode for Result<T, E> {
    fn decode(r: &mut Reader<'_>) -> Result<Result<T, E>, Malformed> {
        match r.take_u8()? {
            0 => T::decode(r).map(Ok),
            1 => E::decode(r).map(Err),
            _ => Err(Malformed("neither a value nor an error")),
        }
    }

    fn shape(s: &mut Shape) {
        s.word("result");
        T::shape(s);
        E::shape(s);
    }
}

impl<T: Encode, const N: usize> Encode for [T; N] {
    fn encode(&self, w: &mut Writer<'_>) {
        T::encode_all(self, w);
    }
}

impl<T: Decode, const N: usize> Decode for [T; N] {
    fn decode(r: &mut Reader<'_>) -> Result<[T; N], Malformed> {
        T::decode_all(N, r)?.try_into().map_err(|_| Malformed("not that many items"))
    }

    fn shape(s: &mut Shape) {
        s.word("array");
        s.word(&N.to_string());
        T::shape(s);
    }
}

impl Encode for Duration {
    fn encode(&self, w: &mut Writer<'_>) {
        w.put_varint(self.as_secs());
        w.put_varint(u64::from(self.subsec_nanos()));
    }
}

impl Decode for Duration {
    fn decode(r: &mut Reader<'_>) -> Result<Duration, Malformed> {
        match (r.take_varint()?, u32::decode(r)?) {
            (secs, nanos) if nanos < 1_000_000_000 => Ok(Duration::new(secs, nanos)),
            _ => Err(Malformed("more nanoseconds than a second has")),
        }
    }

    fn shape(s: &mut Shape) {
        s.word("duration");
    }
}

macro_rules! tuple {
    ($($t:ident)*) => {
        impl<$($t: Encode),*> Encode for ($($t,)*) {
            #[allow(non_snake_case, unused_variables)]
            fn encode(&self, w: &mut Writer<'_>) {
                let ($($t,)*) = self;
                $( $t.encode(w); )*
            }
        }
        impl<$($t: Decode),*> Decode for ($($t,)*) {
            #[allow(clippy::unused_unit, unused_variables)]
            fn decode(r: &mut Reader<'_>) -> Result<($($t,)*), Malformed> {
                Ok(($($t::decode(r)?,)*))
            }
            fn shape(s: &mut Shape) {
                s.word("(");
                $( $t::shape(s); )*
                s.word(")");
            }
        }
    };
}
tuple!();
tuple!(A);
tuple!(A B);
tuple!(A B C);
tuple!(A B C D);
tuple!(A B C D E);
tuple!(A B C D E F);
tuple!(A B C D E F G);
tuple!(A B C D E F G H);
