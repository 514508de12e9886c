//! Reads and writes: the try, what it means, and what follows.

use libc::iovec;

use annulus::errno::Errno;
use annulus::hal::{Request, Start, Target, Token};
use annulus::uapi::{self, IOSQE_ASYNC};

use super::kind::Kind;
use super::punt::Rest;
use super::{File, FileBackend, null};
use crate::sys;

pub(super) const NOWAIT: i32 = uapi::RWF_NOWAIT;

/// Every `RWF_*` flag of Linux 6.18. A transfer of no bytes never gets to
/// the kernel's own check.
const KNOWN: i32 = uapi::RWF_HIPRI
    | uapi::RWF_DSYNC
    | uapi::RWF_SYNC
    | uapi::RWF_NOWAIT
    | uapi::RWF_APPEND
    | uapi::RWF_NOAPPEND
    | uapi::RWF_ATOMIC
    | uapi::RWF_DONTCACHE
    | uapi::RWF_NOSIGNAL;

pub(super) fn number(target: Target<File>) -> i32 {
    match target {
        Target::Fd(number) => number,
        Target::Registered(file) => file.fd,
    }
}

pub(super) fn vectored(request: &Request<File, ()>) -> bool {
    matches!(request.opcode, uapi::IORING_OP_READV | uapi::IORING_OP_WRITEV)
}

pub(super) fn flags(request: &Request<File, ()>) -> i32 {
    request.op_flags as i32
}

/// Bytes a request asks for, as much as one call may move.
///
/// # Safety
/// If vectored, the kernel has just read the array: it is there.
unsafe fn total(request: &Request<File, ()>) -> usize {
    if !vectored(request) {
        return (request.len as usize).min(sys::MAX_RW);
    }
    let iovecs = request.addr as usize as *const iovec;
    let mut total = 0usize;
    for i in 0..request.len as usize {
        // SAFETY: the caller's promise. Unaligned, for the kernel takes such
        // an array, too. A wrong sum (somebody changes the array meanwhile)
        // only makes a result look short or whole.
        total = total.saturating_add(unsafe { iovecs.add(i).read_unaligned() }.iov_len);
    }
    total.min(sys::MAX_RW)
}

/// The application's memory, as it named it.
pub(super) fn with_iovecs<R>(
    request: &Request<File, ()>,
    f: impl FnOnce(*const iovec, usize) -> R,
) -> R {
    if vectored(request) {
        f(request.addr as usize as *const iovec, request.len as usize)
    } else {
        let one = iovec {
            iov_base: request.addr as usize as *mut _,
            iov_len: (request.len as usize).min(sys::MAX_RW),
        };
        f(&one, 1)
    }
}

impl FileBackend {
    /// READ, WRITE and their FIXED forms: the way that has to be short.
    ///
    /// # Safety
    /// As for `Backend::start`.
    #[inline]
    pub(super) unsafe fn start_buffer(
        &mut self,
        token: Token,
        request: &Request<File, ()>,
        write: bool,
    ) -> Start {
        let plain = request.flags & IOSQE_ASYNC == 0
            && request.op_flags & uapi::RWF_HIPRI as u32 == 0
            && (request.off as i64) >= 0
            && request.len != 0;
        if !plain {
            // SAFETY: the caller's promise.
            return unsafe { self.start_other(token, request, write) };
        }
        if self.waits_for_device(request) || write && self.known_to_block(request) {
            let rest = Rest { off: request.off as i64, done: 0 };
            // SAFETY: the caller's promise.
            return unsafe { self.punt(token, request, write, rest, libc::EOPNOTSUPP) };
        }
        let one =
            iovec { iov_base: request.addr as usize as *mut _, iov_len: request.len as usize };
        let (fd, off) = (number(request.target), request.off as i64);
        // SAFETY: the caller's promise.
        let n = unsafe { sys::transfer(write, fd, &one, 1, off, flags(request) | NOWAIT) };
        if n > 0 && n as u32 == request.len {
            return Start::Done(n);
        }
        // SAFETY: the caller's promise.
        unsafe { self.after_try(token, request, write, n, off) }
    }

