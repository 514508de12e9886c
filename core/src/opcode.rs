//! Builders of submission entries, one for each supported operation, named as in the `io-uring` crate.
//!
//! `new` takes what the operation cannot do without, setters the rest, `build` gives the [`Entry`]. Only what the ring
//! supports can be said here; anything else can still be written into an entry's fields, and is answered by the ring.
//!
//! ```
//! use annulus::{opcode, types};
//! let mut buffer = [0u8; 4096];
//! let entry = opcode::Read::new(types::Fd(0), buffer.as_mut_ptr(), buffer.len() as u32)
//!     .offset(8192)
//!     .build()
//!     .user_data(1);
//! assert_eq!(entry.get_opcode(), u32::from(opcode::Read::CODE));
//! ```
//!
//! An entry is only data. Whoever pushes it to a ring promises that its addresses stay valid until its completion.

use crate::types::{Fd, FsyncFlags, Iovec, RwFlags, UseFd};
use crate::uapi;

/// Defines a builder's type, with its opcode and `build`.
macro_rules! builder {
    ($(#[$doc:meta])* $name:ident = $code:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        #[must_use = "a builder does nothing until its entry is pushed to a ring"]
        pub struct $name(Entry);

        impl $name {
            /// The opcode, for [`Probe::is_supported`](crate::probe::Probe::is_supported).
            pub const CODE: u8 = uapi::$code;

            /// The entry.
            #[inline]
            pub fn build(self) -> Entry {
                self.0
            }
        }
    };
}

mod buffers;
mod files;
mod held;
mod messages;
mod poll;

pub use held::{AsyncCancel, AsyncCancel2, LinkTimeout, Timeout, TimeoutRemove, TimeoutUpdate};

/// What the builders make.
pub use crate::sqe::Sqe as Entry;
pub use buffers::{ProvideBuffers, RemoveBuffers};
pub use files::{Close, Fadvise, Fallocate, FilesUpdate, OpenAt, Statx, SyncFileRange};
pub use messages::{MsgRingData, MsgRingSendFd};
pub use poll::{PollAdd, PollRemove, PollUpdate};

/// An address as an entry carries it.
#[inline]
fn address<T>(pointer: *const T) -> u64 {
    // Exposed, because the ring turns the number back into a pointer when it runs the request.
    pointer.expose_provenance() as u64
}

builder! {
    /// Does nothing, and completes with 0: for tests, for measuring, or to wake whoever waits for completions.
    Nop = IORING_OP_NOP
}

impl Nop {
    /// Nothing is needed.
    #[inline]
    #[allow(clippy::new_without_default, reason = "a default operation would say nothing")]
    pub fn new() -> Nop {
        Nop(Entry { opcode: Nop::CODE, ..Entry::default() }.file(Fd(-1)))
    }
}

/// Defines the builder of a read or write. They differ in opcode, in what the address points to, and in whether a
/// registered buffer is named.
macro_rules! read_write {
    (
        $(#[$doc:meta])*
        $name:ident = $code:ident;
        $(#[$new_doc:meta])*
        new($pointer:ident: $pointee:ty $(, $buf_index:ident)?)
    ) => {
        builder! {
            $(#[$doc])*
            $name = $code
        }

        impl $name {
            $(#[$new_doc])*
            #[inline]
            pub fn new(fd: impl UseFd, $pointer: $pointee, len: u32 $(, $buf_index: u16)?) -> $name {
                $name(
                    Entry {
                        opcode: $name::CODE,
                        addr: address($pointer),
                        len,
                        $(buf_index: $buf_index,)?
                        ..Entry::default()
                    }
                    .file(fd),
                )
            }

            /// The position in the file in bytes, 0 unless set. -1 (`u64::MAX`) means the file's current position,
            /// which then moves on, and is needed for files without positions.
            #[inline]
            pub const fn offset(mut self, offset: u64) -> $name {
                self.0.off = offset;
                self
            }

            /// The priority of the I/O, as in `ioprio_set(2)`; 0 unless set.
            #[inline]
            pub const fn ioprio(mut self, ioprio: u16) -> $name {
                self.0.ioprio = ioprio;
                self
            }

            /// `RWF_*` flags, as in `preadv2(2)`; none unless set.
            #[inline]
            pub const fn rw_flags(mut self, rw_flags: RwFlags) -> $name {
                self.0.op_flags = rw_flags as u32;
                self
            }
        }
    };
}

read_write! {
    /// Reads from a file into one buffer, as `pread(2)`.
    Read = IORING_OP_READ;
    /// Reads at most `len` bytes to `buf`.
    new(buf: *mut u8)
}

read_write! {
    /// Writes one buffer to a file, as `pwrite(2)`.
    Write = IORING_OP_WRITE;
    /// Writes at most `len` bytes from `buf`.
    new(buf: *const u8)
}

read_write! {
    /// Reads from a file into several buffers, one after the other, as `preadv2(2)`.
    Readv = IORING_OP_READV;
    /// Reads into the `len` buffers of the vector at `iovec`. The vector itself is needed until the entry was submitted.
    new(iovec: *const Iovec)
}

read_write! {
    /// Writes several buffers, one after the other, to a file, as `pwritev2(2)`.
    Writev = IORING_OP_WRITEV;
    /// Writes the `len` buffers of the vector at `iovec`. The vector itself is needed until the entry was submitted.
    new(iovec: *const Iovec)
}

read_write! {
    /// Reads from a file into a part of a registered buffer: nothing is mapped or pinned for this request.
    ReadFixed = IORING_OP_READ_FIXED;
    /// Reads at most `len` bytes to `buf`, which lie within the registered buffer `buf_index`.
    new(buf: *mut u8, buf_index)
}

read_write! {
    /// Writes a part of a registered buffer to a file: nothing is mapped or pinned for this request.
    WriteFixed = IORING_OP_WRITE_FIXED;
    /// Writes at most `len` bytes from `buf`, which lie within the registered buffer `buf_index`.
    new(buf: *const u8, buf_index)
}

builder! {
    /// Makes written data durable, as `fsync(2)`; of the whole file unless a range is set.
    ///
    /// It covers what has completed when it starts, not what is still in flight: to cover a write, submit after the write's
    /// completion.
    Fsync = IORING_OP_FSYNC
}

impl Fsync {
    /// Of this file.
    #[inline]
    pub fn new(fd: impl UseFd) -> Fsync {
        Fsync(Entry { opcode: Fsync::CODE, ..Entry::default() }.file(fd))
    }

    /// Where the range starts, in bytes; 0 unless set.
    #[inline]
    pub const fn offset(mut self, offset: u64) -> Fsync {
        self.0.off = offset;
        self
    }

    /// The length of the range in bytes. With offset and length 0, as they are unless set, it is the whole file.
    #[inline]
    pub const fn len(mut self, len: u32) -> Fsync {
        self.0.len = len;
        self
    }

    /// How far it goes; data and all metadata unless set.
    #[inline]
    pub const fn flags(mut self, flags: FsyncFlags) -> Fsync {
        self.0.op_flags = flags.bits();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Fixed;

    #[test]
    fn builders_fill_the_fields_of_their_operation() {
        let mut buffer = [0u8; 8];
        let entry = ReadFixed::new(Fixed(3), buffer.as_mut_ptr(), 8, 2)
            .offset(5)
            .ioprio(6)
            .rw_flags(uapi::RWF_NOWAIT)
            .build();
        let expected = Entry {
            opcode: uapi::IORING_OP_READ_FIXED,
            flags: uapi::IOSQE_FIXED_FILE,
            ioprio: 6,
            fd: 3,
            off: 5,
            addr: buffer.as_ptr().addr() as u64,
            len: 8,
            op_flags: 8,
            buf_index: 2,
            ..Entry::default()
        };
        assert_eq!(entry, expected);
    }

    #[test]
    fn defaults_are_zero() {
        assert_eq!(Nop::new().build(), Entry { fd: -1, ..Entry::default() });
        let expected = Entry { opcode: uapi::IORING_OP_FSYNC, fd: 4, ..Entry::default() };
        assert_eq!(Fsync::new(Fd(4)).build(), expected);
        let part = Fsync::new(Fd(4)).offset(1).len(2).flags(FsyncFlags::DATASYNC).build();
        assert_eq!(part, Entry { off: 1, len: 2, op_flags: 1, ..expected });
    }
}
