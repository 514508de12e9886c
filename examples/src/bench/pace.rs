//! The clock of a round: how long it lasts, which operations are timed, and what was counted.
//!
//! Reading the clock costs about 25 ns, more than some of the operations that are measured. So one
//! operation in N is timed; N follows from the warm-up ([`Pace::calibrate`]) such that the two
//! readings cost under 1 % of N operations. N is odd: it visits every place of a batch, whose sizes
//! are mostly powers of two. The end of a round is noticed when a timed operation completes.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::stop;

/// Longer latencies are recorded as this many nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// N is at most this, so that an end of a round or Ctrl-C is noticed soon.
const SPARSEST: u32 = 4095;

/// The sampling of a warm-up, when the cost of an operation is not known yet.
const WARM_UP_INTERVAL: u32 = 63;

/// Times a round, and samples its latencies.
#[derive(Debug)]
pub struct Pace {
    epoch: Instant,
    interval: u32,
    until_sample: u32,
    /// When each slot's timed operation began, in nanoseconds since `epoch`.
    began: Vec<u64>,
    started: u64,
    deadline: u64,
    /// Latencies in nanoseconds of this round.
    pub latencies: Histogram<u64>,
}

/// A histogram for latencies in nanoseconds; it never grows, so recording never allocates.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("constant bounds are valid")
}

impl Pace {
    /// A clock for `slots` operations in flight.
    pub fn new(slots: u32) -> Self {
        Self {
            epoch: Instant::now(),
            interval: WARM_UP_INTERVAL,
            until_sample: WARM_UP_INTERVAL - 1,
            began: vec![0; slots as usize],
            started: 0,
            deadline: u64::MAX,
            latencies: histogram(),
        }
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Chooses how many operations share one timed one, from what an operation costs.
    pub fn calibrate(&mut self, ns_per_op: f64) {
        const READINGS: u32 = 1000;
        let before = Instant::now();
        for _ in 0..READINGS {
            std::hint::black_box(self.now());
        }
        let sample_ns = 2.0 * before.elapsed().as_nanos() as f64 / f64::from(READINGS);
        let interval = (sample_ns / (0.01 * ns_per_op.max(0.1))).ceil();
        self.interval = if interval <= 1.0 { 1 } else { (interval as u32).min(SPARSEST) | 1 };
    }

    /// How many operations share one timed one.
    pub fn interval(&self) -> u32 {
        self.interval
    }

    /// Starts a round of this length; without one it lasts until its work is done.
    pub fn start(&mut self, length: Option<Duration>) {
        self.latencies.reset();
        self.until_sample = self.interval - 1;
        self.started = self.now();
        self.deadline =
            length.map_or(u64::MAX, |length| self.started.saturating_add(length.as_nanos() as u64));
    }

    /// Nanoseconds since the round started.
    pub fn elapsed_ns(&self) -> u64 {
        self.now() - self.started
    }

    /// How many operations are started before the next timed one; 0: it is the next.
    #[inline(always)]
    pub fn due_in(&self) -> usize {
        self.until_sample as usize
    }

    /// Sets what [`due_in`](Self::due_in) says, after some operations were started.
    #[inline(always)]
    pub fn set_due_in(&mut self, operations: usize) {
        self.until_sample = operations as u32;
    }

    /// Notes the start of a timed operation; returns how many operations after it the next one is.
    #[inline(never)]
    pub fn begin(&mut self, slot: usize) -> usize {
        self.began[slot] = self.now();
        self.interval as usize
    }

    /// Notes the end of a timed operation. True: the round is over, start nothing more.
    #[inline(never)]
    pub fn completed(&mut self, slot: usize) -> bool {
        let now = self.now();
        self.latencies.saturating_record(now - self.began[slot]);
        now >= self.deadline || stop::asked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cheap_operations_are_timed_rarely_and_dear_ones_always() {
        let mut pace = Pace::new(1);
        pace.calibrate(1e9);
        assert_eq!(pace.interval(), 1);
        pace.calibrate(0.5);
        assert!(pace.interval() > 100 && pace.interval() % 2 == 1);
    }

    #[test]
    fn one_operation_in_interval_is_timed() {
        let mut pace = Pace::new(1);
        pace.start(None);
        let mut timed = 0;
        for _ in 0..630 {
            let due = pace.due_in();
            let next = if due == 0 { pace.begin(0) } else { due };
            timed += usize::from(due == 0);
            pace.set_due_in(next - 1);
        }
        assert_eq!(timed, 10);
    }

    #[test]
    fn a_round_ends_after_its_length() {
        let mut pace = Pace::new(1);
        pace.start(Some(Duration::ZERO));
        pace.calibrate(1e9);
        assert!(pace.completed(0));
        pace.start(None);
        assert!(!pace.completed(0));
        assert_eq!(pace.latencies.len(), 1);
    }
}
