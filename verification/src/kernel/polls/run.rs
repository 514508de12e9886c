//! Runs a program of polls on a ring, and looks whether what came is what
//! must.

use std::fs::File as OsFile;
use std::hint::spin_loop;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use linux_raw_sys::general::EPOLLIN;
use linux_raw_sys::io_uring as uapi;

use super::super::compare::result;
use super::super::program::{Mode, Setup};
use super::super::target::{Cqe, RawSqe, Target};
use super::script::{BEHIND, Expected, FILES, File, Op, PAIRS, REMOVER, Step};

const ADD: u8 = uapi::io_uring_op::IORING_OP_POLL_ADD as u8;
const REMOVE: u8 = uapi::io_uring_op::IORING_OP_POLL_REMOVE as u8;
const FIXED: u8 = 1 << uapi::io_uring_sqe_flags_bit::IOSQE_FIXED_FILE_BIT as u8;
const CANCEL: u8 = uapi::io_uring_op::IORING_OP_ASYNC_CANCEL as u8;
const LINK: u8 = 1 << uapi::io_uring_sqe_flags_bit::IOSQE_IO_LINK_BIT as u8;
const ASYNC: u8 = 1 << uapi::io_uring_sqe_flags_bit::IOSQE_ASYNC_BIT as u8;
const MORE: u32 = uapi::IORING_CQE_F_MORE;
/// How long it is waited for what must not come.
const LINGER_NS: u64 = 200_000;
/// Between looks for what must.
const LOOK_NS: u64 = 2_000_000;
/// From here on it is NOPs.
const BEHIND_FIRST: u64 = REMOVER + BEHIND;
/// The `user_data` of a race's wait.
const RACER: u64 = 77;

/// A ring and its files.
pub struct Run<T> {
    ring: T,
    mode: Mode,
    files: Vec<Option<OwnedFd>>,
    fixed: bool,
    patience: Duration,
    cqes: Vec<Cqe>,
}

