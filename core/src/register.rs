//! What a ring can be asked for besides requests (`io_uring_register`).

use crate::probe::Probe;
use crate::stats::Stats;
use crate::types::{BufRingEntry, Iovec};

/// A synchronous call to the engine.
///
/// Answers as the system call does: a count where one is meant, else 0.
#[non_exhaustive]
pub enum Call<'a> {
    /// `IORING_REGISTER_FILES`: a table of these file numbers, -1 for an
    /// empty place. `EBUSY` if there is a table; `EMFILE` if it has more
    /// places than were configured; `EBADF` if a number is no file. Then
    /// nothing is registered.
    RegisterFiles(&'a [i32]),
    /// `IORING_REGISTER_FILES2` with `IORING_RSRC_REGISTER_SPARSE`: a table
    /// of so many empty places.
    RegisterFilesSparse(u32),
    /// `IORING_REGISTER_FILES_UPDATE`: replaces places from `offset` on, -1
    /// empties one and -2 leaves it. Requests in flight keep their file.
    /// Answers how many places were done; the errno if the first failed.
    UpdateFiles {
        /// First place.
        offset: u32,
        /// New file numbers.
        fds: &'a [i32],
    },
    /// `IORING_UNREGISTER_FILES`: `ENXIO` if there is no table.
    UnregisterFiles,
    /// `IORING_REGISTER_BUFFERS`. A null base with length 0 is an empty
    /// place. `EBUSY`, `EFAULT`, `ENOMEM` (more places than configured);
    /// then nothing is registered.
    ///
    /// Whoever calls promises that the memory stays valid until it is
    /// unregistered and its last request has ended.
    RegisterBuffers(&'a [Iovec]),
    /// `IORING_REGISTER_BUFFERS2` with `IORING_RSRC_REGISTER_SPARSE`.
    RegisterBuffersSparse(u32),
    /// `IORING_REGISTER_BUFFERS_UPDATE`, as [`UpdateFiles`](Call::UpdateFiles).
    UpdateBuffers {
        /// First place.
        offset: u32,
        /// New buffers.
        buffers: &'a [Iovec],
    },
    /// `IORING_UNREGISTER_BUFFERS`: `ENXIO` if there is no table.
    UnregisterBuffers,
    /// `IORING_REGISTER_PROBE`: which opcodes are carried out.
    Probe(&'a mut Probe),
    /// `IORING_REGISTER_IOWQ_MAX_WORKERS`: how many bounded and how many
    /// unbounded workers there may be; 0 leaves a number as it is. The old ones
    /// come back in their place. `EINVAL` for more than `i32::MAX`, and where
    /// there are no workers.
    MaxWorkers(&'a mut [u32; 2]),
    /// `IORING_REGISTER_PBUF_RING`: group `group` is the ring of buffers at
    /// `base`, on a multiple of 4,096 bytes, with `entries` places (a power of
    /// two, at most 32,768). `EEXIST` if the group has a ring, or buffers;
    /// `ENOMEM` if there are as many groups as configured; `EINVAL` if none
    /// may be.
    ///
    /// Whoever calls promises that the ring stays valid until it is
    /// unregistered or the engine has ended, and that each buffer in it is
    /// valid, and nobody else's, from its publication until the CQE that tells
    /// of it.
    RegisterBufRing {
        /// The first entry.
        base: *mut BufRingEntry,
        /// How many there are.
        entries: u32,
        /// The group.
        group: u16,
    },
    /// `IORING_UNREGISTER_PBUF_RING`: `ENOENT` without such a group, `EINVAL`
    /// if it is no ring.
    UnregisterBufRing(u16),
    /// `IORING_REGISTER_PBUF_STATUS`: how many buffers the engine has taken
    /// from a ring, modulo 2^16. Errors as above.
    BufRingHead(u16),
    /// The ring's statistics.
    Stats(&'a mut Stats),
    /// A readable picture of the ring's state.
    Dump(&'a mut (dyn core::fmt::Write + Send)),
}
