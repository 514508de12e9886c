//! PCI functions whose configuration space holds anything.
#![no_main]

#[path = "../../../hal-baremetal/tests/pci/fake.rs"]
#[allow(dead_code)] // shared with the tests of PCI
mod fake;
#[path = "../../../hal-baremetal/tests/pci/looks.rs"]
mod looks;

use annulus_baremetal::Machine;
use annulus_fuzz::Bytes;
use libfuzzer_sys::fuzz_target;

use fake::{APERTURE, Board, Device, Fake};

thread_local! {
    /// Its memory is the machine's for ever.
    static MACHINE: Machine<Board> = fake::machine();
}

fuzz_target!(
    init: annulus_fuzz::select_fault(),
    |data: &[u8]| run(Bytes::new(data))
);

/// What a function is: its numbers, its class.
const KINDS: [(u16, u16, [u8; 3]); 4] = [
    (0x1af4, 0x1042, [0, 0, 1]),
    (0x1b36, 0x0010, [2, 8, 1]),
    (0x1b36, 0x000c, [0, 4, 6]),
    (0x1af4, 0x1001, [0, 0, 1]),
];

fn device(bytes: &Bytes) -> Device {
    let [kind, slot, bars, capabilities, patches] = bytes.take();
    let (vendor, number, class) = KINDS[usize::from(kind & 3)];
    let slot = (slot & 3) << 3;
    let mut device = match kind & 4 == 0 {
        true => Device::new(slot, vendor, number),
        false => Device::bridge(slot),
    };
    device.put(9, &class);
    device.put(6, &[0x10]);
    device.put(0x34, &[0x40]);
    device = device.bar(0, 0, 0x4000).bar_at(0, APERTURE);
    for _ in 0..bars & 3 {
        let [index, flags, size] = bytes.take();
        let (index, flags) = (usize::from(index) % 6, u32::from(flags & 15));
        device = device.bar(index, flags, 1 << (4 + size % 36));
        if flags & 1 == 0 && size & 128 != 0 {
            device = device.bar_at(index, APERTURE);
        }
    }
    for n in 0..capabilities & 7 {
        let at = 0x40 + 20 * n;
        let [how, kind, bar] = bytes.take();
        let id = [9, 9, 9, 0x11, 0x10, 5, 1, how][usize::from(how & 7)];
        let next = if how & 0xc0 == 0xc0 { bytes.u8() } else { at + 20 };
        let (len, kind) = match how & 8 {
            0 => (at, n % 4 + 1),
            _ => (kind, kind & 7),
        };
        let place = |bytes: &Bytes| match bytes.u8() {
            small @ 0..224 => u32::from(small & 31) * 0x100,
            _ => bytes.u32(),
        };
        // MSI-X has the BAR's number in two places.
        let offset = place(bytes) | if id == 0x11 { u32::from(bar & 7) } else { 0 };
        let words = [u32::from(bar & 7), offset, place(bytes), place(bytes)];
        let words = words.into_iter().flat_map(u32::to_le_bytes);
        let all: Vec<u8> = [id, next, len, kind].into_iter().chain(words).collect();
        device.put(at.into(), &all);
    }
    for _ in 0..patches & 15 {
        let [at, byte, mask] = bytes.take();
        device.put(at.into(), &[byte]);
        device.may_write(at.into(), &[mask]);
    }
    device
}

fn run(bytes: Bytes) {
    let fake = Fake::new([]);
    for n in 0..1 + usize::from(bytes.u8() & 3) {
        let mut device = device(&bytes);
        // Behind any that came before, or on the root bus.
        device.parent = bytes.below(n + 1).checked_sub(1);
        fake.devices().push(device);
    }
    MACHINE.with(|machine| looks::look_at_all(machine, &fake));
}
