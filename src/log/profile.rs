//! What a broker has counted and timed, written to a file when its context ends.

use std::os::fd::AsFd;

use crate::io::counters::{NAMES, Times};
use crate::io::turn::Turn;
use crate::log::files::{create, put_number, put_text};
use crate::route::node::Node;
use crate::sys::errno::Errno;
use crate::sys::fd;
use crate::sys::text::fields;
use crate::trace::{self, Level};

/// Has deliveries timed, if this context was asked to keep their times.
pub fn begin(turn: &mut Turn, node: &Node) {
    if !node.identity().files.profiling.is_empty() {
        turn.counting.times.get_or_insert_default();
    }
}

/// Writes what there is by now, if this context was asked to; it ends. What cannot be written is
/// logged.
#[inline(never)] // from several places: smaller code
pub fn end(turn: &Turn, node: &Node) {
    let folder = &node.identity().files.profiling;
    if folder.is_empty() {
        return;
    }
    let written = create(folder, "/mitogen.stats.")
        .and_then(|(file, _)| fd::write_all(file.as_fd(), &text_of(turn, node)));
    if let Err(Errno(errno)) = written {
        const WHAT: &str = "no counters can be written there (error number):";
        trace::text(Level::Warn, WHAT, &[errno as u64], folder);
    }
}

/// A name and a value on each line; then the handlers, and the slowest deliveries.
fn text_of(turn: &Turn, node: &Node) -> Vec<u8> {
    let counting = &turn.counting;
    let mut text = b"name ".to_vec();
    put_text(&mut text, &node.identity().name);
    put_row(&mut text, b'\n', "context uptime_us", &[node.id().0.into(), counting.uptime_us()]);
    put_row(&mut text, b'\n', NAMES, &turn.counts());
    if let Some(times) = &counting.times {
        put_times(&mut text, times);
    }
    text.push(b'\n');
    text
}

fn put_times(text: &mut Vec<u8>, times: &Times) {
    for (handle, [count, total_us, longest_us]) in times.rows() {
        let row = [handle.into(), *count, *total_us, *longest_us];
        put_row(text, b' ', "handler count total_us longest_us", &row);
    }
    for (took_us, handle, source) in times.slow() {
        let row = [(*handle).into(), (*source).into(), *took_us];
        put_row(text, b' ', "slowest source took_us", &row);
    }
}

/// Appends each name with its value: the first on a new line, the others behind `between`.
fn put_row(text: &mut Vec<u8>, between: u8, names: &str, row: &[u64]) {
    let mut mark = b'\n';
    for (name, value) in fields(names.as_bytes(), b' ').zip(row) {
        text.push(std::mem::replace(&mut mark, between));
        text.extend_from_slice(name);
        text.push(b' ');
        put_number(text, *value);
    }
}
