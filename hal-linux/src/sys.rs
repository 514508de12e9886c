//! System calls whose arguments come unchecked from SQEs.
//!
//! `rustix` serves everything else; it takes slices, and a slice over memory
//! that may not be there would already be undefined behaviour. Here addresses
//! stay numbers, the kernel checks them, and a bad one is an ordinary
//! `-EFAULT`. Results are the kernel's: bytes, or a negative errno.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, RawFd};

use annulus::errno::Errno;
use libc::{c_int, c_long, iovec};
use rustix::event::{PollFd, PollFlags};

use crate::own;

mod whole;

pub use whole::*;

/// The most bytes one read or write moves (`MAX_RW_COUNT` of 4 KiB pages).
pub const MAX_RW: usize = 0x7fff_f000;

/// The last system call's errno, negative.
fn errno() -> i32 {
    // Every failing call sets one; EIO stands for a libc that did not.
    -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn result(n: isize) -> i32 {
    // At most MAX_RW bytes, so an i32 holds it.
    if n < 0 { errno() } else { n as i32 }
}

/// `off` as the two longs that the kernel puts together again.
#[inline(always)]
fn halves(off: i64) -> (c_long, c_long) {
    #[cfg(target_pointer_width = "64")]
    // The kernel shifts the high half out: anything will do, but zero costs
    // nothing to load.
    return (off as c_long, 0);
    #[cfg(not(target_pointer_width = "64"))]
    return (off as c_long, (off >> 32) as c_long);
}

/// `preadv2` or, if `write`, `pwritev2`; `off` -1 is the current position.
///
/// # Safety
/// The memory that the iovecs name may be written (read, if `write`); where
/// there is none the result is `-EFAULT`.
#[inline]
pub unsafe fn transfer(
    write: bool,
    fd: RawFd,
    iovecs: *const iovec,
    count: usize,
    off: i64,
    flags: c_int,
) -> i32 {
    let (low, high) = halves(off);
    let number = if write { libc::SYS_pwritev2 } else { libc::SYS_preadv2 };
    // Variadic, so everything has to be as wide as a register.
    let (fd, flags) = (c_long::from(fd), c_long::from(flags));
    // SAFETY: the caller's promise; the iovec array itself is only read by
    // the kernel, which checks it.
    result(unsafe { libc::syscall(number, fd, iovecs, count, low, high, flags) } as isize)
}

/// Copies `count` iovecs from `addr`, which may name no memory, to `to`.
///
/// # Errors
/// `-EFAULT` if not all of it could be read.
///
/// # Safety
/// `to` has room for `count` iovecs.
pub unsafe fn copy_iovecs(addr: usize, count: usize, to: *mut iovec) -> Result<(), i32> {
    let len = count * size_of::<iovec>();
    // SAFETY: the caller's room.
    match unsafe { copy(false, addr, to.cast(), len) } {
        n if n == len as isize => Ok(()),
        // Part of the array, or a system that forbids the call (seccomp).
        n if n >= 0 => Err(-libc::EFAULT),
        n => Err(n as i32),
    }
}

/// Copies to (or, if `out`, from) `local` what is at `addr`, which may name no
/// memory. Bytes up to the first that is not there, or a negative errno.
///
/// # Safety
/// `local` is `len` bytes that may be written (if `out`: read), and what is at
/// `addr` may be read (if `out`: written).
pub unsafe fn copy(out: bool, addr: usize, local: *mut u8, len: usize) -> isize {
    if len == 0 {
        return 0;
    }
    let local = iovec { iov_base: local.cast(), iov_len: len };
    let remote = iovec { iov_base: addr as *mut _, iov_len: len };
    // SAFETY: `local` is the caller's; `remote` is our own address space,
    // accessed by the kernel with its checks. getpid cannot fail.
    let n = unsafe {
        match out {
            false => libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0),
            true => libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0),
        }
    };
    if n < 0 { errno() as isize } else { n }
}

