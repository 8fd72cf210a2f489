//! What each codec writes, byte by byte, and what each refuses.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;

use crate::ids::{ContextId, Handle};
use crate::limits::{EMPTY_ITEMS_MAX, VALUE_DEPTH_MAX};
use crate::wire::codec::{Decode, Encode, Malformed, Reader, Shape, Writer};
use crate::wire::secret::Secret;

fn bytes_of<T: Encode + ?Sized>(value: &T) -> Vec<u8> {
    let mut w = Writer::new(Vec::new(), None);
    value.encode(&mut w);
    w.finish().unwrap()
}

fn value_of<T: Decode>(bytes: &[u8]) -> Result<T, Malformed> {
    let mut r = Reader::new(bytes, None);
    let value = T::decode(&mut r)?;
    r.finish().map(|()| value)
}

/// The value has these bytes and this shape, comes back out of them, and out of no part of them.
#[track_caller]
fn golden<T: Decode + PartialEq + Debug>(value: T, bytes: &[u8], shape: &str) {
    assert_eq!(bytes_of(&value), bytes);
    assert_eq!(value_of(bytes), Ok(value));
    for len in 0..bytes.len() {
        assert!(value_of::<T>(&bytes[..len]).is_err(), "cut at {len}");
    }
    assert_eq!(value_of::<T>(&[bytes, &[0]].concat()), Err(Malformed("too long")));
    assert_eq!(Shape::text(T::shape), shape);
}

#[track_caller]
fn refused<T: Decode + Debug>(bytes: &[u8], why: &'static str) {
    assert_eq!(value_of::<T>(bytes).unwrap_err(), Malformed(why));
}

#[test]
fn numbers_have_these_bytes() {
    golden(200u8, &[200], "u8");
    golden(300u16, &[0xac, 2], "u16");
    golden(u32::MAX, &[0xff, 0xff, 0xff, 0xff, 0x0f], "u32");
    golden(1u64 << 63, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1], "u64");
    golden(7usize, &[7], "usize");
    golden(-2i8, &[0xfe], "i8");
    golden(-1i16, &[1], "i16");
    golden(64i32, &[0x80, 1], "i32");
    golden(i64::MAX, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "i64");
    golden(i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "i64");
    golden(-3isize, &[5], "isize");
    golden(0x0102u128, &[2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "u128");
    golden(-1i128, &[0xff; 16], "i128");
    golden(1.5f32, &[0, 0, 0xc0, 0x3f], "f32");
    golden(-2.0f64, &[0, 0, 0, 0, 0, 0, 0, 0xc0], "f64");
}

#[test]
fn numbers_out_of_range_are_refused() {
    refused::<u16>(&[0x80, 0x80, 4], "a number out of range");
    refused::<i16>(&[0x80, 0x80, 4], "a number out of range");
    refused::<u32>(&[0xff, 0xff, 0xff, 0xff, 0x1f], "a number out of range");
    refused::<u64>(&[0x80, 0], "not a number");
}

#[test]
fn plain_values_have_these_bytes() {
    golden((), &[], "( )");
    golden(true, &[1], "bool");
    golden('é', &[0xe9, 1], "char");
    golden("né".to_owned(), &[3, b'n', 0xc3, 0xa9], "str");
    golden(ContextId(300), &[0xac, 2], "context-id");
    golden(Handle(1), &[1], "handle");
    golden(Duration::from_millis(2_500), &[2, 0x80, 0xca, 0xb5, 0xee, 1], "duration");
    assert_eq!(bytes_of("né"), [3, b'n', 0xc3, 0xa9]);
    assert_eq!(bytes_of(&Secret::from("x")), [1, b'x']);
    assert_eq!(value_of::<Secret>(&[1, b'x']).unwrap().expose(), "x");
}

#[test]
fn plain_values_that_mean_nothing_are_refused() {
    refused::<bool>(&[2], "neither true nor false");
    refused::<char>(&[0x80, 0xb0, 3], "not a character");
    refused::<String>(&[1, 0xff], "not UTF-8");
    refused::<Option<u8>>(&[2, 0], "neither something nor nothing");
    refused::<Result<u8, u8>>(&[2, 0], "neither a value nor an error");
    refused::<Duration>(&[0, 0x80, 0x94, 0xeb, 0xdc, 3], "more nanoseconds than a second has");
}

