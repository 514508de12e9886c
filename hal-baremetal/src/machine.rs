//! What rings and drivers need, made of what an image tells.

use core::ptr::NonNull;

use annulus::errno::Errno;
use annulus::hal::device::{Coherent, Dma, PAGE, Span};
use annulus::hal::{Clock, Host, Park, Parked};
use annulus::sync::{AtomicU32, Ordering, spin_loop};

use crate::{Platform, Window};

/// A machine as a place for rings and drivers: core's `Host` and `Dma` over a
/// [`Platform`].
///
/// As cheap to copy as its platform; over `&'static` one, a pointer. Every
/// ring and every device gets a copy.
#[derive(Clone, Copy, Debug)]
pub struct Machine<P> {
    platform: P,
}

/// What [`relax`](Machine::relax) waits, in ns.
const A_LITTLE: u64 = 50_000;

impl<P: Platform> Machine<P> {
    /// The machine that `platform` tells of.
    pub const fn new(platform: P) -> Self {
        Self { platform }
    }

    /// What it was made of.
    pub const fn platform(&self) -> &P {
        &self.platform
    }

    /// The device registers at a physical address, if the platform maps them.
    pub fn window(&self, physical: u64, len: usize) -> Option<Window> {
        let base = self.platform.registers(physical, len)?;
        // SAFETY: `Platform`'s contract.
        Some(unsafe { Window::new(base, len) })
    }

    /// Lets a little time pass in a wait that is cold.
    pub fn relax(&self) {
        let until = self.platform.now() + A_LITTLE;
        while self.platform.now() < until {
            spin_loop();
        }
    }

    /// Waits until `done`, at most so many ms. False if that is never.
    pub(crate) fn within(&self, ms: u64, done: impl Fn() -> bool) -> bool {
        let until = self.platform.now().saturating_add(ms * 1_000_000);
        loop {
            // The time is read first: who was kept waiting itself looks once
            // more.
            let late = self.platform.now() >= until;
            if done() {
                return true;
            }
            if late {
                return false;
            }
            self.relax();
        }
    }

    /// Sleeps while the word is as expected and `asleep` says so.
    pub(crate) fn sleep_while(
        &self,
        word: &AtomicU32,
        expected: u32,
        deadline: Option<u64>,
        asleep: impl Fn() -> bool,
    ) -> Parked {
        // Relaxed: the word carries no data; who parks looks again by itself,
        // after a fence. That no change is missed is `Platform::sleep`'s and
        // `Platform::wake`'s promise: whoever changes it wakes afterwards.
        let still = || word.load(Ordering::Relaxed) == expected && asleep();
        loop {
            self.platform.sleep(deadline, &still);
            if !still() {
                return Parked::Woken;
            }
            if deadline.is_some_and(|deadline| self.platform.now() >= deadline) {
                return Parked::TimedOut;
            }
        }
    }

    /// How far the `len` bytes at `addr` go on in one piece for devices.
    fn piece(&self, addr: usize, len: usize) -> Option<Span> {
        let first = self.platform.device_address(addr)?;
        let mut known = first.len;
        while known < len {
            let next = self.platform.device_address(addr.checked_add(known)?)?;
            if Some(next.device) != first.device.checked_add(known as u64) || next.len == 0 {
                break;
            }
            known = known.saturating_add(next.len);
        }
        Some(Span { device: first.device, len: known })
    }
}

impl<P: Platform> Clock for Machine<P> {
    #[inline(always)]
    fn now(&self) -> u64 {
        self.platform.now()
    }
}

impl<P: Platform> Park for Machine<P> {
    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
        self.sleep_while(word, expected, deadline, || true)
    }

    fn unpark(&self, _word: &AtomicU32) {
        self.platform.wake();
    }
}

impl<P: Platform> Host for Machine<P> {}

/// Memory that devices reach, as [`Machine`] keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Mapped {
    /// Device address less address, where that is the same for all of it.
    offset: u64,
    /// One past the last byte for which it is; 0 if the memory is in several
    /// pieces, which are then looked up one by one.
    end: usize,
}

// SAFETY: the platform's promise (`Platform`), passed on.
unsafe impl<P: Platform> Dma for Machine<P> {
    type Buffer = Mapped;

