//! Files as a backend: tried without blocking, then a poll or a worker.
//!
//! ```text
//!            preadv2/pwritev2 with RWF_NOWAIT
//!   start ──┬── whole, end of file, error ─────────────▶ done, nothing kept
//!           ├── would block: a stream ──▶ poll ──ready──▶ try again
//!           └── would block, or short: storage ─▶ worker ─▶ completion
//! ```
//!
//! The rules are io_uring's (Linux 6.18), with its reasons:
//!
//! * What would block is a [`Kind`]'s to decide. A stream (pipe, socket,
//!   terminal, eventfd) never occupies a worker, `O_NONBLOCK` or not;
//!   `RWF_NOWAIT` is answered with `-EAGAIN` as it is.
//! * A short result of storage is continued until all bytes, the end of the
//!   file or an error; bytes moved win over an error after them. A short
//!   result of a stream is final.
//! * Offset -1 is the current position; streams ignore the offset.
//! * A file opened with `O_DIRECT` is not tried: `RWF_NOWAIT` or not, the call
//!   comes back when the device is done. It goes to a worker at once.
//! * Not every file can be tried without blocking (`EOPNOTSUPP`); that is not
//!   the application's business, unless it asked for `RWF_NOWAIT`.
//!
//! How files are kept across all this is told in [`held`].

mod ahead;
mod blocks;
mod call;
mod held;
mod job;
mod kept;
mod kind;
mod lane;
mod order;
mod poller;
mod punt;
mod readiness;
mod rw;
mod whole;
mod workers;

use std::os::fd::{AsFd, AsRawFd, RawFd};

use annulus::Stats;
use annulus::engine::Completer;
use annulus::errno::Errno;
use annulus::hal::{Backend, Cancel, Kept, Request, Start, Target, Token};
use annulus::uapi;
use annulus::worker::{Class, Load};
use rustix::mm::{Advice, madvise};

use crate::host::LinuxHost;
use crate::own::Own;
use crate::{rings, sys};
use ahead::Ahead;
pub use blocks::Blocks;
use held::{Batch, HeldFile};
use job::Hold;
use kind::Kind;
use lane::Lane;
use poller::Poller;
pub use workers::Limits;
use workers::{Shared, Workers};

/// A registered file: a duplicate of our own, and what it is.
#[derive(Clone, Copy, Debug)]
pub struct File {
    fd: RawFd,
    kind: Kind,
    /// Goes past the page cache, as it was when it was registered.
    direct: bool,
}

/// What is known of a slot's wait. The engine's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    None,
    Armed,
    /// Armed, and ends with `-ECANCELED` when next looked at.
    Cancelled,
}

/// A bit for each of our own descriptors, as far as it goes. Only ever a
/// hint.
#[derive(Debug, Default)]
struct Hints {
    words: [u64; 16],
}

impl Hints {
    #[inline]
    fn has(&self, fd: RawFd) -> bool {
        self.words.get(fd as usize / 64).is_some_and(|word| word >> (fd % 64) & 1 != 0)
    }

    fn set(&mut self, fd: RawFd, yes: bool) {
        if let Some(word) = self.words.get_mut(fd as usize / 64) {
            *word = *word & !(1 << (fd % 64)) | u64::from(yes) << (fd % 64);
        }
    }
}

/// Requests carried out on file descriptors.
pub struct FileBackend {
    batch: Batch,
    workers: Workers,
    waits: Box<[Wait]>,
    kept: kept::Copies,
    poller: Option<Poller>,
    /// Registered files that take no writes without blocking.
    blocking_writes: Hints,
    /// `/dev/null`, for checking buffers; opened when first needed.
    null: Option<Own>,
}

impl FileBackend {
    /// A backend for slots `0..slots` (the reserved one counted).
    ///
    /// `bell`: completions that come while nobody drives the engine ring the
    /// host's bell themselves. `merge`: sequential requests that are punted
    /// follow each other in one worker.
    pub fn new(
        slots: usize,
        limits: Limits,
        blocks: Blocks,
        completer: Completer<'static, &'static LinuxHost>,
        bell: bool,
        merge: bool,
    ) -> Self {
        let lane = Lane { completer, bell };
        Self {
            batch: Batch::new(Ahead::new(merge)),
            workers: Workers::new(slots, limits, blocks, lane),
            waits: vec![Wait::None; slots].into_boxed_slice(),
            kept: kept::Copies::new(slots),
            poller: None,
            blocking_writes: Hints::default(),
            null: None,
        }
    }

    /// What the workers of a class are doing.
    pub fn load(&self, class: Class) -> Load {
        self.workers.load(class)
    }

    fn shared(&self) -> &Shared {
        &self.workers.shared
    }

