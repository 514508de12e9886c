//! Memory for the device: mappings, their number, their errors.

use std::sync::Arc;

use annulus::errno::Errno;
use annulus::hal::device::{Coherent, Dma};

use super::fake::{COMMAND, Fake, PAGE};
use crate::vfio::{Error, Interface, VfioDevice, sys};

const P: usize = PAGE as usize;
const HUGE: usize = 2 << 20;

/// Anonymous memory on a page's boundary, given up when dropped.
struct Pages(usize, usize);

impl Pages {
    fn new(pages: usize) -> Self {
        let (len, prot) = (pages * P, libc::PROT_READ | libc::PROT_WRITE);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, where the kernel finds room.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        Self(at.addr(), len)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: our own mapping.
        unsafe { libc::munmap(self.0 as *mut _, self.1) };
    }
}

fn map(device: &VfioDevice, addr: usize, len: usize) -> Result<<VfioDevice as Dma>::Buffer, Error> {
    // SAFETY: the scripted kernel writes to nothing.
    unsafe { device.map_buffer(addr, len) }
}

fn free(device: &VfioDevice, memory: Coherent) {
    // SAFETY: nobody uses it.
    unsafe { device.free(memory) }
}

/// Where the device's `iova` is in memory, by the kernel's mappings.
fn memory_at(fake: &Fake, iova: u64) -> Option<u64> {
    let state = fake.state();
    let (&at, &(addr, len)) = state.maps.range(..=iova).next_back()?;
    (iova < at + len).then(|| addr + (iova - at))
}

fn both() -> [Arc<Fake>; 2] {
    [Fake::new(), Fake::with_cdev()]
}

#[test]
fn small_allocations_share_a_mapping() {
    for fake in both() {
        let device = fake.open_device();
        let mut all: Vec<Coherent> = Vec::new();
        for n in 0..64 {
            let memory = device.alloc(1 + n * 100).expect("memory");
            let addr = memory.ptr.as_ptr().addr();
            assert!(addr.is_multiple_of(P) && memory.len.is_multiple_of(P));
            assert_eq!(memory_at(&fake, memory.device), Some(addr as u64));
            for other in &all {
                let (a, b) = (other.device..other.device + other.len as u64, memory.device);
                assert!(!a.contains(&b));
            }
            all.push(memory);
        }
        assert_eq!(device.mapped().entries, 1);
        assert_eq!(device.mapped().bytes, HUGE as u64);
        for memory in all {
            free(&device, memory);
        }
        // One arena is kept, and used again.
        free(&device, device.alloc(P).expect("memory"));
        assert_eq!(fake.state().maps.len(), 1);
        assert_eq!(fake.state().most_maps, 1);
        drop(device);
        assert!(fake.state().maps.is_empty());
    }
}

#[test]
fn large_allocations_come_and_go() {
    let fake = Fake::new();
    let device = fake.open_device();
    let small = device.alloc(P).expect("memory");
    let large = device.alloc(3 * HUGE + 1).expect("memory");
    assert_eq!(large.len, 3 * HUGE + P);
    // For superpages, memory and address are congruent.
    let addr = large.ptr.as_ptr().addr() as u64;
    assert_eq!(addr % HUGE as u64, large.device % HUGE as u64);
    // SAFETY: just allocated.
    unsafe { assert_eq!(large.ptr.add(large.len - 1).read(), 0) };
    assert_eq!(fake.state().maps.len(), 2);
    free(&device, large);
    assert_eq!(fake.state().maps.len(), 1);
    free(&device, small);
}

