//! The facade that all floors log through, and what makes another process's text harmless.
//! It takes constant texts and numbers, so that an agent carries no formatting machinery.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::ids::ContextId;
use crate::lock::{self, Lock, rank};

/// How much a record matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Something is lost or refused that should not be.
    Error = 1,
    /// Something is odd, and the program goes on.
    Warn = 2,
    /// Contexts that come and go, and what they print.
    Info = 3,
    /// Every decision.
    Debug = 4,
    /// Every read, write and frame header; never a payload.
    Io = 5,
}

/// One record, borrowed for the time of the sink's call.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When it happened: microseconds since 1970, by the clock there.
    pub time_us: u64,
    /// How much it matters.
    pub level: Level,
    /// Which of the trees that this process is the master of, numbered from 1 in the order in which
    /// their routers were made; 0 if it is of none in particular.
    pub tree: u32,
    /// The context that it happened in; none if it is of this process, and of no context in
    /// particular.
    pub context: Option<ContextId>,
    /// That context's name; empty if it is not known.
    pub name: &'a str,
    /// Who says it: `mitogen`; `stdout` or `stderr` for what was printed there; else the path of
    /// the module that logs.
    pub target: &'a str,
    /// What happened; empty if `text` says all.
    pub what: &'a str,
    /// The ids, handles or sizes that it is about.
    pub about: &'a [u64],
    /// Text that belongs to it; may come from another process.
    pub text: &'a str,
    /// Whether the line was too long for one record, and goes on in the next of this context and
    /// target.
    pub continues: bool,
}

/// The target of what this library logs itself.
pub(crate) const TARGET: &str = "mitogen";

/// Takes records, on whatever thread logs, with no lock held.
pub(crate) trait Take: Send + Sync {
    /// Takes a record of a level that it wants. Returns whether there was room. Neither logs nor
    /// waits.
    fn take(&self, record: &Record<'_>) -> bool;
}

/// Those who may take records of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The program's sink.
    Sink = 0,
    /// In an agent: what sends records to the master.
    Forward = 1,
    /// A file of this process's own, for who hunts a fault.
    Debug = 2,
}

/// Who takes records in one slot, and from which level on; 0 takes none.
struct Taker {
    level: u8,
    to: Option<Arc<dyn Take>>,
}

const NOBODY: Taker = Taker { level: 0, to: None };

/// The highest level of all takers.
static LEVEL: AtomicU8 = AtomicU8::new(0);
static TAKERS: Lock<[Taker; 3], { rank::LOG }> = Lock::new([NOBODY; 3]);

/// Has `to` take records of this level and above, in place of who did before in that slot.
pub(crate) fn take_by(slot: Slot, level: Option<Level>, to: Option<Arc<dyn Take>>) {
    let before = {
        let mut takers = TAKERS.lock();
        let taker = &mut takers[slot as usize];
        taker.level = level.map_or(0, |level| level as u8);
        let before = std::mem::replace(&mut taker.to, to);
        tell_level(&takers);
        before
    };
    // What it owns may log as it is dropped.
    drop(before);
}

/// Changes the level of a slot.
pub(crate) fn take_from(slot: Slot, level: Option<Level>) {
    let mut takers = TAKERS.lock();
    takers[slot as usize].level = level.map_or(0, |level| level as u8);
    tell_level(&takers);
}

/// The level of a slot, if it takes any.
pub(crate) fn level_of(slot: Slot) -> Option<Level> {
    Level::from_number(TAKERS.lock()[slot as usize].level)
}

/// From which level on contexts below this one are to send records: what anybody here takes, but
/// for a file of this process's own.
pub(crate) fn level_below() -> u8 {
    let takers = TAKERS.lock();
    let used = [Slot::Sink, Slot::Forward].map(|slot| &takers[slot as usize]);
    used.iter().filter(|taker| taker.to.is_some()).map(|taker| taker.level).max().unwrap_or(0)
}

fn tell_level(takers: &[Taker; 3]) {
    let used = takers.iter().filter(|taker| taker.to.is_some());
    LEVEL.store(used.map(|taker| taker.level).max().unwrap_or(0), Ordering::Relaxed);
}

