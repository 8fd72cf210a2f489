//! What is promised of a turn that is lent, in its states.

use super::*;

fn lent() -> Loans {
    let mut loans = Loans::new();
    loans.lend();
    loans
}

/// Threads wait, and the broker serves something.
fn serve(loans: &mut Loans, waits: usize) -> bool {
    (0..waits).for_each(|_| loans.begin());
    let ripe = loans.is_ripe();
    (0..waits).for_each(|_| assert!(!loans.end(None, false)));
    ripe
}

fn until_ripe(loans: &mut Loans) -> u32 {
    (1..).find(|_| serve(loans, 1)).unwrap()
}

#[test]
fn it_is_lent_after_some_lone_waits_that_were_answered_with_nothing_between() {
    let mut loans = Loans::new();
    assert_eq!(until_ripe(&mut loans), LEND_AFTER);
    assert!(serve(&mut loans, 1));
    for waits in [0, 2] {
        assert!(!serve(&mut loans, waits));
        assert_eq!(until_ripe(&mut loans), LEND_AFTER);
    }
    assert!((0..100).all(|_| !serve(&mut loans, 2)));
    assert!((0..100).all(|served| !serve(&mut loans, served % 2)));
    loans.lend();
    assert_eq!(loans.look(), Rest::Over);
    assert_eq!(until_ripe(&mut loans), LEND_AFTER);
    loans.forbid();
    assert!((0..100).all(|_| !serve(&mut loans, 1)));
}

#[test]
fn a_wait_that_begins_before_the_broker_looks_counts_as_the_next() {
    let mut loans = Loans::new();
    loans.begin();
    for served in 1..LEND_AFTER {
        if served % 2 == 1 {
            // It is answered, and calls again at once; the next time it is late.
            assert!(!loans.end(None, false));
            loans.begin();
            assert!(!loans.is_ripe());
        } else {
            assert!(!loans.is_ripe() && !loans.end(None, false));
            loans.begin();
        }
    }
    assert!(loans.is_ripe());
}

#[test]
fn who_waits_alone_borrows_a_free_turn_and_leaves_it_free() {
    let mut loans = lent();
    loans.begin();
    let loan = loans.borrow().unwrap();
    assert_eq!(loans.borrow(), None);
    assert!(loans.fetch(loan) && !loans.fetch(loan));
    loans.put_back();
    assert!(!loans.end(Some(loan), false));
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
    assert!(loans.end(loan, false), "another waits");
    assert!(!loans.end(None, false));
    let mut loans = lent();
    loans.begin();
    let loan = loans.borrow();
    assert!(loans.end(loan, true), "work is left");
    let mut loans = lent();
    loans.begin();
    let loan = loans.borrow();
    assert_eq!([loans.look(), loans.look()], [Rest::Nap, Rest::Sleep]);
    assert!(loans.end(loan, false), "it sleeps");
    assert_eq!((loans.look(), loans.place()), (Rest::Over, Place::Broker));
}

#[test]
fn the_broker_takes_back_what_nobody_has_touched() {
    let mut loans = lent();
    loans.begin();
    let loan = loans.borrow();
    assert!(!loans.end(loan, false));
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
    assert!(!loans.fetch(loan) && !loans.give(loan) && !loans.end(Some(loan), false));
    assert!(loans.fetch(other) && !loans.recall(), "it is being served");
    assert_eq!([loans.look(), loans.look()], [Rest::Nap; 2]);
}
