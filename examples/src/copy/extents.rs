//! Where a file has data: its holes are passed over.

use std::fs::File;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// A piece of data, no longer than a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Bytes; not 0.
    pub len: u32,
}

/// The data of a file in order, cut at multiples of the block size.
#[derive(Debug)]
pub struct Chunks<'a> {
    file: &'a File,
    size: u64,
    block: u64,
    at: u64,
    data_end: u64,
}

impl<'a> Chunks<'a> {
    /// The first `size` bytes of `file`, in blocks of at most `block` bytes.
    pub fn new(file: &'a File, size: u64, block: u64) -> Self {
        Self { file, size, block, at: 0, data_end: 0 }
    }

    /// Finds the next data from `at` on; false: there is none.
    fn find_data(&mut self) -> Result<bool, Errno> {
        // Moves the file's own position, which nobody uses: the ring is given offsets.
        self.at = match seek(self.file, SeekFrom::Data(self.at)) {
            Ok(at) => at,
            Err(Errno::NXIO) => return Ok(false),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                // A file system without the notion of holes: everything is data.
                self.data_end = self.size;
                return Ok(true);
            }
            Err(errno) => return Err(errno),
        };
        if self.at >= self.size {
            return Ok(false);
        }
        self.data_end = match seek(self.file, SeekFrom::Hole(self.at)) {
            Ok(hole) => hole.min(self.size),
            // The file was cut here in the meantime; reading will tell.
            Err(Errno::NXIO) => self.size,
            Err(errno) => return Err(errno),
        };
        Ok(true)
    }
}

impl Iterator for Chunks<'_> {
    type Item = std::io::Result<Chunk>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.size {
            return None;
        }
        if self.at >= self.data_end {
            match self.find_data() {
                Ok(true) => {}
                Ok(false) => {
                    self.at = self.size;
                    return None;
                }
                Err(errno) => {
                    self.at = self.size;
                    return Some(Err(errno.into()));
                }
            }
        }
        let boundary = (self.at / self.block + 1) * self.block;
        let end = boundary.min(self.data_end);
        let chunk = Chunk { offset: self.at, len: (end - self.at) as u32 };
        self.at = end;
        Some(Ok(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn chunks(file: &File, size: u64, block: u64) -> Vec<(u64, u32)> {
        Chunks::new(file, size, block)
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
}
