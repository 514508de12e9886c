//! What is kept of a request that goes on after its submission.

use std::os::fd::RawFd;
use std::ptr;

use annulus::hal::Token;
use annulus::uapi;
use libc::iovec;

use super::blocks::{Blocks, MAX_IOVECS};
use super::call::Call;
use super::held::Held;
use super::order::Inode;
use super::rw;
use crate::sys;

/// iovecs that fit into a record.
pub const INLINE: usize = 8;

/// `RWF_*` flags that mean nothing to a file without a cache or an end.
const HARMLESS: i32 =
    uapi::RWF_DSYNC | uapi::RWF_SYNC | uapi::RWF_APPEND | uapi::RWF_NOAPPEND | uapi::RWF_NOSIGNAL;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Read,
    Write,
    /// Only waits, for these events.
    Poll {
        events: u32,
    },
    Call(Call),
}

/// What keeps a job's file open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Its registration, which the engine holds for the request.
    Registered,
    /// A duplicate that requests of one batch share.
    Shared(u32),
    /// A duplicate of its own.
    Own,
}

/// One request, from its punt to its end. A record a slot, made at set-up.
///
/// Written by the engine; a worker's alone from its queue to its completion.
#[derive(Debug)]
pub struct Job {
    pub token: Token,
    pub op: Op,
    pub fd: RawFd,
    pub hold: Hold,
    /// -1: the current position.
    pub off: i64,
    /// `RWF_*` of the request.
    pub flags: i32,
    /// Whether a short result is continued.
    pub continues: bool,
    /// The file, if it takes turns with others of it.
    pub inode: Option<Inode>,
    /// Bytes asked for, and moved so far.
    pub total: usize,
    pub done: usize,
    /// The iovecs not finished yet: `inline` or a block.
    pub first: usize,
    pub count: usize,
    pub block: Option<u8>,
    pub inline: [iovec; INLINE],
}

// SAFETY: the pointers are addresses that the application promised to keep
// valid for the request, whichever thread carries it out.
unsafe impl Send for Job {}

impl Job {
    pub fn empty() -> Self {
        Self {
            token: Token::from_raw(0),
            op: Op::Read,
            fd: -1,
            hold: Hold::Registered,
            off: 0,
            flags: 0,
            continues: false,
            inode: None,
            total: 0,
            done: 0,
            first: 0,
            count: 0,
            block: None,
            inline: [iovec { iov_base: ptr::null_mut(), iov_len: 0 }; INLINE],
        }
    }

    fn iovecs(&mut self, blocks: &Blocks) -> *mut iovec {
        match self.block {
            Some(block) => blocks.at(block),
            None => self.inline.as_mut_ptr(),
        }
    }

    /// One buffer.
    pub fn set_buffer(&mut self, addr: usize, len: usize) {
        let len = len.min(sys::MAX_RW);
        self.inline[0] = iovec { iov_base: addr as *mut _, iov_len: len };
        (self.first, self.count, self.block) = (0, 1, None);
        (self.total, self.done) = (len, 0);
    }

    /// Copies the application's array of `count` iovecs
    /// (`IORING_FEAT_SUBMIT_STABLE`).
    ///
    /// # Errors
    /// `Ok(false)` if no block is free; `-EFAULT` if it could not be read.
    pub fn set_iovecs(&mut self, addr: usize, count: usize, blocks: &Blocks) -> Result<bool, i32> {
        self.block = None;
        if count > INLINE {
            match blocks.take() {
                None => return Ok(false),
                block => self.block = block,
            }
        }
        let to = self.iovecs(blocks);
        // SAFETY: `to` has room: eight, or a block, and core refuses more
        // than a block holds.
        if let Err(e) = unsafe { sys::copy_iovecs(addr, count, to) } {
            self.drop_block(blocks);
            return Err(e);
        }
        // As the kernel: what goes beyond the most that one call moves is cut
        // off, so that the parts of a continued transfer add up to no more.
        let mut total = 0;
        let mut used = 0;
        while used < count && total < sys::MAX_RW {
            // SAFETY: one of the `count` iovecs just written.
            let iov = unsafe { &mut *to.add(used) };
            iov.iov_len = iov.iov_len.min(sys::MAX_RW - total);
            total += iov.iov_len;
            used += 1;
        }
        (self.first, self.count) = (0, used);
        (self.total, self.done) = (total, 0);
        Ok(true)
    }

    /// Keeps a path. False if there is no room for one so long.
    pub fn set_path(&mut self, path: &[u8], blocks: &Blocks) -> bool {
        const { assert!(libc::PATH_MAX as usize <= MAX_IOVECS * size_of::<iovec>()) };
        self.block = None;
        if path.len() > size_of_val(&self.inline) {
            match blocks.take() {
                None => return false,
                block => self.block = block,
            }
        }
        let to = self.iovecs(blocks).cast();
        // SAFETY: eight iovecs have room for it, or a block has.
        unsafe {
            ptr::copy_nonoverlapping(path.as_ptr(), to, path.len().min(libc::PATH_MAX as usize))
        };
        true
    }

    /// `bytes` more have been moved.
    pub fn advance(&mut self, bytes: usize, blocks: &Blocks) {
        self.done += bytes;
        if self.off >= 0 {
            self.off += bytes as i64;
        }
        let iovecs = self.iovecs(blocks);
        let mut left = bytes;
        while self.first < self.count {
            // SAFETY: below `count`, so set.
            let iov = unsafe { &mut *iovecs.add(self.first) };
            if left < iov.iov_len {
                iov.iov_base = iov.iov_base.wrapping_byte_add(left);
                iov.iov_len -= left;
                return;
            }
            left -= iov.iov_len;
            self.first += 1;
        }
    }

