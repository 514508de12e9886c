//! The log of writes that QEMU's `blklogwrites` keeps: the format of Linux's
//! dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst).
//!
//! A sector with a superblock, then for each entry a sector that says what it
//! is, and behind it the data. All numbers are little-endian.

use std::ops::Range;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
/// The flags of entries.
pub const FLUSH: u64 = 1;
pub const FUA: u64 = 2;
pub const DISCARD: u64 = 4;
const MARK: u64 = 8;
/// QEMU's, unless it is told otherwise; it writes the superblock at the first
/// flush, and there may be none.
const SECTOR: usize = 512;

/// A log.
#[derive(Debug)]
pub struct Log {
    bytes: Vec<u8>,
    /// Bytes in a sector.
    pub sector: usize,
    /// What happened, in order.
    pub entries: Vec<Entry>,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub flags: u64,
    /// The first sector that it is about.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Where the data is.
    data: Range<usize>,
}

impl Log {
    /// Reads a log. What stands behind the superblock's count is read too: it
    /// happened after the last flush.
    ///
    /// # Errors
    /// It is none, or is cut short where it should not be.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        let (sector, counted) = match (number(&bytes, 0), number(&bytes, 8)) {
            (Some(MAGIC), Some(VERSION)) => {
                let sector = number(&bytes, 24).unwrap_or(0) as u32 as usize;
                (sector, number(&bytes, 16).unwrap_or(0))
            }
            (None | Some(0), _) => (SECTOR, 0),
            (magic, version) => {
                return Err(format!("not a log of writes: {magic:x?}, version {version:?}"));
            }
        };
        if !sector.is_power_of_two() || sector < SECTOR {
            return Err(format!("the log's sectors have {sector} bytes"));
        }
        let mut log = Self { bytes, sector, entries: Vec::new() };
        let mut at = sector;
        while let Some((entry, next)) = log.entry(at)? {
            log.entries.push(entry);
            at = next;
        }
        if (log.entries.len() as u64) < counted {
            let there = log.entries.len();
            return Err(format!("the log says it has {counted} entries, and {there} are there"));
        }
        Ok(log)
    }

    /// The entry at `at`, and where the next one is.
    fn entry(&self, at: usize) -> Result<Option<(Entry, usize)>, String> {
        let field = |n: usize| number(&self.bytes, at + 8 * n);
        let (Some(first), Some(count), Some(flags)) = (field(0), field(1), field(2)) else {
            return Ok(None);
        };
        if (first, count, flags) == (0, 0, 0) {
            // What was never written, in a file that is longer.
            return Ok(None);
        }
        if flags & !(FLUSH | FUA | DISCARD | MARK) != 0 {
            return Err(format!("the log's entry at byte {at} has unknown flags: {flags:#x}"));
        }
        let from = at + self.sector;
        let data = if flags & DISCARD == 0 { count as usize * self.sector } else { 0 };
        if from + data > self.bytes.len() {
            // It was being written when the machine ended.
            return Ok(None);
        }
        Ok(Some((Entry { flags, first, count, data: from..from + data }, from + data)))
    }

    /// The sectors of an entry, each with its data; none for a discard.
    pub fn sectors<'a>(
        &'a self,
        entry: &Entry,
    ) -> impl Iterator<Item = (u64, Option<&'a [u8]>)> + use<'a> {
        let data = &self.bytes[entry.data.clone()];
        let (first, size) = (entry.first, self.sector);
        (0..entry.count).map(move |n| {
            let at = n as usize * size;
            (first + n, data.get(at..at + size))
        })
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// Writes logs, for tests.
#[cfg(test)]
pub mod build {
    use super::*;

    fn sector(numbers: &[u64]) -> Vec<u8> {
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        bytes.resize(SECTOR, 0);
        bytes
    }

    /// A superblock.
    pub fn superblock(entries: u64) -> Vec<u8> {
        sector(&[MAGIC, VERSION, entries, SECTOR as u64])
    }

    /// An entry.
    pub fn entry(flags: u64, first: u64, count: u64, data: &[u8]) -> Vec<u8> {
        let mut bytes = sector(&[first, count, flags, 0]);
        bytes.extend(data);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_in_order_and_past_the_count() {
        let data = [[1; SECTOR], [2; SECTOR]].concat();
        let bytes = [
            build::superblock(2),
            build::entry(0, 8, 2, &data),
            build::entry(FLUSH, 0, 0, &[]),
            build::entry(DISCARD, 9, 1000, &[]),
            build::entry(FUA, 7, 1, &data[..SECTOR]),
            vec![0; 3 * SECTOR],
        ];
        let log = Log::parse(bytes.concat()).expect("a log");
        let flags: Vec<u64> = log.entries.iter().map(|entry| entry.flags).collect();
        assert_eq!(flags, [0, FLUSH, DISCARD, FUA]);
        let sectors: Vec<_> = log.sectors(&log.entries[0]).collect();
        assert_eq!(sectors, [(8, Some(&data[..SECTOR])), (9, Some(&data[SECTOR..]))]);
        assert_eq!(log.sectors(&log.entries[1]).count(), 0);
        assert!(log.sectors(&log.entries[2]).all(|(_, data)| data.is_none()));
    }

    #[test]
    fn a_log_without_a_flush_has_no_superblock() {
        let bytes = [vec![0; SECTOR], build::entry(0, 1, 1, &[3; SECTOR])].concat();
        assert_eq!(Log::parse(bytes).expect("a log").entries.len(), 1);
        assert!(Log::parse(Vec::new()).expect("a log").entries.is_empty());
    }

    #[test]
    fn what_is_no_log_or_too_short_is_refused() {
        assert!(Log::parse(vec![7; 2 * SECTOR]).is_err());
        let odd = [build::superblock(1), build::entry(64, 1, 1, &[0; SECTOR])].concat();
        assert!(Log::parse(odd).is_err_and(|why| why.contains("unknown flags")));
        let short = [build::superblock(1), build::entry(0, 1, 2, &[0; SECTOR])].concat();
        assert!(Log::parse(short).is_err_and(|why| why.contains("0 are there")));
    }
}
