//! Taking SQEs: one copy, all checks on the copy, then a slot and a start.

use super::Engine;
use crate::config::{Mode, Policy};
use crate::cqe::Cqe;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::files::NONE;
use crate::hal::{Backend, Host, Request, Start, Target};
use crate::op::{self, Kind};
use crate::request::{COMPLETION, SUBMISSION};
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

impl<'m, B: Backend, H: Host> Engine<'m, B, H> {
    /// Takes up to `to_submit` SQEs and starts them.
    #[inline]
    pub(crate) fn submit(&mut self, to_submit: u32) -> Batch {
        let taken = self.run_some(to_submit);
        self.submit_rest(to_submit, taken)
    }

    /// The rest of a batch of which [`run`](Self::run) has taken a part.
    pub(super) fn submit_rest(&mut self, to_submit: u32, taken: u32) -> Batch {
        let want = taken + (to_submit - taken).min(self.sq.ready());
        let want =
            if fault::on(Fault::LastSqeLeft) { want.saturating_sub(1).max(taken) } else { want };
        let batch = if taken == want {
            Batch { taken, end: End::All }
        } else {
            self.submit_steps(want, taken)
        };
        // Nothing is stored in vain: a polling engine comes here all the time.
        if batch.progress() {
            self.sq.commit();
        }
        batch
    }

    /// Whether a [`run`](Self::run) can have `want` SQEs, at least one.
    #[inline(always)]
    pub(super) fn whole(&self, want: u32) -> bool {
        self.sq.has(want) && want <= self.cq.run().room && self.pool.any()
    }

    /// Carries out the requests at the head of the SQ that end inside the
    /// engine, `want` of them if nothing stands in the way, with the positions
    /// of both rings in registers. Answers how many, and whether it was all.
    ///
    /// It asks for what [`whole`](Self::whole) promises. What it sees of an
    /// SQE that it leaves is forgotten: [`step`](Self::step) copies that one
    /// anew and makes all its checks on the copy.
    #[inline(always)]
    pub(super) fn run(&mut self, want: u32) -> (u32, bool) {
        // No CQE passes one that waits for room.
        debug_assert!(self.overflow.is_empty());
        let entries = self.sq.entries_by_place();
        let cqes = self.cq.run();
        let start = self.sq.position();
        let end = start.wrapping_add(want);
        let (mut position, mut tail) = (start, cqes.first);
        let all = loop {
            let Some(cell) = entries.at(position) else {
                break false;
            };
            let sqe = cell.read_bare();
            if !plain_nop(&sqe) {
                break false;
            }
            // The record on top of the pool is this request's for as long as
            // it lasts: it is taken and given back within this line.
            cqes.put(tail, Cqe { user_data: sqe.user_data, res: 0, flags: 0 });
            position = position.wrapping_add(1);
            tail = tail.wrapping_add(1);
            if position == end {
                break true;
            }
        };
        self.sq.seek(position);
        self.cq.advance(tail);
        (position.wrapping_sub(start), all)
    }

    /// [`run`](Self::run), with all registers for itself.
    #[inline(never)]
    pub(super) fn run_many(&mut self, want: u32) -> (u32, bool) {
        self.run(want)
    }

    /// A [`run`](Self::run) for as many of `want` SQEs as can be had.
    fn run_some(&mut self, want: u32) -> u32 {
        let most = want.min(self.sq.ready());
        if most > self.cq.run().room && self.overflow.is_empty() {
            self.cq.refresh();
        }
        let most = most.min(self.cq.run().room);
        if self.whole(most) { self.run_many(most).0 } else { 0 }
    }

    /// The rest of a batch, from the first SQE that [`run`](Self::run) left.
    #[inline(never)]
    fn submit_steps(&mut self, want: u32, taken: u32) -> Batch {
        let mut batch = Batch { taken, end: End::All };
        if !self.pool.has(want - batch.taken) {
            // Whole batches from the free records; when they run dry, those
            // that came home. What is missing then is taken one by one.
            self.collect();
        }
        while batch.taken != want && batch.end == End::All {
            if self.step(&mut batch) == Kind::Nop && batch.end == End::All {
                batch.taken += self.run_some(want - batch.taken);
            }
        }
        self.backend.kick();
        batch
    }

    /// Takes one SQE the long way: any operation, any state of the ring.
    /// Answers what it was.
    fn step(&mut self, batch: &mut Batch) -> Kind {
        let position = self.sq.position();
        let Some(cell) = self.sq.entry(position) else {
            if !fault::on(Fault::BadIndexNotDropped) {
                self.sq.count_dropped();
            }
            self.sq.seek(position.wrapping_add(1));
            let counted = fault::on(Fault::BadIndexCounted) || fault::on(Fault::BadIndexContinues);
            batch.taken += u32::from(counted);
            if !fault::on(Fault::BadIndexContinues) {
                batch.end = End::Dropped;
            }
            return Kind::None;
        };
        let Some(index) = self.pool.take().or_else(|| self.take_slow()) else {
            return self.starve(batch);
        };
        let sqe = cell.read();
        let kind = op::kind(sqe.opcode);
        let issue = self.issue(index, kind, &sqe);
        if let Issue::NoRoom = issue {
            self.pool.put(index);
            return self.starve(batch);
        }
        self.sq.seek(position.wrapping_add(1));
        batch.taken += 1;
        if matches!(issue, Issue::Failed) {
            let stop = !self.config.submit_all && !fault::on(Fault::FailureDoesNotStop);
            if stop || fault::on(Fault::SubmitAllIgnored) {
                batch.end = End::Failed;
                batch.taken -= u32::from(fault::on(Fault::FailureNotCounted));
            }
        }
        kind
    }

