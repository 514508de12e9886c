//! What an application may ask of a block device: as of one that it has opened
//! with `O_DIRECT` in Linux.

use crate::errno::Errno;
use crate::hal::{Request, Start};
use crate::op::MAX_RW;
use crate::uapi;

/// A block device as it is now.
#[derive(Clone, Copy, Debug)]
pub struct Medium {
    /// Its length, in bytes.
    pub bytes: u64,
    /// Bytes of a block, a power of two.
    pub block: u32,
    /// Whether it cannot be written to.
    pub read_only: bool,
    /// Whether the ring polls, so that `RWF_HIPRI` is kept.
    pub polled: bool,
}

/// A read or write after all checks.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// It writes to the medium.
    pub write: bool,
    /// The first byte on the medium.
    pub position: u64,
    /// Bytes, not 0; what goes beyond the end is cut off.
    pub bytes: u64,
    /// The memory, or the array of vectors.
    pub addr: usize,
    /// It is an array of vectors.
    pub vectored: bool,
    /// It lasts when it ends (`RWF_DSYNC`, `RWF_SYNC`).
    pub sync: bool,
}

fn done<T>(errno: Errno) -> Result<T, Start> {
    Err(Start::Done(errno.to_result()))
}

impl Medium {
    /// Whether `opcode` is carried out on a block device, by one that can
    /// ([`asks_device`](Self::asks_device)): what a driver's
    /// [`supports`](crate::hal::Backend::supports) begins with.
    #[inline(always)]
    pub const fn carries_out(opcode: u8) -> bool {
        matches!(
            opcode,
            uapi::IORING_OP_READ
                | uapi::IORING_OP_WRITE
                | uapi::IORING_OP_READV
                | uapi::IORING_OP_WRITEV
                | uapi::IORING_OP_READ_FIXED
                | uapi::IORING_OP_WRITE_FIXED
                | uapi::IORING_OP_FSYNC
                | uapi::IORING_OP_FALLOCATE
        )
    }

    /// Whether not every device can carry `opcode` out.
    #[inline(always)]
    pub const fn asks_device(opcode: u8) -> bool {
        opcode == uapi::IORING_OP_FALLOCATE
    }

    /// Checks a read or write, fixed, vectored or neither, of as many `bytes`
    /// ([`Copies::bytes`](super::Copies::bytes)).
    ///
    /// # Errors
    /// What the request ends with: a result of 0 too, where there is nothing to
    /// be read.
    pub fn transfer<F, M>(&self, request: &Request<F, M>, bytes: u64) -> Result<Transfer, Start> {
        use uapi::{IORING_OP_READV, IORING_OP_WRITE, IORING_OP_WRITE_FIXED, IORING_OP_WRITEV};
        let vectored = matches!(request.opcode, IORING_OP_READV | IORING_OP_WRITEV);
        let write =
            matches!(request.opcode, IORING_OP_WRITE | IORING_OP_WRITE_FIXED | IORING_OP_WRITEV);
        let known = uapi::RWF_DSYNC | uapi::RWF_SYNC | uapi::RWF_NOWAIT | uapi::RWF_HIPRI;
        let flags = request.op_flags as i32;
        if flags & !known != 0 {
            return done(Errno::EOPNOTSUPP);
        }
        if flags & uapi::RWF_HIPRI != 0 && !self.polled {
            return done(Errno::EINVAL);
        }
        if write && self.read_only {
            return done(Errno::EROFS);
        }
        let position = request.off;
        // Above i64::MAX, -1 (no current position here) included.
        if position > i64::MAX as u64 {
            return done(Errno::EINVAL);
        }
        let bytes = bytes.min(MAX_RW.into());
        if bytes == 0 || position >= self.bytes && !write {
            return Err(Start::Done(0));
        }
        if position >= self.bytes {
            return done(Errno::ENOSPC);
        }
        let bytes = bytes.min(self.bytes - position);
        if self.off_grid(position | bytes) {
            return done(Errno::EINVAL);
        }
        let addr = usize::try_from(request.addr).unwrap_or(0);
        if addr == 0 || !vectored && addr.checked_add(bytes as usize).is_none() {
            return done(Errno::EFAULT);
        }
        let sync = flags & (uapi::RWF_DSYNC | uapi::RWF_SYNC) != 0;
        Ok(Transfer { write, position, bytes, addr, vectored, sync })
    }

