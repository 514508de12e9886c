//! The place that the ring runs in: time passes by being looked at, and who
//! sleeps is woken by what others do, or not at all.

use std::cell::Cell;

use annulus::hal::{Clock, Host, OtherClock, Park, Parked};
use annulus::sync::{AtomicU32, Ordering};

use crate::world::{self, Sleep};

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
}

/// The time.
pub fn now() -> u64 {
    NOW.get()
}

/// Moves it.
pub fn set_now(now: u64) {
    NOW.set(now);
}

/// The host.
#[derive(Clone, Copy, Debug)]
pub struct Place;

impl Clock for Place {
    fn now(&self) -> u64 {
        NOW.set(NOW.get().saturating_add(1_000));
        NOW.get()
    }

    fn time(&self, clock: OtherClock) -> Option<u64> {
        (clock == OtherClock::Wall).then(|| NOW.get().saturating_add(1 << 40))
    }
}

impl Park for Place {
    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
        loop {
            if word.load(Ordering::Relaxed) != expected {
                return Parked::Woken;
            }
            match world::sleeps() {
                Sleep::GoesOn => {}
                Sleep::Ends => return Parked::Interrupted,
                Sleep::Lasts => match deadline {
                    Some(deadline) => {
                        set_now(now().max(deadline));
                        return Parked::TimedOut;
                    }
                    None => return Parked::Interrupted,
                },
            }
        }
    }

    fn unpark(&self, _: &AtomicU32) {}
}

impl Host for Place {}
