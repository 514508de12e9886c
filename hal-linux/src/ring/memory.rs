//! The memory of a ring.

use std::io;
use std::ptr::NonNull;

use annulus::engine::Memory;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// A mapping of our own.
///
/// Private: a forked child gets a copy, and whatever it does to that cannot
/// reach the parent's ring.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: memory belongs to no thread.
unsafe impl Send for Mapping {}
// SAFETY: the mapping itself is only handed out and unmapped.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// # Errors
    /// The kernel's, `ENOMEM` as a rule.
    pub fn new(len: usize) -> io::Result<Self> {
        // SAFETY: a new private mapping, placed by the kernel.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Self { base, len })
    }

    /// The memory, as a ring takes it.
    ///
    /// # Safety
    /// Once only, and whatever is built in it is gone before the mapping.
    pub unsafe fn lend(&self) -> Memory<'static> {
        // SAFETY: ours, whole, and outlives its use by the caller's promise.
        unsafe { Memory::from_raw(self.base, self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping; the promise of `lend`.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}
