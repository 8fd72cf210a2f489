//! Attempts to start one context each: queued until there is room, and tried again where a busy
//! server turned them away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::connect::child::Connected;
use crate::connect::connects::{Connects, State, failed};
use crate::connect::meaning;
use crate::connect::places::Server;
use crate::connect::recipe::Recipe;
use crate::connect::request::{self, Answerer, Refusal, Ticket, ask_to_end};
use crate::connect::slot::Reached;
use crate::error::{ConnectFailure, Error, ErrorKind, Result};
use crate::ids::ContextId;
use crate::io::timers::TimerId;
use crate::io::turn::Turn;
use crate::limits::{RETRY_PAUSE, RETRY_PAUSE_MAX, SHUTDOWN_GRACE};
use crate::sys::random;

/// One context that is to be started.
pub(super) struct Attempt {
    via: ContextId,
    pub(super) server: Option<Server>,
    recipe: Arc<Recipe>,
    pub(super) answerer: Option<Answerer>,
    /// When its time is over; runs from when it first leaves the queue.
    deadline: Option<Instant>,
    /// The next pause, if it is turned away once more.
    pause: Duration,
    /// Why it was turned away.
    busy: Option<Error>,
    stage: Stage,
    ticket: Option<Ticket>,
    timer: Option<TimerId>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Flying,
    Pausing,
}

/// What a timer of an attempt does, by its number.
type Then = fn(&Arc<Connects>, &mut Turn, u64);

impl Attempt {
    pub(super) fn new(via: ContextId, recipe: Arc<Recipe>, server: Option<Server>) -> Attempt {
        let (pause, stage) = (RETRY_PAUSE, Stage::Waiting);
        let (answerer, deadline, busy, ticket, timer) = (None, None, None, None, None);
        Attempt { via, server, recipe, answerer, deadline, pause, busy, stage, ticket, timer }
    }

    /// The time that is left; all of it until the first try.
    fn left(&self, now: Instant) -> Duration {
        let all = Duration::from_millis(self.recipe.timeout_ms);
        self.deadline.map_or(all, |deadline| deadline.saturating_duration_since(now))
    }

    /// How long to pause before the next try, if there is time for one.
    fn pause(&mut self, now: Instant) -> Option<Duration> {
        let pause = shortened(self.pause, random::u32());
        self.pause = (2 * self.pause).min(RETRY_PAUSE_MAX);
        Some(pause).filter(|pause| *pause < self.left(now))
    }

    /// As whoever waits is told.
    fn outcome(&self, outcome: Result<Connected, Refusal>) -> Result<Reached> {
        let name = &self.recipe.name;
        match outcome {
            Ok(Connected { id, pushed_bytes, elapsed_us }) => {
                Ok(Reached { id, name: (**name).into(), pushed_bytes, elapsed_us })
            }
            Err(Refusal::Failed(mut error)) => {
                meaning::explain(&self.recipe, &mut error);
                if error.hop.is_empty() {
                    error.hop.clone_from(name);
                }
                Err(Error::from(*error))
            }
            Err(Refusal::Gone(death)) => Err(failed(name.clone(), ConnectFailure::ViaGone(death))),
        }
    }

    /// Why it could not be asked for. A context that is gone already is a failed connect, as one
    /// that goes meanwhile is.
    fn unasked(&self, error: Error) -> Error {
        match error.into_kind() {
            ErrorKind::Closed(death) if !death.is_own() => {
                failed(self.recipe.name.clone(), ConnectFailure::ViaGone(death))
            }
            kind => Error::new(kind),
        }
    }
}

