//! Cancellation: finding requests, and ending those that have not begun. By an
//! SQE (ASYNC_CANCEL), or by a call, which also waits for what has begun.

use super::{Engine, EventCount};
use crate::config::Mode;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Cancel, Host, Parked};
use crate::held::Marks;
use crate::request::{ENDED, HELD, REMOVED, Record, Table};
use crate::sqe::Sqe;
use crate::types::{CancelBuilder, Timespec};
use crate::uapi::{
    IORING_ASYNC_CANCEL_ALL, IORING_ASYNC_CANCEL_ANY, IORING_ASYNC_CANCEL_FD,
    IORING_ASYNC_CANCEL_FD_FIXED, IORING_ASYNC_CANCEL_OP, IORING_ASYNC_CANCEL_USERDATA,
    IORING_OP_READV, IOSQE_FIXED_FILE,
};

/// `IORING_ASYNC_CANCEL_*` that have a meaning.
pub(super) const FLAGS: u32 = IORING_ASYNC_CANCEL_ALL
    | IORING_ASYNC_CANCEL_ANY
    | IORING_ASYNC_CANCEL_FD
    | IORING_ASYNC_CANCEL_FD_FIXED
    | IORING_ASYNC_CANCEL_OP
    | IORING_ASYNC_CANCEL_USERDATA;

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

/// The answer of a call that cancels, from that of one attempt after the
/// first; none if there is still something under way.
fn after_wait(attempt: Result<u32, Errno>) -> Option<Result<u32, Errno>> {
    match attempt {
        Err(Errno::EALREADY) => None,
        // What was under way has ended by itself.
        Ok(_) | Err(Errno::ENOENT) => Some(Ok(0)),
        Err(errno) => Some(Err(errno)),
    }
}

/// When a wait that begins now ends.
fn end_of_wait<H: Host>(host: &H, timeout: Option<Timespec>) -> Option<u64> {
    timeout.map(|timeout| host.now().saturating_add(timeout.as_nanos()))
}

/// A call that cancels, made by a thread that does not drive the engine: tries
/// again whenever there are completions, which `events` tells of.
pub(crate) fn cancel_from_outside<H: Host>(
    host: &H,
    events: &EventCount,
    timeout: Option<Timespec>,
    mut attempt: impl FnMut() -> Result<u32, Errno>,
) -> Result<u32, Errno> {
    match attempt() {
        Err(Errno::EALREADY) if !fault::on(Fault::SyncCancelDoesNotWait) => {}
        answer => return answer,
    }
    let deadline = end_of_wait(host, timeout);
    loop {
        let key = events.prepare();
        if let Some(answer) = after_wait(attempt()) {
            return answer;
        }
        if deadline.is_some_and(|deadline| host.now() >= deadline) {
            return Err(Errno::ETIME);
        }
        match events.wait(host, key, deadline) {
            Parked::Woken => {}
            Parked::TimedOut => return Err(Errno::ETIME),
            Parked::Interrupted => return Err(Errno::EINTR),
        }
    }
}

