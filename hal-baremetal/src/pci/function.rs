//! One function of a device.

use core::fmt;

use super::{Address, Capabilities, ConfigSpace, Error};

/// Registers of every function (PCI 6.1, 6.2).
pub(super) const VENDOR: u16 = 0x00;
const DEVICE: u16 = 0x02;
pub(super) const COMMAND: u16 = 0x04;
pub(super) const STATUS: u16 = 0x06;
const REVISION: u16 = 0x08;
const HEADER: u16 = 0x0e;
const SUBSYSTEM: u16 = 0x2e;

/// Command: answers to port accesses.
pub(super) const IO: u16 = 1;
/// Command: answers to memory accesses.
pub(super) const MEMORY: u16 = 1 << 1;
/// Command: makes accesses of its own.
pub(super) const MASTER: u16 = 1 << 2;
/// Command: pulls no interrupt line.
pub(super) const NO_LINE: u16 = 1 << 10;
/// Status: there is a list of capabilities.
pub(super) const LISTED: u16 = 1 << 4;

/// What a function is for (PCI 6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// Base class: 1 is storage.
    pub base: u8,
    /// Subclass.
    pub sub: u8,
    /// Programming interface.
    pub interface: u8,
}

impl Class {
    /// An NVMe controller.
    pub const NVME: Self = Self { base: 1, sub: 8, interface: 2 };
}

/// A function, and the way to its configuration space.
pub struct Function<'c, C> {
    pub(super) config: &'c C,
    pub(super) address: Address,
}

impl<C> Clone for Function<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Function<'_, C> {}

impl<C> fmt::Debug for Function<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Function").field(&self.address).finish()
    }
}

impl<'c, C: ConfigSpace> Function<'c, C> {
    /// The function at an address.
    ///
    /// # Errors
    /// [`Error::Absent`].
    pub fn new(config: &'c C, address: Address) -> Result<Self, Error> {
        let function = Self { config, address };
        if function.is_present() { Ok(function) } else { Err(Error::Absent(address)) }
    }

    /// Where it is.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Whether it answers. A removed one does not.
    pub fn is_present(&self) -> bool {
        self.vendor() != 0xffff
    }

    /// Its vendor.
    pub fn vendor(&self) -> u16 {
        self.read16(VENDOR)
    }

    /// Its device ID.
    pub fn device(&self) -> u16 {
        self.read16(DEVICE)
    }

    /// Its subsystem ID.
    pub fn subsystem(&self) -> u16 {
        self.read16(SUBSYSTEM)
    }

    /// What it is for.
    pub fn class(&self) -> Class {
        let [_, interface, sub, base] = self.read32(REVISION).to_le_bytes();
        Class { base, sub, interface }
    }

    /// Whether it leads to another bus.
    pub fn is_bridge(&self) -> bool {
        self.header() == 1
    }

    /// The layout of its header: 0 for devices, 1 for bridges.
    pub(super) fn header(&self) -> u8 {
        self.read8(HEADER) & 0x7f
    }

    /// Whether the device has more functions than number 0.
    pub(super) fn is_one_of_many(&self) -> bool {
        self.read8(HEADER) & 0x80 != 0
    }

    /// Its capabilities.
    pub fn capabilities(&self) -> Capabilities<'c, C> {
        Capabilities::new(*self)
    }

    /// Lets it answer to memory accesses and make its own (bus mastering).
    ///
    /// # Errors
    /// [`Error::Absent`] if it did not take that.
    pub fn enable(&self) -> Result<(), Error> {
        let both = MEMORY | MASTER;
        self.write16(COMMAND, self.command() | both);
        // All ones would have both bits, too.
        let done = self.command() & both == both && self.is_present();
        if done { Ok(()) } else { Err(Error::Absent(self.address)) }
    }

    /// Forbids it to access memory. Whether that is sure: the bit read back
    /// cleared, or the function is off the bus, which ends its accesses too.
    pub fn isolate(&self) -> bool {
        self.write16(COMMAND, self.command() & !MASTER);
        self.command() & MASTER == 0 || !self.is_present()
    }

    pub(super) fn command(&self) -> u16 {
        self.read16(COMMAND)
    }

    /// Runs `f` while the function answers to no access but to its
    /// configuration space: its addresses are about to change.
    pub(super) fn undecoded<R>(&self, f: impl FnOnce() -> R) -> R {
        let before = self.command();
        self.write16(COMMAND, before & !(IO | MEMORY));
        let result = f();
        self.write16(COMMAND, before);
        result
    }

    /// Reads a register of the configuration space, at a multiple of its width.
    pub fn read8(&self, offset: u16) -> u8 {
        self.config.read8(self.address, offset)
    }

    /// Reads 16 bits, as [`read8`](Self::read8).
    pub fn read16(&self, offset: u16) -> u16 {
        self.config.read16(self.address, offset)
    }

    /// Reads 32 bits, as [`read8`](Self::read8).
    pub fn read32(&self, offset: u16) -> u32 {
        self.config.read32(self.address, offset)
    }

    /// Writes 8 bits.
    pub fn write8(&self, offset: u16, value: u8) {
        self.config.write8(self.address, offset, value);
    }

    /// Writes 16 bits.
    pub fn write16(&self, offset: u16, value: u16) {
        self.config.write16(self.address, offset, value);
    }

    /// Writes 32 bits.
    pub fn write32(&self, offset: u16, value: u32) {
        self.config.write32(self.address, offset, value);
    }
}
