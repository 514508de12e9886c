//! Structures that are shared with, or passed to, a ring. The submission and completion entries have modules of their
//! own: [`sqe`](crate::sqe) and [`cqe`](crate::cqe).
#![allow(non_camel_case_types)] // The kernel's names, so that its documentation applies.

use core::mem::{offset_of, size_of};
use static_assertions::const_assert_eq;

/// Where the parts of the submission ring lie, in bytes from its start.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct io_sqring_offsets {
    /// The index that the ring's owner has consumed up to.
    pub head: u32,
    /// The index that the application has filled up to.
    pub tail: u32,
    /// The number of entries less one.
    pub ring_mask: u32,
    /// The number of entries, a power of two.
    pub ring_entries: u32,
    /// The word with the `IORING_SQ_*` flags.
    pub flags: u32,
    /// The count of entries with a bad index.
    pub dropped: u32,
    /// The index array; 0 without one.
    pub array: u32,
    /// Zero.
    pub resv1: u32,
    /// With `IORING_SETUP_NO_MMAP`, the application's memory for the submission entries.
    pub user_addr: u64,
}

/// Where the parts of the completion ring lie, in bytes from its start.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct io_cqring_offsets {
    /// The index that the application has consumed up to.
    pub head: u32,
    /// The index that the ring's owner has filled up to.
    pub tail: u32,
    /// The number of entries less one.
    pub ring_mask: u32,
    /// The number of entries, a power of two.
    pub ring_entries: u32,
    /// The count of completions that were lost for want of memory.
    pub overflow: u32,
    /// The completion entries.
    pub cqes: u32,
    /// The word with the `IORING_CQ_*` flags.
    pub flags: u32,
    /// Zero.
    pub resv1: u32,
    /// With `IORING_SETUP_NO_MMAP`, the application's memory for the rings.
    pub user_addr: u64,
}

/// What a ring is asked to be, and what it became.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct io_uring_params {
    /// Out: entries of the submission queue.
    pub sq_entries: u32,
    /// In with `IORING_SETUP_CQSIZE`, and out: entries of the completion queue.
    pub cq_entries: u32,
    /// In: `IORING_SETUP_*`.
    pub flags: u32,
    /// In with `IORING_SETUP_SQ_AFF`: the submission thread's processor.
    pub sq_thread_cpu: u32,
    /// In with `IORING_SETUP_SQPOLL`: milliseconds without work before that thread sleeps; 0 means 1,000.
    pub sq_thread_idle: u32,
    /// Out: `IORING_FEAT_*`.
    pub features: u32,
    /// In with `IORING_SETUP_ATTACH_WQ`: the ring whose workers are shared.
    pub wq_fd: u32,
    /// Zero.
    pub resv: [u32; 3],
    /// Out: the layout of the submission ring.
    pub sq_off: io_sqring_offsets,
    /// Out: the layout of the completion ring.
    pub cq_off: io_cqring_offsets,
}

/// The argument of a wait, with `IORING_ENTER_EXT_ARG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct io_uring_getevents_arg {
    /// Address of a signal mask, or 0.
    pub sigmask: u64,
    /// The mask's size in bytes.
    pub sigmask_sz: u32,
    /// The least time to wait, in microseconds.
    pub min_wait_usec: u32,
    /// Address of a [`Timespec`](crate::types::Timespec), or 0 to wait without a limit.
    pub ts: u64,
}

/// The argument of `IORING_REGISTER_FILES_UPDATE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct io_uring_files_update {
    /// The first place that changes.
    pub offset: u32,
    /// Zero.
    pub resv: u32,
    /// Address of the descriptors, as `i32`.
    pub fds: u64,
}

/// The argument of `IORING_REGISTER_FILES2` and `IORING_REGISTER_BUFFERS2`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct io_uring_rsrc_register {
    /// How many.
    pub nr: u32,
    /// `IORING_RSRC_REGISTER_SPARSE` or 0.
    pub flags: u32,
    /// Zero.
    pub resv2: u64,
    /// Address of the descriptors or of the buffers' vector.
    pub data: u64,
    /// Address of the tags, as `u64`, or 0.
    pub tags: u64,
}

/// The first form of an update, as in [`io_uring_files_update`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct io_uring_rsrc_update {
    /// The first place that changes.
    pub offset: u32,
    /// Zero.
    pub resv: u32,
    /// Address of the descriptors or of the buffers' vector.
    pub data: u64,
}

/// The argument of `IORING_REGISTER_FILES_UPDATE2` and `IORING_REGISTER_BUFFERS_UPDATE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct io_uring_rsrc_update2 {
    /// The first place that changes.
    pub offset: u32,
    /// Zero.
    pub resv: u32,
    /// Address of the descriptors or of the buffers' vector.
    pub data: u64,
    /// Address of the tags, as `u64`, or 0.
    pub tags: u64,
    /// How many places change.
    pub nr: u32,
    /// Zero.
    pub resv2: u32,
}

/// One opcode in the answer of `IORING_REGISTER_PROBE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct io_uring_probe_op {
    /// The opcode.
    pub op: u8,
    /// Zero.
    pub resv: u8,
    /// `IO_URING_OP_SUPPORTED` or 0.
    pub flags: u16,
    /// Zero.
    pub resv2: u32,
}

