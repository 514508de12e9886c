//! What a program does, as far as it must be known to compare two runs: which
//! requests end at submission, which wait for somebody, and which could race.
//!
//! A program is *valid* if every result is determined. Requests that may be
//! carried out elsewhere must not touch the same bytes at the same time, and
//! the world is changed only while the SQ is empty. The generator makes valid
//! programs only, and the shrinker throws invalid ones away.

mod change;
mod pipes;
mod transfer;
mod whole;

use super::check::{self, Desc, Kind};
use super::program::{ASYNC, FIXED_FILE, Fd, Mode, Program, Setup, Slot, Sqe, Step, op};
use super::world::{A_LEN, B_LEN, C_LEN, NEVER_OPEN, PIPE_LEN, TINY_LEN};

/// Why a program is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Race(pub &'static str);

/// What is known of one SQE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fact {
    /// It ends while it is submitted, so its CQE keeps its place in the order.
    pub sync: bool,
    /// Its place in the index array is bad: there is no CQE.
    pub dropped: bool,
    /// The SQ is full: it is never pushed.
    pub left_out: bool,
    /// It waits for somebody: until this step, or for ever.
    pub blocked: Option<usize>,
    /// Bytes that it asks for.
    pub want: u64,
}

/// Facts of a whole program.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Of each SQE.
    pub facts: Vec<Fact>,
    /// Of each step: after it, nothing is in flight that ends elsewhere.
    pub quiet: Vec<bool>,
}

/// Something that only one request at a time may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thing {
    Inode(usize),
    Memory,
    Position(Slot),
    PipeR(usize),
    PipeW(usize),
    /// The table of files.
    Table,
    /// A slot's number.
    Number(Slot),
    /// The directory with names.
    Names,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    thing: Thing,
    from: u64,
    to: u64,
    write: bool,
    /// The SQE, if it is one that waits.
    blocked: Option<usize>,
}

impl Claim {
    fn meets(&self, other: &Claim) -> bool {
        self.thing == other.thing
            && (self.write || other.write)
            && self.from < other.to
            && other.from < self.to
    }
}

#[derive(Clone, Copy, Debug)]
struct Inode {
    size: u64,
    /// There are holes, whose pages need not be in the cache.
    holey: bool,
    /// How long it is depends on what a request could do.
    vague: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pipe {
    pub avail: u64,
    pub capacity: u64,
    /// The SQE that waits to read, and how much it asks for.
    reader: Option<(usize, u64)>,
    /// The SQE that waits to write.
    writer: Option<(usize, u64)>,
    /// A request has used the reading end: its reference may linger.
    read_used: bool,
}

/// The state of a program at some step.
#[derive(Clone, Debug)]
pub struct Model {
    setup: Setup,
    sq_entries: u64,
    slots: [Option<Desc>; Slot::ALL.len()],
    inodes: [Inode; 3],
    pipes: [Pipe; 3],
    /// Registered files.
    pub files: Option<Vec<Option<Desc>>>,
    /// Where the ring looks for an empty place of the table.
    hint: usize,
    /// The one array of descriptors that ends where memory does is in use.
    edge: bool,
    /// Registered buffers.
    pub buffers: Option<Vec<Option<(u32, u64)>>>,
    busy: Vec<Claim>,
    /// A request is in flight whose file and buffer the kernel's worker looks
    /// up, when it gets there.
    unheld: bool,
    /// Requests that wait, and may not have got to a worker yet.
    late: Vec<usize>,
    /// A request is in flight that need not end at its submission.
    elsewhere: bool,
    /// Entries pushed since the SQ was empty for sure.
    pub queued: u64,
    /// Something has been submitted since.
    entered: bool,
    /// Everything that can end has ended and been reaped.
    pub settled: bool,
    plan: Plan,
}

/// Everything, as a range.
const ALL: (u64, u64) = (0, u64::MAX);

impl Model {
    /// The state before the first step.
    pub fn new(setup: &Setup) -> Self {
        let pipe = |avail: u32, capacity| Pipe { avail: avail.into(), capacity, ..Pipe::default() };
        let inode = |size| Inode { size, holey: false, vague: false };
        Self {
            setup: *setup,
            sq_entries: u64::from(setup.entries.min(1 << 15).next_power_of_two()),
            slots: Slot::ALL.map(Desc::of),
            inodes: [inode(A_LEN), inode(B_LEN), inode(C_LEN)],
            pipes: [pipe(PIPE_LEN, 1 << 14), pipe(0, 1 << 14), pipe(TINY_LEN, 4096)],
            files: None,
            hint: 0,
            edge: false,
            buffers: None,
            busy: Vec::new(),
            unheld: false,
            late: Vec::new(),
            elsewhere: false,
            queued: 0,
            entered: false,
            settled: true,
            plan: Plan::default(),
        }
    }

    /// The facts of a program.
    ///
    /// # Errors
    /// What is not determined.
    pub fn plan(program: &Program) -> Result<Plan, Race> {
        let mut model = Model::new(&program.setup);
        for step in &program.steps {
            model.step(step)?;
        }
        match model.settled {
            true => Ok(model.plan),
            false => Err(Race("the end comes while something is in flight")),
        }
    }

