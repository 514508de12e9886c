//! The checks that need nothing but the copy of an SQE.

use super::{buffers, messages, poll};
use crate::config::Config;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::op::Kind;
use crate::sqe::Sqe;
use crate::uapi::{
    self, IORING_FSYNC_DATASYNC, IORING_NOP_INJECT_RESULT, IOSQE_ASYNC, IOSQE_FIXED_FILE,
};

/// `UIO_MAXIOV`.
const MAX_IOVECS: u32 = 1024;

/// What a NOP answers.
pub(super) fn nop_result(sqe: &Sqe) -> i32 {
    let inject = sqe.op_flags & IORING_NOP_INJECT_RESULT != 0;
    if inject && !fault::on(Fault::NopInjectIgnored) { sqe.len as i32 } else { 0 }
}

/// Flags that this engine keeps the whole promise of.
pub(super) const FLAGS: u8 = IOSQE_FIXED_FILE | IOSQE_ASYNC;

/// Those that need a held record as well.
const HELD_FLAGS: u8 = FLAGS | super::links::HOLDING;

/// Whether the opcode and the flags of an SQE are such that it is looked at any
/// further.
pub(super) fn check_flags(sqe: &Sqe) -> Result<(), Errno> {
    let known = sqe.opcode < uapi::IORING_OP_LAST && sqe.flags & !HELD_FLAGS == 0;
    if known { Ok(()) } else { Err(Errno::EINVAL) }
}

/// The checks that need nothing but the SQE, and which ring it is for. An error
/// here ends a batch.
#[inline(always)]
pub(super) fn prepare(config: &Config, kind: Kind, sqe: &Sqe) -> Result<(), Errno> {
    let flags = sqe.flags & !HELD_FLAGS != 0 && !fault::on(Fault::SqeFlagsUnchecked);
    let personality = sqe.personality != 0 && !fault::on(Fault::PersonalityUnchecked);
    if flags || sqe.ioprio != 0 || personality {
        return Err(Errno::EINVAL);
    }
    match kind {
        Kind::Nop => {
            if sqe.op_flags & !IORING_NOP_INJECT_RESULT != 0 {
                return Err(Errno::EINVAL);
            }
        }
        Kind::ReadWrite | Kind::Fixed => {
            // `pad2` is the uapi's attr_type_mask here: no attribute is built.
            if sqe.pad2 != 0 {
                return Err(Errno::EINVAL);
            }
            fits(sqe.addr)?;
        }
        Kind::Vectored => {
            if sqe.pad2 != 0 || sqe.len > MAX_IOVECS {
                return Err(Errno::EINVAL);
            }
            fits(sqe.addr)?;
        }
        Kind::Fsync => {
            let flags = sqe.op_flags & !IORING_FSYNC_DATASYNC != 0;
            if sqe.addr != 0
                || sqe.buf_index != 0
                || sqe.splice_fd_in != 0
                || (sqe.off as i64) < 0
                || flags && !fault::on(Fault::FsyncFlagsUnchecked)
            {
                return Err(Errno::EINVAL);
            }
        }
        Kind::Fallocate => {
            if sqe.buf_index != 0 || sqe.op_flags != 0 || sqe.splice_fd_in != 0 {
                return Err(Errno::EINVAL);
            }
        }
        Kind::ProvideBuffers => buffers::check_provide(sqe)?,
        Kind::RemoveBuffers => buffers::check_remove(sqe)?,
        // Not before: all kinds above may be polled.
        _ if !config.takes(kind) && !fault::on(Fault::PolledRingTakesAll) => {
            return Err(Errno::EINVAL);
        }
        Kind::PollAdd => poll::check_add(sqe)?,
        Kind::PollRemove => poll::check_remove(sqe)?,
        Kind::SyncFileRange
        | Kind::Fadvise
        | Kind::FilesUpdate
        | Kind::Openat
        | Kind::Close
        | Kind::Statx => prepare_rare(kind, sqe)?,
        Kind::Timeout | Kind::LinkTimeout => timeout(kind, sqe)?,
        Kind::TimeoutRemove => timeout_remove(sqe)?,
        Kind::Cancel => cancel(sqe)?,
        Kind::MsgRing => messages::check(sqe)?,
        Kind::None => return Err(Errno::EINVAL),
    }
    Ok(())
}

