//! What is promised of a turn that is lent, in its states.

use std::time::Duration;

use super::*;

fn lent() -> Loans {
    let mut loans = Loans::new();
    loans.lend();
    loans
}

#[test]
fn it_is_lent_after_some_lone_waits_that_were_answered_soon() {
    let mut loans = Loans::new();
    let mut now = Instant::now();
    let mut answers = |loans: &mut Loans, pause: Duration, waits: usize| {
        now += pause;
        (0..waits).for_each(|_| loans.begin());
        let ripe = loans.is_ripe(now);
        (0..waits).for_each(|_| assert!(!loans.end(None)));
        ripe
    };
    let soon = TURN_NAP / 10;
    assert_eq!((1..).find(|_| answers(&mut loans, soon, 1)), Some(LEND_AFTER + 1));
    assert!(answers(&mut loans, soon, 1));
    // What nobody waits for, a crowd, and slow answers begin it anew.
    for (pause, waits) in [(soon, 0), (soon, 2), (TURN_NAP, 1)] {
        assert!(!answers(&mut loans, pause, waits));
        assert_eq!((1..).find(|_| answers(&mut loans, soon, 1)), Some(LEND_AFTER));
    }
    assert!((0..100).all(|_| !answers(&mut loans, soon, 2)));
    assert!((0..100).all(|_| !answers(&mut loans, TURN_NAP, 1)));
    loans.forbid();
    assert!((0..100).all(|_| !answers(&mut loans, soon, 1)));
}

#[test]
fn who_waits_alone_borrows_a_free_turn_and_leaves_it_free() {
    let mut loans = lent();
    loans.begin();
    let loan = loans.borrow().unwrap();
    assert_eq!(loans.borrow(), None);
    assert!(loans.fetch(loan) && !loans.fetch(loan));
    assert!(!loans.put_back(false) && !loans.end(Some(loan)));
    assert_eq!(loans.place(), Place::Free);
    loans.begin();
    assert_ne!(loans.borrow().unwrap(), loan);
}

#[test]
fn the_broker_is_told_where_others_wait_work_is_left_or_it_sleeps() {
    let mut loans = lent();
    loans.begin();
    let loan = loans.borrow();
    loans.begin();
    assert!(loans.end(loan), "another waits");
    assert!(!loans.end(None));
    let mut loans = lent();
    loans.begin();
    let loan = loans.borrow();
    assert!(loans.fetch(loan.unwrap()) && loans.put_back(true), "work is left");
    assert!(!loans.end(loan), "it was told");
    let mut loans = lent();
    loans.begin();
    let loan = loans.borrow();
    assert_eq!([loans.look(), loans.look()], [Rest::Nap, Rest::Sleep]);
    assert!(loans.end(loan), "it sleeps");
    assert_eq!((loans.look(), loans.place()), (Rest::Over, Place::Broker));
}

#[test]
fn the_broker_takes_back_what_nobody_has_touched() {
    let mut loans = lent();
    loans.begin();
    let loan = loans.borrow();
    assert!(!loans.end(loan));
    assert_eq!([loans.look(), loans.look()], [Rest::Nap, Rest::Over]);
    assert_eq!(lent().look(), Rest::Over);
}

#[test]
fn a_turn_that_was_taken_back_is_not_served_by_who_had_borrowed_it() {
    let mut loans = lent();
    loans.begin();
    let loan = loans.borrow().unwrap();
    assert!(loans.recall() && !loans.recall());
    assert!(!loans.fetch(loan) && !loans.give(loan));
    assert_eq!(loans.look(), Rest::Over);
    loans.lend();
    let other = loans.borrow().unwrap();
    assert!(!loans.fetch(loan) && !loans.give(loan) && !loans.end(Some(loan)));
    assert!(loans.fetch(other) && !loans.recall(), "it is being served");
}
