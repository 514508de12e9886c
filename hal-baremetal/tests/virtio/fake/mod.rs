//! A disk made of code: it runs when the test says so, in any order, looks at
//! its queues only when it was notified, and lies where it is told to.
//! Whatever a correct driver never does it writes down as a fault, and
//! [`Fake::check`] fails the test for it.

mod device;
#[path = "../../../../core/tests/nvme/fake/memory.rs"]
#[allow(dead_code)] // shared with another fake
mod memory;
mod queue;
mod registers;

pub use device::{Device, Fate, Lies, Rule};
pub use memory::Mapped;
pub use queue::Lie;

use annulus::errno::Errno;
use annulus::hal::Clock;
use annulus::hal::device::{Coherent, Dma, Span};
use annulus_baremetal::Registers;
use annulus_baremetal::virtio::{MmioTransport, PciTransport, PciWindows, Platform};
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

/// Bytes that say where they belong: noise, and in each piece its number.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    const PIECE: usize = if cfg!(any(miri, fuzzing)) { 512 } else { 64 };
    let mut rng = Rng::new(seed);
    let piece: Vec<u8> = (0..PIECE / 8).flat_map(|_| rng.next().to_le_bytes()).collect();
    let mut bytes = Vec::with_capacity(len + PIECE);
    while bytes.len() < len {
        let number = (bytes.len() / PIECE) as u32;
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&piece[4..]);
    }
    bytes.truncate(len);
    bytes
}

/// What kind of device it is.
#[derive(Clone, Debug)]
pub struct Setup {
    pub device_type: u32,
    pub version: u32,
    /// Feature bits on offer.
    pub features: u64,
    /// Bits that it refuses when they are accepted.
    pub refused: u64,
    pub queues: u16,
    pub queue_size: u16,
    pub sectors: u64,
    pub block: u32,
    pub segments: u32,
    pub segment_bytes: u32,
    pub max_discard: u32,
    pub max_zeroes: u32,
    pub write_back: bool,
    /// Nanoseconds that a reset takes.
    pub reset_delay: u64,
    /// MSI-X vectors that it has room for.
    pub vectors: u16,
    /// Reads of the configuration after each of which it changes.
    pub restless_config: u32,
}

/// The features of `Setup::default`.
pub mod bit {
    pub const SIZE_MAX: u64 = 1 << 1;
    pub const SEG_MAX: u64 = 1 << 2;
    pub const RO: u64 = 1 << 5;
    pub const BLK_SIZE: u64 = 1 << 6;
    pub const FLUSH: u64 = 1 << 9;
    pub const TOPOLOGY: u64 = 1 << 10;
    pub const CONFIG_WCE: u64 = 1 << 11;
    pub const MQ: u64 = 1 << 12;
    pub const DISCARD: u64 = 1 << 13;
    pub const WRITE_ZEROES: u64 = 1 << 14;
    pub const INDIRECT: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    pub const VERSION_1: u64 = 1 << 32;
    pub const PACKED: u64 = 1 << 34;
    pub const NOTIFICATION_DATA: u64 = 1 << 38;
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            device_type: 2,
            version: 2,
            features: bit::SEG_MAX
                | bit::BLK_SIZE
                | bit::FLUSH
                | bit::TOPOLOGY
                | bit::CONFIG_WCE
                | bit::MQ
                | bit::DISCARD
                | bit::WRITE_ZEROES
                | bit::INDIRECT
                | bit::EVENT_IDX
                | bit::VERSION_1
                | bit::PACKED,
            refused: 0,
            queues: 4,
            queue_size: 256,
            sectors: if cfg!(any(miri, fuzzing)) { 256 } else { 2048 },
            block: 512,
            segments: 126,
            segment_bytes: 1 << 20,
            max_discard: 64,
            max_zeroes: 64,
            write_back: true,
            reset_delay: 300_000,
            vectors: 8,
            restless_config: 0,
        }
    }
}

/// The device and whoever uses it.
pub struct Fake(Mutex<Device>);

impl Fake {
    pub fn new(seed: u64, setup: Setup) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Device::new(seed, setup))))
    }

    pub fn device(&self) -> MutexGuard<'_, Device> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails for every fault. Nothing is left of the driver.
    pub fn check(&self) {
        let mut device = self.device();
        assert_eq!(device.faults(), [""; 0], "what a driver must not do");
        assert_eq!(device.memory.allocations(), 0, "memory was not given back");
        assert_eq!(device.memory.mappings(), 0, "a mapping was not ended");
        assert_eq!(device.status(), 0, "the device was not left reset");
    }
}

