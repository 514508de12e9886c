//! Memory as the device sees it: only what was allocated or mapped, at
//! addresses that have nothing to do with the processor's.

use annulus::errno::Errno;
use annulus::hal::device::{Coherent, PAGE, Span};
use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::NonNull;

/// Device addresses begin beyond 32 bits, so that none of them is ever taken
/// for one of the processor's or cut.
const FIRST: u64 = 0x77_0000_0000;

/// What the device reaches from one device address on.
struct Region {
    len: usize,
    /// The processor's address; its provenance was exposed.
    addr: usize,
    /// The mapping it is part of; `None` for what was allocated.
    mapping: Option<u32>,
    /// Where DMA is not coherent: what the device sees.
    cache: Option<Box<[u8]>>,
}

struct Mapping {
    addr: usize,
    len: usize,
    /// The device address of each part, and its bytes: whole pages.
    pages: Vec<u64>,
    bytes: usize,
}

/// Memory made reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped(u32);

/// All of it.
#[derive(Default)]
pub struct Memory {
    regions: BTreeMap<u64, Region>,
    mappings: BTreeMap<u32, Mapping>,
    next: u64,
    /// Pages of a mapping do not follow each other for the device.
    pub scatter: bool,
    /// The allocation that fails: 0 is the next.
    pub fail_in: Option<u32>,
    /// Accesses to what is not there.
    pub faults: Vec<String>,
}

fn layout(len: usize) -> Layout {
    Layout::from_size_align(len, PAGE).expect("pages")
}

impl Memory {
    fn place(&mut self, len: usize) -> u64 {
        let at = FIRST + self.next;
        // A page between, so that running past an end is seen.
        self.next += (len.next_multiple_of(PAGE) + PAGE) as u64;
        at
    }

