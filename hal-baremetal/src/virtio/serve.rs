//! The backend at work: requests are started, completions found.

use core::ops::Deref;

use annulus::block::Medium;
use annulus::block::{NONE, Source};
use annulus::errno::Errno;
use annulus::fault::{self, Fault};
use annulus::hal::{Backend, Cancel, Kept, Request, Start, Target, Token};
use annulus::uapi;

use super::backend::DiskBackend;
use super::disk::{DEAD, GONE, KIND};
use super::issue::{NO_STATUS, head};
use super::places::STATUS;
use super::plan::DiskFile;
use super::queue::Next;
use super::spec::{HEADER_BYTES, feature, request as kind};
use super::tracker::{Hot, Issued, Tracker};
use super::{Disk, Lie, Platform, Transport};

impl<'m, P: Platform, T: Transport, D: Deref<Target = Disk<P, T>>> DiskBackend<'m, P, T, D> {
    /// A read or write that is one request with one piece of memory: the way
    /// of most. `None` if it is not.
    #[inline(always)]
    fn start_short(
        &mut self,
        token: Token,
        request: &Request<DiskFile, P::Buffer>,
    ) -> Option<Start> {
        let reads = match request.opcode {
            uapi::IORING_OP_READ_FIXED => true,
            uapi::IORING_OP_WRITE_FIXED if !self.read_only => false,
            _ => return None,
        };
        let buffer = request.buffer?;
        let (len, off) = (request.len, request.off);
        // Not empty, no longer than a piece may be; inside the disk and on the
        // grid; no flags; there is a queue, and nobody waits.
        if len.wrapping_sub(1) >= self.piece.min(self.max_part)
            || off > self.bytes
            || u64::from(len) > self.bytes - off
            || (u64::from(len) | off) & self.block_mask != 0
            || request.op_flags != 0
            || self.disk.state() != self.gate
            || token.index() >= self.trackers.len()
        {
            return None;
        }
        let addr = request.addr as usize;
        let platform = self.disk.platform();
        let span = platform.span(&buffer, addr);
        if span.len < len as usize {
            return None;
        }
        let id = self.take_place()?;
        let platform = self.disk.platform();
        platform.sync_for_device(addr, len as usize);
        let memory = self.memory(id);
        let place = self.place(id, memory);
        // SAFETY: a free place was taken, so it has nothing in flight.
        let count = unsafe {
            head(memory, if reads { kind::IN } else { kind::OUT }, off);
            let mut chain = self.ring.open(place);
            chain.add(memory.device, HEADER_BYTES, false);
            chain.add(span.device, len, reads);
            chain.end(memory.device + STATUS as u64, 1);
            self.ring.close(place, &chain)
        };
        if P::NEEDS_SYNC {
            // Data are to be fetched from behind the cache.
            let tracker = &mut self.trackers[token.index()];
            (tracker.kind, tracker.source) =
                (if reads { kind::IN } else { kind::OUT }, Source::Mapped(buffer));
            (tracker.addr, tracker.position) = (addr, off);
            (tracker.part, tracker.left, tracker.chunk) = (len.into(), 0, NONE);
            (tracker.result, tracker.sync) = (len as i32, false);
        }
        self.trackers[usize::from(id)].hot = Hot {
            token: token.to_raw(),
            result: len as i32,
            stamp: self.pace.tick(),
            most: if reads { len + 1 } else { 1 },
            count,
            next: NONE,
            issued: if P::NEEDS_SYNC { Issued::Complex } else { Issued::Simple },
        };
        self.in_flight += 1;
        Some(Start::Pending)
    }

    /// [`start`](Backend::start) for what is not short.
    ///
    /// # Safety
    /// As for [`start`](Backend::start).
    // By value: what is only read there need not lie in memory here.
    #[cold]
    #[inline(never)]
    unsafe fn start_long(&mut self, token: Token, request: Request<DiskFile, P::Buffer>) -> Start {
        match self.disk.state() & KIND {
            GONE => return Start::Done(Errno::ENODEV.to_result()),
            DEAD => return Start::Done(Errno::EIO.to_result()),
            _ => {}
        }
        if token.index() >= self.trackers.len() {
            return Start::Done(Errno::EINVAL.to_result());
        }
        // SAFETY: the caller's promise.
        match unsafe { self.plan(token.index(), &request) } {
            Ok(plan) => self.enter(token, plan),
            Err(answer) => answer,
        }
    }

