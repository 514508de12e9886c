//! Runs a program on a target and writes down what it did.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use linux_raw_sys::io_uring as uapi;

use super::interrupt;
use super::memory::Arena;
use super::model::Plan;
use super::program::{Buf, Fd, Mode, Program, Sqe, Step, number, op, user_data};
use super::target::{Cqe, RawBuf, Sizes, Target, raw_buf};
use super::world::{self, Remains, World};

/// The first wait of an `enter`: longer than anything takes that comes.
const WAIT: Duration = Duration::from_millis(4);
/// Between looks for what has to come.
const LOOK_NS: u64 = 20_000_000;

/// What a run did, a thing after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Set-up: the sizes, or an errno.
    Setup(Result<Sizes, i32>),
    /// So many SQEs had room.
    Pushed(u32),
    /// `enter`.
    Entered(Entered),
    /// What the calls answered that emptied the SQ.
    Drained(Vec<i32>),
    /// Everything that could end has ended.
    Settled(Phase),
    /// Another call's answer.
    Answer(i32),
    /// What was in a pipe.
    Content(Vec<u8>),
    /// The SQ did not empty.
    Stuck,
    /// What is left.
    Remains(Remains),
}

/// How an `enter` ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    /// Its answer.
    pub answer: i32,
    /// The wait ended before there was enough or the time was up.
    pub early: bool,
    /// CQEs that can be taken and whether there are more, where determined.
    pub ready: Option<(usize, bool)>,
}

/// What came between two points of rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// The CQEs, in order.
    pub cqes: Vec<Cqe>,
    /// SQEs whose CQE did not come.
    pub lost: BTreeSet<usize>,
    /// Bad indices so far.
    pub dropped: u32,
    /// CQEs lost, as the ring counts them.
    pub overflow: u32,
    /// What requests have opened, and the attributes that they were told.
    pub told: Vec<(usize, String)>,
    /// The memory's checksum.
    pub memory: u64,
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Each with the step it belongs to.
    pub events: Vec<(usize, Event)>,
    /// What the ring said of itself when something did not come.
    pub dump: Option<String>,
}

impl Trace {
    /// All completions.
    pub fn cqes(&self) -> impl Iterator<Item = &Cqe> {
        self.events.iter().flat_map(|(_, event)| match event {
            Event::Settled(phase) => phase.cqes.as_slice(),
            _ => &[],
        })
    }
}

/// Runs `program`; `patience` is how long a completion that must come may
/// take.
///
/// # Errors
/// Of the world, not of the ring.
pub fn run<T: Target>(
    program: &Program,
    plan: &Plan,
    dir: &Path,
    memory: &mut Arena,
    patience: Duration,
) -> io::Result<Trace> {
    let world = World::new(dir, &world::needs(program), memory)?;
    let mut events = Vec::new();
    let ring = match T::setup(&program.setup) {
        Ok(ring) => ring,
        Err(errno) => {
            events.push((0, Event::Setup(Err(errno))));
            return Ok(Trace { events, dump: None });
        }
    };
    events.push((0, Event::Setup(Ok(ring.sizes()))));
    let mut run = Run {
        cq_entries: ring.sizes().cq,
        ring,
        world,
        program,
        plan,
        patience,
        step: 0,
        next: 0,
        pushed: Vec::new(),
        cqes: Vec::new(),
        told: Vec::new(),
        reaped: 0,
        seen: BTreeSet::new(),
        events,
        dump: None,
    };
    for (i, step) in program.steps.iter().enumerate() {
        run.step = i;
        run.take(step);
    }
    let (mut world, mut events, dump) = (run.world, run.events, run.dump);
    events.push((program.steps.len(), Event::Remains(world.remains())));
    drop(run.ring);
    Ok(Trace { events, dump })
}

struct Run<'a, T> {
    ring: T,
    cq_entries: u32,
    world: World<'a>,
    program: &'a Program,
    plan: &'a Plan,
    patience: Duration,
    step: usize,
    /// The next SQE of the program.
    next: usize,
    /// SQEs that had room.
    pushed: Vec<usize>,
    /// Taken since the last point of rest.
    cqes: Vec<Cqe>,
    /// What those have told besides.
    told: Vec<(usize, String)>,
    /// Taken in all.
    reaped: usize,
    /// SQEs whose CQE was taken.
    seen: BTreeSet<usize>,
    events: Vec<(usize, Event)>,
    dump: Option<String>,
}

