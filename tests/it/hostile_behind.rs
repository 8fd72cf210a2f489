//! A hostile agent behind an honest hop: the hop refuses it, or the master does, and the hop and
//! what else is behind it go on.

use mitogen::{Context, stock};

use crate::support::hostile::{Attack, Evil, arguments};
use crate::support::scene::{GROWTH_MAX, Scene, go, scene};
use crate::support::wire::{self, CALL, CONTROL, DATA, Frame, Part, numbers};

pub const ATTACKS: &[(&str, Attack)] = &[
    ("forge from behind", forge),
    ("send bad fragments far", send_bad_fragments),
    ("guess far", guess_far),
    ("die for others", die_for_others),
];

/// An honest hop with an honest child and a hostile one.
pub fn behind(attack: &str, play: impl FnOnce(&Scene, &Context, &Context)) {
    scene(|scene| {
        let hop = scene.router.local().connect().unwrap();
        let sibling = scene.router.local().via(&hop).connect().unwrap();
        let evil = scene.hostile_via(&hop, attack);
        scene.grows_within(GROWTH_MAX, || play(scene, &evil, &sibling));
        for context in [&hop, &sibling] {
            context.call(stock::ping, ()).expect("who is honest is there");
        }
        let next = scene.router.local().via(&hop).connect().expect("the hop has room for more");
        next.call(stock::ping, ()).unwrap();
    });
}

fn forge(evil: &mut Evil, call: &Frame) {
    let sibling = arguments(call)[0];
    let ids = [0, evil.parents[0], sibling, 55_555];
    let frames = (0..1200usize).map(|n| {
        let (dst, src) = ([0, sibling][n % 2], ids[n % 4]);
        Frame { src, auth: [src, evil.id][n / 4 % 2], ..evil.frame_to(dst, CALL, 1, b"") }
    });
    let frames: Vec<_> = frames.collect();
    evil.send(frames);
    evil.answer_number(call, 0);
}

#[test]
fn a_hop_refuses_what_is_forged_behind_it() {
    behind("forge from behind", |_, evil, sibling| {
        let error = evil.call(go, vec![sibling.context_id().0]).unwrap_err();
        assert!(matches!(error.kind(), mitogen::error::ErrorKind::Closed(_)), "{error}");
    });
}

fn send_bad_fragments(evil: &mut Evil, call: &Frame) {
    let next = Frame { part: Part::Next, ..evil.frame_to(0, CALL, 1, &[0; 100]) };
    evil.send((0..3000).map(|_| next.clone()));
    evil.answer_number(call, 0);
}

#[test]
fn a_hop_does_not_answer_for_the_fragments_of_others() {
    behind("send bad fragments far", |scene, evil, _| {
        // It may be cut off.
        let _ = evil.call(go, vec![]);
        scene.assert_logged("refused: malformed (source):");
    });
}

fn guess_far(evil: &mut Evil, call: &Frame) {
    let template = evil.frame_to(0, DATA, 0, b"");
    let handles = (0..3000u32).map(|n| n.wrapping_mul(2_654_435_761) | 1 << 30);
    evil.send(handles.map(|handle| Frame { handle, ..template.clone() }));
    evil.answer_number(call, 0);
}

#[test]
fn a_hop_does_not_answer_for_the_guesses_of_others() {
    behind("guess far", |_, evil, _| {
        // It may be cut off.
        let _ = evil.call(go, vec![]);
    });
}

fn die_for_others(evil: &mut Evil, call: &Frame) {
    for id in arguments(call) {
        let body = [wire::varint(id.into()), wire::death(5, Some(id))].concat();
        for dst in [evil.parents[0], 0] {
            let frame = evil.frame_to(dst, CONTROL, 3, &body);
            evil.send([frame]);
        }
        let stolen = evil.frame_to(0, CONTROL, 2, &numbers(&[id.into(), evil.id.into()]));
        let asked = Frame { reply_to: Some(300), ..evil.frame_to(0, CONTROL, 4, &[1]) };
        let leaves = Frame { reply_to: Some(301), ..evil.frame_to(0, CONTROL, 13, b"") };
        evil.send([stolen, asked, leaves]);
    }
    evil.answer_number(call, 0);
}

#[test]
fn a_hop_does_not_answer_for_what_only_neighbours_may_say() {
    behind("die for others", |scene, evil, sibling| {
        let ids = [sibling, &scene.honest].map(|context| context.context_id().0);
        // It may be cut off.
        let _ = evil.call(go, ids.to_vec());
        scene.assert_logged("refused: no neighbour's word (source, authority, handle):");
    });
}

#[test]
fn a_hop_is_not_cut_off_for_the_routes_of_another() {
    behind("announce", |_, evil, _| {
        // It may be cut off.
        let _ = evil.call(go, vec![80, 1]);
    });
}

#[test]
fn a_hop_keeps_ids_for_its_own_children() {
    behind("take ids", |_, evil, _| {
        evil.call(go, vec![300]).unwrap();
    });
}
