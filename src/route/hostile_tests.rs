//! What a hostile neighbour can do to the others by what it says: forge, guess, and claim what is
//! not its own.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::identity::Identity;
use super::lease::{Lease, ids_max};
use super::node::Outgoing;
use super::peer::End;
use super::policy;
use super::terms::Terms;
use super::testing::{
    BAD, GOOD, Inbox, LEASE, ROOT, Tree, attach, death_in, encoded, header, tree, tree_with,
};
use crate::error::{Cause, Death};
use crate::ids::{ContextId, Handle};
use crate::io::side::Side;
use crate::limits::BAD_HANDLES_MAX;
use crate::sys::pipe;
use crate::wire::codec::{Decode, Encode, Reader};
use crate::wire::frame::{Frame, FrameBuf};
use crate::wire::framer::Framer;
use crate::wire::header::{Header, Kind};

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

/// A child of which this may come does not last.
#[track_caller]
fn is_cut_off_for(said: &dyn Fn(u32, &mut Tree)) {
    let mut tree = tree();
    for i in 0..BAD_HANDLES_MAX {
        said(i, &mut tree);
    }
    tree.settle();
    said(BAD_HANDLES_MAX, &mut tree);
    tree.is_cut_off();
}

#[test]
fn who_forges_again_and_again_is_cut_off() {
    let forged = Header { src: GOOD, ..header(Kind::Data, Handle(1)) };
    is_cut_off_for(&|_, tree| tree.say(&forged, b""));
}

#[test]
fn who_guesses_handles_again_and_again_is_cut_off() {
    let death = encoded(&|w| Death::of(Cause::SenderClosed).encode(w));
    for kind in [Kind::Data, Kind::Call, Kind::Reply, Kind::Control] {
        is_cut_off_for(&|i, tree| tree.say(&header(kind, Handle::random(i)), b""));
    }
    is_cut_off_for(&|i, tree| tree.say(&header(Kind::Dead, Handle::random(i)), &death));
    // Answers to what nobody asked, and what is no answer where answers go.
    is_cut_off_for(&|i, tree| tree.say(&header(Kind::Reply, Handle(300 + i)), b""));
    is_cut_off_for(&|_, tree| tree.say(&header(Kind::Call, Handle::FIRST_DYNAMIC), b""));
}

#[test]
fn what_comes_late_cuts_nobody_off() {
    let mut tree = tree();
    let given_up = tree.pending(BAD).0;
    let (closed, _) = tree.receiver();
    let elsewhere = Handle::well_known(7);
    for handle in [given_up, closed] {
        tree.root.unlisten(handle);
    }
    let death = encoded(&|w| Death::of(Cause::SenderClosed).encode(w));
    for _ in 0..2 * BAD_HANDLES_MAX {
        tree.say(&header(Kind::Reply, given_up), b"");
        tree.say(&header(Kind::Dead, given_up), &death);
        tree.say(&header(Kind::Data, closed), b"");
        tree.say(&header(Kind::Dead, closed), &death);
        tree.say(&header(Kind::Grant, closed), &encoded(&|w| w.put_varint(1)));
        // Nobody is there; but anybody may ask.
        tree.say(&header(Kind::Call, Handle::CALL), b"");
        tree.say(&header(Kind::Data, elsewhere), b"");
        tree.settle();
    }
    assert!(tree.bad_ended.is_empty());
    tree.others_are_well();
}

#[test]
fn guesses_from_behind_a_child_are_not_its_fault() {
    let mut tree = tree();
    let behind = ContextId(LEASE.first);
    for i in 0..2 * BAD_HANDLES_MAX {
        let guess = header(Kind::Data, Handle::random(i));
        tree.say(&Header { src: behind, auth: behind, ..guess }, b"");
        tree.settle();
    }
    assert!(tree.bad_ended.is_empty());
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
        assert_eq!(death_in(&payload), Death::of(Cause::NoRoute).at(dst).seen_by(ROOT));
    }
    tree.say(&Header { dst: ContextId(4000), ..header(Kind::Dead, Handle(9)) }, b"");
    tree.say(&Header { dst: ContextId(4000), ..header(Kind::Call, Handle(9)) }, b"");
    tree.settle();
    assert!(tree.arrived.is_empty());
}

