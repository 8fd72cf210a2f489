//! What a hostile neighbour can do to the others by what it says: forge, guess, and claim what is
//! not its own.

use std::sync::Arc;

use super::node::Outgoing;
use super::policy;
use super::testing::{BAD, GOOD, Inbox, LEASE, ROOT, Tree, death_in, encoded, header, tree};
use crate::error::{Cause, Death};
use crate::ids::{ContextId, Handle};
use crate::limits::BAD_HANDLES_MAX;
use crate::wire::codec::{Decode, Encode, Reader};
use crate::wire::frame::FrameBuf;
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
fn a_route_outside_of_the_lease_or_told_by_another_ends_the_link() {
    let add = header(Kind::Control, Handle::ADD_ROUTE);
    let told_by = |src| Header { src: ContextId(src), auth: ContextId(src), ..add };
    for (header, id) in [(add, 50), (add, 110), (add, 0), (add, 2), (told_by(100), 101)] {
        let mut tree = tree();
        tree.say(&header, &encoded(&|w| (ContextId(id), BAD).encode(w)));
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
