//! `enter`: submit, wait, and how much of it was done.

use super::Engine;
use super::submit::{Batch, End};
use super::wait::Until;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Host};
use crate::op::Kind;
use crate::uapi;

bitflags::bitflags! {
    /// `IORING_ENTER_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EnterFlags: u32 {
        /// Wait for `min_complete` CQEs.
        const GETEVENTS = uapi::IORING_ENTER_GETEVENTS;
        /// Wake a sleeping submission thread.
        const SQ_WAKEUP = uapi::IORING_ENTER_SQ_WAKEUP;
        /// Wait until the SQ has room (SQPOLL).
        const SQ_WAIT = uapi::IORING_ENTER_SQ_WAIT;
        /// It is given how long to wait.
        const EXT_ARG = uapi::IORING_ENTER_EXT_ARG;
        /// The time given is a point in time ([`Until::new`]).
        const ABS_TIMER = uapi::IORING_ENTER_ABS_TIMER;
        /// The wait does not count as one for I/O. None does here.
        const NO_IOWAIT = uapi::IORING_ENTER_NO_IOWAIT;
    }
}

impl EnterFlags {
    /// The flags of these bits.
    ///
    /// # Errors
    /// `EINVAL` for a bit whose promise is not kept here.
    pub fn checked(bits: u32) -> Result<Self, Errno> {
        Self::from_bits(bits).ok_or(Errno::EINVAL)
    }
}

/// What [`Engine::enter`] was asked for.
struct Asked {
    to_submit: u32,
    min_complete: u32,
    waiting: bool,
    until: Until,
}

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// `io_uring_enter` for the thread that owns the engine.
    ///
    /// Takes up to `to_submit` SQEs; then, with GETEVENTS and if all of them
    /// were taken, waits until `min_complete` CQEs are there (at most as many
    /// as the CQ holds), a timeout has ended, or as `until` says: a deadline on
    /// the host's clock, none, or an [`Until`].
    ///
    /// Answers the number of SQEs taken, failing ones included.
    ///
    /// # Errors
    /// `EOWNERDEAD` after [`shutdown`](Self::shutdown), `EBADFD` before a ring
    /// that was set up disabled is enabled. If nothing was taken:
    /// `EBUSY` if no request can be had (reap, then try
    /// again), `ETIME` if the deadline passed, `EINTR` if the wait was
    /// interrupted, these two only if there is no CQE at all.
    #[inline(always)]
    pub fn enter(
        &mut self,
        to_submit: u32,
        min_complete: u32,
        flags: EnterFlags,
        until: impl Into<Until>,
    ) -> Result<u32, Errno> {
        let until = until.into();
        let waiting = flags.contains(EnterFlags::GETEVENTS) && !fault::on(Fault::WaitForgotten);
        // Made where it is needed: the short way does without.
        let asked = || Asked { to_submit, min_complete, waiting, until };
        // The SQ first: whoever has pushed an entry may have sent a file before,
        // which shows TASKRUN.
        if !self.sq.has(to_submit) || !self.quiet() || fault::on(Fault::LastSqeLeft) {
            return self.enter_slow(0, asked());
        }
        // One at a time is worth a way of its own, without a loop.
        if to_submit == 1 {
            if !self.room_for_run(1) || !self.run(1).1 {
                return self.enter_ready(0, asked());
            }
        } else {
            if self.next_kind() != Kind::Nop || !self.room_for_run(to_submit) {
                return self.enter_ready(0, asked());
            }
            let (taken, all) = self.run_many(to_submit);
            if !all {
                return self.enter_ready(taken, asked());
            }
        }
        // What is posted here cannot have been reaped yet, so as many as were
        // submitted need no look.
        if waiting && !(1..=to_submit).contains(&min_complete) && self.lacks(min_complete) {
            return self.enter_slow(to_submit, asked());
        }
        self.sq.commit();
        self.cq.post();
        self.shared.host.cqes_posted();
        Ok(to_submit)
    }

    /// [`enter`](Self::enter) when there is more to do than it did, having
    /// taken `taken` SQEs.
    #[inline(never)]
    fn enter_slow(&mut self, taken: u32, asked: Asked) -> Result<u32, Errno> {
        if self.disabled() {
            return Err(Errno::EBADFD);
        }
        // Of those that another thread pushes meanwhile none is taken.
        let ready = taken + (asked.to_submit - taken).min(self.sq.ready());
        self.progress();
        let submitted = self.enter_submit(ready, taken);
        self.enter_wait(submitted, &asked)
    }

    /// [`enter_slow`](Self::enter_slow) when the SQEs asked for are ready and
    /// nothing else waits to be done.
    #[inline(never)]
    fn enter_ready(&mut self, taken: u32, asked: Asked) -> Result<u32, Errno> {
        let batch = self.submit_some(asked.to_submit, taken);
        let submitted = self.submitted(batch);
        self.enter_wait(submitted, &asked)
    }

    /// The waiting part of [`enter`](Self::enter), and its end.
    #[inline(always)]
    fn enter_wait(&mut self, submitted: Result<u32, Errno>, asked: &Asked) -> Result<u32, Errno> {
        let mut answer = submitted;
        if asked.waiting && submitted == Ok(asked.to_submit) {
            // What a polled backend has done meanwhile is often enough.
            if self.backend.polling() {
                self.poll_backend();
                // The next call may be one that looks at nothing.
                if self.engaged && !fault::on(Fault::PolledEndFollowedLate) {
                    self.settle();
                }
            }
            if self.lacks(asked.min_complete)
                && let Err(errno) = self.wait(asked.min_complete, asked.until)
                && asked.to_submit == 0
            {
                answer = Err(errno);
            }
        }
        self.publish();
        answer
    }

    /// The submitting part of [`enter`](Self::enter), of which `taken` SQEs
    /// have been done.
    #[inline]
    pub(crate) fn enter_submit(&mut self, to_submit: u32, taken: u32) -> Result<u32, Errno> {
        if self.down && !fault::on(Fault::EndNotChecked) {
            return Err(Errno::EOWNERDEAD);
        }
        if to_submit == 0 {
            return Ok(0);
        }
        let batch = self.submit(to_submit, taken);
        self.submitted(batch)
    }

    /// Gives the entries of a batch back to the application. What
    /// [`enter`](Self::enter) says of them.
    #[inline(always)]
    fn submitted(&mut self, batch: Batch) -> Result<u32, Errno> {
        // Nothing is stored in vain: a polling engine comes here all the time.
        if batch.progress() {
            self.sq.commit();
        }
        if batch.taken == 0 && batch.end == End::Busy {
            return Err(Errno::EBUSY);
        }
        Ok(batch.taken)
    }

    /// Whether there are not `want` CQEs yet. Who came for completions and
    /// nothing else (0) looks for more.
    #[inline(always)]
    fn lacks(&self, want: u32) -> bool {
        want == 0 || self.cq.unread() < want
    }
}
