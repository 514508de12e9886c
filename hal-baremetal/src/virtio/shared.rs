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
//! each other, and the queue stands still.

use core::ptr::NonNull;

pub(super) use annulus::hal::device::barrier;

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

impl Word<u16> {
    #[inline(always)]
    pub fn load(self) -> u16 {
        // SAFETY: valid (`new`). Volatile, for the device may write it.
        u16::from_le(unsafe { self.0.read_volatile() })
    }

    #[inline(always)]
    pub fn store(self, value: u16) {
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

/// Whether an index that goes from `old` to `new` passes `event`: whoever set
/// it wants to hear of the entry at that place (section 2.7.10). Free-running
/// 16-bit indices, so right across their wrap.
#[inline(always)]
pub(super) fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
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
