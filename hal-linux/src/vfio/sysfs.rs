//! What sysfs says of a PCI device.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Error, PciAddress};

/// Where the system shows itself; the tests show another.
#[derive(Clone, Debug)]
pub struct Roots {
    pub sys: PathBuf,
    pub proc: PathBuf,
    pub dev: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into(), dev: "/dev".into() }
    }
}

/// A device's folder.
#[derive(Clone, Debug)]
pub struct Function {
    pub address: PciAddress,
    pub roots: Roots,
    pub dir: PathBuf,
}

/// The last component of what `path` links to.
fn target(path: &Path) -> Option<String> {
    let to = fs::read_link(path).ok()?;
    Some(to.file_name()?.to_string_lossy().into_owned())
}

/// Names in a folder, in order; none if there is no folder.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

impl Function {
    /// # Errors
    /// [`Error::NoDevice`].
    pub fn find(roots: &Roots, address: PciAddress) -> Result<Self, Error> {
        let dir = roots.sys.join("bus/pci/devices").join(address.to_string());
        match fs::metadata(&dir) {
            Ok(_) => Ok(Self { address, roots: roots.clone(), dir }),
            Err(e) if e.kind() == ErrorKind::NotFound => Err(Error::NoDevice { address }),
            Err(e) => Err(Error::system(format!("cannot look at {}", dir.display()), e)),
        }
    }

    /// The driver that has the device.
    pub fn driver(&self) -> Option<String> {
        target(&self.dir.join("driver"))
    }

    /// Base class, subclass and programming interface.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn class(&self) -> Result<u32, Error> {
        let path = self.dir.join("class");
        let read = |e| Error::system(format!("cannot read {}", path.display()), e);
        let text = fs::read_to_string(&path).map_err(read)?;
        u32::from_str_radix(text.trim().trim_start_matches("0x"), 16)
            .map_err(|e| read(std::io::Error::new(ErrorKind::InvalidData, e)))
    }

    /// The number of the device's IOMMU group.
    ///
    /// # Errors
    /// [`Error::NoIommu`].
    pub fn group(&self) -> Result<u32, Error> {
        let none = Error::NoIommu { address: self.address };
        let group = target(&self.dir.join("iommu_group")).and_then(|name| name.parse().ok());
        let Some(group) = group else { return Err(none) };
        // What the no-IOMMU mode makes up is no protection.
        if self.roots.dev.join(format!("vfio/noiommu-{group}")).exists() {
            return Err(none);
        }
        Ok(group)
    }

    /// Other devices of the group that have drivers, bridges' and VFIO's own
    /// left out: those do not touch memory on the kernel's behalf.
    pub fn neighbours(&self) -> Vec<String> {
        let dir = self.dir.join("iommu_group/devices");
        let others = names(&dir).into_iter().filter_map(|name| {
            let driver = target(&dir.join(&name).join("driver"))?;
            let harmless =
                driver.contains("vfio") || matches!(driver.as_str(), "pcieport" | "pci-stub");
            (!harmless && name != self.address.to_string()).then(|| format!("{name} ({driver})"))
        });
        others.collect()
    }

    /// The device's own file, where the kernel has iommufd (Linux 6.6).
    pub fn cdev(&self) -> Option<PathBuf> {
        let known = self.dir.join("vfio-dev");
        let name = names(&known).into_iter().next()?;
        // Since Linux 6.1 the device is listed here; a file of its own, which has
        // a number, is later than that and a matter of the kernel's configuration.
        if !known.join(&name).join("dev").exists() {
            return None;
        }
        Some(self.roots.dev.join("vfio/devices").join(name))
    }
}

/// Who may open `path`.
pub fn no_permission(path: &Path) -> Error {
    let (owner, group, mode) = match fs::metadata(path) {
        Ok(file) => (file.uid(), file.gid(), file.mode() & 0o777),
        // It was there when it was opened.
        Err(_) => (0, 0, 0),
    };
    Error::Permission { path: path.to_owned(), owner, group, mode }
}

/// Processes that have `path` open, by number and name: those of this user,
/// or all for root.
pub fn users(roots: &Roots, path: &Path) -> Vec<String> {
    let pids = names(&roots.proc).into_iter().filter(|name| name.parse::<u32>().is_ok());
    let using = pids.filter(|pid| {
        let fds = roots.proc.join(pid).join("fd");
        names(&fds).iter().any(|fd| fs::read_link(fds.join(fd)).is_ok_and(|to| to == path))
    });
    let named = using.map(|pid| {
        let name = fs::read_to_string(roots.proc.join(&pid).join("comm")).unwrap_or_default();
        format!("process {pid} ({})", name.trim())
    });
    named.collect()
}
