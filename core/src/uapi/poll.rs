//! What can be waited for: the bits of a poll mask, and what else stands in
//! one.
//!
//! The numbers of `poll(2)` are the same, as far as it has them.

/// There is something to read.
pub const EPOLLIN: u32 = 1 << 0;
/// There is something urgent to read.
pub const EPOLLPRI: u32 = 1 << 1;
/// There is room for something to write.
pub const EPOLLOUT: u32 = 1 << 2;
/// An error; always waited for.
pub const EPOLLERR: u32 = 1 << 3;
/// The other side has hung up; always waited for.
pub const EPOLLHUP: u32 = 1 << 4;
/// Not an open file.
pub const EPOLLNVAL: u32 = 1 << 5;
/// As [`EPOLLIN`], in the normal band of priority.
pub const EPOLLRDNORM: u32 = 1 << 6;
/// There is something to read in a band of priority.
pub const EPOLLRDBAND: u32 = 1 << 7;
/// As [`EPOLLOUT`], in the normal band of priority.
pub const EPOLLWRNORM: u32 = 1 << 8;
/// There is room for something in a band of priority.
pub const EPOLLWRBAND: u32 = 1 << 9;
/// Of no use any more.
pub const EPOLLMSG: u32 = 1 << 10;
/// The other side sends nothing more; always waited for by io_uring.
pub const EPOLLRDHUP: u32 = 1 << 13;

// Flags

/// A wake-up ends when it has reached one that waits so.
pub const EPOLLEXCLUSIVE: u32 = 1 << 28;
/// The first event ends the wait.
pub const EPOLLONESHOT: u32 = 1 << 30;
