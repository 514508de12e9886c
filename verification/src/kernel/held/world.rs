//! What a program needs besides a ring: a file, three pipes, and memory.

use std::ffi::c_int;
use std::fs::File as Regular;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::path::Path;
use std::time::Duration;

use annulus::uapi::{self, IORING_ASYNC_CANCEL_OP, IORING_TIMEOUT_ABS, IORING_TIMEOUT_UPDATE_MASK};

use super::super::target::{RawBuf, RawSqe};
use super::buffers::Buffers;
use super::files::{FileOp, How, Keep, Memory, On, Tree};
use super::program::{Act, EVENT, File, Program, Spoil, Sqe, Time, What};

/// Bytes of the file that is read.
const SOURCE: usize = 1024;
/// What a pipe gets.
const FILL: usize = 4000;
/// What an eventfd gets: one for each request, and more.
const COUNT: u64 = 64;
/// The most SQEs of a program.
const MOST: usize = 256;
/// Bytes of memory for the data of an SQE.
const DATA: usize = 64;
/// EPOLLIN; the halves of the field are those of a little-endian word.
const EVENTS: u32 = uapi::EPOLLIN.rotate_left(if cfg!(target_endian = "big") { 16 } else { 0 });
/// The user data of a look at the first place.
const PLACES: u64 = 10;
/// A number that no file has.
const NONE: i32 = 100_000;

/// Memory that SQEs point to. One for all programs of a process: a ring that
/// goes away with something in flight cannot be asked when that has ended.
pub struct Arena {
    /// A time and two buffers an SQE.
    points: Box<[Points]>,
    data: Box<[u8]>,
    /// The buffer that is registered: a part for each SQE.
    fixed: Box<[u8]>,
    keeps: Box<[Keep]>,
    used: usize,
    buffers: Buffers,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Points {
    time: [i64; 2],
    buffers: [[u64; 2]; 2],
}

const BAD: Points = Points { time: [-1; 2], buffers: [[u64::MAX; 2]; 2] };

impl Arena {
    /// Memory for one program after the other.
    pub fn new() -> Self {
        let [data, fixed] = [(); 2].map(|()| vec![0; MOST * DATA].into());
        let (points, keeps) = (vec![BAD; MOST].into(), vec![Keep::NEW; MOST].into());
        Self { points, data, fixed, keeps, used: 0, buffers: Buffers::new() }
    }

    /// As before the first program.
    fn reset(&mut self) {
        self.data[..self.used * DATA].fill(0);
        self.fixed[..self.used * DATA].fill(0);
        self.keeps[..self.used].fill(Keep::NEW);
        self.used = 0;
        self.buffers.reset();
    }
}

/// The files that can be registered, by their places.
const FILES: [File; 5] =
    [File::Source, File::Sink, File::Pipe(0), File::Pipe(1), File::Pipe(EVENT)];

/// The surroundings of one run.
pub struct World<'a> {
    arena: &'a mut Arena,
    source: Regular,
    sink: (io::PipeReader, io::PipeWriter),
    pipes: [(io::PipeReader, io::PipeWriter); 2],
    event: Regular,
    /// The files are named by their places.
    registered: bool,
    tree: Tree,
    /// What chains do with their files, and which memory they have for it.
    told: Vec<(u64, FileOp, usize)>,
}

impl<'a> World<'a> {
    /// New files and pipes.
    ///
    /// # Errors
    /// Of the file system, or too few descriptors.
    pub fn new(dir: &Path, arena: &'a mut Arena, program: &Program) -> io::Result<Self> {
        arena.reset();
        let tree = Tree::new(dir, program.owners(), FILES.len() as i32)?;
        let mut source = tempfile::tempfile_in(dir)?;
        source.write_all(&[7; SOURCE])?;
        // Read once, so that no read has anything to note in the file.
        source.rewind()?;
        source.read_exact(&mut [0; SOURCE])?;
        let pipes = [io::pipe()?, io::pipe()?];
        // SAFETY: no memory is passed.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_SEMAPHORE) };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: new, and ours.
        let event = unsafe { Regular::from_raw_fd(event) };
        let (sink, registered) = (io::pipe()?, program.registered);
        Ok(Self { arena, source, sink, pipes, event, registered, tree, told: Vec::new() })
    }

