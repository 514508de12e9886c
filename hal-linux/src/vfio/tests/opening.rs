//! Opening, by both interfaces, and everything that can be in the way.

use std::fs;
use std::sync::Arc;

use annulus::errno::Errno;

use super::fake::{BDF, Fake, put};
use crate::vfio::{Error, Interface, sys};

fn error(fake: &Arc<Fake>) -> Error {
    fake.open_by(Interface::Auto).expect_err("something is in the way")
}

/// The error, of which all words must be in the message.
fn says(fake: &Arc<Fake>, words: &[&str]) -> Error {
    let error = error(fake);
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "\"{word}\" is not in: {text}");
    }
    error
}

#[test]
fn the_group_is_used_where_there_is_no_iommufd() {
    let fake = Fake::new();
    let device = fake.open_device();
    assert_eq!(device.address().to_string(), BDF);
    assert_eq!(device.class_code().expect("a class"), 0x01_0802);
    assert!(!fake.state().log.contains(&"bind".to_owned()));
    // Linux 6.1 lists the device, and has no file of its own for it.
    std::fs::create_dir_all(fake.function().join("vfio-dev/vfio2")).expect("a folder");
    let error = fake.open_by(Interface::Cdev).expect_err("no cdev");
    assert!(error.to_string().contains("Linux 6.6"), "{error}");
}

#[test]
fn iommufd_is_used_where_there_is_one() {
    let fake = Fake::with_cdev();
    let device = fake.open_device();
    assert_eq!(fake.state().log[..2], ["bind", "attach"]);
    drop(device);
    fake.state().log.clear();
    drop(fake.open_by(Interface::Group).expect("the other way is open too"));
    assert!(!fake.state().log.contains(&"bind".to_owned()));
}

#[test]
fn the_group_is_used_where_iommufd_cannot_be_opened() {
    for file in ["iommu", "vfio/devices/vfio2"] {
        let fake = Fake::with_cdev();
        fake.state().no_open.insert(fake.roots.dev.join(file), libc::EACCES);
        fake.open_device();
        assert!(!fake.state().log.contains(&"bind".to_owned()));
        let error = fake.open_by(Interface::Cdev).expect_err("asked for");
        assert!(matches!(error, Error::Permission { .. }), "{error}");
    }
}

#[test]
fn no_such_device() {
    let fake = Fake::new();
    fs::remove_dir_all(fake.function()).expect("removed");
    let error = says(&fake, &["no PCI device 0000:01:00.0", "lspci"]);
    assert_eq!(error.errno(), Errno::ENODEV);
}

#[test]
fn bound_elsewhere() {
    let fake = Fake::new();
    fake.driver(BDF, Some("nvme"));
    let error = says(&fake, &["the driver nvme", "annulus bind 0000:01:00.0"]);
    assert_eq!(error.errno(), Errno::EBUSY);
    fake.driver(BDF, None);
    says(&fake, &["bound to no driver", "annulus bind 0000:01:00.0"]);
    // A driver of VFIO's family for a certain device will do.
    fake.driver(BDF, Some("nvme_vfio_pci"));
    fake.open_device();
}

#[test]
fn no_iommu() {
    let fake = Fake::new();
    put(&fake.roots.dev.join("vfio/noiommu-7"), "");
    assert_eq!(says(&fake, &["no-IOMMU mode is not supported"]).errno(), Errno::ENODEV);
    let fake = Fake::new();
    fs::remove_file(fake.function().join("iommu_group")).expect("removed");
    assert!(matches!(says(&fake, &["intel_iommu=on"]), Error::NoIommu { .. }));
}

#[test]
fn modules_missing() {
    let fake = Fake::new();
    fs::remove_file(fake.roots.dev.join("vfio/vfio")).expect("removed");
    assert!(matches!(says(&fake, &["modprobe vfio-pci"]), Error::NoVfio { .. }));
    let fake = Fake::new();
    fake.state().type1 = false;
    says(&fake, &["vfio_iommu_type1", "modprobe"]);
    let fake = Fake::new();
    fs::remove_file(fake.roots.dev.join("vfio/7")).expect("removed");
    assert_eq!(says(&fake, &["vfio/7", "a container must be given it"]).errno(), Errno::ENOENT);
}

