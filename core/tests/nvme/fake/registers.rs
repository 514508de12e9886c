//! Registers, and how a controller comes up and goes down.

use super::Lies;
use super::device::Device;
use super::queues::{Completions, Submissions};

#[derive(Default)]
pub struct Registers {
    pub cc: u32,
    pub aqa: u32,
    pub asq: u64,
    pub acq: u64,
    /// When it has shut down.
    pub shutdown: Option<u64>,
}

/// Where it is between off and on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Off,
    /// Ready at this time.
    Starting(u64),
    Ready,
    /// Off at this time.
    Stopping(u64),
}

impl Phase {
    pub fn is_on(self) -> bool {
        self != Phase::Off
    }

    pub fn is_ready(self) -> bool {
        self == Phase::Ready
    }
}

const EN: u32 = 1;
const SHN: u32 = 3 << 14;

impl Registers {
    pub fn fatal(&self, lies: &Lies) -> bool {
        lies.csts & 2 != 0
    }
}

impl Device {
    fn cap(&self) -> u64 {
        let s = &self.setup;
        s.cap.unwrap_or(
            u64::from(s.mqes)
                | 1 << 16
                | u64::from(s.to) << 24
                | u64::from(s.dstrd) << 32
                | u64::from(s.css) << 37
                | u64::from(s.mpsmin) << 48
                | 4 << 52,
        )
    }

    fn csts(&self) -> u32 {
        let ready = matches!(self.phase, Phase::Ready | Phase::Stopping(_));
        let shutdown = match self.regs.shutdown {
            None => 0,
            Some(at) if self.now < at => 1,
            Some(_) => 2,
        };
        u32::from(ready) | shutdown << 2 | self.lies.csts
    }

