//! Fragments: put together, granted, refused, and left unfinished.

use super::*;
use crate::wire::header::Lane;

const HEADER: Header = Header {
    kind: Kind::Data,
    lane: Lane::Bulk,
    part: Part::Whole,
    dst: ContextId(0),
    src: ContextId(5),
    auth: ContextId(5),
    handle: Handle(1 << 30),
    reply_to: None,
};
const BYTES_MAX: u64 = 1024 * 1024;

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7) as u8).collect()
}

fn first(total: u64) -> Header {
    Header { part: Part::First(total), ..HEADER }
}

fn next() -> Header {
    Header { part: Part::Next, ..HEADER }
}

fn begin(assembler: &mut Assembler, header: Header) -> Result<Step, Malformed> {
    assembler.push(&header, &[1; FRAGMENT_BYTES], BYTES_MAX)
}

#[track_caller]
fn travels(len: usize, parts: usize) {
    let (mut assembler, payload) = (Assembler::new(), payload(len));
    assert_eq!(split(&payload).count(), parts);
    for (i, (part, chunk)) in split(&payload).enumerate() {
        let step = assembler.push(&Header { part, ..HEADER }, chunk, BYTES_MAX).unwrap();
        if i + 1 < parts {
            assert_eq!(step, Step::Partial);
        } else {
            assert_eq!(step, Step::Whole(Message::new(&HEADER, payload.clone())));
        }
    }
    assert_eq!(assembler.open_len(), 0);
}

#[test]
fn messages_of_any_length_arrive_as_they_were() {
    travels(0, 1);
    travels(1, 1);
    travels(FRAGMENT_BYTES, 1);
    travels(FRAGMENT_BYTES + 1, 2);
    travels(2 * FRAGMENT_BYTES, 2);
    travels(2 * FRAGMENT_BYTES + 1, 3);
    travels(BYTES_MAX as usize, 64);
}

#[test]
fn messages_of_several_senders_and_calls_interleave() {
    let mut assembler = Assembler::new();
    let other = Header { src: ContextId(6), auth: ContextId(6), ..next() };
    let call = Header { reply_to: Some(Handle(256)), ..next() };
    let total = FRAGMENT_BYTES as u64 + 1;
    for header in [call, other, next()] {
        begin(&mut assembler, Header { part: Part::First(total), ..header }).unwrap();
    }
    for header in [other, next(), call] {
        let step = assembler.push(&header, &[2], BYTES_MAX).unwrap();
        let Step::Whole(message) = step else { panic!("{step:?}") };
        assert_eq!((message.src, message.reply_to), (header.src, header.reply_to));
        assert_eq!(message.data.len() as u64, total);
    }
}

#[test]
fn a_message_too_large_is_refused_and_the_rest_of_it_ignored() {
    let mut assembler = Assembler::new();
    let total = BYTES_MAX + 1;
    assert_eq!(begin(&mut assembler, first(total)), Ok(Step::TooLarge { total }));
    for _ in 0..63 {
        assert_eq!(begin(&mut assembler, next()), Ok(Step::Ignored));
    }
    assert_eq!(assembler.push(&next(), &[1], BYTES_MAX), Ok(Step::Ignored));
    assert_eq!(assembler.open_len(), 0);
    assert!(assembler.push(&next(), &[1], BYTES_MAX).is_err());
    let whole = assembler.push(&HEADER, &[0; 9], 8);
    assert_eq!(whole, Ok(Step::TooLarge { total: 9 }));
}

#[test]
fn a_sender_may_stop_in_a_refused_message_and_begin_another() {
    let mut assembler = Assembler::new();
    begin(&mut assembler, first(u64::MAX)).unwrap();
    assert_eq!(begin(&mut assembler, first(20_000)), Ok(Step::Partial));
    for reply_to in 0..2 * ASSEMBLIES_MAX as u32 {
        let header = Header { reply_to: Some(Handle(reply_to)), ..first(u64::MAX) };
        assert_eq!(begin(&mut assembler, header), Ok(Step::TooLarge { total: u64::MAX }));
    }
    assert_eq!(assembler.open_len(), ASSEMBLIES_MAX);
    let rest = vec![1; 20_000 - FRAGMENT_BYTES];
    assert!(matches!(assembler.push(&next(), &rest, BYTES_MAX), Ok(Step::Whole(_))));
}

#[test]
fn a_flood_of_unfinished_messages_is_malformed() {
    let mut assembler = Assembler::new();
    let mut open = |i| {
        let header = Header { handle: Handle(i), ..first(20_000) };
        assembler.push(&header, &[1; FRAGMENT_BYTES], 1 << 40)
    };
    for i in 0..ASSEMBLIES_MAX as u32 {
        assert_eq!(open(i), Ok(Step::Partial));
    }
    assert_eq!(open(u32::MAX), Err(Malformed("too many unfinished messages")));
}

#[test]
fn fragments_out_of_place_are_malformed() {
    let mut assembler = Assembler::new();
    assert_eq!(begin(&mut assembler, next()), Err(Malformed("a fragment without its first")));
    begin(&mut assembler, first(20_000)).unwrap();
    let call = begin(&mut assembler, Header { kind: Kind::Call, ..next() });
    assert_eq!(call, Err(Malformed("a fragment that differs from its first")));
    let auth = begin(&mut assembler, Header { auth: ContextId(0), ..next() });
    assert_eq!(auth, Err(Malformed("a fragment that differs from its first")));
}

#[test]
fn an_unfinished_message_gives_way_to_the_next_under_its_key() {
    let mut assembler = Assembler::new();
    assert_eq!(begin(&mut assembler, first(20_000)), Ok(Step::Partial));
    assert_eq!(begin(&mut assembler, first(16_385)), Ok(Step::Partial));
    assert_eq!(assembler.open_len(), 1);
    let step = assembler.push(&next(), &[1], BYTES_MAX);
    assert!(matches!(step, Ok(Step::Whole(message)) if message.data.len() == 16_385));
}

