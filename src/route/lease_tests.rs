//! The ids of a whole tree: whoever asks whom in whatever order, none is given twice.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::lease::{Lease, Pool};
use crate::ids::ContextId;

/// What happens to the pools of a tree; they are named by number.
#[derive(Clone, Debug)]
enum Step {
    /// A child of its own, with what a new one is given.
    Child(usize),
    /// More for another pool: so many are wanted.
    Lease(usize, usize, u32),
    /// Exactly so many.
    LeaseAll(usize, usize, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let (pool, count) = (|| 0..12usize, || prop_oneof![0..4u32, 0..2000u32, any::<u32>()]);
    prop_oneof![
        4 => pool().prop_map(Step::Child),
        2 => (pool(), pool(), count()).prop_map(|(from, to, count)| Step::Lease(from, to, count)),
        1 => (pool(), pool(), count()).prop_map(|(from, to, n)| Step::LeaseAll(from, to, n)),
    ]
}

/// Ids as ranges, of which no two meet: from the first, to the one behind the last.
#[derive(Default)]
struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Takes a range out of the one that has it. Returns whether one has.
    fn take(&mut self, Lease { first, count }: Lease) -> bool {
        let (from, to) = (u64::from(first), u64::from(first) + u64::from(count));
        if count == 0 {
            return true;
        }
        let Some(at) = self.0.iter().position(|(a, b)| *a <= from && to <= *b) else {
            return false;
        };
        let (a, b) = self.0.swap_remove(at);
        self.0.extend([(a, from), (to, b)].into_iter().filter(|(a, b)| a < b));
        true
    }

    fn add(&mut self, Lease { first, count }: Lease) {
        self.0.push((u64::from(first), u64::from(first) + u64::from(count)));
    }

    fn largest(&self) -> u64 {
        self.0.iter().map(|(a, b)| b - a).max().unwrap_or(0)
    }
}

proptest! {
    #[test]
    fn no_id_of_a_tree_is_given_twice(
        lonely in any::<bool>(),
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let mut pools = vec![(Pool::of_master(), Ranges(vec![(1, 1 << 32)]))];
        if lonely {
            // One that is soon used up.
            let (mut few, lease) = (Pool::default(), Lease { first: u32::MAX - 40, count: 41 });
            few.add(lease);
            pools = vec![(few, Ranges(vec![((1 << 32) - 41, 1 << 32)]))];
        }
        let mut taken = BTreeSet::from([ContextId::MASTER]);
        for step in steps {
            let count = pools.len();
            match step {
                Step::Child(from) => {
                    let (pool, own) = &mut pools[from % count];
                    let (left, id) = (own.largest(), pool.take());
                    prop_assert_eq!(id.is_some(), 0 < left);
                    let Some(id) = id else { continue };
                    let single = Lease { first: id.0, count: 1 };
                    prop_assert!(taken.insert(id) && own.take(single));
                    let gift = pool.gift();
                    prop_assert!(own.take(gift) && u64::from(gift.count) <= left / 32);
                    let (mut pool, mut own) = (Pool::default(), Ranges::default());
                    pool.add(gift);
                    own.add(gift);
                    pools.push((pool, own));
                }
                Step::Lease(from, to, wanted) => {
                    let (pool, own) = &mut pools[from % count];
                    let left = own.largest();
                    let lease = pool.lease_up_to(wanted);
                    prop_assert_eq!(lease.is_some(), 0 < wanted && 0 < left);
                    let Some(lease) = lease else { continue };
                    // No less than half of what could be.
                    let most = left.min(u64::from(wanted));
                    prop_assert!(most < 2 * u64::from(lease.count) + 1 && lease.count <= wanted);
                    prop_assert!(own.take(lease));
                    let (pool, own) = &mut pools[to % count];
                    pool.add(lease);
                    own.add(lease);
                }
                Step::LeaseAll(from, to, wanted) => {
                    let (pool, own) = &mut pools[from % count];
                    let enough = u64::from(wanted) <= own.largest();
                    let lease = pool.lease(wanted);
                    prop_assert!(lease.is_some() == enough || wanted == 0);
                    let Some(lease) = lease else { continue };
                    prop_assert!(lease.count == wanted && own.take(lease));
                    let (pool, own) = &mut pools[to % count];
                    pool.add(lease);
                    own.add(lease);
                }
            }
        }
    }
}
