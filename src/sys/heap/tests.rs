//! The allocator against what it promises: whatever is asked for in whatever order, nothing
//! overlaps, all is kept, and all comes back.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// Something allocated, filled with a byte of its own.
struct Piece {
    start: *mut u8,
    layout: Layout,
    byte: u8,
}

// SAFETY: memory that nobody else knows.
unsafe impl Send for Piece {}

impl Piece {
    fn new(heap: &Heap, bytes: usize, align: usize, byte: u8, zeroed: bool) -> Piece {
        let layout = Layout::from_size_align(bytes, align).unwrap();
        let start = if zeroed {
            // SAFETY: the size is not zero.
            unsafe { heap.alloc_zeroed(layout) }
        } else {
            // SAFETY: the size is not zero.
            unsafe { heap.alloc(layout) }
        };
        assert!(!start.is_null());
        assert_eq!(start.addr() % align, 0);
        let mut piece = Piece { start, layout, byte };
        if zeroed {
            assert!(piece.bytes().iter().all(|byte| *byte == 0));
        }
        piece.fill(0);
        piece
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: allocated with this size; all of it is written before it is compared.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.layout.size()) }
    }

    fn fill(&mut self, from: usize) {
        let byte = self.byte;
        self.bytes()[from..].fill(byte);
    }

    fn is_whole(&mut self) -> bool {
        let byte = self.byte;
        self.bytes().iter().all(|other| *other == byte)
    }

    fn resize(&mut self, heap: &Heap, bytes: usize) {
        let old = self.layout;
        let kept = bytes.min(old.size());
        // SAFETY: allocated with this layout; the new size is not zero.
        self.start = unsafe { heap.realloc(self.start, old, bytes) };
        assert!(!self.start.is_null());
        assert_eq!(self.start.addr() % old.align(), 0);
        self.layout = Layout::from_size_align(bytes, old.align()).unwrap();
        let byte = self.byte;
        assert!(self.bytes()[..kept].iter().all(|other| *other == byte));
        self.fill(kept);
    }

    fn free(mut self, heap: &Heap) {
        assert!(self.is_whole());
        // SAFETY: allocated with this layout, and given up.
        unsafe { heap.dealloc(self.start, self.layout) };
    }
}

/// Every free block is in its list, is known to the block after it, and is between two in use.
fn check(heap: &Heap) {
    let state = heap.lock();
    let mut whole = 0;
    for (list, first) in state.lists.iter().enumerate() {
        assert_eq!(*first != 0, state.filled & (1 << list) != 0);
        let (mut block, mut previous) = (Block(*first), 0);
        while block.0 != 0 {
            assert_eq!(block.head(), block.size() | FREE);
            assert_eq!(list_of(block.size()), list);
            assert_eq!(block.word(2), previous);
            assert_eq!(block.next().word(-1), block.size());
            assert_eq!(block.next().head() & FLAGS, AFTER_FREE);
            whole += u8::from(block.size() == WHOLE);
            (block, previous) = (Block(block.word(1)), block.0);
        }
    }
    assert_eq!(u8::from(state.spare), whole);
}

/// All has come back and was merged: at most one region is left, and it is whole.
fn check_empty(heap: &Heap) {
    check(heap);
    let state = heap.lock();
    assert_eq!(state.filled & !(1 << list_of(WHOLE)), 0);
    if state.spare {
        let block = Block(state.lists[list_of(WHOLE)]);
        assert_eq!((block.size(), block.word(1)), (WHOLE, 0));
    }
}