    pub fn alloc(&mut self, len: usize) -> Result<Coherent, Errno> {
        if let Some(left) = &mut self.fail_in {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => return Err(Errno::ENOMEM),
            }
        }
        assert!(len != 0, "an allocation of nothing");
        let len = len.next_multiple_of(PAGE);
        // SAFETY: not of size 0.
        let ptr = unsafe { std::alloc::alloc_zeroed(layout(len)) };
        let ptr = NonNull::new(ptr).expect("memory for the test");
        let device = self.place(len);
        let addr = ptr.as_ptr().expose_provenance();
        self.regions.insert(device, Region { len, addr, mapping: None, cache: None });
        Ok(Coherent { ptr, device, len })
    }

    /// Gives back what [`alloc`](Self::alloc) gave.
    pub fn free(&mut self, memory: &Coherent) {
        match self.regions.remove(&memory.device) {
            Some(region) if region.mapping.is_none() && region.len == memory.len => {
                assert_eq!(region.addr, memory.ptr.as_ptr().addr(), "another's memory");
                // SAFETY: allocated with this layout, and taken off the list.
                unsafe { std::alloc::dealloc(memory.ptr.as_ptr(), layout(memory.len)) };
            }
            _ => self.faults.push(format!("freed what was not allocated: {memory:?}")),
        }
    }

    /// Allocations that were not given back.
    pub fn allocations(&self) -> usize {
        self.regions.values().filter(|region| region.mapping.is_none()).count()
    }

    /// Mappings that were not ended.
    pub fn mappings(&self) -> usize {
        self.mappings.len()
    }

    pub fn map(&mut self, addr: usize, len: usize, coherent: bool) -> Mapped {
        let id = self.next as u32;
        let first = addr / PAGE * PAGE;
        let count = (addr + len - first).div_ceil(PAGE);
        let start = self.place(count * PAGE);
        // In one piece, or backwards, so that no two pages follow each other.
        let pages = match self.scatter {
            true => (0..count).rev().map(|page| start + (page * PAGE) as u64).collect(),
            false => vec![start],
        };
        let bytes = count * PAGE / pages.len();
        for (part, device) in pages.iter().enumerate() {
            // Only the bytes that are the mapping's.
            let from = (first + part * bytes).max(addr);
            let to = (first + (part + 1) * bytes).min(addr + len);
            let cache = (!coherent).then(|| vec![0xcc; to - from].into());
            let region = Region { len: to - from, addr: from, mapping: Some(id), cache };
            self.regions.insert(device + (from % PAGE) as u64, region);
        }
        self.mappings.insert(id, Mapping { addr, len, bytes, pages });
        Mapped(id)
    }

    pub fn unmap(&mut self, buffer: Mapped) {
        if self.mappings.remove(&buffer.0).is_none() {
            self.faults.push(format!("unmapped what was not mapped: {buffer:?}"));
        }
        self.regions.retain(|_, region| region.mapping != Some(buffer.0));
    }

    /// Where the device finds a mapping's memory.
    pub fn of(&self, buffer: Mapped) -> Vec<(u64, usize)> {
        let regions = self.regions.iter().filter(|(_, r)| r.mapping == Some(buffer.0));
        regions.map(|(device, region)| (*device, region.len)).collect()
    }

    pub fn span(&self, buffer: Mapped, addr: usize) -> Span {
        let mapping = &self.mappings[&buffer.0];
        let inside = mapping.addr..mapping.addr + mapping.len;
        assert!(inside.contains(&addr), "a place outside of its mapping");
        let skip = addr - mapping.addr / PAGE * PAGE;
        let (part, inside) = (skip / mapping.bytes, skip % mapping.bytes);
        Span { device: mapping.pages[part] + inside as u64, len: mapping.bytes - inside }
    }

    /// The regions that a range of mapped memory lies in.
    fn regions_of(&self, addr: usize, len: usize) -> Vec<u64> {
        let mut all = Vec::new();
        for mapping in self.mappings.values() {
            let (from, to) = (addr.max(mapping.addr), (addr + len).min(mapping.addr + mapping.len));
            if from < to {
                let start = mapping.addr / PAGE * PAGE;
                for part in (from - start) / mapping.bytes..=(to - 1 - start) / mapping.bytes {
                    // The first begins where the mapping does.
                    let inside = if part == 0 { mapping.addr - start } else { 0 };
                    all.push(mapping.pages[part] + inside as u64);
                }
            }
        }
        all
    }

    /// Device addresses of mapped memory, in pieces.
    pub fn pieces(&self, addr: usize, len: usize) -> Vec<(u64, usize)> {
        let piece = |device: u64| {
            let region = &self.regions[&device];
            let from = region.addr.max(addr);
            let to = (region.addr + region.len).min(addr + len);
            (device + (from - region.addr) as u64, to - from)
        };
        self.regions_of(addr, len).into_iter().map(piece).collect()
    }

    /// Between the processor's memory and what the device sees of it.
    pub fn sync(&mut self, addr: usize, len: usize, for_device: bool) {
        for device in self.regions_of(addr, len) {
            let region = self.regions.get_mut(&device).expect("a part of the mapping");
            let from = region.addr.max(addr);
            let to = (region.addr + region.len).min(addr + len);
            let Some(cache) = region.cache.as_mut() else { continue };
            let cache = &mut cache[from - region.addr..to - region.addr];
            let memory = std::ptr::with_exposed_provenance_mut::<u8>(from);
            // SAFETY: mapped memory is valid until it is unmapped, and in a
            // request for the time of this call.
            unsafe {
                match for_device {
                    true => memory.copy_to_nonoverlapping(cache.as_mut_ptr(), cache.len()),
                    false => memory.copy_from_nonoverlapping(cache.as_ptr(), cache.len()),
                }
            }
        }
    }

    /// Calls `f` with each piece of `len` bytes at a device address: bytes
    /// before it, memory, length. False, and a fault, if they are not there.
    fn reach(&mut self, device: u64, len: usize, mut f: impl FnMut(usize, *mut u8, usize)) -> bool {
        let mut done = 0;
        while done < len {
            let at = device + done as u64;
            let found = self.regions.range_mut(..=at).next_back();
            let found = found.filter(|(start, region)| at < **start + region.len as u64);
            let Some((start, region)) = found else {
                self.faults.push(format!("the device reached for {at:#x}, which is not there"));
                return false;
            };
            let skip = (at - start) as usize;
            let piece = (region.len - skip).min(len - done);
            let memory = match &mut region.cache {
                Some(cache) => cache.as_mut_ptr(),
                None => std::ptr::with_exposed_provenance_mut(region.addr),
            };
            // SAFETY: inside the region.
            f(done, unsafe { memory.add(skip) }, piece);
            done += piece;
        }
        true
    }

    pub fn read(&mut self, device: u64, to: &mut [u8]) -> bool {
        let target = to.as_mut_ptr();
        self.reach(device, to.len(), |at, memory, len| {
            // SAFETY: `reach` gives memory that is there; `at` and `len` lie
            // in `to`.
            unsafe { target.add(at).copy_from_nonoverlapping(memory, len) };
        })
    }

    pub fn write(&mut self, device: u64, from: &[u8]) -> bool {
        let source = from.as_ptr();
        self.reach(device, from.len(), |at, memory, len| {
            // SAFETY: as above.
            unsafe { memory.copy_from_nonoverlapping(source.add(at), len) };
        })
    }

    /// One little-endian word, whole.
    pub fn write32(&mut self, device: u64, value: u32) -> bool {
        self.reach(device, 4, |_, memory, len| {
            assert!(len == 4 && memory.addr().is_multiple_of(4), "a word in two pieces");
            // SAFETY: as above; aligned.
            unsafe { memory.cast::<u32>().write_volatile(value.to_le()) };
        })
    }

    pub fn read32(&mut self, device: u64) -> Option<u32> {
        let mut word = [0; 4];
        self.read(device, &mut word).then(|| u32::from_le_bytes(word))
    }

    pub fn read64(&mut self, device: u64) -> Option<u64> {
        let mut word = [0; 8];
        self.read(device, &mut word).then(|| u64::from_le_bytes(word))
    }
}

impl Drop for Memory {
    /// What a driver was right to give up is the test's to free.
    fn drop(&mut self) {
        for region in self.regions.values().filter(|region| region.mapping.is_none()) {
            let memory = std::ptr::with_exposed_provenance_mut(region.addr);
            // SAFETY: allocated with this layout; the device has ended.
            unsafe { std::alloc::dealloc(memory, layout(region.len)) };
        }
    }
}
