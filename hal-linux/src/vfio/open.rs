//! The two ways to a device: through its IOMMU group's file, or through a
//! file of its own.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::Arc;

use iommufd_bindings as iommufd;
use vfio_bindings::bindings::vfio;

use super::iommu::Iommu;
use super::sys::{self, Handle, Sys};
use super::sysfs::{self, Function};
use super::{Error, Interface};

/// A device, and the address space that it sees.
pub type Opened = (Handle, Iommu);

/// Opens the device by the interface that was asked for.
pub fn open(sys: &Arc<dyn Sys>, function: &Function, way: Interface) -> Result<Opened, Error> {
    let address = function.address;
    let group = function.group()?;
    match function.driver() {
        Some(driver) if driver.contains("vfio") => {}
        driver => return Err(Error::NotBound { address, driver }),
    }
    match way {
        Interface::Group => by_group(sys, function, group),
        Interface::Cdev => by_cdev(function, files(sys, function)?),
        Interface::Auto => match files(sys, function) {
            Ok(files) => by_cdev(function, files),
            // No such files, or not for this user: perhaps the group's.
            Err(_) => by_group(sys, function, group),
        },
    }
}

/// Why a file of VFIO's could not be opened.
fn refused(function: &Function, path: &Path, source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => sysfs::no_permission(path),
        Some(libc::EBUSY) => in_use(function, path),
        // The driver is there, so the file ought to be.
        Some(libc::ENOENT) if function.roots.dev.join("vfio/vfio").exists() => {
            let what = format!(
                "there is no {}, though vfio-pci has the device; a container must be given it, \
                 and /dev/vfio/vfio",
                path.display()
            );
            Error::system(what, source)
        }
        // A file for a module that is not there: ENODEV, ENXIO.
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            Error::NoVfio { what: path.display().to_string(), source }
        }
        _ => Error::system(format!("cannot open {}", path.display()), source),
    }
}

/// Who is in the way of a device that is taken: a process, or the kernel by
/// a neighbour (which iommufd and its container only say on opening).
fn in_use(function: &Function, path: &Path) -> Error {
    let others = function.neighbours();
    if let (false, Ok(group)) = (others.is_empty(), function.group()) {
        return Error::GroupNotViable { address: function.address, group, others };
    }
    let by = sysfs::users(&function.roots, path);
    Error::InUse { address: function.address, path: path.to_owned(), by }
}

/// [`Documentation/driver-api/vfio.rst`]: container, group, device.
///
/// [`Documentation/driver-api/vfio.rst`]: https://docs.kernel.org/driver-api/vfio.html
fn by_group(sys: &Arc<dyn Sys>, function: &Function, group: u32) -> Result<Opened, Error> {
    let address = function.address;
    let path = function.roots.dev.join("vfio/vfio");
    let container = Handle::open(sys, &path).map_err(|e| refused(function, &path, e))?;
    let version = container.number(sys::GET_API_VERSION, 0);
    if !matches!(version, Ok(vfio::VFIO_API_VERSION)) {
        return Err(Error::Unsupported {
            what: format!("the kernel's VFIO speaks another version ({version:?}), not 0"),
        });
    }
    let type1 = vfio::VFIO_TYPE1v2_IOMMU;
    if !matches!(container.number(sys::CHECK_EXTENSION, type1), Ok(1..)) {
        let source = io::Error::from_raw_os_error(libc::ENODEV);
        return Err(Error::NoVfio { what: "vfio_iommu_type1".into(), source });
    }

    let path = function.roots.dev.join(format!("vfio/{group}"));
    let file = Handle::open(sys, &path).map_err(|e| refused(function, &path, e))?;
    let mut status = vfio::vfio_group_status::default();
    let fail = |what: &str| {
        let what = format!("{what} ({})", path.display());
        move |e| Error::system(what, e)
    };
    file.call(&mut status).map_err(fail("cannot ask for the state of the IOMMU group"))?;
    if status.flags & vfio::VFIO_GROUP_FLAGS_VIABLE == 0 {
        return Err(Error::GroupNotViable { address, group, others: function.neighbours() });
    }
    if status.flags & vfio::VFIO_GROUP_FLAGS_CONTAINER_SET != 0 {
        return Err(in_use(function, &path));
    }
    file.set_container(&container).map_err(fail("cannot put the IOMMU group into a container"))?;
    container.number(sys::SET_IOMMU, type1).map_err(|e| match e.raw_os_error() {
        Some(libc::EPERM) => Error::UnsafeInterrupts { address },
        Some(libc::EBUSY) => in_use(function, &path),
        _ => Error::system(format!("cannot set up the IOMMU for {address}"), e),
    })?;
    let name = CString::new(address.to_string()).unwrap_or_default();
    let device = file.device(&name).map_err(|e| match e.raw_os_error() {
        Some(libc::EBUSY) => in_use(function, &path),
        _ => Error::system(format!("cannot open {address} through its IOMMU group"), e),
    })?;
    Ok((device, Iommu::Type1 { container, _group: file }))
}

/// The device's own file, and iommufd's.
fn files(sys: &Arc<dyn Sys>, function: &Function) -> Result<(Handle, Handle), Error> {
    let cdev = function.cdev().ok_or_else(|| Error::Unsupported {
        what: format!(
            "the kernel has no /dev/vfio/devices file for {}; that takes Linux 6.6 with \
             CONFIG_VFIO_DEVICE_CDEV: use the IOMMU group (Interface::Group)",
            function.address
        ),
    })?;
    let device = Handle::open(sys, &cdev).map_err(|e| refused(function, &cdev, e))?;
    let path = function.roots.dev.join("iommu");
    let iommu = Handle::open(sys, &path).map_err(|e| refused(function, &path, e))?;
    Ok((device, iommu))
}

/// As the same document's section on the device cdev.
fn by_cdev(function: &Function, (device, iommu): (Handle, Handle)) -> Result<Opened, Error> {
    let address = function.address;
    let mut bind =
        vfio::vfio_device_bind_iommufd { iommufd: iommu.as_fd().as_raw_fd(), ..Default::default() };
    device.call(&mut bind).map_err(|e| match e.raw_os_error() {
        // EINVAL is what the kernel says if the device is open elsewhere by
        // its own file, EBUSY if by its group.
        Some(libc::EBUSY | libc::EINVAL) => in_use(function, &function.cdev().unwrap_or_default()),
        _ => Error::system(format!("cannot bind {address} to iommufd"), e),
    })?;
    let mut space = iommufd::iommu_ioas_alloc::default();
    iommu
        .call(&mut space)
        .map_err(|e| Error::system("iommufd gave no address space".to_owned(), e))?;
    let mut attach =
        vfio::vfio_device_attach_iommufd_pt { pt_id: space.out_ioas_id, ..Default::default() };
    device.call(&mut attach).map_err(|e| match e.raw_os_error() {
        Some(libc::EPERM) => Error::UnsafeInterrupts { address },
        _ => Error::system(format!("cannot attach {address} to its address space"), e),
    })?;
    Ok((device, Iommu::Iommufd { iommu, ioas: space.out_ioas_id }))
}
