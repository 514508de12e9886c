//! The backend at work: requests are started, completions found.

use core::ops::Deref;

use super::backend::{Completions, NvmeBackend};
use super::controller::{DEAD, GONE, KIND};
use super::identify::NamespaceInfo;
use super::tracker::{Hot, MAX_SLOTS, Tracker};
use super::{Controller, Error, Platform};
use crate::block::Medium;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::{Alike, Backend, Cancel, Kept, Piece, Request, Run, Start, Target, Token};
use crate::stats::{DeviceStats, Stats};

/// Polls in vain after which an adaptive ring sleeps.
const SPINS: u32 = 256;

impl<'m, P: Platform, C: Deref<Target = Controller<P>>> NvmeBackend<'m, P, C> {
    /// The namespace of this number.
    #[cold]
    fn look_up(&mut self, nsid: i32) -> Result<NamespaceInfo, Errno> {
        let nsid = u32::try_from(nsid).map_err(|_| Errno::EBADF)?;
        if let Some(at) = self.known.iter().position(|ns| ns.is_some_and(|ns| ns.id == nsid)) {
            self.known[..=at].rotate_right(1);
        } else {
            let found = self.controller.namespace(nsid).map_err(Error::errno)?;
            self.known.rotate_right(1);
            self.known[0] = Some(found);
        }
        self.known[0].ok_or(Errno::EBADF)
    }

    /// The namespace that a request is for.
    #[inline(always)]
    fn namespace(&mut self, target: Target<NamespaceInfo>) -> Result<NamespaceInfo, Errno> {
        match target {
            Target::Registered(ns) => Ok(ns),
            Target::Fd(nsid) => self.look_up(nsid),
        }
    }

    /// [`start`](Backend::start) for what is not short.
    ///
    /// # Safety
    /// As for [`start`](Backend::start).
    #[cold]
    #[inline(never)]
    unsafe fn start_long(
        &mut self,
        token: Token,
        ns: &NamespaceInfo,
        request: &Request<NamespaceInfo, P::Buffer>,
    ) -> Start {
        match self.controller.state() & KIND {
            GONE => return Start::Done(Errno::ENODEV.to_result()),
            DEAD => return Start::Done(Errno::EIO.to_result()),
            _ if self.lost && self.controller.state() == self.seen => {
                return Start::Done(Errno::EIO.to_result());
            }
            _ => {}
        }
        if token.index() >= self.trackers.len() {
            return Start::Done(Errno::EINVAL.to_result());
        }
        // SAFETY: the caller's promise.
        match unsafe { self.plan(token.index(), ns, request) } {
            Ok(plan) => self.enter(token, plan),
            Err(answer) => answer,
        }
    }

    /// [`start_long`](Self::start_long) of one of a run.
    ///
    /// # Safety
    /// As for [`start`](Backend::start).
    #[cold]
    #[inline(never)]
    unsafe fn start_next(
        &mut self,
        alike: Alike<'_, NamespaceInfo, P::Buffer>,
        piece: &Piece,
    ) -> Start {
        // SAFETY: the caller's promise.
        unsafe { self.start_long(piece.token, alike.file, &alike.request(piece)) }
    }

    /// A completion that is not the end of a simple request, or says that
    /// something went wrong, or is none of ours.
    #[cold]
    #[inline(never)]
    fn settle(&mut self, answer: u32, index: u16) -> Option<(Token, i32)> {
        let hot = self.trackers.get_mut(usize::from(index)).map(|tracker| &mut tracker.hot);
        let same = |hot: &Hot| hot.cid() == answer as u16 || fault::on(Fault::AnswerOfOthers);
        let Some(hot) = hot.filter(|hot| hot.issued() && same(hot)) else {
            self.stats.stale += 1;
            return None;
        };
        let (token, complex, result) = (hot.token, hot.complex(), hot.result);
        self.in_flight -= 1;
        let status = super::Status::from_field((answer >> 17) as u16);
        if !status.is_success() {
            return Some((token, self.failed(index, status)));
        }
        hot.idle();
        if complex {
            self.part_done(index).map(|result| (token, result))
        } else {
            Some((token, result))
        }
    }

    /// What a poll does besides completions, of which it has `taken` some.
    #[inline(never)]
    fn look_around(&mut self, taken: u32) {
        if taken == 0 {
            self.idle = self.idle.saturating_add(1);
        } else {
            self.idle = 0;
            if self.live() {
                let rung = self.pair.cq.release_some(self.controller.platform());
                self.stats.doorbells += u32::from(rung);
            }
        }
        if self.pace.poll() {
            self.look_at_clock();
        }
        if self.controller.state() != self.seen {
            self.notice_state();
        }
        if !self.waiting.is_empty() {
            if self.cancelled {
                self.end_waiting(Errno::ECANCELED);
            }
            self.issue_waiting();
        }
        self.kick();
    }
}