impl<T: Target> Run<'_, T> {
    fn say(&mut self, event: Event) {
        self.events.push((self.step, event));
    }

    /// Keeps what the ring looks like, the first time that something is wrong.
    fn keep_dump(&mut self) {
        if self.dump.is_none() {
            self.dump = Some(self.ring.dump());
        }
    }

    fn polled(&self) -> bool {
        self.program.setup.mode == Mode::SqPoll
    }

    fn take(&mut self, step: &Step) {
        let event = match step {
            Step::Push(sqes) => {
                Event::Pushed(sqes.iter().filter(|sqe| self.push(sqe)).count() as u32)
            }
            Step::Enter { to_submit, min_complete, flags } => {
                Event::Entered(self.enter(*to_submit, *min_complete, *flags))
            }
            Step::Interrupt => Event::Answer(interrupt::every_millisecond(|| {
                let flags = uapi::IORING_ENTER_GETEVENTS;
                self.ring.enter(0, 1, flags, Some(500_000_000))
            })),
            Step::Reap(most) => {
                self.reap(*most as usize);
                return;
            }
            Step::Drain => match self.drain() {
                Some(_) if self.polled() || self.program.setup.pool.is_some() => return,
                Some(answers) => Event::Drained(answers),
                None => {
                    self.keep_dump();
                    Event::Stuck
                }
            },
            Step::Settle { peek } => Event::Settled(self.settle(*peek)),
            Step::Feed(slot, bytes) => Event::Answer(self.world.feed(*slot, *bytes)),
            Step::Empty(slot) => Event::Content(self.world.empty(*slot)),
            Step::Copy(from, to) => {
                // The numbers are the same in every run.
                Event::Answer(self.world.copy(*from, *to))
            }
            Step::Close(slot) => Event::Answer(self.world.close(*slot)),
            Step::Seek(slot, to) => Event::Answer(self.world.seek(*slot, *to)),
            Step::Files(fds) => Event::Answer(self.ring.files(&numbers(fds))),
            Step::FilesSparse(n) => Event::Answer(self.ring.files_sparse(*n)),
            Step::FilesUpdate(off, fds) => {
                Event::Answer(self.ring.files_update(*off, &numbers(fds)))
            }
            Step::FilesEnd => Event::Answer(self.ring.files_end()),
            Step::Buffers(bufs) => {
                let bufs = self.buffers(bufs);
                // SAFETY: the arena outlives the ring.
                Event::Answer(unsafe { self.ring.buffers(&bufs) })
            }
            Step::BuffersSparse(n) => Event::Answer(self.ring.buffers_sparse(*n)),
            Step::BuffersUpdate(off, bufs) => {
                let bufs = self.buffers(bufs);
                // SAFETY: as above.
                Event::Answer(unsafe { self.ring.buffers_update(*off, &bufs) })
            }
            Step::BuffersEnd => Event::Answer(self.ring.buffers_end()),
        };
        self.say(event);
    }

    fn buffers(&self, bufs: &[Buf]) -> Vec<RawBuf> {
        bufs.iter().map(|buf| raw_buf(buf, |at| self.world.addr(at))).collect()
    }

    fn push(&mut self, sqe: &Sqe) -> bool {
        if self.polled() && self.ring.pending() == self.ring.sizes().sq {
            self.drain();
        }
        let n = self.next;
        self.next += 1;
        let raw = self.world.raw(sqe, user_data(n));
        // SAFETY: the world outlives the ring.
        let pushed = unsafe { self.ring.push(&raw, sqe.bad_index) };
        if pushed {
            self.pushed.push(n);
        }
        pushed
    }

    /// Consumed SQEs whose CQE must come by now. Without `sure`, those that
    /// wait for another that may not be submitted yet do not count.
    fn due(&mut self, sure: bool) -> usize {
        let pending = if self.polled() { 0 } else { self.ring.pending() as usize };
        let consumed = self.pushed.len().saturating_sub(pending);
        self.pushed[..consumed].iter().filter(|&&n| self.ends(n, sure)).count()
    }

    fn ends(&self, n: usize, sure: bool) -> bool {
        let fact = &self.plan.facts[n];
        !fact.dropped && fact.blocked.is_none_or(|until| sure && until <= self.step)
    }

    fn reap(&mut self, most: usize) {
        let from = self.cqes.len();
        self.ring.reap(most, &mut self.cqes);
        self.reaped += self.cqes.len() - from;
        for i in from..self.cqes.len() {
            let Some(n) = number(self.cqes[i].user_data) else { continue };
            let res = self.cqes[i].res;
            match self.program.sqes().nth(n) {
                _ if res < 0 => {}
                Some(sqe) if sqe.op == op::OPENAT && sqe.file_index() == 0 => {
                    // Which number it is depends on what else is open.
                    self.told.push((n, self.world.take_opened(res)));
                    self.cqes[i].res = 0;
                }
                Some(sqe) if sqe.op == op::STATX => {
                    if let Some(to) = sqe.second {
                        self.told.push((n, self.world.take_attributes(to)));
                    }
                }
                _ => {}
            }
            self.seen.insert(n);
        }
    }

    /// `SQ_WAKEUP`, if the polling thread wants it.
    fn wakeup(&mut self) -> u32 {
        match self.polled() && self.ring.sq_flags() & uapi::IORING_SQ_NEED_WAKEUP != 0 {
            true => uapi::IORING_ENTER_SQ_WAKEUP,
            false => 0,
        }
    }

    fn enter(&mut self, to_submit: u32, min_complete: u32, flags: u32) -> Entered {
        let waits = flags & uapi::IORING_ENTER_GETEVENTS != 0;
        let flags = flags | self.wakeup();
        let start = Instant::now();
        let timeout = waits.then_some(WAIT.as_nanos() as u64);
        let answer = self.ring.enter(to_submit, min_complete, flags, timeout);
        let mut entered = Entered { answer, early: false, ready: None };
        let whole = answer == to_submit as i32 || (to_submit == 0 && answer == -libc::ETIME);
        if !waits || !whole {
            return entered;
        }
        let want = min_complete.min(self.cq_entries) as usize;
        let there = self.ring.ready();
        entered.early = answer >= 0 && there < want && start.elapsed() < WAIT;
        // Slow is not wrong: what has to come is waited for.
        let end = start + self.patience;
        while self.ring.ready() < want && Instant::now() < end {
            let sure = self.ring.pending() == 0;
            if self.due(sure) <= self.reaped + self.ring.ready() {
                break;
            }
            let flags = uapi::IORING_ENTER_GETEVENTS | self.wakeup();
            self.ring.enter(0, want as u32, flags, Some(LOOK_NS));
        }
        let quiet = self.plan.quiet[self.step] && !self.polled();
        if !quiet && answer == -libc::ETIME {
            // What came a little later, or was reaped a little earlier, might
            // have been found.
            entered.answer = 0;
        }
        if quiet && self.program.setup.pool.is_none() {
            let more = self.ring.sq_flags() & uapi::IORING_SQ_CQ_OVERFLOW != 0;
            entered.ready = Some((self.ring.ready(), more));
        }
        entered
    }

    /// Submits until the SQ is empty; the answers of the calls, or nothing if
    /// it does not empty.
    fn drain(&mut self) -> Option<Vec<i32>> {
        let mut answers = Vec::new();
        let end = Instant::now() + self.patience;
        let mut spins = 0;
        loop {
            let pending = self.ring.pending();
            if pending == 0 {
                self.world.scribble();
                return Some(answers);
            }
            if Instant::now() > end {
                return None;
            }
            if self.polled() {
                let flags = self.wakeup();
                if flags != 0 {
                    self.ring.enter(pending, 0, flags, None);
                }
                if self.program.setup.pool.is_some() {
                    self.reap(usize::MAX);
                }
                spins += 1;
                // The polling thread may need this CPU.
                if spins % 64 == 0 {
                    std::thread::sleep(Duration::from_micros(50))
                } else {
                    std::thread::yield_now()
                }
                continue;
            }
            let answer = self.ring.enter(pending, 0, 0, None);
            if answer == -libc::EBUSY && self.program.setup.pool.is_some() {
                // The rule "pool": reaping leads to progress.
                self.ring.enter(0, 1, uapi::IORING_ENTER_GETEVENTS, Some(LOOK_NS));
                self.reap(usize::MAX);
            } else if self.ring.pending() == pending {
                return None;
            }
            answers.push(answer);
        }
    }

    fn settle(&mut self, peek: bool) -> Phase {
        let stuck = self.drain().is_none();
        let end = Instant::now() + self.patience;
        loop {
            self.reap(usize::MAX);
            let more = self.ring.sq_flags() & uapi::IORING_SQ_CQ_OVERFLOW != 0;
            if (self.reaped >= self.due(true) && !more) || Instant::now() > end || stuck {
                break;
            }
            // A wait on a polled ring is slow where CPUs are few: whom it wakes
            // may have to wait for the thread that polls.
            if (peek || self.polled()) && !more {
                std::thread::sleep(Duration::from_micros(20));
            } else {
                self.ring.enter(0, 1, uapi::IORING_ENTER_GETEVENTS, Some(LOOK_NS));
            }
        }
        let due: Vec<usize> = self.pushed.iter().copied().filter(|&n| self.ends(n, true)).collect();
        let lost: BTreeSet<usize> = due.into_iter().filter(|n| !self.seen.contains(n)).collect();
        if !lost.is_empty() {
            self.keep_dump();
        }
        Phase {
            cqes: std::mem::take(&mut self.cqes),
            lost,
            dropped: self.ring.dropped(),
            overflow: self.ring.overflow(),
            told: {
                self.told.sort();
                std::mem::take(&mut self.told)
            },
            memory: self.world.memory(),
        }
    }
}

fn numbers(fds: &[Fd]) -> Vec<i32> {
    fds.iter().map(world::fd).collect()
}
