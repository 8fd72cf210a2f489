//! The table that `make bench` prints, and the same rows as lines of JSON.

use std::fs::{self, File, OpenOptions};
use std::io::Write;

use crate::measure::{Outcome, Samples};

/// Where each row is appended, one JSON object a line.
const JSON_FILE: &str = "target/bench.jsonl";

/// What a row may cost; `x` is in the row's unit or in floors.
#[derive(Clone, Copy)]
enum Budget {
    /// At most so many floors.
    Floors(f64),
    /// At least such a share of the floor: rates.
    Share(f64),
    /// At most so much more than the floor.
    Above(f64),
    /// At most, whatever the floor is.
    Most(f64),
    /// At least, whatever the floor is.
    Least(f64),
}

use Budget::{Above, Floors, Least, Most, Share};

/// All rows in the order of the table: key, unit, floor, budget.
const ROWS: &[(&str, &str, &str, Budget)] = &[
    ("local connect and first call", "ms", "spawn+wait true", Floors(3.0)),
    ("ssh connect and first call", "ms", "ssh host true", Above(15.0)),
    ("sudo connect and first call", "ms", "sudo true", Floors(2.0)),
    ("round trip, one core", "us", "ping-pong", Floors(1.6)),
    ("round trip, scheduler free", "us", "ping-pong", Floors(1.2)),
    ("further hop of 2, one core", "us", "ping-pong", Floors(1.1)),
    ("further hop of 2, scheduler free", "us", "ping-pong", Floors(1.1)),
    ("further hop of 4, one core", "us", "ping-pong", Floors(1.1)),
    ("further hop of 4, scheduler free", "us", "ping-pong", Floors(1.1)),
    ("wake-ups per call, one core", "", "ping-pong", Most(2.1)),
    ("wake-ups per call, scheduler free", "", "ping-pong", Most(2.1)),
    ("processor time per call, one core", "us", "ping-pong", Most(20.0)),
    ("processor time per call, scheduler free", "us", "ping-pong", Most(20.0)),
    ("pipelined empty calls, window 256", "/s", "", Least(1e6)),
    ("bulk through one Sender", "MB/s", "socketpair", Share(0.8)),
    ("one 64 MiB value", "MB/s", "socketpair", Share(0.5)),
    ("peak memory of a child after the bulk", "KiB", "before it", Above(4096.0)),
    ("latch round trip, two threads", "us", "2 socketpairs", Floors(1.3)),
    ("small call beside a slow bulk", "us", "same call, idle", Floors(3.0)),
    ("small call beside a full-speed bulk", "us", "same call, idle", Floors(3.0)),
    ("wake-ups of a call pending for 10 s", "", "nothing", Most(0.0)),
    ("stock image, gzip", "KiB", "", Most(64.0)),
    ("bytes pushed by a connect", "B", "image", Above(1024.0)),
    ("processor time per context of a fan-out", "ms", "true", Most(2.0)),
    ("1,000 local connects and first calls", "ms", "1,000 x true", Floors(3.0)),
    ("200 connects to one sshd and first calls", "ms", "xargs -P10 ssh", Floors(1.5)),
    ("memory of one idle child, PSS", "KiB", "", Most(256.0)),
    ("wake-ups of an idle tree", "", "nothing", Most(0.0)),
    ("lent: one caller, one core", "us", "kept", Floors(0.8)),
    ("lent: processor time per call, one core", "us", "kept", Floors(0.8)),
    ("lent: calls of 4 callers", "/s", "kept", Share(0.9)),
    ("lent: wake-ups per call, one in 3 ms", "", "kept", Floors(1.1)),
    ("lent: forwarded while the hop computes", "us", "kept", Floors(1.5)),
    ("silent: round trip, one core", "us", "no sink", Floors(1.03)),
    ("silent: wake-ups per call, one core", "", "no sink", Above(0.02)),
    ("silent: processor time per call", "us", "no sink", Floors(1.03)),
];

impl Budget {
    fn is_met(self, value: f64, floor: f64) -> bool {
        match self {
            Floors(x) => value <= x * floor,
            Share(x) => x * floor <= value,
            Above(x) => value <= floor + x,
            Most(x) => value <= x,
            Least(x) => x <= value,
        }
    }

    fn text(self) -> String {
        match self {
            Floors(x) => format!("<= {x}x"),
            Share(x) => format!(">= {x}x"),
            Above(x) => format!("<= +{x}"),
            Most(x) => format!("<= {x}"),
            Least(x) => format!(">= {}", number(x)),
        }
    }
}

/// One measured value. NaN stands for what was not measured.
#[derive(Clone)]
struct Entry {
    what: String,
    who: String,
    value: f64,
    floor: f64,
}

/// Collects rows, ours and those of other programs, and prints them side by side.
pub struct Report {
    words: Vec<String>,
    json: File,
    entries: Vec<Entry>,
    remarks: Vec<String>,
}

impl Report {
    /// A report of the rows whose name contains one of `words`, or of all when there are none.
    pub fn new(words: Vec<String>) -> Outcome<Report> {
        fs::create_dir_all("target")?;
        let json = OpenOptions::new().create(true).append(true).open(JSON_FILE)?;
        Ok(Report { words, json, entries: Vec::new(), remarks: Vec::new() })
    }

    /// Whether any row whose name begins with `start` was asked for.
    pub fn wants(&self, start: &str) -> bool {
        ROWS.iter().any(|row| row.0.starts_with(start) && self.shows(row.0))
    }

