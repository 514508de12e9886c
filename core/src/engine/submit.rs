//! Taking SQEs: one copy, all checks on the copy, then a slot and a start.

use super::Engine;
use crate::config::{Mode, Policy};
use crate::cqe::Cqe;
use crate::errno::Errno;
use crate::files::NONE;
use crate::hal::{Backend, Host, Request, Start, Target};
use crate::op::{self, Kind};
use crate::request::{COMPLETION, SUBMISSION};
use crate::ring::Fetch;
use crate::sqe::Sqe;
use crate::uapi::{IORING_FSYNC_DATASYNC, IORING_NOP_INJECT_RESULT, IOSQE_ASYNC, IOSQE_FIXED_FILE};

/// `UIO_MAXIOV`.
const MAX_IOVECS: u32 = 1024;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// SQEs taken, failing ones included.
    pub taken: u32,
    pub end: End,
}

/// Why a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything asked for was looked at.
    All,
    /// After a failing SQE, without SUBMIT_ALL.
    Failed,
    /// At a place whose index named no SQE.
    Dropped,
    /// No request could be had: reap, then try again.
    Busy,
}

impl Batch {
    /// Whether the SQ was moved at all.
    pub fn progress(self) -> bool {
        self.taken != 0 || self.end == End::Dropped
    }
}

/// What became of one SQE.
enum Issue {
    Taken,
    /// Refused before it began; a CQE says why.
    Failed,
    NoRoom,
}

