//! From a request to what has to be done: all checks.

use core::ops::Deref;

use annulus::errno::Errno;
use annulus::fault::{self, Fault};
use annulus::hal::{Request, Start};
use annulus::types::Iovec;
use annulus::uapi;

use super::backend::DiskBackend;
use super::spec::{UNMAP, request as kind};
use super::tracker::Source;
use super::{Disk, Platform, Transport};

/// The most bytes of one read or write (`MAX_RW_COUNT`).
const MAX_RW: u64 = 0x7fff_f000;
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
    /// Checks a request and says what has to be done for it.
    ///
    /// # Safety
    /// The request's memory is valid, for as long as the request lasts.
    #[inline(never)]
    pub(super) unsafe fn plan(
        &mut self,
        request: &Request<DiskFile, P::Buffer>,
    ) -> Planned<P::Buffer> {
        match request.opcode {
            // SAFETY: the caller's promise.
            uapi::IORING_OP_READ | uapi::IORING_OP_READ_FIXED => unsafe {
                self.plan_transfer(request, false, u64::from(request.len))
            },
            // SAFETY: as above.
            uapi::IORING_OP_WRITE | uapi::IORING_OP_WRITE_FIXED => unsafe {
                self.plan_transfer(request, true, u64::from(request.len))
            },
            uapi::IORING_OP_READV | uapi::IORING_OP_WRITEV => {
                // SAFETY: as above.
                let bytes = unsafe { vector_bytes(request) }.map_err(Start::Refused)?;
                let write = request.opcode == uapi::IORING_OP_WRITEV;
                // SAFETY: as above.
                unsafe { self.plan_transfer(request, write, bytes) }
            }
            uapi::IORING_OP_FSYNC if !self.info.write_cache || fault::on(Fault::FlushForgotten) => {
                Err(Start::Done(0))
            }
            uapi::IORING_OP_FSYNC => Ok(bare(kind::FLUSH, 0, 0)),
            uapi::IORING_OP_FALLOCATE => self.plan_allocation(request),
            _ => done(Errno::EINVAL),
        }
    }

    /// A read or write: as of a block device opened with `O_DIRECT`.
    ///
    /// # Safety
    /// As for [`plan`](Self::plan).
    unsafe fn plan_transfer(
        &mut self,
        request: &Request<DiskFile, P::Buffer>,
        write: bool,
        bytes: u64,
    ) -> Planned<P::Buffer> {
        let known = uapi::RWF_DSYNC | uapi::RWF_SYNC | uapi::RWF_NOWAIT | uapi::RWF_HIPRI;
        let flags = request.op_flags as i32;
        if flags & !known != 0 {
            return done(Errno::EOPNOTSUPP);
        }
        if flags & uapi::RWF_HIPRI != 0 && !self.polled() {
            return done(Errno::EINVAL);
        }
        if write && self.read_only {
            return done(Errno::EROFS);
        }
        let position = request.off;
        // Above i64::MAX, -1 (no current position here) included.
        if position > i64::MAX as u64 {
            return done(Errno::EINVAL);
        }
        let bytes = bytes.min(MAX_RW);
        if bytes == 0 || position >= self.bytes && !write {
            return Err(Start::Done(0));
        }
        if position >= self.bytes {
            return done(Errno::ENOSPC);
        }
        let bytes = bytes.min(self.bytes - position);
        if (position | bytes) & self.block_mask != 0 {
            return done(Errno::EINVAL);
        }
        let addr = usize::try_from(request.addr).unwrap_or(0);
        let vectored = matches!(request.opcode, uapi::IORING_OP_READV | uapi::IORING_OP_WRITEV);
        if addr == 0 || !vectored && addr.checked_add(bytes as usize).is_none() {
            return done(Errno::EFAULT);
        }
        let mut plan = bare(if write { kind::OUT } else { kind::IN }, position, bytes);
        // There is no forced unit access: a flush after it does the same.
        let sync = flags & (uapi::RWF_DSYNC | uapi::RWF_SYNC) != 0;
        plan.sync = write && sync && self.info.write_cache;
        plan.result = bytes as i32;
        plan.addr = addr;
        plan.source = match request.buffer {
            Some(buffer) if self.reachable(&buffer, addr, bytes as usize) => Source::Mapped(buffer),
            _ if self.bounce.chunk() == 0 => return done(Errno::EFAULT),
            _ if vectored => {
                let Some(index) = self.free_vectors.take(self.vectors) else {
                    return Err(if self.vectors.is_empty() {
                        Start::Done(Errno::ENOMEM.to_result())
                    } else {
                        Start::NoRoom
                    });
                };
                // SAFETY: the caller's promise: an array of `len` vectors.
                let vectors = (0..request.len as usize)
                    .map(|at| unsafe { iovecs(request).add(at).read_unaligned() });
                self.vectors[usize::from(index)].fill(vectors);
                plan.addr = 0;
                Source::Vectors(index)
            }
            _ => Source::Copied,
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
        let (mode, position, bytes) = (request.len as i32, request.off, request.addr);
        let keep = uapi::FALLOC_FL_KEEP_SIZE;
        let (zeroes, discard) = (self.info.max_zeroes != 0, self.info.max_discard != 0);
        let (kind, flags) = match mode & !keep {
            uapi::FALLOC_FL_ZERO_RANGE if zeroes => (kind::WRITE_ZEROES, 0),
            uapi::FALLOC_FL_PUNCH_HOLE if mode & keep != 0 && zeroes => {
                (kind::WRITE_ZEROES, if self.info.zeroes_unmap { UNMAP } else { 0 })
            }
            HINT if mode & keep != 0 && discard => (kind::DISCARD, 0),
            _ => return done(Errno::EOPNOTSUPP),
        };
        if position > i64::MAX as u64 || bytes == 0 || bytes > i64::MAX as u64 {
            return done(Errno::EINVAL);
        }
        if self.read_only {
            return done(Errno::EROFS);
        }
        if position >= self.bytes {
            return done(Errno::EINVAL);
        }
        let bytes = match self.bytes - position {
            left if bytes > left && mode & keep == 0 => return done(Errno::EINVAL),
            left => bytes.min(left),
        };
        if (position | bytes) & self.block_mask != 0 {
            return done(Errno::EINVAL);
        }
        Ok(Plan { flags, ..bare(kind, position, bytes) })
    }
}

fn iovecs<F, M>(request: &Request<F, M>) -> *const Iovec {
    core::ptr::with_exposed_provenance(request.addr as usize)
}

/// The bytes of all vectors of a request.
///
/// # Safety
/// The request's array of vectors is valid.
unsafe fn vector_bytes<F, M>(request: &Request<F, M>) -> Result<u64, i32> {
    if request.len != 0 && request.addr == 0 {
        return Err(Errno::EFAULT.to_result());
    }
    let mut bytes: u64 = 0;
    for at in 0..request.len as usize {
        // SAFETY: the caller's promise.
        let segment = unsafe { iovecs(request).add(at).read_unaligned() };
        if segment.len > isize::MAX as usize {
            return Err(Errno::EINVAL.to_result());
        }
        if segment.len != 0 && segment.base.addr().checked_add(segment.len).is_none() {
            return Err(Errno::EFAULT.to_result());
        }
        bytes = bytes.saturating_add(segment.len as u64);
    }
    Ok(bytes)
}
