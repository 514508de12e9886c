//! Submitting, waiting, registering.

use std::ffi::c_void;
use std::io;
use std::os::fd::RawFd;

use annulus::engine::{EnterFlags, Until};
use annulus::errno::Errno;
use annulus::probe::Probe;
use annulus::register::{Call, numbered};
use annulus::types::{CancelBuilder, Restriction, SubmitArgs, Timespec};
use annulus::uapi;

use super::{Ring, RingBackend};
use crate::file::FileBackend;

/// What submits, waits and registers. Every error is a raw errno's, as the
/// kernel answers it, save that a forked child is told in words.
#[derive(Debug)]
pub struct Submitter<'a, B: RingBackend = FileBackend> {
    pub(super) ring: &'a Ring<B>,
}

impl<B: RingBackend> Clone for Submitter<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: RingBackend> Copy for Submitter<'_, B> {}

impl<B: RingBackend> Submitter<'_, B> {
    /// Submits what was pushed and synced. Answers how many SQEs were taken
    /// (under SQPOLL: are to be taken).
    ///
    /// # Errors
    /// `EBUSY` if no request can be had: reap completions, then try again.
    #[inline]
    pub fn submit(&self) -> io::Result<usize> {
        self.submit_until(0, Until::default())
    }

    /// Submits, and waits until there are `want` completions to read.
    ///
    /// # Errors
    /// As [`submit`](Self::submit); `EINTR` if a signal ended the wait and
    /// nothing was submitted.
    #[inline]
    pub fn submit_and_wait(&self, want: usize) -> io::Result<usize> {
        self.submit_until(want, Until::default())
    }

    /// Submits, and waits as `args` says.
    ///
    /// # Errors
    /// As [`submit_and_wait`](Self::submit_and_wait); `ETIME` if the time was
    /// up and nothing was submitted.
    pub fn submit_with_args(&self, want: usize, args: &SubmitArgs) -> io::Result<usize> {
        self.submit_until(want, self.ring.remote.until(args, false))
    }

    #[inline]
    fn submit_until(&self, want: usize, until: Until) -> io::Result<usize> {
        let ring = self.ring;
        let len = ring.remote.sq_ready();
        let want = u32::try_from(want).unwrap_or(u32::MAX);
        let mut flags = if want > 0 { EnterFlags::GETEVENTS } else { EnterFlags::empty() };
        if ring.params.is_setup_sqpoll() {
            if ring.remote.need_wakeup() {
                flags |= EnterFlags::SQ_WAKEUP;
            } else if want == 0 {
                // It is polling. Room in the CQ it is told of by the reader.
                ring.guard.check()?;
                return Ok(len as usize);
            }
        }
        ring.enter(len, want, flags, until)
    }

    /// `io_uring_enter`: submits up to `to_submit` SQEs; with
    /// `IORING_ENTER_GETEVENTS` waits for `min_complete` completions, with
    /// `IORING_ENTER_EXT_ARG` as `arg` says, whose time is one of
    /// `CLOCK_MONOTONIC` with `IORING_ENTER_ABS_TIMER`. `SQ_WAKEUP` and
    /// `SQ_WAIT` are for polled rings.
    ///
    /// # Errors
    /// The kernel's: `EINVAL` for unknown flags; `EBUSY`, and if nothing was
    /// to be submitted `EINTR`, `ETIME`, and for a wait `EFAULT` for `EXT_ARG`
    /// without an `arg`, `EINVAL` the other way round.
    ///
    /// # Safety
    /// What the SQEs point to is valid (as was promised when they were
    /// pushed).
    pub unsafe fn enter(
        &self,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        arg: Option<&SubmitArgs>,
    ) -> io::Result<usize> {
        let failed = |errno: Errno| Err(io::Error::from_raw_os_error(errno.raw()));
        let mut flags = match EnterFlags::checked(flags) {
            Ok(flags) => flags,
            Err(errno) => return failed(errno),
        };
        // As in the kernel, where only a wait looks at it, after everything else,
        // and what has been submitted is the better answer.
        let wrong = match (flags.contains(EnterFlags::EXT_ARG), arg) {
            (true, None) => Some(Errno::EFAULT),
            (false, Some(_)) => Some(Errno::EINVAL),
            _ => None,
        };
        if let Some(errno) = wrong.filter(|_| flags.contains(EnterFlags::GETEVENTS)) {
            flags.remove(EnterFlags::GETEVENTS);
            let submitted = self.ring.enter(to_submit, 0, flags, Until::default())?;
            return if to_submit == 0 { failed(errno) } else { Ok(submitted) };
        }
        let absolute = flags.contains(EnterFlags::ABS_TIMER);
        let until = arg.map_or(Until::default(), |arg| self.ring.remote.until(arg, absolute));
        self.ring.enter(to_submit, min_complete, flags, until)
    }

    /// Waits until the SQ of a polled ring has room.
    ///
    /// # Errors
    /// `EINTR` if a signal ended the wait.
    pub fn squeue_wait(&self) -> io::Result<usize> {
        self.ring.enter(0, 0, EnterFlags::SQ_WAIT, Until::default())
    }

    pub(super) fn call(&self, call: Call<'_>) -> io::Result<u32> {
        // SAFETY: none of the calls made by way of this registers memory.
        unsafe { self.ring.call(call) }
    }

    /// Makes group `bgid` a ring of provided buffers at `ring_addr`, on a
    /// multiple of 4,096 bytes, with `ring_entries` places (a power of two).
    /// `flags` is 0, or [`IOU_PBUF_RING_INC`](annulus::uapi::IOU_PBUF_RING_INC) for
    /// buffers that are used up by parts ([`Call::RegisterBufRing`]).
    ///
    /// # Errors
    /// `EEXIST` if the group has a ring or buffers, `ENOMEM` if there are as
    /// many groups as [`Builder::provided_buffers`](super::Builder::provided_buffers)
    /// allows, `EINVAL` for an argument that is not as said.
    ///
    /// # Safety
    /// The ring stays valid until it is unregistered or the ring that it
    /// belongs to has been dropped, and each buffer in it is valid, and nobody
    /// else's, from its publication until the completion that tells of it.
    pub unsafe fn register_buf_ring_with_flags(
        &self,
        ring_addr: u64,
        ring_entries: u16,
        bgid: u16,
        flags: u16,
    ) -> io::Result<()> {
        let incremental = match u32::from(flags) {
            0 => false,
            uapi::IOU_PBUF_RING_INC => true,
            _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        let base = std::ptr::with_exposed_provenance_mut(ring_addr as usize);
        let (entries, group) = (ring_entries.into(), bgid);
        let call = Call::RegisterBufRing { base, entries, group, incremental };
        // SAFETY: the caller's promise.
        unsafe { self.ring.call(call) }.map(drop)
    }

    /// Ends a ring of provided buffers.
    ///
    /// # Errors
    /// `ENOENT` without such a group, `EINVAL` if it is no ring.
    pub fn unregister_buf_ring(&self, bgid: u16) -> io::Result<()> {
        self.call(Call::UnregisterBufRing(bgid)).map(drop)
    }

    /// How many buffers have been taken from a ring of them, modulo 2^16
    /// (`IORING_REGISTER_PBUF_STATUS`).
    ///
    /// # Errors
    /// As for [`unregister_buf_ring`](Self::unregister_buf_ring).
    pub fn buf_ring_head(&self, bgid: u16) -> io::Result<u16> {
        self.call(Call::BufRingHead(bgid)).map(|head| head as u16)
    }

    /// How many bounded and how many unbounded workers there may be; 0 leaves
    /// a number as it is, and the old ones come back in their place
    /// (`IORING_REGISTER_IOWQ_MAX_WORKERS`). As in the kernel, what exceeds
    /// `RLIMIT_NPROC` becomes that. Workers beyond a lowered limit leave when
    /// they have done what they are at.
    ///
    /// # Errors
    /// `EINVAL` for a number beyond `i32::MAX`, and for a ring on a device,
    /// which has no workers.
    pub fn register_iowq_max_workers(&self, max: &mut [u32; 2]) -> io::Result<()> {
        self.call(Call::MaxWorkers(max)).map(drop)
    }

    /// The clock that waits go by (`IORING_REGISTER_CLOCK`): `CLOCK_MONOTONIC`,
    /// as without this, or `CLOCK_BOOTTIME`, which runs on while the machine is
    /// suspended.
    ///
    /// # Errors
    /// `EINVAL` for any other.
    pub fn register_clock(&self, clock: libc::clockid_t) -> io::Result<()> {
        self.call(Call::RegisterClock(clock as u32)).map(drop)
    }

    /// What a ring that was set up disabled will be allowed to do when it is
    /// enabled; anything else is refused with `EACCES` then.
    ///
    /// # Errors
    /// `EBADFD` for a ring that is not disabled, `EBUSY` the second time,
    /// `EINVAL` for a restriction that is none.
    pub fn register_restrictions(&self, res: &mut [Restriction]) -> io::Result<()> {
        self.call(Call::RegisterRestrictions(res)).map(drop)
    }

    /// Enables a ring that was set up disabled.
    ///
    /// # Errors
    /// `EBADFD` for one that was not.
    pub fn register_enable_rings(&self) -> io::Result<()> {
        self.call(Call::EnableRings).map(drop)
    }

    /// Has every completion followed by a signal to the eventfd `eventfd`
    /// (`IORING_REGISTER_EVENTFD`). A ring that its owner drives also signals
    /// when there is something to fetch: after each look at the eventfd, look
    /// at [`Ring::completion`]. It stays the ring's until it is unregistered,
    /// whatever becomes of the number.
    ///
    /// # Errors
    /// `EBUSY` if there is one already, `EBADF` for a number that is no file,
    /// `EINVAL` for a file that is no eventfd (or if `/proc` does not say so).
    pub fn register_eventfd(&self, eventfd: RawFd) -> io::Result<()> {
        self.call(Call::RegisterEventfd { fd: eventfd, only_late: false }).map(drop)
    }

    /// As [`register_eventfd`](Self::register_eventfd), but not for completions
    /// that come of submitting itself (`IORING_REGISTER_EVENTFD_ASYNC`).
    ///
    /// # Errors
    /// As there.
    pub fn register_eventfd_async(&self, eventfd: RawFd) -> io::Result<()> {
        self.call(Call::RegisterEventfd { fd: eventfd, only_late: true }).map(drop)
    }

    /// Ends that.
    ///
    /// # Errors
    /// `ENXIO` if there is none.
    pub fn unregister_eventfd(&self) -> io::Result<()> {
        self.call(Call::UnregisterEventfd).map(drop)
    }

    /// Ends what matches, if it has not begun, and waits for what has
    /// (`IORING_REGISTER_SYNC_CANCEL`); not longer than `timeout`, and not if
    /// all that match are meant. The completion of what was ended is there when
    /// this returns.
    ///
    /// # Errors
    /// `ENOENT` if nothing matches, `ETIME` if the time was up, `EINTR` if a
    /// signal ended the wait, `EBADF` for a file that is none.
    pub fn register_sync_cancel(
        &self,
        timeout: Option<Timespec>,
        builder: CancelBuilder,
    ) -> io::Result<()> {
        self.call(Call::Cancel { what: builder, timeout }).map(drop)
    }

    /// `io_uring_register`: an operation by its number
    /// (`IORING_REGISTER_*` of [`annulus::uapi`]), with the argument and the
    /// count that the system call takes. Answers what that does.
    ///
    /// # Errors
    /// The kernel's; `EINVAL` also for what is not built.
    ///
    /// # Safety
    /// As for [`annulus::register::numbered`].
    pub unsafe fn register(&self, opcode: u32, arg: *mut c_void, nr_args: u32) -> io::Result<u32> {
        self.ring.guard.check()?;
        // SAFETY: the caller's promise, in both.
        let answer = unsafe {
            numbered(opcode, arg, nr_args, |call| self.ring.driver.call(&self.ring.remote, call))
        };
        u32::try_from(answer).map_err(|_| io::Error::from_raw_os_error(-answer))
    }

    /// Asks which opcodes the ring carries out.
    ///
    /// # Errors
    /// Only in a forked child, or when the ring has ended.
    pub fn register_probe(&self, probe: &mut Probe) -> io::Result<()> {
        self.call(Call::Probe(probe)).map(drop)
    }
}
