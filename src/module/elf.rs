//! What an ELF file says of itself: for which CPU it is, and whether it can run alone. Pure.

use crate::module::target;

/// The facts that decide where an image may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elf {
    /// The CPU, as `std::env::consts::ARCH` names it.
    pub cpu: &'static str,
    /// Whether it needs an interpreter: the target's dynamic linker, and so its libraries.
    pub dynamic: bool,
}

const PT_INTERP: u32 = 3;

/// Reads the headers of an executable; `None` if it is none, or for a CPU that we do not know.
pub fn parse(file: &[u8]) -> Option<Elf> {
    let ident = file.get(..16)?;
    let (class, order) = (ident[4], ident[5]);
    if !ident.starts_with(b"\x7fELF") || !matches!(class, 1 | 2) || !matches!(order, 1 | 2) {
        return None;
    }
    let wide = class == 2;
    let number = |at: usize, bytes: usize| {
        let bytes = file.get(at..at.checked_add(bytes)?)?;
        let add = |n: u64, b: &u8| n << 8 | u64::from(*b);
        Some(if order == 1 { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) })
    };
    let cpu = target::machine(number(18, 2)? as u16, class)?;
    let (offset, size, count) = match wide {
        true => (number(32, 8)?, number(54, 2)?, number(56, 2)?),
        false => (number(28, 4)?, number(42, 2)?, number(44, 2)?),
    };
    let header = |i: u64| offset.checked_add(i.checked_mul(size)?)?.try_into().ok();
    let is_interpreter = |i| header(i).and_then(|at| number(at, 4)) == Some(u64::from(PT_INTERP));
    Some(Elf { cpu, dynamic: (0..count).any(is_interpreter) })
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
