//! The last lines that one output of a child printed, kept for an error: bounded, without secrets,
//! made harmless.

use crate::limits::{LINE_BYTES_MAX, TAIL_BYTES};
pub use crate::sys::text::harmless;
use crate::wire::secret::Secret;

/// One output, in lines.
#[derive(Default)]
pub struct Tail {
    kept: Vec<u8>,
    /// The line that has not ended, cut at `LINE_BYTES_MAX`.
    line: Vec<u8>,
}

impl Tail {
    /// Appends bytes up to and with the first line feed; gives what is behind it, if there was one.
    pub fn fill<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let feed = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..feed.unwrap_or(bytes.len())];
        let room = LINE_BYTES_MAX - self.line.len();
        self.line.extend_from_slice(&part[..part.len().min(room)]);
        feed.map(|at| &bytes[at + 1..])
    }

    /// The unfinished line, or the finished one until it is ended.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Ends the line; a `kept` one goes to the tail, scrubbed of `secrets`.
    pub fn end_line(&mut self, kept: bool, secrets: &[Secret]) {
        if kept {
            // Some tools begin a line with a carriage return.
            let line = self.line.trim_ascii_end();
            let line = line.strip_prefix(b"\r").unwrap_or(line);
            self.kept.extend_from_slice(&scrub(line, secrets));
            self.kept.push(b'\n');
            let excess = self.kept.len().saturating_sub(TAIL_BYTES);
            self.kept.drain(..excess);
        }
        self.line.clear();
    }

    /// What is kept, and the unfinished line behind it if that is to be shown.
    pub fn text(&self, with_line: bool, secrets: &[Secret]) -> String {
        let line: &[u8] = if with_line { self.line.trim_ascii() } else { &[] };
        let all = [&self.kept[..], &scrub(line, secrets)].concat();
        harmless(&all[all.len().saturating_sub(TAIL_BYTES)..])
    }
}

/// `text` with `***` for each of the `secrets` in it.
pub fn scrub(text: &[u8], secrets: &[Secret]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.first() {
        let here = secrets.iter().map(|secret| secret.expose().as_bytes());
        // Of two secrets the longer: what it has more than the other must not stay.
        let hidden = here.filter(|secret| rest.starts_with(secret)).map(<[u8]>::len).max();
        match hidden {
            Some(bytes @ 1..) => {
                out.extend_from_slice(b"***");
                rest = &rest[bytes..];
            }
            _ => {
                out.push(*first);
                rest = &rest[1..];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_output_keeps_its_end_and_long_lines_their_beginning() {
        let mut tail = Tail::default();
        for _ in 0..10_000 {
            assert_eq!(tail.fill(b"0123456789\nx"), Some(&b"x"[..]));
            tail.end_line(true, &[]);
        }
        assert_eq!(tail.fill(&[b'y'; 100_000]), None);
        assert_eq!(tail.line().len(), LINE_BYTES_MAX);
        tail.end_line(false, &[]);
        assert_eq!(tail.fill(b"end"), None);
        let text = tail.text(true, &[]);
        assert!(text.len() <= TAIL_BYTES && text.ends_with("0123456789\nend"), "{text}");
    }

    #[test]
    fn what_is_shown_has_no_secret_and_no_escapes() {
        let secrets = ["hunter", "hunter2", "", "123456"].map(Secret::from);
        let mut tail = Tail::default();
        tail.fill(b"\ra hunter2 b\x1b[31m\r\n");
        tail.end_line(true, &secrets);
        tail.fill(b"hunter123456");
        assert_eq!(tail.text(true, &secrets), "a *** b?[31m\n******");
        assert_eq!(tail.text(false, &secrets), "a *** b?[31m\n");
    }
}
