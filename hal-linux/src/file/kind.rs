//! How a file behaves when it cannot answer at once.

use std::os::fd::RawFd;

use super::order::Bucket;
use crate::sys;

/// Who carries out what would block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Regular files: ready in bounded time, by a bounded worker; writes of
    /// one file one after the other. Short results are continued.
    Regular(Bucket),
    /// Block devices and directories: as regular files, without an order.
    Storage,
    /// Pipes, sockets, terminals, eventfds, ...: ready when somebody else
    /// makes it so. A poll waits for it; short results are final.
    Stream,
}

impl Kind {
    /// The kind of an open file. It never changes.
    ///
    /// # Errors
    /// A negative errno.
    pub fn of(fd: RawFd) -> Result<Self, i32> {
        let stat = sys::status(fd)?;
        Ok(match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => Kind::Regular(Bucket::of(stat.st_dev, stat.st_ino)),
            libc::S_IFBLK | libc::S_IFDIR => Kind::Storage,
            _ => Kind::Stream,
        })
    }

    /// Whether it is waited for by a poll and not by a worker.
    pub fn is_stream(self) -> bool {
        self == Kind::Stream
    }
}
