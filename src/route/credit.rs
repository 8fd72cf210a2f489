//! The room that is left at each destination: a sender's thread waits for it, the broker's never.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use crate::error::{Cause, Death, Error, ErrorKind, Result};
use crate::ids::{ContextId, Handle};
use crate::io::census::{List, put_all};
use crate::io::sleep::{self, Sleeper};
use crate::limits::WINDOW_BYTES;
use crate::lock::{Held, Lock};
use crate::sys::pipe::Wake;
use crate::wire::codec::Writer;
use crate::wire::header::Lane;

/// Where bytes go.
pub type Target = (ContextId, Handle);

/// What is on its way to each destination and was not granted back.
#[derive(Default)]
pub struct Credit {
    state: Lock<State>,
}

#[derive(Default)]
struct State {
    /// Sorted by target; only those with something outstanding, or somebody who sends.
    accounts: Vec<(Target, Account)>,
    closed: Option<Death>,
}

#[derive(Default)]
struct Account {
    /// Invariant: at most WINDOW_BYTES, or one charge.
    outstanding: usize,
    /// Senders of this context that send there.
    senders: u32,
    /// Whether a fragment is among it: what follows must not pass.
    bulk: bool,
    /// Whether a thread is in the middle of a message of several fragments.
    sending: bool,
    /// Whether that message is announced; then bytes of it that were granted, and not yet sent.
    ahead: Option<usize>,
    /// Announced messages of which not all is known to have arrived.
    unarrived: u32,
    lost: Option<Death>,
    waiting: Vec<Arc<Wake>>,
}

impl Credit {
    /// The lane that keeps the order of what was sent to this destination before.
    pub fn lane(&self, target: Target) -> Lane {
        match self.lock().find(target) {
            Some(account) if account.bulk => Lane::Bulk,
            _ => Lane::Quick,
        }
    }

    /// Takes room for `bytes`, or of what was granted of the announced message; sleeps until there
    /// is so much.
    ///
    /// # Errors
    /// The destination's end, [`ErrorKind::Interrupted`], or [`ErrorKind::Timeout`].
    pub fn take(
        &self,
        target: Target,
        bytes: usize,
        announced: bool,
        deadline: Option<Instant>,
    ) -> Result<()> {
        self.wait(target, deadline, &mut |account| {
            if announced {
                let left = account.ahead.and_then(|ahead| ahead.checked_sub(bytes));
                account.ahead = left.or(account.ahead);
                return left.is_some();
            }
            account.take(bytes)
        })
    }

    /// Takes room for `bytes`, if there is so much now, or nobody who would give any. Returns
    /// whether that is so.
    pub fn try_take(&self, target: Target, bytes: usize) -> bool {
        let mut state = self.lock();
        let taken = state.closed.is_some() || state.account(target).take(bytes);
        state.tidy(target);
        taken
    }

    /// Gives back room for what was not sent.
    pub fn uncharge(&self, target: Target, bytes: usize) {
        let mut state = self.lock();
        if let Some(account) = state.find(target) {
            account.outstanding = account.outstanding.saturating_sub(bytes);
            account.wake();
        }
        state.tidy(target);
    }

    /// Begins a message of several fragments, alone of all threads; sleeps until that can be.
    /// What follows the first of an `announced` one goes as it is granted ([`Credit::go_on`]); else
    /// it is charged.
    ///
    /// # Errors
    /// As for [`Credit::charge`].
    pub fn begin(&self, target: Target, announced: bool, deadline: Option<Instant>) -> Result<()> {
        self.wait(target, deadline, &mut |account| {
            let free = !std::mem::replace(&mut account.sending, true);
            if free {
                account.bulk = true;
                account.ahead = announced.then_some(0);
                account.unarrived += u32::from(announced);
            }
            free
        })
    }

