//! Images that come from the parent: two contexts joined in one process, and a child that means no
//! good.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Cause, ConnectFailure, Death};
use crate::ids::{ContextId, Handle};
use crate::io::latch::Latch;
use crate::io::turn::Turn;
use crate::limits::{
    IMAGE_BYTES_MAX, IMAGE_NAME_BYTES_MAX, IMAGE_PIECE_BYTES, IMAGE_PIECES_MAX, IMAGE_TAKERS_MAX,
    IMAGES_COMING_MAX, IMAGES_HELD_MAX, OUTBOX_BYTES_MAX,
};
use crate::module::image::Image;
use crate::module::images::{Images, Outcome, Want};
use crate::module::respond::{self, Piece, Request};
use crate::module::source::{Given, Own};
use crate::route::node::{Node, Outgoing};
use crate::route::policy;
use crate::route::testing::{GOOD, Inbox, Tree, encoded, header, tree};
use crate::wire::codec::Reader;
use crate::wire::header::{Header, Kind, Lane};

const LIMIT: Duration = Duration::from_secs(10);
const NAME: &str = "linux-pdp11";

/// Bytes that gzip cannot have made, and that are nowhere the same.
fn content(count: u64) -> &'static [u8] {
    let mut state = 1_u32;
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(step).collect::<Vec<u8>>().leak()
}

/// The tree; the root has the image.
fn with_root(bytes: &'static [u8]) -> Tree {
    let tree = tree();
    let given = vec![Image::embedded(NAME, bytes), Image::embedded("linux-vax", b"x")];
    let images = Arc::new(Images::new(Some(Box::new(Given::new(given, Own::Unknown)))));
    respond::listen(&tree.root, &images).unwrap();
    tree
}

fn child_images() -> Arc<Images> {
    Arc::new(Images::new(None))
}

/// Where the outcome will be.
fn ask(node: &Arc<Node>, images: &Arc<Images>, target: &str) -> Arc<Latch<Outcome>> {
    let (told, images, at) = (Arc::new(Latch::new()), images.clone(), node.clone());
    let (tell, want) = (told.clone(), Want { target: target.to_owned(), gzip: false });
    let taker = Box::new(move |_: &mut Turn, outcome: &Outcome| tell.put(outcome.clone()).unwrap());
    node.broker().defer(move |turn| images.want(&at, turn, want, false, taker)).unwrap();
    told
}

#[track_caller]
fn told(latch: &Latch<Outcome>) -> Result<Vec<u8>, ConnectFailure> {
    let outcome = latch.get_timeout(LIMIT).unwrap();
    outcome.map(|parcel| parcel.content.to_vec().unwrap())
}

#[test]
fn an_image_of_any_length_comes_whole_and_stays() {
    let piece = IMAGE_PIECE_BYTES;
    for count in [0, 1, piece - 1, piece, piece + 1, 16 * piece, 17 * piece, 50 * piece + 7] {
        let bytes = content(count);
        let tree = with_root(bytes);
        let images = child_images();
        let askers = [(); 5].map(|()| ask(&tree.good, &images, NAME));
        for asker in askers {
            assert!(told(&asker).unwrap() == bytes, "{count}");
        }
        tree.root.broker().shutdown();
        assert!(told(&ask(&tree.good, &images, NAME)).unwrap() == bytes, "{count}");
    }
}

#[test]
fn what_the_parent_does_not_have_is_told_with_what_it_has_and_remembered() {
    let tree = with_root(b"");
    let images = child_images();
    for _ in 0..2 {
        let failure = told(&ask(&tree.good, &images, "linux-m68k")).unwrap_err();
        let (target, available) = ("linux-m68k".to_owned(), format!("{NAME} linux-vax"));
        assert_eq!(failure, ConnectFailure::NoImage { target, available });
        // The second time there is nobody to ask.
        tree.root.broker().shutdown();
    }
}

#[test]
fn absences_are_forgotten_when_there_are_too_many_and_images_never() {
    let bytes = content(10);
    let tree = with_root(bytes);
    let images = child_images();
    assert!(told(&ask(&tree.good, &images, NAME)).unwrap() == bytes);
    let absent: Vec<String> = (0..IMAGES_HELD_MAX).map(|i| format!("linux-{i}")).collect();
    for name in &absent {
        assert!(told(&ask(&tree.good, &images, name)).is_err());
    }
    tree.root.broker().shutdown();
    tree.root.broker().join();
    // An agent ends with its parent; this one must have heard of that before it asks again.
    let (auth, handle) = (tree.good.id(), Handle::GET_IMAGE);
    let (kind, dst) = (Kind::Control, ContextId::MASTER);
    let out = Outgoing { kind, dst, auth, handle, reply_to: None };
    while tree.good.tell(&out, Lane::Quick, &|_| ()) {
        std::thread::yield_now();
    }
    let [first, second] = [0, 1].map(|i| told(&ask(&tree.good, &images, &absent[i])).unwrap_err());
    assert!(!matches!(first, ConnectFailure::NoImage { .. }), "{first:?}");
    assert!(matches!(second, ConnectFailure::NoImage { .. }), "{second:?}");
    assert!(told(&ask(&tree.good, &images, NAME)).unwrap() == bytes);
}

