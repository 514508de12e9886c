//! Races: a read waits for a pipe that is fed, cancelled, and guarded by a time,
//! each at a random moment; a timeout is removed just when it ends. Who is first
//! is open, so both sides are held against what must be in any case: one
//! completion each, and all of them telling the same story.

use std::fmt;
use std::hint::spin_loop;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use annulus::uapi::{self, IORING_ENTER_GETEVENTS, IORING_ENTER_SQ_WAKEUP, IORING_SQ_NEED_WAKEUP};

use super::super::annulus::Annulus;
use super::super::compare::result;
use super::super::program::{Mode, Setup};
use super::super::rng::Rng;
use super::super::target::{Cqe, RawSqe, Target};
use super::super::uring::Kernel;

/// Races of a program.
const RACES: usize = 6;
/// Turns of a loop that nobody waits for longer than.
const SPIN: u64 = 4000;
const LOOK_NS: u64 = 2_000_000;
const READ: u64 = 1;
const GUARD: u64 = 2;
const NEXT: u64 = 3;
const ENDER: u64 = 4;
const CANCELED: i32 = -libc::ECANCELED;
const LATE: [i32; 2] = [-libc::ENOENT, -libc::EALREADY];

/// One of them.
#[derive(Clone, Copy, Debug)]
enum Race {
    Read { vectored: bool, hard: bool, guard: Option<u32>, cancel: bool, feed: u64, here: u64 },
    Timeout { ns: u32, here: u64 },
}

/// A program.
#[derive(Clone, Debug)]
pub struct Program {
    mode: Mode,
    races: [Race; RACES],
}

impl Program {
    /// The program of this seed and number.
    pub fn nth(seed: u64, index: u64, mode: Option<Mode>) -> Self {
        let mut rng = Rng::nth(seed ^ 0x7261_6365, index);
        let drawn = *rng.pick(&Mode::ALL);
        let races = std::array::from_fn(|_| match rng.chance(70) {
            true => Race::Read {
                vectored: rng.chance(30),
                hard: rng.chance(30),
                guard: rng.chance(50).then(|| rng.below(80_000) as u32),
                cancel: rng.chance(70),
                feed: rng.below(SPIN),
                here: rng.below(SPIN),
            },
            false => Race::Timeout { ns: rng.below(60_000) as u32, here: rng.below(SPIN) },
        });
        Self { mode: mode.unwrap_or(drawn), races }
    }

    /// Runs it on both sides; the kernel's completions, or what is wrong.
    ///
    /// # Errors
    /// Of the machine.
    pub fn compare(&self, patience: Duration) -> io::Result<Result<Vec<(u8, Cqe)>, String>> {
        let theirs = self.run::<Kernel>(patience)?;
        Ok(self.run::<Annulus>(patience)?.and(theirs))
    }

    fn run<T: Target>(&self, patience: Duration) -> io::Result<Result<Vec<(u8, Cqe)>, String>> {
        let setup = Setup {
            mode: self.mode,
            entries: 8,
            cq_entries: None,
            array: true,
            submit_all: true,
            clamp: false,
            pool: None,
            uapi_layout: false,
            disabled: false,
        };
        let ring = T::setup(&setup).map_err(io::Error::from_raw_os_error)?;
        let (reader, writer) = io::pipe()?;
        let mut run = Run { ring, mode: self.mode, patience, reader, writer };
        let mut all = Vec::new();
        for (n, race) in self.races.iter().enumerate() {
            let came = run.race(race)?;
            if let Err(why) = story(race, &came, T::NAME == Kernel::NAME) {
                let list: Vec<_> =
                    came.iter().map(|c| format!("{}: {}", c.user_data, result(c.res))).collect();
                return Ok(Err(format!("{}, race {n}: {why}: {list:?}", T::NAME)));
            }
            let op = |cqe: &Cqe| match (race, cqe.user_data) {
                (Race::Timeout { .. }, READ) => uapi::IORING_OP_TIMEOUT,
                (Race::Timeout { .. }, _) => uapi::IORING_OP_TIMEOUT_REMOVE,
                (Race::Read { vectored: true, .. }, READ) => uapi::IORING_OP_READV,
                (_, READ) => uapi::IORING_OP_READ,
                (_, GUARD) => uapi::IORING_OP_LINK_TIMEOUT,
                (_, NEXT) => uapi::IORING_OP_NOP,
                _ => uapi::IORING_OP_ASYNC_CANCEL,
            };
            all.extend(came.iter().map(|cqe| (op(cqe), *cqe)));
        }
        Ok(Ok(all))
    }

