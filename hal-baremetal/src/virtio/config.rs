//! What a disk says of itself (section 5.2.4).

use annulus::fault::{self, Fault};

use super::spec::{SECTOR, feature};
use super::{Error, Transport};

const CAPACITY: usize = 0;
const SIZE_MAX: usize = 8;
const SEG_MAX: usize = 12;
const BLK_SIZE: usize = 20;
const TOPOLOGY: usize = 24;
const WRITEBACK: usize = 32;
const NUM_QUEUES: usize = 34;
const MAX_DISCARD: usize = 36;
const DISCARD_ALIGNMENT: usize = 44;
const MAX_ZEROES: usize = 48;
const ZEROES_UNMAP: usize = 56;

/// How often the configuration is read anew when it changes meanwhile.
const TRIES: u32 = 64;
/// The largest block: more does not fit a bounce buffer of the default length.
const MOST_BLOCK: u32 = 64 << 10;

/// What a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskInfo {
    /// Its capacity in bytes, in whole blocks.
    pub bytes: u64,
    /// Bytes of a block: positions and lengths are multiples of it.
    pub block: u32,
    /// Bytes of a physical block, which it writes without reading first.
    pub physical_block: u32,
    /// Where the first physical block begins, in bytes.
    pub alignment_offset: u32,
    /// Bytes of the smallest transfer that is done well; 0 if it does not say.
    pub min_io: u32,
    /// Bytes of the best one; 0 if it does not say.
    pub opt_io: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// It has a volatile cache, so that FSYNC has something to do.
    pub write_cache: bool,
    /// The most bytes of one discard; 0 if it has none.
    pub max_discard: u64,
    /// The grid that discards are best on, in bytes.
    pub discard_alignment: u32,
    /// The most bytes of one range to zero; 0 if it has no such request.
    pub max_zeroes: u64,
    /// What is zeroed may be deallocated.
    pub zeroes_unmap: bool,
    /// The most pieces of memory in a request.
    pub segments: u32,
    /// The most bytes of each.
    pub segment_bytes: u32,
    /// Queues it has.
    pub queues: u16,
}

/// The fields that the features say are there.
struct Fields<'a, T> {
    transport: &'a T,
    features: u64,
}

