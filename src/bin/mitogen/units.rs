//! Numbers as people read them: two or three digits that matter, and a unit.

use std::time::Duration;

/// How long something took.
pub fn time(time: Duration) -> String {
    match time.as_micros() {
        us @ ..1_000 => format!("{us} us"),
        us @ 1_000..10_000 => format!("{:.2} ms", us as f64 / 1e3),
        us @ 10_000..1_000_000 => format!("{:.0} ms", us as f64 / 1e3),
        us => format!("{:.1} s", us as f64 / 1e6),
    }
}

/// How long something has been so, in whole seconds: it is told again every second.
pub fn age(age: Duration) -> String {
    match age.as_secs() {
        s @ ..100 => format!("{s} s"),
        s @ 100..6_000 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

/// A count, in thousands and more where it is large: `999`, `1.2k`, `35M`.
pub fn count(count: u64) -> String {
    let mut scaled = count as f64;
    for unit in ["", "k", "M", "G", "T"] {
        if unit.is_empty() && count < 1000 {
            return count.to_string();
        }
        if scaled < 9.95 && !unit.is_empty() {
            return format!("{scaled:.1}{unit}");
        }
        if scaled < 999.5 {
            return format!("{scaled:.0}{unit}");
        }
        scaled /= 1000.0;
    }
    format!("{scaled:.0}P")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_two_or_three_digits() {
        let shown = [0, 999, 1000, 1249, 9_949, 9_951, 35_000, 999_499, 999_500, 12_000_000];
        let expected = ["0", "999", "1.0k", "1.2k", "9.9k", "10k", "35k", "999k", "1.0M", "12M"];
        assert_eq!(shown.map(count), expected);
        assert_eq!(count(u64::MAX), "18447P");
    }

    #[test]
    fn times_have_a_unit_that_fits() {
        let shown = [12, 1_234, 99_900, 2_500_000].map(|us| time(Duration::from_micros(us)));
        assert_eq!(shown, ["12 us", "1.23 ms", "100 ms", "2.5 s"]);
        let shown = [0, 99, 100, 5_999, 7_300].map(|s| age(Duration::from_secs(s)));
        assert_eq!(shown, ["0 s", "99 s", "1 min", "99 min", "2 h"]);
    }
}
