//! What must hold of any bytes that come as records of a log.

use crate::limits::LOG_TEXT_BYTES_MAX;
use crate::log::record;
use crate::log::stdio::{TARGETS, texts_of};
use crate::sys::text::lossy;
use crate::wire::codec::Reader;

/// No bytes make the readers of records panic, those see no more than there is, and what is printed
/// is the same to a hop and to the master.
pub fn records(bytes: &[u8]) {
    let (mut seen_bytes, mut r) = (0, Reader::new(bytes, None));
    // The master ends with the first that is no record.
    let mut records = std::iter::from_fn(|| record::take(&mut r).ok().flatten()).fuse();
    let mut next_printed = || {
        let record = records.find(|record| {
            // What is replaced is three bytes for one.
            assert!(record.text.len() <= 3 * LOG_TEXT_BYTES_MAX);
            TARGETS.contains(&&*record.target)
        })?;
        Some((record.text, record.continues))
    };
    texts_of(bytes, &mut |text, continues| {
        seen_bytes += text.len();
        // A hop reads on where the master does not.
        if let Some(printed) = next_printed() {
            assert_eq!(printed, (lossy(text), continues));
        }
    });
    assert!(seen_bytes <= bytes.len());
    assert_eq!(next_printed(), None, "the hop has missed it");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::LOG_NUMBERS_MAX;
    use crate::trace::{Level, Record};
    use crate::wire::codec::Writer;

    fn any_text() -> impl Strategy<Value = String> {
        prop::collection::vec(any::<char>(), 0..20).prop_map(String::from_iter)
    }

    prop_compose! {
        /// Encoded records, most of them printed.
        fn any_records()(
            all in prop::collection::vec(
                (0usize..3, 1u8..6, any::<bool>(), any_text(), any::<[u64; 2]>()), 0..8,
            ),
        ) -> Vec<u8> {
            let mut w = Writer::new(Vec::new(), None);
            for (target, level, continues, text, about) in all {
                let target = ["stdout", "stderr", "other"][target];
                let now = Record::now(Level::from_number(level).unwrap(), target);
                record::put(&Record { text: &text, continues, about: &about, ..now }, &mut w);
            }
            w.finish().unwrap()
        }
    }

    #[test]
    fn what_looks_like_a_record_behind_what_is_none_is_none() {
        let mut w = Writer::new(Vec::new(), None);
        record::put(&Record { time_us: 0, ..Record::now(Level::Info, "stdout") }, &mut w);
        let one = w.finish().unwrap();
        // Of too many numbers, of which a hop knows no more than how many they are.
        let begin = [0, Level::Info as u8, 0, 0, 0, 0, 100].to_vec();
        let rest = [0].repeat(100 - LOG_NUMBERS_MAX - one.len() + 1);
        let bytes = [begin, vec![0; LOG_NUMBERS_MAX], one.clone(), rest, one].concat();
        records(&bytes);
    }

    proptest! {
        #[test]
        fn random_bytes_break_nothing(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            records(&bytes);
        }

        #[test]
        fn small_numbers_break_nothing(bytes in prop::collection::vec(0u8..8, 0..300)) {
            records(&bytes);
        }

        #[test]
        fn records_with_one_bit_flipped_or_their_end_cut_off_break_nothing(
            mut bytes in any_records(), at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            records(&bytes);
            let at = at.index(bytes.len() + 1);
            records(&bytes[..at]);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
            records(&bytes);
        }
    }
}