impl<T: Transport> Fields<'_, T> {
    fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// That the window has room for a field.
    fn holds(&self, end: usize) -> Result<(), Error> {
        match self.transport.config_len() {
            have if have < end => {
                Err(Error::Window { what: "the disk's configuration", have, need: end })
            }
            _ => Ok(()),
        }
    }

    fn word(&self, feature: u64, offset: usize) -> Result<Option<u32>, Error> {
        if !self.has(feature) {
            return Ok(None);
        }
        self.holds(offset + 4)?;
        Ok(Some(self.transport.config32(offset)))
    }

    fn half(&self, feature: u64, offset: usize) -> Result<Option<u16>, Error> {
        if !self.has(feature) {
            return Ok(None);
        }
        self.holds(offset + 2)?;
        Ok(Some(self.transport.config16(offset)))
    }

    fn byte(&self, feature: u64, offset: usize) -> Result<Option<u8>, Error> {
        if !self.has(feature) {
            return Ok(None);
        }
        self.holds(offset + 1)?;
        Ok(Some(self.transport.config8(offset)))
    }

    fn read(&self) -> Result<DiskInfo, Error> {
        let wrong = |why| Err(Error::Config { why });
        self.holds(CAPACITY + 8)?;
        let low = self.transport.config32(CAPACITY);
        let high = self.transport.config32(CAPACITY + 4);
        let sectors = u64::from(low) | u64::from(high) << 32;
        let block = self.word(feature::BLK_SIZE, BLK_SIZE)?.unwrap_or(SECTOR as u32);
        let good = block.is_power_of_two() && u64::from(block) >= SECTOR && block <= MOST_BLOCK;
        if !good && !fault::on(Fault::BlockSizeUnchecked) {
            return wrong("the block size is not a power of two from 512 to 65,536");
        }
        // As a file has them: below 2^63.
        let Some(bytes) = sectors.checked_mul(SECTOR).filter(|bytes| *bytes <= i64::MAX as u64)
        else {
            return wrong("the capacity is beyond 2^63 bytes");
        };
        let bytes = bytes & !(u64::from(block) - 1);
        if bytes == 0 {
            return wrong("the capacity is zero");
        }
        // As Linux does: one where the device does not say, or says none.
        let segments = self.word(feature::SEG_MAX, SEG_MAX)?.unwrap_or(1).max(1);
        let segment_bytes = self.word(feature::SIZE_MAX, SIZE_MAX)?.unwrap_or(u32::MAX);
        if u64::from(segments) * u64::from(segment_bytes) < u64::from(block) {
            return wrong("a block does not fit a request (SEG_MAX, SIZE_MAX)");
        }
        let exponent = self.byte(feature::TOPOLOGY, TOPOLOGY)?.unwrap_or(0);
        let offset = self.byte(feature::TOPOLOGY, TOPOLOGY + 1)?.unwrap_or(0);
        let min_io = self.half(feature::TOPOLOGY, TOPOLOGY + 2)?.unwrap_or(0);
        let opt_io = self.word(feature::TOPOLOGY, TOPOLOGY + 4)?.unwrap_or(0);
        // A device that can be told has its say; one that has a flush and
        // cannot be told has a cache (section 5.2.5).
        let flush = self.has(feature::FLUSH);
        let write_back = self.byte(feature::CONFIG_WCE, WRITEBACK)?.map_or(flush, |mode| mode != 0);
        // A limit of 0 is none.
        let limit = |sectors: Option<u32>| match sectors {
            None => 0,
            Some(0) => u64::from(u32::MAX) * SECTOR,
            Some(sectors) => u64::from(sectors) * SECTOR,
        };
        let whole = |bytes: u64| bytes & !(u64::from(block) - 1);
        let max_discard = whole(limit(self.word(feature::DISCARD, MAX_DISCARD)?));
        let alignment = self.word(feature::DISCARD, DISCARD_ALIGNMENT)?.unwrap_or(0);
        let max_zeroes = whole(limit(self.word(feature::WRITE_ZEROES, MAX_ZEROES)?));
        let unmap = self.byte(feature::WRITE_ZEROES, ZEROES_UNMAP)?.unwrap_or(0);
        let queues = self.half(feature::MQ, NUM_QUEUES)?.unwrap_or(1);
        if queues == 0 {
            return wrong("there are no queues (num_queues)");
        }
        Ok(DiskInfo {
            bytes,
            block,
            physical_block: block.checked_shl(exponent.into()).filter(|b| *b != 0).unwrap_or(block),
            alignment_offset: u32::from(offset).saturating_mul(block),
            min_io: u32::from(min_io).saturating_mul(block),
            opt_io: opt_io.saturating_mul(block),
            read_only: self.has(feature::RO),
            write_cache: flush && write_back,
            max_discard,
            discard_alignment: alignment.saturating_mul(SECTOR as u32).max(block),
            max_zeroes,
            zeroes_unmap: unmap != 0,
            segments,
            segment_bytes,
            queues,
        })
    }
}

/// What the disk says of itself, all of it at one time.
///
/// # Errors
/// Fields that cannot be right, or that do not hold still.
pub(super) fn read(transport: &impl Transport, features: u64) -> Result<DiskInfo, Error> {
    let fields = Fields { transport, features };
    for _ in 0..TRIES {
        let before = transport.config_generation();
        let info = fields.read();
        // What is torn between two versions may look wrong as well.
        if transport.config_generation() == before {
            return info;
        }
    }
    Err(Error::Config { why: "it changes all the time" })
}

/// Chooses the mode of the cache, where there is a choice: write back, or
/// write through.
pub(super) fn set_cache(
    transport: &impl Transport,
    features: u64,
    write_back: Option<bool>,
) -> Result<(), Error> {
    if features & feature::CONFIG_WCE == 0 {
        return Ok(());
    }
    Fields { transport, features }.holds(WRITEBACK + 1)?;
    // A cache that cannot be flushed is of no use.
    let flush = features & feature::FLUSH != 0;
    let wanted = if flush { write_back } else { Some(false) };
    if let Some(wanted) = wanted.filter(|wanted| (transport.config8(WRITEBACK) != 0) != *wanted) {
        transport.set_config8(WRITEBACK, wanted.into());
    }
    Ok(())
}
