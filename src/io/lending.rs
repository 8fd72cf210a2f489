//! How other threads reach a loop, and how one of them turns it: a thread that waits for what the
//! loop brings borrows the turn while it sleeps, so that its answer wakes no other thread.

pub mod loans;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Death, Result};
use crate::io::latch::Latch;
use crate::io::lending::loans::{Loans, Rest};
use crate::io::sleep::{Seat, Slept, sleep};
use crate::io::turn::Turn;
use crate::limits::TURN_NAP;
use crate::lock::{Held, Lock};
use crate::sys::pipe::Wake;
use crate::sys::poll::Notifier;

/// What the loop does on behalf of another thread.
pub(crate) type Task = Box<dyn FnOnce(&mut Turn) + Send>;

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
    /// The turn, while no thread has it. The broker's takes it back before it ends, so this drops
    /// none: an agent links no end of it.
    turn: Option<ManuallyDrop<Box<Turn>>>,
    /// What the last thread that began to wait sleeps on.
    waiter: Option<Arc<Wake>>,
}

impl Lending {
    /// Of a loop whose turn the broker has; `notifier` ends its poll.
    pub(crate) fn new(notifier: Notifier) -> Lending {
        let (tasks, loans) = (Vec::new(), Loans::new());
        let state = State { tasks, closed: None, loans, turn: None, waiter: None };
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
        let is_first = state.tasks.len() == 1;
        // Who turns the loop looks here before it sleeps.
        let tells = state.loans.recall() || is_first && !self.is_current();
        drop(state);
        self.tell(tells);
        Ok(())
    }

    /// Tells the broker, if `tells`, that there is something for it to do.
    fn tell(&self, tells: bool) {
        if tells {
            self.notifier.notify();
        }
    }

    /// What was deferred, in order.
    pub(crate) fn take_tasks(&self) -> Vec<Task> {
        mem::take(&mut self.lock().tasks)
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
        let is_ripe = served && state.loans.is_ripe();
        match state.tasks.is_empty() {
            false => Next::Work,
            true if is_ripe => Next::Lend,
            true => Next::Sleep,
        }
    }

    /// Lends the turn to who waits; returns it when it is the broker's again.
    pub(crate) fn lend(&self, turn: Box<Turn>) -> Box<Turn> {
        self.notifier.forget();
        let mut state = self.lock();
        if !state.tasks.is_empty() {
            return turn;
        }
        state.loans.lend();
        state.turn = Some(ManuallyDrop::new(turn));
        // It may have begun to wait again since it was answered: without the poller.
        if let Some(waiter) = &state.waiter {
            waiter.wake();
        }
        let (mut rest, mut naps) = (Rest::Nap, 0);
        loop {
            let timer = state.turn.as_ref().and_then(|turn| turn.next_timer());
            drop(state);
            let now = Instant::now();
            let nap = if rest == Rest::Nap { now.checked_add(TURN_NAP) } else { timer };
            self.notifier.rest(nap);
            naps += 1;
            state = self.lock();
            // The work of timers is the broker's.
            if timer.is_some_and(|at| at <= Instant::now()) {
                state.loans.recall();
            }
            rest = state.loans.look();
            let turn = if rest == Rest::Over { state.turn.take() } else { None };
            if let Some(mut turn) = turn {
                turn.note_naps(naps);
                return ManuallyDrop::into_inner(turn);
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
            let slept = mem::take(&mut wait.slept);
            if let Some(got) = latch.look(&mut wait.seat, slept) {
                return got;
            }
            wait.sleep();
        }
    }
}

/// One wait of a thread, which ends with it.
struct Wait<'a> {
    lending: &'a Lending,
    deadline: Option<Instant>,
    seat: Seat,
    slept: Slept,
    stage: Stage,
    /// The right to turn the loop in the broker's place, until that takes it back.
    loan: Option<u32>,
    /// Whether it leaves something for the broker to do.
    has_more: bool,
}

/// How far a wait is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nobody knows of it.
    New,
    /// It sleeps, or has slept.
    Begun,
    /// Something has arrived that it is to serve.
    Ready,
    /// It has served, and does not know yet for whom.
    Served,
}

impl Wait<'_> {
    fn new(lending: &Lending, deadline: Option<Instant>) -> Wait<'_> {
        let (seat, slept) = (Seat::default(), Slept::Awake);
        Wait { lending, deadline, seat, slept, stage: Stage::New, loan: None, has_more: false }
    }

    /// After a look that found nothing: sleeps until it is worth another.
    fn sleep(&mut self) {
        if self.stage == Stage::Ready {
            self.stage = Stage::Served;
            return self.serve();
        }
        let Some(wake) = self.seat.wake() else { return };
        // Who is in the middle of another loop borrows none.
        if (self.loan.is_none() || self.stage == Stage::Served) && !turns_one() {
            let mut state = self.lending.lock();
            if self.stage == Stage::New {
                state.loans.begin();
                state.waiter = Some(wake.clone());
            }
            // What it has served was for others, and there may be more of that.
            let is_given = self.loan.take().is_some_and(|loan| state.loans.give(loan));
            self.loan = state.loans.borrow();
            self.stage = Stage::Begun;
            drop(state);
            self.lending.tell(is_given);
        }
        let poller = [self.lending.notifier.fd()];
        let also = if self.loan.is_some() { &poller[..] } else { &[] };
        match sleep(wake, also, self.deadline) {
            Ok(ready) if ready & 2 != 0 => {
                (self.stage, self.slept, self.has_more) = (Stage::Ready, Slept::Rises, true);
            }
            Ok(_) => (),
            Err(error) => self.slept = Slept::Failed(error),
        }
    }

    /// Serves what has arrived, unless the broker has taken the turn back.
    fn serve(&mut self) {
        let Some(mut turn) = self.fetch() else { return };
        SELF.set(self.lending.address());
        let ran = catch_unwind(AssertUnwindSafe(|| turn.serve_lent()));
        SELF.set(0);
        let mut state = self.lending.lock();
        self.has_more = *ran.as_ref().unwrap_or(&true);
        if let Err(panic) = ran {
            // The loop's, and no matter of who waits.
            state.tasks.insert(0, Box::new(|_| resume_unwind(panic)));
        }
        self.has_more |= !state.tasks.is_empty();
        state.turn = Some(turn);
        state.loans.put_back();
    }

    fn fetch(&self) -> Option<ManuallyDrop<Box<Turn>>> {
        let mut state = self.lending.lock();
        if state.loans.fetch(self.loan?) { state.turn.take() } else { None }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.stage != Stage::New {
            let is_given = self.lending.lock().loans.end(self.loan, self.has_more);
            self.lending.tell(is_given);
        }
    }
}
