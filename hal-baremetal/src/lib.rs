//! Bare metal as a place for a ring.
//!
//! An image tells of its machine by a [`Platform`]: time, memory for devices,
//! where devices find memory, and how a core sleeps. [`Machine`] makes of it
//! what rings and drivers need. [`irq::Line`] leads from an interrupt handler
//! to whoever drives a ring; [`Window`] is a device's registers; [`Arena`]
//! gives out pages of a region. [`virtio`] drives virtio-blk disks.
//!
//! [`Spinning`] needs a clock and nothing else: with it and a
//! [`Backend`](annulus::hal::Backend) of one's own a ring runs in any `no_std`
//! image.
#![no_std]
#![deny(unsafe_code)]

#[allow(unsafe_code)] // the list of free pages, in the pages
mod arena;
pub mod fault;
pub mod irq;
#[allow(unsafe_code)] // memory and registers by the platform's word
mod machine;
#[cfg(feature = "nvme")]
#[allow(unsafe_code)] // passes memory on
mod nvme;
pub mod pci;
#[allow(unsafe_code)] // its contract
mod platform;
#[allow(unsafe_code)] // volatile accesses
mod registers;
#[allow(unsafe_code)] // passes memory on
mod removable;
#[allow(unsafe_code)] // memory shared with a device
pub mod virtio;

pub use arena::Arena;
#[cfg(not(loom))]
pub use arena::Pages;
pub use machine::{Machine, Mapped};
#[cfg(feature = "nvme")]
pub use nvme::NvmeFunction;
pub use platform::Platform;
pub use registers::{Registers, Window};
pub use removable::Removable;

use annulus::hal::{Clock, Host, Park, Parked};
use annulus::sync::{AtomicU32, Ordering, spin_loop};

/// A host that waits by spinning, over the image's own clock.
///
/// For a core of its own (the SQPOLL poller of a unikernel), and for an image
/// whose backend completes everything inside `enter`. It never sleeps and so
/// needs no interrupt.
#[derive(Clone, Copy, Debug)]
pub struct Spinning<C> {
    clock: C,
}

impl<C: Clock> Spinning<C> {
    /// A host over `clock`.
    pub const fn new(clock: C) -> Self {
        Self { clock }
    }
}

impl<C: Clock> Clock for Spinning<C> {
    fn now(&self) -> u64 {
        self.clock.now()
    }
}

impl<C: Clock> Park for Spinning<C> {
    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
        // Relaxed: the word carries no data; who parks looks again by itself.
        while word.load(Ordering::Relaxed) == expected {
            if deadline.is_some_and(|deadline| self.clock.now() >= deadline) {
                return Parked::TimedOut;
            }
            spin_loop();
        }
        Parked::Woken
    }

    fn unpark(&self, _word: &AtomicU32) {
        // The waker has changed the word; the spinning core sees it.
    }
}

impl<C: Clock> Host for Spinning<C> {}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    struct Ticks(std::sync::atomic::AtomicU64);

    impl Clock for Ticks {
        fn now(&self) -> u64 {
            self.0.fetch_add(1, Ordering::Relaxed)
        }
    }

    #[test]
    fn waits_end_by_the_word_and_by_the_clock() {
        let host = Spinning::new(Ticks(0.into()));
        let word = AtomicU32::new(1);
        assert_eq!(host.park(&word, 2, None), Parked::Woken, "changed before");
        assert_eq!(host.park(&word, 1, Some(50)), Parked::TimedOut);
        assert!(host.now() >= 50);
        std::thread::scope(|scope| {
            scope.spawn(|| word.store(7, Ordering::Relaxed));
            assert_eq!(host.park(&word, 1, None), Parked::Woken);
        });
    }
}
