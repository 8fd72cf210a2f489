//! What the library's source stands on here: locks, threads and wake-ups of the model checker, and
//! stand-ins, as small as they can be, for what it names beside.

use std::sync::atomic::{AtomicU32, Ordering};

static ORDER: AtomicU32 = AtomicU32::new(0);

/// Begins another order: nothing is left of the one before.
pub fn begin() {
    ORDER.fetch_add(1, Ordering::Relaxed);
    sys::pipe::forget_all();
}

/// In place of what a thread notes for itself alone: nothing.
pub struct Nowhere;

impl Nowhere {
    pub fn get(&self) -> usize {
        0
    }

    pub fn set(&self, _: usize) {}
}

pub mod error {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Cause {
        Shutdown,
        ReceiverClosed,
        Disconnected,
    }

    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum ErrorKind {
        Timeout,
        Interrupted,
        Closed(Cause),
        System { doing: &'static str, errno: i32 },
    }

    #[derive(Clone, Debug)]
    pub struct Error(ErrorKind);

    /// Why something has ended.
    #[derive(Clone, Debug)]
    pub struct Death(pub Cause);

    impl From<Death> for Error {
        fn from(death: Death) -> Error {
            Error::closed(death.0)
        }
    }

    pub type Result<T, E = Error> = std::result::Result<T, E>;

    impl Error {
        pub fn new(kind: ErrorKind) -> Error {
            Error(kind)
        }

        pub fn closed(cause: Cause) -> Error {
            Error(ErrorKind::Closed(cause))
        }

        pub fn system(doing: &'static str, errno: i32) -> Error {
            Error(ErrorKind::System { doing, errno })
        }

        pub fn kind(&self) -> &ErrorKind {
            &self.0
        }
    }
}

pub mod limits {
    use std::time::Duration;

    pub const CALLBACK_TIME: Duration = Duration::MAX;
    pub const COPY_STACK_BYTES: usize = 0;
    /// The second frame of an outbox is gathered, and all that follow.
    pub const GATHER_AFTER: u32 = 1;
    pub const GATHER_BYTES_MAX: usize = 100;
    pub const GATHER_GAP: Duration = Duration::MAX;
    pub const IDLE_WAKES_MAX: usize = 1;
    pub const LEND_AFTER: u32 = 1;
    pub const TURN_NAP: Duration = Duration::ZERO;
    pub const LOOK_AGAIN_MAX: Duration = Duration::ZERO;
    /// None, so that three frames fill an outbox.
    pub const MESSAGE_COST_BYTES: usize = 0;
    pub const OUTBOX_BYTES_MAX: usize = 100;
    pub const OUTBOX_HIGH_WATER_BYTES: usize = 2;
    pub const OUTBOX_KEPT_BYTES: usize = 0;
    pub const OUTBOX_OWN_BYTES: usize = 10;
}

pub mod lock {
    use std::cell::UnsafeCell;
    use std::ops::{Deref, DerefMut};
    use std::sync::{self, OnceLock};

    pub mod rank {
        pub const CALLBACKS: u8 = 0;
        pub const OUTBOX: u8 = 4;
        pub const LEAF: u8 = 5;
        pub const IDLE: u8 = 7;
    }

    /// As the library's; the model's lock is made when it is first taken. The innermost one is a
    /// static, which outlives an order: nobody waits inside of it, so no thread ever finds it
    /// taken.
    pub struct Lock<T, const RANK: u8 = { rank::LEAF }> {
        model: OnceLock<loom::sync::Mutex<()>>,
        innermost: sync::Mutex<()>,
        value: UnsafeCell<T>,
    }

    // SAFETY: the value is reached only while one of the two locks is held.
    unsafe impl<T: Send, const RANK: u8> Sync for Lock<T, RANK> {}

    pub struct Held<'a, T> {
        value: &'a UnsafeCell<T>,
        _guards: (Option<loom::sync::MutexGuard<'a, ()>>, Option<sync::MutexGuard<'a, ()>>),
    }

    impl<T, const RANK: u8> Lock<T, RANK> {
        pub const fn new(value: T) -> Lock<T, RANK> {
            Lock {
                model: OnceLock::new(),
                innermost: sync::Mutex::new(()),
                value: UnsafeCell::new(value),
            }
        }

