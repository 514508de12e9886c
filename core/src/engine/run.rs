//! Runs of NOPs, straight from ring to ring.
//!
//! A run takes SQEs for as long as they are of its kind, with what it needs of
//! the engine in registers. What it sees of an SQE that it leaves is forgotten:
//! `step` copies that one anew and makes all its checks on the copy.

use super::Engine;
use super::prepare::FLAGS;
use crate::cqe::Cqe;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Host};
use crate::op::{self, Kind};
use crate::ring::Words;

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
        // No CQE passes one that waits for room: while any does, none is seen.
        debug_assert!(self.overflow.is_empty() || fault::on(Fault::RoomOfOthers));
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