    /// The status byte of a place, which is read once.
    #[inline(always)]
    pub(super) fn status(&self, id: u16) -> u8 {
        // SAFETY: the place's memory; volatile, for the device writes it.
        unsafe { self.memory(id).at.cast::<u8>().add(STATUS).read_volatile() }
    }

    /// The good end of a simple request, the way of most. If it is not, the
    /// status that was read.
    #[inline(always)]
    fn take(&mut self, place: u32, len: u32) -> Result<(Token, i32), u8> {
        let Some(tracker) = self.trackers.get(place as usize) else { return Err(NO_STATUS) };
        let hot = tracker.hot;
        let idle = hot.issued == Issued::No && !fault::on(Fault::UsedIdle);
        if idle || len > hot.most {
            return Err(NO_STATUS);
        }
        let status = self.status(place as u16);
        if hot.issued != Issued::Simple || status != 0 {
            return Err(status);
        }
        self.ring.took(hot.count);
        self.free_place(place as u16);
        self.in_flight -= 1;
        Ok((Token::from_raw(hot.token), hot.result))
    }

    /// A used entry that is not the good end of a simple request, with the
    /// status that was read if it was the end of one at all.
    #[cold]
    #[inline(never)]
    fn settle(&mut self, place: u32, len: u32, status: u8) -> Option<(Token, i32)> {
        let known = self.trackers.get(place as usize).map(|tracker| tracker.hot);
        let Some(hot) = known.filter(|hot| hot.issued != Issued::No || fault::on(Fault::UsedIdle))
        else {
            self.accuse(Lie::Id(place));
            return None;
        };
        let id = place as u16;
        let lie = match status {
            _ if len > hot.most => Some(Lie::Length(len)),
            NO_STATUS => Some(Lie::NoStatus),
            _ => None,
        };
        if let Some(lie) = lie {
            // It ends with all others, when the device is quiet.
            self.accuse(lie);
            return None;
        }
        self.ring.took(hot.count);
        self.free_place(id);
        self.in_flight -= 1;
        let token = Token::from_raw(hot.token);
        let index = token.index() as u16;
        let complex = hot.issued == Issued::Complex;
        if status != 0 {
            let (kind, position) = match complex {
                true => {
                    let tracker = &self.trackers[token.index()];
                    let (kind, position) = (tracker.kind, tracker.position);
                    self.free_parts(index);
                    (kind, position)
                }
                // The short way keeps no copy of its request.
                false => (if hot.most == 1 { kind::OUT } else { kind::IN }, 0),
            };
            return Some((token, self.failed(kind, position, status)));
        }
        if !complex {
            return Some((token, hot.result));
        }
        self.part_done(index).map(|result| (token, result))
    }

    /// What a poll does besides completions, of which it has `taken` some.
    #[inline(never)]
    fn look_around(&mut self, taken: u32) {
        if taken == 0 {
            self.idle = self.idle.saturating_add(1);
            if self.idle >= self.spins && !self.asked && self.in_flight != 0 && !self.polled() {
                self.asked = true;
                self.ring.ask();
            }
        } else {
            self.idle = 0;
            if core::mem::take(&mut self.asked) && self.disk.features() & feature::EVENT_IDX == 0 {
                // With event indices it was for one entry only.
                self.ring.hush();
            }
        }
        if self.pace.poll() {
            self.look_at_clock();
        }
        if self.disk.changes() != self.changes {
            self.notice_changes();
        }
        if self.disk.state() != self.seen || self.armed != self.seen {
            self.notice_state();
        }
        if !self.waiting.is_empty() {
            if self.cancelled {
                self.end_waiting(Errno::ECANCELED);
            }
            self.issue_waiting();
        }
        annulus::hal::Backend::kick(self);
    }

    #[cold]
    pub(super) fn notify(&mut self) {
        self.stats.notifications += 1;
        let data = self.disk.features() & feature::NOTIFICATION_DATA != 0;
        let position = if data { u32::from(self.ring.position()) << 16 } else { 0 };
        self.disk.transport().notify(self.at, u32::from(self.queue) | position, data);
    }
}

