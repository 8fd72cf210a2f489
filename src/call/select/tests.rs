//! What a Select promises of sources that any thread fills and drains: here, latches.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use super::*;
use crate::io::latch::Latch;

const LIMIT: Duration = Duration::from_secs(20);

/// The next event, which is to come soon; `None` for the end.
#[track_caller]
fn soon<E>(select: &Select<'_, E>) -> Option<E> {
    select.next_timeout(LIMIT).unwrap()
}

/// Adds a latch whose events are its name and its items.
#[track_caller]
fn named<'a>(
    select: &Select<'a, (&'static str, u32)>,
    latch: &'a Latch<u32>,
    name: &'static str,
) -> Key {
    select.add(latch, move |item| (name, item.unwrap())).unwrap()
}

#[track_caller]
fn is_usage<T>(result: Result<T>) {
    let error = result.err().expect("an error");
    assert!(matches!(error.kind(), ErrorKind::Usage(_)), "{error}");
}

#[test]
fn what_is_there_before_and_after_the_add_arrives_once() {
    let (a, b) = (Latch::new(), Latch::new());
    a.put(1).unwrap();
    a.put(2).unwrap();
    let select = Select::new();
    named(&select, &a, "a");
    named(&select, &b, "b");
    b.put(3).unwrap();
    a.put(4).unwrap();
    let mut events: Vec<_> = (0..4).map(|_| soon(&select).unwrap()).collect();
    assert_eq!(events[..2], [("a", 1), ("b", 3)], "each has its turn");
    events.sort_unstable();
    assert_eq!(events, [("a", 1), ("a", 2), ("a", 4), ("b", 3)]);
    assert!(select.try_next().is_none() && select.is_empty() && select.has_sources());
    let error = select.next_timeout(Duration::from_millis(5)).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Timeout);
}

#[test]
fn a_source_that_always_has_something_lets_the_others_have_their_turn() {
    let (busy, rare) = (Latch::new(), Latch::new());
    let select = Select::new();
    (0..100).for_each(|i| busy.put(i).unwrap());
    named(&select, &busy, "busy");
    named(&select, &rare, "rare");
    for i in 0..20 {
        rare.put(i).unwrap();
        let events = [soon(&select), soon(&select), soon(&select)];
        assert!(events.contains(&Some(("rare", i))), "{events:?}");
        busy.put(i).unwrap();
    }
}

#[test]
fn items_of_many_sources_come_in_the_order_of_their_arrival() {
    let latches: Vec<Latch<usize>> = (0..50).map(|_| Latch::new()).collect();
    let select: Select<'_, _> = latches.iter().enumerate().collect();
    let order: Vec<usize> = (0..50).map(|i| i * 7 % 50).collect();
    order.iter().for_each(|i| latches[*i].put(*i).unwrap());
    let got: Vec<usize> = (0..50).map(|_| soon(&select).unwrap().1.unwrap()).collect();
    assert_eq!(got, order);
}

#[test]
fn what_another_thread_has_drained_is_no_event() {
    let (a, b) = (Latch::new(), Latch::new());
    let select = Select::new();
    named(&select, &a, "a");
    named(&select, &b, "b");
    a.put(1).unwrap();
    assert!(!select.is_empty());
    assert_eq!(a.get().unwrap(), 1);
    assert_eq!(select.try_next(), None);
    b.put(2).unwrap();
    a.put(3).unwrap();
    assert_eq!(a.get().unwrap(), 3);
    assert_eq!(soon(&select), Some(("b", 2)));
    a.put(4).unwrap();
    assert_eq!(soon(&select), Some(("a", 4)));
}

#[test]
fn what_was_removed_never_comes_even_if_it_had_said_that_it_has_something() {
    let (a, b) = (Latch::new(), Latch::new());
    let select = Select::new();
    let key = named(&select, &a, "a");
    named(&select, &b, "b");
    a.put(1).unwrap();
    b.put(2).unwrap();
    assert!(select.remove(key) && !select.remove(key));
    a.put(3).unwrap();
    assert_eq!(soon(&select), Some(("b", 2)));
    assert_eq!(select.try_next(), None);
    assert_eq!((a.get().unwrap(), a.get().unwrap()), (1, 3));
    let again = named(&select, &a, "a");
    assert_ne!(again, key);
    assert!(!Select::<()>::new().remove(again), "a key of another");
    a.put(4).unwrap();
    assert_eq!(soon(&select), Some(("a", 4)));
}

