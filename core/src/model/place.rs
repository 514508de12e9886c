//! The place that models run in: memory, sleep, time.

use crate::engine::Memory;
use crate::hal::{Clock, Host, Park, Parked};
use crate::sync::AtomicU32;
use core::ptr::NonNull;
use loom::sync::{Condvar, Mutex};
use std::alloc::Layout;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Memory for one execution, given back at its end.
pub struct Arena {
    base: NonNull<u8>,
    layout: Layout,
}

impl Arena {
    /// So many bytes, on a multiple of 64.
    ///
    /// # Panics
    /// If there are none to be had.
    pub fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes, 64).unwrap();
        // SAFETY: no model asks for nothing.
        let base = unsafe { std::alloc::alloc(layout) };
        Self { base: NonNull::new(base).expect("memory"), layout }
    }

    /// Where it starts.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The memory, for a ring.
    ///
    /// # Safety
    /// Once only, and the arena outlives the ring.
    pub unsafe fn memory(&self) -> Memory<'static> {
        // SAFETY: the caller's promise.
        unsafe { Memory::from_raw(self.base, self.layout.size()) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: from `alloc`; a model joins its threads before.
        unsafe { std::alloc::dealloc(self.base.as_ptr(), self.layout) }
    }
}

/// Looks in one sleep that watches its word, before it insists on fairness.
const FAIR: u32 = 3;

/// How many words of a model are slept on.
const BEDS: usize = 4;

/// A futex: who finds the word changed does not sleep, and a wake-up wakes
/// who sleeps on the same word, nobody else. There is no other way to wake, so
/// that a lost wake-up is a deadlock.
///
/// Its lock orders what the waker did before what the sleeper does next, and
/// the contract of `Park` promises no such thing. [`Place::unordered`] sleeps
/// by watching the word, and orders nothing.
pub struct Place {
    /// Which word each bed is for.
    words: Mutex<[usize; BEDS]>,
    beds: [Condvar; BEDS],
    /// Whether a sleep with a deadline runs out at once.
    hasty: bool,
    /// Whether sleepers watch their word.
    unordered: bool,
    now: AtomicU64,
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// A place where deadlines do not pass.
    pub fn new() -> Self {
        Self {
            words: Mutex::new([0; BEDS]),
            beds: std::array::from_fn(|_| Condvar::new()),
            hasty: false,
            unordered: false,
            now: AtomicU64::new(0),
        }
    }

    /// A place where every deadline has passed.
    pub fn hasty() -> Self {
        Self { hasty: true, ..Self::new() }
    }

    /// A place that orders nothing.
    pub fn unordered() -> Self {
        Self { unordered: true, ..Self::new() }
    }
}

fn bed(words: &mut [usize; BEDS], word: &AtomicU32) -> usize {
    let word = std::ptr::from_ref(word) as usize;
    let bed = words.iter().position(|&w| w == word || w == 0).expect("more words than beds");
    words[bed] = word;
    bed
}

impl Park for Place {
    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
        if self.unordered {
            let mut looks = 0;
            while word.load(crate::sync::Ordering::Relaxed) == expected {
                looks += 1;
                if looks == FAIR {
                    // From here on who has yielded least goes first, and no
                    // other order is tried: two sleepers that watch would
                    // otherwise take turns for ever, while the one that could
                    // wake them is never chosen.
                    loom::skip_branch();
                }
                loom::thread::yield_now();
            }
            return Parked::Woken;
        }
        let mut words = self.words.lock().unwrap();
        // Relaxed, as the contract says: the lock makes it one step with the
        // sleep towards an unpark.
        if word.load(crate::sync::Ordering::Relaxed) != expected {
            return Parked::Woken;
        }
        if self.hasty && deadline.is_some() {
            return Parked::TimedOut;
        }
        let bed = bed(&mut words, word);
        drop(self.beds[bed].wait(words).unwrap());
        Parked::Woken
    }

    fn unpark(&self, word: &AtomicU32) {
        if self.unordered {
            return;
        }
        let mut words = self.words.lock().unwrap();
        let bed = bed(&mut words, word);
        self.beds[bed].notify_all();
    }
}

impl Clock for Place {
    /// Every look is an hour later than the last.
    fn now(&self) -> u64 {
        self.now.fetch_add(3_600_000_000_000, Relaxed)
    }
}

impl Host for Place {}
