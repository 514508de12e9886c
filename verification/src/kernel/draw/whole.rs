//! Draws what is done with whole files.

use super::super::memory::ARENA;
use super::super::program::{Data, FIXED_FILE, Fd, Mem, Name, Slot, Sqe, op};
use super::super::registrations;
use super::super::world::NEVER_OPEN;
use super::Draw;

/// `IORING_FILE_INDEX_ALLOC`.
const ANY: u32 = u32::MAX;

impl Draw<'_> {
    /// An SQE about a whole file, its name or its registration.
    pub(super) fn whole(&mut self) -> Sqe {
        match self.rng.weighted(&[5, 3, 5, 6, 10, 4, 6]) {
            0 => self.files_update(),
            1 => self.sync_range(),
            2 => self.advice(),
            3 => self.allocation(),
            4 => self.open_at(),
            5 => self.close(),
            _ => self.attributes(),
        }
    }

    /// A file, mostly one with content.
    fn some_file(&mut self, sqe: &mut Sqe) {
        use Slot::*;
        let places = self.model.files.as_ref().map_or(0, Vec::len) as u64;
        if places > 0 && self.rng.chance(40) {
            sqe.flags |= FIXED_FILE;
            sqe.fd = Fd::Raw(self.rng.below(places) as i32);
        } else {
            let slots = [A, A, A2, AWrite, ARead, B, BAppend, C, CDirect, Dir, Null, PipeR, QuietW];
            sqe.fd = Fd::Slot(*self.rng.pick(&slots));
        }
    }

    fn sync_range(&mut self) -> Sqe {
        let mut sqe = Sqe { op: op::SYNC_FILE_RANGE, ..Sqe::default() };
        self.some_file(&mut sqe);
        sqe.off = *self.rng.pick(&[0, 10, 4096, 1 << 40, i64::MAX as u64]);
        sqe.len = *self.rng.pick(&[0, 1, 4096, 10_000, u32::MAX]);
        sqe.op_flags = self.rng.below(9) as u32;
        sqe
    }

    fn advice(&mut self) -> Sqe {
        let mut sqe = Sqe { op: op::FADVISE, ..Sqe::default() };
        self.some_file(&mut sqe);
        sqe.op_flags = self.rng.below(7) as u32;
        sqe.off = *self.rng.pick(&[0, 0, 100, 4096, i64::MAX as u64, -1i64 as u64]);
        sqe.len = *self.rng.pick(&[0, 1, 4096, u32::MAX]);
        if self.rng.chance(30) {
            // A length in `addr`: negative for every address of the kernel's.
            sqe.data = Data::Flat(*self.rng.pick(&[Mem::Kernel, Mem::Unmapped]));
        }
        sqe
    }

    fn allocation(&mut self) -> Sqe {
        use Slot::*;
        let mut sqe = Sqe { op: op::FALLOCATE, ..Sqe::default() };
        self.some_file(&mut sqe);
        if self.rng.chance(60) {
            sqe.flags &= !FIXED_FILE;
            sqe.fd = Fd::Slot(*self.rng.pick(&[A, B, C, AWrite, BAppend]));
        }
        let (keep, punch, zero, collapse, insert) = (1, 2, 16, 8, 32);
        let modes = [0, 0, keep, punch | keep, punch | keep, zero, zero | keep, punch, collapse];
        sqe.len = *self.rng.pick(&modes);
        sqe.off = *self.rng.pick(&[0, 100, 3000, 4096, 8192, 12_000, 20_000]);
        // Lengths are addresses here; the arena's are below what a file takes.
        sqe.data = Data::Flat(*self.rng.pick(&[Mem::Bytes(1), Mem::Bytes(4096), Mem::Bytes(9000)]));
        match self.rng.below(20) {
            0 => sqe.len = insert,
            1 => sqe.len |= 1 << self.rng.range(6, 31),
            2 => sqe.off = *self.rng.pick(&[1 << 62, -1i64 as u64, i64::MAX as u64]),
            3 => sqe.data = Data::Flat(*self.rng.pick(&[Mem::Null, Mem::Kernel])),
            _ => {}
        }
        sqe
    }

    /// A directory for names, or what is none.
    fn directory(&mut self) -> Fd {
        match self.rng.below(100) {
            0..88 => Fd::Slot(Slot::Dir),
            88..92 => Fd::Slot(*self.rng.pick(&[Slot::A, Slot::Null, Slot::Spare])),
            92..95 => Fd::Raw(*self.rng.pick(&[-1, NEVER_OPEN, i32::MAX])),
            _ => Fd::Raw(libc::AT_FDCWD),
        }
    }

    fn name(&mut self) -> Name {
        use Name::*;
        match self.rng.below(100) {
            0..50 => *self.rng.pick(&[A, A, B, Link, LongWay, LongestWay]),
            50..65 => New(self.rng.below(3) as u8),
            65..75 => *self.rng.pick(&[Missing, MissingInner]),
            75..90 => *self.rng.pick(&[Dot, Sub, Inner, DevNull]),
            _ => *self.rng.pick(&[Loop, Through, Overlong, TooLong, Empty]),
        }
    }

    fn open_at(&mut self) -> Sqe {
        let mut sqe = Sqe { op: op::OPENAT, fd: self.directory(), ..Sqe::default() };
        let name = self.name();
        let mut flags = *self.rng.pick(&[libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR]);
        let places = self.model.files.as_ref().map_or(0, Vec::len) as u64;
        if self.rng.chance(if places > 0 { 45 } else { 5 }) {
            let slot = match self.rng.below(10) {
                0..5 => ANY,
                5..9 => self.rng.below(places.max(1)) as u32 + 1,
                _ => places as u32 + 1,
            };
            sqe.splice_fd_in = slot as i32;
        } else if matches!(name, Name::New(_)) && self.rng.chance(80) {
            flags |= libc::O_CREAT;
        }
        for (flag, percent) in [
            (libc::O_APPEND, 10),
            (libc::O_NONBLOCK, 10),
            (libc::O_CLOEXEC, 10),
            (libc::O_CREAT, 5),
            (libc::O_EXCL, 10),
            (libc::O_TRUNC, 5),
            (libc::O_DIRECTORY, 5),
            (libc::O_NOFOLLOW, 5),
            (libc::O_PATH, 3),
            (libc::O_TMPFILE, 2),
            (libc::O_SYNC, 3),
        ] {
            if self.rng.chance(if sqe.splice_fd_in == 0 { percent } else { percent / 8 }) {
                flags |= flag;
            }
        }
        sqe.data = Data::Path(name);
        sqe.op_flags = flags as u32;
        sqe.len = *self.rng.pick(&[0, 0o600, 0o644, 0o7777, u32::MAX]);
        sqe
    }

    fn attributes(&mut self) -> Sqe {
        let mut sqe = Sqe { op: op::STATX, fd: self.directory(), ..Sqe::default() };
        sqe.data = Data::Path(self.name());
        let at = self.rng.below(u64::from(ARENA) - 256) as u32;
        sqe.second = Some(Mem::Arena(at));
        sqe.len = *self.rng.pick(&[0, libc::STATX_BASIC_STATS, libc::STATX_ALL, libc::STATX_SIZE]);
        if self.rng.chance(25) {
            sqe.data = Data::Path(Name::Empty);
            sqe.op_flags = libc::AT_EMPTY_PATH as u32;
            sqe.fd = Fd::Slot(*self.rng.pick(&[Slot::A, Slot::B, Slot::Dir, Slot::Null]));
        } else if self.rng.chance(30) {
            sqe.op_flags =
                *self.rng.pick(&[libc::AT_SYMLINK_NOFOLLOW, 0x2000, 0x4000, 0x6000, 1]) as u32;
        }
        if self.rng.chance(4) {
            sqe.len = 1 << 31;
        }
        sqe
    }

    fn close(&mut self) -> Sqe {
        use Slot::*;
        let mut sqe = Sqe { op: op::CLOSE, ..Sqe::default() };
        let places = self.model.files.as_ref().map_or(0, Vec::len) as u64;
        if places > 0 && self.rng.chance(70) {
            sqe.fd = Fd::Raw(0);
            sqe.splice_fd_in = self.rng.range(1, places + 1) as i32;
        } else {
            sqe.fd = match self.rng.below(10) {
                0 => Fd::Raw(*self.rng.pick(&[-1, NEVER_OPEN, i32::MAX])),
                _ => Fd::Slot(*self.rng.pick(&[A2, BAppend, AWrite, Null, Zero, Spare])),
            };
        }
        sqe
    }

    fn files_update(&mut self) -> Sqe {
        let mut sqe = Sqe { op: op::FILES_UPDATE, ..Sqe::default() };
        let places = self.model.files.as_ref().map_or(0, Vec::len) as u64;
        let any = self.rng.chance(40);
        let off = self.rng.below(places.max(1));
        let most = if self.rng.chance(85) { places.saturating_sub(off).max(1) } else { 9 };
        let count = if any { self.rng.range(1, 3) } else { self.rng.range(1, most.min(9)) };
        let mut list: Vec<Fd> = (0..count).map(|_| registrations::file(self.rng)).collect();
        if self.rng.chance(10) {
            list[0] = Fd::Raw(-2);
        }
        sqe.off = if any { u64::from(ANY) } else { off };
        sqe.len = list.len() as u32;
        let edge = self.rng.chance(5);
        if edge {
            sqe.len += self.rng.range(0, 2) as u32;
        }
        sqe.data = Data::Fds { list, edge };
        sqe
    }
}