#[test]
fn a_route_outside_of_the_lease_ends_the_link() {
    let add = header(Kind::Control, Handle::ADD_ROUTE);
    for id in [50, 110, 0, 2] {
        let mut tree = tree();
        tree.say(&add, &encoded(&|w| (ContextId(id), BAD).encode(w)));
        tree.is_cut_off();
    }
    let mut tree = tree();
    tree.say(&add, b"\xff");
    tree.is_cut_off();
}

#[test]
fn what_only_neighbours_may_say_ends_no_link_that_it_came_by_from_further_away() {
    let mut tree = tree();
    let (_, pending) = tree.pending(ContextId(100));
    use Handle as H;
    for handle in [H::ADD_ROUTE, H::DEL_ROUTE, H::ALLOCATE_ID, H::DETACH] {
        let word = header(Kind::Control, handle);
        // To a sibling, whose neighbour is the root; and from behind.
        let word = Header { reply_to: Some(Handle(300)), ..word };
        let payload = encoded(&|w| {
            ContextId(100).encode(w);
            Death::of(Cause::Exited).encode(w);
        });
        tree.say(&Header { dst: GOOD, ..word }, &payload);
        assert_eq!(death_in(&tree.hear().1), Death::of(Cause::Refused).at(GOOD));
        tree.say(&Header { src: ContextId(105), auth: ContextId(105), ..word }, &payload);
        tree.say(&Header { auth: ContextId(105), ..word }, &payload);
        assert_eq!(death_in(&tree.hear().1), Death::of(Cause::Refused).at(ROOT));
    }
    tree.settle();
    assert!(pending.is_empty());
    tree.others_are_well();
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
        // Few at a time would make for many leases.
        assert!(end <= first && u64::from(given) <= count.max(64) && (64..=1024).contains(&given));
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
fn a_child_of_a_hop_that_asks_for_all_ids_at_once_gets_no_more_than_its_share() {
    let tree = tree();
    let (side, raw) = pipe::socketpair().unwrap();
    attach(&tree.good, End::Child(ContextId(50), Lease::default()), Side::new(side));
    let mut raw = UnixStream::from(raw);
    raw.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let wanted = Header {
        dst: GOOD,
        src: ContextId(50),
        auth: ContextId(50),
        reply_to: Some(Handle(300)),
        ..header(Kind::Control, Handle::ALLOCATE_ID)
    };
    // All are asked of the root before it has answered one. It has more than that for its child.
    let frames: Vec<_> = [0, 1024].map(|count| encoded(&|w| w.put_varint(count))).into();
    let asks = ids_max(1) as usize / 1024 * 5 / 4;
    for payload in frames.iter().chain(std::iter::repeat_n(&frames[1], asks - 2)) {
        raw.write_all(Frame::new(&wanted, payload).as_bytes()).unwrap();
    }
    let (mut given, mut answers, mut framer) = (0, 0, Framer::new());
    while answers < asks {
        let mut bytes = [0; 4096];
        let count = raw.read(&mut bytes).unwrap();
        assert_ne!(count, 0);
        let mut frames = framer.feed(&bytes[..count]);
        while let Some(frame) = frames.next() {
            let frame = frame.unwrap();
            assert_eq!((frame.header.kind, frame.header.handle), (Kind::Reply, Handle(300)));
            let mut r = Reader::new(frame.payload, None);
            u32::decode(&mut r).unwrap();
            given += u64::from(u32::decode(&mut r).unwrap());
            answers += 1;
        }
    }
    assert!(ids_max(1) / 2 < given && given <= ids_max(1), "{given}");
    tree.others_are_well();
}

#[test]
fn nothing_passes_between_the_children_of_a_unidirectional_context() {
    let mut tree = tree_with(true);
    let inbox = Arc::new(Inbox::default());
    let handle = tree.good.listen_for_data(inbox.clone()).unwrap();
    let reply_to = Some(Handle(300));
    tree.say(&Header { dst: GOOD, reply_to, ..header(Kind::Call, Handle::CALL) }, b"");
    tree.say(&Header { dst: GOOD, ..header(Kind::Data, handle) }, b"");
    tree.say(&Header { dst: GOOD, reply_to, ..header(Kind::Control, Handle::CONNECT) }, b"");
    let why = Death::of(Cause::Unidirectional).at(GOOD).seen_by(ROOT);
    for (kind, handle) in
        [(Kind::Dead, Handle(300)), (Kind::Grant, handle), (Kind::Dead, Handle(300))]
    {
        let (answer, payload) = tree.hear();
        let id = (answer.kind, answer.src, answer.auth, answer.handle);
        assert_eq!(id, (kind, GOOD, GOOD, handle));
        let grant = usize::from(kind == Kind::Grant);
        assert_eq!(death_in(&payload[grant..]), why);
    }
    // What wants no answer gets none; and who talks to the root is none the wiser.
    let death = encoded(&|w| Death::of(Cause::Exited).encode(w));
    tree.say(&Header { dst: GOOD, ..header(Kind::Dead, Handle(300)) }, &death);
    tree.say(&Header { dst: GOOD, ..header(Kind::Reply, Handle(300)) }, b"");
    tree.settle();
    assert!(tree.arrived.is_empty() && inbox.is_empty());
    let (handle, inbox) = tree.receiver();
    tree.say(&header(Kind::Data, handle), b"to the root");
    assert_eq!(inbox.data(), b"to the root");
    tree.others_are_well();
}

#[test]
fn a_unidirectional_context_lets_those_below_talk_to_those_above_alone() {
    let master = Identity { unidirectional: true, ..Identity::of_master() };
    let id = ContextId;
    let middle = master.of_child(id(3), String::new(), &Terms::default());
    let below = middle.of_child(id(7), String::new(), &Terms::default());
    assert!(below.unidirectional);
    let (child, uncle) = (id(8), id(2));
    for (from_child, src, dst, passes) in [
        (true, child, ROOT, true),
        (true, child, id(3), true),
        (true, child, uncle, false),
        (true, child, id(9), false),
        (false, ROOT, child, true),
        (false, id(3), child, true),
        (false, uncle, child, false),
        (false, child, uncle, false),
    ] {
        assert_eq!(below.lets_pass(from_child, src, dst), passes, "{from_child} {src} {dst}");
        let free = Identity { unidirectional: false, ..below.clone() };
        assert!(free.lets_pass(from_child, src, dst));
    }
}

#[test]
fn only_the_master_loosens_what_a_child_inherits() {
    let strict = |unidirectional, auth| {
        let mut terms = Terms { unidirectional, ..Terms::default() };
        terms.ask_under(auth);
        terms
    };
    for (own, asked, auth, expected) in [
        (true, None, ROOT, true),
        (true, Some(false), ROOT, false),
        (true, Some(false), GOOD, true),
        (true, Some(true), GOOD, true),
        (false, None, GOOD, false),
        (false, Some(false), GOOD, false),
        (false, Some(true), GOOD, true),
    ] {
        let identity = Identity { unidirectional: own, ..Identity::of_master() };
        let child = identity.of_child(GOOD, String::new(), &strict(asked, auth));
        assert_eq!(child.unidirectional, expected, "{own} {asked:?} {auth}");
    }
}

#[test]
fn a_granted_authority_is_noticed_when_its_context_ends() {
    let mut tree = tree();
    tree.root.change_grant(BAD, true);
    let (probe, payload) = tree.hear();
    assert_eq!((probe.kind, probe.handle, payload.len()), (Kind::Control, Handle::HOLD, 0));
    let calls = Arc::new(Inbox::default());
    tree.root
        .listen(Handle::CALL, Kind::Call, policy::has_parent_authority, calls.clone())
        .unwrap();
    tree.say(&header(Kind::Call, Handle::CALL), b"granted");
    assert_eq!(calls.data(), b"granted");
    // It has that for itself, and not for those behind it.
    let behind = ContextId(LEASE.first);
    tree.say(&Header { auth: behind, ..header(Kind::Call, Handle::CALL) }, b"");
    tree.settle();
    assert!(calls.is_empty());
    tree.root.change_grant(BAD, false);
    tree.say(&header(Kind::Call, Handle::CALL), b"");
    tree.settle();
    assert!(calls.is_empty());
    tree.root.change_grant(BAD, true);
    assert!(tree.root.table().is_granted(BAD));
    tree.bad.shutdown(std::net::Shutdown::Both).unwrap();
    tree.bad_ended.get().unwrap();
    assert!(!tree.root.table().is_granted(BAD));
}

#[test]
fn a_late_answer_to_what_was_given_up_is_none_of_a_thousand() {
    let mut tree = tree();
    for _ in 0..100 {
        let handles: Vec<_> = (0..1000).map(|_| tree.pending(BAD).0).collect();
        for handle in &handles {
            tree.root.unlisten(*handle);
        }
        for handle in handles {
            tree.say(&header(Kind::Reply, handle), b"late");
        }
        tree.settle();
    }
    assert!(tree.bad_ended.is_empty());
}
