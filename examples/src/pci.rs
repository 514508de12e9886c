//! What sysfs says of a PCI function.

use std::path::{Path, PathBuf};

use annulus_linux::vfio::PciAddress;

/// A function's folder in sysfs.
#[derive(Debug)]
pub struct Function {
    dir: PathBuf,
}

impl Function {
    /// The function at this address, there or not.
    pub fn new(address: PciAddress) -> Self {
        Self { dir: Path::new("/sys/bus/pci/devices").join(address.to_string()) }
    }

    /// The driver that has it.
    pub fn driver(&self) -> Option<String> {
        self.link("driver")
    }

    /// The number of its IOMMU group.
    pub fn group(&self) -> Option<String> {
        self.link("iommu_group")
    }

    /// Vendor and device number, as `lspci -n` prints them.
    pub fn ids(&self) -> Option<String> {
        let digits = |name| Some(self.text(name)?.trim_start_matches("0x").to_owned());
        Some(format!("{}:{}", digits("vendor")?, digits("device")?))
    }

    /// Speed and width of its link, if it has a real one.
    pub fn link_speed(&self) -> Option<String> {
        let (speed, width) = (self.text("current_link_speed")?, self.text("current_link_width")?);
        (width != "0" && !speed.starts_with("Unknown")).then(|| format!("{speed} x{width}"))
    }

    /// The NUMA node that it is next to, if the machine has several.
    pub fn numa_node(&self) -> Option<u32> {
        // -1 where there is but one.
        self.text("numa_node")?.parse().ok()
    }

    fn text(&self, name: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.dir.join(name)).ok()?;
        Some(text.trim().to_owned())
    }

    fn link(&self, name: &str) -> Option<String> {
        let target = std::fs::read_link(self.dir.join(name)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }
}
