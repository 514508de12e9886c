//! Files of a model.

use super::world::World;
use crate::errno::Errno;
use std::vec::Vec;

/// The number of the first file. Less are standard input and output.
const FIRST: i32 = 3;

/// What is in a file, and what of it is on the medium.
#[derive(Default)]
pub(super) struct Content {
    pub bytes: Vec<u8>,
    pub synced: Vec<u8>,
    /// The current position.
    pub at: u64,
    closed: bool,
}

/// A file of a model, with the names of [`std::fs::File`] as far as a ring
/// needs them. It belongs to one execution.
#[derive(Debug)]
pub struct File {
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
        files.push(Content { bytes, synced, ..Content::default() });
        Self { index: files.len() - 1 }
    }

    /// The number for [`types::Fd`](crate::types::Fd).
    pub fn as_raw_fd(&self) -> i32 {
        FIRST + self.index as i32
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
}

#[cfg(unix)]
impl std::os::fd::AsRawFd for File {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.as_raw_fd()
    }
}

impl Drop for File {
    /// Closes the number. Requests in flight keep the file.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            World::current().files.borrow_mut()[self.index].closed = true;
        }
    }
}

/// The file of a number.
///
/// # Errors
/// `EBADF` if it is none, or closed.
pub(super) fn find(world: &World, fd: i32) -> Result<usize, Errno> {
    let index = usize::try_from(fd.wrapping_sub(FIRST)).map_err(|_| Errno::EBADF)?;
    match world.files.borrow().get(index) {
        Some(file) if !file.closed => Ok(index),
        _ => Err(Errno::EBADF),
    }
}
