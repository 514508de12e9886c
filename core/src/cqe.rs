//! The completion queue entry: 16 bytes that tell how a request ended.

use crate::errno::Errno;
use crate::uapi;
use core::fmt;
use core::mem::{align_of, offset_of, size_of};
use static_assertions::const_assert_eq;

/// A completion queue entry, laid out as Linux's `io_uring_cqe`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Cqe {
    /// The submission's user data.
    pub user_data: u64,
    /// The result: of a read or write the number of bytes; negative, an error number.
    pub res: i32,
    /// `IORING_CQE_F_*`.
    pub flags: u32,
}

const_assert_eq!(size_of::<Cqe>(), 16);
const_assert_eq!(align_of::<Cqe>(), 8);
const_assert_eq!(offset_of!(Cqe, user_data), 0);
const_assert_eq!(offset_of!(Cqe, res), 8);
const_assert_eq!(offset_of!(Cqe, flags), 12);

impl Cqe {
    /// The submission's user data.
    #[inline]
    #[must_use]
    pub const fn user_data(&self) -> u64 {
        self.user_data
    }

    /// Replaces the user data, for code between the ring and the one who submitted.
    #[inline]
    pub const fn set_user_data(&mut self, user_data: u64) {
        self.user_data = user_data;
    }

    /// The result as Linux gives it: not negative on success, else a negated error number.
    #[inline]
    #[must_use]
    pub const fn result(&self) -> i32 {
        self.res
    }

    /// The result, with errors told apart.
    ///
    /// # Errors
    ///
    /// The request's error, if the result is one.
    #[inline]
    pub const fn outcome(&self) -> Result<u32, Errno> {
        match Errno::from_result(self.res) {
            Some(errno) => Err(errno),
            None => Ok(self.res as u32),
        }
    }

    /// The flags; see [`more`], [`buffer_select`] and the other functions of this module.
    #[inline]
    #[must_use]
    pub const fn flags(&self) -> u32 {
        self.flags
    }
}

impl fmt::Debug for Cqe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Cqe");
        out.field("user_data", &self.user_data);
        match self.outcome() {
            Ok(_) => out.field("res", &self.res),
            Err(errno) => out.field("res", &format_args!("-{errno:?}")),
        };
        out.field("flags", &format_args!("{:#x}", self.flags)).finish()
    }
}

/// The id of the buffer that the ring picked, from a completion's flags; `None` if it picked none.
#[inline]
#[must_use]
pub const fn buffer_select(flags: u32) -> Option<u16> {
    if flags & uapi::IORING_CQE_F_BUFFER == 0 {
        return None;
    }
    Some((flags >> uapi::IORING_CQE_BUFFER_SHIFT) as u16)
}

/// Whether the picked buffer was used only in part and later completions will use the rest.
#[inline]
#[must_use]
pub const fn buffer_more(flags: u32) -> bool {
    flags & uapi::IORING_CQE_F_BUF_MORE != 0
}

/// Whether the same request will post further completions.
#[inline]
#[must_use]
pub const fn more(flags: u32) -> bool {
    flags & uapi::IORING_CQE_F_MORE != 0
}

/// Whether the socket has more to read.
#[inline]
#[must_use]
pub const fn sock_nonempty(flags: u32) -> bool {
    flags & uapi::IORING_CQE_F_SOCK_NONEMPTY != 0
}

/// Whether this is the notice that a buffer is free, and not the request's result.
#[inline]
#[must_use]
pub const fn notif(flags: u32) -> bool {
    flags & uapi::IORING_CQE_F_NOTIF != 0
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::format;

    #[test]
    fn errors_are_told_from_counts() {
        let mut cqe = Cqe { user_data: 1, res: 4096, flags: 0 };
        assert_eq!(cqe.outcome(), Ok(4096));
        cqe.res = -5;
        assert_eq!(cqe.outcome(), Err(Errno::EIO));
        assert_eq!(format!("{cqe:?}"), "Cqe { user_data: 1, res: -EIO, flags: 0x0 }");
        cqe.set_user_data(2);
        assert_eq!((cqe.user_data(), cqe.result(), cqe.flags()), (2, -5, 0));
    }

    #[test]
    fn flags_are_read_one_by_one() {
        assert_eq!(buffer_select(0xabcd_0001), Some(0xabcd));
        assert_eq!(buffer_select(0xabcd_0002), None);
        for (flags, expected) in [
            (uapi::IORING_CQE_F_MORE, [true, false, false, false]),
            (uapi::IORING_CQE_F_SOCK_NONEMPTY, [false, true, false, false]),
            (uapi::IORING_CQE_F_NOTIF, [false, false, true, false]),
            (uapi::IORING_CQE_F_BUF_MORE, [false, false, false, true]),
        ] {
            assert_eq!(
                [more(flags), sock_nonempty(flags), notif(flags), buffer_more(flags)],
                expected
            );
        }
    }
}
