//! Scenarios without a driver of ours: the machine is what the others take
//! it for.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::ioctl;

use super::Context;
use crate::control::Request;
use crate::pci::Function;

/// Every controller of the machine is there, behind the IOMMU, and alone in
/// its group. Argument: how many.
pub fn sees_controllers(context: &mut Context) -> Result<String, String> {
    let count = context.arg("count").and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut seen = Vec::new();
    for n in 0..count {
        let function = Function::controller(n)?;
        let (vendor, device) = (function.number("vendor")?, function.number("device")?);
        let group = function.group().ok_or_else(|| {
            format!("{} is in no IOMMU group: the IOMMU is off", function.address)
        })?;
        let devices = fs::read_dir(function.path().join("iommu_group/devices"));
        let devices = devices.map_err(|e| e.to_string())?.count();
        if devices != 1 {
            return Err(format!("{} shares group {group} with others", function.address));
        }
        seen.push(format!("{} {vendor:04x}:{device:04x} group {group}", function.address));
    }
    Ok(seen.join(", "))
}

/// The kernel's driver brings the controller up and reads and writes.
pub fn kernel_drives(context: &mut Context) -> Result<String, String> {
    let function = context.kernel(0)?;
    let device = function.block_device(1)?;
    let disk = direct(&device)?;
    let mut block = Block([0x5a; 4096]);
    disk.write_all_at(&block.0, 8192).map_err(|e| format!("writing: {e}"))?;
    block.0.fill(0);
    disk.read_exact_at(&mut block.0, 8192).map_err(|e| format!("reading: {e}"))?;
    if block.0 != [0x5a; 4096] {
        return Err("a block does not hold what was written to it".into());
    }
    let stats = context.host.stats("ns0")?;
    if stats.reads == 0 || stats.writes == 0 {
        return Err(format!("the medium saw nothing of it: {stats:?}"));
    }
    Ok(format!("{}, medium: {} reads, {} writes", device.display(), stats.reads, stats.writes))
}

/// The controller can be given to vfio-pci.
pub fn vfio_binds(context: &mut Context) -> Result<String, String> {
    let start = Instant::now();
    let function = context.vfio(0)?;
    let group = function.group().unwrap_or_default();
    let node = format!("/dev/vfio/{group}");
    fs::metadata(&node).map_err(|e| format!("{node}: {e}"))?;
    Ok(format!("{} is {node} after {} ms", function.address, start.elapsed().as_millis()))
}

/// `struct vfio_group_status` of `linux/vfio.h`.
#[repr(C)]
struct GroupStatus {
    argsz: u32,
    flags: u32,
}

/// VFIO takes the group for viable, and speaks the version that we know.
pub fn group_is_viable(context: &mut Context) -> Result<String, String> {
    const GET_API_VERSION: ioctl::Opcode = ioctl::opcode::none(b';', 100);
    const GROUP_GET_STATUS: ioctl::Opcode = ioctl::opcode::none(b';', 103);
    const VIABLE: u32 = 1;
    let function = context.vfio(0)?;
    let group = format!("/dev/vfio/{}", function.group().unwrap_or_default());
    let open =
        |path: &str| open(path, OFlags::RDWR, Mode::empty()).map_err(|e| format!("{path}: {e}"));
    let container = open("/dev/vfio/vfio")?;
    // SAFETY: the call takes no argument and touches no memory.
    let version = unsafe { ioctl::ioctl(&container, NoArgument::<GET_API_VERSION>) };
    let version = version.map_err(|e| format!("VFIO_GET_API_VERSION: {e}"))?;
    if version != 0 {
        return Err(format!("VFIO speaks version {version}, not 0"));
    }
    let group_file = open(&group)?;
    let mut status = GroupStatus { argsz: size_of::<GroupStatus>() as u32, flags: 0 };
    // SAFETY: the call writes at most `argsz` bytes to the struct it is for.
    let call = unsafe { ioctl::Updater::<GROUP_GET_STATUS, _>::new(&mut status) };
    // SAFETY: as above.
    unsafe { ioctl::ioctl(&group_file, call) }
        .map_err(|e| format!("{group}: VFIO_GROUP_GET_STATUS: {e}"))?;
    if status.flags & VIABLE == 0 {
        return Err(format!("{group} is not viable: {:#x}", status.flags));
    }
    Ok(format!("{group}, flags {:#x}", status.flags))
}

/// A call without an argument whose answer is its result.
struct NoArgument<const OPCODE: ioctl::Opcode>;

// SAFETY: the opcodes that it is used with neither read nor write memory.
unsafe impl<const OPCODE: ioctl::Opcode> ioctl::Ioctl for NoArgument<OPCODE> {
    type Output = ioctl::IoctlOutput;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> ioctl::Opcode {
        OPCODE
    }

