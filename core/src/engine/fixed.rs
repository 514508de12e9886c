//! Runs of reads and writes that name a registered file and a registered
//! buffer: what a device sees most.
//!
//! What is the same for all SQEs of a run is looked up once; the backend goes
//! through the rest ([`Backend::start_run`]), with what it needs of the engine,
//! and of itself, in registers. What a run sees of an SQE that it leaves is
//! forgotten: `step` copies that one anew and makes all its checks on the copy.

use core::cell::Cell;

use super::Engine;
use super::submit::{Batch, done};
use super::tables::Range;
use crate::fault::{self, Fault};
use crate::hal::{Alike, Backend, Host, Piece, Run, Start};
use crate::op::{self, Kind};
use crate::request::{self, Record, What};
use crate::ring::{CqProducer, Group, Head, Stretch, Words};
use crate::slot;
use crate::uapi::{IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED, IOSQE_FIXED_FILE};

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// Starts the requests at the head of the SQ that read or write registered
    /// files by registered buffers and ask for nothing else. `want` is what the
    /// batch is to come to. It goes as far as the places of the SQ follow each
    /// other in memory.
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
        let all = self.sq.entries_by_place().stretch::<ARRAY>(start, most);
        let stack = &stack[stack.len() - all.len()..];
        let mut reads = Reads {
            all,
            places: all,
            at: 0,
            records: &mut records[..slots.len()],
            stack,
            indices: &stack[..all.len()],
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
            let before = reads.at;
            let range = buffer.range();
            let mut same = Same { reads: &mut reads, head, group, what, range };
            // SAFETY: as in `step`.
            unsafe { self.backend.start_run(alike, &mut same) };
            if reads.at == all.len() || reads.odd.is_some() || reads.at == before {
                break;
            }
            reads.limit(u32::MAX);
        }
        let Reads { at, ended, odd, .. } = reads;
        self.pool.take_run(all.len(), at + usize::from(odd.is_some()), ended);
        let taken = at as u32;
        self.sq.seek(start.wrapping_add(taken));
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
    all: Stretch<'m, ARRAY>,
    /// The run's and those before it.
    places: Stretch<'m, ARRAY>,
    /// The next of them.
    at: usize,
    records: &'a mut [Record],
    /// A record for each of `all`.
    stack: &'a [Cell<u32>],
    /// A record for each of `places`.
    indices: &'a [Cell<u32>],
    slots: slot::Run<'m>,
    /// For requests that end within their start, unless others wait for room.
    cq: Option<&'a mut CqProducer<'m>>,
    /// How many did; their records are at the start of the stack again.
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
        if self.at >= self.places.len() {
            return None;
        }
        self.places.entry(self.at).map(|cell| cell.words())
    }

    /// The record for it.
    #[inline(always)]
    fn index(&self) -> Option<u32> {
        self.indices.get(self.at).map(Cell::get)
    }

    /// Has no more than `most` taken.
    #[inline(always)]
    fn limit(&mut self, most: u32) {
        self.places = self.all.first(self.at.saturating_add(most as usize));
        self.indices = &self.stack[..self.places.len()];
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
        // Flags make it longer than any buffer: such requests have no run.
        let (addr, len) = (sqe.addr(), sqe.len_and_flags());
        if sqe.pad2() != 0 || !self.range.holds(addr, len) {
            return None;
        }
        let index = self.reads.index()?;
        *self.reads.records.get_mut(index as usize)? =
            Record { user_data: sqe.user_data(), what: self.what };
        // Before its start, as in `step`.
        let token = self.reads.slots.arm(index);
        let addr = if fault::on(Fault::EntryReadTwice) { sqe.addr() } else { addr };
        Some(Piece { token, addr, len: len as u32, off: sqe.off() })
    }

    #[inline(always)]
    fn answer(&mut self, start: Start) -> bool {
        if start == Start::Pending && !fault::on(Fault::ReferenceIgnored) {
            if fault::on(Fault::ArmedLate)
                && let Some(index) = self.reads.index()
            {
                self.reads.slots.started(index);
            }
            self.reads.at += 1;
            return true;
        }
        let Some(last) = self.reads.index() else { return false };
        let Reads { at, records, stack, slots, cq, ended, odd, .. } = &mut *self.reads;
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
        stack[*ended].set(last);
        *ended += 1;
        *at += 1;
        true
    }

    #[inline(always)]
    fn limit(&mut self, most: u32) {
        self.reads.limit(most);
    }

    #[inline(always)]
    fn take_back(&mut self) {
        if let Some(index) = self.reads.index() {
            self.reads.slots.retire(index);
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
