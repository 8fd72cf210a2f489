//! What a hostile or broken neighbour can do to the others by how it says it: bytes, fragments,
//! ends, and the pace.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::lease::Lease;
use super::node::Outgoing;
use super::peer::End;
use super::policy;
use super::send::room_of;
use super::testing::{
    BAD, GOOD, Inbox, LEASE, ROOT, Tree, attach, death_in, encoded, header, node, tree,
};
use crate::error::{Cause, Death, ErrorKind};
use crate::ids::{ContextId, Handle};
use crate::io::side::Side;
use crate::limits::{ANNOUNCED_BYTES_MAX, BAD_HANDLES_MAX, FRAGMENT_BYTES, WINDOW_BYTES};
use crate::sys::pipe;
use crate::wire::codec::{Encode, Reader};
use crate::wire::frame::{Frame, FrameBuf};
use crate::wire::header::{Header, Kind, Lane, Part};

#[test]
fn garbage_ends_the_link_and_every_wait_for_it_at_once() {
    let mut tree = tree();
    let (_, pending) = tree.pending(BAD);
    let (_, behind) = tree.pending(ContextId(100));
    let (_, data) = tree.receiver();
    let add = header(Kind::Control, Handle::ADD_ROUTE);
    tree.say(&add, &encoded(&|w| (ContextId(100), BAD).encode(w)));
    tree.bad.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    for inbox in [pending, data, behind] {
        let death = inbox.next().unwrap_err();
        assert_eq!((death.cause, death.context), (Cause::Protocol, Some(BAD)));
    }
    tree.is_cut_off();
}

#[test]
fn frames_may_come_one_byte_at_a_time() {
    let mut tree = tree();
    let (handle, inbox) = tree.receiver();
    let bytes = Frame::new(&header(Kind::Data, handle), b"slow").as_bytes().to_vec();
    for byte in bytes {
        tree.bad.write_all(&[byte]).unwrap();
        tree.others_are_well();
    }
    assert_eq!(inbox.data(), b"slow");
}

#[test]
fn a_stream_that_ends_inside_a_frame_is_an_end_like_any() {
    let mut tree = tree();
    let (_, pending) = tree.pending(BAD);
    let bytes = Frame::new(&header(Kind::Data, Handle(1 << 30)), b"cut").as_bytes().to_vec();
    tree.bad.write_all(&bytes[..bytes.len() - 1]).unwrap();
    tree.bad.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(pending.next().unwrap_err(), Death::of(Cause::Disconnected).at(BAD).seen_by(ROOT));
    tree.others_are_well();
}

#[test]
fn a_message_beyond_the_limit_is_refused_by_its_first_fragment() {
    let mut tree = tree();
    let calls = Arc::new(Inbox::default());
    tree.root.listen(Handle::CALL, Kind::Call, policy::anyone, calls).unwrap();
    let part = Part::First(1 << 40);
    let reply_to = Some(Handle(300));
    let call = Header { part, lane: Lane::Bulk, reply_to, ..header(Kind::Call, Handle::CALL) };
    tree.say(&call, &[0; FRAGMENT_BYTES]);
    // Who sends the fragments waits for room, who made the call for its answer.
    let (room, _) = tree.hear();
    assert_eq!((room.kind, room.handle), (Kind::Grant, Handle::CALL));
    let (answer, payload) = tree.hear();
    assert_eq!((answer.kind, answer.handle), (Kind::Dead, Handle(300)));
    assert_eq!(death_in(&payload).cause, Cause::TooLarge);
}

#[test]
fn a_message_that_nobody_takes_is_refused_by_its_first_fragment_and_takes_no_room() {
    let mut tree = tree();
    let reply_to = Some(Handle(300));
    let part = Part::First(3 * FRAGMENT_BYTES as u64);
    let call = Header { part, lane: Lane::Bulk, reply_to, ..header(Kind::Call, Handle::CALL) };
    tree.say(&call, &[0; FRAGMENT_BYTES]);
    let (room, _) = tree.hear();
    assert_eq!((room.kind, room.handle), (Kind::Grant, Handle::CALL));
    let (answer, payload) = tree.hear();
    assert_eq!((answer.kind, answer.handle), (Kind::Dead, Handle(300)));
    assert_eq!(death_in(&payload), Death::of(Cause::NoHandle).at(ROOT));
    // What is on its way is no fault.
    tree.say(&Header { part: Part::Next, ..call }, &[0; FRAGMENT_BYTES]);
    tree.settle();
    tree.others_are_well();
}

#[test]
fn a_large_value_that_nobody_takes_leaves_all_the_room_that_it_took() {
    let tree = tree();
    let (kind, dst, auth, reply_to) = (Kind::Data, ROOT, GOOD, None);
    let out = Outgoing { kind, dst, auth, handle: Handle::well_known(7), reply_to };
    for parts in [1, 3] {
        let payload = FrameBuf::encode(None, |w| w.put(&vec![0; parts * FRAGMENT_BYTES])).unwrap();
        tree.good.send(&out, payload).unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while !tree.good.credit.accounts().is_empty() {
            assert!(Instant::now() < end, "{parts}: some of it was never granted");
            std::thread::yield_now();
        }
    }
}

