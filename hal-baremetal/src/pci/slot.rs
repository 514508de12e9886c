//! Slots that devices come to and go from (PCIe 6.7).

use core::fmt;

use annulus::sync::{AtomicU32, Ordering};

use super::capability::{self, Capability};
use super::{Address, ConfigSpace, Error, Function, functions};
use crate::{Machine, Platform};

/// Registers of the PCI Express capability (PCIe 7.5.3).
const FLAGS: u16 = 0x02;
const SLOT: u16 = 1 << 8;
const CAPABILITIES: u16 = 0x14;
const CONTROL: u16 = 0x18;
const STATUS: u16 = 0x1a;
const LEN: u16 = 0x1c;

const HAS_POWER: u32 = 1 << 1;
const HOT_PLUG: u32 = 1 << 6;
const NO_COMPLETION: u32 = 1 << 18;

/// Control: the events that interrupt (attention button, presence, link), and
/// that they do.
const LISTEN: u16 = 1 | 1 << 3 | 1 << 12 | 1 << 5;
/// Control: the power indicator, and the power.
const INDICATOR: u16 = 3 << 8;
const INDICATOR_ON: u16 = 1 << 8;
const INDICATOR_BLINKS: u16 = 2 << 8;
const INDICATOR_OFF: u16 = 3 << 8;
const POWER_OFF: u16 = 1 << 10;

/// Status: what has happened, cleared by writing ones, and what is.
const ATTENTION: u16 = 1;
const PRESENCE_CHANGED: u16 = 1 << 3;
const COMPLETED: u16 = 1 << 4;
const LINK_CHANGED: u16 = 1 << 8;
const EVENTS: u16 = ATTENTION | PRESENCE_CHANGED | LINK_CHANGED;
const OCCUPIED: u16 = 1 << 6;

/// Looks at what has happened, while more comes.
const MOST_LOOKS: usize = 16;
/// A command to a slot takes no longer (PCIe 6.7.3.2), in ms.
const COMMAND_MS: u64 = 1_000;

/// Whether a device is wanted back. A `static`, or next to the driver: who
/// learns of the wish asks, and the device's driver finds it.
#[derive(Debug)]
pub struct Leave(AtomicU32);

impl Leave {
    /// Nobody wants it.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// The same, as loom's atomics need it.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Asks for it: what is in flight ends, and so does everything after it.
    /// Rings that sleep find out when they next wake.
    pub fn ask(&self) {
        // Relaxed: a wish, which carries nothing else.
        self.0.store(1, Ordering::Relaxed);
    }

    /// Whether it was asked for.
    pub fn is_asked(&self) -> bool {
        // Relaxed: as above.
        self.0.load(Ordering::Relaxed) != 0
    }
}

impl Default for Leave {
    fn default() -> Self {
        Self::new()
    }
}

/// What has happened at a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Its button was pressed: somebody wants to take the device out, or wants
    /// the one that is new to be used. QEMU's `device_del` presses it.
    pub attention: bool,
    /// A device came or went, or its link did.
    pub changed: bool,
}

/// A slot of a root port or a switch, with hot-plug.
///
/// To give a device back: [`Events::attention`], [`Leave::ask`], end the rings
/// on it, drop its driver, [`power_off`](Self::power_off).
pub struct Slot<'c, C> {
    express: Capability<'c, C>,
}

impl<C> fmt::Debug for Slot<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.express).finish()
    }
}

impl<'c, C: ConfigSpace> Slot<'c, C> {
    /// The slot of a port.
    ///
    /// # Errors
    /// [`Error::Missing`] if the port has none, or one without hot-plug.
    pub fn new(port: &Function<'c, C>) -> Result<Self, Error> {
        let what = "slot with hot-plug; devices behind it stay where they are";
        let missing = Error::Missing { address: port.address(), what };
        let express = port.capability(capability::EXPRESS, LEN, "PCI Express")?.ok_or(missing)?;
        let hot = express.read16(FLAGS) & SLOT != 0
            && express.read32(CAPABILITIES) & HOT_PLUG != 0
            && port.is_present();
        if hot { Ok(Self { express }) } else { Err(missing) }
    }

