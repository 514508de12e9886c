//! Which descriptor numbers are the library's own.
//!
//! A CLOSE that names one of them would have requests in flight, of this ring
//! or another, go on in whatever file gets the number next. Linux answers
//! `-EBADF` where a CLOSE names a ring; so do we, for everything that a ring
//! has open. Two things remain. `close(2)` itself asks nobody, and a CLOSE of
//! a number that is not open may race with our getting it, as two closes of
//! one number may anywhere.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// Numbers that are guarded: as many as a process can have, unless
/// `fs.nr_open` was raised. Memory that is not used costs nothing.
const GUARDED: usize = 1 << 20;

/// A bit for each number that is ours.
static OWN: [AtomicU32; GUARDED / 32] = [const { AtomicU32::new(0) }; GUARDED / 32];

fn bit(fd: RawFd) -> Option<(&'static AtomicU32, u32)> {
    let fd = usize::try_from(fd).ok()?;
    Some((OWN.get(fd / 32)?, 1 << (fd % 32)))
}

/// The number is ours from here on. Right after it was opened.
pub fn claim(fd: RawFd) {
    if let Some((word, bit)) = bit(fd) {
        // Relaxed: the number itself comes to other threads by the kernel.
        word.fetch_or(bit, Ordering::Relaxed);
    }
}

/// It is not ours any more. Right before it is closed.
pub fn disclaim(fd: RawFd) {
    if let Some((word, bit)) = bit(fd) {
        // Relaxed: as above.
        word.fetch_and(!bit, Ordering::Relaxed);
    }
}

/// Whether the number is ours.
pub fn is_own(fd: RawFd) -> bool {
    // Relaxed: as above.
    bit(fd).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
}

/// A descriptor of ours.
#[derive(Debug)]
pub struct Own(Option<OwnedFd>);

impl From<OwnedFd> for Own {
    fn from(fd: OwnedFd) -> Self {
        claim(fd.as_raw_fd());
        Self(Some(fd))
    }
}

impl Own {
    /// Another for the same file.
    ///
    /// # Errors
    /// The system's: no descriptor is left.
    pub fn try_clone(&self) -> io::Result<Own> {
        self.as_fd().try_clone_to_owned().map(Own::from)
    }
}

impl AsFd for Own {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Some(fd) => fd.as_fd(),
            None => unreachable!("taken by the drop only"),
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(fd) = self.0.take() {
            disclaim(fd.as_raw_fd());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_ours_for_as_long_as_it_is_open() {
        let file = Own::from(OwnedFd::from(tempfile::tempfile().unwrap()));
        let other = file.try_clone().unwrap();
        let numbers = [&file, &other].map(|own| own.as_fd().as_raw_fd());
        assert_ne!(numbers[0], numbers[1]);
        assert!(numbers.into_iter().all(is_own));
        drop(file);
        assert!(is_own(numbers[1]));
        drop(other);
        // The number may be another test's by now, but not a higher one.
        assert!(!is_own(-1) && !is_own(i32::MAX) && !is_own(GUARDED as i32 - 1));
    }
}
