//! What a ring can be asked for besides requests (`io_uring_register`).

#[allow(unsafe_code)] // reads the arguments of a system call
mod numbers;

use crate::errno::Errno;
use crate::probe::Probe;
use crate::stats::Stats;
use crate::types::{BufRingEntry, CancelBuilder, Iovec, Restriction, Timespec};
use crate::uapi;
pub use numbers::numbered;

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
    /// `IORING_REGISTER_FILES2`: as [`RegisterFiles`](Call::RegisterFiles), with
    /// a tag for each, or none at all. When the last use of a file that has one
    /// (not 0) is over, a CQE is posted with it as `user_data`, and 0 as result
    /// and flags. `EINVAL` for a tag of an empty place, and where there can be
    /// none; `ENOMEM` for more than were configured.
    RegisterFilesTagged {
        /// File numbers.
        fds: &'a [i32],
        /// As many, or none.
        tags: &'a [u64],
    },
    /// `IORING_REGISTER_FILES_UPDATE2`: as [`UpdateFiles`](Call::UpdateFiles),
    /// with tags.
    UpdateFilesTagged {
        /// First place.
        offset: u32,
        /// New file numbers.
        fds: &'a [i32],
        /// As many tags, or none.
        tags: &'a [u64],
    },
    /// `IORING_REGISTER_BUFFERS2`: as
    /// [`RegisterBuffers`](Call::RegisterBuffers), with tags.
    RegisterBuffersTagged {
        /// The buffers.
        buffers: &'a [Iovec],
        /// As many tags, or none.
        tags: &'a [u64],
    },
    /// `IORING_REGISTER_BUFFERS_UPDATE`, with tags.
    UpdateBuffersTagged {
        /// First place.
        offset: u32,
        /// New buffers.
        buffers: &'a [Iovec],
        /// As many tags, or none.
        tags: &'a [u64],
    },
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
        /// `IOU_PBUF_RING_INC`: each buffer is used up by parts. A read takes
        /// what it needs at the front of the first, whose entry says from then
        /// on where its rest is; its CQE has `IORING_CQE_F_BUF_MORE` while there
        /// is any. As in Linux, a read of what waits for readiness uses what it
        /// has moved, and any other what it has asked for.
        incremental: bool,
    },
    /// `IORING_UNREGISTER_PBUF_RING`: `ENOENT` without such a group, `EINVAL`
    /// if it is no ring.
    UnregisterBufRing(u16),
    /// `IORING_REGISTER_PBUF_STATUS`: how many buffers the engine has taken
    /// from a ring, whole, modulo 2^16. Errors as above.
    BufRingHead(u16),
    /// `IORING_REGISTER_EVENTFD`, and `IORING_REGISTER_EVENTFD_ASYNC`: every CQE
    /// is followed by a signal to this counter, `only_late` for those that did
    /// not come of taking SQEs. An application that drives its ring inline is
    /// signalled also when there is something to fetch. None while
    /// `IORING_CQ_EVENTFD_DISABLED` is set
    /// ([`disable_eventfd`](crate::ring::CompletionQueue::disable_eventfd)).
    /// `EBUSY` if there is one; `EBADF` and `EINVAL` of
    /// [`Host::bind_eventfd`](crate::hal::Host::bind_eventfd).
    RegisterEventfd {
        /// Its number.
        fd: i32,
        /// Not for CQEs of requests that end when their SQE is taken.
        only_late: bool,
    },
    /// `IORING_UNREGISTER_EVENTFD`: `ENXIO` if there is none.
    UnregisterEventfd,
    /// `IORING_REGISTER_RESTRICTIONS`: what will be allowed when the ring is
    /// enabled; anything else is `EACCES` then. `EBADFD` unless the ring was set
    /// up disabled and still is, `EBUSY` the second time, `EINVAL` for one that
    /// is none, and where requests cannot be held.
    RegisterRestrictions(&'a [Restriction]),
    /// `IORING_REGISTER_ENABLE_RINGS`: `EBADFD` unless the ring is disabled.
    EnableRings,
    /// `IORING_REGISTER_SYNC_CANCEL`: ends what matches, if it has not begun, as
    /// ASYNC_CANCEL does; what has begun is waited for, `timeout` at most, and
    /// unless all that match are meant. Answers how many if all are, else 0.
    /// `ENOENT` if there is none, `ETIME`, `EINTR`; `EBADF` if it is to be by a
    /// file and there is no such. `EINVAL` where requests cannot be held.
    ///
    /// From outside of the engine the waiting is the caller's; whoever drives
    /// the engine goes on.
    Cancel {
        /// What is meant.
        what: CancelBuilder,
        /// How long to wait; for ever if none.
        timeout: Option<Timespec>,
    },
    /// `IORING_REGISTER_CLOCK`: the clock that waits of `enter` go by, if they are
    /// made by [`Engine::until`](crate::engine::Engine::until) or
    /// [`Remote::until`](crate::engine::Remote::until): 1, the monotonic one, or
    /// 7, which runs on in suspend. `EINVAL` for others, and for one that there
    /// is not ([`Clock::time`](crate::hal::Clock::time)).
    RegisterClock(u32),
    /// An operation by number that is refused for its arguments, if it is not
    /// refused for another reason. [`numbered`] makes it.
    Refused {
        /// The operation.
        opcode: u32,
        /// Why.
        errno: Errno,
    },
    /// The ring's statistics.
    Stats(&'a mut Stats),
    /// A readable picture of the ring's state.
    Dump(&'a mut (dyn core::fmt::Write + Send)),
}

impl Call<'_> {
    /// The register operation of each call that is one, and the call's name.
    /// For tables and messages.
    pub const NUMBERS: &'static [(u32, &'static str)] = &[
        (uapi::IORING_REGISTER_BUFFERS, "RegisterBuffers"),
        (uapi::IORING_UNREGISTER_BUFFERS, "UnregisterBuffers"),
        (uapi::IORING_REGISTER_FILES, "RegisterFiles"),
        (uapi::IORING_UNREGISTER_FILES, "UnregisterFiles"),
        (uapi::IORING_REGISTER_FILES_UPDATE, "UpdateFiles"),
        (uapi::IORING_REGISTER_EVENTFD, "RegisterEventfd"),
        (uapi::IORING_REGISTER_EVENTFD_ASYNC, "RegisterEventfd"),
        (uapi::IORING_UNREGISTER_EVENTFD, "UnregisterEventfd"),
        (uapi::IORING_REGISTER_PROBE, "Probe"),
        (uapi::IORING_REGISTER_RESTRICTIONS, "RegisterRestrictions"),
        (uapi::IORING_REGISTER_ENABLE_RINGS, "EnableRings"),
        (uapi::IORING_REGISTER_FILES2, "RegisterFilesSparse"),
        (uapi::IORING_REGISTER_FILES2, "RegisterFilesTagged"),
        (uapi::IORING_REGISTER_FILES_UPDATE2, "UpdateFilesTagged"),
        (uapi::IORING_REGISTER_BUFFERS2, "RegisterBuffersSparse"),
        (uapi::IORING_REGISTER_BUFFERS2, "RegisterBuffersTagged"),
        (uapi::IORING_REGISTER_BUFFERS_UPDATE, "UpdateBuffers"),
        (uapi::IORING_REGISTER_BUFFERS_UPDATE, "UpdateBuffersTagged"),
        (uapi::IORING_REGISTER_IOWQ_MAX_WORKERS, "MaxWorkers"),
        (uapi::IORING_REGISTER_PBUF_RING, "RegisterBufRing"),
        (uapi::IORING_UNREGISTER_PBUF_RING, "UnregisterBufRing"),
        (uapi::IORING_REGISTER_CLOCK, "RegisterClock"),
        (uapi::IORING_REGISTER_SYNC_CANCEL, "Cancel"),
        (uapi::IORING_REGISTER_PBUF_STATUS, "BufRingHead"),
    ];

    /// Its register operation, if it is one.
    #[must_use]
    pub const fn number(&self) -> Option<u32> {
        // Without a wildcard: a new call has to say which it is.
        Some(match self {
            Call::RegisterFiles(_) => uapi::IORING_REGISTER_FILES,
            Call::RegisterFilesSparse(_) => uapi::IORING_REGISTER_FILES2,
            Call::UpdateFiles { .. } => uapi::IORING_REGISTER_FILES_UPDATE,
            Call::RegisterFilesTagged { .. } => uapi::IORING_REGISTER_FILES2,
            Call::UpdateFilesTagged { .. } => uapi::IORING_REGISTER_FILES_UPDATE2,
            Call::RegisterBuffersTagged { .. } => uapi::IORING_REGISTER_BUFFERS2,
            Call::UpdateBuffersTagged { .. } => uapi::IORING_REGISTER_BUFFERS_UPDATE,
            Call::UnregisterFiles => uapi::IORING_UNREGISTER_FILES,
            Call::RegisterBuffers(_) => uapi::IORING_REGISTER_BUFFERS,
            Call::RegisterBuffersSparse(_) => uapi::IORING_REGISTER_BUFFERS2,
            Call::UpdateBuffers { .. } => uapi::IORING_REGISTER_BUFFERS_UPDATE,
            Call::UnregisterBuffers => uapi::IORING_UNREGISTER_BUFFERS,
            Call::Probe(_) => uapi::IORING_REGISTER_PROBE,
            Call::MaxWorkers(_) => uapi::IORING_REGISTER_IOWQ_MAX_WORKERS,
            Call::RegisterBufRing { .. } => uapi::IORING_REGISTER_PBUF_RING,
            Call::UnregisterBufRing(_) => uapi::IORING_UNREGISTER_PBUF_RING,
            Call::BufRingHead(_) => uapi::IORING_REGISTER_PBUF_STATUS,
            Call::RegisterEventfd { only_late: false, .. } => uapi::IORING_REGISTER_EVENTFD,
            Call::RegisterEventfd { only_late: true, .. } => uapi::IORING_REGISTER_EVENTFD_ASYNC,
            Call::UnregisterEventfd => uapi::IORING_UNREGISTER_EVENTFD,
            Call::RegisterRestrictions(_) => uapi::IORING_REGISTER_RESTRICTIONS,
            Call::EnableRings => uapi::IORING_REGISTER_ENABLE_RINGS,
            Call::Cancel { .. } => uapi::IORING_REGISTER_SYNC_CANCEL,
            Call::RegisterClock(_) => uapi::IORING_REGISTER_CLOCK,
            Call::Refused { opcode, .. } => *opcode,
            Call::Stats(_) | Call::Dump(_) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    #[test]
    fn the_table_of_numbers_has_every_call() {
        let (mut probe, mut stats) = (Probe::new(), Stats::default());
        let (mut counts, mut text) = ([0; 2], String::new());
        let calls = [
            Call::RegisterFiles(&[]),
            Call::RegisterFilesSparse(1),
            Call::UpdateFiles { offset: 0, fds: &[] },
            Call::UnregisterFiles,
            Call::RegisterFilesTagged { fds: &[], tags: &[] },
            Call::UpdateFilesTagged { offset: 0, fds: &[], tags: &[] },
            Call::RegisterBuffersTagged { buffers: &[], tags: &[] },
            Call::UpdateBuffersTagged { offset: 0, buffers: &[], tags: &[] },
            Call::RegisterBuffers(&[]),
            Call::RegisterBuffersSparse(1),
            Call::UpdateBuffers { offset: 0, buffers: &[] },
            Call::UnregisterBuffers,
            Call::Probe(&mut probe),
            Call::MaxWorkers(&mut counts),
            Call::RegisterBufRing {
                base: core::ptr::null_mut(),
                entries: 1,
                group: 0,
                incremental: false,
            },
            Call::UnregisterBufRing(0),
            Call::BufRingHead(0),
            Call::RegisterEventfd { fd: 0, only_late: false },
            Call::RegisterEventfd { fd: 0, only_late: true },
            Call::UnregisterEventfd,
            Call::Cancel { what: CancelBuilder::any(), timeout: None },
            Call::RegisterRestrictions(&[]),
            Call::EnableRings,
            Call::RegisterClock(1),
            Call::Stats(&mut stats),
            Call::Dump(&mut text),
        ];
        let mut numbers: Vec<u32> = calls.iter().filter_map(Call::number).collect();
        numbers.sort_unstable();
        let mut listed: Vec<u32> = Call::NUMBERS.iter().map(|&(number, _)| number).collect();
        listed.sort_unstable();
        assert_eq!(numbers, listed);
    }
}