    /// Runs what measures some rows; a failure becomes a remark and the other rows go on.
    pub fn try_rows(&mut self, start: &str, measure: impl FnOnce(&mut Report) -> Outcome<()>) {
        if !self.wants(start) {
            return;
        }
        eprintln!("measuring: {start}");
        if let Err(error) = measure(self) {
            self.remark(&format!("{start}: {error}"));
        }
    }

    /// A line below the table.
    pub fn remark(&mut self, text: &str) {
        self.remarks.push(text.to_owned());
    }

    /// Samples next to those of their floor.
    pub fn samples(&mut self, what: &str, floor: &Samples, ours: &Samples) -> Outcome<()> {
        let spread = [ours.count() as f64, ours.min(), ours.percentile(99), floor.min()];
        let names = ["n", "min", "p99", "floor_min"];
        let spread: Vec<_> = names.into_iter().zip(spread).collect();
        let spread = if ours.count() == 0 { &spread[3..] } else { &spread };
        self.add(what, floor.median(), ours.median(), spread)
    }

    /// A value next to its floor; NaN stands for one that there is not.
    pub fn value(&mut self, what: &str, floor: f64, ours: f64) -> Outcome<()> {
        self.add(what, floor, ours, &[])
    }

    fn add(&mut self, what: &str, floor: f64, value: f64, more: &[(&str, f64)]) -> Outcome<()> {
        let unit = ROWS.iter().find(|row| row.0 == what).ok_or("a row without a budget")?.1;
        let who = if value.is_nan() { "floor" } else { "ours" };
        let mut line = format!("{{\"what\": \"{what}\", \"who\": \"{who}\", \"unit\": \"{unit}\"");
        for (name, number) in [("value", value), ("floor", floor)].iter().chain(more) {
            if number.is_finite() {
                line += &format!(", \"{name}\": {number:.4}");
            }
        }
        writeln!(self.json, "{line}}}")?;
        let (what, who) = (what.to_owned(), "ours".to_owned());
        self.entries.push(Entry { what, who, value, floor });
        Ok(())
    }

    /// Takes in the rows of other programs from a file of JSON lines; the last of a kind counts.
    pub fn merge(&mut self, path: &str) -> Outcome<()> {
        for line in fs::read_to_string(path)?.lines() {
            let text = |name| field(line, name).unwrap_or_default().to_owned();
            let number = |name| field(line, name).and_then(|n| n.parse().ok()).unwrap_or(f64::NAN);
            let (value, floor) = (number("value"), number("floor"));
            self.entries.push(Entry { what: text("what"), who: text("who"), value, floor });
        }
        Ok(())
    }

    /// Prints the table and the remarks.
    pub fn print(&self) {
        let mut table = vec![Vec::from(HEAD.map(str::to_owned))];
        table.extend(ROWS.iter().filter(|row| self.shows(row.0)).map(|row| self.line(row)));
        let width = |column: usize| table.iter().map(|line| line[column].len()).max().unwrap_or(0);
        let widths: Vec<_> = (0..HEAD.len()).map(width).collect();
        for line in &table {
            let mut text = String::new();
            for (column, cell) in line.iter().enumerate() {
                let gap = " ".repeat(widths[column] - cell.len());
                let is_text = [0, 1, 2, 6].contains(&column);
                text += &if is_text { format!("{cell}{gap}  ") } else { format!("{gap}{cell}  ") };
            }
            println!("{}", text.trim_end());
        }
        for remark in &self.remarks {
            println!("not measured: {remark}");
        }
        println!("x: in floors of the same run (or how much above it): only that can be compared.");
    }

    fn line(&self, row: &(&str, &str, &str, Budget)) -> Vec<String> {
        let &(what, unit, floor_name, budget) = row;
        let ours = self.entry(what, "ours");
        let [value, floor] = ours.map_or([f64::NAN; 2], |entry| [entry.value, entry.floor]);
        let verdict = match value.is_nan() {
            true => "",
            false if budget.is_met(value, floor) => "met",
            false => "MISSED",
        };
        let mut line = vec![what.into(), unit.into(), floor_name.into(), number(floor)];
        line.extend([number(value), compare(budget, value, floor)]);
        line.push(format!("{} {verdict}", budget.text()));
        for who in ["mitogen-py", "execnet"] {
            let entry = self.entry(what, who);
            line.push(entry.map_or(String::new(), |entry| number(entry.value)));
            line.push(
                entry.map_or(String::new(), |entry| compare(budget, entry.value, entry.floor)),
            );
        }
        line
    }

    fn entry(&self, what: &str, who: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.what == what && entry.who == who)
    }

    fn shows(&self, what: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| what.contains(word.as_str()))
    }
}

const HEAD: [&str; 11] =
    ["what", "", "floor is", "floor", "ours", "x", "budget", "original", "x", "execnet", "x"];

/// The text or number that follows `"name":` in one line of JSON; our own lines nest nothing.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let start = line.find(&format!("\"{name}\":"))? + name.len() + 3;
    let rest = line[start..].trim_start();
    match rest.strip_prefix('"') {
        Some(text) => text.split('"').next(),
        None => rest.split([',', '}']).next().map(str::trim),
    }
}

/// Three digits are as many as a shared machine repeats.
fn number(value: f64) -> String {
    match value.abs() {
        size if size.is_nan() => String::new(),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The value in floors, or how much more it is where the budget says so.
fn compare(budget: Budget, value: f64, floor: f64) -> String {
    match budget {
        Above(_) if value.is_nan() || floor.is_nan() => String::new(),
        Above(_) => format!("{:+.0}", value - floor),
        _ if (value / floor).is_finite() => number(value / floor),
        _ => String::new(),
    }
}
