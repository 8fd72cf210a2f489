//! How much a process that lives long has of everything, to be compared with what it had before.

use std::fmt;
use std::fs;

use super::processes;

/// What a process may have more after a while: tables that happen to have room for more, what is
/// gone and not yet swept out of them, pages that are used in part.
const HEAP_BYTES_MORE: i64 = 32 * 1024;
const HEAP_BLOCKS_MORE: i64 = 128;
const RSS_KIB_MORE: i64 = 1024;
/// The same of one whose heap cannot be asked, a stock agent.
const STOCK_RSS_KIB_MORE: i64 = 64;
/// Descriptors that are kept while no thread sleeps on them.
const IDLE_WAKES: i64 = 4;

/// What a process has.
pub struct Sizes {
    /// What is allocated, in so many blocks, if it could be asked.
    pub heap: Option<(i64, i64)>,
    /// Memory that it has written to.
    pub rss_kib: i64,
    pub descriptors: i64,
    pub threads: i64,
    /// Zombies, too.
    pub children: i64,
}

impl Sizes {
    /// Of a process whose heap is known to be this.
    pub fn of(pid: u32, heap: Option<(i64, i64)>) -> Sizes {
        let entries = |name| fs::read_dir(format!("/proc/{pid}/{name}")).unwrap().count() as i64;
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        // Pages of its file come and go.
        let anonymous = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
        let children = processes().into_iter().filter(|process| process.parent == pid);
        Sizes {
            heap,
            rss_kib: anonymous.trim().trim_end_matches(" kB").parse().unwrap(),
            descriptors: entries("fd"),
            threads: entries("task"),
            children: children.count() as i64,
        }
    }

    /// Whether it has no more than before, but for what comes and goes.
    pub fn is_no_more_than(&self, before: &Sizes) -> bool {
        let rss_kib_more = if self.heap.is_some() { RSS_KIB_MORE } else { STOCK_RSS_KIB_MORE };
        let ((bytes, blocks), (bytes_before, blocks_before)) =
            (self.heap.unwrap_or_default(), before.heap.unwrap_or_default());
        bytes <= bytes_before + HEAP_BYTES_MORE
            && blocks <= blocks_before + HEAP_BLOCKS_MORE
            && self.rss_kib <= before.rss_kib + rss_kib_more
            && self.descriptors <= before.descriptors + IDLE_WAKES
            && self.threads <= before.threads
            && self.children <= before.children
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sizes { heap, rss_kib, descriptors, threads, children } = self;
        if let Some((bytes, blocks)) = heap {
            write!(f, "{bytes} bytes in {blocks} blocks of the heap, ")?;
        }
        write!(f, "{rss_kib} KiB, {descriptors} descriptors, {threads} threads, ")?;
        write!(f, "{children} children")
    }
}