#[test]
fn a_source_is_in_one_select_at_a_time() {
    let latch = Latch::new();
    let (one, two) = (Select::new(), Select::new());
    let key = named(&one, &latch, "one");
    is_usage(one.add(&latch, |item| ("again", item.unwrap())));
    is_usage(two.add(&latch, |item| ("two", item.unwrap())));
    assert!(!two.has_sources());
    latch.put(1).unwrap();
    assert_eq!(soon(&one), Some(("one", 1)));
    one.remove(key);
    named(&two, &latch, "two");
    latch.put(2).unwrap();
    assert_eq!(soon(&two), Some(("two", 2)));
    drop(two);
    named(&one, &latch, "one");
    one.close();
    named(&Select::new(), &latch, "three");
}

#[test]
fn a_closed_source_leaves_silently_and_the_last_ends_the_iteration() {
    let (a, b) = (Latch::new(), Latch::new());
    let select = Select::new();
    named(&select, &a, "a");
    named(&select, &b, "b");
    b.put(1).unwrap();
    a.close();
    let mut events = vec![];
    for event in &select {
        events.push(event);
        b.close();
    }
    assert_eq!(events, [("b", 1)]);
    assert_eq!((soon(&select), select.has_sources()), (None, false));
    // It goes on with a new one.
    let c = Latch::new();
    c.put(2).unwrap();
    let select = Select::new();
    assert_eq!(soon(&select), None);
    named(&select, &c, "c");
    assert_eq!(soon(&select), Some(("c", 2)));
}

#[test]
fn oneshot_sources_leave_with_their_first_item() {
    let latches = [Latch::new(), Latch::new()];
    let select = Select::oneshot();
    for (latch, i) in latches.iter().zip(0..) {
        latch.put(i).unwrap();
        latch.put(i + 10).unwrap();
        select.add(latch, |item| item.unwrap()).unwrap();
    }
    assert_eq!(select.collect::<Vec<u32>>(), [0, 1]);
    assert_eq!(latches.map(|latch| latch.get().unwrap()), [10, 11]);
}

#[test]
fn sources_come_and_go_while_it_is_iterated() {
    let latches: Vec<Latch<usize>> = (0..10).map(|_| Latch::new()).collect();
    let select = Select::new();
    let add = |i: usize| {
        latches[i].put(i).unwrap();
        select.add(&latches[i], |item| item.unwrap()).unwrap()
    };
    let mut key = add(0);
    let mut seen = vec![];
    for i in &select {
        seen.push(i);
        select.remove(key);
        if i + 1 < latches.len() {
            key = add(i + 1);
        }
    }
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
}

#[test]
fn a_select_in_a_select_in_a_select_is_heard_and_ends_with_its_sources() {
    let latches = ["a", "b", "c"].map(|name| (name, Latch::new()));
    let [(_, a), (_, b), (_, c)] = &latches;
    let (inner, middle, outer) = (Select::new(), Select::new(), Select::new());
    named(&inner, a, "a");
    named(&middle, b, "b");
    named(&outer, c, "c");
    a.put(0).unwrap();
    middle.add(&inner, |event| event.unwrap()).unwrap();
    outer.add(&middle, |event| event.unwrap()).unwrap();
    assert_eq!(soon(&outer), Some(("a", 0)));
    for i in 0..100 {
        let (name, latch) = &latches[i as usize * 5 % 3];
        latch.put(i).unwrap();
        assert_eq!(soon(&outer), Some((*name, i)));
    }
    a.close();
    c.close();
    assert_eq!(outer.try_next(), None);
    assert!(outer.has_sources() && !inner.has_sources());
    b.close();
    assert_eq!(soon(&outer), None);
}

