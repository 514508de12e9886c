//! Builders of what fills and empties groups of provided buffers.

use super::{Entry, Read, Readv, address};
use crate::uapi;

/// Provides buffers that follow each other in memory to a group. Reads with
/// [`Flags::BUFFER_SELECT`](crate::squeue::Flags::BUFFER_SELECT) pick from it.
#[derive(Debug, Clone, Copy)]
#[must_use = "a builder does nothing until its entry is pushed to a ring"]
pub struct ProvideBuffers(Entry);

impl ProvideBuffers {
    /// The opcode, for [`Probe::is_supported`](crate::probe::Probe::is_supported).
    pub const CODE: u8 = uapi::IORING_OP_PROVIDE_BUFFERS;

    /// `nbufs` buffers of `len` bytes, from `addr` on, to group `bgid`; the first has the number `bid`, the next one more.
    #[inline]
    pub fn new(addr: *mut u8, len: i32, nbufs: u16, bgid: u16, bid: u16) -> ProvideBuffers {
        ProvideBuffers(Entry {
            opcode: ProvideBuffers::CODE,
            fd: nbufs.into(),
            addr: address(addr),
            len: len as u32,
            off: bid.into(),
            buf_index: bgid,
            ..Entry::default()
        })
    }

    /// The entry.
    #[inline]
    pub fn build(self) -> Entry {
        self.0
    }
}

/// Removes buffers from a group: its result is how many. They are the application's again.
#[derive(Debug, Clone, Copy)]
#[must_use = "a builder does nothing until its entry is pushed to a ring"]
pub struct RemoveBuffers(Entry);

impl RemoveBuffers {
    /// The opcode, for [`Probe::is_supported`](crate::probe::Probe::is_supported).
    pub const CODE: u8 = uapi::IORING_OP_REMOVE_BUFFERS;

    /// At most `nbufs` of group `bgid`.
    #[inline]
    pub fn new(nbufs: u16, bgid: u16) -> RemoveBuffers {
        RemoveBuffers(Entry {
            opcode: RemoveBuffers::CODE,
            fd: nbufs.into(),
            buf_index: bgid,
            ..Entry::default()
        })
    }

    /// The entry.
    #[inline]
    pub fn build(self) -> Entry {
        self.0
    }
}

macro_rules! buf_group {
    ($($name:ident)+) => {$(
        impl $name {
            /// The group that the buffer is picked from, if the entry has
            /// [`Flags::BUFFER_SELECT`](crate::squeue::Flags::BUFFER_SELECT).
            #[inline]
            pub const fn buf_group(mut self, buf_group: u16) -> $name {
                self.0.buf_index = buf_group;
                self
            }
        }
    )+};
}

buf_group! { Read Readv }
