//! The device as a driver sees it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annulus::errno::Errno;
use annulus::hal::device::{Coherent, Dma, Mmio, Span};
use rustix::time::{ClockId, clock_gettime};

use super::bar::Bar;
use super::dma::{Buffer, Mapped, Pool};
use super::pci::{self, Device};
use super::sys::{Kernel, Sys};
use super::sysfs::{Function, Roots};
use super::{Error, PciAddress, open};

/// How a device is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interface {
    /// By its own file where that and iommufd can be opened, else by its
    /// group.
    #[default]
    Auto,
    /// `/dev/vfio/vfio` and `/dev/vfio/N`.
    Group,
    /// `/dev/iommu` and `/dev/vfio/devices/vfioN` (Linux 6.6).
    Cdev,
}

/// How to open a device.
///
/// ```no_run
/// use annulus_linux::vfio::{Interface, Options};
/// let device = Options::new().interface(Interface::Group).open("0000:00:03.0".parse()?)?;
/// # Ok::<(), annulus_linux::vfio::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    interface: Interface,
    huge_pages: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// The interface that there is, and huge pages if there are some.
    pub fn new() -> Self {
        Self { interface: Interface::Auto, huge_pages: true }
    }

    /// Which of the kernel's interfaces is used.
    pub fn interface(mut self, interface: Interface) -> Self {
        self.interface = interface;
        self
    }

    /// Whether the driver's own memory is taken from the machine's huge pages
    /// (`/proc/sys/vm/nr_hugepages`), while there are some.
    pub fn huge_pages(mut self, may: bool) -> Self {
        self.huge_pages = may;
        self
    }

    /// Opens the device: its registers are mapped, it answers to accesses and
    /// may access memory that is mapped for it, its interrupts are off. The
    /// kernel has reset it, if it can be.
    ///
    /// # Errors
    /// What is in the way, and what to do about it.
    pub fn open(&self, address: PciAddress) -> Result<VfioDevice, Error> {
        self.open_in(&Roots::default(), Arc::new(Kernel), address)
    }

    pub(super) fn open_in(
        &self,
        roots: &Roots,
        sys: Arc<dyn Sys>,
        address: PciAddress,
    ) -> Result<VfioDevice, Error> {
        let function = Function::find(roots, address)?;
        let (file, iommu) = open::open(&sys, &function, self.interface)?;
        let pci = Device::new(file, address)?;
        let bar = pci.map_bar0()?;
        let pool = Pool::new(iommu, self.huge_pages)?;
        pci.enable()?;
        Ok(VfioDevice { bar, pool, refused: Refused::default(), pci, function })
    }
}

/// A PCI device that this process drives.
///
/// Registers are BAR 0's, through [`Mmio`], memory through [`Dma`], both by
/// shared reference and from any thread. Dropping it stops the device (bus
/// mastering off, interrupts off, reset) before its memory is unmapped and
/// its files are closed; no step waits for anything but the device's reset,
/// which the kernel bounds.
///
/// A process that is forked while a device is open must not use it in the
/// child.
#[derive(Debug)]
pub struct VfioDevice {
    // In the order in which they are dropped: registers, address space, device.
    bar: Bar,
    pool: Pool,
    /// Why the last memory that could not be had, or mapped, could not.
    refused: Refused,
    pci: Device,
    function: Function,
}

/// The last [`Error`] that somebody got only the number of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refused(Arc<Mutex<Option<Error>>>);

impl Refused {
    pub(crate) fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl VfioDevice {
    /// Opens a device with [`Options::new`].
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(address: PciAddress) -> Result<Self, Error> {
        Options::new().open(address)
    }

    /// Where the device is.
    pub fn address(&self) -> PciAddress {
        self.pci.address
    }

    /// By which of the kernel's interfaces it was opened; never
    /// [`Interface::Auto`].
    pub fn interface(&self) -> Interface {
        self.pool.interface()
    }

    /// Base class, subclass and programming interface, as sysfs says: NVMe
    /// controllers have `0x010802`.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn class_code(&self) -> Result<u32, Error> {
        self.function.class()
    }

