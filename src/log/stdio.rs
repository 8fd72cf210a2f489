//! What was printed, cut into lines. A line ends with its line feed, at LOG_TEXT_BYTES_MAX bytes,
//! or with the pipe. Bytes that are not UTF-8 are replaced; all else travels as it is.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::limits::{LOG_BEHIND_BYTES, LOG_READ_BYTES, LOG_TEXT_BYTES_MAX};
use crate::sys::fd;
use crate::sys::text::lossy;
use crate::wire::codec::{Malformed, Reader};

/// Who prints.
pub const TARGETS: [&str; 2] = ["stdout", "stderr"];

/// The end of a pipe that an agent reads, and what of it is not cut yet.
pub struct Printed {
    /// None once nobody can print there any more.
    fd: Option<Arc<OwnedFd>>,
    rest: Vec<u8>,
    /// Whether what does not end is a line as well, when all is read.
    ends: bool,
    /// Bytes that were cut, and as many as a pipe may hold whenever it held no more; it wraps.
    passed: usize,
}

/// Takes a line, and whether it goes on. Returns whether there is room for more.
pub type TakeLine<'a> = &'a mut dyn FnMut(&str, bool) -> bool;

impl Printed {
    /// Reads from a descriptor that does not block.
    pub fn new(fd: OwnedFd) -> Printed {
        Printed { fd: Some(Arc::new(fd)), rest: Vec::new(), ends: false, passed: 0 }
    }

    /// What to watch.
    pub fn fd(&self) -> Option<Arc<OwnedFd>> {
        self.fd.clone()
    }

    /// Has the last line end where the next that is read does.
    pub fn end_line(&mut self) {
        self.ends = true;
    }

    /// Whether the beginning of a line was read, and not its end.
    pub fn has_begun(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Once this has grown by LOG_BEHIND_BYTES, all was cut that was printed before.
    pub fn passed(&self) -> usize {
        self.passed
    }

    /// Reads no more.
    pub fn close(&mut self) {
        (self.fd, self.rest) = (None, Vec::new());
    }

    /// Reads and cuts what is there. Returns whether that was all: else there was no room.
    pub fn drain(&mut self, take: TakeLine<'_>) -> bool {
        loop {
            if !self.cut(false, take) {
                return false;
            }
            let at = self.rest.len();
            self.rest.resize(at + LOG_READ_BYTES, 0);
            let read = match &self.fd {
                Some(end) => fd::read(end.as_fd(), &mut self.rest[at..]),
                None => Ok(0),
            };
            let count = read.unwrap_or(0);
            self.rest.truncate(at + count);
            if read == Ok(0) || read.is_err_and(|errno| !errno.is_again()) {
                (self.fd, self.ends) = (None, true);
            }
            // Less than was asked for is all.
            if count < LOG_READ_BYTES {
                let is_all = self.cut(true, take);
                let empty = if is_all { LOG_BEHIND_BYTES } else { 0 };
                self.passed = self.passed.wrapping_add(empty);
                return is_all;
            }
        }
    }

    /// Cuts what was read. Returns whether there is room for more.
    fn cut(&mut self, is_all: bool, take: TakeLine<'_>) -> bool {
        let (mut at, mut has_room) = (0, true);
        let ends = is_all && self.ends;
        while let (true, Some(line)) = (has_room, next_line(&self.rest[at..], ends)) {
            at += line.bytes;
            has_room = take(&line.text, line.continues);
        }
        self.rest.drain(..at);
        self.passed = self.passed.wrapping_add(at);
        if self.rest.is_empty() {
            self.rest = Vec::new();
            self.ends &= !is_all;
        }
        has_room
    }
}

/// The texts of what was printed, of these encoded records, and whether each goes on in the next.
/// What is no record ends it.
pub fn texts_of(records: &[u8], take: &mut dyn FnMut(&[u8], bool)) {
    let mut r = Reader::new(records, None);
    while let Ok((target, text, continues)) = text_of_next(&mut r) {
        if TARGETS.iter().any(|own| own.as_bytes() == target) {
            take(text, continues);
        }
    }
}

/// As `record::take` reads it, without copies: a hop looks at all that its children print.
fn text_of_next<'a>(r: &mut Reader<'a>) -> Result<(&'a [u8], &'a [u8], bool), Malformed> {
    let (_time, _level, continues) = (r.take_varint()?, r.take_u8()?, r.take_u8()? != 0);
    let (target, _name, _what) = (r.take_bytes()?, r.take_bytes()?, r.take_bytes()?);
    for _ in 0..r.take_len()? {
        r.take_varint()?;
    }
    Ok((target, r.take_bytes()?, continues))
}