#[test]
fn a_crowd_that_waits_has_a_limit() {
    let tree = tree();
    let silent = Arc::new(Inbox::default());
    tree.root.listen(Handle::GET_IMAGE, Kind::Control, policy::anyone, silent).unwrap();
    let images = child_images();
    let names: Vec<String> = (0..IMAGES_COMING_MAX).map(|i| format!("linux-{i}")).collect();
    let _first: Vec<_> = names.iter().map(|name| ask(&tree.good, &images, name)).collect();
    let more = told(&ask(&tree.good, &images, NAME)).unwrap_err();
    assert!(matches!(more, ConnectFailure::ImageUnusable(_)), "{more:?}");
    let (at, all, target) = (tree.good.clone(), images.clone(), names[0].clone());
    let queue = move |turn: &mut Turn| {
        for _ in 1..IMAGE_TAKERS_MAX {
            let want = Want { target: target.clone(), gzip: false };
            all.want(&at, turn, want, false, Box::new(|_, _| ()));
        }
    };
    tree.good.broker().defer(queue).unwrap();
    let more = told(&ask(&tree.good, &images, &names[0])).unwrap_err();
    assert!(matches!(more, ConnectFailure::ImageUnusable(_)), "{more:?}");
}

#[test]
fn the_end_of_the_parent_ends_the_wait() {
    let tree = tree();
    let silent = Arc::new(Inbox::default());
    let (handle, kind) = (Handle::GET_IMAGE, Kind::Control);
    tree.root.listen(handle, kind, policy::anyone, silent.clone()).unwrap();
    let images = child_images();
    let askers = [(); 3].map(|()| ask(&tree.good, &images, NAME));
    let request = silent.next().unwrap();
    assert!(request.data.len() < 20);
    // What a context in its parent's process does; an agent ends.
    let good = tree.good.clone();
    let close = move |turn: &mut Turn| good.close(turn, &Death::of(Cause::Disconnected));
    tree.good.broker().defer(close).unwrap();
    for asker in askers {
        let failure = told(&asker).unwrap_err();
        assert!(matches!(failure, ConnectFailure::ViaGone(_)), "{failure:?}");
    }
    assert!(silent.is_empty());
}

#[test]
fn a_parent_that_serves_no_images_is_told_at_once() {
    let tree = tree();
    let failure = told(&ask(&tree.good, &child_images(), NAME)).unwrap_err();
    let expected = Death::of(Cause::NoHandle).at(ContextId::MASTER);
    assert_eq!(failure, ConnectFailure::ViaGone(expected));
}

/// What a bad child says to ask for this.
fn request(target: &str, at: u64) -> Vec<u8> {
    let want = Want { target: target.to_owned(), gzip: false };
    encoded(&|w| Request { want: want.clone(), at }.put(w))
}

fn asking(answer: u32) -> Header {
    Header { reply_to: Some(Handle(answer)), ..header(Kind::Control, Handle::GET_IMAGE) }
}

#[test]
fn a_hostile_child_gets_what_has_a_name_and_nothing_else() {
    let bytes = content(100_000);
    let mut tree = with_root(bytes);
    let long = "n".repeat(IMAGE_NAME_BYTES_MAX + 1);
    let names = ["", "/etc/passwd", "../../etc/passwd", "linux-x86_64/../linux-pdp11", &long];
    let mut bad: Vec<_> = names.iter().map(|name| request(name, 0)).collect();
    bad.extend([
        Vec::new(),
        vec![0xff; 3],
        vec![1, 0xff, 0, 0],
        [request(NAME, 0), vec![0]].concat(),
    ]);
    for (payload, answer) in bad.iter().zip(300..) {
        tree.say(&asking(answer), payload);
        let (header, answer) = tree.hear();
        let answer = Piece::take(&mut Reader::new(&answer, None)).unwrap();
        assert_eq!(header.kind, Kind::Reply);
        assert!(answer.is_err(), "{payload:?}");
    }
    for at in [99_990, 100_000, u64::MAX] {
        tree.say(&asking(400), &request(NAME, at));
        let (_, answer) = tree.hear();
        let piece = Piece::take(&mut Reader::new(&answer, None)).unwrap().unwrap();
        assert_eq!((piece.total, piece.bytes), (100_000, &bytes[at.min(100_000) as usize..]));
    }
    tree.others_are_well();
}