#[test]
fn compounds_have_these_bytes() {
    golden(None::<u8>, &[0], "option u8");
    golden(Some(7u8), &[1, 7], "option u8");
    golden(Ok::<u8, String>(7), &[0, 7], "result u8 str");
    golden(Err::<u8, String>("a".into()), &[1, 1, b'a'], "result u8 str");
    golden(Box::new(300u16), &[0xac, 2], "u16");
    golden([1u16, 300], &[1, 0xac, 2], "array 2 u16");
    golden([0u8; 0], &[], "array 0 u8");
    golden((1u8, true), &[1, 1], "( u8 bool )");
    golden((1u8,), &[1], "( u8 )");
    golden(((1u8, 2u8), 3u8), &[1, 2, 3], "( ( u8 u8 ) u8 )");
    golden(
        (1u8, 2u8, 3u8, 4u8, 5u8, 6u8, 7u8, 8u8),
        &[1, 2, 3, 4, 5, 6, 7, 8],
        "( u8 u8 u8 u8 u8 u8 u8 u8 )",
    );
}

#[test]
fn collections_have_these_bytes() {
    golden(vec![1u8, 2], &[2, 1, 2], "vec u8");
    golden(vec!["a".to_owned(), String::new()], &[2, 1, b'a', 0], "vec str");
    golden(vec![(); 3], &[3], "vec ( )");
    golden(BTreeMap::from([(1u8, true), (2, false)]), &[2, 1, 1, 2, 0], "map u8 bool");
    golden(HashMap::from([(1u8, true)]), &[1, 1, 1], "map u8 bool");
    golden(BTreeSet::from([3u8, 1]), &[2, 1, 3], "set u8");
    golden(HashSet::from([3u8]), &[1, 3], "set u8");
    assert_eq!(bytes_of(&[1u16, 2][..]), bytes_of(&vec![1u16, 2]));
    assert_eq!(bytes_of(&&&[1u8, 2][..]), [2, 1, 2]);
}

#[test]
fn a_key_that_comes_twice_is_refused() {
    refused::<BTreeMap<u8, u8>>(&[2, 1, 1, 1, 2], "a key twice");
    refused::<HashMap<u8, u8>>(&[2, 1, 1, 1, 2], "a key twice");
    refused::<BTreeSet<u8>>(&[2, 1, 1], "a key twice");
    refused::<HashSet<u8>>(&[2, 1, 1], "a key twice");
}

#[test]
fn counts_that_lie_are_refused_before_the_first_item() {
    let huge = bytes_of(&(1u64 << 40));
    refused::<Vec<u16>>(&huge, "a count beyond the input");
    refused::<Vec<()>>(&huge, "a count beyond the input");
    refused::<Vec<[u8; 0]>>(&huge, "a count beyond the input");
    refused::<BTreeSet<u32>>(&huge, "a count beyond the input");
    refused::<HashMap<(), ()>>(&huge, "a count beyond the input");
    refused::<Vec<u8>>(&huge, "too short");
    refused::<String>(&huge, "too short");
}

#[test]
fn empty_items_are_limited_in_the_whole_value() {
    let half = bytes_of(&(EMPTY_ITEMS_MAX as u64 / 2));
    let (two, three) =
        ([&[2][..], &half, &half].concat(), [&[3][..], &half, &half, &half].concat());
    assert_eq!(value_of::<Vec<Vec<()>>>(&two).unwrap().len(), 2);
    refused::<Vec<Vec<()>>>(&three, "a count beyond the input");
}

/// Recursive, and as careless as a hand-written codec may be.
#[derive(Debug, PartialEq)]
struct Chain(Option<Box<Chain>>);

impl Encode for Chain {
    fn encode(&self, w: &mut Writer<'_>) {
        self.0.encode(w);
    }
}

impl Decode for Chain {
    fn decode(r: &mut Reader<'_>) -> Result<Chain, Malformed> {
        Option::decode(r).map(Chain)
    }

    fn shape(s: &mut Shape) {
        s.within::<Chain>(Option::<Box<Chain>>::shape);
    }
}

#[test]
fn nesting_is_limited() {
    let depth = usize::from(VALUE_DEPTH_MAX);
    assert!(value_of::<Chain>(&[&vec![1; depth][..], &[0]].concat()).is_ok());
    refused::<Chain>(&[&vec![1; depth + 1][..], &[0]].concat(), "nested too deeply");
    refused::<Chain>(&vec![1; 10_000_000], "nested too deeply");
    golden(Chain(Some(Box::new(Chain(None)))), &[1, 0], "option ^");
}

#[test]
fn shapes_tell_types_apart() {
    let shapes = [
        Shape::hash(u8::shape),
        Shape::hash(<(u8,)>::shape),
        Shape::hash(<(u8, u8)>::shape),
        Shape::hash(<((u8, u8),)>::shape),
        Shape::hash(Vec::<u8>::shape),
        Shape::hash(<[u8; 1]>::shape),
        Shape::hash(<[u8; 11]>::shape),
        Shape::hash(Option::<u8>::shape),
        Shape::hash(BTreeSet::<u8>::shape),
    ];
    assert_eq!(shapes.iter().collect::<BTreeSet<_>>().len(), shapes.len());
    assert_eq!(Shape::hash(BTreeMap::<u8, u16>::shape), Shape::hash(HashMap::<u8, u16>::shape));
}
