//! Comparing: criterion for each side alone, then both in short turns.

use criterion::{Criterion, Throughput};
use std::cell::Cell;
use std::time::Duration;

/// Turns of each side, for the ratio.
const TURNS: usize = 61;
/// How long one turn is meant to be.
const TURN: Duration = Duration::from_millis(2);

/// One way to do the work.
pub struct Side<'a> {
    name: &'static str,
    run: Box<dyn FnMut(u64) -> Duration + 'a>,
}

impl<'a> Side<'a> {
    /// `run` does that many rounds and says how long they took.
    pub fn new(name: &'static str, run: impl FnMut(u64) -> Duration + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }

    /// Rounds that take about a [`TURN`].
    fn calibrate(&mut self) -> u64 {
        let mut rounds = 1;
        loop {
            let took = (self.run)(rounds);
            if took >= TURN / 4 {
                let turns = TURN.as_secs_f64() / took.as_secs_f64();
                return ((rounds as f64 * turns) as u64).max(1);
            }
            rounds *= 2;
        }
    }
}

/// One comparison.
pub struct Work<'a> {
    pub name: &'static str,
    /// Operations a round.
    pub ops: u64,
    /// How many times as fast ours shall be.
    pub target: f64,
    pub ours: Vec<Side<'a>>,
    pub theirs: Vec<Side<'a>>,
}

struct Row {
    work: &'static str,
    ours: (&'static str, f64),
    theirs: (&'static str, f64),
    ratio: f64,
    target: f64,
}

/// The ratios of a run.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Measures `work`, if criterion was not told to leave it out.
    pub fn compare(&mut self, criterion: &mut Criterion, mut work: Work<'_>) {
        let ran = Cell::new(false);
        let mut group = criterion.benchmark_group(work.name);
        group.throughput(Throughput::Elements(work.ops));
        for side in work.ours.iter_mut().chain(&mut work.theirs) {
            group.bench_function(side.name, |bencher| {
                ran.set(true);
                bencher.iter_custom(|rounds| (side.run)(rounds));
            });
        }
        group.finish();
        // `cargo test --benches` wants to know that it runs, and no more.
        if ran.get() && std::env::args().any(|arg| arg == "--bench") {
            self.alternate(work);
        }
    }

    /// Every side in turn, again and again. What disturbs one turn disturbs
    /// its neighbours too, so the ratio is the median of each turn's ratio.
    fn alternate(&mut self, mut work: Work<'_>) {
        let ours = work.ours.len();
        let mut sides: Vec<_> = work.ours.iter_mut().chain(&mut work.theirs).collect();
        let rounds: Vec<u64> = sides.iter_mut().map(|side| side.calibrate()).collect();
        let mut took = vec![Vec::with_capacity(TURNS); sides.len()];
        for _ in 0..TURNS {
            for (i, side) in sides.iter_mut().enumerate() {
                let ns = (side.run)(rounds[i]).as_nanos() as f64;
                took[i].push(ns / (rounds[i] * work.ops) as f64);
            }
        }
        for a in 0..ours {
            for b in ours..sides.len() {
                self.rows.push(Row {
                    work: work.name,
                    ours: (sides[a].name, median(&took[a])),
                    theirs: (sides[b].name, median(&took[b])),
                    ratio: median(
                        &took[a].iter().zip(&took[b]).map(|(a, b)| b / a).collect::<Vec<_>>(),
                    ),
                    target: work.target,
                });
            }
        }
    }

    /// Writes the ratios as a table.
    pub fn print(&self) {
        if self.rows.is_empty() {
            return;
        }
        println!("\n| work | ours | ns | theirs | ns | ratio | target | |");
        println!("|---|---|---:|---|---:|---:|---:|---|");
        for row in &self.rows {
            println!(
                "| {} | {} | {:.1} | {} | {:.1} | {:.2} | {} | {} |",
                row.work,
                row.ours.0,
                row.ours.1,
                row.theirs.0,
                row.theirs.1,
                row.ratio,
                row.target,
                if row.ratio >= row.target { "met" } else { "missed" },
            );
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