/// One line, or a part of a long one.
struct Line {
    text: String,
    continues: bool,
    /// How many bytes it was, with its end.
    bytes: usize,
}

/// The first line of these bytes; none if it may go on, and if it does not `end` here.
fn next_line(bytes: &[u8], end: bool) -> Option<Line> {
    // With a carriage return and a line feed behind the longest.
    let seen = &bytes[..bytes.len().min(LOG_TEXT_BYTES_MAX + 2)];
    let feed = seen.iter().position(|byte| *byte == b'\n');
    let text = match feed {
        Some(at) => seen[..at].strip_suffix(b"\r").unwrap_or(&seen[..at]),
        None if seen.len() == LOG_TEXT_BYTES_MAX + 2 || end && !seen.is_empty() => seen,
        None => return None,
    };
    // What is replaced takes three bytes in place of one.
    for bytes_max in [LOG_TEXT_BYTES_MAX, LOG_TEXT_BYTES_MAX / 3] {
        let part = start(text, bytes_max);
        let continues = part.len() < text.len();
        let text = lossy(part);
        if text.len() <= LOG_TEXT_BYTES_MAX {
            let rest = if continues { part.len() } else { feed.map_or(part.len(), |at| at + 1) };
            return Some(Line { text, continues, bytes: rest });
        }
    }
    None
}

