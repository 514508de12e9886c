//! virtio over PCI, the modern interface (section 4.1).

use super::spec::NO_VECTOR;
use super::{Error, Interrupts, QueueSetup, Transport};
use crate::Registers;

// The common configuration (section 4.1.4.3).
const DEVICE_FEATURE_SELECT: usize = 0x00;
const DEVICE_FEATURE: usize = 0x04;
const DRIVER_FEATURE_SELECT: usize = 0x08;
const DRIVER_FEATURE: usize = 0x0c;
const CONFIG_MSIX_VECTOR: usize = 0x10;
const NUM_QUEUES: usize = 0x12;
const DEVICE_STATUS: usize = 0x14;
const CONFIG_GENERATION: usize = 0x15;
const QUEUE_SELECT: usize = 0x16;
const QUEUE_SIZE: usize = 0x18;
const QUEUE_MSIX_VECTOR: usize = 0x1a;
const QUEUE_ENABLE: usize = 0x1c;
const QUEUE_NOTIFY_OFF: usize = 0x1e;
const QUEUE_DESC: usize = 0x20;
const QUEUE_DRIVER: usize = 0x28;
const QUEUE_DEVICE: usize = 0x30;
const COMMON_BYTES: usize = 0x38;

/// The windows that a virtio device's PCI capabilities name (section 4.1.4).
#[derive(Clone, Copy, Debug)]
pub struct PciWindows<R> {
    /// The virtio device type that the PCI device id stands for.
    pub kind: u16,
    /// VIRTIO_PCI_CAP_COMMON_CFG.
    pub common: R,
    /// VIRTIO_PCI_CAP_NOTIFY_CFG.
    pub notify: R,
    /// `notify_off_multiplier` of that capability.
    pub notify_multiplier: u32,
    /// VIRTIO_PCI_CAP_ISR_CFG.
    pub isr: R,
    /// VIRTIO_PCI_CAP_DEVICE_CFG, if there is one.
    pub device: Option<R>,
}

impl From<crate::pci::VirtioWindows> for PciWindows<crate::Window> {
    fn from(found: crate::pci::VirtioWindows) -> Self {
        let crate::pci::VirtioWindows { kind, common, notify, notify_multiplier, isr, device } =
            found;
        Self { kind, common, notify, notify_multiplier, isr, device }
    }
}

/// A virtio device on a PCI bus, in its modern interface; transitional devices
/// have that as well.
#[derive(Clone, Copy, Debug)]
pub struct PciTransport<R> {
    windows: PciWindows<R>,
}

impl<R: Registers> PciTransport<R> {
    /// The device behind these windows. Memory space and bus mastering are on.
    ///
    /// # Errors
    /// [`Error::Window`] for a window that is too small.
    pub fn new(windows: impl Into<PciWindows<R>>) -> Result<Self, Error> {
        let windows = windows.into();
        let need = [
            ("the common configuration", windows.common.len(), COMMON_BYTES),
            ("the notifications", windows.notify.len(), 2),
            ("the interrupt status", windows.isr.len(), 1),
        ];
        for (what, have, need) in need {
            if have < need {
                return Err(Error::Window { what, have, need });
            }
        }
        Ok(Self { windows })
    }

    fn set_address(&self, register: usize, address: u64) {
        // Two halves are as good as one (section 4.1.3.1).
        self.windows.common.write32(register, address as u32);
        self.windows.common.write32(register + 4, (address >> 32) as u32);
    }
}

impl<R: Registers> Transport for PciTransport<R> {
    fn device_type(&self) -> u32 {
        self.windows.kind.into()
    }

    fn features(&self) -> u64 {
        let half = |which| {
            self.windows.common.write32(DEVICE_FEATURE_SELECT, which);
            u64::from(self.windows.common.read32(DEVICE_FEATURE))
        };
        half(0) | half(1) << 32
    }

    fn set_features(&self, features: u64) {
        for which in [0, 1] {
            self.windows.common.write32(DRIVER_FEATURE_SELECT, which);
            self.windows.common.write32(DRIVER_FEATURE, (features >> (32 * which)) as u32);
        }
    }

