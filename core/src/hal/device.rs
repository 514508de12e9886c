//! What a driver of a real device needs from its place: registers, and memory
//! that the device reaches too.
//!
//! # Ordering towards a device
//!
//! Loom knows of threads, not of devices; what holds here is argued by hand.
//! Memory shared with a device is accessed volatile, and the order between it
//! and the device's own accesses is made by [`barrier`]:
//!
//! * [`barrier::write`] between filling a queue entry and ringing its doorbell
//!   (or publishing its index): the device that sees the second sees the first.
//! * [`barrier::read`] between seeing that an entry is new (a phase bit, an
//!   index) and reading the rest of it: nothing of it is older.
//! * [`barrier::full`] between publishing and reading what the device wrote in
//!   the same memory (shadow doorbells, event indices): of two such pairs at
//!   least one sees the other, as with two threads (`core/src/wake.rs`).

use core::ptr::NonNull;

use crate::errno::Errno;

/// Registers of a device (one memory BAR).
///
/// Accesses are of the given width, little-endian on the device, in program
/// order among themselves, and never cached or merged. A device that is gone
/// reads as all ones.
pub trait Mmio {
    /// Bytes that can be accessed.
    fn len(&self) -> usize;

    /// Whether nothing can be accessed.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the register at `offset` (a multiple of 4, below
    /// [`len`](Mmio::len): drivers check it where it comes from the device).
    fn read32(&self, offset: usize) -> u32;

    /// Writes the register at `offset`.
    fn write32(&self, offset: usize, value: u32);

    /// Reads a 64-bit register as two halves, the low one first.
    fn read64(&self, offset: usize) -> u64 {
        u64::from(self.read32(offset)) | u64::from(self.read32(offset + 4)) << 32
    }

    /// Writes a 64-bit register as two halves, the low one first.
    fn write64(&self, offset: usize, value: u64) {
        self.write32(offset, value as u32);
        self.write32(offset + 4, (value >> 32) as u32);
    }
}

/// Memory that the processor and a device share, made by [`Dma::alloc`].
#[derive(Debug)]
pub struct Coherent {
    /// Where the processor finds it.
    pub ptr: NonNull<u8>,
    /// Where the device finds it.
    pub device: u64,
    /// Bytes, a multiple of [`PAGE`].
    pub len: usize,
}

// SAFETY: a description of memory, which belongs to no thread.
unsafe impl Send for Coherent {}
// SAFETY: as above; access goes through the pointer, by whoever has the right.
unsafe impl Sync for Coherent {}

/// The unit of [`Dma::alloc`], and the page of device protocols.
pub const PAGE: usize = 4096;

/// A run of memory as a device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first byte's device address.
    pub device: u64,
    /// Bytes from there on that follow each other for the device.
    pub len: usize,
}

/// Memory for devices.
///
/// # Safety
/// Drivers read and write what [`alloc`](Dma::alloc) answers, and tell devices
/// to read and write where [`Coherent::device`] and [`span`](Dma::span) say. So:
///
/// * `alloc` gives memory that is valid for `len` bytes, on a page boundary,
///   and nobody else's until it is given back;
/// * each device address that is told is that of the same byte for the device,
///   for all of the length that is told with it, until it is given back or
///   unmapped.
pub unsafe trait Dma {
    /// Memory made reachable by [`map`](Dma::map).
    type Buffer: Copy;

    /// Memory of at least `len` bytes, zeroed, on a page boundary, in one
    /// piece for the device, coherent.
    ///
    /// # Errors
    /// `ENOMEM`, or what the place says.
    fn alloc(&self, len: usize) -> Result<Coherent, Errno>;

    /// Gives back what [`alloc`](Dma::alloc) gave.
    ///
    /// # Safety
    /// From this instance; neither the processor nor the device uses it any
    /// more.
    unsafe fn free(&self, memory: Coherent);

    /// Makes memory reachable for the device, once for many transfers.
    ///
    /// # Errors
    /// `EFAULT` for memory that is not all there, `ENOMEM` for want of room.
    ///
    /// # Safety
    /// The memory stays valid until [`unmap`](Dma::unmap), and the device
    /// writes to it.
    unsafe fn map(&self, addr: usize, len: usize) -> Result<Self::Buffer, Errno>;

