//! Finding functions, and numbering buses.

use annulus_baremetal::pci::{
    Address, Class, ConfigSpace, Ecam, Error, Function, Windows, functions, set_up,
};
use annulus_baremetal::{Registers, Window};
use std::ptr::NonNull;

use crate::fake::{Device, Fake};

fn none() -> Windows {
    Windows { memory: 0..0, prefetchable: None }
}

fn found(fake: &Fake) -> Vec<Address> {
    functions(&fake.ecam(), 0).map(|function| function.address()).collect()
}

fn numbers(fake: &Fake, bridge: usize) -> [u8; 3] {
    let [primary, secondary, subordinate, _] = fake.devices()[bridge].word(0x18).to_le_bytes();
    [primary, secondary, subordinate]
}

#[test]
fn addresses_are_shown_and_signed_as_everywhere() {
    let address = Address::new(0x3f, 0x1d, 5);
    assert_eq!(address.to_string(), "3f:1d.5");
    assert_eq!(address.id(), 0x3fed);
    assert_eq!((address.bus(), address.device(), address.function()), (0x3f, 0x1d, 5));
}

#[test]
fn functions_are_found_behind_bridges_without_numbers() {
    let fake = Fake::new([
        Device::new(0, 0x8086, 0x29c0),
        Device::bridge(1 << 3),
        Device::bridge(2 << 3),
        Device::new(3 << 3, 0x1af4, 0x1042).many(),
        Device::new(3 << 3 | 5, 0x1af4, 0x1041),
        // Of a device without function 0 nothing is there.
        Device::new(4 << 3 | 1, 0xdead, 0xbeef),
        // Of a device with one function nothing else is.
        Device::new(5 << 3, 0x1af4, 0x1044),
        Device::new(5 << 3 | 2, 0xdead, 0xbeef),
    ]);
    let switch = fake.below(1, Device::bridge(0));
    let left = fake.below(switch, Device::bridge(0));
    let nvme = fake.below(left, Device::new(0, 0x1b36, 0x0010).class(1, 8, 2));
    let other = fake.below(2, Device::new(0, 0x1af4, 0x1042));
    let root =
        [0x00, 0x08, 0x10, 0x18, 0x1d, 0x28].map(|slot| Address::new(0, slot >> 3, slot & 7));
    assert_eq!(found(&fake), root, "unnumbered bridges lead nowhere");

    set_up(&fake.ecam(), 0, &none()).expect("there are enough numbers");
    assert_eq!(numbers(&fake, 1), [0, 1, 3]);
    assert_eq!(numbers(&fake, switch), [1, 2, 3]);
    assert_eq!(numbers(&fake, left), [2, 3, 3]);
    assert_eq!(numbers(&fake, 2), [0, 4, 4]);
    let mut all = root.to_vec();
    all.extend([1, 2, 3, 4].map(|bus| Address::new(bus, 0, 0)));
    assert_eq!(found(&fake), all);
    let config = fake.ecam();
    let one = functions(&config, 0).find(|f| f.class() == Class::NVME).expect("there is one");
    assert_eq!(Some(one.address()), fake.address(nvme));
    assert_eq!((one.vendor(), one.device()), (0x1b36, 0x0010));
    assert_eq!(fake.address(other), Some(Address::new(4, 0, 0)));

    set_up(&config, 0, &none()).expect("nothing is left to do");
    assert_eq!(found(&fake), all, "numbers stay");
}

#[test]
fn numbers_of_the_firmware_stay_and_the_rest_goes_behind_them() {
    let mut numbered = Device::bridge(1 << 3);
    numbered.put(0x18, &[0, 5, 6]);
    let fake = Fake::new([Device::bridge(0), numbered]);
    let inner = fake.below(1, Device::bridge(0));
    set_up(&fake.ecam(), 0, &none()).expect("there is room");
    assert_eq!(numbers(&fake, 1), [0, 5, 6]);
    assert_eq!(numbers(&fake, inner), [5, 6, 6], "in the room that its parent has");
    assert_eq!(numbers(&fake, 0), [0, 7, 7]);
}

