//! Configuration space made of code, behind ECAM, and a machine around it.

use std::alloc::{Layout, alloc_zeroed};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use annulus::hal::device::{Mmio, Span};
use annulus_baremetal::pci::{Address, ConfigSpace, Ecam};
use annulus_baremetal::{Machine, Platform, Registers};

/// Where BARs are.
pub const APERTURE: u64 = 0x4000_0000;
/// As much of it as the platform maps.
pub const MAPPED: usize = 0x10000;

/// What a device does.
pub type Rule = Box<dyn Fn(&mut Device) + Send>;

/// The registers of one function: what they hold, which bits a write changes,
/// which a written one clears.
pub struct Device {
    pub parent: Option<usize>,
    pub slot: u8,
    pub bytes: Vec<u8>,
    pub writable: Vec<u8>,
    pub cleared: Vec<u8>,
    pub present: bool,
    /// Does what is special after a write to this offset.
    pub on_write: Option<fn(&mut Device, u16)>,
    /// Is reset by bit 15 of the register at 0x48.
    pub on_reset: Option<Rule>,
    /// What the test's rules want to remember.
    pub count: usize,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<u32> = (0..0x100).step_by(4).map(|at| self.word(at)).collect();
        let (slot, parent) = (self.slot, self.parent);
        write!(f, "Device {{ slot: {slot:#x}, parent: {parent:?}, words: {words:x?}, .. }}")
    }
}

impl Device {
    /// A function with a header of type 0.
    pub fn new(slot: u8, vendor: u16, device: u16) -> Self {
        let mut new = Self {
            parent: None,
            slot,
            bytes: vec![0; 4096],
            writable: vec![0; 4096],
            cleared: vec![0; 4096],
            present: true,
            on_write: None,
            on_reset: None,
            count: 0,
        };
        new.put(0, &vendor.to_le_bytes());
        new.put(2, &device.to_le_bytes());
        new.may_write(4, &[7, 4]);
        new
    }

    /// A bridge: numbers, and windows of which the second has 64 bits.
    pub fn bridge(slot: u8) -> Self {
        let mut new = Self::new(slot, 0x1b36, 0x000c).class(6, 4, 0);
        new.put(0x0e, &[1]);
        new.may_write(0x18, &[0xff; 3]);
        new.may_write(0x20, &[0xf0, 0xff, 0xf0, 0xff]);
        new.put(0x24, &[1, 0, 1, 0]);
        new.may_write(0x24, &[0xf0, 0xff, 0xf0, 0xff]);
        new.may_write(0x28, &[0xff; 8]);
        new
    }

    pub fn class(mut self, base: u8, sub: u8, interface: u8) -> Self {
        self.put(9, &[interface, sub, base]);
        self
    }

    pub fn many(mut self) -> Self {
        self.bytes[0x0e] |= 0x80;
        self
    }

    /// A BAR with these lowest bits; 64 bits if they say so.
    pub fn bar(mut self, index: usize, flags: u32, size: u64) -> Self {
        let at = 0x10 + 4 * index;
        self.put(at, &flags.to_le_bytes());
        let mask = (!(size - 1)).to_le_bytes();
        let wide = if flags & 7 == 4 { 8 } else { 4 };
        self.may_write(at, &mask[..wide]);
        self
    }

    pub fn bar_at(mut self, index: usize, address: u64) -> Self {
        let at = 0x10 + 4 * index;
        let wide = if self.bytes[at] & 7 == 4 { 8 } else { 4 };
        let flags = self.bytes[at] & 0xf;
        self.put(at, &address.to_le_bytes()[..wide]);
        self.bytes[at] |= flags;
        self
    }

    /// A capability; the list is in the order of the calls.
    pub fn capability(mut self, at: u8, bytes: &[u8]) -> Self {
        self.bytes[6] |= 0x10;
        let mut link = 0x34;
        while self.bytes[link] != 0 {
            link = usize::from(self.bytes[link]) + 1;
        }
        self.bytes[link] = at;
        self.put(at.into(), bytes);
        self
    }

    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn may_write(&mut self, at: usize, mask: &[u8]) {
        self.writable[at..at + mask.len()].copy_from_slice(mask);
    }

    pub fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    pub fn half(&self, at: usize) -> u16 {
        self.word(at & !3).to_le_bytes()[at & 2..][..2]
            .iter()
            .rev()
            .fold(0, |all, byte| all << 8 | u16::from(*byte))
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        for (at, byte) in (at..).zip(bytes) {
            let (mask, clear) = (self.writable[at], self.cleared[at]);
            let kept = self.bytes[at] & !mask & !(clear & byte);
            self.bytes[at] = kept | byte & mask;
        }
        if let Some(rule) = self.on_write {
            rule(self, at as u16);
        }
        if at == 0x48
            && self.bytes[0x49] & 0x80 != 0
            && let Some(rule) = self.on_reset.take()
        {
            rule(self);
            self.on_reset = Some(rule);
        }
    }
}

