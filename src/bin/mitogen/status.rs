//! One line on the terminal that says how far connecting has come, rewritten in place. It is there
//! only while somebody looks at it, and goes before anything else is printed.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::text;

/// What takes less time than this is not worth telling of.
const AFTER: Duration = Duration::from_millis(300);
/// Back to the first column, and nothing from there on.
const ERASE: &str = "\r\x1b[K";

/// The line.
pub struct Status {
    /// None if there is nobody to look at it.
    terminal: Option<File>,
    /// When there is something to tell.
    due: Instant,
    shown: bool,
}

/// How many addresses were reached, and how many were not.
#[derive(Clone, Copy)]
pub struct Tally {
    /// All that there are.
    pub total: usize,
    /// Those that were reached.
    pub up: usize,
    /// Those that were not.
    pub failed: usize,
}

impl Tally {
    /// None reached yet, of so many.
    pub fn of(total: usize) -> Tally {
        Tally { total, up: 0, failed: 0 }
    }

    /// Counts one more.
    pub fn add(&mut self, is_up: bool) {
        match is_up {
            true => self.up += 1,
            false => self.failed += 1,
        }
    }
}

impl Status {
    /// One that is not shown yet; `wanted` tells whether it may be.
    pub fn new(wanted: bool) -> Status {
        let shows = wanted && is_possible();
        let terminal = shows.then(|| text::unbuffered(io::stderr()).ok()).flatten();
        Status { terminal, due: Instant::now() + AFTER, shown: false }
    }

    /// When to show it first, though nothing may have happened.
    pub fn due(&self) -> Option<Instant> {
        self.terminal.as_ref().map(|_| self.due)
    }

    /// Shows how it is now, if there is still something to come.
    pub fn show(&mut self, tally: Tally) {
        let Tally { total, up, failed } = tally;
        if total <= up + failed {
            return self.erase();
        }
        let Some(terminal) = self.terminal.as_mut().filter(|_| self.due <= Instant::now()) else {
            return;
        };
        let failed = if failed == 0 { String::new() } else { format!(", {failed} failed") };
        // A terminal that is gone is looked at by nobody.
        let _ = terminal.write_all(format!("{ERASE}connecting {up}/{total}{failed}").as_bytes());
        self.shown = true;
    }

    /// Makes room for something else; the next that happens shows it again.
    pub fn erase(&mut self) {
        if let (true, Some(terminal)) = (self.shown, &mut self.terminal) {
            // As above.
            let _ = terminal.write_all(ERASE.as_bytes());
            self.shown = false;
        }
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        self.erase();
    }
}

/// Whether standard error is a terminal on which lines may be rewritten.
fn is_possible() -> bool {
    io::stderr().is_terminal() && !is_dumb() && !logs()
}

/// What makes room for a line where this one may be.
pub fn erased() -> &'static str {
    if is_possible() { ERASE } else { "" }
}

/// Whether the terminal cannot go back in a line.
pub fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// Whether records come in between, which know nothing of this line.
pub fn logs() -> bool {
    let level = std::env::var_os("MITOGEN_LOG_LEVEL").unwrap_or_default();
    !level.is_empty() && !level.eq_ignore_ascii_case("none")
}
