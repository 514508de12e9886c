//! The pattern of the power-cut workload, for the guest that writes it and
//! for the host that checks what a cut has left.
//!
//! Epoch after epoch, the guest writes some blocks, flushes, and only when
//! the flush is complete notes in block 0 that the epoch is. Whatever epoch
//! block 0 then tells of after a cut, the blocks of that epoch and of all
//! before must hold what they were given, or something later.
//!
//! Every sector of 512 bytes says by itself where it belongs: a medium may
//! tear a larger write between sectors.

use std::collections::BTreeMap;

/// The sectors that are never torn.
pub const SECTOR: usize = 512;
/// A block.
pub const BLOCK: usize = 4096;
const SECTORS: u64 = (BLOCK / SECTOR) as u64;
/// "annulus!".
const MAGIC: u64 = u64::from_le_bytes(*b"annulus!");
/// The magic, epoch, block, sector and checksum.
const HEADER: usize = 32;

/// Which blocks are written in which epoch.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What the choice depends on.
    pub seed: u64,
    /// Blocks of the medium that are used, block 0 among them.
    pub blocks: u64,
    /// Blocks written in an epoch.
    pub writes: u64,
    /// How many epochs.
    pub epochs: u64,
}

/// The plan that the guest rung uses.
pub const PLAN: Plan = Plan { seed: 0x0061_6e6e_756c_7573, blocks: 512, writes: 24, epochs: 40 };

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

/// What a sector says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    epoch: u64,
    block: u64,
    sector: u64,
}

impl Plan {
    /// The blocks that are written in `epoch`, each once.
    #[must_use]
    pub fn blocks_of(&self, epoch: u64) -> Vec<u64> {
        let mut random = Random(self.seed ^ epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut blocks = Vec::new();
        while (blocks.len() as u64) < self.writes.min(self.blocks - 1) {
            let block = 1 + random.below(self.blocks - 1);
            if !blocks.contains(&block) {
                blocks.push(block);
            }
        }
        blocks
    }

    /// Writes all epochs.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, disk: &mut dyn Disk) -> Result<(), String> {
        for epoch in 1..=self.epochs {
            let blocks: Vec<_> =
                self.blocks_of(epoch).into_iter().map(|b| (b, self.content(epoch, b))).collect();
            disk.write(&blocks)?;
            disk.flush()?;
            // Not before the flush is complete: this is what it promises.
            disk.write(&[(0, self.content(epoch, 0))])?;
        }
        disk.flush()
    }

    /// What `block` holds once `epoch` has written it.
    #[must_use]
    pub fn content(&self, epoch: u64, block: u64) -> Vec<u8> {
        let sectors = (0..SECTORS).map(|sector| self.sector(Stamp { epoch, block, sector }));
        sectors.collect::<Vec<_>>().concat()
    }

