//! Room for messages: how it is taken, given back, granted and waited for.

use super::*;
use crate::error::Cause;

const THERE: Target = (ContextId(5), Handle::FIRST_RANDOM);

#[test]
fn a_window_fills_and_grants_make_room() {
    let credit = Arc::new(Credit::default());
    credit.take(THERE, WINDOW_BYTES, false, None).unwrap();
    let other = credit.clone();
    let waiter = std::thread::spawn(move || other.take(THERE, 10, false, None));
    while credit.lock().account(THERE).waiting.is_empty() {
        std::thread::yield_now();
    }
    credit.grant(THERE, 10);
    waiter.join().unwrap().unwrap();
    credit.grant(THERE, WINDOW_BYTES);
    assert!(credit.lock().accounts.is_empty());
}

#[test]
fn where_somebody_waits_is_told_before_where_something_is_under_way() {
    let credit = Arc::new(Credit::default());
    let last = (ContextId(7), Handle::FIRST_RANDOM);
    credit.take(THERE, 10, false, None).unwrap();
    credit.take(last, WINDOW_BYTES, false, None).unwrap();
    let other = credit.clone();
    let waiter = std::thread::spawn(move || other.take(last, 10, false, None));
    while credit.lock().account(last).waiting.is_empty() {
        std::thread::yield_now();
    }
    let told = |max| {
        let mut w = Writer::new(Vec::new(), None);
        credit.put(max, &mut w);
        w.finish().unwrap()
    };
    let (one, two) = (told(1), told(2));
    // Each is behind a 1; one more, or none, behind a 0.
    assert_eq!((&one[..2], &one[one.len() - 2..]), (&[1, 7][..], &[0, 1][..]));
    let begin = one.len() - 2;
    assert_eq!((&two[..begin], &two[begin..begin + 2]), (&one[..begin], &[1, 5][..]));
    assert_eq!(two[two.len() - 2..], [0, 0]);
    credit.grant(last, WINDOW_BYTES);
    waiter.join().unwrap().unwrap();
}

#[test]
fn a_lost_destination_fails_who_waits_for_room() {
    let credit = Arc::new(Credit::default());
    credit.take(THERE, WINDOW_BYTES, false, None).unwrap();
    let other = credit.clone();
    let waiter = std::thread::spawn(move || {
        other.begin(THERE, false, None).unwrap();
        let charged = other.take(THERE, 1, false, None);
        other.end(THERE, false);
        charged
    });
    while credit.lock().account(THERE).waiting.is_empty() {
        std::thread::yield_now();
    }
    credit.lost(THERE.0, &Death::of(Cause::Exited));
    let error = waiter.join().unwrap().unwrap_err();
    assert_eq!(error, Death::of(Cause::Exited));
    assert!(credit.lock().accounts.is_empty());
}

#[test]
fn what_follows_bulk_is_bulk_until_all_is_granted() {
    let credit = Credit::default();
    assert_eq!(credit.lane(THERE), Lane::Quick);
    credit.begin(THERE, false, None).unwrap();
    credit.take(THERE, 100, false, None).unwrap();
    credit.end(THERE, false);
    assert_eq!(credit.lane(THERE), Lane::Bulk);
    credit.grant(THERE, 100);
    assert_eq!(credit.lane(THERE), Lane::Quick);
}

#[test]
fn an_announced_message_goes_on_as_it_is_granted_and_is_bulk_until_it_has_arrived() {
    let (credit, call) = (Credit::default(), (THERE.0, Handle::CALL));
    credit.grant(call, 100);
    credit.begin(call, true, None).unwrap();
    assert!(!credit.is_ready(call, Some(1)), "what was granted before was for another");
    credit.grant(call, 100);
    credit.take(call, 60, true, None).unwrap();
    assert!(credit.is_ready(call, Some(40)) && !credit.is_ready(call, Some(41)));
    credit.grant(call, usize::MAX);
    credit.take(call, 1 << 30, true, None).unwrap();
    credit.end(call, true);
    assert_eq!(credit.lane(call), Lane::Bulk);
    credit.begin(call, true, None).unwrap();
    assert!(!credit.is_ready(call, Some(1)));
    // The first has arrived, the second was given up.
    credit.grant(call, 0);
    assert_eq!(credit.lane(call), Lane::Bulk);
    credit.end(call, false);
    assert_eq!(credit.lane(call), Lane::Quick);
    assert!(credit.accounts().is_empty());
}

