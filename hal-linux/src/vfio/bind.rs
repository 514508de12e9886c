//! Handing a controller to vfio-pci, and back.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::sys::{Kernel, Sys};
use super::sysfs::{self, Function, Roots};
use super::{Error, PciAddress, blocks};

/// Mass storage, non-volatile memory, NVM Express.
const NVME: u32 = 0x01_0802;
const DRIVER: &str = "vfio-pci";

/// Hands an NVMe controller to `vfio-pci`, whatever driver it has now. A
/// controller that is there already stays.
///
/// Takes root. Device files and driver are the system's from then on; the
/// caller may give `/dev/vfio/N` to another user.
///
/// # Errors
/// [`Error::Busy`] if anything on the machine uses its namespaces (a mounted
/// file system, swap, LVM or RAID, a process), [`Error::NotNvme`],
/// [`Error::NoIommu`], [`Error::NoVfio`], [`Error::Permission`]. The
/// controller stays with the driver that it has, or is given back to it.
pub fn bind(address: PciAddress) -> Result<(), Error> {
    bind_in(&Roots::default(), &Linux, address)
}

/// Gives a controller back to the driver that the kernel has for it, and
/// answers which that is, if there is one.
///
/// Takes root.
///
/// # Errors
/// [`Error::InUse`] if a process drives it: the kernel would wait until that
/// ends. [`Error::Permission`], [`Error::System`].
pub fn unbind(address: PciAddress) -> Result<Option<String>, Error> {
    unbind_in(&Roots::default(), &Linux, address)
}

/// Refuses a device that is no NVMe controller, whatever driver has it.
///
/// # Errors
/// [`Error::NotNvme`], [`Error::NoDevice`].
pub fn check_nvme(address: PciAddress) -> Result<(), Error> {
    check_class(&Function::find(&Roots::default(), address)?)
}

fn check_class(function: &Function) -> Result<(), Error> {
    match function.class()? {
        NVME => Ok(()),
        class => Err(Error::NotNvme { address: function.address, class }),
    }
}

/// What binding does to a machine; the tests do it to a made-up one.
trait Machine {
    /// Writes to a file of sysfs.
    fn write(&self, path: &Path, text: &str) -> io::Result<()>;
    /// Loads a module.
    fn load(&self, module: &str) -> io::Result<()>;
    /// Whether the kernel holds a block device for itself.
    fn claimed(&self, device: &Path) -> bool;
    /// Whether somebody has a group's file open.
    fn taken(&self, group: &Path) -> bool;
}

struct Linux;

impl Machine for Linux {
    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        // Not fs::write, which would make a file where there is none.
        io::Write::write_all(&mut OpenOptions::new().write(true).open(path)?, text.as_bytes())
    }

    fn load(&self, module: &str) -> io::Result<()> {
        let mut modprobe = Command::new("modprobe");
        let run = modprobe.arg(module).stdin(Stdio::null()).output()?;
        if run.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&run.stderr);
        Err(io::Error::other(format!("modprobe {module}: {}", said.trim())))
    }

    fn claimed(&self, device: &Path) -> bool {
        let open = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(device);
        open.is_err_and(|e| e.raw_os_error() == Some(libc::EBUSY))
    }

    fn taken(&self, group: &Path) -> bool {
        Kernel.open(group).is_err_and(|e| e.raw_os_error() == Some(libc::EBUSY))
    }
}

/// Writes to a file of sysfs, with an error that says so.
fn write(machine: &dyn Machine, path: &Path, text: &str) -> Result<(), Error> {
    machine.write(path, text).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => sysfs::no_permission(path),
        _ => Error::system(format!("cannot write \"{}\" to {}", text.trim(), path.display()), e),
    })
}

fn bind_in(roots: &Roots, machine: &dyn Machine, address: PciAddress) -> Result<(), Error> {
    let function = Function::find(roots, address)?;
    check_class(&function)?;
    function.group()?;
    let before = function.driver();
    if before.as_deref().is_some_and(|driver| driver.contains("vfio")) {
        return Ok(());
    }
    if let Some(what) = blocks::in_use(&function, &|device| machine.claimed(device)) {
        return Err(Error::Busy { address, what });
    }
    if !roots.sys.join("bus/pci/drivers").join(DRIVER).exists() {
        let what = format!("driver {DRIVER}");
        machine.load(DRIVER).map_err(|source| Error::NoVfio { what, source })?;
    }
    // The kernel's Documentation/ABI/testing/sysfs-bus-pci, driver_override.
    let done = write(machine, &function.dir.join("driver_override"), DRIVER)
        .and_then(|()| rebind(machine, &function))
        .and_then(|()| match function.driver() {
            Some(driver) if driver == DRIVER => Ok(()),
            _ => Err(refused(address)),
        });
    if done.is_err() {
        // Back to where it was, as far as that goes; the first error counts.
        let _ = write(machine, &function.dir.join("driver_override"), "\n");
        if before.is_some() && function.driver().is_none() {
            let _ = rebind(machine, &function);
        }
    }
    done
}

fn unbind_in(
    roots: &Roots,
    machine: &dyn Machine,
    address: PciAddress,
) -> Result<Option<String>, Error> {
    let function = Function::find(roots, address)?;
    let override_file = function.dir.join("driver_override");
    match function.driver() {
        Some(driver) if driver.contains("vfio") => {}
        Some(driver) => return Ok(Some(driver)),
        None => {
            write(machine, &override_file, "\n")?;
            rebind(machine, &function)?;
            return Ok(function.driver());
        }
    }
    // Whoever has the device's own file open holds it as well; that file may
    // be opened by many.
    let mut files = Vec::from_iter(function.cdev());
    if let Ok(group) = function.group() {
        files.push(roots.dev.join(format!("vfio/{group}")));
    }
    for path in files {
        let by = sysfs::users(roots, &path);
        if !by.is_empty() || machine.taken(&path) {
            return Err(Error::InUse { address, path, by });
        }
    }
    write(machine, &override_file, "\n")?;
    rebind(machine, &function)?;
    Ok(function.driver())
}

/// Takes the device from its driver, and lets the kernel choose one.
fn rebind(machine: &dyn Machine, function: &Function) -> Result<(), Error> {
    let address = function.address.to_string();
    if function.driver().is_some() {
        write(machine, &function.dir.join("driver/unbind"), &address)?;
    }
    write(machine, &function.roots.sys.join("bus/pci/drivers_probe"), &address)
}

fn refused(address: PciAddress) -> Error {
    Error::Unsupported {
        what: format!("{DRIVER} did not take {address}; the kernel's log (`dmesg`) tells why"),
    }
}

#[cfg(test)]
mod tests;
