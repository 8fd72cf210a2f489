//! What a hop can do to who asks it to connect: a raw end poses as one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::connect::child::Connected;
use crate::connect::recipe::Recipe;
use crate::connect::request::{Answerer, Refusal, Taker, Ticket, ask};
use crate::connect::service;
use crate::error::ConnectFailure;
use crate::ids::{ContextId, Handle};
use crate::io::latch::Latch;
use crate::limits::NAME_BYTES_MAX;
use crate::module::images::Images;
use crate::route::testing::{BAD, GOOD, ROOT, Tree, encoded, header, tree};
use crate::wire::codec::{Decode, Encode, Reader};
use crate::wire::header::{Header, Kind};

type Outcome = Arc<Latch<Result<Connected, Refusal>>>;

/// An attempt that the hop was asked for: where its outcome goes, and its questions.
struct Asked {
    tree: Tree,
    ticket: Ticket,
    outcome: Outcome,
    answers: Handle,
    questions: Handle,
}

fn asked(answerer: Answerer) -> Asked {
    asked_of(BAD, &[], answerer)
}

/// One that this context was asked for, the bad child or behind it. Those that live there and who
/// started them were announced before.
fn asked_of(via: ContextId, announced: &[(ContextId, ContextId)], answerer: Answerer) -> Asked {
    let (mut tree, outcome) = (tree(), Outcome::default());
    for known in announced {
        let add = header(Kind::Control, Handle::ADD_ROUTE);
        tree.say(&add, &encoded(&|w| known.encode(w)));
    }
    tree.settle();
    let told = outcome.clone();
    let taker: Taker = Box::new(move |_, outcome| told.put(outcome).ok().unwrap());
    let ticket = ask(&tree.root, via, &Recipe::default(), Some(answerer), taker).ok().unwrap();
    let (header, payload) = tree.hear();
    let mut r = Reader::new(&payload, None);
    assert_eq!(r.take_u8(), Ok(0));
    let questions = Handle(u32::decode(&mut r).unwrap());
    Asked { tree, ticket, outcome, answers: header.reply_to.unwrap(), questions }
}

impl Asked {
    fn ask(&mut self) {
        let question = encoded(&|w| w.put_bytes(b"Password for all:"));
        self.tree.say(&header(Kind::Reply, self.questions), &question);
        self.tree.settle();
    }
}

#[test]
fn who_has_given_up_is_asked_nothing_more() {
    for gives_up in [false, true] {
        let count = Arc::new(AtomicUsize::new(0));
        let (counted, answered) = (count.clone(), Arc::new(Latch::new()));
        let tell = answered.clone();
        let mut asked = asked(Arc::new(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            tell.put(()).unwrap();
            None
        }));
        if gives_up {
            asked.ticket.cancel();
        }
        asked.ask();
        match gives_up {
            true => assert!(answered.get_timeout(std::time::Duration::from_millis(100)).is_err()),
            false => answered.get().unwrap(),
        }
        assert_eq!(count.load(Ordering::SeqCst), usize::from(!gives_up));
    }
}

/// Whether the root believes this context that it has started that one.
#[track_caller]
fn is_believed(by: ContextId, id: ContextId, announced: &[(ContextId, ContextId)]) -> bool {
    let mut asked = asked_of(by, announced, Arc::new(|_| None));
    let connected = Connected { id, pushed_bytes: 1, elapsed_us: 1 };
    let outcome = encoded(&|w| {
        w.put_u8(0);
        connected.encode(w);
    });
    let answer = Header { src: by, auth: by, ..header(Kind::Reply, asked.answers) };
    asked.tree.say(&answer, &outcome);
    let told = asked.outcome.get().unwrap();
    asked.tree.others_are_well();
    match told {
        Ok(told) => told == connected,
        Err(Refusal::Failed(error)) => {
            assert!(matches!(error.failure, ConnectFailure::Protocol(_)), "{error}");
            false
        }
        Err(Refusal::Gone(death)) => panic!("{death:?}"),
    }
}

#[test]
fn a_hop_cannot_pass_others_off_as_what_it_has_started() {
    let new = ContextId(100);
    for (id, is_its_own) in [(ROOT, false), (BAD, false), (GOOD, false), (new, true)] {
        assert_eq!(is_believed(BAD, id, &[(new, BAD)]), is_its_own, "{id}");
    }
    assert!(!is_believed(BAD, new, &[]), "its announcement comes first");
}

#[test]
fn a_hop_further_down_cannot_name_those_beside_it() {
    let [hop, beside, new, below_new] = [100, 101, 102, 103].map(ContextId);
    let announced = [(hop, BAD), (beside, BAD), (new, hop), (below_new, new)];
    for (id, is_its_own) in
        [(beside, false), (BAD, false), (hop, false), (below_new, false), (new, true)]
    {
        assert_eq!(is_believed(hop, id, &announced), is_its_own, "{id}");
    }
}

#[test]
fn a_name_that_is_too_long_starts_nothing() {
    let tree = tree();
    service::listen(&tree.root, Arc::new(Images::new(None))).unwrap();
    let outcome = Outcome::default();
    for bytes in [NAME_BYTES_MAX, NAME_BYTES_MAX + 1] {
        let told = outcome.clone();
        let taker: Taker = Box::new(move |_, outcome| told.put(outcome).ok().unwrap());
        let recipe = Recipe { name: "n".repeat(bytes), ..Recipe::default() };
        let _ticket = ask(&tree.root, ROOT, &recipe, None, taker).ok().unwrap();
        let Err(Refusal::Failed(error)) = outcome.get().unwrap() else { panic!("started") };
        let is_read = !matches!(error.failure, ConnectFailure::Protocol(_));
        assert_eq!(is_read, bytes <= NAME_BYTES_MAX, "{error}");
    }
}