    fn sector(&self, stamp: Stamp) -> Vec<u8> {
        let mut random =
            Random(self.seed ^ stamp.epoch ^ (stamp.block << 20) ^ (stamp.sector << 60));
        let mut bytes = Vec::with_capacity(SECTOR);
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend(stamp.epoch.to_le_bytes());
        bytes.extend(stamp.block.to_le_bytes());
        bytes.extend((stamp.sector as u32).to_le_bytes());
        bytes.extend([0; 4]);
        while bytes.len() < SECTOR {
            bytes.extend(random.next().to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes).to_le_bytes();
        bytes[HEADER - 4..HEADER].copy_from_slice(&checksum);
        bytes
    }

    /// What a sector says of itself, if it is one of the workload's and whole.
    fn stamp(bytes: &[u8]) -> Option<Stamp> {
        let number = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        if bytes.len() != SECTOR || number(0)? != MAGIC {
            return None;
        }
        let (sector, checksum) = (number(24)? & u64::from(u32::MAX), number(24)? >> 32);
        // As it was when the checksum was made: with none in it.
        let mut hasher = crc32fast::Hasher::new();
        for part in [&bytes[..HEADER - 4], &[0; 4], &bytes[HEADER..]] {
            hasher.update(part);
        }
        let whole = u64::from(hasher.finalize()) == checksum;
        whole.then_some(Stamp { epoch: number(8)?, block: number(16)?, sector })
    }

    /// Checks a medium after a cut. `read` answers a sector's bytes, or
    /// nothing for one that was never written. Says which epoch block 0
    /// tells of, 0 for none.
    ///
    /// # Errors
    /// What is not there that should be.
    pub fn check<'a>(&self, read: impl Fn(u64) -> Option<&'a [u8]>) -> Result<u64, String> {
        let complete = match read(0) {
            None => return Ok(0),
            Some(bytes) => match Self::stamp(bytes) {
                Some(Stamp { epoch, block: 0, sector: 0 }) if epoch <= self.epochs => epoch,
                other => return Err(format!("block 0 holds what nobody wrote there: {other:?}")),
            },
        };
        let mut last = BTreeMap::new();
        for epoch in 1..=complete {
            last.extend(self.blocks_of(epoch).into_iter().map(|block| (block, epoch)));
        }
        for (block, epoch) in last {
            for sector in 0..SECTORS {
                let there = read(block * SECTORS + sector).and_then(Self::stamp);
                let right = there.is_some_and(|stamp| {
                    (stamp.block, stamp.sector) == (block, sector)
                        && (epoch..=self.epochs).contains(&stamp.epoch)
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
}

/// A small generator (splitmix64): the same on both sides, for ever.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
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
        SMALL.check(|sector| {
            let at = (sector % SECTORS) as usize * SECTOR;
            memory.blocks.get(&(sector / SECTORS)).map(|block| &block[at..at + SECTOR])
        })
    }

    #[test]
    fn what_was_written_is_what_is_expected() {
        let mut memory = Memory::default();
        assert_eq!(check(&memory), Ok(0));
        SMALL.write(&mut memory).expect("memory takes everything");
        assert_eq!((check(&memory), memory.flushes), (Ok(5), 6));
        // Something later than promised is right as well.
        memory.blocks.insert(0, SMALL.content(2, 0));
        assert_eq!(check(&memory), Ok(2));
    }

    #[test]
    fn what_is_missing_old_or_torn_is_found() {
        let mut whole = Memory::default();
        SMALL.write(&mut whole).expect("memory takes everything");
        let block = SMALL.blocks_of(5)[0];
        let with = |content: Option<Vec<u8>>| {
            let mut memory = Memory { blocks: whole.blocks.clone(), flushes: 0 };
            memory.blocks.remove(&block);
            memory.blocks.extend(content.map(|content| (block, content)));
            check(&memory)
        };
        let mut torn = SMALL.content(5, block);
        torn[BLOCK - SECTOR..].copy_from_slice(&SMALL.content(4, block)[BLOCK - SECTOR..]);
        let mut flipped = SMALL.content(5, block);
        flipped[2000] ^= 1;
        assert_eq!(with(Some(SMALL.content(5, block))), Ok(5));
        for wrong in [None, Some(SMALL.content(4, block)), Some(torn), Some(flipped)] {
            assert!(with(wrong).is_err_and(|why| why.contains(&format!("block {block}"))));
        }
        let mut memory = Memory { blocks: whole.blocks.clone(), flushes: 0 };
        memory.blocks.insert(0, vec![1; BLOCK]);
        assert!(check(&memory).is_err());
    }

    #[test]
    fn an_epoch_writes_each_of_its_blocks_once_and_never_block_0() {
        for epoch in 1..=PLAN.epochs {
            let mut blocks = PLAN.blocks_of(epoch);
            blocks.sort_unstable();
            blocks.dedup();
            assert_eq!(blocks.len() as u64, PLAN.writes);
            assert!(blocks.iter().all(|block| (1..PLAN.blocks).contains(block)));
        }
    }
}
