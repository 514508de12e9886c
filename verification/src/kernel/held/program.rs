//! A program of the second family: rounds of SQEs that are held back, that
//! wait, that end by time, and that end each other.

use annulus::uapi::{self, IORING_TIMEOUT_UPDATE_MASK};

use super::super::program::Mode;
use super::files::FileOp;

/// A program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Who drives the ring.
    pub mode: Mode,
    /// `IORING_SETUP_SUBMIT_ALL`.
    pub submit_all: bool,
    /// Few entries: SQ and CQ have [`FEW`].
    pub few: bool,
    /// Annulus has no more requests than there are SQEs.
    pub tight: bool,
    /// The files are registered, and named so.
    pub registered: bool,
    /// They are registered, and those of chains may be named so.
    pub table: bool,
    /// What is done, one after the other.
    pub rounds: Vec<Round>,
}

/// Entries of a small ring.
pub const FEW: u32 = 16;
/// The group of buffers that a ring holds.
pub const RING: u16 = 2;
/// A group that is never filled.
pub const NOBODY: u16 = 3;

/// SQEs that are pushed at once, and what is done before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// What happens to the pipes.
    pub pipes: Vec<Act>,
    /// What is pushed.
    pub sqes: Vec<Sqe>,
    /// Of all SQEs in the queue, so many are not submitted.
    pub leave: u32,
    /// What comes is left in the CQ.
    pub unread: bool,
}

/// What happens to a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It gets more than all requests together can take.
    Feed(u8),
    /// What is in it is taken out.
    Empty(u8),
    /// The ring of buffers gets so many more.
    Fill(u8),
}

/// How long a timeout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// Longer than any program.
    Hour,
    /// A millisecond.
    Soon,
    /// Over when it starts.
    Now,
    /// Negative seconds.
    Negative,
    /// Negative nanoseconds.
    NegativeNanos,
    /// More nanoseconds than a second has.
    ManyNanos,
    /// There is no memory where it should be.
    Nowhere,
}

impl Time {
    /// Whether it comes to its end while the program runs.
    pub fn ends(self) -> bool {
        matches!(self, Time::Soon | Time::Now)
    }
}

/// Which of the pipes is an eventfd.
pub const EVENT: u8 = 2;

/// A file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// A regular one of 1,024 bytes.
    Source,
    /// The writing end of a pipe: that never has to wait.
    Sink,
    /// The reading end of a pipe; [`EVENT`] is an eventfd that counts down.
    Pipe(u8),
    /// No file has this number.
    None,
}

/// What an SQE asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are the uapi's
pub enum What {
    /// With this result.
    Nop(i32),
    /// Of one buffer.
    Read {
        file: File,
        off: u64,
        len: u32,
    },
    /// Of two buffers.
    Readv {
        file: File,
        off: u64,
        len: u32,
    },
    /// Buffers, numbered from `first` on.
    Provide {
        group: u16,
        first: u16,
        count: u16,
    },
    Withdraw {
        group: u16,
        count: u16,
    },
    /// Its user data.
    Write {
        file: File,
    },
    Poll {
        file: File,
    },
    PollRemove {
        target: u64,
    },
    Timeout {
        time: Time,
        count: u32,
        flags: u32,
    },
    LinkTimeout {
        time: Time,
        flags: u32,
    },
    TimeoutRemove {
        target: u64,
        time: Time,
        flags: u32,
    },
    Cancel {
        target: u64,
        file: File,
        op: u8,
        flags: u32,
    },
    /// Something plain with the files of the chain `of` so many.
    Files {
        of: u8,
        op: FileOp,
    },
}

/// A field that is not as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the uapi's names
pub enum Spoil {
    Ioprio,
    Personality,
    SpliceFd,
    BufIndex,
    Len,
    Off,
    OpFlags,
    SqeFlag,
    Opcode,
    Select,
    FixedFile,
}

impl Spoil {
    /// Every one.
    pub const ALL: [Spoil; 11] = [
        Spoil::Ioprio,
        Spoil::Personality,
        Spoil::SpliceFd,
        Spoil::BufIndex,
        Spoil::Len,
        Spoil::Off,
        Spoil::OpFlags,
        Spoil::SqeFlag,
        Spoil::Opcode,
        Spoil::Select,
        Spoil::FixedFile,
    ];
}

/// A submission queue entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sqe {
    /// What it asks for.
    pub what: What,
    /// `IOSQE_*`.
    pub flags: u8,
    /// As in the entry.
    pub user_data: u64,
    /// The group that it picks its buffer from.
    pub select: Option<u16>,
    /// What is wrong with it.
    pub spoil: Option<Spoil>,
}