/// What completed: the operation's name, and how.
pub type Outcome = (&'static str, String);

impl<T: Target> Run<T> {
    /// Sets up a ring and a world, whose file lies in `dir`.
    ///
    /// # Errors
    /// Of the world or the set-up.
    pub fn new(dir: &Path, setup: &Setup, fixed: bool, patience: Duration) -> io::Result<Self> {
        let files: Vec<_> = world(dir)?.into_iter().map(Some).collect();
        let mut ring = T::setup(setup).map_err(io::Error::from_raw_os_error)?;
        if fixed {
            let numbers: Vec<i32> = files.iter().flatten().map(|fd| fd.as_raw_fd()).collect();
            let answer = ring.files(&numbers);
            if answer != 0 {
                return Err(io::Error::other(format!("registering: {}", result(answer))));
            }
        }
        Ok(Self { ring, mode: setup.mode, files, fixed, patience, cqes: Vec::new() })
    }

    /// Takes a step and waits for what must come of it.
    ///
    /// # Errors
    /// What came instead.
    pub fn step(&mut self, step: &Step, expected: &[Expected]) -> Result<Vec<Outcome>, String> {
        match step {
            Step::Batch(ops) => {
                let mut sqes = Vec::new();
                for (op, by) in ops.iter().zip(REMOVER..) {
                    sqes.push(self.entry(op, by));
                    if let Op::Add { link: true, .. } = op {
                        sqes.push(nop(by + BEHIND));
                    }
                }
                self.submit(&sqes)?;
            }
            Step::Put(file) => self.put(*file),
            Step::Take(file) => {
                let mut bytes = [0u8; 4096];
                // SAFETY: room for them.
                unsafe { libc::read(self.number(*file), bytes.as_mut_ptr().cast(), bytes.len()) };
            }
            Step::Close(file) => self.files[file.place()] = None,
            Step::Flood(i) => self.flood(File::Event(*i))?,
            Step::Race { event, multi, thread, here } => {
                let came = self.race(File::Event(*event), *multi, *thread, *here)?;
                return Ok(came.iter().map(|cqe| outcome(step, cqe)).collect());
            }
        }
        let came = self.settle(expected)?;
        Ok(came.iter().map(|cqe| outcome(step, cqe)).collect())
    }

    fn number(&self, file: File) -> i32 {
        self.files[file.place()].as_ref().map_or(-1, |fd| fd.as_raw_fd())
    }

    fn put(&self, file: File) {
        put(self.number(file));
    }

    fn entry(&self, op: &Op, by: u64) -> RawSqe {
        match *op {
            Op::Add { file, events, multi, user_data, later, link } => RawSqe {
                flags: if self.fixed { FIXED } else { 0 }
                    | if later { ASYNC } else { 0 }
                    | if link { LINK } else { 0 },
                fd: if self.fixed { file.place() as i32 } else { self.number(file) },
                len: if multi { uapi::IORING_POLL_ADD_MULTI } else { 0 },
                op_flags: events,
                ..RawSqe::new(ADD, user_data)
            },
            Op::Remove { user_data, later } => RawSqe {
                addr: user_data,
                flags: if later { ASYNC } else { 0 },
                ..RawSqe::new(REMOVE, by)
            },
            Op::Cancel { user_data, all } => {
                RawSqe { addr: user_data, op_flags: u32::from(all), ..RawSqe::new(CANCEL, by) }
            }
            Op::Update { old, user_data, events, multi } => RawSqe {
                addr: old,
                off: user_data.unwrap_or(0),
                op_flags: events.unwrap_or(0),
                len: user_data.map_or(0, |_| uapi::IORING_POLL_UPDATE_USER_DATA)
                    | events.map_or(0, |_| uapi::IORING_POLL_UPDATE_EVENTS)
                    | if multi { uapi::IORING_POLL_ADD_MULTI } else { 0 },
                ..RawSqe::new(REMOVE, by)
            },
            Op::Wrong { add: true, how } => {
                let good = RawSqe {
                    fd: self.number(File::Null),
                    op_flags: EPOLLIN,
                    ..RawSqe::new(ADD, REMOVER - 1)
                };
                match how % 5 {
                    0 => RawSqe { buf_index: 1, ..good },
                    1 => RawSqe { off: 1, ..good },
                    2 => RawSqe { addr: 1, ..good },
                    3 => RawSqe { ioprio: 1, ..good },
                    _ => RawSqe { len: 2 << (how % 31), ..good },
                }
            }
            Op::Wrong { add: false, how } => {
                let good = RawSqe { addr: 1, ..RawSqe::new(REMOVE, by) };
                match how % 7 {
                    0 => RawSqe { buf_index: 1, ..good },
                    1 => RawSqe { splice_fd_in: 1, ..good },
                    2 => RawSqe { off: 1, ..good },
                    3 => RawSqe { op_flags: 1, ..good },
                    4 => RawSqe { len: uapi::IORING_POLL_ADD_MULTI, ..good },
                    5 => RawSqe { op_flags: 1, len: uapi::IORING_POLL_UPDATE_USER_DATA, ..good },
                    _ => RawSqe { len: 8 << (how % 29), ..good },
                }
            }
        }
    }

    fn submit(&mut self, sqes: &[RawSqe]) -> Result<(), String> {
        for sqe in sqes {
            // SAFETY: polls name no memory.
            if !unsafe { self.ring.push(sqe, None) } {
                return Err("the SQ is full".into());
            }
        }
        let end = Instant::now() + self.patience;
        while self.ring.pending() > 0 {
            let wakeup = match self.mode {
                Mode::SqPoll if self.ring.sq_flags() & uapi::IORING_SQ_NEED_WAKEUP == 0 => {
                    std::thread::yield_now();
                    None
                }
                Mode::SqPoll => Some(uapi::IORING_ENTER_SQ_WAKEUP),
                _ => Some(0),
            };
            if let Some(flags) = wakeup {
                let pending = self.ring.pending();
                self.ring.enter(pending, 0, flags, None);
            }
            if Instant::now() > end {
                return Err("the SQ does not empty".into());
            }
        }
        Ok(())
    }

    /// Drives the ring for a while, unless `count` CQEs are there.
    fn look(&mut self, count: usize, ns: u64) {
        self.ring.reap(usize::MAX, &mut self.cqes);
        if self.cqes.len() < count {
            self.ring.enter(0, 1, uapi::IORING_ENTER_GETEVENTS, Some(ns));
            self.ring.reap(usize::MAX, &mut self.cqes);
        }
    }

    fn settle(&mut self, expected: &[Expected]) -> Result<Vec<Cqe>, String> {
        let end = Instant::now() + self.patience;
        while self.cqes.len() < expected.len() && Instant::now() < end {
            self.look(expected.len(), LOOK_NS);
        }
        self.look(usize::MAX, LINGER_NS);
        let came = std::mem::take(&mut self.cqes);
        let mut left: Vec<_> = expected.to_vec();
        // What fits exactly takes its place before what fits somewhere.
        left.sort_by_key(|e| e.least != e.most);
        for cqe in &came {
            let fits = |e: &Expected| e.admits(cqe.user_data, cqe.res, cqe.flags);
            match left.iter().position(fits) {
                Some(at) => drop(left.remove(at)),
                None => return Err(format!("{} came, not one of {}", told(&came), list(expected))),
            }
        }
        match left.is_empty() {
            true => Ok(came),
            false => Err(format!("{} came, and never {}", told(&came), list(&left))),
        }
    }

    /// Counts until the CQ is full and somebody waits for room.
    fn flood(&mut self, file: File) -> Result<(), String> {
        let cq = self.ring.sizes().cq as usize;
        for n in 1..=cq + 1 {
            self.put(file);
            let end = Instant::now() + self.patience;
            let there = |ring: &mut T| match n > cq {
                true => ring.sq_flags() & uapi::IORING_SQ_CQ_OVERFLOW != 0,
                false => ring.ready() >= n,
            };
            while !there(&mut self.ring) {
                if Instant::now() > end {
                    return Err(format!("completion {n} of a CQ of {cq} did not come"));
                }
                if n > cq {
                    // It must not be made room for; that nobody does.
                    self.ring.enter(0, 0, uapi::IORING_ENTER_GETEVENTS, Some(0));
                    std::thread::yield_now();
                } else {
                    self.ring.enter(0, n as u32, uapi::IORING_ENTER_GETEVENTS, Some(LOOK_NS));
                }
            }
        }
        Ok(())
    }

    /// A wait is added and removed, and a thread makes its file ready.
    fn race(
        &mut self,
        file: File,
        multi: bool,
        thread: u32,
        here: u32,
    ) -> Result<Vec<Cqe>, String> {
        let spin = |turns: u32| (0..turns).for_each(|_| spin_loop());
        let number = self.number(file);
        let counting = std::thread::spawn(move || {
            spin(thread);
            put(number);
        });
        let add =
            Op::Add { file, events: EPOLLIN, multi, user_data: RACER, later: false, link: false };
        let remove = Op::Remove { user_data: RACER, later: false };
        let (add, remove) = (self.entry(&add, REMOVER), self.entry(&remove, REMOVER));
        self.submit(&[add])?;
        spin(here);
        self.submit(&[remove])?;
        let end = Instant::now() + self.patience;
        let (mut removed, mut ended, mut came) = (None, None, Vec::new());
        while removed.is_none() || ended.is_none() {
            self.look(1, LOOK_NS);
            for cqe in std::mem::take(&mut self.cqes) {
                came.push(cqe);
                match (cqe.user_data, cqe.flags) {
                    (REMOVER, 0) => removed = Some(cqe.res),
                    (RACER, MORE) if multi && ended.is_none() && cqe.res == EPOLLIN as i32 => {}
                    (RACER, 0) if ended.replace(cqe.res).is_none() => {}
                    _ => return Err(format!("{} came in a race", told(&came))),
                }
            }
            if multi && removed == Some(-libc::EALREADY) && ended.is_none() {
                // It says what it has to say, and goes on.
                removed = None;
                self.submit(&[remove])?;
            }
            if Instant::now() > end {
                return Err(format!("{} came in a race, and no end", told(&came)));
            }
        }
        counting.join().map_err(|_| "the counting thread panicked")?;
        let mut count = [0u8; 8];
        // SAFETY: room for it.
        unsafe { libc::read(number, count.as_mut_ptr().cast(), count.len()) };
        let right = match (removed, ended) {
            (Some(0), Some(res)) => res == -libc::ECANCELED,
            (Some(e), Some(res)) if e == -libc::ENOENT || e == -libc::EALREADY => {
                res == EPOLLIN as i32 && !multi
            }
            _ => false,
        };
        match right {
            true => Ok(came),
            false => Err(format!("{} came in a race", told(&came))),
        }
    }
}

fn nop(user_data: u64) -> RawSqe {
    RawSqe::new(uapi::io_uring_op::IORING_OP_NOP as u8, user_data)
}

fn put(number: i32) {
    // Eight bytes are a count to an eventfd, and some bytes to a pipe.
    let one = 1u64.to_ne_bytes();
    // SAFETY: reads them.
    let n = unsafe { libc::write(number, one.as_ptr().cast(), one.len()) };
    debug_assert_eq!(n, 8);
}

/// What a completion of a step is counted as.
fn outcome(step: &Step, cqe: &Cqe) -> Outcome {
    let op = match (step, cqe.user_data.checked_sub(REMOVER)) {
        (Step::Batch(ops), Some(at)) => ops.get(at as usize),
        _ => None,
    };
    let name = match (op, cqe.user_data) {
        (Some(Op::Cancel { .. }), _) => "CANCEL",
        (_, BEHIND_FIRST..) => "NOP",
        (_, REMOVER..) => "POLL_REMOVE",
        _ => "POLL_ADD",
    };
    let how = match cqe.res {
        res if res < 0 => result(res),
        _ if cqe.flags & MORE != 0 => "more".into(),
        _ => "ok".into(),
    };
    (name, how)
}

fn told(cqes: &[Cqe]) -> String {
    let one = |cqe: &Cqe| match cqe.res {
        res if res < 0 => format!("{}: {} flags {}", cqe.user_data, result(res), cqe.flags),
        res => format!("{}: {res:#x} flags {}", cqe.user_data, cqe.flags),
    };
    format!("[{}]", cqes.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn list(expected: &[Expected]) -> String {
    let one = |e: &Expected| match e.least {
        res if res < 0 => format!("{}: {} flags 0", e.user_data, result(res)),
        res => {
            let upto = if e.most == res { String::new() } else { format!(" to {:#x}", e.most) };
            format!("{}: {res:#x}{upto} flags {}", e.user_data, u32::from(e.more) << 1)
        }
    };
    format!("[{}]", expected.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// The files, by their places.
fn world(dir: &Path) -> io::Result<Vec<OwnedFd>> {
    let or_error = |n: i32| if n >= 0 { Ok(n) } else { Err(io::Error::last_os_error()) };
    // SAFETY: a number that has just been made, and nobody else has.
    let own = |fd: i32| unsafe { OwnedFd::from_raw_fd(fd) };
    let mut files = Vec::with_capacity(FILES);
    for _ in 0..PAIRS {
        let mut ends = [0; 2];
        // SAFETY: room for two.
        or_error(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
        files.extend(ends.map(own));
        // SAFETY: no memory is passed.
        let event = or_error(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        files.push(own(event));
    }
    files.push(tempfile::tempfile_in(dir)?.into());
    files.push(OsFile::options().read(true).write(true).open("/dev/null")?.into());
    Ok(files)
}