    /// Whether a try is known to be in vain: buffered writes on many file
    /// systems. A wrong answer would be slow, not wrong.
    #[inline]
    fn known_to_block(&self, request: &Request<File, ()>) -> bool {
        let known = match request.target {
            Target::Fd(number) => self.batch.blocks_writes(number),
            Target::Registered(file) => self.blocking_writes.has(file.fd),
        };
        // An address that no process can have is for the try to find: the
        // kernel refuses it before it begins. (Half of what 47 bits span.)
        known && flags(request) & NOWAIT == 0 && request.addr >> 46 == 0
    }

    /// Whether a try, blocking or not, would wait for the device: what goes
    /// past the page cache does, in a system call. Then the try belongs in a
    /// worker, or requests would follow each other one by one. Only a request
    /// that the device can take: the others end without it.
    #[inline]
    fn waits_for_device(&mut self, request: &Request<File, ()>) -> bool {
        // The smallest block of any device.
        const ALIGNED: u64 = 511;
        let aligned = (request.addr | request.off | u64::from(request.len)) & ALIGNED == 0;
        aligned
            && request.addr >> 46 == 0
            && flags(request) & NOWAIT == 0
            && self.is_direct(request.target)
    }

    /// Whether a file goes past the page cache.
    #[inline]
    pub(super) fn is_direct(&mut self, target: Target<File>) -> bool {
        match target {
            Target::Fd(number) => self.batch.is_direct(number),
            Target::Registered(file) => file.direct,
        }
    }

    fn note_blocking_write(&mut self, target: Target<File>) {
        match target {
            Target::Fd(number) => self.batch.note_blocking_writes(number),
            Target::Registered(file) => self.blocking_writes.set(file.fd, true),
        }
    }

    /// Everything but the short way.
    ///
    /// # Safety
    /// As for `Backend::start`.
    pub(super) unsafe fn start_other(
        &mut self,
        token: Token,
        request: &Request<File, ()>,
        write: bool,
    ) -> Start {
        let off = request.off as i64;
        if off < -1 || flags(request) & uapi::RWF_HIPRI != 0 {
            return self.refuse(request, write);
        }
        // A transfer of nothing blocks nowhere, and its flags are checked here.
        if request.flags & IOSQE_ASYNC != 0 && request.len != 0 {
            return match self.start_async(token, request, write) {
                Some(start) => start,
                // SAFETY: the caller's promise.
                None => unsafe { self.first_try(token, request, write, off) },
            };
        }
        // SAFETY: the caller's promise.
        unsafe { self.first_try(token, request, write, off) }
    }

    /// # Safety
    /// As for `Backend::start`.
    unsafe fn first_try(
        &mut self,
        token: Token,
        request: &Request<File, ()>,
        write: bool,
        off: i64,
    ) -> Start {
        // The current position moves with the try. If that comes out short,
        // the rest has to follow in the very same file, so the file is held
        // first. (With an offset the whole can be done over, see `short`.)
        let fd = match request.target {
            Target::Fd(number) if off == -1 => match self.file(request.target) {
                Ok((fd, ..)) => fd,
                Err(_) => number,
            },
            target => number(target),
        };
        // SAFETY: the caller's promise.
        let n = with_iovecs(request, |iovecs, count| unsafe {
            sys::transfer(write, fd, iovecs, count, off, flags(request) | NOWAIT)
        });
        // SAFETY: the caller's promise.
        unsafe { self.after_try(token, request, write, n, off) }
    }

