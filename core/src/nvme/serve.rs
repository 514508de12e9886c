//! The backend at work: requests are started, completions found.

use core::ops::Deref;

use super::backend::{Completions, NvmeBackend};
use super::controller::{DEAD, GONE, KIND};
use super::identify::NamespaceInfo;
use super::spec::{Command, nvm};
use super::tracker::{MAX_SLOTS, NONE, Source};
use super::{Controller, Error, Platform};
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::device::PAGE;
use crate::hal::{Backend, Request, Start, Target, Token};
use crate::uapi;

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

    /// A read or write that is one command with a short data pointer: the way
    /// of most. `None` if it is not.
    #[inline(always)]
    fn start_short(
        &mut self,
        token: Token,
        ns: &NamespaceInfo,
        request: &Request<NamespaceInfo, P::Buffer>,
    ) -> Option<Start> {
        let opcode = match request.opcode {
            uapi::IORING_OP_READ_FIXED => nvm::READ,
            uapi::IORING_OP_WRITE_FIXED if !ns.read_only => nvm::WRITE,
            _ => return None,
        };
        let buffer = request.buffer?;
        let (shift, len, off) = (ns.block_shift, request.len, request.off);
        // Not empty, and no longer than a page, so in two at most, for which no
        // list is needed; a page away from the end; on the grid; no flags;
        // there is a queue pair, nobody waits, and the queue has room.
        if len.wrapping_sub(1) >= PAGE as u32
            || off >= ns.short_end
            || (u64::from(len) | off) & ((1 << shift) - 1) != 0
            || request.op_flags != 0
            || self.controller.state() != self.gate
            || self.in_flight >= self.most
        {
            return None;
        }
        let addr = request.addr as usize;
        let platform = self.controller.platform();
        let span = platform.span(&buffer, addr);
        let data2 = match span.device as usize % PAGE {
            0 => 0,
            offset if offset % 4 != 0 => return None,
            offset if len as usize <= PAGE - offset => 0,
            _ if fault::on(Fault::SecondPageLost) => span.device,
            offset if span.len >= len as usize => span.device + (PAGE - offset) as u64,
            _ => return None,
        };
        let tracker = self.trackers.get_mut(token.index())?;
        platform.sync_for_device(addr, len as usize);
        let block = off >> shift;
        let command = Command {
            opcode,
            psdt: 0,
            nsid: ns.id,
            data1: span.device,
            data2,
            dword10: block as u32,
            dword11: (block >> 32) as u32,
            dword12: (len >> shift) - 1,
        };
        if P::NEEDS_SYNC {
            (tracker.command, tracker.source, tracker.addr) =
                (command, Source::Mapped(buffer), addr);
            (tracker.part, tracker.left, tracker.chunk) = (len.into(), 0, NONE);
        }
        let raw = token.to_raw();
        let cid = tracker.hot.issue(P::NEEDS_SYNC, self.tick, raw, len as i32);
        self.in_flight += 1;
        self.pair.sq.push(&command, cid);
        Some(Start::Pending)
    }

    /// [`start`](Backend::start) for what is not short.
    ///
    /// # Safety
    /// As for [`start`](Backend::start).
    // By value: what is only read there need not lie in memory here.
    #[cold]
    #[inline(never)]
    unsafe fn start_long(
        &mut self,
        token: Token,
        ns: NamespaceInfo,
        request: Request<NamespaceInfo, P::Buffer>,
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
        match unsafe { self.plan(&ns, &request) } {
            Ok(plan) => self.enter(token, plan),
            Err(answer) => answer,
        }
    }

    /// A completion that is not the end of a simple request, or says that
    /// something went wrong, or is none of ours.
    #[cold]
    #[inline(never)]
    fn settle(&mut self, answer: u32, index: u16) -> Option<(Token, i32)> {
        let hot = self.trackers.get_mut(usize::from(index)).map(|tracker| &mut tracker.hot);
        let Some(hot) = hot.filter(|hot| hot.issued() && hot.cid() == answer as u16) else {
            self.stats.stale += 1;
            return None;
        };
        hot.idle();
        self.in_flight -= 1;
        let (token, simple, result) = (Token::from_raw(hot.token), !hot.complex(), hot.result);
        let status = super::Status::from_field((answer >> 17) as u16);
        if !status.is_success() {
            Some((token, self.failed(index, status)))
        } else if simple {
            Some((token, result))
        } else {
            self.part_done(index).map(|result| (token, result))
        }
    }

    /// What a poll does besides completions, of which it has `taken` some.
    #[inline(never)]
    fn look_around(&mut self, taken: u32) {
        self.polls = self.polls.wrapping_add(1);
        if taken == 0 {
            self.idle = self.idle.saturating_add(1);
        } else {
            self.idle = 0;
            if self.live() {
                let rung = self.pair.cq.release(self.controller.platform());
                self.stats.doorbells += u32::from(rung);
            }
        }
        if self.polls & self.look == 0 {
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
        match opcode {
            uapi::IORING_OP_READ
            | uapi::IORING_OP_WRITE
            | uapi::IORING_OP_READV
            | uapi::IORING_OP_WRITEV
            | uapi::IORING_OP_READ_FIXED
            | uapi::IORING_OP_WRITE_FIXED
            | uapi::IORING_OP_FSYNC => true,
            uapi::IORING_OP_FALLOCATE => info.write_zeroes || info.dataset_management,
            _ => false,
        }
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

    // Into the engine's loop: there the request stays in registers, and what is
    // the same for a run of reads is looked up once.
    #[inline(always)]
    unsafe fn start(&mut self, token: Token, request: &Request<NamespaceInfo, P::Buffer>) -> Start {
        let ns = match request.target {
            Target::Registered(ns) => ns,
            Target::Fd(nsid) => match self.look_up(nsid) {
                Ok(ns) => ns,
                Err(errno) => return Start::Done(errno.to_result()),
            },
        };
        match self.start_short(token, &ns, request) {
            Some(start) => start,
            // SAFETY: the caller's promise.
            None => unsafe { self.start_long(token, ns, *request) },
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
        // No more than there can be: a device that writes entries for ever
        // does not keep us here.
        let most = self.most + 1;
        let mut left = most;
        // Positions and counts of the loop, in registers.
        let mut answers = self.pair.cq.answers();
        let mut simple = 0;
        let mut looked = false;
        // One place that calls `done`, so that it is compiled into this loop
        // and what it keeps stays in registers, too.
        loop {
            let (token, result) = if let Some(answer) = answers.next(left) {
                left -= 1;
                let index = answer as u16 & (MAX_SLOTS as u16 - 1);
                match self.trackers.get_mut(usize::from(index)) {
                    Some(tracker) if tracker.hot.is_simple_end(answer) => {
                        tracker.hot.idle();
                        simple += 1;
                        (Token::from_raw(tracker.hot.token), tracker.hot.result)
                    }
                    _ => {
                        self.in_flight -= core::mem::take(&mut simple);
                        match self.settle(answer, index) {
                            Some(end) => end,
                            None => continue,
                        }
                    }
                }
            } else if !looked {
                self.in_flight -= core::mem::take(&mut simple);
                self.pair.cq.took(&answers);
                self.look_around(most - left);
                (looked, left) = (true, 0);
                continue;
            } else {
                let Some(index) = self.ended.pop(self.trackers) else { return };
                let hot = &self.trackers[usize::from(index)].hot;
                (Token::from_raw(hot.token), hot.result)
            };
            done(token, result);
        }
    }

    #[inline]
    fn polling(&self) -> bool {
        let busy = self.in_flight != 0 || !self.waiting.is_empty();
        match self.completions {
            Completions::Polled => busy,
            Completions::Interrupt(_) => busy && self.has_news(),
            Completions::Adaptive(_) => busy && (self.idle < SPINS || self.has_news()),
        }
    }

    fn deadline(&mut self) -> Option<u64> {
        self.next_look()
    }

    /// What waits ends in the next poll, which comes at once.
    fn cancel_all(&mut self) {
        self.cancelled = true;
        self.idle = 0;
    }
}
