//! The function of an NVMe controller.

use annulus::hal::device::{Dma, Mmio};
use annulus::nvme::Platform;
use annulus_baremetal::NvmeFunction;
use annulus_baremetal::pci::{Address, Error, Function, Leave, Message};

use crate::fake::{APERTURE, Device, Fake, machine};

const AT: Address = Address::new(0, 0, 0);
const TABLE: usize = 0x2000;
const MESSAGES: [Message; 2] =
    [Message { address: 0xfee0_0000, data: 0x40 }, Message { address: 0xfee0_1000, data: 0x41 }];

/// Registers, MSI-X with four vectors in them, and a reset.
fn controller() -> Device {
    let mut express = [0; 12];
    (express[0], express[7]) = (0x10, 0x10);
    let mut msix = [0; 12];
    (msix[0], msix[2]) = (0x11, 3);
    msix[4..8].copy_from_slice(&(TABLE as u32).to_le_bytes());
    msix[8..].copy_from_slice(&(TABLE as u32 + 0x800).to_le_bytes());
    let mut device = Device::new(0, 0x1b36, 0x10)
        .class(1, 8, 2)
        .bar(0, 4, 0x4000)
        .bar_at(0, APERTURE)
        .capability(0x40, &express)
        .capability(0x60, &msix);
    device.may_write(0x48, &[0xff, 0xff]);
    device.may_write(0x62, &[0, 0xc0]);
    device
}

#[test]
fn a_controller_is_taken_reset_and_given_back() {
    let machine = machine();
    let table = machine.window(APERTURE + TABLE as u64, 64).unwrap();
    let wipe = Box::leak(Box::new(table));
    let mut device = controller();
    device.on_reset = Some(Box::new(move |device| {
        device.put(0x48, &[0, 0]);
        device.put(0x10, &[4, 0, 0, 0, 0, 0, 0, 0]);
        device.bytes[0x63] = 0;
        (0..64).step_by(4).for_each(|at| wipe.write32(at, if at % 16 == 12 { 1 } else { 0 }));
        device.count += 1;
    }));
    let fake = Fake::new([device]);
    let config = fake.ecam();
    let leave = Leave::new();
    let function = Function::new(&config, AT).unwrap();
    let nvme = NvmeFunction::new(machine, function, &MESSAGES, &leave).expect("it is one");
    let state = || {
        let entries = [0, 1, 2].map(|vector| [0, 8, 12].map(|at| table.read32(vector * 16 + at)));
        let device = &fake.devices()[0];
        (device.half(4), device.half(0x62), device.word(0x10), entries)
    };
    let running = state();
    assert_eq!((running.0, running.1), (0x406, 0x8003));
    assert_eq!(running.3, [[0xfee0_0000, 0x40, 0], [0xfee0_1000, 0x41, 0], [0, 0, 1]]);
    assert_eq!((nvme.len(), nvme.interrupts().map(|msix| msix.vectors())), (0x4000, Some(4)));

    assert!(nvme.isolate());
    assert_eq!(fake.devices()[0].half(4), 0x402);
    assert!(nvme.reset_function());
    assert_eq!(fake.devices()[0].count, 1);
    assert_eq!(state(), running, "as before");

    assert!(!nvme.leaving());
    leave.ask();
    assert!(nvme.leaving());
    // This machine has no memory for devices.
    assert!(nvme.alloc(4096).is_err());
    drop(nvme);
    assert_eq!((state().0, state().1), (0x402, 3));
}

#[test]
fn without_messages_it_is_polled() {
    let fake = Fake::new([controller()]);
    let config = fake.ecam();
    let leave = Leave::new();
    let function = Function::new(&config, AT).unwrap();
    let nvme = NvmeFunction::new(machine(), function, &[], &leave).unwrap();
    assert!(nvme.interrupts().is_none());
    assert_eq!(fake.devices()[0].half(4), 6);
    fake.devices()[0].present = false;
    assert!(nvme.isolate(), "what is gone writes nothing");
    assert!(!nvme.reset_function());
}

#[test]
fn what_cannot_be_driven_is_refused_and_left_alone() {
    let refused = |device: Device, messages: &[Message]| {
        let fake = Fake::new([device]);
        let config = fake.ecam();
        let leave = Leave::new();
        let function = Function::new(&config, AT).unwrap();
        let error = NvmeFunction::new(machine(), function, messages, &leave).map(|_| ());
        (error.unwrap_err(), fake.devices()[0].half(4) & 4)
    };
    let (kind, master) = refused(Device::new(0, 0x1af4, 0x1001).class(1, 0, 0), &[]);
    assert!(kind.to_string().contains("1af4:1001, not an NVMe controller"));
    assert_eq!(master, 0);
    let (vector, master) = refused(controller(), &[MESSAGES[0]; 5]);
    assert_eq!(vector, Error::Vector { address: AT, vector: 4, vectors: 4 });
    assert_eq!(master, 0);
}
