//! Blocks that can prove what they are.
//!
//! A block carries its offset in the file, its generation (how often it was written) and a CRC-32
//! over all of it; the rest is a pattern that follows from the two. Read back, a block that is
//! damaged, from another place, or from an earlier write is told apart.

use std::fmt;

/// A block's first bytes.
const MAGIC: [u8; 8] = *b"ANNULUS1";

const OFFSET: usize = 8;
const GENERATION: usize = 16;
const BODY: usize = 24;
const CRC_BYTES: usize = 4;

/// The smallest block that holds the head, the checksum and some pattern.
pub const SMALLEST: u64 = 64;

/// A block that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset}: expected generation {expected}, found {found}")]
pub struct Mismatch {
    /// Where the block was read, in bytes from the start of the file.
    pub offset: u64,
    /// The generation that was written last.
    pub expected: u64,
    /// What is there instead.
    pub found: Found,
}

/// What a bad block holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No block of this program; its first bytes.
    Foreign([u8; 8]),
    /// A sound block that was written for another offset.
    Misplaced(u64),
    /// A sound block of this offset, but of another write.
    Stale(u64),
    /// Damaged: the checksum that it carries, and the one that its bytes give.
    Damaged {
        /// The checksum in the block.
        stored: u32,
        /// The checksum of the block's bytes.
        computed: u32,
    },
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign(head) => {
                write!(f, "bytes that are no block of this program (they start {head:02x?})")
            }
            Self::Misplaced(offset) => {
                write!(f, "the block of offset {offset} (a misdirected read or write)")
            }
            Self::Stale(generation) => {
                write!(f, "generation {generation} (a lost or reordered write)")
            }
            Self::Damaged { stored, computed } => {
                write!(f, "damaged bytes (checksum {computed:08x}, the block says {stored:08x})")
            }
        }
    }
}

fn word(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes"))
}

/// Makes `block` the block of this offset and generation.
pub fn stamp(block: &mut [u8], offset: u64, generation: u64) {
    let (content, crc) = block.split_at_mut(block.len() - CRC_BYTES);
    content[..OFFSET].copy_from_slice(&MAGIC);
    content[OFFSET..GENERATION].copy_from_slice(&offset.to_le_bytes());
    content[GENERATION..BODY].copy_from_slice(&generation.to_le_bytes());
    let mut pattern = (offset ^ generation.rotate_left(40)) | 1;
    for bytes in content[BODY..].chunks_mut(8) {
        pattern = pattern.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        bytes.copy_from_slice(&pattern.to_le_bytes()[..bytes.len()]);
    }
    crc.copy_from_slice(&crc32fast::hash(content).to_le_bytes());
}

/// Checks that `block` is the block of this offset and generation.
///
/// # Errors
/// What is there instead.
pub fn check(block: &[u8], offset: u64, generation: u64) -> Result<(), Mismatch> {
    let bad = |found| Err(Mismatch { offset, expected: generation, found });
    if block[..OFFSET] != MAGIC {
        return bad(Found::Foreign(block[..OFFSET].try_into().expect("eight bytes")));
    }
    // The checksum first: only a sound block can be believed about where it belongs.
    let (content, crc) = block.split_at(block.len() - CRC_BYTES);
    let stored = u32::from_le_bytes(crc.try_into().expect("four bytes"));
    let computed = crc32fast::hash(content);
    if stored != computed {
        return bad(Found::Damaged { stored, computed });
    }
    match (word(block, OFFSET), word(block, GENERATION)) {
        (there, _) if there != offset => bad(Found::Misplaced(there)),
        (_, there) if there != generation => bad(Found::Stale(there)),
        _ => Ok(()),
    }
}

/// What each block of the file should hold, and which are in use.
///
/// Two operations on one block at a time would leave open which content is right, so a block in
/// flight is never chosen again before it completes. Costs 9 bytes a block.
#[derive(Debug)]
pub struct Ledger {
    /// Generation by block; 0 is unknown (never written, or a write of it failed).
    generations: Vec<u64>,
    busy: Vec<bool>,
    free: usize,
}

impl Ledger {
    /// A file of this many blocks, of unknown content.
    pub fn new(blocks: usize) -> Self {
        Self { generations: vec![0; blocks], busy: vec![false; blocks], free: blocks }
    }

    /// Takes a block into use: `wanted`, or the next free one after it. None: all are in use.
    pub fn claim(&mut self, wanted: u64) -> Option<u64> {
        if self.free == 0 {
            return None;
        }
        let mut block = wanted as usize;
        while self.busy[block] {
            block = (block + 1) % self.busy.len();
        }
        self.busy[block] = true;
        self.free -= 1;
        Some(block as u64)
    }

    /// The generation that the block's next write carries.
    pub fn next_generation(&self, block: u64) -> u64 {
        self.generations[block as usize] + 1
    }

    /// The generation that a read must find; None: anything goes, a write of it failed.
    pub fn expected(&self, block: u64) -> Option<u64> {
        Some(self.generations[block as usize]).filter(|&generation| generation != 0)
    }

    /// The block is out of use; a write of it succeeded or left the content unknown.
    pub fn release(&mut self, block: u64, written: Option<bool>) {
        let generation = &mut self.generations[block as usize];
        match written {
            Some(true) => *generation += 1,
            Some(false) => *generation = 0,
            None => {}
        }
        self.busy[block as usize] = false;
        self.free += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_block_passes_at_any_size() {
        for size in [SMALLEST as usize, 65, 512, 4096, 4099] {
            let mut block = vec![0; size];
            stamp(&mut block, 12_288, 7);
            assert_eq!(check(&block, 12_288, 7), Ok(()));
        }
    }

    #[test]
    fn every_corrupted_bit_is_found() {
        let mut block = vec![0; 512];
        stamp(&mut block, 4096, 3);
        for bit in 0..512 * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            let found = check(&block, 4096, 3).unwrap_err().found;
            assert!(
                matches!(found, Found::Damaged { .. } | Found::Foreign(_)),
                "bit {bit}: {found:?}"
            );
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_block_of_another_place_or_time_is_told_apart() {
        let mut block = vec![0; 512];
        stamp(&mut block, 4096, 3);
        assert_eq!(check(&block, 0, 3).unwrap_err().found, Found::Misplaced(4096));
        assert_eq!(check(&block, 4096, 4).unwrap_err().found, Found::Stale(3));
        let message = check(&block, 4096, 4).unwrap_err().to_string();
        assert_eq!(
            message,
            "offset 4096: expected generation 4, found generation 3 (a lost or reordered write)"
        );
    }

    #[test]
    fn a_block_in_use_is_not_claimed_twice() {
        let mut ledger = Ledger::new(3);
        assert_eq!(ledger.claim(2), Some(2));
        assert_eq!(ledger.claim(2), Some(0));
        assert_eq!(ledger.claim(2), Some(1));
        assert_eq!(ledger.claim(2), None);
        ledger.release(0, Some(true));
        assert_eq!(ledger.expected(0), Some(1));
        assert_eq!(ledger.claim(2), Some(0));
        ledger.release(0, Some(false));
        assert_eq!(ledger.expected(0), None);
    }
}