/// Of operations that no ring does often.
#[cold]
fn prepare_rare(kind: Kind, sqe: &Sqe) -> Result<(), Errno> {
    let fixed_file = sqe.flags & IOSQE_FIXED_FILE != 0 && !fault::on(Fault::FixedFileUnchecked);
    // The fields besides those that the operation reads.
    let others = match kind {
        Kind::SyncFileRange => sqe.addr != 0 || sqe.buf_index != 0 || sqe.splice_fd_in != 0,
        Kind::FilesUpdate => fixed_file || sqe.op_flags != 0 || sqe.splice_fd_in != 0,
        Kind::Openat => sqe.buf_index != 0,
        Kind::Close => {
            sqe.off != 0 || sqe.addr != 0 || sqe.len != 0 || sqe.op_flags != 0 || sqe.buf_index != 0
        }
        _ => sqe.buf_index != 0 || sqe.splice_fd_in != 0,
    };
    if others && !fault::on(Fault::OtherFieldsUnchecked) {
        return Err(Errno::EINVAL);
    }
    match kind {
        Kind::FilesUpdate if sqe.len == 0 => Err(Errno::EINVAL),
        Kind::FilesUpdate => fits(sqe.addr),
        Kind::Openat | Kind::Close | Kind::Statx if fixed_file => Err(Errno::EBADF),
        Kind::Close if sqe.splice_fd_in != 0 && sqe.fd != 0 => Err(Errno::EINVAL),
        Kind::Openat => fits(sqe.addr),
        Kind::Statx => fits(sqe.addr).and(fits(sqe.off)),
        _ => Ok(()),
    }
}

#[cold]
fn timeout(kind: Kind, sqe: &Sqe) -> Result<(), Errno> {
    use uapi::{IORING_TIMEOUT_ABS as ABS, IORING_TIMEOUT_MULTISHOT as MULTISHOT};
    let known =
        ABS | MULTISHOT | uapi::IORING_TIMEOUT_ETIME_SUCCESS | uapi::IORING_TIMEOUT_CLOCK_MASK;
    let flags = sqe.op_flags;
    let clocks = flags & uapi::IORING_TIMEOUT_CLOCK_MASK;
    let wrong = sqe.buf_index != 0
        || sqe.len != 1
        || sqe.splice_fd_in != 0
        || flags & !known != 0
        || clocks == uapi::IORING_TIMEOUT_CLOCK_MASK
        || flags & ABS != 0 && flags & MULTISHOT != 0
        || kind == Kind::LinkTimeout && sqe.off as u32 != 0;
    if wrong { Err(Errno::EINVAL) } else { Ok(()) }
}

#[cold]
fn timeout_remove(sqe: &Sqe) -> Result<(), Errno> {
    let flags = sqe.op_flags;
    let known = match flags & uapi::IORING_TIMEOUT_UPDATE_MASK != 0 {
        true => uapi::IORING_TIMEOUT_UPDATE_MASK | uapi::IORING_TIMEOUT_ABS,
        false => 0,
    };
    let wrong = sqe.flags & IOSQE_FIXED_FILE != 0
        || sqe.buf_index != 0
        || sqe.len != 0
        || sqe.splice_fd_in != 0
        || flags & !known != 0;
    if wrong { Err(Errno::EINVAL) } else { Ok(()) }
}

#[cold]
fn cancel(sqe: &Sqe) -> Result<(), Errno> {
    use uapi::{IORING_ASYNC_CANCEL_ANY as ANY, IORING_ASYNC_CANCEL_FD as FD};
    let by_opcode = uapi::IORING_ASYNC_CANCEL_OP;
    let known = super::cancel::FLAGS;
    let flags = sqe.op_flags;
    let wrong = sqe.off != 0
        || sqe.splice_fd_in != 0
        || flags & !known != 0
        || flags & ANY != 0 && flags & (FD | by_opcode) != 0;
    if wrong { Err(Errno::EINVAL) } else { Ok(()) }
}

/// An address that a pointer cannot hold is `-EFAULT` (32-bit places).
#[inline(always)]
fn fits(addr: u64) -> Result<(), Errno> {
    usize::try_from(addr).map(|_| ()).map_err(|_| Errno::EFAULT)
}
