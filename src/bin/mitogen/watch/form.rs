//! The forms in which a tree is shown: live on a terminal; or, where nobody looks at one, a table
//! or objects for each change.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use mitogen::__private::terminal;

use super::super::{status, text};
use super::keys::Key;
use super::live::Live;
use super::model::{Model, News};
use super::table::{Table, object};

/// Much that happens at once is drawn at once.
const BETWEEN_DRAWINGS: Duration = Duration::from_millis(50);
/// How often ages are told again.
const BETWEEN_AGES: Duration = Duration::from_secs(1);

/// Shows the tree.
pub struct Form {
    way: Way,
    interval: Duration,
    has_changed: bool,
    /// When it was shown last.
    shown: Option<Instant>,
    /// What is to be said once the terminal is given back.
    complaints: Vec<String>,
}

enum Way {
    Live(Live),
    /// And what was told of each row.
    Table(File, Vec<News>),
    Json(File, Vec<News>),
}

impl Form {
    /// The form that fits: live on a terminal that can do that, and that nobody else writes to.
    /// There `wake` is called when a panic has taken it.
    ///
    /// # Errors
    /// There is no standard output.
    pub fn new(
        json: bool,
        interval: Duration,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Form> {
        let is_shared = status::logs() && io::stderr().is_terminal();
        let is_live = io::stdout().is_terminal() && !status::is_dumb() && !is_shared;
        let way = match () {
            () if json => Way::Json(text::unbuffered(io::stdout())?, Vec::new()),
            () if is_live => Way::Live(Live::take(interval, wake)?),
            () => Way::Table(text::unbuffered(io::stdout())?, Vec::new()),
        };
        Ok(Form { way, interval, has_changed: true, shown: None, complaints: Vec::new() })
    }

    /// Whether it is live, and has the terminal to itself.
    pub fn is_live(&self) -> bool {
        matches!(self.way, Way::Live(_))
    }

    /// There is something to show.
    pub fn changed(&mut self) {
        self.has_changed = true;
    }

    /// Shows what there is to show by now. Returns whether there was anything.
    ///
    /// # Errors
    /// Nobody sees it any more.
    pub fn show(&mut self, model: &Model, now: Instant) -> io::Result<bool> {
        if self.due(model, now).is_none_or(|due| now < due) {
            return Ok(false);
        }
        (self.has_changed, self.shown) = (false, Some(now));
        match &mut self.way {
            Way::Live(live) => live.draw(model, now)?,
            Way::Table(out, told) => {
                let is_first = told.is_empty();
                if !tell(told, model).is_empty() {
                    let (heads, rows) = Table::new().lines(model, now);
                    let first = if is_first { "" } else { "\n" };
                    out.write_all(format!("{first}{heads}\n{}\n", rows.join("\n")).as_bytes())?;
                }
            }
            Way::Json(out, told) => {
                let rows = tell(told, model).into_iter();
                let lines: String = rows.map(|row| object(model, model.row(row), now)).collect();
                out.write_all(lines.as_bytes())?;
            }
        }
        Ok(true)
    }

    /// When there is something to show; never, as it is now, if there is none.
    pub fn due(&self, model: &Model, now: Instant) -> Option<Instant> {
        let pause = match self.way {
            Way::Live(_) if self.has_changed => BETWEEN_DRAWINGS,
            Way::Live(_) if model.has_ages() => BETWEEN_AGES,
            Way::Table(..) if self.has_changed => self.interval,
            Way::Json(..) if self.has_changed => Duration::ZERO,
            _ => return None,
        };
        Some(self.shown.map_or(now, |shown| shown.checked_add(pause).unwrap_or(now)))
    }

    /// Whether nobody sees it any more, though nothing was to be shown.
    pub fn is_unseen(&self) -> bool {
        terminal::is_unread(io::stdout())
    }

    /// Whether a panic has taken the terminal from it.
    pub fn is_lost(&self) -> bool {
        matches!(&self.way, Way::Live(live) if live.is_lost())
    }

    /// Moves what is seen.
    pub fn press(&mut self, key: Key) {
        if let Way::Live(live) = &mut self.way {
            live.press(key);
            self.has_changed = true;
        }
    }

    /// Says something on standard error, beside what is shown.
    ///
    /// # Errors
    /// As [`Form::show`].
    pub fn say(&mut self, what: &str) -> io::Result<()> {
        if io::stderr().is_terminal() {
            return self.aside(|| text::complain(what));
        }
        text::complain(what);
        Ok(())
    }

    /// Says something once nothing else is shown.
    pub fn complain(&mut self, what: String) {
        match self.way {
            Way::Live(_) => self.complaints.push(what),
            _ => text::complain(&what),
        }
    }

    /// Does something while the terminal is as it was before.
    ///
    /// # Errors
    /// As [`Form::show`].
    pub fn aside(&mut self, act: impl FnOnce()) -> io::Result<()> {
        if let Way::Live(live) = &mut self.way {
            live.leave();
        }
        act();
        self.has_changed = true;
        match &mut self.way {
            Way::Live(live) => live.enter(),
            _ => Ok(()),
        }
    }

    /// Gives the terminal back, and says what was to be said.
    pub fn end(self) {
        drop(self.way);
        self.complaints.iter().for_each(|what| text::complain(what));
    }
}

/// The rows of which there is news, in the order of the table; notes that they were told.
fn tell(told: &mut Vec<News>, model: &Model) -> Vec<usize> {
    let mut rows = model.in_order();
    let is_new = told.len();
    let mut now: Vec<News> = (0..model.numbers()).map(|row| model.row(row).news()).collect();
    std::mem::swap(told, &mut now);
    rows.retain(|row| is_new <= *row || now[*row] != told[*row]);
    rows
}

#[cfg(test)]
mod tests {
    use super::super::model::LINGER;
    use super::*;

    #[test]
    fn each_end_is_told_once_whatever_row_it_has() {
        let (mut model, mut told, now) = (Model::new(0, "m", "h"), Vec::new(), Instant::now());
        let [first, second] = [7, 8].map(|id| model.add_found(0, "found", id));
        assert_eq!(tell(&mut told, &model), [0, first, second]);
        model.gone(7, "killed");
        assert_eq!(tell(&mut told, &model), [first]);
        model.shown(now);
        model.leave(now + LINGER);
        assert!(tell(&mut told, &model).is_empty());
        model.gone(8, "killed");
        assert_eq!(tell(&mut told, &model), [second]);
        assert_eq!(model.add_found(0, "next", 9), first);
        assert_eq!(tell(&mut told, &model), [first]);
    }
}
