//! How a file behaves when it cannot answer at once.

use std::os::fd::RawFd;

use crate::sys;

/// Who carries out what would block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Regular files, block devices, directories: ready in bounded time, by
    /// a bounded worker. Short results are continued.
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
        Ok(match sys::mode(fd)? & libc::S_IFMT {
            libc::S_IFREG | libc::S_IFBLK | libc::S_IFDIR => Kind::Storage,
            _ => Kind::Stream,
        })
    }
}