    /// The range of a FALLOCATE: position and bytes, which end with the medium
    /// if the mode keeps the size. `supported`: the device can do what the mode
    /// asks for.
    ///
    /// # Errors
    /// What the request ends with: `-EOPNOTSUPP` if it is not supported, which
    /// as in Linux is said after what no range may be, and before all else.
    pub fn range<F, M>(
        &self,
        request: &Request<F, M>,
        supported: bool,
    ) -> Result<(u64, u64), Start> {
        let (mode, position, bytes) = (request.len as i32, request.off, request.addr);
        if position > i64::MAX as u64 || bytes == 0 || bytes > i64::MAX as u64 {
            return done(Errno::EINVAL);
        }
        if !supported {
            return done(Errno::EOPNOTSUPP);
        }
        if self.read_only {
            return done(Errno::EROFS);
        }
        if position >= self.bytes {
            return done(Errno::EINVAL);
        }
        let bytes = match self.bytes - position {
            left if bytes > left && mode & uapi::FALLOC_FL_KEEP_SIZE == 0 => {
                return done(Errno::EINVAL);
            }
            left => bytes.min(left),
        };
        if self.off_grid(position | bytes) {
            return done(Errno::EINVAL);
        }
        Ok((position, bytes))
    }

    fn off_grid(&self, position: u64) -> bool {
        position & u64::from(self.block - 1) != 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::hal::Target;

    const DISK: Medium = Medium { bytes: 1 << 20, block: 512, read_only: false, polled: false };

    fn request(opcode: u8, addr: u64, len: u32, off: u64, op_flags: i32) -> Request<(), ()> {
        Request {
            opcode,
            flags: 0,
            fallback: false,
            target: Target::Fd(0),
            buffer: None,
            addr,
            len,
            off,
            op_flags: op_flags as u32,
            direct: false,
        }
    }

    fn transfer(disk: &Medium, opcode: u8, len: u32, off: u64, flags: i32) -> Result<u64, i32> {
        match disk.transfer(&request(opcode, 4096, len, off, flags), len.into()) {
            Ok(transfer) => Ok(transfer.bytes),
            Err(Start::Done(result)) => Err(result),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn transfers_are_those_of_an_open_block_device() {
        let (read, write) = (uapi::IORING_OP_READ, uapi::IORING_OP_WRITE);
        let end = DISK.bytes;
        assert_eq!(transfer(&DISK, read, 4096, 512, 0), Ok(4096));
        assert_eq!(transfer(&DISK, read, 4096, end - 512, 0), Ok(512));
        assert_eq!(transfer(&DISK, read, 4096, end, 0), Err(0));
        assert_eq!(transfer(&DISK, write, 0, end, 0), Err(0));
        let errors = [
            (transfer(&DISK, write, 4096, end, 0), Errno::ENOSPC),
            (transfer(&DISK, read, 100, 0, 0), Errno::EINVAL),
            (transfer(&DISK, read, 512, 1, 0), Errno::EINVAL),
            (transfer(&DISK, read, 512, u64::MAX, 0), Errno::EINVAL),
            (transfer(&DISK, read, 512, 0, uapi::RWF_HIPRI), Errno::EINVAL),
            (transfer(&DISK, write, 512, 0, uapi::RWF_APPEND), Errno::EOPNOTSUPP),
            (transfer(&Medium { read_only: true, ..DISK }, write, 512, 0, 0), Errno::EROFS),
        ];
        for (answer, errno) in errors {
            assert_eq!(answer, Err(errno.to_result()));
        }
        let polled = Medium { polled: true, ..DISK };
        assert_eq!(transfer(&polled, read, 512, 0, uapi::RWF_HIPRI), Ok(512));
    }

    #[test]
    fn ranges_end_with_the_medium_if_its_size_is_kept() {
        let keep = uapi::FALLOC_FL_KEEP_SIZE;
        let range = |disk: &Medium, mode: i32, off: u64, bytes: u64, supported| {
            disk.range(&request(uapi::IORING_OP_FALLOCATE, bytes, mode as u32, off, 0), supported)
        };
        let error = |errno: Errno| Err(Start::Done(errno.to_result()));
        let locked = Medium { read_only: true, ..DISK };
        let last = DISK.bytes - 512;
        assert_eq!(range(&DISK, keep, last, 4096, true), Ok((last, 512)));
        assert_eq!(range(&DISK, 0, last, 4096, true), error(Errno::EINVAL));
        assert_eq!(range(&DISK, keep, 0, 100, true), error(Errno::EINVAL));
        // What comes before what.
        assert_eq!(range(&locked, keep, 0, 0, false), error(Errno::EINVAL));
        assert_eq!(range(&locked, keep, 1, 1, false), error(Errno::EOPNOTSUPP));
        assert_eq!(range(&locked, keep, 1, 1, true), error(Errno::EROFS));
    }
}
