//! PCI against configuration space made of code.

#![cfg(not(loom))]

mod capabilities;
mod fake;
mod places;
mod scan;
