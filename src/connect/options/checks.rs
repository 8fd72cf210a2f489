//! What options may be, and how their text in addresses is read.

use std::time::Duration;

use crate::limits::{DIRECTORY_BYTES_MAX, OPTION_BYTES_MAX};
use crate::log::debug::LEVELS;
use crate::trace::Level;

/// Fails if `path` is no absolute path, or has what no path of ours has.
pub(crate) fn check_folder(key: &str, path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("{key} is no absolute path"));
    }
    if DIRECTORY_BYTES_MAX < path.len() {
        return Err(format!("{key} has more than {DIRECTORY_BYTES_MAX} bytes"));
    }
    check_word(key, path)
}

/// Fails if `value` is empty, begins with a dash, or has a control character: it would be taken
/// for something else on a command line, or on a terminal.
pub(crate) fn check_word(key: &str, value: &str) -> Result<(), String> {
    if value.is_empty() {
        Err(format!("{key} is empty"))
    } else if value.starts_with('-') {
        Err(format!("{key} begins with `-`"))
    } else {
        check_text(key, value)
    }
}

/// Fails if `value` has a control character, or is too long.
pub(crate) fn check_text(key: &str, value: &str) -> Result<(), String> {
    if value.contains(char::is_control) {
        Err(format!("{key} has a control character"))
    } else if OPTION_BYTES_MAX < value.len() {
        Err(format!("{key} has more than {OPTION_BYTES_MAX} bytes"))
    } else {
        Ok(())
    }
}

/// Reads a number of seconds.
pub(crate) fn parse_seconds(value: &str) -> Result<Duration, String> {
    let seconds: f64 = value.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|why| why.to_string())
}

/// Reads the name of a level.
pub(crate) fn parse_level(value: &str) -> Result<Level, String> {
    let at = LEVELS.iter().position(|name| *name == value);
    let level = at.and_then(|at| Level::from_number(at as u8 + 1));
    level.ok_or_else(|| format!("no level; levels are: {}", LEVELS.join(", ")))
}

/// Reads `yes` or `no`.
pub(crate) fn parse_flag(value: &str) -> Result<bool, String> {
    match value {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err("neither yes nor no".to_owned()),
    }
}
