//! The VFIO layer of `annulus-linux`, without a driver above it.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::thread;
use std::time::{Duration, Instant};

use annulus::hal::device::{Dma as _, Mmio as _};
use annulus_linux::vfio::{self, Error, Interface, Options, PciAddress, VfioDevice};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::Context;
use crate::control::Request;
use crate::pci::{Function, NVME_CLASS};

const PAGE: usize = 4096;

/// Registers of an NVMe controller: CAP, VS, INTMS, CC.
const CAP: usize = 0x00;
const VS: usize = 0x08;
const INTMS: usize = 0x0c;
const CC: usize = 0x14;

fn text(error: impl ToString) -> String {
    error.to_string()
}

fn address(function: &Function) -> Result<PciAddress, String> {
    function.address.parse().map_err(text)
}

/// Controller `n`, handed over by [`vfio::bind`] and opened.
fn open(n: u8) -> Result<VfioDevice, String> {
    let address = address(&Function::controller(n)?)?;
    vfio::bind(address).map_err(text)?;
    VfioDevice::open(address).map_err(text)
}

fn chosen(context: &Context) -> Result<u8, String> {
    let n = context.arg("controller").and_then(|n| n.parse().ok());
    n.ok_or_else(|| "which controller?".to_owned())
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// A controller is handed over, opened, looked at, reset and handed back; and
/// neither taken twice nor taken away meanwhile.
pub fn opens(context: &mut Context) -> Result<String, String> {
    let function = context.kernel(0)?;
    let address = address(&function)?;
    let error = VfioDevice::open(address).expect_err("it is the kernel's");
    ensure(matches!(&error, Error::NotBound { driver: Some(d), .. } if d == "nvme"), || {
        text(&error)
    })?;

    vfio::bind(address).map_err(text)?;
    let iommufd = match Options::new().interface(Interface::Cdev).open(address) {
        Ok(device) => format!("iommufd too ({:?})", device.interface()),
        // The kernel is the guest's own, so this is no lack of the machine that runs
        // the rung, and nothing that CI could have: it stays NOT RUN there, too.
        Err(error) if text(&error).contains("Linux 6.6") => {
            "not by iommufd: NOT RUN, this kernel has no files of devices for it (Linux 6.6 has); \
             the script of its ioctls is tested with annulus-linux"
                .into()
        }
        Err(error) => return Err(text(&error)),
    };

    let device = open(0)?;
    ensure(device.class_code().map_err(text)? == NVME_CLASS, || "its class is wrong".into())?;
    let (cap, version) = (device.read64(CAP), device.read32(VS));
    ensure(cap & 0xffff != 0 && version >> 16 >= 1, || format!("CAP {cap:#x}, VS {version:#x}"))?;
    // Shows what was set, so a write that gets there.
    device.write32(INTMS, 1);
    let mask = device.read32(INTMS);
    ensure(mask == 1, || format!("the interrupt mask reads {mask:#x}"))?;
    device.reset().map_err(text)?;
    let mask = device.read32(INTMS);
    ensure(mask == 0 && device.read32(CC) & 1 == 0, || format!("after reset: {mask:#x}"))?;

    ensure(device.isolate() && device.isolate(), || "bus mastering stays on".into())?;
    device.enable_bus_master().map_err(text)?;
    let vectors = device.vectors();
    for wanted in [1, vectors] {
        let events = device.enable_msix(wanted).map_err(text)?;
        ensure(events.len() as u32 == wanted, || format!("{} eventfds", events.len()))?;
    }
    let error = device.enable_msix(vectors + 1).expect_err("there are no more");
    ensure(matches!(error, Error::Vectors { .. }), || text(&error))?;
    ensure(device.release_eventfd().is_some() && !device.release_requested(), || {
        "there is no word of a request to release, or one at once".into()
    })?;

    let error = VfioDevice::open(address).expect_err("it is open");
    let me = format!("process {}", std::process::id());
    ensure(matches!(error, Error::InUse { .. }) && text(&error).contains(&me), || text(&error))?;
    let error = vfio::unbind(address).expect_err("it is open");
    ensure(matches!(error, Error::InUse { .. }), || text(&error))?;
    let bar = device.len();
    let start = Instant::now();
    drop(device);
    let ms = start.elapsed().as_millis();
    drop(VfioDevice::open(address).map_err(text)?);
    let driver = vfio::unbind(address).map_err(text)?;
    ensure(driver.as_deref() == Some("nvme"), || format!("it went to {driver:?}"))?;
    function.block_device(1)?;
    Ok(format!(
        "CAP {cap:#x}, {bar} bytes of registers, {vectors} vectors, closed in {ms} ms; {iommufd}"
    ))
}

/// Memory is mapped in few pieces, and every limit says what it is.
pub fn maps(context: &mut Context) -> Result<String, String> {
    const PARTS: usize = 1 << 14;
    const LIMIT: &str = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit";
    std::fs::write(LIMIT, "16").map_err(|e| format!("{LIMIT}: {e}"))?;
    let device = open(0)?;
    let queue = device.alloc(16 * PAGE).map_err(text)?;
    let memory = vec![0u8; (PARTS + 1) * PAGE];
    let start = memory.as_ptr().addr().next_multiple_of(PAGE);
    // SAFETY: the device is told no address: it writes to nothing.
    let map = |addr, len| unsafe { device.map_buffer(addr, len) };
    let begun = Instant::now();
    let whole = map(start, PARTS * PAGE).map_err(text)?;
    let first = begun.elapsed();
    let begun = Instant::now();
    for n in 0..PARTS {
        let part = map(start + n * PAGE, PAGE).map_err(text)?;
        let to = device.span(&part, start + n * PAGE).device;
        ensure(to == device.span(&whole, start).device + (n * PAGE) as u64, || {
            format!("part {n} is at {to:#x}")
        })?;
    }
    let parts = begun.elapsed();
    let mapped = device.mapped();
    ensure(mapped.entries == 2, || format!("{mapped:?}"))?;
    // What is no memory, and what is read only.
    for addr in [0x1000, maps as fn(&mut Context) -> _ as usize] {
        let error = map(addr, PAGE).expect_err("no memory to write to");
        ensure(matches!(error, Error::Fault { .. }), || text(&error))?;
    }
    let other = vec![0u8; 64 * PAGE];
    let other = other.as_ptr().addr().next_multiple_of(PAGE);
    let mut used = 0;
    let error = loop {
        match map(other + 2 * used * PAGE, PAGE) {
            Ok(_) => used += 1,
            Err(error) => break error,
        }
    };
    ensure(used == 14 && matches!(error, Error::Entries { entries: 16 }), || {
        format!("after {used}: {error}")
    })?;
    // SAFETY: from this device, which does not use it.
    unsafe { device.free(queue) };
    drop(device);
    huge_pages(context)?;
    Ok(format!(
        "64 MiB in {} ms, {PARTS} parts of it in {} ms; huge pages where there are some",
        first.as_millis(),
        parts.as_millis()
    ))
}

/// The driver's memory is of huge pages where there are some, and of others
/// where there are none.
fn huge_pages(context: &Context) -> Result<(), String> {
    let free = || {
        let said = std::fs::read_to_string("/proc/meminfo").map_err(text)?;
        let line = said.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
        line.and_then(|n| n.trim().parse::<u32>().ok()).ok_or("no word of huge pages".to_owned())
    };
    for (there, used) in [(4, 1), (0, 0)] {
        context.huge_pages(there)?;
        let device = open(0)?;
        let before = free()?;
        let queue = device.alloc(16 * PAGE).map_err(text)?;
        let taken = before - free()?;
        // SAFETY: from this device, which does not use it.
        unsafe { device.free(queue) };
        ensure(before == there && taken == used, || {
            format!("of {before} huge pages {taken} were taken, not {used} of {there}")
        })?;
    }
    Ok(())
}

/// The limit of locked memory is met, and told.
pub fn meets_memory_limit(_: &mut Context) -> Result<String, String> {
    const LIMIT: u64 = 1 << 20;
    let device = open(0)?;
    let mut sets = capabilities(None).map_err(text)?;
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, sets).map_err(text)?;
    let maximum = getrlimit(Resource::Memlock).maximum;
    let limit = Rlimit { current: Some(LIMIT), maximum };
    setrlimit(Resource::Memlock, limit).map_err(text)?;
    // An arena would be 2 MiB.
    let queue = device.alloc(4 * PAGE).map_err(text)?;
    let memory = vec![0u8; LIMIT as usize];
    let at = memory.as_ptr().addr();
    // SAFETY: as above.
    let error = unsafe { device.map_buffer(at, memory.len()) }.expect_err("more than the limit");
    let Error::MemoryLimit { needed, pinned, limit } = error else { return Err(text(&error)) };
    ensure(needed >= LIMIT && pinned == 4 * PAGE as u64 && limit == LIMIT, || text(&error))?;
    // SAFETY: as above.
    let half = unsafe { device.map_buffer(at, memory.len() / 2) }.map_err(text)?;
    device.unmap(half);
    // SAFETY: as above.
    unsafe { device.free(queue) };
    Ok(text(&error))
}

