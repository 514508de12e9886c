//! A scripted kernel: VFIO and iommufd over a file in memory, with a PCI
//! device in a folder that stands for sysfs.

mod calls;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use vfio_bindings::bindings::vfio;

use crate::vfio::sysfs::Roots;
use crate::vfio::{Error, Interface, Options, VfioDevice};

pub const BDF: &str = "0000:01:00.0";
pub const PAGE: u64 = 4096;
const CONFIG: u64 = 0x10_0000;
pub const BAR: u64 = 0x4000;
pub const COMMAND: u64 = 4;
const IOAS: u32 = 3;

/// What an open file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Container,
    Group,
    Cdev,
    Iommu,
    Device,
}

/// What the kernel does and has done.
pub struct State {
    files: HashMap<RawFd, Kind>,
    /// Answers of opening a path, and of a request, instead of success.
    pub no_open: HashMap<PathBuf, i32>,
    pub fail: HashMap<u32, i32>,
    pub viable: bool,
    pub type1: bool,
    /// What the IOMMU maps; none: it does not tell.
    pub ranges: Vec<(u64, u64)>,
    pub entries: usize,
    pub locked: u64,
    /// Live mappings: memory and length by address.
    pub maps: BTreeMap<u64, (u64, u64)>,
    pub most_maps: usize,
    pub region_flags: u32,
    pub sparse: Option<Vec<(u64, u64)>>,
    pub device_flags: u32,
    /// How many interrupts of each kind, and how many more than 0 are refused.
    pub irqs: [u32; 5],
    pub irq_answer: u32,
    /// The eventfds of each kind.
    pub events: HashMap<u32, Vec<OwnedFd>>,
    /// What happened, in words, and the command register at each reset.
    pub log: Vec<String>,
    pub resets: Vec<u16>,
}

pub struct Fake {
    dir: tempfile::TempDir,
    pub roots: Roots,
    memory: File,
    pub state: Mutex<State>,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fake({})", self.dir.path().display())
    }
}

pub fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    fs::write(path, text).expect("a file");
}

impl Fake {
    /// A machine with a controller that is bound to vfio-pci.
    pub fn new() -> Arc<Self> {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        let roots = Roots { sys: at("sys"), proc: at("proc"), dev: at("dev") };
        let memory = File::from(memfd_create("device", MemfdFlags::ALLOW_SEALING).expect("memfd"));
        memory.set_len(CONFIG + 4096).expect("a size");
        memory.write_at(&[0x86, 0x80], CONFIG).expect("the vendor");
        let state = State {
            files: HashMap::new(),
            no_open: HashMap::new(),
            fail: HashMap::new(),
            viable: true,
            type1: true,
            ranges: vec![(0, 0xfedf_ffff), (0xfef0_0000, (1 << 39) - 1)],
            entries: 65_535,
            locked: u64::MAX,
            maps: BTreeMap::new(),
            most_maps: 0,
            region_flags: vfio::VFIO_REGION_INFO_FLAG_MMAP,
            sparse: None,
            device_flags: vfio::VFIO_DEVICE_FLAGS_PCI | vfio::VFIO_DEVICE_FLAGS_RESET,
            irqs: [1, 4, 16, 1, 1],
            irq_answer: 0,
            events: HashMap::new(),
            log: Vec::new(),
            resets: Vec::new(),
        };
        let fake = Self { dir, roots, memory, state: Mutex::new(state) };
        put(&fake.function().join("class"), "0x010802\n");
        fake.driver(BDF, Some("vfio-pci"));
        let group = fake.roots.sys.join("kernel/iommu_groups/7");
        fs::create_dir_all(group.join("devices")).expect("a folder");
        symlink(fake.function(), group.join("devices").join(BDF)).expect("a link");
        symlink(&group, fake.function().join("iommu_group")).expect("a link");
        for file in ["vfio/vfio", "vfio/7"] {
            put(&fake.roots.dev.join(file), "");
        }
        Arc::new(fake)
    }

    /// ... and whose kernel has iommufd.
    pub fn with_cdev() -> Arc<Self> {
        let fake = Self::new();
        fs::create_dir_all(fake.function().join("vfio-dev/vfio2")).expect("a folder");
        fs::write(fake.function().join("vfio-dev/vfio2/dev"), "511:2\n").expect("its number");
        for file in ["vfio/devices/vfio2", "iommu"] {
            put(&fake.roots.dev.join(file), "");
        }
        fake
    }

    pub fn function(&self) -> PathBuf {
        self.roots.sys.join("bus/pci/devices").join(BDF)
    }

    /// Gives a device, ours or another of its group, to a driver.
    pub fn driver(&self, address: &str, driver: Option<&str>) {
        let dir = self.roots.sys.join("bus/pci/devices").join(address);
        fs::create_dir_all(&dir).expect("a folder");
        let _ = fs::remove_file(dir.join("driver"));
        if let Some(driver) = driver {
            let target = self.roots.sys.join("bus/pci/drivers").join(driver);
            symlink(target, dir.join("driver")).expect("a link");
        }
    }

    pub fn neighbour(&self, address: &str, driver: &str) {
        self.driver(address, Some(driver));
        let devices = self.roots.sys.join("kernel/iommu_groups/7/devices");
        let dir = self.roots.sys.join("bus/pci/devices").join(address);
        symlink(dir, devices.join(address)).expect("a link");
    }

    pub fn open_by(self: &Arc<Self>, way: Interface) -> Result<VfioDevice, Error> {
        let options = Options::new().interface(way).huge_pages(false);
        options.open_in(&self.roots, self.clone(), BDF.parse()?)
    }

    pub fn open_device(self: &Arc<Self>) -> VfioDevice {
        self.open_by(Interface::Auto).expect("it opens")
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panicked with it")
    }

    pub fn config(&self, at: u64) -> u16 {
        let mut bytes = [0; 2];
        self.memory.read_exact_at(&mut bytes, CONFIG + at).expect("config space");
        u16::from_le_bytes(bytes)
    }

    pub fn set_config(&self, at: u64, value: u16) {
        self.memory.write_all_at(&value.to_le_bytes(), CONFIG + at).expect("config space");
    }

    pub fn register(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.memory.read_exact_at(&mut bytes, at).expect("BAR 0");
        u32::from_le_bytes(bytes)
    }

    /// Configuration writes fail from now on.
    pub fn seal(&self) {
        rustix::fs::fcntl_add_seals(&self.memory, rustix::fs::SealFlags::FUTURE_WRITE)
            .expect("a seal");
    }

    fn open_as(&self, kind: Kind) -> OwnedFd {
        let fd: OwnedFd = match kind {
            Kind::Device | Kind::Cdev => self.memory.try_clone().expect("a duplicate").into(),
            _ => eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor"),
        };
        self.state().files.insert(fd.as_raw_fd(), kind);
        fd
    }
}