impl<P: Platform, C: Deref<Target = Controller<P>>> Backend for NvmeBackend<'_, P, C> {
    type File = NamespaceInfo;
    type Buffer = P::Buffer;

    fn supports(&self, opcode: u8) -> bool {
        let info = self.controller.info();
        Medium::carries_out(opcode)
            && (!Medium::asks_device(opcode) || info.write_zeroes || info.dataset_management)
    }

    fn iopoll(&self) -> bool {
        self.polled()
    }

    fn is_open(&mut self, fd: i32) -> bool {
        self.look_up(fd).is_ok()
    }

    fn open(&mut self, fd: i32) -> Result<NamespaceInfo, Errno> {
        let nsid = u32::try_from(fd).map_err(|_| Errno::EBADF)?;
        // Not what is known of it: its size may have changed.
        self.controller.namespace(nsid).map_err(Error::errno)
    }

    fn close(&mut self, _: NamespaceInfo) {}

    unsafe fn map(&mut self, addr: usize, len: usize) -> Result<P::Buffer, Errno> {
        // SAFETY: the caller's promise.
        unsafe { self.controller.platform().map(addr, len) }
    }

    fn unmap(&mut self, buffer: P::Buffer) {
        self.controller.platform().unmap(buffer);
    }

    const SHARES_MAPPINGS: bool = P::SHARES_MAPPINGS;

    #[inline]
    unsafe fn start(&mut self, token: Token, request: &Request<NamespaceInfo, P::Buffer>) -> Start {
        let ns = match self.namespace(request.target) {
            Ok(ns) => ns,
            Err(errno) => return Start::Done(errno.to_result()),
        };
        if let (Some(buffer), 0) = (&request.buffer, request.op_flags) {
            let &Request { addr, len, off, .. } = request;
            let piece = Piece { token, addr, len, off };
            let alike = Alike { opcode: request.opcode, file: &ns, buffer };
            if let Some(mut short) = self.short(alike)
                && short.start(&piece)
            {
                self.went_short(1);
                return Start::Pending;
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.start_long(token, &ns, request) }
    }

    // Into the engine's loop: there the pieces stay in registers.
    #[inline(always)]
    unsafe fn start_run(&mut self, alike: Alike<'_, NamespaceInfo, P::Buffer>, run: &mut impl Run) {
        loop {
            while let Some(short) = self.short(alike) {
                let room = short.room();
                run.limit(room);
                let count = short.start_all(run);
                self.went_short(count);
                if count != room || room == 0 {
                    break;
                }
                // The queue's memory may begin anew.
            }
            // The next is not short, or there is no room for it, or no next.
            run.limit(1);
            let Some(piece) = run.next() else { return };
            // SAFETY: the caller's promise.
            let start = unsafe { self.start_next(alike, &piece) };
            if !run.answer(start) {
                return;
            }
        }
    }

    #[inline]
    fn kick(&mut self) {
        if self.live() {
            let rung = self.pair.sq.kick(self.controller.platform());
            self.stats.doorbells += u32::from(rung);
        }
    }

    #[inline]
    fn poll(&mut self, mut done: impl FnMut(Token, i32)) {
        // Positions and counts of the loop, in registers.
        let mut answers = self.pair.cq.answers();
        let (mut others, mut taken) = (0, 0);
        // To the end of the queue's memory, and from its start once more: a
        // device that writes entries for ever does not keep us here.
        let mut again = true;
        // One place that calls `done`, so that it is compiled into this loop
        // and what it keeps stays in registers, too.
        loop {
            let (token, result) = if let Some(answer) = answers.next() {
                let index = answer as u16 & (MAX_SLOTS as u16 - 1);
                if let Some(tracker) = self.trackers.get_mut(usize::from(index))
                    && tracker.hot.end_simple(answer)
                {
                    (tracker.hot.token, tracker.hot.result)
                } else {
                    others += 1;
                    match self.settle(answer, index) {
                        Some(end) => end,
                        None => continue,
                    }
                }
            } else if !answers.stopped() {
                let (walked, wrapped) = self.pair.cq.took(&answers);
                // The others have seen to it themselves.
                self.in_flight -= walked - core::mem::take(&mut others);
                taken += walked;
                if wrapped && core::mem::take(&mut again) {
                    answers = self.pair.cq.answers();
                } else {
                    self.look_around(taken);
                    answers.stop();
                }
                continue;
            } else {
                let Some(index) = self.ended.pop(self.trackers) else { return };
                let hot = &self.trackers[usize::from(index)].hot;
                (hot.token, hot.result)
            };
            done(token, result);
        }
    }

    #[inline]
    fn polling(&self) -> bool {
        let busy = self.in_flight != 0 || !self.waiting.is_empty() || !self.ended.is_empty();
        match self.completions {
            Completions::Polled => busy,
            Completions::Interrupt(_) => busy && self.has_news(),
            Completions::Adaptive(_) => busy && (self.idle < SPINS || self.has_news()),
        }
    }

    fn deadline(&mut self) -> Option<u64> {
        self.next_look()
    }

    fn count(&self, stats: &mut Stats) {
        let own = &self.stats;
        stats.device = DeviceStats {
            doorbells: own.doorbells,
            bounced: own.bounced,
            waited: own.waited,
            failed: own.failed,
            aborts: own.aborts,
            resets: own.resets,
            stale: own.stale,
        };
    }

    unsafe fn keep(
        &mut self,
        index: usize,
        opcode: u8,
        addr: u64,
        len: u32,
    ) -> Result<Kept, Errno> {
        let Some(tracker) = self.trackers.get_mut(index) else { return Err(Errno::EINVAL) };
        // SAFETY: the caller's promise.
        unsafe { self.copies.keep(&mut tracker.kept, opcode, addr, len) }
    }

    fn forget(&mut self, index: usize) {
        if let Some(tracker) = self.trackers.get_mut(index) {
            self.copies.forget(&mut tracker.kept);
        }
    }

    /// What the device has not seen ends in the next poll, which comes at once.
    #[cold]
    fn cancel(&mut self, token: Token) -> Cancel {
        let index = token.index() as u16;
        let same = |tracker: &&Tracker<_>| tracker.hot.token == token && !tracker.has_begun();
        if self.trackers.get(token.index()).filter(same).is_none()
            || !self.waiting.remove(self.trackers, index)
        {
            return Cancel::Running;
        }
        self.set_gate();
        self.end(index, Errno::ECANCELED);
        Cancel::Ended
    }

    /// What waits ends in the next poll, which comes at once.
    fn cancel_all(&mut self) {
        self.cancelled = true;
        self.idle = 0;
    }
}
