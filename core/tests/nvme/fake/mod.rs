//! A controller made of code: it runs when the test says so, in any order, and
//! lies where it is told to. Whatever a correct driver never does it writes
//! down as a fault, and [`Fake::check`] fails the test for it.

mod admin;
mod device;
mod io;
mod memory;
mod namespace;
mod queues;
mod registers;

pub use device::Device;
pub use memory::Mapped;

use annulus::errno::Errno;
use annulus::hal::Clock;
use annulus::hal::device::{Coherent, Dma, Mmio, Span};
use annulus::nvme::Platform;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Random numbers that come again (xorshift).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end.max(1)
    }
}

/// What kind of controller it is.
#[derive(Clone, Debug)]
pub struct Setup {
    /// `CAP.MQES`, 0's based.
    pub mqes: u16,
    /// `CAP.TO`.
    pub to: u8,
    /// `CAP.DSTRD`.
    pub dstrd: u8,
    /// `CAP.CSS`.
    pub css: u8,
    /// `CAP.MPSMIN`.
    pub mpsmin: u8,
    /// All of `CAP`, instead of the above.
    pub cap: Option<u64>,
    /// Bytes of the register window.
    pub window: usize,
    pub serial: &'static str,
    pub mdts: u8,
    /// `ACL` and `AERL`, 0's based.
    pub acl: u8,
    pub aerl: u8,
    pub vwc: bool,
    pub write_zeroes: bool,
    pub dsm: bool,
    pub doorbell_buffer: bool,
    /// `SGLS` bits 1:0.
    pub sgls: u8,
    /// Queue pairs that are granted.
    pub pairs: u16,
    /// Nanoseconds.
    pub ready_delay: u64,
    pub disable_delay: u64,
    pub shutdown_delay: u64,
    /// Changes identify data before they are handed over: CNS, data.
    pub identify: Option<fn(u32, &mut [u8])>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            mqes: 1023,
            to: 2,
            dstrd: 0,
            css: 1,
            mpsmin: 0,
            cap: None,
            window: 0x2000,
            serial: "A1",
            mdts: 3,
            acl: 3,
            aerl: 3,
            vwc: true,
            write_zeroes: true,
            dsm: true,
            doorbell_buffer: true,
            sgls: 0,
            pairs: 8,
            ready_delay: 300_000,
            disable_delay: 300_000,
            shutdown_delay: 300_000,
            identify: None,
        }
    }
}

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is carried out.
    Normal,
    /// It ends with this status field.
    Status(u16),
    /// It never ends, unless it is aborted.
    Lost,
}

/// What becomes of the commands that it fits, the next so many.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub admin: bool,
    /// `None`: any.
    pub opcode: Option<u8>,
    pub fate: Fate,
    /// How many more it is for.
    pub left: u32,
    /// How many it lets pass before.
    pub skip: u32,
}

impl Rule {
    pub fn io(fate: Fate, left: u32) -> Self {
        Self { admin: false, opcode: None, fate, left, skip: 0 }
    }

    pub fn admin(opcode: u8, fate: Fate, left: u32) -> Self {
        Self { admin: true, opcode: Some(opcode), fate, left, skip: 0 }
    }

    pub fn opcode(self, opcode: u8) -> Self {
        Self { opcode: Some(opcode), ..self }
    }

    pub fn skip(self, skip: u32) -> Self {
        Self { skip, ..self }
    }
}

/// What aborts do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aborts {
    /// End the command.
    #[default]
    Work,
    /// Answer that they did not.
    Ignored,
    /// Come too late: the command ends as it should, then the abort.
    TooLate,
    /// Never answer.
    Lost,
}

/// How it misbehaves.
#[derive(Default)]
pub struct Lies {
    pub rules: Vec<Rule>,
    /// I/O commands are fetched and do not end.
    pub hold: bool,
    /// Nothing is fetched from I/O queues.
    pub deaf: bool,
    /// Nor from the admin queue, until the next reset.
    pub deaf_admin: bool,
    pub aborts: Aborts,
    pub never_ready: bool,
    pub never_disabled: bool,
    pub no_isolation: bool,
    pub no_function_reset: bool,
    /// Set in CSTS.
    pub csts: u32,
    /// Its registers read all ones, and it goes on.
    pub mute: bool,
    /// Removed after so many more register accesses.
    pub gone_in: Option<u32>,
    /// What it is after the next time it is stopped.
    pub change: Option<Setup>,
    /// Rings in threads: a doorbell may be written just after another ring has
    /// reset the controller, of a queue that is no more.
    pub racing: bool,
    /// Bits that are wrong in the next reads of registers.
    pub garbled: VecDeque<u32>,
    /// It has written to its queues what it should not: nothing that it has is
    /// known to be the driver's doing.
    pub scribbled: bool,
    /// It does not keep to its side; what its own garbage leads to is not the
    /// driver's fault.
    pub wild: bool,
}

/// What must end ends before so many looks at the clock.
const PATIENCE: u64 = if cfg!(miri) { 100_000 } else { 3_000_000 };

