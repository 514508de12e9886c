//! Virtio devices on PCI (Virtio 4.1).

use annulus::hal::device::Mmio;

use super::capability::{self, Capability};
use super::{ConfigSpace, Error, Function};
use crate::{Machine, Platform, Window};

/// Red Hat's, for all of them.
const VENDOR: u16 = 0x1af4;
/// Device IDs: of transitional (and legacy) devices, whose kind is the
/// subsystem ID, and of modern ones, whose ID is `MODERN` and their kind.
const TRANSITIONAL: core::ops::RangeInclusive<u16> = 0x1000..=0x103f;
const MODERN: u16 = 0x1040;
const MODERN_LAST: u16 = 0x107f;

/// `struct virtio_pci_cap`, and its kinds.
const KIND: u16 = 3;
const BAR: u16 = 4;
const OFFSET: u16 = 8;
const LENGTH: u16 = 12;
const LEN: u16 = 16;
/// Behind it for the notification structure.
const MULTIPLIER: u16 = 16;
const NOTIFY_LEN: u16 = 20;
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const ISR: u8 = 3;
const DEVICE: u8 = 4;

/// Bytes of the common configuration up to `queue_device` (Virtio 1.0).
const COMMON_LEN: usize = 56;

const WHAT: &str = "of virtio's structures";

/// The registers of a virtio device, in modern mode.
#[derive(Clone, Copy, Debug)]
pub struct VirtioWindows {
    /// What the device is (Virtio 5): 2 is a block device.
    pub kind: u16,
    /// The common configuration.
    pub common: Window,
    /// Where queues are notified.
    pub notify: Window,
    /// From one queue's place there to the next one's.
    pub notify_multiplier: u32,
    /// The interrupt status.
    pub isr: Window,
    /// The device's own configuration, if it has one.
    pub device: Option<Window>,
}

impl VirtioWindows {
    /// Finds them. The function answers to memory accesses
    /// ([`Function::enable`]).
    ///
    /// # Errors
    /// [`Error::Kind`] if it is no virtio device, [`Error::Legacy`] if it has
    /// no modern interface, [`Error::Capability`] if a structure is missing or
    /// lies outside its BAR, and those of [`Function::window`].
    pub fn new<C: ConfigSpace, P: Platform>(
        machine: &Machine<P>,
        function: &Function<'_, C>,
    ) -> Result<Self, Error> {
        let address = function.address();
        let kind = kind(function)?;
        let mut found = [None; DEVICE as usize + 1];
        let mut multiplier = 0;
        let mut any = false;
        for capability in function.capabilities().filter(|c| c.id() == capability::VENDOR) {
            if !capability.has(LEN) {
                continue;
            }
            let which = capability.read8(KIND);
            if !(COMMON..=DEVICE).contains(&which) {
                continue;
            }
            any = true;
            // The first that can be used is to be used (4.1.4.1).
            let place = &mut found[usize::from(which)];
            if place.is_some() {
                continue;
            }
            if which == NOTIFY {
                if !capability.has(NOTIFY_LEN) {
                    continue;
                }
                multiplier = capability.read32(MULTIPLIER);
            }
            *place = structure(machine, &capability)?;
        }
        if !any {
            return Err(Error::Legacy { address });
        }
        let need = |which: u8, len: usize, why| {
            let window: Option<Window> = found[usize::from(which)];
            let window = window.filter(|window| window.len() >= len);
            window.ok_or(Error::Capability { address, what: WHAT, why })
        };
        Ok(Self {
            kind,
            common: need(COMMON, COMMON_LEN, "no common configuration that is large enough")?,
            notify: need(NOTIFY, 2, "no place to notify queues at")?,
            notify_multiplier: multiplier,
            isr: need(ISR, 1, "no interrupt status")?,
            device: found[usize::from(DEVICE)],
        })
    }
}

/// What kind of virtio device a function is.
fn kind<C: ConfigSpace>(function: &Function<'_, C>) -> Result<u16, Error> {
    let (vendor, device) = (function.vendor(), function.device());
    match device {
        _ if vendor != VENDOR => {}
        device if TRANSITIONAL.contains(&device) => return Ok(function.subsystem()),
        MODERN..=MODERN_LAST => return Ok(device - MODERN),
        _ => {}
    }
    let address = function.address();
    if !function.is_present() {
        return Err(Error::Absent(address));
    }
    Err(Error::Kind { address, vendor, device, wanted: "a virtio device (1af4:1000 to 1af4:107f)" })
}

/// The window of a structure; `None` if its BAR number is a reserved one, which
/// is to be ignored (4.1.4).
fn structure<C: ConfigSpace, P: Platform>(
    machine: &Machine<P>,
    capability: &Capability<'_, C>,
) -> Result<Option<Window>, Error> {
    let function = capability.function();
    let bar = capability.read8(BAR);
    if bar > 5 {
        return Ok(None);
    }
    let window = function.window(machine, bar)?;
    let (offset, len) = (capability.read32(OFFSET), capability.read32(LENGTH));
    let part = window.part(offset as usize, len as usize);
    let why = "one lies outside its BAR, or not on a multiple of 4";
    let address = function.address();
    Ok(Some(part.ok_or(Error::Capability { address, what: WHAT, why })?))
}