/// A time shortened by up to half.
fn shortened(time: Duration, random: u32) -> Duration {
    time / 2 + (time / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

fn failed_by<T>(outcome: &Result<T>, failure: ConnectFailure) -> bool {
    let kind = outcome.as_ref().err().map(Error::kind);
    matches!(kind, Some(ErrorKind::Connect(error)) if error.failure == failure)
}

impl Connects {
    /// Starts what there is room for.
    pub(super) fn launch(self: &Arc<Self>, turn: &mut Turn) {
        while !self.is_over(turn) {
            let Some(id) = self.lock().places.next() else { return };
            self.fly(turn, id);
        }
    }

    fn fly(self: &Arc<Self>, turn: &mut Turn, id: u64) {
        let now = Instant::now();
        let mut state = self.lock();
        let Some(attempt) = state.attempts.get(id) else { return };
        let left = attempt.left(now);
        attempt.deadline = attempt.deadline.or(now.checked_add(left));
        Arc::make_mut(&mut attempt.recipe).timeout_ms = left.as_millis() as u64;
        attempt.stage = Stage::Flying;
        let timer = attempt.timer.take();
        let (via, recipe) = (attempt.via, attempt.recipe.clone());
        let answerer = attempt.answerer.clone();
        drop(state);
        timer.into_iter().for_each(|timer| turn.cancel(timer));
        let own = self.clone();
        let taker = Box::new(move |turn: &mut Turn, outcome: Result<Connected, Refusal>| {
            own.landed(turn, id, outcome);
        });
        match request::ask(&self.node, via, &recipe, answerer, taker) {
            Ok(ticket) => {
                if let Some(attempt) = self.lock().attempts.get(id) {
                    attempt.ticket = Some(ticket);
                }
                // Who makes the connection has timers of its own, but may itself be stuck.
                self.after(turn, id, left.saturating_add(SHUTDOWN_GRACE), Connects::late);
            }
            Err(error) => {
                let error = self.lock().attempts.get(id).map(|attempt| attempt.unasked(error));
                error.into_iter().for_each(|error| self.over(turn, id, Err(error)));
            }
        }
    }

    /// Sets the one timer of an attempt, unless it is over.
    fn after(self: &Arc<Self>, turn: &mut Turn, id: u64, pause: Duration, then: Then) {
        let (own, now) = (self.clone(), Instant::now());
        let at = now.checked_add(pause).unwrap_or(now);
        let timer = turn.timer(at, Box::new(move |turn| then(&own, turn, id)));
        let before = match self.lock().attempts.get(id) {
            Some(attempt) => attempt.timer.replace(timer),
            None => Some(timer),
        };
        before.into_iter().for_each(|timer| turn.cancel(timer));
    }

    /// A try has come to its end.
    fn landed(self: &Arc<Self>, turn: &mut Turn, id: u64, outcome: Result<Connected, Refusal>) {
        let mut guard = self.lock();
        let state: &mut State = &mut guard;
        let wanted = state.is_wanted(id);
        let Some(attempt) = state.attempts.get(id) else {
            drop(guard);
            return outcome.map_or((), |connected| ask_to_end(&self.node, connected.id));
        };
        let mut outcome = attempt.outcome(outcome);
        let is_busy = wanted && failed_by(&outcome, ConnectFailure::Busy);
        let Some(pause) = is_busy.then(|| attempt.pause(Instant::now())).flatten() else {
            if failed_by(&outcome, ConnectFailure::Timeout) {
                // The last try had what the others left of the time: they say what took it.
                outcome = attempt.busy.take().map_or(outcome, Err);
            }
            drop(guard);
            self.over(turn, id, outcome);
            return self.launch(turn);
        };
        attempt.stage = Stage::Pausing;
        attempt.ticket = None;
        attempt.busy = outcome.err();
        state.places.pause();
        drop(guard);
        self.after(turn, id, pause, Connects::resume);
        self.launch(turn);
    }

    /// The pause is over; what is left of the time begins anew.
    fn resume(self: &Arc<Self>, turn: &mut Turn, id: u64) {
        let mut guard = self.lock();
        let state: &mut State = &mut guard;
        let Some(attempt) = state.attempts.get(id) else { return };
        attempt.stage = Stage::Waiting;
        attempt.timer = None;
        let left = attempt.left(Instant::now());
        state.places.resume(id, attempt.server.clone());
        drop(guard);
        self.after(turn, id, left, Connects::late);
        self.launch(turn);
    }

    /// The time of an attempt is over, while it waits for another try or whoever makes it is stuck.
    fn late(self: &Arc<Self>, turn: &mut Turn, id: u64) {
        let mut state = self.lock();
        let Some(attempt) = state.attempts.get(id) else { return };
        let (name, ticket) = (attempt.recipe.name.clone(), attempt.ticket.take());
        let error = attempt.busy.take().filter(|_| attempt.stage == Stage::Waiting);
        drop(state);
        ticket.iter().for_each(Ticket::cancel);
        let error = error.unwrap_or_else(|| failed(name, ConnectFailure::Timeout));
        self.over(turn, id, Err(error));
        self.launch(turn);
    }

    /// An attempt is wanted no more.
    pub(super) fn give_up(self: &Arc<Self>, turn: &mut Turn, id: u64) {
        let mut state = self.lock();
        let Some(attempt) = state.attempts.get(id) else { return };
        if attempt.stage == Stage::Flying {
            // It holds its place until it has come down.
            let ticket = attempt.ticket.take();
            drop(state);
            return ticket.iter().for_each(Ticket::cancel);
        }
        drop(state);
        self.remove(turn, id);
        self.launch(turn);
    }

    /// The router ends: nothing is left for a timer to do.
    pub(super) fn cancel_timers(&self, turn: &mut Turn) {
        let mut state = self.lock();
        let timers: Vec<TimerId> =
            state.attempts.0.iter_mut().filter_map(|(_, attempt)| attempt.timer.take()).collect();
        drop(state);
        timers.into_iter().for_each(|timer| turn.cancel(timer));
    }

    fn over(self: &Arc<Self>, turn: &mut Turn, id: u64, outcome: Result<Reached>) {
        self.remove(turn, id);
        self.arrived(turn, id, outcome);
    }

    /// Forgets an attempt, and what it held.
    fn remove(&self, turn: &mut Turn, id: u64) {
        let mut guard = self.lock();
        let state: &mut State = &mut guard;
        let Some(attempt) = state.attempts.remove(id) else { return };
        match attempt.stage {
            Stage::Waiting => state.places.forget(id),
            Stage::Flying => state.places.leave(attempt.server.as_ref()),
            Stage::Pausing => state.places.let_go(attempt.server.as_ref()),
        }
        drop(guard);
        attempt.timer.into_iter().for_each(|timer| turn.cancel(timer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_shortened_by_up_to_half() {
        let second = Duration::from_secs(1);
        assert_eq!(shortened(second, 0), second / 2);
        assert_eq!(shortened(second, u32::MAX), second);
        let recipe = Recipe { timeout_ms: 60_000, ..Recipe::default() };
        let mut attempt = Attempt::new(ContextId::MASTER, Arc::new(recipe), None);
        let now = Instant::now();
        let mut longest = RETRY_PAUSE;
        for _ in 0..10 {
            let pause = attempt.pause(now).unwrap();
            assert!(longest / 2 <= pause && pause <= longest, "{pause:?} of {longest:?}");
            longest = (2 * longest).min(RETRY_PAUSE_MAX);
        }
        attempt.deadline = Some(now + RETRY_PAUSE_MAX / 2);
        assert_eq!(attempt.pause(now), None);
    }
}