    /// Decides about the result of a try at `off`.
    ///
    /// # Safety
    /// As for `Backend::start`.
    #[cold]
    unsafe fn after_try(
        &mut self,
        token: Token,
        request: &Request<File, ()>,
        write: bool,
        n: i32,
        off: i64,
    ) -> Start {
        let nowait = flags(request) & NOWAIT != 0;
        match -n {
            libc::EAGAIN if nowait => Start::Done(n),
            libc::EOPNOTSUPP if nowait => Start::Done(self.no_nowait(request, write)),
            // Flags that no file takes, not a file that cannot be tried.
            libc::EOPNOTSUPP if zero_length(flags(request)) != 0 => {
                Start::Done(zero_length(flags(request)))
            }
            libc::EOPNOTSUPP if !write && flags(request) & uapi::RWF_ATOMIC != 0 => Start::Done(n),
            libc::EAGAIN | libc::EOPNOTSUPP => {
                let rest = Rest { off, done: 0 };
                // SAFETY: the caller's promise.
                let start = unsafe { self.punt(token, request, write, rest, -n) };
                if write && n == -libc::EOPNOTSUPP {
                    self.note_blocking_write(request.target);
                }
                start
            }
            // A stream given an offset: io_uring ignores it, once it has seen
            // that the range does not pass the end of all files.
            libc::ESPIPE if off != -1 => {
                if vectored(request)
                    && let Err(e) = self.prepared(request)
                {
                    return Start::Refused(e);
                }
                // SAFETY: an array was looked at by the kernel just now.
                if off.checked_add(unsafe { total(request) } as i64).is_none() {
                    return self.refuse(request, write);
                }
                // SAFETY: the caller's promise.
                unsafe { self.first_try(token, request, write, -1) }
            }
            libc::EBADF | libc::EFAULT | libc::EINVAL => match self.prepared(request) {
                Err(e) => Start::Refused(e),
                Ok(()) => Start::Done(n),
            },
            _ if n < 0 => Start::Done(n),
            // SAFETY: a result says that the kernel has read the array.
            _ => match unsafe { total(request) } {
                0 => Start::Done(zero_length(flags(request))),
                // All, or the end of the file.
                total if n as usize == total || n == 0 => Start::Done(n),
                // SAFETY: the caller's promise.
                total => unsafe { self.short(token, request, write, n as usize, off, total) },
            },
        }
    }

    /// A try moved some bytes, but not all.
    ///
    /// # Safety
    /// As for `Backend::start`.
    unsafe fn short(
        &mut self,
        token: Token,
        request: &Request<File, ()>,
        write: bool,
        moved: usize,
        off: i64,
        total: usize,
    ) -> Start {
        let enough = Start::Done(moved as i32);
        // No descriptor to hold the file by: a short result is still true.
        let Ok((fd, kind, _)) = self.file(request.target) else { return enough };
        if kind.is_stream() || flags(request) & NOWAIT != 0 {
            return enough;
        }
        let appends = write && appends(fd, flags(request));
        // What was moved came from, or went to, what the number meant then,
        // and what we hold is what it means now. A program that keeps its
        // file open until the SQE is consumed cannot tell the difference.
        // For one that does not, no request shall be half in one file and
        // half in another: with an offset the whole is done over in the file
        // that is held, which gives the same bytes in the same place. Bytes
        // that were appended cannot be appended over, and a position has
        // moved; those go on. (For a position the file was held before.)
        let again = off >= 0 && !appends;
        if !write {
            // Mostly it is the end of the file. Looking costs one call and
            // spares a worker.
            // SAFETY: the caller's promise.
            match unsafe { look_further(request, fd, off, moved) } {
                0 => return enough,
                n if n > 0 && !again => {
                    let moved = moved + n as usize;
                    if moved >= total {
                        return Start::Done(moved as i32);
                    }
                    let rest = Rest { off, done: moved };
                    // SAFETY: the caller's promise.
                    return unsafe { self.punt(token, request, write, rest, 0) };
                }
                n if n > 0 || n == -libc::EAGAIN => {}
                // An error after some bytes: the bytes win.
                _ => return enough,
            }
        }
        let rest = if again {
            Rest { off, done: 0 }
        } else {
            Rest { off: if off >= 0 { off + moved as i64 } else { -1 }, done: moved }
        };
        // SAFETY: the caller's promise.
        unsafe { self.punt(token, request, write, rest, 0) }
    }

    // -- errors ------------------------------------------------------------

    /// Whether the kernel would have prepared the request, before it looked
    /// at its file: what fails there ends a batch.
    ///
    /// `/dev/null` takes a write of any length and touches no memory, so it
    /// shows exactly the kernel's checks of the iovecs and addresses.
    pub(super) fn prepared(&mut self, request: &Request<File, ()>) -> Result<(), i32> {
        if matches!(request.opcode, uapi::IORING_OP_READ_FIXED | uapi::IORING_OP_WRITE_FIXED) {
            return Ok(());
        }
        with_iovecs(request, |iovecs, count| self.check(iovecs, count))
    }

