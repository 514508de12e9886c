//! The power-cut workload ([`annulus_unikernel::epoch`]), for the guest that
//! writes it and for the host that checks what a cut has left.

use std::collections::BTreeMap;

pub use annulus_unikernel::epoch::{BLOCK, PLAN, Plan, Random, SECTOR};
use annulus_unikernel::epoch::{SECTORS, Stamp};

/// Something that the workload can be written to.
pub trait Disk {
    /// Writes the blocks; all have been answered when it returns.
    ///
    /// # Errors
    /// What went wrong.
    fn write(&mut self, blocks: &[(u64, Vec<u8>)]) -> Result<(), String>;

    /// Makes durable what was written; it is when it returns.
    ///
    /// # Errors
    /// What went wrong.
    fn flush(&mut self) -> Result<(), String>;
}

/// The blocks that are written in `epoch`, each once.
#[must_use]
pub fn blocks_of(plan: &Plan, epoch: u64) -> Vec<u64> {
    let mut blocks = vec![0; plan.count()];
    plan.choose(epoch, &mut blocks);
    blocks
}

/// Writes all epochs of the plan.
///
/// # Errors
/// The disk's.
pub fn write(plan: &Plan, disk: &mut dyn Disk) -> Result<(), String> {
    for epoch in 1..=plan.epochs {
        let blocks = blocks_of(plan, epoch);
        let blocks: Vec<_> = blocks.into_iter().map(|b| (b, content(plan, epoch, b))).collect();
        disk.write(&blocks)?;
        disk.flush()?;
        // Not before the flush is complete: this is what it promises.
        disk.write(&[(0, content(plan, epoch, 0))])?;
    }
    disk.flush()
}

/// What `block` holds once `epoch` has written it.
#[must_use]
pub fn content(plan: &Plan, epoch: u64, block: u64) -> Vec<u8> {
    let mut content = vec![0; BLOCK];
    plan.fill(epoch, block, &mut content);
    content
}

/// Checks a medium after a cut. `read` answers a sector's bytes, or
/// nothing for one that was never written. Says which epoch block 0
/// tells of, 0 for none.
///
/// # Errors
/// What is not there that should be.
pub fn check<'a>(plan: &Plan, read: impl Fn(u64) -> Option<&'a [u8]>) -> Result<u64, String> {
    let complete = match read(0) {
        None => return Ok(0),
        Some(bytes) => match Plan::stamp(bytes) {
            Some(Stamp { epoch, block: 0, sector: 0 }) if epoch <= plan.epochs => epoch,
            other => return Err(format!("block 0 holds what nobody wrote there: {other:?}")),
        },
    };
    let mut last = BTreeMap::new();
    for epoch in 1..=complete {
        last.extend(blocks_of(plan, epoch).into_iter().map(|block| (block, epoch)));
    }
    for (block, epoch) in last {
        for sector in 0..SECTORS {
            let there = read(block * SECTORS + sector).and_then(Plan::stamp);
            let right = there.is_some_and(|stamp| {
                (stamp.block, stamp.sector) == (block, sector)
                    && (epoch..=plan.epochs).contains(&stamp.epoch)
            });
            if !right {
                return Err(format!(
                    "block 0 says that epoch {complete} is complete, but sector {sector} of \
                     block {block}, written in epoch {epoch}, holds {there:?}"
                ));
            }
        }
    }
    Ok(complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Plan = Plan { seed: 7, blocks: 40, writes: 6, epochs: 5 };

    #[derive(Default)]
    struct Memory {
        blocks: BTreeMap<u64, Vec<u8>>,
        flushes: u64,
    }

    impl Disk for Memory {
        fn write(&mut self, blocks: &[(u64, Vec<u8>)]) -> Result<(), String> {
            self.blocks.extend(blocks.iter().cloned());
            Ok(())
        }

        fn flush(&mut self) -> Result<(), String> {
            self.flushes += 1;
            Ok(())
        }
    }

    fn check(memory: &Memory) -> Result<u64, String> {
        super::check(&SMALL, |sector| {
            let at = (sector % SECTORS) as usize * SECTOR;
            memory.blocks.get(&(sector / SECTORS)).map(|block| &block[at..at + SECTOR])
        })
    }

    #[test]
    fn what_was_written_is_what_is_expected() {
        let mut memory = Memory::default();
        assert_eq!(check(&memory), Ok(0));
        write(&SMALL, &mut memory).expect("memory takes everything");
        assert_eq!((check(&memory), memory.flushes), (Ok(5), 6));
        // Something later than promised is right as well.
        memory.blocks.insert(0, content(&SMALL, 2, 0));
        assert_eq!(check(&memory), Ok(2));
    }

    #[test]
    fn what_is_missing_old_or_torn_is_found() {
        let mut whole = Memory::default();
        write(&SMALL, &mut whole).expect("memory takes everything");
        let block = blocks_of(&SMALL, 5)[0];
        let with = |content: Option<Vec<u8>>| {
            let mut memory = Memory { blocks: whole.blocks.clone(), flushes: 0 };
            memory.blocks.remove(&block);
            memory.blocks.extend(content.map(|content| (block, content)));
            check(&memory)
        };
        let mut torn = content(&SMALL, 5, block);
        torn[BLOCK - SECTOR..].copy_from_slice(&content(&SMALL, 4, block)[BLOCK - SECTOR..]);
        let mut flipped = content(&SMALL, 5, block);
        flipped[2000] ^= 1;
        assert_eq!(with(Some(content(&SMALL, 5, block))), Ok(5));
        for wrong in [None, Some(content(&SMALL, 4, block)), Some(torn), Some(flipped)] {
            assert!(with(wrong).is_err_and(|why| why.contains(&format!("block {block}"))));
        }
        let mut memory = Memory { blocks: whole.blocks.clone(), flushes: 0 };
        memory.blocks.insert(0, vec![1; BLOCK]);
        assert!(check(&memory).is_err());
    }
}