#[test]
fn sixty_four_thousand_buffers_of_one_memory_take_one_mapping() {
    for fake in both() {
        fake.state().entries = 8;
        let device = fake.open_device();
        let memory = Pages::new(1 << 16);
        // The whole first, as one registered buffer, or as one call's run.
        let whole = map(&device, memory.0, memory.1).expect("mapped");
        let parts: Vec<_> =
            (0..1 << 16).map(|n| map(&device, memory.0 + n * P, P).expect("inside")).collect();
        device.unmap(whole);
        assert_eq!(fake.state().maps.len(), 1);
        for (n, part) in parts.iter().enumerate().step_by(977) {
            let addr = memory.0 + n * P;
            let span = device.span(part, addr + 17);
            assert_eq!(memory_at(&fake, span.device), Some(addr as u64 + 17));
            assert_eq!(span.len, memory.1 - n * P - 17);
        }
        for part in parts {
            assert_eq!(fake.state().maps.len(), 1);
            device.unmap(part);
        }
        assert!(fake.state().maps.is_empty());
        assert_eq!(device.mapped().bytes, 0);
    }
}

#[test]
fn buffers_in_a_page_share_it() {
    let fake = Fake::new();
    let device = fake.open_device();
    let memory = Pages::new(4);
    let first = map(&device, memory.0 + 100, 200).expect("mapped");
    let second = map(&device, memory.0 + 2000, 2096).expect("the same page");
    assert_eq!(fake.state().maps.len(), 1);
    // One byte further is another page.
    let third = map(&device, memory.0 + 2000, 2097).expect("two pages");
    assert_eq!(fake.state().maps.len(), 2);
    assert_eq!(
        memory_at(&fake, device.span(&third, memory.0 + 4096).device),
        Some(memory.0 as u64 + 4096)
    );
    device.unmap(first);
    device.unmap(second);
    device.unmap(third);
    assert!(fake.state().maps.is_empty());
}

#[test]
fn memory_that_was_given_up_is_mapped_anew() {
    let fake = Fake::new();
    let device = fake.open_device();
    let memory = Pages::new(8);
    let whole = map(&device, memory.0, 8 * P).expect("mapped");
    let kept = map(&device, memory.0, P).expect("inside");
    device.unmap(whole);
    // From here on the application may have remapped pages 1 to 7.
    let again = map(&device, memory.0 + 4 * P, P).expect("mapped");
    assert_eq!(fake.state().maps.len(), 2);
    let old = device.span(&kept, memory.0).device + 4 * PAGE;
    assert_ne!(device.span(&again, memory.0 + 4 * P).device, old);
    device.unmap(kept);
    device.unmap(again);
}

#[test]
fn addresses_stay_in_the_ranges() {
    // Many windows, so that iommufd has to be asked twice.
    let ranges: Vec<(u64, u64)> = (1..60).map(|n| (n << 20, (n << 20) + 3 * PAGE - 1)).collect();
    for fake in both() {
        fake.state().ranges = ranges.clone();
        let device = fake.open_device();
        let memory = Pages::new(60);
        let buffers: Vec<_> =
            (0..59).map(|n| map(&device, memory.0 + n * P, 2 * P).expect("room")).collect();
        assert_eq!(fake.state().maps.len(), 59);
        let error = map(&device, memory.0, 3 * P).expect_err("no window is left");
        assert!(matches!(error, Error::AddressSpace { len } if len == 3 * P), "{error}");
        for buffer in buffers {
            device.unmap(buffer);
        }
        device.unmap(map(&device, memory.0, 3 * P).expect("a whole window"));
    }
}

#[test]
fn an_iommu_that_does_not_tell_gets_safe_addresses() {
    let fake = Fake::new();
    fake.state().ranges.clear();
    let device = fake.open_device();
    let memory = device.alloc(P).expect("memory");
    assert_eq!(memory.device, HUGE as u64);
    free(&device, memory);
}

#[test]
fn used_up_mappings_say_what_to_do() {
    let fake = Fake::new();
    fake.state().entries = 2;
    let device = fake.open_device();
    let memory = Pages::new(6);
    let _a = map(&device, memory.0, P).expect("mapped");
    let b = map(&device, memory.0 + 2 * P, P).expect("mapped");
    let error = map(&device, memory.0 + 4 * P, P).expect_err("used up");
    assert!(matches!(error, Error::Entries { entries: 2 }), "{error}");
    assert!(error.to_string().contains("as one buffer"), "{error}");
    assert_eq!(error.errno(), Errno::ENOSPC);
    // Its address was given back, and room is used again.
    device.unmap(b);
    let c = map(&device, memory.0 + 4 * P, P).expect("room again");
    assert!(device.span(&c, memory.0 + 4 * P).device < 0x2_0000);
}

