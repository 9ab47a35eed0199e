//! The allocator of every component: blocks that were freed wait for the next of their size.
//!
//! A request makes and frees some thousand small blocks, the same sizes each time. wasi-libc's
//! allocator merges and splits them each time; here most calls take one from a list or put one back.
//! What a list holds goes back to no other size: an instance keeps the most that it needed of each.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr::null_mut;

/// Bytes between the sizes of two lists.
const STEP: usize = 16;
/// Larger blocks, and those aligned to more, are wasi-libc's alone.
const SMALL_MAX: usize = 1024;
const ALIGN: usize = 8;
const LISTS: usize = SMALL_MAX / STEP + 1;

#[cfg(target_family = "wasm")]
#[global_allocator]
static ALLOCATOR: Lists = Lists::new();

/// A free block; it begins with the address of the next one.
struct Free {
    next: *mut Free,
}

/// The first free block of each size.
struct Lists(UnsafeCell<[*mut Free; LISTS]>);

// SAFETY: a component has one thread.
#[cfg(target_family = "wasm")]
unsafe impl Sync for Lists {}

impl Lists {
    const fn new() -> Self {
        Self(UnsafeCell::new([null_mut(); LISTS]))
    }
}

/// The list of a layout's blocks, unless they are large.
fn list_of(layout: Layout) -> Option<usize> {
    (layout.size() <= SMALL_MAX && layout.align() <= ALIGN).then(|| layout.size().div_ceil(STEP))
}

// SAFETY: every block of a list has the list's size, is aligned to `ALIGN`, and is nobody's. Not inlined: the
// calls are everywhere, and components would grow by a tenth.
unsafe impl GlobalAlloc for Lists {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(list) = list_of(layout) else { return unsafe { System.alloc(layout) } };
        let lists = unsafe { &mut *self.0.get() };
        let Some(first) = lists.get_mut(list) else { return null_mut() };
        if first.is_null() {
            let whole = Layout::from_size_align(list * STEP, ALIGN);
            return whole.map_or(null_mut(), |whole| unsafe { System.alloc(whole) });
        }
        let block = *first;
        *first = unsafe { (*block).next };
        block.cast()
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(list) = list_of(layout) else { return unsafe { System.dealloc(block, layout) } };
        let lists = unsafe { &mut *self.0.get() };
        if let Some(first) = lists.get_mut(list) {
            let block = block.cast::<Free>();
            unsafe { (*block).next = *first };
            *first = block;
        }
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(size, layout.align()) else { return null_mut() };
        let (from, to) = (list_of(layout), list_of(new));
        if from.is_none() && to.is_none() {
            return unsafe { System.realloc(block, layout, size) };
        }
        if from == to {
            return block;
        }
        let moved = unsafe { self.alloc(new) };
        if !moved.is_null() {
            unsafe {
                block.copy_to_nonoverlapping(moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 4).unwrap()
    }

    #[test]
    fn a_freed_block_serves_the_next_of_its_size_and_no_other() {
        let lists = Lists::new();
        let [small, large] = [layout(33), layout(SMALL_MAX + 1)];
        // SAFETY: as `GlobalAlloc` asks.
        unsafe {
            let first = lists.alloc(small);
            lists.dealloc(first, small);
            let larger = lists.alloc(layout(49));
            assert_ne!(larger, first);
            let again = lists.alloc(layout(48));
            assert_eq!(again, first, "of one list");
            assert_ne!(lists.alloc(small), first, "it is taken");
            let huge = lists.alloc(large);
            huge.write_bytes(1, large.size());
            lists.dealloc(huge, large);
        }
    }

    /// Blocks of all sizes, each full of its own byte, grow, shrink and go in an order that looks random.
    #[test]
    fn blocks_keep_their_bytes_and_never_overlap() {
        let lists = Lists::new();
        let mut blocks: Vec<(*mut u8, usize, u8)> = Vec::new();
        let mut random = 1_u64;
        for step in 0..50_000_u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let size = 1 + usize::try_from(random >> 33).unwrap() % (SMALL_MAX + 300);
            let fill = step.to_le_bytes()[0];
            // SAFETY: as `GlobalAlloc` asks.
            unsafe {
                if blocks.len() < 40 {
                    let block = lists.alloc(layout(size));
                    assert_eq!(block.align_offset(ALIGN), 0);
                    block.write_bytes(fill, size);
                    blocks.push((block, size, fill));
                    continue;
                }
                let (block, old, byte) = blocks.swap_remove(size % blocks.len());
                let bytes = std::slice::from_raw_parts(block, old);
                assert!(bytes.iter().all(|found| *found == byte));
                if random & (1 << 20) == 0 {
                    lists.dealloc(block, layout(old));
                    continue;
                }
                let block = lists.realloc(block, layout(old), size);
                let kept = std::slice::from_raw_parts(block, old.min(size));
                assert!(kept.iter().all(|found| *found == byte));
                block.write_bytes(fill, size);
                blocks.push((block, size, fill));
            }
        }
    }
}
