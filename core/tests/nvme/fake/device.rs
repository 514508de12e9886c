//! The device: what it has, and what it does next.

use super::memory::Memory;
use super::namespace::Namespace;
use super::queues::{Completions, Submissions};
use super::registers::{Phase, Registers};
use super::{Aborts, Fate, Lies, Rng, Setup};
use std::collections::{BTreeMap, BTreeSet};

/// A command that was fetched and has not ended.
#[derive(Clone, Debug)]
pub struct Work {
    pub sqid: u16,
    pub cid: u16,
    pub dwords: [u32; 16],
    pub fate: Fate,
    /// Memory that it reads or writes, and where its PRP lists are.
    pub data: Vec<(u64, usize)>,
    pub lists: Vec<u64>,
    /// The status that its checks at fetching led to.
    pub refused: Option<u16>,
}

impl Work {
    pub fn opcode(&self) -> u8 {
        self.dwords[0] as u8
    }

    pub fn nsid(&self) -> u32 {
        self.dwords[1]
    }

    pub fn pointers(&self) -> (u64, u64) {
        let at = |low: usize| u64::from(self.dwords[low]) | u64::from(self.dwords[low + 1]) << 32;
        (at(6), at(8))
    }

    pub fn block(&self) -> u64 {
        u64::from(self.dwords[10]) | u64::from(self.dwords[11]) << 32
    }

    pub fn blocks(&self) -> u64 {
        u64::from(self.dwords[12] & 0xffff) + 1
    }

    fn uses(&self, at: u64, len: usize) -> bool {
        let hits = |start: u64, bytes: usize| start < at + len as u64 && at < start + bytes as u64;
        self.data.iter().any(|&(start, bytes)| hits(start, bytes))
            || self.lists.iter().any(|&list| hits(list, 4096))
    }
}

/// A command as it was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    pub sqid: u16,
    pub cid: u16,
    pub opcode: u8,
    pub nsid: u32,
    pub block: u64,
    pub dword12: u32,
    pub psdt: u32,
}

pub struct Device {
    pub now: u64,
    /// How much time a wait takes, and a look at the clock.
    pub relax: u64,
    pub tick: u64,
    /// It runs whenever the clock is read.
    pub auto: bool,
    pub waits: u64,
    pub setup: Setup,
    pub lies: Lies,
    pub memory: Memory,
    pub namespaces: Vec<Namespace>,
    pub regs: Registers,
    pub phase: Phase,
    pub isolated: bool,
    /// A register has been read wrong.
    pub garbled: bool,
    pub gone: bool,
    pub sqs: BTreeMap<u16, Submissions>,
    pub cqs: BTreeMap<u16, Completions>,
    pub work: Vec<Work>,
    /// Commands that it was made to say it had done: queue and identifier.
    pub made_up: BTreeSet<(u16, u16)>,
    /// Shadow doorbells and event indices.
    pub shadow: Option<(u64, u64)>,
    pub pairs: u16,
    /// Event types that were told of and whose log was not read since.
    pub masked: u32,
    /// Events to tell of: the dword.
    pub events: Vec<u32>,
    pub rng: Rng,
    pub faults: Vec<String>,
    // What a test may ask for.
    pub log: Vec<Logged>,
    /// Doorbells of I/O queues that were written.
    pub doorbells: u32,
    /// An interrupt has come since the last sleep.
    pub interrupt: bool,
    pub enabled: u32,
    pub shutdowns: u32,
    pub isolations: u32,
    pub function_resets: u32,
    pub aborts: u32,
    /// Ranges of dataset management: namespace, position, bytes.
    pub deallocations: Vec<(u32, u64, u64)>,
}

impl Device {
    pub fn new(seed: u64, setup: Setup) -> Self {
        Self {
            now: 1_000_000_000,
            relax: 100_000,
            tick: 1_000,
            auto: true,
            waits: 0,
            setup,
            lies: Lies::default(),
            memory: Memory::default(),
            namespaces: vec![Namespace::new(9, 256), Namespace::new(12, 64)],
            regs: Registers::default(),
            phase: Phase::Off,
            isolated: false,
            garbled: false,
            gone: false,
            sqs: BTreeMap::new(),
            cqs: BTreeMap::new(),
            work: Vec::new(),
            made_up: BTreeSet::new(),
            shadow: None,
            pairs: 0,
            masked: 0,
            events: Vec::new(),
            rng: Rng::new(seed),
            faults: Vec::new(),
            log: Vec::new(),
            doorbells: 0,
            interrupt: false,
            enabled: 0,
            shutdowns: 0,
            isolations: 0,
            function_resets: 0,
            aborts: 0,
            deallocations: Vec::new(),
        }
    }

