//! virtio over MMIO (section 4.2).

use super::spec::NO_VECTOR;
use super::{Error, Interrupts, QueueSetup, Transport};
use crate::Registers;

const MAGIC: usize = 0x00;
const VERSION: usize = 0x04;
const DEVICE_ID: usize = 0x08;
const DEVICE_FEATURES: usize = 0x10;
const DEVICE_FEATURES_SEL: usize = 0x14;
const DRIVER_FEATURES: usize = 0x20;
const DRIVER_FEATURES_SEL: usize = 0x24;
const QUEUE_SEL: usize = 0x30;
const QUEUE_SIZE_MAX: usize = 0x34;
const QUEUE_SIZE: usize = 0x38;
const QUEUE_READY: usize = 0x44;
const QUEUE_NOTIFY: usize = 0x50;
const INTERRUPT_STATUS: usize = 0x60;
const INTERRUPT_ACK: usize = 0x64;
const STATUS: usize = 0x70;
const QUEUE_DESC: usize = 0x80;
const QUEUE_DRIVER: usize = 0x90;
const QUEUE_DEVICE: usize = 0xa0;
const CONFIG_GENERATION: usize = 0xfc;
const CONFIG: usize = 0x100;

/// "virt", little-endian.
const MAGIC_VALUE: u32 = 0x7472_6976;

/// A virtio device behind MMIO registers (version 2 of the interface).
#[derive(Clone, Copy, Debug)]
pub struct MmioTransport<R> {
    registers: R,
}

impl<R: Registers> MmioTransport<R> {
    /// The device behind `registers`.
    ///
    /// # Errors
    /// [`Error::NoDevice`] where there is none (most of QEMU's places are
    /// empty), [`Error::Legacy`] for a device of version 1.
    pub fn new(registers: R) -> Result<Self, Error> {
        if registers.len() < CONFIG {
            let (what, have) = ("the registers", registers.len());
            return Err(Error::Window { what, have, need: CONFIG });
        }
        match registers.read32(MAGIC) {
            MAGIC_VALUE => {}
            u32::MAX => return Err(Error::Gone),
            _ => return Err(Error::NoDevice { why: "the magic value is another" }),
        }
        // The version first: where a legacy device could be is as good as a
        // device, for whoever looks for the reason of an empty machine.
        let (version, device) = (registers.read32(VERSION), registers.read32(DEVICE_ID));
        match (version, device) {
            (_, 0) => Err(Error::NoDevice { why: "the device type is 0" }),
            (2, _) => Ok(Self { registers }),
            (version, _) => Err(Error::Legacy { version }),
        }
    }

    fn set_address(&self, register: usize, address: u64) {
        self.registers.write32(register, address as u32);
        self.registers.write32(register + 4, (address >> 32) as u32);
    }
}

impl<R: Registers> Transport for MmioTransport<R> {
    fn device_type(&self) -> u32 {
        self.registers.read32(DEVICE_ID)
    }

    fn features(&self) -> u64 {
        let half = |which| {
            self.registers.write32(DEVICE_FEATURES_SEL, which);
            u64::from(self.registers.read32(DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    fn set_features(&self, features: u64) {
        for which in [0, 1] {
            self.registers.write32(DRIVER_FEATURES_SEL, which);
            self.registers.write32(DRIVER_FEATURES, (features >> (32 * which)) as u32);
        }
    }

    fn status(&self) -> u8 {
        self.registers.read32(STATUS) as u8
    }

    fn set_status(&self, status: u8) {
        self.registers.write32(STATUS, status.into());
    }

    fn queue_limit(&self, queue: u16) -> u16 {
        self.registers.write32(QUEUE_SEL, queue.into());
        self.registers.read32(QUEUE_SIZE_MAX).min(u32::from(u16::MAX)) as u16
    }

    fn set_queue(&self, queue: u16, setup: &QueueSetup) -> Result<usize, Error> {
        self.registers.write32(QUEUE_SEL, queue.into());
        if self.registers.read32(QUEUE_READY) != 0 {
            return Err(Error::Queue { queue, why: "it is in use though the device was reset" });
        }
        if let Some(vector) = setup.vector.filter(|vector| *vector != NO_VECTOR) {
            return Err(Error::Vector { vector });
        }
        self.registers.write32(QUEUE_SIZE, setup.size.into());
        self.set_address(QUEUE_DESC, setup.descriptors);
        self.set_address(QUEUE_DRIVER, setup.driver);
        self.set_address(QUEUE_DEVICE, setup.device);
        self.registers.write32(QUEUE_READY, 1);
        match self.registers.read32(QUEUE_READY) {
            1 => Ok(QUEUE_NOTIFY),
            _ => Err(Error::Queue { queue, why: "it does not become ready" }),
        }
    }

    fn set_config_vector(&self, vector: Option<u16>) -> Result<(), Error> {
        match vector {
            Some(vector) => Err(Error::Vector { vector }),
            None => Ok(()),
        }
    }

    #[inline(always)]
    fn notify(&self, at: usize, value: u32, _data: bool) {
        self.registers.write32(at, value);
    }

    #[inline]
    fn acknowledge(&self) -> Interrupts {
        let cause = self.registers.read32(INTERRUPT_STATUS);
        if cause & 3 == 0 || cause == u32::MAX {
            return Interrupts::default();
        }
        self.registers.write32(INTERRUPT_ACK, cause & 3);
        Interrupts { queue: cause & 1 != 0, config: cause & 2 != 0 }
    }

    fn config_generation(&self) -> u32 {
        self.registers.read32(CONFIG_GENERATION)
    }

    fn config_len(&self) -> usize {
        self.registers.len() - CONFIG
    }

    fn config8(&self, offset: usize) -> u8 {
        self.registers.read8(CONFIG + offset)
    }

    fn config16(&self, offset: usize) -> u16 {
        self.registers.read16(CONFIG + offset)
    }

    fn config32(&self, offset: usize) -> u32 {
        self.registers.read32(CONFIG + offset)
    }

    fn set_config8(&self, offset: usize, value: u8) {
        self.registers.write8(CONFIG + offset, value);
    }
}