impl Wanted {
    /// Whether user data and opcode are as wanted.
    fn is(&self, user_data: u64, opcode: u8) -> bool {
        if self.flags & IORING_ASYNC_CANCEL_ANY != 0 {
            return true;
        }
        let by_other = self.flags & (IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_OP) != 0;
        let by_data = !by_other || self.flags & IORING_ASYNC_CANCEL_USERDATA != 0;
        let by_op = self.flags & IORING_ASYNC_CANCEL_OP != 0 && !fault::on(Fault::CancelOpIgnored);
        (!by_op || opcode == self.opcode) && (!by_data || user_data == self.user_data)
    }
}

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// ASYNC_CANCEL: the result.
    pub(super) fn cancel(&mut self, sqe: &Sqe) -> i32 {
        let flags = sqe.op_flags;
        let fixed = sqe.flags & IOSQE_FIXED_FILE != 0 || flags & IORING_ASYNC_CANCEL_FD_FIXED != 0;
        let (user_data, file, opcode) = (sqe.addr, sqe.fd, sqe.len as u8);
        self.cancel_wanted(&Wanted { flags, user_data, file, fixed, opcode })
    }

    /// [`Call::Cancel`](crate::register::Call::Cancel). Inline it drives the
    /// engine until what it has found under way has ended; otherwise that is
    /// `EALREADY`, and whoever called waits ([`cancel_from_outside`]).
    #[cold]
    pub(super) fn cancel_call(
        &mut self,
        what: CancelBuilder,
        timeout: Option<Timespec>,
    ) -> Result<u32, Errno> {
        if what.flags & !FLAGS != 0 || self.holding.held.is_empty() {
            return Err(Errno::EINVAL);
        }
        let mut answer = self.cancel_once(what);
        let waits = self.config.mode == Mode::Inline && !fault::on(Fault::SyncCancelDoesNotWait);
        if answer == Err(Errno::EALREADY) && waits {
            answer = self.cancel_and_wait(what, end_of_wait(&self.shared.host, timeout));
        }
        // As in Linux, the CQE of what has been cancelled is there by now.
        // And nobody is woken for nothing: it may be who calls.
        if self.progress() || self.cq.uncommitted() {
            self.publish();
        }
        answer
    }

    fn cancel_and_wait(
        &mut self,
        what: CancelBuilder,
        deadline: Option<u64>,
    ) -> Result<u32, Errno> {
        let mut looks = 0;
        loop {
            self.progress();
            if let Some(answer) = after_wait(self.cancel_once(what)) {
                return answer;
            }
            // Somebody may wait for what has come meanwhile.
            self.publish();
            if deadline.is_some_and(|deadline| self.shared.host.now() >= deadline) {
                return Err(Errno::ETIME);
            }
            if self.pause(&mut looks, deadline, false) == Parked::Interrupted {
                return Err(Errno::EINTR);
            }
        }
    }

    fn cancel_once(&mut self, what: CancelBuilder) -> Result<u32, Errno> {
        let CancelBuilder { flags, user_data, file, opcode } = what;
        let fixed = flags & IORING_ASYNC_CANCEL_FD_FIXED != 0;
        let result = self.cancel_wanted(&Wanted { flags, user_data, file, fixed, opcode });
        match Errno::from_result(result) {
            Some(errno) => Err(errno),
            None => Ok(result as u32),
        }
    }

    fn cancel_wanted(&mut self, wanted: &Wanted) -> i32 {
        let &Wanted { flags, file, fixed, .. } = wanted;
        let by_file = flags & IORING_ASYNC_CANCEL_FD != 0;
        if by_file {
            let known = match fixed {
                true => self.files.get(file as u32).is_some(),
                false => self.backend.is_open(file),
            };
            if !known {
                return Errno::EBADF.to_result();
            }
        }
        let all = flags & (IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY) != 0;
        let one_of_all = all && fault::on(Fault::CancelAllEndsOne);
        let found = || match fault::on(Fault::CancelSaysNoEntry) {
            true => Errno::ENOENT.to_result(),
            false => 0,
        };
        let mut ended = 0;
        let mut running = false;
        let mut newest = None;
        for index in 0..self.pool.records.len() as u32 {
            if !self.shared.slots.peek(index as usize).0 || !self.matches(wanted, index) {
                continue;
            }
            let waits = self.holding.held.get(index as usize).map_or(0, |held| held.waits);
            if !all && waits != 0 {
                // As in Linux, of those that wait for readiness the newest, and
                // only if there is no other.
                let this = (self.polls.wrapping_sub(waits), index);
                newest = Some(newest.map_or(this, |newest| this.min(newest)));
                continue;
            }
            match self.end_request(index) {
                Cancel::Ended => ended += 1,
                Cancel::Running => running = true,
            }
            if ended != 0 && !all {
                return found();
            }
            if ended != 0 && one_of_all {
                return ended;
            }
        }
        if let Some((_, index)) = newest {
            match self.end_request(index) {
                Cancel::Ended => return found(),
                Cancel::Running => running = true,
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
        let of_file = wanted.flags & (IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ANY);
        if of_file == IORING_ASYNC_CANCEL_FD {
            let place = what.uses(Table::Files);
            let named = match wanted.fixed {
                true => place == wanted.file as u32 && !what.detached(Table::Files),
                false => place == crate::files::NONE && self.named(index) == Some(wanted.file),
            };
            if !named && !fault::on(Fault::CancelFileIgnored) {
                return false;
            }
        }
        let held = self.holding.held.get(index as usize).filter(|_| what.has(HELD));
        match held.is_some_and(|held| held.marks.contains(Marks::WAS_READV)) {
            true => wanted.is(user_data, IORING_OP_READV),
            false => wanted.is(user_data, what.opcode()),
        }
    }

    /// The file number in a request's SQE.
    fn named(&self, index: u32) -> Option<i32> {
        self.holding.held.get(index as usize).map(|held| held.sqe.fd)
    }
}
