//! Timeouts and cancellation.

use super::{Entry, address};
use crate::types::{CancelBuilder, Fd, TimeoutFlags, Timespec};
use crate::uapi;

/// Completes with `-ETIME` when its time is over, or with 0 when as many
/// requests as it [counts](Self::count) have completed since it was submitted.
#[derive(Debug, Clone, Copy)]
#[must_use = "a builder does nothing until its entry is pushed to a ring"]
pub struct Timeout(Entry);

impl Timeout {
    /// The opcode, for [`Probe::is_supported`](crate::probe::Probe::is_supported).
    pub const CODE: u8 = uapi::IORING_OP_TIMEOUT;

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

    /// The entry.
    #[inline]
    pub fn build(self) -> Entry {
        self.0
    }
}

/// Ends a [`Timeout`], which completes with `-ECANCELED`. Its own result is 0, or `-ENOENT` if there is no such timeout.
#[derive(Debug, Clone, Copy)]
#[must_use = "a builder does nothing until its entry is pushed to a ring"]
pub struct TimeoutRemove(Entry);

impl TimeoutRemove {
    /// The opcode, for [`Probe::is_supported`](crate::probe::Probe::is_supported).
    pub const CODE: u8 = uapi::IORING_OP_TIMEOUT_REMOVE;

    /// That with this user data.
    #[inline]
    pub fn new(user_data: u64) -> TimeoutRemove {
        let entry = Entry { opcode: TimeoutRemove::CODE, addr: user_data, ..Entry::default() };
        TimeoutRemove(entry.file(Fd(-1)))
    }

    /// The entry.
    #[inline]
    pub fn build(self) -> Entry {
        self.0
    }
}

/// Gives a [`Timeout`] another time, and takes its count away. Its own result is 0, or `-ENOENT` if there is no such
/// timeout.
#[derive(Debug, Clone, Copy)]
#[must_use = "a builder does nothing until its entry is pushed to a ring"]
pub struct TimeoutUpdate(Entry);

impl TimeoutUpdate {
    /// The opcode, for [`Probe::is_supported`](crate::probe::Probe::is_supported).
    pub const CODE: u8 = uapi::IORING_OP_TIMEOUT_REMOVE;

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

    /// The entry.
    #[inline]
    pub fn build(self) -> Entry {
        self.0
    }
}

/// Gives the entry before it in a chain a time: when it is over, that one is cancelled, and this completes with
/// `-ETIME`; if it ends in time, this completes with `-ECANCELED`.
#[derive(Debug, Clone, Copy)]
#[must_use = "a builder does nothing until its entry is pushed to a ring"]
pub struct LinkTimeout(Entry);

impl LinkTimeout {
    /// The opcode, for [`Probe::is_supported`](crate::probe::Probe::is_supported).
    pub const CODE: u8 = uapi::IORING_OP_LINK_TIMEOUT;

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

    /// The entry.
    #[inline]
    pub fn build(self) -> Entry {
        self.0
    }
}

/// Ends the request with this user data, if it has not begun. Its own result is 0, `-ENOENT` if there is no such
/// request, `-EALREADY` if that is under way and ends by itself.
#[derive(Debug, Clone, Copy)]
#[must_use = "a builder does nothing until its entry is pushed to a ring"]
pub struct AsyncCancel(Entry);

impl AsyncCancel {
    /// The opcode, for [`Probe::is_supported`](crate::probe::Probe::is_supported).
    pub const CODE: u8 = uapi::IORING_OP_ASYNC_CANCEL;

    /// The request with this user data.
    #[inline]
    pub fn new(user_data: u64) -> AsyncCancel {
        let entry = Entry { opcode: AsyncCancel::CODE, addr: user_data, ..Entry::default() };
        AsyncCancel(entry.file(Fd(-1)))
    }

    /// The entry.
    #[inline]
    pub fn build(self) -> Entry {
        self.0
    }
}

/// Ends the requests that match. With [`CancelBuilder::all`] and [`CancelBuilder::any`] the result is how many did.
#[derive(Debug, Clone, Copy)]
#[must_use = "a builder does nothing until its entry is pushed to a ring"]
pub struct AsyncCancel2(Entry);

impl AsyncCancel2 {
    /// The opcode, for [`Probe::is_supported`](crate::probe::Probe::is_supported).
    pub const CODE: u8 = uapi::IORING_OP_ASYNC_CANCEL;

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

    /// The entry.
    #[inline]
    pub fn build(self) -> Entry {
        self.0
    }
}
