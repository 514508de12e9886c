//! A device's registers, mapped.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A mapped BAR, from its begin to the first byte that cannot be mapped.
#[derive(Debug)]
pub struct Bar {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: registers belong to no thread; what a driver may write when is the
// driver's to order.
unsafe impl Send for Bar {}
// SAFETY: as above; every access is one volatile load or store.
unsafe impl Sync for Bar {}

/// How far `areas` (offset and length of each) reach from 0 on without a gap.
pub fn reach(areas: &[(u64, u64)]) -> u64 {
    let mut areas = areas.to_vec();
    areas.sort_unstable();
    let mut end = 0;
    for (offset, len) in areas {
        if offset > end {
            break;
        }
        end = end.max(offset.saturating_add(len));
    }
    end
}

impl Bar {
    /// Maps `len` bytes (whole pages) of a device file.
    ///
    /// # Errors
    /// `mmap(2)`'s.
    pub fn map(device: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping, where the kernel finds room.
        let at = unsafe { mmap(ptr::null_mut(), len, prot, flags, device, offset) }?;
        let base = NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    /// Bytes that are mapped.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The register at `offset`, if it is one.
    ///
    /// One comparison: the rotation turns an offset that is no multiple of 4
    /// into a number that is too large. The length is a multiple of 4.
    #[inline(always)]
    fn at(&self, offset: usize) -> Option<NonNull<u32>> {
        if offset.rotate_right(2) >= self.len >> 2 {
            return None;
        }
        // SAFETY: inside the mapping, and aligned as it is.
        Some(unsafe { self.base.add(offset).cast() })
    }

    #[inline(always)]
    pub fn read32(&self, offset: usize) -> u32 {
        debug_assert!(self.at(offset).is_some(), "no register at {offset:#x}");
        match self.at(offset) {
            // SAFETY: a mapped register; `Bar` keeps the mapping.
            Some(at) => u32::from_le(unsafe { at.read_volatile() }),
            // As a device answers that is not there.
            None => u32::MAX,
        }
    }

    #[inline(always)]
    pub fn write32(&self, offset: usize, value: u32) {
        debug_assert!(self.at(offset).is_some(), "no register at {offset:#x}");
        if let Some(at) = self.at(offset) {
            // SAFETY: as above.
            unsafe { at.write_volatile(value.to_le()) };
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        // SAFETY: our mapping, whole; nobody accesses it without `self`.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn only_registers_have_places() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(8192).expect("a size");
        let bar = Bar::map(file.as_fd(), 4096, 4096).expect("mapped");
        for offset in (0..4096).step_by(4) {
            let at = bar.at(offset).expect("a register");
            assert_eq!(at.addr().get(), bar.base.addr().get() + offset);
        }
        for offset in [1, 2, 3, 4093, 4096, 4097, 1 << 40, usize::MAX, usize::MAX - 3] {
            assert!(bar.at(offset).is_none(), "{offset:#x}");
        }
        bar.write32(8, 0x1234_5678);
        assert_eq!((bar.read32(8), bar.read32(12)), (0x1234_5678, 0));
    }

    #[test]
    fn areas_reach_to_the_first_gap() {
        assert_eq!(reach(&[]), 0);
        assert_eq!(reach(&[(0x1000, 0x1000)]), 0);
        assert_eq!(reach(&[(0x3000, 0x1000), (0, 0x2000)]), 0x2000);
        assert_eq!(reach(&[(0x2000, 0x1000), (0, 0x2000)]), 0x3000);
        assert_eq!(reach(&[(0, 0x4000), (0x1000, 0x1000)]), 0x4000);
        assert_eq!(reach(&[(0, u64::MAX), (4096, u64::MAX)]), u64::MAX);
    }
}
