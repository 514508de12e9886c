//! Runs a program: the kernel first, which shows how many completions each
//! step gives, then Annulus until it has as many.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::thread::{ScopedJoinHandle, scope, sleep};
use std::time::{Duration, Instant};

use annulus::uapi::{
    self, IORING_ASYNC_CANCEL_ANY, IORING_ENTER_GETEVENTS, IORING_ENTER_SQ_WAKEUP,
    IORING_SQ_CQ_OVERFLOW,
};

use super::super::program::{Mode, Setup};
use super::super::rest::{at_rest, taken};
use super::super::target::Cqe;
use super::calls::Calls as _;
use super::program::{Act, Cancel, Later, Message, ONE, OTHER, Program, Sqe, To, Wait, What};
use super::target::{Argument, Named};
use super::world::{Arena, NONE, World, now, parts};

/// SQ entries, and CQ entries of a small ring.
const ENTRIES: u32 = 32;
const FEW: u32 = 8;
/// How long a unit of time is: more than a busy machine is late by, mostly.
const UNIT: Duration = Duration::from_millis(6);
/// Between looks.
const LOOK: Duration = Duration::from_micros(100);

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What its call said.
    pub answer: i32,
    /// What a thread was told that sent a message meanwhile.
    pub later: Option<i32>,
    /// How long the call took, in units.
    pub took: u32,
    /// The completions of either ring.
    pub cqes: [Vec<Cqe>; 2],
    /// If they were left there, how many there were, and whether more waited
    /// for room.
    pub there: [Option<(usize, bool)>; 2],
    /// Which eventfds were rung.
    pub rung: [bool; 2],
}

impl Seen {
    fn counts(&self) -> [usize; 2] {
        [0, 1].map(|ring| self.there[ring].map_or(self.cqes[ring].len(), |(count, _)| count))
    }
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The program's steps, then those that end it.
    pub steps: Vec<Seen>,
}

/// What has been pushed and has not ended, as far as CQEs tell.
#[derive(Default)]
struct Open {
    /// Requests of each user data.
    count: BTreeMap<u64, i64>,
    /// Those that have a time which ends, or are given one.
    timed: BTreeSet<u64>,
    /// Those that a worker does.
    work: BTreeSet<u64>,
}

impl Open {
    fn add(&mut self, sqes: &[Sqe]) {
        for sqe in sqes {
            *self.count.entry(sqe.user_data).or_default() += 1;
            if sqe.what.ends() {
                self.timed.insert(match sqe.what {
                    What::TimeoutRemove { target, .. } => target,
                    _ => sqe.user_data,
                });
            }
            if sqe.flags & uapi::IOSQE_ASYNC != 0 {
                self.work.insert(sqe.user_data);
            }
        }
    }

    fn end(&mut self, cqes: &[Cqe]) {
        for cqe in cqes.iter().filter(|cqe| cqe.flags & uapi::IORING_CQE_F_MORE == 0) {
            if let Some(count) = self.count.get_mut(&cqe.user_data) {
                *count -= 1;
            }
        }
    }

    fn any(&self, of: &BTreeSet<u64>) -> bool {
        of.iter().any(|user_data| self.count.get(user_data).is_some_and(|&n| n > 0))
    }
}

struct Run<'a, T> {
    rings: [T; 2],
    world: World<'a>,
    mode: Mode,
    enabled: [bool; 2],
    /// The clock of each ring's waits.
    clocks: [libc::clockid_t; 2],
    open: Open,
    /// Completions of each step, and how long to wait for them.
    told: Option<(&'a Trace, Duration)>,
    trace: Trace,
}

/// Runs `program`; as long as `told` has it, if there is such a trace. What
/// takes time gets `slowly` times as much.
///
/// # Errors
/// Of the machine.
pub fn run<T: Named>(
    program: &Program,
    slowly: u32,
    told: Option<(&Trace, Duration)>,
    dir: &Path,
    arena: &mut Arena,
) -> io::Result<Trace> {
    let one = Setup {
        mode: program.mode,
        entries: if program.small { FEW } else { ENTRIES },
        cq_entries: program.small.then_some(FEW),
        array: true,
        submit_all: program.submit_all,
        clamp: false,
        pool: None,
        uapi_layout: false,
        disabled: false,
    };
    let mode = if program.mode == Mode::SqPoll { Mode::Inline } else { program.mode };
    let other = Setup { mode, disabled: program.disabled, ..one };
    let set_up = |setup| T::setup(setup).map_err(io::Error::from_raw_os_error);
    let rings = [set_up(&one)?, set_up(&other)?];
    let numbers = [rings[0].fd(), rings[1].fd()];
    let world = World::new(dir, arena, program.registered, numbers, UNIT * slowly)?;
    let mut run = Run {
        rings,
        world,
        mode: program.mode,
        enabled: [true, !program.disabled],
        clocks: [libc::CLOCK_MONOTONIC; 2],
        open: Open::default(),
        told,
        trace: Trace::default(),
    };
    for step in &program.steps {
        let mut seen = Seen::default();
        run.act(&step.act, &mut seen)?;
        run.settle(seen, step.unread)?;
    }
    for ring in [ONE, OTHER] {
        let all = Cancel { target: 0, pipe: 0, op: 0, flags: IORING_ASYNC_CANCEL_ANY };
        let answer = run.rings[ring].cancel(&all, NONE, None);
        run.settle(Seen { answer, ..Seen::default() }, false)?;
    }
    Ok(run.trace)
}

