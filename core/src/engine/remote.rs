//! The outside's handles: bringing completions, and talking to an engine
//! that somebody else drives.

use super::wait::{Until, Waiting};
use super::{EnterFlags, Inbox, Shared, cancel_from_outside};
use crate::config::Mode;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::{Host, Parked, Token};
use crate::register::{Call, numbered};
use crate::slot::{Notice, Stale};
use crate::sync::{Ordering, fence};
use crate::types::{SubmitArgs, Timespec};
use crate::wake::{EventCount, wait_until};
use core::ffi::c_void;

/// Brings completions home from any thread, core or interrupt handler.
///
/// Lock-free: a CAS, a push, a full fence, and an unpark if the engine
/// sleeps.
pub struct Completer<'m, H> {
    shared: &'m Shared<'m, H>,
}

impl<H> Clone for Completer<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H> Copy for Completer<'_, H> {}

impl<'m, H: Host> Completer<'m, H> {
    pub(super) fn new(shared: &'m Shared<'m, H>) -> Self {
        Self { shared }
    }

    /// The request has ended with `result` (bytes, 0, or a negated errno).
    /// Everything written before is visible to who sees the CQE (Release,
    /// met by the engine's Acquire, published anew by the CQ tail).
    ///
    /// # Errors
    /// [`Stale`] if the token's request does not wait for this.
    pub fn complete(&self, token: Token, result: i32) -> Result<(), Stale> {
        self.post(token, Notice::Final(result))
    }

    /// The request can go on: the engine will call
    /// [`Backend::resume`](crate::hal::Backend::resume), which sees everything
    /// written before.
    ///
    /// # Errors
    /// [`Stale`] as above; also while an earlier notice has not been taken:
    /// what it leads to sees what this one tells of.
    pub fn ready(&self, token: Token) -> Result<(), Stale> {
        // Pairs with the fence before a resume, after QUEUED has been cleared:
        // either we see that, and our notice is taken, or the resume sees what
        // we tell of.
        if !fault::on(Fault::ReadyNoFence) {
            fence(Ordering::SeqCst);
        }
        self.post(token, Notice::Ready)
    }

    fn post(&self, token: Token, notice: Notice) -> Result<(), Stale> {
        let first = self.shared.slots.post(token, notice)?;
        if first && self.shared.mode == Mode::Inline {
            self.shared.show_taskrun();
            // Nobody posts CQEs while the application is elsewhere.
            self.shared.ring_eventfd();
        }
        if !fault::on(Fault::ReturnNoWake) {
            self.shared.wake_engine();
        }
        Ok(())
    }

    /// Wakes a sleeping engine without a completion: an interrupt handler
    /// whose device's queue the engine will poll.
    pub fn wake(&self) {
        self.shared.wake_engine();
    }

    /// Asks an application that drives its ring inline to do so: shows TASKRUN,
    /// for as long as [`Backend::unattended`](crate::hal::Backend::unattended)
    /// says. Any other ring is driven anyhow.
    pub fn call_in(&self) {
        if self.shared.mode == Mode::Inline {
            self.shared.show_taskrun();
            self.shared.ring_eventfd();
        }
    }

    /// The place the ring runs in.
    pub fn host(&self) -> &'m H {
        &self.shared.host
    }
}

/// What an application has of a ring whose engine somebody else drives.
pub struct Remote<'m, H> {
    shared: &'m Shared<'m, H>,
}

impl<H> Clone for Remote<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H> Copy for Remote<'_, H> {}

impl<'m, H: Host> Remote<'m, H> {
    pub(super) fn new(shared: &'m Shared<'m, H>) -> Self {
        Self { shared }
    }