    /// The files that are registered, by their places.
    pub fn files(&self) -> Vec<i32> {
        FILES.iter().map(|&file| self.number(file)).chain(self.tree.places()).collect()
    }

    /// The memory that is registered.
    pub fn fixed(&mut self) -> RawBuf {
        let fixed = &mut self.arena.fixed;
        RawBuf { base: fixed.as_mut_ptr() as u64, len: fixed.len() as u64 }
    }

    /// The files of chains.
    pub fn tree(&mut self) -> &mut Tree {
        &mut self.tree
    }

    /// What has become of them, and of the memory of SQEs about them.
    ///
    /// # Errors
    /// Of the file system.
    pub fn kept(&mut self) -> io::Result<Vec<String>> {
        for &(user_data, op, at) in &self.told {
            let part = at * DATA..(at + 1) * DATA;
            let fixed = op.opcode() == uapi::IORING_OP_READ_FIXED;
            let data = if fixed { &self.arena.fixed[part] } else { &self.arena.data[part] };
            self.tree.tell(user_data, op, &self.arena.keeps[at], data);
        }
        self.tree.remains()
    }

    /// Entries that read a little from the place of each chain, one after the other.
    pub fn look_at_places(&mut self) -> Vec<RawSqe> {
        let mut all = Vec::new();
        for (own, place) in self.tree.all_places().enumerate() {
            let on = On::Place;
            let (how, write, off, len, bad) = (How::Flat, false, 0, 8, false);
            let op = FileOp::Transfer { on, how, write, off, len, bad };
            let what = What::Files { of: own as u8, op };
            let flags = uapi::IOSQE_IO_HARDLINK;
            let user_data = PLACES + place as u64;
            all.push(self.raw(&Sqe { what, flags, user_data, select: None, spoil: None }));
        }
        if let Some(last) = all.last_mut() {
            last.flags &= !uapi::IOSQE_IO_HARDLINK;
        }
        all
    }

    /// The ring of buffers.
    pub fn buffers(&mut self) -> &mut Buffers {
        &mut self.arena.buffers
    }

    /// Feeds or empties a pipe.
    ///
    /// # Errors
    /// Of the pipe.
    pub fn act(&mut self, act: Act) -> io::Result<()> {
        match act {
            Act::Fill(count) => {
                self.arena.buffers.fill(count.into());
                Ok(())
            }
            Act::Feed(EVENT) => self.event.write_all(&COUNT.to_ne_bytes()),
            Act::Empty(EVENT) => {
                while ready(&self.event)? {
                    self.event.read_exact(&mut [0; 8])?;
                }
                Ok(())
            }
            Act::Feed(pipe) => self.pipes[usize::from(pipe)].1.write_all(&[9; FILL]),
            Act::Empty(pipe) => {
                let reader = &mut self.pipes[usize::from(pipe)].0;
                let len = waiting(reader)?;
                reader.read_exact(&mut vec![0; len])
            }
        }
    }

    /// What a file is called in an SQE.
    fn fd(&self, file: File) -> i32 {
        match FILES.iter().position(|other| *other == file) {
            Some(place) if self.registered => place as i32,
            _ => self.number(file),
        }
    }

    fn number(&self, file: File) -> i32 {
        match file {
            File::Pipe(EVENT) => self.event.as_raw_fd(),
            File::Source => self.source.as_raw_fd(),
            File::Sink => self.sink.1.as_raw_fd(),
            File::Pipe(pipe) => self.pipes[usize::from(pipe)].0.as_raw_fd(),
            File::None => NONE,
        }
    }

