//! `annulus bind`, `info` and `unbind`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;

use super::annulus;
use crate::pci::Function;
use crate::scenarios::Context;
use crate::scenarios::machine::direct;

/// A controller is taken from the kernel, described, and given back.
pub fn hands_over(context: &mut Context) -> Result<String, String> {
    let function = context.kernel(0)?;
    function.block_device(1)?;
    let address = &function.address;
    let info = format!("info --vfio {address}");
    annulus(&info)?
        .fails(1, &["is bound to the driver nvme", &format!("annulus bind {address}")])?;
    annulus(&format!("bind {address}"))?.says(&[
        &format!("{address} is bound to vfio-pci; it was taken from the driver nvme"),
        &format!("annulus info --vfio {address}"),
        &format!("annulus unbind {address}"),
    ])?;
    driven_by(&function, "vfio-pci")?;
    annulus(&format!("bind {address}"))?.says(&["it was there already"])?;
    let page = annulus(&info)?;
    page.says(&[
        "QEMU NVMe Ctrl",
        "queue pairs",
        "write cache",
        "shadow doorbells",
        "32 MiB (33,554,432 bytes), blocks of 512 B",
        "blocks of 4 KiB",
        "no warnings",
        "°C",
    ])?;
    let ran = annulus(&format!("{info} --json"))?;
    let object: Value = serde_json::from_str(&ran.says(&[])?.out).map_err(|e| e.to_string())?;
    let namespaces = object["namespaces"].as_array().map_or(0, Vec::len);
    let found = (
        object["address"] == address.as_str(),
        object["controller"]["model"] == "QEMU NVMe Ctrl",
        object["namespaces"][1]["block"] == 4096,
        namespaces == 2,
        object["health"]["warnings"] == Value::Array(Vec::new()),
        object["newest_error"].is_null(),
    );
    if found != (true, true, true, true, true, true) {
        return Err(format!("it is described as {object}: {found:?}"));
    }
    annulus(&format!("unbind {address}"))?
        .says(&[&format!("{address} is bound to the driver nvme again")])?;
    driven_by(&function, "nvme")?;
    annulus(&format!("unbind {address}"))?.says(&["was not taken: the driver nvme has it"])?;
    let device = function.block_device(1)?;
    direct(&device)?;
    Ok(format!("{address}, {} again", device.display()))
}

fn driven_by(function: &Function, driver: &str) -> Result<(), String> {
    match function.driver() {
        Some(now) if now == driver => Ok(()),
        now => Err(format!("{} is bound to {now:?}, not to {driver}", function.address)),
    }
}

/// A controller with a mounted file system stays where it is.
pub fn keeps_what_is_mounted(context: &mut Context) -> Result<String, String> {
    const PLACE: &str = "/tmp/mounted";
    let function = context.kernel(0)?;
    let device = function.block_device(1)?;
    let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bind = format!("bind {}", function.address);
    let failed = |what: &str| {
        let what = what.to_owned();
        move |e: io::Error| format!("{what}: {e}")
    };

    let file = File::options().write(true).open(&device).map_err(failed("opening it"))?;
    file.write_all_at(&file_system(), 0).map_err(failed("making a file system"))?;
    drop(file);
    fs::create_dir_all(PLACE).map_err(failed(PLACE))?;
    mount(&device, PLACE, "romfs", MountFlags::RDONLY, None)
        .map_err(|e| failed("mounting")(e.into()))?;
    let refused = annulus(&bind)?;
    unmount(PLACE, UnmountFlags::empty()).map_err(|e| failed("unmounting")(e.into()))?;
    refused.fails(2, &[&format!("{name} is mounted on {PLACE}; `umount {PLACE}` first")])?;
    driven_by(&function, "nvme")?;
    annulus(&bind)?.says(&["was taken from the driver nvme"])?;
    Ok(refused.err.trim().to_owned())
}

/// An empty romfs: see the kernel's Documentation/filesystems/romfs.rst.
fn file_system() -> Vec<u8> {
    let number = |n: u32| n.to_be_bytes();
    // Header and volume name, each padded to 16 bytes; then the root, a
    // directory without files.
    let root = 32;
    let size = 64;
    let mut bytes = Vec::new();
    bytes.extend(b"-rom1fs-");
    bytes.extend(number(size));
    bytes.extend(number(0));
    bytes.extend(b"annulus\0\0\0\0\0\0\0\0\0");
    // The next header (none) with the type, the first file, size, checksum.
    for word in [1, root, 0, 0] {
        bytes.extend(number(word));
    }
    bytes.extend(b".\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    // The words of it add up to nothing.
    let words = bytes.as_chunks::<4>().0.iter();
    let sum = words.fold(0u32, |sum, word| sum.wrapping_add(u32::from_be_bytes(*word)));
    bytes[12..16].copy_from_slice(&number(sum.wrapping_neg()));
    // The kernel reads a whole block.
    bytes.resize(1024, 0);
    bytes
}
