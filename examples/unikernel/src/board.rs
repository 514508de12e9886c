//! What an Arm machine has, by its device tree.
//!
//! The tree is read once, before anything else runs, by a parser that checks
//! all of it; what is missing or odd is said by name.

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property, ToCellInt};

/// More virtio-mmio places than QEMU's machine has.
const PLACES: usize = 64;

/// Why the image cannot run on this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    #[error("there is no device tree at the beginning of memory: boot the ELF file by -kernel")]
    /// There is none.
    NoTree,
    /// It contradicts itself.
    #[error("the device tree is broken: {0}")]
    Broken(dtoolkit::error::FdtParseError),
    /// It does not tell of something that the image needs.
    #[error("the device tree has no {0}: this image is for qemu-system-aarch64 -M virt")]
    Missing(&'static str),
    /// Something in it is not as its binding says.
    #[error("the device tree's {0} cannot be understood")]
    Odd(&'static str),
    /// What devices see is not what is in the processor's caches, and the image
    /// does not clean them.
    #[error(
        "devices bypass the caches ({0} is not dma-coherent), and the image does not expect that"
    )]
    NotCoherent(&'static str),
    /// Another generation.
    #[error("the interrupt controller is no GICv2: run with -M virt,gic-version=2")]
    NotGicV2,
    /// Less memory than the image is.
    #[error("the image reaches to {end:#x}, and memory ends before: give it more (-m)")]
    TooSmall {
        /// Where the image ends.
        end: u64,
    },
}

/// How the firmware (here it is QEMU) is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// `hvc`: from EL1 below a hypervisor.
    Hvc,
    /// `smc`.
    Smc,
}

/// The interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gic {
    /// What is one for all cores.
    pub distributor: usize,
    /// Each core's own part, for all at the same place.
    pub core: usize,
    /// The frame that makes interrupts of writes, if there is one.
    pub frame: Option<usize>,
}

/// Where a virtio-mmio device may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its registers.
    pub base: usize,
    /// Their bytes.
    pub len: usize,
    /// The number of its interrupt.
    pub interrupt: u32,
}

/// A part of the bus's addresses, and where the processor finds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// As devices know them.
    pub bus: u64,
    /// Where the processor finds them.
    pub processor: u64,
    /// How many.
    pub len: u64,
}

/// The PCI host bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pci {
    /// Configuration space, 4 KiB a function.
    pub ecam: u64,
    /// Its first and last bus.
    pub buses: (u8, u8),
    /// For BARs of 32 bits.
    pub low: Window,
    /// For those of 64, if there is any.
    pub high: Option<Window>,
}

/// All that the image wants to know.
#[derive(Clone, Debug)]
pub struct Board<'a> {
    /// What QEMU's `-append` says.
    pub command_line: &'a str,
    /// The serial port.
    pub serial: usize,
    /// How PSCI is called.
    pub conduit: Conduit,
    /// The second core's name for PSCI.
    pub second_core: Option<u64>,
    /// The interrupt of the virtual timer, each core's own.
    pub timer: u32,
    /// The interrupt controller.
    pub gic: Gic,
    /// PCI, if there is any.
    pub pci: Option<Pci>,
    places: [Option<Place>; PLACES],
}

impl<'a> Board<'a> {
    /// Reads the device tree in `blob`, for an image that ends at `end`.
    ///
    /// # Errors
    /// What keeps the image from running here.
    pub fn read(blob: &'a [u8], end: u64) -> Result<Self, Unfit> {
        let fdt = Fdt::new(blob).map_err(Unfit::Broken)?;
        let memory = regions(find(fdt.root(), "memory").ok_or(Unfit::Missing("memory"))?);
        let memory = memory.ok_or(Unfit::Odd("memory"))?;
        if !memory.flatten().any(|(at, len)| at < end && at.saturating_add(len) >= end) {
            return Err(Unfit::TooSmall { end });
        }
        let command_line = match find(fdt.root(), "chosen").and_then(|node| text(node, "bootargs"))
        {
            None => "",
            Some(words) => words.ok_or(Unfit::Odd("command line (bootargs)"))?,
        };
        Ok(Self {
            command_line,
            serial: device(fdt, &["arm,pl011"], "serial port (arm,pl011)")?,
            conduit: conduit(fdt)?,
            second_core: second_core(fdt),
            timer: timer(fdt)?,
            gic: gic(fdt)?,
            pci: pci(fdt)?,
            places: places(fdt)?,
        })
    }

