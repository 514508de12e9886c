//! PCI: finding devices, giving them addresses, and their capabilities.
//!
//! After the PCI Local Bus Specification 3.0 ("PCI"), the PCI-to-PCI Bridge
//! Architecture Specification 1.2 ("Bridge"), the PCI Express Base
//! Specification 5.0 ("PCIe") and Virtio 1.2 ("Virtio").
//!
//! ```text
//!   Ecam, Ports ── ConfigSpace ── functions() ── Function ── bar, enable, reset
//!                       │                            ├─ Msix
//!                  set_up(windows)                   ├─ VirtioWindows
//!        bus numbers, BARs, bridge windows           └─ Slot (hot-plug)
//! ```
//!
//! Firmware's bus numbers and addresses are kept. What nobody has set up
//! ([`set_up`]) gets numbers, and addresses out of the windows that the image
//! names.
//!
//! A device is not trusted. What it says of itself is checked: lists of
//! capabilities end, whatever they point to, what a capability points to lies
//! in the BAR that it names, and whether a BAR's address leads to device
//! registers at all is for [`Platform::registers`](crate::Platform::registers)
//! to say.

mod assign;
mod bar;
mod capability;
mod config;
mod error;
mod function;
mod msix;
mod number;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // port instructions
mod ports;
mod reset;
mod scan;
mod slot;
mod virtio;

pub use assign::{Windows, set_up};
pub use bar::{Bar, BarKind};
pub use capability::{Capabilities, Capability};
pub use config::{Address, ConfigSpace, Ecam};
pub use error::Error;
pub use function::{Class, Function};
pub use msix::{Message, Msix};
#[cfg(target_arch = "x86_64")]
pub use ports::Ports;
pub use scan::{Functions, functions};
pub use slot::{Events, Leave, Slot};
pub use virtio::VirtioWindows;