    /// Ends what [`Credit::begin`] began; whether the destination of an announced message is to
    /// tell when all has arrived.
    pub fn end(&self, target: Target, tells: bool) {
        let mut state = self.lock();
        if let Some(account) = state.find(target) {
            account.sending = false;
            let untold = account.ahead.take().is_some() && !tells;
            account.unarrived = account.unarrived.saturating_sub(untold.into());
            let is_one_of_many = target.1 < Handle::FIRST_RANDOM || account.senders == 0;
            if account.lost.is_some() && is_one_of_many {
                // What was charged for the lost message is never granted.
                (account.lost, account.outstanding, account.bulk) = (None, 0, false);
            }
            account.bulk &= account.has_bulk();
            account.wake();
        }
        state.tidy(target);
    }

    /// One more Sender of this context sends there: what it knows of the room stays meanwhile.
    pub fn open(&self, target: Target) {
        self.lock().account(target).senders += 1;
    }

    /// The destination has room again, or for more of the announced message; or, if for none, has
    /// all of such a one.
    pub fn grant(&self, target: Target, bytes: usize) {
        let mut woken = Vec::new();
        let mut state = self.lock();
        if let Some(account) = state.find(target) {
            match &mut account.ahead {
                _ if bytes == 0 => account.unarrived = account.unarrived.saturating_sub(1),
                Some(ahead) => *ahead = ahead.saturating_add(bytes),
                None => account.outstanding = account.outstanding.saturating_sub(bytes),
            }
            account.bulk &= account.has_bulk();
            woken = std::mem::take(&mut account.waiting);
        }
        state.tidy(target);
        drop(state);
        // Who runs at once would only wait for the lock.
        for wake in woken {
            wake.wake();
        }
    }

    /// The destination takes no more: nobody waits for it, and later sends fail.
    pub fn refuse(&self, target: Target, death: Death) {
        let mut state = self.lock();
        let Some(account) = state.find(target) else { return };
        // Where no Sender sends one message was refused, and not what follows.
        let is_receiver = Handle::FIRST_RANDOM <= target.1;
        if account.sending || is_receiver && 0 < account.senders {
            account.lost = Some(death);
            account.wake_lost();
        } else if is_receiver || is_out_of_reach(death.cause) || target.1 == Handle::FORWARD_LOG {
            // Nobody there will grant what was charged for it.
            (account.outstanding, account.unarrived, account.bulk) = (0, 0, false);
            account.wake();
        }
        state.tidy(target);
    }

    /// A Sender of this context sends there no more.
    pub fn forget(&self, target: Target) {
        let mut state = self.lock();
        let Some(account) = state.find(target) else { return };
        account.senders = account.senders.saturating_sub(1);
        if account.senders == 0 && !account.sending {
            state.remove(target);
        }
    }

    /// The contexts that somebody sends to.
    pub fn targets(&self) -> Vec<ContextId> {
        self.lock().accounts.iter().map(|((dst, _), _)| *dst).collect()
    }

    /// A context is gone: nobody waits for it any longer.
    pub fn lost(&self, id: ContextId, death: &Death) {
        let mut state = self.lock();
        state.accounts.retain_mut(|((dst, _), account)| {
            if *dst != id {
                return true;
            }
            account.lost = Some(death.clone());
            (account.outstanding, account.unarrived) = (0, 0);
            account.wake_lost();
            account.is_needed()
        });
    }

    /// This context is shut down, or has failed.
    pub fn close(&self, death: &Death) {
        let mut state = self.lock();
        state.closed = Some(death.clone());
        for (_, account) in &mut state.accounts {
            account.wake();
        }
    }

    /// Whether nobody would have to sleep who sends so much.
    #[cfg(test)]
    pub(super) fn has_room(&self, target: Target, bytes: usize) -> bool {
        let mut state = self.lock();
        let full = |a: &mut Account| 0 < a.outstanding && WINDOW_BYTES < a.outstanding + bytes;
        !state.find(target).is_some_and(|account| account.lost.is_none() && full(account))
    }

    /// Whether nobody would have to sleep who begins a message of several fragments, or goes on
    /// with the announced one.
    #[cfg(test)]
    pub(super) fn is_ready(&self, target: Target, go_on: Option<usize>) -> bool {
        let mut state = self.lock();
        let Some(account) = state.find(target) else { return go_on.is_none() };
        let granted = |bytes| account.ahead.is_some_and(|ahead| bytes <= ahead);
        account.lost.is_some() || go_on.map_or(!account.sending, granted)
    }

