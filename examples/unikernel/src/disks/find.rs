//! Which disks there are: virtio-mmio ones first, then those on PCI.

use annulus::hal::Clock as _;
use annulus::sync::{AtomicU32, AtomicUsize, Ordering};
use annulus_baremetal::Window;
use annulus_baremetal::pci::{
    Class, Function, Leave, Message, Msix, Slot, VirtioWindows, functions,
};
use annulus_baremetal::virtio::{MmioTransport, PciTransport};
use annulus_unikernel::script::{ASKS, Line};

use super::nvme::Nvme;
use super::pci::Config;
use super::virtio::{Virtio, options};
use super::{OnDisk, RINGS, messages, number, raise_all};
use crate::arch::{self, VirtioMmio};
use crate::place::MACHINE;
use crate::scenarios::Outcome;
use crate::{println, text};

/// The interrupt of a virtio-mmio device; those below are rings'.
const MMIO_VECTOR: u32 = 31;
/// The interrupt of a slot.
const SLOT_VECTOR: u32 = 30;
/// A virtio block device.
const BLOCK: u32 = 2;
const RED_HAT: u16 = 0x1af4;

/// The virtio-mmio disk whose interrupt is on, as an address, or 0.
static MMIO: AtomicUsize = AtomicUsize::new(0);

/// 1: something has happened at the slot.
static SLOT: AtomicU32 = AtomicU32::new(0);

type MmioDisk<'c> = Virtio<'c, MmioTransport<Window>>;

/// The machine's virtio-mmio disks.
fn mmio() -> impl Iterator<Item = (VirtioMmio, MmioTransport<Window>)> {
    arch::virtio_mmio().filter_map(|place| {
        use annulus_baremetal::virtio::Transport as _;
        let window = MACHINE.window(place.base, place.len)?;
        let transport = MmioTransport::new(window).ok()?;
        (transport.device_type() == BLOCK).then_some((place, transport))
    })
}

/// Whether a function is a virtio disk or an NVMe controller.
fn is_disk(function: &Function<'_, Config>) -> bool {
    let virtio = function.vendor() == RED_HAT && matches!(function.device(), 0x1001 | 0x1042);
    virtio || function.class() == Class::NVME
}

/// Brings the disk of number `disk=` up and runs the scenario on it.
pub fn on_disk<V: OnDisk>(scenario: &V, line: &Line<'_>) -> Outcome {
    let n = number(line, "disk", 0)? as usize;
    let leave = Leave::new();
    if let Some((place, transport)) = mmio().nth(n) {
        let disk = Virtio::new(transport, &leave, options(line)?)?;
        let _quiet = acknowledged(&disk, place.irq);
        return scenario.run(&disk, line);
    }
    let none = || text!("the machine has no disk {n}");
    let config = Config::new()?.ok_or_else(none)?;
    let on_pci = n - mmio().count();
    let function = functions(&config, 0).filter(is_disk).nth(on_pci).ok_or_else(none)?;
    on_function(scenario, function, &leave, line)
}

fn on_function<V: OnDisk>(
    scenario: &V,
    function: Function<'_, Config>,
    leave: &Leave,
    line: &Line<'_>,
) -> Outcome {
    let mut own = [Message { address: 0, data: 0 }; RINGS + 1];
    let rings = own[1..].iter_mut().zip(messages()).map(|(to, from)| *to = from).count();
    if function.class() == Class::NVME {
        // Vector 0 is the admin queue's, which is polled: it hears of ring 0.
        own[0] = own[1];
        let disk = Nvme::new(function, &own[..=rings], leave, line)?;
        return scenario.run(&disk, line);
    }
    function.enable().map_err(|e| text!("{e}"))?;
    let msix = Msix::new(&MACHINE, &function).map_err(|e| text!("{e}"))?;
    for (vector, message) in (0..msix.vectors()).zip(&own[1..=rings]) {
        msix.set(vector, *message).map_err(|e| text!("{e}"))?;
    }
    msix.enable();
    let windows = VirtioWindows::new(&MACHINE, &function).map_err(|e| text!("{e}"))?;
    let transport = PciTransport::new(windows).map_err(|e| text!("{e}"))?;
    let mut options = options(line)?;
    options.queues = options.queues.min(msix.vectors());
    options.queue_vector = Some(0);
    scenario.run(&Virtio::new(transport, leave, options)?, line)
}

/// Whether something has happened at the slot that is listened to.
pub fn asked_to_leave() -> bool {
    // Relaxed: who sees it asks the slot.
    SLOT.load(Ordering::Relaxed) != 0
}

/// Runs the scenario on the disk of number `disk=`, which is in a slot; when
/// the scenario has come to its end and the disk is quiet, takes its power
/// away and waits until it is gone.
pub fn until_gone<V: OnDisk>(scenario: &V, line: &Line<'_>) -> Outcome {
    let n = number(line, "disk", 0)? as usize;
    let none = || text!("the machine has no disk {n} on PCI");
    let config = Config::new()?.ok_or_else(none)?;
    let function = functions(&config, 0).filter(is_disk).nth(n).ok_or_else(none)?;
    let slot = Slot::of(&config, 0, function.address()).map_err(|e| text!("{e}"))?;
    // The port interrupts by a message as well.
    let port = slot.port();
    port.enable().map_err(|e| text!("{e}"))?;
    let msix = Msix::new(&MACHINE, &port).map_err(|e| text!("{e}"))?;
    let (address, data) = arch::msi(SLOT_VECTOR).ok_or_else(|| text!("there are no messages"))?;
    // Relaxed: no interrupt comes yet.
    SLOT.store(0, Ordering::Relaxed);
    arch::set_handler(SLOT_VECTOR, |_| SLOT.store(1, Ordering::Relaxed));
    msix.set(0, Message { address, data }).map_err(|e| text!("{e}"))?;
    msix.enable();
    slot.listen(&MACHINE).map_err(|e| text!("{e}"))?;
    let leave = Leave::new();
    let said = on_function(scenario, function, &leave, line)?;
    if !slot.acknowledge().attention {
        return Err(text!("it was not the slot's button"));
    }
    slot.power_off(&MACHINE).map_err(|e| text!("{e}"))?;
    println!("{ASKS}gone disk{n}");
    let until = MACHINE.now() + 30_000_000_000;
    while function.is_present() {
        if MACHINE.now() > until {
            return Err(text!("it is still there, without power"));
        }
        MACHINE.relax();
    }
    msix.disable();
    Ok(said)
}

/// Turns a virtio-mmio disk's interrupt on, until what this answers is
/// dropped.
fn acknowledged(disk: &MmioDisk<'_>, irq: u32) -> impl Drop {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            // The handler runs on this core, so it does not run now.
            MMIO.store(0, Ordering::Relaxed);
        }
    }
    fn handler(_: u32) {
        let disk = MMIO.load(Ordering::Relaxed) as *const MmioDisk<'_>;
        // SAFETY: 0, or a disk that stays where it is until `Off` is dropped;
        // this core did both.
        if let Some(disk) = unsafe { disk.as_ref() } {
            disk.disk.acknowledge();
        }
        raise_all();
    }
    // Relaxed, all of them: one core's.
    MMIO.store(core::ptr::from_ref(disk) as usize, Ordering::Relaxed);
    arch::set_handler(MMIO_VECTOR, handler);
    arch::line(irq, MMIO_VECTOR);
    Off
}