    /// Where a time is, from now on.
    fn time(points: &mut Points, time: Time, absolute: bool) -> u64 {
        let now = || {
            // SAFETY: plain numbers.
            let mut now: libc::timespec = unsafe { std::mem::zeroed() };
            // SAFETY: room for a time. The clock is always there.
            unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
            Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
        };
        let span = |span: Duration| {
            let span = if absolute { now() + span } else { span };
            [span.as_secs() as i64, span.subsec_nanos().into()]
        };
        points.time = match time {
            Time::Hour => span(Duration::from_secs(3600)),
            Time::Soon => span(Duration::from_millis(1)),
            Time::Now => [0, i64::from(absolute)],
            Time::Negative => [-1, 0],
            Time::NegativeNanos => [0, -1],
            Time::ManyNanos => [3600 + now().as_secs() as i64, 1_500_000_000],
            Time::Nowhere => return 0,
        };
        (&raw const points.time) as u64
    }

    /// The entry as bytes, with every name replaced.
    pub fn raw(&mut self, sqe: &Sqe) -> RawSqe {
        let at = self.arena.used;
        self.arena.used += 1;
        let part = at * DATA..(at + 1) * DATA;
        let points = &mut self.arena.points[at];
        let data = (&raw mut self.arena.data[at * DATA]) as u64;
        let mut raw = RawSqe { flags: sqe.flags, ..RawSqe::new(sqe.what.opcode(), sqe.user_data) };
        match sqe.what {
            What::Nop(0) => {}
            What::Nop(res) => {
                (raw.op_flags, raw.len) = (uapi::IORING_NOP_INJECT_RESULT, res as u32);
            }
            What::Read { off, len, .. } => (raw.off, raw.addr, raw.len) = (off, data, len),
            What::Readv { off, len, .. } => {
                let half = DATA as u64 / 2;
                points.buffers = [[data, len.into()], [data + half, len.into()]];
                (raw.off, raw.addr, raw.len) = (off, (&raw const points.buffers) as u64, 2);
            }
            What::Provide { group, first, count } => {
                (raw.addr, raw.len) = self.arena.buffers.memory(group, first);
                (raw.off, raw.fd, raw.buf_index) = (first.into(), count.into(), group);
            }
            What::Withdraw { group, count } => (raw.fd, raw.buf_index) = (count.into(), group),
            What::Write { .. } => {
                self.arena.data[at * DATA..][..8].copy_from_slice(&sqe.user_data.to_ne_bytes());
                (raw.off, raw.addr, raw.len) = (u64::MAX, data, 8);
            }
            What::Poll { .. } => raw.op_flags = EVENTS,
            What::PollRemove { target } => raw.addr = target,
            What::Timeout { time, count, flags } => {
                raw.addr = Self::time(points, time, flags & IORING_TIMEOUT_ABS != 0);
                (raw.len, raw.off, raw.op_flags) = (1, count.into(), flags);
            }
            What::LinkTimeout { time, flags } => {
                raw.addr = Self::time(points, time, flags & IORING_TIMEOUT_ABS != 0);
                (raw.len, raw.op_flags) = (1, flags);
            }
            What::TimeoutRemove { target, time, flags } => {
                (raw.addr, raw.op_flags) = (target, flags);
                if flags & IORING_TIMEOUT_UPDATE_MASK != 0 {
                    raw.off = Self::time(points, time, flags & IORING_TIMEOUT_ABS != 0);
                }
            }
            What::Cancel { target, op, flags, .. } => {
                (raw.addr, raw.op_flags) = (target, flags);
                if flags & IORING_ASYNC_CANCEL_OP != 0 {
                    raw.len = op.into();
                }
            }
            What::Files { of, op } => {
                self.told.push((sqe.user_data, op, at));
                let memory = Memory {
                    keep: &mut self.arena.keeps[at],
                    vector: &mut points.buffers,
                    data: &mut self.arena.data[part.clone()],
                    fixed: &mut self.arena.fixed[part],
                };
                self.tree.raw(&mut raw, of, op, memory);
            }
        }
        match sqe.what {
            What::Read { file, .. }
            | What::Readv { file, .. }
            | What::Write { file, .. }
            | What::Poll { file }
            | What::Cancel { file, .. } => {
                raw.fd = self.fd(file);
                if self.registered {
                    raw.flags |= uapi::IOSQE_FIXED_FILE;
                }
            }
            _ => {}
        }
        if let Some(group) = sqe.select {
            raw.flags |= uapi::IOSQE_BUFFER_SELECT;
            raw.buf_index = group;
            match sqe.what {
                What::Readv { .. } => raw.len = 1,
                _ => raw.addr = 0,
            }
        }
        match sqe.spoil {
            None => {}
            Some(Spoil::Ioprio) => raw.ioprio = 1,
            Some(Spoil::Personality) => raw.personality = 77,
            // It would be a place that others use.
            Some(Spoil::SpliceFd) => match sqe.what {
                What::Files { op: FileOp::Open { .. } | FileOp::Close { .. }, .. } => {
                    raw.splice_fd_in = 1 << 20;
                }
                _ => raw.splice_fd_in = 1,
            },
            Some(Spoil::BufIndex) => raw.buf_index = 1,
            // Stays in the SQE's own memory, or is more than may be.
            Some(Spoil::Len) => match sqe.what {
                What::Read { .. } => raw.len ^= 0x20,
                What::Files {
                    op: FileOp::Transfer { how: How::Flat | How::Fixed, .. }, ..
                } => {
                    raw.len ^= 0x20;
                }
                // Whole words.
                What::Write { .. } => raw.len ^= 0x18,
                _ => raw.len ^= 0x1000,
            },
            Some(Spoil::Off) => raw.off ^= 1 << 40,
            Some(Spoil::OpFlags) => raw.op_flags |= 1 << 30,
            Some(Spoil::SqeFlag) => raw.flags |= 1 << 7,
            Some(Spoil::Opcode) => raw.opcode = 0xee,
            Some(Spoil::Select) => raw.flags |= uapi::IOSQE_BUFFER_SELECT,
            Some(Spoil::FixedFile) => {
                raw.flags ^= uapi::IOSQE_FIXED_FILE;
                // A place would be the number of a file that is not ours, and a
                // number may be a place.
                raw.fd = NONE;
            }
        }
        raw
    }