#[test]
fn a_select_that_is_shared_in_a_select_yields_to_whoever_comes_first() {
    let latch = Latch::new();
    let inner = Select::new();
    inner.add(&latch, |item: Result<u32>| item.unwrap()).unwrap();
    let outer = Select::new();
    outer.add(&inner, |item| item.unwrap()).unwrap();
    let sum = AtomicU32::new(0);
    let count = |item: u32| {
        sum.fetch_add(item, Ordering::Relaxed);
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| std::iter::from_fn(|| soon(&inner)).for_each(&count));
            scope.spawn(|| std::iter::from_fn(|| soon(&outer)).for_each(&count));
        }
        (1..=2000).for_each(|i| latch.put(i).unwrap());
        while !latch.is_empty() {
            thread::yield_now();
        }
        latch.close();
    });
    assert_eq!(sum.into_inner(), 2001 * 1000);
}

#[test]
fn a_select_cannot_wait_for_itself() {
    let outer: Arc<Select<'static, u32>> = Arc::new(Select::new());
    let inner: Arc<Select<'static, u32>> = Arc::new(Select::new());
    is_usage(outer.add(outer.clone(), |item| item.unwrap()));
    outer.add(inner.clone(), |item| item.unwrap()).unwrap();
    is_usage(inner.add(outer.clone(), |item| item.unwrap()));
    assert!(!inner.has_sources());
    inner
        .add(Refused { why: Error::usage(""), item: PhantomData }, |item| item.unwrap_or(7))
        .unwrap();
    assert_eq!(soon(&outer), Some(7));
    assert_eq!(soon(&outer), None);
    assert_eq!((Arc::strong_count(&outer), Arc::strong_count(&inner)), (1, 1));
}

#[test]
fn closing_it_ends_every_wait_and_takes_no_source_any_more() {
    let latch = Latch::<u32>::new();
    let select = Select::new();
    named(&select, &latch, "a");
    thread::scope(|scope| {
        let waits: Vec<_> = (0..8).map(|_| scope.spawn(|| soon(&select))).collect();
        thread::sleep(Duration::from_millis(5));
        select.close();
        assert!(waits.into_iter().all(|wait| wait.join().unwrap().is_none()));
    });
    let error = select.add(&latch, |item| ("b", item.unwrap())).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Closed(_)), "{error}");
    assert!(select.next().is_none() && select.try_next().is_none() && !select.has_sources());
    named(&Select::new(), &latch, "another's");
}

#[test]
fn the_last_source_that_leaves_ends_every_wait() {
    for _ in 0..200 {
        let latches = [Latch::<u32>::new(), Latch::new()];
        let select = Select::new();
        let keys = [0, 1].map(|i| select.add(&latches[i], |_| ()).unwrap());
        thread::scope(|scope| {
            let waits: Vec<_> = (0..4).map(|_| scope.spawn(|| soon(&select))).collect();
            scope.spawn(|| select.remove(keys[0]));
            scope.spawn(|| latches[1].close());
            assert!(waits.into_iter().all(|wait| wait.join().unwrap().is_none()));
        });
    }
}

#[test]
fn sources_that_come_and_go_unlooked_at_leave_nothing_behind() {
    let (latch, other) = (Latch::new(), Latch::new());
    let select = Select::new();
    named(&select, &other, "other");
    for i in 0..1000 {
        latch.put(i).unwrap();
        let key = named(&select, &latch, "a");
        select.remove(key);
    }
    assert_eq!(select.entries.lock().len(), 1);
    assert!(select.hub.len() <= 2, "{}", select.hub.len());
    assert_eq!(select.try_next(), None);
}

#[test]
fn a_panic_where_an_event_is_made_loses_that_item_alone() {
    let latch = Latch::new();
    let select = Select::new();
    let event = |item: Result<u32>| {
        let item = item.unwrap();
        assert_ne!(item, 1);
        item
    };
    select.add(&latch, event).unwrap();
    (0..4).for_each(|i| latch.put(i).unwrap());
    let mut got = vec![];
    for _ in 0..4 {
        let next = || soon(&select).unwrap();
        got.extend(std::panic::catch_unwind(std::panic::AssertUnwindSafe(next)));
    }
    assert_eq!(got, [0, 2, 3]);
}