    fn alloc(&self, len: usize) -> Result<Coherent, Errno> {
        let pages = len.div_ceil(PAGE).max(1);
        let len = pages.checked_mul(PAGE).ok_or(Errno::ENOMEM)?;
        let ptr = self.platform.alloc(pages).ok_or(Errno::ENOMEM)?;
        match self.piece(ptr.addr().get(), len) {
            Some(piece) if piece.len >= len => {
                // SAFETY: new memory, of so many pages.
                unsafe { ptr.write_bytes(0, len) };
                Ok(Coherent { ptr, device: piece.device, len })
            }
            // Memory that is no use for devices.
            _ => {
                // SAFETY: just allocated.
                unsafe { self.platform.free(ptr, pages) };
                Err(Errno::EFAULT)
            }
        }
    }

    unsafe fn free(&self, memory: Coherent) {
        // SAFETY: from `alloc`, and the caller's promise.
        unsafe { self.platform.free(memory.ptr, memory.len / PAGE) }
    }

    unsafe fn map(&self, addr: usize, len: usize) -> Result<Mapped, Errno> {
        let end = addr.checked_add(len).filter(|_| len != 0).ok_or(Errno::EFAULT)?;
        let piece = self.piece(addr, len).ok_or(Errno::EFAULT)?;
        if piece.len >= len {
            let end = end.checked_next_multiple_of(PAGE).unwrap_or(end);
            return Ok(Mapped { offset: piece.device.wrapping_sub(addr as u64), end });
        }
        let mut at = addr;
        while at < end {
            let span = self.platform.device_address(at).ok_or(Errno::EFAULT)?;
            at = at.checked_add(span.len.max(1)).ok_or(Errno::EFAULT)?;
        }
        Ok(Mapped { offset: 0, end: 0 })
    }

    fn unmap(&self, _buffer: Mapped) {
        // There is no unit that would keep the device out: the driver has made
        // it quiet.
    }

    #[inline(always)]
    fn span(&self, buffer: &Mapped, addr: usize) -> Span {
        if addr < buffer.end {
            let device = (addr as u64).wrapping_add(buffer.offset);
            return Span { device, len: buffer.end - addr };
        }
        self.platform
            .device_address(addr)
            .expect("`Platform`: what is mapped for a device keeps its address")
    }

    const NEEDS_SYNC: bool = !P::COHERENT;

    #[inline(always)]
    fn sync_for_device(&self, addr: usize, len: usize) {
        if !P::COHERENT {
            self.platform.clean(addr, len);
        }
    }

    #[inline(always)]
    fn sync_for_cpu(&self, addr: usize, len: usize) {
        if !P::COHERENT {
            self.platform.invalidate(addr, len);
        }
    }
}

/// Makes a type with a field `machine` what that is: a clock, and memory for
/// devices.
macro_rules! pass_on {
    ([$($generics:tt)*] $type:ty) => {
        impl<$($generics)*> annulus::hal::Clock for $type {
            #[inline(always)]
            fn now(&self) -> u64 {
                self.machine.now()
            }
        }

        // SAFETY: the machine's own, passed on.
        unsafe impl<$($generics)*> annulus::hal::device::Dma for $type {
            type Buffer = $crate::Mapped;

            fn alloc(
                &self,
                len: usize,
            ) -> Result<annulus::hal::device::Coherent, annulus::errno::Errno> {
                self.machine.alloc(len)
            }

            unsafe fn free(&self, memory: annulus::hal::device::Coherent) {
                // SAFETY: the caller's promise.
                unsafe { self.machine.free(memory) }
            }

            unsafe fn map(
                &self,
                addr: usize,
                len: usize,
            ) -> Result<$crate::Mapped, annulus::errno::Errno> {
                // SAFETY: the caller's promise.
                unsafe { self.machine.map(addr, len) }
            }

            fn unmap(&self, buffer: $crate::Mapped) {
                self.machine.unmap(buffer);
            }

            #[inline(always)]
            fn span(&self, buffer: &$crate::Mapped, addr: usize) -> annulus::hal::device::Span {
                self.machine.span(buffer, addr)
            }

            const NEEDS_SYNC: bool = <Machine<P> as annulus::hal::device::Dma>::NEEDS_SYNC;

            #[inline(always)]
            fn sync_for_device(&self, addr: usize, len: usize) {
                self.machine.sync_for_device(addr, len);
            }

            #[inline(always)]
            fn sync_for_cpu(&self, addr: usize, len: usize) {
                self.machine.sync_for_cpu(addr, len);
            }
        }
    };
}
pub(crate) use pass_on;

const _: () = assert!(size_of::<Machine<NonNull<u8>>>() == size_of::<usize>());