    pub fn fault(&mut self, what: impl Into<String>) {
        if !self.lies.scribbled {
            self.faults.push(what.into());
        }
    }

    /// What the driver should not have done, had it an honest device.
    pub fn blame(&mut self, what: impl Into<String>) {
        if !self.lies.wild {
            self.fault(what);
        }
    }

    pub fn blame_doorbell(&mut self, what: String) {
        if !self.lies.racing {
            self.blame(format!("a doorbell was written: {what}"));
        }
    }

    /// Whether it can reach memory.
    pub fn reaches(&self) -> bool {
        !self.gone && !self.isolated && self.phase.is_on()
    }

    /// Whether it has not said that it had done this command.
    pub fn honest(&self, work: &Work) -> bool {
        !self.lies.scribbled && !self.made_up.contains(&(work.sqid, work.cid))
    }

    /// Memory is not the device's any more, the driver says.
    pub fn given_back(&mut self, what: &str, at: u64, len: usize) {
        if !self.reaches() {
            return;
        }
        let hits = |start: u64, bytes: usize| start < at + len as u64 && at < start + bytes as u64;
        let mut by = Vec::new();
        // Not if it may have said that it had deleted them.
        let lied = self.made_up.iter().any(|&(cqid, _)| cqid == 0);
        for (qid, sq) in self.sqs.iter().filter(|_| !lied) {
            if hits(sq.base, sq.entries as usize * 64) {
                by.push(format!("submission queue {qid}"));
            }
        }
        for (qid, cq) in self.cqs.iter().filter(|_| !lied) {
            if hits(cq.base, cq.entries as usize * 16) {
                by.push(format!("completion queue {qid}"));
            }
        }
        if self.shadow.is_some_and(|(a, b)| hits(a, 4096) || hits(b, 4096)) {
            by.push("shadow doorbells".into());
        }
        let honest = |work: &&Work| self.honest(work);
        for work in self.work.iter().filter(|work| work.uses(at, len)).filter(honest) {
            by.push(format!("command {:#x} of queue {}", work.cid, work.sqid));
        }
        for by in by {
            self.fault(format!("{what} while the device may use it: {by}"));
        }
    }

    /// A request on this memory has ended: the device is done with it.
    pub fn released(&mut self, addr: usize, len: usize) {
        for (at, len) in self.memory.pieces(addr, len) {
            self.given_back("a request ended", at, len);
        }
    }

