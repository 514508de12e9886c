//! What a lane does next: groups of entries, drawn by its seed.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use annulus_linux::opcode;
use annulus_linux::squeue::{Entry, Flags};
use annulus_linux::types::{DestinationSlot, Fd, Fixed, FsyncFlags, Iovec};

use super::block::{BLOCK, fill};
use super::disk::{Kind, LONGEST, Run};
use super::group::{Drawn, Group, What};
use super::lane::{BUFFER, GROUP, Lane, Next};

/// Numbers of files of a lane's own that are no disks, in their blocks.
pub const CUT: u32 = 0x80;
pub const SMALL: u32 = 0x81;
pub const PIPE: u32 = 0x82;
/// Bytes of a message through a pipe.
pub const MESSAGE: usize = 512;
/// Bytes written at a time to the file system that gets full.
pub const PIECE: usize = LONGEST * BLOCK;
/// Pieces of a vector that each request has room for.
const KEPT: usize = 8;

pub const CANCELED: i32 = -libc::ECANCELED;

/// An offset that stands for the current position, which pipes need.
pub const HERE: u64 = u64::MAX;

impl Lane<'_> {
    /// The next group; none if what it would need is in use.
    pub fn draw(&mut self) -> Option<Drawn> {
        self.serial = self.serial.wrapping_add(1);
        let mut group = Group::new(self.serial);
        if let Some(next) = self.next.pop_front() {
            let entry = match next {
                Next::Close(fd) => {
                    group.what = ends([[0, 0]; 3]);
                    opcode::Close::new(Fd(fd)).build()
                }
                Next::Provide(id) => {
                    group.what = What::Provide;
                    let at = self.provided.at(usize::from(id) * BUFFER);
                    opcode::ProvideBuffers::new(at, BUFFER as i32, 1, GROUP, id).build()
                }
            };
            return Some((group, vec![entry]));
        }
        // What needs a worker for sure, and cannot do without.
        let w = u32::from(!self.plan.workerless);
        let drains = w * u32::from(self.plan.drains);
        let skips = w - drains;
        // As in Linux, an entry that follows a drain may wait for all before it: so
        // none of those may wait for it.
        let pipes = if self.plan.drains { 0 } else { 6 };
        // Nor is its file looked up before it starts.
        let closes = if self.plan.drains { 0 } else { 2 * w };
        // Nobody would close what is opened as the ring ends.
        let opens = 2 * w * u32::from(!self.plan.abandons);
        let weights = [
            30,        // read
            30,        // write
            12 * w,    // chain
            6 * w,     // select
            2 * w,     // open and read in a chain
            opens,     // open
            3 * w,     // punch
            6,         // sync
            pipes,     // pipe
            6,         // timeouts, waits that are cancelled
            4 * w,     // aimed cancellation
            closes,    // closed meanwhile
            w,         // cut meanwhile
            4 * w,     // small file system
            6 * w,     // entries that fail
            4,         // nothing
            drains,    // drain
            2 * skips, // silent
        ];
        let entries = match self.rng.weighted(&weights) {
            0 => self.read(&mut group)?,
            1 => self.write(&mut group)?,
            2 => self.chain(&mut group)?,
            3 => self.select(&mut group)?,
            4 => self.open_read(&mut group)?,
            5 => self.open(&mut group)?,
            6 => self.punch(&mut group)?,
            7 => self.sync(&mut group),
            8 => self.pipe(&mut group)?,
            9 => self.waits(&mut group),
            10 => self.aim(&mut group)?,
            11 => self.read_closed(&mut group)?,
            12 => self.read_cut(&mut group)?,
            13 => self.fill_up(&mut group)?,
            14 => self.fails(&mut group),
            15 => {
                group.what = ends([[0, 0]; 3]);
                vec![opcode::Nop::new().build()]
            }
            16 => {
                group.what = ends([[0, 0]; 3]);
                vec![opcode::Nop::new().build().flags(Flags::IO_DRAIN)]
            }
            _ => {
                group.what = ends([[0, 0]; 3]);
                let silent = opcode::Nop::new().build();
                vec![silent.flags(Flags::SKIP_SUCCESS), opcode::Nop::new().build()]
            }
        };
        Some((group, entries))
    }

    /// A disk, and blocks of it that nobody else has.
    fn claim(&mut self) -> Option<(usize, Run)> {
        let disk = self.rng.below(self.disks.len() as u64) as usize;
        Some((disk, self.disks[disk].claim(&mut self.rng)?))
    }

    /// As that, of the disk that others may open by its name.
    fn claim_named(&mut self) -> Option<(usize, Run, CString)> {
        // What is read by the page cache shall be written by it.
        let disk = self.disks.iter().position(|disk| disk.kind == Kind::Buffered)?;
        let path = self.disks[disk].path.as_ref()?;
        let path = CString::new(path.as_os_str().as_encoded_bytes()).ok()?;
        Some((disk, self.disks[disk].claim(&mut self.rng)?, path))
    }

    /// A buffer of the pool, filled with what nobody writes.
    fn buffer(&mut self, group: &mut Group) -> Option<usize> {
        let buffer = self.free_buffers.pop()?;
        group.buffers.push(buffer);
        self.bytes(buffer).fill(super::lane::MARK);
        Some(buffer)
    }

    /// Claims blocks and a buffer; gives the blocks back if there is none.
    fn claim_with_buffer(&mut self, group: &mut Group) -> Option<(usize, Run, usize)> {
        let buffer = self.buffer(group)?;
        match self.claim() {
            Some((disk, run)) => Some((disk, run, buffer)),
            None => {
                self.free_buffers.append(&mut group.buffers);
                None
            }
        }
    }

    /// The entry of a read or write of blocks, in one of the ways that there are.
    /// In a chain, and where others drain, it may be held back: then its vector is
    /// no longer than each request has room for (docs/differences.md).
    fn transfer(
        &mut self,
        group: &mut Group,
        at: (usize, Run, usize),
        writes: bool,
        chained: bool,
    ) -> Entry {
        let held = chained || self.plan.drains;
        let (disk, run, buffer) = at;
        let file = &self.disks[disk];
        let direct = file.kind == Kind::Direct;
        if !direct && group.parts.is_empty() && self.rng.chance(30) {
            group.skip = self.rng.below(BLOCK as u64) as usize;
        }
        let (offset, len) = (run.offset(), run.bytes() as u32);
        let base = self.memory.at(buffer * BUFFER + group.skip);
        let mut entry = match (self.rng.below(3), writes) {
            (0, false) => opcode::Read::new(Fd(0), base, len).offset(offset).build(),
            (0, true) => opcode::Write::new(Fd(0), base, len).offset(offset).build(),
            (1, _) if group.iovecs.is_empty() => {
                let mut done = 0;
                while done < run.bytes() {
                    let most = (run.bytes() - done) as u64;
                    let piece = if direct { BLOCK as u64 } else { 1 + self.rng.below(9000) };
                    let last = held && group.iovecs.len() == KEPT - 1;
                    let len = if last { most } else { piece.min(most) } as usize;
                    group.iovecs.push(Iovec::new(base.wrapping_add(done), len));
                    done += len;
                }
                let (array, count) = (group.iovecs.as_ptr(), group.iovecs.len() as u32);
                match writes {
                    false => opcode::Readv::new(Fd(0), array, count).offset(offset).build(),
                    true => opcode::Writev::new(Fd(0), array, count).offset(offset).build(),
                }
            }
            (_, false) => {
                opcode::ReadFixed::new(Fd(0), base, len, buffer as u16).offset(offset).build()
            }
            (_, true) => {
                opcode::WriteFixed::new(Fd(0), base, len, buffer as u16).offset(offset).build()
            }
        };
        entry = match self.rng.chance(50) {
            true => entry.file(Fixed(disk as u32)),
            false => entry.file(Fd(self.disks[disk].fd())),
        };
        if self.rng.chance(20) {
            entry.flags |= Flags::ASYNC.bits();
        }
        entry
    }

    fn read(&mut self, group: &mut Group) -> Option<Vec<Entry>> {
        let at @ (disk, run, _) = self.claim_with_buffer(group)?;
        let mut entry = self.transfer(group, at, false, false);
        group.what = What::Read { disk, run };
        if self.rng.chance(10) && entry.flags & Flags::ASYNC.bits() == 0 {
            group.what = What::ReadNow { disk, run };
            entry.op_flags = libc::RWF_NOWAIT as u32;
        }
        Some(vec![entry])
    }

    fn write(&mut self, group: &mut Group) -> Option<Vec<Entry>> {
        let at @ (disk, run, buffer) = self.claim_with_buffer(group)?;
        let mut entry = self.transfer(group, at, true, false);
        let write = self.stamp(disk, run, buffer, group.skip);
        if self.rng.chance(5) {
            entry.op_flags = libc::RWF_DSYNC as u32;
        }
        group.what = What::Write { disk, run, write };
        Some(vec![entry])
    }

    fn stamp(&mut self, disk: usize, run: Run, buffer: usize, skip: usize) -> u32 {
        let at = buffer * BUFFER + skip;
        self.disks[disk].stamp(run, &mut self.memory.all()[at..at + run.bytes()])
    }

    fn chain(&mut self, group: &mut Group) -> Option<Vec<Entry>> {
        if self.free_buffers.len() < 2 {
            return None;
        }
        let at @ (disk, run, buffer) = self.claim_with_buffer(group)?;
        // Both parts of the chain lie alike.
        let write = self.transfer(group, at, true, true);
        let number = self.stamp(disk, run, buffer, group.skip);
        let second = self.buffer(group)?;
        let base = self.memory.at(second * BUFFER + group.skip);
        let read = opcode::Read::new(Fd(self.disks[disk].fd()), base, run.bytes() as u32);
        let read = read.offset(run.offset()).build();
        let sync = opcode::Fsync::new(Fd(self.disks[disk].fd())).flags(FsyncFlags::DATASYNC);
        let mut sync = sync.build().flags(Flags::IO_LINK);
        if !self.plan.drains && self.rng.chance(50) {
            sync.flags |= Flags::SKIP_SUCCESS.bits();
        }
        group.what = What::Chain { disk, run, write: number };
        let mut entries = vec![linked(write), read];
        if self.rng.chance(20) {
            entries.insert(1, sync);
        }
        Some(entries)
    }

    fn select(&mut self, group: &mut Group) -> Option<Vec<Entry>> {
        if self.selectable == 0 {
            return None;
        }
        let (disk, run) = self.claim()?;
        self.selectable -= 1;
        let read = opcode::Read::new(Fixed(disk as u32), std::ptr::null_mut(), run.bytes() as u32);
        let mut entry = read.offset(run.offset()).buf_group(GROUP).build();
        entry.flags |= Flags::BUFFER_SELECT.bits();
        if self.rng.chance(20) {
            entry.flags |= Flags::ASYNC.bits();
        }
        group.what = What::Select { disk, run };
        Some(vec![entry])
    }

    fn open_read(&mut self, group: &mut Group) -> Option<Vec<Entry>> {
        let slot = self.free_places.pop()?;
        let claimed = self.buffer(group).and_then(|buffer| {
            let (disk, run, path) = self.claim_named()?;
            Some((disk, run, path, buffer))
        });
        let Some((disk, run, path, buffer)) = claimed else {
            self.free_places.push(slot);
            self.free_buffers.append(&mut group.buffers);
            return None;
        };
        (group.path, group.place) = (path, Some(slot));
        let target = DestinationSlot::try_from_slot_target(slot).ok();
        let open = opcode::OpenAt::new(Fd(libc::AT_FDCWD), group.path.as_ptr());
        let open = open.flags(libc::O_RDONLY).file_index(target).build();
        let base = self.memory.at(buffer * BUFFER);
        let read = opcode::Read::new(Fixed(slot), base, run.bytes() as u32);
        let read = read.offset(run.offset()).build();
        let close = opcode::Close::new(Fixed(slot)).build();
        group.what = What::OpenRead { disk, run };
        Some(vec![linked(open), linked(read), close])
    }

    fn open(&mut self, group: &mut Group) -> Option<Vec<Entry>> {
        let path = self.disks.iter().find_map(|disk| disk.path.as_ref())?;
        group.path = CString::new(path.as_os_str().as_encoded_bytes()).ok()?;
        group.what = What::Open;
        let open = opcode::OpenAt::new(Fd(libc::AT_FDCWD), group.path.as_ptr());
        Some(vec![open.flags(libc::O_RDONLY | libc::O_CLOEXEC).build()])
    }

    fn punch(&mut self, group: &mut Group) -> Option<Vec<Entry>> {
        let (disk, run) = self.claim()?;
        group.what = What::Punch { disk, run };
        let punch = opcode::Fallocate::new(Fixed(disk as u32), run.bytes() as u64);
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        Some(vec![punch.offset(run.offset()).mode(mode).build()])
    }

    fn sync(&mut self, group: &mut Group) -> Vec<Entry> {
        let disk = self.rng.below(self.disks.len() as u64) as usize;
        let file = Fixed(disk as u32);
        group.what = match self.plan.workerless {
            true => What::Ends { wanted: [[0, CANCELED]; 3], fault: None },
            false => ends([[0, 0]; 3]),
        };
        // Memory has nothing to write back, and says so of ranges.
        let range = if self.disks[disk].kind == Kind::Memory { 0 } else { 10 };
        let entry = match self.rng.weighted(&[1, 4, range, 60]) {
            0 => opcode::Fsync::new(file).build(),
            1 => opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build(),
            2 => {
                let flags = libc::SYNC_FILE_RANGE_WRITE;
                opcode::SyncFileRange::new(file, 0).flags(flags).build()
            }
            _ => {
                let at = self.rng.below(256) * BLOCK as u64;
                let len = (64 * BLOCK) as i64;
                opcode::Fadvise::new(file, len, libc::POSIX_FADV_DONTNEED).offset(at).build()
            }
        };
        vec![entry]
    }

    fn pipe(&mut self, group: &mut Group) -> Option<Vec<Entry>> {
        if self.free_buffers.len() < 2 {
            return None;
        }
        let pipe = self.free_pipes.pop()?;
        let [into, out] = [self.buffer(group)?, self.buffer(group)?];
        let write = self.serial.max(1);
        let number = self.plan.number | PIPE;
        fill(&mut self.bytes(out)[..MESSAGE], number, pipe as u64, write);
        let [from, to] = {
            let ends = &self.pipes[pipe];
            [Fd(ends.from.as_raw_fd()), Fd(ends.to.as_raw_fd())]
        };
        let at = |buffer: usize| self.memory.at(buffer * BUFFER);
        let read = opcode::Read::new(from, at(into), MESSAGE as u32).offset(HERE).build();
        let put = opcode::Write::new(to, at(out), MESSAGE as u32).offset(HERE).build();
        group.what = What::Pipe { pipe, write };
        Some(match self.rng.chance(50) {
            true => {
                let poll = opcode::PollAdd::new(from, libc::POLLIN as u32).build();
                vec![linked(poll), read, put]
            }
            false => vec![read, put],
        })
    }

    /// Cancels a read or write that may not have begun, be under way, or over.
    fn aim(&mut self, group: &mut Group) -> Option<Vec<Entry>> {
        let target = self.transfer_in_flight()?;
        group.what = What::Aim;
        Some(vec![opcode::AsyncCancel::new(target.user_data()).build()])
    }

    fn read_closed(&mut self, group: &mut Group) -> Option<Vec<Entry>> {
        let buffer = self.buffer(group)?;
        let claimed = self.claim_named();
        let opened = claimed.and_then(|(disk, run, _)| {
            let file = self.disks[disk].path.as_ref().and_then(|path| File::open(path).ok());
            if file.is_none() {
                self.disks[disk].release(run);
            }
            Some((disk, run, file?))
        });
        let Some((disk, run, file)) = opened else {
            self.free_buffers.append(&mut group.buffers);
            return None;
        };
        let base = self.memory.at(buffer * BUFFER);
        let read = opcode::Read::new(Fd(file.as_raw_fd()), base, run.bytes() as u32);
        group.file = Some(file);
        group.what = What::ReadClosed { disk, run };
        Some(vec![read.offset(run.offset()).build().flags(Flags::ASYNC)])
    }

    fn read_cut(&mut self, group: &mut Group) -> Option<Vec<Entry>> {
        if self.cut_busy {
            return None;
        }
        let buffer = self.buffer(group)?;
        let write = self.serial.max(1);
        let mut bytes = vec![0; LONGEST * BLOCK];
        for (place, block) in bytes.chunks_exact_mut(BLOCK).enumerate() {
            fill(block, self.plan.number | CUT, place as u64, write);
        }
        self.cut.write_all_at(&bytes, 0).ok()?;
        self.cut_busy = true;
        group.what = What::ReadCut { write };
        let base = self.memory.at(buffer * BUFFER);
        let read = opcode::Read::new(Fd(self.cut.as_raw_fd()), base, bytes.len() as u32);
        Some(vec![read.offset(0).build().flags(Flags::ASYNC)])
    }

    fn fill_up(&mut self, group: &mut Group) -> Option<Vec<Entry>> {
        if self.small_busy {
            return None;
        }
        let fd = Fd(self.small.as_ref()?.as_raw_fd());
        let buffer = self.buffer(group)?;
        let write = self.serial.max(1);
        let number = self.plan.number | SMALL;
        for (place, block) in self.bytes(buffer)[..PIECE].chunks_exact_mut(BLOCK).enumerate() {
            fill(block, number, place as u64, write);
        }
        self.small_busy = true;
        group.what = What::Fill { write };
        let base = self.memory.at(buffer * BUFFER);
        Some(vec![opcode::Write::new(fd, base, PIECE as u32).offset(self.small_len).build()])
    }
}

fn ends(wanted: [[i32; 2]; 3]) -> What {
    What::Ends { wanted, fault: None }
}

pub fn linked(mut entry: Entry) -> Entry {
    entry.flags |= Flags::IO_LINK.bits();
    entry
}
