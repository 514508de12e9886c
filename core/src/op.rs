//! One table row an opcode: what it needs, and which fields must be zero.

use crate::uapi::{self, IORING_OP_LAST};

/// The most bytes of one read or write, as in Linux (`MAX_RW_COUNT`).
pub(crate) const MAX_RW: u32 = 0x7fff_f000;

/// How a request is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not built: `-EINVAL`.
    None,
    Nop,
    /// One buffer.
    ReadWrite,
    /// An array of `iovec`.
    Vectored,
    /// A range of a registered buffer.
    Fixed,
    Fsync,
    /// A range, its length in `addr` and the mode in `len`.
    Fallocate,
    /// Waits for readiness.
    PollAdd,
    /// Ends or changes such a wait. The engine's own, but of no use without.
    PollRemove,
    /// Write-back of a range.
    SyncFileRange,
    /// A range, its length in `addr` or `len`, and the advice.
    Fadvise,
    /// Changes the table of registered files. The engine's own.
    FilesUpdate,
    /// A path, to be opened as a descriptor or into the table.
    Openat,
    /// A descriptor, or a place of the table.
    Close,
    /// A path, and where its attributes go, in `off`.
    Statx,
    /// Fills a group of provided buffers. The engine's own.
    ProvideBuffers,
    /// Empties one. The engine's own.
    RemoveBuffers,
    Timeout,
    /// Or its update.
    TimeoutRemove,
    LinkTimeout,
    Cancel,
    /// A message for another ring. The engine's own, but of no use where the
    /// place knows no others.
    MsgRing,
}

impl Kind {
    /// Whether `fd` names the file that the request is for, and may name a
    /// registered one.
    pub const fn has_file(self) -> bool {
        !matches!(self, Kind::Nop | Kind::FilesUpdate | Kind::Openat | Kind::Close | Kind::Statx)
    }

    /// It is about provided buffers, of which a ring may have none.
    pub const fn provides(self) -> bool {
        matches!(self, Kind::ProvideBuffers | Kind::RemoveBuffers)
    }

    /// A ring that finds completions by polling only takes it, of a backend that
    /// carries it out. As in Linux, save FSYNC and FALLOCATE: there they are
    /// carried out by threads, here by a device.
    pub const fn is_polled(self) -> bool {
        match self {
            Self::Nop
            | Self::ReadWrite
            | Self::Vectored
            | Self::Fixed
            | Self::Fsync
            | Self::Fallocate
            | Self::FilesUpdate
            | Self::ProvideBuffers
            | Self::RemoveBuffers
            | Self::MsgRing => true,
            Self::None
            | Self::PollAdd
            | Self::PollRemove
            | Self::SyncFileRange
            | Self::Fadvise
            | Self::Openat
            | Self::Close
            | Self::Statx
            | Self::Timeout
            | Self::TimeoutRemove
            | Self::LinkTimeout
            | Self::Cancel => false,
        }
    }

    /// The engine carries it out by itself, with a held record
    /// ([`crate::held`]).
    #[inline(always)]
    pub const fn is_held(self) -> bool {
        matches!(self, Self::Timeout | Self::TimeoutRemove | Self::LinkTimeout | Self::Cancel)
    }
}

/// Whether an error of the operation's own, as against one that it never got
/// past, is no failure to the chain that it is in. Linux: FSYNC,
/// SYNC_FILE_RANGE, FALLOCATE and STATX only tell what they have come to.
pub(crate) const fn only_tells(opcode: u8) -> bool {
    matches!(kind(opcode), Kind::Fsync | Kind::SyncFileRange | Kind::Fallocate | Kind::Statx)
}

/// What the engine knows of an opcode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    opcode: u8,
    pub kind: Kind,
}

const fn row(opcode: u8, kind: Kind) -> Row {
    Row { opcode, kind }
}

const BUILT: [Row; 24] = [
    row(uapi::IORING_OP_NOP, Kind::Nop),
    row(uapi::IORING_OP_READ, Kind::ReadWrite),
    row(uapi::IORING_OP_WRITE, Kind::ReadWrite),
    row(uapi::IORING_OP_READV, Kind::Vectored),
    row(uapi::IORING_OP_WRITEV, Kind::Vectored),
    row(uapi::IORING_OP_READ_FIXED, Kind::Fixed),
    row(uapi::IORING_OP_WRITE_FIXED, Kind::Fixed),
    row(uapi::IORING_OP_FSYNC, Kind::Fsync),
    row(uapi::IORING_OP_FALLOCATE, Kind::Fallocate),
    row(uapi::IORING_OP_POLL_ADD, Kind::PollAdd),
    row(uapi::IORING_OP_POLL_REMOVE, Kind::PollRemove),
    row(uapi::IORING_OP_SYNC_FILE_RANGE, Kind::SyncFileRange),
    row(uapi::IORING_OP_FADVISE, Kind::Fadvise),
    row(uapi::IORING_OP_FILES_UPDATE, Kind::FilesUpdate),
    row(uapi::IORING_OP_OPENAT, Kind::Openat),
    row(uapi::IORING_OP_CLOSE, Kind::Close),
    row(uapi::IORING_OP_STATX, Kind::Statx),
    row(uapi::IORING_OP_PROVIDE_BUFFERS, Kind::ProvideBuffers),
    row(uapi::IORING_OP_REMOVE_BUFFERS, Kind::RemoveBuffers),
    row(uapi::IORING_OP_TIMEOUT, Kind::Timeout),
    row(uapi::IORING_OP_TIMEOUT_REMOVE, Kind::TimeoutRemove),
    row(uapi::IORING_OP_LINK_TIMEOUT, Kind::LinkTimeout),
    row(uapi::IORING_OP_ASYNC_CANCEL, Kind::Cancel),
    row(uapi::IORING_OP_MSG_RING, Kind::MsgRing),
];

const fn table() -> [Row; IORING_OP_LAST as usize] {
    let mut table = [row(0, Kind::None); IORING_OP_LAST as usize];
    let mut i = 0;
    while i < table.len() {
        table[i].opcode = i as u8;
        i += 1;
    }
    let mut i = 0;
    while i < BUILT.len() {
        let place = BUILT[i].opcode as usize;
        assert!(matches!(table[place].kind, Kind::None), "one row an opcode");
        table[place] = BUILT[i];
        i += 1;
    }
    table
}

/// A constant, not a static: the look-up is inlined into other crates.
const TABLE: [Row; IORING_OP_LAST as usize] = table();

/// How `opcode` is carried out; [`Kind::None`] for one out of range.
#[inline(always)]
pub(crate) const fn kind(opcode: u8) -> Kind {
    if (opcode as usize) < TABLE.len() { TABLE[opcode as usize].kind } else { Kind::None }
}

/// Whether `opcode` is carried out where a backend carries out what `backend`
/// says.
pub(crate) fn supported(opcode: u8, backend: impl Fn(u8) -> bool) -> bool {
    match kind(opcode) {
        Kind::None => false,
        Kind::Nop | Kind::FilesUpdate => true,
        Kind::PollRemove => backend(uapi::IORING_OP_POLL_ADD),
        kind => kind.is_held() || kind.provides() || backend(opcode),
    }
}
