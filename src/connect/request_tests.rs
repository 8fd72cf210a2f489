//! What a hop can do to who asks it to connect: a raw end poses as one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::connect::child::Connected;
use crate::connect::recipe::Recipe;
use crate::connect::request::{Answerer, Refusal, Taker, Ticket, ask};
use crate::error::ConnectFailure;
use crate::ids::{ContextId, Handle};
use crate::io::latch::Latch;
use crate::route::testing::{BAD, GOOD, ROOT, Tree, encoded, header, tree};
use crate::wire::codec::{Decode, Encode, Reader};
use crate::wire::header::Kind;

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
    let (mut tree, outcome) = (tree(), Outcome::default());
    let told = outcome.clone();
    let taker: Taker = Box::new(move |_, outcome| told.put(outcome).ok().unwrap());
    let ticket = ask(&tree.root, BAD, &Recipe::default(), Some(answerer), taker).ok().unwrap();
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

#[test]
fn a_hop_cannot_pass_others_off_as_what_it_has_started() {
    for (id, is_its_own) in [(ROOT, false), (BAD, false), (GOOD, false), (ContextId(100), true)] {
        let mut asked = asked(Arc::new(|_| None));
        let connected = Connected { id, pushed_bytes: 1, elapsed_us: 1 };
        let outcome = encoded(&|w| {
            w.put_u8(0);
            connected.encode(w);
        });
        asked.tree.say(&header(Kind::Reply, asked.answers), &outcome);
        match asked.outcome.get().unwrap() {
            Ok(told) => assert!(is_its_own && told == connected),
            Err(Refusal::Failed(error)) => {
                assert!(matches!(error.failure, ConnectFailure::Protocol(_)) && !is_its_own);
            }
            Err(Refusal::Gone(death)) => panic!("{death:?}"),
        }
        asked.tree.others_are_well();
    }
}
