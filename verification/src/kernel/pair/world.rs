//! What a program needs besides its rings: two pipes, a file, eventfds, memory.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::path::Path;
use std::time::Duration;

use annulus::uapi::{self, IORING_TIMEOUT_ABS, IORING_TIMEOUT_UPDATE_MASK};

use super::super::target::RawSqe;
use super::program::{Cancel, Message, ONE, Place, Spoil, Sqe, Time, To, What};

/// What a pipe gets.
const FILL: usize = 4000;
/// The most SQEs of a program.
const MOST: usize = 256;
/// EPOLLIN; the halves of the field are those of a little-endian word.
const EVENTS: u32 = uapi::EPOLLIN.rotate_left(if cfg!(target_endian = "big") { 16 } else { 0 });
/// A number that no file has.
pub const NONE: i32 = 100_000;

/// Memory that SQEs point to. One for all programs of a process: a ring that
/// goes away with something in flight cannot be asked when that has ended.
pub struct Arena {
    times: Box<[[i64; 2]]>,
    data: Box<[u64]>,
    used: usize,
}

impl Arena {
    /// Memory for one program after the other.
    pub fn new() -> Self {
        Self { times: vec![[-1; 2]; MOST].into(), data: vec![0; MOST].into(), used: 0 }
    }
}

/// The surroundings of one run.
pub struct World<'a> {
    arena: &'a mut Arena,
    pipes: [(io::PipeReader, io::PipeWriter); 2],
    /// Each ring's.
    counters: [File; 2],
    /// No ring, no eventfd.
    pub file: File,
    /// The first ring's files are named by their places.
    registered: bool,
    /// The numbers of the rings.
    pub rings: [i32; 2],
    /// How long a unit of time is.
    pub unit: Duration,
}

impl<'a> World<'a> {
    /// New files and pipes.
    ///
    /// # Errors
    /// Of the file system, or too few descriptors.
    pub fn new(
        dir: &Path,
        arena: &'a mut Arena,
        registered: bool,
        rings: [i32; 2],
        unit: Duration,
    ) -> io::Result<Self> {
        arena.used = 0;
        let pipes = [io::pipe()?, io::pipe()?];
        let counters = [counter()?, counter()?];
        let file = tempfile::tempfile_in(dir)?;
        Ok(Self { arena, pipes, counters, file, registered, rings, unit })
    }

    /// Puts something into a pipe.
    ///
    /// # Errors
    /// Of the pipe.
    pub fn feed(&self, pipe: u8) -> io::Result<()> {
        (&self.pipes[usize::from(pipe)].1).write_all(&[9; FILL])
    }

