//! Runs a program: the kernel first, which shows how many completions each
//! round gives, then Annulus until it has as many.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use annulus::uapi::{
    self, IORING_ASYNC_CANCEL_ALL, IORING_ASYNC_CANCEL_ANY, IORING_ENTER_GETEVENTS,
    IORING_SQ_CQ_OVERFLOW,
};

use super::super::program::{Mode, Setup};
use super::super::rest::{at_rest, taken};
use super::super::target::{Cqe, Target};
use super::program::{Act, EVENT, FEW, File, Program, RING, Round, Sqe, Time, What};
use super::world::{Arena, World};

/// SQ entries.
const ENTRIES: u32 = 128;
/// The user data of what ends a program.
const LAST: u64 = 1;
/// And of the proof that nothing is in flight.
const NOTHING_LEFT: u64 = 2;
/// How often everything is cancelled in the end: a chain may begin anew.
const CANCELS: usize = 16;
/// As long as nothing comes a round goes on for, where times end.
const TIMES: Duration = Duration::from_micros(2500);
/// Between looks at the other threads.
const LOOK: Duration = Duration::from_micros(150);
/// How long a completion that must come may take the kernel.
const LEAST: Duration = Duration::from_secs(1);

/// What a round did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What the call that submitted said (0 with a polling thread).
    pub answer: i32,
    /// Its completions.
    pub cqes: Vec<Cqe>,
    /// Whether they must be in this order.
    pub ordered: bool,
    /// Nothing is taken out of the CQ.
    pub unread: bool,
    /// Then, how many there are, and whether more wait for room.
    pub there: Option<(usize, bool)>,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The program's rounds, then those that end it.
    pub rounds: Vec<Seen>,
    /// Whose writes were done.
    pub written: Vec<u64>,
    /// What was read into buffers that were provided.
    pub memory: u64,
    /// What has become of the files of chains, and of memory that tells of them.
    pub kept: Vec<String>,
}

impl Seen {
    /// How many have come.
    fn count(&self) -> usize {
        self.there.map_or(self.cqes.len(), |(count, _)| count)
    }
}

/// What has been pushed and has not ended, as far as CQEs tell.
#[derive(Default)]
struct Open {
    /// Requests of each user data.
    count: BTreeMap<u64, i64>,
    /// The user data of those that have a time which ends, or are given one.
    timed: BTreeSet<u64>,
    /// And of those that a worker of Linux's may do.
    work: BTreeSet<u64>,
    /// Something has drained: a worker does whatever comes behind.
    drained: bool,
}

impl Open {
    fn add(&mut self, sqes: &[Sqe]) {
        let cut = sqes.last().is_some_and(Sqe::linked);
        let mut behind = false;
        for sqe in sqes {
            *self.count.entry(sqe.user_data).or_default() += 1;
            if sqe.what.time().is_some_and(Time::ends) {
                self.timed.insert(match sqe.what {
                    What::TimeoutRemove { target, .. } => target,
                    _ => sqe.user_data,
                });
            }
            behind |= sqe.works();
            if cut || behind {
                self.work.insert(sqe.user_data);
            }
            behind &= sqe.linked();
            self.drained |= sqe.flags & uapi::IOSQE_IO_DRAIN != 0;
        }
    }

    fn end(&mut self, cqes: &[Cqe]) {
        for cqe in cqes.iter().filter(|cqe| cqe.flags & uapi::IORING_CQE_F_MORE == 0) {
            *self.count.entry(cqe.user_data).or_default() -= 1;
        }
    }

    fn any(&self, of: &BTreeSet<u64>) -> bool {
        of.iter().any(|user_data| self.count.get(user_data).is_some_and(|&n| n > 0))
    }

    /// Whether anything is left that may come to its end by time.
    fn times(&self) -> bool {
        self.any(&self.timed)
    }

    /// Whether anything is left that a worker may have to do.
    fn works(&self) -> bool {
        self.any(&self.work) || self.drained && self.count.values().any(|&n| n > 0)
    }
}

fn good(answer: i32) -> io::Result<()> {
    if answer < 0 { Err(io::Error::from_raw_os_error(-answer)) } else { Ok(()) }
}

struct Run<'a, T> {
    ring: T,
    world: World<'a>,
    mode: Mode,
    open: Open,
    /// Completions that a round must have, if nobody has told how many.
    least: usize,
    /// The pipes that anything waits for.
    pipes: [bool; EVENT as usize + 1],
    /// Something may end without a CQE.
    skips: bool,
    /// Everything ends where it is submitted.
    ordered: bool,
    /// Of what has been pushed last, workers have a part in something.
    workers: bool,
    slowly: u32,
    /// Completions of each round, and how long to wait for them.
    told: Option<(&'a Trace, Duration)>,
    trace: Trace,
}

