//! Reads that pick a provided buffer, and are held back by nothing else.
//!
//! A held record costs as much as a read that ends at once. So such a read
//! goes without, and gets one only if it has to wait or fails: from then on it
//! is a held request like any other (`buffers.rs`).

use super::Engine;
use super::buffers::{length, shown};
use super::prepare::prepare;
use super::submit::Issue;
use crate::cqe::Cqe;
use crate::files::NONE;
use crate::hal::{Backend, Host, Request, Start};
use crate::held::{Held, Marks};
use crate::op::Kind;
use crate::request::{HELD, Record, What};
use crate::sqe::Sqe;

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// Starts a READ that picks its buffer, in record `index`. None if anything
    /// about it is out of the ordinary: nothing has been done then, and it goes
    /// the long way.
    #[inline(never)]
    pub(super) fn read_picking(&mut self, index: u32, sqe: &Sqe) -> Option<Issue> {
        let odd = index == self.pool.fallback()
            || !self.provides()
            || !self.backend.supports(sqe.opcode)
            || prepare(&self.config, Kind::ReadWrite, sqe).is_err();
        if odd {
            return None;
        }
        let (target, file) = self.target(sqe).ok()?;
        let picked = self.provided.pick(sqe.buf_index)?;
        let (user_data, len) = (sqe.user_data, length(&picked, sqe.len));
        let request = Request {
            opcode: sqe.opcode,
            flags: sqe.flags,
            fallback: false,
            target,
            buffer: None,
            addr: picked.addr,
            len,
            off: sqe.off,
            op_flags: sqe.op_flags,
            direct: false,
        };
        let what = What::new(sqe.opcode, file, NONE);
        self.pool.records[index as usize] = Record { user_data, what };
        // Before its start, as in `issue_io`.
        let token = self.shared.slots.run().arm(index);
        // SAFETY: who provided the buffer promised that it is valid, and nobody
        // else's, until the CQE that tells of it.
        let start = unsafe { self.backend.start(token, &request) };
        if let Start::Done(res @ 0..) = start {
            self.shared.slots.retire(index);
            self.complete_now(index, Cqe { user_data, res, flags: shown(Some(picked)) });
            return Some(Issue::Taken);
        }
        let group = sqe.buf_index;
        let held = Held {
            whole: Some(len),
            wanted: sqe.len,
            picked: Some(picked),
            ..Held::new(Sqe { addr: picked.addr, len, ..*sqe })
        };
        self.holding.held[index as usize] = held;
        let ring = self.provided.takes_back(group);
        self.holding.held[index as usize].marks.set(Marks::UNSPENT, ring);
        self.pool.records[index as usize].what.set(HELD);
        let issue = self.started(index, user_data, start);
        if let Issue::NoRoom = issue {
            self.unselect(index);
            self.pool.records[index as usize].what.clear(HELD);
        }
        self.spend_asked(index);
        Some(issue)
    }
}
