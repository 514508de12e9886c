//! Requests for whole files: allocation, advice, write-back, opening, closing
//! and attributes.
//!
//! What Linux's own io_uring tries in place is tried in place here: advice that
//! only sets a flag, opening by names that are in the cache, and closing where
//! nothing has to be flushed. Everything else is a bounded worker's.

use std::mem::MaybeUninit;

use annulus::errno::Errno;
use annulus::fault::{self, Fault};
use annulus::hal::{Kept, Request, Start, Target, Token};
use annulus::uapi::{self, IOSQE_ASYNC};
use annulus::worker::Class;
use rustix::fs::FileType;

use super::call::{Call, ours};
use super::job::{Hold, Op};
use super::kind::Kind;
use super::rw::number;
use super::{File, FileBackend, out_of_descriptors};
use crate::{own, sys};

/// Flags with which a name is more than looked up.
const MAKES: i32 = libc::O_CREAT | libc::O_TRUNC | (libc::O_TMPFILE & !libc::O_DIRECTORY);

/// `PATH_MAX`: bytes of a path with its end.
const PATH: usize = libc::PATH_MAX as usize;

impl FileBackend {
    /// Everything but reads and writes.
    ///
    /// # Safety
    /// As for `Backend::start`.
    pub(super) unsafe fn start_whole(
        &mut self,
        token: Token,
        request: &Request<File, ()>,
    ) -> Start {
        let &Request { addr, len, off, op_flags, .. } = request;
        match request.opcode {
            uapi::IORING_OP_FSYNC => {
                let data_only = op_flags & uapi::IORING_FSYNC_DATASYNC != 0;
                self.with_file(token, request, Call::Sync { data_only })
            }
            uapi::IORING_OP_SYNC_FILE_RANGE => {
                self.with_file(token, request, Call::SyncRange { len, flags: op_flags })
            }
            uapi::IORING_OP_FALLOCATE => {
                let call = Call::Allocate { mode: len as i32, len: addr as i64 };
                self.with_file(token, request, call)
            }
            uapi::IORING_OP_FADVISE => self.advise(token, request),
            // SAFETY: the caller's promise.
            uapi::IORING_OP_OPENAT => unsafe { self.open_at(token, request) },
            uapi::IORING_OP_STATX => {
                let flags = op_flags as i32;
                let call = Call::Status { flags, mask: len, to: off as usize };
                self.with_path(token, request, call)
            }
            _ => self.close_number(token, request),
        }
    }

    /// A call that may block, for a worker.
    fn with_file(&mut self, token: Token, request: &Request<File, ()>, call: Call) -> Start {
        let (fd, kind, file) = match self.file(request.target) {
            Ok(file) => file,
            Err(e) if out_of_descriptors(e) => {
                // Without a descriptor the file cannot be kept for a worker;
                // late is better than an error that no such call has.
                let Target::Fd(number) = request.target else { return Start::Done(e) };
                // SAFETY: a call without a path or memory.
                let n = unsafe { call.carry_out(number, request.off as i64, std::ptr::null()) };
                return Start::Done(n);
            }
            Err(e) => return Start::Done(e),
        };
        let hold = self.keep(file);
        // SAFETY: the slot has just been taken, its record is the engine's.
        let job = unsafe { self.workers.shared.job(token.index()) };
        (job.token, job.op, job.off) = (token, Op::Call(call), request.off as i64);
        (job.fd, job.hold, job.block) = (fd, hold, None);
        // As in io-wq: in turn with the writes of the file.
        job.inode = match (kind, call) {
            (Kind::Regular(inode), Call::Allocate { .. }) => Some(inode),
            _ => None,
        };
        self.workers.push(Class::Bounded, token.index());
        Start::Pending
    }

