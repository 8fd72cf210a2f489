//! What `ps` shows of this process.

use std::os::fd::AsFd;
use std::ptr;

use super::fd;
use super::text::{fields, parse_decimal};

/// Bytes of /proc/self/stat, which has some fifty numbers.
const STAT_BYTES_MAX: usize = 4096;

/// Shows `text` in place of our arguments, as far as those had room, and as this thread's name.
/// Does nothing where it cannot. Only for a process whose arguments nobody reads any more: call it
/// on the main thread, before others start.
pub fn set_title(text: &[u8]) {
    if let Some((start, bytes)) = arguments() {
        // The last byte stays zero: without it the kernel would show the environment, too.
        let shown = text.len().min(bytes.saturating_sub(1));
        // SAFETY: the kernel says that our arguments are there, in memory that is ours to write and
        // that by this function's contract nobody reads; `shown` is less than their size.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr(), start, shown) };
        // SAFETY: as above; this is the start of what remains.
        let rest = unsafe { start.add(shown) };
        // SAFETY: as above; this is what remains.
        unsafe { ptr::write_bytes(rest, 0, bytes - shown) };
        set_name(text);
    }
}

/// The name of this thread, of which the kernel keeps 15 bytes.
#[cfg(target_os = "linux")]
fn set_name(text: &[u8]) {
    let mut name = [0u8; 16];
    for (place, byte) in name[..15].iter_mut().zip(text) {
        *place = *byte;
    }
    // SAFETY: a terminated text, which is copied.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

#[cfg(not(target_os = "linux"))]
fn set_name(_text: &[u8]) {}

/// Where our arguments are, and their size in bytes; `None` where the system does not tell.
fn arguments() -> Option<(*mut u8, usize)> {
    let stat = fd::open_read(c"/proc/self/stat").ok()?;
    let stat = fd::read_to_end(stat.as_fd(), STAT_BYTES_MAX).ok()?;
    // The second field may contain anything, but it ends at the last bracket.
    let after = stat.iter().rposition(|byte| *byte == b')')? + 2;
    let mut fields = fields(stat.get(after..)?, b' ');
    let start = parse_decimal(fields.nth(48 - 3)?)?;
    let end = parse_decimal(fields.next()?)?;
    if start == 0 || end <= start {
        return None;
    }
    Some((ptr::with_exposed_provenance_mut(start as usize), (end - start) as usize))
}

#[cfg(test)]
mod tests {
    use super::super::{signal, testing};
    use super::*;

    fn said(file: &str) -> Vec<u8> {
        std::fs::read(file).unwrap()
    }

    #[test]
    fn a_title_replaces_the_arguments_and_never_the_environment() {
        if testing::is_again() {
            let room = said("/proc/self/cmdline").len();
            let environment = said("/proc/self/environ");
            set_title(b"mitogen:deploy@web1:17");
            let title = said("/proc/self/cmdline");
            assert!(title.starts_with(b"mitogen:deploy@web1:17\0"));
            assert!(title[22..].iter().all(|byte| *byte == 0));
            set_title(&b"long".repeat(1000));
            assert_eq!(said("/proc/self/cmdline").len(), room);
            assert_eq!(said("/proc/thread-self/comm"), b"longlonglonglon\n");
            assert_eq!(said("/proc/self/environ"), environment);
            signal::exit_now(42);
        }
        let test =
            concat!(module_path!(), "::a_title_replaces_the_arguments_and_never_the_environment");
        testing::ends_well(test);
    }
}
