//! From a request to commands: checks, parts, data pointers.

use core::ops::Deref;

use super::backend::NvmeBackend;
use super::identify::NamespaceInfo;
use super::prp::{self, List};
use super::spec::{self, Command, nvm};
use super::tracker::stamp;
use super::{Controller, Platform};
use crate::block::{Medium, NONE, Source, Transfer};
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::device::{PAGE, Span};
use crate::hal::{Request, Start, Token};
use crate::uapi;

/// A hole whose bytes may read as anything: no more than a hint.
const HINT: i32 = uapi::FALLOC_FL_PUNCH_HOLE | uapi::FALLOC_FL_NO_HIDE_STALE;
/// Blocks of one command (16 bits, 0's based).
pub(super) const MAX_BLOCKS: u64 = 1 << 16;

/// What a request comes to, after all checks.
pub(super) struct Plan<B> {
    pub command: Command,
    pub source: Source<B>,
    pub addr: usize,
    pub position: u64,
    /// Bytes of the namespace; 0 for a command without a range.
    pub bytes: u64,
    pub result: i32,
    pub block_shift: u8,
}

type Planned<B> = Result<Plan<B>, Start>;

fn done<B>(errno: Errno) -> Planned<B> {
    Err(Start::Done(errno.to_result()))
}

impl<'m, P: Platform, C: Deref<Target = Controller<P>>> NvmeBackend<'m, P, C> {
    /// Checks the request of a slot and says what has to be done for it.
    ///
    /// # Safety
    /// The request's memory is valid, for as long as the request lasts.
    #[inline(never)]
    pub(super) unsafe fn plan(
        &mut self,
        slot: usize,
        ns: &NamespaceInfo,
        request: &Request<NamespaceInfo, P::Buffer>,
    ) -> Planned<P::Buffer> {
        match request.opcode {
            uapi::IORING_OP_READ
            | uapi::IORING_OP_READ_FIXED
            | uapi::IORING_OP_READV
            | uapi::IORING_OP_WRITE
            | uapi::IORING_OP_WRITE_FIXED
            | uapi::IORING_OP_WRITEV => {
                // SAFETY: the caller's promise.
                unsafe { self.plan_transfer(slot, ns, request) }
            }
            uapi::IORING_OP_FSYNC
                if !self.controller.info().write_cache || fault::on(Fault::FlushForgotten) =>
            {
                Err(Start::Done(0))
            }
            uapi::IORING_OP_FSYNC => Ok(self.bare(ns, nvm::FLUSH, 0, 0)),
            uapi::IORING_OP_FALLOCATE => self.plan_allocation(ns, request),
            _ => done(Errno::EINVAL),
        }
    }

    fn bare(&self, ns: &NamespaceInfo, opcode: u8, position: u64, bytes: u64) -> Plan<P::Buffer> {
        Plan {
            command: Command { opcode, nsid: ns.id, ..Command::default() },
            source: Source::None,
            addr: 0,
            position,
            bytes,
            result: 0,
            block_shift: ns.block_shift,
        }
    }

    fn medium(&self, ns: &NamespaceInfo) -> Medium {
        Medium {
            bytes: ns.bytes,
            block: ns.block(),
            read_only: ns.read_only,
            polled: self.polled(),
        }
    }

    /// A read or write.
    ///
    /// # Safety
    /// As for [`plan`](Self::plan).
    unsafe fn plan_transfer(
        &mut self,
        slot: usize,
        ns: &NamespaceInfo,
        request: &Request<NamespaceInfo, P::Buffer>,
    ) -> Planned<P::Buffer> {
        // SAFETY: the caller's promise.
        let bytes = unsafe { self.copies.bytes(self.trackers[slot].kept, request) }?;
        let transfer = self.medium(ns).transfer(request, bytes)?;
        let Transfer { write, position, bytes, addr, sync, .. } = transfer;
        let opcode = if write { nvm::WRITE } else { nvm::READ };
        let mut plan = self.bare(ns, opcode, position, bytes);
        if write && sync && self.controller.info().write_cache {
            plan.command.dword12 = spec::FUA;
        }
        plan.result = bytes as i32;
        (plan.source, plan.addr) = match request.buffer {
            Some(buffer) if self.reachable(&buffer, addr, bytes as usize) => {
                (Source::Mapped(buffer), addr)
            }
            // SAFETY: the caller's promise.
            _ => unsafe { self.copies.plan(&mut self.trackers[slot].kept, request, &transfer) }?,
        };
        Ok(plan)
    }