/// Whether a [`copy`] of `len` bytes was whole.
///
/// # Errors
/// `EFAULT`, or the system's.
pub fn whole(copied: isize, len: usize) -> Result<(), Errno> {
    match copied {
        n if n == len as isize => Ok(()),
        n if n >= 0 => Err(Errno::EFAULT),
        n => Err(Errno::from_raw(-n as i32)),
    }
}

/// A duplicate of `fd`, closed on exec. Never 0, 1 or 2: a program that has
/// closed one of those would take ours for its own.
///
/// # Errors
/// The negative errno: `-EBADF` if there is no such file, `-EMFILE` if there
/// is no room for another number.
pub fn duplicate(fd: RawFd) -> Result<RawFd, i32> {
    if fd < 0 {
        return Err(-libc::EBADF);
    }
    // SAFETY: not -1; the kernel checks whether it is open, and the borrow
    // ends with the call.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    match rustix::io::fcntl_dupfd_cloexec(fd, 3) {
        Ok(copy) => {
            own::claim(copy.as_raw_fd());
            Ok(copy.into_raw_fd())
        }
        Err(e) => Err(-e.raw_os_error()),
    }
}

/// Closes a descriptor that we made and nobody uses any more.
pub fn close(fd: RawFd) {
    own::disclaim(fd);
    // SAFETY: ours by the caller's promise. An error cannot be acted upon:
    // the number is free either way.
    unsafe { libc::close(fd) };
}

/// What is known of an open file.
///
/// # Errors
/// The negative errno.
pub fn status(fd: RawFd) -> Result<libc::stat, i32> {
    // SAFETY: plain data.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is room for one.
    match unsafe { libc::fstat(fd, &mut stat) } {
        0 => Ok(stat),
        _ => Err(errno()),
    }
}

/// Whether a number is an open file.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: no memory is passed.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// `O_*` status flags of an open file; 0 if there is none.
pub fn status_flags(fd: RawFd) -> c_int {
    // SAFETY: no memory is passed.
    unsafe { libc::fcntl(fd, libc::F_GETFL) }.max(0)
}

/// Whether a read (or write) would find the file ready, now.
pub fn ready_now(fd: RawFd, write: bool) -> bool {
    let events = if write { PollFlags::OUT } else { PollFlags::IN };
    // SAFETY: a descriptor of ours, open for the length of the call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(
        rustix::event::poll(&mut [PollFd::from_borrowed_fd(borrowed, events)], Some(&now)),
        Ok(n) if n > 0
    )
}

/// Whether an open file tells those who wait for it that it is ready: pipes and
/// sockets do, storage does not, and of devices some.
pub fn wakes(fd: RawFd) -> bool {
    use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
    let Ok(stat) = status(fd) else { return false };
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFIFO | libc::S_IFSOCK => return true,
        libc::S_IFREG | libc::S_IFBLK | libc::S_IFDIR => return false,
        _ => {}
    }
    let Ok(set) = epoll::create(CreateFlags::CLOEXEC) else { return true };
    // SAFETY: open just now; the kernel looks whether it still is.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let added = epoll::add(&set, borrowed, EventData::new_u64(0), EventFlags::IN);
    added != Err(rustix::io::Errno::PERM)
}

/// Which of `events` (a poll mask) have come, as `poll(2)` says at once.
///
/// # Errors
/// The negative errno: `-EBADF` if there is no such file.
pub fn poll(fd: RawFd, events: u32) -> Result<u32, i32> {
    if fd < 0 {
        return Err(-libc::EBADF);
    }
    // SAFETY: not -1; the kernel checks whether it is open, and the borrow
    // ends with the call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    // Signed or not: rustix's two ways to the kernel differ.
    let wanted = PollFlags::from_bits_retain(events as _);
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut asked = [PollFd::from_borrowed_fd(borrowed, wanted)];
    loop {
        match rustix::event::poll(&mut asked, Some(&now)) {
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(-e.raw_os_error()),
            Ok(_) => break,
        }
    }
    match asked[0].revents() {
        come if come.contains(PollFlags::NVAL) => Err(-libc::EBADF),
        come => Ok(come.bits() as u32 & 0xffff & events),
    }
}