/// Keeps other threads from logging while this process is copied: in the copy nobody would let go
/// of the takers.
pub(crate) struct Held(lock::Held<'static, [Taker; 3]>);

/// Until it is dropped in the original, or left behind in the copy.
pub(crate) fn hold() -> Held {
    Held(TAKERS.lock())
}

impl Held {
    /// In a copy: it is silent until it has takers of its own. The original's are not dropped, as
    /// that might write what they have buffered.
    pub(crate) fn leave_behind(mut self) {
        LEVEL.store(0, Ordering::Relaxed);
        std::mem::forget(std::mem::replace(&mut *self.0, [NOBODY; 3]));
    }
}

/// Whether a record of this level goes anywhere.
#[inline]
pub(crate) fn wanted(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Logs that `what` happened, about these numbers, in no context in particular.
pub(crate) fn event(level: Level, what: &'static str, about: &[u64]) {
    text(level, what, about, "");
}

/// Logs that `what` happened, with text.
pub(crate) fn text(level: Level, what: &'static str, about: &[u64], text: &str) {
    if wanted(level) {
        record(&Record { what, about, text, ..Record::now(level, TARGET) });
    }
}

/// Hands a record to all who want its level. Returns whether all of them had room.
pub(crate) fn record(record: &Record<'_>) -> bool {
    let mut had_room = true;
    for slot in 0..3 {
        let to = {
            let taker = &TAKERS.lock()[slot];
            if taker.level < record.level as u8 { None } else { taker.to.clone() }
        };
        let Some(to) = to else { continue };
        lock::assert_none_held("logging");
        had_room &= to.take(record);
    }
    had_room
}

impl<'a> Record<'a> {
    /// An empty one of this moment, of no context in particular.
    pub(crate) fn now(level: Level, target: &'a str) -> Record<'a> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (time_us, about, continues) = (since.as_micros() as u64, &[], false);
        let (context, name, what, text) = (None, "", "", "");
        Record { time_us, level, tree: 0, context, name, target, what, about, text, continues }
    }
}

impl Level {
    /// The level of this number; 0 is none.
    pub(crate) fn from_number(number: u8) -> Option<Level> {
        let all = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Io];
        all.into_iter().find(|level| *level as u8 == number)
    }
}

/// Takes records; called on whatever thread logs.
pub type Sink = Box<dyn Fn(&Record<'_>) + Send>;

/// Sends records of this level and above to `sink`, in place of the sink before.
/// Without one, which is the default, the library is silent.
///
/// The sink is one for the process, and gets one record at a time, on whatever thread logs, the
/// broker's above all: it must be quick, and must not call this library. A panic in it loses that
/// record.
///
/// ```
/// mitogen::log_to(mitogen::Level::Warn, Box::new(|record| eprintln!("{record}")));
/// ```
pub fn log_to(level: Level, sink: Sink) {
    take_by(Slot::Sink, Some(level), Some(Arc::new(Direct(Mutex::new(sink)))));
}

struct Direct(Mutex<Sink>);

impl Take for Direct {
    fn take(&self, record: &Record<'_>) -> bool {
        let sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // It has said so itself, by way of the panic hook; there is nowhere else to log it.
        let _ = catch_unwind(AssertUnwindSafe(|| sink(record)));
        true
    }
}

/// What a panic says.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}

impl fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.level, self.what)?;
        for number in self.about {
            write!(f, " {number}")?;
        }
        if !self.text.is_empty() {
            write!(f, ": {}", Printable(self.text))?;
        }
        Ok(())
    }
}

/// Shows text of another process without what a terminal would obey: control characters become
/// `\x..`, but for line feeds and tabs.
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\n' | '\t' => fmt::Write::write_char(f, c)?,
                c if is_harmful(c) => write!(f, "\\x{:02x}", c as u32)?,
                c => fmt::Write::write_char(f, c)?,
            }
        }
        Ok(())
    }
}

/// Control characters, and those that reorder or hide the text around them.
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Held by a test that has a sink, since there is one for all.
#[cfg(test)]
pub(crate) static SINKS: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_that_panics_loses_its_record_and_takes_the_next() {
        let _alone = SINKS.lock().unwrap_or_else(PoisonError::into_inner);
        let (tell, told) = std::sync::mpsc::channel();
        let sink = move |record: &Record<'_>| {
            // Other tests log, too.
            if record.text == "by a test" {
                tell.send(record.about[0]).unwrap();
                assert_ne!(record.about, [1], "on purpose");
            }
        };
        log_to(Level::Error, Box::new(sink));
        (0..3).for_each(|i| text(Level::Error, "something", &[i], "by a test"));
        log_to(Level::Error, Box::new(|_| ()));
        assert!(told.iter().eq(0..3));
        a_sink_is_replaced_while_what_it_owns_logs();
    }

    /// Not a test of its own: there is one sink.
    fn a_sink_is_replaced_while_what_it_owns_logs() {
        let (tell, told) = std::sync::mpsc::channel();
        let last = Last;
        log_to(Level::Error, Box::new(move |_| _ = &last));
        let next = move |record: &Record<'_>| {
            if record.text == "as it is dropped" {
                tell.send(()).unwrap();
            }
        };
        std::thread::spawn(move || log_to(Level::Error, Box::new(next)));
        told.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        log_to(Level::Error, Box::new(|_| ()));
    }

    /// Logs as it is dropped.
    struct Last;

    impl Drop for Last {
        fn drop(&mut self) {
            text(Level::Error, "something", &[], "as it is dropped");
        }
    }

    #[test]
    fn escapes_become_visible() {
        assert_eq!(Printable("a\x1b[31mb\r\n\u{9b}c").to_string(), "a\\x1b[31mb\\x0d\n\\x9bc");
        assert_eq!(Printable("x\u{202e}y").to_string(), "x\\x202ey");
        assert_eq!(Printable("déjà\tvu").to_string(), "déjà\tvu");
    }
}
