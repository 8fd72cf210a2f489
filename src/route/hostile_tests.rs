//! Nodes in one process, joined by socketpairs, and raw ends driven by hand-made frames: what a
//! hostile or broken neighbour can do to the others.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lease::{Lease, Pool};
use super::node::{Identity, Node, Outgoing};
use super::peer::{End, Guardian, Peer};
use super::pending::Deliver;
use super::policy;
use crate::error::{Cause, Death};
use crate::ids::{ContextId, Handle};
use crate::io::broker::Broker;
use crate::io::latch::Latch;
use crate::io::side::Side;
use crate::io::turn::{Key, Turn};
use crate::limits::{BAD_HANDLES_MAX, FRAGMENT_BYTES, WINDOW_BYTES};
use crate::route::send::room_of;
use crate::sys::pipe;
use crate::wire::codec::{Decode, Encode, Reader};
use crate::wire::frame::{Frame, FrameBuf};
use crate::wire::framer::Framer;
use crate::wire::header::{Header, Kind, Lane, Part};
use crate::wire::message::Message;

const ROOT: ContextId = ContextId(0);
const GOOD: ContextId = ContextId(1);
const BAD: ContextId = ContextId(2);
/// What the bad child may give out.
const LEASE: Lease = Lease { first: 100, count: 10 };
const LIMIT: Duration = Duration::from_secs(10);

/// Keeps what arrives at a handle.
#[derive(Default)]
struct Inbox(Latch<Result<Message, Death>>);

impl Deliver for Inbox {
    fn message(&self, _: &mut Turn, message: Message) {
        self.0.put(Ok(message)).unwrap();
    }

    fn dead(&self, _: &mut Turn, _: ContextId, death: Death) {
        self.0.put(Err(death)).unwrap();
    }

    fn lost(&self, _: &mut Turn, _: ContextId, death: &Death) {
        self.0.put(Err(death.clone())).unwrap();
    }
}

impl Inbox {
    #[track_caller]
    fn next(&self) -> Result<Message, Death> {
        self.0.get_timeout(LIMIT).unwrap()
    }

