//! What is known of each context of a watched tree, by what happened and by what was seen. Pure:
//! it knows neither a terminal nor the library's router.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long a context that nobody asked for is shown when it is gone.
pub const LINGER: Duration = Duration::from_secs(10);
/// Where more of them are gone, they leave as soon as they were shown.
const LINGERING_MAX: usize = 100;
/// Ends that are kept of contexts that we have not heard of; the oldest are forgotten.
const EARLY_MAX: usize = 1024;

/// How a context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is being brought up.
    Connecting,
    /// It is there.
    Up,
    /// It is there, as far as we know, and does not answer.
    Silent,
    /// It was there, and is no more; why.
    Gone(String),
    /// It never was there; why.
    Failed(String),
}

impl State {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            State::Connecting => "connecting",
            State::Up => "up",
            State::Silent => "does not answer",
            State::Gone(_) => "gone",
            State::Failed(_) => "failed",
        }
    }

    /// Why, of what is not there.
    pub fn why(&self) -> Option<&str> {
        match self {
            State::Gone(why) | State::Failed(why) => Some(why),
            _ => None,
        }
    }
}

/// Numbers of a context that only grow; or by how much they grew in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Microseconds for which it has counted, by its own clock.
    pub at_us: u64,
    /// Bytes that it has read.
    pub bytes_in: u64,
    /// Bytes that it has written.
    pub bytes_out: u64,
    /// Messages that have arrived, for itself and for others.
    pub messages: u64,
}

/// A function that runs there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its name.
    pub function: String,
    /// When it began, by our clock.
    pub since: Instant,
}

/// What a context has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How long that took.
    pub round_trip: Option<Duration>,
    /// What it has counted.
    pub totals: Totals,
    /// Bytes that wait to be written.
    pub queued_bytes: u64,
    /// What it does.
    pub running: Vec<Running>,
}

/// One context, or what is to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its id, once it is up.
    pub id: Option<u32>,
    /// The row of who started it; none of this process, and of a row that is used no more.
    pub parent: Option<usize>,
    /// How far from this process.
    pub depth: usize,
    /// Its name.
    pub name: String,
    /// Whose it is, and where; empty if that is not known.
    pub place: String,
    /// How it is.
    pub state: State,
    /// What it has told last.
    pub answer: Option<Answer>,
    /// What it did in each second between the last two answers.
    pub rates: Option<Totals>,
    /// Whether nobody asked for it: no address leads there.
    is_found: bool,
    /// When its end was shown first.
    shown_gone: Option<Instant>,
}

impl Row {
    fn new(parent: Option<usize>, depth: usize, name: &str) -> Row {
        let (name, place, state) = (name.to_owned(), String::new(), State::Connecting);
        let (id, answer, rates, is_found, shown_gone) = (None, None, None, false, None);
        Row { id, parent, depth, name, place, state, answer, rates, is_found, shown_gone }
    }

    /// Whether it is one that leaves after its end.
    fn may_leave(&self) -> bool {
        self.is_found && self.parent.is_some() && self.state.why().is_some()
    }

    /// What is worth telling again.
    pub fn news(&self) -> News {
        let running = self.answer.iter().flat_map(|answer| &answer.running);
        let running = running.map(|running| running.function.clone()).collect();
        News { id: self.id, place: self.place.clone(), state: self.state.clone(), running }
    }
}

/// Of a context, what is worth telling again when it has changed: not numbers that differ at each
/// look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    id: Option<u32>,
    place: String,
    state: State,
    running: Vec<String>,
}

/// All of them.
pub struct Model {
    rows: Vec<Row>,
    /// The row of each context that is or was up.
    ids: BTreeMap<u32, usize>,
    /// Rows that are used no more.
    free: Vec<usize>,
    /// Ends that were heard of before it was told who that is.
    early: VecDeque<(u32, String)>,
}

impl Model {
    /// One with this process alone, which is row 0.
    pub fn new(id: u32, name: &str, place: &str) -> Model {
        let mut row = Row::new(None, 0, name);
        (row.id, row.state, row.place) = (Some(id), State::Up, place.to_owned());
        let (ids, free, early) = (BTreeMap::from([(id, 0)]), Vec::new(), VecDeque::new());
        Model { rows: vec![row], ids, free, early }
    }