/// A controller whose namespace is in use stays with the kernel. Argument:
/// which; its first namespace is written to.
pub fn bind_refuses(context: &mut Context) -> Result<String, String> {
    let function = context.kernel(chosen(context)?)?;
    let address = address(&function)?;
    let path = function.block_device(1)?;
    let disk = OpenOptions::new().read(true).write(true).open(&path).map_err(text)?;
    let refused = || match vfio::bind(address) {
        Err(Error::Busy { what, .. }) => Ok(what),
        other => Err(format!("{} is in use, and yet: {other:?}", path.display())),
    };
    let open = refused()?;
    // mkswap: version, last page, no bad pages, and the magic word.
    let mut header = [0u8; PAGE];
    header[1024] = 1;
    header[1028..1032].copy_from_slice(&1023u32.to_le_bytes());
    header[PAGE - 10..].copy_from_slice(b"SWAPSPACE2");
    disk.write_all_at(&header, 0).map_err(text)?;
    disk.sync_all().map_err(text)?;
    drop(disk);
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).map_err(text)?;
    // SAFETY: a C string, which the kernel reads.
    let on = unsafe { libc::swapon(name.as_ptr(), 0) };
    ensure(on == 0, || format!("swapon: {}", std::io::Error::last_os_error()))?;
    let swap = refused();
    // SAFETY: as above.
    unsafe { libc::swapoff(name.as_ptr()) };
    let swap = swap?;
    ensure(swap.contains("swap"), || swap.clone())?;
    ensure(function.driver().as_deref() == Some("nvme"), || "its driver is gone".into())?;
    vfio::bind(address).map_err(text)?;
    vfio::unbind(address).map_err(text)?;
    Ok(format!("{open}; {swap}"))
}

/// A controller that the host takes away is asked for, and released.
/// Argument: which.
pub fn releases_when_asked(context: &mut Context) -> Result<String, String> {
    let n = chosen(context)?;
    let device = open(n)?;
    let event = device.release_eventfd().ok_or("nothing tells of requests")?.as_raw_fd();
    context.host.ask(Request::Unplug(format!("nvme{n}")))?;
    let start = Instant::now();
    while !device.release_requested() {
        ensure(start.elapsed() < Duration::from_secs(30), || "nobody asks for it".into())?;
        thread::sleep(Duration::from_millis(10));
    }
    let asked = start.elapsed();
    let version = device.read32(VS);
    let start = Instant::now();
    drop(device);
    let closed = start.elapsed();
    context.host.ask(Request::Gone(format!("nvme{n}")))?;
    ensure(Function::controller(n).is_err(), || "it is still there".into())?;
    Ok(format!(
        "asked after {} ms (eventfd {event}), version {version:#x}, closed in {} ms",
        asked.as_millis(),
        closed.as_millis()
    ))
}
