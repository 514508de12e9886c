//! Ways to configuration space.

use core::fmt;
use core::ops::RangeInclusive;

use crate::Registers;

/// Where a function is: bus, device, function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(u16);

impl Address {
    /// `device` is below 32, `function` below 8; higher bits are dropped.
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Self((bus as u16) << 8 | (device as u16 & 31) << 3 | (function as u16 & 7))
    }

    /// The bus.
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// The device on the bus.
    pub const fn device(self) -> u8 {
        (self.0 >> 3 & 31) as u8
    }

    /// The function of the device.
    pub const fn function(self) -> u8 {
        (self.0 & 7) as u8
    }

    /// The number by which the function signs its requests (its requester ID):
    /// what an interrupt controller knows it by.
    pub const fn id(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus(), self.device(), self.function())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Configuration space of one segment.
///
/// Registers are little-endian; an offset is a multiple of the width. A
/// function that is not there reads as all ones.
pub trait ConfigSpace {
    /// The buses that can be reached.
    fn buses(&self) -> RangeInclusive<u8>;

    /// Reads 8 bits.
    fn read8(&self, at: Address, offset: u16) -> u8;
    /// Reads 16 bits.
    fn read16(&self, at: Address, offset: u16) -> u16;
    /// Reads 32 bits.
    fn read32(&self, at: Address, offset: u16) -> u32;
    /// Writes 8 bits.
    fn write8(&self, at: Address, offset: u16, value: u8);
    /// Writes 16 bits.
    fn write16(&self, at: Address, offset: u16, value: u16);
    /// Writes 32 bits.
    fn write32(&self, at: Address, offset: u16, value: u32);
}

/// Configuration space as memory: 4 KiB a function, 1 MiB a bus (PCIe 7.2.2).
///
/// Where it is, the machine's tables say: ACPI's MCFG, the device tree's node
/// `pci-host-ecam-generic`, or its manual.
#[derive(Clone, Copy, Debug)]
pub struct Ecam<R> {
    window: R,
    first: u8,
}

const BUS: usize = 1 << 20;
const FUNCTION: u16 = 1 << 12;

impl<R: Registers> Ecam<R> {
    /// The window begins with bus `first`, and has as many as it is long.
    pub const fn new(window: R, first: u8) -> Self {
        Self { window, first }
    }

    fn at(&self, at: Address, offset: u16, width: usize) -> Option<usize> {
        let bus = usize::from(at.bus().checked_sub(self.first)?);
        let function = usize::from(at.id() as u8) << 12;
        let place = bus * BUS + function + usize::from(offset);
        let inside = offset < FUNCTION && place + width <= self.window.len();
        inside.then_some(place)
    }
}

/// An access to ECAM, if it is inside.
macro_rules! ecam {
    ($read:ident, $write:ident, $type:ty) => {
        fn $read(&self, at: Address, offset: u16) -> $type {
            match self.at(at, offset, size_of::<$type>()) {
                Some(place) => self.window.$read(place),
                None => <$type>::MAX,
            }
        }

        fn $write(&self, at: Address, offset: u16, value: $type) {
            if let Some(place) = self.at(at, offset, size_of::<$type>()) {
                self.window.$write(place, value);
            }
        }
    };
}

impl<R: Registers> ConfigSpace for Ecam<R> {
    fn buses(&self) -> RangeInclusive<u8> {
        let more = (self.window.len() / BUS).saturating_sub(1);
        self.first..=self.first.saturating_add(more.min(255) as u8)
    }

    ecam!(read8, write8, u8);
    ecam!(read16, write16, u16);
    ecam!(read32, write32, u32);
}
