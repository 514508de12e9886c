//! What `annulus` says of NVMe controllers where there is none: every way to ask for one that is
//! not there, not one, or not to be written. What works is shown by `cargo verify guest`.

mod support;

use std::path::Path;

use support::{Ran, not_run, run, words};

/// No machine has so many buses in so high a domain.
const NOWHERE: &str = "fffe:ff:1f.7";

fn ran(line: &str) -> Ran {
    let ran = run(&mut words(line));
    assert_eq!(ran.out, "", "{line}");
    ran
}

/// A PCI device of this machine that is no NVMe controller, if it has one.
fn other_device() -> Option<String> {
    let entries = std::fs::read_dir("/sys/bus/pci/devices").ok()?;
    let other = entries.flatten().find(|entry| {
        let class = std::fs::read_to_string(entry.path().join("class"));
        class.is_ok_and(|class| !class.starts_with("0x0108"))
    });
    Some(other?.file_name().into_string().expect("an address"))
}

#[test]
fn what_is_no_address_is_refused() {
    for line in [
        "info --vfio nvme0",
        "bench --vfio /dev/nvme0n1",
        "bind 00:03",
        "unbind 0000:00:03.8",
        "copy vfio:nvme0 x",
        "copy x vfio:0000:00:20.0 --force",
    ] {
        ran(line).fails(2, "is no PCI address; write it as `lspci -D` does");
    }
    ran("copy x vfio:0000:00:03.0/0 --force").fails(2, "they are numbered from 1");
    ran("copy vfio:nvme0n1 x").fails(2, "a file of this name is ./vfio:nvme0n1");
    ran("info").fails(2, "--vfio <ADDRESS>");
    ran("bind").fails(2, "<ADDRESS>");
}

#[test]
fn a_device_that_is_not_there_is_named() {
    for line in ["info --vfio", "bench --vfio", "bind", "unbind"] {
        ran(&format!("{line} {NOWHERE}"))
            .fails(1, &format!("there is no PCI device {NOWHERE}; `lspci -D` lists"));
    }
    let dir = tempfile::tempdir().unwrap();
    let dst = dir.path().join("dst");
    ran(&format!("copy vfio:{NOWHERE} {}", dst.display())).fails(1, "there is no PCI device");
    assert!(!dst.exists());
    ran(&format!("copy Cargo.toml vfio:{NOWHERE} --force")).fails(1, "there is no PCI device");
}

#[test]
fn a_device_that_is_no_controller_stays_with_its_driver() {
    let Some(device) = other_device() else { return not_run("there is no other PCI device") };
    let driver = || std::fs::read_link(format!("/sys/bus/pci/devices/{device}/driver")).ok();
    let before = driver();
    ran(&format!("bind {device}")).fails(2, "is no NVMe controller");
    for command in ["info", "bench"] {
        let ran = ran(&format!("{command} --vfio {device}"));
        ran.fails(2, "is no NVMe controller");
    }
    assert_eq!(driver(), before);
}

#[test]
fn nothing_is_overwritten_unless_asked() {
    for options in ["--rw randwrite", "--rw write", "--rw randrw", "--verify"] {
        ran(&format!("bench --vfio {NOWHERE} {options}"))
            .fails(2, "add --overwrite if nothing on it is needed any more");
        ran(&format!("bench --vfio {NOWHERE} {options} --overwrite"))
            .fails(1, "there is no PCI device");
    }
    ran(&format!("copy Cargo.toml vfio:{NOWHERE}/2"))
        .fails(2, &format!("a copy would overwrite namespace 2 of {NOWHERE}; use --force"));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    for (line, words) in [
        ("bench --vfio 0000:00:03.0 --compare", "--file /dev/nvme0n1 --direct --compare"),
        ("bench --vfio 0000:00:03.0 --direct", "cannot be used with"),
        ("bench --vfio 0000:00:03.0 --file x", "cannot be used with"),
        ("bench --vfio 0000:00:03.0 --nop", "cannot be used with"),
        ("bench --vfio 0000:00:03.0 --depth 5000", "use --depth 4095 or less"),
        ("bench --completions polled", "--vfio"),
        ("copy Cargo.toml x --size 1M", "--size is for copies from a namespace"),
    ] {
        ran(line).fails(2, words);
    }
    assert!(!Path::new("x").exists());
}
