//! Memory of the image's pages, given back when it is dropped.

use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use annulus::hal::device::PAGE;
use annulus_baremetal::Platform as _;

use crate::place::Image;
use crate::text;
use crate::text::Text;

/// Some pages, zeroed.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    pages: usize,
}

// SAFETY: memory that is its owner's alone.
unsafe impl Send for Region {}

impl Region {
    /// So many bytes, and what is left of the last page.
    pub fn new(bytes: usize) -> Result<Self, Text> {
        let pages = bytes.div_ceil(PAGE).max(1);
        let base = Image.alloc(pages).ok_or_else(|| text!("no {pages} pages are left"))?;
        // SAFETY: pages of the arena, given out just now.
        unsafe { base.write_bytes(0, pages * PAGE) };
        Ok(Self { base, pages })
    }

    /// For a ring.
    pub fn uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: this region's pages. Whoever gets them writes bytes only, or
        // this is not read any more.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr().cast(), self.pages * PAGE) }
    }

    /// As many values as there is room for, each made by `make`.
    pub fn of<T>(&mut self, count: usize, mut make: impl FnMut() -> T) -> &mut [T] {
        const { assert!(align_of::<T>() <= PAGE && !core::mem::needs_drop::<T>()) };
        assert!(count * size_of::<T>() <= self.pages * PAGE, "the region is too small");
        let at = self.base.cast::<T>();
        // SAFETY: room for so many, aligned, and borrowed for as long as they
        // are used.
        unsafe {
            (0..count).for_each(|n| at.add(n).write(make()));
            core::slice::from_raw_parts_mut(at.as_ptr(), count)
        }
    }
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: this region's pages, which are initialized.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), self.pages * PAGE) }
    }
}

impl DerefMut for Region {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), self.pages * PAGE) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: as it was given out, and nobody uses it any more.
        unsafe { Image.free(self.base, self.pages) };
    }
}