/// Runs `program`; as long as `told` has it, if there is such a trace. What
/// takes time gets `slowly` times as much.
///
/// # Errors
/// Of the machine.
pub fn run<T: Target>(
    program: &Program,
    slowly: u32,
    told: Option<(&Trace, Duration)>,
    dir: &Path,
    arena: &mut Arena,
) -> io::Result<Trace> {
    let mut world = World::new(dir, arena, program)?;
    let setup = Setup {
        mode: program.mode,
        entries: if program.few { FEW } else { ENTRIES },
        cq_entries: program.few.then_some(FEW),
        array: true,
        submit_all: program.submit_all,
        clamp: false,
        pool: program.tight.then_some(program.sqes().count() as u32 + 2),
        uapi_layout: false,
        disabled: false,
    };
    let mut ring = T::setup(&setup).map_err(io::Error::from_raw_os_error)?;
    if program.registered || program.table {
        good(ring.files(&world.files()))?;
    }
    if program.fixed() {
        // SAFETY: the arena lasts as long as the process.
        good(unsafe { ring.buffers(&[world.fixed()]) })?;
    }
    if program.sqes().any(|sqe| sqe.group() == Some(RING)) {
        let (base, entries) = world.buffers().ring();
        // SAFETY: the arena lasts as long as the process.
        good(unsafe { ring.buf_ring(base, entries, RING) })?;
    }
    let mode = program.mode;
    let mut run = Run {
        ring,
        world,
        mode,
        open: Open::default(),
        least: 0,
        pipes: std::array::from_fn(|n| program.sqes().any(|sqe| sqe.what.reads(n as u8))),
        skips: program.sqes().any(|sqe| sqe.flags & uapi::IOSQE_CQE_SKIP_SUCCESS != 0),
        ordered: mode != Mode::SqPoll,
        workers: false,
        slowly,
        told,
        trace: Trace::default(),
    };
    for round in &program.rounds {
        run.round(round)?;
    }
    run.end()?;
    let Run { ring, mut world, mut trace, .. } = run;
    // Its own descriptors of files go with it.
    drop(ring);
    trace.kept = world.kept()?;
    Ok(trace)
}

