//! Looking for functions.

use super::{Address, ConfigSpace, Function};

/// Where a bridge says which buses are behind it (Bridge 3.2.5).
pub(super) const PRIMARY: u16 = 0x18;

/// Every function that answers on bus `root` and behind its bridges, as they
/// are numbered, bus by bus.
///
/// ```no_run
/// # use annulus_baremetal::{pci, Window};
/// # fn f(window: Window) {
/// let config = pci::Ecam::new(window, 0);
/// let nvme = pci::functions(&config, 0).find(|f| f.class() == pci::Class::NVME);
/// # }
/// ```
pub fn functions<C: ConfigSpace>(config: &C, root: u8) -> Functions<'_, C> {
    let mut buses = Buses([0; 8]);
    if config.buses().contains(&root) {
        buses.insert(root);
    }
    Functions { config, deep: true, buses, bus: None, next: 0 }
}

/// Goes through functions. Ends, whatever the bridges say: a bus is looked at
/// once.
#[derive(Debug)]
pub struct Functions<'c, C> {
    config: &'c C,
    /// Whether bridges are followed.
    deep: bool,
    /// Still to be looked at.
    buses: Buses,
    bus: Option<u8>,
    /// Device and function, or 256 at the end of a bus.
    next: u16,
}

#[derive(Debug)]
struct Buses([u32; 8]);

impl Buses {
    fn insert(&mut self, bus: u8) {
        self.0[usize::from(bus >> 5)] |= 1 << (bus & 31);
    }

    /// The lowest.
    fn take(&mut self) -> Option<u8> {
        let (group, bits) = self.0.iter_mut().enumerate().find(|(_, bits)| **bits != 0)?;
        let bit = bits.trailing_zeros();
        *bits &= *bits - 1;
        Some((group as u32 * 32 + bit) as u8)
    }
}

impl<'c, C: ConfigSpace> Iterator for Functions<'c, C> {
    type Item = Function<'c, C>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let bus = match self.bus {
                Some(bus) if self.next < 256 => bus,
                _ => {
                    let bus = self.buses.take()?;
                    (self.bus, self.next) = (Some(bus), 0);
                    bus
                }
            };
            let (device, number) = ((self.next >> 3) as u8, (self.next & 7) as u8);
            let function =
                Function { config: self.config, address: Address::new(bus, device, number) };
            let there = function.is_present();
            // Of a device without function 0 there are no others.
            let alone = number == 0 && !(there && function.is_one_of_many());
            self.next += if alone { 8 } else { 1 };
            if !there {
                continue;
            }
            if self.deep
                && let Some((secondary, _)) = function.behind()
                && self.config.buses().contains(&secondary)
            {
                self.buses.insert(secondary);
            }
            return Some(function);
        }
    }
}

impl<C: ConfigSpace> Function<'_, C> {
    /// The first and the last bus behind a bridge, if they are numbered.
    /// Behind a bus are only higher numbers: so whatever a bridge says, nobody
    /// who follows it comes back.
    pub(super) fn behind(&self) -> Option<(u8, u8)> {
        if !self.is_bridge() {
            return None;
        }
        let [_, secondary, subordinate, _] = self.read32(PRIMARY).to_le_bytes();
        let good = secondary > self.address.bus() && subordinate >= secondary;
        good.then_some((secondary, subordinate))
    }
}

/// The functions on one bus.
pub(super) fn on_bus<C: ConfigSpace>(config: &C, bus: u8) -> Functions<'_, C> {
    Functions { config, deep: false, buses: Buses([0; 8]), bus: Some(bus), next: 0 }
}
