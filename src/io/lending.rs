//! How other threads reach a loop, and how one of them turns it: a thread that waits for what the
//! loop brings borrows the turn while it sleeps, so that its answer wakes no other thread.

pub mod loans;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Death, ErrorKind, Result};
use crate::io::latch::Latch;
use crate::io::lending::loans::{Loans, Rest};
use crate::io::sleep::{Seat, Slept, sleep, sleeper};
use crate::io::turn::Turn;
use crate::limits::TURN_NAP;
use crate::lock::{Held, Lock};
use crate::sys::pipe::Wake;
use crate::sys::poll::Notifier;

/// What the loop does on behalf of another thread.
pub(crate) type Task = Box<dyn FnOnce(&mut Turn) + Send>;

/// What a loop has panicked with.
pub(crate) type Panic = Box<dyn Any + Send>;

thread_local! {
    /// The loop that this thread turns, by address.
    static SELF: Cell<usize> = const { Cell::new(0) };
}

/// What a broker does with the turn when nothing is left to be done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Something is left after all.
    Work,
    /// Lends it.
    Lend,
    /// Sleeps with it.
    Sleep,
}

/// Whether the calling thread turns a loop.
pub(crate) fn turns_one() -> bool {
    SELF.get() != 0
}

/// What the threads share that reach one loop, turn it, or wait for it.
pub(crate) struct Lending {
    state: Lock<State>,
    notifier: Notifier,
}

struct State {
    tasks: Vec<Task>,
    /// Why nothing is taken any more.
    closed: Option<Death>,
    loans: Loans,
    /// The turn, while it is with no thread.
    turn: Option<Box<Turn>>,
    /// What the loop has panicked with while it was lent.
    panic: Option<Panic>,
    /// What the broker's thread sleeps on without the turn.
    home: Option<Arc<Wake>>,
    /// What those sleep on that wait.
    waiters: Vec<Arc<Wake>>,
}

impl Lending {
    /// Of a loop whose turn the broker has; `notifier` ends its poll.
    pub(crate) fn new(notifier: Notifier) -> Lending {
        let state = State {
            tasks: Vec::new(),
            closed: None,
            loans: Loans::new(),
            turn: None,
            panic: None,
            home: None,
            waiters: Vec::new(),
        };
        Lending { state: Lock::new(state), notifier }
    }

    fn lock(&self) -> Held<'_, State> {
        self.state.lock()
    }

    /// Has the loop do something, on the broker's own thread.
    ///
    /// # Errors
    /// Why it takes nothing any more; `task` is dropped.
    pub(crate) fn enqueue(&self, task: Task) -> Result<()> {
        let mut state = self.lock();
        if let Some(why) = &state.closed {
            return Err(why.clone().into());
        }
        state.tasks.push(task);
        let (is_first, is_recalled) = (state.tasks.len() == 1, state.loans.recall());
        state.tell(is_recalled);
        drop(state);
        // Who turns the loop looks here before it sleeps.
        if is_first && !is_recalled && !self.is_current() {
            self.notifier.notify();
        }
        Ok(())
    }

    /// What was deferred, in order.
    pub(crate) fn take_tasks(&self) -> Vec<Task> {
        std::mem::take(&mut self.lock().tasks)
    }

    /// One of those, the last first.
    pub(crate) fn take_task(&self) -> Option<Task> {
        self.lock().tasks.pop()
    }

    #[cfg(test)]
    pub(crate) fn tasks_len(&self) -> usize {
        self.lock().tasks.len()
    }

    /// Why nothing is taken any more, if that is so.
    pub(crate) fn closed(&self) -> Option<Death> {
        self.lock().closed.clone()
    }

    /// Takes nothing any more.
    pub(crate) fn close(&self, why: Death) {
        self.lock().closed = Some(why);
    }

    /// Whether the calling thread turns this loop now.
    pub(crate) fn is_current(&self) -> bool {
        SELF.get() == self.address()
    }

    /// The calling thread is the broker's own.
    pub(crate) fn settle(&self) {
        SELF.set(self.address());
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    /// Never lends from now on: to be measured beside.
    pub(crate) fn forbid(&self) {
        self.lock().loans.forbid();
    }

    /// What the broker does next, which has `served` what had arrived, if anything.
    pub(crate) fn next(&self, served: bool) -> Next {
        let mut state = self.lock();
        let is_ripe = served && state.loans.is_ripe(Instant::now());
        match state.tasks.is_empty() {
            false => Next::Work,
            true if is_ripe => Next::Lend,
            true => Next::Sleep,
        }
    }

    /// Lends the turn to those who wait; returns it when it is the broker's again, with what the
    /// loop has panicked with meanwhile.
    pub(crate) fn lend(&self, turn: Box<Turn>) -> (Box<Turn>, Option<Panic>) {
        let Ok(home) = sleeper() else { return (turn, None) };
        let mut state = self.lock();
        if !state.tasks.is_empty() {
            return (turn, None);
        }
        state.loans.lend();
        state.home = Some(Arc::clone(&home));
        state.turn = Some(turn);
        // Who waits already does so without the poller.
        state.waiters.iter().for_each(|waiter| waiter.wake());
        let mut rest = Rest::Nap;
        loop {
            drop(state);
            let until = Instant::now().checked_add(TURN_NAP).filter(|_| rest == Rest::Nap);
            // Whatever has ended the sleep, the state tells what to do.
            let _ = sleep(&home, &[], until);
            state = self.lock();
            rest = state.loans.look();
            let turn = if rest == Rest::Over { state.turn.take() } else { None };
            if let Some(turn) = turn {
                return (turn, state.panic.take());
            }
        }
    }

    /// Takes the next item of what this loop puts into `latch`; sleeps until there is one.
    ///
    /// # Errors
    /// As [`Latch::get_timeout`].
    pub(crate) fn wait<T>(&self, latch: &Latch<T>, deadline: Option<Instant>) -> Result<T> {
        let mut wait = Wait::new(self, deadline);
        loop {
            let slept = std::mem::take(&mut wait.slept);
            if let Some(got) = latch.look(&mut wait.seat, slept) {
                return got;
            }
            wait.sleep();
        }
    }
}