    fn as_ptr(&mut self) -> *mut core::ffi::c_void {
        core::ptr::null_mut()
    }

    unsafe fn output_from_ptr(
        result: ioctl::IoctlOutput,
        _: *mut core::ffi::c_void,
    ) -> rustix::io::Result<Self::Output> {
        Ok(result)
    }
}

/// The controller can be given back to the kernel, which then drives it.
pub fn binds_back(context: &mut Context) -> Result<String, String> {
    context.vfio(0)?;
    let function = context.kernel(0)?;
    let device = function.block_device(1)?;
    let mut block = Block([0; 4096]);
    direct(&device)?.read_exact_at(&mut block.0, 0).map_err(|e| format!("reading: {e}"))?;
    Ok(device.display().to_string())
}

/// A medium that fails is seen as one that fails, where it does and nowhere
/// else. Argument: the failing block of 512 bytes.
pub fn kernel_meets_failing_medium(context: &mut Context) -> Result<String, String> {
    let sector = context.arg("sector").and_then(|n| n.parse::<u64>().ok());
    let sector = sector.ok_or("which sector fails?")?;
    let disk = direct(&context.kernel(0)?.block_device(2)?)?;
    let mut block = Block([0; 4096]);
    disk.read_exact_at(&mut block.0, 0).map_err(|e| format!("reading what is whole: {e}"))?;
    match disk.read_exact_at(&mut block.0, sector * 512) {
        Err(e) => Ok(format!("sector {sector}: {e}")),
        Ok(()) => Err(format!("sector {sector} was read")),
    }
}

/// A medium that stalls keeps a read waiting until it is let go on.
pub fn kernel_waits(context: &mut Context) -> Result<String, String> {
    const STALL: Duration = Duration::from_millis(500);
    let device = context.kernel(0)?.block_device(1)?;
    let disk = direct(&device)?;
    context.host.ask(Request::Stall("ns0".into()))?;
    // More than one: the first may still get through.
    let readers: Vec<_> = (0..4u64)
        .map(|n| {
            let disk = disk.try_clone().map_err(|e| e.to_string())?;
            Ok(thread::spawn(move || {
                let mut block = Block([0; 4096]);
                disk.read_exact_at(&mut block.0, n * 4096)
            }))
        })
        .collect::<Result<_, String>>()?;
    thread::sleep(STALL);
    let early = readers.iter().filter(|reader| reader.is_finished()).count();
    let start = Instant::now();
    context.host.ask(Request::Resume("ns0".into()))?;
    for reader in readers {
        let read = reader.join().map_err(|_| "a reader panicked")?;
        read.map_err(|e| format!("reading: {e}"))?;
    }
    if early > 1 {
        return Err(format!("{early} of 4 reads did not wait"));
    }
    Ok(format!("{early} of 4 reads got through; all {} ms later", start.elapsed().as_millis()))
}

/// The host takes a controller away that the kernel's driver has. Argument:
/// which.
pub fn host_unplugs(context: &mut Context) -> Result<String, String> {
    let n = context.arg("controller").and_then(|n| n.parse().ok()).ok_or("which controller?")?;
    let function = context.kernel(n)?;
    let start = Instant::now();
    context.host.ask(Request::Unplug(format!("nvme{n}")))?;
    context.host.ask(Request::Gone(format!("nvme{n}")))?;
    if Function::controller(n).is_ok() {
        return Err(format!("{} is still there", function.address));
    }
    Ok(format!("{} was gone after {} ms", function.address, start.elapsed().as_millis()))
}

/// Fails, for the host to see it. Argument: how.
pub fn fails(context: &mut Context) -> Result<String, String> {
    const WHY: &str = "as it was asked to";
    match context.arg("how") {
        Some("says-so") => Err(WHY.into()),
        Some("panics") => panic!("{WHY}"),
        Some("aborts") => std::process::abort(),
        Some("hangs") => loop {
            thread::park();
        },
        // Not in the plan, for it takes the machine along: a crash of the kernel.
        Some("crashes") => {
            fs::write("/proc/sysrq-trigger", "c").map_err(|e| e.to_string())?;
            Err("the kernel is still there".into())
        }
        other => Err(format!("it does not know how to fail by {other:?}")),
    }
}

/// A block that direct transfers can go to.
#[repr(C, align(4096))]
struct Block([u8; 4096]);

/// Opens a block device past the page cache.
pub fn direct(device: &Path) -> Result<File, String> {
    let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    let file = open(device, flags, Mode::empty()).map_err(io::Error::from);
    file.map(File::from).map_err(|e| format!("{}: {e}", device.display()))
}
