//! What an engine's rounds gave.

use hdrhistogram::Histogram;

use super::engine::Engine;
use super::pace::{Pace, histogram};
use super::plan::Plan;

/// One round's figures.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// Operations that completed.
    pub ops: u64,
    /// Operations a second.
    pub iops: f64,
    /// Latencies in nanoseconds below which 50 %, 99 % and 99.9 % of the operations stay.
    pub percentiles: [u64; 3],
}

/// An engine and what it has done so far.
pub struct Lane {
    /// The engine.
    pub engine: Box<dyn Engine>,
    /// Its clock.
    pub pace: Pace,
    /// Its depth, which may be less than the plan's.
    pub depth: u32,
    /// Its batch, which may be less than the plan's.
    pub batch: u32,
    /// Completions that it waits for at once.
    pub wait: u32,
    /// Its measured rounds.
    pub rounds: Vec<Round>,
    /// The latencies of all measured rounds.
    pub latencies: Histogram<u64>,
    /// Failed operations of all passes.
    pub errors: u64,
    /// What to tell about the first of them.
    pub first_error: Option<String>,
    elapsed_ns: u64,
}

impl Lane {
    /// An engine that has done nothing yet.
    pub fn new(engine: Box<dyn Engine>, plan: &Plan) -> Self {
        let (depth, batch) = engine.shape(plan.depth, plan.batch);
        Self {
            engine,
            // A slot number may be any below the next power of two.
            pace: Pace::new(plan.depth.next_power_of_two()),
            depth,
            batch,
            wait: plan.wait.min(depth),
            rounds: Vec::new(),
            latencies: histogram(),
            errors: 0,
            first_error: None,
            elapsed_ns: 0,
        }
    }

    /// The engine has nothing in flight any more: the round's time ends here.
    pub fn note_end(&mut self) {
        self.elapsed_ns = self.pace.elapsed_ns();
    }

    /// Keeps the figures of the round that ended.
    pub fn note_round(&mut self, ops: u64) {
        let latencies = &self.pace.latencies;
        self.rounds.push(Round {
            ops,
            iops: ops as f64 * 1e9 / self.elapsed_ns.max(1) as f64,
            percentiles: [0.5, 0.99, 0.999].map(|quantile| latencies.value_at_quantile(quantile)),
        });
        self.latencies.add(latencies).expect("equal bounds");
    }

    /// Operations of all measured rounds.
    pub fn ops(&self) -> u64 {
        self.rounds.iter().map(|round| round.ops).sum()
    }

    /// Operations a second: the median of the rounds.
    pub fn iops(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.iops).collect())
    }

    /// p50, p99 and p99.9 in microseconds: medians of the rounds' own.
    pub fn percentiles_us(&self) -> [f64; 3] {
        [0, 1, 2].map(|i| {
            median(self.rounds.iter().map(|round| round.percentiles[i] as f64 / 1000.0).collect())
        })
    }

    /// How many times faster than `other` this is: median, least and most of the rounds, each
    /// compared with the other's of the same turn. None: the other completed nothing.
    pub fn ratio(&self, other: &Self) -> Option<[f64; 3]> {
        let pairs = self.rounds.iter().zip(&other.rounds);
        let ratios: Vec<f64> =
            pairs.map(|(mine, theirs)| mine.iops / theirs.iops).filter(|r| r.is_finite()).collect();
        let least = ratios.iter().copied().reduce(f64::min)?;
        let most = ratios.iter().copied().reduce(f64::max)?;
        Some([median(ratios), least, most])
    }
}

/// The middle value; of an even number of values the lower middle one. 0 without values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![5.0]), 5.0);
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.0);
    }
}