/// The head of the answer of `IORING_REGISTER_PROBE`; the [`io_uring_probe_op`]s follow it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct io_uring_probe {
    /// The last opcode that is known.
    pub last_op: u8,
    /// How many [`io_uring_probe_op`]s were filled in.
    pub ops_len: u8,
    /// Zero.
    pub resv: u16,
    /// Zero.
    pub resv2: [u32; 3],
}

/// A time, in the words that the kernel gives it on every machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct __kernel_timespec {
    /// Seconds.
    pub tv_sec: i64,
    /// Nanoseconds.
    pub tv_nsec: i64,
}

/// One of the argument of `IORING_REGISTER_RESTRICTIONS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct io_uring_restriction {
    /// `IORING_RESTRICTION_*`.
    pub opcode: u16,
    /// The register operation, the opcode or the flags that it is about.
    pub arg: u8,
    /// Zero.
    pub resv: u8,
    /// Zero.
    pub resv2: [u32; 3],
}

/// The argument of `IORING_REGISTER_SYNC_CANCEL`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct io_uring_sync_cancel_reg {
    /// The `user_data` that is looked for.
    pub addr: u64,
    /// The file that is looked for.
    pub fd: i32,
    /// `IORING_ASYNC_CANCEL_*`.
    pub flags: u32,
    /// How long to wait; -1 in both parts: for ever.
    pub timeout: __kernel_timespec,
    /// The opcode that is looked for.
    pub opcode: u8,
    /// Zero.
    pub pad: [u8; 7],
    /// Zero.
    pub pad2: [u64; 3],
}

/// The argument of `IORING_REGISTER_CLOCK`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct io_uring_clock_register {
    /// `CLOCK_MONOTONIC` or `CLOCK_BOOTTIME`.
    pub clockid: u32,
    /// Zero.
    pub resv: [u32; 3],
}

/// The argument of `IORING_REGISTER_PBUF_RING` and `IORING_UNREGISTER_PBUF_RING`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct io_uring_buf_reg {
    /// Address of the ring.
    pub ring_addr: u64,
    /// Its places, a power of two.
    pub ring_entries: u32,
    /// The group.
    pub bgid: u16,
    /// `IOU_PBUF_RING_*`.
    pub flags: u16,
    /// Zero.
    pub resv: [u64; 3],
}

/// The argument of `IORING_REGISTER_PBUF_STATUS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct io_uring_buf_status {
    /// The group.
    pub buf_group: u32,
    /// Out: how many buffers have been taken, modulo 2^16.
    pub head: u32,
    /// Zero.
    pub resv: [u32; 8],
}

/// Pins a structure's size and the offset of each of its fields.
macro_rules! pin {
    ($($name:ident: $size:literal { $($field:ident @ $offset:literal),* $(,)? })*) => {
        $(
            const_assert_eq!(size_of::<$name>(), $size);
            $(const_assert_eq!(offset_of!($name, $field), $offset);)*
        )*
    };
}

// One table for all machines: every u64 lies on a multiple of 8, so nothing moves where u64 is aligned to 4 (32-bit x86).
pin! {
    io_sqring_offsets: 40 {
        head @ 0, tail @ 4, ring_mask @ 8, ring_entries @ 12, flags @ 16, dropped @ 20, array @ 24, resv1 @ 28,
        user_addr @ 32,
    }
    io_cqring_offsets: 40 {
        head @ 0, tail @ 4, ring_mask @ 8, ring_entries @ 12, overflow @ 16, cqes @ 20, flags @ 24, resv1 @ 28,
        user_addr @ 32,
    }
    io_uring_params: 120 {
        sq_entries @ 0, cq_entries @ 4, flags @ 8, sq_thread_cpu @ 12, sq_thread_idle @ 16, features @ 20, wq_fd @ 24,
        resv @ 28, sq_off @ 40, cq_off @ 80,
    }
    io_uring_getevents_arg: 24 { sigmask @ 0, sigmask_sz @ 8, min_wait_usec @ 12, ts @ 16 }
    io_uring_files_update: 16 { offset @ 0, resv @ 4, fds @ 8 }
    io_uring_rsrc_register: 32 { nr @ 0, flags @ 4, resv2 @ 8, data @ 16, tags @ 24 }
    io_uring_rsrc_update: 16 { offset @ 0, resv @ 4, data @ 8 }
    io_uring_rsrc_update2: 32 { offset @ 0, resv @ 4, data @ 8, tags @ 16, nr @ 24, resv2 @ 28 }
    io_uring_restriction: 16 { opcode @ 0, arg @ 2, resv @ 3, resv2 @ 4 }
    __kernel_timespec: 16 { tv_sec @ 0, tv_nsec @ 8 }
    io_uring_sync_cancel_reg: 64 { addr @ 0, fd @ 8, flags @ 12, timeout @ 16, opcode @ 32, pad @ 33, pad2 @ 40 }
    io_uring_clock_register: 16 { clockid @ 0, resv @ 4 }
    io_uring_buf_reg: 40 { ring_addr @ 0, ring_entries @ 8, bgid @ 12, flags @ 14, resv @ 16 }
    io_uring_buf_status: 40 { buf_group @ 0, head @ 4, resv @ 8 }
    io_uring_probe_op: 8 { op @ 0, resv @ 1, flags @ 2, resv2 @ 4 }
    io_uring_probe: 16 { last_op @ 0, ops_len @ 1, resv @ 2, resv2 @ 4 }
}
