//! A device's registers, as memory of the processor.

use core::ptr::NonNull;

use annulus::hal::device::Mmio;

/// Registers that are also accessed a byte or two at a time: PCI
/// configuration space, virtio's.
///
/// As for [`Mmio`]: accesses are of exactly the given width, little-endian on
/// the device, in program order among themselves, never cached or merged. A
/// device that is gone reads as all ones.
pub trait Registers: Mmio {
    /// Reads the byte at `offset`, below [`len`](Mmio::len).
    fn read8(&self, offset: usize) -> u8;

    /// Writes the byte at `offset`.
    fn write8(&self, offset: usize, value: u8);

    /// Reads the register at `offset`, a multiple of 2.
    fn read16(&self, offset: usize) -> u16;

    /// Writes the register at `offset`, a multiple of 2.
    fn write16(&self, offset: usize, value: u16);
}

/// Registers at an address of the processor.
///
/// A window is a way to somewhere, not an owner: it can be copied, divided
/// ([`part`](Self::part)) and used from any core. What is outside of it
/// answers as a device that is gone; a debug build panics.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: registers belong to no core; what a driver may write when is the
// driver's to order.
unsafe impl Send for Window {}
// SAFETY: as above; every access is one volatile load or store.
unsafe impl Sync for Window {}

impl Window {
    /// The `len` bytes of registers at `base`.
    ///
    /// # Safety
    /// `base` is a multiple of 4, and from there on `len` bytes are mapped as
    /// device memory (not cached, not reordered, not merged) for as long as
    /// the window or a copy is used. They are registers of a device, not
    /// memory that the program uses otherwise.
    pub const unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len }
    }

    /// A window onto `len` bytes of this one, from a multiple of 4 on.
    /// `None` if they do not all lie in it.
    pub fn part(&self, offset: usize, len: usize) -> Option<Self> {
        if !offset.is_multiple_of(4) || offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: inside this window.
        Some(Self { base: unsafe { self.base.add(offset) }, len })
    }

    /// The register of type `T` at `offset`, if it is one.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let size = size_of::<T>();
        let inside = offset.checked_add(size).is_some_and(|end| end <= self.len);
        let found = inside && offset & (size - 1) == 0;
        debug_assert!(found, "no register of {size} bytes at {offset:#x} of {:#x}", self.len);
        // SAFETY: inside the window, so inside what is mapped.
        found.then(|| unsafe { self.base.add(offset).cast() })
    }
}

/// One access, by an instruction that a hypervisor can emulate: on aarch64 the
/// compiler may choose one that also moves the address register, of which the
/// trap does not tell the access.
macro_rules! access {
    ($read:ident, $write:ident, $type:ty, $load:literal, $store:literal) => {
        #[inline(always)]
        fn $read(&self, offset: usize) -> $type {
            let Some(at) = self.at::<$type>(offset) else { return <$type>::MAX };
            #[cfg(all(target_arch = "aarch64", not(miri)))]
            let value = {
                let value: u32;
                // SAFETY: a mapped register (`new`), which the caller may
                // read; nothing else is touched.
                unsafe {
                    core::arch::asm!($load, value = out(reg) value, at = in(reg) at.as_ptr(),
                        options(nostack, preserves_flags));
                }
                value as $type
            };
            #[cfg(not(all(target_arch = "aarch64", not(miri))))]
            // SAFETY: a mapped register (`new`).
            let value = unsafe { at.read_volatile() };
            <$type>::from_le(value)
        }

        #[inline(always)]
        fn $write(&self, offset: usize, value: $type) {
            let Some(at) = self.at::<$type>(offset) else { return };
            #[cfg(all(target_arch = "aarch64", not(miri)))]
            // SAFETY: as for reading.
            unsafe {
                core::arch::asm!($store, value = in(reg) u32::from(value.to_le()),
                    at = in(reg) at.as_ptr(), options(nostack, preserves_flags));
            }
            #[cfg(not(all(target_arch = "aarch64", not(miri))))]
            // SAFETY: as for reading.
            unsafe {
                at.write_volatile(value.to_le());
            }
        }
    };
}

impl Mmio for Window {
    #[inline(always)]
    fn len(&self) -> usize {
        self.len
    }

    access!(read32, write32, u32, "ldr {value:w}, [{at}]", "str {value:w}, [{at}]");
}

impl Registers for Window {
    access!(read8, write8, u8, "ldrb {value:w}, [{at}]", "strb {value:w}, [{at}]");
    access!(read16, write16, u16, "ldrh {value:w}, [{at}]", "strh {value:w}, [{at}]");
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn accesses_are_little_endian_and_of_their_width() {
        let mut memory = [0u32; 4];
        let base = NonNull::from(&mut memory).cast();
        // SAFETY: the array is used by the window alone, and outlives it.
        let window = unsafe { Window::new(base, 16) };
        window.write32(4, 0x4433_2211);
        window.write16(10, 0x6655);
        window.write8(15, 0x77);
        assert_eq!([4, 5, 6, 7].map(|at| window.read8(at)), [0x11, 0x22, 0x33, 0x44]);
        assert_eq!((window.read16(4), window.read16(6)), (0x2211, 0x4433));
        assert_eq!((window.read32(8), window.read32(12)), (0x6655_0000, 0x7700_0000));
        assert_eq!(window.read64(4), 0x6655_0000_4433_2211);
        assert_eq!(window.read32(0), 0);
    }

    #[test]
    fn a_part_is_inside() {
        let mut memory = [0x1111_1111u32, 0x2222_2222, 0x3333_3333, 0];
        let base = NonNull::from(&mut memory).cast();
        // SAFETY: as above.
        let window = unsafe { Window::new(base, 16) };
        let part = window.part(4, 6).expect("inside");
        assert_eq!((part.len(), part.read32(0), part.read16(4)), (6, 0x2222_2222, 0x3333));
        assert!(part.part(4, 2).is_some() && part.part(4, 3).is_none());
        for (offset, len) in [(0, 17), (16, 1), (2, 4), (4, usize::MAX), (usize::MAX - 3, 8)] {
            assert!(window.part(offset, len).is_none(), "{offset:#x} {len:#x}");
        }
        assert!(window.part(16, 0).is_some_and(|none| none.is_empty()));
    }

    #[test]
    fn what_is_outside_is_gone() {
        let mut memory = [0u32; 2];
        let base = NonNull::from(&mut memory).cast();
        // SAFETY: as above.
        let window = unsafe { Window::new(base, 6) };
        let quiet = |f: &dyn Fn() -> u32| {
            let hook = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
            // A debug build says so instead.
            hook.map_or(u32::MAX, |value| value)
        };
        assert_eq!(quiet(&|| window.read32(4)), u32::MAX);
        assert_eq!(quiet(&|| window.read32(usize::MAX)), u32::MAX);
        assert_eq!(quiet(&|| u32::from(window.read16(3)) | 0xffff_0000), u32::MAX);
        assert_eq!(quiet(&|| u32::from(window.read8(6)) | 0xffff_ff00), u32::MAX);
        assert_eq!(window.read16(4), 0);
    }
}
