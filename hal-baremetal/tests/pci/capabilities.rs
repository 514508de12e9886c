//! Capabilities: the list, MSI-X, virtio's structures, reset.

use annulus::hal::device::Mmio;
use annulus_baremetal::pci::{Address, Error, Function, Message, Msix, VirtioWindows};

use crate::fake::{APERTURE, Board, Device, Fake, machine};
use annulus_baremetal::Machine;

const AT: Address = Address::new(0, 0, 0);
const MSIX: u8 = 0x11;
const VENDOR: u8 = 9;

fn ids(device: Device) -> Vec<u8> {
    let fake = Fake::new([device]);
    let config = fake.ecam();
    Function::new(&config, AT).unwrap().capabilities().map(|found| found.id()).collect()
}

#[test]
fn lists_end_whatever_they_point_to() {
    let device = || Device::new(0, 1, 2);
    assert_eq!(ids(device()), []);
    assert_eq!(ids(device().capability(0x40, &[1, 0]).capability(0xfc, &[5, 0])), [1, 5]);
    // A ring of two.
    let ring = ids(device().capability(0x40, &[1, 0x48]).capability(0x48, &[5, 0x40]));
    assert_eq!(ring.len(), 48);
    // To itself, into the header, to odd places, without the status bit.
    assert_eq!(ids(device().capability(0x40, &[1, 0x40])).len(), 48);
    assert_eq!(ids(device().capability(0x40, &[1, 0x10])), [1]);
    assert_eq!(ids(device().capability(0x40, &[1, 0x53]).capability(0x50, &[7, 0])), [1, 7]);
    let mut hidden = device().capability(0x40, &[1, 0]);
    hidden.bytes[6] = 0;
    assert_eq!(ids(hidden), []);
    // All ones: the device went away meanwhile.
    assert_eq!(ids(device().capability(0x40, &[1, 0x50]).capability(0x50, &[0xff, 0xff])), [1]);
}

/// `vectors`, table and pending bits at these places of BAR 1.
fn msix(vectors: u16, table: u32, pending: u32) -> Device {
    let mut bytes = vec![MSIX, 0];
    bytes.extend((vectors - 1).to_le_bytes());
    bytes.extend((table | 1).to_le_bytes());
    bytes.extend((pending | 1).to_le_bytes());
    let mut device = Device::new(0, 1, 2).bar(1, 0, 0x1000).bar_at(1, APERTURE);
    device = device.capability(0x40, &bytes);
    device.may_write(0x42, &[0, 0xc0]);
    device
}

#[test]
fn vectors_are_set_masked_and_enabled() {
    let machine = machine();
    let fake = Fake::new([msix(40, 0, 0x800)]);
    let config = fake.ecam();
    let function = Function::new(&config, AT).unwrap();
    function.enable().unwrap();
    fake.devices()[0].bytes[0x43] = 0xc0;
    let msix = Msix::new(&machine, &function).expect("it has MSI-X");
    assert_eq!(msix.vectors(), 40);
    assert_eq!(fake.devices()[0].bytes[0x43], 0, "off");
    let table = machine.window(APERTURE, 0x1000).unwrap();
    for vector in 0..40 {
        assert_eq!(table.read32(vector * 16 + 12), 1, "masked");
    }

    // Reserved bits of the vector control are kept.
    table.write32(3 * 16 + 12, 0x1234_5601);
    let message = Message { address: 0x12_fee0_1000, data: 0x41 };
    msix.set(3, message).unwrap();
    let entry = [0, 4, 8, 12].map(|at| table.read32(3 * 16 + at));
    assert_eq!(entry, [0xfee0_1000, 0x12, 0x41, 0x1234_5600]);
    msix.mask(3).unwrap();
    assert_eq!(table.read32(3 * 16 + 12), 0x1234_5601);
    msix.unmask(3).unwrap();
    assert_eq!(table.read32(3 * 16 + 12), 0x1234_5600);

    table.write32(0x804, 1 << 7);
    let pending = [38, 39, 7].map(|vector| msix.is_pending(vector).unwrap());
    assert_eq!(pending, [false, true, false]);

    msix.enable();
    let half = |at| fake.devices()[0].half(at);
    assert_eq!((half(0x42), half(4)), (0x8000 | 39, 0x406), "and the line is off");
    msix.disable();
    assert_eq!(half(0x42), 39);

    let error = Error::Vector { address: AT, vector: 40, vectors: 40 };
    assert_eq!(msix.set(40, message), Err(error));
    assert_eq!(msix.mask(u16::MAX).is_err(), msix.unmask(40).is_err());
    assert_eq!(msix.is_pending(40), Err(error));
}

