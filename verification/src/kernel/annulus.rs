//! Annulus over files.

use std::os::fd::AsRawFd as _;

use annulus_linux::squeue::{Entry, SubmissionQueue};
use annulus_linux::types::{SubmitArgs, Timespec};
use annulus_linux::{Layout, Ring};
use linux_raw_sys::io_uring as uapi;

use super::program::{Mode, Setup};
use super::target::{Cqe, RawBuf, RawSqe, Sizes, Target};
use super::uring::IDLE_MS;

/// Requests, unless the program is about a small pool: more than a program
/// can have in flight (see the row "pool" in docs/differences.md).
pub const REQUESTS: u32 = 512;

/// A ring of Annulus.
pub struct Annulus {
    ring: Ring,
    /// Entries pushed so far: the next one's place in the index array.
    tail: u32,
}

/// As the kernel answers.
pub fn answer<T: TryInto<i32>>(result: std::io::Result<T>) -> i32 {
    match result {
        Ok(n) => n.try_into().unwrap_or(i32::MAX),
        // An error without a number is not the contract's: it shows as a
        // difference.
        Err(e) => -e.raw_os_error().unwrap_or(i32::MAX),
    }
}

fn nothing(result: std::io::Result<()>) -> i32 {
    answer(result.map(|()| 0))
}

/// The same array by libc's name for its element.
fn iovecs(buffers: &[RawBuf]) -> Vec<libc::iovec> {
    buffers
        .iter()
        .map(|b| libc::iovec { iov_base: b.base as usize as *mut _, iov_len: b.len as usize })
        .collect()
}

/// Appends an entry; false if there is no room.
///
/// # Safety
/// As for [`Target::push`].
unsafe fn put(
    sq: &mut SubmissionQueue<'_, '_>,
    tail: &mut u32,
    sqe: &RawSqe,
    index: Option<u32>,
) -> bool {
    let entry = Annulus::entry(sqe);
    // A place keeps the index it was given last, so each is given anew.
    let index = index.unwrap_or(*tail & (sq.capacity() as u32 - 1));
    // SAFETY: the caller's promise. The memory of a program's entries lasts as
    // long as the program.
    let pushed = unsafe {
        sq.set_next_index(index);
        sq.push(&entry).is_ok()
    };
    *tail = tail.wrapping_add(pushed.into());
    pushed
}

impl Annulus {
    /// The number that names the ring.
    pub fn number(&self) -> i32 {
        self.ring.as_raw_fd()
    }

    /// The ring itself.
    pub fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }

    /// The same entry by the library's name.
    pub fn entry(sqe: &RawSqe) -> Entry {
        // SAFETY: both are the uapi's 64 bytes, any of which are valid.
        unsafe { std::mem::transmute::<RawSqe, Entry>(*sqe) }
    }
}

impl Target for Annulus {
    const NAME: &'static str = "annulus";

    fn setup(setup: &Setup) -> Result<Self, i32> {
        let mut builder = Ring::builder();
        match setup.mode {
            Mode::Inline => &mut builder,
            Mode::SqPoll => builder.setup_sqpoll(IDLE_MS),
            Mode::Served => builder.setup_served(),
        };
        if let Some(cq) = setup.cq_entries {
            builder.setup_cqsize(cq);
        }
        if setup.submit_all {
            builder.setup_submit_all();
        }
        if !setup.array {
            builder.setup_no_sqarray();
        }
        if setup.clamp {
            builder.setup_clamp();
        }
        if setup.disabled {
            builder.setup_r_disabled();
        }
        if setup.uapi_layout {
            builder.layout(Layout::Uapi);
        }
        builder.requests(setup.pool.unwrap_or(REQUESTS));
        let ring = builder.build(setup.entries).map_err(|e| e.errno())?;
        Ok(Self { ring, tail: 0 })
    }

    fn sizes(&self) -> Sizes {
        Sizes { sq: self.ring.params().sq_entries(), cq: self.ring.params().cq_entries() }
    }