        pub fn lock(&self) -> Held<'_, T> {
            let guards = if RANK == rank::IDLE {
                (None, Some(self.innermost.try_lock().unwrap()))
            } else {
                let model = self.model.get_or_init(|| loom::sync::Mutex::new(()));
                (Some(model.lock().unwrap()), None)
            };
            Held { value: &self.value, _guards: guards }
        }
    }

    impl<T: Default, const RANK: u8> Default for Lock<T, RANK> {
        fn default() -> Lock<T, RANK> {
            Lock::new(T::default())
        }
    }

    impl<T> Deref for Held<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            // SAFETY: we hold a lock.
            unsafe { &*self.value.get() }
        }
    }

    impl<T> DerefMut for Held<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            // SAFETY: as above, and nobody else borrows from us.
            unsafe { &mut *self.value.get() }
        }
    }

    pub fn assert_none_held(_: &str) {}
}

pub mod sys {
    pub mod errno {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Errno(pub i32);

        impl Errno {
            pub const INTR: Errno = Errno(4);
        }
    }

    pub mod fork {
        /// Each order is another process, as far as anybody can tell.
        pub fn generation() -> u32 {
            crate::floor::ORDER.load(std::sync::atomic::Ordering::Relaxed)
        }
    }

    pub mod thread {
        pub type Body = Box<dyn FnOnce() + Send>;

        pub fn spawn(_: &std::ffi::CStr, _: usize, body: Body) -> Result<(), super::errno::Errno> {
            drop(loom::thread::spawn(body));
            Ok(())
        }
    }

    pub mod pipe {
        use std::os::fd::BorrowedFd;
        use std::sync::{Arc, Mutex};

        use super::errno::Errno;

        /// The wake-ups of this order, by number.
        static ALL: Mutex<Vec<Arc<Readable>>> = Mutex::new(Vec::new());
        /// No descriptor has such a number.
        const FIRST: i32 = 1 << 20;

        pub fn forget_all() {
            ALL.lock().unwrap().clear();
        }

        /// Whether a descriptor is readable, and who waits for that.
        pub struct Readable {
            pub is: loom::sync::Mutex<bool>,
            pub waiters: loom::sync::Condvar,
            /// Who waits for this among others, and sleeps there.
            pub watchers: Mutex<Vec<Arc<Readable>>>,
        }

        impl Readable {
            pub fn is_readable(&self) -> bool {
                *self.is.lock().unwrap()
            }

            fn wake(&self) {
                *self.is.lock().unwrap() = true;
                self.waiters.notify_all();
                let watchers = self.watchers.lock().unwrap().clone();
                for watcher in watchers {
                    // Who is about to sleep there either sees that this is readable or is woken.
                    drop(watcher.is.lock().unwrap());
                    watcher.waiters.notify_all();
                }
            }
        }

        pub struct Wake {
            readable: Arc<Readable>,
            number: i32,
        }

        impl Wake {
            pub fn new() -> Result<Wake, Errno> {
                let (is, waiters) = (loom::sync::Mutex::new(false), loom::sync::Condvar::new());
                let readable = Arc::new(Readable { is, waiters, watchers: Mutex::default() });
                let mut all = ALL.lock().unwrap();
                all.push(readable.clone());
                Ok(Wake { readable, number: FIRST + all.len() as i32 - 1 })
            }

            pub fn wake(&self) {
                self.readable.wake();
            }

            pub fn drain(&self) -> bool {
                std::mem::take(&mut *self.readable.is.lock().unwrap())
            }

            pub fn fd(&self) -> BorrowedFd<'_> {
                // SAFETY: it is never given to the system.
                unsafe { BorrowedFd::borrow_raw(self.number) }
            }
        }

