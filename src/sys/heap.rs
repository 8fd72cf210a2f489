//! The allocator of the stock agent: a tenth of the code of musl's, and no page touched that is not
//! used. Programs of users keep theirs. It refuses alignments above a page's.
//!
//! Blocks up to 64 KiB lie in regions; each begins with a word that tells its size, and a free one
//! is merged with its free neighbours at once and kept in a list by size, so that what was freed
//! serves requests of any size, in constant time. Larger blocks are the kernel's, and go back at
//! once. A region without blocks goes back, too, but for one.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use libc::c_void;

/// Bytes of memory taken from the kernel at once.
const REGION_BYTES: usize = 256 * 1024;
/// Bytes of the one block that fills a region: all but the padding before it and the word after.
const WHOLE: usize = REGION_BYTES - 2 * WORD;
/// Requests of so many bytes go to the kernel.
const LARGE_BYTES: usize = 64 * 1024;
const WORD: usize = size_of::<usize>();
/// Alignment of what lies in a region.
const ALIGN: usize = 2 * WORD;
/// Alignment that any page has.
const PAGE_ALIGN: usize = 4096;
/// A free block holds its head, two links, and its size once more at its end.
const BLOCK_BYTES_MIN: usize = 4 * WORD;
/// One list of free blocks for each quarter of each power of two.
const LISTS: usize = 64;

/// In a block's head: it is free.
const FREE: usize = 1;
/// In a block's head: the one before it is free, and tells its size in its last word.
const AFTER_FREE: usize = 2;
const FLAGS: usize = FREE | AFTER_FREE;

/// An allocator. All threads share it.
pub struct Heap(Mutex<State>);

struct State {
    /// The first block of each list, as an address, or 0.
    lists: [usize; LISTS],
    /// A bit for each list that has a block.
    filled: u64,
    /// Whether there is a region without blocks.
    spare: bool,
}

impl Heap {
    /// One without memory.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Heap {
        Heap(Mutex::new(State { lists: [0; LISTS], filled: 0, spare: false }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a request goes to the kernel.
fn is_large(layout: &Layout) -> bool {
    LARGE_BYTES <= layout.size() || ALIGN < layout.align()
}

// SAFETY: a block is given out once until it comes back: only under the lock are blocks taken from
// the lists and put there. It is at least as large and as aligned as asked for; nothing unwinds.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(&layout) {
            return if PAGE_ALIGN < layout.align() { ptr::null_mut() } else { map(layout.size()) };
        }
        let block = self.lock().take(block_bytes(layout.size()));
        block.map_or(ptr::null_mut(), Block::payload)
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        if is_large(&layout) {
            // SAFETY: `alloc` mapped it with this size, and its user has let go of it.
            return unsafe { unmap(start, layout.size()) };
        }
        self.lock().give(Block::of(start));
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is that of `alloc`.
        let start = unsafe { self.alloc(layout) };
        // What comes from the kernel is zero, and must not be touched.
        if !start.is_null() && !is_large(&layout) {
            // SAFETY: it has just been allocated with this size.
            unsafe { ptr::write_bytes(start, 0, layout.size()) };
        }
        start
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller vouches that this size is no overflow with this alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(bytes, layout.align()) };
        match (is_large(&layout), is_large(&new_layout)) {
            // SAFETY: `alloc` mapped it with this size, and it is its user who asks.
            (true, true) => return unsafe { remap(start, layout.size(), bytes) },
            (false, false) if block_bytes(layout.size()) == block_bytes(bytes) => return start,
            _ => (),
        }
        // SAFETY: the caller's contract is that of `alloc`.
        let moved = unsafe { self.alloc(new_layout) };
        if !moved.is_null() {
            // SAFETY: both have so many bytes, and the new one is nobody else's.
            unsafe { ptr::copy_nonoverlapping(start, moved, layout.size().min(bytes)) };
            // SAFETY: the caller gave it away with success.
            unsafe { self.dealloc(start, layout) };
        }
        moved
    }
}

/// The size of the block for a request: with its head, and rounded up to a size whose list holds
/// only blocks that are large enough.
fn block_bytes(bytes: usize) -> usize {
    let bytes = (bytes + WORD).max(BLOCK_BYTES_MIN);
    bytes.next_multiple_of((1 << (bytes.ilog2() - 2)).max(ALIGN))
}

/// The list of free blocks of this size: a number that grows with it, by four for each doubling.
fn list_of(bytes: usize) -> usize {
    let power = bytes.ilog2();
    let quarter = (bytes >> (power - 2)) & 3;
    (power - BLOCK_BYTES_MIN.ilog2()) as usize * 4 + quarter
}

impl State {
    /// A block of this size, which `block_bytes` gave.
    fn take(&mut self, bytes: usize) -> Option<Block> {
        let fitting = u64::MAX << list_of(bytes);
        if self.filled & fitting == 0 {
            self.add_region()?;
        }
        let list = (self.filled & fitting).trailing_zeros() as usize;
        let block = Block(*self.lists.get(list)?);
        self.unlink(block);
        let size = block.size();
        self.spare &= size != WHOLE;
        let rest = Block(block.0 + bytes);
        if size - bytes < BLOCK_BYTES_MIN {
            block.set_head(size);
            let next = block.next();
            next.set_head(next.head() & !AFTER_FREE);
        } else {
            block.set_head(bytes);
            self.link(rest, size - bytes);
        }
        Some(block)
    }

