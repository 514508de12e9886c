//! Actions drawn from a seed.

use annulus::uapi::*;

use super::action::{
    Action, Drive, Fate, Flaw, Key, Odd, Op, Outcome, Range, Register, Setup, Spec,
};
use super::device::Device;
use super::model::Model;
use super::world::Rings;
use crate::kernel::rng::Rng;

/// What a run draws, and how often.
pub struct Drawn {
    rng: Rng,
    left: u64,
    mood: Mood,
}

/// What is likely in a run: not all in each, so that some go far into a corner.
#[derive(Clone, Copy, Debug)]
struct Mood {
    nops: u64,
    flaws: u64,
    chains: u64,
    drains: u64,
    skips: u64,
    fixed: u64,
    at_once: u64,
    odd: u64,
    calls: u64,
    /// How reluctantly the application takes CQEs.
    lazy: u64,
    pushes: u64,
    timers: u64,
    controls: u64,
    polls: u64,
    readies: u64,
    picks: u64,
    fills: u64,
    /// How often CQEs are taken while the engine is at work.
    crosses: u64,
    drives: u64,
}

/// The ring of a seed, and its source of actions.
pub fn begin(seed: u64) -> (Setup, Drawn) {
    let mut rng = Rng::nth(seed, 0);
    let sq = 1 << rng.below(5);
    let mut setup = Setup {
        sq,
        cq: sq << rng.below(3),
        requests: *rng.pick(&[1, 2, 3, 4, 6, 8, 16]),
        files: rng.below(5) as u32,
        buffers: rng.below(5) as u32,
        submit_all: rng.chance(50),
        array: rng.chance(70),
        held: rng.chance(90),
        polled: rng.chance(25),
        timed: false,
        polls: false,
        groups: 0,
        provided: 0,
        drive: Drive::Inline,
        crosses: false,
    };
    let mut often = |most: u64| if rng.chance(40) { 0 } else { rng.below(most + 1) };
    let mut mood = Mood {
        nops: 10 + often(60),
        flaws: often(10),
        chains: often(40),
        drains: often(15),
        skips: often(20),
        fixed: often(80),
        at_once: often(60),
        odd: often(10),
        calls: often(8),
        lazy: often(90),
        pushes: 35 + often(20),
        timers: 0,
        controls: 0,
        polls: 0,
        readies: 0,
        picks: 0,
        fills: 0,
        crosses: 0,
        drives: 0,
    };
    if rng.chance(35) {
        // Where it matters when something starts, nothing is left open: no
        // drains, and a clock that nobody moves while the engine polls.
        (setup.timed, setup.held, setup.polled, mood.drains) = (true, true, false, 0);
        (mood.timers, mood.controls) = (10 + rng.below(40), rng.below(20));
    } else if rng.chance(40) {
        (setup.polls, setup.polled) = (true, false);
        (mood.polls, mood.readies) = (10 + rng.below(80), 10 + rng.below(50));
        mood.controls = rng.below(20);
    } else if rng.chance(40) {
        // Who picks what is known where nothing is left open.
        (setup.held, mood.drains) = (true, 0);
        (setup.groups, setup.provided) = (1 + rng.below(3) as u32, 1 + rng.below(8) as u32);
        (mood.picks, mood.fills) = (20 + rng.below(80), 5 + rng.below(20));
        (mood.controls, mood.calls) = (rng.below(20), mood.calls + rng.below(6));
    } else {
        mood.crosses = if rng.chance(50) { 0 } else { 1 + rng.below(30) };
        setup.crosses = mood.crosses != 0;
    }
    if !setup.timed {
        setup.drive = *rng.pick(&[Drive::Inline, Drive::Polled, Drive::Served]);
        mood.drives = if setup.drive == Drive::Inline { 0 } else { 5 + rng.below(50) };
    }
    (setup, Drawn { rng, left: 0, mood })
}

impl Drawn {
    /// So many more.
    pub fn more(&mut self, steps: u64) {
        self.left = steps;
    }

