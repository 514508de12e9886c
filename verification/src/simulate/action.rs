//! What can happen in a run: each action is a step, small, and means something
//! wherever it stands, so that any part of a list of them can be run again.

pub use super::entry::Spec;

/// `user_data` of request 0; the others follow.
pub const TAG: u64 = 0x51_0000_0000;
/// The number of file 0.
pub const FIRST_FILE: i32 = 100;
/// Files that are open: numbers from 0 on.
pub const OPEN_FILES: u8 = 4;
/// Bytes of a registered buffer.
pub const BUFFER: u32 = 4096;
/// Where the time of request 0 is, for who reads the application's memory; the
/// others follow.
pub const TIMES: u64 = 0x10_0000;
/// Bytes of a time.
pub const TIME: u64 = 16;

/// By what a cancellation finds requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Data,
    File,
    Opcode,
    Any,
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// With the result that is injected, if any.
    Nop(Option<i16>),
    Read,
    Write,
    ReadFixed,
    WriteFixed,
    Fsync,
    /// Ends by time, or by so many CQEs (0: only by time), or several times.
    /// `good`: its time is no failure.
    Timeout {
        count: u8,
        repeats: u8,
        good: bool,
    },
    /// Guards the request before it.
    Guard,
    /// Ends a timeout.
    Remove,
    /// Gives a timeout, or a guard, another time.
    Update {
        guard: bool,
    },
    Cancel {
        key: Key,
        all: bool,
    },
    /// Waits for readiness, once or on and on.
    Poll {
        multi: bool,
    },
    /// Ends such a wait.
    Unpoll,
    /// Provides buffers to a group, and takes some away.
    Provide {
        count: u8,
    },
    Unprovide {
        count: u8,
    },
    /// Gives it other events, or a name, or both.
    Repoll {
        events: bool,
        name: u8,
    },
}

impl Op {
    /// Whether it is about other requests.
    pub fn is_control(self) -> bool {
        use Op::*;
        let provides = matches!(self, Provide { .. } | Unprovide { .. });
        provides || matches!(self, Remove | Update { .. } | Cancel { .. } | Unpoll | Repoll { .. })
    }
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flaw {
    #[default]
    None,
    Priority,
    Personality,
    Flag,
    Opcode,
}

/// Where a fixed read or write lies in its buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Range {
    #[default]
    Inside,
    OnePast,
    Before,
    Elsewhere,
}

/// A result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    #[default]
    Whole,
    Short,
    Error,
    Cancelled,
}

/// What the backend does with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// It ends while it is started.
    Now(Outcome),
    /// It ends when an action says so.
    #[default]
    Later,
    /// It comes home before its start has returned.
    Early(Outcome),
    /// It has to be woken this often before it ends.
    Wakes(u8),
    /// There is no room for it this often.
    NoRoom(u8),
    /// Its entry cannot be taken.
    Refused,
}

/// Where registered buffer `n` is. Buffers do not touch.
pub fn buffer_base(n: u8) -> u64 {
    0x4000_0000 + u64::from(n) * 0x1_0000
}

/// A call that changes the tables of registered files and buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// So many places, each with a file or (bit `n` of the mask unset) none.
    Files {
        count: u8,
        mask: u8,
    },
    /// One place: a file's number, -1 or -2.
    UpdateFile {
        place: u8,
        file: i8,
    },
    NoFiles,
    Buffers {
        count: u8,
        mask: u8,
    },
    UpdateBuffer {
        place: u8,
        full: bool,
    },
    NoBuffers,
    /// A group becomes a ring of buffers with so many places, as a power of 2.
    Ring {
        group: u8,
        places: u8,
    },
    NoRing {
        group: u8,
    },
    /// How many buffers of it have been taken.
    Head {
        group: u8,
    },
}

/// A token that names no request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    /// Of a request that has ended.
    Ended(u8),
    /// Of no request.
    Invented(u32),
    /// Of one that has been completed just now, which is on its way home.
    Again,
}

/// Who drives the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// The application, when it enters.
    Inline,
    /// A polling thread.
    Polled,
    /// Whoever has work, and a helper.
    Served,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The application puts an entry into the SQ.
    Push(Spec),
    /// The application enters, and may wait; a deadline of 0 is none.
    Enter {
        count: u8,
        want: u8,
        wait: bool,
        limit: u32,
    },
    /// The application takes so many CQEs.
    Reap(u8),
    /// A worker ends a request.
    Complete {
        nth: u8,
        outcome: Outcome,
    },
    /// An interrupt wakes a request.
    Wake {
        nth: u8,
    },
    /// A token comes that means nothing.
    Odd(Odd),
    /// Time passes.
    Tick(u32),
    /// Everything in flight fails.
    Reset,
    /// These events hold for a file now.
    Ready {
        file: u8,
        events: u16,
    },
    /// A signal comes: a wait is interrupted.
    Signal,
    Register(Register),
    /// The application puts buffers into a ring.
    Fill {
        group: u8,
        count: u8,
        len: u16,
    },
    /// The application submits a request about others, alone.
    Control(Spec),
    /// The same twice in one go.
    Twice(Spec),
    /// Who drives the engine runs, until it has nothing to do.
    Drive,
    /// The application takes so many CQEs while the engine is at work, after so
    /// many looks of its backend since the action before.
    Cross {
        count: u8,
        after: u32,
    },
}

impl Action {
    /// Whether it can happen while the application waits.
    pub fn is_outside(&self) -> bool {
        use Action::*;
        matches!(
            self,
            Complete { .. }
                | Wake { .. }
                | Odd(_)
                | Tick(_)
                | Reset
                | Ready { .. }
                | Signal
                | Drive
        )
    }
}

/// The sizes of a run's ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    pub sq: u32,
    pub cq: u32,
    pub requests: u32,
    pub files: u32,
    pub buffers: u32,
    pub submit_all: bool,
    pub array: bool,
    pub held: bool,
    /// Completions are found by polling only.
    pub polled: bool,
    /// There are timeouts, guards and cancellations.
    pub timed: bool,
    /// There are waits for readiness.
    pub polls: bool,
    /// Groups of provided buffers, and buffers in those that are lists.
    pub groups: u32,
    pub provided: u32,
    pub drive: Drive,
    /// CQEs may be taken at any time.
    pub crosses: bool,
}

impl Setup {
    /// The smallest ring.
    pub const LEAST: Self = Self {
        sq: 1,
        cq: 1,
        requests: 1,
        files: 0,
        buffers: 0,
        submit_all: false,
        array: true,
        held: true,
        polled: false,
        timed: false,
        polls: false,
        groups: 0,
        provided: 0,
        drive: Drive::Inline,
        crosses: false,
    };
}