impl<T: Named> Run<'_, T> {
    fn act(&mut self, act: &Act, seen: &mut Seen) -> io::Result<()> {
        seen.answer = match *act {
            Act::Push { ring, ref sqes, wait } => return self.push(ring, sqes, wait, seen),
            Act::Wait { ring, wait, later } => return self.wait_alone(ring, wait, later, seen),
            Act::Send(message) => T::send(&self.world.message(message, 0)),
            Act::Cancel { ring, ref cancel, time } => {
                let fd = self.world.named(ring, cancel.pipe);
                let time = time.then(|| parts(self.world.unit));
                self.rings[ring].cancel(cancel, fd, time)
            }
            Act::Eventfd { ring, late, fd } => {
                let (own, file) = (self.world.counter(ring), self.world.file.as_raw_fd());
                self.rings[ring].eventfd(late, fd, own, file)
            }
            Act::EventfdEnd { ring } => self.rings[ring].eventfd_end(),
            Act::Silence { ring, yes } => {
                self.rings[ring].silence(yes);
                0
            }
            Act::Clock { ring, id } => {
                let answer = self.rings[ring].clock(id);
                if answer == 0 {
                    self.clocks[ring] = id as libc::clockid_t;
                }
                answer
            }
            Act::Feed(pipe) => self.world.feed(pipe).map(|()| 0)?,
            Act::Empty(pipe) => self.world.empty(pipe).map(|()| 0)?,
            Act::Files(ref list) => {
                let list: Vec<_> =
                    list.iter().map(|&(p, tag)| (self.world.place(p), tag)).collect();
                self.rings[ONE].tagged_files(&list)
            }
            Act::FilesUpdate(offset, ref list) => {
                let list: Vec<_> =
                    list.iter().map(|&(p, tag)| (self.world.place(p), tag)).collect();
                self.rings[ONE].tagged_update(offset, &list)
            }
            Act::FilesEnd => self.rings[ONE].files_end(),
            Act::Restrict(ref rules) => self.rings[OTHER].restrict(rules),
            Act::Enable { ring } => {
                let answer = self.rings[ring].enable();
                self.enabled[ring] |= answer == 0;
                answer
            }
        };
        Ok(())
    }

    fn push(
        &mut self,
        ring: usize,
        sqes: &[Sqe],
        wait: Option<Wait>,
        seen: &mut Seen,
    ) -> io::Result<()> {
        let target = &mut self.rings[ring];
        if target.sizes().sq - target.pending() < sqes.len() as u32 {
            // Of a ring that is disabled: so it is on either side.
            return Ok(());
        }
        self.open.add(sqes);
        let raw: Vec<_> = sqes.iter().map(|sqe| self.world.raw(ring, sqe)).collect();
        // SAFETY: the arena lasts as long as the process.
        if !unsafe { target.push_all(&raw) } {
            return Err(io::Error::other("more SQEs than the ring has room for"));
        }
        let polled = self.mode == Mode::SqPoll && ring == ONE;
        match wait {
            None if polled => {}
            None => {
                let pending = target.pending();
                seen.answer = target.enter(pending, 0, 0, None);
            }
            Some(wait) => {
                // With a polling thread: what there was may have been taken.
                let count = if polled { sqes.len() as u32 } else { target.pending() };
                let wakeup = if polled { IORING_ENTER_SQ_WAKEUP } else { 0 };
                self.wait(ring, count, wait, wakeup, seen);
            }
        }
        if polled { taken(&mut self.rings[ring]) } else { Ok(()) }
    }

    fn wait(&mut self, ring: usize, to_submit: u32, wait: Wait, flags: u32, seen: &mut Seen) {
        let unit = self.world.unit;
        let start = Instant::now();
        let time = wait.time.map(|units| match wait.absolute {
            true => parts(now(self.clocks[ring]) + units * unit),
            false => parts(units * unit),
        });
        let least = (wait.least * unit).as_micros() as u32;
        let argument = (!wait.nothing).then_some(Argument { least, time });
        let flags = flags
            | IORING_ENTER_GETEVENTS
            | if wait.absolute { uapi::IORING_ENTER_ABS_TIMER } else { 0 }
            | if wait.no_iowait { uapi::IORING_ENTER_NO_IOWAIT } else { 0 };
        seen.answer = self.rings[ring].wait(to_submit, wait.count, flags, argument);
        // Nothing is early, but what began a little before is.
        seen.took = (start.elapsed() + unit / 8).div_duration_f64(unit) as u32;
    }

    fn wait_alone(
        &mut self,
        ring: usize,
        wait: Wait,
        later: Option<(u32, Later)>,
        seen: &mut Seen,
    ) -> io::Result<()> {
        let Some((at, later)) = later else {
            self.wait(ring, 0, wait, 0, seen);
            return Ok(());
        };
        let after = at * self.world.unit;
        let (mut feed, mut message) = (None, None);
        match later {
            Later::Feed(pipe) => feed = Some(self.world.feeder(pipe)?),
            Later::Send(to, data) => {
                let (to, spoil) = (To::Ring(to), None);
                let sent = Message { to, res: 1, data, pass: None, skip: false, spoil };
                message = Some(self.world.message(sent, 0));
            }
        }
        scope(|scope| {
            let thread: ScopedJoinHandle<'_, io::Result<Option<i32>>> = scope.spawn(move || {
                sleep(after);
                feed.map_or(Ok(()), |feed| feed())?;
                Ok(message.map(|message| T::send(&message)))
            });
            self.wait(ring, 0, wait, 0, seen);
            seen.later = thread.join().map_err(|_| io::Error::other("a thread"))??;
            Ok(())
        })
    }

    /// Gathers what comes, until nothing more can.
    fn settle(&mut self, mut seen: Seen, unread: bool) -> io::Result<()> {
        let at = self.trace.steps.len();
        let told = self
            .told
            .map(|(trace, patience)| (trace.steps.get(at).map_or([0; 2], Seen::counts), patience));
        let start = Instant::now();
        let (mut had, mut calm, mut waited) = (None, 0, false);
        loop {
            let mut have = [0; 2];
            for ring in [ONE, OTHER] {
                have[ring] = self.look(ring, unread, &mut seen)?;
            }
            let some = had.replace(have) != Some(have);
            waited &= !some;
            let pending = self.rings.iter_mut().zip(self.enabled);
            let left = pending.into_iter().any(|(ring, enabled)| enabled && ring.pending() != 0);
            let rest = at_rest(&mut self.rings[ONE], self.open.any(&self.open.work))?;
            calm = if some || left || !rest { 0 } else { calm + 1 };
            if calm < 2 {
                if !rest {
                    sleep(LOOK);
                }
                continue;
            }
            // What is on its way to a timer has to get there first.
            if !waited && self.open.any(&self.open.timed) {
                (waited, calm) = (true, 0);
                sleep(self.world.unit * 5 / 2);
                continue;
            }
            let lacks = |(want, patience): ([usize; 2], Duration)| {
                (have[0] < want[0] || have[1] < want[1]) && start.elapsed() < patience
            };
            if !told.is_some_and(lacks) {
                break;
            }
            sleep(LOOK);
        }
        if unread {
            for ring in [ONE, OTHER] {
                let more = self.rings[ring].sq_flags() & IORING_SQ_CQ_OVERFLOW != 0;
                seen.there[ring] = Some((self.rings[ring].ready(), more));
            }
        }
        seen.rung = self.world.rung();
        if self.rings.iter_mut().all(|ring| ring.pending() == 0) {
            self.world.scribble();
        }
        self.trace.steps.push(seen);
        Ok(())
    }

    /// Has a ring do what there is to do. How many completions there are, or have
    /// been taken.
    fn look(&mut self, ring: usize, unread: bool, seen: &mut Seen) -> io::Result<usize> {
        if !self.enabled[ring] {
            return Ok(0);
        }
        let target = &mut self.rings[ring];
        // Batches may have ended at SQEs that fail.
        let polled = self.mode == Mode::SqPoll && ring == ONE;
        let pending = if polled { 0 } else { target.pending() };
        let answer = target.enter(pending, 0, IORING_ENTER_GETEVENTS, None);
        if answer < 0 {
            return Err(io::Error::from_raw_os_error(-answer));
        }
        if unread {
            return Ok(target.ready());
        }
        let had = seen.cqes[ring].len();
        target.reap(usize::MAX, &mut seen.cqes[ring]);
        self.open.end(&seen.cqes[ring][had..]);
        Ok(seen.cqes[ring].len())
    }
}
