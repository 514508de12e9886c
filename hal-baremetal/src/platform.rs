//! What an image tells of the machine that it runs on.

use core::ptr::NonNull;

use annulus::hal::device::Span;
use annulus::sync::spin_loop;

/// The machine, as its image knows it. This is all that there is to implement;
/// [`Machine`](crate::Machine) makes of it what rings and drivers need.
///
/// Five answers are needed. [`sleep`](Self::sleep) and [`wake`](Self::wake)
/// are for images whose cores sleep; the default spins. The rest is for
/// machines on which devices bypass the processor's caches.
///
/// An instance, not a type: two domains of addresses are two instances.
///
/// # Safety
/// Memory safety rests on the answers:
///
/// * [`device_address`](Self::device_address) tells where a device finds that
///   very memory, for as long as the memory is mapped for a device.
/// * [`alloc`](Self::alloc) gives memory that nobody else uses, mapped for
///   reading and writing at the address it gives.
/// * [`registers`](Self::registers) gives an address that is mapped as device
///   memory for ever and leads to the physical one it was asked for, and
///   nothing for physical addresses that are no device registers: it is asked
///   for what a BAR says, and so a device, which may lie.
pub unsafe trait Platform {
    /// Nanoseconds since some fixed point. Never goes back, on no core.
    fn now(&self) -> u64;

    /// Where a device finds the byte at `addr`, and how many bytes from there
    /// on follow each other for it. A page of 4 KiB (the 4,096 bytes from a
    /// multiple of 4,096 on) is always in one piece. `None` if it is no
    /// memory, or none that devices reach.
    ///
    /// With memory mapped one to one: `Some(Span { device: addr as u64, len:
    /// END - addr })` for what lies in it.
    fn device_address(&self, addr: usize) -> Option<Span>;

    /// `pages` pages of 4 KiB of memory, in one piece for the processor and
    /// for devices, on a page boundary. `None` if there is not so much left.
    ///
    /// [`Arena::alloc`](crate::Arena::alloc) does this. Where DMA is not
    /// coherent, it is memory that is not cached.
    fn alloc(&self, pages: usize) -> Option<NonNull<u8>>;

    /// Takes back what [`alloc`](Self::alloc) gave.
    ///
    /// # Safety
    /// From this instance, as many pages, and nobody uses it any more.
    unsafe fn free(&self, memory: NonNull<u8>, pages: usize);

    /// Where the processor finds `len` bytes of device registers at a physical
    /// address (of a BAR, of configuration space). `None` if it does not.
    ///
    /// Called once a window, when a device is found. Neither need lie on a
    /// page.
    fn registers(&self, physical: u64, len: usize) -> Option<NonNull<u8>>;

    /// Lets the core sleep while `still` says that there is nothing to do, not
    /// much longer than until `deadline` on [`now`](Self::now)'s scale. It may
    /// come back at any time: whoever sleeps looks again.
    ///
    /// No interrupt may be lost between the look and the sleep:
    ///
    /// 1. turn the core's interrupts off;
    /// 2. if `still()` is false, go to 4;
    /// 3. set the core's timer to the deadline, if there is one, and sleep by
    ///    the instruction that ends on an interrupt which came after step 1:
    ///    `sti; hlt` in this order on x86_64, `wfi` on aarch64 and riscv64;
    /// 4. turn interrupts on, as they were.
    ///
    /// Without a timer, come back at once where there is a deadline. The
    /// default never sleeps.
    fn sleep(&self, deadline: Option<u64>, still: &dyn Fn() -> bool) {
        let _ = deadline;
        if still() {
            spin_loop();
        }
    }

    /// Ends the [`sleep`](Self::sleep) of every other core that is in it or
    /// between its steps 1 and 3 (by an interprocessor interrupt), after what
    /// this core has written so far can be seen there. Comes from interrupt
    /// handlers too. Needed where rings are shared between cores that sleep.
    fn wake(&self) {}

    /// Whether devices see what is in the processor's caches, and the other
    /// way round. If not, [`clean`](Self::clean) and
    /// [`invalidate`](Self::invalidate) are called around every transfer.
    const COHERENT: bool = true;

    /// Writes what the caches hold of this memory back.
    #[inline(always)]
    fn clean(&self, addr: usize, len: usize) {
        let _ = (addr, len);
    }

    /// Forgets what the caches hold of this memory, and what of it is newer
    /// than memory is written back before (its first and last line may be
    /// shared with something else).
    #[inline(always)]
    fn invalidate(&self, addr: usize, len: usize) {
        let _ = (addr, len);
    }
}

// SAFETY: the same answers.
unsafe impl<P: Platform> Platform for &P {
    #[inline(always)]
    fn now(&self) -> u64 {
        (**self).now()
    }

    #[inline(always)]
    fn device_address(&self, addr: usize) -> Option<Span> {
        (**self).device_address(addr)
    }

    fn alloc(&self, pages: usize) -> Option<NonNull<u8>> {
        (**self).alloc(pages)
    }

    unsafe fn free(&self, memory: NonNull<u8>, pages: usize) {
        // SAFETY: the caller's promise.
        unsafe { (**self).free(memory, pages) }
    }

    fn registers(&self, physical: u64, len: usize) -> Option<NonNull<u8>> {
        (**self).registers(physical, len)
    }

    fn sleep(&self, deadline: Option<u64>, still: &dyn Fn() -> bool) {
        (**self).sleep(deadline, still);
    }

    fn wake(&self) {
        (**self).wake();
    }

    const COHERENT: bool = P::COHERENT;

    #[inline(always)]
    fn clean(&self, addr: usize, len: usize) {
        (**self).clean(addr, len);
    }

    #[inline(always)]
    fn invalidate(&self, addr: usize, len: usize) {
        (**self).invalidate(addr, len);
    }
}
