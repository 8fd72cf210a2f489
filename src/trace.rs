//! The facade that all floors log through, and what makes another process's text harmless.
//! It takes constant texts and numbers, so that an agent carries no formatting machinery.

use std::any::Any;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
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

/// One record, borrowed for the time of the sink's call. One of another context is as that says,
/// but for `tree`, `context`, and a `name` that is known here: its texts may hold anything. What is
/// displayed of it is one line, of which a terminal obeys nothing.
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
    /// the module that logs. Before that stands the name of another, for which that context speaks:
    /// of a child whose tool says something, of one of a tree of its own.
    pub target: &'a str,
    /// What happened; empty if `text` says all.
    pub what: &'a str,
    /// The ids, handles or sizes that it is about.
    pub about: &'a [u64],
    /// Text that belongs to it.
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

    /// As [`Take::take`], on a user's thread, which may wait for room for a while.
    fn take_waiting(&self, record: &Record<'_>) -> bool {
        self.take(record)
    }
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
    let level = used.map(|taker| taker.level).max().unwrap_or(0);
    LEVEL.store(level, Ordering::Relaxed);
    #[cfg(feature = "log")]
    if let Some(follow) = FOLLOWS.get() {
        follow(level);
    }
}

/// Told of the level in force.
#[cfg(feature = "log")]
static FOLLOWS: std::sync::OnceLock<fn(u8)> = std::sync::OnceLock::new();

/// Has it told to `follow` from now on, which must not log.
#[cfg(feature = "log")]
pub(crate) fn tell_level_to(follow: fn(u8)) {
    FOLLOWS.get_or_init(|| follow);
    tell_level(&TAKERS.lock());
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
    hand(record, |to, record| to.take(record))
}

/// As [`record`], on a user's thread, which may wait for room for a while.
pub(crate) fn record_waiting(record: &Record<'_>) -> bool {
    hand(record, |to, record| to.take_waiting(record))
}

fn hand(record: &Record<'_>, take: fn(&dyn Take, &Record<'_>) -> bool) -> bool {
    let mut had_room = true;
    for slot in [Slot::Sink, Slot::Forward, Slot::Debug] {
        let Some(to) = taker(slot, record.level) else { continue };
        lock::assert_none_held("logging");
        had_room &= take(&*to, record);
    }
    had_room
}

/// Who takes records of this level in a slot.
pub(crate) fn taker(slot: Slot, level: Level) -> Option<Arc<dyn Take>> {
    let taker = &TAKERS.lock()[slot as usize];
    if taker.level < level as u8 { None } else { taker.to.clone() }
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

/// What a panic says.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}

/// One line: the level, who says it, and what; nothing that a terminal would obey.
impl fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.level)?;
        self.fmt_context(f, " ")?;
        if self.target != TARGET {
            write!(f, " {}", Line(self.target))?;
        }
        f.write_str(": ")?;
        self.fmt_said(f)
    }
}

impl Record<'_> {
    /// The context that it is of, if any, behind `before`.
    pub(crate) fn fmt_context(&self, f: &mut fmt::Formatter<'_>, before: &str) -> fmt::Result {
        if 1 < self.tree {
            write!(f, "{before}tree {}", self.tree)?;
        }
        let before = if 1 < self.tree { " " } else { before };
        match self.context {
            Some(id) if self.name.is_empty() => write!(f, "{before}#{id}"),
            _ if self.name.is_empty() => Ok(()),
            _ => write!(f, "{before}{}", Line(self.name)),
        }
    }

    /// What it says.
    pub(crate) fn fmt_said(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Line(self.what))?;
        for number in self.about {
            write!(f, " {number}")?;
        }
        if !self.text.is_empty() {
            let between = if self.what.is_empty() { "" } else { ": " };
            write!(f, "{between}{}", Line(self.text))?;
        }
        f.write_str(if self.continues { " ..." } else { "" })
    }
}

/// As [`Printable`], in one line: a line feed is `\n`, so that nobody's text looks like another
/// record.
pub(crate) struct Line<'a>(pub &'a str);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.split('\n').enumerate() {
            f.write_str(if at == 0 { "" } else { "\\n" })?;
            Printable(part).fmt(f)?;
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
                '\n' | '\t' => f.write_char(c)?,
                c if is_harmful(c) => write!(f, "\\x{:02x}", c as u32)?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Control characters, and those that reorder or hide the text around them.
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{feff}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

/// Held by a test that has a sink, since there is one for all.
#[cfg(test)]
pub(crate) static SINKS: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Has `hear` called for each record, at once, for a test that holds [`SINKS`].
#[cfg(test)]
pub(crate) fn hear(level: Level, hear: impl Fn(&Record<'_>) + Send + Sync + 'static) {
    struct Hears<F>(F);
    impl<F: Fn(&Record<'_>) + Send + Sync> Take for Hears<F> {
        fn take(&self, record: &Record<'_>) -> bool {
            (self.0)(record);
            true
        }
    }
    take_by(Slot::Sink, Some(level), Some(Arc::new(Hears(hear))));
}

#[cfg(test)]
mod tests {
    use std::sync::PoisonError;

    use super::*;

    #[test]
    fn what_a_file_of_this_process_takes_nobody_below_is_to_send() {
        let _alone = SINKS.lock().unwrap_or_else(PoisonError::into_inner);
        hear(Level::Warn, |_| ());
        take_by(Slot::Debug, Some(Level::Io), taker(Slot::Sink, Level::Warn));
        assert!(wanted(Level::Io));
        assert_eq!(level_below(), Level::Warn as u8);
        take_by(Slot::Debug, None, None);
        take_from(Slot::Sink, None);
        assert_eq!(level_below(), 0);
    }

    #[test]
    fn a_record_is_one_line_that_says_who_says_what() {
        let record = Record {
            context: Some(ContextId(7)),
            what: "it:",
            about: &[1, 2],
            ..Record::now(Level::Warn, TARGET)
        };
        assert_eq!(record.to_string(), "Warn #7: it: 1 2");
        let (name, target, what, about) = ("ssh:a", "stdout", "", &[][..]);
        let record = Record { name, target, what, about, text: "x\n\x1b", ..record };
        assert_eq!(record.to_string(), "Warn ssh:a stdout: x\\n\\x1b");
        let record = Record { tree: 2, continues: true, ..record };
        assert_eq!(record.to_string(), "Warn tree 2 ssh:a stdout: x\\n\\x1b ...");
        let record = Record { context: None, name: "", text: "y", ..Record::now(Level::Info, "m") };
        assert_eq!(record.to_string(), "Info m: y");
    }

    #[test]
    fn escapes_become_visible() {
        assert_eq!(Printable("a\x1b[31mb\r\n\u{9b}c").to_string(), "a\\x1b[31mb\\x0d\n\\x9bc");
        for hides in ['\u{202e}', '\u{61c}', '\u{2060}', '\u{206a}', '\u{feff}'] {
            let text = format!("x\\x{:02x}y", hides as u32);
            assert_eq!(Printable(&format!("x{hides}y")).to_string(), text);
        }
        assert_eq!(Printable("déjà\tvu").to_string(), "déjà\tvu");
    }
}
