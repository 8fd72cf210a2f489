//! The room that is left at each destination: a sender's thread waits for it, the broker's never.

use std::sync::Arc;

use crate::error::{Cause, Death, Error, ErrorKind, Result};
use crate::ids::{ContextId, Handle};
use crate::io::sleep::{self, Sleeper};
use crate::limits::WINDOW_BYTES;
use crate::lock::{Held, Lock};
use crate::sys::pipe::Wake;
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

    /// Takes room for `bytes`; sleeps until there is.
    ///
    /// # Errors
    /// The destination's end, or [`ErrorKind::Interrupted`].
    pub fn charge(&self, target: Target, bytes: usize) -> Result<()> {
        self.wait(target, &mut |account| {
            let room = account.outstanding == 0 || account.outstanding + bytes <= WINDOW_BYTES;
            if room {
                account.outstanding += bytes;
            }
            room
        })
    }

    /// Begins a message of several fragments, alone of all threads; sleeps until that can be.
    pub fn begin(&self, target: Target) -> Result<()> {
        self.wait(target, &mut |account| {
            let free = !std::mem::replace(&mut account.sending, true);
            account.bulk |= free;
            free
        })
    }

    /// Ends what [`Credit::begin`] began.
    pub fn end(&self, target: Target) {
        let mut state = self.lock();
        if let Some(account) = state.find(target) {
            account.sending = false;
            let is_one_of_many = target.1 < Handle::FIRST_RANDOM || account.senders == 0;
            if account.lost.is_some() && is_one_of_many {
                // What was charged for the lost message is never granted.
                (account.lost, account.outstanding, account.bulk) = (None, 0, false);
            }
            account.wake();
        }
        state.tidy(target);
    }

    /// One more Sender of this context sends there: what it knows of the room stays meanwhile.
    pub fn open(&self, target: Target) {
        self.lock().account(target).senders += 1;
    }

    /// The destination has room again.
    pub fn grant(&self, target: Target, bytes: usize) {
        let mut state = self.lock();
        if let Some(account) = state.find(target) {
            account.outstanding = account.outstanding.saturating_sub(bytes);
            account.bulk &= 0 < account.outstanding || account.sending;
            account.wake();
        }
        state.tidy(target);
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
        } else if is_receiver || is_out_of_reach(death.cause) {
            // Nobody there will grant what was charged for it.
            (account.outstanding, account.bulk) = (0, false);
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
            account.outstanding = 0;
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

    /// Where something is outstanding.
    #[cfg(test)]
    pub(super) fn accounts(&self) -> Vec<Target> {
        self.lock().accounts.iter().map(|(target, _)| *target).collect()
    }

    fn wait(&self, target: Target, ready: &mut dyn FnMut(&mut Account) -> bool) -> Result<()> {
        let mut mine: Option<Sleeper> = None;
        loop {
            let wake = {
                let mut state = self.lock();
                if let Some(death) = &state.closed {
                    return Err(death.clone().into());
                }
                let account = state.account(target);
                if let Some(death) = account.lost.clone() {
                    if let Some(mine) = &mine {
                        account.waiting.retain(|wake| !Arc::ptr_eq(wake, mine));
                    }
                    return Err(death.into());
                }
                if ready(account) {
                    return Ok(());
                }
                let wake = match &mut mine {
                    Some(wake) => wake,
                    none => none.insert(sleep::sleeper()?),
                };
                account.waiting.push(Arc::clone(wake));
                wake
            };
            sleep::sleep(wake, &[], None)?;
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
    fn is_needed(&self) -> bool {
        0 < self.outstanding || self.sending || 0 < self.senders || !self.waiting.is_empty()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Cause;

    const THERE: Target = (ContextId(5), Handle::FIRST_RANDOM);

    #[test]
    fn a_window_fills_and_grants_make_room() {
        let credit = Arc::new(Credit::default());
        credit.charge(THERE, WINDOW_BYTES).unwrap();
        let other = credit.clone();
        let waiter = std::thread::spawn(move || other.charge(THERE, 10));
        while credit.lock().account(THERE).waiting.is_empty() {
            std::thread::yield_now();
        }
        credit.grant(THERE, 10);
        waiter.join().unwrap().unwrap();
        credit.grant(THERE, WINDOW_BYTES);
        assert!(credit.lock().accounts.is_empty());
    }

    #[test]
    fn a_lost_destination_fails_who_waits_for_room() {
        let credit = Arc::new(Credit::default());
        credit.charge(THERE, WINDOW_BYTES).unwrap();
        let other = credit.clone();
        let waiter = std::thread::spawn(move || {
            other.begin(THERE).unwrap();
            let charged = other.charge(THERE, 1);
            other.end(THERE);
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
        credit.begin(THERE).unwrap();
        credit.charge(THERE, 100).unwrap();
        credit.end(THERE);
        assert_eq!(credit.lane(THERE), Lane::Bulk);
        credit.grant(THERE, 100);
        assert_eq!(credit.lane(THERE), Lane::Quick);
    }

    #[test]
    fn every_thread_that_waits_learns_why_a_destination_is_lost() {
        let credit = Arc::new(Credit::default());
        credit.charge(THERE, WINDOW_BYTES).unwrap();
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let credit = credit.clone();
                std::thread::spawn(move || credit.charge(THERE, 1).unwrap_err())
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
        credit.begin(THERE).unwrap();
        let other = credit.clone();
        let second = std::thread::spawn(move || other.begin(THERE));
        while credit.lock().account(THERE).waiting.is_empty() {
            std::thread::yield_now();
        }
        assert!(!second.is_finished());
        credit.end(THERE);
        second.join().unwrap().unwrap();
    }

    #[test]
    fn a_closed_receiver_or_a_shutdown_ends_the_wait_for_room() {
        for shutdown in [false, true] {
            let credit = Arc::new(Credit::default());
            credit.open(THERE);
            credit.charge(THERE, WINDOW_BYTES).unwrap();
            let other = credit.clone();
            let waiter = std::thread::spawn(move || other.charge(THERE, 1).unwrap_err());
            while credit.lock().account(THERE).waiting.is_empty() {
                std::thread::yield_now();
            }
            let cause = if shutdown { Cause::Shutdown } else { Cause::ReceiverClosed };
            match shutdown {
                true => credit.close(&Death::of(cause)),
                false => credit.refuse(THERE, Death::of(cause)),
            }
            assert_eq!(waiter.join().unwrap(), Death::of(cause));
            assert_eq!(credit.charge(THERE, 1).unwrap_err(), Death::of(cause));
        }
    }

    #[test]
    fn what_was_charged_for_a_request_that_got_nowhere_is_forgotten() {
        let (credit, call) = (Credit::default(), (THERE.0, Handle::CALL));
        let lost = [Cause::NoRoute, Cause::Disconnected, Cause::Unidirectional];
        for (cause, kept) in lost.map(|cause| (cause, 0)).into_iter().chain([(Cause::TooLarge, 1)])
        {
            credit.begin(call).unwrap();
            credit.charge(call, 10).unwrap();
            credit.end(call);
            credit.refuse(call, Death::of(cause).at(THERE.0));
            assert_eq!(credit.accounts().len(), kept, "{cause:?}");
        }
    }

    #[test]
    fn more_granted_than_is_out_makes_no_larger_window() {
        let credit = Credit::default();
        credit.charge(THERE, 10).unwrap();
        credit.grant(THERE, usize::MAX);
        credit.grant(THERE, WINDOW_BYTES);
        credit.charge(THERE, 1).unwrap();
        assert_eq!(credit.lock().account(THERE).outstanding, 1);
    }

    impl PartialEq<Death> for Error {
        fn eq(&self, death: &Death) -> bool {
            matches!(self.kind(), crate::error::ErrorKind::Closed(d) if d == death)
        }
    }
}
