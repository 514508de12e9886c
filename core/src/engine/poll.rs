//! Waiting for readiness: POLL_ADD, and POLL_REMOVE, which ends or changes a
//! wait.
//!
//! The rules are Linux 6.18's:
//!
//! * Errors, hang-ups and the other side's half of a shutdown are always
//!   waited for. A wait ends with its first event unless it is a multishot
//!   one; that posts a CQE with `F_MORE` for each wake-up that finds something,
//!   and ends when one of them does not fit into the CQ.
//! * POLL_REMOVE means the newest wait with that `user_data`: 0, and the wait
//!   ends with `-ECANCELED`; `-ENOENT` if there is none; `-EALREADY` if it has
//!   been woken and is about to say so.
//! * An update is a removal and a new wait in one: what is ready already counts
//!   as an event. It may change the events and the `user_data`, not whether the
//!   wait is a multishot one.
//! * `EPOLLEXCLUSIVE` is refused: a backend cannot promise that one wake-up
//!   reaches one wait only.
//!
//! Who wakes a wait, arms it or removes it meets the others at the slot's
//! state word ([`crate::slot`]): a notice is taken once, and a wait ends where
//! the engine takes one. A removal is a notice too, the backend's own, so it
//! cannot pass a wake-up, nor be passed by one and end the wait twice.

use super::Engine;
use super::submit::Issue;
use crate::cqe::Cqe;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Cancel, Host};
use crate::op::Kind;
use crate::request::{ENDED, REMOVED};
use crate::sqe::{Sqe, poll32_events};
use crate::uapi::{
    EPOLLERR, EPOLLEXCLUSIVE, EPOLLHUP, EPOLLNVAL, EPOLLONESHOT, EPOLLRDHUP, IORING_CQE_F_MORE,
    IORING_OP_POLL_ADD, IORING_POLL_ADD_MULTI, IORING_POLL_UPDATE_EVENTS,
    IORING_POLL_UPDATE_USER_DATA, IOSQE_CQE_SKIP_SUCCESS,
};

/// Events are the low half of a mask, its flags lie above.
const EVENTS: u32 = 0xffff;
/// Events that need not be asked for.
const ALWAYS: u32 = EPOLLERR | EPOLLHUP | EPOLLNVAL | EPOLLRDHUP;

/// The events of an entry as a backend gets them: every bit an event that is
/// waited for, and [`EPOLLONESHOT`] if the first one ends the wait.
fn events(sqe: &Sqe) -> u32 {
    let mask = poll32_events(sqe.op_flags);
    let multi = sqe.len & IORING_POLL_ADD_MULTI != 0 && !fault::on(Fault::PollAlwaysOnce);
    let once = mask & EPOLLONESHOT != 0 || !multi;
    let always = if fault::on(Fault::PollAlwaysForgotten) { 0 } else { ALWAYS };
    mask & EVENTS | always | if once { EPOLLONESHOT } else { 0 }
}

