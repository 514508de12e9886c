//! Runs: the commonest requests, straight from ring to ring or to the backend.
//!
//! A run takes SQEs for as long as they are of its kind, with what it needs of
//! the engine in registers. What it sees of an SQE that it leaves is forgotten:
//! `step` copies that one anew and makes all its checks on the copy.

use super::Engine;
use super::prepare::FLAGS;
use super::submit::{Batch, done};
use crate::cqe::Cqe;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Host, Request, Start, Target};
use crate::op::{self, Kind};
use crate::request::{Record, Run, What};
use crate::ring::{Head, Words};
use crate::uapi::{IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED, IOSQE_FIXED_FILE};

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// Whether a [`run`](Self::run) of `want` ready SQEs finds room.
    #[inline(always)]
    pub(super) fn room_for_run(&self, want: u32) -> bool {
        want <= self.cq.run().room && self.pool.any()
    }

    /// Carries out the requests at the head of the SQ that end inside the
    /// engine, `want` of them if nothing stands in the way, with the positions
    /// of both rings in registers. Answers how many, and whether it was all.
    ///
    /// It wants one at least, that they are ready, and room for them.
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
            let sqe = cell.words();
            if !plain_nop(sqe) {
                break false;
            }
            // The record on top of the pool is this request's for as long as
            // it lasts: it is taken and given back within this line.
            cqes.put(tail, Cqe { user_data: sqe.user_data(), res: 0, flags: 0 });
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
    pub(super) fn run_some(&mut self, want: u32) -> u32 {
        let most = want.min(self.sq.ready());
        if most > self.cq.run().room && self.overflow.is_empty() {
            self.cq.refresh();
        }
        let most = most.min(self.cq.run().room);
        if most != 0 && self.room_for_run(most) { self.run_many(most).0 } else { 0 }
    }

    /// Starts the requests at the head of the SQ that read or write registered
    /// files by registered buffers and ask for nothing else: what a device
    /// does all day. The first that it cannot start, or that the backend does
    /// not take, ends it.
    ///
    /// File and buffer are looked up when an SQE names others than the one
    /// before it.
    #[inline(always)]
    pub(super) fn run_fixed(&mut self, batch: &mut Batch, want: u32) {
        let entries = self.sq.entries_by_place();
        let slots = self.shared.slots.run();
        let Run { records, stack, .. } = self.pool.run();
        let records = &mut records[..slots.len()];
        let most = stack.len().min((want - batch.taken) as usize);
        let mut indices = stack[stack.len() - most..].iter().rev();
        let start = self.sq.position();
        let mut position = start;
        // Records of requests that ended within their start, put back on top.
        let mut ended = 0;
        let Some(mut index) = indices.next() else { return };
        let Some(cell) = entries.at(position) else { return };
        let mut sqe = cell.words();
        let (mut head, mut group) = (sqe.head(), sqe.group());
        let mut odd = None;
        'file: loop {
            if !fixed(head) || !self.backend.supports(head.opcode()) {
                break;
            }
            let Some(file) = self.files.get(head.fd()) else { break };
            'buffer: loop {
                let off_by_one = u32::from(fault::on(Fault::BufferIndexOffByOne));
                let place = u32::from(group.buf_index()) + off_by_one;
                let Some(buffer) = self.buffers.get(place) else { break 'file };
                if group.personality() != 0 {
                    break 'file;
                }
                let what = What::new(head.opcode(), head.fd(), place);
                loop {
                    let (addr, len) = (sqe.addr(), sqe.len());
                    if sqe.pad2() != 0 || !buffer.holds(addr, len) {
                        break 'file;
                    }
                    let record_index = index.get();
                    let Some(record) = records.get_mut(record_index as usize) else {
                        break 'file;
                    };
                    let user_data = sqe.user_data();
                    *record = Record { user_data, what };
                    let request = Request {
                        opcode: head.opcode(),
                        flags: IOSQE_FIXED_FILE,
                        fallback: false,
                        target: Target::Registered(file),
                        buffer: Some(buffer.handle),
                        addr,
                        len,
                        off: sqe.off(),
                        op_flags: sqe.op_flags(),
                    };
                    // Before `start`, as in `step`.
                    let token = slots.arm(record_index);
                    // SAFETY: as in `step`.
                    let started = unsafe { self.backend.start(token, &request) };
                    if started == Start::Pending && !fault::on(Fault::ReferenceIgnored) {
                        slots.started(record_index);
                    } else {
                        let Start::Done(result) = started else {
                            odd = Some((record_index, user_data, started));
                            break 'file;
                        };
                        if !self.overflow.is_empty() || !self.cq.push(done(user_data, result)) {
                            odd = Some((record_index, user_data, started));
                            break 'file;
                        }
                        // Back on the stack, where it has been read already.
                        slots.retire(record_index);
                        ended += 1;
                        stack[stack.len() - ended].set(record_index);
                    }
                    position = position.wrapping_add(1);
                    let Some(next) = indices.next() else { break 'file };
                    index = next;
                    let Some(cell) = entries.at(position) else { break 'file };
                    sqe = cell.words();
                    let (last_head, last_group) = (head, group);
                    (head, group) = (sqe.head(), sqe.group());
                    if head != last_head {
                        continue 'file;
                    }
                    if group != last_group {
                        continue 'buffer;
                    }
                }
            }
        }
        let taken = position.wrapping_sub(start);
        let used = taken as usize + usize::from(odd.is_some());
        self.pool.take_run(used, ended);
        self.sq.seek(position);
        batch.taken += taken;
        self.pending += taken - ended as u32;
        if let Some((index, user_data, started)) = odd {
            let issue = self.started(index, user_data, started);
            self.account(batch, index, issue);
        }
    }
}

/// Whether this is the head of a fixed read or write of a registered file,
/// without another flag or a priority.
#[inline(always)]
fn fixed(head: Head) -> bool {
    const FIXED: u32 = u32::from_ne_bytes([IORING_OP_READ_FIXED, IOSQE_FIXED_FILE, 0, 0]);
    const OPCODE: u32 = u32::from_ne_bytes([IORING_OP_READ_FIXED ^ IORING_OP_WRITE_FIXED, 0, 0, 0]);
    const {
        assert!(OPCODE.count_ones() == 1 && FIXED & OPCODE == 0);
        assert!(matches!(op::kind(IORING_OP_READ_FIXED), Kind::Fixed));
        assert!(matches!(op::kind(IORING_OP_WRITE_FIXED), Kind::Fixed));
    };
    head.row() & !OPCODE == FIXED
}

/// Whether an SQE is a NOP of the usual kind: nothing to refuse, nothing to
/// inject. One test over the fields that `prepare` looks at; each is shifted
/// to where it lies in its word, so that the word needs only to be masked.
#[inline(always)]
fn plain_nop(sqe: Words<'_>) -> bool {
    const { assert!(matches!(op::kind(0), Kind::Nop)) };
    const ROW: u32 = u32::from_ne_bytes([0xff, !FLAGS, 0xff, 0xff]);
    let personality = u32::from(sqe.group().personality()) << 16;
    sqe.head().row() & ROW | personality | sqe.op_flags() == 0
}