    /// `io_uring_enter` of a ring under SQPOLL. Answers `to_submit`.
    ///
    /// # Errors
    /// `EOWNERDEAD` if the engine has ended, `EBADFD` before a ring that was set
    /// up disabled is enabled; with `to_submit` 0 also `ETIME`
    /// and `EINTR` of a wait, for CQEs only if there is none.
    pub fn enter(
        &self,
        to_submit: u32,
        min_complete: u32,
        flags: EnterFlags,
        until: impl Into<Until>,
    ) -> Result<u32, Errno> {
        if self.stopped() {
            return Err(Errno::EOWNERDEAD);
        }
        // Relaxed: who has enabled it has had the call's answer.
        if self.shared.disabled.load(Ordering::Relaxed) != 0 {
            return Err(Errno::EBADFD);
        }
        if flags.contains(EnterFlags::SQ_WAKEUP) {
            self.shared.wake_engine();
        }
        if flags.contains(EnterFlags::SQ_WAIT) {
            // A wait that ends early answers as one that did not, as in
            // Linux: the caller looks whether there is room.
            if let Err(Errno::EOWNERDEAD) = self.wait_sq_room(None) {
                return Err(Errno::EOWNERDEAD);
            }
        }
        if flags.contains(EnterFlags::GETEVENTS) {
            match self.wait_cqes(min_complete, until) {
                Err(errno) if to_submit == 0 => return Err(errno),
                _ => {}
            }
        }
        Ok(to_submit)
    }

    /// Waits until `want` CQEs are there (at most as many as the CQ holds), a
    /// timeout has ended, or as `until` says.
    ///
    /// # Errors
    /// `ETIME` and `EINTR` if there is not even one, and `EOWNERDEAD` if the
    /// engine ended meanwhile.
    pub fn wait_cqes(&self, want: u32, until: impl Into<Until>) -> Result<(), Errno> {
        let ring = &self.shared.ring;
        let want = want.min(ring.cqes.len() as u32);
        // Acquire: pairs with the Release in `Engine::tell_timeouts`.
        let timeouts = || {
            let order = fault::order(Fault::TimeoutsLoadRelaxed, Ordering::Acquire);
            self.shared.timeouts.load(order)
        };
        let mut waiting = Waiting::new(want, until.into(), ring.cq_total(), timeouts());
        loop {
            let over = || waiting.is_over(ring.cq_ready(), timeouts());
            match self.wait(waiting.time(&self.shared.host), over) {
                Err(Errno::ETIME)
                    if !waiting.times_out(ring.cq_ready(), ring.cq_total(), &self.shared.host) => {}
                // As in Linux, where one CQE is enough for a good answer.
                Err(Errno::ETIME | Errno::EINTR) if ring.cq_ready() != 0 => return Ok(()),
                waited => return waited,
            }
        }
    }

    /// Waits until the SQ has room.
    ///
    /// # Errors
    /// As [`wait_cqes`](Self::wait_cqes).
    pub fn wait_sq_room(&self, deadline: Option<u64>) -> Result<(), Errno> {
        let entries = self.shared.ring.sqes.len() as u32;
        self.wait(deadline, || self.shared.ring.sq_ready() < entries)
    }

    fn wait(&self, deadline: Option<u64>, ready: impl Fn() -> bool) -> Result<(), Errno> {
        let waited = wait_until(&self.shared.app_wait, &self.shared.host, deadline, || {
            ready() || self.stopped()
        });
        match waited {
            Ok(()) if ready() => Ok(()),
            Ok(()) => Err(Errno::EOWNERDEAD),
            Err(Parked::TimedOut) => Err(Errno::ETIME),
            Err(_) => Err(Errno::EINTR),
        }
    }

    /// Puts a call to the engine and waits for the answer.
    ///
    /// # Errors
    /// The call's; `ENXIO` if the engine has ended; `EINVAL` for an inline
    /// ring, whose owner has [`Engine::call`](super::Engine::call).
    ///
    /// # Safety
    /// As for [`Engine::call`](super::Engine::call). Not from the thread
    /// that drives the engine: it would wait for itself.
    pub unsafe fn call(&self, call: Call<'_>) -> Result<u32, Errno> {
        if self.shared.mode == Mode::Inline {
            return Err(Errno::EINVAL);
        }
        match call {
            Call::Cancel { what, timeout } => {
                self.cancel(timeout, || self.post(Call::Cancel { what, timeout }))
            }
            call => self.post(call),
        }
    }

