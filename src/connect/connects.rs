//! The contexts of one router that are being connected: the hops of an address one behind the
//! other, what addresses have in common once. All of it happens on the broker's thread; nobody
//! waits in between, so many on their way take no thread.

use std::sync::{Arc, Weak};

use crate::call::router::{Names, Router};
use crate::connect::address::Hop;
use crate::connect::attempts::Attempt;
use crate::connect::debugging::Debugging;
use crate::connect::options::{Base, path_name, recipe};
use crate::connect::places::{Places, Server};
use crate::connect::recipe::Recipe;
use crate::connect::request::{Answerer, ask_to_end};
use crate::connect::slot::{Reached, Slot};
use crate::connect::table::Table;
use crate::error::{Cause, ConnectError, ConnectFailure, Death, Error, Phase, Result};
use crate::ids::ContextId;
use crate::io::turn::Turn;
use crate::lock::{Held, Lock};
use crate::route::files::Files;
use crate::route::node::Node;
use crate::route::pending::Deliver;
use crate::sys::{host, random};
use crate::wire::codec::Writer;
use crate::wire::message::Message;

/// What one router connects, and what it has connected by addresses.
pub struct Connects {
    pub(super) node: Arc<Node>,
    debugging: Debugging,
    /// Told of each that is up, before anybody is given it: it may have something to say by then.
    names: Arc<Names>,
    state: Lock<State>,
}

/// Locked for moments, with no other lock taken inside, and nothing called.
#[derive(Default)]
pub(super) struct State {
    closed: bool,
    /// Who answers where nobody else does.
    answerer: Option<Answerer>,
    /// Whether the end of the router closes this.
    watched: bool,
    ids: u64,
    journeys: Table<Journey>,
    reaches: Table<Reach>,
    /// How many of these make it worth looking for some that are gone.
    reaches_high: usize,
    /// By the number of the reach that they are for.
    pub(super) attempts: Table<Attempt>,
    pub(super) places: Places,
}

/// One who is on the way to a context. Dropped before the end of the way, it is told that it was
/// given up.
struct Journey {
    name: String,
    legs: Vec<Leg>,
    /// Who answers what is asked on the way.
    answerer: Option<Answerer>,
    /// How many of these lie behind it.
    at: usize,
    here: Option<Reached>,
    /// The contexts on its way, and the one that it waits for.
    claims: Vec<u64>,
    slot: Arc<Slot>,
    begun: bool,
}

/// One hop of a journey.
pub struct Leg {
    /// Legs with equal keys lead to one context; one without is nobody else's.
    pub key: Option<String>,
    /// What it takes.
    pub work: Work,
}

/// What a leg takes.
pub enum Work {
    /// This recipe, in that context.
    Recipe(Arc<Recipe>, ContextId, Option<Server>),
    /// A hop of an address.
    Hop(Hop),
}

/// A context that was reached, or is to be.
struct Reach {
    key: Option<String>,
    up: Option<Reached>,
    /// Journeys to go on when it is up.
    waiters: Vec<u64>,
    /// How many journeys lead through it or end here, and are not over.
    claims: usize,
    /// Whether somebody has been given it, or one behind it. Else it ends with the last claim.
    kept: bool,
}

/// What a journey does next.
enum Step {
    /// Nothing; it was given up.
    Over,
    Wait,
    GoOn,
    Launch,
    Fail(Journey, Error),
    Arrive(Arc<Slot>, Reached),
}

impl Connects {
    /// Those of a router.
    pub fn of(router: &Router) -> Arc<Connects> {
        let (debugging, names) = (Debugging::of(router), router.names());
        let (node, state) = (router.node().clone(), Lock::default());
        router.kept(|| Connects { node, debugging, names, state })
    }

    /// Who answers questions where nobody else does.
    pub fn answerer(&self) -> Option<Answerer> {
        self.lock().answerer.clone()
    }