    /// The file of a request that goes on after its submission.
    fn file(&mut self, target: Target<File>) -> Result<(RawFd, Kind, Option<HeldFile>), i32> {
        match target {
            Target::Registered(file) => Ok((file.fd, file.kind, None)),
            Target::Fd(number) => {
                let file = self.batch.hold(&self.workers.shared.held, number)?;
                Ok((file.fd, file.kind, Some(file)))
            }
        }
    }

    /// A request's own reference to a file of [`file`](Self::file).
    fn keep(&mut self, file: Option<HeldFile>) -> Hold {
        match file {
            None => Hold::Registered,
            Some(file) => Hold::Shared(self.batch.share(&self.workers.shared.held, &file)),
        }
    }
}

/// Whether a duplicate failed for want of room, not of a file.
fn out_of_descriptors(e: i32) -> bool {
    e != -libc::EBADF
}

impl Backend for FileBackend {
    type File = File;
    /// Nothing is kept: the pages are there, and a read or write of a part of
    /// them is like any other.
    type Buffer = ();

    fn supports(&self, opcode: u8) -> bool {
        matches!(
            opcode,
            uapi::IORING_OP_READ
                | uapi::IORING_OP_WRITE
                | uapi::IORING_OP_READV
                | uapi::IORING_OP_WRITEV
                | uapi::IORING_OP_READ_FIXED
                | uapi::IORING_OP_WRITE_FIXED
                | uapi::IORING_OP_FSYNC
                | uapi::IORING_OP_POLL_ADD
                | uapi::IORING_OP_SYNC_FILE_RANGE
                | uapi::IORING_OP_FALLOCATE
                | uapi::IORING_OP_FADVISE
                | uapi::IORING_OP_OPENAT
                | uapi::IORING_OP_CLOSE
                | uapi::IORING_OP_STATX
        )
    }

    fn features(&self) -> u32 {
        uapi::IORING_FEAT_RW_CUR_POS | uapi::IORING_FEAT_FAST_POLL | uapi::IORING_FEAT_POLL_32BITS
    }

    fn is_open(&mut self, fd: i32) -> bool {
        sys::is_open(fd)
    }

    fn waits_for_readiness(&mut self, target: Target<File>) -> bool {
        match target {
            Target::Registered(file) => file.kind.is_stream() && sys::wakes(file.fd),
            Target::Fd(fd) => sys::wakes(fd),
        }
    }

    fn open(&mut self, fd: i32) -> Result<File, Errno> {
        // As in Linux: a ring cannot be registered.
        if rings::is_ring(fd) {
            return Err(Errno::EBADF);
        }
        let fd = sys::duplicate(fd).map_err(|e| Errno::from_raw(-e))?;
        self.adopt(fd)
    }

    fn adopt(&mut self, fd: i32) -> Result<File, Errno> {
        match Kind::of(fd, &mut self.batch.ahead) {
            Ok(kind) => {
                self.blocking_writes.set(fd, false);
                let direct = sys::status_flags(fd) & libc::O_DIRECT != 0;
                Ok(File { fd, kind, direct })
            }
            Err(e) => {
                sys::close(fd);
                Err(Errno::from_raw(-e))
            }
        }
    }

    const SENDS_FILES: bool = true;

    fn share(&mut self, file: File) -> Result<i32, Errno> {
        sys::duplicate(file.fd).map_err(|e| Errno::from_raw(-e))
    }

    fn close(&mut self, file: File) {
        sys::close(file.fd);
    }

    unsafe fn map(&mut self, addr: usize, len: usize) -> Result<(), Errno> {
        let page = rustix::param::page_size();
        let first = addr & !(page - 1);
        let end = addr.checked_add(len).ok_or(Errno::EFAULT)?;
        let last = end.checked_next_multiple_of(page).ok_or(Errno::EFAULT)?;
        // Populating shows that all of it can be written, as the kernel's
        // pinning does, and takes the page faults now. It changes no data.
        // SAFETY: nothing is unmapped or altered.
        unsafe { madvise(first as *mut _, last - first, Advice::LinuxPopulateWrite) }.map_err(|e| {
            match e {
                rustix::io::Errno::AGAIN => Errno::ENOMEM,
                _ => Errno::EFAULT,
            }
        })
    }

    fn unmap(&mut self, (): ()) {}

    unsafe fn read_memory(&mut self, addr: usize, to: &mut [u8]) -> Result<(), Errno> {
        // SAFETY: `to` may be written; what is at `addr` is the caller's
        // promise, as far as there is anything.
        sys::whole(unsafe { sys::copy(false, addr, to.as_mut_ptr(), to.len()) }, to.len())
    }

    unsafe fn write_memory(&mut self, addr: usize, from: &[u8]) -> Result<(), Errno> {
        // SAFETY: `from` is only read; the rest as in `read_memory`.
        sys::whole(
            unsafe { sys::copy(true, addr, from.as_ptr().cast_mut(), from.len()) },
            from.len(),
        )
    }

