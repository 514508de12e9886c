//! Where a file has data and where it has holes.

use std::fs::File;
use std::ops::Range;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// A piece of data or of a hole, no longer than a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Bytes; not 0.
    pub len: u32,
    /// There is nothing but zeroes.
    pub hole: bool,
}

/// What becomes of a file's holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holes {
    /// They are passed over.
    Skipped,
    /// They are chunks of their own. Every chunk starts at a multiple of this, and ends at one or at
    /// the end: what of a hole is left beside data is taken for data.
    Told(u32),
}

/// The data of a file in order, cut at multiples of the block size.
#[derive(Debug)]
pub struct Chunks<'a> {
    file: Option<&'a File>,
    size: u64,
    block: u64,
    holes: Holes,
    at: u64,
    data: Range<u64>,
}

impl<'a> Chunks<'a> {
    /// The first `size` bytes of `file`, in blocks of at most `block` bytes, a multiple of what the
    /// `holes` want.
    pub fn new(file: &'a File, size: u64, block: u64, holes: Holes) -> Self {
        Self { file: Some(file), size, block, holes, at: 0, data: 0..0 }
    }

    /// `size` bytes without holes.
    pub fn plain(size: u64, block: u64) -> Self {
        Self { file: None, size, block, holes: Holes::Skipped, at: 0, data: 0..size }
    }

    /// The next data from `at` on; at the end of the file if there is none.
    fn find_data(&self) -> Result<Range<u64>, Errno> {
        let Some(file) = self.file else { return Ok(self.size..self.size) };
        // Moves the file's own position, which nobody uses: the ring is given offsets.
        let start = match seek(file, SeekFrom::Data(self.at)) {
            Ok(start) if start < self.size => start,
            Ok(_) | Err(Errno::NXIO) => return Ok(self.size..self.size),
            // A file system without the notion of holes: everything is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(self.at..self.size),
            Err(errno) => return Err(errno),
        };
        let end = match seek(file, SeekFrom::Hole(start)) {
            Ok(hole) => hole,
            // The file was cut here in the meantime; reading will tell.
            Err(Errno::NXIO) => self.size,
            Err(errno) => return Err(errno),
        };
        let grid = match self.holes {
            Holes::Skipped => 1,
            Holes::Told(grid) => u64::from(grid),
        };
        Ok(start / grid * grid..end.next_multiple_of(grid).min(self.size))
    }
}

impl Iterator for Chunks<'_> {
    type Item = std::io::Result<Chunk>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.data.end && self.at < self.size {
            match self.find_data() {
                Ok(data) => self.data = data,
                Err(errno) => {
                    self.at = self.size;
                    return Some(Err(errno.into()));
                }
            }
        }
        if self.holes == Holes::Skipped {
            self.at = self.at.max(self.data.start);
        }
        if self.at >= self.size {
            return None;
        }
        let hole = self.at < self.data.start;
        let limit = if hole { self.data.start } else { self.data.end };
        let boundary = (self.at / self.block + 1) * self.block;
        let chunk = Chunk { offset: self.at, len: (boundary.min(limit) - self.at) as u32, hole };
        self.at += u64::from(chunk.len);
        Some(Ok(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn chunks(file: &File, size: u64, block: u64) -> Vec<(u64, u32)> {
        Chunks::new(file, size, block, Holes::Skipped)
            .map(|chunk| chunk.map(|chunk| (chunk.offset, chunk.len)).unwrap())
            .collect()
    }

    #[test]
    fn data_is_cut_at_blocks_and_holes_are_left_out() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(chunks(&file, 0, 4096), []);
        file.write_all_at(&[1; 10_000], 0).unwrap();
        assert_eq!(chunks(&file, 10_000, 4096), [(0, 4096), (4096, 4096), (8192, 1808)]);
        file.set_len(1 << 30).unwrap();
        file.write_all_at(&[1; 4096], 1 << 29).unwrap();
        let found = chunks(&file, 1 << 30, 1 << 20);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].0, 0);
        assert!(found[1].0 <= 1 << 29 && found[1].0 + u64::from(found[1].1) >= (1 << 29) + 4096);
    }

    #[test]
    fn holes_are_told_on_the_grid_and_nothing_is_missing() {
        let file = tempfile::tempfile().unwrap();
        let size = (9 << 20) + 777;
        file.set_len(size).unwrap();
        for at in [0, 3 << 20, (3 << 20) + 8192, (7 << 20) - 4096] {
            file.write_all_at(&[1; 100], at).unwrap();
        }
        for (grid, block) in [(512, 512), (4096, 1 << 20), (1 << 16, 1 << 16)] {
            let mut at = 0;
            let mut holes = 0;
            for chunk in Chunks::new(&file, size, block, Holes::Told(grid)) {
                let chunk = chunk.unwrap();
                assert_eq!(chunk.offset, at);
                assert!(chunk.len != 0 && u64::from(chunk.len) <= block);
                assert_eq!(at % u64::from(grid), 0);
                holes += if chunk.hole { u64::from(chunk.len) } else { 0 };
                at += u64::from(chunk.len);
                if chunk.hole {
                    let mut bytes = vec![1; chunk.len as usize];
                    file.read_exact_at(&mut bytes, chunk.offset).unwrap();
                    assert!(bytes.iter().all(|&byte| byte == 0));
                }
            }
            assert_eq!(at, size);
            // Where the file system keeps holes at all.
            assert!(holes == 0 || holes > 7 << 20, "{holes} bytes of holes");
        }
    }

    #[test]
    fn a_plain_range_is_all_data() {
        let chunks: Vec<_> = Chunks::plain(10_000, 4096).map(Result::unwrap).collect();
        let data = |offset, len| Chunk { offset, len, hole: false };
        assert_eq!(chunks, [data(0, 4096), data(4096, 4096), data(8192, 1808)]);
        assert_eq!(Chunks::plain(0, 4096).count(), 0);
    }
}