    pub fn next(&mut self, model: &Model, device: &Device, rings: Option<Rings>) -> Option<Action> {
        self.left = self.left.checked_sub(1)?;
        let unread = rings.map_or(0, |rings| rings.unread());
        let setup = &model.setup;
        let ready = model.waiting_entries();
        let at = self.rng.below(100);
        if self.mood.fills != 0 && self.rng.chance(self.mood.fills) {
            return Some(self.fill());
        }
        let action = if self.drives() {
            Action::Drive
        } else if ready == 0 && self.rng.chance(self.mood.controls) {
            self.ask(model)
        } else if at < self.mood.pushes && ready < setup.sq {
            Action::Push(self.spec(setup))
        } else if at < self.mood.pushes + 22 {
            self.enter(ready, unread)
        } else if at < self.mood.pushes + 22 + self.mood.calls {
            Action::Register(self.register(setup))
        } else if unread != 0 && !self.rng.chance(self.mood.lazy) {
            Action::Reap(1 + self.rng.below(u64::from(unread)) as u8)
        } else {
            self.outside(device, None)
        };
        Some(action)
    }

    /// Whether it is the turn of who drives the engine.
    pub fn drives(&mut self) -> bool {
        self.mood.drives != 0 && self.rng.chance(self.mood.drives)
    }

    /// How many CQEs the application takes, if it does, while the engine is at
    /// work.
    pub fn crosses(&mut self, unread: u32) -> Option<u8> {
        let any = unread != 0 && self.rng.chance(self.mood.crosses);
        any.then(|| 1 + self.rng.below(unread.into()) as u8)
    }

    fn enter(&mut self, ready: u32, unread: u32) -> Action {
        let some = self.rng.below(u64::from(ready) + 2) as u8;
        let count = if self.rng.chance(75) { ready as u8 } else { some };
        let wait = self.rng.chance(40);
        let want = if wait { unread as u8 + self.rng.below(4) as u8 } else { 0 };
        let limit = if self.rng.chance(40) { 1 + self.rng.below(1000) as u32 } else { 0 };
        Action::Enter { count, want, wait, limit }
    }

    /// Something that is not the application's doing.
    pub fn outside(&mut self, device: &Device, deadline: Option<u64>) -> Action {
        if self.drives() {
            return Action::Drive;
        }
        let nth = self.rng.below(256) as u8;
        if self.mood.readies != 0 && self.rng.chance(self.mood.readies) {
            return self.ready();
        }
        let at = self.rng.below(100);
        if at < self.mood.odd {
            return Action::Odd(match self.rng.below(3) {
                0 => Odd::Ended(nth),
                1 => Odd::Invented(self.rng.next() as u32 & 0x000f_001f),
                _ => Odd::Again,
            });
        }
        if self.mood.drives != 0 && at >= 90 && self.rng.chance(50) {
            // Long enough for a polling thread to fall asleep.
            return Action::Tick(600_000);
        }
        if device.flying == 0 {
            return match deadline {
                Some(_) => Action::Tick(1 + self.rng.below(500) as u32),
                None if at < 30 => Action::Tick(1 + self.rng.below(500) as u32),
                None => Action::Signal,
            };
        }
        match at {
            96.. => Action::Tick(1 + self.rng.below(2000) as u32),
            94.. => Action::Signal,
            93 if self.rng.chance(20) => Action::Reset,
            60..=92 => Action::Wake { nth },
            _ => Action::Complete { nth, outcome: self.outcome() },
        }
    }

    fn outcome(&mut self) -> Outcome {
        *self.rng.pick(&[
            Outcome::Whole,
            Outcome::Whole,
            Outcome::Whole,
            Outcome::Short,
            Outcome::Error,
        ])
    }

    fn register(&mut self, setup: &Setup) -> Register {
        let count = self.rng.below(u64::from(setup.files.max(setup.buffers)) + 2) as u8;
        let mask = self.rng.next() as u8 | self.rng.next() as u8;
        let place = self.rng.below(5) as u8;
        if setup.groups != 0 && self.rng.chance(60) {
            let group = self.rng.below(3) as u8;
            return match self.rng.below(4) {
                0 | 1 => Register::Ring { group, places: self.rng.below(4) as u8 },
                2 => Register::NoRing { group },
                _ => Register::Head { group },
            };
        }
        match self.rng.below(16) {
            0..4 => Register::Files { count, mask },
            4..8 => Register::Buffers { count, mask },
            8..11 => Register::UpdateFile { place, file: self.rng.below(8) as i8 - 2 },
            11..14 => Register::UpdateBuffer { place, full: self.rng.chance(80) },
            14 => Register::NoFiles,
            _ => Register::NoBuffers,
        }
    }

