//! What an ELF file says of itself: for which CPU it is, and which of its bytes run. Pure.

use std::ops::Range;

use crate::module::target;

/// The facts that decide where an image may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elf {
    /// The CPU, as `std::env::consts::ARCH` names it.
    pub cpu: &'static str,
    /// Whether it needs an interpreter: the target's dynamic linker, and so its libraries.
    pub dynamic: bool,
}

/// The file's own header.
pub struct Header<'a> {
    file: &'a [u8],
    /// Whether it is for 64 bits.
    pub wide: bool,
    big_endian: bool,
    /// Where the table of segments begins, the bytes of an entry, and the entries.
    table: (u64, u64, u64),
}

/// A part of the file that is for the one who executes it.
pub struct Segment {
    /// What it is for.
    pub kind: u32,
    /// Its place in the file.
    pub place: Range<u64>,
}

/// The kind of segment that is mapped.
pub const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;

/// Reads the headers of an executable; `None` if it is none, or for a CPU that we do not know.
pub fn parse(file: &[u8]) -> Option<Elf> {
    let header = Header::read(file)?;
    let cpu = target::machine(header.number(18, 2)? as u16, file[4])?;
    let mut segments = header.segments();
    Some(Elf { cpu, dynamic: segments.any(|s| s.is_some_and(|s| s.kind == PT_INTERP)) })
}

impl<'a> Header<'a> {
    /// The header of this file; `None` if it has none.
    pub fn read(file: &'a [u8]) -> Option<Header<'a>> {
        let ident = file.get(..16)?;
        let (class, order) = (ident[4], ident[5]);
        if !ident.starts_with(b"\x7fELF") || !matches!(class, 1 | 2) || !matches!(order, 1 | 2) {
            return None;
        }
        let (wide, big_endian) = (class == 2, order == 2);
        let mut header = Header { file, wide, big_endian, table: (0, 0, 0) };
        let [at, size, count] = if wide { [32, 54, 56] } else { [28, 42, 44] };
        let offset = header.number(at, header.word())?;
        header.table = (offset, header.number(size, 2)?, header.number(count, 2)?);
        Some(header)
    }

    /// Bytes of an address.
    pub fn word(&self) -> usize {
        if self.wide { 8 } else { 4 }
    }

    /// The number that stands in these bytes.
    pub fn number(&self, at: usize, bytes: usize) -> Option<u64> {
        let bytes = self.file.get(at..at.checked_add(bytes)?)?;
        let add = |n: u64, b: &u8| n << 8 | u64::from(*b);
        Some(match self.big_endian {
            true => bytes.iter().fold(0, add),
            false => bytes.iter().rev().fold(0, add),
        })
    }

    /// Where the table of segments is; `None` if its entries are not what they must be.
    pub fn table(&self) -> Option<Range<u64>> {
        let (offset, size, count) = self.table;
        if size != if self.wide { 56 } else { 32 } {
            return None;
        }
        Some(offset..offset.checked_add(size.checked_mul(count)?)?)
    }

    /// The segments; `None` for one that the file is too short for.
    pub fn segments(&self) -> impl Iterator<Item = Option<Segment>> {
        let (offset, size, count) = self.table;
        let at = move |i: u64| offset.checked_add(i.checked_mul(size)?)?.try_into().ok();
        (0..count).map(move |i| self.segment(at(i)?))
    }

    fn segment(&self, at: usize) -> Option<Segment> {
        let [offset, bytes] = if self.wide { [8, 32] } else { [4, 16] };
        let field = |field: usize, bytes| self.number(at.checked_add(field)?, bytes);
        let (start, word) = (field(offset, self.word())?, self.word());
        let place = start..start.checked_add(field(bytes, word)?)?;
        Some(Segment { kind: field(0, 4)? as u32, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_an_executable_of_this_cpu() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let elf = parse(&own).unwrap();
        assert_eq!(elf.cpu, std::env::consts::ARCH);
        assert_eq!(elf.dynamic, !cfg!(target_feature = "crt-static"));
    }

    #[test]
    fn every_truncation_is_read_without_a_panic() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        for len in 0..2000 {
            parse(&own[..len]);
        }
        assert_eq!(parse(&own[..64]).map(|elf| elf.dynamic), Some(false));
        assert_eq!(parse(b"#!/bin/sh\n"), None);
    }
}