impl<T: Target> Run<'_, T> {
    fn round(&mut self, round: &Round) -> io::Result<()> {
        // What waits may end by time, or by a worker, in any later round.
        self.open.add(&round.sqes);
        self.ordered &= !round.has_times() && !round.has_workers() && !round.has_pipes();
        for &act in &round.pipes {
            self.act(act)?;
        }
        let room = self.ring.sizes().sq.saturating_sub(round.sqes.len() as u32);
        // Workers and whoever looks for their work are not of one batch.
        let workers = round.sqes.iter().any(Sqe::works);
        self.workers |= workers;
        let least = if self.workers { 0 } else { room };
        // Batches may have ended at SQEs that fail.
        for _ in least..self.ring.pending() {
            if self.ring.pending() > least {
                self.settle(Seen::default(), Some(0))?;
            }
        }
        self.workers = workers || self.workers && self.ring.pending() != 0;
        let raw: Vec<_> = round.sqes.iter().map(|sqe| self.world.raw(sqe)).collect();
        // SAFETY: the arena lasts as long as the process.
        if !unsafe { self.ring.push_all(&raw) } {
            return Err(io::Error::other("more SQEs than the ring has room for"));
        }
        let seen = Seen { ordered: self.ordered, unread: round.unread, ..Seen::default() };
        self.settle(seen, Some(round.leave))
    }

    /// Does something to a pipe. What waited has to be gone on with before it is
    /// looked for.
    fn act(&mut self, act: Act) -> io::Result<()> {
        self.world.act(act)?;
        match act {
            Act::Feed(pipe) if self.pipes[usize::from(pipe)] => self.settle(Seen::default(), None),
            // Nothing comes of it.
            _ => Ok(()),
        }
    }

    /// Submits all but `leave` SQEs, and gathers what comes.
    fn settle(&mut self, mut seen: Seen, leave: Option<u32>) -> io::Result<()> {
        let at = self.trace.rounds.len();
        if let Some(leave) = leave {
            seen.answer = self.submit(leave)?;
        }
        let told = match self.told {
            Some((trace, patience)) => {
                Some((trace.rounds.get(at).map_or(0, Seen::count), patience))
            }
            None => Some((self.least, LEAST)),
        };
        let start = Instant::now();
        let (mut had, mut told_of) = (usize::MAX, 0);
        let mut any = leave.is_some() || self.skips;
        let mut waited = false;
        loop {
            let have = if seen.unread {
                self.ring.ready()
            } else {
                self.ring.reap(usize::MAX, &mut seen.cqes);
                for cqe in &mut seen.cqes[told_of..] {
                    cqe.res = self.world.tree().take(cqe.user_data, cqe.res)?;
                }
                seen.cqes.len()
            };
            self.open.end(&seen.cqes[told_of..]);
            told_of = seen.cqes.len();
            any |= have != 0;
            let some = have != std::mem::replace(&mut had, have);
            waited &= !some;
            let left = told.and_then(|(want, patience)| {
                (have < want).then(|| patience.saturating_sub(start.elapsed()))
            });
            let rest = at_rest(&mut self.ring, self.open.works())?;
            // What is on its way to a timer has to get there first. Where nothing
            // has happened no time has begun, and those before are over.
            let times = any && !waited && self.open.times();
            let quiet = match rest {
                false => LOOK,
                true if times && !some => {
                    waited = true;
                    TIMES * self.slowly
                }
                true => Duration::ZERO,
            };
            let rest = rest && !some && !times;
            let left = left.filter(|_| rest);
            if seen.unread {
                // The ring would not wait if its CQ is full.
                sleep(quiet);
                self.look(Duration::ZERO)?;
            } else {
                self.look(left.unwrap_or(Duration::ZERO).max(quiet))?;
            }
            let known = if seen.unread { have } else { 0 };
            if rest && self.ring.ready() == known && at_rest(&mut self.ring, self.open.works())? {
                // What they have left to this thread.
                self.look(Duration::ZERO)?;
                if self.ring.ready() == known && left.is_none_or(|left| left.is_zero()) {
                    break;
                }
            }
        }
        if seen.unread {
            let more = self.ring.sq_flags() & IORING_SQ_CQ_OVERFLOW != 0;
            seen.there = Some((self.ring.ready(), more));
        }
        if self.ring.pending() == 0 {
            self.world.scribble();
        }
        self.trace.rounds.push(seen);
        Ok(())
    }

    /// Has the ring do what there is to do, for so long unless something comes.
    fn look(&mut self, time: Duration) -> io::Result<()> {
        let wait = Some(time.as_nanos() as u64).filter(|&ns| ns != 0);
        let answer = self.ring.enter(0, wait.is_some().into(), IORING_ENTER_GETEVENTS, wait);
        match answer < 0 && answer != -libc::ETIME {
            true => Err(io::Error::from_raw_os_error(-answer)),
            false => Ok(()),
        }
    }

    fn submit(&mut self, leave: u32) -> io::Result<i32> {
        let pending = self.ring.pending();
        if self.mode != Mode::SqPoll {
            return Ok(self.ring.enter(pending.saturating_sub(leave), 0, 0, None));
        }
        taken(&mut self.ring)?;
        Ok(0)
    }

    /// Ends everything that can be ended.
    fn end(&mut self) -> io::Result<()> {
        // Batches may end at SQEs that fail.
        for _ in 0..self.ring.pending() {
            self.settle(Seen::default(), Some(0))?;
        }
        self.ordered = false;
        for pipe in 0..=EVENT {
            // Whatever was in it.
            self.act(Act::Empty(pipe))?;
            self.act(Act::Feed(pipe))?;
        }
        let flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL;
        let what = What::Cancel { target: 0, file: File::None, op: uapi::IORING_OP_NOP, flags };
        for _ in 0..CANCELS {
            let at = self.trace.rounds.len();
            let sqe = Sqe { what, flags: 0, user_data: LAST, select: None, spoil: None };
            self.round(&Round { sqes: vec![sqe], ..Round::default() })?;
            let last = |seen: &Seen| {
                let own = seen.cqes.iter().find(|cqe| cqe.user_data == LAST);
                own.map(|cqe| cqe.res)
            };
            let said = match self.told {
                Some((told, _)) => told.rounds.get(at).and_then(last),
                None => last(&self.trace.rounds[at]),
            };
            match said {
                Some(0) => {
                    // Comes when everything else has ended, and not before.
                    self.least = 1;
                    let what = What::Nop(0);
                    let flags = uapi::IOSQE_IO_DRAIN;
                    let sqe =
                        Sqe { what, flags, user_data: NOTHING_LEFT, select: None, spoil: None };
                    self.round(&Round { sqes: vec![sqe], ..Round::default() })?;
                    self.places()?;
                    break;
                }
                Some(_) => {}
                // Something drains that nothing ends.
                None => break,
            }
        }
        self.trace.written = self.world.written()?;
        self.trace.memory = self.world.buffers().checksum();
        Ok(())
    }

    /// Reads from whatever is in the places of chains.
    fn places(&mut self) -> io::Result<()> {
        let raw: Vec<_> = self.world.look_at_places();
        if raw.is_empty() {
            return Ok(());
        }
        self.least = raw.len();
        // SAFETY: the arena lasts as long as the process.
        if !unsafe { self.ring.push_all(&raw) } {
            return Err(io::Error::other("more places than the ring has room for"));
        }
        self.settle(Seen::default(), Some(0))
    }
}
