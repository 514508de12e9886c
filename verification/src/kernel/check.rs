//! The kernel's checks of an SQE, as far as they say when it ends.

use super::memory::ARENA;
use super::program::{ASYNC, Buf, Data, FIXED_FILE, Fd, Mem, Name, Slot, Sqe, op};

/// `RWF_HIPRI`.
pub const HIPRI: u32 = 1;
/// `RWF_DSYNC`.
pub const DSYNC: u32 = 2;
/// `RWF_SYNC`.
pub const SYNC: u32 = 4;
/// `RWF_NOWAIT`.
pub const NOWAIT: u32 = 8;
/// `RWF_APPEND`.
pub const APPEND: u32 = 16;
/// `RWF_NOAPPEND`.
pub const NOAPPEND: u32 = 32;

/// What a descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the words say it
pub enum Kind {
    Inode(usize),
    Null,
    Zero,
    Full,
    Dir,
    PipeR(usize),
    PipeW(usize),
}

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Desc {
    /// The slot it was opened for: who has the same has the same position.
    pub origin: Slot,
    /// What it is.
    pub kind: Kind,
    /// Open for reading.
    pub read: bool,
    /// Open for writing.
    pub write: bool,
    /// `O_APPEND`.
    pub append: bool,
    /// `O_DIRECT`.
    pub direct: bool,
}

impl Desc {
    /// What a slot is at first.
    pub fn of(slot: Slot) -> Option<Self> {
        use Slot::*;
        let kind = match slot {
            A | A2 | ARead | AWrite => Kind::Inode(0),
            B | BAppend => Kind::Inode(1),
            C | CDirect => Kind::Inode(2),
            Dir => Kind::Dir,
            Null => Kind::Null,
            Zero => Kind::Zero,
            Full => Kind::Full,
            PipeR => Kind::PipeR(0),
            PipeW => Kind::PipeW(0),
            QuietR => Kind::PipeR(1),
            QuietW => Kind::PipeW(1),
            TinyR => Kind::PipeR(2),
            TinyW => Kind::PipeW(2),
            Spare => return None,
        };
        Some(Self {
            origin: slot,
            kind,
            read: !matches!(slot, AWrite | PipeW | QuietW | TinyW),
            write: !matches!(slot, ARead | Dir | PipeR | QuietR | TinyR),
            append: slot == BAppend,
            direct: slot == CDirect,
        })
    }
}

/// Bytes that an SQE asks for, as much as one call may move.
pub fn want(sqe: &Sqe) -> u64 {
    const MAX_RW: u64 = 0x7fff_f000;
    if !op::reads(sqe.op) && !op::writes(sqe.op) {
        return 0;
    }
    let sum = match &sqe.data {
        Data::Flat(_) if op::vectored(sqe.op) => 0,
        Data::Flat(_) | Data::Path(_) | Data::Fds { .. } => u64::from(sqe.len),
        Data::Vector(list) => {
            list.iter().take(sqe.len as usize).fold(0u64, |sum, &(_, len)| sum.saturating_add(len))
        }
    };
    sum.min(MAX_RW)
}

fn mapped(at: Mem, len: u64) -> bool {
    match at {
        Mem::Arena(at) => u64::from(at) + len <= u64::from(ARENA),
        _ => len == 0,
    }
}

/// Whether all of the memory is there.
pub fn memory_ok(sqe: &Sqe) -> bool {
    match &sqe.data {
        Data::Flat(_) if op::vectored(sqe.op) => true,
        Data::Flat(at) => mapped(*at, u64::from(sqe.len)),
        Data::Vector(list) => list.iter().take(sqe.len as usize).all(|&(at, len)| mapped(at, len)),
        Data::Path(_) | Data::Fds { .. } => true,
    }
}

/// Whether not a byte of the memory is there.
pub fn memory_all_bad(sqe: &Sqe) -> bool {
    let bad = |at: &Mem| !matches!(at, Mem::Arena(_));
    match &sqe.data {
        Data::Flat(at) => !op::vectored(sqe.op) && bad(at),
        Data::Vector(list) => list.iter().take(sqe.len as usize).all(|(at, _)| bad(at)),
        Data::Path(_) | Data::Fds { .. } => false,
    }
}

/// Whether a registration takes this buffer.
pub fn buffer_ok(buf: &Buf) -> bool {
    *buf == Buf::EMPTY
        || (buf.len > 0 && matches!(buf.at, Mem::Arena(_)) && mapped(buf.at, buf.len))
}

