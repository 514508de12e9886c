//! Sleeping and waking without losing a wake-up.
//!
//! The rule of the whole project, on both sides of every lane:
//!
//! ```text
//!   waker                          sleeper
//!   publish (SQE, return, ...)     announce (set SLEEPING)
//!   full fence                     full fence
//!   look for SLEEPING              look for what was published
//!   found: unpark                  found nothing: park
//! ```
//!
//! Of the two looks at least one sees the other side's write: the fences are
//! ordered one way or the other, and whoever's comes second sees everything
//! written before the first. A write barrier alone does not do (the fault of
//! seed 001, where NEED_WAKEUP could be set and the last SQE missed).

use crate::fault::{self, Fault};
use crate::hal::{Park, Parked};
use crate::sync::{AtomicU32, Ordering, fence};

const SLEEPING: u32 = 1;
const SEQUENCE: u32 = 2;

/// An event count: any number of sleepers, any number of wakers.
///
/// Bit 0 says that somebody sleeps or is about to; the rest is a sequence
/// that every effective wake-up moves, so that a sleeper between its second
/// look and its `park` finds the word changed and does not sleep.
#[derive(Debug)]
pub struct EventCount {
    word: AtomicU32,
}

/// What [`EventCount::prepare`] saw; good for one [`EventCount::wait`].
#[derive(Clone, Copy, Debug)]
pub struct Key(u32);

impl Default for EventCount {
    fn default() -> Self {
        Self::new()
    }
}

impl EventCount {
    /// Nobody sleeps.
    pub fn new() -> Self {
        Self { word: AtomicU32::new(0) }
    }

    /// Announces that the caller is about to sleep. It must then look again
    /// for what it waits for, and only if there is nothing call
    /// [`wait`](Self::wait). Not sleeping after all needs no undoing: it
    /// costs the next waker one superfluous unpark.
    pub fn prepare(&self) -> Key {
        // Relaxed: the fence below orders it before the caller's second look.
        let word = self.word.fetch_or(SLEEPING, Ordering::Relaxed) | SLEEPING;
        if !fault::on(Fault::SleepNoFence) {
            // Pairs with the fence in `notify`.
            fence(Ordering::SeqCst);
        }
        Key(word)
    }

    /// Sleeps until a [`notify`](Self::notify) after the key was made.
    pub fn wait<P: Park>(&self, park: &P, key: Key, deadline: Option<u64>) -> Parked {
        park.park(&self.word, key.0, deadline)
    }

    /// Wakes whoever sleeps, after the caller published what they wait for.
    #[inline]
    pub fn notify<P: Park>(&self, park: &P) {
        if !fault::on(Fault::WakeNoFence) {
            // Pairs with the fence in `prepare`.
            fence(Ordering::SeqCst);
        }
        self.notify_after_fence(park);
    }

    /// [`notify`](Self::notify) for a caller that has just made the full
    /// fence itself (one fence for several lanes).
    #[inline]
    pub fn notify_after_fence<P: Park>(&self, park: &P) {
        // Relaxed: ordered by the fence.
        if self.word.load(Ordering::Relaxed) & SLEEPING != 0 {
            self.unpark(park);
        }
    }

    /// Whether somebody sleeps or is about to. Only a dump asks.
    pub(crate) fn sleeping(&self) -> bool {
        // Relaxed: for the eye only.
        self.word.load(Ordering::Relaxed) & SLEEPING != 0
    }

    #[cold]
    fn unpark<P: Park>(&self, park: &P) {
        // Relaxed: the word carries no data. A sleeper that wakes and goes
        // back to `prepare` meets this change there by its RMW and fence, so
        // it sees what this waker published.
        let mut word = self.word.load(Ordering::Relaxed);
        while word & SLEEPING != 0 {
            let step = if fault::on(Fault::WakeNoSequence) { 0 } else { SEQUENCE };
            let awake = word.wrapping_add(step) & !SLEEPING;
            match self.word.compare_exchange_weak(word, awake, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => {
                    if !fault::on(Fault::WakeNoUnpark) {
                        park.unpark(&self.word);
                    }
                    return;
                }
                // Another waker (which unparks), or one more sleeper.
                Err(now) => word = now,
            }
        }
    }
}

/// Waits on `events` until `ready` says so; `None` when it did.
///
/// # Errors
/// The reason why the wait ended otherwise.
pub fn wait_until<P: Park>(
    events: &EventCount,
    park: &P,
    deadline: Option<u64>,
    mut ready: impl FnMut() -> bool,
) -> Result<(), Parked> {
    loop {
        if ready() {
            return Ok(());
        }
        let key = events.prepare();
        if !fault::on(Fault::SleepNoRecheck) && ready() {
            return Ok(());
        }
        match events.wait(park, key, deadline) {
            Parked::Woken => {}
            why => return if ready() { Ok(()) } else { Err(why) },
        }
    }
}