    /// Events begin and cease to hold.
    fn ready(&mut self) -> Action {
        let most = [EPOLLIN, EPOLLPRI, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP];
        let events = (0..2).map(|_| *self.rng.pick(&most)).fold(0, |all, event| all | event);
        let events = if self.rng.chance(40) { 0 } else { events as u16 };
        Action::Ready { file: self.rng.below(4) as u8, events }
    }

    /// The application puts buffers into a ring.
    fn fill(&mut self) -> Action {
        let (group, count) = (self.rng.below(3) as u8, 1 + self.rng.below(4) as u8);
        Action::Fill { group, count, len: 1 + self.rng.below(1024) as u16 }
    }

    /// Buffers are provided or removed, or a read is cancelled.
    fn provide(&mut self, model: &Model) -> Action {
        let count = 1 + self.rng.below(4) as u8;
        let op = match self.rng.below(8) {
            0..5 => Op::Provide { count },
            5 | 6 => Op::Unprovide { count },
            _ if model.setup.polled => Op::Provide { count },
            _ => Op::Cancel { key: Key::Data, all: false },
        };
        let buffer = self.rng.below(3) as u8;
        let len = 1 + self.rng.below(1024) as u16;
        let target = (1 + self.rng.below(20)).min(model.reqs.len() as u64) as u8;
        Action::Control(Spec { op, buffer, len, target, ..Spec::NOP })
    }

    /// Something about others is submitted.
    fn ask(&mut self, model: &Model) -> Action {
        if model.setup.groups != 0 {
            return self.provide(model);
        }
        if !model.setup.polls {
            return Action::Control(self.control(model));
        }
        let spec = self.about_polls(model);
        if self.rng.chance(30) { Action::Twice(spec) } else { Action::Control(spec) }
    }

    /// A request about those that wait for readiness.
    fn about_polls(&mut self, model: &Model) -> Spec {
        let waits = model.active.iter().filter(|&&id| model.spec(id).polls());
        let waits: Vec<u32> = waits.copied().collect();
        let (last, any) = (model.reqs.len() as u32, self.rng.below(20) as u32);
        let id = match waits.is_empty() || self.rng.chance(10) {
            true => last.saturating_sub(1 + any),
            false => *self.rng.pick(&waits),
        };
        let target = last.saturating_sub(id).min(255) as u8;
        let known = model.reqs.get(id as usize).map_or(0, |req| req.name);
        let name = if self.rng.chance(85) { known } else { self.rng.below(4) as u8 };
        let op = match self.rng.below(if model.setup.held { 8 } else { 5 }) {
            0 | 1 => Op::Unpoll,
            2..5 => {
                let name = if self.rng.chance(50) { self.rng.below(4) as u8 } else { 0 };
                Op::Repoll { events: self.rng.chance(70), name }
            }
            5 => Op::Cancel { key: Key::Data, all: self.rng.chance(30) },
            6 => Op::Cancel { key: *self.rng.pick(&[Key::File, Key::Opcode]), all: true },
            _ if self.rng.chance(30) => Op::Cancel { key: Key::Any, all: true },
            _ => Op::Cancel { key: Key::Data, all: true },
        };
        let (file, len) = (self.rng.below(5) as u8, self.rng.below(9) as u16);
        Spec { op, target, name, mask: self.rng.below(8) as u16, file, len, ..Spec::NOP }
    }

    /// A request about others.
    fn control(&mut self, model: &Model) -> Spec {
        let back = (1 + self.rng.below(20)).min(model.reqs.len() as u64) as u8;
        let time = 1 + self.rng.below(2000) as u32;
        let spec = Spec { target: back, time, ..Spec::NOP };
        let about = model.spec((model.reqs.len() as u32).wrapping_sub(back.into())).op;
        let several = matches!(about, Op::Timeout { repeats: 1.., .. });
        let op = match self.rng.below(8) {
            0 | 1 => Op::Remove,
            2 | 3 if !several => Op::Update { guard: about == Op::Guard },
            4 => Op::Cancel { key: Key::File, all: true },
            5 => Op::Cancel { key: Key::Opcode, all: true },
            6 if self.rng.chance(30) => Op::Cancel { key: Key::Any, all: self.rng.chance(50) },
            _ => Op::Cancel { key: Key::Data, all: self.rng.chance(30) },
        };
        let file = self.rng.below(5) as u8;
        Spec { op, file, len: self.rng.below(9) as u16, ..spec }
    }

