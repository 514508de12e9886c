//! The numbers and memory layouts of Linux's io_uring interface, as of Linux 6.18.
//!
//! A ring of this library speaks the kernel's binary interface, so its constants and structures carry the kernel's own
//! names: what a manual page, a trace or a C program calls `IORING_SQ_NEED_WAKEUP` is found here by that name. The whole
//! interface is listed, including what this library answers with `-EINVAL`, because a number has to be known to be
//! refused by name. What a ring really supports is told by [`Probe`](crate::probe::Probe) and by the feature bits.
//!
//! All fields are in the machine's own byte order, as in Linux. `const` assertions pin every size and offset, and
//! `tests/uapi_linux.rs` compares everything here with bindings generated from the kernel's headers.
//!
//! Types are chosen by where a number is used: `u8` for opcodes and SQE flags, `i32` for the `RWF_*` flags (what
//! `libc` has), `u64` for mapping offsets, `u32` for the rest.

mod flags;
mod layout;
mod opcodes;
mod poll;
mod register;

pub use flags::*;
pub use layout::*;
pub use opcodes::*;
pub use poll::*;
pub use register::*;
