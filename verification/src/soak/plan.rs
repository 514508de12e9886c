//! What a lane is to be, as the seed draws it.

use std::fmt;
use std::time::Duration;

use annulus_linux::Ring;

use crate::kernel::rng::Rng;

/// Who drives the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Inline,
    Polled { idle: u32 },
    Served,
}

/// What a lane is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In the names of its files; the lowest byte is free for their own.
    pub number: u32,
    pub mode: Mode,
    pub entries: u32,
    pub cq_entries: u32,
    pub requests: u32,
    pub submit_all: bool,
    /// No worker can be made.
    pub workerless: bool,
    /// Entries that wait for all before them; otherwise some that say nothing.
    pub drains: bool,
    /// Groups in flight.
    pub depth: usize,
    /// Of a hundred turns, so many take no completions.
    pub lazy: u64,
    pub time: Duration,
    /// The ring is ended with everything in flight.
    pub abandons: bool,
    /// How long nothing may come.
    pub patience: Duration,
}

impl Plan {
    /// One that `rng` draws, the `n`th of a round.
    pub fn draw(rng: &mut Rng, number: u32, n: u64, patience: Duration) -> Self {
        let entries = 1 << rng.range(3, 7);
        let mode = match n % 3 {
            0 => Mode::Inline,
            1 => Mode::Polled { idle: rng.range(1, 50) as u32 },
            _ => Mode::Served,
        };
        let cq_entries = if rng.chance(50) { entries } else { 2 * entries };
        let few = rng.chance(30);
        Self {
            number,
            mode,
            entries,
            cq_entries,
            requests: if few { rng.range(4, 12) as u32 } else { 128 },
            submit_all: rng.chance(50),
            workerless: rng.chance(12),
            drains: rng.chance(30),
            depth: rng.range(1, 40) as usize,
            lazy: if rng.chance(30) { 60 } else { 0 },
            time: Duration::from_millis(rng.range(100, 1500)),
            abandons: rng.chance(15),
            patience,
        }
    }

    /// Such a ring.
    ///
    /// # Errors
    /// Why it could not be had.
    pub fn ring(&self) -> Result<Ring, String> {
        let mut builder = Ring::builder();
        builder.setup_cqsize(self.cq_entries).requests(self.requests);
        match self.mode {
            Mode::Inline => {}
            Mode::Polled { idle } => drop(builder.setup_sqpoll(idle)),
            Mode::Served => drop(builder.setup_served()),
        }
        if self.submit_all {
            builder.setup_submit_all();
        }
        if self.workerless {
            builder.max_workers(0, 0);
        }
        builder.build(self.entries).map_err(|e| format!("{self}: {e}"))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "lane {:#x} ({:?}, {} SQEs, {} CQEs, {} requests{})",
            self.number,
            self.mode,
            self.entries,
            self.cq_entries,
            self.requests,
            if self.workerless { ", no workers" } else { "" }
        )
    }
}