#[test]
fn only_direct_children_get_images() {
    let mut tree = with_root(b"image");
    let below = crate::ids::ContextId(105);
    for header in [
        Header { auth: below, ..asking(300) },
        Header { src: below, auth: below, ..asking(301) },
        Header { src: GOOD, auth: GOOD, ..asking(302) },
    ] {
        tree.say(&header, &request(NAME, 0));
    }
    let (_, answer) = tree.hear();
    assert!(Piece::take(&mut Reader::new(&answer, None)).unwrap().is_err());
    tree.settle();
    let given = |(_, payload): &(Header, Vec<u8>)| payload.ends_with(b"image");
    assert!(!tree.arrived.iter().any(given));
}

#[test]
fn a_child_that_asks_and_does_not_read_is_cut_off() {
    let mut tree = with_root(content(IMAGE_PIECE_BYTES));
    let request = request(NAME, 0);
    let enough = OUTBOX_BYTES_MAX as u64 / IMAGE_PIECE_BYTES + 200;
    for answer in 0..enough as u32 {
        let header = asking(300 + answer);
        // Its end comes before the last.
        let _ = std::io::Write::write_all(
            &mut tree.bad,
            crate::wire::frame::Frame::new(&header, &request).as_bytes(),
        );
    }
    let why = tree.bad_ended.get_timeout(LIMIT).unwrap();
    assert_eq!(why.cause, Cause::DoesNotRead);
    tree.others_are_well();
}

/// A parent that is played by hand, and a child that wants an image of it.
struct Played {
    tree: Tree,
    images: Arc<Images>,
    asked: Arc<Inbox>,
    outcome: Arc<Latch<Outcome>>,
}

impl Played {
    fn new() -> Played {
        let (tree, asked) = (tree(), Arc::new(Inbox::default()));
        let (handle, kind) = (Handle::GET_IMAGE, Kind::Control);
        tree.root.listen(handle, kind, policy::anyone, asked.clone()).unwrap();
        let images = child_images();
        let outcome = ask(&tree.good, &images, NAME);
        Played { tree, images, asked, outcome }
    }

    /// Answers the next request.
    #[track_caller]
    fn answer(&self, total: u64, bytes: &[u8]) {
        let (handle, auth) = (self.asked.next().unwrap().reply_to.unwrap(), self.tree.root.id());
        let out = Outgoing { kind: Kind::Reply, dst: GOOD, auth, handle, reply_to: None };
        let piece = Piece { gzipped: true, total, bytes };
        assert!(self.tree.root.tell(&out, Lane::Bulk, &|w| piece.put(w)));
    }
}

#[test]
fn few_pieces_are_asked_for_at_a_time() {
    let played = Played::new();
    let piece = content(IMAGE_PIECE_BYTES);
    played.answer(100 * IMAGE_PIECE_BYTES, piece);
    for _ in 0..IMAGE_PIECES_MAX - 1 {
        played.asked.next().unwrap();
    }
    // What the child says now comes behind all that it asked for.
    played.answer(100 * IMAGE_PIECE_BYTES, b"");
    played.tree.others_are_well();
    assert!(played.asked.is_empty());
    let failure = told(&played.outcome).unwrap_err();
    assert!(matches!(failure, ConnectFailure::Protocol(_)), "{failure:?}");
}

#[test]
fn a_piece_that_was_not_asked_for_ends_the_wait() {
    for (total, bytes) in [
        (IMAGE_BYTES_MAX + 1, content(IMAGE_PIECE_BYTES)),
        (u64::MAX, &[]),
        (10, &[0; 9]),
        (10, &[0; 11]),
        (0, &[0]),
        (IMAGE_PIECE_BYTES + 1, &[0]),
    ] {
        let played = Played::new();
        played.answer(total, bytes);
        let failure = told(&played.outcome).unwrap_err();
        let expected = match IMAGE_BYTES_MAX < total {
            true => matches!(failure, ConnectFailure::ImageUnusable(_)),
            false => matches!(failure, ConnectFailure::Protocol(_)),
        };
        assert!(expected, "{total}: {failure:?}");
    }
}

#[test]
fn what_went_wrong_once_is_tried_again() {
    let played = Played::new();
    played.answer(10, &[0; 9]);
    told(&played.outcome).unwrap_err();
    let again = ask(&played.tree.good, &played.images, NAME);
    played.answer(1, b"x");
    assert_eq!(told(&again).unwrap(), b"x");
}
