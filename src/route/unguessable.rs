//! Handles that nobody can guess, and that are known again for ever: a counter, enciphered. So what
//! comes late to a Receiver that was closed is told from a guess, without a list of all there were.
//! Pure. The cipher is Speck with blocks of 32 bits and a key of 64.

use crate::ids::Handle;

const ROUNDS: usize = 22;
/// After so many they begin again.
const COUNT_MAX: u32 = Handle::FIRST_RANDOM.0;

/// Gives out such handles.
pub trait Gives: Send {
    /// Gives out the next one.
    fn give(&mut self) -> Handle;

    /// Whether this one, of their range, was given out.
    fn has_given(&self, handle: Handle) -> bool;
}

/// Those of one key.
pub struct Unguessable {
    keys: [u16; ROUNDS],
    given: u64,
}

impl Unguessable {
    /// Those of this key, which is to be random and secret.
    pub fn new(key: u64) -> Unguessable {
        Unguessable { keys: schedule(key), given: 0 }
    }
}

impl Gives for Unguessable {
    fn give(&mut self) -> Handle {
        let mut number = Handle::random((self.given % u64::from(COUNT_MAX)) as u32).0;
        self.given += 1;
        loop {
            // Until it is in the range of such handles: that permutes this range, too.
            number = self.keys.iter().fold(number, |number, key| round(number, *key));
            if is_in_range(number) {
                return Handle(number);
            }
        }
    }

    fn has_given(&self, handle: Handle) -> bool {
        let mut number = handle.0;
        while {
            number = self.keys.iter().rev().fold(number, |number, key| round_back(number, *key));
            !is_in_range(number)
        } {}
        let count = number ^ Handle::FIRST_RANDOM.0;
        u64::from(count) < self.given && count < COUNT_MAX
    }
}

fn is_in_range(number: u32) -> bool {
    number & Handle::FIRST_RANDOM.0 != 0
}

fn round(number: u32, key: u16) -> u32 {
    let (x, y) = ((number >> 16) as u16, number as u16);
    let x = x.rotate_right(7).wrapping_add(y) ^ key;
    u32::from(x) << 16 | u32::from(y.rotate_left(2) ^ x)
}

fn round_back(number: u32, key: u16) -> u32 {
    let (x, y) = ((number >> 16) as u16, number as u16);
    let y = (y ^ x).rotate_right(2);
    u32::from((x ^ key).wrapping_sub(y).rotate_left(7)) << 16 | u32::from(y)
}

/// The keys of the rounds; they are made by rounds, too.
fn schedule(key: u64) -> [u16; ROUNDS] {
    let mut words = [key as u16, (key >> 16) as u16, (key >> 32) as u16, (key >> 48) as u16];
    let mut keys = [0; ROUNDS];
    for (i, key) in keys.iter_mut().enumerate() {
        *key = words[0];
        let next = round(u32::from(words[1]) << 16 | u32::from(words[0]), i as u16);
        words = [next as u16, words[2], words[3], (next >> 16) as u16];
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cipher_is_the_published_one() {
        let keys = schedule(0x1918_1110_0908_0100);
        let cipher = keys.iter().fold(0x6574_694c, |number, key| round(number, *key));
        assert_eq!(cipher, 0xa868_42f2);
    }

    #[test]
    fn what_was_given_out_is_known_and_nothing_else_is() {
        let mut handles = Unguessable::new(0x0123_4567_89ab_cdef);
        let mut given: Vec<Handle> = (0..10_000).map(|_| handles.give()).collect();
        assert!(given.iter().all(|handle| handles.has_given(*handle)));
        assert!(given.iter().all(|handle| is_in_range(handle.0) && !handle.is_well_known()));
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 10_000, "one was given twice");
        let mut known = 0;
        for n in 0..100_000 {
            let guess = Handle::random(n * 0x9e37);
            let was_given = given.binary_search(&guess).is_ok();
            assert_eq!(handles.has_given(guess), was_given);
            known += u32::from(was_given);
        }
        assert!(known < 10, "{known} guesses of 100,000 were right");
    }

    #[test]
    fn another_key_gives_others() {
        let [mut a, mut b] = [1, 2].map(Unguessable::new);
        assert!((0..100).all(|_| !a.has_given(b.give()) && !b.has_given(a.give())));
    }
}
