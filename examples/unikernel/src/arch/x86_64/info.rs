//! What the loader and the firmware tell: the start info of PVH, and ACPI's
//! tables, as far as configuration space goes.

use annulus::sync::Mutex;

use annulus_baremetal::pci::Windows;

use crate::arch::{Pci, VirtioMmio};

/// "xEn3", with its highest bit set.
const MAGIC: u32 = 0x336e_c578;
/// Bytes of a command line that are kept.
const LINE: usize = 4096;

/// `hvm_start_info`, as far as it is used.
#[derive(Clone, Copy)]
#[repr(C)]
#[allow(dead_code, reason = "the loader's layout")]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    modules_at: u64,
    command_line: u64,
    rsdp: u64,
}

struct Told {
    line: [u8; LINE],
    len: usize,
    rsdp: u64,
}

static TOLD: Mutex<Told> = Mutex::new(Told { line: [0; LINE], len: 0, rsdp: 0 });

/// Reads memory of the firmware's or the loader's.
///
/// # Safety
/// It is plain data there.
unsafe fn read<T: Copy>(at: u64) -> T {
    // SAFETY: mapped one to one; the caller's promise.
    unsafe { (at as *const T).read_unaligned() }
}

/// Keeps what the loader says, before its memory is used for something else.
pub fn init(start_info: u64) {
    // SAFETY: what the loader passes, by the PVH protocol.
    let info: StartInfo = unsafe { read(start_info) };
    if info.magic != MAGIC {
        return;
    }
    TOLD.with(|told| {
        told.rsdp = info.rsdp;
        while told.len < LINE && info.command_line != 0 {
            // SAFETY: a string that ends in a zero.
            let byte: u8 = unsafe { read(info.command_line + told.len as u64) };
            if byte == 0 {
                break;
            }
            told.line[told.len] = byte;
            told.len += 1;
        }
    });
}

/// What the loader was told for the image.
pub fn command_line() -> &'static str {
    TOLD.with(|told| {
        let line = core::ptr::from_ref(&told.line[..told.len]);
        // SAFETY: a static's, and it does not change after `init`.
        core::str::from_utf8(unsafe { &*line }).unwrap_or("")
    })
}

/// The virtio-mmio devices that the loader tells of, as Linux takes them:
/// `virtio_mmio.device=SIZE@ADDRESS:IRQ`.
pub fn virtio_mmio() -> impl Iterator<Item = VirtioMmio> {
    let words = command_line().split_ascii_whitespace();
    words.filter_map(|word| device(word.strip_prefix("virtio_mmio.device=")?))
}

fn device(text: &str) -> Option<VirtioMmio> {
    let (len, rest) = text.split_once('@')?;
    let mut rest = rest.split(':');
    let (len, unit) = match len.strip_suffix('K') {
        Some(len) => (len, 1024),
        None => (len, 1),
    };
    let base = number(rest.next()?)?;
    let irq = number(rest.next()?)? as u32;
    Some(VirtioMmio { base, len: number(len)? as usize * unit, irq })
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// How configuration space is reached: as ACPI's MCFG says, else by ports.
pub fn pci() -> Option<Pci> {
    Some(table(*b"MCFG").map_or(Pci::Ports, |mcfg| {
        // The header and 8 bytes, then an entry for each range of buses.
        // SAFETY: inside the table, which is the firmware's data.
        let (base, first, last) =
            unsafe { (read::<u64>(mcfg + 44), read::<u8>(mcfg + 54), read::<u8>(mcfg + 55)) };
        Pci::Ecam { base: base + (u64::from(first) << 20), buses: first..=last }
    }))
}

/// The firmware has set PCI up.
pub fn pci_windows() -> Option<Windows> {
    None
}

/// Where ACPI's table of that name is.
fn table(name: [u8; 4]) -> Option<u64> {
    let rsdp = TOLD.with(|told| told.rsdp);
    if rsdp == 0 {
        return None;
    }
    // SAFETY: what the loader says is the root pointer; the rest is found as
    // ACPI has it (5.2.5 to 5.2.8), and is the firmware's data.
    unsafe {
        let extended = read::<u8>(rsdp + 15) >= 2;
        let (root, size) = match extended {
            true => (read::<u64>(rsdp + 24), 8),
            false => (u64::from(read::<u32>(rsdp + 16)), 4),
        };
        let end = root + u64::from(read::<u32>(root + 4));
        let entries = (root + 36..end).step_by(size);
        let mut tables = entries.map(|at| match extended {
            true => read::<u64>(at),
            false => u64::from(read::<u32>(at)),
        });
        tables.find(|at| read::<[u8; 4]>(*at) == name)
    }
}
