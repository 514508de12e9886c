//! Functions whose registers hold anything: every look at them ends, and
//! nothing outside of a BAR is touched.

use proptest::prelude::*;

use crate::fake::{APERTURE, Device, Fake, machine};
use crate::looks::look_at_all;

/// What matters of a header, and capabilities, mostly as they should be.
fn device() -> impl Strategy<Value = Device> {
    let kind = prop_oneof![
        Just((0x1af4u16, 0x1042u16, [0, 0, 1])),
        Just((0x1af4, 0x1001, [0, 0, 1])),
        Just((0x1b36, 0x0010, [2, 8, 1])),
        Just((0x1b36, 0x000c, [0, 4, 6])),
        any::<(u16, u16, [u8; 3])>(),
    ];
    let header = prop_oneof![3 => Just(0u8), 2 => Just(1), 1 => Just(0x80), 1 => any::<u8>()];
    let id = prop_oneof![12 => Just(9u8), 1 => Just(0x10), 2 => Just(0x11), 1 => any::<u8>()];
    // Where the next one is, if not behind this one.
    let link = prop_oneof![12 => Just(None), 1 => any::<u8>().prop_map(Some)];
    let small =
        || prop_oneof![12 => (0..16u32).prop_map(|n| n * 0x100), 1 => 0..70u32, 1 => any::<u32>()];
    let which = prop_oneof![30 => Just(0u8), 2 => 1..6u8, 1 => any::<u8>()];
    let capability = (id, link, 0..6u8, which, small(), small(), any::<u32>());
    let size = prop_oneof![3 => Just(14u32), 1 => 4..40u32];
    let flags = prop_oneof![3 => Just(0u32), 1 => Just(4), 1 => any::<u32>()];
    let bar = (prop_oneof![3 => 0..3usize, 1 => 0..6usize], flags, size, any::<bool>());
    let patch = (0..256usize, any::<u8>(), any::<u8>());
    (
        (kind, header, 0..4u8, prop_oneof![9 => Just(0x40u8), 1 => any::<u8>()]),
        prop_oneof![Just(Vec::new()), prop::collection::vec(bar, 0..6)],
        prop::collection::vec(capability, 0..9),
        prop::collection::vec(patch, 0..6),
    )
        .prop_map(|((kind, header, slot, list), bars, capabilities, patches)| {
            let mut device = Device::new(slot << 3, kind.0, kind.1);
            if header & 0x7f == 1 {
                device = Device::bridge(slot << 3);
            }
            device.put(9, &kind.2);
            device.put(6, &[0x10]);
            device.put(0x0e, &[header]);
            device.put(0x34, &[list]);
            device = device.bar(0, 0, 0x4000).bar_at(0, APERTURE);
            for (index, flags, size, placed) in bars {
                let flags = flags & 0xf;
                // A wide one has no room at the end: that is a case, too.
                device = device.bar(index, flags, 1 << size);
                if placed && flags & 1 == 0 && size < 16 {
                    device = device.bar_at(index, APERTURE);
                }
            }
            for (n, (id, link, kind, bar, offset, len, last)) in (0..).zip(capabilities) {
                let at = 0x40 + 20 * n;
                let next = link.unwrap_or(at + 20);
                // virtio's structures in their order, for the most part.
                let kind = if kind == 0 { at } else { n % 4 + 1 };
                // MSI-X has the BAR's number in two places.
                let offset = if id == 0x11 { offset | u32::from(bar & 7) } else { offset };
                let words = [u32::from_le_bytes([bar, 0, 0, 0]), offset, len, last];
                let words = words.into_iter().flat_map(u32::to_le_bytes);
                let bytes: Vec<u8> = [id, next, kind, kind].into_iter().chain(words).collect();
                device.put(at.into(), &bytes);
            }
            for (at, byte, mask) in patches {
                device.put(at, &[byte]);
                device.may_write(at, &[mask]);
            }
            device
        })
}

proptest! {
    #[test]
    fn nothing_that_a_device_says_leads_astray(
        devices in prop::collection::vec((device(), any::<prop::sample::Index>()), 1..6),
    ) {
        let fake = Fake::new([]);
        for (n, (mut device, parent)) in devices.into_iter().enumerate() {
            // Behind any that came before, or on the root bus.
            device.parent = parent.index(n + 1).checked_sub(1);
            fake.devices().push(device);
        }
        look_at_all(&machine(), &fake);
    }
}