    unsafe fn push(&mut self, sqe: &RawSqe, index: Option<u32>) -> bool {
        let mut sq = self.ring.submission();
        // SAFETY: the caller's promise.
        unsafe { put(&mut sq, &mut self.tail, sqe, index) }
    }

    unsafe fn push_all(&mut self, sqes: &[RawSqe]) -> bool {
        // Published when it is dropped.
        let mut sq = self.ring.submission();
        // SAFETY: the caller's promise.
        sqes.iter().all(|sqe| unsafe { put(&mut sq, &mut self.tail, sqe, None) })
    }

    fn enter(
        &mut self,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        timeout_ns: Option<u64>,
    ) -> i32 {
        let (mut flags, mut args) = (flags, None);
        if let Some(ns) = timeout_ns {
            flags |= uapi::IORING_ENTER_EXT_ARG;
            let time = Timespec::new().sec(ns / 1_000_000_000).nsec((ns % 1_000_000_000) as u32);
            args = Some(SubmitArgs::new().timespec(&time));
        }
        // SAFETY: what the SQEs point to stays until the ring has gone.
        answer(unsafe {
            self.ring.submitter().enter(to_submit, min_complete, flags, args.as_ref())
        })
    }

    fn reap(&mut self, most: usize, into: &mut Vec<Cqe>) {
        let taken = self.ring.completion().take(most).map(|cqe| Cqe {
            user_data: cqe.user_data(),
            res: cqe.result(),
            flags: cqe.flags(),
        });
        into.extend(taken);
    }

    fn ready(&mut self) -> usize {
        self.ring.completion().len()
    }

    fn pending(&mut self) -> u32 {
        let mut sq = self.ring.submission();
        sq.sync();
        sq.len() as u32
    }

    fn sq_flags(&mut self) -> u32 {
        let sq = self.ring.submission();
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let on = |yes: bool, flag: u32| if yes { flag } else { 0 };
        on(sq.need_wakeup(), uapi::IORING_SQ_NEED_WAKEUP)
            | on(sq.cq_overflow(), uapi::IORING_SQ_CQ_OVERFLOW)
    }

    fn dropped(&mut self) -> u32 {
        self.ring.submission().dropped()
    }

    fn overflow(&mut self) -> u32 {
        self.ring.completion().overflow()
    }

    fn files(&mut self, fds: &[i32]) -> i32 {
        nothing(self.ring.submitter().register_files(fds))
    }

    fn files_sparse(&mut self, count: u32) -> i32 {
        nothing(self.ring.submitter().register_files_sparse(count))
    }

    fn files_update(&mut self, offset: u32, fds: &[i32]) -> i32 {
        answer(self.ring.submitter().register_files_update(offset, fds))
    }

    fn files_end(&mut self) -> i32 {
        nothing(self.ring.submitter().unregister_files())
    }

    unsafe fn buffers(&mut self, buffers: &[RawBuf]) -> i32 {
        // SAFETY: the caller's promise.
        nothing(unsafe { self.ring.submitter().register_buffers(&iovecs(buffers)) })
    }

    fn buffers_sparse(&mut self, count: u32) -> i32 {
        nothing(self.ring.submitter().register_buffers_sparse(count))
    }

    unsafe fn buffers_update(&mut self, offset: u32, buffers: &[RawBuf]) -> i32 {
        let buffers = iovecs(buffers);
        // SAFETY: the caller's promise.
        answer(unsafe { self.ring.submitter().register_buffers_update(offset, &buffers, None) })
    }

    fn buffers_end(&mut self) -> i32 {
        nothing(self.ring.submitter().unregister_buffers())
    }

    unsafe fn buf_ring(&mut self, base: u64, entries: u16, group: u16) -> i32 {
        let submitter = self.ring.submitter();
        // SAFETY: the caller's promise.
        nothing(unsafe { submitter.register_buf_ring_with_flags(base, entries, group, 0) })
    }

    fn dump(&mut self) -> String {
        self.ring.dump().to_string()
    }
}
