//! A program of the third family: what is done with two rings.

use std::fmt;

use annulus::uapi;

use super::super::program::Mode;

/// The ring that is driven as the program says.
pub const ONE: usize = 0;
/// The other one, which no thread polls.
pub const OTHER: usize = 1;
/// The user data of the first SQE.
pub const FIRST: u64 = 100;
/// The user data of the first message.
pub const MESSAGES: u64 = 5_000;
/// The first tag.
pub const TAGS: u64 = 9_000;

/// A program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Who drives the first ring, and unless that is a polling thread the other.
    pub mode: Mode,
    /// `IORING_SETUP_SUBMIT_ALL`.
    pub submit_all: bool,
    /// The CQs are so small that they overflow.
    pub small: bool,
    /// The first ring names its files by places of its table.
    pub registered: bool,
    /// The other ring is set up disabled.
    pub disabled: bool,
    /// What is done, one after the other.
    pub steps: Vec<Step>,
}

/// One thing that a program does; then all is waited for that comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub act: Act,
    /// The completions are left in the CQs.
    pub unread: bool,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // `ring` is which of the two
pub enum Act {
    /// SQEs, all of which are submitted, with a wait in the same call or none.
    Push { ring: usize, sqes: Vec<Sqe>, wait: Option<Wait> },
    /// A wait alone, while something happens after a time.
    Wait { ring: usize, wait: Wait, later: Option<(u32, Later)> },
    /// `IORING_REGISTER_SEND_MSG_RING`.
    Send(Message),
    /// `IORING_REGISTER_SYNC_CANCEL`, with a time or for as long as it takes.
    Cancel { ring: usize, cancel: Cancel, time: bool },
    /// `IORING_REGISTER_EVENTFD`, or with `late` its ASYNC kind.
    Eventfd { ring: usize, late: bool, fd: Counter },
    /// `IORING_UNREGISTER_EVENTFD`.
    EventfdEnd { ring: usize },
    /// `IORING_CQ_EVENTFD_DISABLED`, on or off.
    Silence { ring: usize, yes: bool },
    /// `IORING_REGISTER_CLOCK`.
    Clock { ring: usize, id: u32 },
    /// A pipe gets more than all requests together can take.
    Feed(u8),
    /// What is in it is taken out.
    Empty(u8),
    /// `IORING_REGISTER_FILES2`, of the first ring, with tags.
    Files(Vec<(Place, u64)>),
    /// `IORING_REGISTER_FILES_UPDATE2`.
    FilesUpdate(u32, Vec<(Place, u64)>),
    /// `IORING_UNREGISTER_FILES`.
    FilesEnd,
    /// `IORING_REGISTER_RESTRICTIONS`, of the other ring: kinds and arguments.
    Restrict(Vec<(u32, u8)>),
    /// `IORING_REGISTER_ENABLE_RINGS`.
    Enable { ring: usize },
}

/// What happens while somebody waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// As [`Act::Feed`].
    Feed(u8),
    /// A message to this ring, sent by a thread that has none.
    Send(usize, u64),
}

/// A place of a table of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The reading end of a pipe.
    Pipe(u8),
    /// No file (-1).
    Empty,
    /// As it was (-2).
    Skip,
    /// A number that no file has.
    Bad,
}

/// What is registered as an eventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// The ring's own.
    Own,
    /// A file that is none.
    File,
    /// No file.
    None,
}

/// The arguments of a wait. Times are in units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// `min_complete`.
    pub count: u32,
    /// `min_wait_usec`, if not 0.
    pub least: u32,
    /// Its end.
    pub time: Option<u32>,
    /// `IORING_ENTER_ABS_TIMER`: the end as a point in time, by the clock that
    /// is registered.
    pub absolute: bool,
    /// `IORING_ENTER_NO_IOWAIT`.
    pub no_iowait: bool,
    /// `IORING_ENTER_EXT_ARG` without an argument.
    pub nothing: bool,
}

/// A submission queue entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sqe {
    /// What it asks for.
    pub what: What,
    /// `IOSQE_*`.
    pub flags: u8,
    /// As in the entry.
    pub user_data: u64,
}

/// What an SQE asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are the uapi's
pub enum What {
    /// With this result.
    Nop(i32),
    /// From a pipe.
    Read(u8),
    Poll(u8),
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
    Cancel(Cancel),
    Message(Message),
}

/// How long a timeout is, or when its time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// Longer than any program.
    Hour,
    /// So many units.
    Units(u32),
    /// No time at all, or long ago.
    Past,
}

