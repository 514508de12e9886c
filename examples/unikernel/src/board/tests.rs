//! A tree like QEMU's, and what becomes of it when something is missing, odd
//! or broken.

use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

use super::*;

const END: u64 = 0x4100_0000;

/// Words of a property, as a tree has them.
fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

fn text(value: &str) -> Vec<u8> {
    [value.as_bytes(), b"\0"].concat()
}

fn node(name: &str, properties: &[(&str, Vec<u8>)]) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new(name).unwrap();
    for (name, value) in properties {
        node.add_property(DeviceTreeProperty::new(*name, value.clone()).unwrap());
    }
    node
}

/// The parts of QEMU's tree that matter, with two virtio-mmio places.
fn tree() -> DeviceTree {
    let place = |at: u32, irq: u32| {
        let properties = [
            ("compatible", text("virtio,mmio")),
            ("reg", words(&[0, at, 0, 0x200])),
            ("interrupts", words(&[0, irq, 1])),
            ("dma-coherent", vec![]),
        ];
        node(&format!("virtio_mmio@{at:x}"), &properties)
    };
    let mut cpus = node("cpus", &[("#address-cells", words(&[1])), ("#size-cells", words(&[0]))]);
    for n in [0, 1] {
        cpus.add_child(node(&format!("cpu@{n}"), &[("reg", words(&[n]))]));
    }
    let cells = [("#address-cells", words(&[2])), ("#size-cells", words(&[2]))];
    let gic = [
        ("compatible", text("arm,cortex-a15-gic")),
        ("reg", words(&[0, 0x800_0000, 0, 0x10000, 0, 0x801_0000, 0, 0x10000])),
    ];
    let mut gic = node("intc@8000000", &[&gic[..], &cells[..]].concat());
    let frame =
        [("compatible", text("arm,gic-v2m-frame")), ("reg", words(&[0, 0x802_0000, 0, 0x1000]))];
    gic.add_child(node("v2m@8020000", &frame));
    let ranges = [
        [0x100_0000, 0, 0, 0, 0x3eff_0000, 0, 0x1_0000],
        [0x200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x2eff_0000],
        [0x300_0000, 0x80, 0, 0x80, 0, 0x80, 0],
    ];
    let pci = [
        ("compatible", text("pci-host-ecam-generic")),
        ("reg", words(&[0x40, 0x1000_0000, 0, 0x1000_0000])),
        ("bus-range", words(&[0, 255])),
        ("#address-cells", words(&[3])),
        ("#size-cells", words(&[2])),
        ("ranges", words(ranges.as_flattened())),
        ("dma-coherent", vec![]),
    ];
    let timer = [1, 13, 0x304, 1, 14, 0x304, 1, 11, 0x304, 1, 10, 0x304];
    let mut tree = DeviceTree::new();
    for (name, value) in cells {
        tree.root.add_property(DeviceTreeProperty::new(name, value).unwrap());
    }
    let psci = [("compatible", text("arm,psci-1.0\0arm,psci-0.2")), ("method", text("hvc"))];
    let serial = [
        ("compatible", text("arm,pl011\0arm,primecell")),
        ("reg", words(&[0, 0x900_0000, 0, 0x1000])),
    ];
    for child in [
        node("chosen", &[("bootargs", text("sleeps ; reads depth=8"))]),
        node("memory@40000000", &[("reg", words(&[0, 0x4000_0000, 0, 0x800_0000]))]),
        node("psci", &psci),
        node("pl011@9000000", &serial),
        node("timer", &[("compatible", text("arm,armv8-timer")), ("interrupts", words(&timer))]),
        place(0xa00_0200, 17),
        place(0xa00_0000, 16),
        node("pcie@10000000", &pci),
        gic,
        cpus,
    ] {
        tree.root.add_child(child);
    }
    tree
}

/// What is said of the tree after a change.
fn after(change: impl FnOnce(&mut DeviceTreeNode)) -> Result<(), Unfit> {
    let mut tree = tree();
    change(&mut tree.root);
    Board::read(&tree.to_dtb(), END).map(|_| ())
}

fn set(root: &mut DeviceTreeNode, child: &str, name: &str, value: Vec<u8>) {
    let child = root.child_mut(child).unwrap();
    child.add_property(DeviceTreeProperty::new(name, value).unwrap());
}

#[test]
fn the_machine_is_as_its_tree_says() {
    let blob = tree().to_dtb();
    assert_eq!(tree_len(blob[..8].try_into().unwrap()), Some(blob.len()));
    let board = Board::read(&blob, END).unwrap();
    assert_eq!(board.command_line, "sleeps ; reads depth=8");
    assert_eq!((board.serial, board.conduit), (0x900_0000, Conduit::Hvc));
    assert_eq!((board.second_core, board.timer), (Some(1), 27));
    let gic = Gic { distributor: 0x800_0000, core: 0x801_0000, frame: Some(0x802_0000) };
    assert_eq!(board.gic, gic);
    // In the order of their addresses.
    let places: Vec<_> = board.places().map(|place| (place.base, place.interrupt)).collect();
    assert_eq!(places, [(0xa00_0000, 48), (0xa00_0200, 49)]);
    let pci = board.pci.unwrap();
    assert_eq!((pci.ecam, pci.buses), (0x40_1000_0000, (0, 255)));
    let low = Window { bus: 0x1000_0000, processor: 0x1000_0000, len: 0x2eff_0000 };
    let high = Window { bus: 0x80_0000_0000, processor: 0x80_0000_0000, len: 0x80_0000_0000 };
    assert_eq!((pci.low, pci.high), (low, Some(high)));
}

