//! Binding on a made-up machine.

use std::cell::{Cell, RefCell};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

const BDF: &str = "0000:01:00.0";

/// A machine with one NVMe controller, in a folder.
struct Fake {
    _dir: tempfile::TempDir,
    roots: Roots,
    device: PathBuf,
    /// What was written, and loaded.
    log: RefCell<Vec<String>>,
    claimed: Cell<bool>,
    taken: Cell<bool>,
    loads: Cell<bool>,
    /// vfio-pci refuses the device.
    refuses: Cell<bool>,
}

fn put(path: PathBuf, text: &str) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    fs::write(path, text).expect("a file");
}

impl Fake {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        let roots = Roots { sys: at("sys"), proc: at("proc"), dev: at("dev") };
        let device = roots.sys.join("bus/pci/devices").join(BDF);
        put(device.join("class"), "0x010802\n");
        put(device.join("driver_override"), "(null)\n");
        put(roots.sys.join("bus/pci/drivers_probe"), "");
        for driver in ["nvme", "vfio-pci"] {
            put(roots.sys.join("bus/pci/drivers").join(driver).join("unbind"), "");
        }
        put(roots.sys.join("kernel/iommu_groups/7/type"), "DMA\n");
        symlink(roots.sys.join("kernel/iommu_groups/7"), device.join("iommu_group"))
            .expect("a link");
        let namespace = device.join("nvme/nvme0/nvme0n1");
        put(namespace.join("dev"), "259:0\n");
        put(namespace.join("nvme0n1p1/dev"), "259:1\n");
        for block in [&namespace, &namespace.join("nvme0n1p1")] {
            fs::create_dir(block.join("holders")).expect("a folder");
        }
        put(roots.proc.join("self/mountinfo"), "22 28 0:20 / /sys rw - sysfs sysfs rw\n");
        put(roots.proc.join("swaps"), "Filename Type Size Used Priority\n");
        let fake = Self {
            _dir: dir,
            roots,
            device,
            log: RefCell::default(),
            claimed: Cell::new(false),
            taken: Cell::new(false),
            loads: Cell::new(true),
            refuses: Cell::new(false),
        };
        fake.give_to(Some("nvme"));
        fake
    }

    fn give_to(&self, driver: Option<&str>) {
        let link = self.device.join("driver");
        let _ = fs::remove_file(&link);
        if let Some(driver) = driver {
            symlink(self.roots.sys.join("bus/pci/drivers").join(driver), link).expect("a link");
        }
    }

    fn driver(&self) -> Option<String> {
        self.function().driver()
    }

    fn function(&self) -> Function {
        Function::find(&self.roots, BDF.parse().expect("an address")).expect("it is there")
    }

    fn bind(&self) -> Result<(), Error> {
        bind_in(&self.roots, self, BDF.parse()?)
    }

    fn unbind(&self) -> Result<Option<String>, Error> {
        unbind_in(&self.roots, self, BDF.parse()?)
    }

    /// The refusal's words; nothing was touched.
    fn busy(&self) -> String {
        let error = self.bind().expect_err("it is in use");
        assert!(matches!(error, Error::Busy { .. }), "{error}");
        assert!(self.log.borrow().is_empty());
        error.to_string()
    }
}

impl Machine for Fake {
    /// What the kernel does.
    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        self.log.borrow_mut().push(format!("{name}={}", text.trim()));
        match name.as_str() {
            "unbind" => self.give_to(None),
            "drivers_probe" => {
                let over = fs::read_to_string(self.device.join("driver_override"))?;
                match over.trim() {
                    "vfio-pci" if self.refuses.get() => {}
                    "vfio-pci" => self.give_to(Some("vfio-pci")),
                    _ => self.give_to(Some("nvme")),
                }
            }
            _ => fs::write(path, text)?,
        }
        Ok(())
    }

    fn load(&self, module: &str) -> io::Result<()> {
        self.log.borrow_mut().push(format!("load={module}"));
        if !self.loads.get() {
            return Err(io::Error::other("modprobe vfio-pci: Module vfio-pci not found"));
        }
        put(self.roots.sys.join("bus/pci/drivers/vfio-pci/unbind"), "");
        Ok(())
    }

    fn claimed(&self, device: &Path) -> bool {
        self.claimed.get() && device.ends_with("nvme0n1p1")
    }

    fn taken(&self, _: &Path) -> bool {
        self.taken.get()
    }
}

#[test]
fn there_and_back() {
    let fake = Fake::new();
    fake.bind().expect("bound");
    assert_eq!(fake.driver().as_deref(), Some("vfio-pci"));
    let steps = ["driver_override=vfio-pci", "unbind=0000:01:00.0"];
    assert_eq!(fake.log.borrow()[..2], steps);
    fake.log.borrow_mut().clear();
    // Once more does nothing.
    fake.bind().expect("it is bound");
    assert!(fake.log.borrow().is_empty());
    assert_eq!(fake.unbind().expect("unbound").as_deref(), Some("nvme"));
    assert_eq!(fake.driver().as_deref(), Some("nvme"));
    assert_eq!(fake.unbind().expect("it is not there").as_deref(), Some("nvme"));
    // One that has no driver is given to one.
    fake.give_to(None);
    assert_eq!(fake.unbind().expect("unbound").as_deref(), Some("nvme"));
}

#[test]
fn a_mounted_namespace_is_refused() {
    let fake = Fake::new();
    let mounts = "28 1 259:1 / /srv/data rw - ext4 /dev/nvme0n1p1 rw\n";
    put(fake.roots.proc.join("self/mountinfo"), mounts);
    let said = fake.busy();
    assert!(said.contains("nvme0n1p1 is mounted on /srv/data"), "{said}");
    assert_eq!(fake.driver().as_deref(), Some("nvme"));
}