    /// Whether the device can reach this memory as it lies.
    fn reachable(&self, buffer: &P::Buffer, addr: usize, bytes: usize) -> bool {
        let span = self.controller.platform().span(buffer, addr);
        // Off the dword grid only an SGL can reach, one piece at a time.
        span.device & 3 == 0
            || self.sgl == Some(super::identify::SglAlignment::Byte) && span.len >= bytes
    }

    /// FALLOCATE, as of a block device.
    fn plan_allocation(
        &self,
        ns: &NamespaceInfo,
        request: &Request<NamespaceInfo, P::Buffer>,
    ) -> Planned<P::Buffer> {
        let mode = request.len as i32;
        let keep = uapi::FALLOC_FL_KEEP_SIZE;
        let info = self.controller.info();
        let zeroes = if info.write_zeroes { nvm::WRITE_ZEROES } else { 0 };
        let opcode = match mode & !keep {
            uapi::FALLOC_FL_ZERO_RANGE => zeroes,
            uapi::FALLOC_FL_PUNCH_HOLE if mode & keep != 0 => zeroes,
            HINT if info.dataset_management => nvm::DATASET_MANAGEMENT,
            _ => 0,
        };
        let (position, bytes) = self.medium(ns).range(request, opcode != 0)?;
        let mut plan = self.bare(ns, opcode, position, bytes);
        let hole = mode & uapi::FALLOC_FL_PUNCH_HOLE != 0;
        if opcode == nvm::WRITE_ZEROES && hole && ns.zeroes_deallocate {
            plan.command.dword12 = spec::DEAC;
        }
        Ok(plan)
    }

    /// Puts a planned request into its tracker, and starts it if it can be.
    #[inline(never)]
    pub(super) fn enter(&mut self, token: Token, plan: Plan<P::Buffer>) -> Start {
        let index = token.index() as u16;
        let tracker = &mut self.trackers[token.index()];
        tracker.hot.token = token;
        tracker.command = plan.command;
        tracker.source = plan.source;
        tracker.addr = plan.addr;
        tracker.position = plan.position;
        (tracker.part, tracker.left) = (0, plan.bytes);
        tracker.hot.result = plan.result;
        tracker.block_shift = plan.block_shift;
        tracker.chunk = NONE;
        if !self.live() || !self.waiting.is_empty() || !self.issue(index) {
            self.waiting.push(self.trackers, index);
            self.set_gate();
            self.stats.waited += 1;
        }
        Start::Pending
    }

