//! What users' functions log, wherever they run.

use std::fmt;

use crate::limits::LOG_TEXT_BYTES_MAX;
use crate::log::sink::may_wait;
use crate::trace::{self, Level, Record};

/// Logs an error of the program's own: see [`info!`](crate::info).
#[macro_export]
macro_rules! error {
    ($($arg:tt)+) => { $crate::__log!(Error, $($arg)+) };
}

/// Logs what is odd: see [`info!`](crate::info).
#[macro_export]
macro_rules! warn {
    ($($arg:tt)+) => { $crate::__log!(Warn, $($arg)+) };
}

/// Logs, with the arguments of [`format!`](std::format), in a function that runs anywhere: it
/// becomes a record of the [sink](crate::log_to) of the first process, with the context's name, and
/// the path of the module as its target. In order with what the same thread prints.
///
/// Nothing is evaluated, formatted or sent unless the level is wanted, which the first process
/// says. A thread that logs more than the sink takes waits for that, 10 seconds at most; then the
/// record is dropped and counted. In a callback of the sink it goes nowhere.
///
/// ```
/// fn prune(path: &std::path::Path) {
///     mitogen::info!("pruning {}", path.display());
/// }
/// # prune("/".as_ref());
/// ```
#[macro_export]
macro_rules! info {
    ($($arg:tt)+) => { $crate::__log!(Info, $($arg)+) };
}

/// Logs a detail: see [`info!`](crate::info).
#[macro_export]
macro_rules! debug {
    ($($arg:tt)+) => { $crate::__log!(Debug, $($arg)+) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, $($arg:tt)+) => {
        if $crate::__private::log_wants($crate::Level::$level) {
            $crate::__private::log(
                $crate::Level::$level,
                ::core::module_path!(),
                ::core::format_args!($($arg)+),
            )
        }
    };
}

/// Whether a record of this level goes anywhere.
#[inline]
pub fn log_wants(level: Level) -> bool {
    trace::wanted(level)
}

/// Logs what a macro says.
#[cold]
pub fn log(level: Level, target: &str, args: fmt::Arguments<'_>) {
    match args.as_str() {
        Some(text) => say(level, target, text),
        None => say(level, target, &args.to_string()),
    }
}

/// Logs a text of any length: a long one is several records.
pub(crate) fn say(level: Level, target: &str, mut text: &str) {
    let record = if may_wait() { trace::record_waiting } else { trace::record };
    loop {
        let (head, rest) = text.split_at(end_of_first(text));
        let continues = !rest.is_empty();
        record(&Record { text: head, continues, ..Record::now(level, target) });
        if !continues {
            return;
        }
        text = rest;
    }
}

/// Where the first record of a text ends, on the bound of a character.
fn end_of_first(text: &str) -> usize {
    let mut end = text.len().min(LOG_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use std::sync::PoisonError;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::{flush_log, log_at, log_to};

    #[test]
    fn what_is_said_has_its_module_and_level_and_nothing_is_formatted_that_nobody_wants() {
        let _alone = trace::SINKS.lock().unwrap_or_else(PoisonError::into_inner);
        let (tell, told) = channel();
        log_to(
            Level::Info,
            Box::new(move |record| {
                if record.target == module_path!() {
                    tell.send((record.level, record.text.to_owned(), record.continues)).unwrap();
                }
            }),
        );
        let costly = || -> u8 { panic!("nobody wants it") };
        crate::debug!("{}", costly());
        crate::info!("plain");
        crate::warn!("{} and {what}", 1, what = "two");
        if true {
            crate::error!("as an expression")
        } else {
            unreachable!()
        }
        crate::info!("{}", "é".repeat(LOG_TEXT_BYTES_MAX));
        assert!(flush_log(Duration::from_secs(10)));
        log_at(None);
        let all: Vec<_> = told.try_iter().collect();
        let said = |at: usize| (all[at].0, all[at].1.as_str());
        assert_eq!(said(0), (Level::Info, "plain"));
        assert_eq!(said(1), (Level::Warn, "1 and two"));
        assert_eq!(said(2), (Level::Error, "as an expression"));
        let long: Vec<_> = all[3..].iter().map(|(_, text, more)| (text.len(), *more)).collect();
        assert_eq!(long, [(LOG_TEXT_BYTES_MAX, true), (LOG_TEXT_BYTES_MAX, false)]);
    }
}
