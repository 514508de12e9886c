//! The disk behind the queues.

use super::bit;
use super::queue::{Chain, Lie, Piece, Queue};
use super::registers::Registers;
use super::{Rng, Setup, memory::Memory, noise};

/// What becomes of the next request of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The request type; `None`: any.
    pub kind: Option<u32>,
    /// How many it lets pass before.
    pub skip: u32,
    pub fate: Fate,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It ends with this status, and nothing is done.
    Status(u8),
    /// It never ends.
    Lost,
    /// It is carried out, and its used entry is false.
    Lie(Lie),
}

/// How it misbehaves besides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lies {
    /// A reset never ends.
    pub no_reset: bool,
    /// It takes nothing from its queues.
    pub deaf: bool,
}

/// As much of a disk is there, however large it says that it is.
const MOST: u64 = if cfg!(fuzzing) { 1 << 10 } else { 1 << 16 };

/// The device.
pub struct Device {
    pub setup: Setup,
    pub memory: Memory,
    pub regs: Registers,
    pub queues: Vec<Queue>,
    /// Requests that it has.
    pub work: Vec<Chain>,
    pub disk: Vec<u8>,
    /// What is there after a power cut.
    pub durable: Vec<u8>,
    pub sectors: u64,
    pub write_back: bool,
    pub generation: u32,
    pub now: u64,
    pub rules: Vec<Rule>,
    pub lies: Lies,
    pub gone: bool,
    /// It works while the driver waits.
    pub auto: bool,
    /// In a reset that does not end.
    pub stuck: bool,
    pub leaving: bool,
    /// It has written to its queues what it should not: nothing that it finds
    /// there, or does, is known to be the driver's doing.
    pub scribbled: bool,
    pub notifications: u32,
    pub interrupts: u32,
    /// Sleeps that no interrupt has ended.
    pub slept: u32,
    /// Types of the requests that were carried out.
    pub carried_out: Vec<u32>,
    pub resets: u32,
    faults: Vec<String>,
    rng: Rng,
}

impl Device {
    pub fn new(seed: u64, setup: Setup) -> Self {
        let bytes = (setup.sectors.min(MOST) * 512) as usize;
        let rng = Rng::new(seed);
        let disk = noise(seed, bytes);
        let queues = vec![Queue { vector: 0xffff, ..Queue::default() }; setup.queues.into()];
        Self {
            sectors: setup.sectors,
            write_back: setup.write_back,
            durable: disk.clone(),
            setup,
            memory: Memory::default(),
            regs: Registers { config_vector: 0xffff, ..Registers::default() },
            queues,
            work: Vec::new(),
            disk,
            generation: 0,
            now: 0,
            rules: Vec::new(),
            lies: Lies::default(),
            gone: false,
            auto: false,
            stuck: false,
            leaving: false,
            scribbled: false,
            notifications: 0,
            interrupts: 0,
            slept: 0,
            carried_out: Vec::new(),
            resets: 0,
            faults: Vec::new(),
            rng,
        }
    }

    pub fn fault(&mut self, what: &str) {
        if self.faults.len() < 5 && !self.scribbled {
            self.faults.push(what.into());
        }
    }

    pub fn faults(&self) -> Vec<String> {
        if self.scribbled {
            return Vec::new();
        }
        self.faults.iter().chain(&self.memory.faults).cloned().collect()
    }

    /// For a test of what the driver cannot help.
    pub fn forgive(&mut self) {
        self.faults.clear();
        self.memory.faults.clear();
    }

    /// Whether what it does is what it was asked for.
    pub fn is_itself(&self) -> bool {
        !self.scribbled && !self.gone && !self.stuck
    }

    /// A reset begins: it has nothing any more.
    pub fn forget(&mut self) {
        self.resets += 1;
        let status = self.regs.status;
        self.work.clear();
        self.regs = Registers { config_vector: 0xffff, status, ..Registers::default() };
        self.queues.fill(Queue { vector: 0xffff, ..Queue::default() });
    }

    /// Memory is given back: the device must have no business with it.
    pub fn freed(&mut self, device: u64, len: usize) {
        let inside = |at: u64| at >= device && at < device + len as u64;
        let parts = self.queues.iter().filter(|queue| queue.ready).flat_map(|queue| queue.parts);
        let pieces = self.work.iter().flat_map(|chain| &chain.pieces).map(|piece| piece.device);
        if parts.chain(pieces).any(inside) && !self.gone {
            self.fault("memory was given back that the device has");
        }
    }

    /// The disk has another size from now on.
    pub fn resize(&mut self, sectors: u64) {
        self.sectors = sectors;
        self.disk.resize((sectors.min(MOST) * 512) as usize, 0);
        self.generation += 1;
        self.regs.interrupt |= 2;
    }

    /// It wants to be reset, and does nothing until then.
    pub fn break_down(&mut self) {
        self.regs.status |= 64;
        self.regs.interrupt |= 2;
        self.lies.deaf = true;
    }

    /// Carries out one of the requests that it has. False if there is none.
    pub fn step(&mut self) -> bool {
        self.look();
        if self.gone || self.regs.status & 64 != 0 {
            return false;
        }
        let ready: Vec<_> = (0..self.work.len()).filter(|at| !self.work[*at].lost).collect();
        let Some(at) = ready.get(self.rng.below(ready.len())) else { return false };
        self.end(*at);
        true
    }

    /// All that it has, and what comes of it.
    pub fn run(&mut self) {
        while self.step() {}
    }

    fn fate(&mut self, kind: u32) -> Option<Fate> {
        let at = self.rules.iter().position(|rule| rule.kind.is_none_or(|k| k == kind))?;
        match self.rules[at].skip.checked_sub(1) {
            Some(left) => {
                self.rules[at].skip = left;
                None
            }
            None => Some(self.rules.remove(at).fate),
        }
    }

