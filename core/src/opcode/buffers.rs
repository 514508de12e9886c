//! Builders of what fills and empties groups of provided buffers.

use super::{Entry, Read, Readv, address};
use crate::uapi;

builder! {
    /// Provides buffers that follow each other in memory to a group. Reads with
    /// [`Flags::BUFFER_SELECT`](crate::squeue::Flags::BUFFER_SELECT) pick from it.
    ProvideBuffers = IORING_OP_PROVIDE_BUFFERS
}

impl ProvideBuffers {
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
}

builder! {
    /// Removes buffers from a group: its result is how many. They are the application's again.
    RemoveBuffers = IORING_OP_REMOVE_BUFFERS
}

impl RemoveBuffers {
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