    /// Has this one answer where nobody else does.
    pub fn set_answerer(&self, answerer: Answerer) {
        let before = self.lock().answerer.replace(answerer);
        drop(before);
    }

    /// Sets out; `slot` is told how it ended. Returns the journey's number.
    pub fn start(
        self: &Arc<Self>,
        name: String,
        legs: Vec<Leg>,
        answerer: Option<Answerer>,
        slot: Arc<Slot>,
    ) -> u64 {
        let id = self.lock().new_id();
        let (claims, here) = (Vec::new(), None);
        let journey = Journey { name, legs, answerer, at: 0, here, claims, slot, begun: false };
        let own = self.clone();
        // If the broker has ended, the journey is dropped, and so told.
        let _ = self.node.broker().defer(move |turn| own.begin(turn, id, journey));
        id
    }

    /// Gives a journey up, unless it is over. What was reached for its sake alone is ended.
    pub fn cancel(self: &Arc<Self>, journey: u64) {
        let own = self.clone();
        // An ended broker has ended all.
        let _ = self.node.broker().defer(move |turn| {
            let journey = own.lock().journeys.remove(journey);
            if let Some(journey) = journey {
                own.release(turn, &journey.claims);
            }
        });
    }

    /// A journey's end is in its owner's hands: what is on the way there stays.
    pub fn keep(&self, journey: u64) {
        let mut state = self.lock();
        let Some(journey) = state.journeys.remove(journey) else { return };
        for id in &journey.claims {
            let Some(reach) = state.reaches.get(*id) else { continue };
            reach.claims -= 1;
            reach.kept = true;
            if reach.key.is_none() {
                state.reaches.remove(*id);
            }
        }
        drop(state);
    }

    /// The context that legs with this key lead to, if it is up.
    pub fn find(&self, key: &str) -> Option<Reached> {
        let state = self.lock();
        let found = state.reaches.0.iter().find(|(_, reach)| reach.key.as_deref() == Some(key));
        found?.1.up.clone()
    }

    /// Lets so many attempts go at a time.
    pub fn limit(&self, attempts: usize) {
        self.lock().places.limit(attempts);
    }

