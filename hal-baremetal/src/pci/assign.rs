//! Addresses for BARs, and the windows of bridges onto them (Bridge 3.2.5.6
//! to 3.2.5.10).

use core::ops::Range;

use super::bar::{Bar, BarKind};
use super::function::{COMMAND, MASTER, MEMORY};
use super::number::{self, LEVELS};
use super::scan::on_bus;
use super::{ConfigSpace, Error, Function, functions};

/// Physical addresses that lead to PCI, for what nobody has given one.
///
/// The machine's tables say which: ACPI's resources of the host bridge, the
/// `ranges` of its node in the device tree, or its manual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Below 4 GiB, the same for devices as for the processor.
    pub memory: Range<u64>,
    /// For BARs of 64 bits whose reading has no side effects, if there is such
    /// a window. Without it they are in the other one.
    pub prefetchable: Option<Range<u64>>,
}

/// Makes the devices on bus `root`, and behind its bridges, reachable: bus
/// numbers and addresses where nobody (the firmware) has given them, windows of
/// bridges onto them, and the bridges' leave to pass accesses on in both
/// directions. What is set up already stays. The devices themselves are
/// enabled one by one ([`Function::enable`]).
///
/// Before any device is used, since addresses may move: BARs are sized.
///
/// # Errors
/// The first of them, after everything else has been set up: an image whose
/// own disk is reachable need not care for another slot.
pub fn set_up<C: ConfigSpace>(config: &C, root: u8, windows: &Windows) -> Result<(), Error> {
    let (_, numbered) = number::number(config, root, *config.buses().end(), 0);
    let mut low = Room::new(&(windows.memory.start..windows.memory.end.min(1 << 32)));
    let mut high = windows.prefetchable.as_ref().map(Room::new);
    for room in [Some(&mut low), high.as_mut()].into_iter().flatten() {
        room.skip_used(config, root);
    }
    numbered.and(place(config, root, &mut low, high.as_mut(), 0))
}

/// A piece of the address space, given out from its begin on.
#[derive(Clone, Copy, Debug)]
struct Room {
    next: u64,
    end: u64,
}

/// Windows of bridges are whole megabytes.
const MEGABYTE: u64 = 1 << 20;

impl Room {
    fn new(window: &Range<u64>) -> Self {
        // 0 is no address for a BAR.
        Self { next: window.start.max(1), end: window.end }
    }

    fn align(self, to: u64) -> Option<u64> {
        self.next.checked_next_multiple_of(to)
    }

    fn take(&mut self, size: u64) -> Option<u64> {
        let at = self.align(size)?;
        let end = at.checked_add(size).filter(|end| *end <= self.end)?;
        self.next = end;
        Some(at)
    }

    /// Goes past everything that has an address here already.
    fn skip_used<C: ConfigSpace>(&mut self, config: &C, bus: u8) {
        let start = self.next;
        let mut skip = |first: u64, end: u64| {
            if first < self.end && end > start {
                self.next = self.next.max(end);
            }
        };
        for function in functions(config, bus) {
            for bar in function.bars().flatten().filter(|bar| bar.address != 0) {
                if let BarKind::Memory { .. } = bar.kind {
                    skip(bar.address, bar.address.saturating_add(bar.size));
                }
            }
            for gate in GATES.iter().filter(|_| function.is_bridge()) {
                if let Some(open) = function.gate(gate) {
                    skip(open.start, open.end);
                }
            }
        }
    }
}

/// Sets up what is on a bus and behind its bridges.
fn place<C: ConfigSpace>(
    config: &C,
    bus: u8,
    low: &mut Room,
    mut high: Option<&mut Room>,
    level: usize,
) -> Result<(), Error> {
    let mut result = Ok(());
    for function in on_bus(config, bus) {
        for bar in function.bars() {
            let placed = bar.and_then(|bar| place_bar(&function, &bar, low, high.as_deref_mut()));
            result = result.and(placed);
        }
        let Some((secondary, _)) = function.behind() else { continue };
        if level == LEVELS {
            let address = function.address();
            result = result.and(Err(Error::Depth { bridge: address, levels: LEVELS }));
            continue;
        }
        // Both directions: accesses to what is behind it, and theirs to memory.
        function.write16(COMMAND, function.command() | MEMORY | MASTER);
        let mut below = Below::new(&function, &MEMORY_GATE, secondary, Some(low));
        let mut above = Below::new(&function, &PREFETCHABLE_GATE, secondary, high.as_deref_mut());
        let room = above.room.as_mut();
        let mut none = Room { next: 0, end: 0 };
        let memory = below.room.as_mut().unwrap_or(&mut none);
        result = result.and(place(config, secondary, memory, room, level + 1));
        below.close(&function, &MEMORY_GATE, Some(low));
        above.close(&function, &PREFETCHABLE_GATE, high.as_deref_mut());
    }
    result
}