#[test]
fn msix_outside_of_its_bar_is_refused() {
    let machine = machine();
    let refused = |device| {
        let fake = Fake::new([device]);
        let config = fake.ecam();
        let function = Function::new(&config, AT).unwrap();
        Msix::new(&machine, &function).map(|_| ()).unwrap_err().to_string()
    };
    assert!(refused(msix(2048, 0, 0)).contains("table reaches out"));
    assert!(refused(msix(1, 0xff8, 0)).contains("table reaches out"));
    assert!(refused(msix(1, 0xffff_fff0, 0)).contains("table reaches out"));
    assert!(refused(msix(200, 0, 0xff8)).contains("pending bits reach out"));
    assert!(refused(Device::new(0, 1, 2)).contains("poll instead"));
    let short = Device::new(0, 1, 2).capability(0xf8, &[MSIX, 0, 0, 0]);
    assert!(refused(short).contains("past the end"));
    let mut elsewhere = msix(1, 0, 0x800);
    elsewhere.bytes[0x44] = 7;
    assert!(refused(elsewhere).contains("BAR 7 is not one"));
}

fn structure(kind: u8, bar: u8, offset: u32, len: u32) -> Vec<u8> {
    let mut bytes = vec![VENDOR, 0, 20, kind, bar, 0, 0, 0];
    bytes.extend(offset.to_le_bytes());
    bytes.extend(len.to_le_bytes());
    // The notification multiplier.
    bytes.extend(4u32.to_le_bytes());
    bytes
}

fn virtio(device: u16, subsystem: u16) -> Device {
    let mut new = Device::new(0, 0x1af4, device).bar(4, 0xc, 0x4000).bar_at(4, APERTURE);
    new.put(0x2e, &subsystem.to_le_bytes());
    new
}

/// All of them, the first being an odd one.
fn modern(device: Device, first: Vec<u8>) -> Device {
    device
        .capability(0x40, &first)
        .capability(0x54, &structure(1, 4, 0, 0x38))
        .capability(0x68, &structure(2, 4, 0x3000, 0x1000))
        .capability(0x7c, &structure(3, 4, 0x1000, 4))
        .capability(0x90, &structure(4, 4, 0x2000, 0x60))
}

fn open(machine: &Machine<Board>, device: Device) -> Result<VirtioWindows, Error> {
    let fake = Fake::new([device]);
    let config = fake.ecam();
    VirtioWindows::new(machine, &Function::new(&config, AT)?)
}

#[test]
fn modern_and_transitional_devices_have_their_windows() {
    let machine = machine();
    let bar = machine.window(APERTURE, 0x4000).unwrap();
    bar.write32(0x3000, 0x0b0b_0b0b);
    bar.write32(0x2000, 0x0d0d_0d0d);
    // Reserved kinds and BARs are passed over, and so is access by
    // configuration space (5); the first structure of a kind counts.
    let odd = [
        structure(1, 6, 0, 0x38),
        structure(0, 4, 0, 4),
        structure(5, 4, 0, 4),
        structure(200, 4, 0, 4),
        structure(4, 7, 0, 1 << 31),
    ];
    for (device, subsystem) in [(0x1042, 0x1100), (0x1001, 2)] {
        for odd in &odd {
            let found = open(&machine, modern(virtio(device, subsystem), odd.clone())).unwrap();
            assert_eq!((found.kind, found.notify_multiplier), (2, 4));
            let device = found.device.unwrap();
            assert_eq!((found.common.len(), found.isr.len(), device.len()), (0x38, 4, 0x60));
            assert_eq!((found.notify.len(), found.notify.read32(0)), (0x1000, 0x0b0b_0b0b));
            assert_eq!(device.read32(0), 0x0d0d_0d0d);
        }
    }
}

