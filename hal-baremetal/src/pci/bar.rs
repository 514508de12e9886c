//! Base address registers (PCI 6.2.5.1).

use super::function::COMMAND;
use super::{ConfigSpace, Error, Function};
use crate::{Machine, Platform, Window};

/// The first.
const BAR0: u16 = 0x10;
/// Bit 0: ports. Bits 1 and 2: 10 is an address of 64 bits.
const PORTS: u32 = 1;
const WIDE: u32 = 2 << 1;
const WIDTH: u32 = 3 << 1;
const PREFETCHABLE: u32 = 1 << 3;

/// What accesses a BAR answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Those to ports.
    Ports,
    /// Those to memory.
    Memory {
        /// The address has 64 bits, so the next register is part of it.
        wide: bool,
        /// Reading has no side effects.
        prefetchable: bool,
    },
}

/// A base address register: a piece of the address space that is the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Which of the registers, from 0.
    pub index: u8,
    /// What it answers to.
    pub kind: BarKind,
    /// Where it is; 0 if nobody has given it an address.
    pub address: u64,
    /// Its bytes, a power of two.
    pub size: u64,
}

impl<C: ConfigSpace> Function<'_, C> {
    /// How many registers there are.
    pub(super) fn bar_count(&self) -> u8 {
        match self.header() {
            0 => 6,
            1 => 2,
            _ => 0,
        }
    }

    fn bar_at(index: u8) -> u16 {
        BAR0 + 4 * u16::from(index)
    }

    /// A base address register; `None` if the device does not use it, or it is
    /// the upper half of the one before.
    ///
    /// Finds the size by writing, while the device does not answer to memory
    /// accesses: not for a device that is in use.
    ///
    /// # Errors
    /// [`Error::Bar`], [`Error::Absent`].
    pub fn bar(&self, index: u8) -> Result<Option<Bar>, Error> {
        let mut at = 0;
        while at < index {
            let wide = self.bar_low(at) & (PORTS | WIDTH) == WIDE;
            at += if wide { 2 } else { 1 };
        }
        if at > index || index >= self.bar_count() {
            return Ok(None);
        }
        self.size_bar(index)
    }

    fn bar_low(&self, index: u8) -> u32 {
        if index < self.bar_count() { self.read32(Self::bar_at(index)) } else { 0 }
    }

    /// All that the device uses.
    pub(super) fn bars(&self) -> impl Iterator<Item = Result<Bar, Error>> {
        let mut next = 0;
        core::iter::from_fn(move || {
            while next < self.bar_count() {
                let found = self.size_bar(next);
                let wide =
                    matches!(found, Ok(Some(Bar { kind: BarKind::Memory { wide: true, .. }, .. })));
                next += if wide { 2 } else { 1 };
                if let Some(found) = found.transpose() {
                    return Some(found);
                }
            }
            None
        })
    }

    fn size_bar(&self, index: u8) -> Result<Option<Bar>, Error> {
        let wrong = |why| Error::Bar { address: self.address, bar: index, why };
        let at = Self::bar_at(index);
        let low = self.read32(at);
        let wide = low & (PORTS | WIDTH) == WIDE;
        if wide && index + 1 >= self.bar_count() {
            return Err(wrong("is one of 64 bits, and the last: there is no room for the rest"));
        }
        let high = if wide { self.read32(at + 4) } else { 0 };
        let (low_mask, high_mask) = self.undecoded(|| {
            self.write32(at, u32::MAX);
            if wide {
                self.write32(at + 4, u32::MAX);
            }
            let masks = (self.read32(at), if wide { self.read32(at + 4) } else { u32::MAX });
            self.write32(at, low);
            if wide {
                self.write32(at + 4, high);
            }
            masks
        });
        if !self.is_present() {
            return Err(Error::Absent(self.address));
        }
        let flags = if low & PORTS != 0 { 3 } else { 0xf };
        let mut mask = u64::from(high_mask) << 32 | u64::from(low_mask & !flags);
        if low_mask & !flags == 0 && (!wide || high_mask == 0) {
            return Ok(None);
        }
        if low & PORTS != 0 {
            // The upper half may be hardwired to 0 (PCI 6.2.5.1).
            mask |= 0xffff_0000;
        }
        let size = mask & mask.wrapping_neg();
        // A power of two: all bits from the lowest on.
        if mask != size.wrapping_neg() {
            return Err(wrong("has a size that is no power of two: the device is broken"));
        }
        let kind = match low & PORTS {
            0 => BarKind::Memory { wide, prefetchable: low & PREFETCHABLE != 0 },
            _ => BarKind::Ports,
        };
        let address = u64::from(high) << 32 | u64::from(low & !flags);
        if address.checked_add(size - 1).is_none() || address & (size - 1) != 0 {
            return Err(wrong("is at an address that is no multiple of its size"));
        }
        Ok(Some(Bar { index, kind, address, size }))
    }

    /// Gives a BAR an address, a multiple of its size.
    pub(super) fn place_bar(&self, bar: &Bar, address: u64) {
        self.undecoded(|| {
            let at = Self::bar_at(bar.index);
            self.write32(at, address as u32);
            if let BarKind::Memory { wide: true, .. } = bar.kind {
                self.write32(at + 4, (address >> 32) as u32);
            }
        });
    }

    /// The registers behind a memory BAR, whole.
    ///
    /// For set-up, as [`bar`](Self::bar). The device answers to memory
    /// accesses after [`enable`](Self::enable).
    ///
    /// # Errors
    /// [`Error::Bar`] if the device has none of this number, or nobody has
    /// given it an address (see [`set_up`](super::set_up)),
    /// [`Error::Unmapped`].
    pub fn window<P: Platform>(&self, machine: &Machine<P>, index: u8) -> Result<Window, Error> {
        let wrong = |why| Error::Bar { address: self.address, bar: index, why };
        let bar = self.bar(index)?.ok_or(wrong("is not one of the device's"))?;
        let BarKind::Memory { .. } = bar.kind else {
            return Err(wrong("is one of ports, and memory is needed"));
        };
        if bar.address == 0 {
            return Err(wrong("has no address; call `pci::set_up` before using devices"));
        }
        let (physical, len) = (bar.address, bar.size);
        let unmapped = Error::Unmapped { address: self.address, physical, len };
        let len = usize::try_from(len).map_err(|_| unmapped)?;
        machine.window(physical, len).ok_or(unmapped)
    }

    /// What a reset of the function forgets.
    pub(super) fn saved(&self) -> Saved {
        let mut bars = [0; 6];
        for (index, bar) in (0..self.bar_count()).zip(&mut bars) {
            *bar = self.read32(Self::bar_at(index));
        }
        Saved { command: self.command(), bars }
    }

    /// Puts it back.
    pub(super) fn restore(&self, saved: &Saved) {
        for (index, bar) in (0..self.bar_count()).zip(&saved.bars) {
            self.write32(Self::bar_at(index), *bar);
        }
        self.write16(COMMAND, saved.command);
    }
}

/// A function's addresses, and what it answers to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Saved {
    pub command: u16,
    bars: [u32; 6],
}
