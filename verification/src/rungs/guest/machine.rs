//! What a virtual machine has in it, and the command line that makes it so.
//!
//! Names are given by order: controllers are `nvme0`, `nvme1`, ..., and
//! namespaces, counted over all controllers, `ns0`, `ns1`, ...; the medium of
//! `ns0` is the node `disk0`, in the file `disk0`, its log in `disk0.log`.

use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use annulus_guest::pci::FIRST_SLOT;
use serde_json::{Value, json};

use super::images::Fat;

const MIB: u64 = 1 << 20;

/// What every guest's kernel is told. The IOMMU is on and translates for
/// every device; clock and timer are not doubted, although emulation makes
/// them look doubtful; a panic ends the machine.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet loglevel=5 panic=-1 rdinit=/init \
                                intel_iommu=on iommu=nopt no_timer_check tsc=reliable \
                                clocksource=tsc";

/// How fast the guest's clock counts, in kHz, for its kernel: one that has to
/// find that out while the host is busy has been 14 times wrong, and all its
/// deadlines with it. Emulation passes the host's own counter on.
#[cfg(target_arch = "x86_64")]
fn clock() -> Option<u64> {
    const MEASURED: Duration = Duration::from_millis(50);
    const APART: Duration = Duration::from_micros(20);
    static KHZ: OnceLock<u64> = OnceLock::new();
    // Both of one moment: nobody else ran in between.
    let now = || {
        loop {
            let time = Instant::now();
            // SAFETY: reads a counter.
            let ticks = unsafe { std::arch::x86_64::_rdtsc() };
            if time.elapsed() < APART {
                return (time, ticks);
            }
        }
    };
    Some(*KHZ.get_or_init(|| {
        let (from, first) = now();
        std::thread::sleep(MEASURED);
        let (to, last) = now();
        (last - first) * 1_000_000 / (to - from).as_nanos() as u64
    }))
}

/// Another counter: the guest has to find out.
#[cfg(not(target_arch = "x86_64"))]
fn clock() -> Option<u64> {
    None
}

/// A machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What it is called, and its directory.
    pub name: &'static str,
    memory_mib: u64,
    arguments: String,
    controllers: Vec<Controller>,
}

/// A controller, in the order of the machine's.
#[derive(Clone, Debug, Default)]
pub struct Controller {
    properties: Vec<(&'static str, u32)>,
    namespaces: Vec<Namespace>,
}

#[derive(Clone, Debug)]
struct Namespace {
    drive: Drive,
    block: u32,
}

/// A medium.
#[derive(Clone, Debug)]
pub struct Drive {
    mib: u64,
    file: bool,
    faults: Vec<Value>,
    logged: bool,
    stalled: bool,
    read_only: bool,
    fat: Option<Fat>,
}

impl Machine {
    /// One with 1 GiB of memory and no controller yet.
    pub fn new(name: &'static str) -> Self {
        let clock = clock().map(|khz| format!(" tsc_early_khz={khz}"));
        let arguments = KERNEL_ARGUMENTS.to_owned() + &clock.unwrap_or_default();
        Self { name, memory_mib: 1024, arguments, controllers: Vec::new() }
    }

    /// One more controller.
    pub fn controller(mut self, controller: Controller) -> Self {
        self.controllers.push(controller);
        self
    }

    /// Makes the media of the machine in `dir`.
    ///
    /// # Errors
    /// Of the system.
    pub fn make_media(&self, dir: &Path) -> Result<(), String> {
        let namespaces = self.controllers.iter().flat_map(|controller| &controller.namespaces);
        let mut drives = namespaces.map(|namespace| &namespace.drive).enumerate();
        drives.try_for_each(|(n, drive)| drive.make_media(dir, n))
    }

    /// QEMU's arguments for the machine. Everything it has lies in `dir`.
    pub fn arguments(&self, dir: &Path, kernel: &Path, initramfs: &Path) -> Vec<String> {
        // Software emulation always: it is there everywhere, and is the same.
        let mut all = words("-accel tcg -cpu max -smp 2 -no-reboot -no-user-config -nodefaults");
        // Its threads' names tell which of them is which processor.
        all.extend(["-name".into(), format!("{},debug-threads=on", self.name)]);
        all.extend(words("-display none -machine q35,kernel-irqchip=split"));
        all.extend(words("-device intel-iommu,intremap=on,caching-mode=on,aw-bits=48"));
        all.extend(["-m".into(), self.memory_mib.to_string()]);
        all.extend(["-kernel".into(), kernel.display().to_string()]);
        all.extend(["-initrd".into(), initramfs.display().to_string()]);
        all.extend(["-append".into(), self.arguments.clone()]);
        let mut ns = 0;
        for (n, controller) in self.controllers.iter().enumerate() {
            // A port each: only what is behind one can be unplugged, and only
            // so is each alone in its IOMMU group.
            let slot = usize::from(FIRST_SLOT) + n;
            let port = format!("pcie-root-port,id=port{n},chassis={n},slot={n},addr={slot:#x}");
            let mut device = format!("nvme,id=nvme{n},serial=annulus-{n},bus=port{n}");
            for (name, value) in &controller.properties {
                device += &format!(",{name}={value}");
            }
            all.extend(["-device".into(), port, "-device".into(), device]);
            for (k, namespace) in controller.namespaces.iter().enumerate() {
                let (block, nsid) = (namespace.block, k + 1);
                let device = format!(
                    "nvme-ns,id=ns{ns},bus=nvme{n},nsid={nsid},drive=disk{ns},\
                     logical_block_size={block},physical_block_size={block}"
                );
                all.extend(["-blockdev".into(), namespace.drive.node(dir, ns).to_string()]);
                all.extend(["-device".into(), device]);
                ns += 1;
            }
        }
        all
    }
}

impl Controller {
    /// One as QEMU makes it, with no namespace yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more namespace, with logical blocks of so many bytes.
    pub fn namespace(mut self, drive: Drive, block: u32) -> Self {
        self.namespaces.push(Namespace { drive, block });
        self
    }

