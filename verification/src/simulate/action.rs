//! What can happen in a run: each action is a step, small, and means something
//! wherever it stands, so that any part of a list of them can be run again.

use annulus::squeue::Entry;
use annulus::uapi::*;

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
}

impl Op {
    /// Whether it is about other requests.
    pub fn is_control(self) -> bool {
        matches!(self, Op::Remove | Op::Update { .. } | Op::Cancel { .. })
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

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    pub op: Op,
    /// `IOSQE_*`.
    pub flags: u8,
    pub flaw: Flaw,
    /// A place of the table, or the number of a file.
    pub fixed: bool,
    pub file: u8,
    pub buffer: u8,
    pub range: Range,
    pub len: u16,
    pub fate: Fate,
    /// Nanoseconds of a timeout.
    pub time: u32,
    /// How many requests ago the one was that it is about.
    pub target: u8,
    /// The backend can end it.
    pub can_end: bool,
}

impl Spec {
    /// A NOP.
    pub const NOP: Self = Self {
        op: Op::Nop(None),
        flags: 0,
        flaw: Flaw::None,
        fixed: false,
        file: 0,
        buffer: 0,
        range: Range::Inside,
        len: 512,
        fate: Fate::Later,
        time: 0,
        target: 0,
        can_end: true,
    };

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it has a file.
    pub fn has_file(&self) -> bool {
        matches!(self.op, Op::Read | Op::Write | Op::ReadFixed | Op::WriteFixed | Op::Fsync)
    }

    pub fn opcode(&self) -> u8 {
        match self.op {
            Op::Nop(_) => IORING_OP_NOP,
            Op::Read => IORING_OP_READ,
            Op::Write => IORING_OP_WRITE,
            Op::ReadFixed => IORING_OP_READ_FIXED,
            Op::WriteFixed => IORING_OP_WRITE_FIXED,
            Op::Fsync => IORING_OP_FSYNC,
            Op::Timeout { .. } => IORING_OP_TIMEOUT,
            Op::Guard => IORING_OP_LINK_TIMEOUT,
            Op::Remove | Op::Update { .. } => IORING_OP_TIMEOUT_REMOVE,
            Op::Cancel { .. } => IORING_OP_ASYNC_CANCEL,
        }
    }

    /// The opcode that a cancellation looks for.
    pub fn wanted_opcode(&self) -> u8 {
        match self.len % 3 {
            0 => IORING_OP_READ,
            1 => IORING_OP_TIMEOUT,
            _ => IORING_OP_FSYNC,
        }
    }

    /// Whether it is linked to the next.
    pub fn links(&self) -> bool {
        self.has(IOSQE_IO_LINK | IOSQE_IO_HARDLINK)
    }

    /// Whether it reads or writes a range of a registered buffer.
    pub fn is_fixed(&self) -> bool {
        matches!(self.op, Op::ReadFixed | Op::WriteFixed)
    }

    /// What a backend answers.
    pub fn result(&self, outcome: Outcome) -> i32 {
        let whole = if self.op == Op::Fsync { 0 } else { i32::from(self.len) };
        match outcome {
            Outcome::Whole => whole,
            Outcome::Short => whole / 2,
            Outcome::Error => -5,
            Outcome::Cancelled => -125,
        }
    }

    /// The entry of request `id`.
    pub fn entry(&self, id: u32) -> Entry {
        let file =
            if self.fixed { i32::from(self.file) } else { FIRST_FILE + i32::from(self.file) };
        let mut entry = Entry {
            flags: self.flags | if self.fixed { IOSQE_FIXED_FILE } else { 0 },
            fd: file,
            off: u64::from(id),
            len: u32::from(self.len),
            user_data: TAG + u64::from(id),
            ..Entry::default()
        };
        entry.opcode = self.opcode();
        let about = TAG + u64::from(id) - u64::from(self.target);
        match self.op {
            Op::Nop(inject) => {
                (entry.off, entry.len) = (0, 0);
                if let Some(result) = inject {
                    entry.op_flags = IORING_NOP_INJECT_RESULT;
                    entry.len = i32::from(result) as u32;
                }
            }
            Op::Read | Op::Write => {}
            Op::ReadFixed | Op::WriteFixed => {
                entry.buf_index = self.buffer.into();
                let base = buffer_base(self.buffer);
                entry.addr = match self.range {
                    Range::Inside => base + u64::from(id % 8),
                    Range::OnePast => base + u64::from(BUFFER) - u64::from(self.len) + 1,
                    Range::Before => base - 1,
                    Range::Elsewhere => 0x10,
                };
            }
            Op::Fsync => entry.len = 0,
            Op::Timeout { count, repeats, good } => {
                (entry.addr, entry.len) = (TIMES + u64::from(id) * TIME, 1);
                entry.off = if repeats != 0 { repeats.into() } else { count.into() };
                let flags = [(IORING_TIMEOUT_MULTISHOT, repeats != 0)];
                let flags = flags.into_iter().chain([(IORING_TIMEOUT_ETIME_SUCCESS, good)]);
                entry.op_flags = flags.filter(|(_, on)| *on).map(|(flag, _)| flag).sum();
            }
            Op::Guard => {
                (entry.addr, entry.len, entry.off) = (TIMES + u64::from(id) * TIME, 1, 0);
            }
            Op::Remove => (entry.addr, entry.len, entry.off) = (about, 0, 0),
            Op::Update { guard } => {
                (entry.addr, entry.len) = (about, 0);
                entry.off = TIMES + u64::from(id) * TIME;
                let of_guard = if guard { IORING_LINK_TIMEOUT_UPDATE } else { 0 };
                entry.op_flags = IORING_TIMEOUT_UPDATE | of_guard;
            }
            Op::Cancel { key, all } => {
                (entry.addr, entry.off) = (about, 0);
                entry.len = self.wanted_opcode().into();
                entry.op_flags = super::model::cancel_flags(key, all);
            }
        }
        match self.flaw {
            Flaw::None => {}
            Flaw::Priority => entry.ioprio = 1,
            Flaw::Personality => entry.personality = 1,
            Flaw::Flag => entry.flags |= 1 << 7,
            Flaw::Opcode => entry.opcode = 200,
        }
        entry
    }
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
    /// A signal comes: a wait is interrupted.
    Signal,
    Register(Register),
    /// The application submits a request about others, alone.
    Control(Spec),
}

impl Action {
    /// Whether it can happen while the application waits.
    pub fn is_outside(&self) -> bool {
        use Action::*;
        matches!(self, Complete { .. } | Wake { .. } | Odd(_) | Tick(_) | Reset | Signal)
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
    };
}