    /// Who drives the ring.
    pub fn mode(&self) -> Mode {
        self.mode
    }
}

/// Whether the completions of a race tell one story, as the kernel's do or ours.
fn story(race: &Race, came: &[Cqe], kernel: bool) -> Result<(), &'static str> {
    let of = |user_data| {
        let mut own = came.iter().filter(move |cqe| cqe.user_data == user_data);
        let first = own.next().map(|cqe| cqe.res);
        if own.next().is_some() { Err("two completions of one request") } else { Ok(first) }
    };
    let (first, guard, next, ender) = (of(READ)?, of(GUARD)?, of(NEXT)?, of(ENDER)?);
    let must = |is: bool, why| if is { Ok(()) } else { Err(why) };
    let first = first.ok_or("a request that never ends")?;
    let ended = ender == Some(0);
    let late = ender.is_none_or(|res| LATE.contains(&res));
    must(came.iter().all(|cqe| cqe.flags == 0), "a flag")?;
    must(ended || late, "a cancellation that fails otherwise")?;
    match *race {
        Race::Timeout { .. } => {
            must(ender.is_some(), "a removal that never ends")?;
            must(if ended { first == CANCELED } else { first == -libc::ETIME }, "two ends")
        }
        Race::Read { hard, guard: guarded, cancel, .. } => {
            must(guarded.is_some() == guard.is_some(), "a guard that never ends")?;
            must(cancel == ender.is_some(), "a cancellation that never ends")?;
            let timed = guard == Some(-libc::ETIME);
            // Linux's guard says so of a read that is just ending, too.
            let late = kernel && timed && first == 8;
            let known = |res| timed || res == CANCELED || LATE.contains(&res);
            must(guard.is_none_or(known), "a guard that fails otherwise")?;
            let stopped = ended || timed && !late;
            must(if stopped { first == CANCELED } else { first == 8 }, "an end without a reason")?;
            let goes_on = first == 8 || hard;
            must(next == Some(if goes_on { 0 } else { CANCELED }), "the rest of the chain")
        }
    }
}

struct Run<T> {
    ring: T,
    mode: Mode,
    patience: Duration,
    reader: PipeReader,
    writer: PipeWriter,
}

/// What SQEs point to. On the heap, and leaked if it does not come back.
struct Memory {
    time: [i64; 2],
    iovec: [u64; 2],
    data: [u8; 8],
}

fn spin(turns: u64) {
    (0..turns).for_each(|_| spin_loop());
}

impl<T: Target> Run<T> {
    fn submit(&mut self, sqes: &[RawSqe]) -> io::Result<()> {
        // SAFETY: whoever calls keeps what they name until its end.
        if !unsafe { self.ring.push_all(sqes) } {
            return Err(io::Error::other("the SQ is full"));
        }
        let end = Instant::now() + self.patience;
        while self.ring.pending() != 0 {
            let pending = self.ring.pending();
            if self.mode != Mode::SqPoll {
                self.ring.enter(pending, 0, 0, None);
            } else if self.ring.sq_flags() & IORING_SQ_NEED_WAKEUP != 0 {
                self.ring.enter(pending, 0, IORING_ENTER_SQ_WAKEUP, None);
            } else {
                std::thread::yield_now();
            }
            if Instant::now() > end {
                return Err(io::Error::other("the SQ does not empty"));
            }
        }
        Ok(())
    }