    /// With a property of QEMU's device: `mdts`, `max_ioqpairs`, `msix_qsize`.
    pub fn with(mut self, property: &'static str, value: u32) -> Self {
        self.properties.push((property, value));
        self
    }
}

impl Drive {
    /// One that keeps what is written, in a file that begins as zeroes.
    pub fn file(mib: u64) -> Self {
        let faults = Vec::new();
        Self { mib, file: true, faults, logged: false, stalled: false, read_only: false, fat: None }
    }

    /// One with a FAT volume and the files that an image expects in it.
    pub fn fat(fat: Fat) -> Self {
        Self { fat: Some(fat), ..Self::file(fat.mib()) }
    }

    /// One that keeps nothing, and costs nothing.
    pub fn null(mib: u64) -> Self {
        Self { file: false, ..Self::file(mib) }
    }

    /// Fails with `errno` what is of this kind (`read`, `write`, `flush`,
    /// `discard`, `write-zeroes`) and, if it is a transfer, touches the
    /// `sector` of 512 bytes; any if there is none.
    pub fn fails(mut self, kind: &str, sector: Option<u64>, errno: i32) -> Self {
        let mut fault = json!({"event": "none", "iotype": kind, "errno": errno});
        if let Some(sector) = sector {
            fault["sector"] = sector.into();
        }
        self.faults.push(fault);
        self
    }

    /// Every write and flush is logged, for the replay of power cuts.
    pub fn logged(mut self) -> Self {
        self.logged = true;
        self
    }

    /// Takes next to no writes: what waits goes on when its device is reset.
    /// Needs [`objects`](Self::objects).
    pub fn stalled(mut self) -> Self {
        self.stalled = true;
        self
    }

    /// Cannot be written.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// What its node needs that is no node.
    pub fn objects(&self, n: usize) -> Option<Value> {
        let limits = json!({"bps-write": 1});
        let group =
            json!({"qom-type": "throttle-group", "id": format!("slow{n}"), "limits": limits});
        self.stalled.then_some(group)
    }

    /// Makes the files of medium `n` in `dir`.
    ///
    /// # Errors
    /// Of the system.
    pub fn make_media(&self, dir: &Path, n: usize) -> Result<(), String> {
        let make = |name: String, size: u64| {
            let path = dir.join(name);
            let made = File::create(&path).and_then(|file| file.set_len(size));
            made.map_err(|e| format!("{}: {e}", path.display()))
        };
        if self.file {
            make(format!("disk{n}"), self.mib * MIB)?;
        }
        if let Some(fat) = self.fat {
            fat.make(&dir.join(format!("disk{n}")))?;
        }
        if self.logged {
            make(format!("disk{n}.log"), 0)?;
        }
        Ok(())
    }

    /// QEMU's description of it.
    pub fn node(&self, dir: &Path, n: usize) -> Value {
        let file = |name: String| {
            let path = dir.join(name).display().to_string();
            json!({"driver": "file", "filename": path, "discard": "unmap"})
        };
        let mut node = if self.file {
            file(format!("disk{n}"))
        } else {
            json!({"driver": "null-co", "size": self.mib * MIB, "read-zeroes": false})
        };
        if !self.faults.is_empty() {
            node = json!({"driver": "blkdebug", "image": node, "inject-error": self.faults});
        }
        if self.stalled {
            let group = format!("slow{n}");
            node = json!({"driver": "throttle", "throttle-group": group, "file": node});
        }
        if self.read_only {
            node["read-only"] = true.into();
        }
        if self.logged {
            let log = file(format!("disk{n}.log"));
            node = json!({"driver": "blklogwrites", "file": node, "log": log});
        }
        node["node-name"] = format!("disk{n}").into();
        node["discard"] = "unmap".into();
        node
    }
}

pub fn words(text: &str) -> Vec<String> {
    text.split(' ').map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_by_their_order() {
        let machine = Machine::new("m")
            .controller(
                Controller::new()
                    .with("mdts", 3)
                    .namespace(Drive::file(1), 512)
                    .namespace(Drive::null(2), 4096),
            )
            .controller(Controller::new().namespace(Drive::file(1).logged(), 512));
        let line = machine.arguments(Path::new("/d"), Path::new("/k"), Path::new("/i")).join(" ");
        for part in [
            "nvme,id=nvme0,serial=annulus-0,bus=port0,mdts=3",
            "nvme-ns,id=ns1,bus=nvme0,nsid=2,drive=disk1,logical_block_size=4096",
            "nvme-ns,id=ns2,bus=nvme1,nsid=1,drive=disk2",
        ] {
            assert!(line.contains(part), "{part} is missing: {line}");
        }
        let dir = tempfile::tempdir().expect("a directory");
        machine.make_media(dir.path()).expect("room for 3 MiB of holes");
        let there = |name: &str| dir.path().join(name).exists();
        assert!(there("disk0") && !there("disk1") && there("disk2") && there("disk2.log"));
    }

    #[test]
    fn layers_are_around_the_medium() {
        let drive = Drive::null(1).fails("read", Some(8), 5).logged();
        let node = drive.node(Path::new("/d"), 4);
        assert_eq!(node["node-name"], "disk4");
        assert_eq!(node["file"]["inject-error"][0]["sector"], 8);
        assert_eq!(node["file"]["image"]["driver"], "null-co");
        assert_eq!(node["log"]["filename"], "/d/disk4.log");
    }
}
