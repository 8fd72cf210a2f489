//! The view that has a terminal to itself: a line that sums up, the heads, and as many rows as fit.

use std::io;
use std::time::{Duration, Instant};

use super::keys::Key;
use super::model::Model;
use super::screen::{Line, Move, Screen, Scroll};
use super::table::{Table, summary};
use super::terminal::Terminal;

/// Lines that are no rows.
const ABOVE_ROWS: usize = 2;

/// The view.
pub struct Live {
    terminal: Terminal,
    screen: Screen,
    table: Table,
    scroll: Scroll,
    interval: Duration,
}

impl Live {
    /// Takes the terminal. `wake` is called when a panic has given it back.
    ///
    /// # Errors
    /// It is none, or is gone.
    pub fn take(interval: Duration, wake: impl Fn() + Send + Sync + 'static) -> io::Result<Live> {
        let (terminal, screen) = (Terminal::take(wake)?, Screen::default());
        Ok(Live { terminal, screen, table: Table::new(), scroll: Scroll::default(), interval })
    }

    /// Draws what differs from what is there.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn draw(&mut self, model: &Model, now: Instant) -> io::Result<()> {
        let size = self.terminal.size();
        let (heads, rows) = self.table.lines(model, now);
        let seen = self.scroll.seen(rows.len(), self.room());
        let part = match seen.len() == rows.len() {
            true => String::new(),
            false => format!("; rows {} to {} of {}", seen.start + 1, seen.end, rows.len()),
        };
        let seconds = self.interval.as_secs_f64();
        let first = format!("mitogen: {}; every {seconds} s{part}; q ends", summary(model));
        let mut lines = vec![Line::head(first), Line::plain(heads)];
        lines.extend(rows.into_iter().take(seen.end).skip(seen.start).map(Line::plain));
        let bytes = self.screen.draw(&lines, size);
        if bytes.is_empty() { Ok(()) } else { self.terminal.write(&bytes) }
    }

    /// How many rows fit.
    fn room(&self) -> usize {
        self.terminal.size().0.saturating_sub(ABOVE_ROWS)
    }

    /// Moves what is seen.
    pub fn press(&mut self, key: Key) {
        let page = self.room().max(1);
        match key {
            Key::Up => self.scroll.go(Move::Up(1)),
            Key::Down => self.scroll.go(Move::Down(1)),
            Key::PageUp => self.scroll.go(Move::Up(page)),
            Key::PageDown => self.scroll.go(Move::Down(page)),
            Key::Home => self.scroll.go(Move::Up(usize::MAX)),
            Key::End => self.scroll.go(Move::Down(usize::MAX)),
            Key::Redraw => self.screen.forget(),
            Key::Quit => (),
        }
    }

    /// Gives the terminal back.
    pub fn leave(&mut self) {
        self.terminal.leave();
    }

    /// Has it again.
    ///
    /// # Errors
    /// It is gone.
    pub fn enter(&mut self) -> io::Result<()> {
        self.screen.forget();
        self.terminal.enter()
    }

    /// Whether a panic has given it back.
    pub fn is_lost(&self) -> bool {
        !self.terminal.is_ours()
    }
}