    /// Spoils what SQEs that have been taken pointed to: the times and the
    /// arrays of buffers.
    pub fn scribble(&mut self) {
        self.arena.points[..self.arena.used].fill(BAD);
        self.arena.keeps[..self.arena.used].iter_mut().for_each(|keep| keep.path = [1; 16]);
    }

    /// The user data of all that has written, sorted.
    ///
    /// # Errors
    /// Of the pipe.
    pub fn written(&self) -> io::Result<Vec<u64>> {
        let mut reader = &self.sink.0;
        let mut content = vec![0; waiting(reader)?];
        reader.read_exact(&mut content)?;
        let words = content
            .chunks_exact(8)
            .map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()));
        let mut all: Vec<u64> = words.collect();
        all.sort_unstable();
        Ok(all)
    }
}

/// Whether something can be read.
fn ready(file: &Regular) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry.
    match unsafe { libc::poll(&raw mut entry, 1, 0) } {
        0.. => Ok(entry.revents & libc::POLLIN != 0),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Bytes in a pipe.
fn waiting(reader: &io::PipeReader) -> io::Result<usize> {
    let mut waiting: c_int = 0;
    // SAFETY: room for one int.
    let r = unsafe { libc::ioctl(reader.as_raw_fd(), libc::FIONREAD, &raw mut waiting) };
    if r == 0 { Ok(waiting as usize) } else { Err(io::Error::last_os_error()) }
}
