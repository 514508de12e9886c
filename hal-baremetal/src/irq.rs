//! From an interrupt handler to whoever drives a ring.

use annulus::hal::{Clock, Host, Park, Parked};
use annulus::sync::{AtomicU32, Ordering};

use crate::fault::{self, Fault};
use crate::{Machine, Platform};

/// The handler has run.
const RAISED: u32 = 1;
/// Somebody sleeps on the line, or is about to.
const ASLEEP: u32 = 2;

/// One interrupt, from its handler to the driver of a ring.
///
/// A `static`. The handler acknowledges the interrupt where that is needed,
/// calls [`raise`](Self::raise), and is done: it touches no queue and takes no
/// lock. The ring's host is [`Machine::with_interrupt`]. One line a ring: whoever
/// drives the ring takes what was raised.
///
/// # Why nothing is lost
///
/// ```text
///   handler                        driver
///   set RAISED (1)                 set ASLEEP (2)
///   ASLEEP was set: wake (3)       RAISED was set: do not sleep
///                                  interrupts off; RAISED is set: do not sleep (4)
///                                  sleep
/// ```
///
/// 1 and 2 are read-modify-writes of one word, so one comes first. If it is 1,
/// 2 finds RAISED. If it is 2, 1 finds ASLEEP, and 3 follows. On another core
/// it ends the driver's sleep; if it comes before the driver has turned its
/// interrupts off, 4 sees RAISED by [`Platform::wake`]'s promise. On the
/// driver's own core the handler ran before the interrupts went off, and 4
/// sees its own core's write, or runs when they come back on, which ends the
/// sleep.
///
/// Clearing the word (Acquire) after a sleep pairs with 1 (Release): what the
/// handler's core had seen of the device's writes when it set the bit, the
/// driver sees when it then looks at its queue. What comes later raises the
/// line again.
#[derive(Debug)]
pub struct Line {
    state: AtomicU32,
}

impl Line {
    /// A line that was not raised.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { state: AtomicU32::new(0) }
    }

    /// The same, as loom's atomics need it.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self { state: AtomicU32::new(0) }
    }

    /// Says that the device wants to be looked at. For interrupt handlers.
    pub fn raise<P: Platform>(&self, platform: &P) {
        // Release: pairs with `take`. See the type's text for the rest.
        let order = order(Fault::RaiseRelaxed, Ordering::Release);
        let before = match fault::on(Fault::RaiseTwoSteps) {
            false => self.state.fetch_or(RAISED, order),
            true => {
                // Relaxed: a fault.
                let before = self.state.load(Ordering::Relaxed);
                self.state.fetch_or(RAISED, order);
                before
            }
        };
        if before & ASLEEP != 0 && !fault::on(Fault::RaiseNoWake) {
            platform.wake();
        }
    }

    /// Whether it was raised since this was asked last.
    pub fn take(&self) -> bool {
        // Acquire: pairs with `raise`.
        self.state.swap(0, order(Fault::TakeRelaxed, Ordering::Acquire)) & RAISED != 0
    }

    /// Announces a sleeper. False if there is no reason to sleep.
    fn announce(&self) -> bool {
        // Relaxed: only the order of the two bits matters here, and `take`
        // follows before anything else is looked at.
        if fault::on(Fault::SleepUnannounced) {
            return !self.raised();
        }
        self.state.fetch_or(ASLEEP, Ordering::Relaxed) & RAISED == 0
    }

    fn raised(&self) -> bool {
        // Relaxed: as above.
        self.state.load(Ordering::Relaxed) & RAISED != 0
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

/// `order`, or Relaxed when `fault` is switched on.
#[inline(always)]
fn order(fault: Fault, order: Ordering) -> Ordering {
    if fault::on(fault) { Ordering::Relaxed } else { order }
}

/// The host of a ring whose device has an interrupt: whoever drives the ring
/// is woken by it too. Made by [`Machine::with_interrupt`].
#[derive(Clone, Copy, Debug)]
pub struct InterruptHost<'l, P> {
    machine: Machine<P>,
    line: &'l Line,
}

impl<P: Platform> Machine<P> {
    /// This machine as the host of a ring that `line` tells of completions.
    pub const fn with_interrupt(self, line: &Line) -> InterruptHost<'_, P> {
        InterruptHost { machine: self, line }
    }
}

impl<P: Platform> Clock for InterruptHost<'_, P> {
    fn now(&self) -> u64 {
        self.machine.now()
    }
}

impl<P: Platform> Park for InterruptHost<'_, P> {
    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
        self.machine.park(word, expected, deadline)
    }

    fn unpark(&self, word: &AtomicU32) {
        self.machine.unpark(word);
    }
}

impl<P: Platform> Host for InterruptHost<'_, P> {
    fn sleep(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
        let asleep = || fault::on(Fault::SleepNoSecondLook) || !self.line.raised();
        let ended = match self.line.announce() {
            true => self.machine.sleep_while(word, expected, deadline, asleep),
            false => Parked::Woken,
        };
        match self.line.take() {
            true => Parked::Woken,
            false => ended,
        }
    }
}