impl State {
    /// Tells the broker that the turn is its own, if it is so `now`.
    fn tell(&self, now: bool) {
        if let (true, Some(home)) = (now, &self.home) {
            home.wake();
        }
    }
}

/// One wait of a thread, which ends with it.
struct Wait<'a> {
    lending: &'a Lending,
    deadline: Option<Instant>,
    seat: Seat,
    slept: Slept,
    /// Whether others know of it.
    begun: bool,
    loan: Option<Loan>,
    /// Whether something has arrived that it is to serve.
    is_ready: bool,
    /// Whether it has served, and does not know yet for whom.
    has_served: bool,
}

/// The right to turn the loop in the broker's place, until that takes it back.
#[derive(Clone, Copy)]
struct Loan {
    number: u32,
    /// When the loop has something to do even if nothing arrives.
    timer: Option<Instant>,
}

impl Wait<'_> {
    fn new(lending: &Lending, deadline: Option<Instant>) -> Wait<'_> {
        Wait {
            lending,
            deadline,
            seat: Seat::default(),
            slept: Slept::Awake,
            begun: false,
            loan: None,
            is_ready: false,
            has_served: false,
        }
    }

    /// After a look that found nothing: sleeps until it is worth another.
    fn sleep(&mut self) {
        if std::mem::take(&mut self.is_ready) {
            self.has_served = true;
            return self.serve();
        }
        if std::mem::take(&mut self.has_served) {
            // It was for others, and there may be more of that.
            self.give();
        }
        while let Some(wake) = self.seat.wake().cloned() {
            self.borrow(&wake);
            let timer = self.loan.and_then(|loan| loan.timer);
            let until = [self.deadline, timer].into_iter().flatten().min();
            let poller = [self.lending.notifier.fd()];
            let also = if self.loan.is_some() { &poller[..] } else { &[] };
            match sleep(&wake, also, until) {
                Ok(ready) if ready & 2 != 0 => (self.is_ready, self.slept) = (true, Slept::Rises),
                Err(error) if until != self.deadline && *error.kind() == ErrorKind::Timeout => {
                    // The timer's work is the broker's.
                    self.give();
                    continue;
                }
                Err(error) => self.slept = Slept::Failed(error),
                Ok(_) => (),
            }
            return;
        }
    }

    /// Takes the turn if nobody has it.
    fn borrow(&mut self, wake: &Arc<Wake>) {
        if self.loan.is_some() {
            return;
        }
        let mut state = self.lending.lock();
        if !std::mem::replace(&mut self.begun, true) {
            state.loans.begin();
            state.waiters.push(wake.clone());
        }
        let Some(number) = state.loans.borrow() else { return };
        let timer = state.turn.as_ref().and_then(|turn| turn.next_timer());
        self.loan = Some(Loan { number, timer });
        drop(state);
        if SELF.get() != 0 {
            // It is in the middle of another loop.
            self.give();
        }
    }

    /// Gives a loan back to the broker.
    fn give(&mut self) {
        if let Some(loan) = self.loan.take() {
            let mut state = self.lending.lock();
            let is_given = state.loans.give(loan.number);
            state.tell(is_given);
        }
    }

    /// Serves what has arrived, unless the broker has taken the turn back.
    fn serve(&mut self) {
        let Some(mut turn) = self.fetch() else { return self.loan = None };
        SELF.set(self.lending.address());
        let ran = catch_unwind(AssertUnwindSafe(|| turn.serve_lent()));
        SELF.set(0);
        let mut state = self.lending.lock();
        let work = !matches!(ran, Ok(false)) || !state.tasks.is_empty();
        state.panic = ran.err();
        state.turn = Some(turn);
        let is_given = state.loans.put_back(work);
        state.tell(is_given);
    }

    fn fetch(&self) -> Option<Box<Turn>> {
        let mut state = self.lending.lock();
        if state.loans.fetch(self.loan?.number) { state.turn.take() } else { None }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if !self.begun {
            return;
        }
        if self.is_ready {
            self.give();
        }
        let mut state = self.lending.lock();
        let own = self.seat.wake().map(Arc::as_ptr);
        state.waiters.retain(|waiter| Some(Arc::as_ptr(waiter)) != own);
        let is_given = state.loans.end(self.loan.map(|loan| loan.number));
        state.tell(is_given);
    }
}
