//! The rows of a watched tree as a table, for people, or as objects, for programs. Pure.

use std::time::Instant;

use super::super::json::Object;
use super::super::{columns, text, units};
use super::model::{Model, Row, State};

const HEADS: [&str; 10] =
    ["ID", "NAME", "USER@HOST", "STATE", "ROUND TRIP", "IN/S", "OUT/S", "MSG/S", "QUEUED", "RUNS"];
/// The columns of texts; all others are numbers.
const TEXTS: [usize; 4] = [1, 2, 3, 9];

/// How wide a column is at most: whoever has a longer name moves its own row alone.
const COLUMN_MAX: usize = 60;
/// Steps by which a name is indented at most.
const STEPS_MAX: usize = 32;

/// A table whose columns grow with what they hold, and never shrink: nothing is to jump.
pub struct Table {
    widths: [usize; 10],
}

impl Table {
    /// One without rows.
    pub fn new() -> Table {
        Table { widths: HEADS.map(columns::width) }
    }

    /// The heads and all rows, in their order. Why one is not there stands where its numbers were.
    pub fn lines(&mut self, model: &Model, now: Instant) -> (String, Vec<String>) {
        let rows: Vec<&Row> = model.in_order().into_iter().map(|at| model.row(at)).collect();
        let all: Vec<[String; 10]> = rows.iter().map(|row| cells(row, now)).collect();
        all.iter().for_each(|cells| columns::widen(&mut self.widths[..9], cells));
        self.widths.iter_mut().for_each(|width| *width = COLUMN_MAX.min(*width));
        let line = |cells: &[String]| columns::row(cells, &self.widths, |at| !TEXTS.contains(&at));
        let lines = rows.iter().zip(&all).map(|(row, cells)| match row.state.why() {
            None => line(cells),
            Some(why) => [&line(&cells[..4]), "  ", &on_one_line(why)].concat(),
        });
        (line(&HEADS.map(str::to_owned)), lines.collect())
    }
}

