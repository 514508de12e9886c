//! A file under test, and what must be in it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::block::{BLOCK, describe, fill, is};
use super::pages::Pages;
use crate::kernel::rng::Rng;

/// Blocks of a file.
pub const BLOCKS: usize = 512;
/// Blocks of the longest operation.
pub const LONGEST: usize = 16;

/// What a kind of file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Through the page cache.
    Buffered,
    /// `O_DIRECT`.
    Direct,
    /// Memory of the kernel's (`memfd_create`).
    Memory,
}

/// What a block holds: one of two writes, if one of them has failed; 0 is what it
/// was before any.
#[derive(Clone, Copy, Debug)]
struct Content(u32, u32);

/// A file, and the content of each of its blocks.
pub struct Disk {
    /// What its blocks say of it.
    pub number: u32,
    /// What it is.
    pub kind: Kind,
    /// It.
    pub file: File,
    /// Where it is, if it has a name.
    pub path: Option<PathBuf>,
    content: Vec<Content>,
    busy: Vec<bool>,
    writes: u32,
}

/// Blocks that an operation has for itself.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub first: usize,
    pub count: usize,
}

impl Run {
    pub fn offset(self) -> u64 {
        (self.first * BLOCK) as u64
    }

    pub fn bytes(self) -> usize {
        self.count * BLOCK
    }
}

impl Disk {
    /// A new file of zeroes. Nothing if `dir` does not offer that kind.
    ///
    /// # Errors
    /// Of the system.
    pub fn new(dir: &Path, kind: Kind, number: u32) -> io::Result<Option<Self>> {
        let mut path = None;
        let file = if kind == Kind::Memory {
            // SAFETY: a name; the descriptor is ours.
            unsafe {
                match libc::memfd_create(c"annulus-soak".as_ptr(), libc::MFD_CLOEXEC) {
                    -1 => return Err(io::Error::last_os_error()),
                    fd => File::from_raw_fd(fd),
                }
            }
        } else {
            let name = path.insert(dir.join(format!("{number:x}")));
            let mut options = File::options();
            options.read(true).write(true).create_new(true);
            if kind == Kind::Direct {
                options.custom_flags(libc::O_DIRECT);
            }
            match options.open(&*name) {
                Err(e) if kind == Kind::Direct && e.raw_os_error() == Some(libc::EINVAL) => {
                    // It may have been made all the same.
                    let _ = std::fs::remove_file(name);
                    return Ok(None);
                }
                opened => opened?,
            }
        };
        file.set_len((BLOCKS * BLOCK) as u64)?;
        Ok(Some(Self {
            number,
            kind,
            file,
            path,
            content: vec![Content(0, 0); BLOCKS],
            busy: vec![false; BLOCKS],
            writes: 0,
        }))
    }

    pub fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Some blocks that no other operation has; none if they are hard to find.
    pub fn claim(&mut self, rng: &mut Rng) -> Option<Run> {
        let count = if rng.chance(60) { 1 } else { rng.range(1, LONGEST as u64) as usize };
        for _ in 0..8 {
            let first = rng.below((BLOCKS - count) as u64 + 1) as usize;
            let busy = &mut self.busy[first..first + count];
            if busy.iter().all(|busy| !busy) {
                busy.fill(true);
                return Some(Run { first, count });
            }
        }
        None
    }

    pub fn release(&mut self, run: Run) {
        self.busy[run.first..run.first + run.count].fill(false);
    }

    /// The number of the next write, and the bytes that it puts to `run`.
    pub fn stamp(&mut self, run: Run, bytes: &mut [u8]) -> u32 {
        self.writes += 1;
        for (place, block) in (run.first..).zip(bytes.chunks_exact_mut(BLOCK)) {
            fill(block, self.number, place as u64, self.writes);
        }
        self.writes
    }

    /// Write number `write` has ended: well, or it may have been done or not.
    pub fn wrote(&mut self, run: Run, write: u32, sure: bool) {
        for content in &mut self.content[run.first..run.first + run.count] {
            content.1 = write;
            if sure {
                content.0 = write;
            }
        }
    }

    /// Checks what has been read from `run`, whole blocks. What could be one or
    /// the other is from now on what was seen.
    ///
    /// # Errors
    /// Which block is not right.
    pub fn check(&mut self, run: Run, bytes: &[u8]) -> Result<(), String> {
        for (place, block) in (run.first..).zip(bytes.chunks_exact(BLOCK)) {
            let Content(one, other) = self.content[place];
            let seen = [other, one].into_iter().find(|&w| is(block, self.number, place as u64, w));
            let Some(seen) = seen else {
                let there = describe(block, self.number, place as u64);
                let right = match one == other {
                    true => format!("write {one}"),
                    false => format!("write {one} or {other}"),
                };
                return Err(format!(
                    "{:?} file {:#x}, block {place}: there must be {right}, and there is {there}",
                    self.kind, self.number
                ));
            };
            self.content[place] = Content(seen, seen);
        }
        Ok(())
    }

    /// Reads the whole file by system calls, and checks it. The bytes checked.
    ///
    /// # Errors
    /// Of the system, and the first block that is not right.
    pub fn check_all(&mut self) -> Result<u64, String> {
        let mut bytes = Pages::new(BLOCKS * BLOCK);
        let bytes = bytes.all();
        self.file.read_exact_at(bytes, 0).map_err(|e| format!("reading it back: {e}"))?;
        self.check(Run { first: 0, count: BLOCKS }, bytes)?;
        Ok(bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_write_and_a_torn_one_are_seen() {
        let mut disk = Disk::new(Path::new("/"), Kind::Memory, 5).unwrap().expect("memory");
        let run = Run { first: 2, count: 2 };
        let mut bytes = vec![0; run.bytes()];
        let write = disk.stamp(run, &mut bytes);
        disk.wrote(run, write, false);
        assert_eq!(disk.check_all(), Ok((BLOCKS * BLOCK) as u64));
        // It was not done, as has been seen: from now on it must not be there.
        disk.file.write_all_at(&bytes, run.offset()).unwrap();
        assert!(disk.check_all().is_err_and(|why| why.contains("block 2")));
        disk.wrote(run, write, true);
        assert!(disk.check_all().is_ok());
        disk.file.write_all_at(&[0; 100], run.offset() + 5000).unwrap();
        let why = disk.check_all().expect_err("torn");
        assert!(
            why.contains("block 3: there must be write 1, and there is write 1, torn"),
            "{why}"
        );
    }

    #[test]
    fn blocks_are_claimed_once() {
        let mut disk = Disk::new(Path::new("/"), Kind::Memory, 5).unwrap().expect("memory");
        let (mut rng, mut taken) = (Rng::new(3), vec![false; BLOCKS]);
        let claims = (0..4000).filter_map(|_| disk.claim(&mut rng)).collect::<Vec<_>>();
        for run in claims {
            let own = &mut taken[run.first..run.first + run.count];
            assert!(own.iter().all(|&taken| !taken));
            own.fill(true);
        }
        assert!(taken.iter().filter(|&&taken| taken).count() > BLOCKS / 2);
    }
}
