//! The one place that names atomics, cells, locks and loom.
//!
//! Everything else in the crate takes its shared state from here, so that
//! `--cfg loom` swaps every primitive for its model-checked twin at once.

#[cfg(loom)]
pub mod watched;

#[cfg(not(loom))]
mod imp {
    pub use core::hint::spin_loop;
    #[cfg(not(fuzzing))]
    pub use core::sync::atomic::AtomicU32;
    pub use core::sync::atomic::{AtomicUsize, Ordering, fence};

    #[cfg(fuzzing)]
    pub use super::peer::AtomicU32;

    /// A cell whose accesses the caller orders by an atomic next to it.
    ///
    /// The closures are loom's interface: under loom each one is checked for
    /// a concurrent conflicting access.
    #[derive(Debug)]
    #[repr(transparent)]
    pub struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        /// Wraps a value.
        pub const fn new(value: T) -> Self {
            Self(core::cell::UnsafeCell::new(value))
        }

        /// Hands a shared pointer to the value to `f`.
        #[inline(always)]
        pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        /// Hands an exclusive pointer to the value to `f`.
        #[inline(always)]
        pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }

    /// A lock for what is cold and short. No request takes it to start or to end,
    /// but those that change the table of registered files.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(spin::Mutex<T>);

    impl<T> Mutex<T> {
        /// Wraps a value.
        pub const fn new(value: T) -> Self {
            Self(spin::Mutex::new(value))
        }

        /// Runs `f` with the value, alone.
        pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
            f(&mut self.0.lock())
        }

        /// The same, if nobody else has it.
        pub fn try_with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
            self.0.try_lock().map(|mut value| f(&mut value))
        }
    }
}

/// Who else writes memory that is shared, with `--cfg fuzzing`: the fuzzer's
/// hostile application acts before every access to an atomic word, so also
/// between any two reads of an entry.
#[cfg(fuzzing)]
pub mod peer {
    use core::sync::atomic::{self, Ordering};

    static ACT: spin::Mutex<Option<fn()>> = spin::Mutex::new(None);

    /// From now on `act` is called before each access.
    pub fn set(act: fn()) {
        *ACT.lock() = Some(act);
    }

    /// The peer's turn.
    #[inline]
    pub fn act() {
        // In a line of its own: it is not locked meanwhile.
        let act = *ACT.lock();
        if let Some(act) = act {
            act();
        }
    }

    /// An atomic word that others may write before each access.
    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub struct AtomicU32(atomic::AtomicU32);

    macro_rules! accesses {
        ($($name:ident($($arg:ident: $of:ty),*) -> $result:ty,)+) => {
            $(
                /// As that of `core`.
                #[inline]
                pub fn $name(&self, $($arg: $of,)* order: Ordering) -> $result {
                    act();
                    self.0.$name($($arg,)* order)
                }
            )+
        };
        ($($name:ident),+) => {
            $(
                /// As that of `core`.
                #[inline]
                pub fn $name(
                    &self,
                    current: u32,
                    new: u32,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<u32, u32> {
                    act();
                    self.0.$name(current, new, success, failure)
                }
            )+
        };
    }

    impl AtomicU32 {
        /// As that of `core`.
        pub const fn new(value: u32) -> Self {
            Self(atomic::AtomicU32::new(value))
        }

        /// As that of `core`.
        pub fn get_mut(&mut self) -> &mut u32 {
            self.0.get_mut()
        }

        accesses! {
            load() -> u32,
            store(value: u32) -> (),
            swap(value: u32) -> u32,
            fetch_add(value: u32) -> u32,
            fetch_sub(value: u32) -> u32,
            fetch_and(value: u32) -> u32,
            fetch_or(value: u32) -> u32,
        }

        accesses!(compare_exchange, compare_exchange_weak);
    }
}

#[cfg(loom)]
mod imp {
    pub use super::watched::{AtomicU32, AtomicUsize, fence};
    pub use loom::cell::UnsafeCell;
    pub use loom::hint::spin_loop;
    pub use loom::sync::atomic::Ordering;

    /// A lock for what is cold and short.
    #[derive(Debug)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        /// Wraps a value.
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        /// Runs `f` with the value, alone.
        pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
            f(&mut self.0.lock().unwrap())
        }

        /// The same, if nobody else has it.
        pub fn try_with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
            self.0.try_lock().ok().map(|mut value| f(&mut value))
        }
    }
}

/// Looks at something that is only found by looking between two pauses. A model
/// has better to do.
const LOOKS: u32 = if cfg!(loom) { 1 } else { 32 };

/// Between two looks at what a device has done, of which `looks` counts.
///
/// A look takes as long as a pause by itself. A pause for each would be for the
/// good of the other half of a core only, and where a processor is emulated it
/// gives up its turn, and a lock that the device waits for.
#[inline]
pub(crate) fn rest(looks: &mut u32) {
    *looks = looks.wrapping_add(1);
    if looks.is_multiple_of(LOOKS) {
        spin_loop();
    }
}

/// For one word in memory that the application lays out, where no model's
/// twin would fit: the tail of a ring of provided buffers.
pub(crate) use core::sync::atomic::AtomicU16;
pub use imp::{AtomicU32, AtomicUsize, Mutex, Ordering, UnsafeCell, fence, spin_loop};

// Every word another thread or core can see is lock-free on every target we
// build for: an interrupt handler may touch it.
#[cfg(not(any(loom, target_has_atomic = "32")))]
compile_error!("annulus needs 32-bit atomics with compare-and-swap on this target");