#[test]
fn what_is_not_modern_virtio_is_refused_with_its_reason() {
    let machine = machine();
    let refused = |device| open(&machine, device).unwrap_err();
    assert_eq!(refused(virtio(0x1001, 2)), Error::Legacy { address: AT });
    // Capabilities of another vendor's kind do not make it modern.
    let access = virtio(0x1001, 2).capability(0x40, &structure(5, 4, 0, 4));
    assert_eq!(refused(access), Error::Legacy { address: AT });
    assert!(Error::Legacy { address: AT }.to_string().contains("legacy"));
    let nvme = Device::new(0, 0x1b36, 0x10);
    assert!(refused(nvme).to_string().contains("1b36:0010, not a virtio device"));
    assert!(matches!(refused(virtio(0x1080, 2)), Error::Kind { .. }));

    let part = |kind: u8, bar, offset, len| {
        let new = structure(kind, bar, offset, len);
        modern(virtio(0x1042, 0), new)
    };
    for (device, text) in [
        (part(1, 4, 0x3fe0, 0x38), "outside its BAR"),
        (part(1, 4, u32::MAX, u32::MAX), "outside its BAR"),
        (part(2, 4, 2, 4), "multiple of 4"),
        (part(1, 4, 0, 0x30), "no common configuration"),
        (part(2, 4, 0, 0), "no place to notify"),
        (part(3, 4, 0, 0), "no interrupt status"),
        (part(3, 0, 0, 4), "BAR 0 is not one"),
        (virtio(0x1042, 0).capability(0x40, &structure(1, 4, 0, 0x38)), "no place to notify"),
        // The notification's multiplier would be outside.
        (virtio(0x1042, 0).capability(0xf0, &structure(2, 4, 0, 4)[..16]), "no common"),
    ] {
        let error = refused(device).to_string();
        assert!(error.contains(text), "{error}");
    }
}

/// With a reset, that forgets and takes `busy` looks.
fn express(busy: usize) -> Device {
    fn rule(device: &mut Device, offset: u16) {
        if offset == 0x48 && device.bytes[0x49] & 0x80 != 0 {
            assert_eq!(device.half(4), 0, "quiet before the reset");
            device.put(0x48, &[0, 0]);
            device.put(0x10, &[0; 24]);
            device.count += 1;
        }
    }
    let mut bytes = [0; 12];
    bytes[0] = 0x10;
    bytes[7] = 0x10;
    bytes[10] = if busy == 0 { 0 } else { 1 << 5 };
    let mut device = Device::new(0, 0x1b36, 0x10).bar(0, 4, 0x1000).bar_at(0, APERTURE);
    device = device.capability(0x40, &bytes);
    device.may_write(0x48, &[0xff, 0xff]);
    device.on_write = Some(rule);
    device
}

#[test]
fn a_reset_gives_addresses_and_command_back() {
    let machine = machine();
    for busy in [0, 1] {
        let fake = Fake::new([express(busy)]);
        let config = fake.ecam();
        let function = Function::new(&config, AT).unwrap();
        function.enable().unwrap();
        function.reset(&machine).expect("it has a reset");
        assert_eq!(fake.devices()[0].count, 1);
        assert_eq!(u64::from(fake.devices()[0].word(0x10) & !0xf), APERTURE);
        assert_eq!(fake.devices()[0].half(4), 6);
        assert!(function.isolate());
        assert_eq!(fake.devices()[0].half(4), 2);
    }
}

#[test]
fn what_cannot_be_reset_says_so() {
    let machine = machine();
    let reset = |device| {
        let fake = Fake::new([device]);
        let config = fake.ecam();
        let function = Function::new(&config, AT).unwrap();
        function.reset(&machine).unwrap_err()
    };
    assert!(reset(Device::new(0, 1, 2)).to_string().contains("by its registers"));
    let mut unable = express(0);
    unable.bytes[0x47] = 0;
    assert!(matches!(reset(unable), Error::Missing { .. }));
    // It never comes back, or goes away.
    let mut stuck = express(0);
    stuck.on_write = Some(|device, offset| {
        if offset == 0x48 {
            device.put(0, &[1, 0]);
        }
    });
    assert!(matches!(reset(stuck), Error::Timeout { ms: 1_000, .. }));
    let mut gone = express(0);
    gone.on_write = Some(|device, offset| {
        if offset == 0x48 {
            device.present = false;
        }
    });
    assert_eq!(reset(gone), Error::Absent(AT));
}
