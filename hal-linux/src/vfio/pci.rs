//! The device file's regions and interrupts: configuration space, BAR 0,
//! eventfds.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use vfio_bindings::bindings::vfio;

use super::bar::{self, Bar};
use super::sys::{self, Handle};
use super::{Error, PciAddress, caps};

/// Offsets and bits of the PCI configuration space (PCI 3.0, 6.1).
const VENDOR: u64 = 0;
const COMMAND: u64 = 4;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_MASTER: u16 = 1 << 2;

const TRIGGER: u32 = vfio::VFIO_IRQ_SET_ACTION_TRIGGER;

/// An open PCI device.
#[derive(Debug)]
pub struct Device {
    pub address: PciAddress,
    file: Handle,
    /// Where the configuration space begins in the file.
    config: u64,
    resets: bool,
    msix: u32,
    msi: u32,
    /// Which kind of interrupt is on.
    on: Mutex<Option<u32>>,
    release: Option<OwnedFd>,
    error: Option<OwnedFd>,
}

impl Device {
    /// # Errors
    /// [`Error::Unsupported`] if it is no PCI device, [`Error::System`].
    pub fn new(file: Handle, address: PciAddress) -> Result<Self, Error> {
        let mut info = vfio::vfio_device_info::default();
        let fail = |what: &'static str| {
            move |e| Error::system(format!("{address} does not tell of its {what}"), e)
        };
        file.call(&mut info).map_err(fail("kind"))?;
        if info.flags & vfio::VFIO_DEVICE_FLAGS_PCI == 0 {
            let what = format!("VFIO does not treat {address} as a PCI device");
            return Err(Error::Unsupported { what });
        }
        let (config, _) =
            region(&file, vfio::VFIO_PCI_CONFIG_REGION_INDEX).map_err(fail("configuration"))?;
        let mut device = Self {
            address,
            file,
            config: config.offset,
            resets: info.flags & vfio::VFIO_DEVICE_FLAGS_RESET != 0,
            msix: 0,
            msi: 0,
            on: Mutex::new(None),
            release: None,
            error: None,
        };
        device.msix = device.vectors(vfio::VFIO_PCI_MSIX_IRQ_INDEX);
        device.msi = device.vectors(vfio::VFIO_PCI_MSI_IRQ_INDEX);
        device.release = device.notice(vfio::VFIO_PCI_REQ_IRQ_INDEX);
        device.error = device.notice(vfio::VFIO_PCI_ERR_IRQ_INDEX);
        Ok(device)
    }

    /// How many interrupts of a kind there are; 0 for a kind that is not.
    fn vectors(&self, index: u32) -> u32 {
        let mut info = vfio::vfio_irq_info { index, ..Default::default() };
        match self.file.call(&mut info) {
            Ok(_) if info.flags & vfio::VFIO_IRQ_INFO_EVENTFD != 0 => info.count,
            _ => 0,
        }
    }

    /// An eventfd that the kernel tells of something, if it does.
    fn notice(&self, index: u32) -> Option<OwnedFd> {
        if self.vectors(index) == 0 {
            return None;
        }
        let event = event().ok()?;
        let data = [event.as_raw_fd()];
        let flags = vfio::VFIO_IRQ_SET_DATA_EVENTFD | TRIGGER;
        self.file.set_irqs(index, flags, 1, &data).ok()?;
        Some(event)
    }

    /// Maps BAR 0, as far as it can be mapped from its begin on.
    ///
    /// # Errors
    /// [`Error::Bar`].
    pub fn map_bar0(&self) -> Result<Bar, Error> {
        let address = self.address;
        let no = |why: String| Error::Bar { address, why };
        let (info, answer) = region(&self.file, vfio::VFIO_PCI_BAR0_REGION_INDEX)
            .map_err(|e| no(format!("the kernel does not tell of BAR 0: {e}")))?;
        if info.size == 0 {
            return Err(no("the device has no BAR 0, as an NVMe controller must".into()));
        }
        if info.flags & vfio::VFIO_REGION_INFO_FLAG_MMAP == 0 {
            return Err(no(format!(
                "the kernel lets BAR 0 ({} bytes) be read and written by calls only; \
                 it may lie in a page with another device's (see `lspci -vv`)",
                info.size
            )));
        }
        let caps = info.flags & vfio::VFIO_REGION_INFO_FLAG_CAPS;
        let first = if caps != 0 { info.cap_offset } else { 0 };
        // A kernel that guards the MSI-X table maps what is around it.
        let len = match caps::find(&answer, first, vfio::VFIO_REGION_INFO_CAP_SPARSE_MMAP) {
            Some(sparse) => bar::reach(&caps::pairs(sparse)).min(info.size),
            None => info.size,
        };
        let page = rustix::param::page_size();
        let len = usize::try_from(len).unwrap_or(usize::MAX & !(page - 1));
        if len == 0 || !len.is_multiple_of(page) {
            return Err(no(format!(
                "of BAR 0 ({} bytes) the kernel maps {len} bytes at the begin, which are no \
                 whole pages",
                info.size
            )));
        }
        Bar::map(self.file.as_fd(), info.offset, len).map_err(|e| no(format!("mmap: {e}")))
    }

    /// Reads two bytes of the configuration space.
    pub fn config16(&self, at: u64) -> io::Result<u16> {
        let mut bytes = [0; 2];
        match rustix::io::pread(&self.file, &mut bytes, self.config + at)? {
            2 => Ok(u16::from_le_bytes(bytes)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn set_command(&self, value: u16) -> io::Result<()> {
        let at = self.config + COMMAND;
        match rustix::io::pwrite(&self.file, &value.to_le_bytes(), at)? {
            2 => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Whether the device answers no more, not even to configuration reads.
    pub fn gone(&self) -> bool {
        matches!(self.config16(VENDOR), Ok(u16::MAX))
    }

    /// Lets the device answer to memory accesses and make its own.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn enable(&self) -> Result<(), Error> {
        let both = COMMAND_MEMORY | COMMAND_MASTER;
        let set = || -> io::Result<u16> {
            self.set_command(self.config16(COMMAND)? | both)?;
            self.config16(COMMAND)
        };
        let done = set().and_then(|now| match now & both == both && !self.gone() {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::ENODEV)),
        });
        done.map_err(|e| {
            Error::system(format!("cannot turn {}'s bus mastering on", self.address), e)
        })
    }

    /// Forbids the device to access memory; whether that is sure.
    pub fn isolate(&self) -> bool {
        let off = || -> io::Result<bool> {
            self.set_command(self.config16(COMMAND)? & !COMMAND_MASTER)?;
            Ok(self.config16(COMMAND)? & COMMAND_MASTER == 0)
        };
        // What does not answer is off the bus, which ends its accesses too.
        off().unwrap_or(false) || self.gone()
    }

    /// Resets the function. Memory space and bus mastering are as before.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it has no reset of its own, [`Error::System`].
    pub fn reset(&self) -> Result<(), Error> {
        let address = self.address;
        if !self.resets {
            let what = format!(
                "{address} can only be reset together with its neighbours; hand its whole slot \
                 to vfio-pci, or reset the controller by its registers"
            );
            return Err(Error::Unsupported { what });
        }
        let fail = |e| Error::system(format!("cannot reset {address}"), e);
        let before = self.config16(COMMAND).map_err(fail)?;
        self.file.number(sys::DEVICE_RESET, 0).map_err(fail)?;
        // The kernel restores what it saved, but not on every road there.
        self.set_command(before).map_err(fail)
    }

    /// The most interrupt vectors that [`interrupts`](Self::interrupts) gives.
    pub fn most_vectors(&self) -> u32 {
        if self.msix != 0 { self.msix } else { self.msi }
    }

    /// Turns `wanted` vectors on: an eventfd for each.
    ///
    /// # Errors
    /// [`Error::Vectors`], [`Error::System`].
    pub fn interrupts(&self, wanted: u32) -> Result<Vec<OwnedFd>, Error> {
        let address = self.address;
        let available = self.most_vectors();
        if wanted == 0 || wanted > available {
            return Err(Error::Vectors { address, wanted, available });
        }
        let fail = |e| Error::system(format!("cannot turn {address}'s interrupts on"), e);
        let events = (0..wanted).map(|_| event()).collect::<io::Result<Vec<_>>>().map_err(fail)?;
        let data: Vec<i32> = events.iter().map(AsRawFd::as_raw_fd).collect();
        let index = match self.msix {
            0 => vfio::VFIO_PCI_MSI_IRQ_INDEX,
            _ => vfio::VFIO_PCI_MSIX_IRQ_INDEX,
        };
        let mut on = self.on.lock().unwrap_or_else(PoisonError::into_inner);
        // The number of vectors changes only by way of none.
        self.turn_off(&mut on);
        let flags = vfio::VFIO_IRQ_SET_DATA_EVENTFD | TRIGGER;
        match self.file.set_irqs(index, flags, wanted, &data).map_err(fail)? {
            0 => {
                *on = Some(index);
                Ok(events)
            }
            // Nothing was turned on; so many there would be.
            available => Err(Error::Vectors { address, wanted, available }),
        }
    }

    /// Turns interrupts off.
    pub fn no_interrupts(&self) {
        self.turn_off(&mut self.on.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn turn_off(&self, on: &mut Option<u32>) {
        if let Some(index) = on.take() {
            // Fails only if they are off.
            let _ = self.file.set_irqs(index, vfio::VFIO_IRQ_SET_DATA_NONE | TRIGGER, 0, &[]);
        }
    }

    pub fn release_event(&self) -> Option<BorrowedFd<'_>> {
        self.release.as_ref().map(AsFd::as_fd)
    }

    pub fn error_event(&self) -> Option<BorrowedFd<'_>> {
        self.error.as_ref().map(AsFd::as_fd)
    }
}

/// What the kernel says of a region, and the capabilities behind it.
fn region(file: &Handle, index: u32) -> io::Result<(vfio::vfio_region_info, Vec<u8>)> {
    file.call_long(vfio::vfio_region_info { index, ..Default::default() })
}

/// An eventfd of the kind that VFIO takes: its counter is read without
/// waiting.
fn event() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Whether an eventfd's counter is above 0. It stays so.
pub fn is_set(event: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut list = [PollFd::from_borrowed_fd(event, PollFlags::IN)];
    matches!(poll(&mut list, Some(&now)), Ok(1..))
}
