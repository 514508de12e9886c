//! Plain operations on files in chains. Each chain has files of its own: a name,
//! a number and a place in the table of registered files. Workers do these
//! operations, so which of two chains is further is open, and nobody else may
//! see how far one has come.

mod draw;
mod tree;

use annulus::uapi;

pub use draw::Owners;
pub use tree::{Keep, Memory, Tree};

/// Chains with files of their own that a program may have.
pub const MOST: u8 = 8;

/// What an operation works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// The number that the chain's file has.
    Number,
    /// The chain's place.
    Place,
    /// No file.
    None,
    /// Whatever place is free.
    Alloc,
    /// A place beyond the table.
    Beyond,
    /// A number and a place: not both can be meant.
    Both,
}

/// A path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// The chain's file.
    Own,
    /// One that is not there at the start.
    New,
    /// The directory.
    Dot,
    /// In a directory that is not there.
    Missing,
    /// There is no memory where it should be.
    Nowhere,
}

/// How the memory of a transfer is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By an address.
    Flat,
    /// By an array of two.
    Vector,
    /// As a part of a registered buffer.
    Fixed,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are the uapi's
pub enum FileOp {
    Open { name: Name, flags: i32, to: On },
    Close { on: On },
    Allocate { on: On, mode: i32, off: u64, len: u64 },
    Advise { on: On, advice: u32, off: u64, len: u32 },
    SyncRange { on: On, flags: u32, off: u64, len: u32 },
    Sync { on: On, flags: u32 },
    Attributes { name: Name, mask: u32 },
    Update { to: On, with: With },
    Transfer { on: On, how: How, write: bool, off: u64, len: u32, bad: bool },
}

/// What a place is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    /// The chain's number.
    Number,
    /// A number that no file has.
    None,
    /// Nothing: it becomes free.
    Empty,
    /// It stays as it is.
    Skip,
    /// There is no memory where it should be said.
    Nowhere,
}

impl FileOp {
    /// `IORING_OP_*`.
    pub fn opcode(self) -> u8 {
        match self {
            FileOp::Open { .. } => uapi::IORING_OP_OPENAT,
            FileOp::Close { .. } => uapi::IORING_OP_CLOSE,
            FileOp::Allocate { .. } => uapi::IORING_OP_FALLOCATE,
            FileOp::Advise { .. } => uapi::IORING_OP_FADVISE,
            FileOp::SyncRange { .. } => uapi::IORING_OP_SYNC_FILE_RANGE,
            FileOp::Sync { .. } => uapi::IORING_OP_FSYNC,
            FileOp::Attributes { .. } => uapi::IORING_OP_STATX,
            FileOp::Update { .. } => uapi::IORING_OP_FILES_UPDATE,
            FileOp::Transfer { how, write, .. } => match (how, write) {
                (How::Flat, false) => uapi::IORING_OP_READ,
                (How::Flat, true) => uapi::IORING_OP_WRITE,
                (How::Vector, false) => uapi::IORING_OP_READV,
                (How::Vector, true) => uapi::IORING_OP_WRITEV,
                (How::Fixed, false) => uapi::IORING_OP_READ_FIXED,
                (How::Fixed, true) => uapi::IORING_OP_WRITE_FIXED,
            },
        }
    }

    /// What it works on, or leaves its file in.
    fn on(&mut self) -> Option<&mut On> {
        match self {
            FileOp::Open { to: on, .. }
            | FileOp::Close { on }
            | FileOp::Allocate { on, .. }
            | FileOp::Advise { on, .. }
            | FileOp::SyncRange { on, .. }
            | FileOp::Sync { on, .. }
            | FileOp::Update { to: on, .. }
            | FileOp::Transfer { on, .. } => Some(on),
            FileOp::Attributes { .. } => None,
        }
    }
}