    /// Gives all up; what is started later is refused.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        // What is up may still be taken.
        let all = std::mem::replace(&mut *state, State { closed: true, ..State::default() });
        drop(state);
        // Journeys tell that they were given up.
        drop(all);
    }

    /// Whether the router or its loop ends; then all was given up.
    pub(super) fn is_over(&self, turn: &Turn) -> bool {
        let ends = turn.is_stopping() || self.node.is_closed();
        if ends {
            self.close();
        }
        ends || self.lock().closed
    }

    pub(super) fn lock(&self) -> Held<'_, State> {
        self.state.lock()
    }

    fn begin(self: &Arc<Self>, turn: &mut Turn, id: u64, mut journey: Journey) {
        self.watch();
        if self.is_over(turn) {
            return;
        }
        journey.begun = true;
        self.lock().journeys.insert(id, journey);
        self.advance(turn, id);
    }

    /// Sees to it that all is given up when the router ends.
    fn watch(self: &Arc<Self>) {
        if std::mem::replace(&mut self.lock().watched, true) {
            return;
        }
        let end = Arc::new(End(Arc::downgrade(self)));
        if self.node.listen_for_answer(self.node.id(), end).is_err() {
            self.close();
        }
    }

    /// Goes as far as there is something to go by.
    fn advance(self: &Arc<Self>, turn: &mut Turn, id: u64) {
        loop {
            match self.step(id) {
                Step::Over | Step::Wait => return,
                Step::GoOn => (),
                Step::Launch => return self.launch(turn),
                Step::Arrive(slot, reached) => return slot.decide(Ok(reached)),
                Step::Fail(journey, error) => return self.fail(turn, &journey, error),
            }
        }
    }

    fn step(&self, id: u64) -> Step {
        let below = self.node.below();
        let mut debug = Files::default();
        self.debugging.suggest(&mut debug);
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(journey) = state.journeys.get(id) else { return Step::Over };
        let Some(leg) = journey.legs.get(journey.at) else {
            let reached = journey.here.clone();
            return reached.map_or(Step::Over, |here| Step::Arrive(journey.slot.clone(), here));
        };
        let known = leg.key.as_ref().and_then(|key| state.reaches.known(key, &below));
        if let Some((known, reach)) = known {
            journey.claims.push(known);
            reach.claims += 1;
            if let Some(up) = reach.up.clone() {
                journey.at += 1;
                journey.here = Some(up);
                return Step::GoOn;
            }
            reach.waiters.push(id);
            return Step::Wait;
        }
        match leg.attempt(journey.here.as_ref(), &self.node, &debug, journey.answerer.is_some()) {
            Ok(mut attempt) => {
                attempt.answerer.clone_from(&journey.answerer);
                let key = leg.key.clone();
                state.ids += 1;
                journey.claims.push(state.ids);
                state.places.enter(state.ids, attempt.server.clone());
                state.attempts.insert(state.ids, attempt);
                let reach = Reach { key, up: None, waiters: vec![id], claims: 1, kept: false };
                state.add(reach, &below);
                Step::Launch
            }
            Err(error) => {
                let journey = state.journeys.remove(id);
                journey.map_or(Step::Over, |journey| Step::Fail(journey, error))
            }
        }
    }

    /// An attempt is over: those who waited for it go on, or are told why they cannot.
    pub(super) fn arrived(self: &Arc<Self>, turn: &mut Turn, id: u64, outcome: Result<Reached>) {
        if let Ok(up) = &outcome {
            self.names.add(up.id, &up.name, &self.node.below());
        }
        let (waiters, lost) = self.lock().arrived(id, &outcome);
        match (waiters, outcome) {
            // Given up in this moment.
            (None, Ok(reached)) => ask_to_end(&self.node, reached.id),
            (None, Err(_)) => (),
            (Some(waiters), Ok(_)) => waiters.into_iter().for_each(|w| self.advance(turn, w)),
            (_, Err(error)) => lost.iter().for_each(|j| self.fail(turn, j, error.clone())),
        }
    }

    fn fail(self: &Arc<Self>, turn: &mut Turn, journey: &Journey, error: Error) {
        self.release(turn, &journey.claims);
        journey.slot.decide(Err(error));
    }

    /// A journey is over: what nobody else needs, and nobody was given, is ended.
    fn release(self: &Arc<Self>, turn: &mut Turn, claims: &[u64]) {
        for id in claims.iter().rev() {
            let mut state = self.lock();
            let Some(reach) = state.reaches.get(*id) else { continue };
            reach.claims -= 1;
            if 0 < reach.claims || reach.kept {
                continue;
            }
            let up = state.reaches.remove(*id).and_then(|reach| reach.up);
            drop(state);
            match up {
                Some(up) => ask_to_end(&self.node, up.id),
                None => self.give_up(turn, *id),
            }
        }
    }
}

impl State {
    fn new_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Whether somebody waits for this attempt.
    pub(super) fn is_wanted(&mut self, attempt: u64) -> bool {
        self.reaches.get(attempt).is_some()
    }

    /// Notes the outcome of an attempt. Gives who waited for it, none if nobody knows of it; and
    /// those whose journey ends here.
    fn arrived(&mut self, id: u64, outcome: &Result<Reached>) -> (Option<Vec<u64>>, Vec<Journey>) {
        let Some(reach) = self.reaches.get(id) else { return (None, Vec::new()) };
        let waiters = std::mem::take(&mut reach.waiters);
        let Ok(reached) = outcome else {
            self.reaches.remove(id);
            let lost = waiters.iter().filter_map(|id| self.journeys.remove(*id)).collect();
            return (Some(waiters), lost);
        };
        reach.up = Some(reached.clone());
        for waiter in &waiters {
            if let Some(journey) = self.journeys.get(*waiter) {
                journey.at += 1;
                journey.here = Some(reached.clone());
            }
        }
        (Some(waiters), Vec::new())
    }