#[test]
fn fragments_out_of_place_are_dropped_and_a_flood_of_them_cuts_off() {
    let mut tree = tree();
    let next =
        Header { part: Part::Next, lane: Lane::Bulk, ..header(Kind::Data, Handle::FIRST_RANDOM) };
    tree.say(&next, b"no first");
    tree.settle();
    for i in 0..=BAD_HANDLES_MAX {
        tree.say(&Header { handle: Handle(1 << 30 | i), ..next }, b"no first");
    }
    tree.is_cut_off();
}

#[test]
fn an_unfinished_message_is_nobodys_and_goes_with_its_link() {
    let mut tree = tree();
    let (handle, inbox) = tree.receiver();
    let part = Part::First(3 * FRAGMENT_BYTES as u64);
    let first = Header { part, lane: Lane::Bulk, ..header(Kind::Data, handle) };
    tree.say(&first, &[1; FRAGMENT_BYTES]);
    tree.say(&Header { part: Part::Next, ..first }, &[2; FRAGMENT_BYTES]);
    tree.settle();
    assert!(inbox.is_empty());
    tree.bad.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(inbox.next().unwrap_err().cause, Cause::Disconnected);
}

#[test]
fn a_sender_without_grants_stops_at_its_window_and_goes_on_with_them() {
    let mut tree = tree();
    let root = tree.root.clone();
    let (kind, auth, handle, reply_to) = (Kind::Data, ROOT, Handle(1 << 30), None);
    let out = Outgoing { kind, dst: BAD, auth, handle, reply_to };
    let sent = Arc::new(Mutex::new(0));
    let count = sent.clone();
    let thread = std::thread::spawn(move || {
        loop {
            let payload = FrameBuf::encode(None, |w| w.put(&[0; 1024])).unwrap();
            match root.send(&out, payload) {
                Ok(()) => *count.lock().unwrap() += 1024,
                Err(error) => return error,
            }
        }
    });
    let room = room_of(&[0; 1024]);
    for _ in 0..WINDOW_BYTES / room {
        assert_eq!(tree.hear().1.len(), 1024);
    }
    assert!(*sent.lock().unwrap() <= WINDOW_BYTES);
    tree.say(&header(Kind::Grant, handle), &encoded(&|w| w.put_varint(2 * room as u64)));
    tree.hear();
    tree.hear();
    tree.settle();
    assert!(tree.arrived.is_empty());
    tree.bad.shutdown(std::net::Shutdown::Both).unwrap();
    let error = thread.join().unwrap();
    let crate::error::ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    // No route, if it was between two waits.
    assert!(matches!(death.cause, Cause::Disconnected | Cause::NoRoute), "{death:?}");
}

/// A large answer, announced by its first fragment, to a new call of the root's.
fn announce(tree: &mut Tree, total: u64) -> (Header, Arc<Inbox>) {
    let (handle, inbox) = tree.pending(BAD);
    let first =
        Header { part: Part::First(total), lane: Lane::Bulk, ..header(Kind::Reply, handle) };
    tree.say(&first, &[0; FRAGMENT_BYTES]);
    (Header { part: Part::Next, ..first }, inbox)
}

/// What is granted next, and for which handle.
fn granted(tree: &mut Tree) -> (Handle, usize) {
    let (grant, payload) = tree.hear();
    assert_eq!(grant.kind, Kind::Grant);
    (grant.handle, Reader::new(&payload, None).take_len().unwrap())
}

#[test]
fn however_many_answers_are_announced_each_may_go_on_and_all_get_no_more_than_there_is() {
    let mut tree = tree();
    let (total, count) = (1 << 20, 200);
    let mut sum = 0;
    let mut all = Vec::new();
    for _ in 0..count {
        let (next, inbox) = announce(&mut tree, total);
        let (handle, bytes) = granted(&mut tree);
        assert_eq!(handle, next.handle);
        assert!(FRAGMENT_BYTES <= bytes, "{bytes}");
        sum += bytes - FRAGMENT_BYTES;
        all.push((next, inbox, bytes));
    }
    let budget = ANNOUNCED_BYTES_MAX as usize;
    assert!(budget / 3 < sum && sum <= budget / 2, "{sum}");
    assert_eq!(tree.root.ahead.load(Ordering::Relaxed), sum);
    // Most of them have stopped: the last goes on all the same.
    let (last, inbox, mut bytes) = all.pop().unwrap();
    let mut left = total as usize - FRAGMENT_BYTES;
    while 0 < left {
        for _ in 0..bytes / FRAGMENT_BYTES {
            tree.say(&last, &[0; FRAGMENT_BYTES]);
        }
        left -= bytes;
        bytes = if 0 < left { granted(&mut tree).1 } else { 0 };
    }
    assert_eq!(inbox.data().len(), total as usize);
    tree.bad.shutdown(std::net::Shutdown::Both).unwrap();
    for (_, inbox, _) in &all {
        assert_eq!(inbox.next().unwrap_err().cause, Cause::Disconnected);
    }
    assert_eq!(tree.root.ahead.load(Ordering::Relaxed), 0);
}