#[test]
fn all_is_in_the_order_of_arrival_and_in_order_in_that_of_the_sources() {
    let latches = [Latch::new(), Latch::new(), Latch::new()];
    // Who comes to the last has added the others.
    let sources = || {
        latches.iter().inspect(|latch| {
            if std::ptr::eq(*latch, &latches[2]) {
                [1, 0, 2].iter().for_each(|at| latches[*at].put(*at as u32).unwrap());
            }
        })
    };
    assert_eq!(Select::all(sources()).unwrap(), [1, 0, 2]);
    assert_eq!(Select::in_order(sources()).unwrap(), [0, 1, 2]);
}

#[test]
fn all_fails_with_the_first_failure_and_where_a_source_has_nothing() {
    let latches = [Latch::new(), Latch::new()];
    latches[0].put(1).unwrap();
    latches[1].close();
    let error = Select::all(&latches).unwrap_err();
    let ErrorKind::Closed(death) = error.kind() else { panic!("{error}") };
    assert_eq!(death.cause, Cause::SenderClosed);
    is_usage(Select::all([&latches[0], &latches[0]]));
    let refused = || Refused::<u32> { why: Error::usage("no"), item: PhantomData };
    is_usage(Select::all([refused(), refused()]));
    assert_eq!(Select::all(Vec::<Latch<u32>>::new()).unwrap(), []);
}

#[test]
fn a_refused_source_of_a_collection_yields_why() {
    let latch = Latch::new();
    latch.put(5).unwrap();
    let select: Select<'_, _> = [("one", &latch), ("two", &latch)].into_iter().collect();
    let events = [soon(&select).unwrap(), soon(&select).unwrap()];
    assert!(matches!(&events[0], ("one", Ok(5))), "{events:?}");
    assert_eq!(events[1].0, "two");
    is_usage(events.into_iter().nth(1).unwrap().1);
}

#[test]
fn it_can_be_shared_and_sent() {
    fn check<T: Send + Sync>(_: &T) {}
    let latch = Latch::<std::cell::Cell<u32>>::new();
    let select = Select::new();
    select.add(latch, |item| item.unwrap()).unwrap();
    check(&select);
}

/// Threads put, take by several selects' threads, add and remove, all at once.
#[test]
fn nothing_is_lost_or_told_twice_while_threads_put_take_add_and_remove() {
    const ITEMS: u32 = 4000;
    let latches: Vec<Latch<u32>> = (0..8).map(|_| Latch::new()).collect();
    let stays = Latch::<u32>::new();
    let select = Select::new();
    select.add(&stays, |_| 0).unwrap();
    let taken = AtomicU32::new(0);
    let over = AtomicBool::new(false);
    let mut all: Vec<u32> = thread::scope(|scope| {
        let take = || {
            let mut got = vec![];
            while let Some(item) = soon(&select) {
                got.push(item);
                taken.fetch_add(1, Ordering::Relaxed);
            }
            got
        };
        let takers: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        for latches in latches.chunks(4) {
            let (over, select) = (&over, &select);
            scope.spawn(move || {
                let mut keys: Vec<Option<Key>> = vec![None; latches.len()];
                while !over.load(Ordering::Relaxed) {
                    for (key, latch) in keys.iter_mut().zip(latches) {
                        if let Some(key) = key.take() {
                            assert!(select.remove(key));
                        } else {
                            *key = Some(select.add(latch, |item| item.unwrap()).unwrap());
                        }
                    }
                    thread::yield_now();
                }
                for (key, latch) in keys.iter_mut().zip(latches) {
                    if key.is_none() {
                        *key = Some(select.add(latch, |item| item.unwrap()).unwrap());
                    }
                }
            });
        }
        let putters: Vec<_> = (0..4)
            .map(|n| {
                let latches = &latches;
                scope.spawn(move || {
                    for i in 0..ITEMS / 4 {
                        latches[(i * 3 + n) as usize % 8].put(n * ITEMS / 4 + i).unwrap();
                    }
                })
            })
            .collect();
        putters.into_iter().for_each(|putter| putter.join().unwrap());
        over.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        while taken.load(Ordering::Relaxed) < ITEMS && begun.elapsed() < LIMIT {
            thread::yield_now();
        }
        select.close();
        takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect()
    });
    all.sort_unstable();
    assert_eq!(all, (0..ITEMS).collect::<Vec<_>>());
}
