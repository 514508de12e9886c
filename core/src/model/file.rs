//! Files of a model.

use super::world::World;
use crate::errno::Errno;
use std::io;
use std::vec::Vec;

/// The number of the first file. Less are standard input and output.
const FIRST: i32 = 3;

/// What is in a file, and what of it is on the medium.
pub(super) struct Content {
    pub bytes: Vec<u8>,
    pub synced: Vec<u8>,
    /// The current position.
    pub at: u64,
}

/// A file of a model, with the names of [`std::fs::File`] as far as a ring
/// needs them. It belongs to one execution.
#[derive(Debug)]
pub struct File {
    number: usize,
    index: usize,
}

impl File {
    /// A file with this in it, on the medium, too.
    ///
    /// # Panics
    /// Outside of [`Model::check`](super::Model::check).
    pub fn new(bytes: &[u8]) -> Self {
        let world = World::current();
        let mut files = world.files.borrow_mut();
        let (bytes, synced) = (bytes.to_vec(), bytes.to_vec());
        files.push(Content { bytes, synced, at: 0 });
        Self::open(&world, files.len() - 1)
    }

    /// The next number, for the file at `index`.
    fn open(world: &World, index: usize) -> Self {
        let mut numbers = world.numbers.borrow_mut();
        numbers.push(Some(index));
        Self { number: numbers.len() - 1, index }
    }

    /// The same file by another number.
    ///
    /// # Errors
    /// None, in a model.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::open(&World::current(), self.index))
    }

    /// What is in it now: all that the device has done so far.
    pub fn bytes(&self) -> Vec<u8> {
        World::current().files.borrow()[self.index].bytes.clone()
    }

    /// What a loss of power now could not take away: everything written before
    /// the last FSYNC that the device has done.
    pub fn synced(&self) -> Vec<u8> {
        World::current().files.borrow()[self.index].synced.clone()
    }

    /// The number for [`types::Fd`](crate::types::Fd).
    #[cfg(not(unix))]
    pub fn as_raw_fd(&self) -> i32 {
        FIRST + self.number as i32
    }
}

#[cfg(unix)]
impl std::os::fd::AsRawFd for File {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        FIRST + self.number as i32
    }
}

impl Drop for File {
    /// Closes the number. Requests in flight keep the file.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            World::current().numbers.borrow_mut()[self.number] = None;
        }
    }
}

/// The file of a number.
///
/// # Errors
/// `EBADF` if it is none, or closed.
pub(super) fn find(world: &World, fd: i32) -> Result<usize, Errno> {
    let number = usize::try_from(fd.wrapping_sub(FIRST)).map_err(|_| Errno::EBADF)?;
    world.numbers.borrow().get(number).copied().flatten().ok_or(Errno::EBADF)
}