    /// What another thread feeds a pipe by.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn feeder(&self, pipe: u8) -> io::Result<impl FnOnce() -> io::Result<()> + use<>> {
        let mut writer = self.pipes[usize::from(pipe)].1.try_clone()?;
        Ok(move || writer.write_all(&[9; FILL]))
    }

    /// Takes out what is in a pipe.
    ///
    /// # Errors
    /// Of the pipe.
    pub fn empty(&self, pipe: u8) -> io::Result<()> {
        let mut reader = &self.pipes[usize::from(pipe)].0;
        let mut waiting: libc::c_int = 0;
        // SAFETY: room for one int.
        let r = unsafe { libc::ioctl(reader.as_raw_fd(), libc::FIONREAD, &raw mut waiting) };
        if r != 0 {
            return Err(io::Error::last_os_error());
        }
        reader.read_exact(&mut vec![0; waiting as usize])
    }

    /// The number of a ring's eventfd.
    pub fn counter(&self, ring: usize) -> i32 {
        self.counters[ring].as_raw_fd()
    }

    /// Whether the eventfds have been rung since the last look.
    pub fn rung(&self) -> [bool; 2] {
        [0, 1].map(|ring| (&self.counters[ring]).read_exact(&mut [0; 8]).is_ok())
    }

    /// A place of a table of files, as its number.
    pub fn place(&self, place: Place) -> i32 {
        match place {
            Place::Pipe(pipe) => self.pipe(pipe),
            Place::Empty => -1,
            Place::Skip => -2,
            Place::Bad => NONE,
        }
    }

    fn pipe(&self, pipe: u8) -> i32 {
        self.pipes[usize::from(pipe)].0.as_raw_fd()
    }

    /// What a pipe is called in an entry for this ring.
    pub fn named(&self, ring: usize, pipe: u8) -> i32 {
        match self.registered && ring == ONE {
            true => pipe.into(),
            false => self.pipe(pipe),
        }
    }

    /// Where a time is, from now on.
    fn time(&mut self, at: usize, time: Time, flags: u32) -> u64 {
        let absolute = flags & IORING_TIMEOUT_ABS != 0;
        let span = match time {
            Time::Hour => Some(Duration::from_secs(3600)),
            Time::Units(units) => Some(units * self.unit),
            Time::Past => None,
        };
        let clock = match flags & uapi::IORING_TIMEOUT_CLOCK_MASK {
            uapi::IORING_TIMEOUT_BOOTTIME => libc::CLOCK_BOOTTIME,
            uapi::IORING_TIMEOUT_REALTIME => libc::CLOCK_REALTIME,
            _ => libc::CLOCK_MONOTONIC,
        };
        let point = &mut self.arena.times[at];
        *point = match span {
            Some(span) if absolute => parts(now(clock) + span),
            Some(span) => parts(span),
            None => [0, absolute.into()],
        };
        &raw const *point as u64
    }

    /// The message as an entry.
    pub fn message(&self, message: Message, user_data: u64) -> RawSqe {
        let Message { to, res, data, pass, skip, spoil } = message;
        let mut raw = RawSqe {
            off: data,
            len: res as u32,
            op_flags: u32::from(skip) * uapi::IORING_MSG_RING_CQE_SKIP,
            ..RawSqe::new(uapi::IORING_OP_MSG_RING, user_data)
        };
        if let Some(flags) = pass {
            raw.op_flags |= uapi::IORING_MSG_RING_FLAGS_PASS;
            raw.splice_fd_in = flags as i32;
        }
        raw.fd = match to {
            To::Ring(ring) => self.rings[ring],
            To::File => self.file.as_raw_fd(),
            To::None => NONE,
            To::Place(place) => {
                raw.flags |= uapi::IOSQE_FIXED_FILE;
                place
            }
        };
        match spoil {
            None => {}
            Some(Spoil::OpFlags) => raw.op_flags |= 4,
            Some(Spoil::SpliceFd) => raw.splice_fd_in ^= 1,
            Some(Spoil::Addr3) => raw.addr3 = 1,
            Some(Spoil::Command) => raw.addr = 2,
            Some(Spoil::CommandHigh) => raw.addr = 1 << 32,
            Some(Spoil::Ioprio) => raw.ioprio = 1,
            Some(Spoil::BufIndex) => raw.buf_index = 1,
            Some(Spoil::Personality) => raw.personality = 77,
            Some(Spoil::Pad) => raw.pad2 = 1,
            Some(Spoil::Select) => raw.flags |= uapi::IOSQE_BUFFER_SELECT,
        }
        raw
    }

    /// The entry as bytes, with every name replaced.
    pub fn raw(&mut self, ring: usize, sqe: &Sqe) -> RawSqe {
        let at = self.arena.used;
        self.arena.used += 1;
        let data = (&raw mut self.arena.data[at]) as u64;
        let mut raw = match sqe.what {
            What::Message(message) => self.message(message, sqe.user_data),
            what => RawSqe::new(what.opcode(), sqe.user_data),
        };
        raw.flags |= sqe.flags;
        match sqe.what {
            What::Message(_) | What::Nop(0) => {}
            What::Nop(res) => {
                (raw.op_flags, raw.len) = (uapi::IORING_NOP_INJECT_RESULT, res as u32);
            }
            What::Read(_) => (raw.off, raw.addr, raw.len) = (u64::MAX, data, 8),
            What::Poll(_) => raw.op_flags = EVENTS,
            What::Timeout { time, count, flags } => {
                raw.addr = self.time(at, time, flags);
                (raw.len, raw.off, raw.op_flags) = (1, count.into(), flags);
            }
            What::LinkTimeout { time, flags } => {
                raw.addr = self.time(at, time, flags);
                (raw.len, raw.op_flags) = (1, flags);
            }
            What::TimeoutRemove { target, time, flags } => {
                (raw.addr, raw.op_flags) = (target, flags);
                if flags & IORING_TIMEOUT_UPDATE_MASK != 0 {
                    raw.off = self.time(at, time, flags);
                }
            }
            What::Cancel(Cancel { target, pipe, op, flags }) => {
                (raw.addr, raw.op_flags) = (target, flags);
                raw.fd = self.named(ring, pipe);
                if flags & uapi::IORING_ASYNC_CANCEL_OP != 0 {
                    raw.len = op.into();
                }
            }
        }
        if let What::Read(pipe) | What::Poll(pipe) = sqe.what {
            raw.fd = self.named(ring, pipe);
            if self.registered && ring == ONE {
                raw.flags |= uapi::IOSQE_FIXED_FILE;
            }
        }
        raw
    }

    /// Spoils the times that SQEs which have been taken pointed to.
    pub fn scribble(&mut self) {
        self.arena.times[..self.arena.used].fill([-1; 2]);
    }
}

/// A clock's time.
pub fn now(clock: libc::clockid_t) -> Duration {
    // SAFETY: plain numbers.
    let mut now: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: room for a time. The clock is always there.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Seconds and nanoseconds.
pub fn parts(span: Duration) -> [i64; 2] {
    [span.as_secs() as i64, span.subsec_nanos().into()]
}

fn counter() -> io::Result<File> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: new, and ours.
    Ok(unsafe { File::from_raw_fd(fd) })
}
