//! Loom's atomics, with every order of a load and a store.
//!
//! Loom remembers of each atomic who accessed it last, and compares a store
//! with that access only. A thread that loads and then stores hides another
//! thread's load from its own store so, and that load is never tried after the
//! store (tokio-rs/loom, issues 166 and 392). Here each access first makes an
//! unordered read-modify-write of a second word. Those are all dependent on each
//! other, so both orders of any two accesses are tried; being relaxed, they
//! order nothing in the model itself. It costs executions: two loads are tried
//! in both orders, too.

use loom::sync::atomic::Ordering;

macro_rules! atomics {
    (@add $($name:ident $value:ty;)+) => {$(
        impl $name {
            /// Adds, and answers the value before.
            #[track_caller]
            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.word().fetch_add(value, order)
            }

            /// Subtracts, and answers the value before.
            #[track_caller]
            pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.word().fetch_sub(value, order)
            }
        }
    )+};
    ($($name:ident $value:ty;)+) => {$(
        /// As in [`core::sync::atomic`].
        #[derive(Debug)]
        pub struct $name {
            word: loom::sync::atomic::$name,
            turn: loom::sync::atomic::AtomicBool,
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new(<$value>::default())
            }
        }

        impl $name {
            /// With this value.
            pub fn new(value: $value) -> Self {
                let turn = loom::sync::atomic::AtomicBool::new(false);
                Self { word: loom::sync::atomic::$name::new(value), turn }
            }

            #[track_caller]
            fn word(&self) -> &loom::sync::atomic::$name {
                self.turn.swap(false, Ordering::Relaxed);
                &self.word
            }

            /// Loads the value.
            #[track_caller]
            pub fn load(&self, order: Ordering) -> $value {
                self.word().load(order)
            }

            /// Stores a value.
            #[track_caller]
            pub fn store(&self, value: $value, order: Ordering) {
                self.word().store(value, order);
            }

            /// Stores a value, and answers the one before.
            #[track_caller]
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                self.word().swap(value, order)
            }

            /// Stores `new` if the value is `current`.
            ///
            /// # Errors
            /// The value, if it is another.
            #[track_caller]
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.word().compare_exchange(current, new, success, failure)
            }

            /// The same, and it may fail for no reason (which loom does not
            /// try).
            ///
            /// # Errors
            /// As above.
            #[track_caller]
            pub fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.word().compare_exchange_weak(current, new, success, failure)
            }

            /// Ands bits, and answers the value before.
            #[track_caller]
            pub fn fetch_and(&self, bits: $value, order: Ordering) -> $value {
                self.word().fetch_and(bits, order)
            }

            /// Ors bits, and answers the value before.
            #[track_caller]
            pub fn fetch_or(&self, bits: $value, order: Ordering) -> $value {
                self.word().fetch_or(bits, order)
            }
        }
    )+};
}

atomics! {
    AtomicBool bool;
    AtomicU32 u32;
    AtomicU64 u64;
    AtomicUsize usize;
}

atomics! {
    @add
    AtomicU32 u32;
    AtomicU64 u64;
    AtomicUsize usize;
}
