//! Power cuts: what a medium may hold after one, by its log, and whether
//! that is what the workload was promised.
//!
//! QEMU logs a write or a flush when it is complete and before the guest
//! hears of it. So what the guest was told to be written stands before a
//! flush that it asked for afterwards; and at any place in the log the power
//! may go. Then what stands before the last flush is there, and so are forced
//! writes (FUA). Of what was written since, each sector is there or not: a
//! medium may keep its cache in any order and tear a write between sectors.

mod log;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use annulus_guest::epoch::{self, PLAN, Plan, Random, SECTOR};

use log::{DISCARD, FLUSH, FUA, Log};

use crate::rungs::Found;

/// At each place of the log, so many choices of what the cache had written
/// back, besides nothing and everything.
const CHOICES: u64 = 3;
const SEED: u64 = 1;

/// What holds the sectors that were written.
type Sectors<'a> = HashMap<u64, Option<&'a [u8]>>;

/// What a replay has seen.
#[derive(Debug, Default, PartialEq, Eq)]
struct Replay {
    /// Media that were checked.
    media: u64,
    /// Places of the log where the power was cut.
    cuts: u64,
    /// Flushes among them.
    flushes: u64,
    /// Whatever else is lost, the epoch that is complete at the end.
    complete: u64,
}

/// The log at `path`, of a workload that flushed as it should: every cut
/// leaves what was promised.
///
/// # Errors
/// The first cut that does not.
pub fn holds(path: &Path) -> Found {
    let log = read(path)?;
    let replay = replay(&log, &PLAN, SEED)?;
    if (replay.complete, replay.flushes >= PLAN.epochs) != (PLAN.epochs, true) {
        return Err(format!("    the workload is not in the log: {replay:?}"));
    }
    let Replay { media, cuts, flushes, .. } = replay;
    Ok(format!("    {cuts} cuts, {flushes} of them at flushes: {media} media checked"))
}

/// The log at `path`, of a workload whose flushes were left out: some cut
/// must show that.
///
/// # Errors
/// None does.
pub fn caught(path: &Path) -> Found {
    let log = read(path)?;
    if (log.entries.len() as u64) < PLAN.epochs * PLAN.writes {
        return Err(format!("    the workload is not in the log: {} entries", log.entries.len()));
    }
    match replay(&log, &PLAN, SEED) {
        Ok(replay) => Err(format!("    NOT CAUGHT: {replay:?}")),
        Err(why) => Ok(format!("    caught: {}", why.trim_start())),
    }
}

fn read(path: &Path) -> Result<Log, String> {
    let failed = |e: &dyn std::fmt::Display| format!("    {}: {e}", path.display());
    let log = Log::parse(fs::read(path).map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
    if log.sector != SECTOR {
        return Err(failed(&format!("its sectors have {} bytes, not {SECTOR}", log.sector)));
    }
    Ok(log)
}

/// Cuts the power at every place of the log, and checks each medium that
/// this may leave.
fn replay(log: &Log, plan: &Plan, seed: u64) -> Result<Replay, String> {
    let mut random = Random(seed);
    let mut seen = Replay::default();
    let mut durable = Sectors::new();
    // Since the last flush, in order.
    let mut cached: Vec<(u64, Option<&[u8]>)> = Vec::new();
    for (n, entry) in log.entries.iter().enumerate() {
        let forced = entry.flags & FUA != 0;
        if entry.flags & FLUSH != 0 {
            durable.extend(cached.drain(..));
            seen.flushes += 1;
        }
        for (sector, data) in log.sectors(entry) {
            // A discarded sector may read as anything: as never written.
            let data = data.filter(|_| entry.flags & DISCARD == 0);
            if forced {
                cached.retain(|(other, _)| *other != sector);
                durable.insert(sector, data);
            } else {
                cached.push((sector, data));
            }
        }
        seen.cuts += 1;
        for choice in 0..CHOICES + 2 {
            let survived: Sectors = cached
                .iter()
                .filter(|_| match choice {
                    0 => false,
                    1 => true,
                    _ => random.below(2) == 0,
                })
                .copied()
                .collect();
            let there = |sector: u64| {
                survived.get(&sector).or_else(|| durable.get(&sector)).copied().flatten()
            };
            let complete = epoch::check(plan, there).map_err(|why| {
                let cached = cached.len();
                format!("    cut after entry {n} of the log, {cached} sectors in the cache: {why}")
            })?;
            if choice == 0 {
                seen.complete = complete;
            }
            seen.media += 1;
            if cached.is_empty() {
                // There is nothing to choose.
                break;
            }
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use annulus_guest::epoch::{BLOCK, Disk};

    use super::log::build;
    use super::*;

    const SMALL: Plan = Plan { seed: 3, blocks: 20, writes: 4, epochs: 6 };

    /// When a driver flushes.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Driver {
        Honest,
        Never,
        /// It says that the flush is complete, and then flushes.
        Late,
        /// It forces every write instead.
        Forces,
    }

    struct Recorder {
        driver: Driver,
        bytes: Vec<u8>,
        late: bool,
    }

    impl Disk for Recorder {
        fn write(&mut self, blocks: &[(u64, Vec<u8>)]) -> Result<(), String> {
            let flags = if self.driver == Driver::Forces { FUA } else { 0 };
            for (block, content) in blocks {
                self.bytes.extend(build::entry(flags, block * 8, (BLOCK / SECTOR) as u64, content));
            }
            if std::mem::take(&mut self.late) {
                self.bytes.extend(build::entry(FLUSH, 0, 0, &[]));
            }
            Ok(())
        }

        fn flush(&mut self) -> Result<(), String> {
            match self.driver {
                Driver::Honest => self.bytes.extend(build::entry(FLUSH, 0, 0, &[])),
                Driver::Late => self.late = true,
                Driver::Never | Driver::Forces => {}
            }
            Ok(())
        }
    }

    fn run(driver: Driver) -> Result<Replay, String> {
        let mut disk = Recorder { driver, bytes: build::superblock(0), late: false };
        epoch::write(&SMALL, &mut disk).expect("memory takes everything");
        replay(&Log::parse(disk.bytes).expect("a log"), &SMALL, 1)
    }

    #[test]
    fn an_honest_driver_loses_nothing_that_it_promised() {
        let replay = run(Driver::Honest).expect("nothing is lost");
        assert_eq!((replay.complete, replay.flushes), (6, 7));
        assert_eq!(replay.cuts, 6 * 6 + 1);
        let forced = run(Driver::Forces).expect("nothing is lost");
        assert_eq!((forced.complete, forced.flushes, forced.media), (6, 0, forced.cuts));
    }

    #[test]
    fn a_driver_that_does_not_flush_in_time_is_caught() {
        for driver in [Driver::Never, Driver::Late] {
            let why = run(driver).expect_err("it must be caught");
            assert!(why.contains("is complete, but sector"), "{why}");
        }
    }

    #[test]
    fn a_discard_that_nobody_asked_for_is_caught() {
        let mut disk = Recorder { driver: Driver::Honest, bytes: Vec::new(), late: false };
        disk.bytes.extend(build::superblock(0));
        epoch::write(&SMALL, &mut disk).expect("memory takes everything");
        disk.bytes.extend(build::entry(DISCARD, epoch::blocks_of(&SMALL, 6)[0] * 8, 8, &[]));
        let log = Log::parse(disk.bytes).expect("a log");
        assert!(replay(&log, &SMALL, 1).is_err_and(|why| why.contains("is complete, but")));
    }
}