/// Whether an SQE is refused before it begins (what ends a batch).
pub fn refused(sqe: &Sqe) -> bool {
    if op::name(sqe.op) == "unknown"
        || sqe.flags & !(FIXED_FILE | ASYNC) != 0
        || sqe.personality != 0
    {
        return true;
    }
    match sqe.op {
        op::NOP => sqe.ioprio != 0 || sqe.op_flags & !1 != 0,
        op::FSYNC => {
            sqe.ioprio != 0
                || sqe.data != Data::Flat(Mem::Null)
                || sqe.buf_index != 0
                || sqe.splice_fd_in != 0
                || sqe.op_flags & !1 != 0
                || (sqe.off as i64) < 0
        }
        _ if op::whole(sqe.op) => sqe.ioprio != 0 || whole_refused(sqe),
        _ => sqe.ioprio != 0 || sqe.pad2 != 0 || bad_vector(sqe) || half(sqe),
    }
}

/// As [`refused`], of what is done with a whole file.
fn whole_refused(sqe: &Sqe) -> bool {
    let fixed_file = sqe.flags & FIXED_FILE != 0;
    let (buffer, second_file) = (sqe.buf_index != 0, sqe.splice_fd_in != 0);
    let addr = sqe.data != Data::Flat(Mem::Null);
    match sqe.op {
        op::SYNC_FILE_RANGE => addr || buffer || second_file,
        op::FALLOCATE => buffer || second_file || sqe.op_flags != 0,
        op::FADVISE => buffer || second_file,
        op::FILES_UPDATE => fixed_file || sqe.op_flags != 0 || second_file || sqe.len == 0,
        op::OPENAT => {
            let cloexec = sqe.op_flags & libc::O_CLOEXEC as u32 != 0;
            buffer || fixed_file || bad_path(sqe) || second_file && cloexec
        }
        op::STATX => buffer || second_file || fixed_file || bad_path(sqe),
        _ => {
            sqe.off != 0
                || addr
                || sqe.len != 0
                || sqe.op_flags != 0
                || buffer
                || fixed_file
                || second_file && sqe.fd != Fd::Raw(0)
        }
    }
}

/// A path that is not there, or is none.
fn bad_path(sqe: &Sqe) -> bool {
    let may_be_empty = sqe.op == op::STATX && sqe.op_flags & libc::AT_EMPTY_PATH as u32 != 0;
    match sqe.data {
        Data::Path(Name::Empty) => !may_be_empty,
        Data::Path(name) => name == Name::TooLong,
        _ => true,
    }
}

/// An array of buffers that cannot be read, or is none.
fn bad_vector(sqe: &Sqe) -> bool {
    if !op::vectored(sqe.op) || sqe.len == 0 {
        return false;
    }
    match &sqe.data {
        Data::Flat(_) | Data::Path(_) | Data::Fds { .. } => true,
        Data::Vector(list) => {
            sqe.len > 1024 || list.iter().take(sqe.len as usize).any(|&(_, len)| len as i64 <= -1)
        }
    }
}

/// An address in the kernel's half; a fixed buffer's is compared only.
fn half(sqe: &Sqe) -> bool {
    match &sqe.data {
        Data::Flat(at) => *at == Mem::Kernel && !op::vectored(sqe.op) && !op::fixed(sqe.op),
        Data::Vector(list) => list.iter().take(sqe.len as usize).any(|(at, _)| *at == Mem::Kernel),
        Data::Path(_) | Data::Fds { .. } => false,
    }
}

/// The file that an SQE means.
pub fn resolve(
    sqe: &Sqe,
    files: Option<&[Option<Desc>]>,
    slots: impl Fn(Fd) -> Option<Desc>,
) -> Option<Desc> {
    if sqe.flags & FIXED_FILE == 0 {
        return slots(sqe.fd);
    }
    match sqe.fd {
        Fd::Raw(n) => files?.get(usize::try_from(n).ok()?).copied().flatten(),
        Fd::Slot(_) => None,
    }
}

/// Whether the range of a READ_FIXED or WRITE_FIXED lies in its buffer.
pub fn in_buffer(sqe: &Sqe, buffer: Option<(u32, u64)>) -> bool {
    let (Data::Flat(Mem::Arena(at)), Some((first, len))) = (&sqe.data, buffer) else {
        return false;
    };
    let (at, first) = (u64::from(*at), u64::from(first));
    at >= first && at + u64::from(sqe.len) <= first + len
}

/// Whether a read or write fails before its file is asked.
pub fn fails(sqe: &Sqe, desc: Desc) -> bool {
    let write = op::writes(sqe.op);
    let known = DSYNC | SYNC | NOWAIT | APPEND | NOAPPEND;
    (if write { !desc.write } else { !desc.read })
        || sqe.op_flags & !known != 0
        || sqe.op_flags & (APPEND | NOAPPEND) == APPEND | NOAPPEND
}

/// Whether no file can have such an offset.
pub fn bad_offset(sqe: &Sqe) -> bool {
    let off = sqe.off as i64;
    off < -1 || off.checked_add(want(sqe) as i64).is_none()
}

/// Whether a write goes to the end.
pub fn appends(sqe: &Sqe, desc: Desc) -> bool {
    (desc.append && sqe.op_flags & NOAPPEND == 0) || sqe.op_flags & APPEND != 0
}
