//! The one kind of lock: a mutex with a rank. Debug builds assert that locks are taken in the order
//! of their ranks, and that none is held where somebody else's code, or a wait, begins.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The places in the order; who holds one takes only higher ones.
pub mod rank {
    /// Whether users' callbacks are taken, and who is the log's sink; their queues are inside.
    pub const CALLBACKS: u8 = 0;
    /// A child's state, while it comes up and until it is reaped; and what its asker knows of it.
    pub const CHILD: u8 = 1;
    /// Links, and what is behind them.
    pub const ROUTES: u8 = 2;
    /// Who listens.
    pub const HANDLES: u8 = 3;
    /// One descriptor, and what waits to be written to it.
    pub const OUTBOX: u8 = 4;
    /// What takes no other inside but the innermost.
    pub const LEAF: u8 = 5;
    /// Who takes records of the log.
    pub const LOG: u8 = 6;
    /// The idle wake-up descriptors.
    pub const IDLE: u8 = 7;
    /// Descriptors that are made, while they have no mark.
    pub const INNERMOST: u8 = 8;
}

/// A value that one thread uses at a time. What a panic left behind is used as it is.
#[derive(Debug, Default)]
pub struct Lock<T, const RANK: u8 = { rank::LEAF }>(Mutex<T>);

/// The right to use the value, until it is dropped.
pub struct Held<'a, T> {
    guard: MutexGuard<'a, T>,
    _noted: noted::Noted,
}

impl<T, const RANK: u8> Lock<T, RANK> {
    /// A lock that nobody holds.
    pub const fn new(value: T) -> Lock<T, RANK> {
        Lock(Mutex::new(value))
    }

    /// Waits until nobody else holds it.
    pub fn lock(&self) -> Held<'_, T> {
        let _noted = noted::note(RANK);
        Held { guard: self.0.lock().unwrap_or_else(PoisonError::into_inner), _noted }
    }

    /// The value, of which nobody else knows.
    pub fn own(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

pub use noted::assert_none_held;

/// Which locks a thread holds.
#[cfg(debug_assertions)]
mod noted {
    use std::cell::Cell;

    thread_local! {
        /// A bit for each rank.
        static HELD: Cell<u16> = const { Cell::new(0) };
    }

    /// That a lock of this rank is held.
    pub struct Noted(u8);

    /// Notes that a lock of this rank is being taken.
    pub fn note(rank: u8) -> Noted {
        let held = HELD.get();
        assert!(held >> rank == 0, "a lock of rank {rank} is taken inside of {held:#b}");
        HELD.set(held | 1 << rank);
        Noted(rank)
    }

    impl Drop for Noted {
        fn drop(&mut self) {
            HELD.set(HELD.get() & !(1 << self.0));
        }
    }

    /// Asserts that this thread holds no lock while it does something that must not wait for one.
    pub fn assert_none_held(doing: &str) {
        let held = HELD.get();
        assert!(held == 0 || std::thread::panicking(), "{doing} with locks held: {held:#b}");
    }
}

#[cfg(not(debug_assertions))]
mod noted {
    /// Nothing.
    pub struct Noted;

    /// Debug builds note that a lock of this rank is being taken.
    #[inline(always)]
    pub fn note(_: u8) -> Noted {
        Noted
    }

    /// Debug builds assert that this thread holds no lock.
    #[inline(always)]
    pub fn assert_none_held(_: &str) {}
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn locks_are_taken_in_the_order_of_their_ranks() {
        let (routes, leaf) = (Lock::<u8, { rank::ROUTES }>::new(1), Lock::<u8>::new(2));
        {
            let (mut first, second) = (routes.lock(), leaf.lock());
            *first += *second;
        }
        assert_eq!(*routes.lock(), 3);
        let wrong_order = catch_unwind(|| {
            let _leaf = leaf.lock();
            drop(routes.lock());
        });
        let twice = catch_unwind(|| {
            let _leaf = leaf.lock();
            drop(Lock::<u8>::new(0).lock());
        });
        assert!(wrong_order.is_err() && twice.is_err());
        assert_none_held("testing");
    }

    #[test]
    fn a_held_lock_is_noticed_where_none_may_be() {
        let leaf = Lock::<u8>::new(0);
        let held = leaf.lock();
        assert!(catch_unwind(|| assert_none_held("sending")).is_err());
        drop(held);
        assert_none_held("sending");
    }
}