    /// Takes a block back.
    fn give(&mut self, mut block: Block) {
        let mut size = block.size();
        if block.head() & AFTER_FREE != 0 {
            block = Block(block.0 - block.word(-1));
            size += block.size();
            self.unlink(block);
        }
        let next = Block(block.0 + size);
        if next.head() & FREE != 0 {
            size += next.size();
            self.unlink(next);
        }
        if size == WHOLE {
            if self.spare {
                let start = ptr::with_exposed_provenance_mut(block.0 - WORD);
                // SAFETY: the region that `add_region` mapped. It has no blocks left.
                return unsafe { unmap(start, REGION_BYTES) };
            }
            self.spare = true;
        }
        self.link(block, size);
    }

    /// Maps a region, and makes one free block of it.
    fn add_region(&mut self) -> Option<()> {
        let start = map(REGION_BYTES).expose_provenance();
        if start == 0 {
            return None;
        }
        let block = Block(start + WORD);
        // The end of the region looks like a block in use.
        Block(block.0 + WHOLE).set_head(0);
        self.spare = true;
        self.link(block, WHOLE);
        Some(())
    }

    /// Makes a free block of this memory, between two that are in use.
    fn link(&mut self, block: Block, size: usize) {
        let list = list_of(size);
        let first = Block(self.lists[list]);
        block.set_head(size | FREE);
        block.set_word(1, first.0);
        block.set_word(2, 0);
        let next = block.next();
        next.set_word(-1, size);
        next.set_head(next.head() | AFTER_FREE);
        if first.0 != 0 {
            first.set_word(2, block.0);
        }
        self.lists[list] = block.0;
        self.filled |= 1 << list;
    }

    /// Takes a free block out of its list.
    fn unlink(&mut self, block: Block) {
        let (next, previous) = (Block(block.word(1)), Block(block.word(2)));
        if next.0 != 0 {
            next.set_word(2, previous.0);
        }
        if previous.0 != 0 {
            previous.set_word(1, next.0);
            return;
        }
        let list = list_of(block.size());
        self.lists[list] = next.0;
        if next.0 == 0 {
            self.filled &= !(1 << list);
        }
    }
}

/// A block, by the address of its head. Made only of addresses within the regions of a heap, while
/// its lock is held.
#[derive(Clone, Copy)]
struct Block(usize);

impl Block {
    fn of(payload: *mut u8) -> Block {
        Block(payload.addr() - WORD)
    }

    fn payload(self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.0 + WORD)
    }

    fn head(self) -> usize {
        self.word(0)
    }

    fn set_head(self, head: usize) {
        self.set_word(0, head);
    }

    fn size(self) -> usize {
        self.head() & !FLAGS
    }

    fn next(self) -> Block {
        Block(self.0 + self.size())
    }

    fn at(self, index: isize) -> *mut usize {
        ptr::with_exposed_provenance_mut::<usize>(self.0).wrapping_offset(index)
    }

    fn word(self, index: isize) -> usize {
        // SAFETY: heads, and the words of free blocks, are ours, aligned and set.
        unsafe { self.at(index).read() }
    }

    fn set_word(self, index: isize, value: usize) {
        // SAFETY: heads, and the words of free blocks, are ours and aligned.
        unsafe { self.at(index).write(value) }
    }
}

/// Zeroed pages for so many bytes, or null.
fn map(bytes: usize) -> *mut u8 {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: the kernel picks an address where nothing is.
    or_null(unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, -1, 0) })
}

/// Gives back what `map` gave.
///
/// # Safety
/// `start` came from `map` with these `bytes`, and nobody uses it any more.
unsafe fn unmap(start: *mut u8, bytes: usize) {
    // SAFETY: by this function's contract. It cannot fail but where the number of mappings is used
    // up, and then the memory is lost.
    unsafe { libc::munmap(start.cast(), bytes) };
}

/// Changes the size of what `map` gave; null, and nothing has changed, if that cannot be.
///
/// # Safety
/// `start` came from `map` with `old` bytes, and only the caller uses it.
unsafe fn remap(start: *mut u8, old: usize, new: usize) -> *mut u8 {
    // Not by the function of C's library, which waits for threads that unmap what they share.
    let may_move = libc::MREMAP_MAYMOVE as libc::c_long;
    // SAFETY: by this function's contract.
    let moved = unsafe { libc::syscall(libc::SYS_mremap, start, old, new, may_move) };
    or_null(ptr::with_exposed_provenance_mut(moved as usize))
}

fn or_null(mapped: *mut c_void) -> *mut u8 {
    if mapped == libc::MAP_FAILED { ptr::null_mut() } else { mapped.cast() }
}

#[cfg(test)]
mod tests;
