//! The pattern of the power-cut workload, for whoever writes it and for the
//! host that checks what a cut has left.
//!
//! Epoch after epoch, some blocks are written and flushed, and only when the
//! flush is complete block 0 is told that the epoch is. Whatever epoch block 0
//! then tells of after a cut, the blocks of that epoch and of all before must
//! hold what they were given, or something later.
//!
//! Every sector of 512 bytes says by itself where it belongs: a medium may
//! tear a larger write between sectors.

/// The sectors that are never torn.
pub const SECTOR: usize = 512;
/// A block.
pub const BLOCK: usize = 4096;
/// Sectors in a block.
pub const SECTORS: u64 = (BLOCK / SECTOR) as u64;
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

/// What a sector says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When it was written.
    pub epoch: u64,
    /// Where.
    pub block: u64,
    /// Where in the block.
    pub sector: u64,
}

impl Plan {
    /// How many blocks an epoch writes besides block 0.
    #[must_use]
    pub fn count(&self) -> usize {
        self.writes.min(self.blocks - 1) as usize
    }

    /// Chooses the blocks that are written in `epoch`, each once: as many as
    /// there is room for, and [`count`](Self::count) is enough.
    pub fn choose(&self, epoch: u64, to: &mut [u64]) {
        let mut random = Random(self.seed ^ epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut chosen = 0;
        while chosen < to.len().min(self.count()) {
            let block = 1 + random.below(self.blocks - 1);
            if !to[..chosen].contains(&block) {
                to[chosen] = block;
                chosen += 1;
            }
        }
    }

    /// What `block` holds once `epoch` has written it.
    pub fn fill(&self, epoch: u64, block: u64, to: &mut [u8]) {
        for (sector, bytes) in (0..SECTORS).zip(to.chunks_exact_mut(SECTOR)) {
            self.fill_sector(Stamp { epoch, block, sector }, bytes);
        }
    }

    fn fill_sector(&self, stamp: Stamp, bytes: &mut [u8]) {
        let mut random =
            Random(self.seed ^ stamp.epoch ^ (stamp.block << 20) ^ (stamp.sector << 60));
        let header = [MAGIC, stamp.epoch, stamp.block, stamp.sector];
        let content = header.into_iter().chain(core::iter::from_fn(|| Some(random.next())));
        for (place, number) in bytes.chunks_exact_mut(8).zip(content) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32fast::hash(bytes).to_le_bytes();
        bytes[HEADER - 4..HEADER].copy_from_slice(&checksum);
    }

    /// What a sector says of itself, if it is one of the workload's and whole.
    #[must_use]
    pub fn stamp(bytes: &[u8]) -> Option<Stamp> {
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
}

/// A small generator (splitmix64): the same everywhere, for ever.
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

    #[test]
    fn an_epoch_writes_each_of_its_blocks_once_and_never_block_0() {
        for epoch in 1..=PLAN.epochs {
            let mut blocks = [0; PLAN.writes as usize];
            PLAN.choose(epoch, &mut blocks);
            blocks.sort_unstable();
            assert!(blocks.windows(2).all(|two| two[0] < two[1]));
            assert!(blocks.iter().all(|block| (1..PLAN.blocks).contains(block)));
        }
    }

    #[test]
    fn sectors_say_where_they_belong_while_they_are_whole() {
        let mut block = [0; BLOCK];
        PLAN.fill(7, 300, &mut block);
        for (sector, bytes) in (0..).zip(block.chunks_exact_mut(SECTOR)) {
            assert_eq!(Plan::stamp(bytes), Some(Stamp { epoch: 7, block: 300, sector }));
            bytes[400] ^= 1;
            assert_eq!(Plan::stamp(bytes), None);
        }
    }
}