#[test]
fn a_wait_for_room_ends_at_its_deadline_and_leaves_nothing() {
    let (credit, now) = (Credit::default(), Some(Instant::now()));
    let late = |outcome: Result<()>| *outcome.unwrap_err().kind() == ErrorKind::Timeout;
    credit.take(THERE, WINDOW_BYTES, false, now).unwrap();
    assert!(late(credit.take(THERE, 1, false, now)));
    let soon = Instant::now() + std::time::Duration::from_millis(5);
    assert!(late(credit.take(THERE, 1, false, Some(soon))) && soon <= Instant::now());
    credit.begin(THERE, false, now).unwrap();
    assert!(late(credit.begin(THERE, false, now)));
    credit.end(THERE, false);
    credit.uncharge(THERE, WINDOW_BYTES);
    assert!(credit.accounts().is_empty());
}

#[test]
fn every_thread_that_waits_learns_why_a_destination_is_lost() {
    let credit = Arc::new(Credit::default());
    credit.take(THERE, WINDOW_BYTES, false, None).unwrap();
    let waiters: Vec<_> = (0..4)
        .map(|_| {
            let credit = credit.clone();
            std::thread::spawn(move || credit.take(THERE, 1, false, None).unwrap_err())
        })
        .collect();
    while credit.lock().account(THERE).waiting.len() < 4 {
        std::thread::yield_now();
    }
    credit.lost(THERE.0, &Death::of(Cause::Exited));
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap(), Death::of(Cause::Exited));
    }
}

#[test]
fn only_one_thread_is_inside_of_a_message_of_fragments() {
    let credit = Arc::new(Credit::default());
    credit.begin(THERE, false, None).unwrap();
    let other = credit.clone();
    let second = std::thread::spawn(move || other.begin(THERE, false, None));
    while credit.lock().account(THERE).waiting.is_empty() {
        std::thread::yield_now();
    }
    assert!(!second.is_finished());
    credit.end(THERE, false);
    second.join().unwrap().unwrap();
}

#[test]
fn a_closed_receiver_or_a_shutdown_ends_the_wait_for_room() {
    for shutdown in [false, true] {
        let credit = Arc::new(Credit::default());
        credit.open(THERE);
        credit.take(THERE, WINDOW_BYTES, false, None).unwrap();
        let other = credit.clone();
        let waiter = std::thread::spawn(move || other.take(THERE, 1, false, None).unwrap_err());
        while credit.lock().account(THERE).waiting.is_empty() {
            std::thread::yield_now();
        }
        let cause = if shutdown { Cause::Shutdown } else { Cause::ReceiverClosed };
        match shutdown {
            true => credit.close(&Death::of(cause)),
            false => credit.refuse(THERE, Death::of(cause)),
        }
        assert_eq!(waiter.join().unwrap(), Death::of(cause));
        assert_eq!(credit.take(THERE, 1, false, None).unwrap_err(), Death::of(cause));
    }
}

#[test]
fn what_was_charged_for_a_request_that_got_nowhere_is_forgotten() {
    let (credit, call) = (Credit::default(), (THERE.0, Handle::CALL));
    let lost = [Cause::NoRoute, Cause::Disconnected, Cause::Unidirectional];
    for (cause, kept) in lost.map(|cause| (cause, 0)).into_iter().chain([(Cause::TooLarge, 1)]) {
        credit.begin(call, false, None).unwrap();
        credit.take(call, 10, false, None).unwrap();
        credit.end(call, false);
        credit.refuse(call, Death::of(cause).at(THERE.0));
        assert_eq!(credit.accounts().len(), kept, "{cause:?}");
    }
}

#[test]
fn more_granted_than_is_out_makes_no_larger_window() {
    let credit = Credit::default();
    credit.take(THERE, 10, false, None).unwrap();
    credit.grant(THERE, usize::MAX);
    credit.grant(THERE, WINDOW_BYTES);
    credit.take(THERE, 1, false, None).unwrap();
    assert_eq!(credit.lock().account(THERE).outstanding, 1);
}

impl PartialEq<Death> for Error {
    fn eq(&self, death: &Death) -> bool {
        matches!(self.kind(), crate::error::ErrorKind::Closed(d) if d == death)
    }
}
