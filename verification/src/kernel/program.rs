//! A program: how a ring is set up, and what is done with it.
//!
//! Files, memory and descriptors are named, not numbered, so that the same
//! program means the same on either side.

mod names;

use linux_raw_sys::io_uring as uapi;

pub use names::{Name, Slot};

/// What a descriptor argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fd {
    /// A file of the world.
    Slot(Slot),
    /// This number: an index of a registered file, or a bad number.
    Raw(i32),
}

/// Memory that an SQE or a registration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mem {
    /// So far into the arena; may reach past its end, where nothing is.
    Arena(u32),
    /// A user address without memory.
    Unmapped,
    /// Address zero.
    Null,
    /// An address of the kernel's half.
    Kernel,
    /// No address: so many bytes, where the field means that.
    Bytes(u32),
}

/// The buffer or buffers of an SQE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// One address; the length is the SQE's.
    Flat(Mem),
    /// An array of buffers; the count is the SQE's.
    Vector(Vec<(Mem, u64)>),
    /// A path.
    Path(Name),
    /// An array of descriptors; the count is the SQE's. With `edge`, there is
    /// no memory after it.
    Fds {
        /// The descriptors.
        list: Vec<Fd>,
        /// Whether the array ends where memory does.
        edge: bool,
    },
}

/// A submission queue entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sqe {
    /// `IORING_OP_*`.
    pub op: u8,
    /// `IOSQE_*`.
    pub flags: u8,
    /// As in the entry.
    pub ioprio: u16,
    /// The file.
    pub fd: Fd,
    /// As in the entry.
    pub off: u64,
    /// What `addr` means.
    pub data: Data,
    /// As in the entry.
    pub len: u32,
    /// `rw_flags` and the like.
    pub op_flags: u32,
    /// As in the entry.
    pub buf_index: u16,
    /// As in the entry.
    pub personality: u16,
    /// As in the entry.
    pub splice_fd_in: i32,
    /// As in the entry.
    pub pad2: u64,
    /// Where `off` is an address: this, instead of `off`.
    pub second: Option<Mem>,
    /// The index array names this entry instead of the right one.
    pub bad_index: Option<u32>,
}

impl Sqe {
    /// The place of the table of files that OPENAT and CLOSE mean, plus one;
    /// 0 for none, and all ones for any that is empty.
    pub fn file_index(&self) -> u32 {
        if matches!(self.op, op::OPENAT | op::CLOSE) { self.splice_fd_in as u32 } else { 0 }
    }
}

/// The opcodes that are compared.
pub mod op {
    use super::uapi::io_uring_op as raw;

    /// `IORING_OP_NOP`.
    pub const NOP: u8 = raw::IORING_OP_NOP as u8;
    /// `IORING_OP_READV`.
    pub const READV: u8 = raw::IORING_OP_READV as u8;
    /// `IORING_OP_WRITEV`.
    pub const WRITEV: u8 = raw::IORING_OP_WRITEV as u8;
    /// `IORING_OP_FSYNC`.
    pub const FSYNC: u8 = raw::IORING_OP_FSYNC as u8;
    /// `IORING_OP_READ_FIXED`.
    pub const READ_FIXED: u8 = raw::IORING_OP_READ_FIXED as u8;
    /// `IORING_OP_WRITE_FIXED`.
    pub const WRITE_FIXED: u8 = raw::IORING_OP_WRITE_FIXED as u8;
    /// `IORING_OP_READ`.
    pub const READ: u8 = raw::IORING_OP_READ as u8;
    /// `IORING_OP_WRITE`.
    pub const WRITE: u8 = raw::IORING_OP_WRITE as u8;