    /// The SQE at the head must wait for a completion.
    #[cold]
    fn starve(&mut self, batch: &mut Batch) -> Kind {
        self.stats.busy += 1;
        self.starved = true;
        batch.end = End::Busy;
        Kind::None
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
    fn issue(&mut self, index: u32, kind: Kind, sqe: &Sqe) -> Issue {
        if kind == Kind::None && fault::on(Fault::UnknownOpcodeSucceeds) {
            self.complete_now(index, Cqe { user_data: sqe.user_data, res: 0, flags: 0 });
            return Issue::Taken;
        }
        if let Err(errno) = prepare(kind, sqe) {
            return self.fail(index, sqe, errno.to_result());
        }
        if kind == Kind::Nop {
            let res = nop_result(sqe);
            self.complete_now(index, Cqe { user_data: sqe.user_data, res, flags: 0 });
            return Issue::Taken;
        }
        self.issue_io(index, kind, sqe)
    }

    fn issue_io(&mut self, index: u32, kind: Kind, sqe: &Sqe) -> Issue {
        if !self.backend.supports(sqe.opcode) {
            return self.fail(index, sqe, Errno::EINVAL.to_result());
        }
        let mut held = Held { file: NONE, buffer: NONE };
        let mut buffer = None;
        let target = match self.target(sqe, &mut held) {
            Ok(target) => target,
            Err(errno) => return self.end(index, sqe, held, errno.to_result()),
        };
        if kind == Kind::Fixed {
            match self.fixed_range(sqe, &mut held) {
                Ok(handle) => buffer = Some(handle),
                Err(errno) => {
                    let errno = match target {
                        Target::Fd(fd) if !self.backend.is_open(fd) => Errno::EBADF,
                        _ => errno,
                    };
                    return self.end(index, sqe, held, errno.to_result());
                }
            }
        }
        let request = Request {
            opcode: sqe.opcode,
            flags: sqe.flags,
            fallback: index == self.pool.fallback(),
            target,
            buffer,
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
        let slots = &self.shared.slots;
        let late = fault::on(Fault::ArmedLate);
        let token = if late { slots.token(index) } else { slots.arm(index) };
        // SAFETY: whoever pushed the SQE promised that its memory stays
        // valid until the CQE (SubmissionQueue::push), and a registered
        // range lies inside memory that its registrar keeps valid.
        match unsafe { self.backend.start(token, &request) } {
            Start::Pending => {
                if late {
                    slots.arm(index);
                }
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
    fn fixed_range(&mut self, sqe: &Sqe, held: &mut Held) -> Result<B::Buffer, Errno> {
        let index = u32::from(sqe.buf_index) + u32::from(fault::on(Fault::BufferIndexOffByOne));
        let (node, buffer) = self.buffers.hold(index).ok_or(Errno::EFAULT)?;
        held.buffer = node;
        if fault::on(Fault::RangeUnchecked) {
            return Ok(buffer.handle);
        }
        let start = sqe.addr;
        let end = start.checked_add(u64::from(sqe.len)).ok_or(Errno::EFAULT)?;
        let first = buffer.addr as u64;
        let last = first + buffer.len as u64 + u64::from(fault::on(Fault::RangeOnePast));
        if start < first && !fault::on(Fault::RangeStartUnchecked) || end > last {
            return Err(Errno::EFAULT);
        }
        Ok(buffer.handle)
    }

    /// A request that ended while it was started.
    #[inline]
    fn end(&mut self, index: u32, sqe: &Sqe, held: Held, result: i32) -> Issue {
        self.let_go(held.file, held.buffer);
        let res = if fault::on(Fault::ErrorsBecomeZero) { result.max(0) } else { result };
        let flags = u32::from(fault::on(Fault::CqeFlagsGarbage)) << 5;
        self.complete_now(index, Cqe { user_data: sqe.user_data, res, flags });
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

/// What a NOP answers.
fn nop_result(sqe: &Sqe) -> i32 {
    let inject = sqe.op_flags & IORING_NOP_INJECT_RESULT != 0;
    if inject && !fault::on(Fault::NopInjectIgnored) { sqe.len as i32 } else { 0 }
}

/// Whether an SQE is a NOP of the usual kind: nothing to refuse, nothing to
/// inject. One test over the fields that [`prepare`] looks at; each is shifted
/// to where it lies in its word, so that the word needs only to be masked.
#[inline(always)]
fn plain_nop(sqe: &Sqe) -> bool {
    const { assert!(matches!(op::kind(0), Kind::Nop)) };
    u32::from(sqe.opcode)
        | u32::from(sqe.flags & !FLAGS) << 8
        | u32::from(sqe.ioprio) << 16
        | u32::from(sqe.personality) << 16
        | sqe.op_flags
        == 0
}

/// Flags that this engine keeps the whole promise of.
const FLAGS: u8 = IOSQE_FIXED_FILE | IOSQE_ASYNC;

/// The checks that need nothing but the SQE. An error here ends a batch.
#[inline(always)]
fn prepare(kind: Kind, sqe: &Sqe) -> Result<(), Errno> {
    let flags = sqe.flags & !FLAGS != 0 && !fault::on(Fault::SqeFlagsUnchecked);
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
        Kind::None => return Err(Errno::EINVAL),
    }
    Ok(())
}

/// An address that a pointer cannot hold is `-EFAULT` (32-bit places).
#[inline(always)]
fn fits(addr: u64) -> Result<(), Errno> {
    usize::try_from(addr).map(|_| ()).map_err(|_| Errno::EFAULT)
}
