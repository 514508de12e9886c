//! Slots with hot-plug.

use annulus_baremetal::pci::{Address, Error, Events, Function, Leave, Slot, Windows, set_up};

use crate::fake::{Device, Fake, machine};

const ATTENTION: u8 = 1;
const COMPLETED: u8 = 1 << 4;
const OCCUPIED: u8 = 1 << 6;

/// A port as QEMU's: it completes at once, and lets the device go when both
/// indicator and power are off.
fn port(slot: u8, capabilities: u32) -> Device {
    let mut express = [0; 0x1c];
    (express[0], express[3]) = (0x10, 1);
    express[0x14..0x18].copy_from_slice(&capabilities.to_le_bytes());
    express[0x1a] = OCCUPIED | 1 << 3;
    let mut device = Device::bridge(slot).capability(0x40, &express);
    device.may_write(0x58, &[0xff; 2]);
    device.cleared[0x5a] = 0x1f;
    device.cleared[0x5b] = 1;
    device.on_write = Some(|device, offset| {
        if offset == 0x58 {
            device.bytes[0x5a] |= COMPLETED;
            if device.half(0x58) & 0x700 == 0x700 {
                device.bytes[0x5a] &= !OCCUPIED;
                device.count += 1;
            }
        }
    });
    device
}

/// Hot-plug, power, button.
const FULL: u32 = 1 << 6 | 1 << 1 | 1;

#[test]
fn a_device_is_given_back() {
    let machine = machine();
    let fake = Fake::new([Device::new(0, 1, 2), Device::bridge(1 << 3), port(2 << 3, FULL)]);
    fake.below(1, Device::new(0, 0x1af4, 0x1042));
    let disk = fake.below(2, Device::new(0, 0x1b36, 0x10));
    let config = fake.ecam();
    set_up(&config, 0, &Windows { memory: 0..0, prefetchable: None }).unwrap();
    let slot = Slot::of(&config, 0, fake.address(disk).unwrap()).expect("it is in a slot");
    assert_eq!(slot.port().address(), Address::new(0, 2, 0));
    slot.listen(&machine).unwrap();
    assert_eq!(fake.devices()[2].half(0x58), 0x1029);
    assert_eq!(slot.acknowledge(), Events::default(), "what was before is forgotten");
    assert!(slot.is_occupied());

    fake.devices()[2].bytes[0x5a] |= ATTENTION;
    assert_eq!(slot.acknowledge(), Events { attention: true, changed: false });
    assert_eq!(slot.acknowledge(), Events::default(), "once");
    slot.show_busy(&machine).unwrap();
    assert_eq!(fake.devices()[2].half(0x58), 0x1229);
    slot.power_off(&machine).unwrap();
    assert_eq!(fake.devices()[2].count, 1, "it has gone");
    assert_eq!(fake.devices()[2].half(0x58), 0x1729);
    assert!(!slot.is_occupied());
    slot.power_on(&machine).unwrap();
    assert_eq!(fake.devices()[2].half(0x58), 0x1129);
}

#[test]
fn what_is_in_no_slot_stays() {
    let fake = Fake::new([Device::new(0, 1, 2), Device::bridge(1 << 3), port(2 << 3, 1)]);
    let config = fake.ecam();
    let refused = |device| Slot::of(&config, 0, device).unwrap_err().to_string();
    assert!(refused(Address::new(0, 0, 0)).contains("root complex"));
    for bridge in [1, 2] {
        let port = Function::new(&config, Address::new(0, bridge, 0)).unwrap();
        let error = Slot::new(&port).unwrap_err();
        assert!(matches!(error, Error::Missing { .. }), "{error}");
    }
}

#[test]
fn a_slot_that_does_not_answer_is_told() {
    let machine = machine();
    let mut silent = port(0, FULL);
    silent.on_write = None;
    let fake = Fake::new([silent, port(1 << 3, 1 << 6 | 1 << 18)]);
    let config = fake.ecam();
    let slot =
        |device| Slot::new(&Function::new(&config, Address::new(0, device, 0)).unwrap()).unwrap();
    let ended = slot(0).power_off(&machine);
    assert!(matches!(ended, Err(Error::Timeout { ms: 1_000, .. })), "{ended:?}");
    // One without a switch for its power, which needs no time.
    fake.devices()[1].on_write = None;
    slot(1).listen(&machine).unwrap();
    assert!(slot(1).power_off(&machine).unwrap_err().to_string().contains("pull the device"));
    let gone = slot(1);
    fake.devices()[1].present = false;
    assert_eq!(gone.acknowledge(), Events { attention: false, changed: true });
    assert!(!gone.is_occupied());
}

#[test]
fn a_wish_is_heard() {
    static LEAVE: Leave = Leave::new();
    assert!(!LEAVE.is_asked());
    LEAVE.ask();
    assert!(LEAVE.is_asked());
}