    /// Lets the device access memory again after [`isolate`](Self::isolate).
    /// An open device may.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn enable_bus_master(&self) -> Result<(), Error> {
        self.pci.enable()
    }

    /// Forbids the device to access memory, and answers whether that is sure:
    /// the bit read back cleared, or the device is off the bus. Its registers
    /// can still be accessed.
    pub fn isolate(&self) -> bool {
        self.pci.isolate()
    }

    /// Resets the device as a PCI function (`VFIO_DEVICE_RESET`). Bus
    /// mastering and interrupts are set up as before, registers are not.
    /// May take some hundred milliseconds.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the device has no reset of its own,
    /// [`Error::System`].
    pub fn reset(&self) -> Result<(), Error> {
        self.pci.reset()
    }

    /// How many interrupt vectors the device has: MSI-X, or MSI if it has no
    /// MSI-X; 0 if it has neither.
    pub fn vectors(&self) -> u32 {
        self.pci.most_vectors()
    }

    /// Turns `vectors` interrupts on (MSI-X, or MSI if the device has no
    /// MSI-X), in place of those that are on: for each an eventfd, not
    /// blocking, that counts its interrupts.
    ///
    /// # Errors
    /// [`Error::Vectors`] if there are not so many, [`Error::System`].
    pub fn enable_msix(&self, vectors: u32) -> Result<Vec<OwnedFd>, Error> {
        self.pci.interrupts(vectors)
    }

    /// Turns interrupts off; their eventfds stay silent.
    pub fn disable_msix(&self) {
        self.pci.no_interrupts();
    }

    /// Whether the kernel asks for the device: it is to be unplugged or bound
    /// to another driver, which waits until it is closed. One system call.
    pub fn release_requested(&self) -> bool {
        self.pci.release_event().is_some_and(pci::is_set)
    }

    /// What becomes readable when the device is asked for, and stays so. Not
    /// to be read.
    pub fn release_eventfd(&self) -> Option<BorrowedFd<'_>> {
        self.pci.release_event()
    }

    /// What becomes readable when the bus reports an error of the device that
    /// cannot be corrected (PCIe AER). Not to be read.
    pub fn error_eventfd(&self) -> Option<BorrowedFd<'_>> {
        self.pci.error_event()
    }

    /// Makes memory reachable for the device, as [`Dma::map`] does, with an
    /// error that says what to do.
    ///
    /// # Errors
    /// [`Error::Fault`], [`Error::MemoryLimit`], [`Error::Entries`],
    /// [`Error::AddressSpace`], [`Error::System`].
    ///
    /// # Safety
    /// As for [`Dma::map`].
    pub unsafe fn map_buffer(&self, addr: usize, len: usize) -> Result<Buffer, Error> {
        // SAFETY: the caller's promise.
        unsafe { self.pool.map(addr, len) }
    }

    /// Why memory could not be had or mapped for the device through [`Dma`],
    /// which has only a number for it: of several times the last, and once.
    pub fn take_refusal(&self) -> Option<Error> {
        self.refused.take()
    }

    /// The same for who gives the device away.
    pub(crate) fn refused(&self) -> Refused {
        self.refused.clone()
    }

    fn refuse(&self, error: Error) -> Errno {
        let errno = error.errno();
        *self.refused.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        errno
    }

    /// What is mapped for the device.
    pub fn mapped(&self) -> Mapped {
        self.pool.mapped()
    }

    /// Monotonic time in nanoseconds.
    pub fn now(&self) -> u64 {
        let now = clock_gettime(ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }

    /// Lets a little time pass (about 100 µs) for a device that is waited for.
    pub fn relax(&self) {
        std::thread::sleep(Duration::from_micros(100));
    }
}

impl Drop for VfioDevice {
    fn drop(&mut self) {
        self.pci.isolate();
        self.pci.no_interrupts();
        // A device without a reset of its own is stopped all the same; the
        // kernel resets it on closing if it can.
        let _ = self.pci.reset();
        self.pool.clear();
    }
}

impl Mmio for VfioDevice {
    #[inline(always)]
    fn len(&self) -> usize {
        self.bar.len()
    }

    #[inline(always)]
    fn read32(&self, offset: usize) -> u32 {
        self.bar.read32(offset)
    }

    #[inline(always)]
    fn write32(&self, offset: usize, value: u32) {
        self.bar.write32(offset, value);
    }
}

// SAFETY: pages of mappings of our own, at the addresses at which the IOMMU has
// them until they are unmapped.
unsafe impl Dma for VfioDevice {
    type Buffer = Buffer;

    const SHARES_MAPPINGS: bool = true;

    fn alloc(&self, len: usize) -> Result<Coherent, Errno> {
        self.pool.alloc(len).map_err(|error| self.refuse(error))
    }

    unsafe fn free(&self, memory: Coherent) {
        if self.pool.free(&memory).is_err() {
            // The memory is the kernel's until the end: nothing else is at
            // stake. But what cannot be unmapped is a device out of control.
            self.isolate();
        }
    }

    unsafe fn map(&self, addr: usize, len: usize) -> Result<Buffer, Errno> {
        // SAFETY: the caller's promise.
        unsafe { self.pool.map(addr, len) }.map_err(|error| self.refuse(error))
    }

    fn unmap(&self, buffer: Buffer) {
        if self.pool.unmap(&buffer).is_err() {
            // The promise is that the device reaches the memory no more.
            self.isolate();
        }
    }

    #[inline(always)]
    fn span(&self, buffer: &Buffer, addr: usize) -> Span {
        Span { device: buffer.device(addr), len: buffer.rest(addr) }
    }
}
