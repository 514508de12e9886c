//! Builders of what waits for readiness, and ends or changes such a wait.

use super::Entry;
use crate::sqe::poll32_events;
use crate::types::{Fd, UseFd};
use crate::uapi;

builder! {
    /// Waits until a file is ready, as `poll(2)`; completes with the events that have come.
    PollAdd = IORING_OP_POLL_ADD
}

impl PollAdd {
    /// Waits for any of the events in `flags` (`EPOLL*` in [`uapi`], or `POLL*` of `poll(2)`). Errors, hang-ups and the
    /// end of what the other side sends are waited for in any case.
    #[inline]
    pub fn new(fd: impl UseFd, flags: u32) -> PollAdd {
        let op_flags = poll32_events(flags);
        PollAdd(Entry { opcode: PollAdd::CODE, op_flags, ..Entry::default() }.file(fd))
    }

    /// Whether it goes on after an event: every completion but the last one then says so
    /// ([`more`](crate::cqueue::more)). No, unless set.
    #[inline]
    pub const fn multi(mut self, multi: bool) -> PollAdd {
        self.0.len = if multi { uapi::IORING_POLL_ADD_MULTI } else { 0 };
        self
    }
}

builder! {
    /// Ends a [`PollAdd`], which then completes with `-ECANCELED`.
    ///
    /// Completes with 0, with `-ENOENT` if there is none, or with `-EALREADY` if an event is on its way.
    PollRemove = IORING_OP_POLL_REMOVE
}

impl PollRemove {
    /// The newest one with this `user_data`.
    #[inline]
    pub fn new(user_data: u64) -> PollRemove {
        let entry = Entry { opcode: PollRemove::CODE, addr: user_data, ..Entry::default() };
        PollRemove(entry.file(Fd(-1)))
    }
}

builder! {
    /// Changes what a [`PollAdd`] waits for, or its `user_data`, or both. What is ready already counts as an event.
    ///
    /// Completes as [`PollRemove`] does, whose opcode it shares. If nothing is set, it is one.
    PollUpdate = IORING_OP_POLL_REMOVE
}

impl PollUpdate {
    /// The newest one with this `user_data`.
    #[inline]
    pub fn new(old_user_data: u64) -> PollUpdate {
        PollUpdate(PollRemove::new(old_user_data).build())
    }

    /// The events that it waits for from now on, as in [`PollAdd::new`].
    #[inline]
    pub const fn events(mut self, flags: u32) -> PollUpdate {
        self.0.op_flags = poll32_events(flags);
        self.0.len |= uapi::IORING_POLL_UPDATE_EVENTS;
        self
    }

    /// The `user_data` of its completions from now on.
    #[inline]
    pub const fn new_user_data(mut self, user_data: u64) -> PollUpdate {
        self.0.off = user_data;
        self.0.len |= uapi::IORING_POLL_UPDATE_USER_DATA;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_says_what_it_changes() {
        let bare = Entry { opcode: PollRemove::CODE, fd: -1, addr: 5, ..Entry::default() };
        assert_eq!(PollRemove::new(5).build(), bare);
        assert_eq!(PollUpdate::new(5).build(), bare);
        let events = PollUpdate::new(5).events(uapi::EPOLLOUT);
        let op_flags = poll32_events(4);
        assert_eq!(events.build(), Entry { len: 2, op_flags, ..bare });
        let both = events.new_user_data(6).build();
        assert_eq!(both, Entry { len: 6, off: 6, op_flags, ..bare });
    }
}