/// The controller and the machine around it.
pub struct Fake(Mutex<Device>);

impl Fake {
    pub fn new(seed: u64, setup: Setup) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Device::new(seed, setup))))
    }

    /// The device itself. Not while a driver is called.
    pub fn device(&self) -> MutexGuard<'_, Device> {
        // A test that has failed takes its rings down all the same.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the device do up to `steps` things.
    pub fn run(&self, steps: u32) {
        self.device().run(steps);
    }

    /// Lets time pass.
    pub fn advance(&self, ns: u64) {
        let mut device = self.device();
        device.now += ns;
        device.clockwork();
    }

    pub fn advance_ms(&self, ms: u64) {
        self.advance(ms * 1_000_000);
    }

    /// The test is over: no faults, and everything was given back.
    pub fn check(&self) {
        self.check_faults();
        let device = self.device();
        let left = (device.memory.allocations(), device.memory.mappings());
        assert_eq!(left, (0, 0), "allocations and mappings that were not given back");
    }

    pub fn check_faults(&self) {
        let mut device = self.device();
        let mut faults = std::mem::take(&mut device.faults);
        let mut reached = std::mem::take(&mut device.memory.faults);
        if !device.lies.scribbled {
            faults.append(&mut reached);
        }
        drop(device);
        assert!(faults.is_empty(), "{faults:#?}");
    }

    fn waited(&self) -> MutexGuard<'_, Device> {
        let mut device = self.device();
        device.waits += 1;
        if device.waits > PATIENCE {
            drop(device);
            panic!("the driver does not come to an end");
        }
        device
    }

    /// The test has got this far.
    pub fn patience(&self) {
        self.device().waits = 0;
    }
}

/// The controller as a driver has it. `SYNC`: DMA is not coherent.
#[derive(Clone)]
pub struct Plug<const SYNC: bool = false>(pub Arc<Fake>);

impl<const SYNC: bool> Mmio for Plug<SYNC> {
    fn len(&self) -> usize {
        self.0.device().setup.window
    }

    fn read32(&self, offset: usize) -> u32 {
        self.0.device().read_register(offset)
    }

    fn write32(&self, offset: usize, value: u32) {
        self.0.device().write_register(offset, value);
    }
}

impl<const SYNC: bool> Clock for Plug<SYNC> {
    fn now(&self) -> u64 {
        let mut device = self.0.waited();
        device.now += device.tick;
        device.clockwork();
        if device.auto {
            device.run(16);
        }
        device.now
    }
}

// SAFETY: memory of the test's own, looked up in its list of mappings.
unsafe impl<const SYNC: bool> Dma for Plug<SYNC> {
    type Buffer = Mapped;
    const NEEDS_SYNC: bool = SYNC;

    fn alloc(&self, len: usize) -> Result<Coherent, Errno> {
        self.0.device().memory.alloc(len)
    }

    unsafe fn free(&self, memory: Coherent) {
        let mut device = self.0.device();
        device.given_back("memory was freed", memory.device, memory.len);
        device.memory.free(&memory);
    }

    unsafe fn map(&self, addr: usize, len: usize) -> Result<Mapped, Errno> {
        Ok(self.0.device().memory.map(addr, len, !SYNC))
    }

    fn unmap(&self, buffer: Mapped) {
        let mut device = self.0.device();
        for (at, len) in device.memory.of(buffer) {
            device.given_back("memory was unmapped", at, len);
        }
        device.memory.unmap(buffer);
    }

    fn span(&self, buffer: &Mapped, addr: usize) -> Span {
        self.0.device().memory.span(*buffer, addr)
    }

    fn sync_for_device(&self, addr: usize, len: usize) {
        self.0.device().memory.sync(addr, len, true);
    }

    fn sync_for_cpu(&self, addr: usize, len: usize) {
        self.0.device().memory.sync(addr, len, false);
    }
}

impl<const SYNC: bool> Platform for Plug<SYNC> {
    fn relax(&self) {
        {
            let mut device = self.0.waited();
            device.now += device.relax;
            device.clockwork();
            device.run(64);
        }
        HOOK.with(|hook| {
            // Not from within itself.
            if let Ok(mut hook) = hook.try_borrow_mut()
                && let Some(hook) = hook.as_mut()
            {
                hook();
            }
        });
    }

    fn isolate(&self) -> bool {
        self.0.device().isolate()
    }

    fn reset_function(&self) -> bool {
        self.0.device().reset_function()
    }
}

thread_local! {
    static HOOK: std::cell::RefCell<Option<Box<dyn FnMut()>>> =
        const { std::cell::RefCell::new(None) };
}

/// Calls `f` whenever a driver waits: what another thread might do meanwhile.
pub fn meanwhile<R>(f: impl FnMut() + 'static, during: impl FnOnce() -> R) -> R {
    HOOK.with(|hook| *hook.borrow_mut() = Some(Box::new(f)));
    let result = during();
    HOOK.with(|hook| hook.borrow_mut().take());
    result
}
