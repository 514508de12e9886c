//! What is done with a file besides reading and writing: one system call.

use std::ffi::c_char;
use std::os::fd::RawFd;

use annulus::fault::{self, Fault};

use crate::{own, sys};

/// Every `AT_*` flag of STATX in Linux 6.18.
const STATUS_FLAGS: i32 = libc::AT_SYMLINK_NOFOLLOW
    | libc::AT_NO_AUTOMOUNT
    | libc::AT_EMPTY_PATH
    | libc::AT_STATX_FORCE_SYNC
    | libc::AT_STATX_DONT_SYNC;

/// A system call of a job's, with what it needs besides a descriptor, an
/// offset and a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// There is no call for a range of a file's data and its metadata. The
    /// whole file is more than was asked for, and keeps the promise.
    Sync {
        data_only: bool,
    },
    SyncRange {
        len: u32,
        flags: u32,
    },
    Allocate {
        mode: i32,
        len: i64,
    },
    Advise {
        len: i64,
        advice: i32,
    },
    /// `direct`: for the engine's table.
    Open {
        flags: i32,
        mode: u32,
        direct: bool,
    },
    /// `to` is the address for the attributes.
    Status {
        flags: i32,
        mask: u32,
        to: usize,
    },
    Close,
}

impl Call {
    /// Makes the call, blocking. Its result, or a negative errno.
    ///
    /// # Safety
    /// `path` is a C string if it is a call with a path; the memory that
    /// attributes go to is promised.
    pub unsafe fn carry_out(self, fd: RawFd, off: i64, path: *const c_char) -> i32 {
        match self {
            Call::Sync { data_only } => sys::sync(fd, data_only),
            Call::SyncRange { len, flags } => {
                let flags = if fault::on(Fault::SyncRangeFlagsLost) { 0 } else { flags };
                sys::sync_range(fd, off, len.into(), flags)
            }
            Call::Allocate { mode, len } => {
                let mode = if fault::on(Fault::FallocateModeLost) { 0 } else { mode };
                sys::allocate(fd, mode, off, len)
            }
            Call::Advise { len, advice } => sys::advise(fd, off, len, advice),
            Call::Open { flags, mode, direct } => {
                let mode = if fault::on(Fault::OpenModeLost) { 0 } else { mode };
                let flags = flags | if direct { libc::O_CLOEXEC } else { 0 };
                // SAFETY: the caller's promise.
                let opened = uninterrupted(|| unsafe { sys::open(fd, path, flags, mode) });
                if direct { ours(opened) } else { opened }
            }
            // Asked for a descriptor's own attributes, the system call does not
            // look at flags that it does not know.
            Call::Status { flags, .. } if flags & !STATUS_FLAGS != 0 => -libc::EINVAL,
            Call::Status { flags, mask, to } => {
                let mask = if fault::on(Fault::StatxMaskLost) { 0 } else { mask };
                // SAFETY: the caller's promise.
                unsafe { sys::status_of(fd, path, flags, mask, to) }
            }
            Call::Close if fault::on(Fault::CloseForgotten) => 0,
            Call::Close => sys::close_number(fd),
        }
    }
}

/// Workers take no signals; what still interrupts them (a stop and continue, a
/// debugger) is not for the application.
fn uninterrupted(call: impl Fn() -> i32) -> i32 {
    loop {
        let result = call();
        if result != -libc::EINTR {
            return result;
        }
    }
}

/// Makes a descriptor one of ours, whose number is never 0, 1 or 2: see
/// [`sys::duplicate`]. An errno stays as it is.
pub fn ours(opened: i32) -> i32 {
    if opened < 0 {
        return opened;
    }
    own::claim(opened);
    if opened > 2 {
        return opened;
    }
    let moved = sys::duplicate(opened);
    sys::close(opened);
    moved.unwrap_or_else(|e| e)
}