    #[inline]
    unsafe fn start(&mut self, token: Token, request: &Request<File, ()>) -> Start {
        match request.opcode {
            // SAFETY: the caller's promise, in each.
            uapi::IORING_OP_READ | uapi::IORING_OP_READ_FIXED => unsafe {
                self.start_buffer(token, request, false)
            },
            // SAFETY: as above.
            uapi::IORING_OP_WRITE | uapi::IORING_OP_WRITE_FIXED => unsafe {
                self.start_buffer(token, request, true)
            },
            // SAFETY: as above.
            uapi::IORING_OP_READV => unsafe { self.start_other(token, request, false) },
            // SAFETY: as above.
            uapi::IORING_OP_WRITEV => unsafe { self.start_other(token, request, true) },
            uapi::IORING_OP_POLL_ADD => self.poll_add(token, request),
            // SAFETY: as above.
            _ => unsafe { self.start_whole(token, request) },
        }
    }

    unsafe fn resume(&mut self, token: Token) -> Start {
        // SAFETY: the caller's promise.
        unsafe { self.try_again(token) }
    }

    fn update_poll(&mut self, token: Token, events: Option<u32>) {
        self.update(token, events);
    }

    fn rebuffer(&mut self, token: Token, addr: u64, len: u32) {
        self.rebuffer(token, addr, len);
    }

    fn end(&mut self, token: Token) {
        self.end_wait(token.index(), 0);
    }

    fn cancel(&mut self, token: Token) -> Cancel {
        match self.cancel_wait(token) {
            Cancel::Running => self.workers.cancel(token),
            Cancel::Ended => Cancel::Ended,
        }
    }

    #[inline]
    fn kick(&mut self) {
        self.batch.end(&self.workers.shared.held);
        self.workers.kick();
    }

    fn poll(&mut self, _done: impl FnMut(Token, i32)) {
        self.workers.retry();
    }

    /// While a worker could not be made yet, and it is time to try again.
    #[inline]
    fn polling(&self) -> bool {
        self.workers.due()
    }

    #[inline]
    fn deadline(&mut self) -> Option<u64> {
        self.workers.retry_at()
    }

    fn unattended(&mut self) -> bool {
        self.workers.unattended()
    }

    fn count(&self, stats: &mut Stats) {
        self.workers.count(stats);
    }

    fn max_workers(&mut self, counts: &mut [u32; 2]) -> Result<(), Errno> {
        self.workers.set_limits(counts);
        Ok(())
    }

    unsafe fn keep(
        &mut self,
        index: usize,
        opcode: u8,
        addr: u64,
        len: u32,
    ) -> Result<Kept, Errno> {
        if matches!(opcode, uapi::IORING_OP_READV | uapi::IORING_OP_WRITEV) {
            let blocks = &self.workers.shared.blocks;
            let kept = self.kept.keep(index, addr, len as usize, blocks)?;
            return self.checked(opcode, kept.addr, len).map(|()| kept).inspect_err(|_| {
                self.forget(index);
            });
        }
        if matches!(opcode, uapi::IORING_OP_OPENAT | uapi::IORING_OP_STATX) {
            return self.keep_path(index, opcode, addr);
        }
        self.checked(opcode, addr, len)?;
        Ok(Kept { addr, bytes: len })
    }

    fn opens_registered(&self, flags: u32) -> bool {
        whole::opens_registered(flags)
    }

    fn forget(&mut self, index: usize) {
        self.kept.forget(index, &self.workers.shared.blocks);
    }

    fn cancel_all(&mut self) {
        self.workers.cancel_queued();
        for index in 0..self.waits.len() {
            if self.waits[index] == Wait::Armed {
                // SAFETY: armed, so the engine's.
                let token = unsafe { self.shared().job(index) }.token;
                self.cancel_wait(token);
            }
        }
    }
}

impl Drop for FileBackend {
    fn drop(&mut self) {
        self.batch.end(&self.workers.shared.held);
        self.workers.stop();
        self.poller = None;
    }
}

impl std::fmt::Debug for FileBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileBackend")
            .field("bounded", &self.load(Class::Bounded))
            .field("unbounded", &self.load(Class::Unbounded))
            .field("polls", &self.waits.iter().filter(|&&wait| wait != Wait::None).count())
            .finish_non_exhaustive()
    }
}

/// The raw descriptor of `/dev/null`, or -1 where there is none.
fn null(slot: &mut Option<Own>) -> RawFd {
    use rustix::fs::{Mode, OFlags, open};
    if slot.is_none() {
        *slot =
            open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).ok().map(Own::from);
    }
    slot.as_ref().map_or(-1, |null| null.as_fd().as_raw_fd())
}
