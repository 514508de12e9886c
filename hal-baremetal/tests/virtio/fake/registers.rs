//! The device's registers, over MMIO and over PCI.

use super::device::Device;
use super::{Bank, bit};

/// What the driver has written.
#[derive(Default)]
pub struct Registers {
    pub status: u8,
    pub accepted: u64,
    pub select_device: u32,
    pub select_driver: u32,
    pub queue: u16,
    pub config_vector: u16,
    pub interrupt: u8,
    /// When a reset that goes on will have ended.
    pub resetting: Option<u64>,
}

impl Device {
    fn half(which: u32, features: u64) -> u32 {
        match which {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        }
    }

    fn accept(&mut self, value: u32) {
        if self.regs.status & 11 != 3 {
            self.fault("features outside of their step");
        }
        let shift = 32 * self.regs.select_driver.min(1);
        self.regs.accepted &= !(0xffff_ffff << shift);
        self.regs.accepted |= u64::from(value) << shift;
    }

    /// The device status as it is now.
    pub fn status(&mut self) -> u8 {
        if self.regs.resetting.is_some_and(|end| self.now >= end) {
            self.regs.resetting = None;
            self.regs.status = 0;
        }
        // Not zero before it has ended.
        self.regs.status | u8::from(self.regs.resetting.is_some() || self.stuck)
    }

    fn set_status(&mut self, value: u8) {
        let old = self.status();
        if value == 0 {
            self.forget();
            self.stuck = self.lies.no_reset;
            if self.stuck {
                return;
            }
            self.regs.resetting = Some(self.now + self.setup.reset_delay);
            return;
        }
        if self.regs.resetting.is_some() {
            self.fault("a status before the reset has ended");
        }
        let mut new = value;
        if value & 8 != 0 && old & 8 == 0 {
            let accepted = self.regs.accepted;
            if accepted & !self.setup.features != 0 {
                self.fault(&format!("features that are not on offer: {accepted:#x}"));
            }
            if accepted & bit::VERSION_1 == 0 || accepted & self.setup.refused != 0 {
                new &= !8;
            }
        }
        if value & 4 != 0 && old & 8 == 0 {
            self.fault("DRIVER_OK without FEATURES_OK");
        }
        // Set step by step, and only the device says that it wants a reset.
        if old & !64 & !value != 0 || value & 64 != 0 {
            self.fault(&format!("from status {old:#x} to {value:#x}"));
        }
        self.regs.status = new | old & 64;
    }

    fn notified(&mut self, value: u32, wide: bool) {
        let queue = (value & 0xffff) as u16;
        self.notifications += 1;
        let data = self.regs.accepted & bit::NOTIFICATION_DATA != 0;
        if data != (wide || value >> 16 != 0) && (data || value >> 16 != 0) {
            self.fault(&format!("a notification of the wrong kind: {value:#x}"));
        }
        if self.regs.status & 4 == 0 {
            // One that was on its way when the device was reset.
            return;
        }
        match self.queues.get_mut(usize::from(queue)).filter(|queue| queue.ready) {
            Some(queue) => {
                queue.awake = true;
                if data {
                    queue.said = Some((value >> 16) as u16);
                }
            }
            None => self.fault(&format!("a notification of queue {queue}, which is not there")),
        }
    }

    pub fn read(&mut self, bank: Bank, at: usize, width: usize) -> u64 {
        if self.gone {
            return u64::MAX;
        }
        let queue = usize::from(self.regs.queue);
        let limit = if queue < usize::from(self.setup.queues) { self.setup.queue_size } else { 0 };
        let ready = self.queues.get(queue).is_some_and(|queue| queue.ready);
        let interrupt = self.regs.interrupt;
        match (bank, at, width) {
            (Bank::Mmio, 0x00, 4) => 0x7472_6976,
            (Bank::Mmio, 0x04, 4) => self.setup.version.into(),
            (Bank::Mmio, 0x08, 4) => self.setup.device_type.into(),
            (Bank::Mmio, 0x10, 4) | (Bank::Common, 0x04, 4) => {
                Self::half(self.regs.select_device, self.setup.features).into()
            }
            (Bank::Mmio, 0x34, 4) => limit.into(),
            (Bank::Mmio, 0x44, 4) | (Bank::Common, 0x1c, 2) => ready.into(),
            (Bank::Mmio, 0x60, 4) => interrupt.into(),
            (Bank::Mmio, 0x70, 4) | (Bank::Common, 0x14, 1) => self.status().into(),
            (Bank::Mmio, 0xfc, 4) => self.generation.into(),
            (Bank::Mmio, 0x100.., _) => self.config(at - 0x100, width),
            (Bank::Common, 0x10, 2) => self.regs.config_vector.into(),
            (Bank::Common, 0x12, 2) => self.setup.queues.into(),
            (Bank::Common, 0x15, 1) => self.generation as u8 as u64,
            (Bank::Common, 0x18, 2) => limit.into(),
            (Bank::Common, 0x1a, 2) => {
                self.queues.get(queue).map_or(0xffff, |queue| queue.vector).into()
            }
            (Bank::Common, 0x1e, 2) => queue as u64,
            (Bank::Isr, 0, 1) => {
                self.regs.interrupt = 0;
                interrupt.into()
            }
            (Bank::Config, _, _) => self.config(at, width),
            _ => {
                self.fault(&format!("read of {width} bytes at {bank:?} {at:#x}"));
                0
            }
        }
    }

