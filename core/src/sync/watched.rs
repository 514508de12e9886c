//! Loom's atomics, which know where they are used from and can be weakened
//! there: what `cargo verify loom` makes its table of atomic operations and its
//! mutations with.
//!
//! A place is the call's own: file, line and column. One run is one process, so
//! what is recorded and what is weakened is the process's; the words themselves
//! stay loom's.

use core::panic::Location;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release};
use std::collections::BTreeSet;
use std::format;
use std::string::String;
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

/// A directory. Each model that passes leaves a file of its name there: how
/// many milliseconds it took, and the places that it came by, a line each.
pub const SITES: &str = "ANNULUS_SITES";
/// What is weakened: `FILE:LINE:COLUMN HOW`, with HOW a [`Weaker`] in small
/// letters.
const WEAKENED: &str = "ANNULUS_WEAKENED";

/// What becomes of an operation's ordering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weaker {
    /// It orders nothing any more; a fence is not there.
    Relaxed,
    /// A read-modify-write acquires only.
    Acquire,
    /// A read-modify-write releases only.
    Release,
    /// A full fence is one that acquires and releases.
    AcqRel,
    /// A comparison that fails orders nothing.
    Failure,
}

/// What is weakened, and where.
struct Mutation {
    place: String,
    line: u32,
    how: Weaker,
}

/// The places, if somebody wants to know.
static SEEN: Mutex<BTreeSet<(&str, u32, u32)>> = Mutex::new(BTreeSet::new());
static RECORDING: AtomicBool = AtomicBool::new(false);
static BEGAN: OnceLock<Instant> = OnceLock::new();
static MUTATION: OnceLock<Mutation> = OnceLock::new();

/// Does from here on what the environment says.
///
/// # Panics
/// If it says something that means nothing.
pub fn begin() {
    BEGAN.get_or_init(Instant::now);
    RECORDING.store(std::env::var_os(SITES).is_some(), Relaxed);
    if let Ok(text) = std::env::var(WEAKENED) {
        let (place, how) = text.split_once(' ').expect("PLACE HOW");
        let line = place.rsplit(':').nth(1).and_then(|line| line.parse().ok());
        let how = match how {
            "relaxed" => Weaker::Relaxed,
            "acquire" => Weaker::Acquire,
            "release" => Weaker::Release,
            "acqrel" => Weaker::AcqRel,
            "failure" => Weaker::Failure,
            _ => panic!("{WEAKENED}: {how} is no way to weaken an operation"),
        };
        let line = line.expect("FILE:LINE:COLUMN");
        let _ = MUTATION.set(Mutation { place: place.into(), line, how });
    }
}

/// `model` has passed: writes down what it came by, if that is wanted and
/// nothing was weakened.
///
/// # Panics
/// If it cannot be written.
pub fn passed(model: &str) {
    let Some(dir) = std::env::var_os(SITES) else { return };
    let seen = SEEN.lock().expect("nobody panicked with it");
    let took = BEGAN.get().map_or(0, |began| began.elapsed().as_millis());
    let lines: String =
        seen.iter().map(|(file, line, column)| format!("{file}:{line}:{column}\n")).collect();
    let path = std::path::Path::new(&dir).join(model);
    std::fs::write(&path, format!("{took}\n{lines}"))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// The orderings at this place: of success, and of failure.
fn at(place: &'static Location<'static>, success: Ordering, failure: Ordering) -> [Ordering; 2] {
    if RECORDING.load(Relaxed) {
        let key = (place.file(), place.line(), place.column());
        SEEN.lock().expect("nobody panics with it").insert(key);
    }
    match MUTATION.get() {
        Some(mutation) if mutation.line == place.line() => mutation.apply(place, success, failure),
        _ => [success, failure],
    }
}

impl Mutation {
    fn apply(&self, place: &Location<'_>, success: Ordering, failure: Ordering) -> [Ordering; 2] {
        if self.place != format!("{}:{}:{}", place.file(), place.line(), place.column()) {
            return [success, failure];
        }
        match self.how {
            // A failure is never ordered more than a success was.
            Weaker::Relaxed => [Relaxed, Relaxed],
            Weaker::Acquire => [Acquire, failure],
            Weaker::Release => [Release, Relaxed],
            Weaker::AcqRel => [AcqRel, failure],
            Weaker::Failure => [success, Relaxed],
        }
    }
}

/// A fence.
#[track_caller]
pub fn fence(order: Ordering) {
    match at(Location::caller(), order, Relaxed)[0] {
        Relaxed => {}
        order => loom::sync::atomic::fence(order),
    }
}

/// Accesses with one ordering, and those with one for failure.
macro_rules! accesses {
    ($value:ty: $($(#[$about:meta])+ $name:ident($($arg:ident),*) -> $result:ty,)+) => {$(
        $(#[$about])+
        #[track_caller]
        pub fn $name(&self, $($arg: $value,)* order: Ordering) -> $result {
            self.0.$name($($arg,)* at(Location::caller(), order, Relaxed)[0])
        }
    )+};
    ($value:ty; $($(#[$about:meta])+ $name:ident,)+) => {$(
        $(#[$about])+
        #[track_caller]
        pub fn $name(
            &self,
            current: $value,
            new: $value,
            success: Ordering,
            failure: Ordering,
        ) -> Result<$value, $value> {
            let [success, failure] = at(Location::caller(), success, failure);
            self.0.$name(current, new, success, failure)
        }
    )+};
}

macro_rules! words {
    ($($name:ident $value:ty),+) => {$(
        /// As in [`core::sync::atomic`].
        #[derive(Debug, Default)]
        pub struct $name(loom::sync::atomic::$name);

        impl $name {
            /// With this value.
            #[track_caller]
            pub fn new(value: $value) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            accesses! { $value:
                /// Loads the value.
                load() -> $value,
                /// Stores a value.
                store(value) -> (),
                /// Stores a value, and answers the one before.
                swap(value) -> $value,
                /// Adds, and answers the value before.
                fetch_add(value) -> $value,
                /// Sets bits, and answers the value before.
                fetch_or(value) -> $value,
                /// Clears the bits that `value` has not, and answers the value before.
                fetch_and(value) -> $value,
            }

            accesses! { $value;
                /// Stores `new` if the value is `current`.
                ///
                /// # Errors
                /// The value, if it is another.
                compare_exchange,
                /// The same, and may fail for no reason.
                ///
                /// # Errors
                /// The value.
                compare_exchange_weak,
            }
        }
    )+};
}

words!(AtomicU32 u32, AtomicUsize usize);
