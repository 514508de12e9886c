//! Seeded faults: deliberate bugs that the loom models must catch.
//!
//! Without `--cfg loom` nothing of this exists in the code: [`on`] is a `const
//! false`.

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A deliberate bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Fault {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Fault {
            /// Every fault there is.
            pub const ALL: &'static [Fault] = &[$(Fault::$name,)+];

            /// Its name, as the models' options take it.
            pub const fn name(self) -> &'static str {
                match self { $(Fault::$name => stringify!($name),)+ }
            }
        }
    };
}

faults! {
    /// A handler raises a line without Release.
    RaiseRelaxed,
    /// A handler raises a line and wakes nobody.
    RaiseNoWake,
    /// A handler looks for a sleeper before it raises the line, not in one
    /// step with it.
    RaiseTwoSteps,
    /// A line is cleared without Acquire.
    TakeRelaxed,
    /// A driver does not announce that it sleeps on its line.
    SleepUnannounced,
    /// A driver does not look at its line when it can be interrupted no more.
    SleepNoSecondLook,
    /// A virtqueue's index is published before its entries.
    ShowUnordered,
    /// Between publishing and the look at the device's wish there is no full
    /// barrier.
    ShowNoFence,
    /// Used entries are read before the index that says that they are there.
    LookUnordered,
    /// Between the wish for an interrupt and the look at the device's index
    /// there is no full barrier.
    AskNoFence,
    /// Who has wished for an interrupt sleeps without looking again.
    AskNoSecondLook,
    /// An event counts as passed one entry too late.
    EventOneLate,
}

#[cfg(loom)]
mod switch {
    use super::Fault;
    // Never loom's: the switch is the experimenter's, not the model's.
    use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    static SELECTED: AtomicUsize = AtomicUsize::new(usize::MAX);

    /// Switches a fault on.
    pub fn select(fault: Fault) {
        SELECTED.store(fault as usize, Relaxed);
    }

    /// Whether `fault` is switched on.
    pub fn on(fault: Fault) -> bool {
        SELECTED.load(Relaxed) == fault as usize
    }
}

#[cfg(loom)]
pub use switch::{on, select};

/// Whether `fault` is switched on: never, in this build.
#[cfg(not(loom))]
#[inline(always)]
pub const fn on(_fault: Fault) -> bool {
    false
}
