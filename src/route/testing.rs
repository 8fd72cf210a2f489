//! For tests of this floor: nodes in one process, joined by socketpairs, and a raw end that is
//! driven by hand-made frames.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::identity::Identity;
use super::lease::{Lease, Pool};
use super::node::{Node, Outgoing};
use super::peer::{End, Guardian, Peer};
use super::pending::Deliver;
use crate::error::{Cause, Death};
use crate::ids::{ContextId, Handle};
use crate::io::broker::Broker;
use crate::io::latch::Latch;
use crate::io::side::Side;
use crate::io::turn::{Key, Turn};
use crate::sys::pipe;
use crate::wire::codec::{Decode, Reader, Writer};
use crate::wire::frame::{Frame, FrameBuf};
use crate::wire::framer::Framer;
use crate::wire::header::{Header, Kind, Lane, Part};
use crate::wire::message::Message;

/// The master.
pub const ROOT: ContextId = ContextId(0);
/// A child that keeps the rules.
pub const GOOD: ContextId = ContextId(1);
/// The child that we are.
pub const BAD: ContextId = ContextId(2);
/// What the bad child may give out.
pub(super) const LEASE: Lease = Lease { first: 100, count: 10 };
const LIMIT: Duration = Duration::from_secs(10);

/// Keeps what arrives at a handle.
#[derive(Default)]
pub struct Inbox(Latch<Result<Message, Death>>);

impl Deliver for Inbox {
    fn message(&self, _: &mut Turn, message: Message) {
        self.0.put(Ok(message)).unwrap();
    }

    fn dead(&self, _: &mut Turn, _: ContextId, death: &Death) {
        self.0.put(Err(death.clone())).unwrap();
    }

    fn lost(&self, _: &mut Turn, _: ContextId, death: &Death) {
        self.0.put(Err(death.clone())).unwrap();
    }
}

impl Inbox {
    /// What has arrived, or does soon.
    #[track_caller]
    pub fn next(&self) -> Result<Message, Death> {
        self.0.get_timeout(LIMIT).unwrap()
    }

    /// The payload of what has arrived.
    #[track_caller]
    pub fn data(&self) -> Vec<u8> {
        self.next().unwrap().data
    }

    /// Whether nothing has arrived yet.
    pub fn is_empty(&self) -> bool {
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

pub(super) fn node(id: ContextId, parents: &[ContextId], unidirectional: bool) -> Arc<Node> {
    let (parents, name, message_bytes_max) = (parents.to_vec(), String::new(), 1 << 20);
    let rest = Identity::of_master();
    let identity = Identity { id, parents, name, message_bytes_max, unidirectional, ..rest };
    let pool = if identity.parents.is_empty() { Pool::of_master() } else { Pool::default() };
    Node::new(identity, pool, Broker::start().unwrap())
}

/// Makes a link out of `side`; what is returned tells its end.
pub(super) fn attach(node: &Arc<Node>, end: End, side: Side) -> Arc<Latch<Death>> {
    let (ended, own) = (Arc::new(Latch::new()), node.clone());
    let watch = Box::new(Watch(ended.clone()));
    let attached = node
        .broker()
        .defer_sync(move |turn| Peer::attach(&own, turn, end, side.clone(), side, watch).map(drop));
    attached.unwrap().unwrap();
    ended
}

/// A root, a good child, and a raw end in place of a bad one.
pub struct Tree {
    pub root: Arc<Node>,
    pub good: Arc<Node>,
    pub bad: UnixStream,
    pub bad_ended: Arc<Latch<Death>>,
    good_ended: Arc<Latch<Death>>,
    framer: Framer,
    pub arrived: Vec<(Header, Vec<u8>)>,
}

impl Drop for Tree {
    fn drop(&mut self) {
        for node in [&self.root, &self.good] {
            node.broker().shutdown();
            node.broker().join();
        }
    }
}

/// Connects them.
pub fn tree() -> Tree {
    tree_with(false)
}

/// Connects them; the root may be unidirectional.
pub fn tree_with(unidirectional: bool) -> Tree {
    let (root, good) = (node(ROOT, &[], unidirectional), node(GOOD, &[ROOT], unidirectional));
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
pub fn header(kind: Kind, handle: Handle) -> Header {
    let (lane, part, reply_to) = (Lane::Quick, Part::Whole, None);
    Header { kind, lane, part, dst: ROOT, src: BAD, auth: BAD, handle, reply_to }
}

impl Tree {
    /// Sends a frame as the bad child.
    pub fn say(&mut self, header: &Header, payload: &[u8]) {
        self.bad.write_all(Frame::new(header, payload).as_bytes()).unwrap();
    }

    /// The next frame that comes to the bad child.
    #[track_caller]
    pub fn hear(&mut self) -> (Header, Vec<u8>) {
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
    pub fn settle(&mut self) {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let mark = Handle(COUNT.fetch_add(1, Ordering::Relaxed) + (1 << 20));
        self.say(&Header { reply_to: Some(mark), ..header(Kind::Call, Handle(200)) }, b"");
        while self.hear().0.handle != mark {}
    }

    /// The root still serves the bad child's sibling, and the sibling is none the wiser.
    #[track_caller]
    pub fn others_are_well(&self) {
        let inbox = Arc::new(Inbox::default());
        let handle = self.root.listen_for_data(inbox.clone()).unwrap();
        let (kind, dst, auth, reply_to) = (Kind::Data, ROOT, GOOD, None);
        let payload = FrameBuf::encode(None, |w| w.put(b"well")).unwrap();
        self.good.send(&Outgoing { kind, dst, auth, handle, reply_to }, payload).unwrap();
        assert_eq!(inbox.data(), b"well");
        self.root.unlisten(handle);
        assert!(self.good_ended.is_empty());
    }

    /// The bad child's link ends, for breaking the protocol.
    #[track_caller]
    pub fn is_cut_off(&mut self) {
        let why = self.bad_ended.get_timeout(LIMIT).unwrap();
        assert_eq!(why.cause, Cause::Protocol, "{why:?}");
        self.others_are_well();
    }

    /// Something in the root that takes data.
    pub fn receiver(&self) -> (Handle, Arc<Inbox>) {
        let inbox = Arc::new(Inbox::default());
        (self.root.listen_for_data(inbox.clone()).unwrap(), inbox)
    }

    /// Something in the root that waits for an answer of this context.
    pub fn pending(&self, from: ContextId) -> (Handle, Arc<Inbox>) {
        let inbox = Arc::new(Inbox::default());
        (self.root.listen_for_answer(from, inbox.clone()).unwrap(), inbox)
    }
}

/// What a dead message says.
pub fn death_in(payload: &[u8]) -> Death {
    Death::decode(&mut Reader::new(payload, None)).unwrap()
}

/// A payload.
pub fn encoded(write: &dyn Fn(&mut Writer<'_>)) -> Vec<u8> {
    FrameBuf::encode(None, write).unwrap().payload().to_vec()
}
