//! Reset of a single function (PCIe 6.6.2).

use super::capability;
use super::function::{COMMAND, VENDOR};
use super::{ConfigSpace, Error, Function};
use crate::{Machine, Platform};

/// Registers of the PCI Express capability (PCIe 7.5.3).
const DEVICE_CAPABILITIES: u16 = 0x04;
const DEVICE_CONTROL: u16 = 0x08;
const DEVICE_STATUS: u16 = 0x0a;
const LEN: u16 = 0x0c;

const RESETS: u32 = 1 << 28;
const RESET: u16 = 1 << 15;
const PENDING: u16 = 1 << 5;

/// A function that is being reset answers so to reads of its vendor, where the
/// root port shows that (PCIe 2.3.2).
const NOT_YET: u16 = 0x0001;

/// How long its own requests may take to end, in ms: longer than any
/// completion timeout that a device has by default (50 ms).
const QUIET_MS: u64 = 100;
/// How long it is not to be touched, in ms.
const SILENCE_MS: u64 = 100;
/// How long it may then take to answer, in ms.
const READY_MS: u64 = 1_000;

impl<C: ConfigSpace> Function<'_, C> {
    /// Resets the function (function level reset) and gives it back its
    /// addresses and its command register as they were, so also its right to
    /// access memory, or the lack of it. Its registers, and the MSI-X table
    /// among them, are as after power-on. Takes 100 ms or more.
    ///
    /// # Errors
    /// [`Error::Missing`] if it has no such reset, [`Error::Timeout`] if it
    /// does not come back, [`Error::Absent`].
    pub fn reset<P: Platform>(&self, machine: &Machine<P>) -> Result<(), Error> {
        let address = self.address;
        let what = "reset of its own; reset the device by its registers";
        let missing = Error::Missing { address, what };
        let express = self.capability(capability::EXPRESS, LEN, "PCI Express")?.ok_or(missing)?;
        if express.read32(DEVICE_CAPABILITIES) & RESETS == 0 {
            return Err(missing);
        }
        if !self.is_present() {
            return Err(Error::Absent(address));
        }
        let saved = self.saved();
        // No new requests; those under way end, or are cut off by the reset.
        self.write16(COMMAND, 0);
        machine.within(QUIET_MS, || express.read16(DEVICE_STATUS) & PENDING == 0);
        express.write16(DEVICE_CONTROL, express.read16(DEVICE_CONTROL) | RESET);
        machine.within(SILENCE_MS, || false);
        let ready = || !matches!(self.read16(VENDOR), NOT_YET | 0xffff);
        if !machine.within(READY_MS, ready) {
            return Err(match self.is_present() {
                true => Error::Timeout { address, what: "come back after a reset", ms: READY_MS },
                false => Error::Absent(address),
            });
        }
        self.restore(&saved);
        Ok(())
    }
}