    fn touched(&mut self) {
        if let Some(left) = &mut self.lies.gone_in {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => self.remove(),
            }
        }
    }

    pub fn read_register(&mut self, offset: usize) -> u32 {
        let wrong = self.lies.garbled.pop_front().unwrap_or(0);
        self.garbled |= wrong != 0;
        self.register(offset) ^ wrong
    }

    fn register(&mut self, offset: usize) -> u32 {
        self.touched();
        if offset + 4 > self.setup.window || !offset.is_multiple_of(4) {
            self.fault(format!("a register at {offset:#x} was read"));
            return 0;
        }
        if self.gone || self.lies.mute {
            return u32::MAX;
        }
        self.clockwork();
        match offset {
            0x00 => self.cap() as u32,
            0x04 => (self.cap() >> 32) as u32,
            0x08 => 0x0002_0000,
            0x14 => self.regs.cc,
            0x1c => self.csts(),
            0x24 => self.regs.aqa,
            0x28 => self.regs.asq as u32,
            0x2c => (self.regs.asq >> 32) as u32,
            0x30 => self.regs.acq as u32,
            0x34 => (self.regs.acq >> 32) as u32,
            _ => 0,
        }
    }

    pub fn write_register(&mut self, offset: usize, value: u32) {
        self.touched();
        if offset + 4 > self.setup.window || !offset.is_multiple_of(4) {
            return self.fault(format!("a register at {offset:#x} was written"));
        }
        if self.gone || self.lies.mute {
            return;
        }
        self.clockwork();
        if (0x24..0x38).contains(&offset) && self.phase.is_on() {
            self.blame("admin queues were set while it is enabled");
        }
        let half = |word: u64, high: bool| match high {
            true => word & 0xffff_ffff | u64::from(value) << 32,
            false => word & !0xffff_ffff | u64::from(value),
        };
        match offset {
            0x14 => self.configure(value),
            0x24 => self.regs.aqa = value,
            0x28 | 0x2c => self.regs.asq = half(self.regs.asq, offset == 0x2c),
            0x30 | 0x34 => self.regs.acq = half(self.regs.acq, offset == 0x34),
            0x1000.. => {
                let stride = 4 << self.setup.dstrd;
                let number = (offset - 0x1000) / stride;
                if !(offset - 0x1000).is_multiple_of(stride) || !self.phase.is_ready() {
                    let phase = self.phase;
                    return self.blame_doorbell(format!("at {offset:#x}, {phase:?}"));
                }
                self.ring_doorbell((number / 2) as u16, number % 2 == 1, value);
            }
            _ => self.fault(format!("a register at {offset:#x} was written")),
        }
    }

    fn configure(&mut self, cc: u32) {
        let old = std::mem::replace(&mut self.regs.cc, cc);
        let starts = old & EN == 0 && cc & EN != 0;
        let stops = old & EN != 0 && cc & EN == 0;
        if starts {
            if self.phase != Phase::Off {
                self.blame("enabled before it was off");
            }
            self.check_start(cc);
            self.regs.shutdown = None;
            self.phase = Phase::Starting(self.now + self.setup.ready_delay);
        } else if stops {
            if self.phase == Phase::Off {
                self.blame("disabled while it is off");
            }
            if self.regs.shutdown.is_some_and(|at| self.now < at) {
                self.blame("disabled before it had shut down");
            }
            self.phase = Phase::Stopping(self.now + self.setup.disable_delay);
        }
        if cc & SHN != 0 && old & SHN == 0 && cc & EN != 0 {
            if self.work.iter().any(|work| work.sqid != 0) && !self.lies.wild {
                self.fault("shut down with commands in flight");
            }
            self.shutdowns += 1;
            for namespace in &mut self.namespaces {
                namespace.flush();
            }
            self.regs.shutdown = Some(self.now + self.setup.shutdown_delay);
        }
    }

    fn check_start(&mut self, cc: u32) {
        let css = cc >> 4 & 7;
        let sets = self.cap() >> 37;
        let chosen = match css {
            0 => sets & 1 != 0,
            6 => sets & 1 << 6 != 0,
            _ => false,
        };
        if !chosen || cc >> 7 & 0xf != 0 || cc >> 11 & 7 != 0 || cc >> 16 & 0xff != 0x46 {
            self.fault(format!("enabled with CC {cc:#x}"));
        }
        let (asqs, acqs) = (self.regs.aqa & 0xfff, self.regs.aqa >> 16 & 0xfff);
        let aligned = (self.regs.asq | self.regs.acq) & 0xfff == 0;
        if asqs == 0 || acqs == 0 || !aligned || self.regs.aqa & 0xf000_f000 != 0 {
            self.fault(format!("enabled with AQA {:#x}", self.regs.aqa));
        }
    }

    /// What happens by itself as time passes.
    pub fn clockwork(&mut self) {
        match self.phase {
            Phase::Starting(at) if self.now >= at && !self.lies.never_ready => {
                self.enabled += 1;
                self.lies.deaf_admin = false;
                self.phase = Phase::Ready;
                let (aqa, asq, acq) = (self.regs.aqa, self.regs.asq, self.regs.acq);
                self.sqs.insert(0, Submissions::new(asq, (aqa & 0xfff) + 1, 0));
                self.cqs.insert(0, Completions::new(acq, (aqa >> 16 & 0xfff) + 1, Some(0)));
            }
            Phase::Stopping(at) if self.now >= at && !self.lies.never_disabled => {
                self.last_writes();
                self.forget();
                self.phase = Phase::Off;
                self.regs.shutdown = None;
                if let Some(setup) = self.lies.change.take() {
                    self.setup = setup;
                }
            }
            _ => {}
        }
    }

    /// Queues and commands are no more.
    pub fn forget(&mut self) {
        self.sqs.clear();
        self.cqs.clear();
        self.work.clear();
        self.shadow = None;
        self.pairs = 0;
        self.masked = 0;
    }

    /// It is unplugged.
    pub fn remove(&mut self) {
        self.gone = true;
        self.forget();
    }

    pub fn isolate(&mut self) -> bool {
        self.isolations += 1;
        self.isolated |= !self.lies.no_isolation;
        self.isolated
    }

    pub fn reset_function(&mut self) -> bool {
        self.function_resets += 1;
        if self.lies.no_function_reset || self.gone {
            return false;
        }
        self.forget();
        self.regs = Registers::default();
        self.phase = Phase::Off;
        self.isolated = false;
        true
    }
}
