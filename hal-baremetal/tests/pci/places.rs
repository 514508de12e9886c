//! BARs: their sizes, addresses for them, and the bridges' windows.

use annulus::hal::device::Mmio;
use annulus_baremetal::pci::{Address, Bar, BarKind, Error, Function, Windows, set_up};

use crate::fake::{APERTURE, Device, Fake, MAPPED, command, image, machine};

const WIDE: u32 = 4;
const PREFETCHABLE: u32 = 8;
const PORTS: u32 = 1;
const AT: Address = Address::new(0, 0, 0);

fn windows() -> Windows {
    Windows { memory: APERTURE..APERTURE + (64 << 20), prefetchable: Some(1 << 39..1 << 40) }
}

#[test]
fn sizes_are_found_and_nothing_is_changed() {
    let mut device = Device::new(0, 1, 2)
        .bar(0, WIDE, 0x4000)
        .bar_at(0, 0x80_0000_4000)
        .bar(2, 0, 16)
        .bar(3, PORTS, 32)
        .bar_at(3, 0xc000)
        .bar(4, WIDE | PREFETCHABLE, 1 << 33);
    device.put(4, &[7, 4]);
    let fake = Fake::new([device]);
    let config = fake.ecam();
    let before = image(&config, AT);
    let function = Function::new(&config, AT).unwrap();
    let memory = |wide, prefetchable| BarKind::Memory { wide, prefetchable };
    let expected = [
        Some(Bar { index: 0, kind: memory(true, false), address: 0x80_0000_4000, size: 0x4000 }),
        None,
        Some(Bar { index: 2, kind: memory(false, false), address: 0, size: 16 }),
        Some(Bar { index: 3, kind: BarKind::Ports, address: 0xc000, size: 32 }),
        Some(Bar { index: 4, kind: memory(true, true), address: 0, size: 1 << 33 }),
        None,
        None,
    ];
    assert_eq!([0, 1, 2, 3, 4, 5, 6].map(|index| function.bar(index).unwrap()), expected);
    assert_eq!(image(&config, AT), before);
}

#[test]
fn a_bar_is_sized_while_nothing_answers_at_it() {
    fn watch(device: &mut Device, offset: u16) {
        if (0x10..0x28).contains(&offset) {
            assert_eq!(device.half(4) & 3, 0, "accesses would go astray");
            device.count += 1;
        }
    }
    let mut device = Device::new(0, 1, 2).bar(0, WIDE, 0x4000).bar_at(0, APERTURE);
    device.put(4, &[7, 0]);
    device.on_write = Some(watch);
    let fake = Fake::new([device]);
    let config = fake.ecam();
    Function::new(&config, AT).unwrap().bar(0).unwrap().expect("a BAR");
    assert_eq!(command(&fake, 0), 7);
    assert_eq!(fake.devices()[0].count, 4);
}

#[test]
fn bars_that_make_no_sense_are_refused() {
    let broken = |device: Device, index, text: &str| {
        let fake = Fake::new([device]);
        let config = fake.ecam();
        let error = Function::new(&config, AT).unwrap().bar(index).unwrap_err();
        assert!(matches!(error, Error::Bar { bar, .. } if bar == index), "{error}");
        assert!(error.to_string().contains(text), "{error}");
    };
    broken(Device::new(0, 1, 2).bar(5, WIDE, 0x10), 5, "the last");
    let mut holes = Device::new(0, 1, 2);
    holes.may_write(0x10, &[0, 0xf0, 0x0f, 0xff]);
    broken(holes, 0, "no power of two");
    let mut lies = Device::new(0, 1, 2).bar(0, 0, 0x1000).bar_at(0, APERTURE + 0x1000);
    lies.on_write = Some(|device, _| {
        if device.word(0x10) == 0xffff_f000 {
            device.put(0x10, &0xffff_c000u32.to_le_bytes());
        }
    });
    broken(lies, 0, "multiple");
}

