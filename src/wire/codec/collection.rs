//! Codecs of collections: a count, then the items. A count is believed only as its items arrive.
//! Maps and sets have no order on the wire, so that a hashed one may arrive as a sorted one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, Hash};

use crate::wire::codec::{Decode, Encode, Malformed, Reader, Shape, Writer};

impl<T: Encode> Encode for [T] {
    fn encode(&self, w: &mut Writer<'_>) {
        w.put_varint(self.len() as u64);
        T::encode_all(self, w);
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, w: &mut Writer<'_>) {
        self.as_slice().encode(w);
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(r: &mut Reader<'_>) -> Result<Vec<T>, Malformed> {
        let count = r.take_len()?;
        r.nested(|r| T::decode_all(count, r))
    }

    fn shape(s: &mut Shape) {
        s.word("vec");
        T::shape(s);
    }
}

/// Appends a count and the items.
fn put_all(items: impl ExactSizeIterator<Item = impl Encode>, w: &mut Writer<'_>) {
    w.put_varint(items.len() as u64);
    for item in items {
        item.encode(w);
    }
}

/// Takes a count, and so many items one level deeper; `insert` is false for one that is there.
fn take_all<T: Decode>(
    r: &mut Reader<'_>,
    mut insert: impl FnMut(T) -> bool,
) -> Result<(), Malformed> {
    let count = r.take_len()?;
    r.nested(|r| {
        r.each(
            count,
            |r| if insert(T::decode(r)?) { Ok(()) } else { Err(Malformed("a key twice")) },
        )
    })
}

impl<K: Encode, V: Encode> Encode for BTreeMap<K, V> {
    fn encode(&self, w: &mut Writer<'_>) {
        put_all(self.iter(), w);
    }
}

impl<K: Decode + Ord, V: Decode> Decode for BTreeMap<K, V> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut map = Self::default();
        take_all(r, |(key, value): (K, V)| map.insert(key, value).is_none())?;
        Ok(map)
    }

    fn shape(s: &mut Shape) {
        s.word("map");
        K::shape(s);
        V::shape(s);
    }
}

impl<K: Encode, V: Encode, S> Encode for HashMap<K, V, S> {
    fn encode(&self, w: &mut Writer<'_>) {
        put_all(self.iter(), w);
    }
}

impl<K: Decode + Eq + Hash, V: Decode, S: BuildHasher + Default + 'static> Decode
    for HashMap<K, V, S>
{
    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut map = Self::default();
        take_all(r, |(key, value): (K, V)| map.insert(key, value).is_none())?;
        Ok(map)
    }

    fn shape(s: &mut Shape) {
        s.word("map");
        K::shape(s);
        V::shape(s);
    }
}

impl<T: Encode> Encode for BTreeSet<T> {
    fn encode(&self, w: &mut Writer<'_>) {
        put_all(self.iter(), w);
    }
}

impl<T: Decode + Ord> Decode for BTreeSet<T> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut set = Self::default();
        take_all(r, |item: T| set.insert(item))?;
        Ok(set)
    }

    fn shape(s: &mut Shape) {
        s.word("set");
        T::shape(s);
    }
}

impl<T: Encode, S> Encode for HashSet<T, S> {
    fn encode(&self, w: &mut Writer<'_>) {
        put_all(self.iter(), w);
    }
}

impl<T: Decode + Eq + Hash, S: BuildHasher + Default + 'static> Decode for HashSet<T, S> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut set = Self::default();
        take_all(r, |item: T| set.insert(item))?;
        Ok(set)
    }

    fn shape(s: &mut Shape) {
        s.word("set");
        T::shape(s);
    }
}
