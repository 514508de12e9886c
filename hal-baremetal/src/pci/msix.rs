//! Interrupts as messages (MSI-X, PCI 6.8.2).

use core::fmt;

use annulus::hal::device::Mmio;

use super::capability::{self, Capability};
use super::function::{COMMAND, NO_LINE};
use super::{ConfigSpace, Error, Function};
use crate::{Machine, Platform, Window};

/// Message Control, and its bits.
const CONTROL: u16 = 2;
const ENABLE: u16 = 1 << 15;
const MASK_ALL: u16 = 1 << 14;
const SIZE: u16 = 0x7ff;
/// Where the table and the pending bits are.
const TABLE: u16 = 4;
const PENDING: u16 = 8;
const LEN: u16 = 12;

/// An entry of the table: address, data, vector control.
const ENTRY: usize = 16;
const UPPER: usize = 4;
const DATA: usize = 8;
const VECTOR_CONTROL: usize = 12;
const MASKED: u32 = 1;

const WHAT: &str = "MSI-X";

/// What a device writes, and where, to interrupt: for the image's interrupt
/// controller to say (a local APIC, a GIC's ITS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub address: u64,
    /// What.
    pub data: u32,
}

/// A function's MSI-X: its table of vectors. Off until
/// [`enable`](Self::enable), and each vector until [`set`](Self::set).
pub struct Msix<'c, C> {
    capability: Capability<'c, C>,
    table: Window,
    pending: Window,
    vectors: u16,
}

impl<C> fmt::Debug for Msix<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Msix").field("vectors", &self.vectors).finish_non_exhaustive()
    }
}

impl<'c, C: ConfigSpace> Msix<'c, C> {
    /// The MSI-X of a function. Turns it off, and masks every vector.
    ///
    /// The function answers to memory accesses ([`Function::enable`]). For
    /// set-up, as [`Function::window`]; that of a port (for its slot) before
    /// what is behind it is used, for a port that does not answer passes
    /// nothing on.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Capability`], and those of
    /// [`Function::window`].
    pub fn new<P: Platform>(
        machine: &Machine<P>,
        function: &Function<'c, C>,
    ) -> Result<Self, Error> {
        let address = function.address();
        let what = "MSI-X, and so no interrupts for this driver; poll instead";
        let capability = function
            .capability(capability::MSIX, LEN, WHAT)?
            .ok_or(Error::Missing { address, what })?;
        let vectors = (capability.read16(CONTROL) & SIZE) + 1;
        let part = |place: u32, len: usize, why| {
            // The three lowest bits are the BAR's number.
            let bar = function.window(machine, (place & 7) as u8)?;
            let part = bar.part((place & !7) as usize, len);
            part.ok_or(Error::Capability { address, what: WHAT, why })
        };
        let table = capability.read32(TABLE);
        let table = part(table, usize::from(vectors) * ENTRY, "the table reaches out of its BAR")?;
        let pending = part(
            capability.read32(PENDING),
            usize::from(vectors).div_ceil(64) * 8,
            "the pending bits reach out of their BAR",
        )?;
        let msix = Self { capability, table, pending, vectors };
        msix.disable();
        (0..vectors).for_each(|vector| msix.set_mask(vector, true));
        Ok(msix)
    }

    /// How many vectors there are.
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    fn check(&self, vector: u16) -> Result<(), Error> {
        let (address, vectors) = (self.capability.address(), self.vectors);
        match vector < vectors {
            true => Ok(()),
            false => Err(Error::Vector { address, vector, vectors }),
        }
    }

    /// Gives a vector its message, and lets it interrupt.
    ///
    /// # Errors
    /// [`Error::Vector`].
    pub fn set(&self, vector: u16, message: Message) -> Result<(), Error> {
        self.check(vector)?;
        // Masked: a message must not be half of one and half of another.
        self.set_mask(vector, true);
        let entry = usize::from(vector) * ENTRY;
        self.table.write32(entry, message.address as u32);
        self.table.write32(entry + UPPER, (message.address >> 32) as u32);
        self.table.write32(entry + DATA, message.data);
        self.set_mask(vector, false);
        Ok(())
    }

    /// Holds a vector's interrupts back: one that comes is pending.
    ///
    /// # Errors
    /// [`Error::Vector`].
    pub fn mask(&self, vector: u16) -> Result<(), Error> {
        self.check(vector)?;
        self.set_mask(vector, true);
        Ok(())
    }

    /// Lets a vector interrupt again; at once if it is pending.
    ///
    /// # Errors
    /// [`Error::Vector`].
    pub fn unmask(&self, vector: u16) -> Result<(), Error> {
        self.check(vector)?;
        self.set_mask(vector, false);
        Ok(())
    }

    /// Whether an interrupt waits for its vector to be unmasked.
    ///
    /// # Errors
    /// [`Error::Vector`].
    pub fn is_pending(&self, vector: u16) -> Result<bool, Error> {
        self.check(vector)?;
        let word = self.pending.read32(usize::from(vector / 32) * 4);
        Ok(word >> (vector % 32) & 1 != 0)
    }

    fn set_mask(&self, vector: u16, masked: bool) {
        let at = usize::from(vector) * ENTRY + VECTOR_CONTROL;
        // The other bits are kept as they are.
        let control = self.table.read32(at) & !MASKED;
        self.table.write32(at, if masked { control | MASKED } else { control });
        // Read back: a write to the device is there when a read is answered.
        self.table.read32(at);
    }

    /// Turns MSI-X on, in place of the interrupt line.
    pub fn enable(&self) {
        let function = self.capability.function();
        function.write16(COMMAND, function.command() | NO_LINE);
        let control = self.capability.read16(CONTROL) & !MASK_ALL;
        self.capability.write16(CONTROL, control | ENABLE);
    }

    /// Turns it off. The interrupt line stays off.
    pub fn disable(&self) {
        let control = self.capability.read16(CONTROL);
        self.capability.write16(CONTROL, control & !(ENABLE | MASK_ALL));
    }
}