        pub fn of_fd(number: i32) -> Arc<Readable> {
            ALL.lock().unwrap()[(number - FIRST) as usize].clone()
        }
    }

    pub mod poll {
        use std::os::fd::{AsRawFd, BorrowedFd};
        use std::sync::Arc;
        use std::time::Instant;

        use super::errno::Errno;
        use super::pipe::{self, Wake};

        pub const SLEEP_FDS_MAX: usize = 2;

        /// Sleeps on the first, which nobody else sleeps on, and the others; whatever the deadline
        /// is, it may be over before one is readable.
        pub fn sleep(fds: &[BorrowedFd<'_>], deadline: Option<Instant>) -> Result<u32, Errno> {
            let first = pipe::of_fd(fds[0].as_raw_fd());
            let others: Vec<_> = fds[1..].iter().map(|fd| pipe::of_fd(fd.as_raw_fd())).collect();
            for other in &others {
                other.watchers.lock().unwrap().push(first.clone());
            }
            let mut is = first.is.lock().unwrap();
            let ready = loop {
                let bits = others.iter().zip(1..);
                let ready = bits.fold(u32::from(*is), |ready, (other, bit)| {
                    ready | (u32::from(other.is_readable()) << bit)
                });
                if ready != 0 || deadline.is_some() {
                    break ready;
                }
                is = first.waiters.wait(is).unwrap();
            };
            drop(is);
            for other in &others {
                other.watchers.lock().unwrap().retain(|watcher| !Arc::ptr_eq(watcher, &first));
            }
            if ready == 0 {
                // The time passes for others, too.
                loom::thread::yield_now();
            }
            Ok(ready)
        }

        /// Of the one poller of an order: readable while something has arrived, or it was used.
        #[derive(Clone)]
        pub struct Notifier {
            pub poller: Arc<Wake>,
            wake: Arc<Wake>,
        }

        impl Notifier {
            pub fn new() -> Notifier {
                let [poller, wake] = [(); 2].map(|()| Arc::new(Wake::new().unwrap()));
                Notifier { poller, wake }
            }

            pub fn notify(&self) {
                self.wake.wake();
                self.poller.wake();
            }

            pub fn fd(&self) -> BorrowedFd<'_> {
                self.poller.fd()
            }

            pub fn rest(&self, deadline: Option<Instant>) {
                let _ = sleep(&[self.wake.fd()], deadline);
                self.forget();
            }

            pub fn forget(&self) {
                self.wake.drain();
            }
        }
    }
}

pub mod turn {
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use crate::io::latch::Latch;
    use crate::sys::poll::{self, Notifier};

    /// What arrives, and where it goes.
    #[derive(Clone)]
    pub struct Arrivals {
        numbers: Arc<Mutex<Vec<usize>>>,
        notifier: Notifier,
    }

    impl Arrivals {
        pub fn arrive(&self, number: usize) {
            self.numbers.lock().unwrap().push(number);
            self.notifier.poller.wake();
        }
    }

    /// A loop that brings each number that arrives to the latch of that number.
    pub struct Turn {
        arrivals: Arrivals,
        pub latches: Vec<Arc<Latch<()>>>,
        pub is_over: bool,
    }

    impl Turn {
        pub fn new(notifier: &Notifier, latches: &[Arc<Latch<()>>]) -> (Turn, Arrivals) {
            let arrivals = Arrivals { numbers: Arc::default(), notifier: notifier.clone() };
            let own = arrivals.clone();
            (Turn { arrivals: own, latches: latches.to_vec(), is_over: false }, arrivals)
        }

        pub fn next_timer(&self) -> Option<Instant> {
            None
        }

        pub fn note_naps(&mut self, _: usize) {}

        /// As the loop on its own thread.
        pub fn poll(&mut self) {
            let _ = poll::sleep(&[self.arrivals.notifier.fd()], None);
            self.serve_lent();
        }

        pub fn serve_lent(&mut self) -> bool {
            self.arrivals.notifier.poller.drain();
            let numbers = std::mem::take(&mut *self.arrivals.numbers.lock().unwrap());
            for number in numbers {
                self.latches[number].put(()).unwrap();
            }
            false
        }
    }
}

pub mod trace {
    #[derive(Clone, Copy)]
    pub enum Level {
        Error,
        Warn,
        Io,
    }

    pub fn wanted(_: Level) -> bool {
        false
    }

    pub fn event(_: Level, _: &'static str, _: &[u64]) {}

    pub fn text(_: Level, _: &'static str, _: &[u64], _: &str) {}
}

pub mod wire {
    pub mod header {
        #[derive(Clone, Copy)]
        pub enum Lane {
            Quick,
            Bulk,
        }
    }
}

pub mod side {
    use std::sync::{Arc, Mutex};

    /// A descriptor that takes so many bytes and no more.
    #[derive(Clone)]
    pub struct Side(Arc<Mutex<usize>>);

    impl Side {
        pub fn with_room(bytes: usize) -> Side {
            Side(Arc::new(Mutex::new(bytes)))
        }

        pub fn number(&self) -> u64 {
            0
        }

        /// The other end reads.
        pub fn make_room(&self, bytes: usize) {
            *self.0.lock().unwrap() += bytes;
        }

        pub fn write(&self, bytes: &[u8]) -> Option<usize> {
            let mut room = self.0.lock().unwrap();
            let count = bytes.len().min(*room);
            *room -= count;
            Some(count)
        }
    }
}
