//! Room for copied iovec arrays that a job record cannot hold.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::iovec;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// `UIO_MAXIOV`: the most iovecs a request may have.
pub const MAX_IOVECS: usize = 1024;
/// Long arrays that can be in flight at once.
const BLOCKS: usize = 8;

/// A few blocks of [`MAX_IOVECS`] iovecs. The memory is a mapping that costs
/// nothing before a block is used.
#[derive(Debug)]
pub struct Blocks {
    base: NonNull<iovec>,
    /// A bit for each free block.
    free: AtomicU32,
}

// SAFETY: a block is used by whoever took its bit, one at a time.
unsafe impl Send for Blocks {}
// SAFETY: as above.
unsafe impl Sync for Blocks {}

const BYTES: usize = BLOCKS * MAX_IOVECS * size_of::<iovec>();

impl Blocks {
    /// # Errors
    /// The kernel's, `ENOMEM` as a rule.
    pub fn new() -> rustix::io::Result<Self> {
        // SAFETY: a new private mapping, placed by the kernel.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Self { base, free: AtomicU32::new((1 << BLOCKS) - 1) })
    }

    /// Takes a block; none if all are in use. Engine only.
    pub fn take(&self) -> Option<u8> {
        // Relaxed: the Acquire below orders the block's memory.
        let free = self.free.load(Ordering::Relaxed);
        if free == 0 {
            return None;
        }
        let block = free.trailing_zeros();
        // Acquire: pairs with the Release in `put`: the last user is done.
        // Others only set bits, so the bit found is still there.
        self.free.fetch_and(!(1 << block), Ordering::Acquire);
        Some(block as u8)
    }

    /// Gives a block back.
    pub fn put(&self, block: u8) {
        // Release: pairs with the Acquire in `take`.
        self.free.fetch_or(1 << block, Ordering::Release);
    }

    /// Where a block begins.
    pub fn at(&self, block: u8) -> *mut iovec {
        debug_assert!(usize::from(block) < BLOCKS);
        // SAFETY: inside the mapping.
        unsafe { self.base.as_ptr().add(usize::from(block) * MAX_IOVECS) }
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        // SAFETY: our own mapping; no job is left that points into it.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), BYTES) };
    }
}
