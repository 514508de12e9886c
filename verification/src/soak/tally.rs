//! What was done, what was injected, and what has gone wrong.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

/// Problems that are kept in words; all are counted.
const KEPT: usize = 12;

/// The counts of a run, or of a part of it.
#[derive(Debug, Default)]
pub struct Tally {
    /// Operations that have ended and were judged.
    pub operations: u64,
    /// Bytes read and checked.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Injected faults that were answered as they must be, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Rings made and ended.
    pub rings: u64,
    /// Operations in flight when their ring was ended on purpose.
    pub abandoned: u64,
    /// Operations whose completion did not come.
    pub lost: u64,
    /// Completions that are wrong: a result, data, or one too many.
    pub wrong: u64,
    /// Requests that are still in use when nothing is in flight.
    pub slots: u64,
    /// What is lost or wrong, in words.
    pub problems: Vec<String>,
}

impl Tally {
    /// An injected fault was answered as it must be.
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Something is wrong.
    pub fn wrong(&mut self, why: String) {
        self.wrong += 1;
        self.tell(why);
    }

    /// Keeps words.
    pub fn tell(&mut self, why: String) {
        if self.problems.len() < KEPT {
            self.problems.push(why);
        }
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.read += other.read;
        self.written += other.written;
        for (kind, count) in other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.rings += other.rings;
        self.abandoned += other.abandoned;
        self.lost += other.lost;
        self.wrong += other.wrong;
        self.slots += other.slots;
        other.problems.into_iter().for_each(|why| self.tell(why));
    }

    /// How many faults were injected.
    pub fn injected(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Whether nothing is lost, wrong, or left.
    pub fn is_good(&self) -> bool {
        self.lost == 0 && self.wrong == 0 && self.slots == 0
    }

    /// For whoever started this process.
    pub fn json(&self) -> Value {
        json!({
            "operations": self.operations,
            "bytes": self.read + self.written,
            "faults": self.faults,
            "rings": self.rings,
            "abandoned": self.abandoned,
            "lost": self.lost,
            "wrong": self.wrong,
            "slots": self.slots,
        })
    }
}

/// A line for while it runs.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rings, {} operations, {} MiB, {} injected faults; lost {}, wrong {}, leaked slots {}",
            self.rings,
            self.operations,
            (self.read + self.written) >> 20,
            self.injected(),
            self.lost,
            self.wrong,
            self.slots
        )
    }
}