#[test]
fn no_permission() {
    let fake = Fake::new();
    let path = fake.roots.dev.join("vfio/7");
    fake.state().no_open.insert(path.clone(), libc::EACCES);
    let words = ["owned by user", "chown", path.to_str().expect("a path")];
    assert_eq!(says(&fake, &words).errno(), Errno::EACCES);
}

#[test]
fn in_use_by_the_group() {
    let fake = Fake::new();
    fake.state().no_open.insert(fake.roots.dev.join("vfio/7"), libc::EBUSY);
    assert_eq!(says(&fake, &["by another process"]).errno(), Errno::EBUSY);
    // As far as it can be seen, by whom.
    let fds = fake.roots.proc.join("42/fd");
    fs::create_dir_all(&fds).expect("a folder");
    std::os::unix::fs::symlink(fake.roots.dev.join("vfio/7"), fds.join("9")).expect("a link");
    put(&fake.roots.proc.join("42/comm"), "qemu\n");
    says(&fake, &["by process 42 (qemu)"]);
}

#[test]
fn in_use_by_iommufd() {
    for number in [libc::EBUSY, libc::EINVAL] {
        let fake = Fake::with_cdev();
        fake.state().fail.insert(sys::DEVICE_BIND_IOMMUFD, number);
        assert!(matches!(error(&fake), Error::InUse { .. }));
    }
    let fake = Fake::with_cdev();
    fake.state().fail.insert(sys::DEVICE_BIND_IOMMUFD, libc::ENOMEM);
    assert_eq!(error(&fake).errno(), Errno::ENOMEM);
}

#[test]
fn the_group_is_not_viable() {
    let fake = Fake::new();
    fake.state().viable = false;
    fake.neighbour("0000:01:00.1", "xhci_hcd");
    fake.neighbour("0000:00:1c.0", "pcieport");
    fake.neighbour("0000:01:00.2", "vfio-pci");
    let error = says(&fake, &["group 7", "0000:01:00.1 (xhci_hcd)"]);
    assert!(matches!(&error, Error::GroupNotViable { others, .. } if others.len() == 1));
    assert_eq!(error.errno(), Errno::EPERM);
}

#[test]
fn a_container_of_iommufd_tells_of_neighbours_late() {
    let fake = Fake::new();
    fake.state().fail.insert(sys::GROUP_GET_DEVICE_FD, libc::EBUSY);
    assert!(matches!(error(&fake), Error::InUse { .. }));
    fake.neighbour("0000:01:00.1", "xhci_hcd");
    says(&fake, &["0000:01:00.1 (xhci_hcd)"]);
}

#[test]
fn no_interrupt_remapping() {
    let fake = Fake::with_cdev();
    fake.state().fail.insert(sys::DEVICE_ATTACH_IOMMUFD_PT, libc::EPERM);
    says(&fake, &["interrupt remapping"]);
    let fake = Fake::new();
    fake.state().fail.insert(sys::SET_IOMMU.0, libc::EPERM);
    assert_eq!(says(&fake, &["allow_unsafe_interrupts"]).errno(), Errno::EPERM);
}

#[test]
fn every_refused_call_is_an_error_with_its_number() {
    let requests = [
        sys::GROUP_GET_STATUS,
        sys::GROUP_SET_CONTAINER,
        sys::SET_IOMMU.0,
        sys::GROUP_GET_DEVICE_FD,
        sys::DEVICE_GET_INFO,
        sys::IOMMU_GET_INFO,
        sys::IOAS_ALLOC,
        sys::IOAS_IOVA_RANGES,
        sys::DEVICE_BIND_IOMMUFD,
        sys::DEVICE_ATTACH_IOMMUFD_PT,
    ];
    for way in [Interface::Group, Interface::Cdev] {
        let mut refused = 0;
        for request in requests {
            let fake = Fake::with_cdev();
            fake.state().fail.insert(request, libc::EIO);
            if let Err(error) = fake.open_by(way) {
                assert_eq!(error.errno(), Errno::EIO, "{error}");
                refused += 1;
            }
            assert!(fake.state().maps.is_empty());
        }
        assert!(refused >= 5, "{way:?}");
    }
}

#[test]
fn no_pci_device_of_vfios() {
    let fake = Fake::new();
    fake.state().device_flags = 0;
    assert_eq!(error(&fake).errno(), Errno::EOPNOTSUPP);
}
