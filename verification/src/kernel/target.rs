//! What a program runs on.

use super::program::{Buf, Setup};

/// A submission queue entry, by the bytes. Of the harness's own, so that the
/// library's idea of the layout is among the things compared.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the uapi's names
pub struct RawSqe {
    pub opcode: u8,
    pub flags: u8,
    pub ioprio: u16,
    pub fd: i32,
    pub off: u64,
    pub addr: u64,
    pub len: u32,
    pub op_flags: u32,
    pub user_data: u64,
    pub buf_index: u16,
    pub personality: u16,
    pub splice_fd_in: i32,
    pub addr3: u64,
    pub pad2: u64,
}

impl RawSqe {
    /// An entry with nothing else in it.
    pub const fn new(opcode: u8, user_data: u64) -> Self {
        Self {
            opcode,
            flags: 0,
            ioprio: 0,
            fd: -1,
            off: 0,
            addr: 0,
            len: 0,
            op_flags: 0,
            user_data,
            buf_index: 0,
            personality: 0,
            splice_fd_in: 0,
            addr3: 0,
            pad2: 0,
        }
    }
}

const _: () = assert!(size_of::<RawSqe>() == size_of::<linux_raw_sys::io_uring::io_uring_sqe>());

/// A completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // the uapi's names
pub struct Cqe {
    pub user_data: u64,
    pub res: i32,
    pub flags: u32,
}

/// The sizes of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// SQ entries.
    pub sq: u32,
    /// CQ entries.
    pub cq: u32,
}

/// A buffer to register, as an address.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RawBuf {
    /// Where.
    pub base: u64,
    /// How long.
    pub len: u64,
}

/// A buffer by its address.
pub fn raw_buf(buf: &Buf, addr: impl Fn(super::program::Mem) -> u64) -> RawBuf {
    RawBuf { base: addr(buf.at), len: buf.len }
}

/// A ring. Results are as the kernel's: a count, or a negative errno.
pub trait Target: Sized {
    /// What it is called in a report.
    const NAME: &'static str;

    /// Sets a ring up.
    ///
    /// # Errors
    /// A positive errno.
    fn setup(setup: &Setup) -> Result<Self, i32>;

    /// How large it became.
    fn sizes(&self) -> Sizes;

    /// Appends an entry and publishes it; with `index`, the array names that
    /// entry instead. False if the queue is full.
    ///
    /// # Safety
    /// As for a submission: memory that the entry names stays until its end.
    unsafe fn push(&mut self, sqe: &RawSqe, index: Option<u32>) -> bool;

    /// Appends entries and publishes all of them at once: a polling thread takes
    /// them in one batch. False if there is not room for all.
    ///
    /// # Safety
    /// As for [`push`](Self::push).
    unsafe fn push_all(&mut self, sqes: &[RawSqe]) -> bool;

    /// `io_uring_enter`; a wait takes no longer than `timeout_ns`.
    fn enter(
        &mut self,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        timeout_ns: Option<u64>,
    ) -> i32;

    /// Takes up to `most` completions.
    fn reap(&mut self, most: usize, into: &mut Vec<Cqe>);

    /// Completions that can be taken.
    fn ready(&mut self) -> usize;

    /// Entries pushed and not consumed.
    fn pending(&mut self) -> u32;

    /// `IORING_SQ_*`, read after a full fence.
    fn sq_flags(&mut self) -> u32;

    /// Entries passed over because of a bad index.
    fn dropped(&mut self) -> u32;

    /// Completions lost.
    fn overflow(&mut self) -> u32;

    /// `IORING_REGISTER_FILES`.
    fn files(&mut self, fds: &[i32]) -> i32;
    /// `IORING_REGISTER_FILES2`, sparse.
    fn files_sparse(&mut self, count: u32) -> i32;
    /// `IORING_REGISTER_FILES_UPDATE`.
    fn files_update(&mut self, offset: u32, fds: &[i32]) -> i32;
    /// `IORING_UNREGISTER_FILES`.
    fn files_end(&mut self) -> i32;
    /// `IORING_REGISTER_BUFFERS`.
    ///
    /// # Safety
    /// The memory stays until the ring has gone.
    unsafe fn buffers(&mut self, buffers: &[RawBuf]) -> i32;
    /// `IORING_REGISTER_BUFFERS2`, sparse.
    fn buffers_sparse(&mut self, count: u32) -> i32;
    /// `IORING_REGISTER_BUFFERS_UPDATE`.
    ///
    /// # Safety
    /// As for [`buffers`](Self::buffers).
    unsafe fn buffers_update(&mut self, offset: u32, buffers: &[RawBuf]) -> i32;
    /// `IORING_UNREGISTER_BUFFERS`.
    fn buffers_end(&mut self) -> i32;
    /// `IORING_REGISTER_PBUF_RING`.
    ///
    /// # Safety
    /// The ring and its buffers stay until this ring has gone.
    unsafe fn buf_ring(&mut self, base: u64, entries: u16, group: u16) -> i32;

    /// What it is doing, for a report of something that hangs.
    fn dump(&mut self) -> String;
}
