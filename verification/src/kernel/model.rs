//! What a program does, as far as it must be known to compare two runs: which
//! requests end at submission, which wait for somebody, and which could race.
//!
//! A program is *valid* if every result is determined. Requests that may be
//! carried out elsewhere must not touch the same bytes at the same time, and
//! the world is changed only while the SQ is empty. The generator makes valid
//! programs only, and the shrinker throws invalid ones away.

use super::check::{self, Desc, Kind};
use super::program::{ASYNC, Buf, Data, FIXED_FILE, Fd, Mem, Program, Setup, Slot, Sqe, Step, op};
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
    /// Registered buffers.
    pub buffers: Option<Vec<Option<(u32, u64)>>>,
    busy: Vec<Claim>,
    /// A request is in flight whose file and buffer the kernel's worker looks
    /// up, when it gets there.
    unheld: bool,
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
        let inode = |size| Inode { size, holey: false };
        Self {
            setup: *setup,
            sq_entries: u64::from(setup.entries.min(1 << 15).next_power_of_two()),
            slots: Slot::ALL.map(Desc::of),
            inodes: [inode(A_LEN), inode(B_LEN), inode(C_LEN)],
            pipes: [pipe(PIPE_LEN, 1 << 14), pipe(0, 1 << 14), pipe(TINY_LEN, 4096)],
            files: None,
            buffers: None,
            busy: Vec::new(),
            unheld: false,
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
                self.unheld = false;
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

    fn change(&mut self, step: &Step) -> Result<(), Race> {
        match step {
            Step::Feed(slot, bytes) => return self.feed(*slot, u64::from(*bytes)),
            Step::Empty(slot) => return self.empty(*slot),
            Step::Seek(..) => {}
            _ if self.unheld => return Err(Race("whether a worker has looked its file up")),
            _ => {}
        }
        match step {
            Step::Seek(slot, _) => {
                let Some(desc) = self.slots[*slot as usize] else { return Ok(()) };
                self.free(&claim(Thing::Position(desc.origin), ALL, true))?;
            }
            Step::Copy(from, to) => {
                if from == to {
                    return Err(Race("dup3 of a number to itself"));
                }
                if let Some(desc) = self.slots[*from as usize] {
                    self.slots[*to as usize] = Some(desc);
                }
            }
            Step::Close(slot) => self.slots[*slot as usize] = None,
            Step::Files(fds) => {
                let all: Vec<_> = fds.iter().map(|fd| self.desc(*fd)).collect();
                let good = fds.iter().zip(&all).all(|(fd, d)| d.is_some() || *fd == Fd::Raw(-1));
                if self.files.is_none() && !fds.is_empty() && good {
                    self.files = Some(all);
                }
            }
            Step::FilesSparse(n) => {
                if self.files.is_none() && *n > 0 {
                    self.files = Some(vec![None; *n as usize]);
                }
            }
            Step::FilesUpdate(off, fds) => self.update_files(*off as usize, fds),
            Step::FilesEnd => self.files = None,
            Step::Buffers(bufs) => {
                if self.buffers.is_none() && !bufs.is_empty() && bufs.iter().all(check::buffer_ok) {
                    self.buffers = Some(bufs.iter().map(entry).collect());
                }
            }
            Step::BuffersSparse(n) => {
                if self.buffers.is_none() && *n > 0 {
                    self.buffers = Some(vec![None; *n as usize]);
                }
            }
            Step::BuffersUpdate(off, bufs) => {
                if let Some(table) = &mut self.buffers {
                    let fits = *off as usize + bufs.len() <= table.len();
                    for (i, buf) in bufs.iter().enumerate() {
                        if !fits || !check::buffer_ok(buf) {
                            break;
                        }
                        table[*off as usize + i] = entry(buf);
                    }
                }
            }
            Step::BuffersEnd => self.buffers = None,
            _ => {}
        }
        self.hang_up();
        Ok(())
    }

    fn update_files(&mut self, off: usize, fds: &[Fd]) {
        let all: Vec<_> = fds.iter().map(|fd| self.desc(*fd)).collect();
        let Some(table) = &mut self.files else { return };
        if off + fds.len() > table.len() {
            return;
        }
        for (i, (fd, desc)) in fds.iter().zip(all).enumerate() {
            match fd {
                Fd::Raw(-2) => continue,
                _ => table[off + i] = desc,
            }
            if desc.is_none() && *fd != Fd::Raw(-1) {
                return;
            }
        }
    }

    /// Whether somebody (besides requests) has a descriptor of this kind.
    fn open(&self, kind: Kind) -> bool {
        let mut all = self.slots.iter().chain(self.files.iter().flatten());
        all.any(|desc| desc.is_some_and(|desc| desc.kind == kind))
    }

    /// Whoever waits on a pipe whose other end has gone waits no more.
    fn hang_up(&mut self) {
        for p in 0..self.pipes.len() {
            if self.pipes[p].writer.is_none() && !self.open(Kind::PipeW(p)) {
                self.unblock_reader(p);
            }
            if self.pipes[p].reader.is_none() && !self.open(Kind::PipeR(p)) {
                self.unblock_writer(p);
            }
        }
    }

    fn unblock(&mut self, sqe: usize) {
        let now = self.now();
        self.elsewhere = true;
        // A push that unblocks a request of its own step does so now, too.
        self.plan.facts[sqe].blocked = Some(now);
        for claim in &mut self.busy {
            if claim.blocked == Some(sqe) {
                claim.blocked = None;
            }
        }
    }

    fn unblock_reader(&mut self, p: usize) {
        if let Some((sqe, len)) = self.pipes[p].reader.take() {
            self.pipes[p].avail -= len.min(self.pipes[p].avail);
            // It reads when it gets there: more may not be added before.
            self.busy.push(claim(Thing::PipeW(p), ALL, true));
            self.unblock(sqe);
        }
    }

    fn unblock_writer(&mut self, p: usize) {
        if let Some((sqe, len)) = self.pipes[p].writer.take() {
            self.pipes[p].avail += len.min(self.room(p));
            self.busy.push(claim(Thing::PipeR(p), ALL, true));
            self.unblock(sqe);
        }
    }

    fn feed(&mut self, slot: Slot, bytes: u64) -> Result<(), Race> {
        let Some(Desc { kind: Kind::PipeW(p), .. }) = self.slots[slot as usize] else {
            return Err(Race("feeding what is no pipe"));
        };
        self.free(&claim(Thing::PipeW(p), ALL, true))?;
        if !self.readable(p) {
            return Err(Race("feeding a pipe that nobody reads"));
        }
        let waits = self.pipes[p].reader.is_some();
        if bytes > self.room(p) || bytes > 4096 || (p == 2 && self.pipes[p].avail > 0) {
            return Err(Race("feeding a pipe without room"));
        }
        if !waits {
            self.free(&claim(Thing::PipeR(p), ALL, true))?;
        }
        self.pipes[p].avail += bytes;
        if bytes > 0 {
            self.unblock_reader(p);
        }
        Ok(())
    }

    fn readable(&self, p: usize) -> bool {
        self.pipes[p].reader.is_some() || self.open(Kind::PipeR(p))
    }

    fn empty(&mut self, slot: Slot) -> Result<(), Race> {
        let Some(Desc { kind: Kind::PipeR(p), .. }) = self.slots[slot as usize] else {
            return Err(Race("emptying what is no pipe"));
        };
        self.free(&claim(Thing::PipeR(p), ALL, true))?;
        if self.pipes[p].writer.is_none() {
            self.free(&claim(Thing::PipeW(p), ALL, true))?;
        }
        self.pipes[p].avail = 0;
        self.unblock_writer(p);
        Ok(())
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
            if self.entered || self.setup.mode == super::program::Mode::SqPoll {
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
        let later = sqe.flags & ASYNC != 0;
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

    fn fails(&self, sqe: &Sqe, desc: Desc) -> bool {
        if op::fixed(sqe.op) {
            let table = self.buffers.as_deref().unwrap_or(&[]);
            let place = table.get(usize::from(sqe.buf_index)).copied().flatten();
            if !check::in_buffer(sqe, place) {
                return true;
            }
        }
        check::fails(sqe, desc)
    }

    /// A read or write that gets as far as its file.
    fn transfer(
        &mut self,
        sqe: &Sqe,
        desc: Desc,
        later: bool,
        fact: &mut Fact,
    ) -> Result<(), Race> {
        let write = op::writes(sqe.op);
        let mut claims = memory(sqe);
        let sync = match desc.kind {
            Kind::Null => {
                claims.clear();
                true
            }
            // After a page it may stop to let others run.
            Kind::Zero if !write && fact.want > 4096 => return Err(Race("how much of zero")),
            Kind::Zero => true,
            Kind::Full | Kind::Dir => false,
            // An O_DIRECT read that ends later does not move the position.
            Kind::Inode(_) if desc.direct && sqe.off == u64::MAX => {
                return Err(Race("the position of direct I/O"));
            }
            Kind::Inode(i) => self.file(sqe, desc, i, &mut claims),
            Kind::PipeR(p) => self.read_pipe(sqe, p, later, fact, &mut claims)?,
            Kind::PipeW(p) => self.write_pipe(sqe, p, later, fact, &mut claims)?,
        };
        if write && desc.kind == Kind::Zero {
            claims.clear();
        }
        fact.sync = sync && !later && fact.blocked.is_none();
        for claim in &claims {
            self.free(claim)?;
        }
        if !fact.sync {
            self.busy.extend(claims);
        }
        Ok(())
    }

    /// A regular file; whether the answer comes at once.
    fn file(&mut self, sqe: &Sqe, desc: Desc, i: usize, claims: &mut Vec<Claim>) -> bool {
        let want = check::want(sqe);
        let inode = &mut self.inodes[i];
        let current = sqe.off == u64::MAX;
        let whole = current || desc.direct || i == 2;
        let end = sqe.off.saturating_add(want);
        if !op::writes(sqe.op) {
            let range = if whole { ALL } else { (sqe.off, end) };
            claims.push(claim(Thing::Inode(i), range, false));
        } else {
            let append = check::appends(sqe, desc);
            if !check::memory_ok(sqe) || (!append && !current && end > 1 << 43) {
                // It fails, and nothing is changed.
                return false;
            }
            let range = match (whole || append, end > inode.size) {
                (true, _) => ALL,
                (false, true) => (sqe.off.min(inode.size), u64::MAX),
                (false, false) => (sqe.off, end),
            };
            claims.push(claim(Thing::Inode(i), range, true));
            if append || current {
                // From the position or the end: it may be anywhere.
                inode.size += want;
                inode.holey |= current;
            } else if end > inode.size && want > 0 {
                inode.holey |= sqe.off > inode.size;
                inode.size = end;
            }
        }
        if current {
            claims.push(claim(Thing::Position(desc.origin), ALL, true));
        }
        !op::writes(sqe.op) && !whole && !self.inodes[i].holey && check::memory_ok(sqe)
    }

    fn read_pipe(
        &mut self,
        sqe: &Sqe,
        p: usize,
        later: bool,
        fact: &mut Fact,
        claims: &mut Vec<Claim>,
    ) -> Result<bool, Race> {
        let want = check::want(sqe);
        self.free(&claim(Thing::PipeR(p), ALL, true))?;
        self.pipes[p].read_used = true;
        if want == 0 {
            return Ok(true);
        }
        let avail = self.pipes[p].avail;
        if self.pipes[p].writer.is_some() || (p == 2 && avail > want) {
            return Err(Race("reading a one-page pipe in part"));
        }
        claims.push(claim(Thing::PipeR(p), ALL, true));
        if avail == 0 && sqe.op_flags & check::NOWAIT == 0 {
            if self.open(Kind::PipeW(p)) {
                self.block(fact, claims)?;
                self.pipes[p].reader = Some((self.plan.facts.len(), taken(sqe, want)));
            }
            // Without a writer: the end, if no reference lingers.
            return Ok(false);
        }
        self.pipes[p].avail -= taken(sqe, want).min(avail);
        if later {
            claims.push(claim(Thing::PipeW(p), ALL, true));
        }
        Ok(avail > 0 || sqe.op_flags & check::NOWAIT != 0)
    }

    fn write_pipe(
        &mut self,
        sqe: &Sqe,
        p: usize,
        later: bool,
        fact: &mut Fact,
        claims: &mut Vec<Claim>,
    ) -> Result<bool, Race> {
        let want = check::want(sqe);
        self.free(&claim(Thing::PipeW(p), ALL, true))?;
        if want == 0 {
            return Ok(true);
        }
        if !self.readable(p) {
            return match self.pipes[p].read_used {
                true => Err(Race("whether a reader's reference lingers")),
                false => Ok(false),
            };
        }
        if !check::memory_ok(sqe) {
            return Err(Race("a bad address and a pipe's room"));
        }
        claims.push(claim(Thing::PipeW(p), ALL, true));
        if p == 2 && self.pipes[p].avail == 4096 && self.pipes[p].reader.is_none() {
            if sqe.op_flags & check::NOWAIT != 0 {
                return Ok(true);
            }
            self.block(fact, claims)?;
            self.pipes[p].writer = Some((self.plan.facts.len(), want));
            return Ok(false);
        }
        if want > self.room(p) && p != 2 || p == 2 && self.pipes[p].avail > 0 {
            return Err(Race("a pipe that is nearly full"));
        }
        if self.pipes[p].reader.is_none() && later {
            claims.push(claim(Thing::PipeR(p), ALL, true));
        }
        self.pipes[p].avail += want.min(self.room(p));
        let alone = self.pipes[p].reader.is_none();
        self.unblock_reader(p);
        // With a reader who waits, they meet when they will.
        Ok(alone && want <= 4096)
    }

    fn block(&mut self, fact: &mut Fact, claims: &mut [Claim]) -> Result<(), Race> {
        if self.setup.pool.is_some_and(|pool| self.waiting() as u32 >= pool) {
            return Err(Race("more waits than a small pool has requests"));
        }
        fact.blocked = Some(usize::MAX);
        let sqe = self.plan.facts.len();
        for claim in claims {
            claim.blocked = Some(sqe);
        }
        Ok(())
    }
}

/// Bytes that leave a pipe: none if the memory is bad.
fn taken(sqe: &Sqe, want: u64) -> u64 {
    if check::memory_ok(sqe) { want } else { 0 }
}

fn claim(thing: Thing, (from, to): (u64, u64), write: bool) -> Claim {
    Claim { thing, from, to, write, blocked: None }
}

fn entry(buf: &Buf) -> Option<(u32, u64)> {
    match buf.at {
        Mem::Arena(at) => Some((at, buf.len)),
        _ => None,
    }
}

/// What a request does with the arena.
fn memory(sqe: &Sqe) -> Vec<Claim> {
    let one = |at: Mem, len: u64| match at {
        Mem::Arena(at) => {
            let range = (u64::from(at), u64::from(at) + len);
            Some(claim(Thing::Memory, range, op::reads(sqe.op)))
        }
        _ => None,
    };
    match &sqe.data {
        Data::Flat(at) => one(*at, u64::from(sqe.len)).into_iter().collect(),
        Data::Vector(list) => {
            list.iter().take(sqe.len as usize).filter_map(|&(at, len)| one(at, len)).collect()
        }
    }
}
