//! Trees of hundreds of contexts, in which everything happens in a random order that a seed tells.
//!
//! `MITOGEN_SIM_SEED=n` runs that seed alone, `MITOGEN_SIM_SEEDS=n` as many from the first on.

use std::ops::Range;

use super::sim::Place;
use super::sim_traffic::{Traffic, Wish};
use crate::ids::ContextId;

/// Random numbers that are the same each time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

/// Whose child the next context is.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// That of the youngest.
    Chain,
    /// The root's.
    Star,
    /// Anybody's.
    Random,
    /// One of few that have many.
    Bushy,
}

/// What happens in a tree.
#[derive(Clone, Copy, Debug)]
struct Plan {
    shape: Shape,
    contexts: usize,
    /// Things that are said, cut or born.
    deeds: usize,
    /// Of 1,000 deeds so many end a context, or a link.
    ends: usize,
    /// Whether those below the root may talk to their ancestors only.
    unidirectional: bool,
}

struct Sim {
    traffic: Traffic,
    dice: Dice,
    plan: Plan,
}

/// Tells how to run it again.
struct Tell(u64, &'static str);

impl Drop for Tell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Tell(seed, test) = self;
            eprintln!("again: MITOGEN_SIM_SEED={seed} cargo test --lib sim_tests::{test}");
        }
    }
}

