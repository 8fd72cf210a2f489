//! What a broker has counted and timed, written to a file when its context ends.

use std::os::fd::AsFd;

use crate::io::counters::Counters;
use crate::io::turn::Turn;
use crate::log::files::{create, put_number, put_text};
use crate::route::node::Node;
use crate::sys::errno::Errno;
use crate::sys::fd;
use crate::trace::{self, Level};

/// Has deliveries timed, if this context was asked to keep their times.
pub fn begin(turn: &mut Turn, node: &Node) {
    turn.counting.times |= !node.identity().files.profiling.is_empty();
}

/// Writes what there is by now, if this context was asked to. What cannot be written is logged.
pub fn end(turn: &Turn, node: &Node) {
    let folder = &node.identity().files.profiling;
    if folder.is_empty() {
        return;
    }
    let text = text_of(node, &turn.counters());
    let written =
        create(folder, "mitogen.stats").and_then(|(file, _)| fd::write_all(file.as_fd(), &text));
    if let Err(Errno(errno)) = written {
        const WHAT: &str = "no counters can be written there (error number):";
        trace::text(Level::Warn, WHAT, &[errno as u64], folder);
    }
}

/// A name and a value on each line; then the handlers, and the slowest deliveries.
fn text_of(node: &Node, counters: &Counters) -> Vec<u8> {
    let mut text = b"name ".to_vec();
    put_text(&mut text, &node.identity().name);
    let counts = [
        ("\ncontext ", node.id().0.into()),
        ("\nuptime_us ", counters.uptime_us),
        ("\nturns ", counters.turns),
        ("\nturns_lent ", counters.turns_lent),
        ("\nwakeups ", counters.wakeups),
        ("\ntasks ", counters.tasks),
        ("\ntimers ", counters.timers),
        ("\nreads ", counters.reads),
        ("\nread_bytes ", counters.read_bytes),
        ("\nwrites ", counters.writes),
        ("\nwritten_bytes ", counters.written_bytes),
        ("\nframes_received ", counters.frames_received),
        ("\nframes_forwarded ", counters.frames_forwarded),
        ("\nframes_sent ", counters.frames_sent),
        ("\nmessages_delivered ", counters.messages_delivered),
        ("\noutbox_bytes_high ", counters.outbox_bytes_high),
        ("\nstreams_high ", counters.streams_high),
        ("\ntasks_high ", counters.tasks_high),
    ];
    put_row(&mut text, &counts);
    for times in counters.handlers.iter().filter(|times| 0 < times.count) {
        let row = [
            ("\nhandler ", times.handle.into()),
            (" count ", times.count),
            (" total_us ", times.total_us),
            (" longest_us ", times.longest_us),
        ];
        put_row(&mut text, &row);
    }
    for slow in &counters.slowest {
        let row = [
            ("\nslowest ", slow.handle.into()),
            (" source ", slow.source.into()),
            (" took_us ", slow.took_us),
        ];
        put_row(&mut text, &row);
    }
    text.push(b'\n');
    text
}

fn put_row(text: &mut Vec<u8>, row: &[(&str, u64)]) {
    for (name, value) in row {
        text.extend_from_slice(name.as_bytes());
        put_number(text, *value);
    }
}
