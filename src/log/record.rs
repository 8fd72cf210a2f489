//! Records as they travel: any number of them, one behind the other, in one message. Pure.

use crate::limits::{LOG_NUMBERS_MAX, LOG_TARGET_BYTES_MAX, LOG_TEXT_BYTES_MAX, NAME_BYTES_MAX};
use crate::sys::text::lossy;
use crate::trace::{Level, Record};
use crate::wire::codec::{Malformed, Reader, Writer};

/// One record that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// As [`Record::time_us`].
    pub time_us: u64,
    /// How much it matters.
    pub level: Level,
    /// Who says it.
    pub target: String,
    /// The context's name, as it says itself.
    pub name: String,
    /// What happened.
    pub what: String,
    /// The numbers that it is about.
    pub about: Vec<u64>,
    /// Text that belongs to it.
    pub text: String,
    /// Whether the line goes on in the next.
    pub continues: bool,
}

/// Appends a record, each text of it cut where it is too long.
pub fn put(record: &Record<'_>, w: &mut Writer<'_>) {
    w.put_varint(record.time_us);
    w.put_u8(record.level as u8);
    w.put_u8(record.continues.into());
    w.put_bytes(start(record.target, LOG_TARGET_BYTES_MAX));
    w.put_bytes(start(record.name, NAME_BYTES_MAX));
    w.put_bytes(start(record.what, LOG_TARGET_BYTES_MAX));
    let about = &record.about[..record.about.len().min(LOG_NUMBERS_MAX)];
    w.put_varint(about.len() as u64);
    about.iter().for_each(|number| w.put_varint(*number));
    w.put_bytes(start(record.text, LOG_TEXT_BYTES_MAX));
}

/// The next record of a message; none behind the last.
///
/// # Errors
/// What is no record, or has more than one may have.
pub fn take(r: &mut Reader<'_>) -> Result<Option<Arrived>, Malformed> {
    if r.rest().is_empty() {
        return Ok(None);
    }
    let time_us = r.take_varint()?;
    let level = Level::from_number(r.take_u8()?).ok_or(Malformed("no such level"))?;
    let continues = r.take_u8()? != 0;
    let target = text(r, LOG_TARGET_BYTES_MAX)?;
    let name = text(r, NAME_BYTES_MAX)?;
    let what = text(r, LOG_TARGET_BYTES_MAX)?;
    let mut about = Vec::new();
    for _ in 0..r.take_len()? {
        if about.len() == LOG_NUMBERS_MAX {
            return Err(TOO_LONG);
        }
        about.push(r.take_varint()?);
    }
    let text = text(r, LOG_TEXT_BYTES_MAX)?;
    Ok(Some(Arrived { time_us, level, target, name, what, about, text, continues }))
}

const TOO_LONG: Malformed = Malformed("a record is too long");

fn text(r: &mut Reader<'_>, bytes_max: usize) -> Result<String, Malformed> {
    let bytes = r.take_bytes()?;
    if bytes_max < bytes.len() {
        return Err(TOO_LONG);
    }
    Ok(lossy(bytes))
}

/// So much of the beginning of a text, whole characters.
fn start(text: &str, bytes_max: usize) -> &[u8] {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text.as_bytes()[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ContextId;

    fn encoded(records: &[Record<'_>]) -> Vec<u8> {
        let mut w = Writer::new(Vec::new(), None);
        records.iter().for_each(|record| put(record, &mut w));
        w.finish().unwrap()
    }

    fn record() -> Record<'static> {
        Record {
            time_us: 1_700_000_000_000_000,
            level: Level::Warn,
            tree: 1,
            context: Some(ContextId(3)),
            name: "local/ssh:web1",
            target: "stdout",
            what: "something happened:",
            about: &[1, 300],
            text: "déjà vu",
            continues: true,
        }
    }

    #[test]
    fn records_survive_their_encoding() {
        let bytes = encoded(&[record(), Record { continues: false, about: &[], ..record() }]);
        let mut r = Reader::new(&bytes, None);
        let first = take(&mut r).unwrap().unwrap();
        assert_eq!((&*first.target, &*first.name), ("stdout", "local/ssh:web1"));
        assert_eq!(
            (&*first.text, &*first.about, first.level),
            ("déjà vu", &[1, 300][..], Level::Warn)
        );
        assert!(first.continues && !take(&mut r).unwrap().unwrap().continues);
        assert_eq!(take(&mut r).unwrap(), None);
    }

    #[test]
    fn every_truncation_is_an_error_and_what_is_too_long_is_cut_before_it_leaves() {
        let bytes = encoded(&[record()]);
        for len in 1..bytes.len() {
            assert!(take(&mut Reader::new(&bytes[..len], None)).is_err(), "{len}");
        }
        let (long, many) = ("é".repeat(100_000), vec![7; 1000]);
        let (text, name, target) = (&*long, &*long, &*long);
        let bytes = encoded(&[Record { text, name, target, what: "x", about: &many, ..record() }]);
        assert!(bytes.len() < crate::limits::FRAGMENT_BYTES);
        let cut = take(&mut Reader::new(&bytes, None)).unwrap().unwrap();
        assert_eq!(cut.text.len(), LOG_TEXT_BYTES_MAX);
        assert_eq!((cut.name.len(), cut.about.len()), (NAME_BYTES_MAX, LOG_NUMBERS_MAX));
    }

    #[test]
    fn a_text_that_claims_too_much_is_refused() {
        let mut w = Writer::new(Vec::new(), None);
        w.put_varint(1);
        w.put_u8(Level::Info as u8);
        w.put_u8(0);
        w.put_bytes(&[b'x'; LOG_TARGET_BYTES_MAX + 1]);
        let bytes = w.finish().unwrap();
        assert_eq!(take(&mut Reader::new(&bytes, None)).unwrap_err(), TOO_LONG);
    }
}
