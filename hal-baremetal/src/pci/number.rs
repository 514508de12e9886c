//! Bus numbers (Bridge 3.2.5, PCIe 7.5.1.3).

use super::scan::{PRIMARY, on_bus};
use super::{ConfigSpace, Error, Function};

/// Bridges that are followed down. Real trees have three or four levels.
pub(super) const LEVELS: usize = 8;

/// Numbers the buses behind bridges on `bus` that have no numbers, and keeps
/// the numbers of those that have. Numbers up to `last` may be used; returns
/// the highest in use.
///
/// Goes on past a bridge that gets none, and then answers the first error.
pub(super) fn number<C: ConfigSpace>(
    config: &C,
    bus: u8,
    last: u8,
    level: usize,
) -> (u8, Result<(), Error>) {
    let mut highest = bus;
    let mut result = Ok(());
    // What has numbers first: the others go behind it.
    for bridge in on_bus(config, bus).filter(Function::is_bridge) {
        if let Some((secondary, subordinate)) = bridge.behind()
            && subordinate <= last
        {
            highest = highest.max(subordinate);
            let deeper = descend(&bridge, secondary, subordinate, level);
            result = result.and(deeper.1);
        }
    }
    for bridge in on_bus(config, bus).filter(Function::is_bridge) {
        if bridge.behind().is_some_and(|(_, subordinate)| subordinate <= last) {
            continue;
        }
        if highest == last {
            result = result.and(Err(Error::Buses { bridge: bridge.address() }));
            continue;
        }
        let secondary = highest + 1;
        // As wide as possible while those behind it are numbered.
        bridge.set_buses(bus, secondary, last);
        let (subordinate, deeper) = descend(&bridge, secondary, last, level);
        bridge.set_buses(bus, secondary, subordinate);
        highest = subordinate;
        result = result.and(deeper);
    }
    (highest, result)
}

fn descend<C: ConfigSpace>(
    bridge: &Function<'_, C>,
    bus: u8,
    last: u8,
    level: usize,
) -> (u8, Result<(), Error>) {
    if level == LEVELS {
        return (bus, Err(Error::Depth { bridge: bridge.address(), levels: LEVELS }));
    }
    number(bridge.config, bus, last, level + 1)
}

impl<C: ConfigSpace> Function<'_, C> {
    fn set_buses(&self, primary: u8, secondary: u8, subordinate: u8) {
        // The highest byte is a timer of conventional PCI.
        let timer = self.read32(PRIMARY) & 0xff00_0000;
        let numbers = u32::from_le_bytes([primary, secondary, subordinate, 0]);
        self.write32(PRIMARY, timer | numbers);
    }
}