#[track_caller]
fn runs(test: &'static str, seeds: Range<u64>, plan: Plan) {
    let number = |name| std::env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    let seeds = match (number("MITOGEN_SIM_SEED"), number("MITOGEN_SIM_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (_, Some(count)) => 0..count,
        _ => seeds,
    };
    for seed in seeds {
        let _tell = Tell(seed, test);
        let mut sim = Sim { traffic: Traffic::new(plan.unidirectional), dice: Dice(seed), plan };
        sim.grow();
        for _ in 0..plan.deeds {
            sim.deed();
            for _ in 0..sim.dice.below(12) {
                sim.step();
            }
        }
        sim.drain();
        sim.traffic.is_at_rest();
    }
}

impl Sim {
    /// Most contexts come up before all else; the others while it happens.
    fn grow(&mut self) {
        while self.traffic.world.contexts.len() < self.plan.contexts * 3 / 4 {
            self.conceive();
            while matches!(self.plan.shape, Shape::Chain) && self.step() {}
            for _ in 0..4 {
                self.step();
            }
            self.bear();
        }
    }

    fn conceive(&mut self) {
        let count = self.traffic.world.contexts.len();
        let parent = match self.plan.shape {
            Shape::Chain => count - 1,
            Shape::Star => 0,
            Shape::Random => self.dice.below(count),
            Shape::Bushy => self.dice.below(count.min(20)),
        };
        let coming = self.traffic.asking + self.traffic.to_bear();
        if self.traffic.world.contexts[parent].alive && count + coming < self.plan.contexts {
            self.traffic.conceive(parent);
        }
    }

    fn bear(&mut self) {
        if 0 < self.traffic.to_bear() {
            let number = self.dice.below(self.traffic.to_bear());
            self.traffic.bear(number);
        }
    }

    fn someone(&mut self) -> Place {
        self.dice.below(self.traffic.world.contexts.len())
    }

    fn deed(&mut self) {
        if self.dice.below(1000) < self.plan.ends {
            return self.end();
        }
        match self.dice.below(10) {
            0 if self.traffic.world.contexts.len() < self.plan.contexts => self.conceive(),
            1 => self.bear(),
            2..5 => self.ask(),
            5..7 => self.answer(),
            7..9 => self.feed(),
            _ => self.take(),
        }
    }

    fn end(&mut self) {
        let (place, told) = (self.someone(), self.dice.percent(50));
        if place == 0 || !self.traffic.world.contexts[place].alive {
            return;
        }
        if self.dice.percent(50) {
            return self.traffic.kill(place, told);
        }
        let arrive =
            [0; 2].map(|_| if self.dice.percent(50) { self.dice.below(99) } else { 1 << 20 });
        if self.traffic.world.contexts[place].linked {
            self.traffic.cut(place, arrive, told);
        }
    }

    fn ask(&mut self) {
        let (from, to) = (self.someone(), self.someone());
        let world = &self.traffic.world;
        if !world.contexts[from].alive || from == to {
            return;
        }
        let nobody = self.dice.percent(2);
        // Whom nobody could know is not known.
        if !nobody && !world.may_know(from, to) && world.reaches(from, to) {
            return;
        }
        let to = if nobody { ContextId(0x7fff_0000) } else { world.contexts[to].id };
        let wish = match self.dice.below(10) {
            0 => Wish::Nothing,
            1..3 => Wish::Favour,
            3..6 => Wish::Stream,
            _ => Wish::Answer,
        };
        let bytes = self.size();
        self.traffic.ask(from, to, wish, bytes);
    }

    /// Most messages are small; some have fragments.
    fn size(&mut self) -> usize {
        match self.dice.below(12) {
            0 => 16 + self.dice.below(40_000),
            1 => 16 + self.dice.below(2000),
            _ => 16 + self.dice.below(16),
        }
    }

    fn answer(&mut self) {
        if 0 < self.traffic.debts() {
            let (number, bytes) = (self.dice.below(self.traffic.debts()), self.size());
            self.traffic.answer(number, bytes);
        }
    }

    fn feed(&mut self) {
        if 0 < self.traffic.streams() {
            let (number, bytes) = (self.dice.below(self.traffic.streams()), self.size());
            self.traffic.feed(number, bytes);
        }
    }

    fn take(&mut self) {
        let all = self.traffic.all_streams();
        if 0 < all {
            let number = self.dice.below(all);
            self.traffic.take(number);
        }
    }

    /// Some direction moves: a frame, a piece of one, or a byte.
    fn step(&mut self) -> bool {
        let busy = self.traffic.world.busy().len();
        if busy == 0 {
            return false;
        }
        let at = self.dice.below(busy);
        let size = |dice: &mut Dice| match dice.below(10) {
            0 => dice.below(2),
            1 => 1 + dice.below(20),
            2 => 1 + dice.below(20_000),
            _ => usize::MAX,
        };
        let (write, read) = (size(&mut self.dice), size(&mut self.dice));
        self.traffic.advance(at, write, read);
        true
    }

    /// All that is on its way arrives, is answered, and taken.
    fn drain(&mut self) {
        loop {
            while self.step() {}
            while 0 < self.traffic.to_bear() {
                self.bear();
            }
            let owed = self.traffic.debts();
            for _ in 0..owed {
                self.answer();
            }
            let taken = (0..self.traffic.all_streams()).filter(|i| self.traffic.take(*i)).count();
            if owed == 0 && taken == 0 && self.traffic.world.busy().is_empty() {
                return;
            }
        }
    }
}

const PLAN: Plan =
    Plan { shape: Shape::Random, contexts: 400, deeds: 4000, ends: 6, unidirectional: false };

#[test]
fn small_trees_that_fall_apart() {
    runs("small_trees", 0..200, Plan { contexts: 10, deeds: 150, ends: 30, ..PLAN });
}

#[test]
fn random_trees_of_hundreds() {
    runs("random_trees", 0..2, PLAN);
}

#[test]
fn bushy_trees_of_hundreds() {
    runs("bushy_trees", 0..2, Plan { shape: Shape::Bushy, ..PLAN });
}

#[test]
fn deep_chains() {
    runs(
        "deep_chains",
        0..3,
        Plan { shape: Shape::Chain, contexts: 100, deeds: 600, ends: 3, ..PLAN },
    );
}

#[test]
fn wide_stars() {
    runs("wide_stars", 0..2, Plan { shape: Shape::Star, ends: 20, ..PLAN });
}

#[test]
fn unidirectional_trees() {
    runs(
        "unidirectional_trees",
        0..50,
        Plan { contexts: 20, deeds: 300, ends: 20, unidirectional: true, ..PLAN },
    );
}
