//! The submission queue entry: 64 bytes that describe one request.

use crate::types::UseFd;
use crate::uapi;
use bitflags::bitflags;
use core::fmt;
use core::mem::{align_of, offset_of, size_of};
use static_assertions::const_assert_eq;

/// A submission queue entry, laid out as Linux's `io_uring_sqe`; made by the builders in [`opcode`](crate::opcode).
///
/// Several fields have a second meaning, or more, by opcode. They carry the name of the commonest one; the others are in
/// their descriptions. All are in the machine's own byte order.
#[repr(C, align(8))]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Sqe {
    /// What to do: `IORING_OP_*`.
    pub opcode: u8,
    /// How to do it: `IOSQE_*`, see [`Flags`].
    pub flags: u8,
    /// Priority of the I/O; flags of network operations.
    pub ioprio: u16,
    /// The file: a descriptor, or an index into the registered files with [`Flags::FIXED_FILE`].
    pub fd: i32,
    /// Position in the file in bytes (-1: the current one); `addr2`, `cmd_op`.
    pub off: u64,
    /// Address of the buffer or of the vector of buffers; `splice_off_in`, `level` and `optname`.
    pub addr: u64,
    /// Length of the buffer in bytes, or of the vector in elements.
    pub len: u32,
    /// Flags of the operation: `rw_flags`, `fsync_flags`, `poll32_events`, `nop_flags` and so on.
    pub op_flags: u32,
    /// Returned in the completion, untouched.
    pub user_data: u64,
    /// Index of the registered buffer; `buf_group`.
    pub buf_index: u16,
    /// Registered credentials to run with; 0 for the submitter's.
    pub personality: u16,
    /// Second file of a splice; `file_index`, `optlen`, `addr_len`, `write_stream`.
    pub splice_fd_in: i32,
    /// A third address; `attr_ptr`, `optval`.
    pub addr3: u64,
    /// Zero; `attr_type_mask`.
    pub pad2: u64,
}

const_assert_eq!(size_of::<Sqe>(), 64);
const_assert_eq!(align_of::<Sqe>(), 8);
const_assert_eq!(offset_of!(Sqe, opcode), 0);
const_assert_eq!(offset_of!(Sqe, flags), 1);
const_assert_eq!(offset_of!(Sqe, ioprio), 2);
const_assert_eq!(offset_of!(Sqe, fd), 4);
const_assert_eq!(offset_of!(Sqe, off), 8);
const_assert_eq!(offset_of!(Sqe, addr), 16);
const_assert_eq!(offset_of!(Sqe, len), 24);
const_assert_eq!(offset_of!(Sqe, op_flags), 28);
const_assert_eq!(offset_of!(Sqe, user_data), 32);
const_assert_eq!(offset_of!(Sqe, buf_index), 40);
const_assert_eq!(offset_of!(Sqe, personality), 42);
const_assert_eq!(offset_of!(Sqe, splice_fd_in), 44);
const_assert_eq!(offset_of!(Sqe, addr3), 48);
const_assert_eq!(offset_of!(Sqe, pad2), 56);

bitflags! {
    /// How a request is to be done, whatever its opcode: Linux's `IOSQE_*`.
    ///
    /// A ring answers `-EINVAL` to a flag that it does not support.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Flags: u8 {
        /// The file is an index into the registered files. Set by the builders for [`Fixed`](crate::types::Fixed).
        const FIXED_FILE = uapi::IOSQE_FIXED_FILE;
        /// Starts when everything submitted before has completed; what is submitted after waits for it.
        const IO_DRAIN = uapi::IOSQE_IO_DRAIN;
        /// Chains the next entry to this one: it starts on success, and is cancelled on failure.
        const IO_LINK = uapi::IOSQE_IO_LINK;
        /// As [`IO_LINK`](Self::IO_LINK), but the next entry starts whatever the result.
        const IO_HARDLINK = uapi::IOSQE_IO_HARDLINK;
        /// Goes to a worker at once, for work that is known to wait.
        const ASYNC = uapi::IOSQE_ASYNC;
        /// The ring picks a buffer of the group in [`Sqe::buf_index`] and tells which in the completion.
        const BUFFER_SELECT = uapi::IOSQE_BUFFER_SELECT;
        /// Posts a completion only if the request fails.
        const SKIP_SUCCESS = uapi::IOSQE_CQE_SKIP_SUCCESS;
    }
}

impl Sqe {
    /// All zeros.
    pub(crate) const ZERO: Self = Self {
        opcode: 0,
        flags: 0,
        ioprio: 0,
        fd: 0,
        off: 0,
        addr: 0,
        len: 0,
        op_flags: 0,
        user_data: 0,
        buf_index: 0,
        personality: 0,
        splice_fd_in: 0,
        addr3: 0,
        pad2: 0,
    };

    /// Adds flags to those already set.
    #[inline]
    #[must_use]
    pub const fn flags(mut self, flags: Flags) -> Sqe {
        self.flags |= flags.bits();
        self
    }

    /// Takes all flags away, also [`Flags::FIXED_FILE`].
    #[inline]
    #[must_use]
    pub const fn clear_flags(mut self) -> Sqe {
        self.flags = 0;
        self
    }