    /// FADVISE: some advice is only noted, and that at once.
    fn advise(&mut self, token: Token, request: &Request<File, ()>) -> Start {
        let len = match request.addr {
            0 => i64::from(request.len),
            _ if fault::on(Fault::FadviseLengthLost) => i64::from(request.len),
            addr => addr as i64,
        };
        let advice = request.op_flags as i32;
        let noted = matches!(
            advice,
            libc::POSIX_FADV_NORMAL | libc::POSIX_FADV_RANDOM | libc::POSIX_FADV_SEQUENTIAL
        );
        if noted && request.flags & IOSQE_ASYNC == 0 {
            let fd = number(request.target);
            return Start::Done(sys::advise(fd, request.off as i64, len, advice));
        }
        self.with_file(token, request, Call::Advise { len, advice })
    }

    /// OPENAT: tried by names that are in the cache, and without waiting for
    /// the file, as io_uring does.
    ///
    /// # Safety
    /// As for `Backend::start`.
    unsafe fn open_at(&mut self, token: Token, request: &Request<File, ()>) -> Start {
        let (flags, direct) = (request.op_flags as i32, request.direct);
        let call = Call::Open { flags, mode: request.len, direct };
        if direct && !opens_registered(request.op_flags) {
            // The path's own errors come first.
            return Start::Refused(path_error(request).unwrap_or(-libc::EINVAL));
        }
        if request.flags & IOSQE_ASYNC == 0 && flags & MAKES == 0 {
            let cloexec = if direct { libc::O_CLOEXEC } else { 0 };
            // SAFETY: the kernel checks the address.
            let opened = unsafe {
                sys::open_cached(number(request.target), request.addr as usize, flags | cloexec)
            };
            if opened >= 0 {
                return Start::Done(if direct { ours(opened) } else { opened });
            }
            // Too old a system, or one that forbids the call, says EINVAL,
            // ENOSYS or EPERM, and a worker asks otherwise.
            let wait = [libc::EAGAIN, libc::EINVAL, libc::ENOSYS, libc::EPERM].contains(&-opened);
            if !wait {
                // The path's own errors end a batch.
                return path_error(request).map_or(Start::Done(opened), Start::Refused);
            }
        }
        self.with_path(token, request, call)
    }

    /// Copies the path of an OPENAT or STATX that starts later.
    pub(super) fn keep_path(&mut self, index: usize, opcode: u8, addr: u64) -> Result<Kept, Errno> {
        let mut buffer = [MaybeUninit::uninit(); PATH];
        // Whether a STATX may have none is found when it starts.
        let empty = opcode == uapi::IORING_OP_STATX;
        let path = read_path(addr as usize, empty, &mut buffer).map_err(|e| Errno::from_raw(-e))?;
        let addr = self.kept.keep_path(index, path, &self.workers.shared.blocks)?;
        Ok(Kept { addr, bytes: 0 })
    }

    /// A call with a path, for a worker. The directory is looked up there, as
    /// in Linux.
    fn with_path(&mut self, token: Token, request: &Request<File, ()>, call: Call) -> Start {
        let empty = match call {
            Call::Status { flags, .. } => flags & libc::AT_EMPTY_PATH != 0,
            _ => false,
        };
        let mut buffer = [MaybeUninit::uninit(); PATH];
        let path = match read_path(request.addr as usize, empty, &mut buffer) {
            Ok(path) => path,
            Err(e) => return Start::Refused(e),
        };
        if request.fallback && matches!(call, Call::Open { .. }) {
            // A FIFO may wait for ever, and the reserved slot must not.
            return Start::NoRoom;
        }
        let shared = &self.workers.shared;
        // SAFETY: the slot has just been taken, its record is the engine's.
        let job = unsafe { shared.job(token.index()) };
        if !job.set_path(path, &shared.blocks) {
            return Start::NoRoom;
        }
        (job.token, job.op, job.off) = (token, Op::Call(call), 0);
        (job.fd, job.hold, job.inode) = (number(request.target), Hold::Registered, None);
        self.workers.push(Class::Bounded, token.index());
        Start::Pending
    }

