//! Copies of iovec arrays and of paths, for requests that start after others.

use annulus::errno::Errno;
use annulus::hal::Kept;
use libc::iovec;

use super::blocks::{Blocks, MAX_IOVECS};
use super::job::INLINE;
use crate::sys;

/// A copy a slot: in the record, or in a block.
#[derive(Debug)]
pub struct Copies {
    slots: Box<[Copy]>,
}

#[derive(Debug)]
struct Copy {
    block: Option<u8>,
    inline: [iovec; INLINE],
}

// SAFETY: the pointers are addresses of the application's, and only read.
unsafe impl Send for Copies {}

impl Copies {
    pub fn new(slots: usize) -> Self {
        let none = iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let slots = (0..slots).map(|_| Copy { block: None, inline: [none; INLINE] }).collect();
        Self { slots }
    }

    /// Copies the `count` iovecs at `addr`, at most as many as a block holds.
    ///
    /// # Errors
    /// `EFAULT` if they cannot be read, `ENOMEM` if no block is free.
    pub fn keep(
        &mut self,
        index: usize,
        addr: u64,
        count: usize,
        blocks: &Blocks,
    ) -> Result<Kept, Errno> {
        let to = self.room(index, count, blocks)?;
        // SAFETY: `to` has room for as many.
        if let Err(e) = unsafe { sys::copy_iovecs(addr as usize, count, to) } {
            self.forget(index, blocks);
            return Err(Errno::from_raw(-e));
        }
        // SAFETY: just written.
        let iovecs = unsafe { std::slice::from_raw_parts(to, count) };
        let bytes = iovecs.iter().fold(0usize, |sum, iov| sum.saturating_add(iov.iov_len));
        let bytes = bytes.try_into().unwrap_or(u32::MAX);
        Ok(Kept { addr: to.expose_provenance() as u64, bytes })
    }

    /// Copies a path, its end included. Answers where to.
    ///
    /// # Errors
    /// As for [`keep`](Self::keep).
    pub fn keep_path(&mut self, index: usize, path: &[u8], blocks: &Blocks) -> Result<u64, Errno> {
        let count = path.len().div_ceil(size_of::<iovec>()).min(MAX_IOVECS);
        let to = self.room(index, count, blocks)?.cast::<u8>();
        let len = path.len().min(count * size_of::<iovec>());
        // SAFETY: there is room for as much; our own does not overlap.
        unsafe { std::ptr::copy_nonoverlapping(path.as_ptr(), to, len) };
        Ok(to.expose_provenance() as u64)
    }

    /// Room for the bytes of `count` iovecs.
    fn room(&mut self, index: usize, count: usize, blocks: &Blocks) -> Result<*mut iovec, Errno> {
        let copy = &mut self.slots[index];
        if count <= INLINE {
            return Ok(copy.inline.as_mut_ptr());
        }
        let block = blocks.take().ok_or(Errno::ENOMEM)?;
        copy.block = Some(block);
        Ok(blocks.at(block))
    }

    /// The copy is not needed any more.
    pub fn forget(&mut self, index: usize, blocks: &Blocks) {
        if let Some(block) = self.slots[index].block.take() {
            blocks.put(block);
        }
    }
}