    /// Adds what is to be a context below that row; its row.
    pub fn add(&mut self, parent: usize, name: &str) -> usize {
        let row = Row::new(Some(parent), self.rows[parent].depth + 1, name);
        let at = self.free.pop().unwrap_or(self.rows.len());
        match self.rows.get_mut(at) {
            Some(unused) => *unused = row,
            None => self.rows.push(row),
        }
        at
    }

    /// Adds a context that is up and that nobody asked for; its row. It leaves some time after it
    /// has ended.
    pub fn add_found(&mut self, parent: usize, name: &str, id: u32) -> usize {
        let at = self.add(parent, name);
        self.rows[at].is_found = true;
        self.up(at, id);
        at
    }

    /// It is up.
    pub fn up(&mut self, row: usize, id: u32) {
        if let Some(other) = self.rows[row].id.replace(id) {
            // One that claimed to be it.
            self.ids.remove(&other);
        }
        self.rows[row].state = State::Up;
        self.ids.insert(id, row);
        if let Some(at) = self.early.iter().position(|(early, _)| *early == id) {
            if let Some((_, why)) = self.early.remove(at) {
                self.gone(id, &why);
            }
        }
    }

    /// All was shown as it is now.
    pub fn shown(&mut self, now: Instant) {
        for row in self.rows.iter_mut().filter(|row| row.may_leave()) {
            row.shown_gone.get_or_insert(now);
        }
    }

    /// Has those leave that nobody asked for, and whose end was shown long ago; the lowest first.
    pub fn leave(&mut self, now: Instant) {
        let lingering = self.rows.iter().filter(|row| row.may_leave()).count();
        let linger = if lingering <= LINGERING_MAX { LINGER } else { Duration::ZERO };
        let mut is_leaf = vec![true; self.rows.len()];
        self.rows.iter().filter_map(|row| row.parent).for_each(|parent| is_leaf[parent] = false);
        for (at, row) in self.rows.iter_mut().enumerate().filter(|(at, _)| is_leaf[*at]) {
            let is_old = |shown| linger <= now.saturating_duration_since(shown);
            if row.may_leave() && row.shown_gone.is_some_and(is_old) {
                row.parent = None;
                row.id.take().map(|id| self.ids.remove(&id));
                self.free.push(at);
            }
        }
    }

    /// It was not reached.
    pub fn failed(&mut self, row: usize, why: &str) {
        self.rows[row].state = State::Failed(why.to_owned());
    }

    /// Whose it is, and where.
    pub fn place(&mut self, row: usize, place: &str) {
        self.rows[row].place = place.to_owned();
    }

    /// It has ended. What comes first counts.
    pub fn gone(&mut self, id: u32, why: &str) {
        match self.find(id) {
            None => {
                self.early.push_back((id, why.to_owned()));
                if EARLY_MAX < self.early.len() {
                    self.early.pop_front();
                }
            }
            Some(row) => {
                let row = &mut self.rows[row];
                if row.state.why().is_none() {
                    row.state = State::Gone(why.to_owned());
                    (row.answer, row.rates) = (None, None);
                }
            }
        }
    }

    /// What it told when it was asked; none if it did not.
    pub fn told(&mut self, row: usize, answer: Option<Answer>) {
        let row = &mut self.rows[row];
        if row.state.why().is_some() {
            return;
        }
        row.state = if answer.is_some() { State::Up } else { State::Silent };
        let rates = row.answer.as_ref().zip(answer.as_ref());
        row.rates = rates.and_then(|(before, now)| per_second(&before.totals, &now.totals));
        // What it did last may be why it does not answer.
        row.answer = answer.or(row.answer.take());
    }

    /// The row of a context.
    pub fn find(&self, id: u32) -> Option<usize> {
        self.ids.get(&id).copied()
    }

    /// How many numbers of rows there are; some may be used no more.
    pub fn numbers(&self) -> usize {
        self.rows.len()
    }

