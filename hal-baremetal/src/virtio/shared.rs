//! Words of a queue that driver and device tell each other by, and what they
//! are for: progress, and when to be told of it.
//!
//! ```text
//!   driver                            device
//!   publish entries (index, flag)     write when it wants to be notified
//!   full barrier                      full barrier
//!   read the device's wish            look for entries, then sleep
//!   wished: notify
//! ```
//!
//! and the other way round for used entries, where the driver's wish is an
//! interrupt. Of the two looks at least one sees the other side's write, as
//! with two threads (`core/src/wake.rs`); a write barrier alone lets both miss
//! each other, and the queue stands still. [`show`], [`look`], [`ask`] and
//! [`any`] are the driver's lines of this; the loom model runs them against a
//! device that is a thread.

use core::ptr::NonNull;

#[cfg(not(loom))]
pub(super) use annulus::hal::device::barrier;

use crate::fault::{self, Fault};

/// As threads have them: the device is one.
#[cfg(loom)]
pub(super) mod barrier {
    use annulus::sync::{Ordering, fence};

    pub fn write() {
        // Pairs with the device's Acquire fence after its look at the index.
        fence(Ordering::Release);
    }

    pub fn read() {
        // Pairs with the device's Release fence before it stores its index.
        fence(Ordering::Acquire);
    }

    pub fn full() {
        // Pairs with the device's, between its wish and its look, or between
        // its index and its look at our wish.
        fence(Ordering::SeqCst);
    }
}

/// A word in memory that the device shares: read and written whole, volatile,
/// little-endian.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<T>(NonNull<T>);

impl<T> Word<T> {
    /// The word at `at`.
    ///
    /// # Safety
    /// Aligned, and valid for as long as this or a copy is used.
    pub const unsafe fn new(at: NonNull<u8>) -> Self {
        Self(at.cast())
    }
}

/// A word of 16 bits that one side writes and the other reads.
pub(super) trait Index: Copy {
    /// What it says.
    fn load(self) -> u16;

    /// Says something else.
    fn store(self, value: u16);
}

impl Index for Word<u16> {
    #[inline(always)]
    fn load(self) -> u16 {
        // SAFETY: valid (`new`). Volatile, for the device may write it.
        u16::from_le(unsafe { self.0.read_volatile() })
    }

    #[inline(always)]
    fn store(self, value: u16) {
        // SAFETY: as above; the device reads it.
        unsafe { self.0.write_volatile(value.to_le()) }
    }
}

impl Word<u32> {
    #[inline(always)]
    pub fn load(self) -> u32 {
        // SAFETY: as above.
        u32::from_le(unsafe { self.0.read_volatile() })
    }
}

/// Shows the device entries up to `new`. What it wishes for may be read then.
#[inline(always)]
pub(super) fn show(index: impl Index, new: u16) {
    if !fault::on(Fault::ShowUnordered) {
        // The device that sees the index sees the entries.
        barrier::write();
    }
    index.store(new);
    if !fault::on(Fault::ShowNoFence) {
        // Between our index and the device's wish.
        barrier::full();
    }
}

/// How far the device is, if that is further than `taken`; the entries up to
/// there may be read then.
#[inline(always)]
pub(super) fn look(index: impl Index, taken: u16) -> Option<u16> {
    let seen = index.load();
    if seen == taken {
        return None;
    }
    if !fault::on(Fault::LookUnordered) {
        // No entry is read before the index that says that it is there.
        barrier::read();
    }
    Some(seen)
}

/// Wishes for an interrupt, by a word that says so. Whoever wishes looks again
/// ([`any`]) before it sleeps.
#[inline(always)]
pub(super) fn ask(word: impl Index, wish: u16) {
    word.store(wish);
    if !fault::on(Fault::AskNoFence) {
        // Between our wish and the device's index.
        barrier::full();
    }
}

/// Whether the device is further than `taken`.
#[inline(always)]
pub(super) fn any(index: impl Index, taken: u16) -> bool {
    index.load() != taken && !fault::on(Fault::AskNoSecondLook)
}

/// Whether an index that goes from `old` to `new` passes `event`: whoever set
/// it wants to hear of the entry at that place (section 2.7.10). Free-running
/// 16-bit indices, so right across their wrap.
#[inline(always)]
pub(super) fn passed(event: u16, new: u16, old: u16) -> bool {
    let late = u16::from(fault::on(Fault::EventOneLate));
    new.wrapping_sub(event).wrapping_sub(1 + late) < new.wrapping_sub(old)
}

/// What the loom model reaches of this.
#[cfg(loom)]
pub mod model {
    use annulus::sync::{AtomicU32, Ordering};

    impl super::Index for &AtomicU32 {
        fn load(self) -> u16 {
            // Relaxed: a device's words are ordered by barriers alone.
            AtomicU32::load(self, Ordering::Relaxed) as u16
        }

        fn store(self, value: u16) {
            // Relaxed: as above.
            AtomicU32::store(self, value.into(), Ordering::Relaxed);
        }
    }

    /// The driver's half of a queue's indices.
    pub struct Driver<'a> {
        /// What it has made available.
        pub available: &'a AtomicU32,
        /// Where the device wants to be notified.
        pub avail_event: &'a AtomicU32,
        /// What the device has used.
        pub used: &'a AtomicU32,
        /// Where it wants to be interrupted.
        pub used_event: &'a AtomicU32,
    }

    impl Driver<'_> {
        /// Makes the entries from `old` to `new` available. Answers whether the
        /// device is to be notified.
        pub fn publish(&self, new: u16, old: u16) -> bool {
            super::show(self.available, new);
            super::passed(super::Index::load(self.avail_event), new, old)
        }

        /// How far the device is, if further than `taken`.
        pub fn look(&self, taken: u16) -> Option<u16> {
            super::look(self.used, taken)
        }

        /// Before a sleep: whether there is nothing, and an interrupt comes
        /// when there is.
        pub fn may_sleep(&self, taken: u16) -> bool {
            super::ask(self.used_event, taken);
            !super::any(self.used, taken)
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::passed;

    #[test]
    fn an_event_is_passed_by_the_entry_at_its_place() {
        for start in [0u16, 1, 100, u16::MAX - 2, u16::MAX] {
            let at = |add: i32| (i32::from(start) + add) as u16;
            // Entries 0, 1 and 2 from there on are published.
            for event in -3..6 {
                assert_eq!(passed(at(event), at(3), start), (0..3).contains(&event), "{event}");
            }
            assert!(!passed(start, start, start), "nothing was published");
        }
    }
}
