//! What a latch promises to the threads that use it.

use super::*;

#[test]
fn items_come_out_in_the_order_they_went_in() {
    let latch = Latch::new();
    for i in 0..10 {
        latch.put(i).unwrap();
    }
    let out: Vec<i32> = (0..10).map(|_| latch.get().unwrap()).collect();
    assert_eq!(out, (0..10).collect::<Vec<_>>());
    assert!(latch.try_get().unwrap().is_none());
}

#[test]
fn a_wait_times_out_and_leaves_no_waiter() {
    let latch = Latch::<()>::new();
    let error = latch.get_timeout(Duration::from_millis(5)).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Timeout);
    latch.put(()).unwrap();
    assert!(!latch.is_empty());
}

#[test]
fn closing_wakes_every_sleeper() {
    let latch = Arc::new(Latch::<u8>::new());
    let sleepers: Vec<_> = (0..4)
        .map(|_| {
            let latch = latch.clone();
            std::thread::spawn(move || latch.get().is_err())
        })
        .collect();
    while latch.lock().sleepers.list.len() < 4 {
        std::thread::yield_now();
    }
    latch.close();
    assert!(sleepers.into_iter().all(|s| s.join().unwrap()));
    assert!(latch.put(1).is_err());
}

#[test]
fn many_threads_get_every_item_once() {
    let latch = Arc::new(Latch::<u32>::new());
    let getters: Vec<_> = (0..8)
        .map(|_| {
            let latch = latch.clone();
            std::thread::spawn(move || (0..500).map(|_| latch.get().unwrap()).collect::<Vec<_>>())
        })
        .collect();
    for i in 0..4000 {
        latch.put(i).unwrap();
    }
    let mut all: Vec<u32> = getters.into_iter().flat_map(|g| g.join().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..4000).collect::<Vec<_>>());
}

#[test]
fn who_comes_later_leaves_an_item_for_each_thread_that_slept() {
    let latch = Arc::new(Latch::<u32>::new());
    let sleepers: Vec<_> = (0..8)
        .map(|i| {
            let own = latch.clone();
            let sleeper = std::thread::spawn(move || own.get().unwrap());
            while latch.lock().sleepers.list.len() <= i {
                std::thread::yield_now();
            }
            sleeper
        })
        .collect();
    (0..8).for_each(|i| latch.put(i).unwrap());
    latch.put(8).unwrap();
    let mut got = vec![latch.get().unwrap()];
    assert_eq!(latch.try_get().unwrap(), None);
    got.extend(sleepers.into_iter().map(|s| s.join().unwrap()));
    got.sort_unstable();
    assert_eq!(got, (0..=8).collect::<Vec<_>>());
}

#[test]
fn no_item_is_lost_between_timeouts_and_puts() {
    let latch = Arc::new(Latch::<u32>::new());
    let getters: Vec<_> = (0..4)
        .map(|i| {
            let latch = latch.clone();
            std::thread::spawn(move || {
                let mut got = Vec::new();
                loop {
                    match latch.get_timeout(Duration::from_micros(i * 30)) {
                        Ok(u32::MAX) => return got,
                        Ok(item) => got.push(item),
                        Err(e) => assert_eq!(*e.kind(), ErrorKind::Timeout),
                    }
                }
            })
        })
        .collect();
    for i in 0..3000 {
        latch.put(i).unwrap();
        if i % 7 == 0 {
            std::thread::sleep(Duration::from_micros(40));
        }
    }
    (0..4).for_each(|_| latch.put(u32::MAX).unwrap());
    let mut all: Vec<u32> = getters.into_iter().flat_map(|g| g.join().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..3000).collect::<Vec<_>>());
    assert!(latch.is_empty() && latch.lock().sleepers.list.is_empty());
}

#[test]
fn closing_beats_what_is_queued() {
    let latch = Latch::new();
    let item = Arc::new(());
    latch.put(item.clone()).unwrap();
    latch.close();
    latch.close();
    assert_eq!(Arc::strong_count(&item), 1);
    assert!(!latch.is_empty(), "a get would not sleep");
    for result in [latch.get().map(Some), latch.try_get(), latch.put(item).map(|()| None)] {
        let error = result.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Closed(_)), "{error}");
    }
}

#[test]
fn a_watcher_is_told_of_what_comes_and_of_the_close_and_is_alone() {
    let latch = Latch::new();
    latch.put(1).unwrap();
    let told = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = told.clone();
    let watcher: Watcher = Arc::new(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(latch.watch(watcher.clone()));
    assert!(!latch.watch(watcher.clone()));
    latch.put(2).unwrap();
    let other: Watcher = Arc::new(|| ());
    latch.unwatch(&other);
    assert!(!latch.watch(other));
    latch.unwatch(&watcher);
    latch.put(3).unwrap();
    assert!(latch.watch(watcher));
    latch.close();
    assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 2);
}