    /// The row of a context of this name and parent that was not told to be up, though it is: it
    /// is from now on.
    pub fn awaited(&mut self, name: &str, id: u32, parent: Option<u32>) -> Option<usize> {
        let parent = self.find(parent?);
        let is_it = |row: &Row| {
            // Names may be claimed, but not where one is.
            row.state == State::Connecting && row.name == name && row.parent == parent
        };
        let row = self.rows.iter().position(is_it)?;
        self.up(row, id);
        Some(row)
    }

    /// A row by its number.
    pub fn row(&self, row: usize) -> &Row {
        &self.rows[row]
    }

    /// The numbers of all rows, each context's behind its parent's.
    pub fn in_order(&self) -> Vec<usize> {
        let mut ordered = Vec::with_capacity(self.rows.len());
        let mut next = vec![0];
        let mut children = vec![Vec::new(); self.rows.len()];
        for (at, row) in self.rows.iter().enumerate().rev() {
            row.parent.into_iter().for_each(|parent| children[parent].push(at));
        }
        while let Some(at) = next.pop() {
            next.append(&mut children[at]);
            ordered.push(at);
        }
        ordered
    }

    /// How many contexts, but for this process, are in a state of which that is so.
    pub fn count(&self, is_so: impl Fn(&State) -> bool) -> usize {
        let used = self.rows.iter().filter(|row| row.parent.is_some());
        used.filter(|row| is_so(&row.state)).count()
    }

    /// Whether anything is shown that grows older.
    pub fn has_ages(&self) -> bool {
        self.rows.iter().any(|row| row.answer.as_ref().is_some_and(|a| !a.running.is_empty()))
    }
}

