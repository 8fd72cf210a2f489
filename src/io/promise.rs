//! One item that a thread waits for, and that whoever promised it brings, or is known not to.

use std::sync::Arc;
use std::time::Instant;

use crate::error::{Cause, Error, Result};
use crate::io::latch::Latch;
use crate::lock::{self, Lock};

/// One item to come; that it does not is known when this is dropped.
pub(crate) struct Promise<T>(Arc<Promised<T>>);

/// Where a promise is kept.
pub(crate) struct Promised<T> {
    item: Lock<Option<T>>,
    /// Closed when the item is there, or will not come.
    done: Latch<()>,
}

/// A promise, and where it is kept.
pub(crate) fn promise<T>() -> (Promise<T>, Arc<Promised<T>>) {
    let promised = Arc::new(Promised { item: Lock::new(None), done: Latch::new() });
    (Promise(promised.clone()), promised)
}

impl<T> Promise<T> {
    /// Hands over what was promised.
    pub(crate) fn keep(self, item: T) {
        *self.0.item() = Some(item);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.0.done.close();
    }
}

impl<T> Promised<T> {
    /// The item; sleeps until there is one. For one caller.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the promise was not kept; [`ErrorKind::System`] as [`Latch::get`].
    pub(crate) fn get(&self) -> Result<T> {
        self.done.wait_closed(None)?;
        self.item().take().ok_or_else(|| Error::closed(Cause::ReceiverClosed))
    }

    /// Sleeps until the promise is kept or will not be.
    ///
    /// # Errors
    /// As [`Latch::get_timeout`].
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Result<()> {
        self.done.wait_closed(deadline)
    }

    fn item(&self) -> lock::Held<'_, Option<T>> {
        self.item.lock()
    }
}