    /// Puts one call into the mailbox.
    fn post(&self, call: Call<'_>) -> Result<u32, Errno> {
        self.shared.mailbox.call(&self.shared.host, call, || {
            if !fault::on(Fault::MailNoWake) {
                self.shared.wake_engine();
            }
        })
    }

    /// A call that cancels: `attempt` until what is under way has ended.
    pub(crate) fn cancel(
        &self,
        timeout: Option<Timespec>,
        attempt: impl FnMut() -> Result<u32, Errno>,
    ) -> Result<u32, Errno> {
        cancel_from_outside(&self.shared.host, &self.shared.app_wait, timeout, attempt)
    }

    /// As [`Engine::register`](super::Engine::register), by way of
    /// [`call`](Self::call).
    ///
    /// # Safety
    /// As for both.
    pub unsafe fn register(&self, opcode: u32, arg: *mut c_void, nr_args: u32) -> i32 {
        // SAFETY: the caller's promise, in both.
        unsafe { numbered(opcode, arg, nr_args, |call| self.call(call)) }
    }

    /// After SQEs were published: whether the polling engine must be woken by
    /// [`enter`](Self::enter) with `SQ_WAKEUP`. Contains the one full fence
    /// of a submission under SQPOLL.
    #[inline]
    pub fn need_wakeup(&self) -> bool {
        // Pairs with the fence in EventCount::prepare, before which the
        // engine shows NEED_WAKEUP: either we see it, or it sees our SQEs.
        if !fault::on(Fault::SubmitNoFence) {
            fence(Ordering::SeqCst);
        }
        self.shared.ring.sq_flags.load(Ordering::Relaxed) & crate::uapi::IORING_SQ_NEED_WAKEUP != 0
    }

    /// SQEs published and not yet taken: what `submit` asks for. From the
    /// ring's words, so that it may be asked while somebody else pushes.
    #[inline]
    pub fn sq_ready(&self) -> u32 {
        self.shared.ring.sq_ready()
    }

    /// The SQ's flag word (`IORING_SQ_*`), a hint unless the caller fences.
    #[inline]
    pub fn sq_flags(&self) -> u32 {
        // Relaxed: as said.
        self.shared.ring.sq_flags.load(Ordering::Relaxed)
    }

    /// Tells whoever drives the engine to come to an end. SQEs not taken yet
    /// stay where they are; what is in flight is ended first.
    pub fn stop(&self) {
        // Relaxed: no data goes with it; the fence in the notify orders it.
        self.shared.stop.store(1, Ordering::Relaxed);
        if !fault::on(Fault::StopNoWake) {
            self.shared.wake_engine();
        }
    }

    /// Whether the engine has ended.
    pub fn stopped(&self) -> bool {
        // Acquire: pairs with the Release in `Engine::shutdown`.
        let order = fault::order(Fault::StoppedLoadRelaxed, Ordering::Acquire);
        self.shared.stopped.load(order) != 0
    }

    pub(crate) fn stopping(&self) -> bool {
        self.shared.stopping()
    }

    pub(crate) fn has_work(&self) -> bool {
        self.shared.has_work()
    }

    pub(crate) fn engine_wait(&self) -> &'m EventCount {
        &self.shared.engine_wait
    }

    /// The ring as others of its place send it messages.
    pub fn inbox(&self) -> Inbox<'m>
    where
        H: Send + Sync,
    {
        Inbox::new(self.shared)
    }

    /// Writes what can be seen of the ring from outside, even if the engine
    /// hangs; [`Call::Dump`] tells more when it does not.
    ///
    /// # Errors
    /// Only `to`'s.
    pub fn dump(&self, to: &mut dyn core::fmt::Write) -> core::fmt::Result {
        self.shared.dump(to)
    }

    /// What the arguments of an `io_uring_enter` that begins now say: how long
    /// to wait, by the clock that has been registered for waits. Their time is a
    /// point in time if `absolute` (`IORING_ENTER_ABS_TIMER`).
    #[must_use]
    pub fn until(&self, args: &SubmitArgs, absolute: bool) -> Until {
        self.shared.until(args, absolute)
    }

    /// The place the ring runs in.
    pub fn host(&self) -> &'m H {
        &self.shared.host
    }
}