    /// The virtio-mmio places, in the order of their addresses; most are empty.
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.places.iter().flatten().copied()
    }
}

/// How long the tree is that begins with these bytes.
pub fn tree_len(header: &[u8; 8]) -> Option<usize> {
    const MAGIC: u32 = 0xd00d_feed;
    let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|n| header[at + n]));
    (word(0) == MAGIC).then(|| word(4) as usize)
}

fn find<'a>(parent: FdtNode<'a>, name: &str) -> Option<FdtNode<'a>> {
    parent.children().find(|node| node.name_without_address() == name)
}

/// The nodes that say of themselves that they are one of `names`. All that
/// matters on this machine stands below the root, not deeper.
fn compatible<'a>(fdt: Fdt<'a>, names: &'static [&str]) -> impl Iterator<Item = FdtNode<'a>> {
    let ours = move |node: &FdtNode<'_>| names.iter().any(|name| node.is_compatible(name));
    fdt.root().children().filter(ours)
}

fn text<'a>(node: FdtNode<'a>, name: &str) -> Option<Option<&'a str>> {
    node.properties().find(|p| p.name() == name).map(|p| p.value_as::<&'a str>().ok())
}

/// A property of big-endian words.
fn words<'a>(node: FdtNode<'a>, name: &str) -> Option<impl Iterator<Item = u32> + Clone + 'a> {
    let value = node.properties().find(|property| property.name() == name)?;
    let chunks = value.value_as::<&'a [u8]>().ok()?.chunks_exact(4);
    Some(chunks.map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]])))
}

/// `reg`: addresses and lengths; an item that does not fit is `None`.
fn regions<'a>(node: FdtNode<'a>) -> Option<impl Iterator<Item = Option<(u64, u64)>> + 'a> {
    let regions = node.reg().ok()??;
    Some(regions.map(|reg| Some((reg.address::<u64>().ok()?, reg.size::<u64>().ok()?))))
}

/// The first of a node's register blocks.
fn registers(node: FdtNode<'_>, what: &'static str) -> Result<(usize, usize), Unfit> {
    let first = regions(node).and_then(|mut regions| regions.next().flatten());
    first.map(|(at, len)| (at as usize, len as usize)).ok_or(Unfit::Odd(what))
}

fn device(fdt: Fdt<'_>, names: &'static [&str], what: &'static str) -> Result<usize, Unfit> {
    let node = compatible(fdt, names).next().ok_or(Unfit::Missing(what))?;
    registers(node, what).map(|(at, _)| at)
}

/// An interrupt's number, of the three words that one has for a GIC. The third
/// says how it tells.
fn interrupt(mut words: impl Iterator<Item = u32>) -> Option<u32> {
    let (kind, number, _) = (words.next()?, words.next()?, words.next()?);
    // Those of devices begin at 32, those of a core at 16.
    match kind {
        0 => number.checked_add(32),
        1 => number.checked_add(16),
        _ => None,
    }
}

fn conduit(fdt: Fdt<'_>) -> Result<Conduit, Unfit> {
    let names: &[&str] = &["arm,psci-0.2", "arm,psci-1.0"];
    let node = compatible(fdt, names).next().ok_or(Unfit::Missing("PSCI"))?;
    match text(node, "method").flatten() {
        Some("hvc") => Ok(Conduit::Hvc),
        Some("smc") => Ok(Conduit::Smc),
        _ => Err(Unfit::Odd("PSCI method")),
    }
}

fn second_core(fdt: Fdt<'_>) -> Option<u64> {
    let cores = fdt.cpus().ok()?;
    let second = cores.cpus().nth(1)?;
    second.ids().ok()?.next()?.to_int().ok()
}