    fn status(&self) -> u8 {
        self.windows.common.read8(DEVICE_STATUS)
    }

    fn set_status(&self, status: u8) {
        self.windows.common.write8(DEVICE_STATUS, status);
    }

    fn queue_limit(&self, queue: u16) -> u16 {
        let common = &self.windows.common;
        if queue >= common.read16(NUM_QUEUES) {
            return 0;
        }
        common.write16(QUEUE_SELECT, queue);
        common.read16(QUEUE_SIZE)
    }

    fn set_queue(&self, queue: u16, setup: &QueueSetup) -> Result<usize, Error> {
        let common = &self.windows.common;
        common.write16(QUEUE_SELECT, queue);
        if common.read16(QUEUE_ENABLE) != 0 {
            return Err(Error::Queue { queue, why: "it is in use though the device was reset" });
        }
        common.write16(QUEUE_SIZE, setup.size);
        // None is what it has after a reset.
        if let Some(vector) = setup.vector {
            common.write16(QUEUE_MSIX_VECTOR, vector);
            if common.read16(QUEUE_MSIX_VECTOR) != vector || vector == NO_VECTOR {
                return Err(Error::Vector { vector });
            }
        }
        // The device's word, so it may be any; the product fits 64 bits.
        let offset =
            u64::from(common.read16(QUEUE_NOTIFY_OFF)) * u64::from(self.windows.notify_multiplier);
        let width = if setup.notification_data { 4 } else { 2 };
        let (have, need) = (self.windows.notify.len(), offset + width);
        if offset % width != 0 {
            return Err(Error::Queue { queue, why: "its notifications are off the grid" });
        }
        if (have as u64) < need {
            let need = usize::try_from(need).unwrap_or(usize::MAX);
            return Err(Error::Window { what: "the notifications", have, need });
        }
        self.set_address(QUEUE_DESC, setup.descriptors);
        self.set_address(QUEUE_DRIVER, setup.driver);
        self.set_address(QUEUE_DEVICE, setup.device);
        common.write16(QUEUE_ENABLE, 1);
        match common.read16(QUEUE_ENABLE) {
            1 => Ok(offset as usize),
            _ => Err(Error::Queue { queue, why: "it does not become enabled" }),
        }
    }

    fn set_config_vector(&self, vector: Option<u16>) -> Result<(), Error> {
        let Some(vector) = vector else { return Ok(()) };
        self.windows.common.write16(CONFIG_MSIX_VECTOR, vector);
        match self.windows.common.read16(CONFIG_MSIX_VECTOR) {
            now if now == vector && vector != NO_VECTOR => Ok(()),
            _ => Err(Error::Vector { vector }),
        }
    }

    #[inline(always)]
    fn notify(&self, at: usize, value: u32, data: bool) {
        if data {
            self.windows.notify.write32(at, value);
        } else {
            self.windows.notify.write16(at, value as u16);
        }
    }

    #[inline]
    fn acknowledge(&self) -> Interrupts {
        // Reading takes it back.
        match self.windows.isr.read8(0) {
            u8::MAX => Interrupts::default(),
            cause => Interrupts { queue: cause & 1 != 0, config: cause & 2 != 0 },
        }
    }

    fn config_generation(&self) -> u32 {
        self.windows.common.read8(CONFIG_GENERATION).into()
    }

    fn config_len(&self) -> usize {
        self.windows.device.as_ref().map_or(0, |device| device.len())
    }

    fn config8(&self, offset: usize) -> u8 {
        self.windows.device.as_ref().map_or(u8::MAX, |device| device.read8(offset))
    }

    fn config16(&self, offset: usize) -> u16 {
        self.windows.device.as_ref().map_or(u16::MAX, |device| device.read16(offset))
    }

    fn config32(&self, offset: usize) -> u32 {
        self.windows.device.as_ref().map_or(u32::MAX, |device| device.read32(offset))
    }

    fn set_config8(&self, offset: usize, value: u8) {
        if let Some(device) = &self.windows.device {
            device.write8(offset, value);
        }
    }
}