    /// Appends where somebody waits, then where something is outstanding.
    pub fn put(&self, max: usize, w: &mut Writer<'_>) {
        let state = self.lock();
        let mut list = List::new(max);
        for waits in [true, false] {
            for ((dst, handle), account) in &state.accounts {
                let held = account.waiting.len();
                let is_told = if waits { 0 < held } else { held == 0 && account.has_bulk() };
                if is_told && list.has_room(w) {
                    let (bytes, ahead) = (account.outstanding as u64, account.ahead.is_some());
                    let (dst, handle) = (dst.0.into(), handle.0.into());
                    put_all(&[dst, handle, bytes, held as u64, ahead.into()], w);
                }
            }
        }
        list.end(w);
    }

    /// Where something is outstanding.
    #[cfg(test)]
    pub(super) fn accounts(&self) -> Vec<Target> {
        self.lock().accounts.iter().map(|(target, _)| *target).collect()
    }

    fn wait(
        &self,
        target: Target,
        deadline: Option<Instant>,
        ready: &mut dyn FnMut(&mut Account) -> bool,
    ) -> Result<()> {
        let (mut mine, mut failed) = (None::<Sleeper>, None);
        loop {
            let wake = {
                let mut state = self.lock();
                if let Some(death) = &state.closed {
                    return Err(death.clone().into());
                }
                let account = state.account(target);
                if let Some(mine) = &mine {
                    account.waiting.retain(|wake| !Arc::ptr_eq(wake, mine));
                }
                let lost = account.lost.clone().map(Error::from);
                let is_ready = lost.is_none() && ready(account);
                let error = lost.or(failed.filter(|_| !is_ready));
                if is_ready || error.is_some() {
                    state.tidy(target);
                    return error.map_or(Ok(()), Err);
                }
                let wake = match &mut mine {
                    Some(wake) => wake,
                    none => none.insert(sleep::sleeper()?),
                };
                account.waiting.push(Arc::clone(wake));
                wake
            };
            failed = sleep::sleep(wake, &[], deadline).err();
        }
    }

    fn lock(&self) -> Held<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn place(&self, target: Target) -> Result<usize, usize> {
        self.accounts.binary_search_by_key(&target, |(t, _)| *t)
    }

    fn find(&mut self, target: Target) -> Option<&mut Account> {
        let at = self.place(target).ok()?;
        Some(&mut self.accounts[at].1)
    }

    fn account(&mut self, target: Target) -> &mut Account {
        let at = self.place(target).unwrap_or_else(|at| {
            self.accounts.insert(at, (target, Account::default()));
            at
        });
        &mut self.accounts[at].1
    }

    fn remove(&mut self, target: Target) {
        if let Ok(at) = self.place(target) {
            self.accounts.remove(at);
        }
    }

    fn tidy(&mut self, target: Target) {
        if self.find(target).is_some_and(|account| !account.is_needed()) {
            self.remove(target);
        }
    }
}

impl Account {
    /// Takes room, if there is so much.
    fn take(&mut self, bytes: usize) -> bool {
        let room = self.outstanding == 0 || self.outstanding + bytes <= WINDOW_BYTES;
        if room {
            self.outstanding += bytes;
        }
        room
    }

    fn is_needed(&self) -> bool {
        self.has_bulk() || 0 < self.senders || !self.waiting.is_empty()
    }

    fn has_bulk(&self) -> bool {
        0 < self.outstanding || self.sending || 0 < self.unarrived
    }

    fn wake(&mut self) {
        self.wake_lost();
        self.waiting.clear();
    }

    /// Wakes those that each are to find the loss here.
    fn wake_lost(&self) {
        for wake in &self.waiting {
            wake.wake();
        }
    }
}

/// Whether nothing gets to who is said to be gone so.
pub fn is_out_of_reach(cause: Cause) -> bool {
    matches!(cause, Cause::NoRoute | Cause::Disconnected | Cause::Unidirectional)
}

/// Whether a wait failed because a signal was handled.
pub fn was_interrupted(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted)
}