    /// `IORING_OP_SYNC_FILE_RANGE`.
    pub const SYNC_FILE_RANGE: u8 = raw::IORING_OP_SYNC_FILE_RANGE as u8;
    /// `IORING_OP_FALLOCATE`.
    pub const FALLOCATE: u8 = raw::IORING_OP_FALLOCATE as u8;
    /// `IORING_OP_OPENAT`.
    pub const OPENAT: u8 = raw::IORING_OP_OPENAT as u8;
    /// `IORING_OP_CLOSE`.
    pub const CLOSE: u8 = raw::IORING_OP_CLOSE as u8;
    /// `IORING_OP_FILES_UPDATE`.
    pub const FILES_UPDATE: u8 = raw::IORING_OP_FILES_UPDATE as u8;
    /// `IORING_OP_STATX`.
    pub const STATX: u8 = raw::IORING_OP_STATX as u8;
    /// `IORING_OP_FADVISE`.
    pub const FADVISE: u8 = raw::IORING_OP_FADVISE as u8;

    /// Whether it is done with a whole file, its name or its registration.
    pub fn whole(op: u8) -> bool {
        name(op) != "unknown" && !reads(op) && !writes(op) && !matches!(op, NOP | FSYNC)
    }

    /// Whether it moves data from a file to memory.
    pub fn reads(op: u8) -> bool {
        matches!(op, READ | READV | READ_FIXED)
    }

    /// Whether it moves data from memory to a file.
    pub fn writes(op: u8) -> bool {
        matches!(op, WRITE | WRITEV | WRITE_FIXED)
    }

    /// Whether its buffer is a registered one.
    pub fn fixed(op: u8) -> bool {
        matches!(op, READ_FIXED | WRITE_FIXED)
    }

    /// Whether it has an array of buffers.
    pub fn vectored(op: u8) -> bool {
        matches!(op, READV | WRITEV)
    }

    /// Its name, without the prefix.
    pub fn name(op: u8) -> &'static str {
        match op {
            NOP => "NOP",
            READ => "READ",
            WRITE => "WRITE",
            READV => "READV",
            WRITEV => "WRITEV",
            READ_FIXED => "READ_FIXED",
            WRITE_FIXED => "WRITE_FIXED",
            FSYNC => "FSYNC",
            SYNC_FILE_RANGE => "SYNC_RANGE",
            FALLOCATE => "FALLOCATE",
            OPENAT => "OPENAT",
            CLOSE => "CLOSE",
            FILES_UPDATE => "FILES_UPD",
            STATX => "STATX",
            FADVISE => "FADVISE",
            _ => "unknown",
        }
    }
}

/// `IOSQE_FIXED_FILE`.
pub const FIXED_FILE: u8 = 1 << uapi::io_uring_sqe_flags_bit::IOSQE_FIXED_FILE_BIT as u8;
/// `IOSQE_ASYNC`.
pub const ASYNC: u8 = 1 << uapi::io_uring_sqe_flags_bit::IOSQE_ASYNC_BIT as u8;

impl Default for Sqe {
    fn default() -> Self {
        Self {
            op: op::NOP,
            flags: 0,
            ioprio: 0,
            fd: Fd::Raw(-1),
            off: 0,
            data: Data::Flat(Mem::Null),
            len: 0,
            op_flags: 0,
            buf_index: 0,
            personality: 0,
            splice_fd_in: 0,
            pad2: 0,
            second: None,
            bad_index: None,
        }
    }
}

/// A buffer to register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buf {
    /// Where.
    pub at: Mem,
    /// How long.
    pub len: u64,
}

impl Buf {
    /// An empty place.
    pub const EMPTY: Buf = Buf { at: Mem::Null, len: 0 };
}