#[test]
fn what_finds_the_first_hop_full_at_its_deadline_was_not_sent_and_takes_no_room() {
    let tree = tree();
    let (auth, now) = (ROOT, Some(Instant::now()));
    let send = |handle: u32, bytes: usize| {
        let (kind, dst, reply_to) = (Kind::Data, BAD, None);
        let out = Outgoing { kind, dst, auth, handle: Handle(1 << 30 | handle), reply_to };
        let payload = FrameBuf::encode(None, |w| w.put(&vec![0; bytes])).unwrap();
        tree.root.send_until(&out, payload, now)
    };
    // It reads none of it.
    let full = (0..).take_while(|n| send(*n, FRAGMENT_BYTES).is_ok()).count();
    assert_eq!(tree.root.credit.accounts().len(), full);
    for bytes in [0, FRAGMENT_BYTES, 3 * FRAGMENT_BYTES] {
        let error = send(full as u32, bytes).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Timeout);
    }
    assert_eq!(tree.root.credit.accounts().len(), full);
}

#[test]
fn what_is_sent_to_who_is_gone_fails_and_takes_no_room() {
    let tree = tree();
    let (kind, auth, handle, reply_to) = (Kind::Data, ROOT, Handle::well_known(1), None);
    let out = Outgoing { kind, dst: ContextId(77), auth, handle, reply_to };
    for bytes in [FRAGMENT_BYTES, 3 * FRAGMENT_BYTES] {
        for _ in 0..6 {
            let payload = FrameBuf::encode(None, |w| w.put(&vec![0; bytes])).unwrap();
            let error = tree.root.send(&out, payload).unwrap_err();
            let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
            assert_eq!(death.cause, Cause::NoRoute);
            assert_eq!(tree.root.credit.accounts(), []);
        }
    }
}

#[test]
fn who_leaves_the_tree_in_the_middle_of_a_call_has_all_its_room_again() {
    const LEAVER: ContextId = ContextId(3);
    let leaver = node(LEAVER, &[ROOT], false);
    let (side, raw) = pipe::socketpair().unwrap();
    attach(&leaver, End::Parent, Side::new(side));
    leaver.listen(Handle::CALL, Kind::Call, policy::anyone, Arc::new(Inbox::default())).unwrap();
    let (src, auth, dst, lane) = (ROOT, ROOT, LEAVER, Lane::Bulk);
    let part = Part::First(1 << 20);
    let call = Header { src, auth, dst, lane, part, ..header(Kind::Call, Handle::CALL) };
    let mut raw = UnixStream::from(raw);
    raw.write_all(Frame::new(&call, &[0; FRAGMENT_BYTES]).as_bytes()).unwrap();
    crate::sys::testing::soon(|| 0 < leaver.ahead.load(Ordering::Relaxed));
    let own = leaver.clone();
    leaver.broker().defer_sync(move |turn| own.leave(turn)).unwrap();
    assert_eq!(leaver.ahead.load(Ordering::Relaxed), 0);
    leaver.broker().shutdown();
    leaver.broker().join();
}

#[test]
fn who_stands_before_a_hostile_context_is_not_cut_off_for_it() {
    let mut tree = tree();
    let behind = ContextId(LEASE.first);
    let next = Header {
        part: Part::Next,
        lane: Lane::Bulk,
        src: behind,
        auth: behind,
        ..header(Kind::Data, Handle::FIRST_RANDOM)
    };
    for _ in 0..=2 * BAD_HANDLES_MAX {
        tree.say(&next, b"no first");
    }
    tree.settle();
    assert!(tree.bad_ended.is_empty());
}

#[test]
fn a_flood_of_answers_through_a_hop_costs_the_child_that_sends_it_and_nobody_else() {
    const HOP: ContextId = ContextId(3);
    let hop = node(HOP, &[ROOT], false);
    let (side, _parent) = pipe::socketpair().unwrap();
    let parent_ended = attach(&hop, End::Parent, Side::new(side));
    let (side, raw) = pipe::socketpair().unwrap();
    let child_ended = attach(&hop, End::Child(BAD, Lease::default()), Side::new(side));
    // The parent reads none of it: so does a slow line.
    let answer = Frame::new(&header(Kind::Reply, Handle(300)), &[0; FRAGMENT_BYTES]);
    let mut raw = UnixStream::from(raw);
    let flood = std::thread::spawn(move || while raw.write_all(answer.as_bytes()).is_ok() {});
    let why = child_ended.get_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(why.cause, Cause::DoesNotRead);
    flood.join().unwrap();
    let (dst, auth, reply_to) = (ROOT, HOP, None);
    let own = Outgoing { kind: Kind::Dead, dst, auth, handle: Handle(300), reply_to };
    assert!(hop.tell(&own, Lane::Quick, &|w| Death::of(Cause::NoRoute).encode(w)));
    hop.broker().defer_sync(|_| ()).unwrap();
    assert!(parent_ended.is_empty());
    hop.broker().shutdown();
    hop.broker().join();
}
