//! Timeouts and cancellation.

use super::{Entry, address};
use crate::types::{CancelBuilder, Fd, TimeoutFlags, Timespec};
use crate::uapi;

builder! {
    /// Completes with `-ETIME` when its time is over, or with 0 when as many
    /// requests as it [counts](Self::count) have completed since it was submitted.
    Timeout = IORING_OP_TIMEOUT
}

impl Timeout {
    /// After this span. The time itself is needed until the entry was submitted.
    #[inline]
    pub fn new(timespec: *const Timespec) -> Timeout {
        let entry =
            Entry { opcode: Timeout::CODE, addr: address(timespec), len: 1, ..Entry::default() };
        Timeout(entry.file(Fd(-1)))
    }

    /// How many completions are enough; 0, as it is unless set, for none. With [`TimeoutFlags::MULTISHOT`] how often it
    /// fires, 0 for ever.
    #[inline]
    pub const fn count(mut self, count: u32) -> Timeout {
        self.0.off = count as u64;
        self
    }

    /// What kind of time it is; a span by the monotonic clock unless set.
    #[inline]
    pub const fn flags(mut self, flags: TimeoutFlags) -> Timeout {
        self.0.op_flags = flags.bits();
        self
    }
}

builder! {
    /// Ends a [`Timeout`], which completes with `-ECANCELED`. Its own result is 0, or `-ENOENT` if there is no such timeout.
    TimeoutRemove = IORING_OP_TIMEOUT_REMOVE
}

impl TimeoutRemove {
    /// That with this user data.
    #[inline]
    pub fn new(user_data: u64) -> TimeoutRemove {
        let entry = Entry { opcode: TimeoutRemove::CODE, addr: user_data, ..Entry::default() };
        TimeoutRemove(entry.file(Fd(-1)))
    }
}

builder! {
    /// Gives a [`Timeout`] another time, and takes its count away. Its own result is 0, or `-ENOENT` if there is no such
    /// timeout.
    TimeoutUpdate = IORING_OP_TIMEOUT_REMOVE
}

impl TimeoutUpdate {
    /// That with this user data. The time itself is needed until the entry was submitted.
    #[inline]
    pub fn new(user_data: u64, timespec: *const Timespec) -> TimeoutUpdate {
        let entry = Entry {
            opcode: TimeoutUpdate::CODE,
            addr: user_data,
            off: address(timespec),
            op_flags: uapi::IORING_TIMEOUT_UPDATE,
            ..Entry::default()
        };
        TimeoutUpdate(entry.file(Fd(-1)))
    }

    /// [`TimeoutFlags::ABS`], or [`TimeoutFlags::LINK_TIMEOUT_UPDATE`] for a [`LinkTimeout`] under way.
    #[inline]
    pub const fn flags(mut self, flags: TimeoutFlags) -> TimeoutUpdate {
        self.0.op_flags = flags.bits() | uapi::IORING_TIMEOUT_UPDATE;
        self
    }
}

builder! {
    /// Gives the entry before it in a chain a time: when it is over, that one is cancelled, and this completes with
    /// `-ETIME`; if it ends in time, this completes with `-ECANCELED`.
    LinkTimeout = IORING_OP_LINK_TIMEOUT
}

impl LinkTimeout {
    /// This span, from the start of the entry before. The time itself is needed until the entry was submitted.
    #[inline]
    pub fn new(timespec: *const Timespec) -> LinkTimeout {
        let entry = Entry {
            opcode: LinkTimeout::CODE,
            addr: address(timespec),
            len: 1,
            ..Entry::default()
        };
        LinkTimeout(entry.file(Fd(-1)))
    }

    /// [`TimeoutFlags::ABS`] for a point in time.
    #[inline]
    pub const fn flags(mut self, flags: TimeoutFlags) -> LinkTimeout {
        self.0.op_flags = flags.bits();
        self
    }
}

builder! {
    /// Ends the request with this user data, if it has not begun. Its own result is 0, `-ENOENT` if there is no such
    /// request, `-EALREADY` if that is under way and ends by itself.
    AsyncCancel = IORING_OP_ASYNC_CANCEL
}

impl AsyncCancel {
    /// The request with this user data.
    #[inline]
    pub fn new(user_data: u64) -> AsyncCancel {
        let entry = Entry { opcode: AsyncCancel::CODE, addr: user_data, ..Entry::default() };
        AsyncCancel(entry.file(Fd(-1)))
    }
}

builder! {
    /// Ends the requests that match. With [`CancelBuilder::all`] and [`CancelBuilder::any`] the result is how many did.
    AsyncCancel2 = IORING_OP_ASYNC_CANCEL
}

impl AsyncCancel2 {
    /// Those that the builder means.
    #[inline]
    pub const fn new(builder: CancelBuilder) -> AsyncCancel2 {
        let mut entry = Entry::ZERO;
        entry.opcode = AsyncCancel2::CODE;
        entry.addr = builder.user_data;
        entry.fd = builder.file;
        entry.len = builder.opcode as u32;
        entry.op_flags = builder.flags;
        AsyncCancel2(entry)
    }
}