/// How many contexts are in which state, for a line above the table.
pub fn summary(model: &Model) -> String {
    let counts = [
        (model.count(|state| *state == State::Connecting), "connecting"),
        (model.count(|state| *state == State::Up), "up"),
        (model.count(|state| *state == State::Silent), "silent"),
        (model.count(|state| matches!(state, State::Gone(_))), "gone"),
        (model.count(|state| matches!(state, State::Failed(_))), "failed"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count != 0);
    let counts: Vec<String> = counts.map(|(count, name)| format!("{count} {name}")).collect();
    counts.join(", ")
}

fn cells(row: &Row, now: Instant) -> [String; 10] {
    let none = || "-".to_owned();
    let answer = row.answer.as_ref().filter(|_| row.state == State::Up);
    let count = |count: Option<u64>| count.map_or_else(none, units::count);
    [
        row.id.map_or_else(none, |id| id.to_string()),
        ["  ".repeat(row.depth.min(STEPS_MAX)), text::word(&row.name)].concat(),
        if row.place.is_empty() { none() } else { text::word(&row.place) },
        row.state.name().to_owned(),
        answer.and_then(|answer| answer.round_trip).map_or_else(none, units::time),
        count(row.rates.map(|rates| rates.bytes_in)),
        count(row.rates.map(|rates| rates.bytes_out)),
        count(row.rates.map(|rates| rates.messages)),
        count(answer.map(|answer| answer.queued_bytes)),
        runs(row, now),
    ]
}

/// The functions that run there, each with its age; last, since there may be any number.
fn runs(row: &Row, now: Instant) -> String {
    let running = row.answer.iter().flat_map(|answer| &answer.running).map(|running| {
        let age = units::age(now.saturating_duration_since(running.since));
        format!("{} {age}", text::word(&running.function))
    });
    running.collect::<Vec<_>>().join(", ")
}

/// A reason may have several lines, of which the later tell more.
fn on_one_line(why: &str) -> String {
    let lines: Vec<String> = why.lines().map(|line| text::word(line.trim())).collect();
    lines.join("; ")
}

/// A row as an object of JSON, with its end of line.
pub fn object(model: &Model, row: &Row, now: Instant) -> String {
    let micros = |time: std::time::Duration| time.as_micros() as u64;
    let answer = row.answer.as_ref();
    let now_there = answer.filter(|_| row.state == State::Up);
    let parent = row.parent.and_then(|parent| model.row(parent).id);
    let running = answer.iter().flat_map(|answer| &answer.running).map(|running| {
        let age_ms = now.saturating_duration_since(running.since).as_millis();
        Object::new().text("function", &running.function).number("age_ms", age_ms as u64)
    });
    let object = Object::new()
        .maybe("id", row.id.map(u64::from))
        .maybe("parent", parent.map(u64::from))
        .text("name", &row.name)
        .text("at", &row.place)
        .text("state", row.state.name());
    let object = match row.state.why() {
        Some(why) => object.text("why", why),
        None => object,
    };
    object
        .maybe("round_trip_us", now_there.and_then(|answer| answer.round_trip).map(micros))
        .maybe("in_bytes_per_s", row.rates.map(|rates| rates.bytes_in))
        .maybe("out_bytes_per_s", row.rates.map(|rates| rates.bytes_out))
        .maybe("messages_per_s", row.rates.map(|rates| rates.messages))
        .maybe("queued_bytes", now_there.map(|answer| answer.queued_bytes))
        .objects("runs", running)
        .line()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::model::{Answer, Running, Totals};
    use super::*;

    fn model(now: Instant) -> Model {
        let mut model = Model::new(0, "master", "root@here");
        let web = model.add(0, "ssh:web\x1b[1m");
        model.add(web, "ssh:web/sudo");
        let broken = model.add(0, "local");
        model.up(web, 1);
        model.place(web, "ann@web\n1");
        model.failed(broken, "no such thing\n  it said: boo\n");
        let since = now - Duration::from_secs(5);
        let running = vec![Running { function: "stock::run".to_owned(), since }];
        let round_trip = Some(Duration::from_micros(1234));
        let totals = Totals::default();
        let answer = Answer { round_trip, totals, queued_bytes: 7, running };
        model.told(web, Some(answer));
        model
    }

    #[test]
    fn a_table_has_a_row_for_each_and_nothing_that_is_obeyed() {
        let now = Instant::now();
        let (heads, rows) = Table::new().lines(&model(now), now);
        assert!(heads.starts_with("ID  NAME"), "{heads}");
        let words: Vec<&str> = rows[1].split_whitespace().collect();
        let expected = "1 ssh:web\\x1b[1m ann@web\\x0a1 up 1.23 ms - - - 7 stock::run 5 s";
        assert_eq!(words.join(" "), expected);
        assert!(rows[2].starts_with(" -      ssh:web/sudo  -"), "{}", rows[2]);
        assert!(rows[3].ends_with(" failed  no such thing; it said: boo"), "{}", rows[3]);
        assert_eq!(summary(&model(now)), "1 connecting, 1 up, 1 failed");
    }

    #[test]
    fn columns_do_not_shrink() {
        let now = Instant::now();
        let mut table = Table::new();
        let wide = table.lines(&model(now), now).0;
        assert_eq!(table.lines(&Model::new(0, "m", "h"), now).0, wide);
    }

    #[test]
    fn a_long_name_moves_its_own_row_alone() {
        let now = Instant::now();
        let (mut table, mut model) = (Table::new(), model(now));
        let mut row = 0;
        for id in 100..200 {
            row = model.add_found(row, "x", id);
        }
        model.add_found(0, &"long".repeat(1000), 200);
        model.place(1, &"user@host".repeat(1000));
        let (heads, rows) = table.lines(&model, now);
        assert!(columns::width(&heads) < 250, "{heads}");
        assert!(rows[0].len() < 250 && rows.iter().any(|row| 4000 < row.len()), "{rows:?}");
        assert!(rows.iter().all(|row| !row.contains(&" ".repeat(100))), "{rows:?}");
    }

    #[test]
    fn what_is_silent_has_numbers_no_more_and_what_it_did_last() {
        let now = Instant::now();
        let mut model = model(now);
        model.told(1, None);
        let object = object(&model, model.row(1), now);
        let read: serde_json::Value = serde_json::from_str(&object).unwrap();
        assert_eq!(read["state"], "does not answer");
        assert!(read["round_trip_us"].is_null() && read["queued_bytes"].is_null(), "{object}");
        assert_eq!(read["runs"][0]["age_ms"], 5000);
    }

    #[test]
    fn objects_are_lines_of_json() {
        let now = Instant::now();
        let model = model(now);
        let read = |at| -> serde_json::Value {
            serde_json::from_str(&object(&model, model.row(at), now)).unwrap()
        };
        let web = read(1);
        assert_eq!(
            (&web["id"], &web["parent"], &web["state"]),
            (&1.into(), &0.into(), &"up".into())
        );
        assert_eq!(web["runs"][0]["age_ms"], 5000);
        assert_eq!(web["name"], "ssh:web\u{1b}[1m");
        assert!(read(2)["id"].is_null() && read(3)["why"].as_str().unwrap().contains("boo"));
    }
}