    /// Ends a mapping: after this the device cannot reach the memory, or the
    /// place has no means to stop it and the driver has made it quiet.
    fn unmap(&self, buffer: Self::Buffer);

    /// Where the device finds the byte at `addr` of a mapping, which the
    /// caller knows to lie inside, and how far it goes on in one piece (at
    /// least to the end of the page, perhaps past the end of the mapping).
    fn span(&self, buffer: &Self::Buffer, addr: usize) -> Span;

    /// Whether [`map`](Dma::map) shares the mapping of live buffers that cover
    /// its memory, so that a whole and its parts take one.
    const SHARES_MAPPINGS: bool = false;

    /// Whether [`sync_for_cpu`](Dma::sync_for_cpu) does anything.
    const NEEDS_SYNC: bool = false;

    /// Before the device reads memory that the processor wrote: cleans caches
    /// where DMA is not coherent.
    #[inline(always)]
    fn sync_for_device(&self, addr: usize, len: usize) {
        let _ = (addr, len);
    }

    /// Before the processor reads memory that the device wrote.
    #[inline(always)]
    fn sync_for_cpu(&self, addr: usize, len: usize) {
        let _ = (addr, len);
    }
}

/// Barriers between memory shared with a device and its registers. See the
/// module's text for which one goes where.
pub mod barrier {
    /// Writes before it come before writes (and register writes) after it.
    #[inline(always)]
    pub fn write() {
        // x86 keeps stores in order, to device registers as well.
        #[cfg(any(target_arch = "x86", target_arch = "x86_64", miri))]
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
        #[cfg(all(target_arch = "aarch64", not(miri)))]
        // SAFETY: a barrier has no other effect.
        unsafe {
            core::arch::asm!("dmb oshst", options(nostack, preserves_flags));
        }
        #[cfg(all(any(target_arch = "riscv64", target_arch = "riscv32"), not(miri)))]
        // SAFETY: as above.
        unsafe {
            core::arch::asm!("fence w, ow", options(nostack, preserves_flags));
        }
        #[cfg(not(any(
            target_arch = "x86",
            target_arch = "x86_64",
            target_arch = "aarch64",
            target_arch = "riscv64",
            target_arch = "riscv32",
            miri
        )))]
        full();
    }

    /// Reads before it come before reads after it.
    #[inline(always)]
    pub fn read() {
        // x86 keeps loads in order.
        #[cfg(any(target_arch = "x86", target_arch = "x86_64", miri))]
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
        #[cfg(all(target_arch = "aarch64", not(miri)))]
        // SAFETY: a barrier has no other effect.
        unsafe {
            core::arch::asm!("dmb oshld", options(nostack, preserves_flags));
        }
        #[cfg(all(any(target_arch = "riscv64", target_arch = "riscv32"), not(miri)))]
        // SAFETY: as above.
        unsafe {
            core::arch::asm!("fence ir, ir", options(nostack, preserves_flags));
        }
        #[cfg(not(any(
            target_arch = "x86",
            target_arch = "x86_64",
            target_arch = "aarch64",
            target_arch = "riscv64",
            target_arch = "riscv32",
            miri
        )))]
        full();
    }

    /// Everything before it comes before everything after it.
    #[inline(always)]
    pub fn full() {
        #[cfg(all(target_arch = "aarch64", not(miri)))]
        // SAFETY: a barrier has no other effect.
        unsafe {
            core::arch::asm!("dmb osh", options(nostack, preserves_flags));
        }
        #[cfg(all(any(target_arch = "riscv64", target_arch = "riscv32"), not(miri)))]
        // SAFETY: as above.
        unsafe {
            core::arch::asm!("fence iorw, iorw", options(nostack, preserves_flags));
        }
        #[cfg(any(
            miri,
            not(any(target_arch = "aarch64", target_arch = "riscv64", target_arch = "riscv32"))
        ))]
        // The processor's own full fence is one for registers, too.
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    }
}
