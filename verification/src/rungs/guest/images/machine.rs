//! What a machine for an image has in it.
//!
//! Names are given by order: devices are `disk0`, `disk1`, ..., and so are
//! their media, the files these lie in, and their logs `disk0.log`, ...

use std::path::Path;

use super::super::machine::{Drive, words};
use super::super::running::QEMU;

/// The program that emulates Arm, and its package.
pub const QEMU_ARM: (&str, &str) = ("qemu-system-aarch64", "qemu-system-arm");

/// What kind of machine, and so what processor, firmware and buses there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A PC with PCI Express, each device behind a port of its own.
    Q35,
    /// A PC without: virtio-mmio, told of on the command line.
    Microvm,
    /// Arm's, with its disks on PCI Express.
    Virt,
    /// The same, with its virtio disks on virtio-mmio.
    VirtMmio,
}

impl Kind {
    /// What machines' names have of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q35 => "q35",
            Self::Microvm => "microvm",
            Self::Virt => "virt",
            Self::VirtMmio => "virt-mmio",
        }
    }

    fn is_pc(self) -> bool {
        matches!(self, Self::Q35 | Self::Microvm)
    }

    fn has_pci(self) -> bool {
        matches!(self, Self::Q35 | Self::Virt)
    }

    /// What the image is built for.
    pub fn target(self) -> &'static str {
        if self.is_pc() { "x86_64-unknown-none" } else { "aarch64-unknown-none" }
    }

    /// What emulates it.
    pub fn qemu(self) -> &'static str {
        if self.is_pc() { QEMU.0 } else { QEMU_ARM.0 }
    }

    /// With which code that ends when the image's verdict is good: the PC has
    /// a device that carries one, and of Arm's the last line is all.
    pub fn good(self) -> i32 {
        if self.is_pc() { 33 } else { 0 }
    }
}

/// How a disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk, on what the machine has.
    Virtio,
    /// An NVMe controller with one namespace.
    Nvme,
}

/// A machine for an image.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What it is called, and its directory.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    disks: Vec<Disk>,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct Disk {
    bus: Bus,
    drive: Drive,
    block: u32,
    properties: String,
}

impl Disk {
    /// A disk with logical blocks of so many bytes.
    pub fn new(bus: Bus, drive: Drive, block: u32) -> Self {
        Self { bus, drive, block, properties: String::new() }
    }

    /// With properties of QEMU's device, as `name=value,name=value`.
    pub fn with(mut self, properties: &str) -> Self {
        if !properties.is_empty() {
            self.properties += &format!(",{properties}");
        }
        self
    }
}

impl Machine {
    /// One without a disk.
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self { name: name.into(), kind, disks: Vec::new() }
    }

    /// One more disk.
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// Makes the media of the machine in `dir`.
    ///
    /// # Errors
    /// Of the system.
    pub fn make_media(&self, dir: &Path) -> Result<(), String> {
        self.disks.iter().enumerate().try_for_each(|(n, disk)| disk.drive.make_media(dir, n))
    }

    /// QEMU's arguments for the machine. Everything it has lies in `dir`.
    pub fn arguments(&self, dir: &Path, image: &Path, command_line: &str) -> Vec<String> {
        let mut all = words("-accel tcg -smp 2 -m 256 -no-reboot -no-user-config -nodefaults");
        // Modern devices only; by default QEMU's virtio-mmio is a legacy one.
        all.extend(words("-display none -global virtio-mmio.force-legacy=false"));
        all.extend(words(match self.kind {
            // Slots are the image's to look after, not ACPI's.
            Kind::Q35 => {
                "-cpu max -machine q35 -global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"
            }
            // Without ACPI the loader tells of virtio-mmio on the command line.
            Kind::Microvm => "-cpu max -machine microvm,acpi=off",
            Kind::Virt | Kind::VirtMmio => "-cpu cortex-a72 -machine virt,gic-version=2",
        }));
        if self.kind.is_pc() {
            all.extend(words("-device isa-debug-exit,iobase=0xf4"));
        }
        all.extend(["-kernel".into(), image.display().to_string()]);
        all.extend(["-append".into(), command_line.into()]);
        for (n, disk) in self.disks.iter().enumerate() {
            let on_pci = self.kind.has_pci() || disk.bus == Bus::Nvme;
            let mut device = match disk.bus {
                Bus::Virtio if on_pci => {
                    format!("virtio-blk-pci,id=disk{n},bus=port{n},disable-legacy=on")
                }
                // The image finds them in this order then.
                Bus::Virtio if self.kind == Kind::VirtMmio => {
                    format!("virtio-blk-device,id=disk{n},bus=virtio-mmio-bus.{n}")
                }
                Bus::Virtio => format!("virtio-blk-device,id=disk{n}"),
                Bus::Nvme => format!("nvme,id=disk{n},serial=annulus-{n},bus=port{n}"),
            };
            let block = disk.block;
            device += &format!(
                ",drive=medium{n},logical_block_size={block},physical_block_size={block}{}",
                disk.properties
            );
            if on_pci {
                let port = format!("pcie-root-port,id=port{n},chassis={n},slot={n}");
                all.extend(["-device".into(), port]);
            }
            if let Some(object) = disk.drive.objects(n) {
                all.extend(["-object".into(), object.to_string()]);
            }
            let mut node = disk.drive.node(dir, n);
            node["node-name"] = format!("medium{n}").into();
            all.extend(["-blockdev".into(), node.to_string(), "-device".into(), device]);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_where_the_machine_has_room_for_them() {
        let disk = || Disk::new(Bus::Virtio, Drive::null(1), 4096).with("packed=on");
        let line = |machine: &Machine| {
            machine.arguments(Path::new("/d"), Path::new("/i"), "a ; b").join(" ")
        };
        let pci = Machine::new("m", Kind::Q35).disk(disk()).disk(disk());
        for part in ["-append a ; b", "virtio-blk-pci,id=disk1,bus=port1", "size=4096,packed=on"] {
            assert!(line(&pci).contains(part), "{part} is missing: {}", line(&pci));
        }
        let mmio = Machine::new("m", Kind::Microvm).disk(disk());
        assert!(
            line(&mmio).contains("virtio-blk-device,id=disk0") && !line(&mmio).contains("pcie")
        );
    }
}
