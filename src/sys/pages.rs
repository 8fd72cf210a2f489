//! A word to the kernel on memory that is about to be filled.

use crate::limits::LARGE_PAGES_BYTES_MIN;

/// Says that so large a buffer shall have large pages, as far as there are any: the first touch of
/// each small one costs more than to copy it. Of smaller buffers nothing is said.
pub fn want_large(bytes: &Vec<u8>) {
    if LARGE_PAGES_BYTES_MIN <= bytes.capacity() {
        #[cfg(target_os = "linux")]
        advise(bytes.as_ptr() as usize, bytes.capacity());
    }
}

/// Says so of all pages that hold a part of it: were some of a mapping left out, it could not grow
/// where it is.
#[cfg(target_os = "linux")]
fn advise(from: usize, bytes: usize) {
    // Where pages are larger the system refuses this, and gives what it always does.
    const PAGE_BYTES: usize = 4096;
    let start = from & !(PAGE_BYTES - 1);
    // SAFETY: this advice changes what backs the memory, whoever has it, and not what it holds.
    let _ = unsafe { libc::madvise(start as *mut _, from + bytes - start, libc::MADV_HUGEPAGE) };
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// What the kernel notes of the mapping that this buffer lies in.
    fn flags_of(bytes: &[u8]) -> String {
        let (at, maps) = (bytes.as_ptr() as usize, fs::read_to_string("/proc/self/smaps").unwrap());
        let mut is_inside = false;
        for line in maps.lines() {
            let number = |text| usize::from_str_radix(text, 16).ok();
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            if let Some((Some(from), Some(to))) = range.map(|(a, b)| (number(a), number(b))) {
                is_inside = (from..to).contains(&at);
            }
            if let (true, Some(flags)) = (is_inside, line.strip_prefix("VmFlags:")) {
                return flags.to_owned();
            }
        }
        panic!("no mapping at {at:x}");
    }

    #[test]
    fn a_large_buffer_is_given_large_pages_and_still_when_it_has_grown() {
        if !fs::exists("/sys/kernel/mm/transparent_hugepage").unwrap() {
            return;
        }
        // More than any allocator cuts out of a larger piece.
        let mut bytes = Vec::with_capacity(16 * LARGE_PAGES_BYTES_MIN);
        bytes.extend_from_slice(&[7; 100]);
        want_large(&bytes);
        assert!(flags_of(&bytes).contains(" hg"), "{}", flags_of(&bytes));
        bytes.reserve_exact(32 * LARGE_PAGES_BYTES_MIN);
        assert!(flags_of(&bytes).contains(" hg"), "{}", flags_of(&bytes));
        assert_eq!(bytes, [7; 100]);
    }
}
