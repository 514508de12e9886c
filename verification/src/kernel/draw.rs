//! Draws SQEs: most of them move data, the others are wrong or at an edge in
//! one thing.

use super::check::{self, Desc, Kind};
use super::memory::ARENA;
use super::model::Model;
use super::program::{ASYNC, Data, FIXED_FILE, Fd, Mem, Slot, Sqe, op};
use super::rng::Rng;
use super::world::NEVER_OPEN;

mod whole;

/// What an SQE is drawn from.
pub struct Draw<'a> {
    /// Chance.
    pub rng: &'a mut Rng,
    /// What it would find.
    pub model: &'a Model,
}

impl Draw<'_> {
    /// An SQE.
    pub fn sqe(&mut self) -> Sqe {
        let ops = [op::READ, op::WRITE, op::READV, op::WRITEV, op::READ_FIXED, op::WRITE_FIXED];
        let mut sqe = match self.rng.weighted(&[72, 54, 33, 27, 48, 33, 12, 12, 27]) {
            6 => self.fsync(),
            7 => self.nop(),
            8 => self.whole(),
            i => self.transfer(ops[i]),
        };
        if self.rng.chance(10) {
            sqe.flags |= ASYNC;
        }
        if self.rng.chance(20) {
            self.spoil(&mut sqe);
        }
        sqe
    }

    fn nop(&mut self) -> Sqe {
        let mut sqe = Sqe { off: self.rng.next(), ..Sqe::default() };
        if self.rng.chance(30) {
            sqe.op_flags = 1;
            sqe.len = *self.rng.pick(&[0, 1, 77, -3i32 as u32, -5i32 as u32]);
        }
        sqe
    }

    fn fsync(&mut self) -> Sqe {
        let slot =
            *self.rng.pick(&[Slot::A, Slot::B, Slot::ARead, Slot::Dir, Slot::Null, Slot::PipeR]);
        let mut sqe = Sqe { op: op::FSYNC, fd: Fd::Slot(slot), ..Sqe::default() };
        sqe.op_flags = self.rng.chance(60).into();
        if self.rng.chance(40) {
            sqe.off = *self.rng.pick(&[0, 10, 4096, 50_000, i64::MAX as u64]);
            sqe.len = *self.rng.pick(&[0, 1, 4096, u32::MAX]);
        }
        sqe
    }

    fn transfer(&mut self, code: u8) -> Sqe {
        let mut sqe = Sqe { op: code, ..Sqe::default() };
        let desc = self.file(&mut sqe);
        self.place(&mut sqe, desc);
        sqe
    }

    /// Chooses a file that the operation suits.
    fn file(&mut self, sqe: &mut Sqe) -> Option<Desc> {
        use Slot::*;
        let write = op::writes(sqe.op);
        if self.rng.chance(45)
            && let Some(table) = &self.model.files
        {
            let suits = |d: &Option<Desc>| d.is_some_and(|d| if write { d.write } else { d.read });
            let places: Vec<usize> = (0..table.len()).filter(|&i| suits(&table[i])).collect();
            if !places.is_empty() {
                let place = *self.rng.pick(&places);
                sqe.flags |= FIXED_FILE;
                sqe.fd = Fd::Raw(place as i32);
                return table[place];
            }
        }
        let slots: &[Slot] = match write {
            false => &[
                A, A, A, A2, ARead, ARead, B, B, BAppend, C, CDirect, CDirect, Zero, PipeR, PipeR,
                QuietR, TinyR, Full,
            ],
            true => &[
                A, A, A, A2, AWrite, B, BAppend, C, CDirect, CDirect, Null, Null, Zero, PipeW,
                PipeW, QuietW, QuietW, TinyW,
            ],
        };
        sqe.fd = Fd::Slot(*self.rng.pick(slots));
        self.model.desc(sqe.fd)
    }

    /// Chooses offset, length and memory.
    fn place(&mut self, sqe: &mut Sqe, desc: Option<Desc>) {
        let direct = desc.is_some_and(|d| d.direct);
        let pipe = desc.is_some_and(|d| matches!(d.kind, Kind::PipeR(_) | Kind::PipeW(_)));
        let size = desc.map_or(0, |d| self.model.size(d));
        let mut len = match self.rng.below(100) {
            0..4 => 0,
            4..60 => self.rng.range(1, 600),
            60..95 => self.rng.range(1, 3000),
            _ => self.rng.range(3000, 9000),
        };
        if pipe {
            len = len.min(if op::writes(sqe.op) { 1000 } else { 3000 });
            if desc.is_some_and(|d| d.kind == Kind::PipeR(2)) {
                len = 4096.max(len);
            }
            if self.rng.chance(30) {
                sqe.off = *self.rng.pick(&[u64::MAX, 77, 1 << 40]);
            }
        } else {
            sqe.off = self.offset(size, len, op::writes(sqe.op));
        }
        if direct {
            len = (len + 511) & !511;
            sqe.off &= if sqe.off > 1 << 40 { u64::MAX } else { !511 };
        }
        if op::fixed(sqe.op) {
            self.fixed(sqe, len as u32, direct);
        } else if op::vectored(sqe.op) {
            self.vector(sqe, len as u32, direct);
        } else {
            sqe.len = len as u32;
            sqe.data = Data::Flat(self.memory(sqe.len, direct));
        }
    }

    fn offset(&mut self, size: u64, len: u64, write: bool) -> u64 {
        match self.rng.below(100) {
            0..80 => self.rng.below(size.saturating_sub(len) + 1),
            80..88 => size.saturating_sub(self.rng.below(len + 1)),
            88..91 => size,
            91..93 if write => size + self.rng.range(1, 5000).min(40_000u64.saturating_sub(size)),
            91..93 => size + self.rng.below(100_000),
            93 => *self.rng.pick(&[1 << 44, (1 << 44) - 50, 1 << 62]),
            94..97 => u64::MAX,
            _ => self.rng.below(size + 1),
        }
    }

    fn memory(&mut self, len: u32, direct: bool) -> Mem {
        let at = self.rng.below(u64::from(ARENA - len.min(ARENA)) + 1) as u32;
        Mem::Arena(if direct { at & !511 } else { at })
    }

    /// A part of a registered buffer.
    fn fixed(&mut self, sqe: &mut Sqe, len: u32, direct: bool) {
        let table = self.model.buffers.as_deref().unwrap_or(&[]);
        let used: Vec<usize> = (0..table.len()).filter(|&i| table[i].is_some()).collect();
        let Some(place) = (!used.is_empty()).then(|| *self.rng.pick(&used)) else {
            // None: as good a try as another, as a plain one mostly.
            if self.rng.chance(85) {
                sqe.op = if op::writes(sqe.op) { op::WRITE } else { op::READ };
            }
            sqe.len = len;
            sqe.data = Data::Flat(self.memory(len, direct));
            return;
        };
        let Some((first, all)) = table[place] else { return };
        let mut len = u64::from(len).min(all);
        let mut at = u64::from(first) + self.rng.below(all - len + 1);
        if self.rng.chance(10) {
            // Up to the end.
            at = u64::from(first) + all - len;
        }
        if direct {
            at = (at + 511) & !511;
            len = (u64::from(first) + all).saturating_sub(at).min(len) & !511;
        }
        sqe.buf_index = place as u16;
        sqe.len = len as u32;
        sqe.data = Data::Flat(Mem::Arena(at as u32));
    }

    fn vector(&mut self, sqe: &mut Sqe, len: u32, direct: bool) {
        let count = *self.rng.pick(&[1, 1, 2, 2, 3, 4, 8]);
        let mut list = Vec::new();
        let mut left = len;
        for i in 0..count {
            let mut part =
                if i + 1 == count { left } else { self.rng.below(u64::from(left) + 1) as u32 };
            if direct {
                part &= !511;
            }
            left -= part;
            list.push((self.memory(part, direct), u64::from(part)));
        }
        sqe.len = list.len() as u32;
        sqe.data = Data::Vector(list);
    }

    /// Makes one thing wrong, or at an edge.
    fn spoil(&mut self, sqe: &mut Sqe) {
        match self.rng.weighted(&[8, 8, 4, 5, 9, 5, 4, 10, 6, 8, 5, 3, 8, 6, 5, 3, 5]) {
            0 => {
                sqe.flags &= !FIXED_FILE;
                sqe.fd = *self.rng.pick(&[
                    Fd::Raw(-1),
                    Fd::Raw(NEVER_OPEN),
                    Fd::Raw(i32::MAX),
                    Fd::Slot(Slot::Spare),
                ]);
            }
            1 => {
                sqe.flags |= FIXED_FILE;
                sqe.fd = Fd::Raw(*self.rng.pick(&[0, 1, 2, 5, 9, 1000, -1, i32::MAX]));
            }
            2 => sqe.flags |= 0x80,
            3 => sqe.ioprio = *self.rng.pick(&[1, 7, 0x8000, 0xa001, 0xe000]),
            4 => sqe.op_flags |= self.wrong_flags(sqe.op),
            5 => sqe.op = self.rng.range(100, 255) as u8,
            6 => sqe.personality = self.rng.range(1, 0xffff) as u16,
            7 => self.outside(sqe),
            8 => {
                sqe.off = *self.rng.pick(&[
                    -2i64 as u64,
                    i64::MIN as u64,
                    i64::MAX as u64,
                    -500i64 as u64,
                ])
            }
            9 => self.bad_memory(sqe),
            10 if sqe.op == op::FSYNC => match self.rng.below(3) {
                0 => sqe.data = Data::Flat(Mem::Arena(0)),
                1 => sqe.buf_index = 1,
                _ => sqe.off = -5i64 as u64,
            },
            10 | 15 => sqe.splice_fd_in = self.rng.range(1, 9) as i32,
            11 => sqe.pad2 = self.rng.range(2, 1 << 40),
            12 => {
                let beyond = self.rng.range(32, 1 << 20) as u32;
                sqe.bad_index = Some(*self.rng.pick(&[beyond, u32::MAX, 1 << 31]));
            }
            13 => {
                let slots =
                    [Slot::ARead, Slot::AWrite, Slot::PipeR, Slot::PipeW, Slot::Dir, Slot::Full];
                sqe.flags &= !FIXED_FILE;
                sqe.fd = Fd::Slot(*self.rng.pick(&slots));
            }
            14 => {
                if !op::vectored(sqe.op) {
                    sqe.len = if sqe.op == op::NOP { sqe.len } else { 0 };
                } else {
                    self.bad_vector(sqe);
                }
            }
            _ => {
                // What it asks for at once, it may have at once.
                let reads_pipe = matches!(sqe.fd, Fd::Slot(Slot::PipeR | Slot::QuietR));
                if op::reads(sqe.op) && reads_pipe && sqe.flags == 0 {
                    sqe.op_flags |= check::NOWAIT;
                }
            }
        }
    }

    fn wrong_flags(&mut self, code: u8) -> u32 {
        match code {
            op::NOP => 1 << self.rng.range(5, 31),
            op::FSYNC => 1 << self.rng.range(1, 31),
            _ => match self.rng.below(7) {
                0 => check::HIPRI,
                1 => check::APPEND | check::NOAPPEND,
                2 => check::DSYNC,
                3 => check::SYNC,
                4 => check::APPEND,
                5 => check::NOAPPEND,
                _ => 1 << self.rng.range(9, 31),
            },
        }
    }

    /// A fixed buffer's range that is not in it, by as little as possible.
    fn outside(&mut self, sqe: &mut Sqe) {
        if !op::fixed(sqe.op) {
            return;
        }
        let table = self.model.buffers.as_deref().unwrap_or(&[]);
        let place = table.get(usize::from(sqe.buf_index)).copied().flatten();
        let Some((first, len)) = place else {
            sqe.buf_index = *self.rng.pick(&[0, 7, u16::MAX]);
            return;
        };
        let end = u64::from(first) + len;
        let (at, len) = match self.rng.below(6) {
            0 => (u64::from(first).wrapping_sub(1), 2),
            1 => (end - 1, 2),
            2 => (end, 1),
            3 => (end, 0),
            4 => (u64::from(first), len + 1),
            _ => {
                sqe.buf_index = table.len() as u16;
                (u64::from(first), 1)
            }
        };
        if let Ok(at) = u32::try_from(at) {
            sqe.data = Data::Flat(Mem::Arena(at));
            sqe.len = len as u32;
        }
    }

    fn bad_memory(&mut self, sqe: &mut Sqe) {
        let bad = *self.rng.pick(&[Mem::Unmapped, Mem::Null, Mem::Kernel]);
        match &mut sqe.data {
            Data::Flat(_) if op::vectored(sqe.op) => {}
            Data::Flat(at) if op::reads(sqe.op) || op::writes(sqe.op) => *at = bad,
            Data::Flat(_) => {}
            Data::Path(_) if sqe.second.is_some() && self.rng.chance(50) => {
                sqe.second = Some(bad);
            }
            Data::Path(_) | Data::Fds { .. } => sqe.data = Data::Flat(bad),
            Data::Vector(list) => {
                if let Some((at, _)) = list.last_mut() {
                    *at = bad;
                }
            }
        }
    }

    fn bad_vector(&mut self, sqe: &mut Sqe) {
        match self.rng.below(4) {
            0 => sqe.len = *self.rng.pick(&[1025, u32::MAX]),
            1 => sqe.data = Data::Flat(*self.rng.pick(&[Mem::Null, Mem::Unmapped])),
            2 => {
                sqe.len = 0;
                sqe.data = Data::Flat(*self.rng.pick(&[Mem::Null, Mem::Unmapped]));
            }
            _ => {
                if let Data::Vector(list) = &mut sqe.data
                    && let Some((_, len)) = list.last_mut()
                {
                    *len = *self.rng.pick(&[u64::MAX, 1 << 63]);
                }
            }
        }
    }
}