    fn fate(&mut self) -> Fate {
        if self.rng.chance(self.mood.at_once) {
            return Fate::Now(self.outcome());
        }
        match self.rng.below(16) {
            0 => Fate::Early(self.outcome()),
            1 | 2 => Fate::Wakes(1 + self.rng.below(3) as u8),
            3 => Fate::NoRoom(1 + self.rng.below(3) as u8),
            4 if self.rng.chance(self.mood.flaws) => Fate::Refused,
            _ => Fate::Later,
        }
    }

    /// An entry.
    fn spec(&mut self, setup: &Setup) -> Spec {
        let mut spec = Spec::NOP;
        if self.rng.chance(self.mood.flaws) {
            spec.flaw =
                *self.rng.pick(&[Flaw::Priority, Flaw::Personality, Flaw::Flag, Flaw::Opcode]);
        }
        if self.rng.chance(self.mood.chains) {
            let hard = self.rng.chance(25);
            spec.flags |= if hard { IOSQE_IO_HARDLINK } else { IOSQE_IO_LINK };
        }
        if self.rng.chance(self.mood.drains) {
            spec.flags |= IOSQE_IO_DRAIN;
        }
        if self.rng.chance(self.mood.skips) {
            spec.flags |= IOSQE_CQE_SKIP_SUCCESS;
        }
        if self.rng.chance(5) {
            spec.flags |= IOSQE_ASYNC;
        }
        if self.rng.chance(self.mood.timers) {
            spec.time = 1 + self.rng.below(2000) as u32;
            let count = if self.rng.chance(50) { self.rng.below(5) as u8 } else { 0 };
            let repeats = if self.rng.chance(15) { 1 + self.rng.below(3) as u8 } else { 0 };
            let good = self.rng.chance(20);
            spec.op = match self.rng.below(3) {
                0 => Op::Guard,
                _ if repeats != 0 => Op::Timeout { count: 0, repeats, good },
                _ => Op::Timeout { count, repeats: 0, good },
            };
            return spec;
        }
        if self.rng.chance(self.mood.nops) {
            if self.rng.chance(20) {
                spec.op = Op::Nop(Some(self.rng.below(100) as i16 - 50));
            }
            return spec;
        }
        let polls = self.rng.chance(self.mood.polls);
        spec.op = match self.rng.below(5) {
            _ if polls => Op::Poll { multi: self.rng.chance(50) },
            0 => Op::Read,
            1 => Op::Write,
            2 => Op::ReadFixed,
            3 => Op::WriteFixed,
            _ => Op::Fsync,
        };
        spec.fixed = setup.files != 0 && self.rng.chance(self.mood.fixed);
        let most = if spec.fixed { setup.files + 1 } else { 5 };
        spec.file = self.rng.below(u64::from(most)) as u8;
        spec.buffer = self.rng.below(u64::from(setup.buffers) + 1) as u8;
        spec.len = 1 + self.rng.below(1024) as u16;
        if self.rng.chance(5) {
            spec.range = *self.rng.pick(&[Range::OnePast, Range::Before, Range::Elsewhere]);
        }
        if self.rng.chance(self.mood.picks) && spec.flaw == Flaw::None {
            spec.flags |= IOSQE_BUFFER_SELECT;
            spec.buffer = self.rng.below(3) as u8;
            spec.op = if self.rng.chance(95) { Op::Read } else { spec.op };
        }
        spec.fate = self.fate();
        if spec.selects() && self.rng.chance(30) {
            spec.fate = Fate::Wakes(1 + self.rng.below(3) as u8);
        }
        spec.can_end = self.rng.chance(60);
        if polls {
            let name = if self.rng.chance(40) { 1 + self.rng.below(3) as u8 } else { 0 };
            (spec.mask, spec.name) = (self.rng.below(8) as u16, name);
        }
        spec
    }
}
