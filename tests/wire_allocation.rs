//! Hostile bytes cannot make the wire's decoders allocate more than a small multiple of what was
//! sent, shown by counting every allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use mitogen::fuzzing;

/// The system's allocator, counting bytes per thread, since tests run side by side.
struct Counting;

thread_local! {
    static NOW_BYTES: Cell<isize> = const { Cell::new(0) };
    static PEAK_BYTES: Cell<isize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[allow(unsafe_code, reason = "an allocator that counts is an unsafe trait")]
// SAFETY: every request is passed on unchanged to `System`, which upholds the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now_bytes = NOW_BYTES.get() + layout.size() as isize;
        NOW_BYTES.set(now_bytes);
        PEAK_BYTES.set(PEAK_BYTES.get().max(now_bytes));
        // SAFETY: the caller upholds `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW_BYTES.set(NOW_BYTES.get() - layout.size() as isize);
        // SAFETY: `at` came from `alloc` above, hence from `System`, with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

const FRAGMENT_BYTES: usize = 16 * 1024;
const MIB: usize = 1024 * 1024;

/// Bytes that `run` had allocated at its worst, beyond what there was before.
fn peak_bytes(run: impl FnOnce()) -> usize {
    NOW_BYTES.set(0);
    PEAK_BYTES.set(0);
    run();
    PEAK_BYTES.get() as usize
}

#[track_caller]
fn stays_below(bytes_max: usize, run: impl FnOnce()) {
    let peak_bytes = peak_bytes(run);
    assert!(peak_bytes <= bytes_max, "{peak_bytes} bytes, more than {bytes_max}");
}

/// A number in seven bits a byte.
fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while 0x80 <= value {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A first fragment from context `src`, which announces `total` bytes.
fn first(src: u8, total: u64) -> Vec<u8> {
    let header = [&[0xa1, 0b1001, 0, src, 1][..], &varint(total), &[0x80, 0x80, 1]].concat();
    [header, vec![7; FRAGMENT_BYTES]].concat()
}

fn next(src: u8) -> Vec<u8> {
    let header = [0xa1, 0b1_0001, 0, src, 1, 0x80, 0x80, 1];
    [&header[..], &[7; FRAGMENT_BYTES]].concat()
}

#[test]
fn the_count_counts() {
    let peak_bytes = peak_bytes(|| {
        drop(std::hint::black_box(vec![1u8; 1000]));
        drop(std::hint::black_box(vec![1u8; 600]));
    });
    assert_eq!(peak_bytes, 1000);
}

#[test]
fn counts_that_lie_allocate_nothing_of_note() {
    for count in [100, 1 << 16, 1 << 24, 1 << 40, u64::MAX] {
        for lead in [vec![], vec![1], vec![2, 1, b'a'], vec![0, 0, 0], vec![0, 1, 0]] {
            let bytes = [lead, varint(count), vec![0; 16]].concat();
            stays_below(64 * 1024, || fuzzing::values(&bytes));
        }
    }
}

#[test]
fn many_small_items_allocate_a_multiple_of_their_bytes() {
    for byte in [0, 1, 2, 0x7f] {
        let bytes = [varint(MIB as u64), vec![byte; MIB]].concat();
        // A `Vec` takes 24 bytes, a string with an option 40, and growing doubles and moves them.
        stays_below(64 * MIB, || fuzzing::values(&bytes));
    }
}

#[test]
fn lists_in_lists_that_lie_allocate_nothing_of_note() {
    let inner = [varint(1 << 20), vec![0; 8]].concat();
    let bytes = [varint(1000), inner.repeat(1000)].concat();
    stays_below(MIB, || fuzzing::values(&bytes));
}

#[test]
fn an_announced_length_allocates_no_more_than_a_step() {
    let bytes = first(5, u64::MAX);
    stays_below(MIB + 2 * FRAGMENT_BYTES, || fuzzing::assembler(&bytes, u64::MAX));
}

#[test]
fn a_refused_message_allocates_nothing_of_note() {
    let bytes = [first(5, 100 * MIB as u64), next(5).repeat(200)].concat();
    stays_below(4096, || fuzzing::assembler(&bytes, MIB as u64));
}

#[test]
fn an_assembly_allocates_at_most_three_times_what_has_arrived() {
    let bytes = [first(5, u64::MAX), next(5).repeat(639)].concat();
    // Twice for the message, and once more where the allocator moves it to grow it.
    stays_below(3 * bytes.len(), || fuzzing::assembler(&bytes, u64::MAX));
}

#[test]
fn a_header_that_lies_about_its_length_allocates_nothing_of_note() {
    let bytes = [&[0xa1, 0, 0, 5, 1][..], &varint(u64::from(u32::MAX)), &[0; 100]].concat();
    stays_below(4096, || fuzzing::assembler(&bytes, u64::MAX));
}

/// A record of a line that was printed.
fn record(text: &[u8]) -> Vec<u8> {
    let fields = [&[1, 3, 0, 6][..], b"stdout", &[0, 0, 0], &varint(text.len() as u64)].concat();
    [fields, text.to_vec()].concat()
}

#[test]
fn records_of_a_log_allocate_a_few_times_their_bytes_at_most() {
    let line = record(&[0xff; 8 * 1024]);
    let lines = line.repeat(100);
    // Three bytes stand for one that is replaced; growing doubles and moves them; two look at it.
    stays_below(12 * line.len(), || fuzzing::records(&line));
    stays_below(12 * line.len(), || fuzzing::records(&lines));
    let short = record(b"x").repeat(1000);
    stays_below(4096, || fuzzing::records(&short));
}

#[test]
fn records_that_lie_about_their_lengths_allocate_nothing_of_note() {
    for count in [1 << 16, 1 << 40, u64::MAX] {
        for lead in [&[1, 3, 0][..], &[1, 3, 0, 0, 0, 0], &[1, 3, 0, 0, 0, 0, 0]] {
            let bytes = [lead, &varint(count), &[1; 1000]].concat();
            stays_below(4096, || fuzzing::records(&bytes));
        }
    }
}
