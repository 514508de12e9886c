//! From a request to what has to be done: all checks.

use core::ops::Deref;

use annulus::block::{Medium, Source, Transfer};
use annulus::errno::Errno;
use annulus::fault::{self, Fault};
use annulus::hal::{Request, Start};
use annulus::uapi;

use super::backend::DiskBackend;
use super::spec::{UNMAP, request as kind};
use super::{Disk, Platform, Transport};

/// A hole whose bytes may read as anything: no more than a hint.
const HINT: i32 = uapi::FALLOC_FL_PUNCH_HOLE | uapi::FALLOC_FL_NO_HIDE_STALE;
const PAGE: usize = annulus::hal::device::PAGE;

/// The disk as a registered file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFile(pub(super) ());

/// What a request comes to, after all checks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<B> {
    /// The request type.
    pub kind: u32,
    /// Flags of a range.
    pub flags: u32,
    pub source: Source<B>,
    pub addr: usize,
    pub position: u64,
    /// Bytes of the disk; 0 for a request without a range.
    pub bytes: u64,
    pub result: i32,
    /// A flush follows.
    pub sync: bool,
}

type Planned<B> = Result<Plan<B>, Start>;

fn done<B>(errno: Errno) -> Planned<B> {
    Err(Start::Done(errno.to_result()))
}

fn bare<B>(kind: u32, position: u64, bytes: u64) -> Plan<B> {
    let source = Source::None;
    Plan { kind, flags: 0, source, addr: 0, position, bytes, result: 0, sync: false }
}

impl<'m, P: Platform, T: Transport, D: Deref<Target = Disk<P, T>>> DiskBackend<'m, P, T, D> {
    /// Checks the request of a slot and says what has to be done for it.
    ///
    /// # Safety
    /// The request's memory is valid, for as long as the request lasts.
    #[inline(never)]
    pub(super) unsafe fn plan(
        &mut self,
        slot: usize,
        request: &Request<DiskFile, P::Buffer>,
    ) -> Planned<P::Buffer> {
        match request.opcode {
            uapi::IORING_OP_READ
            | uapi::IORING_OP_READ_FIXED
            | uapi::IORING_OP_READV
            | uapi::IORING_OP_WRITE
            | uapi::IORING_OP_WRITE_FIXED
            | uapi::IORING_OP_WRITEV => {
                // SAFETY: the caller's promise.
                unsafe { self.plan_transfer(slot, request) }
            }
            uapi::IORING_OP_FSYNC if !self.info.write_cache || fault::on(Fault::FlushForgotten) => {
                Err(Start::Done(0))
            }
            uapi::IORING_OP_FSYNC => Ok(bare(kind::FLUSH, 0, 0)),
            uapi::IORING_OP_FALLOCATE => self.plan_allocation(request),
            _ => done(Errno::EINVAL),
        }
    }

    fn medium(&self) -> Medium {
        Medium {
            bytes: self.bytes,
            block: self.block_mask as u32 + 1,
            read_only: self.read_only,
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
        request: &Request<DiskFile, P::Buffer>,
    ) -> Planned<P::Buffer> {
        // SAFETY: the caller's promise.
        let bytes = unsafe { self.copies.bytes(self.trackers[slot].kept, request) }?;
        let transfer = self.medium().transfer(request, bytes)?;
        let Transfer { write, position, bytes, addr, sync, .. } = transfer;
        let mut plan = bare(if write { kind::OUT } else { kind::IN }, position, bytes);
        // There is no forced unit access: a flush after it does the same.
        plan.sync = write && sync && self.info.write_cache;
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

    /// Whether a block of this memory always fits a request as it lies.
    fn reachable(&self, buffer: &P::Buffer, addr: usize, bytes: usize) -> bool {
        let block = self.block_mask as usize + 1;
        let (pieces, piece) = (usize::from(self.pieces), self.piece as usize);
        // It is in one piece for the device, or has room whatever pages it is
        // in: one more than it is long, each cut into what a piece may be.
        let pages = block.div_ceil(PAGE) + 1;
        let scattered = pages.saturating_mul(PAGE.div_ceil(piece));
        pieces >= scattered || self.disk.platform().span(buffer, addr).len >= bytes
    }

    /// FALLOCATE, as of a block device.
    fn plan_allocation(&self, request: &Request<DiskFile, P::Buffer>) -> Planned<P::Buffer> {
        let (mode, keep) = (request.len as i32, uapi::FALLOC_FL_KEEP_SIZE);
        let (zeroes, discard) = (self.info.max_zeroes != 0, self.info.max_discard != 0);
        let (kind, flags) = match mode & !keep {
            uapi::FALLOC_FL_ZERO_RANGE if zeroes => (kind::WRITE_ZEROES, 0),
            uapi::FALLOC_FL_PUNCH_HOLE if mode & keep != 0 && zeroes => {
                (kind::WRITE_ZEROES, if self.info.zeroes_unmap { UNMAP } else { 0 })
            }
            HINT if mode & keep != 0 && discard => (kind::DISCARD, 0),
            _ => return done(Errno::EOPNOTSUPP),
        };
        let (position, bytes) = self.medium().range(request, true)?;
        Ok(Plan { flags, ..bare(kind, position, bytes) })
    }
}
