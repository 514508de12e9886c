//! What can stand between a process and a device, and what to do about it.

use std::io;
use std::path::PathBuf;

use annulus::errno::Errno;

use super::PciAddress;

/// Why a device could not be had, or could not do what was asked: what is
/// wrong, and what would put it right.
///
/// [`errno`](Error::errno) has a number for each, and converting to
/// [`io::Error`] keeps the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `EINVAL`.
    #[error("\"{given}\" is no PCI address; write it as `lspci -D` does, such as 0000:00:03.0")]
    Address {
        /// What was given.
        given: String,
    },
    /// `ENODEV`.
    #[error("there is no PCI device {address}; `lspci -D` lists those that are there")]
    NoDevice {
        /// What was asked for.
        address: PciAddress,
    },
    /// `ENODEV`, from [`bind`](super::bind()) and
    /// [`Nvme::open`](crate::nvme::Nvme::open).
    #[error(
        "{address} is no NVMe controller: its class is {class:#08x}, not 0x010802; \
         `lspci -D -d ::0108` lists those that are there"
    )]
    NotNvme {
        /// The device.
        address: PciAddress,
        /// Base class, subclass and programming interface.
        class: u32,
    },
    /// `EBUSY`.
    #[error(
        "{address} is {}, not to vfio-pci; hand it over with `annulus bind {address}` (as root)",
        bound(.driver)
    )]
    NotBound {
        /// The device.
        address: PciAddress,
        /// The driver that has it, if one has.
        driver: Option<String>,
    },
    /// `ENODEV`.
    #[error(
        "{address} is behind no IOMMU, which VFIO needs to keep the device to its own memory; \
         enable it (VT-d, AMD-Vi, SMMU) in the firmware and on the kernel's command line \
         (intel_iommu=on; amd_iommu is on by itself). VFIO's no-IOMMU mode is not supported"
    )]
    NoIommu {
        /// The device.
        address: PciAddress,
    },
    /// `ENODEV`.
    #[error(
        "the kernel has no {what} ({source}); load the modules with `modprobe vfio-pci` (as root), \
         or use a kernel built with CONFIG_VFIO_PCI"
    )]
    NoVfio {
        /// What was looked for.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// `EOPNOTSUPP`.
    #[error("{what}")]
    Unsupported {
        /// What the kernel or the device lacks, and what to do.
        what: String,
    },
    /// `EACCES`.
    #[error(
        "no permission for {} (owned by user {owner}, group {group}, mode {mode:03o}); run as \
         that user, or as root: `chown \"$USER\" {}`, best by a udev rule",
        .path.display(), .path.display()
    )]
    Permission {
        /// The device file.
        path: PathBuf,
        /// Its owner's user number.
        owner: u32,
        /// Its owner's group number.
        group: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// `EPERM`.
    #[error(
        "the kernel does not let {address} be used by a program: its IOMMU has no interrupt \
         remapping (see `dmesg`); enable it in the firmware (x2APIC, VT-d interrupt remapping). \
         Where every user of the machine is trusted: \
         `modprobe vfio_iommu_type1 allow_unsafe_interrupts=1`"
    )]
    UnsafeInterrupts {
        /// The device.
        address: PciAddress,
    },
    /// `EBUSY`.
    #[error(
        "{address} is in use{}; end its user first. A group of the IOMMU (here {}) has one user \
         at a time, whichever of its devices are used",
        users(.by), .path.display()
    )]
    InUse {
        /// The device.
        address: PciAddress,
        /// The device file that is taken.
        path: PathBuf,
        /// The processes that have it open, as far as this one may see them.
        by: Vec<String>,
    },
    /// `EPERM`.
    #[error(
        "{address} shares its IOMMU group {group} with devices that the kernel uses: {}; hand \
         those to vfio-pci as well, or unbind them from their drivers, or put the controller \
         into a slot with a group of its own",
        .others.join(", ")
    )]
    GroupNotViable {
        /// The device.
        address: PciAddress,
        /// Its group's number.
        group: u32,
        /// The others, each with its driver.
        others: Vec<String>,
    },
    /// `EBUSY`, from [`bind`](super::bind()).
    #[error("{address} is in use: {what}")]
    Busy {
        /// The device.
        address: PciAddress,
        /// By what, and how to end it.
        what: String,
    },
    /// `ENODEV`.
    #[error("the registers of {address} cannot be mapped: {why}")]
    Bar {
        /// The device.
        address: PciAddress,
        /// What is in the way.
        why: String,
    },
    /// `ENOSPC`, or `EOPNOTSUPP` if there is none at all.
    #[error(
        "{wanted} interrupt vectors are more than the {available} that {address} can have; \
         ask for fewer queues, or poll"
    )]
    Vectors {
        /// The device.
        address: PciAddress,
        /// What was asked for.
        wanted: u32,
        /// What there is.
        available: u32,
    },
    /// `ENOMEM`.
    #[error(
        "pinning {needed} bytes for the device, beside {pinned} that are pinned, exceeds this \
         process's limit of locked memory, {limit} bytes; raise it (`ulimit -l unlimited`, memlock \
         in /etc/security/limits.conf, LimitMEMLOCK= of a systemd unit), register less, or run \
         with CAP_IPC_LOCK"
    )]
    MemoryLimit {
        /// Bytes that were to be mapped.
        needed: u64,
        /// Bytes that this device has mapped.
        pinned: u64,
        /// `RLIMIT_MEMLOCK`, in bytes.
        limit: u64,
    },
    /// `ENOSPC`.
    #[error(
        "the IOMMU's {entries} mappings are used up (vfio_iommu_type1's dma_entry_limit); \
         register the whole memory as one buffer (its parts then share one mapping), register \
         neighbours in one call, or raise the module's limit"
    )]
    Entries {
        /// Mappings that this device has.
        entries: usize,
    },
    /// `ENOSPC`.
    #[error("the IOMMU's address space has no room for another {len} bytes; register less")]
    AddressSpace {
        /// Bytes that were to be mapped.
        len: usize,
    },
    /// `EFAULT`.
    #[error(
        "the {len} bytes at {addr:#x} are not all memory that can be read and written; \
         devices reach only ordinary memory, not read-only or device mappings"
    )]
    Fault {
        /// Where they begin.
        addr: usize,
        /// How many.
        len: usize,
    },
    /// What the system refused, by its own number.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}