#[test]
fn addresses_are_given_and_windows_opened() {
    let fake = Fake::new([
        Device::bridge(0),
        Device::new(1 << 3, 0x1af4, 0x1042).bar(1, 0, 0x1000).bar(4, WIDE | PREFETCHABLE, 0x4000),
        Device::bridge(2 << 3),
    ]);
    let inner = fake.below(0, Device::bridge(0));
    let nvme = fake.below(inner, Device::new(0, 0x1b36, 0x10).bar(0, WIDE, 0x4000));
    let disk = fake.below(
        inner,
        Device::new(1 << 3, 0x1af4, 0x1042).bar(1, 0, 0x1000).bar(4, WIDE | PREFETCHABLE, 0x4000),
    );
    let config = fake.ecam();
    set_up(&config, 0, &windows()).expect("there is room");

    let bar = |device: usize, index: u8| {
        let function = Function::new(&config, fake.address(device).unwrap()).unwrap();
        function.bar(index).unwrap().unwrap().address
    };
    let mut low = [bar(1, 1), bar(nvme, 0), bar(disk, 1)];
    let mut high = [bar(1, 4), bar(disk, 4)];
    for (all, window, size) in [
        (low.as_mut_slice(), windows().memory, 0x1000),
        (high.as_mut_slice(), windows().prefetchable.unwrap(), 0x4000),
    ] {
        all.sort_unstable();
        assert!(all.iter().all(|at| window.contains(at) && at.is_multiple_of(size)), "{all:x?}");
        assert!(all.windows(2).all(|pair| pair[1] - pair[0] >= size), "{all:x?}");
    }
    // Every address behind a bridge is in the bridge's window, and no other is.
    let open = |bridge: usize, at: u64| {
        let device = &fake.devices()[bridge];
        let half = |at| u64::from(device.half(at));
        let low = (half(0x20) & 0xfff0) << 16..=(half(0x22) & 0xfff0) << 16 | 0xf_ffff;
        let upper = |at| u64::from(device.word(at)) << 32;
        let base = (half(0x24) & 0xfff0) << 16 | upper(0x28);
        let high = base..=(half(0x26) & 0xfff0) << 16 | 0xf_ffff | upper(0x2c);
        low.contains(&at) || high.contains(&at)
    };
    for at in [bar(nvme, 0), bar(disk, 1), bar(disk, 4)] {
        assert!(open(0, at) && open(inner, at) && !open(2, at), "{at:x}");
    }
    assert!(!open(0, bar(1, 1)) && !open(0, bar(1, 4)));
    for bridge in [0, inner, 2] {
        assert_eq!(command(&fake, bridge) & 6, 6, "accesses pass in both directions");
    }
    assert_eq!(command(&fake, nvme) & 7, 0, "a device is enabled by who uses it");

    let before: Vec<_> = fake.devices().iter().map(|device| device.bytes.clone()).collect();
    set_up(&config, 0, &windows()).expect("nothing is left to do");
    let after: Vec<_> = fake.devices().iter().map(|device| device.bytes.clone()).collect();
    assert_eq!(before, after);
}

#[test]
fn what_the_firmware_placed_stays_and_is_gone_past() {
    let mut bridge = Device::bridge(0);
    bridge.put(0x18, &[0, 1, 1]);
    // One megabyte, of which the first device behind it has a part.
    let window = (APERTURE >> 16) as u16 + 0x10;
    bridge.put(0x20, &[window.to_le_bytes(), window.to_le_bytes()].concat());
    let fake = Fake::new([
        bridge,
        Device::new(1 << 3, 1, 1).bar(0, 0, 0x1000).bar_at(0, APERTURE + 0x3000),
        Device::new(2 << 3, 1, 2).bar(0, 0, 0x1000),
    ]);
    let inside = APERTURE + (1 << 20);
    fake.below(0, Device::new(0, 1, 3).bar(0, 0, 0x1000).bar_at(0, inside + 0x5000));
    fake.below(0, Device::new(1 << 3, 1, 4).bar(0, 0, 0x1000));
    set_up(&fake.ecam(), 0, &windows()).expect("there is room");
    let bars: Vec<_> = fake.devices().iter().map(|device| u64::from(device.word(0x10))).collect();
    let past = inside + (1 << 20);
    assert_eq!(bars[1..], [APERTURE + 0x3000, past, inside + 0x5000, inside + 0x6000]);
    assert_eq!(fake.devices()[0].half(0x20), window);
}

#[test]
fn a_window_that_is_too_small_is_told_and_the_rest_works() {
    let fake = Fake::new([
        Device::new(0, 1, 1).bar(0, 0, 1 << 20),
        Device::new(1 << 3, 1, 2).bar(0, WIDE | PREFETCHABLE, 0x1000),
    ]);
    let windows = Windows { memory: APERTURE..APERTURE + 0x8000, prefetchable: None };
    let ended = set_up(&fake.ecam(), 0, &windows);
    assert_eq!(ended, Err(Error::NoRoom { address: AT, bar: 0, size: 1 << 20 }));
    assert_eq!(fake.devices()[0].word(0x10), 0);
    let low = fake.devices()[1].word(0x10);
    assert_eq!(u64::from(low & !0xf), APERTURE, "without another window it is in the low one");
}

#[test]
fn registers_are_where_the_platform_maps_them() {
    let machine = machine();
    let device = |address| Device::new(0, 1, 2).bar(0, WIDE, 0x1000).bar_at(0, address);
    let at = |address| {
        let fake = Fake::new([device(address)]);
        let config = fake.ecam();
        Function::new(&config, AT).unwrap().window(&machine, 0)
    };
    assert_eq!(at(APERTURE + 0x2000).map(|window| window.len()), Ok(0x1000));
    // A device that says its registers were where memory is.
    let physical = 0x1000;
    assert_eq!(at(physical).unwrap_err(), Error::Unmapped { address: AT, physical, len: 0x1000 });
    assert!(at(APERTURE + MAPPED as u64).is_err());
    assert!(at(0).unwrap_err().to_string().contains("set_up"));
    let fake = Fake::new([Device::new(0, 1, 2).bar(0, PORTS, 16).bar_at(0, 0xc000)]);
    let config = fake.ecam();
    let function = Function::new(&config, AT).unwrap();
    assert!(function.window(&machine, 0).unwrap_err().to_string().contains("ports"));
    assert!(function.window(&machine, 1).unwrap_err().to_string().contains("not one"));
}
