//! What the fuzz targets have in common: numbers out of a fuzzer's bytes, and
//! the switch for seeded faults.

use std::cell::Cell;
use std::rc::Rc;

/// A fuzzer's bytes, from which whoever plays the peer takes its decisions.
/// When they are used up every number is 0.
#[derive(Clone, Debug, Default)]
pub struct Bytes {
    all: Rc<[u8]>,
    /// The copies take from the same.
    taken: Rc<Cell<usize>>,
}

impl Bytes {
    /// These bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self { all: bytes.into(), taken: Rc::default() }
    }

    /// Whether none are left.
    pub fn is_empty(&self) -> bool {
        self.taken.get() >= self.all.len()
    }

    /// The next `N` bytes.
    pub fn take<const N: usize>(&self) -> [u8; N] {
        let at = self.taken.get();
        self.taken.set(at + N);
        std::array::from_fn(|n| self.all.get(at + n).copied().unwrap_or(0))
    }

    /// A byte.
    pub fn u8(&self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    /// Two bytes.
    pub fn u16(&self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    /// Four bytes.
    pub fn u32(&self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    /// Eight bytes.
    pub fn u64(&self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// Yes or no.
    pub fn flag(&self) -> bool {
        self.u8() & 1 != 0
    }

    /// A number below `end`, of one byte if that does.
    pub fn below(&self, end: usize) -> usize {
        let number = if end > 256 { usize::from(self.u16()) } else { usize::from(self.u8()) };
        number % end.max(1)
    }

    /// A number such as those that are wrong by little, by much, or not at all.
    pub fn odd(&self, about: u32) -> u32 {
        match self.u8() {
            byte @ 0..128 => about.wrapping_add(u32::from(byte & 15)).wrapping_sub(4),
            128..160 => about.wrapping_add(1 << 31),
            160..192 => 0,
            192..224 => u32::MAX,
            _ => self.u32(),
        }
    }
}

/// Switches the fault on that the environment names, so that a target shows
/// that it finds it.
pub fn select_fault() {
    let Some(name) = std::env::var_os("ANNULUS_FAULT").filter(|name| !name.is_empty()) else {
        return;
    };
    #[cfg(annulus_faults)]
    match annulus::fault::Fault::from_name(&name.to_string_lossy()) {
        Some(fault) => annulus::fault::select(Some(fault)),
        None => panic!("there is no fault {name:?}"),
    }
    #[cfg(not(annulus_faults))]
    panic!("{name:?}: this build has no seeded faults (--cfg annulus_faults)");
}