    /// The bytes of pieces, as the device reads them.
    fn gather(&mut self, pieces: &[Piece]) -> Vec<u8> {
        let mut all = Vec::new();
        for piece in pieces {
            let mut bytes = vec![0; piece.len as usize];
            self.memory.read(piece.device, &mut bytes);
            all.extend(bytes);
        }
        all
    }

    fn end(&mut self, at: usize) {
        let chain = &self.work[at];
        let split = chain.pieces.iter().position(|piece| piece.writes).unwrap_or(0);
        let (read, written) = chain.pieces.split_at(split);
        let (read, mut written) = (read.to_vec(), written.to_vec());
        let Some(status) = written.pop().filter(|status| status.len == 1) else {
            self.fault("a request without a status byte at its end");
            self.work.remove(at);
            return;
        };
        let data: u32 = written.iter().map(|piece| piece.len).sum();
        let sent = self.gather(&read);
        if sent.len() < 16 {
            self.fault("a request without a header");
            self.work.remove(at);
            return;
        }
        let kind = u32::from_le_bytes(sent[..4].try_into().unwrap());
        let sector = u64::from_le_bytes(sent[8..16].try_into().unwrap());
        let fate = self.fate(kind);
        if fate == Some(Fate::Lost) {
            self.work[at].lost = true;
            return;
        }
        let chain = self.work.remove(at);
        self.limits(&read[1..], &written);
        let mut done = 0;
        let answer = match fate {
            Some(Fate::Status(status)) => status,
            _ => self.carry_out(kind, sector, &sent[16..], data, &written, &mut done),
        };
        let lie = match fate {
            Some(Fate::Lie(lie)) => Some(lie),
            _ => None,
        };
        if lie != Some(Lie::NoStatus) {
            self.memory.write(status.device, &[answer]);
        }
        self.push_used(&chain, done + 1, lie);
    }

    /// What a request must keep to.
    fn limits(&mut self, read: &[Piece], written: &[Piece]) {
        let (segments, most) = (self.setup.segments, self.setup.segment_bytes);
        let segments = if self.has(bit::SEG_MAX) { segments.max(1) } else { 1 };
        let most = if self.has(bit::SIZE_MAX) { most } else { u32::MAX };
        for pieces in [read, written] {
            if pieces.len() > segments as usize || pieces.iter().any(|piece| piece.len > most) {
                self.fault("more pieces, or longer ones, than the device takes");
            }
        }
    }

    fn has(&self, bit: u64) -> bool {
        self.regs.accepted & bit != 0
    }

    /// Answers the status; `done`: bytes written to `written`.
    fn carry_out(
        &mut self,
        kind: u32,
        sector: u64,
        sent: &[u8],
        data: u32,
        written: &[Piece],
        done: &mut u32,
    ) -> u8 {
        self.carried_out.push(kind);
        let from = sector.saturating_mul(512) as usize;
        let range = |device: &mut Self, len: usize| {
            // What a driver that has not asked for its size knows of blocks.
            let block = if device.has(bit::BLK_SIZE) { device.setup.block as usize } else { 512 };
            let whole = from.is_multiple_of(block) && len.is_multiple_of(block);
            let end = from.saturating_add(len);
            if !whole || end > device.sectors.saturating_mul(512) as usize {
                device.fault(&format!("{len} bytes at {from:#x}: off the disk, or off its grid"));
                return None;
            }
            if end > device.disk.len() {
                // It has said that it is larger than it is.
                return None;
            }
            Some(from..from + len)
        };
        match kind {
            0 => {
                let Some(range) = range(self, data as usize) else { return 1 };
                let bytes = self.disk[range].to_vec();
                self.scatter(&bytes, written);
                *done = data;
            }
            1 => {
                let Some(range) = range(self, sent.len()) else { return 1 };
                if self.has(bit::RO) {
                    self.fault("a write to a disk that is read only");
                }
                self.disk[range].copy_from_slice(sent);
                if !self.write_back {
                    self.durable = self.disk.clone();
                }
            }
            4 => {
                if sector != 0 || data != 0 || !sent.is_empty() || !self.has(bit::FLUSH) {
                    self.fault("a flush that is none");
                }
                self.durable = self.disk.clone();
            }
            8 => {
                self.scatter(b"a disk made of code\0", written);
                *done = data.min(20);
            }
            11 | 13 => {
                let (limit, allowed) = match kind {
                    11 => (self.setup.max_discard, self.has(bit::DISCARD)),
                    _ => (self.setup.max_zeroes, self.has(bit::WRITE_ZEROES)),
                };
                let first = u64::from_le_bytes(sent[..8].try_into().unwrap());
                let count = u32::from_le_bytes(sent[8..12].try_into().unwrap());
                let flags = u32::from_le_bytes(sent[12..].try_into().unwrap());
                if sent.len() != 16 || sector != 0 || !allowed || count > limit {
                    self.fault("a range that the device does not take");
                }
                if flags > u32::from(kind == 13) {
                    self.fault("flags of a range that there are not");
                }
                let from = (first * 512) as usize;
                let to = from + count as usize * 512;
                if to > self.disk.len() {
                    self.fault("a range off the disk");
                    return 1;
                }
                // What was discarded reads as anything.
                self.disk[from..to].fill(if kind == 11 { 0xdd } else { 0 });
            }
            _ => return 2,
        }
        0
    }

    fn scatter(&mut self, bytes: &[u8], pieces: &[Piece]) {
        let mut rest = bytes;
        for piece in pieces {
            let (now, later) = rest.split_at(rest.len().min(piece.len as usize));
            self.memory.write(piece.device, now);
            rest = later;
        }
    }
}