#[test]
fn what_anyone_leaves_unfinished_has_a_budget_and_answers_have_none() {
    let mut assembler = Assembler::new();
    let bytes_max = 4 * FRAGMENT_BYTES as u64;
    let mut push = |i, kind, part| {
        let header = Header { handle: Handle(i), kind, part, ..HEADER };
        assembler.grant(&header, u64::MAX);
        assembler.push(&header, &[1; FRAGMENT_BYTES], bytes_max).unwrap()
    };
    let kind = |i| if i % 2 == 0 { Kind::Data } else { Kind::Control };
    // Of no more than the largest message each.
    for i in 0..16 {
        assert_eq!(push(i, kind(i), Part::First(bytes_max)), Step::Partial);
    }
    assert_eq!(push(0, Kind::Data, Part::Next), Step::Partial);
    for i in 1..3 {
        assert_eq!(push(i, kind(i), Part::Next), Step::TooLarge { total: bytes_max });
        assert_eq!(push(i, kind(i), Part::Next), Step::Ignored);
        // What it had is free again.
        assert_eq!(push(i + 2, kind(i), Part::Next), Step::Partial);
    }
    for i in 100..200 {
        assert_eq!(push(i, Kind::Reply, Part::First(bytes_max)), Step::Partial);
        assert_eq!(push(i, Kind::Reply, Part::Next), Step::Partial);
    }
}

#[test]
fn of_the_answers_to_one_call_one_is_kept() {
    let mut assembler = Assembler::new();
    for reply_to in [None, Some(Handle(1)), Some(Handle(2))] {
        let header = Header { reply_to, part: Part::First(BYTES_MAX), ..ANSWER };
        assert_eq!(begin(&mut assembler, header), Ok(Step::Partial));
        assert_eq!(assembler.open_len(), 1);
    }
}

const ANSWER: Header = Header { kind: Kind::Reply, ..HEADER };
const FRAGMENT: u64 = FRAGMENT_BYTES as u64;

fn announce(assembler: &mut Assembler, handle: u32, total: u64) -> Header {
    let header = Header { handle: Handle(handle), part: Part::First(total), ..ANSWER };
    assert_eq!(begin(assembler, header), Ok(Step::Partial));
    Header { part: Part::Next, ..header }
}

#[test]
fn what_follows_is_granted_before_it_comes_and_no_more_than_there_is() {
    let mut assembler = Assembler::new();
    let next = announce(&mut assembler, 300, FRAGMENT + 20_000);
    assert_eq!(assembler.grant(&next, u64::MAX), 20_000);
    assert_eq!((assembler.grant(&next, u64::MAX), assembler.ahead()), (0, 20_000 - FRAGMENT));
    begin(&mut assembler, next).unwrap();
    assert_eq!((assembler.grant(&next, u64::MAX), assembler.ahead()), (0, 0));
    assembler.push(&next, &[1; 20_000 - FRAGMENT_BYTES], BYTES_MAX).unwrap();
    assert_eq!((assembler.grant(&next, u64::MAX), assembler.open_len()), (0, 0));
}

#[test]
fn a_fragment_that_was_not_granted_is_malformed() {
    let mut assembler = Assembler::new();
    let next = announce(&mut assembler, 300, BYTES_MAX);
    // What a loop may send without.
    let free = UNGRANTED_BYTES_MAX / FRAGMENT;
    for _ in 1..free {
        begin(&mut assembler, next).unwrap();
    }
    let wrong = Err(Malformed("a fragment that was not granted"));
    assert_eq!(begin(&mut assembler, next), wrong);
    assert_eq!(assembler.grant(&next, 0), FRAGMENT);
    assert_eq!(begin(&mut assembler, next), Ok(Step::Partial));
    assert_eq!(begin(&mut assembler, next), wrong);
}

#[test]
fn fragments_of_a_wrong_length_are_malformed() {
    let wrong = Err(Malformed("a fragment of a wrong length"));
    let mut assembler = Assembler::new();
    begin(&mut assembler, first(20_000)).unwrap();
    assert_eq!(begin(&mut assembler, next()), wrong);
    assert_eq!(assembler.push(&next(), &[1; 3_615], BYTES_MAX), wrong);
    assert_eq!(assembler.push(&next(), &[1; 3_617], BYTES_MAX), wrong);
    assert!(matches!(assembler.push(&next(), &[1; 3_616], BYTES_MAX), Ok(Step::Whole(_))));
}

#[test]
fn what_a_lost_context_left_unfinished_is_forgotten() {
    let mut assembler = Assembler::new();
    begin(&mut assembler, first(20_000)).unwrap();
    begin(&mut assembler, Header { src: ContextId(6), ..first(20_000) }).unwrap();
    assembler.drop_from(ContextId(5));
    assert_eq!(assembler.open_len(), 1);
    assert_eq!(begin(&mut assembler, first(20_000)), Ok(Step::Partial));
}

#[test]
fn memory_follows_what_has_arrived() {
    let mut assembler = Assembler::new();
    assembler.push(&first(u64::MAX), &[0; FRAGMENT_BYTES], u64::MAX).unwrap();
    for fragments in 2..=200 {
        assembler.push(&next(), &[0; FRAGMENT_BYTES], u64::MAX).unwrap();
        let bytes_max = (2 * fragments * FRAGMENT_BYTES).max(ASSEMBLY_STEP_BYTES);
        assert!(assembler.open[0].data.capacity() <= bytes_max);
    }
}
