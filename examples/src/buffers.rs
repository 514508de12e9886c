//! One aligned allocation, cut into a block a slot.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Page alignment: enough for O_DIRECT on any device and for registering.
const ALIGN: usize = 4096;

/// The largest sum of buffers that the program takes: what the kernel registers as one buffer at
/// most.
pub const MOST: u64 = 1 << 30;

/// Buffers of equal size that never move.
#[derive(Debug)]
pub struct Buffers {
    base: NonNull<u8>,
    layout: Layout,
    block: usize,
}

impl Buffers {
    /// `slots` zeroed buffers of `block` bytes each; at least one byte and at most [`MOST`] in all.
    pub fn new(slots: u32, block: usize) -> Self {
        let bytes =
            (slots as usize).checked_mul(block).filter(|&bytes| bytes > 0 && bytes as u64 <= MOST);
        let bytes = bytes.expect("the options were checked");
        let layout =
            Layout::from_size_align(bytes, ALIGN).expect("at most 1 GiB at a page's alignment");
        // SAFETY: the size is not zero.
        let Some(base) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            handle_alloc_error(layout)
        };
        Self { base, layout, block }
    }

    /// Bytes a slot.
    pub fn block(&self) -> usize {
        self.block
    }

    /// The start of a slot's buffer. Valid for [`block`](Self::block) bytes while `self` lives.
    pub fn slot(&self, slot: usize) -> *mut u8 {
        debug_assert!(slot < self.layout.size() / self.block);
        // SAFETY: slots lie within the one allocation.
        unsafe { self.base.as_ptr().add(slot * self.block) }
    }

    /// A slot's bytes.
    ///
    /// # Safety
    /// No operation in flight uses the slot's buffer.
    pub unsafe fn bytes(&mut self, slot: usize) -> &mut [u8] {
        // SAFETY: the slot is in bounds and initialised (zeroed at first), `&mut self` excludes
        // other slices, and the caller says that the ring does not touch it.
        unsafe { std::slice::from_raw_parts_mut(self.slot(slot), self.block) }
    }

    /// The whole allocation, for registering it.
    pub fn iovec(&self) -> libc::iovec {
        libc::iovec { iov_base: self.base.as_ptr().cast(), iov_len: self.layout.size() }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and freed once.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}