#[derive(Clone, Default)]
pub struct Fake(Arc<Mutex<Vec<Device>>>);

impl Fake {
    pub fn new(devices: impl IntoIterator<Item = Device>) -> Self {
        Self(Arc::new(Mutex::new(devices.into_iter().collect())))
    }

    /// Adds one behind a bridge; its number.
    pub fn below(&self, parent: usize, mut device: Device) -> usize {
        device.parent = Some(parent);
        let mut devices = self.devices();
        devices.push(device);
        devices.len() - 1
    }

    pub fn devices(&self) -> MutexGuard<'_, Vec<Device>> {
        self.0.lock().unwrap()
    }

    pub fn ecam(&self) -> Ecam<Fake> {
        Ecam::new(self.clone(), 0)
    }

    /// Where a device can be found now.
    pub fn address(&self, wanted: usize) -> Option<Address> {
        let devices = self.devices();
        (0..=255u8).find_map(|bus| {
            let slot = devices[wanted].slot;
            let address = Address::new(bus, slot >> 3, slot & 7);
            (find(&devices, bus, slot) == Some(wanted)).then_some(address)
        })
    }

    fn access(&self, offset: usize, act: impl FnOnce(&mut Device, usize)) {
        let (bus, slot, at) = ((offset >> 20) as u8, (offset >> 12) as u8, offset & 0xfff);
        let mut devices = self.devices();
        if let Some(found) = find(&devices, bus, slot)
            && devices[found].present
        {
            act(&mut devices[found], at);
        }
    }
}

/// The device that answers: each bridge passes its buses on.
fn find(devices: &[Device], bus: u8, slot: u8) -> Option<usize> {
    let behind = |device: &Device| match device.parent {
        None => Some(0),
        Some(parent) => {
            let mut above = Some(parent);
            while let Some(bridge) = above {
                let [_, first, last, _] = devices[bridge].word(0x18).to_le_bytes();
                if !(first..=last).contains(&bus) {
                    return None;
                }
                above = devices[bridge].parent;
            }
            Some(devices[parent].bytes[0x19])
        }
    };
    devices.iter().position(|device| device.slot == slot && behind(device) == Some(bus))
}

impl Mmio for Fake {
    fn len(&self) -> usize {
        // Sixteen buses.
        16 << 20
    }

    fn read32(&self, offset: usize) -> u32 {
        let mut value = u32::MAX;
        self.access(offset, |device, at| value = device.word(at));
        value
    }

    fn write32(&self, offset: usize, value: u32) {
        self.access(offset, |device, at| device.write(at, &value.to_le_bytes()));
    }
}

impl Registers for Fake {
    fn read8(&self, offset: usize) -> u8 {
        let mut value = u8::MAX;
        self.access(offset, |device, at| value = device.bytes[at]);
        value
    }

    fn write8(&self, offset: usize, value: u8) {
        self.access(offset, |device, at| device.write(at, &[value]));
    }

    fn read16(&self, offset: usize) -> u16 {
        let mut value = u16::MAX;
        self.access(offset, |device, at| value = device.half(at));
        value
    }

    fn write16(&self, offset: usize, value: u16) {
        self.access(offset, |device, at| device.write(at, &value.to_le_bytes()));
    }
}

/// The machine: time goes on by looking at it, and the aperture is memory.
#[derive(Clone, Copy)]
pub struct Board {
    aperture: NonNull<u8>,
    now: &'static AtomicU64,
}

pub fn machine() -> Machine<Board> {
    let layout = Layout::from_size_align(MAPPED, 4096).unwrap();
    // SAFETY: not of size 0.
    let aperture = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
    Machine::new(Board { aperture, now: Box::leak(Box::new(AtomicU64::new(0))) })
}

// SAFETY: the aperture is leaked memory that only windows use.
unsafe impl Platform for Board {
    fn now(&self) -> u64 {
        self.now.fetch_add(100_000, Ordering::Relaxed)
    }

    fn device_address(&self, _: usize) -> Option<Span> {
        None
    }

    fn alloc(&self, _: usize) -> Option<NonNull<u8>> {
        None
    }

    unsafe fn free(&self, _: NonNull<u8>, _: usize) {}

    fn registers(&self, physical: u64, len: usize) -> Option<NonNull<u8>> {
        let at = usize::try_from(physical.checked_sub(APERTURE)?).ok()?;
        let inside = at.checked_add(len)? <= MAPPED;
        // SAFETY: inside.
        inside.then(|| unsafe { self.aperture.add(at) })
    }
}

/// A function's registers by name.
pub fn command(fake: &Fake, device: usize) -> u16 {
    fake.devices()[device].half(4)
}

/// Every register of the configuration space of all devices.
pub fn image(config: &impl ConfigSpace, at: Address) -> Vec<u32> {
    (0..64).map(|word| config.read32(at, word * 4)).collect()
}
