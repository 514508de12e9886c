//! How a file behaves when it cannot answer at once.

use std::os::fd::RawFd;

use super::ahead::Ahead;
use super::order::Inode;
use crate::sys;

/// Who carries out what would block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Regular files: ready in bounded time, by a bounded worker; writes of
    /// one file one after the other, sequential requests in one worker. Short
    /// results are continued.
    Regular(Inode),
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
    pub fn of(fd: RawFd, ahead: &mut Ahead) -> Result<Self, i32> {
        let stat = sys::status(fd)?;
        Ok(match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => {
                Kind::Regular(Inode::new(stat.st_dev, stat.st_ino, ahead.run(stat.st_dev)))
            }
            libc::S_IFBLK | libc::S_IFDIR => Kind::Storage,
            _ => Kind::Stream,
        })
    }

    /// Whether an open file is storage. False if there is none.
    pub fn is_storage(fd: RawFd) -> bool {
        let storage = [libc::S_IFREG, libc::S_IFBLK, libc::S_IFDIR];
        sys::status(fd).is_ok_and(|stat| storage.contains(&(stat.st_mode & libc::S_IFMT)))
    }

    /// Whether it is waited for by a poll and not by a worker.
    pub fn is_stream(self) -> bool {
        self == Kind::Stream
    }
}