fn timer(fdt: Fdt<'_>) -> Result<u32, Unfit> {
    // Secure, physical, virtual, hypervisor's: three words each.
    const VIRTUAL: usize = 2;
    let node = compatible(fdt, &["arm,armv8-timer"]).next().ok_or(Unfit::Missing("timer"))?;
    let words = words(node, "interrupts").ok_or(Unfit::Odd("timer"))?;
    interrupt(words.skip(3 * VIRTUAL)).ok_or(Unfit::Odd("timer's interrupts"))
}

fn gic(fdt: Fdt<'_>) -> Result<Gic, Unfit> {
    const WHAT: &str = "interrupt controller";
    let mut nodes = compatible(fdt, &["arm,cortex-a15-gic", "arm,gic-400"]);
    let Some(node) = nodes.next() else {
        let other = compatible(fdt, &["arm,gic-v3"]).next().is_some();
        return Err(if other { Unfit::NotGicV2 } else { Unfit::Missing(WHAT) });
    };
    let mut blocks = regions(node).ok_or(Unfit::Odd(WHAT))?;
    let mut block = || blocks.next().flatten().ok_or(Unfit::Odd(WHAT));
    let ((distributor, _), (core, _)) = (block()?, block()?);
    let frame = node.children().find(|child| child.is_compatible("arm,gic-v2m-frame"));
    let frame = frame.map(|frame| registers(frame, "MSI frame")).transpose()?;
    let frame = frame.map(|(at, _)| at);
    Ok(Gic { distributor: distributor as usize, core: core as usize, frame })
}

fn places(fdt: Fdt<'_>) -> Result<[Option<Place>; PLACES], Unfit> {
    const WHAT: &str = "virtio-mmio places";
    let mut places = [None; PLACES];
    for (n, node) in compatible(fdt, &["virtio,mmio"]).enumerate() {
        if !node.dma_coherent() {
            return Err(Unfit::NotCoherent("a virtio-mmio device"));
        }
        let (base, len) = registers(node, WHAT)?;
        let line = words(node, "interrupts").and_then(interrupt).ok_or(Unfit::Odd(WHAT))?;
        let place = Place { base, len, interrupt: line };
        *places.get_mut(n).ok_or(Unfit::Odd(WHAT))? = Some(place);
    }
    // In the tree they stand in any order.
    places.sort_unstable_by_key(|place| place.map_or(usize::MAX, |place| place.base));
    Ok(places)
}

fn pci(fdt: Fdt<'_>) -> Result<Option<Pci>, Unfit> {
    const WHAT: &str = "PCI host bridge";
    /// Configuration space of a bus.
    const BUS: usize = 1 << 20;
    let Some(node) = compatible(fdt, &["pci-host-ecam-generic"]).next() else { return Ok(None) };
    if !node.dma_coherent() {
        return Err(Unfit::NotCoherent(WHAT));
    }
    let (ecam, len) = registers(node, WHAT)?;
    let mut range = words(node, "bus-range").ok_or(Unfit::Odd(WHAT))?;
    let mut bus = || range.next().and_then(|bus| u8::try_from(bus).ok()).ok_or(Unfit::Odd(WHAT));
    let buses = (bus()?, bus()?);
    if buses.0 > buses.1 || len / BUS <= usize::from(buses.1 - buses.0) {
        return Err(Unfit::Odd(WHAT));
    }
    let (mut low, mut high) = (None, None);
    for range in node.ranges().ok().flatten().ok_or(Unfit::Odd(WHAT))? {
        // Three words: what kind of addresses, and 64 bits of the first (IEEE
        // 1275 for PCI, 2.2.1.1).
        let bus = range.child_bus_address;
        let [kind, upper, lower] = bus.as_ref() else { return Err(Unfit::Odd(WHAT)) };
        let window = Window {
            bus: u64::from(upper.get()) << 32 | u64::from(lower.get()),
            processor: range.parent_bus_address().map_err(|_| Unfit::Odd(WHAT))?,
            len: range.length().map_err(|_| Unfit::Odd(WHAT))?,
        };
        match kind.get() >> 24 & 3 {
            2 => low = Some(window),
            3 => high = Some(window),
            _ => {}
        }
    }
    let low = low.ok_or(Unfit::Odd(WHAT))?;
    Ok(Some(Pci { ecam: ecam as u64, buses, low, high }))
}

#[cfg(test)]
mod tests;