    /// [`prepared`](Self::prepared), for what is not a request yet.
    pub(super) fn checked(&mut self, opcode: u8, addr: u64, len: u32) -> Result<(), Errno> {
        let vector = matches!(opcode, uapi::IORING_OP_READV | uapi::IORING_OP_WRITEV);
        let checked = if vector {
            self.check(addr as usize as *const iovec, len as usize)
        } else {
            let iov_len = (len as usize).min(sys::MAX_RW);
            self.check(&iovec { iov_base: addr as usize as *mut _, iov_len }, 1)
        };
        checked.map_err(|e| Errno::from_raw(-e))
    }

    fn check(&mut self, iovecs: *const iovec, count: usize) -> Result<(), i32> {
        let null = null(&mut self.null);
        // SAFETY: nothing is transferred.
        let n = unsafe { sys::transfer(true, null, iovecs, count, -1, 0) };
        match -n {
            libc::EFAULT | libc::EINVAL => Err(n),
            _ => Ok(()),
        }
    }

    /// A negative offset, or polled completion on a ring without it:
    /// `-EINVAL`, after the errors that the kernel finds first.
    fn refuse(&mut self, request: &Request<File, ()>, write: bool) -> Start {
        if let Err(e) = self.prepared(request) {
            return Start::Refused(e);
        }
        let nothing = iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: nothing is transferred.
        let n = unsafe { sys::transfer(write, number(request.target), &nothing, 1, -1, 0) };
        if n < 0 {
            return Start::Done(n);
        }
        match zero_length(flags(request)) {
            0 => Start::Done(-libc::EINVAL),
            e => Start::Done(e),
        }
    }

    /// RWF_NOWAIT where the try said EOPNOTSUPP: `-EAGAIN` if only this write
    /// cannot be done without blocking, otherwise as it is.
    fn no_nowait(&mut self, request: &Request<File, ()>, write: bool) -> i32 {
        let fd = number(request.target);
        let storage = Kind::is_storage(fd);
        if !write || !storage || flags(request) & !KNOWN != 0 {
            return -libc::EOPNOTSUPP;
        }
        let mut byte = 0u8;
        let one = iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        // A read shows whether the file knows NOWAIT at all. One opened for
        // writing only cannot say; most file systems know it.
        // SAFETY: one byte of ours.
        let n = unsafe { sys::transfer(false, fd, &one, 1, i64::MAX - 1, NOWAIT) };
        if n == -libc::EOPNOTSUPP { n } else { -libc::EAGAIN }
    }
}

/// What a transfer of no bytes answers: its flags are still checked.
pub(super) fn zero_length(flags: i32) -> i32 {
    let both = uapi::RWF_APPEND | uapi::RWF_NOAPPEND;
    if flags & !KNOWN != 0 {
        -libc::EOPNOTSUPP
    } else if flags & both == both {
        -libc::EINVAL
    } else {
        0
    }
}

/// Whether a write goes to the end of the file whatever its offset.
fn appends(fd: i32, flags: i32) -> bool {
    flags & uapi::RWF_APPEND != 0
        || (flags & uapi::RWF_NOAPPEND == 0 && sys::status_flags(fd) & libc::O_APPEND != 0)
}

/// Reads on after `moved` bytes, into the next buffer that has room.
///
/// # Safety
/// As for `Backend::start`; the kernel has read the iovec array.
unsafe fn look_further(request: &Request<File, ()>, fd: i32, off: i64, moved: usize) -> i32 {
    let at = if off >= 0 { off + moved as i64 } else { -1 };
    with_iovecs(request, |iovecs, count| {
        let mut skip = moved;
        for i in 0..count {
            // SAFETY: the caller's promise.
            let iov = unsafe { iovecs.add(i).read_unaligned() };
            if skip < iov.iov_len {
                let rest = iovec {
                    iov_base: iov.iov_base.wrapping_byte_add(skip),
                    iov_len: iov.iov_len - skip,
                };
                // SAFETY: a part of what the request names.
                return unsafe { sys::transfer(false, fd, &rest, 1, at, flags(request) | NOWAIT) };
            }
            skip -= iov.iov_len;
        }
        0
    })
}