/// What is to be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are the uapi's
pub struct Cancel {
    pub target: u64,
    pub pipe: u8,
    pub op: u8,
    pub flags: u32,
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// To whom.
    pub to: To,
    /// The completion's result.
    pub res: i32,
    /// Its user data.
    pub data: u64,
    /// Its flags, with `IORING_MSG_RING_FLAGS_PASS`.
    pub pass: Option<u32>,
    /// `IORING_MSG_RING_CQE_SKIP`, which data does not take.
    pub skip: bool,
    /// What is wrong with it.
    pub spoil: Option<Spoil>,
}

/// Who gets a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// This ring.
    Ring(usize),
    /// A file that is no ring.
    File,
    /// A number that no file has.
    None,
    /// This place of the table of files.
    Place(i32),
}

/// A field of a message that is not as it must be, or only looks so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the uapi's names
pub enum Spoil {
    OpFlags,
    SpliceFd,
    Addr3,
    Command,
    CommandHigh,
    Ioprio,
    BufIndex,
    Personality,
    Pad,
    Select,
}

impl Spoil {
    /// Every one.
    pub const ALL: [Spoil; 10] = [
        Spoil::OpFlags,
        Spoil::SpliceFd,
        Spoil::Addr3,
        Spoil::Command,
        Spoil::CommandHigh,
        Spoil::Ioprio,
        Spoil::BufIndex,
        Spoil::Personality,
        Spoil::Pad,
        Spoil::Select,
    ];
}

impl What {
    /// `IORING_OP_*`.
    pub fn opcode(self) -> u8 {
        match self {
            What::Nop(_) => uapi::IORING_OP_NOP,
            What::Read(_) => uapi::IORING_OP_READ,
            What::Poll(_) => uapi::IORING_OP_POLL_ADD,
            What::Timeout { .. } => uapi::IORING_OP_TIMEOUT,
            What::LinkTimeout { .. } => uapi::IORING_OP_LINK_TIMEOUT,
            What::TimeoutRemove { .. } => uapi::IORING_OP_TIMEOUT_REMOVE,
            What::Cancel(_) => uapi::IORING_OP_ASYNC_CANCEL,
            What::Message(_) => uapi::IORING_OP_MSG_RING,
        }
    }

    /// Whether a time of it comes to its end while the program runs: the wall
    /// clock's points in time are long over by another.
    pub fn ends(self) -> bool {
        match self {
            What::Timeout { time, .. } | What::LinkTimeout { time, .. } => time != Time::Hour,
            What::TimeoutRemove { time, flags, .. } => {
                let absolute = flags & uapi::IORING_TIMEOUT_ABS != 0;
                flags & uapi::IORING_TIMEOUT_UPDATE_MASK != 0 && (time != Time::Hour || absolute)
            }
            _ => false,
        }
    }

    /// Whether it ends where it is submitted, whatever else there is.
    pub fn at_once(self) -> bool {
        matches!(self, What::Nop(_) | What::Message(_))
    }
}

impl Sqe {
    /// Whether the next one is of its chain.
    pub fn linked(&self) -> bool {
        self.flags & (uapi::IOSQE_IO_LINK | uapi::IOSQE_IO_HARDLINK) != 0
    }
}

impl Act {
    /// The SQEs that it pushes.
    pub fn sqes(&self) -> &[Sqe] {
        match self {
            Act::Push { sqes, .. } => sqes,
            _ => &[],
        }
    }

    /// Whether everything that comes of it ends where it is submitted, in the
    /// order of the entries.
    pub fn in_order(&self) -> bool {
        match self {
            Act::Push { sqes, .. } => {
                let plain = |sqe: &Sqe| sqe.what.at_once() && sqe.flags & uapi::IOSQE_ASYNC == 0;
                sqes.iter().all(plain) && !sqes.last().is_some_and(Sqe::linked)
            }
            Act::Feed(_) | Act::Files(_) | Act::FilesUpdate(..) | Act::FilesEnd => false,
            Act::Wait { later, .. } => later.is_none(),
            _ => true,
        }
    }
}

impl Program {
    /// All SQEs.
    pub fn sqes(&self) -> impl Iterator<Item = &Sqe> {
        self.steps.iter().flat_map(|step| step.act.sqes())
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Program { mode, submit_all, small, registered, disabled, steps } = self;
        write!(f, "two rings: {}, SUBMIT_ALL {submit_all}, small {small}", mode.name())?;
        writeln!(f, ", files {registered}, the other disabled {disabled}")?;
        for (i, Step { act, unread }) in steps.iter().enumerate() {
            let left = if *unread { ", the CQEs left where they are" } else { "" };
            match act {
                Act::Push { ring, sqes, wait } => {
                    writeln!(f, "{i:5}  push to {ring}, {wait:?}{left}")?;
                    for Sqe { what, flags, user_data } in sqes {
                        writeln!(f, "       {user_data:>5}: {what:?} flags {flags:#x}")?;
                    }
                }
                act => writeln!(f, "{i:5}  {act:?}{left}")?,
            }
        }
        Ok(())
    }
}
