//! A broker's users: it ends with the last of them, and what is one's own ends with that one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Broker;
use crate::error::{Cause, Error, Result};
use crate::io::lending;
use crate::io::promise::promise;
use crate::io::turn::Tenant;
use crate::limits::{END_WAIT, SHUTDOWN_GRACE};

impl Broker {
    /// A broker that routers are to share: each program names it with
    /// [`Program::broker`](crate::Program::broker). It ends when the last of them and the last
    /// clone of this is dropped, or by [`Broker::shutdown`].
    ///
    /// # Errors
    /// [`ErrorKind::System`](crate::error::ErrorKind) if there is no room for a thread or
    /// descriptors.
    pub fn new() -> Result<Broker> {
        let broker = Broker::start()?;
        let user = Arc::new(User(broker.clone()));
        // Nobody else has it yet.
        let _ = broker.shared.users.set(Arc::downgrade(&user));
        Ok(Broker { _user: Some(user), ..broker })
    }

    /// The same broker, which lasts as long as what this returns; [`Broker::weak`] does not.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::error::ErrorKind) if it has ended, `Usage` for a child's.
    pub(crate) fn keep(&self) -> Result<Broker> {
        self.forbid_copy()?;
        let Some(users) = self.shared.users.get() else {
            return Err(Error::usage("the broker of a child serves nobody else"));
        };
        let user = users.upgrade().ok_or_else(|| Error::closed(Cause::Shutdown))?;
        // It may be shut down already.
        self.defer(|_| ())?;
        Ok(Broker { _user: Some(user), ..self.clone() })
    }

    /// The same broker; nobody's end is put off by it.
    pub(crate) fn weak(&self) -> Broker {
        Broker { shared: self.shared.clone(), _user: None }
    }

    /// Another one of those that the broker serves.
    pub(crate) fn tenant(&self) -> Tenant {
        Tenant(self.shared.tenants.fetch_add(1, Ordering::Relaxed))
    }

    /// Ends what is a tenant's, and waits until nothing is left of that; not on a broker's thread.
    pub(crate) fn end(&self, tenant: Tenant) {
        let (promise, gone) = promise();
        // An ended broker has closed everything.
        if self.defer(move |turn| turn.leave(tenant, promise)).is_ok() {
            self.wait_long(|deadline| gone.wait(deadline).is_ok());
        }
    }

    /// Waits for the end if nobody uses the broker any more, and until the last callback has run;
    /// not on a broker's thread, nor in a callback for itself.
    pub(crate) fn join_unused(&self) {
        if self.shared.users.get().is_some_and(|users| users.strong_count() == 0) {
            self.wait_long(|deadline| self.shared.ended.wait_closed(deadline).is_ok());
            if !lending::turns_one() {
                self.wait_for_callbacks(SHUTDOWN_GRACE);
            }
        }
    }

    /// Waits for the loop, whatever signals come, but not for one that is stuck.
    fn wait_long(&self, done: impl Fn(Option<Instant>) -> bool) {
        let deadline = Instant::now() + END_WAIT;
        if !lending::turns_one() && !self.is_copy() {
            while !done(Some(deadline)) && Instant::now() < deadline {}
        }
    }
}

/// The users of a broker, together; its end is the broker's.
pub(super) struct User(Broker);

impl Drop for User {
    fn drop(&mut self) {
        self.0.shutdown();
        self.0.join_unused();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::ErrorKind;

    fn is_shut_down(result: Result<Broker>) -> bool {
        matches!(result.err().map(Error::into_kind), Some(ErrorKind::Closed(_)))
    }

    #[test]
    fn a_broker_lasts_as_long_as_one_of_its_users() {
        let broker = Broker::new().unwrap();
        let (weak, kept) = (broker.weak(), broker.weak().keep().unwrap());
        drop((broker.clone(), broker));
        weak.defer_sync(|_| ()).unwrap();
        drop(kept);
        assert!(weak.join_timeout(Duration::ZERO));
        assert!(is_shut_down(weak.keep()));
        let (broker, other) = (Broker::new().unwrap(), Broker::start().unwrap());
        broker.shutdown();
        broker.join();
        assert!(is_shut_down(broker.keep()));
        assert!(matches!(other.keep().err().unwrap().kind(), ErrorKind::Usage(_)));
        other.shutdown();
    }
}