    fn race(&mut self, race: &Race) -> io::Result<Vec<Cqe>> {
        let mut memory = Box::new(Memory { time: [0; 2], iovec: [0; 2], data: [0; 8] });
        memory.iovec = [memory.data.as_mut_ptr().expose_provenance() as u64, 8];
        let time = |at: &mut Memory, ns: u32| {
            at.time = [0, ns.into()];
            (&raw const at.time).expose_provenance() as u64
        };
        let mut came = Vec::new();
        match *race {
            Race::Timeout { ns, here } => {
                let addr = time(&mut memory, ns);
                self.submit(&[RawSqe {
                    addr,
                    len: 1,
                    ..RawSqe::new(uapi::IORING_OP_TIMEOUT, READ)
                }])?;
                spin(here);
                self.submit(&[RawSqe {
                    addr: READ,
                    ..RawSqe::new(uapi::IORING_OP_TIMEOUT_REMOVE, ENDER)
                }])?;
                self.gather(2, &mut came)?;
            }
            Race::Read { vectored, hard, guard, cancel, feed, here } => {
                let link = if hard { uapi::IOSQE_IO_HARDLINK } else { uapi::IOSQE_IO_LINK };
                let (opcode, addr, len) = match vectored {
                    true => {
                        let iovec = (&raw const memory.iovec).expose_provenance() as u64;
                        (uapi::IORING_OP_READV, iovec, 1)
                    }
                    false => (uapi::IORING_OP_READ, memory.iovec[0], 8),
                };
                let (fd, off) = (self.reader.as_raw_fd(), u64::MAX);
                let mut sqes =
                    vec![RawSqe { flags: link, fd, off, addr, len, ..RawSqe::new(opcode, READ) }];
                if let Some(ns) = guard {
                    let (addr, flags) = (time(&mut memory, ns), link);
                    let guard = RawSqe::new(uapi::IORING_OP_LINK_TIMEOUT, GUARD);
                    sqes.push(RawSqe { flags, addr, len: 1, ..guard });
                }
                sqes.push(RawSqe::new(uapi::IORING_OP_NOP, NEXT));
                let count = sqes.len() + usize::from(cancel);
                let mut writer = self.writer.try_clone()?;
                let feeder = std::thread::spawn(move || {
                    spin(feed);
                    writer.write_all(&[9; 8])
                });
                self.submit(&sqes)?;
                spin(here);
                if cancel {
                    let cancel = RawSqe::new(uapi::IORING_OP_ASYNC_CANCEL, ENDER);
                    self.submit(&[RawSqe { addr: READ, ..cancel }])?;
                }
                feeder.join().map_err(|_| io::Error::other("the feeder panicked"))??;
                self.gather(count, &mut came)?;
                if came.iter().all(|cqe| (cqe.user_data, cqe.res) != (READ, 8)) {
                    self.reader.read_exact(&mut [0; 8])?;
                }
            }
        }
        if !came.iter().any(|cqe| cqe.user_data == READ) {
            // It may be written to still.
            Box::leak(memory);
        }
        Ok(came)
    }

    /// Waits for `count` completions, and looks for more.
    fn gather(&mut self, count: usize, came: &mut Vec<Cqe>) -> io::Result<()> {
        let end = Instant::now() + self.patience;
        loop {
            self.ring.reap(usize::MAX, came);
            if came.len() >= count || Instant::now() > end {
                break;
            }
            self.ring.enter(0, 1, IORING_ENTER_GETEVENTS, Some(LOOK_NS));
        }
        self.ring.enter(0, 0, IORING_ENTER_GETEVENTS, None);
        self.ring.reap(usize::MAX, came);
        Ok(())
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "races: {}", self.mode.name())?;
        self.races.iter().try_for_each(|race| writeln!(f, "  {race:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cqes(list: &[(u64, i32)]) -> Vec<Cqe> {
        list.iter().map(|&(user_data, res)| Cqe { user_data, res, flags: 0 }).collect()
    }

    #[test]
    fn stories_that_do_not_fit_are_told_apart() {
        let race = Race::Read {
            vectored: false,
            hard: false,
            guard: Some(1),
            cancel: true,
            feed: 0,
            here: 0,
        };
        let good = [
            [(READ, 8), (GUARD, CANCELED), (NEXT, 0), (ENDER, LATE[0])],
            [(READ, CANCELED), (GUARD, -libc::ETIME), (NEXT, CANCELED), (ENDER, LATE[1])],
            [(READ, CANCELED), (GUARD, CANCELED), (NEXT, CANCELED), (ENDER, 0)],
        ];
        for came in good {
            assert_eq!(story(&race, &cqes(&came), false), Ok(()), "{came:?}");
        }
        let bad = [
            [(READ, 8), (GUARD, -libc::ETIME), (NEXT, 0), (ENDER, LATE[0])],
            [(READ, 8), (GUARD, CANCELED), (NEXT, 0), (ENDER, 0)],
            [(READ, CANCELED), (GUARD, CANCELED), (NEXT, CANCELED), (ENDER, LATE[0])],
            [(READ, CANCELED), (GUARD, CANCELED), (NEXT, 0), (ENDER, 0)],
            [(READ, 8), (READ, 8), (NEXT, 0), (ENDER, LATE[0])],
        ];
        for came in bad {
            assert!(story(&race, &cqes(&came), false).is_err(), "{came:?}");
        }
        // Only the first of them may be the kernel's.
        assert_eq!(bad.map(|came| story(&race, &cqes(&came), true).is_ok()), {
            [true, false, false, false, false]
        });
    }
}
