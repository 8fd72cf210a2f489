//! How much a process that lives long has of everything, to be compared with what it had before.

use std::fmt;
use std::fs;

use super::processes;

/// What a process has.
#[derive(Debug)]
pub struct Sizes {
    /// Of its heap, if it could be asked: what is allocated.
    pub heap_bytes: i64,
    pub heap_blocks: i64,
    /// Memory that it has written to.
    pub rss_kib: i64,
    pub descriptors: i64,
    pub threads: i64,
    /// Zombies, too.
    pub children: i64,
}

impl Sizes {
    /// Of a process whose heap is known to be this.
    pub fn of(pid: u32, (heap_bytes, heap_blocks): (i64, i64)) -> Sizes {
        let entries = |name| fs::read_dir(format!("/proc/{pid}/{name}")).unwrap().count() as i64;
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        // Pages of its file come and go.
        let anonymous = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
        let children = processes().into_iter().filter(|process| process.parent == pid);
        Sizes {
            heap_bytes,
            heap_blocks,
            rss_kib: anonymous.trim().trim_end_matches(" kB").parse().unwrap(),
            descriptors: entries("fd"),
            threads: entries("task"),
            children: children.count() as i64,
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sizes { heap_bytes, heap_blocks, rss_kib, descriptors, threads, children } = self;
        write!(f, "heap {heap_bytes:>7} bytes in {heap_blocks:>4} blocks, {rss_kib:>5} KiB, ")?;
        write!(f, "{descriptors:>2} descriptors, {threads} threads, {children} children")
    }
}
