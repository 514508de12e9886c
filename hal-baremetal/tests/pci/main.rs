//! PCI against configuration space made of code.

#![cfg(not(loom))]

mod capabilities;
mod fake;
#[cfg(feature = "nvme")]
mod hostile;
#[cfg(feature = "nvme")]
mod looks;
#[cfg(feature = "nvme")]
mod nvme;
mod places;
mod scan;
mod slots;
