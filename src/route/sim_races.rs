//! Small trees in which things happen in *every* order: a context comes up, is announced, talked
//! to, lost and told, and each frame arrives before and after each other that it does not wait for.

use super::sim::Place;
use super::sim_traffic::{Traffic, Wish};

/// What somebody does as soon as it can be done, or at any time later.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// A child of this context comes up.
    Birth(Place),
    Ask(Place, Place, Wish),
    /// So many bytes.
    AskLong(Place, Place, usize),
    Kill(Place),
    /// So many bytes still arrive, down and up.
    Cut(Place, [usize; 2]),
}
use Deed::{Ask, AskLong, Birth, Cut, Kill};

/// The root, and two children of it. What is born later is 3, 4, ...
const A: Place = 1;
const B: Place = 2;
const Y: Place = 3;
const Z: Place = 4;
/// All that is under way arrives.
const ALL: usize = usize::MAX;

/// Which way was gone at each fork: all ways are gone, one after the other.
#[derive(Default)]
struct Order {
    taken: Vec<(usize, usize)>,
    at: usize,
}

impl Order {
    fn pick(&mut self, of: usize) -> usize {
        if self.at == self.taken.len() {
            self.taken.push((0, of));
        }
        let (pick, was) = self.taken[self.at];
        assert_eq!(of, was, "the same order is another");
        self.at += 1;
        pick
    }

    /// Whether there is another.
    fn next(&mut self) -> bool {
        self.at = 0;
        while let Some((pick, of)) = self.taken.pop() {
            if pick + 1 < of {
                self.taken.push((pick + 1, of));
                return true;
            }
        }
        false
    }
}

/// Says which order failed.
struct Tell<'a>(&'a Order, &'a [&'a [Deed]]);

impl Drop for Tell<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Tell(order, deeds) = self;
            eprintln!("{deeds:?} in the order {:?}", order.taken);
        }
    }
}

/// First these have a child each. Then each of the lists is done in its order, all lists at once.
#[track_caller]
fn in_every_order(born: &[Place], deeds: &[&[Deed]]) {
    let mut order = Order::default();
    run(born, deeds, &mut order);
    while order.next() {
        run(born, deeds, &mut order);
    }
}

fn run(born: &[Place], deeds: &[&[Deed]], order: &mut Order) {
    let mut traffic = Traffic::new(false);
    for parent in [0, 0].iter().chain(born) {
        act(&mut traffic, Birth(*parent));
        while !traffic.world.busy().is_empty() {
            traffic.advance(0, ALL, ALL);
        }
    }
    let mut done = vec![0; deeds.len()];
    loop {
        while let Some(at) = (0..traffic.world.busy().len()).find(|at| traffic.world.is_moot(*at)) {
            traffic.advance(at, ALL, ALL);
        }
        let next = |i: usize| deeds[i].get(done[i]).copied();
        let ready = |i: &usize| next(*i).is_some_and(|deed| is_ready(&traffic, deed));
        let ready: Vec<usize> = (0..deeds.len()).filter(ready).collect();
        let (debts, busy) = (traffic.debts().min(1), traffic.world.busy().len());
        let options = ready.len() + debts + busy;
        if options == 0 {
            break;
        }
        let pick = order.pick(options);
        let order = &*order;
        let tell = Tell(order, deeds);
        match pick.checked_sub(ready.len()) {
            None => {
                let deed = next(ready[pick]).unwrap();
                done[ready[pick]] += 1;
                act(&mut traffic, deed);
            }
            Some(0) if debts == 1 => traffic.answer(0, 16),
            Some(at) => traffic.advance(at - debts, ALL, ALL),
        }
        drop(tell);
    }
    let _tell = Tell(order, deeds);
    traffic.is_at_rest();
}

fn is_ready(traffic: &Traffic, deed: Deed) -> bool {
    let world = &traffic.world;
    match deed {
        Birth(place) | Kill(place) | Cut(place, _) => place < world.contexts.len(),
        Ask(from, to, _) | AskLong(from, to, _) => {
            from.max(to) < world.contexts.len()
                && (world.may_know(from, to) || !world.reaches(from, to))
        }
    }
}

fn act(traffic: &mut Traffic, deed: Deed) {
    let alive = |place: Place| traffic.world.contexts[place].alive;
    match deed {
        Birth(place) if alive(place) => {
            traffic.conceive(place);
            traffic.bear(0);
        }
        Ask(from, to, wish) if alive(from) => {
            let to = traffic.world.contexts[to].id;
            traffic.ask(from, to, wish, 16);
        }
        AskLong(from, to, bytes) if alive(from) => {
            let to = traffic.world.contexts[to].id;
            traffic.ask(from, to, Wish::Answer, bytes);
        }
        Kill(place) if alive(place) => traffic.kill(place, true),
        Cut(place, arrive) if traffic.world.contexts[place].linked => {
            traffic.cut(place, arrive, false);
        }
        _ => (),
    }
}

#[test]
fn who_is_announced_asked_and_lost() {
    in_every_order(&[], &[&[Birth(B), Kill(Y)], &[Ask(A, Y, Wish::Answer)]]);
    in_every_order(&[], &[&[Birth(B), Kill(Y)], &[Ask(A, Y, Wish::Stream)]]);
}

#[test]
fn who_is_announced_asked_and_cut_off() {
    for arrive in [[ALL, ALL], [3, 3], [0, ALL], [ALL, 0]] {
        in_every_order(&[], &[&[Birth(B), Cut(Y, arrive)], &[Ask(A, Y, Wish::Answer)]]);
    }
}

#[test]
fn who_asks_and_is_lost() {
    in_every_order(&[], &[&[Birth(B), Ask(Y, A, Wish::Answer), Kill(Y)]]);
}

#[test]
fn who_is_asked_while_the_parent_is_lost() {
    in_every_order(&[], &[&[Birth(B), Kill(B)], &[Ask(A, Y, Wish::Answer)]]);
}

#[test]
fn who_is_born_while_the_parent_is_lost() {
    in_every_order(&[], &[&[Birth(B), Birth(Y), Kill(Y)], &[Ask(0, Z, Wish::Answer)]]);
    in_every_order(&[], &[&[Birth(B), Birth(Y), Kill(B)], &[Ask(A, Z, Wish::Answer)]]);
}

#[test]
fn who_is_asked_by_two_and_lost() {
    let asks: [&[Deed]; 2] = [&[Ask(B, Y, Wish::Answer)], &[Ask(0, Y, Wish::Answer)]];
    in_every_order(&[B], &[&[Kill(Y)], asks[0], asks[1]]);
}

#[test]
fn who_is_lost_in_the_middle_of_a_message() {
    in_every_order(&[B], &[&[AskLong(Y, A, 20_000), Kill(Y)]]);
    in_every_order(&[B], &[&[AskLong(A, Y, 20_000)], &[Kill(Y)]]);
}