#[test]
fn the_locked_memory_limit_says_what_to_do() {
    // The soft limit only, which nothing else here runs into.
    let old = rustix::process::getrlimit(rustix::process::Resource::Memlock);
    let limit = 64 * PAGE;
    let new = rustix::process::Rlimit { current: Some(limit), maximum: old.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Memlock, new).expect("a lower limit");
    for fake in both() {
        fake.state().locked = limit;
        let device = fake.open_device();
        // An arena of 2 MiB is too much: it gets what it needs.
        let queue = device.alloc(4 * P).expect("a small arena");
        assert_eq!(device.mapped().bytes, 4 * PAGE);
        let memory = Pages::new(64);
        let error = map(&device, memory.0, 64 * P).expect_err("too much");
        let Error::MemoryLimit { needed, pinned, limit: said } = error else { panic!("{error}") };
        assert_eq!((needed, pinned, said), (64 * PAGE, 4 * PAGE, limit));
        assert!(error.to_string().contains("ulimit -l"), "{error}");
        assert_eq!(error.errno(), Errno::ENOMEM);
        // A ring gets the number, whoever it asks for says the rest, once.
        // SAFETY: the scripted kernel writes to nothing.
        let errno = unsafe { Dma::map(&device, memory.0, 64 * P) }.expect_err("too much");
        let refusal = device.take_refusal().expect("a reason");
        assert_eq!((errno, refusal.to_string()), (Errno::ENOMEM, error.to_string()));
        assert!(device.take_refusal().is_none());
        device.unmap(map(&device, memory.0, 60 * P).expect("just enough"));
        free(&device, queue);
    }
    rustix::process::setrlimit(rustix::process::Resource::Memlock, old).expect("as it was");
}

#[test]
fn memory_that_is_not_there_is_refused() {
    let fake = Fake::new();
    let device = fake.open_device();
    let addr = {
        let pages = Pages::new(4);
        pages.0
    };
    let error = map(&device, addr + 5, 10).expect_err("nothing there");
    assert!(matches!(error, Error::Fault { addr: at, len: 10 } if at == addr + 5), "{error}");
    for (addr, len) in [(addr, 0), (usize::MAX - 10, 100), (usize::MAX - 10, 5)] {
        assert_eq!(map(&device, addr, len).expect_err("no memory").errno(), Errno::EFAULT);
    }
    assert!(fake.state().maps.is_empty());
    assert!(device.alloc(usize::MAX).is_err());
}

#[test]
fn a_mapping_that_cannot_be_ended_stops_the_device() {
    for way in [Interface::Group, Interface::Cdev] {
        let fake = Fake::with_cdev();
        let device = fake.open_by(way).expect("it opens");
        let memory = Pages::new(1);
        let buffer = map(&device, memory.0, P).expect("mapped");
        assert_eq!(fake.config(COMMAND), 6);
        fake.state().fail.insert(sys::IOMMU_UNMAP_DMA, libc::EINVAL);
        fake.state().fail.insert(sys::IOAS_UNMAP, libc::ENOENT);
        device.unmap(buffer);
        assert_eq!(fake.config(COMMAND), 2, "bus mastering is off");
        // The address is not given to anybody else.
        let again = map(&device, memory.0, P).expect("mapped");
        assert_ne!(again.device(memory.0), buffer.device(memory.0));
    }
}

#[test]
fn huge_pages_fall_back_to_ordinary_ones() {
    let fake = Fake::new();
    let options = crate::vfio::Options::new().huge_pages(true);
    let address = super::fake::BDF.parse().expect("an address");
    let device = options.open_in(&fake.roots, fake.clone(), address).expect("it opens");
    let memory = device.alloc(P).expect("whatever this machine has");
    assert_eq!(device.mapped().bytes, HUGE as u64);
    free(&device, memory);
}
