//! What a Select can wait for: whatever yields items, one or many, and tells when it has one.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::io::broker::Broker;
use crate::io::latch::{Latch, Watcher};

/// What a [`Select`](crate::Select) can wait for: [`Call`](crate::Call) and
/// [`Connecting`](crate::Connecting), which yield once; [`Receiver`](crate::Receiver),
/// [`Channel`](crate::Channel), [`RawReceiver`](crate::RawReceiver), [`Latch`] and `Select` itself,
/// which may also be borrowed or in an [`Arc`].
///
/// It belongs to one `Select` at a time.
#[diagnostic::on_unimplemented(
    message = "a `Select` cannot wait for `{Self}`",
    label = "expected a `Call`, `Connecting`, `Receiver`, `Channel`, `Latch` or `Select`"
)]
pub trait Source: Watched {
    /// What it yields.
    type Item;

    /// Takes the next item, without a wait.
    #[doc(hidden)]
    fn take(&self) -> Taken<Self::Item>;
}

/// What a source had.
#[doc(hidden)]
pub enum Taken<T> {
    /// Nothing, now.
    Nothing,
    /// An item, or an error that is not its end.
    One(Result<T>),
    /// An item that none follows, or why it ends.
    Last(Result<T>),
    /// Nothing, ever.
    End,
}

/// What a source is whatever its items are. Nobody else can name it, so sources are ours alone.
#[doc(hidden)]
pub trait Watched: Send + Sync {
    /// What tells that there is something; none if there was something from the start.
    fn latch(&self) -> Option<&dyn Watchable>;

    /// The loop that its items come from, if that is known.
    fn broker(&self) -> Option<Broker> {
        None
    }

    /// A Select waits for it from now on.
    fn begin(&self) {}

    /// Whether it may have something, or have ended.
    fn may_have(&self) -> bool {
        self.latch().is_none_or(|latch| !latch.is_empty())
    }

    /// Whether it is this Select, by the address of what it waits at, or waits for it.
    fn leads_to(&self, _select: *const ()) -> bool {
        false
    }
}

/// A latch, whatever its items are.
#[doc(hidden)]
pub trait Watchable {
    /// As [`Latch::watch`].
    fn watch(&self, watcher: &Watcher) -> bool;
    /// As [`Latch::unwatch`].
    fn unwatch(&self, watcher: &Watcher);
    /// As [`Latch::is_empty`].
    fn is_empty(&self) -> bool;
}

impl<T> Watchable for Latch<T> {
    fn watch(&self, watcher: &Watcher) -> bool {
        Latch::watch(self, watcher.clone())
    }

    fn unwatch(&self, watcher: &Watcher) {
        Latch::unwatch(self, watcher);
    }

    fn is_empty(&self) -> bool {
        Latch::is_empty(self)
    }
}

/// A source that yields many items, and so may be used beside its Select.
#[doc(hidden)]
pub trait Stream: Source {}

impl<T: Send> Watched for Latch<T> {
    fn latch(&self) -> Option<&dyn Watchable> {
        Some(self)
    }
}

/// Its end is that it is closed.
impl<T: Send> Source for Latch<T> {
    type Item = T;

    fn take(&self) -> Taken<T> {
        match self.try_get() {
            Ok(Some(item)) => Taken::One(Ok(item)),
            Ok(None) => Taken::Nothing,
            Err(_) => Taken::End,
        }
    }
}

impl<T: Send> Stream for Latch<T> {}

impl<S: Stream> Watched for &S {
    fn latch(&self) -> Option<&dyn Watchable> {
        S::latch(self)
    }

    fn broker(&self) -> Option<Broker> {
        S::broker(self)
    }

    fn may_have(&self) -> bool {
        S::may_have(self)
    }

    fn leads_to(&self, select: *const ()) -> bool {
        S::leads_to(self, select)
    }
}

impl<S: Stream> Source for &S {
    type Item = S::Item;

    fn take(&self) -> Taken<S::Item> {
        S::take(self)
    }
}

impl<S: Stream> Watched for Arc<S> {
    fn latch(&self) -> Option<&dyn Watchable> {
        S::latch(self)
    }

    fn broker(&self) -> Option<Broker> {
        S::broker(self)
    }

    fn may_have(&self) -> bool {
        S::may_have(self)
    }

    fn leads_to(&self, select: *const ()) -> bool {
        S::leads_to(self, select)
    }
}

impl<S: Stream> Source for Arc<S> {
    type Item = S::Item;

    fn take(&self) -> Taken<S::Item> {
        S::take(self)
    }
}

/// Stands for a source that was refused.
pub(crate) struct Refused<T> {
    pub(crate) why: Error,
    pub(crate) item: std::marker::PhantomData<fn() -> T>,
}

impl<T> Watched for Refused<T> {
    fn latch(&self) -> Option<&dyn Watchable> {
        None
    }
}

impl<T> Source for Refused<T> {
    type Item = T;

    fn take(&self) -> Taken<T> {
        Taken::Last(Err(self.why.clone()))
    }
}