    pub fn write(&mut self, bank: Bank, at: usize, width: usize, value: u32) {
        if self.gone {
            return;
        }
        match (bank, at, width) {
            (Bank::Mmio, 0x14, 4) | (Bank::Common, 0x00, 4) => self.regs.select_device = value,
            (Bank::Mmio, 0x20, 4) | (Bank::Common, 0x0c, 4) => self.accept(value),
            (Bank::Mmio, 0x24, 4) | (Bank::Common, 0x08, 4) => self.regs.select_driver = value,
            (Bank::Mmio, 0x30, 4) | (Bank::Common, 0x16, 2) => self.regs.queue = value as u16,
            (Bank::Mmio, 0x50, 4) => self.notified(value, false),
            (Bank::Notify, _, 2 | 4) => {
                if at != 4 * (value & 0xffff) as usize {
                    self.fault(&format!("queue {} notified at {at:#x}", value & 0xffff));
                }
                self.notified(value, width == 4);
            }
            (Bank::Mmio, 0x64, 4) => self.regs.interrupt &= !(value as u8),
            (Bank::Mmio, 0x70, 4) | (Bank::Common, 0x14, 1) => self.set_status(value as u8),
            (Bank::Mmio, 0x38, 4) | (Bank::Common, 0x18, 2) => {
                self.set_up(|queue| queue.size = value as u16);
            }
            (Bank::Common, 0x10, 2) => {
                let room = (value as u16) < self.setup.vectors;
                self.regs.config_vector = if room { value as u16 } else { 0xffff };
            }
            (Bank::Common, 0x1a, 2) => {
                let room = (value as u16) < self.setup.vectors;
                self.set_up(|queue| queue.vector = if room { value as u16 } else { 0xffff });
            }
            (Bank::Mmio, 0x44, 4) | (Bank::Common, 0x1c, 2) => self.enable(value),
            (Bank::Mmio, 0x80..0xa8, 4) | (Bank::Common, 0x20..0x38, 4) => {
                let (part, half) = match bank {
                    Bank::Mmio => ((at - 0x80) / 16, at & 4),
                    _ => ((at - 0x20) / 8, at & 4),
                };
                self.set_up(|queue| {
                    let address = &mut queue.parts[part];
                    let shift = 8 * half;
                    *address &= !(0xffff_ffff << shift);
                    *address |= u64::from(value) << shift;
                });
            }
            (Bank::Config, 0x20, 1) | (Bank::Mmio, 0x120, 1) => {
                if self.regs.accepted & bit::CONFIG_WCE == 0 {
                    self.fault("the cache's mode cannot be chosen");
                }
                self.write_back = value != 0;
            }
            _ => self.fault(&format!("write of {value:#x}, {width} bytes, at {bank:?} {at:#x}")),
        }
    }

    fn config(&mut self, at: usize, width: usize) -> u64 {
        let setup = &self.setup;
        let mut bytes = [0u8; 0x3c];
        let mut put = |at: usize, field: &[u8]| bytes[at..][..field.len()].copy_from_slice(field);
        put(0, &(self.sectors).to_le_bytes());
        put(8, &setup.segment_bytes.to_le_bytes());
        put(12, &setup.segments.to_le_bytes());
        put(20, &setup.block.to_le_bytes());
        // Physical blocks of 8, the first of which begins with block 1.
        put(24, &[3, 1, 8, 0, 64, 0, 0, 0]);
        put(32, &[self.write_back.into()]);
        put(34, &setup.queues.to_le_bytes());
        put(36, &setup.max_discard.to_le_bytes());
        put(40, &1u32.to_le_bytes());
        put(44, &8u32.to_le_bytes());
        put(48, &setup.max_zeroes.to_le_bytes());
        put(52, &1u32.to_le_bytes());
        put(56, &[1]);
        if !at.is_multiple_of(width) || at + width > bytes.len() {
            self.fault(&format!("{width} bytes of the configuration at {at:#x}"));
            return u64::MAX;
        }
        let mut value = [0; 8];
        value[..width].copy_from_slice(&bytes[at..][..width]);
        if let Some(left) = self.setup.restless_config.checked_sub(1) {
            // It grows while it is read: halves of two versions do not fit.
            self.setup.restless_config = left;
            self.generation = self.generation.wrapping_add(1);
            self.sectors = self.sectors.wrapping_add(1 << 31);
        }
        u64::from_le_bytes(value)
    }
}
