//! Sinks for whoever wants no more than lines: on standard error, or in a file.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::log::sink::log_from;
use crate::sys::{fd, fork};
use crate::trace::{Level, Record};

/// Names the level of [`log_to_stderr`] and [`log_to_file`].
const LEVEL_VARIABLE: &str = "MITOGEN_LOG_LEVEL";

/// Has the log of the whole tree written to standard error, from this level on; see
/// [`log_to`](crate::log_to).
///
/// A line has the time, in UTC to the microsecond, the level, the name of the context, who says it
/// unless it is this library, and what:
///
/// ```text
/// 2026-11-22T09:30:00.000123Z INFO local/ssh:web1 stdout: hello
/// ```
///
/// `#7` is a context whose name is not known, and a line that goes on in the next ends with `...`.
/// Where the environment has `MITOGEN_LOG_LEVEL` that is the level: `none`, `error`, `warn` or
/// `warning`, `info`, `debug`, `io`, in letters of any case. Another word changes nothing, and a
/// line says so.
pub fn log_to_stderr(level: Level) {
    // A standard error that is closed or full has nobody to be told.
    log_lines(level, |line| _ = fd::write_all(fd::stderr(), line));
}

/// As [`log_to_stderr`], to the end of this file, which is made if there is none, for its owner
/// alone (0600): what contexts print may be nobody else's business. Each line is one write, so
/// that those of several processes do not mix.
///
/// # Errors
/// [`ErrorKind::System`](crate::error::ErrorKind) if the file cannot be opened.
pub fn log_to_file(path: impl AsRef<Path>, level: Level) -> Result<()> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    let file = opened.map_err(|error| {
        Error::system("opening the log", error.raw_os_error().unwrap_or_default())
    })?;
    // A copy of this process logs nowhere.
    fork::mark(file.as_fd());
    log_lines(level, move |line| write(&file, line));
    Ok(())
}

fn write(mut file: &File, line: &[u8]) {
    // A disk that is full has nobody to be told.
    let _ = file.write_all(line);
}

fn log_lines(level: Level, write: impl Fn(&[u8]) + Send + 'static) {
    let asked = std::env::var_os(LEVEL_VARIABLE);
    let asked = asked.map(|word| word.to_string_lossy().into_owned());
    let level = match asked.as_deref().map(level_of) {
        None => Some(level),
        Some(Ok(asked)) => asked,
        Some(Err(())) => {
            let what = "no level: error, warn, info, debug, io or none are";
            let (about, target, text) = (&[][..], LEVEL_VARIABLE, asked.as_deref());
            let text = text.unwrap_or_default();
            let record = Record { what, about, text, ..Record::now(Level::Warn, target) };
            write(line(&record).as_bytes());
            Some(level)
        }
    };
    log_from(level, Box::new(move |record| write(line(record).as_bytes())));
}

/// The level of this name; an empty one is none, too.
fn level_of(word: &str) -> Result<Option<Level>, ()> {
    let level = match &*word.trim().to_ascii_lowercase() {
        "" | "none" => return Ok(None),
        "error" => Level::Error,
        "warn" | "warning" => Level::Warn,
        "info" => Level::Info,
        "debug" => Level::Debug,
        "io" => Level::Io,
        _ => return Err(()),
    };
    Ok(Some(level))
}

/// A record as one line, with its time.
fn line(record: &Record<'_>) -> String {
    let (seconds, micros) = (record.time_us / 1_000_000, record.time_us % 1_000_000);
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let time = format!("{hour:02}:{minute:02}:{second:02}.{micros:06}");
    let record = record.to_string();
    // It begins with the level's name.
    let (level, rest) = record.split_at(record.find([' ', ':']).unwrap_or(record.len()));
    format!("{year:04}-{month:02}-{day:02}T{time}Z {}{rest}\n", level.to_uppercase())
}

/// Year, month and day of so many days after the first of 1970, by the calendar of today.
fn date(days: u64) -> (u64, u64, u64) {
    // Years that begin in March end with the day that only some of them have.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let years = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * years + years / 4 - years / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (400 * era + years + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ContextId;

    #[test]
    fn a_line_has_the_time_the_level_the_context_and_what_it_says() {
        let (text, name, context) = ("a\nb\x1b[31m", "local/ssh:web1", Some(ContextId(3)));
        let time_us = 1_795_339_791_000_123;
        let record = Record::now(Level::Info, "stdout");
        let record = Record { time_us, text, name, context, ..record };
        let expected = "2026-11-22T09:29:51.000123Z INFO local/ssh:web1 stdout: a\\nb\\x1b[31m\n";
        assert_eq!(line(&record), expected);
    }

    #[test]
    fn days_have_their_dates() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (19_782, (2024, 2, 29)),
            (20_819, (2027, 1, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }

    #[test]
    fn a_level_is_a_word_in_any_case() {
        for (word, expected) in [
            ("IO", Ok(Some(Level::Io))),
            (" Warning ", Ok(Some(Level::Warn))),
            ("warn", Ok(Some(Level::Warn))),
            ("DEBUG", Ok(Some(Level::Debug))),
            ("Info", Ok(Some(Level::Info))),
            ("error", Ok(Some(Level::Error))),
            ("none", Ok(None)),
            ("", Ok(None)),
            ("loud", Err(())),
        ] {
            assert_eq!(level_of(word), expected, "{word}");
        }
    }
}