    /// Adds a reach by the latest number; forgets those that are gone when there are many.
    fn add(&mut self, reach: Reach, below: &[ContextId]) {
        if self.reaches_high <= self.reaches.0.len() {
            self.reaches.0.retain(|(_, reach)| reach.lives(below));
            self.reaches_high = 2 * self.reaches.0.len() + 16;
        }
        self.reaches.insert(self.ids, reach);
    }
}

impl Reach {
    /// Whether it is up, or may come up. `below` is sorted.
    fn lives(&self, below: &[ContextId]) -> bool {
        self.up.as_ref().is_none_or(|up| below.binary_search(&up.id).is_ok())
    }
}

impl Table<Reach> {
    /// The context of a key, if it lives.
    fn known(&mut self, key: &str, below: &[ContextId]) -> Option<(u64, &mut Reach)> {
        let at = self.0.iter().position(|(_, reach)| reach.key.as_deref() == Some(key))?;
        if !self.0[at].1.lives(below) {
            self.0.remove(at);
            return None;
        }
        let (id, reach) = &mut self.0[at];
        Some((*id, reach))
    }
}

impl Leg {
    /// What is to be attempted, from `here`, or from the context of `node`.
    fn attempt(
        &self,
        here: Option<&Reached>,
        node: &Node,
        debug: &Files,
        asks: bool,
    ) -> Result<Attempt> {
        let hop = match &self.work {
            Work::Recipe(recipe, via, server) => {
                return Ok(Attempt::new(*via, recipe.clone(), server.clone()));
            }
            Work::Hop(hop) => hop,
        };
        let parent = match here {
            Some(here) => Some(&*here.name),
            None if node.id() == ContextId::MASTER => None,
            None => Some(&*node.identity().name),
        };
        let via = here.map_or(node.id(), |here| here.id);
        let (common, method) = hop.options();
        let made = fresh(parent, asks, |base| recipe(&*method, &common, base));
        let failed = |failure| failed(path_name(&*method, &common, parent), failure);
        let mut made = made.map_err(failed)?;
        if made.terms.files.debug.is_empty() {
            made.terms.files.debug.clone_from(&debug.debug);
        }
        Ok(Attempt::new(via, Arc::new(made), hop.server(via)))
    }
}

/// Has something made with nonces of its own.
pub fn fresh<T>(parent: Option<&str>, asks: bool, make: impl FnOnce(&Base<'_>) -> T) -> T {
    let digits = host::pid().to_string();
    // Who starts an agent: what `ps` shows there.
    let title = ["mitogen:", &host::user_name(), "@", &host::uname().nodename, ":", &digits];
    let (nonce, answer_nonce) = (random::u64(), random::u64());
    make(&Base { parent, title: &title.concat(), nonce, answer_nonce, asks })
}

/// A failure before anything was started.
pub fn failed(hop: String, failure: ConnectFailure) -> Error {
    let (phase, exit, tail) = (Phase::Prepare, None, String::new());
    ConnectError { failure, phase, hop, exit, typed: false, tail }.into()
}

impl Drop for Journey {
    fn drop(&mut self) {
        self.slot.decide(Err(match self.begun {
            true => failed(std::mem::take(&mut self.name), ConnectFailure::Cancelled),
            false => Error::closed(Cause::Shutdown),
        }));
    }
}

/// Hears of the end of the router.
struct End(Weak<Connects>);

impl Deliver for End {
    fn message(&self, _: &mut Turn, _: Message) {}

    fn dead(&self, turn: &mut Turn, _: ContextId, _: &Death) {
        if let Some(connects) = self.0.upgrade() {
            connects.cancel_timers(turn);
            connects.close();
        }
    }

    fn describe(&self, _: usize, w: &mut Writer<'_>) {
        w.put_u8(6);
    }
}