/// One thing that a program does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Pushes these and publishes them; what has no room is left out.
    Push(Vec<Sqe>),
    /// `io_uring_enter`, with a timeout for the wait.
    Enter {
        /// SQEs to submit.
        to_submit: u32,
        /// CQEs to wait for.
        min_complete: u32,
        /// `IORING_ENTER_*`; `EXT_ARG` is added for a wait.
        flags: u32,
    },
    /// A wait for a CQE that cannot come, ended by a signal.
    Interrupt,
    /// Takes up to so many CQEs.
    Reap(u32),
    /// Submits until the SQ is empty.
    Drain,
    /// Submits and reaps everything that can end. `peek`: looks at the CQ
    /// only, if the ring promises that this is enough.
    Settle {
        /// Without `enter`.
        peek: bool,
    },
    /// Writes so many bytes into a pipe, from outside the ring.
    Feed(Slot, u32),
    /// Empties a pipe, from outside the ring.
    Empty(Slot),
    /// `dup2(from, to)`.
    Copy(Slot, Slot),
    /// `close`.
    Close(Slot),
    /// `lseek(SEEK_SET)`.
    Seek(Slot, u32),
    /// `IORING_REGISTER_FILES`.
    Files(Vec<Fd>),
    /// `IORING_REGISTER_FILES2` with `SPARSE`.
    FilesSparse(u32),
    /// `IORING_REGISTER_FILES_UPDATE`.
    FilesUpdate(u32, Vec<Fd>),
    /// `IORING_UNREGISTER_FILES`.
    FilesEnd,
    /// `IORING_REGISTER_BUFFERS`.
    Buffers(Vec<Buf>),
    /// `IORING_REGISTER_BUFFERS2` with `SPARSE`.
    BuffersSparse(u32),
    /// `IORING_REGISTER_BUFFERS_UPDATE`.
    BuffersUpdate(u32, Vec<Buf>),
    /// `IORING_UNREGISTER_BUFFERS`.
    BuffersEnd,
}

impl Step {
    /// Its sort.
    pub fn name(&self) -> &'static str {
        match self {
            Step::Push(_) => "push",
            Step::Enter { .. } => "enter",
            Step::Interrupt => "interrupt",
            Step::Reap(_) => "reap",
            Step::Drain => "drain",
            Step::Settle { .. } => "settle",
            Step::Feed(..) | Step::Empty(_) => "pipe",
            Step::Copy(..) | Step::Close(_) | Step::Seek(..) => "descriptor",
            Step::Files(_) | Step::FilesSparse(_) => "register files",
            Step::FilesUpdate(..) => "update files",
            Step::FilesEnd => "unregister files",
            Step::Buffers(_) | Step::BuffersSparse(_) => "register buffers",
            Step::BuffersUpdate(..) => "update buffers",
            Step::BuffersEnd => "unregister buffers",
        }
    }
}

/// Who drives the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The caller.
    Inline,
    /// A polling thread.
    SqPoll,
    /// Whoever has work (the kernel: as inline).
    Served,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Mode; 3] = [Mode::Inline, Mode::SqPoll, Mode::Served];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Inline => "inline",
            Mode::SqPoll => "sqpoll",
            Mode::Served => "served",
        }
    }
}

/// How the ring is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Who drives it.
    pub mode: Mode,
    /// SQ entries asked for.
    pub entries: u32,
    /// CQ entries asked for, if not twice as many.
    pub cq_entries: Option<u32>,
    /// Whether there is an index array.
    pub array: bool,
    /// `IORING_SETUP_SUBMIT_ALL`.
    pub submit_all: bool,
    /// `IORING_SETUP_CLAMP`.
    pub clamp: bool,
    /// The pool of requests is so small that it runs dry: compared by the
    /// rule of the row "pool" in docs/differences.md.
    pub pool: Option<u32>,
    /// The ring's words are laid out as the kernel's.
    pub uapi_layout: bool,
    /// `IORING_SETUP_R_DISABLED`.
    pub disabled: bool,
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The ring.
    pub setup: Setup,
    /// What is done with it.
    pub steps: Vec<Step>,
}

impl Program {
    /// The SQEs of all pushes, in order.
    pub fn sqes(&self) -> impl Iterator<Item = &Sqe> {
        self.steps.iter().flat_map(|step| match step {
            Step::Push(sqes) => sqes.as_slice(),
            _ => &[],
        })
    }
}

/// The `user_data` of the `n`-th SQE of a program: all 64 bits carry
/// something, and the number can be read back.
pub fn user_data(n: usize) -> u64 {
    ((n as u64) << 48) | (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}

/// Which SQE of its program has this `user_data`.
pub fn number(user_data: u64) -> Option<usize> {
    let n = (user_data >> 48) as usize;
    (self::user_data(n) == user_data).then_some(n)
}