#[test]
fn a_bridge_without_room_for_a_number_is_told_and_the_rest_works() {
    let mut full = Device::bridge(0);
    full.put(0x18, &[0, 15, 15]);
    let fake = Fake::new([full, Device::bridge(1 << 3), Device::new(2 << 3, 0x1af4, 0x1042)]);
    let inner = fake.below(0, Device::bridge(0));
    let ended = set_up(&fake.ecam(), 0, &none());
    let bridge = Address::new(15, 0, 0);
    assert_eq!(ended, Err(Error::Buses { bridge }));
    assert_eq!(fake.address(inner), Some(bridge));
    assert!(ended.unwrap_err().to_string().contains("more buses"));
    assert_eq!(found(&fake).len(), 4);
}

#[test]
fn bridges_that_lie_lead_nobody_round() {
    // Each to its own bus, to the one above, to a range turned round.
    for lie in [[0, 0, 0xff], [1, 0, 5], [0, 9, 3], [0, 255, 255]] {
        let mut bridge = Device::bridge(0);
        bridge.put(0x18, &lie);
        bridge.may_write(0x18, &[0; 3]);
        let fake = Fake::new([bridge, Device::new(1 << 3, 1, 1)]);
        assert_eq!(found(&fake).len(), 2, "{lie:?}");
        // It cannot be numbered either, and that ends, too.
        let _ = set_up(&fake.ecam(), 0, &none());
    }
    // A chain as long as there are buses.
    let fake = Fake::new([Device::bridge(0)]);
    (0..20).fold(0, |parent, _| fake.below(parent, Device::bridge(0)));
    let bridge = Address::new(8, 0, 0);
    assert_eq!(set_up(&fake.ecam(), 0, &none()), Err(Error::Depth { bridge, levels: 8 }));
    assert_eq!(found(&fake).len(), 10, "to where they are numbered");
}

#[test]
fn what_is_not_there_answers_all_ones() {
    let fake = Fake::new([Device::new(0, 1, 2)]);
    let config = fake.ecam();
    assert_eq!(config.buses(), 0..=15);
    let absent = Address::new(0, 9, 0);
    assert_eq!(Function::new(&config, absent).err(), Some(Error::Absent(absent)));
    let function = Function::new(&config, Address::new(0, 0, 0)).expect("it is there");
    assert_eq!(config.read32(Address::new(16, 0, 0), 0), u32::MAX, "past the last bus");
    assert_eq!(config.read16(function.address(), 0x1000), u16::MAX);
    fake.devices()[0].present = false;
    assert!(!function.is_present());
    assert_eq!(
        (function.enable(), function.isolate()),
        (Err(Error::Absent(function.address())), true)
    );
}

#[test]
fn ecam_is_memory_in_its_order() {
    let mut memory = vec![0u32; 2 << 18];
    let base = NonNull::from(memory.as_mut_slice()).cast();
    // SAFETY: the vector outlives the window, and is not used meanwhile.
    let window = unsafe { Window::new(base, 2 << 20) };
    // The first bus of the window is number 3.
    let config = Ecam::new(window, 3);
    assert_eq!(config.buses(), 3..=4);
    let at = Address::new(4, 2, 1);
    config.write32(at, 0x10, 0x1234_5678);
    config.write8(at, 0x17, 0x9a);
    config.write16(at, 0x1a, 0xbcde);
    let place = 1 << 20 | 2 << 15 | 1 << 12;
    assert_eq!(window.read8(place + 0x10), 0x78);
    assert_eq!(window.read16(place + 0x16), 0x9a00);
    assert_eq!((config.read8(at, 0x12), config.read16(at, 0x1a)), (0x34, 0xbcde));
    config.write32(Address::new(2, 0, 0), 0, 7);
    config.write32(Address::new(5, 0, 0), 0, 7);
    assert_eq!(config.read32(Address::new(2, 0, 0), 0), u32::MAX);
}
