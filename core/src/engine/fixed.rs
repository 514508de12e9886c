//! Runs of reads and writes that name a registered file and a registered
//! buffer: what a device sees most.
//!
//! What is the same for all SQEs of a run is looked up once; the backend goes
//! through the rest ([`Backend::start_run`]), with what it needs of the engine,
//! and of itself, in registers. What a run sees of an SQE that it leaves is
//! forgotten: `step` copies that one anew and makes all its checks on the copy.

use core::cell::Cell;

use super::Engine;
use super::register::Range;
use super::submit::{Batch, done};
use crate::fault::{self, Fault};
use crate::hal::{Alike, Backend, Host, Piece, Run, Start};
use crate::op::{self, Kind};
use crate::request::{self, Record, What};
use crate::ring::{ByPlace, CqProducer, Group, Head, Words};
use crate::slot;
use crate::uapi::{IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED, IOSQE_FIXED_FILE};

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// Starts the requests at the head of the SQ that read or write registered
    /// files by registered buffers and ask for nothing else. `want` is what the
    /// batch is to come to.
    #[inline(always)]
    pub(super) fn run_fixed(&mut self, batch: &mut Batch, want: u32) {
        if self.sq.entries_by_place().has_array() {
            self.run_fixed_by::<true>(batch, want);
        } else {
            self.run_fixed_by::<false>(batch, want);
        }
    }

    /// `ARRAY`: the SQ has an index array.
    #[inline(always)]
    fn run_fixed_by<const ARRAY: bool>(&mut self, batch: &mut Batch, want: u32) {
        let slots = self.shared.slots.run();
        let request::Run { records, stack, .. } = self.pool.run();
        let most = stack.len().min((want - batch.taken) as usize);
        let start = self.sq.position();
        let mut reads = Reads::<ARRAY> {
            entries: self.sq.entries_by_place(),
            position: start,
            records: &mut records[..slots.len()],
            stack,
            first: stack.len() - most,
            low: stack.len() - most,
            indices: &stack[stack.len() - most..],
            slots,
            cq: self.overflow.is_empty().then_some(&mut self.cq),
            ended: 0,
            odd: None,
        };
        while let Some((head, group)) = reads.first() {
            if !fixed(head) || group.personality() != 0 || !self.backend.supports(head.opcode()) {
                break;
            }
            let off_by_one = u32::from(fault::on(Fault::BufferIndexOffByOne));
            let place = u32::from(group.buf_index()) + off_by_one;
            let (file, buffer) = (self.files.peek(head.fd()), self.buffers.peek(place));
            let (Some(file), Some(buffer)) = (file, buffer) else { break };
            let alike = Alike { opcode: head.opcode(), file, buffer: &buffer.handle };
            let what = What::new(head.opcode(), head.fd(), place);
            let before = reads.position;
            let range = buffer.range();
            let mut same = Same { reads: &mut reads, head, group, what, range };
            // SAFETY: as in `step`.
            unsafe { self.backend.start_run(alike, &mut same) };
            let all = reads.position.wrapping_sub(start) as usize == most;
            if all || reads.odd.is_some() || reads.position == before {
                break;
            }
            reads.limit(u32::MAX);
        }
        let Reads { position, ended, odd, .. } = reads;
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

/// Where the runs of a batch have got to.
struct Reads<'a, 'm, const ARRAY: bool> {
    entries: ByPlace<'m>,
    position: u32,
    records: &'a mut [Record],
    stack: &'a [Cell<u32>],
    /// Where on the stack the batch's last record is.
    first: usize,
    /// And the run's.
    low: usize,
    /// From there up to the next record.
    indices: &'a [Cell<u32>],
    slots: slot::Run<'m>,
    /// For requests that end within their start, unless others wait for room.
    cq: Option<&'a mut CqProducer<'m>>,
    /// How many did; their records are back on top of the stack.
    ended: usize,
    /// The last one, if its start did not go as usual.
    odd: Option<(u32, u64, Start)>,
}

/// A run of requests for one file and one buffer.
struct Same<'r, 'a, 'm, const ARRAY: bool> {
    reads: &'r mut Reads<'a, 'm, ARRAY>,
    head: Head,
    group: Group,
    what: What,
    range: Range,
}

impl<'m, const ARRAY: bool> Reads<'_, 'm, ARRAY> {
    /// The next SQE, if the batch wants it and there is a record for it.
    #[inline(always)]
    fn sqe(&self) -> Option<Words<'m>> {
        if self.indices.is_empty() {
            return None;
        }
        self.entries.at_by::<ARRAY>(self.position).map(|cell| cell.words())
    }

    /// Has no more than `most` taken.
    #[inline(always)]
    fn limit(&mut self, most: u32) {
        let end = self.low + self.indices.len();
        self.low = end.saturating_sub(most as usize).max(self.first);
        self.indices = &self.stack[self.low..end];
    }

    /// The record that was taken last.
    fn last(&self) -> u32 {
        self.stack[self.low + self.indices.len()].get()
    }

    /// What the next SQE looks like; to be compared when it is taken.
    #[inline(always)]
    fn first(&self) -> Option<(Head, Group)> {
        self.sqe().map(|sqe| (sqe.head(), sqe.group()))
    }
}

impl<const ARRAY: bool> Run for Same<'_, '_, '_, ARRAY> {
    #[inline(always)]
    fn next(&mut self) -> Option<Piece> {
        let sqe = self.reads.sqe()?;
        if sqe.head() != self.head || sqe.group() != self.group {
            return None;
        }
        let (addr, len) = (sqe.addr(), sqe.len());
        if sqe.pad2() != 0 || !self.range.holds(addr, len) {
            return None;
        }
        let (index, indices) = self.reads.indices.split_last()?;
        self.reads.indices = indices;
        let index = index.get();
        *self.reads.records.get_mut(index as usize)? =
            Record { user_data: sqe.user_data(), what: self.what };
        // Before its start, as in `step`.
        let token = self.reads.slots.arm(index);
        Some(Piece { token, addr, len, off: sqe.off(), op_flags: sqe.op_flags() })
    }

    #[inline(always)]
    fn answer(&mut self, start: Start) -> bool {
        if start == Start::Pending && !fault::on(Fault::ReferenceIgnored) {
            if fault::on(Fault::ArmedLate) {
                self.reads.slots.started(self.reads.last());
            }
            self.reads.position = self.reads.position.wrapping_add(1);
            return true;
        }
        let last = self.reads.last();
        let Reads { position, records, stack, slots, cq, ended, odd, .. } = &mut *self.reads;
        let user_data = records[last as usize].user_data;
        let posted = match (start, cq) {
            (Start::Done(result), Some(cq)) => cq.push(done(user_data, result)),
            _ => false,
        };
        if !posted {
            *odd = Some((last, user_data, start));
            return false;
        }
        // Back on the stack, where it has been read already.
        slots.retire(last);
        *ended += 1;
        stack[stack.len() - *ended].set(last);
        *position = position.wrapping_add(1);
        true
    }

    #[inline(always)]
    fn limit(&mut self, most: u32) {
        self.reads.limit(most);
    }

    #[inline(always)]
    fn take_back(&mut self) {
        let reads = &mut *self.reads;
        reads.slots.retire(reads.last());
        let end = reads.low + reads.indices.len() + 1;
        reads.indices = &reads.stack[reads.low..end];
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