    /// Issues the next part of a request. False, and nothing happened, if
    /// there is no place in the queue or no bounce buffer.
    pub(super) fn issue(&mut self, index: u16) -> bool {
        if self.in_flight >= self.most {
            return false;
        }
        let slot = usize::from(index);
        let copied = self.trackers[slot].source.is_copied();
        if copied && self.trackers[slot].chunk == NONE {
            let Some(chunk) = self.copies.take() else { return false };
            self.trackers[slot].chunk = chunk;
            self.stats.bounced += 1;
        }
        let list = self.list(slot);
        let tracker = &mut self.trackers[slot];
        let shift = tracker.block_shift;
        let mut command = tracker.command;
        let limit = match tracker.source {
            _ if command.opcode == nvm::DATASET_MANAGEMENT => u64::from(u32::MAX) << shift,
            Source::None => (MAX_BLOCKS << shift).min(self.max_zeroes),
            Source::Mapped(_) => (MAX_BLOCKS << shift).min(self.max_part.into()),
            _ => {
                let chunk = self.copies.chunk() as u64;
                (MAX_BLOCKS << shift).min(self.max_part.into()).min(chunk)
            }
        };
        let part = tracker.left.min(limit & !0 << shift);
        let block = tracker.position >> shift;
        let blocks = part >> shift;
        if part != 0 {
            (command.dword10, command.dword11) = (block as u32, (block >> 32) as u32);
            command.dword12 |= blocks.wrapping_sub(1) as u32 & 0xffff;
        }
        let platform = self.controller.platform();
        let whole = |device| Span { device, len: part as usize };
        let told = match tracker.source {
            Source::None if command.opcode == nvm::DATASET_MANAGEMENT => {
                // One range (NVM section 3.2.3): attributes, length, start.
                // SAFETY: the slot's own page, two words at its start, of no
                // command in flight.
                unsafe {
                    list.at.write_volatile((blocks << 32).to_le());
                    list.at.add(1).write_volatile(block.to_le());
                }
                // Number of ranges, 0's based; deallocate.
                (command.dword10, command.dword11, command.dword12) = (0, 1 << 2, 0);
                command.data1 = list.device;
                true
            }
            Source::None => true,
            Source::Mapped(buffer) => {
                let addr = tracker.addr;
                platform.sync_for_device(addr, part as usize);
                let span = |skip| platform.span(&buffer, addr + skip);
                // SAFETY: the slot's own list, of no command in flight.
                unsafe { prp::point(&mut command, || list, self.sgl, span(0), part as usize, span) }
            }
            Source::Copied | Source::Vectors(_) => {
                let device = self.copies.device(tracker.chunk);
                if command.opcode == nvm::WRITE {
                    let (chunk, source) = (tracker.chunk, &tracker.source);
                    // SAFETY: the request's memory (`start`'s promise), and a
                    // chunk that is this request's alone.
                    unsafe { self.copies.fill(chunk, source, tracker.addr, part as usize) };
                }
                let span = |skip| whole(device + skip as u64);
                // SAFETY: as above.
                unsafe {
                    prp::point(&mut command, || list, None, whole(device), part as usize, span)
                }
            }
        };
        debug_assert!(told, "what cannot be told was not planned");
        tracker.part = part;
        tracker.left -= part;
        let hot = &mut tracker.hot;
        let cid = hot.issue(true, stamp(self.pace.tick()));
        self.in_flight += 1;
        self.pair.sq.push(&command, (cid >> 16) as u16);
        true
    }

    /// The slot's own list pages.
    #[inline(always)]
    pub(super) fn list(&self, slot: usize) -> List {
        let bytes = self.list_pages * PAGE;
        debug_assert!((slot + 1) * bytes <= self.lists.len);
        // SAFETY: one list a slot was allocated, and the slot is below their
        // number (a tracker's index).
        let at = unsafe { self.lists.ptr.add(slot * bytes).cast() };
        List { at, device: self.lists.device + (slot * bytes) as u64, pages: self.list_pages }
    }

    /// A part of a complex request has ended well. Answers the result if it
    /// was the last; otherwise the next is under way, or waits.
    pub(super) fn part_done(&mut self, index: u16) -> Option<i32> {
        let slot = usize::from(index);
        let tracker = &mut self.trackers[slot];
        let bytes = tracker.part;
        if tracker.command.opcode == nvm::READ {
            let part = bytes as usize;
            match &tracker.source {
                Source::Mapped(_) => {
                    self.controller.platform().sync_for_cpu(tracker.addr, part);
                }
                _ if fault::on(Fault::BounceNotCopied) => {}
                source => {
                    // SAFETY: as for the way there, in `issue`.
                    unsafe { self.copies.empty(tracker.chunk, source, tracker.addr, part) };
                }
            }
        }
        if !fault::on(Fault::PartsOverlap) {
            tracker.position += bytes;
        }
        if !matches!(tracker.source, Source::None) {
            tracker.addr += bytes as usize;
        }
        if tracker.left == 0 {
            let result = tracker.hot.result;
            self.free_parts(index);
            return Some(result);
        }
        if !self.live() || !self.issue(index) {
            // Before those that wait for what it holds.
            self.waiting.push_first(self.trackers, index);
            self.set_gate();
        }
        None
    }

    /// Gives back what a complex request holds.
    pub(super) fn free_parts(&mut self, index: u16) {
        let tracker = &mut self.trackers[usize::from(index)];
        tracker.hot.idle();
        self.copies.give_back(&mut tracker.chunk, &mut tracker.source);
    }
}