    /// Replaces all flags in place.
    #[inline]
    pub const fn set_flags(&mut self, flags: Flags) {
        self.flags = flags.bits();
    }

    /// The flags, bits without a name included.
    #[inline]
    #[must_use]
    pub const fn get_flags(&self) -> Flags {
        Flags::from_bits_retain(self.flags)
    }

    /// Sets the value that the completion will carry.
    #[inline]
    #[must_use]
    pub const fn user_data(mut self, user_data: u64) -> Sqe {
        self.user_data = user_data;
        self
    }

    /// Sets the value that the completion will carry, in place.
    #[inline]
    pub const fn set_user_data(&mut self, user_data: u64) {
        self.user_data = user_data;
    }

    /// The value that the completion will carry.
    #[inline]
    #[must_use]
    pub const fn get_user_data(&self) -> u64 {
        self.user_data
    }

    /// The operation code.
    #[inline]
    #[must_use]
    pub const fn get_opcode(&self) -> u32 {
        self.opcode as u32
    }

    /// Sets the registered credentials that the request runs with.
    #[inline]
    #[must_use]
    pub const fn personality(mut self, personality: u16) -> Sqe {
        self.personality = personality;
        self
    }

    /// Sets the file, and [`Flags::FIXED_FILE`] to match.
    #[inline]
    #[must_use]
    pub fn file(mut self, file: impl UseFd) -> Sqe {
        let (fd, fixed) = file.into_sqe();
        self.fd = fd;
        self.flags &= !uapi::IOSQE_FIXED_FILE;
        self.flags |= if fixed { uapi::IOSQE_FIXED_FILE } else { 0 };
        self
    }
}

impl fmt::Debug for Sqe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// An opcode by name, or by number if it has none.
        struct Opcode(u8);
        impl fmt::Debug for Opcode {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match uapi::opcode_name(self.0) {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}", self.0),
                }
            }
        }
        f.debug_struct("Sqe")
            .field("opcode", &Opcode(self.opcode))
            .field("flags", &self.get_flags())
            .field("fd", &self.fd)
            .field("off", &self.off)
            .field("addr", &format_args!("{:#x}", self.addr))
            .field("len", &self.len)
            .field("op_flags", &format_args!("{:#x}", self.op_flags))
            .field("buf_index", &self.buf_index)
            .field("user_data", &self.user_data)
            .finish_non_exhaustive()
    }
}

/// A poll mask as it stands in an entry's [`op_flags`](Sqe::op_flags) (`poll32_events`), and back: its own inverse.
///
/// The field was once 16 bits wide and lay at the same place. So that the low 16 events stay where old programs put
/// them, its halfwords are swapped on a big-endian machine; on a little-endian one nothing changes.
#[inline]
#[must_use]
pub const fn poll32_events(mask: u32) -> u32 {
    poll32_events_for(mask, cfg!(target_endian = "big"))
}

/// [`poll32_events`] for either byte order, so that each can be tested on any machine.
const fn poll32_events_for(mask: u32, big_endian: bool) -> u32 {
    if big_endian { mask.rotate_left(16) } else { mask }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::types::{Fd, Fixed};
    use std::format;

    #[test]
    fn setters_and_getters_agree() {
        let mut sqe =
            Sqe::default().user_data(7).flags(Flags::ASYNC).flags(Flags::IO_LINK).personality(3);
        assert_eq!((sqe.get_user_data(), sqe.personality), (7, 3));
        assert_eq!(sqe.get_flags(), Flags::ASYNC | Flags::IO_LINK);
        sqe.set_user_data(8);
        sqe.set_flags(Flags::IO_DRAIN);
        assert_eq!((sqe.user_data, sqe.get_flags()), (8, Flags::IO_DRAIN));
        assert_eq!(sqe.clear_flags().get_flags(), Flags::empty());
    }

    #[test]
    fn the_file_decides_the_fixed_flag() {
        let sqe = Sqe::default().file(Fixed(5));
        assert_eq!((sqe.fd, sqe.get_flags()), (5, Flags::FIXED_FILE));
        let sqe = sqe.flags(Flags::ASYNC).file(Fd(6));
        assert_eq!((sqe.fd, sqe.get_flags()), (6, Flags::ASYNC));
    }

    #[test]
    fn debug_names_the_opcode() {
        let mut sqe = Sqe { opcode: uapi::IORING_OP_READ_FIXED, ..Sqe::default() };
        assert!(format!("{sqe:?}").contains("opcode: READ_FIXED,"));
        sqe.opcode = 200;
        assert!(format!("{sqe:?}").contains("opcode: 200,"));
    }

    #[test]
    fn poll_masks_swap_halfwords_on_big_endian_only() {
        assert_eq!(poll32_events_for(0x2000_0001, false), 0x2000_0001);
        assert_eq!(poll32_events_for(0x2000_0001, true), 0x0001_2000);
        for mask in [0, 1, 0x2001, 0x8000_0000, 0x1234_5678, u32::MAX] {
            assert_eq!(poll32_events(poll32_events(mask)), mask);
            // The low events lie in the first two bytes of the field, on this machine whatever it is.
            let bytes = poll32_events(mask).to_ne_bytes();
            assert_eq!(u16::from_ne_bytes([bytes[0], bytes[1]]), mask as u16);
        }
    }
}
