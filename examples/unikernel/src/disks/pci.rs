//! The machine's PCI.

use core::ops::RangeInclusive;

use annulus_baremetal::Window;
use annulus_baremetal::pci::{Address, ConfigSpace, Ecam, set_up};

use crate::arch::{self, Pci};
use crate::place::MACHINE;
use crate::text;
use crate::text::Text;

/// Configuration space, as this machine has it.
pub enum Config {
    /// As memory.
    Ecam(Ecam<Window>),
    /// By ports.
    #[cfg(target_arch = "x86_64")]
    Ports(annulus_baremetal::pci::Ports),
}

impl Config {
    /// The machine's, with everything reachable. `None` if it has no PCI.
    pub fn new() -> Result<Option<Self>, Text> {
        let config = match arch::pci() {
            None => return Ok(None),
            Some(Pci::Ecam { base, buses }) => {
                let len = buses.clone().count() << 20;
                let window = MACHINE.window(base, len);
                let window = window.ok_or_else(|| text!("no way to {base:#x}, PCI's"))?;
                Self::Ecam(Ecam::new(window, *buses.start()))
            }
            #[cfg(target_arch = "x86_64")]
            Some(Pci::Ports) => Self::by_ports(),
        };
        if let Some(windows) = arch::pci_windows() {
            set_up(&config, 0, &windows).map_err(|e| text!("setting PCI up: {e}"))?;
        }
        Ok(Some(config))
    }

    /// By the two ports that every PC has.
    #[cfg(target_arch = "x86_64")]
    fn by_ports() -> Self {
        // SAFETY: a PC, and only one such value is used at a time.
        Self::Ports(unsafe { annulus_baremetal::pci::Ports::new() })
    }
}

/// An access, either way.
macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        fn $read(&self, at: Address, offset: u16) -> $type {
            match self {
                Self::Ecam(config) => config.$read(at, offset),
                #[cfg(target_arch = "x86_64")]
                Self::Ports(config) => config.$read(at, offset),
            }
        }

        fn $write(&self, at: Address, offset: u16, value: $type) {
            match self {
                Self::Ecam(config) => config.$write(at, offset, value),
                #[cfg(target_arch = "x86_64")]
                Self::Ports(config) => config.$write(at, offset, value),
            }
        }
    };
}

impl ConfigSpace for Config {
    fn buses(&self) -> RangeInclusive<u8> {
        match self {
            Self::Ecam(config) => config.buses(),
            #[cfg(target_arch = "x86_64")]
            Self::Ports(config) => config.buses(),
        }
    }

    access!(read8, write8, u8);
    access!(read16, write16, u16);
    access!(read32, write32, u32);
}
