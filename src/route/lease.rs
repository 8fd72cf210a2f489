//! Ids that a context may give to children: taken from its lease, or leased on to a child.
//! Pure; an id leaves the pool once and never comes back.

use crate::ids::ContextId;
use crate::limits::{LEASE_IDS, LEASED_IDS_MAX, LEASED_IDS_MIN};
use crate::limits::{ROUTES_PER_CHILD_MAX, ROUTES_PER_CHILD_MIN};

/// A range of ids: the first, and how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// The first id.
    pub first: u32,
    /// How many follow each other from there.
    pub count: u32,
}

impl Lease {
    /// Whether this id is in it.
    pub fn has(&self, id: ContextId) -> bool {
        id.0.checked_sub(self.first).is_some_and(|offset| offset < self.count)
    }
}

/// The ids that one child has had leased.
#[derive(Clone, Debug, Default)]
pub struct Leased {
    /// Sorted; none touches the next.
    ranges: Vec<Lease>,
    count: u64,
}

impl Leased {
    /// Adds ids that it has not.
    pub fn add(&mut self, lease: Lease) {
        if lease.count == 0 {
            return;
        }
        self.count += u64::from(lease.count);
        let at = self.ranges.partition_point(|range| range.first < lease.first);
        let before = self.ranges[..at].last_mut();
        match before.filter(|range| range.first.checked_add(range.count) == Some(lease.first)) {
            Some(range) => range.count += lease.count,
            None => self.ranges.insert(at, lease),
        }
    }

    /// Whether this id is among them.
    pub fn has(&self, id: ContextId) -> bool {
        let at = self.ranges.partition_point(|range| range.first <= id.0);
        self.ranges[..at].last().is_some_and(|range| range.has(id))
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// The ids that are left to give.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    leases: Vec<Lease>,
    /// Whether ids were ever leased to this context that no master comes to.
    has_high: bool,
}

/// The first id that no master comes to: those from there on are given to children by a context
/// that has left its tree.
pub const FIRST_HIGH: u32 = 1 << 31;

impl Pool {
    /// The master's: all but its own.
    pub fn of_master() -> Pool {
        Pool { leases: vec![Lease { first: 1, count: u32::MAX }], has_high: false }
    }

    /// Adds what the parent leased.
    pub fn add(&mut self, lease: Lease) {
        if 0 < lease.count {
            self.has_high |= FIRST_HIGH <= lease.first;
            self.leases.push(lease);
        }
    }

    /// Adds the ids that no master comes to, unless some of them are in use.
    pub fn add_high(&mut self) {
        if !self.has_high {
            self.add(Lease { first: FIRST_HIGH, count: FIRST_HIGH - 1 });
        }
    }

    /// Takes an id for a new child.
    pub fn take(&mut self) -> Option<ContextId> {
        self.lease(1).map(|lease| ContextId(lease.first))
    }

    /// Takes `count` ids that follow each other, for a child to give on.
    pub fn lease(&mut self, count: u32) -> Option<Lease> {
        let at = self.leases.iter().position(|lease| count <= lease.count)?;
        let from = &mut self.leases[at];
        let taken = Lease { first: from.first, count };
        from.first = from.first.wrapping_add(count);
        from.count -= count;
        if from.count == 0 {
            self.leases.remove(at);
        }
        Some(taken)
    }

    /// As many as wanted, or the half, and so on.
    pub fn lease_up_to(&mut self, wanted: u32) -> Option<Lease> {
        let mut count = wanted;
        while 0 < count {
            let lease = self.lease(count);
            if lease.is_some() {
                return lease;
            }
            count /= 2;
        }
        None
    }

    /// What a new child is given unasked: enough for most, and a small part of what is here.
    pub fn gift(&mut self) -> Lease {
        let left = self.leases.iter().map(|lease| lease.count).max().unwrap_or(0);
        self.lease((left / 32).min(LEASE_IDS)).unwrap_or_default()
    }
}

/// How many contexts may live behind each link of a context that has this many ancestors, its child
/// among them: fewer with each hop, so that one child cannot use up what its parent may have.
pub fn routes_max(depth: usize) -> usize {
    (ROUTES_PER_CHILD_MAX >> (2 * depth.min(8))).max(ROUTES_PER_CHILD_MIN)
}

/// The same of ids that each child may have leased in all.
pub fn ids_max(depth: usize) -> u64 {
    (LEASED_IDS_MAX >> (2 * depth.min(8))).max(LEASED_IDS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_is_given_twice() {
        let mut pool = Pool::of_master();
        let gift = pool.gift();
        assert_eq!(gift, Lease { first: 1, count: LEASE_IDS });
        let mut child = Pool::default();
        child.add(gift);
        assert_eq!(child.take(), Some(ContextId(1)));
        assert_eq!(child.gift().count, (LEASE_IDS - 1) / 32);
        assert_eq!(pool.take(), Some(ContextId(1 + LEASE_IDS)));
    }

    #[test]
    fn an_empty_pool_gives_nothing() {
        let mut pool = Pool::default();
        assert_eq!((pool.take(), pool.lease(5), pool.gift().count), (None, None, 0));
        pool.add(Lease { first: 7, count: 1 });
        assert_eq!((pool.lease(2), pool.take(), pool.take()), (None, Some(ContextId(7)), None));
    }

    #[test]
    fn who_had_high_ids_from_one_that_left_gets_no_others_of_them_as_it_leaves() {
        let mut first = Pool::default();
        first.add_high();
        first.add_high();
        let gift = first.gift();
        assert_eq!((gift.first, first.leases.len()), (FIRST_HIGH, 1));
        let mut second = Pool::default();
        second.add(gift);
        assert_eq!(second.take(), Some(ContextId(FIRST_HIGH)));
        second.add_high();
        assert_eq!(second.leases, [Lease { first: gift.first + 1, count: gift.count - 1 }]);
    }

    #[test]
    fn what_is_leased_in_any_order_is_found_and_what_touches_is_one() {
        let mut leased = Leased::default();
        for first in [40, 10, 20, 70, 50] {
            leased.add(Lease { first, count: 0 });
            leased.add(Lease { first, count: 10 });
        }
        leased.add(Lease { first: u32::MAX, count: 1 });
        let (found, count) = (|id| leased.has(ContextId(id)), leased.count());
        let all: Vec<u32> = (0..100).filter(|id| found(*id)).collect();
        assert!(all.iter().copied().eq((10..30).chain(40..60).chain(70..80)) && found(u32::MAX));
        assert_eq!((count, leased.ranges.len()), (51, 4));
    }

    #[test]
    fn a_lease_knows_its_ids() {
        let lease = Lease { first: u32::MAX, count: 1 };
        assert!(lease.has(ContextId(u32::MAX)) && !lease.has(ContextId(0)));
        assert!(!Lease::default().has(ContextId(0)));
    }
}
