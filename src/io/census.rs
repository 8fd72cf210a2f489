//! How what a context has is written for those who inspect it: what an agent links of that is to
//! be small.

use std::time::Instant;

use crate::ids::ContextId;
use crate::wire::codec::Writer;

/// What a stream leads to: as the type `End` of a snapshot, and the child, if it is one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role(u8, ContextId);

impl Role {
    /// Something else.
    pub const OTHER: Role = Role(0, ContextId::MASTER);
    /// The parent.
    pub const PARENT: Role = Role(1, ContextId::MASTER);
    /// A process of the program's.
    pub const WATCHED: Role = Role(6, ContextId::MASTER);
    /// A stream of the program's.
    pub const ATTACHED: Role = Role(7, ContextId::MASTER);

    /// A child that is up.
    pub fn child(id: ContextId) -> Role {
        Role(2, id)
    }

    /// A child that is being brought up.
    pub fn starting(id: ContextId) -> Role {
        Role(3, id)
    }

    /// A child's terminal or standard error.
    pub fn terminal(id: ContextId) -> Role {
        Role(4, id)
    }

    /// A child's process.
    pub fn process(id: ContextId) -> Role {
        Role(5, id)
    }

    /// Appends it.
    pub fn put(self, w: &mut Writer<'_>) {
        let is_of_child = (2..=5).contains(&self.0);
        put_all(&[self.0.into(), self.1.0.into()][..1 + usize::from(is_of_child)], w);
    }
}

/// A list of bounded length that is being written: a 1 before each item; a 0 and how many more
/// there are behind the last.
pub struct List {
    left: usize,
    more: u64,
}

impl List {
    /// One of at most so many items.
    pub fn new(max: usize) -> List {
        List { left: max, more: 0 }
    }

    /// There is one more item. Returns whether it is to be written.
    #[inline(never)] // smaller code
    pub fn has_room(&mut self, w: &mut Writer<'_>) -> bool {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                w.put_u8(1);
            }
            None => self.more += 1,
        }
        self.more == 0
    }

    /// That was the last.
    pub fn end(self, w: &mut Writer<'_>) {
        put_all(&[0, self.more], w);
    }
}

/// Appends numbers, and what else is written as such: ids, whether something is so, tags.
#[inline(never)] // smaller code
pub fn put_all(numbers: &[u64], w: &mut Writer<'_>) {
    for number in numbers {
        w.put_varint(*number);
    }
}

/// Appends the milliseconds until then, if there is a time.
#[inline(never)] // smaller code
pub fn put_left(at: Option<Instant>, w: &mut Writer<'_>) {
    match at.map(|at| at.saturating_duration_since(Instant::now())) {
        Some(left) => {
            // Who waits for ever may do so by a number that is too large for milliseconds.
            let ms = left.as_secs().saturating_mul(1000);
            put_all(&[1, ms.saturating_add(left.subsec_millis().into())], w);
        }
        None => put_all(&[0], w),
    }
}