/// So much of the beginning, whole characters if they are some.
fn start(bytes: &[u8], bytes_max: usize) -> &[u8] {
    let is_inside = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let max = bytes.len().min(bytes_max);
    let end = (max.saturating_sub(3)..=max).rev().find(|at| !is_inside(*at)).unwrap_or(max);
    &bytes[..if end == 0 { max } else { end }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pipe;

    /// The lines of these bytes, which come in pieces of this size.
    fn lines(bytes: &[u8], piece: usize) -> Vec<(String, bool)> {
        let (read, write) = pipe::pipe().unwrap();
        fd::set_nonblocking(read.as_fd(), true).unwrap();
        let (mut printed, mut all) = (Printed::new(read), Vec::new());
        let mut take = |text: &str, continues: bool| {
            assert!(text.len() <= LOG_TEXT_BYTES_MAX);
            all.push((text.to_owned(), continues));
            true
        };
        for piece in bytes.chunks(piece) {
            fd::write_all(write.as_fd(), piece).unwrap();
            assert!(printed.drain(&mut take));
            assert!(printed.rest.len() <= LOG_TEXT_BYTES_MAX + 2);
        }
        drop(write);
        assert!(printed.drain(&mut take) && printed.rest.is_empty() && printed.fd.is_none());
        all
    }

    #[track_caller]
    fn are_cut(bytes: &[u8], expected: &[&str]) {
        for piece in [1, 2, 3, 7, 4096] {
            let all = lines(bytes, piece);
            let texts: Vec<&str> = all.iter().map(|(text, _)| &**text).collect();
            assert_eq!(texts, expected, "in pieces of {piece}");
            assert!(all.iter().all(|(_, continues)| !continues));
        }
    }

    #[test]
    fn a_line_ends_with_its_line_feed_or_with_the_pipe() {
        are_cut(b"", &[]);
        are_cut(b"a\nb\n", &["a", "b"]);
        are_cut(b"a\r\n\r\n\n", &["a", "", ""]);
        are_cut(b"a\rb\n", &["a\rb"]);
        are_cut(b"a\nb", &["a", "b"]);
        are_cut(b"\x00\x1b[31m\n\xff\xc3\n", &["\0\x1b[31m", "\u{fffd}\u{fffd}"]);
        are_cut("d\u{e9}j\u{e0}\n".as_bytes(), &["d\u{e9}j\u{e0}"]);
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_loses_none() {
        for line in ["x", "\u{e9}", "\u{20ac}", "\u{1f600}", "x\u{1f600}"] {
            let long = line.repeat(3 * LOG_TEXT_BYTES_MAX / line.len() + 1);
            for piece in [100, 4096, 20_000] {
                let all = lines(&[long.as_bytes(), b"\r\nnext\n"].concat(), piece);
                let (last, parts) = all.split_last().unwrap();
                assert_eq!(*last, ("next".to_owned(), false));
                let whole: String = parts.iter().map(|(text, _)| &**text).collect();
                assert!(whole == long, "{line} in pieces of {piece}");
                let (end, others) = parts.split_last().unwrap();
                assert!(!end.1 && others.iter().all(|(_, continues)| *continues));
                assert!(others.iter().all(|(text, _)| LOG_TEXT_BYTES_MAX - 4 < text.len()));
            }
        }
    }

    #[test]
    fn a_line_of_the_most_bytes_is_one() {
        let line = "x".repeat(LOG_TEXT_BYTES_MAX);
        for end in ["\n", "\r\n", ""] {
            let all = lines([&line, end].concat().as_bytes(), 1000);
            assert_eq!(all, [(line.clone(), false)], "{end:?}");
        }
    }

    #[test]
    fn what_is_no_text_is_replaced_byte_by_byte_and_not_cut_off() {
        for byte in [0xff, 0x80, 0xc3] {
            let all = lines(&[byte; 3 * LOG_TEXT_BYTES_MAX], 5000);
            let whole: String = all.iter().map(|(text, _)| &**text).collect();
            assert_eq!(whole, "\u{fffd}".repeat(3 * LOG_TEXT_BYTES_MAX));
        }
        let every: Vec<u8> = (0..=255).collect();
        let whole: Vec<String> = lines(&every, 4096).into_iter().map(|(text, _)| text).collect();
        assert_eq!(whole.join("\n"), String::from_utf8_lossy(&every));
    }

    #[test]
    fn where_there_is_no_room_what_was_read_is_kept() {
        let (read, write) = pipe::pipe().unwrap();
        fd::set_nonblocking(read.as_fd(), true).unwrap();
        fd::write_all(write.as_fd(), &b"line\n".repeat(5000)).unwrap();
        let (mut printed, mut count) = (Printed::new(read), 0);
        while !printed.drain(&mut |_, _| {
            count += 1;
            false
        }) {
            assert!(printed.rest.len() <= LOG_READ_BYTES + LOG_TEXT_BYTES_MAX);
        }
        assert_eq!(count, 5000);
    }

    #[test]
    fn an_unfinished_line_is_sent_when_that_is_asked_for_and_not_before() {
        let (read, write) = pipe::pipe().unwrap();
        fd::set_nonblocking(read.as_fd(), true).unwrap();
        let (mut printed, mut all) = (Printed::new(read), Vec::new());
        let mut take = |text: &str, _| {
            all.push(text.to_owned());
            true
        };
        fd::write_all(write.as_fd(), b"one").unwrap();
        assert!(printed.drain(&mut take) && !printed.rest.is_empty());
        fd::write_all(write.as_fd(), b" two").unwrap();
        printed.end_line();
        assert!(printed.drain(&mut take) && printed.rest.is_empty());
        fd::write_all(write.as_fd(), b"three").unwrap();
        assert!(printed.drain(&mut take) && !printed.rest.is_empty());
        assert_eq!(all, ["one two"]);
    }
}
