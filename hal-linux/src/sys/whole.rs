//! Calls for whole files. Paths, like all addresses from SQEs, stay numbers, or
//! point to copies of ours.

use std::ffi::c_char;
use std::os::fd::{BorrowedFd, RawFd};

use libc::{c_int, c_long};
use rustix::fs::{AtFlags, FileType, StatxFlags};
use rustix::io::ioctl_fionbio;

use super::errno;

/// 0 (or, if it was good for one, a descriptor), or a negative errno.
fn answer(n: c_long) -> i32 {
    if n < 0 { errno() } else { n as i32 }
}

/// `fsync`, or `fdatasync`; 0 or a negative errno.
pub fn sync(fd: RawFd, data_only: bool) -> i32 {
    // SAFETY: no memory is passed.
    answer(unsafe { if data_only { libc::fdatasync(fd) } else { libc::fsync(fd) } }.into())
}

/// `sync_file_range`.
pub fn sync_range(fd: RawFd, off: i64, len: i64, flags: u32) -> i32 {
    // SAFETY: no memory is passed.
    answer(unsafe { libc::sync_file_range(fd, off, len, flags) }.into())
}

/// `fallocate`.
pub fn allocate(fd: RawFd, mode: c_int, off: i64, len: i64) -> i32 {
    // SAFETY: no memory is passed.
    answer(unsafe { libc::fallocate64(fd, mode, off, len) }.into())
}

/// `posix_fadvise`.
pub fn advise(fd: RawFd, off: i64, len: i64, advice: c_int) -> i32 {
    // Not like the others: it answers the errno itself.
    // SAFETY: no memory is passed.
    -unsafe { libc::posix_fadvise64(fd, off, len, advice) }
}

/// `openat`.
///
/// # Safety
/// `path` is a C string.
pub unsafe fn open(dir: RawFd, path: *const c_char, flags: c_int, mode: u32) -> i32 {
    let (dir, flags, mode) = (c_long::from(dir), c_long::from(flags), mode as c_long);
    // SAFETY: the caller's promise.
    answer(unsafe { libc::syscall(libc::SYS_openat, dir, path, flags, mode) })
}

/// `openat` of a file that exists, without waiting: neither for the names on
/// the way (`-EAGAIN` if one is not in the cache) nor for the file. The path
/// may be no memory.
///
/// # Safety
/// What is at `path` may be read.
pub unsafe fn open_cached(dir: RawFd, path: usize, flags: c_int) -> i32 {
    // What opens a mere path never waits, and takes no such flag.
    let adds = if flags & (libc::O_PATH | libc::O_NONBLOCK) == 0 { libc::O_NONBLOCK } else { 0 };
    // SAFETY: plain numbers.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((flags | adds) as u32);
    how.resolve = libc::RESOLVE_CACHED;
    let dir = c_long::from(dir);
    // SAFETY: `how` is one, by its size; the kernel checks the path's address.
    let opened = answer(unsafe {
        libc::syscall(libc::SYS_openat2, dir, path, &raw const how, size_of_val(&how))
    });
    if opened >= 0 && adds != 0 {
        // SAFETY: opened just now; nobody else knows it.
        let file = unsafe { BorrowedFd::borrow_raw(opened) };
        // Every open file knows this call.
        let _ = ioctl_fionbio(file, false);
    }
    opened
}

/// `statx`, to the address `to`, which may be no memory.
///
/// # Safety
/// `path` is a C string, and what is at `to` may be written.
pub unsafe fn status_of(
    dir: RawFd,
    path: *const c_char,
    flags: c_int,
    mask: u32,
    to: usize,
) -> i32 {
    let (dir, flags, mask) = (c_long::from(dir), c_long::from(flags), mask as c_long);
    // SAFETY: the caller's promise; the kernel checks the address.
    answer(unsafe { libc::syscall(libc::SYS_statx, dir, path, flags, mask, to) })
}

/// `close` of a number that is the application's.
pub fn close_number(fd: RawFd) -> i32 {
    // SAFETY: the application asked for it, and promised that nobody else
    // counts on it; it is none of ours.
    answer(unsafe { libc::close(fd) }.into())
}

/// What an open file is, and the major number of its device: 0 for those
/// without. As far as that is known without asking anybody.
///
/// # Errors
/// A negative errno.
pub fn kind_and_device(fd: RawFd) -> Result<(FileType, u32), i32> {
    // SAFETY: not -1; the kernel checks whether it is open, and the borrow
    // ends with the call.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let status =
        rustix::fs::statx(file, c"", flags, StatxFlags::TYPE).map_err(|e| -e.raw_os_error())?;
    Ok((FileType::from_raw_mode(status.stx_mode.into()), status.stx_dev_major))
}
