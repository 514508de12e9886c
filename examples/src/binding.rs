//! `annulus bind` and `annulus unbind`: a controller from the kernel, and back to it.

use annulus_linux::vfio::{self, PciAddress};

use crate::error::Failure;
use crate::pci::Function;
use crate::{device, output};

/// The driver that hands a device to programs.
const VFIO: &str = "vfio-pci";

/// Takes a controller from the kernel.
///
/// # Errors
/// It is not there, is no NVMe controller, or is in use; what keeps it from being taken.
pub fn bind(address: PciAddress) -> Result<(), Failure> {
    let function = Function::new(address);
    let before = function.driver();
    vfio::bind(address).map_err(|error| device::explain(&error))?;
    let from = match before {
        Some(driver) if driver == VFIO => "was there already".to_owned(),
        Some(driver) => format!("was taken from the driver {driver}"),
        None => "had no driver".to_owned(),
    };
    let mut text = format!("{address} is bound to {VFIO}; it {from}\n");
    if let Some(group) = function.group() {
        text += &format!(
            "its IOMMU group is {group}: whoever may open /dev/vfio/{group} may drive it (root; \
            `chown USER /dev/vfio/{group}` for USER, who needs a large `ulimit -l` too)\n"
        );
    }
    text += &format!(
        "next:            annulus info --vfio {address}\nto give it back: annulus unbind {address}\n"
    );
    output::print(&text);
    Ok(())
}

/// Gives a controller back to the kernel.
///
/// # Errors
/// It is not there, or somebody drives it.
pub fn unbind(address: PciAddress) -> Result<(), Failure> {
    let before = Function::new(address).driver();
    let now = vfio::unbind(address).map_err(|error| device::explain(&error))?;
    output::print(&match now {
        Some(driver) if before.as_ref() == Some(&driver) => {
            format!("{address} was not taken: the driver {driver} has it\n")
        }
        Some(driver) => format!(
            "{address} is bound to the driver {driver} again; its block devices come in a moment \
            (`lsblk`)\n"
        ),
        None => format!(
            "{address} was given back, but the kernel has no driver for it now; \
            `modprobe nvme` loads the usual one\n"
        ),
    });
    Ok(())
}
