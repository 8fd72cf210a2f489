//! An executable without what its execution does not need: symbols, debug information, comments,
//! the table of sections. Pure: bytes in, bytes out; any bytes.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::module::elf::{Header, PT_LOAD};

const EXECUTABLE: u64 = 2;
const SHARED: u64 = 3;
/// This many segments means that the number stands elsewhere.
const MANY: u64 = 0xffff;

/// An ELF executable without what its execution does not need: section headers, symbols, debug
/// information, comments, and whatever was appended. What is left runs as before; a backtrace in it
/// has no names. Images are sent so; an executable that was stripped is hardly smaller.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind) if it is no ELF executable, or a part is missing.
///
/// # Examples
/// ```
/// let own = std::fs::read("/proc/self/exe").unwrap();
/// let small = mitogen::minimize_image(&own).unwrap();
/// assert!(small.len() < own.len());
/// assert_eq!(mitogen::minimize_image(&small).unwrap(), small);
/// ```
pub fn minimize_image(file: &[u8]) -> Result<Vec<u8>> {
    minimize(file).map_err(|why| Error::usage(["the image cannot be minimized: ", why].concat()))
}

/// The same; fails with why.
pub fn minimize(file: &[u8]) -> Result<Vec<u8>, &'static str> {
    let header = Header::read(file).ok_or("it is no ELF file")?;
    let short = "it is cut short";
    if !matches!(header.number(16, 2).ok_or(short)?, EXECUTABLE | SHARED) {
        return Err("it is no executable");
    }
    let ranges = needed(file, &header)?;
    let end = ranges.last().map_or(0, |range| range.end);
    let mut out = vec![0; end];
    for range in ranges {
        out[range.clone()].copy_from_slice(&file[range]);
    }
    // The table of sections: its place, and how many and which there are.
    let (place, counts) = if header.wide { (40, 60) } else { (32, 48) };
    for field in [place..place + header.word(), counts..counts + 4] {
        out.get_mut(field).ok_or(short)?.fill(0);
    }
    Ok(out)
}

