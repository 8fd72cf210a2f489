//! The facade that all floors log through, and what makes another process's text harmless.
//! It takes constant texts and numbers, so that an agent carries no formatting machinery.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};

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
    /// How much it matters.
    pub level: Level,
    /// What happened.
    pub what: &'static str,
    /// The ids, handles or sizes that it is about.
    pub about: &'a [u64],
    /// Text that belongs to it; may come from another process.
    pub text: &'a str,
}

/// Takes records; called on whatever thread logs.
pub type Sink = Box<dyn Fn(&Record<'_>) + Send>;

static LEVEL: AtomicU8 = AtomicU8::new(0);
static SINK: Lock<Option<Sink>, { rank::LOG }> = Lock::new(None);

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
    let before = SINK.lock().replace(sink);
    LEVEL.store(level as u8, Ordering::Relaxed);
    // What it owns may log as it is dropped.
    drop(before);
}

/// Keeps other threads from logging while this process is copied: in the copy nobody would let go
/// of the sink.
pub(crate) struct Held(lock::Held<'static, Option<Sink>>);

/// Until it is dropped in the original, or left behind in the copy.
pub(crate) fn hold() -> Held {
    Held(SINK.lock())
}

impl Held {
    /// In a copy: it is silent until it has a sink of its own. The original's is not dropped, as
    /// that might write what it has buffered.
    pub(crate) fn leave_behind(mut self) {
        LEVEL.store(0, Ordering::Relaxed);
        std::mem::forget(self.0.take());
    }
}

/// Whether a record of this level goes anywhere.
pub(crate) fn wanted(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Logs that `what` happened, about these numbers.
pub(crate) fn event(level: Level, what: &'static str, about: &[u64]) {
    text(level, what, about, "");
}

/// Logs that `what` happened, with text.
pub(crate) fn text(level: Level, what: &'static str, about: &[u64], text: &str) {
    if !wanted(level) {
        return;
    }
    if let Some(sink) = &*SINK.lock() {
        let record = Record { level, what, about, text };
        // It has said so itself, by way of the panic hook; there is nowhere else to log it.
        let _ = catch_unwind(AssertUnwindSafe(|| sink(&record)));
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
    use std::sync::PoisonError;

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
