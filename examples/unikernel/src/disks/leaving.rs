//! The machine as a place for a virtio device that may be wanted back.

use annulus::errno::Errno;
use annulus::hal::Clock;
use annulus::hal::device::{Coherent, Dma, Span};
use annulus_baremetal::pci::Leave;
use annulus_baremetal::{Machine, Mapped, virtio};

use crate::place::{Image, MACHINE};

/// The machine, and whether the device is to be given back.
#[derive(Clone, Copy, Debug)]
pub struct Leaving<'c>(pub &'c Leave);

impl virtio::Platform for Leaving<'_> {
    fn relax(&self) {
        MACHINE.relax();
    }

    fn leaving(&self) -> bool {
        self.0.is_asked()
    }
}

impl Clock for Leaving<'_> {
    #[inline(always)]
    fn now(&self) -> u64 {
        MACHINE.now()
    }
}

// SAFETY: the machine's own, passed on.
unsafe impl Dma for Leaving<'_> {
    type Buffer = Mapped;

    fn alloc(&self, len: usize) -> Result<Coherent, Errno> {
        MACHINE.alloc(len)
    }

    unsafe fn free(&self, memory: Coherent) {
        // SAFETY: the caller's promise.
        unsafe { MACHINE.free(memory) }
    }

    unsafe fn map(&self, addr: usize, len: usize) -> Result<Mapped, Errno> {
        // SAFETY: the caller's promise.
        unsafe { MACHINE.map(addr, len) }
    }

    fn unmap(&self, buffer: Mapped) {
        MACHINE.unmap(buffer);
    }

    #[inline(always)]
    fn span(&self, buffer: &Mapped, addr: usize) -> Span {
        MACHINE.span(buffer, addr)
    }

    const NEEDS_SYNC: bool = <Machine<Image> as Dma>::NEEDS_SYNC;

    #[inline(always)]
    fn sync_for_device(&self, addr: usize, len: usize) {
        MACHINE.sync_for_device(addr, len);
    }

    #[inline(always)]
    fn sync_for_cpu(&self, addr: usize, len: usize) {
        MACHINE.sync_for_cpu(addr, len);
    }
}
