//! Where the turn of a loop is, and who may take it: the states, and what leads from one to the
//! next. Nothing here locks, sleeps or wakes.

#[cfg(test)]
mod tests;

use std::mem;

use crate::limits::LEND_AFTER;

/// Where the turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// With the broker's thread, or left for it, and it was told.
    Broker,
    /// Left for whoever waits next; the broker looks after it soon.
    Free,
    /// Left for the thread that has borrowed it, and sleeps on the poller.
    Lent,
    /// With that thread, which serves what has arrived.
    Away,
}

/// How long the broker's thread sleeps without the turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// No more: the turn is its own.
    Over,
    /// For [`TURN_NAP`].
    Nap,
    /// Until it is told.
    Sleep,
}

/// The state of one loop's turn. What is told to the broker is told once: those that return whether
/// it must be do so only as the turn becomes the broker's.
#[derive(Debug)]
pub struct Loans {
    place: Place,
    /// How many loans there were: the number of the last.
    count: u32,
    /// What it was when the broker last looked.
    seen: u32,
    /// Whether the broker sleeps until it is told.
    sleeps: bool,
    /// Threads that wait now.
    waiting: u32,
    /// Waits that began while nobody else waited, for which the broker has served nothing yet; it
    /// matters whether there is one, and one more may begin before the broker looks.
    lone: u32,
    /// How many lone waits in a row the broker has answered, with nothing between.
    streak: u32,
    /// After how many the turn is lent.
    lend_after: u32,
}

impl Loans {
    /// The broker has the turn.
    pub const fn new() -> Loans {
        Loans {
            place: Place::Broker,
            count: 0,
            seen: 0,
            sleeps: false,
            waiting: 0,
            lone: 0,
            streak: 0,
            lend_after: LEND_AFTER,
        }
    }

    /// Never lends from now on.
    pub fn forbid(&mut self) {
        self.lend_after = u32::MAX;
    }

    /// A thread begins to wait.
    pub fn begin(&mut self) {
        self.waiting += 1;
        self.lone = if self.waiting == 1 { 2.min(self.lone + 1) } else { 0 };
    }

    /// A thread that waits takes the turn if it is free. Returns the loan's number.
    pub fn borrow(&mut self) -> Option<u32> {
        if self.place != Place::Free {
            return None;
        }
        self.place = Place::Lent;
        self.count = self.count.wrapping_add(1);
        Some(self.count)
    }

    /// Its borrower begins to serve; not if the broker has taken the turn back.
    pub fn fetch(&mut self, loan: u32) -> bool {
        let is_lent = self.place == Place::Lent && self.count == loan;
        if is_lent {
            self.place = Place::Away;
        }
        is_lent
    }

    /// Its borrower has served, and keeps the turn until it knows whether its wait is over.
    pub fn put_back(&mut self) {
        self.place = Place::Lent;
    }

    /// Its borrower gives the turn to the broker. Returns whether to tell it.
    pub fn give(&mut self, loan: u32) -> bool {
        self.place == Place::Lent && self.count == loan && self.recall()
    }

    /// A thread waits no more; `loan` is the one it had, and whether it leaves `work`. Returns
    /// whether to tell the broker.
    pub fn end(&mut self, loan: Option<u32>, work: bool) -> bool {
        self.waiting -= 1;
        if self.place != Place::Lent || loan != Some(self.count) {
            return false;
        }
        if 0 < self.waiting || self.sleeps || work {
            return self.recall();
        }
        self.place = Place::Free;
        false
    }

    /// Has the broker take the turn, if nobody serves. Returns whether to tell it.
    pub fn recall(&mut self) -> bool {
        let is_left = matches!(self.place, Place::Free | Place::Lent);
        if is_left {
            self.place = Place::Broker;
        }
        is_left
    }

    /// The broker has served what has arrived. Returns whether to lend the turn.
    pub fn is_ripe(&mut self) -> bool {
        self.streak = if 0 < self.lone { self.streak + 1 } else { 0 };
        self.lone = self.lone.saturating_sub(1);
        self.lend_after <= self.streak
    }

    /// The broker lends the turn to whoever waits, or will.
    pub fn lend(&mut self) {
        (self.place, self.seen) = (Place::Free, self.count);
    }

    /// The broker has rested.
    pub fn look(&mut self) -> Rest {
        let was_touched = mem::replace(&mut self.seen, self.count) != self.count;
        match self.place {
            Place::Away => return Rest::Nap,
            Place::Free | Place::Lent if was_touched => return Rest::Nap,
            Place::Lent => {
                self.sleeps = true;
                return Rest::Sleep;
            }
            Place::Free | Place::Broker => (),
        }
        (self.place, self.sleeps, self.streak) = (Place::Broker, false, 0);
        Rest::Over
    }

    /// Where the turn is.
    #[cfg(test)]
    pub fn place(&self) -> Place {
        self.place
    }
}
