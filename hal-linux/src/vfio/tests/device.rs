//! Registers, interrupts, and the end of a device.

use std::io::ErrorKind;
use std::os::fd::AsFd;

use annulus::errno::Errno;
use annulus::hal::device::{Dma, Mmio};
use rustix::io::{read, write};

use super::fake::{BAR, COMMAND, Fake};
use crate::vfio::{Error, Interface, sys};

const BOTH: u16 = 6;
const MEMORY: u16 = 2;

#[test]
fn registers_are_the_devices() {
    let fake = Fake::new();
    let device = fake.open_device();
    assert_eq!(Mmio::len(&device), BAR as usize);
    device.write32(0x14, 0x0046_0001);
    assert_eq!(fake.register(0x14), 0x0046_0001);
    assert_eq!(device.read32(0x14), 0x0046_0001);
    device.write64(BAR as usize - 8, 0x1122_3344_5566_7788);
    assert_eq!(device.read64(BAR as usize - 8), 0x1122_3344_5566_7788);
    assert_eq!(fake.register(BAR - 4), 0x1122_3344);
}

#[test]
fn only_what_can_be_mapped_is_reached() {
    let fake = Fake::new();
    // Around an MSI-X table in the third page.
    fake.state().sparse = Some(vec![(0x3000, 0x1000), (0, 0x2000)]);
    assert_eq!(Mmio::len(&fake.open_device()), 0x2000);
    for sparse in [vec![], vec![(0x1000, 0x1000)], vec![(0, 100)]] {
        fake.state().sparse = Some(sparse);
        let error = fake.open_by(Interface::Auto).expect_err("nothing at the begin");
        assert!(matches!(error, Error::Bar { .. }), "{error}");
    }
    fake.state().region_flags = 0;
    let error = fake.open_by(Interface::Auto).expect_err("not at all");
    assert!(error.to_string().contains("by calls only"), "{error}");
    assert_eq!(error.errno(), Errno::ENODEV);
}

#[test]
fn bus_mastering_comes_and_goes() {
    let fake = Fake::new();
    let device = fake.open_device();
    assert_eq!(fake.config(COMMAND), BOTH);
    assert!(device.isolate());
    // Its registers stay where they are.
    assert_eq!(fake.config(COMMAND), MEMORY);
    device.enable_bus_master().expect("on again");
    assert_eq!(fake.config(COMMAND), BOTH);
    device.reset().expect("reset");
    assert_eq!(fake.config(COMMAND), BOTH, "as before");
}

#[test]
fn a_device_that_is_gone_is_isolated_and_cannot_be_enabled() {
    let fake = Fake::new();
    let device = fake.open_device();
    fake.set_config(0, 0xffff);
    fake.set_config(COMMAND, 0xffff);
    assert!(device.isolate());
    let error = device.enable_bus_master().expect_err("gone");
    assert_eq!(error.errno(), Errno::ENODEV);
}

#[test]
fn isolation_that_is_not_sure_is_told() {
    let fake = Fake::new();
    let device = fake.open_device();
    fake.seal();
    assert!(!device.isolate());
    assert!(device.reset().is_err());
}

#[test]
fn a_device_without_a_reset_says_so() {
    let fake = Fake::new();
    fake.state().device_flags = 2;
    let device = fake.open_device();
    assert_eq!(device.reset().expect_err("none").errno(), Errno::EOPNOTSUPP);
    drop(device);
    assert!(fake.state().resets.is_empty());
    assert_eq!(fake.config(COMMAND), MEMORY);
}