    /// CLOSE of a number, unless it is ours.
    fn close_number(&mut self, token: Token, request: &Request<File, ()>) -> Start {
        let fd = number(request.target);
        if fd < 0 || own::is_own(fd) {
            return Start::Done(-libc::EBADF);
        }
        // What comes after it in this batch must not have the file by its
        // number.
        self.batch.end(&self.workers.shared.held);
        if request.flags & IOSQE_ASYNC == 0 {
            match may_flush(fd) {
                Ok(false) => {
                    // SAFETY: neither path nor memory.
                    return Start::Done(unsafe { Call::Close.carry_out(fd, 0, std::ptr::null()) });
                }
                Err(e) if e == -libc::EBADF => return Start::Done(e),
                _ => {}
            }
        }
        // SAFETY: the slot has just been taken, its record is the engine's.
        let job = unsafe { self.workers.shared.job(token.index()) };
        (job.token, job.op, job.off, job.fd) = (token, Op::Call(Call::Close), 0, fd);
        (job.hold, job.block, job.inode) = (Hold::Registered, None, None);
        self.workers.push(Class::Bounded, token.index());
        Start::Pending
    }
}

/// Whether an OPENAT into the table may have these flags: it makes no descriptor
/// that `exec` could close.
pub(super) fn opens_registered(flags: u32) -> bool {
    flags & libc::O_CLOEXEC as u32 == 0
}

/// Whether closing a file may wait for somebody: network and user-space file
/// systems flush then. They are among those without a device of their own.
fn may_flush(fd: i32) -> Result<bool, i32> {
    let (kind, device) = sys::kind_and_device(fd)?;
    let stored = matches!(kind, FileType::RegularFile | FileType::Directory);
    Ok(stored && device == 0)
}

/// What is wrong with the path of an OPENAT, as far as it does not depend on
/// what is there.
fn path_error(request: &Request<File, ()>) -> Option<i32> {
    read_path(request.addr as usize, false, &mut [MaybeUninit::uninit(); PATH]).err()
}

/// Copies the path at `addr` (`IORING_FEAT_SUBMIT_STABLE`), its end included.
///
/// # Errors
/// A negative errno, in Linux's order: not there, too long, empty.
fn read_path(
    addr: usize,
    may_be_empty: bool,
    to: &mut [MaybeUninit<u8>; PATH],
) -> Result<&[u8], i32> {
    let page = rustix::param::page_size();
    let mut len = 0;
    while len < PATH {
        let at = addr.wrapping_add(len);
        // Up to the end of a page: what is behind it need not be there.
        let some = (page - at % page).min(PATH - len);
        // SAFETY: there is room for as much.
        let n = unsafe { sys::copy(false, at, to[len..].as_mut_ptr().cast(), some) };
        let n = usize::try_from(n).map_err(|_| n as i32)?;
        // SAFETY: just written.
        let new = unsafe { std::slice::from_raw_parts(to[len..].as_ptr().cast::<u8>(), n) };
        if let Some(end) = new.iter().position(|&byte| byte == 0) {
            let all = len + end;
            if all == 0 && !may_be_empty {
                return Err(-libc::ENOENT);
            }
            // SAFETY: written, up to here.
            return Ok(unsafe { std::slice::from_raw_parts(to.as_ptr().cast(), all + 1) });
        }
        if n < some {
            return Err(-libc::EFAULT);
        }
        len += n;
    }
    Err(-libc::ENAMETOOLONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_far_as_they_go() {
        let mut room = [MaybeUninit::uninit(); PATH];
        let mut read = |bytes: &[u8], empty| {
            read_path(bytes.as_ptr() as usize, empty, &mut room).map(<[u8]>::to_vec)
        };
        assert_eq!(read(b"a/b\0c", false), Ok(b"a/b\0".to_vec()));
        assert_eq!(read(b"\0", false), Err(-libc::ENOENT));
        assert_eq!(read(b"\0", true), Ok(vec![0]));
        let mut long = vec![b'x'; PATH];
        assert_eq!(read(&long, false), Err(-libc::ENAMETOOLONG));
        long[PATH - 1] = 0;
        assert_eq!(read(&long, false).map(|path| path.len()), Ok(PATH));
        assert_eq!(read_path(0, true, &mut room), Err(-libc::EFAULT));
        assert_eq!(read_path(usize::MAX, true, &mut room), Err(-libc::EFAULT));
    }
}
