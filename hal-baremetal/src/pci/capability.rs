//! The list of capabilities (PCI 6.7).

use annulus::fault::{self, Fault};

use super::function::{LISTED, STATUS};
use super::{Address, ConfigSpace, Error, Function};

/// Where the list begins.
const LIST: u16 = 0x34;
/// Where headers end, and capabilities can be.
const FIRST: u16 = 0x40;
/// One past the last byte.
const END: u16 = 0x100;
/// A capability has 4 bytes at least, so there are no more.
const MOST: u8 = ((END - FIRST) / 4) as u8;

/// PCI Express.
pub(super) const EXPRESS: u8 = 0x10;
/// MSI-X.
pub(super) const MSIX: u8 = 0x11;
/// Vendor-specific: virtio's.
pub(super) const VENDOR: u8 = 0x09;

/// A capability in configuration space.
pub struct Capability<'c, C> {
    function: Function<'c, C>,
    id: u8,
    at: u16,
}

impl<C> Clone for Capability<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Capability<'_, C> {}

impl<C> core::fmt::Debug for Capability<'_, C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Capability").field("id", &self.id).field("at", &self.at).finish()
    }
}

impl<'c, C: ConfigSpace> Capability<'c, C> {
    /// What it is.
    pub fn id(&self) -> u8 {
        self.id
    }

    /// Whose it is.
    pub fn function(&self) -> Function<'c, C> {
        self.function
    }

    pub(super) fn address(&self) -> Address {
        self.function.address()
    }

    /// Whether `len` bytes from its begin on are in configuration space.
    pub(super) fn has(&self, len: u16) -> bool {
        self.at + len <= END
    }

    /// Reads a register, counted from the capability's begin.
    pub fn read8(&self, offset: u16) -> u8 {
        self.function.read8(self.at + offset)
    }

    /// Reads 16 bits, as [`read8`](Self::read8).
    pub fn read16(&self, offset: u16) -> u16 {
        self.function.read16(self.at + offset)
    }

    /// Reads 32 bits, as [`read8`](Self::read8).
    pub fn read32(&self, offset: u16) -> u32 {
        self.function.read32(self.at + offset)
    }

    /// Writes 16 bits.
    pub fn write16(&self, offset: u16, value: u16) {
        self.function.write16(self.at + offset, value);
    }
}

/// Goes through a function's capabilities. Ends after as many as there can be,
/// however they point to each other.
#[derive(Debug)]
pub struct Capabilities<'c, C> {
    function: Function<'c, C>,
    next: u16,
    left: u8,
}

impl<'c, C: ConfigSpace> Capabilities<'c, C> {
    pub(super) fn new(function: Function<'c, C>) -> Self {
        let listed = function.is_present() && function.read16(STATUS) & LISTED != 0;
        let next = if listed { function.read8(LIST).into() } else { 0 };
        Self { function, next, left: MOST }
    }
}

impl<'c, C: ConfigSpace> Iterator for Capabilities<'c, C> {
    type Item = Capability<'c, C>;

    fn next(&mut self) -> Option<Self::Item> {
        // The two lowest bits are reserved.
        let at = self.next & 0xfc;
        if !fault::on(Fault::ListUnbounded) {
            self.left = self.left.checked_sub(1)?;
        }
        if at < FIRST {
            return None;
        }
        let [id, next] = self.function.read16(at).to_le_bytes();
        self.next = next.into();
        // All ones: the function went away.
        (id != 0xff).then_some(Capability { function: self.function, id, at })
    }
}

impl<'c, C: ConfigSpace> Function<'c, C> {
    /// The first capability of a kind, with `len` bytes at least.
    pub(super) fn capability(
        &self,
        id: u8,
        len: u16,
        what: &'static str,
    ) -> Result<Option<Capability<'c, C>>, Error> {
        let Some(found) = self.capabilities().find(|capability| capability.id == id) else {
            return Ok(None);
        };
        if !found.has(len) {
            let why = "it reaches past the end of the configuration space";
            return Err(Error::Capability { address: self.address, what, why });
        }
        Ok(Some(found))
    }
}
