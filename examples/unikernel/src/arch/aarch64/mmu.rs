//! Page tables: every address is where it is, and nothing is mapped that the
//! image does not use.
//!
//! Granules of 4 KiB, 48 bits. Memory is normal, write-back and inner
//! shareable, registers are Device-nGnRnE (Arm ARM D8.6). What can be executed
//! cannot be written; below each stack one page is missing.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::ptr::NonNull;

use annulus::sync::Mutex;

const ENTRIES: usize = 512;
const PAGE: usize = 1 << 12;
const BLOCK: usize = 1 << 21;
const GIB: usize = 1 << 30;

/// Attribute 0 is Device-nGnRnE, 1 is normal memory, write-back.
pub const MAIR: u64 = 0xff00;
/// 48 bits, cached and inner shareable walks, and no second half.
pub const TCR: u64 = 16 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23;

// Descriptors (Arm ARM D8.3): a table or a page, and a block; what may be done.
const TABLE: u64 = 3;
const LEAF: u64 = 1;
const DEVICE: u64 = ACCESSED | NEVER_EXECUTE;
const MEMORY: u64 = ACCESSED | 1 << 2 | 3 << 8;
const READ_ONLY: u64 = 1 << 7;
const ACCESSED: u64 = 1 << 10;
const NEVER_EXECUTE: u64 = 3 << 53;

#[repr(C, align(4096))]
pub struct Table(UnsafeCell<[u64; ENTRIES]>);

// SAFETY: written before there is a second core, and by `registers` under a
// lock; a store of an entry is one access for the walks of either core.
unsafe impl Sync for Table {}

/// 512 GiB an entry.
pub static ROOT: Table = Table::new();
/// 1 GiB an entry: the first and the second 512 GiB.
static FIRST: Table = Table::new();
static SECOND: Table = Table::new();
/// 2 MiB an entry: the GiB that the image lies in.
static NEAR: Table = Table::new();
/// 4 KiB an entry: the image's first 2 MiB.
static IMAGE: Table = Table::new();

unsafe extern "C" {
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __guard: u8;
    static __second_guard: u8;
    static __image_end: u8;
}

/// Bounds of the image, by the linker's script.
macro_rules! bound {
    ($symbol:ident) => {
        (&raw const $symbol).addr()
    };
}

impl Table {
    const fn new() -> Self {
        Self(UnsafeCell::new([0; ENTRIES]))
    }

    fn address(&self) -> u64 {
        self.0.get().addr() as u64
    }

    /// Volatile, so that no wider access is made of several: without the MMU
    /// all memory is a device's.
    fn set(&self, index: usize, descriptor: u64) {
        assert!(index < ENTRIES);
        // SAFETY: inside the table, and nobody else writes there now.
        unsafe { self.0.get().cast::<u64>().add(index).write_volatile(descriptor) };
    }
}

/// Where the image begins.
pub fn image_start() -> usize {
    bound!(__image_start)
}

/// Where the image ends: no memory above is mapped.
pub fn image_end() -> usize {
    bound!(__image_end)
}

/// Fills the tables. Called with the MMU off, and so without anything of the
/// tables in a cache that is newer than memory.
pub extern "C" fn fill() {
    ROOT.set(0, FIRST.address() | TABLE);
    ROOT.set(1, SECOND.address() | TABLE);
    // The first GiB of this machine has its registers.
    FIRST.set(0, DEVICE | LEAF);
    let (start, end) = (bound!(__image_start), image_end());
    FIRST.set(start / GIB, NEAR.address() | TABLE);
    // Below the image there is the device tree.
    let mut at = start & !(GIB - 1);
    while at < start {
        let descriptor = at as u64 | MEMORY | READ_ONLY | NEVER_EXECUTE | LEAF;
        NEAR.set(at % GIB / BLOCK, descriptor);
        at += BLOCK;
    }
    NEAR.set(at % GIB / BLOCK, IMAGE.address() | TABLE);
    at += BLOCK;
    while at < end {
        NEAR.set(at % GIB / BLOCK, at as u64 | MEMORY | NEVER_EXECUTE | LEAF);
        at += BLOCK;
    }
    let (text, rodata) = (bound!(__text_end), bound!(__rodata_end));
    let guards = [bound!(__guard), bound!(__second_guard)];
    for index in 0..ENTRIES {
        let at = start + index * PAGE;
        if at == guards[0] || at == guards[1] {
            continue;
        }
        let rights = match at {
            _ if at < text => READ_ONLY,
            _ if at < rodata => READ_ONLY | NEVER_EXECUTE,
            _ => NEVER_EXECUTE,
        };
        IMAGE.set(index, at as u64 | MEMORY | rights | TABLE);
    }
    // What a loader left in the cache of the tables' lines is older.
    for table in [&ROOT, &FIRST, &SECOND, &NEAR, &IMAGE] {
        for line in (0..PAGE).step_by(16) {
            // SAFETY: the line holds nothing that is not in memory.
            unsafe { asm!("dc ivac, {}", in(reg) table.address() + line as u64) };
        }
    }
    // SAFETY: a barrier: the walks come after what they find.
    unsafe { asm!("dsb sy") };
}

/// Where device registers at a physical address are mapped: GiB by GiB. `None`
/// if they lie where memory does, or above what the tables reach.
pub fn registers(physical: u64, len: usize) -> Option<NonNull<u8>> {
    static CHANGING: Mutex<()> = Mutex::new(());
    let last = physical.checked_add((len as u64).max(1) - 1)?;
    let (from, to) = (physical as usize / GIB, last as usize / GIB);
    let memory = bound!(__image_start) / GIB;
    if to >= 2 * ENTRIES || (from..=to).contains(&memory) {
        return None;
    }
    CHANGING.with(|()| {
        for gib in from..=to {
            let table = if gib < ENTRIES { &FIRST } else { &SECOND };
            table.set(gib % ENTRIES, (gib * GIB) as u64 | DEVICE | LEAF);
        }
        // SAFETY: barriers: what was written is there for the next walk. The
        // entry was invalid, or the same, so nothing is to be forgotten.
        unsafe { asm!("dsb ishst", "isb") };
    });
    NonNull::new(physical as *mut u8)
}