/// Sizes at which something changes, and all between.
fn sizes() -> impl Strategy<Value = usize> {
    let edges = [1, 24, 25, 40, 56, 4096, LARGE_BYTES - 1, LARGE_BYTES, REGION_BYTES];
    prop_oneof![
        6 => 1..600usize,
        2 => 1..20_000usize,
        1 => 1..300_000usize,
        1 => prop::sample::select(edges.to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_asked_for_nothing_overlaps_and_all_comes_back(
        steps in prop::collection::vec((0..8u8, any::<u16>(), sizes(), 0..13u32), 1..300),
    ) {
        let heap = Heap::new();
        let mut pieces: Vec<Piece> = Vec::new();
        for (i, (what, which, bytes, align)) in steps.into_iter().enumerate() {
            let which = usize::from(which) % pieces.len().max(1);
            match what {
                0..=2 if !pieces.is_empty() => pieces.swap_remove(which).free(&heap),
                3..=4 if !pieces.is_empty() => pieces[which].resize(&heap, bytes),
                _ => {
                    // Most are aligned as a word is.
                    let align = if align < 5 { 1 << align } else if align == 12 { 4096 } else { 8 };
                    pieces.push(Piece::new(&heap, bytes, align, i as u8, what == 7));
                }
            }
            check(&heap);
        }
        pieces.into_iter().for_each(|piece| piece.free(&heap));
        check_empty(&heap);
    }
}

#[test]
fn every_size_fits_the_list_that_it_is_taken_from() {
    let mut last = 0;
    for bytes in 1..LARGE_BYTES {
        let block = block_bytes(bytes);
        assert!(bytes + WORD <= block && block % ALIGN == 0 && last <= list_of(block));
        assert!(BLOCK_BYTES_MIN < block || bytes + WORD <= BLOCK_BYTES_MIN);
        // Smaller blocks are in lists before it.
        assert!(block == BLOCK_BYTES_MIN || list_of(block - ALIGN) < list_of(block));
        last = list_of(block);
    }
    assert!(list_of(WHOLE) < LISTS && last < list_of(WHOLE));
}

#[test]
fn memory_that_was_freed_serves_other_sizes() {
    let heap = Heap::new();
    let round = |bytes| {
        let pieces = 0..(REGION_BYTES * 3 / 4) / block_bytes(bytes);
        let pieces: Vec<_> = pieces.map(|i| Piece::new(&heap, bytes, 8, i as u8, false)).collect();
        let regions: Vec<_> = pieces.iter().map(|piece| piece.start.addr()).collect();
        // Out of order, so that all merging is needed.
        let (even, odd): (Vec<_>, Vec<_>) =
            pieces.into_iter().enumerate().partition(|(i, _)| i % 2 == 0);
        even.into_iter().chain(odd).for_each(|(_, piece)| piece.free(&heap));
        check_empty(&heap);
        (regions.iter().copied().min(), regions.iter().copied().max())
    };
    let (low, high) = round(24);
    for bytes in [100, 1000, 10_000, 60_000, 24] {
        let (l, h) = round(bytes);
        assert!(low <= l && h < high.map(|high| high + REGION_BYTES));
        assert_eq!(low, l);
    }
}

#[test]
fn a_burst_leaves_one_region_and_large_blocks_leave_nothing() {
    let heap = Heap::new();
    let pieces: Vec<_> = (0..5000).map(|i| Piece::new(&heap, 1000, 8, i as u8, false)).collect();
    pieces.into_iter().for_each(|piece| piece.free(&heap));
    check_empty(&heap);
    let mut large = Piece::new(&heap, LARGE_BYTES, 1, 7, true);
    large.resize(&heap, 8 << 20);
    large.resize(&heap, 3);
    large.resize(&heap, 8 << 20);
    large.free(&heap);
    check_empty(&heap);
}

#[test]
fn what_cannot_be_had_is_null_and_harms_nothing() {
    let heap = Heap::new();
    let mut piece = Piece::new(&heap, LARGE_BYTES, 8, 1, false);
    // SAFETY: allocated with this layout.
    assert!(unsafe { heap.realloc(piece.start, piece.layout, isize::MAX as usize - 7) }.is_null());
    assert!(piece.is_whole());
    piece.free(&heap);
    for layout in [(isize::MAX as usize - 4096, 8), (8, 8192)] {
        let layout = Layout::from_size_align(layout.0, layout.1).unwrap();
        // SAFETY: the size is not zero.
        assert!(unsafe { heap.alloc(layout) }.is_null());
    }
}

#[test]
fn threads_share_it_and_free_what_others_took() {
    let heap = Arc::new(Heap::new());
    let (send, receive) = std::sync::mpsc::sync_channel::<Piece>(64);
    let receive = Arc::new(std::sync::Mutex::new(receive));
    let makers = (0..4u8).map(|maker| {
        let (heap, send) = (heap.clone(), send.clone());
        std::thread::spawn(move || {
            let mut number = usize::from(maker) + 1;
            for _ in 0..20_000 {
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let bytes = 1 + (number >> 40) % [64, 700, 5000, 70_000][(number >> 33) % 4];
                let mut piece = Piece::new(&heap, bytes, 8, number as u8, false);
                if number >> 35 & 1 == 0 {
                    piece.resize(&heap, 1 + bytes / 3 * 2);
                }
                if let Err(full) = send.try_send(piece) {
                    full.into_inner().free(&heap);
                }
            }
        })
    });
    let makers: Vec<_> = makers.collect();
    drop(send);
    let takers = (0..2).map(|_| {
        let (heap, receive) = (heap.clone(), receive.clone());
        std::thread::spawn(move || {
            while let Ok(piece) = { receive.lock().unwrap().recv() } {
                piece.free(&heap);
            }
        })
    });
    let takers: Vec<_> = takers.collect();
    makers.into_iter().chain(takers).for_each(|thread| thread.join().unwrap());
    check_empty(&heap);
}

trait IntoInner {
    fn into_inner(self) -> Piece;
}

impl IntoInner for std::sync::mpsc::TrySendError<Piece> {
    fn into_inner(self) -> Piece {
        match self {
            Self::Full(piece) | Self::Disconnected(piece) => piece,
        }
    }
}
