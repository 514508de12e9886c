//! The controllers, as the guest's sysfs shows them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Controller `n` sits behind a port of its own in slot `FIRST_SLOT + n` of
/// the root bus: so both sides know which one it is without asking it.
pub const FIRST_SLOT: u8 = 0x10;

/// Mass storage, NVM, NVMe.
pub const NVME_CLASS: u32 = 0x01_08_02;

/// How long a driver may take to be bound, to be let go of, or to show its
/// block devices.
const PATIENCE: Duration = Duration::from_secs(30);

/// A PCI function.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its address: `0000:01:00.0`.
    pub address: String,
}

impl Function {
    /// Controller `n` of the machine's plan.
    ///
    /// # Errors
    /// There is none.
    pub fn controller(n: u8) -> Result<Self, String> {
        let port = format!("/sys/bus/pci/devices/0000:00:{:02x}.0", FIRST_SLOT + n);
        let entries = fs::read_dir(&port).map_err(|e| format!("{port}: {e}"))?;
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let function = Self { address: entry.file_name().to_string_lossy().into_owned() };
            let ours = function.address.starts_with("0000:");
            if ours && function.number("class").is_ok_and(|class| class == NVME_CLASS) {
                found.push(function);
            }
        }
        match found.pop() {
            Some(function) if found.is_empty() => Ok(function),
            Some(_) => Err(format!("there is more than one controller behind {port}")),
            None => Err(format!("there is no controller behind {port}")),
        }
    }

    /// Its directory in sysfs.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/sys/bus/pci/devices").join(&self.address)
    }

    /// A number that sysfs has of it: `class`, `vendor`, `device`.
    ///
    /// # Errors
    /// It has none of that name.
    pub fn number(&self, name: &str) -> Result<u32, String> {
        let path = self.path().join(name);
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let digits = text.trim().trim_start_matches("0x");
        u32::from_str_radix(digits, 16).map_err(|e| format!("{}: {text:?}: {e}", path.display()))
    }

    /// The driver that it is bound to.
    #[must_use]
    pub fn driver(&self) -> Option<String> {
        self.link("driver")
    }

    /// The number of its IOMMU group.
    #[must_use]
    pub fn group(&self) -> Option<String> {
        self.link("iommu_group")
    }

    fn link(&self, name: &str) -> Option<String> {
        let target = fs::read_link(self.path().join(name)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// Binds it to `driver` and to no other.
    ///
    /// # Errors
    /// Of the system, with what was tried.
    pub fn bind(&self, driver: &str) -> Result<(), String> {
        if self.driver().as_deref() == Some(driver) {
            return Ok(());
        }
        self.unbind()?;
        write(&self.path().join("driver_override"), driver)?;
        write(Path::new("/sys/bus/pci/drivers_probe"), &self.address)?;
        wait_for(|| self.driver().as_deref() == Some(driver)).then_some(()).ok_or_else(|| {
            let now = self.driver();
            format!("{} is bound to {now:?}, not to {driver}", self.address)
        })
    }

    /// Takes it from its driver, if it has one.
    ///
    /// # Errors
    /// Of the system.
    pub fn unbind(&self) -> Result<(), String> {
        if self.driver().is_none() {
            return Ok(());
        }
        write(&self.path().join("driver/unbind"), &self.address)
    }

    /// The block device of namespace `nsid`, once the kernel's driver, to
    /// which it must be bound, has made it.
    ///
    /// # Errors
    /// It does not appear.
    pub fn block_device(&self, nsid: u32) -> Result<PathBuf, String> {
        let mut found = None;
        wait_for(|| {
            found = self.find_block_device(nsid);
            found.is_some()
        });
        found.ok_or_else(|| format!("{} has no block device for namespace {nsid}", self.address))
    }

    fn find_block_device(&self, nsid: u32) -> Option<PathBuf> {
        let controllers = fs::read_dir(self.path().join("nvme")).ok()?;
        for controller in controllers.flatten() {
            for entry in fs::read_dir(controller.path()).ok()?.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let device = Path::new("/dev").join(&name);
                let said = fs::read_to_string(entry.path().join("nsid"));
                let ours = said.is_ok_and(|said| said.trim() == nsid.to_string());
                // The node is there a moment before the disk behind it can be
                // opened (ENXIO till then).
                if ours && fs::File::open(&device).is_ok() {
                    return Some(device);
                }
            }
        }
        None
    }
}

/// Writes to a file of sysfs.
fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("cannot write {text} to {}: {e}", path.display()))
}

fn wait_for(mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