    /// One call for what is left.
    ///
    /// # Safety
    /// The request's memory is still promised.
    pub unsafe fn attempt(&mut self, extra_flags: i32, blocks: &Blocks) -> i32 {
        let write = self.op == Op::Write;
        let iovecs = self.iovecs(blocks).wrapping_add(self.first);
        let count = self.count - self.first;
        // SAFETY: the caller's promise.
        let call = |flags| unsafe {
            sys::transfer(write, self.fd, iovecs, count, self.off, flags | extra_flags)
        };
        match call(self.flags) {
            // Some devices take no flag by system call, though one that means
            // nothing to them is none of io_uring's concern.
            n if n == -libc::EOPNOTSUPP && extra_flags == 0 => match rw::zero_length(self.flags) {
                0 if self.flags != 0 && self.flags & !HARMLESS == 0 => call(0),
                0 => n,
                e => e,
            },
            n => n,
        }
    }

    /// Carries the job out, blocking, to its end.
    ///
    /// # Safety
    /// The request's memory is still promised.
    pub unsafe fn carry_out(&mut self, blocks: &Blocks) -> i32 {
        if let Op::Call(call) = self.op {
            let path = self.iovecs(blocks).cast();
            // SAFETY: the caller's promise; a call with a path has it there.
            return unsafe { call.carry_out(self.fd, self.off, path) };
        }
        loop {
            // SAFETY: the caller's promise.
            let n = unsafe { self.attempt(0, blocks) };
            if n == -libc::EINTR {
                // Workers take no signals; what still interrupts them (a stop
                // and continue, a debugger) is not for the application.
                continue;
            }
            if n < 0 {
                // Bytes that were moved win over the error after them.
                return if self.done > 0 { self.done as i32 } else { n };
            }
            self.advance(n as usize, blocks);
            if n == 0 || !self.continues || self.done >= self.total {
                return self.done as i32;
            }
        }
    }

    fn drop_block(&mut self, blocks: &Blocks) {
        if let Some(block) = self.block.take() {
            blocks.put(block);
        }
    }

    /// Gives back what the job holds. Before its completion is told: who
    /// sees that may count on the file being let go.
    pub fn let_go(&mut self, held: &Held, blocks: &Blocks) {
        self.drop_block(blocks);
        match self.hold {
            Hold::Registered => {}
            Hold::Shared(entry) => held.release(entry),
            Hold::Own => sys::close(self.fd),
        }
        self.hold = Hold::Registered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(job: &mut Job, blocks: &Blocks) -> Vec<(usize, usize)> {
        let iovecs = job.iovecs(blocks);
        (job.first..job.count)
            // SAFETY: set.
            .map(|i| unsafe { *iovecs.add(i) })
            .map(|iov| (iov.iov_base as usize, iov.iov_len))
            .collect()
    }

    #[test]
    fn a_continued_transfer_goes_on_where_it_ended() {
        let blocks = Blocks::new().unwrap();
        for count in [3, 20] {
            let array: Vec<_> = (0..count)
                .map(|i| iovec { iov_base: (i * 1000 + 4096) as *mut _, iov_len: i * 10 })
                .collect();
            let mut job = Job::empty();
            assert_eq!(job.set_iovecs(array.as_ptr() as usize, count, &blocks), Ok(true));
            assert_eq!(job.block.is_some(), count > INLINE);
            assert_eq!(job.total, (0..count).map(|i| i * 10).sum::<usize>());
            job.off = 7;
            job.advance(10, &blocks);
            assert_eq!(left(&mut job, &blocks)[0], (6096, 20));
            job.advance(5, &blocks);
            assert_eq!(left(&mut job, &blocks)[0], (6101, 15));
            assert_eq!((job.off, job.done), (22, 15));
            job.advance(job.total - 15, &blocks);
            assert!(left(&mut job, &blocks).is_empty());
            // Without an offset none appears.
            job.off = -1;
            job.advance(0, &blocks);
            assert_eq!(job.off, -1);
            job.drop_block(&blocks);
        }
    }

    #[test]
    fn no_more_is_asked_for_than_one_call_moves() {
        let blocks = Blocks::new().unwrap();
        let gigabyte = 1 << 30;
        let array = [iovec { iov_base: 4096 as *mut _, iov_len: gigabyte }; 5];
        let mut job = Job::empty();
        assert_eq!(job.set_iovecs(array.as_ptr() as usize, 5, &blocks), Ok(true));
        assert_eq!((job.total, job.count), (sys::MAX_RW, 2));
        assert_eq!(left(&mut job, &blocks)[1].1, sys::MAX_RW - gigabyte);
        job.set_buffer(4096, u32::MAX as usize);
        assert_eq!(job.total, sys::MAX_RW);
    }

    #[test]
    fn blocks_run_out_and_come_back() {
        let blocks = Blocks::new().unwrap();
        let array = [iovec { iov_base: 4096 as *mut _, iov_len: 1 }; INLINE + 1];
        let at = array.as_ptr() as usize;
        let mut jobs: Vec<_> = (0..8).map(|_| Job::empty()).collect();
        for job in &mut jobs {
            assert_eq!(job.set_iovecs(at, array.len(), &blocks), Ok(true));
        }
        let mut one_more = Job::empty();
        assert_eq!(one_more.set_iovecs(at, array.len(), &blocks), Ok(false));
        jobs[3].drop_block(&blocks);
        // A bad array gives its block back.
        assert_eq!(one_more.set_iovecs(16, array.len(), &blocks), Err(-libc::EFAULT));
        assert_eq!(one_more.set_iovecs(at, array.len(), &blocks), Ok(true));
    }
}