fn bound(driver: &Option<String>) -> String {
    match driver {
        Some(driver) => format!("bound to the driver {driver}"),
        None => "bound to no driver".to_owned(),
    }
}

fn users(users: &[String]) -> String {
    match users {
        [] => " by another process".to_owned(),
        users => format!(" by {}", users.join(", ")),
    }
}

impl Error {
    pub(super) fn system(what: impl Into<String>, source: io::Error) -> Self {
        Error::System { what: what.into(), source }
    }

    /// The error's number.
    pub fn errno(&self) -> Errno {
        match self {
            Error::Address { .. } => Errno::EINVAL,
            Error::NoDevice { .. }
            | Error::NotNvme { .. }
            | Error::NoIommu { .. }
            | Error::NoVfio { .. }
            | Error::Bar { .. } => Errno::ENODEV,
            Error::NotBound { .. } | Error::InUse { .. } | Error::Busy { .. } => Errno::EBUSY,
            Error::Unsupported { .. } | Error::Vectors { available: 0, .. } => Errno::EOPNOTSUPP,
            Error::Permission { .. } => Errno::EACCES,
            Error::UnsafeInterrupts { .. } | Error::GroupNotViable { .. } => Errno::EPERM,
            Error::MemoryLimit { .. } => Errno::ENOMEM,
            Error::Vectors { .. } | Error::Entries { .. } | Error::AddressSpace { .. } => {
                Errno::ENOSPC
            }
            Error::Fault { .. } => Errno::EFAULT,
            Error::System { source, .. } => {
                source.raw_os_error().and_then(Errno::checked).unwrap_or(Errno::EIO)
            }
        }
    }
}

impl From<Error> for Errno {
    fn from(error: Error) -> Self {
        error.errno()
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = io::Error::from_raw_os_error(error.errno().raw()).kind();
        io::Error::new(kind, error)
    }
}
