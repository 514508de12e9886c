//! The crate `virtio-drivers` on a virtio-mmio disk, to be measured beside.

use core::ptr::NonNull;

use annulus::sync::{AtomicU32, Ordering};
use annulus_baremetal::Platform as _;
use virtio_drivers::device::blk::VirtIOBlk;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::arch;
use crate::place::{Image, MACHINE};
use crate::text;
use crate::text::Text;

/// How often the device was notified.
static NOTIFIED: AtomicU32 = AtomicU32::new(0);

/// So many notifications so far.
pub fn notified() -> u32 {
    // Relaxed: a count.
    NOTIFIED.load(Ordering::Relaxed)
}

/// The driver.
pub type Peer = VirtIOBlk<Place, Counting>;

/// Brings the first virtio-mmio disk up with it.
pub fn open() -> core::result::Result<Peer, Text> {
    for place in arch::virtio_mmio() {
        let window = MACHINE.window(place.base, place.len).is_some();
        let base = NonNull::new(place.base as *mut VirtIOHeader).filter(|_| window);
        let base = base.ok_or_else(|| text!("no way to {:#x}", place.base))?;
        // SAFETY: a device's registers, mapped one to one, for ever; nobody
        // else uses them while it is measured.
        let Ok(transport) = (unsafe { MmioTransport::new(base, place.len) }) else { continue };
        if transport.device_type() == DeviceType::Block {
            return VirtIOBlk::new(Counting(transport)).map_err(|e| text!("virtio-drivers: {e}"));
        }
    }
    Err(text!("there is no virtio-mmio disk"))
}

/// The image as a place for it.
pub struct Place;

// SAFETY: pages of the arena, given out once; addresses are the same for the
// processor and for devices.
unsafe impl Hal for Place {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let memory = Image.alloc(pages).expect("an image has pages for a queue");
        // SAFETY: given out just now.
        unsafe { memory.write_bytes(0, pages * 4096) };
        (memory.as_ptr() as PhysAddr, memory)
    }

    unsafe fn dma_dealloc(_: PhysAddr, memory: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: the caller's promise.
        unsafe { Image.free(memory, pages) };
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, size: usize) -> NonNull<u8> {
        Image.registers(address, size).expect("a device's registers are where devices are")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// Its transport, with the notifications counted.
pub struct Counting(MmioTransport<'static>);

impl Transport for Counting {
    fn device_type(&self) -> DeviceType {
        self.0.device_type()
    }

    fn read_device_features(&mut self) -> u64 {
        self.0.read_device_features()
    }

    fn write_driver_features(&mut self, features: u64) {
        self.0.write_driver_features(features);
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.0.max_queue_size(queue)
    }

    #[inline(always)]
    fn notify(&mut self, queue: u16) {
        // Relaxed: a count, of one core.
        NOTIFIED.store(NOTIFIED.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.0.notify(queue);
    }

    fn get_status(&self) -> DeviceStatus {
        self.0.get_status()
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.0.set_status(status);
    }

    fn set_guest_page_size(&mut self, size: u32) {
        self.0.set_guest_page_size(size);
    }

    fn requires_legacy_layout(&self) -> bool {
        self.0.requires_legacy_layout()
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver: PhysAddr,
        device: PhysAddr,
    ) {
        self.0.queue_set(queue, size, descriptors, driver, device);
    }

    fn queue_unset(&mut self, queue: u16) {
        self.0.queue_unset(queue);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.0.queue_used(queue)
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.0.ack_interrupt()
    }

    fn read_config_generation(&self) -> u32 {
        self.0.read_config_generation()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        self.0.read_config_space(offset)
    }

    fn write_config_space<T: IntoBytes + Immutable>(&mut self, at: usize, value: T) -> Result<()> {
        self.0.write_config_space(at, value)
    }
}
