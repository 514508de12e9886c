//! An entry: what it asks for, and what the backend will do with it.

use annulus::squeue::Entry;
use annulus::uapi::*;

use super::action::*;
use super::polls::user_data;

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
    /// `EPOLL*` that are waited for.
    pub mask: u16,
    /// What a wait for readiness is called, or what those are that it is about;
    /// 0 is no name.
    pub name: u8,
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
        mask: 0,
        name: 0,
    };

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it has a file.
    pub fn has_file(&self) -> bool {
        use Op::*;
        matches!(self.op, Read | Write | ReadFixed | WriteFixed | Fsync | Poll { .. })
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
            Op::Poll { .. } => IORING_OP_POLL_ADD,
            Op::Unpoll | Op::Repoll { .. } => IORING_OP_POLL_REMOVE,
            Op::Provide { .. } => IORING_OP_PROVIDE_BUFFERS,
            Op::Unprovide { .. } => IORING_OP_REMOVE_BUFFERS,
        }
    }

    /// The opcode that a cancellation looks for.
    pub fn wanted_opcode(&self) -> u8 {
        match self.len % 4 {
            0 => IORING_OP_READ,
            1 => IORING_OP_TIMEOUT,
            2 => IORING_OP_POLL_ADD,
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
            Op::Provide { .. } | Op::Unprovide { .. } => self.fill_provided(id, &mut entry),
            Op::Read if self.selects() => self.fill_provided(id, &mut entry),
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
            Op::Poll { .. } | Op::Unpoll | Op::Repoll { .. } => {
                self.fill_poll(id, about, &mut entry);
            }
            Op::Remove => (entry.addr, entry.len, entry.off) = (about, 0, 0),
            Op::Update { guard } => {
                (entry.addr, entry.len) = (about, 0);
                entry.off = TIMES + u64::from(id) * TIME;
                let of_guard = if guard { IORING_LINK_TIMEOUT_UPDATE } else { 0 };
                entry.op_flags = IORING_TIMEOUT_UPDATE | of_guard;
            }
            Op::Cancel { key, all } => {
                (entry.addr, entry.off) =
                    (user_data(id.wrapping_sub(self.target.into()), self.name), 0);
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