impl What {
    /// `IORING_OP_*`.
    pub fn opcode(self) -> u8 {
        match self {
            What::Nop(_) => uapi::IORING_OP_NOP,
            What::Read { .. } => uapi::IORING_OP_READ,
            What::Readv { .. } => uapi::IORING_OP_READV,
            What::Provide { .. } => uapi::IORING_OP_PROVIDE_BUFFERS,
            What::Withdraw { .. } => uapi::IORING_OP_REMOVE_BUFFERS,
            What::Write { .. } => uapi::IORING_OP_WRITE,
            What::Poll { .. } => uapi::IORING_OP_POLL_ADD,
            What::PollRemove { .. } => uapi::IORING_OP_POLL_REMOVE,
            What::Timeout { .. } => uapi::IORING_OP_TIMEOUT,
            What::LinkTimeout { .. } => uapi::IORING_OP_LINK_TIMEOUT,
            What::TimeoutRemove { .. } => uapi::IORING_OP_TIMEOUT_REMOVE,
            What::Cancel { .. } => uapi::IORING_OP_ASYNC_CANCEL,
            What::Files { op, .. } => op.opcode(),
        }
    }

    /// The time that it names.
    pub fn time(self) -> Option<Time> {
        match self {
            What::Timeout { time, .. } | What::LinkTimeout { time, .. } => Some(time),
            What::TimeoutRemove { time, flags, .. } if flags & IORING_TIMEOUT_UPDATE_MASK != 0 => {
                Some(time)
            }
            _ => None,
        }
    }

    /// Whether it counts as a timeout whose CQE may be skipped: it would be
    /// taken off Linux's count of CQEs without having been on it, which then
    /// goes backwards, and ends other timeouts too early.
    pub fn counts(self) -> bool {
        match self {
            What::Timeout { count, flags, .. } => {
                count != 0 || flags & uapi::IORING_TIMEOUT_ETIME_SUCCESS != 0
            }
            _ => false,
        }
    }

    /// Whether a worker would wait with it, or forget it: what follows another
    /// in a chain that a worker does.
    pub fn waits_in_worker(self) -> bool {
        let transfer = !matches!(self, What::Poll { .. });
        matches!(self, What::LinkTimeout { .. }) || transfer && self.touches_pipes()
    }

    /// Whether it may wait for this pipe.
    pub fn reads(self, pipe: u8) -> bool {
        match self {
            What::Read { file, .. } | What::Readv { file, .. } | What::Poll { file } => {
                file == File::Pipe(pipe)
            }
            _ => false,
        }
    }

    /// Whether it may wait for a pipe, or end what does.
    pub fn touches_pipes(self) -> bool {
        match self {
            What::Read { file, .. } | What::Readv { file, .. } | What::Poll { file } => {
                matches!(file, File::Pipe(_))
            }
            What::PollRemove { .. } | What::Cancel { .. } => true,
            _ => false,
        }
    }
}

impl Program {
    /// All SQEs.
    pub fn sqes(&self) -> impl Iterator<Item = &Sqe> {
        self.rounds.iter().flat_map(|round| &round.sqes)
    }

    /// How many chains have files of their own.
    pub fn owners(&self) -> u8 {
        let of = |sqe: &Sqe| if let What::Files { of, .. } = sqe.what { of + 1 } else { 0 };
        self.sqes().map(of).max().unwrap_or(0)
    }

    /// Whether memory is registered.
    pub fn fixed(&self) -> bool {
        let ops = [uapi::IORING_OP_READ_FIXED, uapi::IORING_OP_WRITE_FIXED];
        self.sqes().any(|sqe| ops.contains(&sqe.what.opcode()))
    }
}

impl Sqe {
    /// Whether the next one is of its chain.
    pub fn linked(&self) -> bool {
        self.flags & (uapi::IOSQE_IO_LINK | uapi::IOSQE_IO_HARDLINK) != 0
    }

    /// Whether a worker has a part in it.
    pub fn works(&self) -> bool {
        self.flags & uapi::IOSQE_ASYNC != 0 || matches!(self.what, What::Files { .. })
    }

    /// The group of buffers that it is about.
    pub fn group(&self) -> Option<u16> {
        match self.what {
            What::Provide { group, .. } | What::Withdraw { group, .. } => Some(group),
            _ => self.select,
        }
    }
}

impl Round {
    fn any(&self, is: impl Fn(&Sqe) -> bool) -> bool {
        self.sqes.iter().any(is)
    }

    /// Whether something in it comes to its end by time.
    pub fn has_times(&self) -> bool {
        self.any(|sqe| sqe.what.time().is_some_and(Time::ends))
    }

    /// Whether workers have a part in it: in Linux also in what follows a
    /// drain, and in a chain within which a batch ends.
    pub fn has_workers(&self) -> bool {
        self.any(|sqe| sqe.works() || sqe.flags & uapi::IOSQE_IO_DRAIN != 0)
            || self.sqes.last().is_some_and(Sqe::linked)
            || self.leave != 0
    }

    /// Whether what waits for pipes has a part in it.
    pub fn has_pipes(&self) -> bool {
        !self.pipes.is_empty() || self.any(|sqe| sqe.what.touches_pipes())
    }
}