fn place_bar<C: ConfigSpace>(
    function: &Function<'_, C>,
    bar: &Bar,
    low: &mut Room,
    high: Option<&mut Room>,
) -> Result<(), Error> {
    let BarKind::Memory { wide, prefetchable } = bar.kind else { return Ok(()) };
    if bar.address != 0 {
        return Ok(());
    }
    let room = match high {
        Some(high) if wide && prefetchable => high,
        _ => low,
    };
    let Bar { index, size, .. } = *bar;
    let no_room = Error::NoRoom { address: function.address(), bar: index, size };
    let at = room.take(size).ok_or(no_room)?;
    function.place_bar(bar, at);
    Ok(())
}

/// A window of a bridge: where its base and limit are, and their upper halves.
#[derive(Debug)]
struct Gate {
    base: u16,
    upper: Option<[u16; 2]>,
}

const MEMORY_GATE: Gate = Gate { base: 0x20, upper: None };
const PREFETCHABLE_GATE: Gate = Gate { base: 0x24, upper: Some([0x28, 0x2c]) };
const GATES: [Gate; 2] = [MEMORY_GATE, PREFETCHABLE_GATE];

/// The room behind a bridge.
struct Below {
    room: Option<Room>,
    /// Where it began, if the bridge's window is ours to set.
    ours: Option<u64>,
}

impl Below {
    fn new<C: ConfigSpace>(
        bridge: &Function<'_, C>,
        gate: &Gate,
        bus: u8,
        room: Option<&mut Room>,
    ) -> Self {
        if let Some(open) = bridge.gate(gate) {
            let mut room = Room::new(&open);
            room.skip_used(bridge.config, bus);
            return Self { room: Some(room), ours: None };
        }
        let wide = gate.upper.is_none() || bridge.read16(gate.base) & 0xf == 1;
        let begin = room.as_ref().and_then(|room| room.align(MEGABYTE)).filter(|_| wide);
        let end = room.map_or(0, |room| room.end);
        Self { room: begin.map(|next| Room { next, end }), ours: Some(begin.unwrap_or(0)) }
    }

    fn close<C: ConfigSpace>(self, bridge: &Function<'_, C>, gate: &Gate, room: Option<&mut Room>) {
        let Some(begin) = self.ours else { return };
        let used = self.room.filter(|below| below.next > begin);
        let end = used.and_then(|below| below.align(MEGABYTE));
        bridge.set_gate(gate, end.map(|end| begin..end));
        if let (Some(end), Some(room)) = (end, room) {
            room.next = end;
        }
    }
}

impl<C: ConfigSpace> Function<'_, C> {
    /// A bridge's window, if it is open.
    fn gate(&self, gate: &Gate) -> Option<Range<u64>> {
        // Bits 20 to 31 of the first address, and of the last megabyte's.
        let both = self.read32(gate.base);
        let (mut base, mut limit) = (u64::from(both & 0xfff0) << 16, u64::from(both >> 20) << 20);
        if let Some([upper_base, upper_limit]) = gate.upper
            && both & 0xf == 1
        {
            base |= u64::from(self.read32(upper_base)) << 32;
            limit |= u64::from(self.read32(upper_limit)) << 32;
        }
        // After a reset both are 0.
        (base != 0 && base <= limit).then(|| base..limit.saturating_add(MEGABYTE))
    }

    fn set_gate(&self, gate: &Gate, open: Option<Range<u64>>) {
        // A base above the limit: closed.
        let (base, limit) = open.map_or((0xfff0_0000, 0), |open| (open.start, open.end - 1));
        let value = (base >> 16 & 0xfff0) as u32 | (limit as u32 & 0xfff0_0000);
        self.write32(gate.base, value);
        if let Some([upper_base, upper_limit]) = gate.upper {
            self.write32(upper_base, (base >> 32) as u32);
            self.write32(upper_limit, (limit >> 32) as u32);
        }
    }
}