#[test]
fn what_may_be_missing_is_no_error() {
    for child in ["chosen", "pcie@10000000", "cpus"] {
        let found = after(|root| assert!(root.remove_child(child).is_some()));
        assert_eq!(found, Ok(()), "without {child}");
    }
    let frame = |root: &mut DeviceTreeNode| {
        root.child_mut("intc@8000000").unwrap().remove_child("v2m@8020000");
    };
    assert_eq!(after(frame), Ok(()));
}

#[test]
fn what_is_missing_or_odd_is_said() {
    for (child, said) in [
        ("memory@40000000", "no memory"),
        ("psci", "no PSCI"),
        ("pl011@9000000", "no serial port"),
        ("timer", "no timer"),
        ("intc@8000000", "no interrupt controller"),
    ] {
        let why = after(|root| assert!(root.remove_child(child).is_some())).unwrap_err();
        assert!(why.to_string().contains(said), "{child}: {why}");
    }
    for (child, name, value, said) in [
        ("psci", "method", text("smoke"), "PSCI method"),
        ("chosen", "bootargs", vec![0xff, 0], "command line"),
        ("timer", "interrupts", words(&[1, 13]), "timer's interrupts"),
        ("intc@8000000", "reg", words(&[0, 0x800_0000, 0, 0x10000]), "interrupt controller"),
        ("intc@8000000", "reg", words(&[0, 0x800_0000, 0]), "interrupt controller"),
        ("intc@8000000", "compatible", text("arm,gic-v3"), "gic-version=2"),
        ("virtio_mmio@a000000", "interrupts", words(&[7, 16, 1]), "virtio-mmio places"),
        ("virtio_mmio@a000000", "interrupts", words(&[0, u32::MAX, 1]), "virtio-mmio places"),
        ("pcie@10000000", "bus-range", words(&[0, 256]), "PCI host bridge"),
        ("pcie@10000000", "bus-range", words(&[3, 2]), "PCI host bridge"),
        ("pcie@10000000", "reg", words(&[0x40, 0, 0, 0xff0_0000]), "PCI host bridge"),
        ("pcie@10000000", "ranges", words(&[0x200_0000, 0]), "PCI host bridge"),
        ("pcie@10000000", "ranges", words(&[]), "PCI host bridge"),
        ("memory@40000000", "reg", words(&[0, 0x4000_0000, 0, 0x80_0000]), "give it more"),
        ("memory@40000000", "reg", words(&[0, 0x8000_0000, 0, 0x80_0000]), "give it more"),
    ] {
        let why = after(|root| set(root, child, name, value)).unwrap_err();
        assert!(why.to_string().contains(said), "{child}, {name}: {why}");
    }
    for (child, said) in [
        ("pcie@10000000", "PCI host bridge is not dma-coherent"),
        ("virtio_mmio@a000200", "a virtio-mmio device is not dma-coherent"),
    ] {
        let bypass = |root: &mut DeviceTreeNode| {
            let node = root.child_mut(child).unwrap();
            assert!(node.remove_property("dma-coherent").is_some());
        };
        let why = after(bypass).unwrap_err();
        assert!(why.to_string().contains(said), "{child}: {why}");
    }
    let too_many = |root: &mut DeviceTreeNode| {
        for n in 0..=PLACES as u32 {
            let properties = [
                ("compatible", text("virtio,mmio")),
                ("reg", words(&[0, n, 0, 0x200])),
                ("interrupts", words(&[0, n, 1])),
                ("dma-coherent", vec![]),
            ];
            root.add_child(node(&format!("virtio_mmio@{n:x}"), &properties));
        }
    };
    assert_eq!(after(too_many), Err(Unfit::Odd("virtio-mmio places")));
}

#[test]
fn a_broken_tree_is_an_error_and_not_a_panic() {
    let whole = tree().to_dtb();
    assert!(Fdt::new(&whole).is_ok());
    for len in 0..whole.len() {
        assert!(Board::read(&whole[..len], END).is_err(), "the first {len} bytes");
    }
    // Every byte, changed in ways that hit counts, offsets and names.
    for at in 0..whole.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut blob = whole.clone();
            blob[at] ^= change;
            let _ = Board::read(&blob, END);
        }
    }
    assert_eq!(tree_len(b"\xd0\x0d\xfe\xee\0\0\0\x08"), None);
}
