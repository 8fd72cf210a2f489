//! The bridge to the `log` crate, of the feature of that name: what users' functions say there
//! becomes records, and records go to a program's own logger.

use std::sync::atomic::{AtomicBool, Ordering};

use ::log::{LevelFilter, Log, Metadata};

use crate::log::macros::say;
use crate::log::sink::log_to;
use crate::trace::{self, Level, Line};

/// Sends records of this level and above, of the whole tree, to the logger that the program has set
/// with the `log` crate; see [`log_to`](crate::log_to). Their target is the record's, and their
/// text begins with the context's name; a terminal obeys neither. [`Level::Io`] is `log`'s trace.
///
/// What functions say there in other contexts becomes records by itself: an agent whose program has
/// set no logger before [`Program::run`](crate::Program::run) has one that makes it so, and this
/// does nothing there. Trace is not among it.
///
/// Only with the feature `log`.
pub fn log_to_crate(level: Level) {
    log_to(
        level,
        Box::new(|record| {
            // Then the logger leads to the master, who has it already.
            if IS_OURS.load(Ordering::Relaxed) {
                return;
            }
            let logger = ::log::logger();
            let level = match record.level {
                Level::Error => ::log::Level::Error,
                Level::Warn => ::log::Level::Warn,
                Level::Info => ::log::Level::Info,
                Level::Debug => ::log::Level::Debug,
                Level::Io => ::log::Level::Trace,
            };
            // Loggers write it as it is.
            let target = Line(record.target).to_string();
            let metadata = Metadata::builder().level(level).target(&target).build();
            if logger.enabled(&metadata) {
                let mut builder = ::log::Record::builder();
                let built = builder.metadata(metadata);
                logger.log(&built.args(format_args!("{}", Said(record))).build());
            }
        }),
    );
}

/// A record without its level and target, which the logger shows.
struct Said<'a>(&'a trace::Record<'a>);

impl std::fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Said(record) = self;
        record.fmt_context(f, "")?;
        let is_of_one = record.context.is_some() || !record.name.is_empty();
        f.write_str(if is_of_one { ": " } else { "" })?;
        record.fmt_said(f)
    }
}

/// Has what an agent's functions say to the `log` crate become records, unless something else
/// listens there.
pub(crate) fn listen() {
    struct Bridge;
    impl Log for Bridge {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            level_of(metadata.level()).is_some_and(trace::wanted)
        }

        fn log(&self, record: &::log::Record<'_>) {
            let level = level_of(record.level()).filter(|level| trace::wanted(*level));
            let Some(level) = level else { return };
            match record.args().as_str() {
                Some(text) => say(level, record.target(), text),
                None => say(level, record.target(), &record.args().to_string()),
            }
        }

        fn flush(&self) {}
    }
    if ::log::set_logger(&Bridge).is_ok() {
        IS_OURS.store(true, Ordering::Relaxed);
        trace::tell_level_to(follow);
    }
}

/// Whether the logger is ours: another's level is not for us to change.
static IS_OURS: AtomicBool = AtomicBool::new(false);

/// The level in force is another one.
fn follow(level: u8) {
    if IS_OURS.load(Ordering::Relaxed) {
        let all = [LevelFilter::Off, LevelFilter::Error, LevelFilter::Warn, LevelFilter::Info];
        let level = all.get(usize::from(level)).copied();
        ::log::set_max_level(level.unwrap_or(LevelFilter::Debug));
    }
}

fn level_of(level: ::log::Level) -> Option<Level> {
    Some(match level {
        ::log::Level::Error => Level::Error,
        ::log::Level::Warn => Level::Warn,
        ::log::Level::Info => Level::Info,
        ::log::Level::Debug => Level::Debug,
        ::log::Level::Trace => return None,
    })
}