/// How a started request stands, and what it holds.
struct Held {
    file: u32,
    buffer: u32,
}

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// Takes up to `to_submit` SQEs and starts them.
    #[inline]
    pub(crate) fn submit(&mut self, to_submit: u32) -> Batch {
        let want = to_submit.min(self.sq.ready());
        let mut batch = Batch { taken: 0, end: End::All };
        if want == 0 {
            return batch;
        }
        if !self.pool.has(want) {
            // Whole batches from the free records; when they run dry, those
            // that came home. What is missing then is taken one by one.
            self.collect();
        }
        while batch.taken < want {
            let Some(index) = self.pool.take().or_else(|| self.take_slow()) else {
                batch.end = End::Busy;
                break;
            };
            let Fetch::Entry(sqe) = self.sq.fetch() else {
                self.pool.put(index);
                batch.end = End::Dropped;
                break;
            };
            match self.issue(index, &sqe) {
                Issue::Taken => batch.taken += 1,
                Issue::Failed => {
                    batch.taken += 1;
                    if !self.config.submit_all {
                        batch.end = End::Failed;
                        break;
                    }
                }
                Issue::NoRoom => {
                    self.sq.unfetch();
                    self.pool.put(index);
                    batch.end = End::Busy;
                    break;
                }
            }
        }
        self.sq.commit();
        self.backend.kick();
        self.starved = batch.end == End::Busy;
        self.stats.sqes += u64::from(batch.taken);
        self.stats.batches += 1;
        self.stats.busy += u64::from(batch.end == End::Busy);
        batch
    }

    #[cold]
    fn take_slow(&mut self) -> Option<u32> {
        self.collect();
        self.pool.take().or_else(|| {
            let index = self.pool.take_fallback()?;
            self.stats.fallbacks += 1;
            Some(index)
        })
    }

    /// Checks one SQE and starts it in record `index`.
    #[inline(always)]
    fn issue(&mut self, index: u32, sqe: &Sqe) -> Issue {
        let kind = op::kind(sqe.opcode);
        if let Err(errno) = prepare(kind, sqe) {
            return self.fail(index, sqe, errno.to_result());
        }
        if kind == Kind::Nop {
            let result =
                if sqe.op_flags & IORING_NOP_INJECT_RESULT != 0 { sqe.len as i32 } else { 0 };
            self.complete_now(index, Cqe { user_data: sqe.user_data, res: result, flags: 0 });
            return Issue::Taken;
        }
        self.issue_io(index, kind, sqe)
    }

    fn issue_io(&mut self, index: u32, kind: Kind, sqe: &Sqe) -> Issue {
        if !self.backend.supports(sqe.opcode) {
            return self.fail(index, sqe, Errno::EINVAL.to_result());
        }
        let mut held = Held { file: NONE, buffer: NONE };
        let target = match self.target(sqe, &mut held) {
            Ok(target) => target,
            Err(errno) => return self.end(index, sqe, held, errno.to_result()),
        };
        if kind == Kind::Fixed {
            if let Err(errno) = self.fixed_range(sqe, &mut held) {
                return self.end(index, sqe, held, errno.to_result());
            }
        }
        let request = Request {
            opcode: sqe.opcode,
            flags: sqe.flags,
            fallback: index == self.pool.fallback(),
            target,
            addr: sqe.addr,
            len: sqe.len,
            off: sqe.off,
            op_flags: sqe.op_flags,
        };
        let record = &mut self.pool.records[index as usize];
        record.user_data = sqe.user_data;
        record.opcode = sqe.opcode;
        record.cflags = 0;
        record.file = held.file;
        record.buffer = held.buffer;
        record.refs = SUBMISSION | COMPLETION;
        // Before `start`: the completion may come from another thread before
        // `start` returns. It waits on the return list until we look there,
        // and the submission's reference is ours until then.
        let token = self.shared.slots.arm(index);
        // SAFETY: whoever pushed the SQE promised that its memory stays
        // valid until the CQE (SubmissionQueue::push), and a registered
        // range lies inside memory that its registrar keeps valid.
        match unsafe { self.backend.start(token, &request) } {
            Start::Pending => {
                self.pending += 1;
                self.drop_reference(index, SUBMISSION);
                Issue::Taken
            }
            Start::Done(result) => {
                self.shared.slots.retire(index);
                self.end(index, sqe, held, result)
            }
            Start::Refused(result) => {
                self.shared.slots.retire(index);
                self.let_go(held.file, held.buffer);
                self.fail(index, sqe, result)
            }
            Start::NoRoom => {
                self.shared.slots.retire(index);
                if self.pending == 0 && self.overflow.is_empty() {
                    // Nothing is in flight whose end could make room: waiting
                    // would be for ever.
                    return self.end(index, sqe, held, Errno::ENOMEM.to_result());
                }
                self.let_go(held.file, held.buffer);
                Issue::NoRoom
            }
        }
    }

    /// The file an SQE means, held for the request if it is registered.
    fn target(&mut self, sqe: &Sqe, held: &mut Held) -> Result<Target<B::File>, Errno> {
        if sqe.flags & IOSQE_FIXED_FILE != 0 {
            let (node, file) = self.files.hold(sqe.fd as u32).ok_or(Errno::EBADF)?;
            held.file = node;
            return Ok(Target::Registered(file));
        }
        if self.config.policy == Policy::Seed && matches!(self.config.mode, Mode::SqPoll { .. }) {
            // Seed 001: submission polling takes registered files only.
            return Err(Errno::EBADF);
        }
        Ok(Target::Fd(sqe.fd))
    }

    /// Checks the range of a registered buffer and holds the buffer.
    fn fixed_range(&mut self, sqe: &Sqe, held: &mut Held) -> Result<(), Errno> {
        let (node, buffer) = self.buffers.hold(u32::from(sqe.buf_index)).ok_or(Errno::EFAULT)?;
        held.buffer = node;
        let start = sqe.addr;
        let end = start.checked_add(u64::from(sqe.len)).ok_or(Errno::EFAULT)?;
        let first = buffer.addr as u64;
        if start < first || end > first + buffer.len as u64 {
            return Err(Errno::EFAULT);
        }
        Ok(())
    }

    /// A request that ended while it was started.
    #[inline]
    fn end(&mut self, index: u32, sqe: &Sqe, held: Held, result: i32) -> Issue {
        self.let_go(held.file, held.buffer);
        self.complete_now(index, Cqe { user_data: sqe.user_data, res: result, flags: 0 });
        Issue::Taken
    }

    /// An SQE that was refused.
    #[cold]
    fn fail(&mut self, index: u32, sqe: &Sqe, result: i32) -> Issue {
        self.stats.refused += 1;
        self.complete_now(index, Cqe { user_data: sqe.user_data, res: result, flags: 0 });
        Issue::Failed
    }
}

/// Flags that this engine keeps the whole promise of.
const FLAGS: u8 = IOSQE_FIXED_FILE | IOSQE_ASYNC;

/// The checks that need nothing but the SQE. An error here ends a batch.
#[inline(always)]
fn prepare(kind: Kind, sqe: &Sqe) -> Result<(), Errno> {
    if sqe.flags & !FLAGS != 0 || sqe.ioprio != 0 || sqe.personality != 0 {
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
            if sqe.addr != 0
                || sqe.buf_index != 0
                || sqe.splice_fd_in != 0
                || sqe.op_flags & !IORING_FSYNC_DATASYNC != 0
            {
                return Err(Errno::EINVAL);
            }
        }
        Kind::None => return Err(Errno::EINVAL),
    }
    Ok(())
}

/// An address that a pointer cannot hold is `-EFAULT` (32-bit places).
#[inline(always)]
fn fits(addr: u64) -> Result<(), Errno> {
    usize::try_from(addr).map(|_| ()).map_err(|_| Errno::EFAULT)
}