#[test]
fn swap_is_refused() {
    let fake = Fake::new();
    let node = fake.roots.dev.join("nvme0n1p1");
    let swaps = format!("Filename Type\n{}\tpartition\t8\n", node.display());
    put(fake.roots.proc.join("swaps"), &swaps);
    assert!(fake.busy().contains("swaps to nvme0n1p1"));
}

#[test]
fn a_part_of_something_larger_is_refused() {
    let fake = Fake::new();
    put(fake.device.join("nvme/nvme0/nvme0n1/holders/dm-3/name"), "");
    assert!(fake.busy().contains("nvme0n1 is part of dm-3"));
}

#[test]
fn what_a_process_or_the_kernel_holds_is_refused() {
    let fake = Fake::new();
    let fds = fake.roots.proc.join("812/fd");
    fs::create_dir_all(&fds).expect("a folder");
    symlink(fake.roots.dev.join("nvme0n1"), fds.join("5")).expect("a link");
    put(fake.roots.proc.join("812/comm"), "database\n");
    assert!(fake.busy().contains("process 812 (database) has nvme0n1 open"));
    fs::remove_file(fds.join("5")).expect("closed");
    fake.claimed.set(true);
    assert!(fake.busy().contains("the kernel holds nvme0n1p1"));
}

#[test]
fn the_subsystems_namespaces_count() {
    let fake = Fake::new();
    // With multipath the controller has only a hidden path.
    let nvme = fake.device.join("nvme/nvme0");
    fs::rename(nvme.join("nvme0n1"), nvme.join("nvme0c0n1")).expect("renamed");
    put(nvme.join("nvme0c0n1/dev"), "0:0\n");
    fs::remove_dir_all(nvme.join("nvme0c0n1/nvme0n1p1")).expect("removed");
    let subsystem = fake.roots.sys.join("class/nvme-subsystem/nvme-subsys0");
    put(subsystem.join("nvme0n1/dev"), "259:4\n");
    fs::create_dir(subsystem.join("nvme0n1/holders")).expect("a folder");
    symlink(&nvme, subsystem.join("nvme0")).expect("a link");
    fake.bind().expect("nothing uses it");
    fake.unbind().expect("unbound");
    fake.log.borrow_mut().clear();
    let mounts = "28 1 259:4 / /boot rw - ext4 /dev/root rw\n";
    put(fake.roots.proc.join("self/mountinfo"), mounts);
    assert!(fake.busy().contains("nvme0n1 is mounted on /boot"));
}

#[test]
fn other_devices_are_refused() {
    let fake = Fake::new();
    put(fake.device.join("class"), "0x020000\n");
    let error = fake.bind().expect_err("a network card");
    assert!(matches!(error, Error::NotNvme { class: 0x02_0000, .. }), "{error}");
    assert!(error.to_string().contains("0x020000"), "{error}");
    let other = "0000:01:00.1".parse().expect("an address");
    assert!(matches!(
        bind_in(&fake.roots, &fake, other),
        Err(Error::NoDevice { address }) if address == other
    ));
    assert!(fake.log.borrow().is_empty());
}

#[test]
fn without_an_iommu_nothing_is_touched() {
    let fake = Fake::new();
    fs::remove_file(fake.device.join("iommu_group")).expect("removed");
    assert!(matches!(fake.bind(), Err(Error::NoIommu { .. })));
    assert!(fake.log.borrow().is_empty());
}

#[test]
fn the_module_is_loaded_if_it_can_be() {
    let fake = Fake::new();
    let driver = fake.roots.sys.join("bus/pci/drivers/vfio-pci");
    fs::remove_dir_all(&driver).expect("removed");
    fake.loads.set(false);
    let error = fake.bind().expect_err("no module");
    assert!(error.to_string().contains("modprobe vfio-pci"), "{error}");
    assert_eq!(*fake.log.borrow(), ["load=vfio-pci"]);
    fake.loads.set(true);
    fake.bind().expect("bound");
}

#[test]
fn a_refusal_gives_the_controller_back() {
    let fake = Fake::new();
    fake.refuses.set(true);
    let error = fake.bind().expect_err("refused");
    assert!(error.to_string().contains("dmesg"), "{error}");
    assert_eq!(fake.driver().as_deref(), Some("nvme"));
    let over = fs::read_to_string(fake.device.join("driver_override")).expect("a file");
    assert_eq!(over.trim(), "");
}

#[test]
fn a_device_that_is_driven_is_not_taken_away() {
    let fake = Fake::new();
    fake.bind().expect("bound");
    fake.log.borrow_mut().clear();
    fake.taken.set(true);
    assert!(matches!(fake.unbind(), Err(Error::InUse { by, .. }) if by.is_empty()));
    fake.taken.set(false);
    // By the device's own file.
    fs::create_dir_all(fake.device.join("vfio-dev/vfio4")).expect("a folder");
    fs::write(fake.device.join("vfio-dev/vfio4/dev"), "511:4\n").expect("its number");
    let fds = fake.roots.proc.join("99/fd");
    fs::create_dir_all(&fds).expect("a folder");
    symlink(fake.roots.dev.join("vfio/devices/vfio4"), fds.join("3")).expect("a link");
    put(fake.roots.proc.join("99/comm"), "annulus\n");
    let error = fake.unbind().expect_err("in use");
    assert!(error.to_string().contains("process 99 (annulus)"), "{error}");
    assert!(fake.log.borrow().is_empty());
}