    #[track_caller]
    fn data(&self) -> Vec<u8> {
        self.next().unwrap().data
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Closes a link at its end, and notes why.
struct Watch(Arc<Latch<Death>>);

impl Guardian for Watch {
    fn ended(&mut self, turn: &mut Turn, key: Key) {
        turn.close(key, &Death::of(Cause::Disconnected));
    }

    fn closed(&mut self, _: &mut Turn, why: &Death) {
        self.0.put(why.clone()).unwrap();
    }
}

fn node(id: ContextId, parents: &[ContextId]) -> Arc<Node> {
    let identity =
        Identity { id, parents: parents.to_vec(), name: String::new(), message_bytes_max: 1 << 20 };
    let pool = if parents.is_empty() { Pool::of_master() } else { Pool::default() };
    Node::new(identity, pool, Broker::start().unwrap())
}

/// Makes a link out of `side`; what is returned tells its end.
fn attach(node: &Arc<Node>, end: End, side: Side) -> Arc<Latch<Death>> {
    let (ended, own) = (Arc::new(Latch::new()), node.clone());
    let watch = Box::new(Watch(ended.clone()));
    let attached = node
        .broker()
        .defer_sync(move |turn| Peer::attach(&own, turn, end, side.clone(), side, watch).map(drop));
    attached.unwrap().unwrap();
    ended
}

/// A root, a good child, and a raw end in place of a bad one.
struct Tree {
    root: Arc<Node>,
    good: Arc<Node>,
    bad: UnixStream,
    bad_ended: Arc<Latch<Death>>,
    good_ended: Arc<Latch<Death>>,
    framer: Framer,
    arrived: Vec<(Header, Vec<u8>)>,
}

impl Drop for Tree {
    fn drop(&mut self) {
        for node in [&self.root, &self.good] {
            node.broker().shutdown();
            node.broker().join();
        }
    }
}

fn tree() -> Tree {
    let (root, good) = (node(ROOT, &[]), node(GOOD, &[ROOT]));
    let (a, b) = pipe::socketpair().unwrap();
    let good_lease = Lease { first: 50, count: 10 };
    let good_ended = attach(&root, End::Child(GOOD, good_lease), Side::new(a));
    attach(&good, End::Parent, Side::new(b));
    let (a, bad) = pipe::socketpair().unwrap();
    let bad_ended = attach(&root, End::Child(BAD, LEASE), Side::new(a));
    let bad = UnixStream::from(bad);
    bad.set_read_timeout(Some(LIMIT)).unwrap();
    let (framer, arrived) = (Framer::new(), Vec::new());
    Tree { root, good, bad, bad_ended, good_ended, framer, arrived }
}

/// What the bad child says to the root, until it is made worse.
fn header(kind: Kind, handle: Handle) -> Header {
    let (lane, part, reply_to) = (Lane::Quick, Part::Whole, None);
    Header { kind, lane, part, dst: ROOT, src: BAD, auth: BAD, handle, reply_to }
}

impl Tree {
    fn say(&mut self, header: &Header, payload: &[u8]) {
        self.bad.write_all(Frame::new(header, payload).as_bytes()).unwrap();
    }

    /// The next frame that comes to the bad child.
    #[track_caller]
    fn hear(&mut self) -> (Header, Vec<u8>) {
        while self.arrived.is_empty() {
            let mut bytes = [0; 4096];
            let count = self.bad.read(&mut bytes).unwrap();
            assert_ne!(count, 0, "cut off: {:?}", self.bad_ended.try_get());
            let mut frames = self.framer.feed(&bytes[..count]);
            while let Some(frame) = frames.next() {
                let frame = frame.unwrap();
                self.arrived.push((frame.header, frame.payload.to_vec()));
            }
        }
        self.arrived.remove(0)
    }

    /// Waits until the root has handled all that was said: it answers what it cannot deliver.
    #[track_caller]
    fn settle(&mut self) {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let mark = Handle(COUNT.fetch_add(1, Ordering::Relaxed) + (1 << 20));
        self.say(&Header { reply_to: Some(mark), ..header(Kind::Call, Handle(7777)) }, b"");
        while self.hear().0.handle != mark {}
    }

    /// The root still serves the bad child's sibling, and the sibling is none the wiser.
    #[track_caller]
    fn others_are_well(&self) {
        let inbox = Arc::new(Inbox::default());
        let handle = self.root.listen_for_data(inbox.clone()).unwrap();
        let (kind, dst, auth, reply_to) = (Kind::Data, ROOT, GOOD, None);
        let payload = FrameBuf::encode(None, |w| w.put(b"well")).unwrap();
        self.good.send(&Outgoing { kind, dst, auth, handle, reply_to }, payload).unwrap();
        assert_eq!(inbox.data(), b"well");
        self.root.unlisten(handle);
        assert!(self.good_ended.is_empty());
    }

    #[track_caller]
    fn is_cut_off(&mut self) {
        let why = self.bad_ended.get_timeout(LIMIT).unwrap();
        assert_eq!(why.cause, Cause::Protocol, "{why:?}");
        self.others_are_well();
    }

    fn receiver(&self) -> (Handle, Arc<Inbox>) {
        let inbox = Arc::new(Inbox::default());
        (self.root.listen_for_data(inbox.clone()).unwrap(), inbox)
    }

    /// Something in the root that waits for an answer of this context.
    fn pending(&self, from: ContextId) -> (Handle, Arc<Inbox>) {
        let inbox = Arc::new(Inbox::default());
        (self.root.listen_for_answer(from, inbox.clone()).unwrap(), inbox)
    }
}

fn death_in(payload: &[u8]) -> Death {
    Death::decode(&mut Reader::new(payload, None)).unwrap()
}

fn encoded(write: &dyn Fn(&mut crate::wire::codec::Writer<'_>)) -> Vec<u8> {
    FrameBuf::encode(None, write).unwrap().payload().to_vec()
}

#[test]
fn messages_with_a_forged_source_or_authority_are_dropped() {
    let mut tree = tree();
    let (handle, inbox) = tree.receiver();
    let honest = header(Kind::Data, handle);
    for forged in [ROOT, GOOD, ContextId(50), ContextId(99), ContextId(110)] {
        tree.say(&Header { src: forged, auth: forged, ..honest }, b"forged");
        tree.say(&Header { src: forged, ..honest }, b"forged");
        tree.say(&Header { auth: forged, ..honest }, b"forged");
    }
    tree.say(&honest, b"honest");
    tree.say(&Header { src: ContextId(105), auth: ContextId(105), ..honest }, b"leased");
    assert_eq!((inbox.data(), inbox.data()), (b"honest".to_vec(), b"leased".to_vec()));
    tree.others_are_well();
}

#[test]
fn who_forges_again_and_again_is_cut_off() {
    let mut tree = tree();
    let forged = Header { src: GOOD, ..header(Kind::Data, Handle(1)) };
    for _ in 0..BAD_HANDLES_MAX {
        tree.say(&forged, b"");
    }
    tree.settle();
    tree.say(&forged, b"");
    tree.is_cut_off();
}

#[test]
fn a_forged_message_is_not_forwarded_either() {
    let mut tree = tree();
    let inbox = Arc::new(Inbox::default());
    let handle = tree.good.listen_for_data(inbox.clone()).unwrap();
    let honest = Header { dst: GOOD, ..header(Kind::Data, handle) };
    tree.say(&Header { src: ROOT, auth: ROOT, ..honest }, b"forged");
    tree.say(&Header { auth: ROOT, ..honest }, b"forged");
    tree.say(&honest, b"honest");
    assert_eq!(inbox.data(), b"honest");
}

#[test]
fn a_call_without_authority_is_refused_with_a_dead_answer() {
    let mut tree = tree();
    for node in [&tree.root, &tree.good] {
        let calls = Arc::new(Inbox::default());
        let policy = policy::has_parent_authority;
        node.listen(Handle::CALL, Kind::Call, policy, calls).unwrap();
    }
    for dst in [ROOT, GOOD] {
        let reply_to = Some(Handle(300));
        tree.say(&Header { dst, reply_to, ..header(Kind::Call, Handle::CALL) }, b"call");
        let (answer, payload) = tree.hear();
        let id = |header: &Header| (header.kind, header.src, header.auth, header.handle);
        assert_eq!(id(&answer), (Kind::Dead, dst, dst, Handle(300)));
        assert_eq!(death_in(&payload), Death::of(Cause::Refused).at(dst));
    }
}

#[test]
fn a_handle_takes_its_own_kind_alone() {
    let mut tree = tree();
    let (data, data_inbox) = tree.receiver();
    let (answer, answer_inbox) = tree.pending(BAD);
    let calls = Arc::new(Inbox::default());
    tree.root.listen(Handle::CALL, Kind::Call, policy::anyone, calls.clone()).unwrap();
    let all = [Kind::Call, Kind::Data, Kind::Reply, Kind::Control];
    for (handle, own) in [(data, Kind::Data), (answer, Kind::Reply), (Handle::CALL, Kind::Call)] {
        for kind in all.into_iter().filter(|kind| *kind != own) {
            tree.say(&header(kind, handle), b"confused");
        }
    }
    tree.say(&header(Kind::Dead, Handle::CALL), &encoded(&|w| Death::of(Cause::Exited).encode(w)));
    tree.settle();
    assert!(data_inbox.is_empty() && answer_inbox.is_empty() && calls.is_empty());
    tree.say(&header(Kind::Reply, answer), b"answer");
    assert_eq!(answer_inbox.data(), b"answer");
}

#[test]
fn only_who_was_asked_answers_and_only_once() {
    let mut tree = tree();
    let (handle, inbox) = tree.pending(GOOD);
    let death = encoded(&|w| Death::of(Cause::Exited).encode(w));
    tree.say(&header(Kind::Reply, handle), b"not yours");
    tree.say(&header(Kind::Dead, handle), &death);
    tree.settle();
    assert!(inbox.is_empty());
    let (kind, dst, auth, reply_to) = (Kind::Reply, ROOT, GOOD, None);
    for _ in 0..2 {
        let payload = FrameBuf::encode(None, |w| w.put(b"mine")).unwrap();
        tree.good.send(&Outgoing { kind, dst, auth, handle, reply_to }, payload).unwrap();
    }
    assert_eq!(inbox.data(), b"mine");
    tree.others_are_well();
    assert!(inbox.is_empty());
}

#[test]
fn data_to_an_unknown_handle_ends_its_senders_room() {
    let mut tree = tree();
    tree.say(&header(Kind::Data, Handle(1 << 30)), b"guess");
    let (grant, payload) = tree.hear();
    assert_eq!((grant.kind, grant.handle, payload[0]), (Kind::Grant, Handle(1 << 30), 0));
    assert_eq!(death_in(&payload[1..]).cause, Cause::ReceiverClosed);
}

#[test]
fn what_leads_nowhere_is_answered_in_the_name_of_the_destination() {
    let mut tree = tree();
    for dst in [ContextId(105), ContextId(4000)] {
        let call = Header { dst, reply_to: Some(Handle(9)), ..header(Kind::Call, Handle::CALL) };
        tree.say(&call, b"");
        let (answer, payload) = tree.hear();
        assert_eq!((answer.kind, answer.src, answer.auth), (Kind::Dead, dst, dst));
        assert_eq!(death_in(&payload), Death::of(Cause::NoRoute).at(dst));
    }
    tree.say(&Header { dst: ContextId(4000), ..header(Kind::Dead, Handle(9)) }, b"");
    tree.say(&Header { dst: ContextId(4000), ..header(Kind::Call, Handle(9)) }, b"");
    tree.settle();
    assert!(tree.arrived.is_empty());
}

#[test]
fn garbage_ends_the_link_and_every_wait_for_it_at_once() {
    let mut tree = tree();
    let (_, pending) = tree.pending(BAD);
    let (_, behind) = tree.pending(ContextId(100));
    let (_, data) = tree.receiver();
    let add = header(Kind::Control, Handle::ADD_ROUTE);
    tree.say(&add, &encoded(&|w| ContextId(100).encode(w)));
    tree.bad.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    for (inbox, id) in [(pending, BAD), (data, BAD), (behind, ContextId(100))] {
        let death = inbox.next().unwrap_err();
        assert_eq!((death.cause, death.context), (Cause::Protocol, Some(id)));
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
    assert_eq!(pending.next().unwrap_err(), Death::of(Cause::Disconnected).at(BAD));
    tree.others_are_well();
}

#[test]
fn a_message_beyond_the_limit_is_refused_by_its_first_fragment() {
    let mut tree = tree();
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
fn a_route_outside_of_the_lease_or_told_by_another_ends_the_link() {
    let add = header(Kind::Control, Handle::ADD_ROUTE);
    let told_by = |src| Header { src: ContextId(src), auth: ContextId(src), ..add };
    for (header, id) in [(add, 50), (add, 110), (add, 0), (add, 2), (told_by(100), 101)] {
        let mut tree = tree();
        tree.say(&header, &encoded(&|w| ContextId(id).encode(w)));
        tree.is_cut_off();
    }
    let mut tree = tree();
    tree.say(&add, b"\xff");
    tree.is_cut_off();
}

#[test]
fn the_end_of_anothers_context_is_not_believed() {
    let mut tree = tree();
    let (_, pending) = tree.pending(GOOD);
    let del = header(Kind::Control, Handle::DEL_ROUTE);
    for id in [GOOD, ROOT, ContextId(50), ContextId(105)] {
        tree.say(
            &del,
            &encoded(&|w| {
                id.encode(w);
                Death::of(Cause::Exited).encode(w);
            }),
        );
    }
    tree.settle();
    assert!(pending.is_empty());
    tree.others_are_well();
}

#[test]
fn ids_are_leased_on_request_and_never_twice() {
    let mut tree = tree();
    let wanted = header(Kind::Control, Handle::ALLOCATE_ID);
    let wanted = Header { reply_to: Some(Handle(300)), ..wanted };
    let mut end = 0;
    for count in [1, 10, u64::MAX] {
        tree.say(&wanted, &encoded(&|w| w.put_varint(count)));
        let (answer, payload) = tree.hear();
        assert_eq!((answer.kind, answer.handle), (Kind::Reply, Handle(300)));
        let mut r = Reader::new(&payload, None);
        let (first, given) = (u32::decode(&mut r).unwrap(), u32::decode(&mut r).unwrap());
        assert!(end <= first && u64::from(given) <= count && given <= 1024);
        end = first + given;
        // They are its own from now on.
        let src = ContextId(end - 1);
        let call =
            Header { src, auth: src, reply_to: Some(Handle(8)), ..header(Kind::Call, Handle(9)) };
        tree.say(&call, b"");
        tree.say(&Header { src: BAD, auth: BAD, ..call }, b"");
        assert_eq!(tree.hear().0.handle, Handle(8));
    }
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
