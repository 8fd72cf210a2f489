//! Moments that cost little: for ages that people read.

use std::mem::MaybeUninit;

#[cfg(target_os = "linux")]
const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
#[cfg(target_os = "freebsd")]
const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC_FAST;
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// Milliseconds of one unit: it goes round after two years.
const UNIT_MS: u64 = 16;

/// A moment, as the kernel last noted it: some milliseconds late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(u32);

impl Moment {
    /// This one. Takes a few nanoseconds.
    #[inline(never)] // smaller code
    pub fn now() -> Moment {
        let mut now = MaybeUninit::<libc::timespec>::zeroed();
        // SAFETY: `now` has room for the answer.
        unsafe { libc::clock_gettime(CLOCK, now.as_mut_ptr()) };
        // SAFETY: the answer, or zeros, which are a value.
        let now = unsafe { now.assume_init() };
        let ms = now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000;
        Moment((ms / UNIT_MS) as u32)
    }

    /// Milliseconds since then.
    pub fn age_ms(self) -> u64 {
        u64::from(Moment::now().0.wrapping_sub(self.0)) * UNIT_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn an_age_is_about_what_a_fine_clock_says() {
        let (coarse, fine) = (Moment::now(), Instant::now());
        while fine.elapsed() < Duration::from_millis(100) {
            std::thread::yield_now();
        }
        let (age, fine) = (coarse.age_ms(), fine.elapsed().as_millis() as u64);
        assert!(60 <= age && age <= fine + 40, "{age} ms, {fine} ms");
    }

    #[test]
    fn an_age_outlives_the_numbers_going_round() {
        let now = Moment::now();
        let before = Moment(now.0.wrapping_sub(1000));
        assert!((16_000..17_000).contains(&before.age_ms()));
    }
}
