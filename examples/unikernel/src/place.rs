//! The image as a place for rings: all that `annulus-baremetal` asks of it.

use core::ptr::NonNull;

use annulus::hal::device::Span;
use annulus::sync::{AtomicU32, Mutex, Ordering};
use annulus_baremetal::{Arena, Machine, Pages, Platform};

use crate::arch;

/// Pages for devices: queues, tables, what lists of pages need.
static PAGES: Pages<8192> = Pages::new();

/// What gives them out, once somebody asked.
static ARENA: Mutex<Option<Arena<'static>>> = Mutex::new(None);

/// How often a core slept.
static SLEEPS: AtomicU32 = AtomicU32::new(0);

/// The image. Memory is mapped one to one, and so devices have it too.
#[derive(Clone, Copy, Debug)]
pub struct Image;

/// As rings and drivers take it.
pub const MACHINE: Machine<Image> = Machine::new(Image);

/// How often a core has slept so far, and was woken.
pub fn sleeps() -> u32 {
    // Relaxed: a count.
    SLEEPS.load(Ordering::Relaxed)
}

/// Pages that devices could have.
pub fn free_pages() -> usize {
    with_arena(Arena::free_pages)
}

fn with_arena<R: Default>(f: impl FnOnce(&Arena<'static>) -> R) -> R {
    ARENA.with(|arena| {
        if arena.is_none() {
            *arena = PAGES.take();
        }
        arena.as_ref().map(f).unwrap_or_default()
    })
}

// SAFETY: addresses are the same for the processor and for devices, all below
// `memory_end` is memory, the arena's pages are the arena's alone, and
// `arch::registers` maps what it answers for ever.
unsafe impl Platform for Image {
    #[inline]
    fn now(&self) -> u64 {
        arch::now()
    }

    #[inline]
    fn device_address(&self, addr: usize) -> Option<Span> {
        let len = arch::memory_end().checked_sub(addr).filter(|len| *len != 0)?;
        Some(Span { device: addr as u64, len })
    }

    fn alloc(&self, pages: usize) -> Option<NonNull<u8>> {
        with_arena(|arena| arena.alloc(pages))
    }

    unsafe fn free(&self, memory: NonNull<u8>, pages: usize) {
        // SAFETY: the caller's promise.
        with_arena(|arena| unsafe { arena.free(memory, pages) });
    }

    fn registers(&self, physical: u64, len: usize) -> Option<NonNull<u8>> {
        arch::registers(physical, len)
    }

    fn sleep(&self, deadline: Option<u64>, still: &dyn Fn() -> bool) {
        let on = arch::interrupts_off();
        if still() {
            if deadline.is_some() {
                arch::set_alarm(deadline);
            }
            arch::wait();
            // Relaxed: a count.
            SLEEPS.fetch_add(1, Ordering::Relaxed);
            if deadline.is_some() {
                arch::set_alarm(None);
            }
            arch::interrupts_off();
        }
        if on {
            arch::interrupts_on();
        }
    }

    fn wake(&self) {
        arch::ipi();
    }
}