    /// The slot that a device on or behind bus `root` is in.
    ///
    /// # Errors
    /// As [`new`](Self::new); a device on the root bus is in none.
    pub fn of(config: &'c C, root: u8, device: Address) -> Result<Self, Error> {
        let leads = |port: &Function<'c, C>| {
            port.behind().is_some_and(|(secondary, _)| secondary == device.bus())
        };
        let what = "slot: it is part of the root complex and stays where it is";
        let port =
            functions(config, root).find(leads).ok_or(Error::Missing { address: device, what })?;
        Self::new(&port)
    }

    /// The port, which has the slot's interrupt ([`Msix`](super::Msix)).
    pub fn port(&self) -> Function<'c, C> {
        self.express.function()
    }

    /// Lets the port interrupt when something happens. What has happened
    /// before is forgotten.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn listen<P: Platform>(&self, machine: &Machine<P>) -> Result<(), Error> {
        self.acknowledge();
        self.command(machine, LISTEN, LISTEN)
    }

    /// What has happened since this was asked last. An interrupt comes for
    /// what happens after it.
    pub fn acknowledge(&self) -> Events {
        let mut seen = 0;
        // A message is sent when the first event comes, not for those that
        // join it (PCIe 6.7.3.4): until there is none left, but not for ever
        // if the port lies.
        for _ in 0..MOST_LOOKS {
            let status = self.express.read16(STATUS);
            if status == u16::MAX {
                // The port is gone, with everything behind it.
                return Events { attention: false, changed: true };
            }
            if status & EVENTS == 0 {
                break;
            }
            seen |= status;
            self.express.write16(STATUS, status & EVENTS);
        }
        let changed = seen & (PRESENCE_CHANGED | LINK_CHANGED) != 0;
        Events { attention: seen & ATTENTION != 0, changed }
    }

    /// Whether there is something in it.
    pub fn is_occupied(&self) -> bool {
        let status = self.express.read16(STATUS);
        status != u16::MAX && status & OCCUPIED != 0
    }

    /// Shows that the wish was understood: the power indicator blinks.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn show_busy<P: Platform>(&self, machine: &Machine<P>) -> Result<(), Error> {
        self.command(machine, INDICATOR, INDICATOR_BLINKS)
    }

    /// Takes the power away: the device can be taken out. Nobody uses it any
    /// more.
    ///
    /// # Errors
    /// [`Error::Missing`] if the slot's power cannot be switched,
    /// [`Error::Timeout`].
    pub fn power_off<P: Platform>(&self, machine: &Machine<P>) -> Result<(), Error> {
        self.needs_power()?;
        self.command(machine, INDICATOR | POWER_OFF, INDICATOR_OFF | POWER_OFF)
    }

    /// Gives power to what is in the slot. It can be reached in a second or so,
    /// and has to be set up. [`set_up`](super::set_up) takes every function
    /// off the bus for a moment: no other device may be in use then.
    ///
    /// # Errors
    /// As [`power_off`](Self::power_off).
    pub fn power_on<P: Platform>(&self, machine: &Machine<P>) -> Result<(), Error> {
        self.needs_power()?;
        self.command(machine, INDICATOR | POWER_OFF, INDICATOR_ON)
    }

    fn needs_power(&self) -> Result<(), Error> {
        let what = "switch for the power of its slot; pull the device when it is quiet";
        match self.express.read32(CAPABILITIES) & HAS_POWER {
            0 => Err(Error::Missing { address: self.express.address(), what }),
            _ => Ok(()),
        }
    }

    /// Changes the bits of `mask`, and waits until that is done.
    fn command<P: Platform>(
        &self,
        machine: &Machine<P>,
        mask: u16,
        bits: u16,
    ) -> Result<(), Error> {
        self.express.write16(STATUS, COMPLETED);
        let control = self.express.read16(CONTROL);
        self.express.write16(CONTROL, control & !mask | bits);
        // Where completions are not told, commands need no time.
        let told = self.express.read32(CAPABILITIES) & NO_COMPLETION == 0;
        let done = || self.express.read16(STATUS) & COMPLETED != 0;
        if told && !machine.within(COMMAND_MS, done) {
            let (address, what) = (self.express.address(), "complete a command of its slot");
            return Err(Error::Timeout { address, what, ms: COMMAND_MS });
        }
        Ok(())
    }
}