/// The bytes that are needed: both headers, and all segments. Sorted; none meets the next.
fn needed(file: &[u8], header: &Header<'_>) -> Result<Vec<Range<usize>>, &'static str> {
    let within = |range: Range<u64>| {
        let end = usize::try_from(range.end).ok().filter(|end| *end <= file.len());
        end.map(|end| range.start as usize..end).ok_or("a part of it is missing")
    };
    let table = header.table().ok_or("a table of segments that is none")?;
    let head = if header.wide { 64 } else { 52 };
    if table.start < head {
        return Err("its headers overlap");
    }
    let mut all = vec![within(0..head)?, within(table)?];
    let (mut loads, mut count) = (false, 0);
    for segment in header.segments() {
        let segment = segment.ok_or("a part of it is missing")?;
        loads |= segment.kind == PT_LOAD;
        count += 1;
        if !segment.place.is_empty() {
            all.push(within(segment.place)?);
        }
    }
    if !loads || count == MANY {
        return Err("it has no segments to load");
    }
    all.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<usize>> = Vec::new();
    for range in all {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    Ok(joined)
}

/// The same, or the file as it is where that cannot be.
pub fn minimized(file: Vec<u8>) -> Vec<u8> {
    minimize(&file).unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Output};

    fn own() -> Vec<u8> {
        std::fs::read("/proc/self/exe").unwrap()
    }

    /// Runs these bytes as a program.
    fn run(bytes: &[u8], args: &[&str]) -> Output {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        loop {
            match Command::new(&path).args(args).env("RUST_BACKTRACE", "1").output() {
                // Another thread's child had it open for writing when it was written.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => (),
                output => return output.unwrap(),
            }
        }
    }

    #[test]
    fn what_is_left_runs_and_is_smaller() {
        for (path, args, says) in [
            ("/proc/self/exe", &["--list"][..], "what_is_left_runs"),
            ("/bin/sh", &["-c", "echo $((6*7))"], "42"),
            ("/bin/ls", &["/proc/self/cmdline"], "cmdline"),
        ] {
            let file = std::fs::read(path).unwrap();
            let small = minimize(&file).unwrap();
            assert!(small.len() < file.len());
            let output = run(&small, args);
            assert!(output.status.success(), "{path}: {output:?}");
            assert!(String::from_utf8_lossy(&output.stdout).contains(says), "{path}");
            assert!(minimize(&small).unwrap() == small, "{path}");
        }
        let (file, small) = (own().len(), minimize(&own()).unwrap().len());
        assert!(!cfg!(debug_assertions) || small < file / 2, "{small} of {file}");
    }

    #[test]
    #[ignore = "the one below runs it"]
    fn panics() {
        panic!("as it should");
    }

    #[test]
    fn a_panic_in_what_is_left_is_told_as_ever() {
        let args = ["--ignored", "--exact", "module::minimize::tests::panics"];
        let output = run(&minimize(&own()).unwrap(), &args);
        assert_eq!(output.status.code(), Some(101), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("as it should"), "{output:?}");
    }

    /// A file of two segments of three bytes, with a gap before each and something behind.
    fn made(wide: bool, big_endian: bool) -> Vec<u8> {
        let mut file = vec![0xee; 0x220];
        let mut put = |at: usize, bytes: usize, value: u64| {
            let all = if big_endian { value << (64 - 8 * bytes) } else { value };
            let all = if big_endian { all.to_be_bytes() } else { all.to_le_bytes() };
            file[at..at + bytes].copy_from_slice(&all[..bytes]);
        };
        let (word, head, entry) = if wide { (8, 64, 56) } else { (4, 52, 32) };
        put(0, 4, if big_endian { 0x7f45_4c46 } else { 0x464c_457f });
        put(4, 1, if wide { 2 } else { 1 });
        put(5, 1, if big_endian { 2 } else { 1 });
        put(16, 2, EXECUTABLE);
        let [table, section, counts] = if wide { [32, 40, 54] } else { [28, 32, 42] };
        put(table, word, head as u64);
        put(section, word, 0x210);
        for (field, value) in [(0, entry as u64), (2, 2), (4, 40), (6, 3), (8, 2)] {
            put(counts + field, 2, value);
        }
        for (i, place) in [0x100, 0x200].into_iter().enumerate() {
            let at = head + i * entry;
            put(at, 4, u64::from(PT_LOAD));
            let [offset, bytes] = if wide { [8, 32] } else { [4, 16] };
            put(at + offset, word, place);
            put(at + bytes, word, 3);
        }
        file
    }

    const KINDS: [(bool, bool); 4] = [(true, false), (true, true), (false, false), (false, true)];

    #[test]
    fn only_the_headers_and_the_segments_are_left_on_any_cpu() {
        for (wide, big_endian) in KINDS {
            let file = made(wide, big_endian);
            let small = minimize(&file).unwrap();
            assert_eq!(small.len(), 0x203);
            let head = if wide { 64 + 2 * 56 } else { 52 + 2 * 32 };
            let is_kept = |at| at < head || (0x100..0x103).contains(&at) || 0x200 <= at;
            let (place, counts) = if wide { (40..48, 60..64) } else { (32..36, 48..52) };
            for (at, byte) in small.iter().enumerate() {
                let cleared = place.contains(&at) || counts.contains(&at);
                let expected = if is_kept(at) && !cleared { file[at] } else { 0 };
                assert_eq!(*byte, expected, "{at}");
            }
            assert_eq!(minimize(&small).unwrap(), small);
        }
    }

    #[test]
    fn a_truncated_file_is_refused() {
        for (wide, big_endian) in KINDS {
            let file = made(wide, big_endian);
            for len in 0..0x203 {
                assert!(minimize(&file[..len]).is_err(), "{len}");
            }
            assert!(minimize(&file[..0x203]).is_ok());
        }
        for text in [&b"#!/bin/sh\n"[..], b"\x1f\x8b", b"\x7fELF", &[0; 100]] {
            let error = minimize_image(text).unwrap_err();
            assert!(error.to_string().contains("no ELF file"), "{error}");
        }
    }

    #[test]
    fn headers_that_overlap_or_count_elsewhere_are_refused() {
        for (wide, big_endian) in KINDS {
            let file = made(wide, big_endian);
            let (table, head, counts, entry) =
                if wide { (32, 64, 54, 56) } else { (28, 52, 42, 32) };
            let low = if big_endian { table + if wide { 7 } else { 3 } } else { table };
            let mut overlapping = file.clone();
            overlapping[low] = head - 1;
            assert_eq!(minimize(&overlapping), Err("its headers overlap"));
            // All of them are there.
            let mut many = file.clone();
            many[counts + 2..counts + 4].fill(0xff);
            many.resize(usize::from(head) + entry * 0xffff, 0);
            many[usize::from(head) + 2 * entry..].fill(0);
            assert_eq!(minimize(&many), Err("it has no segments to load"));
        }
    }

    #[test]
    fn a_lie_in_a_header_is_no_panic_and_makes_nothing_larger() {
        for (wide, big_endian) in KINDS {
            let file = made(wide, big_endian);
            for at in 0..0x100 {
                for value in [0, 1, 2, 3, 4, 0x7f, 0x80, 0xfe, 0xff] {
                    for count in [1, 2, 4, 8] {
                        let mut lie = file.clone();
                        lie[at..at + count].fill(value);
                        if let Ok(small) = minimize(&lie) {
                            assert!(small.len() <= lie.len());
                            assert_eq!(minimize(&small), Ok(small));
                        }
                    }
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            kind in 0..4_usize,
            lies in proptest::collection::vec((0..0x100_usize, proptest::num::u8::ANY), 0..6),
            len in 0..0x220_usize,
        ) {
            let mut file = made(KINDS[kind].0, KINDS[kind].1);
            lies.iter().for_each(|(at, value)| file[*at] = *value);
            file.truncate(len);
            if let Ok(small) = minimize(&file) {
                assert!(small.len() <= len);
                assert_eq!(minimize(&small), Ok(small));
            }
        }
    }
}
