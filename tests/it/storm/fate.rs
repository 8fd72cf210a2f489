//! What is done to the contexts of a storm, and which ends that explains.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::functions::End;
use super::tree::{Random, Tree};
use crate::support::*;

/// The longest that a context is stopped.
const STOP_MAX_MS: usize = 500;
/// A storm kills until so few are left, of a hundred.
const LEFT: usize = 30;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Runs,
    StoppedUntil(Instant),
    Killed,
}

pub struct Fates<'a> {
    tree: &'a Tree,
    all: Mutex<Vec<Fate>>,
    random: Mutex<Random>,
    counts: Mutex<[usize; 3]>,
    ended: Mutex<bool>,
}

impl<'a> Fates<'a> {
    pub fn new(tree: &'a Tree, seed: u64) -> Fates<'a> {
        let all = Mutex::new(vec![Fate::Runs; tree.nodes.len()]);
        let random = Mutex::new(Random(!seed));
        Fates { tree, all, random, counts: Mutex::default(), ended: Mutex::default() }
    }

    /// Kills or stops one context, or lets one go on whose time has come.
    pub fn strike(&self) {
        let random = |end| self.random.lock().unwrap().below(end);
        std::thread::sleep(Duration::from_millis(random(60) as u64));
        self.resume(Instant::now());
        match random(2) {
            0 => self.stop_one(),
            _ => {
                // The smaller of two: else a few would be the end of most.
                let pair = [self.any(), self.any()].into_iter().flatten();
                let one = pair.min_by_key(|at| self.tree.weight(*at));
                if let Some(at) = one.filter(|at| self.may_be_killed(*at)) {
                    self.set(at, Fate::Killed, "KILL");
                }
            }
        }
    }

    /// Stops a context that runs.
    pub fn stop_one(&self) {
        let Some(at) = self.any() else { return };
        let ms = self.random.lock().unwrap().below(STOP_MAX_MS) as u64;
        self.set(at, Fate::StoppedUntil(Instant::now() + Duration::from_millis(ms)), "STOP");
    }

    /// Lets all go on, or kills them.
    pub fn calm(&self) {
        self.resume(Instant::now() + Duration::from_secs(10));
    }

    /// From now on everything ends with the router.
    pub fn end(&self) {
        *self.ended.lock().unwrap() = true;
    }

    pub fn is_over(&self) -> bool {
        *self.ended.lock().unwrap()
    }

    fn resume(&self, now: Instant) {
        for at in 0..self.tree.nodes.len() {
            let fate = self.all.lock().unwrap()[at];
            let Fate::StoppedUntil(until) = fate else { continue };
            if self.is_doomed(at) || now < until {
                continue;
            }
            match self.random.lock().unwrap().below(3) {
                0 if self.may_be_killed(at) => self.set(at, Fate::Killed, "KILL"),
                _ => self.set(at, Fate::Runs, "CONT"),
            }
        }
    }

    /// Notes it first: whoever sees what follows must know.
    fn set(&self, at: usize, fate: Fate, name: &str) {
        let count = ["STOP", "CONT", "KILL"].iter().position(|other| *other == name).unwrap();
        self.counts.lock().unwrap()[count] += 1;
        self.all.lock().unwrap()[at] = fate;
        signal(self.tree.nodes[at].pid, name);
    }

    /// One that runs, and whose ancestors live.
    fn any(&self) -> Option<usize> {
        let runs = |at: &usize| self.all.lock().unwrap()[*at] == Fate::Runs && !self.is_doomed(*at);
        let all: Vec<usize> = (0..self.tree.nodes.len()).filter(runs).collect();
        self.random.lock().unwrap().one_of(&all)
    }

    fn may_be_killed(&self, at: usize) -> bool {
        LEFT * self.tree.nodes.len() / 100 <= self.left().saturating_sub(self.tree.weight(at))
    }

    fn left(&self) -> usize {
        (0..self.tree.nodes.len()).filter(|at| !self.is_doomed(*at)).count()
    }

    /// Whether it was killed, or lives below one that was.
    pub fn is_doomed(&self, at: usize) -> bool {
        let all = self.all.lock().unwrap();
        self.tree.path(at).into_iter().any(|at| all[at] == Fate::Killed)
    }

    /// Fails unless what was done to these contexts, or above them, explains this end.
    pub fn explain(&self, end: &End, about: &[usize]) -> Result<(), String> {
        let context = end.context.and_then(|id| self.tree.find(id));
        let concerns = |at| about.iter().any(|one| self.tree.path(*one).contains(&at));
        let is_right = match (&*end.cause, context) {
            // Its parent has seen it.
            ("Exited", Some(at)) => {
                let killed = self.all.lock().unwrap()[at] == Fate::Killed;
                let parent = self.tree.nodes[at].parent;
                let parent = parent.map_or(0, |at| self.tree.nodes[at].context.context_id().0);
                let is_told = (end.signal, end.seen_by) == (Some(9), Some(parent));
                killed && concerns(at) && is_told
            }
            // On the way, or before its parent knew more.
            ("Disconnected" | "NoRoute", Some(at)) => self.is_doomed(at) && concerns(at),
            ("Shutdown", _) => self.is_over(),
            _ => false,
        };
        let ended = || format!("{end:?} of {context:?} does not explain {about:?}");
        if is_right { Ok(()) } else { Err(ended()) }
    }

    pub fn told(&self) -> String {
        let [stopped, continued, killed] = *self.counts.lock().unwrap();
        let (tree, left) = (self.tree.told(), self.left());
        format!("{tree}: {killed} killed, {stopped} stopped, {continued} continued, {left} left")
    }
}