    /// Does up to `steps` things, in no particular order.
    pub fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            if !self.step() {
                break;
            }
        }
    }

    pub fn step(&mut self) -> bool {
        if !self.reaches() || !self.phase.is_ready() || self.regs.fatal(&self.lies) {
            return false;
        }
        self.tell_events();
        let queues: Vec<u16> = self.sqs.keys().copied().collect();
        let mut choices: Vec<(bool, usize)> = Vec::new();
        for qid in queues {
            let deaf = if qid == 0 { self.lies.deaf_admin } else { self.lies.deaf };
            if !deaf && self.awake(qid) {
                choices.push((true, usize::from(qid)));
            }
        }
        for (at, work) in self.work.iter().enumerate() {
            if self.can_end(work) {
                choices.push((false, at));
            }
        }
        if choices.is_empty() {
            return false;
        }
        match choices[self.rng.below(choices.len())] {
            (true, qid) => self.fetch(qid as u16),
            (false, at) => self.end(at),
        }
        true
    }

    fn can_end(&self, work: &Work) -> bool {
        let held = work.sqid != 0 && self.lies.hold;
        let event = work.sqid == 0 && work.opcode() == 0x0c && work.refused.is_none();
        let cqid = self.sqs.get(&work.sqid).map(|sq| sq.cqid);
        let room = cqid.and_then(|cqid| self.cqs.get(&cqid)).is_some_and(|cq| !cq.is_full());
        work.fate != Fate::Lost && !held && !event && room
    }

    fn fetch(&mut self, qid: u16) {
        let Some(dwords) = self.take_entry(qid) else { return };
        let mut work = Work {
            sqid: qid,
            cid: (dwords[0] >> 16) as u16,
            dwords,
            fate: Fate::Normal,
            data: Vec::new(),
            lists: Vec::new(),
            refused: None,
        };
        if self.work.iter().any(|other| other.sqid == qid && other.cid == work.cid) {
            self.blame(format!("identifier {:#x} on queue {qid} is in use already", work.cid));
        }
        let reserved = dwords[2..6].iter().chain(&dwords[13..]).any(|&dword| dword != 0);
        if reserved || dwords[0] >> 8 & 3 != 0 {
            self.fault(format!("reserved fields are used: {dwords:x?}"));
        }
        let logged = Logged {
            sqid: qid,
            cid: work.cid,
            opcode: work.opcode(),
            nsid: work.nsid(),
            block: work.block(),
            dword12: dwords[12],
            psdt: dwords[0] >> 14 & 3,
        };
        self.log.push(logged);
        let rules = self.lies.rules.iter_mut().filter(|rule| rule.left != 0);
        for rule in rules.filter(|rule| rule.admin == (qid == 0)) {
            if rule.opcode.is_none_or(|opcode| opcode == work.opcode()) {
                match rule.skip.checked_sub(1) {
                    Some(less) => rule.skip = less,
                    None => {
                        (rule.left, work.fate) = (rule.left - 1, rule.fate);
                        break;
                    }
                }
            }
        }
        let before = self.memory.faults.len();
        work.refused = if qid == 0 { self.look_admin(&mut work) } else { self.look_io(&mut work) };
        self.excuse(&work, before);
        self.work.push(work);
    }

    /// What was reached for since there were `before` faults is nobody's fault
    /// if the device had said before that it had done this command: whatever
    /// that points to is another's by now.
    fn excuse(&mut self, work: &Work, before: usize) {
        if !self.honest(work) {
            self.memory.faults.truncate(before);
        }
    }

    fn end(&mut self, at: usize) {
        let work = self.work.remove(at);
        // Code and type say whether it has failed; the other bits are hints.
        if matches!(work.fate, Fate::Status(status) if status & 0x7ff == 0) {
            // It says so, and has done nothing.
            self.made_up.insert((work.sqid, work.cid));
        }
        let before = self.memory.faults.len();
        let (dword0, status) = match (work.fate, work.refused) {
            (Fate::Status(status), _) => (0, status),
            (_, Some(status)) => (0, status),
            _ if work.sqid == 0 => match self.do_admin(&work) {
                Some(answer) => answer,
                // It ends some other time.
                None => return,
            },
            _ => (0, self.do_io(&work)),
        };
        self.excuse(&work, before);
        self.post(work.sqid, work.cid, dword0, status);
    }

    /// The last moment at which it may write: it does.
    pub fn last_writes(&mut self) {
        if self.gone || self.isolated {
            return;
        }
        for work in std::mem::take(&mut self.work) {
            if work.sqid != 0 && work.refused.is_none() {
                let before = self.memory.faults.len();
                self.do_io(&work);
                self.excuse(&work, before);
            }
        }
    }

    /// Ends a command of a queue before its time.
    pub fn abort(&mut self, sqid: u16, cid: u16) -> bool {
        let Some(at) = self.work.iter().position(|w| w.sqid == sqid && w.cid == cid) else {
            return false;
        };
        match self.lies.aborts {
            Aborts::Work => {
                let work = self.work.remove(at);
                self.post(work.sqid, work.cid, 0, 0x07);
                true
            }
            Aborts::TooLate => {
                self.work[at].fate = Fate::Normal;
                self.end(at);
                false
            }
            Aborts::Ignored | Aborts::Lost => false,
        }
    }

    /// What was lost is found, and will end after all.
    pub fn revive(&mut self) {
        for work in &mut self.work {
            work.fate = Fate::Normal;
        }
    }

    /// Carries out and completes what it has, now.
    pub fn complete_unseen(&mut self) {
        while let Some(at) = self.work.iter().position(|work| work.sqid != 0) {
            self.end(at);
        }
    }

    /// Power fails, and comes back.
    pub fn power_cut(&mut self) {
        let Self { namespaces, rng, .. } = self;
        for namespace in namespaces {
            namespace.lose(rng);
        }
        self.forget();
        self.regs = Registers::default();
        self.phase = Phase::Off;
    }
}
