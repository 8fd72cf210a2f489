//! Many threads on latches at once: each item is got once, and a close wakes everybody.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use mitogen::Latch;
use mitogen::error::ErrorKind;

use crate::support::*;

const SLEEPERS: usize = 64;
const PUTTERS: usize = 8;
const ITEMS: usize = 250;

/// Gets until the latch is closed, and counts; with a time limit for some, who then come again.
fn drain(latch: &Latch<usize>, sleeper: usize, count: &AtomicUsize) -> Vec<usize> {
    let mut got = vec![];
    loop {
        let item = match sleeper % 4 {
            0 => latch.get_timeout(Duration::from_micros(sleeper as u64 * 10)),
            _ => latch.get(),
        };
        match item.map_err(|error| error.into_kind()) {
            Ok(item) => {
                got.push(item);
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(ErrorKind::Timeout) => (),
            Err(ErrorKind::Closed(_)) => return got,
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn of_64_sleepers_each_item_of_8_putters_wakes_one_and_a_close_all() {
    let _company = beside_others();
    for _ in 0..8 {
        let (latch, count) = (&Latch::new(), &AtomicUsize::new(0));
        let mut all: Vec<usize> = thread::scope(|scope| {
            let sleepers: Vec<_> =
                (0..SLEEPERS).map(|i| scope.spawn(move || drain(latch, i, count))).collect();
            for putter in 0..PUTTERS {
                let items = putter * ITEMS..(putter + 1) * ITEMS;
                scope.spawn(move || items.for_each(|i| latch.put(i).unwrap()));
            }
            // A close beats what nobody has taken yet.
            let all = || (count.load(Ordering::Relaxed) == PUTTERS * ITEMS).then_some(());
            let got = until(Duration::from_secs(20), all);
            latch.close();
            let all = sleepers.into_iter().flat_map(|sleeper| sleeper.join().unwrap()).collect();
            assert!(got.is_some(), "only {} were got", count.load(Ordering::Relaxed));
            all
        });
        all.sort_unstable();
        assert_eq!(all, (0..PUTTERS * ITEMS).collect::<Vec<_>>());
    }
}

#[test]
fn items_that_8_threads_hand_on_through_64_latches_are_all_there_in_the_end() {
    const LATCHES: usize = 64;
    const ROUNDS: usize = 400;
    let _company = beside_others();
    let latches: Vec<Latch<usize>> = (0..LATCHES).map(|_| Latch::new()).collect();
    latches.iter().enumerate().for_each(|(i, latch)| latch.put(i).unwrap());
    thread::scope(|scope| {
        for thread in 0..8 {
            let latches = &latches;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let at = (thread * 11 + round * 7) % LATCHES;
                    let wait = Duration::from_micros((thread * round % 50) as u64);
                    if let Ok(item) = latches[at].get_timeout(wait) {
                        latches[(at + 1 + thread) % LATCHES].put(item).unwrap();
                    }
                }
            });
        }
    });
    let mut all: Vec<usize> = vec![];
    for latch in &latches {
        all.extend(std::iter::from_fn(|| latch.try_get().unwrap()));
    }
    all.sort_unstable();
    assert_eq!(all, (0..LATCHES).collect::<Vec<_>>());
}