/// None if the two are of no time, or not of one life.
fn per_second(before: &Totals, now: &Totals) -> Option<Totals> {
    let micros = now.at_us.checked_sub(before.at_us).filter(|micros| *micros != 0)?;
    let rate = |before: u64, now: u64| {
        let more = u128::from(now.checked_sub(before)?) * 1_000_000 / u128::from(micros);
        u64::try_from(more).ok()
    };
    Some(Totals {
        at_us: 1_000_000,
        bytes_in: rate(before.bytes_in, now.bytes_in)?,
        bytes_out: rate(before.bytes_out, now.bytes_out)?,
        messages: rate(before.messages, now.messages)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(seconds: u64, bytes: u64) -> Option<Answer> {
        let (at_us, bytes_in, bytes_out) = (seconds * 1_000_000, bytes, 2 * bytes);
        let totals = Totals { at_us, bytes_in, bytes_out, messages: bytes / 10 };
        let running = vec![Running { function: "stock::run".to_owned(), since: Instant::now() }];
        Some(Answer { round_trip: None, totals, queued_bytes: 0, running })
    }

    fn model() -> Model {
        let mut model = Model::new(0, "master", "root@here");
        let web = model.add(0, "ssh:web");
        model.add(0, "local");
        model.add(web, "ssh:web/sudo");
        model
    }

    #[test]
    fn every_context_comes_behind_its_parent_and_before_its_parents_next() {
        let names = |model: &Model| -> Vec<String> {
            model.in_order().into_iter().map(|at| model.row(at).name.clone()).collect()
        };
        let mut model = model();
        assert_eq!(names(&model), ["master", "ssh:web", "ssh:web/sudo", "local"]);
        model.add(3, "deep");
        model.add(1, "second");
        let all = ["master", "ssh:web", "ssh:web/sudo", "deep", "second", "local"];
        assert_eq!(names(&model), all);
        assert_eq!(model.row(4).depth, 3);
    }

    #[test]
    fn a_context_that_has_ended_stays_with_the_first_reason() {
        let mut model = model();
        model.up(1, 7);
        model.gone(7, "killed");
        model.gone(7, "later");
        model.told(1, answer(1, 1));
        assert_eq!(model.row(1).state, State::Gone("killed".to_owned()));
        model.gone(8, "before we knew it");
        model.up(2, 8);
        assert_eq!(model.row(2).state.why(), Some("before we knew it"));
        assert_eq!(model.count(|state| matches!(state, State::Gone(_))), 2);
    }

    #[test]
    fn one_that_nobody_asked_for_leaves_some_time_after_its_end_was_shown() {
        let (mut model, now) = (model(), Instant::now());
        model.up(1, 7);
        let found = model.add_found(1, "found", 20);
        let below = model.add_found(found, "below", 21);
        [7, 20, 21].into_iter().for_each(|id| model.gone(id, "killed"));
        model.failed(2, "no such thing");
        let later = now + LINGER;
        model.leave(later);
        assert_eq!(model.in_order(), [0, 1, 3, 4, 5, 2], "its end was not shown");
        model.shown(now);
        model.shown(later);
        model.leave(later - Duration::from_millis(1));
        assert_eq!(model.in_order().len(), 6);
        model.leave(later);
        assert_eq!((model.in_order(), model.find(21)), (vec![0, 1, 3, 4, 2], None));
        model.leave(later);
        model.leave(later);
        assert_eq!((model.in_order(), model.find(20)), (vec![0, 1, 3, 2], None));
        assert_eq!(model.count(|state| state.why().is_some()), 2, "what was asked for stays");
        // The next have their rows.
        let again = [22, 23, 24].map(|id| model.add_found(2, "next", id));
        assert_eq!((again, model.numbers()), ([found, below, 6], 7));
        assert_eq!(model.row(found).state, State::Up);
    }

    #[test]
    fn contexts_that_come_and_go_take_no_room() {
        let (mut model, now) = (model(), Instant::now());
        for id in 100..10_000 {
            model.add_found(1, "short", id);
            model.gone(id, "over");
            model.gone(id + 1_000_000, "never seen");
            model.shown(now);
            model.leave(now);
        }
        assert!(model.numbers() < 200, "{} rows", model.numbers());
        assert!(model.early.len() <= EARLY_MAX && model.ids.len() < 200);
        model.add_found(1, "late", 1_009_999);
        assert_eq!(model.count(|state| state.why() == Some("never seen")), 1);
    }

    #[test]
    fn what_one_did_that_is_gone_is_not_told_any_more() {
        let mut model = model();
        model.up(1, 7);
        model.told(1, answer(1, 1));
        assert!(model.has_ages());
        model.gone(7, "killed");
        assert!(!model.has_ages() && model.row(1).answer.is_none());
    }

    #[test]
    fn one_that_is_awaited_is_known_by_its_name_in_its_place_only() {
        let mut model = model();
        model.up(2, 8);
        assert_eq!(model.awaited("ssh:web", 9, Some(8)), None);
        assert_eq!(model.row(1).state, State::Connecting);
        assert_eq!(model.awaited("ssh:web", 7, Some(0)), Some(1));
        assert_eq!(model.awaited("ssh:web/sudo", 10, Some(7)), Some(3));
        // It was another that claimed to be it.
        model.up(3, 11);
        model.gone(10, "killed");
        assert_eq!((model.row(3).id, &model.row(3).state), (Some(11), &State::Up));
    }

    #[test]
    fn rates_are_per_second_and_known_from_the_second_answer_on() {
        let mut model = model();
        model.up(1, 7);
        model.told(1, answer(1, 1000));
        assert_eq!(model.row(1).rates, None);
        model.told(1, answer(3, 1500));
        let rates = model.row(1).rates.unwrap();
        assert_eq!((rates.bytes_in, rates.bytes_out, rates.messages), (250, 500, 25));
        model.told(1, answer(4, 0));
        assert_eq!(model.row(1).rates, None, "it counts from 0 again");
    }

    #[test]
    fn one_that_is_silent_shows_what_it_did_last_and_may_answer_again() {
        let mut model = model();
        model.up(1, 7);
        model.told(1, answer(1, 1));
        model.told(1, None);
        assert_eq!(model.row(1).state, State::Silent);
        assert_eq!(model.row(1).answer.as_ref().unwrap().running.len(), 1);
        assert!(model.has_ages());
        model.told(1, answer(1, 2));
        assert_eq!(model.row(1).state, State::Up);
    }

    #[test]
    fn numbers_alone_are_no_news() {
        let mut model = model();
        model.up(1, 7);
        model.told(1, answer(1, 1));
        let before = model.row(1).news();
        model.told(1, answer(2, 2));
        assert_eq!(before, model.row(1).news());
        model.told(1, None);
        assert_ne!(before, model.row(1).news());
    }
}
