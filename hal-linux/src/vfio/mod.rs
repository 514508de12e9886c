//! PCI devices without a kernel driver: VFIO.
//!
//! A device that is bound to `vfio-pci` ([`bind`](bind()), or `annulus bind`) is
//! opened by its address. The IOMMU keeps it to memory that this process maps
//! for it; its registers, interrupts and reset are here, and
//! [`Mmio`](annulus::hal::device::Mmio) and [`Dma`](annulus::hal::device::Dma)
//! are what a driver of core's needs.
//!
//! There are two interfaces ([`Interface`]): the group and container
//! (`/dev/vfio/N`, type 1), and iommufd with a file for each device
//! (`/dev/vfio/devices/vfioN`, Linux 6.6). See the kernel's
//! [`Documentation/driver-api/vfio.rst`] and [`iommufd.rst`].
//!
//! # Why the ioctls are made here
//!
//! The structures are the crates' `vfio-bindings` and `iommufd-bindings`. The
//! crate `vfio-ioctls` above them is not used: it drops the errno of the calls
//! that tell a user what to do (a group's state, its container, interrupts,
//! reset), answers neither the IOVA ranges nor the free mappings of a
//! container, reports configuration accesses to a log only, takes the
//! positive answer of `VFIO_DEVICE_SET_IRQS` for a success or not by chance,
//! and cannot be given a scripted kernel, which is how the error paths and
//! iommufd are tested.
//!
//! [`Documentation/driver-api/vfio.rst`]: https://docs.kernel.org/driver-api/vfio.html
//! [`iommufd.rst`]: https://docs.kernel.org/userspace-api/iommufd.html

mod address;
mod bar;
mod bind;
mod blocks;
mod caps;
mod device;
mod dma;
mod error;
mod iommu;
mod iova;
mod open;
mod pci;
mod sys;
mod sysfs;
#[cfg(test)]
mod tests;

pub use address::PciAddress;
pub(crate) use bind::check_nvme;
pub use bind::{bind, unbind};
pub use device::{Interface, Options, VfioDevice};
pub use dma::{Buffer, Mapped};
pub use error::Error;
