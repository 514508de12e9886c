//! ASYNC_CANCEL: finding requests, and ending those that have not begun.

use super::Engine;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Cancel, Host};
use crate::request::{ENDED, REMOVED, Record, Table};
use crate::sqe::Sqe;
use crate::uapi::{
    IORING_ASYNC_CANCEL_ALL, IORING_ASYNC_CANCEL_ANY, IORING_ASYNC_CANCEL_FD,
    IORING_ASYNC_CANCEL_FD_FIXED, IORING_ASYNC_CANCEL_OP, IORING_ASYNC_CANCEL_USERDATA,
    IOSQE_FIXED_FILE,
};

/// What a cancellation looks for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    flags: u32,
    user_data: u64,
    /// A number, or a place of the table of registered files.
    file: i32,
    fixed: bool,
    opcode: u8,
}

impl Wanted {
    /// Whether user data and opcode are as wanted.
    fn is(&self, user_data: u64, opcode: u8) -> bool {
        if self.flags & IORING_ASYNC_CANCEL_ANY != 0 {
            return true;
        }
        let by_other = self.flags & (IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_OP) != 0;
        let by_data = !by_other || self.flags & IORING_ASYNC_CANCEL_USERDATA != 0;
        (self.flags & IORING_ASYNC_CANCEL_OP == 0 || opcode == self.opcode)
            && (!by_data || user_data == self.user_data)
    }
}

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// ASYNC_CANCEL: the result.
    pub(super) fn cancel(&mut self, sqe: &Sqe) -> i32 {
        let flags = sqe.op_flags;
        let by_file = flags & IORING_ASYNC_CANCEL_FD != 0;
        let fixed = sqe.flags & IOSQE_FIXED_FILE != 0 || flags & IORING_ASYNC_CANCEL_FD_FIXED != 0;
        if by_file {
            let known = match fixed {
                true => self.files.get(sqe.fd as u32).is_some(),
                false => self.backend.is_open(sqe.fd),
            };
            if !known {
                return Errno::EBADF.to_result();
            }
        }
        let (user_data, file, opcode) = (sqe.addr, sqe.fd, sqe.len as u8);
        let wanted = Wanted { flags, user_data, file, fixed, opcode };
        let all = flags & (IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY) != 0;
        let found = || match fault::on(Fault::CancelSaysNoEntry) {
            true => Errno::ENOENT.to_result(),
            false => 0,
        };
        let mut ended = 0;
        let mut running = false;
        for index in 0..self.pool.records.len() as u32 {
            if !self.shared.slots.peek(index as usize).0 || !self.matches(&wanted, index) {
                continue;
            }
            match self.end_request(index) {
                Cancel::Ended => ended += 1,
                Cancel::Running => running = true,
            }
            if ended != 0 && !all {
                return found();
            }
        }
        // As in Linux, a timeout has no file, not even the one asked for.
        while !by_file && let Some(timeout) = self.timeout(false, |data, op| wanted.is(data, op)) {
            self.end_request(timeout);
            ended += 1;
            if !all {
                return found();
            }
        }
        match (all, ended, running) {
            (true, ended, _) => ended,
            (false, _, true) => Errno::EALREADY.to_result(),
            (false, _, false) => Errno::ENOENT.to_result(),
        }
    }

    fn matches(&self, wanted: &Wanted, index: u32) -> bool {
        let Record { user_data, what } = self.pool.records[index as usize];
        if what.has(REMOVED | ENDED) {
            return false;
        }
        if wanted.flags & IORING_ASYNC_CANCEL_FD != 0 {
            let place = what.uses(Table::Files);
            let named = match wanted.fixed {
                true => place == wanted.file as u32 && !what.detached(Table::Files),
                false => place == crate::files::NONE && self.named(index) == Some(wanted.file),
            };
            if !named {
                return false;
            }
        }
        wanted.is(user_data, what.opcode())
    }

    /// The file number in a request's SQE.
    fn named(&self, index: u32) -> Option<i32> {
        self.holding.held.get(index as usize).map(|held| held.sqe.fd)
    }
}