    /// What a descriptor argument means now.
    pub fn desc(&self, fd: Fd) -> Option<Desc> {
        match fd {
            Fd::Slot(slot) => self.slots[slot as usize],
            Fd::Raw(_) => None,
        }
    }

    /// The size of the file behind a descriptor; of a pipe what is in it.
    pub fn size(&self, desc: Desc) -> u64 {
        match desc.kind {
            Kind::Inode(i) => self.inodes[i].size,
            Kind::PipeR(p) | Kind::PipeW(p) => self.pipes[p].avail,
            _ => 0,
        }
    }

    /// Room in a pipe.
    pub fn room(&self, p: usize) -> u64 {
        self.pipes[p].capacity - self.pipes[p].avail
    }

    /// Requests that wait for somebody.
    pub fn waiting(&self) -> usize {
        self.pipes.iter().map(|p| p.reader.is_some() as usize + p.writer.is_some() as usize).sum()
    }

    /// The SQ is empty for sure.
    pub fn sq_empty(&self) -> bool {
        self.queued == 0
    }

    /// Nothing is in flight that ends elsewhere.
    fn quiet(&self) -> bool {
        !self.elsewhere && self.busy.iter().all(|claim| claim.blocked.is_some())
    }

    fn now(&self) -> usize {
        self.plan.quiet.len()
    }

    /// Takes a step.
    ///
    /// # Errors
    /// What would not be determined. The model is of no use any more then.
    pub fn step(&mut self, step: &Step) -> Result<(), Race> {
        match step {
            Step::Push(sqes) => {
                for sqe in sqes {
                    let fact = self.push(sqe)?;
                    let waits = fact.blocked.is_some();
                    self.elsewhere |= !(fact.sync || fact.dropped || fact.left_out || waits);
                    self.plan.facts.push(fact);
                }
                self.settled = false;
            }
            Step::Enter { to_submit, .. } => {
                if self.setup.pool.is_some() && *to_submit > 0 {
                    return Err(Race("how much a small pool takes"));
                }
                self.entered |= *to_submit > 0;
            }
            Step::Reap(_) => {}
            Step::Drain => self.drained(),
            Step::Settle { .. } => {
                self.drained();
                self.busy.retain(|claim| claim.blocked.is_some());
                self.settled = true;
                let busy = &self.busy;
                self.late.retain(|&n| busy.iter().any(|claim| claim.blocked == Some(n)));
                self.unheld = !self.late.is_empty();
                self.elsewhere = false;
            }
            Step::Interrupt => {
                if !self.settled {
                    return Err(Race("an interrupted wait that may find something"));
                }
            }
            _ => {
                if !self.sq_empty() {
                    return Err(Race("the world changes while SQEs are queued"));
                }
                self.change(step)?;
            }
        }
        let quiet = self.quiet();
        self.plan.quiet.push(quiet);
        Ok(())
    }

    fn drained(&mut self) {
        self.queued = 0;
        self.entered = false;
    }

    fn free(&self, claim: &Claim) -> Result<(), Race> {
        match self.busy.iter().any(|busy| busy.meets(claim)) {
            true => Err(Race("two requests at once for one thing")),
            false => Ok(()),
        }
    }

    fn push(&mut self, sqe: &Sqe) -> Result<Fact, Race> {
        let mut fact = Fact { want: check::want(sqe), ..Fact::default() };
        if self.queued >= self.sq_entries {
            if self.entered || self.setup.mode == Mode::SqPoll {
                return Err(Race("whether the SQ is full"));
            }
            fact.left_out = true;
            return Ok(fact);
        }
        self.queued += 1;
        if sqe.bad_index.is_some() && self.setup.array {
            fact.dropped = true;
            return if self.setup.pool.is_some() {
                Err(Race("bad index, small pool"))
            } else {
                Ok(fact)
            };
        }
        if check::refused(sqe) {
            fact.sync = true;
            return Ok(fact);
        }
        self.named(sqe)?;
        let later = sqe.flags & ASYNC != 0;
        if op::whole(sqe.op) {
            self.whole(sqe, later, &mut fact)?;
            return Ok(fact);
        }
        self.unheld |= later || sqe.op == op::FSYNC;
        if sqe.op == op::NOP {
            fact.sync = !later;
            return Ok(fact);
        }
        if sqe.op == op::FSYNC {
            return Ok(fact);
        }
        if sqe.flags & FIXED_FILE == 0 && matches!(sqe.fd, Fd::Raw(0..NEVER_OPEN)) {
            return Err(Race("somebody else's file"));
        }
        let desc = check::resolve(sqe, self.files.as_deref(), |fd| self.desc(fd));
        let Some(desc) = desc.filter(|desc| !self.fails(sqe, *desc)) else {
            fact.sync = !later;
            return Ok(fact);
        };
        if check::bad_offset(sqe) {
            // What goes to a worker anyway learns it there.
            let elsewhere = match desc.kind {
                Kind::Inode(_) => op::writes(sqe.op) && !desc.direct,
                kind => matches!(kind, Kind::Full | Kind::Dir),
            };
            fact.sync = !later && !elsewhere;
            return Ok(fact);
        }
        self.transfer(sqe, desc, later, &mut fact)?;
        Ok(fact)
    }
}

fn claim(thing: Thing, (from, to): (u64, u64), write: bool) -> Claim {
    Claim { thing, from, to, write, blocked: None }
}