#[test]
fn interrupts_count_in_eventfds() {
    for fake in [Fake::new(), Fake::with_cdev()] {
        let device = fake.open_device();
        assert_eq!(device.vectors(), 16);
        let events = device.enable_msix(3).expect("three");
        write(&fake.state().events[&2][1], &1u64.to_ne_bytes()).expect("rung");
        let mut count = [0; 8];
        assert_eq!(read(&events[1], &mut count), Ok(8));
        assert_eq!(u64::from_ne_bytes(count), 1);
        for quiet in [0, 2] {
            let e = read(&events[quiet], &mut count).expect_err("quiet");
            assert_eq!(std::io::Error::from(e).kind(), ErrorKind::WouldBlock);
        }
        // Another number: off, then on.
        fake.state().log.clear();
        drop(device.enable_msix(16).expect("all"));
        assert_eq!(fake.state().log, ["irqs 2 0", "irqs 2 16"]);
        device.disable_msix();
        device.disable_msix();
        assert_eq!(fake.state().log[2..], ["irqs 2 0"]);
    }
}

#[test]
fn msi_stands_in_for_msix() {
    let fake = Fake::new();
    fake.state().irqs[2] = 0;
    let device = fake.open_device();
    assert_eq!(device.vectors(), 4);
    assert_eq!(device.enable_msix(4).expect("four").len(), 4);
    assert!(fake.state().events.contains_key(&1));
}

#[test]
fn more_interrupts_than_there_are() {
    let fake = Fake::new();
    let device = fake.open_device();
    let error = device.enable_msix(17).expect_err("sixteen");
    assert!(matches!(error, Error::Vectors { wanted: 17, available: 16, .. }), "{error}");
    assert_eq!(error.errno(), Errno::ENOSPC);
    assert!(device.enable_msix(0).is_err());
    // The machine has fewer left: a positive answer is no success.
    fake.state().irq_answer = 5;
    let error = device.enable_msix(8).expect_err("five");
    assert!(matches!(error, Error::Vectors { wanted: 8, available: 5, .. }), "{error}");
    drop(device);
    fake.state().irqs = [1, 0, 0, 0, 0];
    let device = fake.open_device();
    assert_eq!(device.vectors(), 0);
    assert_eq!(device.enable_msix(1).expect_err("none").errno(), Errno::EOPNOTSUPP);
    assert!(device.release_eventfd().is_none() && device.error_eventfd().is_none());
    assert!(!device.release_requested());
}

#[test]
fn a_request_to_release_stays_visible() {
    let fake = Fake::new();
    let device = fake.open_device();
    assert!(!device.release_requested());
    write(&fake.state().events[&4][0], &1u64.to_ne_bytes()).expect("rung");
    assert!(device.release_requested());
    assert!(device.release_requested());
    assert!(device.release_eventfd().is_some());
    write(&fake.state().events[&3][0], &1u64.to_ne_bytes()).expect("rung");
    let error = device.error_eventfd().expect("there is one");
    assert!(crate::vfio::pci::is_set(error.as_fd()));
}

#[test]
fn the_end_comes_in_order() {
    for fake in [Fake::new(), Fake::with_cdev()] {
        let device = fake.open_device();
        let _events = device.enable_msix(2).expect("two");
        let queue = device.alloc(4096).expect("memory");
        let addr = queue.ptr.as_ptr().addr();
        // SAFETY: the scripted kernel writes to nothing.
        unsafe { device.map(addr, 4096) }.expect("mapped");
        fake.state().log.clear();
        drop(device);
        let state = fake.state();
        assert_eq!(state.log, ["irqs 2 0", "reset", "unmap", "unmap"]);
        assert_eq!(state.resets, [MEMORY], "bus mastering is off when it is reset");
        assert!(state.maps.is_empty());
    }
}

#[test]
fn an_end_that_fails_ends_all_the_same() {
    let fake = Fake::new();
    let device = fake.open_device();
    let _queue = device.alloc(4096).expect("memory");
    for request in [sys::DEVICE_RESET.0, sys::IOMMU_UNMAP_DMA, sys::DEVICE_SET_IRQS] {
        fake.state().fail.insert(request, libc::EIO);
    }
    drop(device);
    assert_eq!(fake.config(COMMAND), MEMORY);
}

#[test]
fn time_goes_on() {
    let fake = Fake::new();
    let device = fake.open_device();
    let before = device.now();
    device.relax();
    assert!(device.now() >= before + 100_000);
}
