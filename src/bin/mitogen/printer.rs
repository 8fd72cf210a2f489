//! What the commands print, on its way to our standard output and error: as it is, with a prefix on
//! each line, or as JSON. One lock, so that no line is torn.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::json::Object;
use super::status::{Status, Tally};
use super::text;

/// A line is held back until its end has come, so what is held must have an end: a longer line is
/// broken.
const LINE_BYTES_MAX: usize = 1 << 20;

/// How output looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// The bytes, unchanged.
    Raw,
    /// Line by line, behind the address.
    Prefixed,
    /// One object per event.
    Json,
}

/// Which of a command's two outputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stream {
    /// Standard output.
    Stdout = 0,
    /// Standard error.
    Stderr = 1,
}

/// Takes the output of all commands.
pub struct Printer {
    form: Form,
    labels: Vec<String>,
    state: Mutex<State>,
}

struct State {
    stdout: File,
    stderr: File,
    /// For each command, of both its outputs, what is held back until more has come.
    held: Vec<[Vec<u8>; 2]>,
    status: Status,
}

impl Printer {
    /// A printer for the commands with these labels.
    pub fn new(form: Form, labels: Vec<String>) -> io::Result<Printer> {
        let (stdout, stderr) = (text::unbuffered(io::stdout())?, text::unbuffered(io::stderr())?);
        let held = labels.iter().map(|_| [Vec::new(), Vec::new()]).collect();
        let status = Status::new(form != Form::Json);
        Ok(Printer { form, labels, state: Mutex::new(State { stdout, stderr, held, status }) })
    }

    /// When to show first how far connecting has come; never if nobody would look.
    pub fn progress_due(&self) -> Option<Instant> {
        self.lock().status.due()
    }

    /// Shows how far connecting has come; but not while something else is being printed, which may
    /// take any time.
    pub fn progress(&self, tally: Tally) {
        if let Ok(mut state) = self.state.try_lock() {
            state.status.show(tally);
        }
    }

    /// Prints a piece of what a command printed.
    pub fn output(&self, at: usize, stream: Stream, bytes: Vec<u8>) {
        let mut state = self.lock();
        let written = match self.form {
            Form::Raw => state.write(stream, &bytes),
            Form::Prefixed => {
                let held = &mut state.held[at][stream as usize];
                let lines = prefixed(&self.labels[at], held, &bytes);
                state.write(stream, &lines)
            }
            Form::Json => {
                let held = &mut state.held[at][stream as usize];
                held.extend_from_slice(&bytes);
                let rest = held.split_off(whole_text(held));
                let piece = std::mem::replace(held, rest);
                self.event(&mut state, at, stream, &piece)
            }
        };
        stop_if_unwritable(written);
    }

    /// Prints what is held back of a command that prints no more.
    pub fn end(&self, at: usize) {
        stop_if_unwritable(self.end_held(&mut self.lock(), at));
    }

    /// Tells how a command ended: in JSON alone, for elsewhere it is our exit status.
    pub fn ended(&self, at: usize, members: impl FnOnce(Object) -> Object) {
        if self.form == Form::Json {
            let line = members(Object::new().text("address", &self.labels[at])).line();
            stop_if_unwritable(self.lock().write(Stream::Stdout, line.as_bytes()));
        }
    }

    /// Tells why a command ran not, or not to its end.
    pub fn failed(&self, at: usize, why: &str) {
        let mut state = self.lock();
        stop_if_unwritable(self.write_failure(&mut state, at, why));
    }

    /// The last words before the process ends: the same reason for several commands.
    pub fn give_up(&self, unfinished: &[usize], why: &str) {
        let mut state = self.lock();
        for at in unfinished {
            let held = self.end_held(&mut state, *at);
            stop_if_unwritable(held.and_then(|()| self.write_failure(&mut state, *at, why)));
        }
        // Nobody else prints anything any more.
        std::mem::forget(state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_held(&self, state: &mut State, at: usize) -> io::Result<()> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let held = std::mem::take(&mut state.held[at][stream as usize]);
            if held.is_empty() {
                continue;
            }
            match self.form {
                Form::Json => self.event(state, at, stream, &held)?,
                _ => {
                    let line = [self.labels[at].as_bytes(), b": ", &held, b"\n"].concat();
                    state.write(stream, &line)?;
                }
            }
        }
        Ok(())
    }

    fn event(&self, state: &mut State, at: usize, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let name = if stream == Stream::Stdout { "stdout" } else { "stderr" };
        let object = Object::new().text("address", &self.labels[at]).bytes(name, bytes);
        state.write(Stream::Stdout, object.line().as_bytes())
    }

    fn write_failure(&self, state: &mut State, at: usize, why: &str) -> io::Result<()> {
        let label = &self.labels[at];
        match self.form {
            Form::Json => {
                let object = Object::new().text("address", label).text("error", why);
                state.write(Stream::Stdout, object.line().as_bytes())
            }
            _ => {
                let line = text::complaint(&[label, ": ", why].concat());
                state.write(Stream::Stderr, line.as_bytes())
            }
        }
    }
}

impl State {
    fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        self.status.erase();
        match stream {
            Stream::Stdout => self.stdout.write_all(bytes),
            Stream::Stderr => self.stderr.write_all(bytes),
        }
    }
}

/// What cannot be written need not be made: the process ends, and all contexts with it.
fn stop_if_unwritable(written: io::Result<()>) {
    if let Err(error) = written {
        text::leave(text::unwritable(&error));
    }
}

/// The whole lines of what was held and what has come, each behind the label. The rest is held.
fn prefixed(label: &str, held: &mut Vec<u8>, bytes: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(bytes.len() + 2 * label.len());
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        held.extend_from_slice(piece);
        let is_whole = held.ends_with(b"\n");
        if !is_whole && held.len() < LINE_BYTES_MAX {
            continue;
        }
        lines.extend_from_slice(label.as_bytes());
        lines.extend_from_slice(b": ");
        lines.append(held);
        if !is_whole {
            lines.push(b'\n');
        }
    }
    lines
}

/// Bytes up to a character at the end that has not come whole.
fn whole_text(bytes: &[u8]) -> usize {
    let mut start = bytes.len().saturating_sub(3);
    while start < bytes.len() {
        match std::str::from_utf8(&bytes[start..]) {
            Err(error) if error.error_len().is_none() => return start + error.valid_up_to(),
            Err(error) => start += error.valid_up_to() + 1,
            Ok(_) => break,
        }
    }
    bytes.len()
}