/// An event mask that can be waited for.
fn check_events(sqe: &Sqe) -> Result<(), Errno> {
    if poll32_events(sqe.op_flags) & EPOLLEXCLUSIVE != 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

/// The checks of a POLL_ADD that need nothing but the SQE.
pub(super) fn check_add(sqe: &Sqe) -> Result<(), Errno> {
    let multi = sqe.len & IORING_POLL_ADD_MULTI != 0;
    if sqe.buf_index != 0
        || sqe.off != 0
        || sqe.addr != 0
        || sqe.len & !IORING_POLL_ADD_MULTI != 0
        || multi && sqe.flags & IOSQE_CQE_SKIP_SUCCESS != 0
    {
        return Err(Errno::EINVAL);
    }
    check_events(sqe)
}

/// The checks of a POLL_REMOVE that need nothing but the SQE.
pub(super) fn check_remove(sqe: &Sqe) -> Result<(), Errno> {
    const KNOWN: u32 =
        IORING_POLL_ADD_MULTI | IORING_POLL_UPDATE_EVENTS | IORING_POLL_UPDATE_USER_DATA;
    let gives_events = sqe.len & IORING_POLL_UPDATE_EVENTS != 0;
    let gives_user_data = sqe.len & IORING_POLL_UPDATE_USER_DATA != 0;
    if sqe.buf_index != 0
        || sqe.splice_fd_in != 0
        || sqe.len & !KNOWN != 0
        // Of no meaning without an update.
        || sqe.len == IORING_POLL_ADD_MULTI
        || !gives_user_data && sqe.off != 0
        || !gives_events && sqe.op_flags != 0
    {
        return Err(Errno::EINVAL);
    }
    if gives_events { check_events(sqe) } else { Ok(()) }
}

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// Starts a wait in record `index`.
    #[cold]
    pub(super) fn poll_add(&mut self, index: u32, sqe: &Sqe) -> Issue {
        self.number(index);
        let wait = Sqe { op_flags: events(sqe), len: 0, ..*sqe };
        self.issue_io(index, Kind::PollAdd, &wait)
    }

    /// The newest wait from now on. The number lies where a request that is
    /// pending has no outcome yet.
    fn number(&mut self, index: u32) {
        self.waits(index);
        self.pool.outcomes[index as usize].cflags = self.polls;
    }

    /// A request waits for readiness from now on, the newest that does.
    pub(super) fn waits(&mut self, index: u32) {
        self.polls = self.polls.wrapping_add(1);
        if let Some(held) = self.holding.held.get_mut(index as usize) {
            // 0 is none.
            held.waits = self.polls.max(1);
        }
    }

    /// Ends or changes a wait; `index` is the record of who asks for it.
    #[cold]
    pub(super) fn poll_remove(&mut self, index: u32, sqe: &Sqe) -> Issue {
        if !self.backend.supports(IORING_OP_POLL_ADD) {
            return self.fail(index, sqe.user_data, Errno::EINVAL.to_result());
        }
        let result = match self.change_poll(sqe) {
            Ok(()) => 0,
            Err(errno) => errno.to_result(),
        };
        self.end(index, sqe.user_data, result)
    }

    fn change_poll(&mut self, sqe: &Sqe) -> Result<(), Errno> {
        let index = self.find_poll(sqe.addr).ok_or(Errno::ENOENT)?;
        let slots = &self.shared.slots;
        // A wake-up that comes from here on finds the wait changed, or over.
        if slots.peek(index as usize).1 {
            return Err(Errno::EALREADY);
        }
        let token = slots.token(index);
        let update = sqe.len & (IORING_POLL_UPDATE_EVENTS | IORING_POLL_UPDATE_USER_DATA);
        if update == 0 {
            return match self.backend.cancel(token) {
                Cancel::Ended => {
                    if !fault::on(Fault::PollRemovedTwice) {
                        self.pool.records[index as usize].what.set(REMOVED);
                    }
                    Ok(())
                }
                Cancel::Running => Err(Errno::EALREADY),
            };
        }
        let gives_events = update & IORING_POLL_UPDATE_EVENTS != 0;
        let new = gives_events.then(|| events(sqe) & !EPOLLONESHOT);
        let new = new.filter(|_| !fault::on(Fault::PollEventsKept));
        if update & IORING_POLL_UPDATE_USER_DATA != 0 && !fault::on(Fault::PollUserDataKept) {
            self.pool.records[index as usize].user_data = sqe.off;
        }
        self.number(index);
        self.backend.update_poll(token, new);
        Ok(())
    }

    /// The newest wait with this `user_data` that nobody has ended.
    fn find_poll(&self, user_data: u64) -> Option<u32> {
        let slots = &self.shared.slots;
        let waits = self.pool.records.iter().enumerate().filter(|(index, record)| {
            record.what.opcode() == IORING_OP_POLL_ADD
                && record.user_data == user_data
                && !record.what.has(REMOVED | ENDED)
                && slots.peek(*index).0
        });
        let age = |index: usize| {
            let age = self.polls.wrapping_sub(self.pool.outcomes[index].cflags);
            if fault::on(Fault::PollOldestFirst) { !age } else { age }
        };
        waits.map(|(index, _)| index).min_by_key(|&index| age(index)).map(|index| index as u32)
    }

    /// Posts one of several CQEs of request `index`, which goes on. If there
    /// is no room for it, false: no CQE passes those that wait for room, and
    /// this one would need a place to wait in.
    #[cold]
    pub(super) fn post_more(&mut self, index: u32, result: i32) -> bool {
        let user_data = self.pool.records[index as usize].user_data;
        let flags = if fault::on(Fault::MoreNotShown) { 0 } else { IORING_CQE_F_MORE };
        let posted =
            self.overflow.is_empty() && self.cq.push(Cqe { user_data, res: result, flags });
        posted || fault::on(Fault::MoreLost)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const ADD: Sqe = Sqe {
        opcode: IORING_OP_POLL_ADD,
        flags: 0,
        ioprio: 0,
        fd: 3,
        off: 0,
        addr: 0,
        len: 0,
        op_flags: poll32_events(1),
        user_data: 9,
        buf_index: 0,
        personality: 0,
        splice_fd_in: 0,
        addr3: 0,
        pad2: 0,
    };

    #[test]
    fn a_mask_as_a_backend_gets_it() {
        assert_eq!(events(&ADD), 1 | 0x2038 | EPOLLONESHOT);
        let multi = Sqe { len: IORING_POLL_ADD_MULTI, ..ADD };
        assert_eq!(events(&multi), 1 | 0x2038);
        // What lies above the events is the kernel's own business.
        let odd = Sqe { op_flags: poll32_events(0xcfff_0004), ..multi };
        assert_eq!(events(&odd), 4 | 0x2038 | EPOLLONESHOT);
    }

    #[test]
    fn fields_that_must_be_zero() {
        assert_eq!(check_add(&ADD), Ok(()));
        let bad = [
            Sqe { buf_index: 1, ..ADD },
            Sqe { off: 1, ..ADD },
            Sqe { addr: 1, ..ADD },
            Sqe { len: 2, ..ADD },
            Sqe { len: 8, ..ADD },
            Sqe { len: 1, flags: IOSQE_CQE_SKIP_SUCCESS, ..ADD },
            Sqe { op_flags: poll32_events(EPOLLEXCLUSIVE | 1), ..ADD },
        ];
        for sqe in bad {
            assert_eq!(check_add(&sqe), Err(Errno::EINVAL), "{sqe:?}");
        }
        // Of these the kernel takes any.
        assert_eq!(check_add(&Sqe { splice_fd_in: 1, addr3: 1, pad2: 1, ..ADD }), Ok(()));

        let remove = Sqe { addr: 9, op_flags: 0, ..ADD };
        assert_eq!(check_remove(&remove), Ok(()));
        for len in [2, 3, 4, 5, 6, 7] {
            assert_eq!(check_remove(&Sqe { len, ..remove }), Ok(()), "{len}");
        }
        let bad = [
            Sqe { buf_index: 1, ..remove },
            Sqe { splice_fd_in: 1, ..remove },
            Sqe { off: 1, ..remove },
            Sqe { off: 1, len: 2, ..remove },
            Sqe { op_flags: poll32_events(1), ..remove },
            Sqe { op_flags: poll32_events(1), len: 4, ..remove },
            Sqe { op_flags: poll32_events(EPOLLEXCLUSIVE), len: 2, ..remove },
            Sqe { len: 1, ..remove },
            Sqe { len: 8, ..remove },
            Sqe { len: 10, ..remove },
        ];
        for sqe in bad {
            assert_eq!(check_remove(&sqe), Err(Errno::EINVAL), "{sqe:?}");
        }
    }
}
