//! Taking SQEs: one copy, all checks on the copy, then a slot and a start.

use super::Engine;
use super::links::HOLDING;
use super::prepare::{nop_result, prepare};
use crate::config::{Mode, Policy};
use crate::cqe::Cqe;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::files::NONE;
use crate::hal::{Backend, Host, Request, Start, Target};
use crate::op::{self, Kind};
use crate::request::{HELD, RESERVED, What};
use crate::sqe::Sqe;
use crate::uapi::{IORING_OP_READ, IOSQE_BUFFER_SELECT, IOSQE_FIXED_FILE};

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
pub(super) enum Issue {
    Taken,
    /// Refused before it began; a CQE says why.
    Failed,
    NoRoom,
}

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// Takes up to `to_submit` SQEs and starts them, `taken` of which have been
    /// done. The entries are the application's again after
    /// [`commit`](crate::ring::SqConsumer::commit).
    #[inline]
    pub(crate) fn submit(&mut self, to_submit: u32, taken: u32) -> Batch {
        let want = taken + (to_submit - taken).min(self.sq.ready());
        let want =
            if fault::on(Fault::LastSqeLeft) { want.saturating_sub(1).max(taken) } else { want };
        if taken == want {
            return Batch { taken, end: End::All };
        }
        self.submit_some(want, taken)
    }

    /// Takes what is left of `want` SQEs, which are ready, and at least one.
    #[inline(never)]
    pub(super) fn submit_some(&mut self, want: u32, taken: u32) -> Batch {
        let mut batch = Batch { taken, end: End::All };
        if !self.pool.has(want - batch.taken) {
            // Whole batches from the free records; when they run dry, those
            // that came home. What is missing then is taken one by one.
            self.collect();
        }
        self.holding.batch_want = want;
        // Those taken already were NOPs, and posted a CQE each.
        self.holding.batch_began = self.cq.total().wrapping_sub(taken);
        let mut kind = if self.engaged { Kind::None } else { self.next_kind() };
        loop {
            // What follows is likely to be of the same kind.
            let before = batch.taken;
            match kind {
                Kind::Fixed => self.run_fixed(&mut batch, want),
                Kind::Nop => batch.taken += self.run_some(want - batch.taken),
                _ => {}
            }
            if batch.taken == want || batch.end != End::All {
                break;
            }
            if batch.taken != before && kind == Kind::Fixed && self.sq.at_start() {
                // Such a run ends where the queue's memory does.
                continue;
            }
            kind = self.step(&mut batch, want);
            if batch.taken == want || batch.end != End::All {
                break;
            }
        }
        if self.engaged {
            self.end_chain(batch.end == End::All, batch.taken);
        }
        self.backend.kick();
        if self.engaged {
            self.end_batch();
            self.settle();
        }
        batch
    }

    /// What the next SQE looks like, for the choice of a run and nothing else.
    #[inline(always)]
    pub(super) fn next_kind(&self) -> Kind {
        match self.sq.entry(self.sq.position()) {
            Some(cell) => op::kind(cell.words().head().opcode()),
            None => Kind::None,
        }
    }

    /// Takes one SQE the long way: any operation, any state of the ring.
    /// Answers what the next one may be.
    fn step(&mut self, batch: &mut Batch, want: u32) -> Kind {
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
            self.starve(batch);
            return Kind::None;
        };
        let sqe = cell.read();
        let kind = op::kind(sqe.opcode);
        let slow = self.engaged && self.holding.slow();
        if kind.is_held() || sqe.flags & HOLDING != 0 || slow {
            let picks = sqe.opcode == IORING_OP_READ && sqe.flags & HOLDING == IOSQE_BUFFER_SELECT;
            let short = if picks && !slow { self.read_picking(index, &sqe) } else { None };
            let issue = match short {
                Some(issue) => issue,
                None => self.take_held(index, kind, &sqe, want - batch.taken),
            };
            self.account(batch, index, issue);
            // No run: what follows may have to be held.
            return Kind::None;
        }
        let issue = self.issue(index, kind, &sqe);
        self.account(batch, index, issue);
        kind
    }

    /// What became of the SQE at the head, given record `index`, for the batch.
    pub(super) fn account(&mut self, batch: &mut Batch, index: u32, issue: Issue) {
        if let Issue::NoRoom = issue {
            self.pool.put(index);
            return self.starve(batch);
        }
        self.sq.seek(self.sq.position().wrapping_add(1));
        batch.taken += 1;
        if matches!(issue, Issue::Failed) {
            let stop = !self.config.submit_all && !fault::on(Fault::FailureDoesNotStop);
            if stop || fault::on(Fault::SubmitAllIgnored) {
                batch.end = End::Failed;
                batch.taken -= u32::from(fault::on(Fault::FailureNotCounted));
            }
        }
    }

    /// The SQE at the head must wait for a completion.
    #[cold]
    fn starve(&mut self, batch: &mut Batch) {
        self.stats.busy += 1;
        self.starved = true;
        batch.end = End::Busy;
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
        if let Err(errno) = prepare(&self.config, kind, sqe) {
            return self.fail(index, sqe.user_data, errno.to_result());
        }
        if kind == Kind::Nop {
            let res = nop_result(sqe);
            self.complete_now(index, Cqe { user_data: sqe.user_data, res, flags: 0 });
            return Issue::Taken;
        }
        if kind.provides() && !self.provides() {
            return self.fail(index, sqe.user_data, Errno::EINVAL.to_result());
        }
        if let Some(held) = self.holding.held.get_mut(index as usize) {
            // For a cancellation that asks for it.
            held.sqe.fd = sqe.fd;
            held.waits = 0;
        }
        self.issue_prepared(index, kind, sqe)
    }

    /// Starts what is not the business of `held` requests only, all checks of
    /// the SQE alone made.
    pub(super) fn issue_prepared(&mut self, index: u32, kind: Kind, sqe: &Sqe) -> Issue {
        match kind {
            Kind::PollAdd => self.poll_add(index, sqe),
            Kind::PollRemove => self.poll_remove(index, sqe),
            Kind::FilesUpdate => self.files_update(index, sqe),
            Kind::ProvideBuffers => self.provide_buffers(index, sqe),
            Kind::RemoveBuffers => self.remove_buffers(index, sqe),
            Kind::MsgRing => self.msg_ring(index, sqe),
            _ => self.issue_io(index, kind, sqe),
        }
    }

    pub(super) fn issue_io(&mut self, index: u32, kind: Kind, sqe: &Sqe) -> Issue {
        if !self.backend.supports(sqe.opcode) {
            return self.fail(index, sqe.user_data, Errno::EINVAL.to_result());
        }
        let file_index =
            if matches!(kind, Kind::Openat | Kind::Close) { sqe.splice_fd_in as u32 } else { 0 };
        if kind == Kind::Close && file_index != 0 {
            return self.close_place(index, sqe, file_index);
        }
        let (target, file) =
            match if kind.has_file() { self.target(sqe) } else { Ok((Target::Fd(sqe.fd), NONE)) } {
                Ok(target) => target,
                Err(errno) => return self.no_file(index, kind, sqe, errno),
            };
        let (mut handle, mut buffer) = (None, NONE);
        if kind == Kind::Fixed {
            buffer = u32::from(sqe.buf_index) + u32::from(fault::on(Fault::BufferIndexOffByOne));
            match self.fixed_range(sqe, buffer) {
                Ok(of_buffer) => handle = Some(of_buffer),
                Err(errno) => {
                    let errno = match target {
                        Target::Fd(fd) if !self.backend.is_open(fd) => Errno::EBADF,
                        _ => errno,
                    };
                    return self.end(index, sqe.user_data, errno.to_result());
                }
            }
        }
        let fallback = index == self.pool.fallback();
        let request = Request {
            opcode: sqe.opcode,
            flags: sqe.flags,
            fallback,
            target,
            buffer: handle,
            addr: sqe.addr,
            len: sqe.len,
            off: sqe.off,
            op_flags: sqe.op_flags,
            direct: file_index != 0,
        };
        let record = &mut self.pool.records[index as usize];
        let held = record.what.has(HELD);
        record.user_data = sqe.user_data;
        record.what = What::new(sqe.opcode, file, buffer);
        if held {
            record.what.set(HELD);
        }
        if fallback {
            record.what.set(RESERVED);
        }
        // Before `start`: the completion may come from another thread before
        // `start` returns. It waits on the return list until we look there.
        let slots = self.shared.slots.run();
        let token = slots.arm(index);
        // SAFETY: whoever pushed the SQE promised that its memory stays
        // valid until the CQE (SubmissionQueue::push), and a registered
        // range lies inside memory that its registrar keeps valid.
        let mut start = unsafe { self.backend.start(token, &request) };
        if file_index != 0 {
            start = self.opening(index, file_index, start);
        }
        self.started(index, sqe.user_data, start)
    }

    /// What a backend said to a request that is armed, in record `index`.
    pub(super) fn started(&mut self, index: u32, user_data: u64, start: Start) -> Issue {
        if !matches!(start, Start::Pending | Start::More(_) | Start::Waiting) {
            self.shared.slots.retire(index);
        }
        match start {
            // Our reference of the two that a request has, the submission's,
            // was that nothing can come home while we are here.
            Start::Pending => {
                self.pending += 1;
                self.shared.slots.run().started(index);
                if fault::on(Fault::ReferenceIgnored) {
                    self.complete_now(index, Cqe { user_data, res: 0, flags: 0 });
                }
                Issue::Taken
            }
            Start::Waiting => {
                self.pending += 1;
                self.shared.slots.run().started(index);
                self.waits(index);
                self.lend(index);
                Issue::Taken
            }
            Start::Done(result) => self.end(index, user_data, result),
            Start::More(result) => {
                self.pending += 1;
                self.more(index, result);
                Issue::Taken
            }
            Start::Refused(result) => self.fail(index, user_data, result),
            // Nothing is in flight whose end could make room: waiting would
            // be for ever. The reserved record is only taken when all others
            // are, if only by timeouts: there it is one of those that is waited
            // for, as long as there is any.
            Start::NoRoom
                if self.pending == 0
                    && self.overflow.is_empty()
                    && (index != self.pool.fallback() || self.pool.used() == 1) =>
            {
                self.end(index, user_data, Errno::ENOMEM.to_result())
            }
            Start::NoRoom => Issue::NoRoom,
        }
    }

    /// Ends a request whose registered file is not there. As in Linux, memory of
    /// a read or write that cannot be comes first, and is a refusal.
    #[cold]
    fn no_file(&mut self, index: u32, kind: Kind, sqe: &Sqe, errno: Errno) -> Issue {
        if sqe.flags & IOSQE_FIXED_FILE != 0 && matches!(kind, Kind::ReadWrite | Kind::Vectored) {
            // SAFETY: as for `start`: whoever pushed the SQE promised its memory.
            let kept = unsafe { self.backend.keep(index as usize, sqe.opcode, sqe.addr, sqe.len) };
            match kept {
                Ok(_) => self.backend.forget(index as usize),
                Err(why @ (Errno::EFAULT | Errno::EINVAL)) => {
                    return self.fail(index, sqe.user_data, why.to_result());
                }
                // No room to keep anything, which is not needed.
                Err(_) => {}
            }
        }
        self.end(index, sqe.user_data, errno.to_result())
    }

    /// The file an SQE means, and its place if it is registered.
    pub(super) fn target(&self, sqe: &Sqe) -> Result<(Target<B::File>, u32), Errno> {
        if sqe.flags & IOSQE_FIXED_FILE != 0 {
            let place = sqe.fd as u32;
            let file = self.files.get(place).ok_or(Errno::EBADF)?;
            return Ok((Target::Registered(file), place));
        }
        if self.config.policy == Policy::Seed && matches!(self.config.mode, Mode::SqPoll { .. }) {
            // Seed 001: submission polling takes registered files only.
            return Err(Errno::EBADF);
        }
        Ok((Target::Fd(sqe.fd), NONE))
    }

    /// Checks the range of the registered buffer at `place`.
    fn fixed_range(&self, sqe: &Sqe, place: u32) -> Result<B::Buffer, Errno> {
        let buffer = self.buffers.get(place).ok_or(Errno::EFAULT)?;
        if buffer.holds(sqe.addr, sqe.len) || fault::on(Fault::RangeUnchecked) {
            return Ok(buffer.handle);
        }
        let first = buffer.start.get() as u64;
        let after = first + buffer.len as u64;
        let end = sqe.addr.checked_add(sqe.len.into()).ok_or(Errno::EFAULT)?;
        let past = end == after + 1 && sqe.addr >= first && fault::on(Fault::RangeOnePast);
        let before = sqe.addr < first && end <= after && fault::on(Fault::RangeStartUnchecked);
        if past || before { Ok(buffer.handle) } else { Err(Errno::EFAULT) }
    }

    /// A request that ended while it was started.
    #[inline]
    pub(super) fn end(&mut self, index: u32, user_data: u64, result: i32) -> Issue {
        let cqe = done(user_data, result);
        if self.pool.records[index as usize].what.has(HELD) {
            self.conclude(index, cqe.res);
        } else {
            self.complete_now(index, cqe);
        }
        Issue::Taken
    }

    /// An SQE that was refused.
    #[cold]
    pub(super) fn fail(&mut self, index: u32, user_data: u64, result: i32) -> Issue {
        self.stats.refused += 1;
        if self.pool.records[index as usize].what.has(HELD) {
            self.conclude(index, result);
            return Issue::Failed;
        }
        self.complete_now(index, Cqe { user_data, res: result, flags: 0 });
        Issue::Failed
    }
}

/// The CQE of a request that ended while it was started.
#[inline(always)]
pub(super) fn done(user_data: u64, result: i32) -> Cqe {
    let res = if fault::on(Fault::ErrorsBecomeZero) { result.max(0) } else { result };
    let flags = u32::from(fault::on(Fault::CqeFlagsGarbage)) << 5;
    Cqe { user_data, res, flags }
}
