//! A file of this process's own, to which all is written that is logged in it: for who hunts a
//! fault, and cannot wait for what a dying process no longer sends.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use crate::limits::DEBUG_FILE_BYTES_MAX;
use crate::log::files::{create, put_number, put_text};
use crate::route::files::Files;
use crate::sys::errno::Errno;
use crate::sys::fd;
use crate::trace::{self, Level, Record, Slot, Take};

/// The levels as words, the first is `Level::Error`.
pub const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "io"];

/// Makes the file that this context was asked for, if it was; one that cannot be made is logged,
/// and no reason not to live.
pub fn begin(files: &Files) {
    let Some((level, folder)) = files.debug() else { return };
    if let Err(Errno(errno)) = open(folder, level) {
        const WHAT: &str = "no debug file can be made there (error number):";
        trace::text(Level::Warn, WHAT, &[errno as u64], folder);
    }
}

/// From now on, writes all records of this level and above to a new file in this folder, in place
/// of the one before; and its path.
pub fn open(folder: &str, level: Level) -> Result<Vec<u8>, Errno> {
    let (file, path) = create(folder, "/mitogen.")?;
    let file = DebugFile { file, room: AtomicIsize::new(DEBUG_FILE_BYTES_MAX) };
    trace::take_by(Slot::Debug, Some(level), Some(Arc::new(file)));
    Ok(path)
}

struct DebugFile {
    file: OwnedFd,
    /// Bytes that may be added; below 0 for ever once there was no room for a record.
    room: AtomicIsize,
}

impl Take for DebugFile {
    fn take(&self, record: &Record<'_>) -> bool {
        if 0 <= self.room.load(Ordering::Relaxed) {
            let mut line = line_of(record);
            let bytes = line.len() as isize;
            let before = self.room.fetch_sub(bytes, Ordering::Relaxed);
            if before < bytes {
                line = b"this file is full: nothing more is written to it\n".to_vec();
            }
            // Another thread's record was the last.
            if before < 0 {
                return true;
            }
            // By one write, which adds to the end whatever others do. What a full disk has not
            // taken whole is the last.
            if fd::write(self.file.as_fd(), &line) != Ok(line.len()) {
                self.room.store(-1, Ordering::Relaxed);
            }
        }
        // Nobody needs to wait for a file.
        true
    }
}

/// `<microseconds> <level> <target>: <what> <numbers>: <text>`, the context's number before the
/// target where it is known.
fn line_of(record: &Record<'_>) -> Vec<u8> {
    let mut line = Vec::new();
    put_number(&mut line, record.time_us);
    line.push(b' ');
    line.extend_from_slice(LEVELS[record.level as usize - 1].as_bytes());
    line.push(b' ');
    if let Some(context) = record.context {
        put_number(&mut line, context.0.into());
        line.push(b' ');
    }
    put_text(&mut line, record.target);
    line.push(b':');
    line.push(b' ');
    put_text(&mut line, record.what);
    for number in record.about {
        line.push(b' ');
        put_number(&mut line, *number);
    }
    if !record.text.is_empty() {
        line.extend_from_slice(b": ");
        put_text(&mut line, record.text);
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::ids::ContextId;

    #[test]
    fn a_file_takes_whole_records_up_to_its_maximum_and_says_then_that_it_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let (file, path) = create(folder.path().to_str().unwrap(), "/test.").unwrap();
        let record = Record {
            time_us: 5,
            context: Some(ContextId(3)),
            what: "frame in (bytes):",
            about: &[1, 20],
            text: "a\nb\x1b",
            ..Record::now(Level::Io, "mitogen")
        };
        let line = "5 io 3 mitogen: frame in (bytes): 1 20: a?b?\n";
        let room = 2 * line.len() as isize + 1;
        let file = DebugFile { file, room: AtomicIsize::new(room) };
        // Nobody is to wait for it.
        assert!((0..5).all(|_| file.take(&record)));
        let full = "this file is full: nothing more is written to it\n";
        let text = fs::read_to_string(String::from_utf8(path).unwrap()).unwrap();
        assert_eq!(text, [line, line, full].concat());
        // The smallest record does not fit any more, either.
        file.take(&Record { text: "", about: &[], what: "", ..record });
        assert!(file.room.load(Ordering::Relaxed) < 0);
    }
}