/// The place that the driver is in. `SYNC`: DMA is not coherent.
#[derive(Clone)]
pub struct Plug<const SYNC: bool = false>(pub Arc<Fake>);

impl<const SYNC: bool> Clock for Plug<SYNC> {
    fn now(&self) -> u64 {
        let mut device = self.0.device();
        device.now += 1_000;
        device.now
    }
}

// SAFETY: memory of the test's own, looked up in its list of mappings.
unsafe impl<const SYNC: bool> Dma for Plug<SYNC> {
    type Buffer = Mapped;

    fn alloc(&self, len: usize) -> Result<Coherent, Errno> {
        self.0.device().memory.alloc(len)
    }

    unsafe fn free(&self, memory: Coherent) {
        let mut device = self.0.device();
        device.freed(memory.device, memory.len);
        device.memory.free(&memory);
    }

    unsafe fn map(&self, addr: usize, len: usize) -> Result<Mapped, Errno> {
        Ok(self.0.device().memory.map(addr, len, !SYNC))
    }

    fn unmap(&self, buffer: Mapped) {
        self.0.device().memory.unmap(buffer);
    }

    fn span(&self, buffer: &Mapped, addr: usize) -> Span {
        self.0.device().memory.span(*buffer, addr)
    }

    const NEEDS_SYNC: bool = SYNC;

    fn sync_for_device(&self, addr: usize, len: usize) {
        if SYNC {
            self.0.device().memory.sync(addr, len, true);
        }
    }

    fn sync_for_cpu(&self, addr: usize, len: usize) {
        if SYNC {
            self.0.device().memory.sync(addr, len, false);
        }
    }
}

impl<const SYNC: bool> Platform for Plug<SYNC> {
    fn relax(&self) {
        let mut device = self.0.device();
        device.now += if cfg!(miri) { 20_000_000 } else { 100_000 };
        if device.auto {
            device.run();
        }
    }

    fn leaving(&self) -> bool {
        self.0.device().leaving
    }
}

/// Which window of registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bank {
    Mmio,
    Common,
    Notify,
    Isr,
    Config,
}

/// A window of registers.
#[derive(Clone)]
pub struct Wires(pub Arc<Fake>, pub Bank, pub usize);

impl std::fmt::Debug for Wires {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} of {} bytes", self.1, self.2)
    }
}

impl Wires {
    pub fn mmio(fake: &Arc<Fake>) -> Self {
        Self(fake.clone(), Bank::Mmio, 0x200)
    }

    pub fn pci(fake: &Arc<Fake>) -> PciWindows<Self> {
        PciWindows {
            kind: fake.device().setup.device_type as u16,
            common: Self(fake.clone(), Bank::Common, 0x38),
            notify: Self(fake.clone(), Bank::Notify, 0x40),
            notify_multiplier: 4,
            isr: Self(fake.clone(), Bank::Isr, 1),
            device: Some(Self(fake.clone(), Bank::Config, 0x3c)),
        }
    }
}

/// The transport over MMIO.
pub type Mmio = MmioTransport<Wires>;

pub fn mmio(fake: &Arc<Fake>) -> Mmio {
    MmioTransport::new(Wires::mmio(fake)).unwrap()
}

pub fn pci(fake: &Arc<Fake>) -> PciTransport<Wires> {
    PciTransport::new(Wires::pci(fake)).unwrap()
}

impl annulus::hal::device::Mmio for Wires {
    fn len(&self) -> usize {
        self.2
    }

    fn read32(&self, offset: usize) -> u32 {
        self.0.device().read(self.1, offset, 4) as u32
    }

    fn write32(&self, offset: usize, value: u32) {
        self.0.device().write(self.1, offset, 4, value);
    }
}

impl Registers for Wires {
    fn read8(&self, offset: usize) -> u8 {
        self.0.device().read(self.1, offset, 1) as u8
    }

    fn write8(&self, offset: usize, value: u8) {
        self.0.device().write(self.1, offset, 1, value.into());
    }

    fn read16(&self, offset: usize) -> u16 {
        self.0.device().read(self.1, offset, 2) as u16
    }

    fn write16(&self, offset: usize, value: u16) {
        self.0.device().write(self.1, offset, 2, value.into());
    }
}