impl<P: Platform, T: Transport, D: Deref<Target = Disk<P, T>>> Backend
    for DiskBackend<'_, P, T, D>
{
    type File = DiskFile;
    type Buffer = P::Buffer;

    fn supports(&self, opcode: u8) -> bool {
        Medium::carries_out(opcode)
            && (!Medium::asks_device(opcode)
                || self.info.max_zeroes != 0
                || self.info.max_discard != 0)
    }

    fn iopoll(&self) -> bool {
        self.polled()
    }

    fn is_open(&mut self, fd: i32) -> bool {
        fd == 0
    }

    fn open(&mut self, fd: i32) -> Result<DiskFile, Errno> {
        if fd == 0 { Ok(DiskFile(())) } else { Err(Errno::EBADF) }
    }

    fn close(&mut self, _: DiskFile) {}

    unsafe fn map(&mut self, addr: usize, len: usize) -> Result<P::Buffer, Errno> {
        // SAFETY: the caller's promise.
        unsafe { self.disk.platform().map(addr, len) }
    }

    fn unmap(&mut self, buffer: P::Buffer) {
        self.disk.platform().unmap(buffer);
    }

    const SHARES_MAPPINGS: bool = P::SHARES_MAPPINGS;

    // Into the engine's loop: there the request stays in registers.
    #[inline(always)]
    unsafe fn start(&mut self, token: Token, request: &Request<DiskFile, P::Buffer>) -> Start {
        match request.target {
            Target::Registered(_) | Target::Fd(0) => {}
            Target::Fd(_) => return Start::Done(Errno::EBADF.to_result()),
        }
        match self.start_short(token, request) {
            Some(start) => start,
            // SAFETY: the caller's promise.
            None => unsafe { self.start_long(token, *request) },
        }
    }

    #[inline]
    fn kick(&mut self) {
        if self.live() && self.ring.publish() {
            self.notify();
        }
    }

    #[inline]
    fn poll(&mut self, mut done: impl FnMut(Token, i32)) {
        // No more than there can be: a device that writes entries for ever
        // does not keep us here. None of an incarnation that has ended: its
        // requests end otherwise.
        let mut left = if self.live() { self.most + 1 } else { 0 };
        let mut taken = 0;
        let mut looked = false;
        // One place that calls `done`, so that it is compiled into this loop.
        loop {
            let (token, result) = if left != 0 {
                match self.ring.next(self.shift, self.in_flight) {
                    Next::Used { place, len } => {
                        (left, taken) = (left - 1, taken + 1);
                        match self.take(place, len) {
                            Ok(end) => end,
                            Err(status) => match self.settle(place, len, status) {
                                Some(end) => end,
                                None => {
                                    // Nothing more of a device that has lied.
                                    left = if self.live() { left } else { 0 };
                                    continue;
                                }
                            },
                        }
                    }
                    Next::Nothing => {
                        left = 0;
                        continue;
                    }
                    Next::Lie(lie) => {
                        self.accuse(lie);
                        left = 0;
                        continue;
                    }
                }
            } else if !looked {
                self.look_around(taken);
                looked = true;
                continue;
            } else {
                let Some(index) = self.ended.pop(self.trackers) else { return };
                let tracker = &self.trackers[usize::from(index)];
                (Token::from_raw(tracker.token), tracker.result)
            };
            done(token, result);
        }
    }

    #[inline]
    fn polling(&self) -> bool {
        let busy = self.in_flight != 0 || !self.waiting.is_empty() || !self.ended.is_empty();
        busy && (!self.asked || self.has_news())
    }

    fn deadline(&mut self) -> Option<u64> {
        self.next_look()
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
        let (index, raw) = (token.index() as u16, token.to_raw());
        let same = |tracker: &&Tracker<_>| tracker.token == raw && !tracker.has_begun();
        if self.trackers.get(token.index()).filter(same).is_none()
            || !self.waiting.remove(self.trackers, index)
        {
            return Cancel::Running;
        }
        self.set_gate();
        self.end(index, raw, true, Errno::ECANCELED);
        Cancel::Ended
    }

    /// What waits ends in the next poll, which comes at once.
    fn cancel_all(&mut self) {
        self.cancelled = true;
        self.idle = 0;
    }
}
