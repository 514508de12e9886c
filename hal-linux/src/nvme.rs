//! NVMe controllers, driven without the kernel: opened through VFIO, shared by
//! rings.
//!
//! ```no_run
//! use annulus_linux::{Ring, nvme::Nvme, opcode, types};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let nvme = Nvme::open("0000:00:03.0")?;
//! let mut ring = Ring::builder().setup_iopoll().build_on(&nvme, 64)?;
//! let mut buffer = vec![0u8; 4096];
//! let iovec = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
//! // SAFETY: the buffer outlives the ring.
//! unsafe { ring.submitter().register_buffers(&[iovec])? };
//! let namespace = types::Fd(1);
//! let read = opcode::ReadFixed::new(namespace, buffer.as_mut_ptr(), 4096, 0).build();
//! // SAFETY: as above.
//! unsafe { ring.submission().push(&read)? };
//! ring.submit_and_wait(1)?;
//! assert_eq!(ring.completion().next().expect("one").result(), 4096);
//! # drop(ring);
//! # Ok(())
//! # }
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use annulus::hal::Clock;
pub use annulus::nvme::{
    BackendStats, ControllerInfo, Error as ControllerError, Health, Limits, NamespaceInfo, Options,
    RecentError, SglAlignment, Status,
};
use annulus::nvme::{NvmeBackend, Platform};

use crate::ring::Error as RingError;
use crate::vfio::{self, PciAddress, VfioDevice};

/// A controller that runs.
pub type Controller = annulus::nvme::Controller<VfioDevice>;
/// What carries out the requests of a ring on it.
pub type Backend = NvmeBackend<'static, VfioDevice, Arc<Controller>>;
/// A ring on it.
pub type NvmeRing = crate::Ring<Backend>;

impl Clock for VfioDevice {
    fn now(&self) -> u64 {
        VfioDevice::now(self)
    }
}

impl Platform for VfioDevice {
    fn relax(&self) {
        VfioDevice::relax(self);
    }

    fn isolate(&self) -> bool {
        VfioDevice::isolate(self)
    }

    fn reset_function(&self) -> bool {
        self.reset().is_ok() && self.enable_bus_master().is_ok()
    }

    fn leaving(&self) -> bool {
        self.release_requested()
    }
}

/// Why a controller cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The way to it.
    #[error(transparent)]
    Vfio(#[from] vfio::Error),
    /// The controller itself.
    #[error("{address}: {source}")]
    Controller {
        /// The function.
        address: PciAddress,
        /// What is wrong.
        source: ControllerError,
    },
}

/// An NVMe controller for rings. Clones are the same controller; it is shut
/// down when the last clone and the last ring are gone.
#[derive(Clone, Debug)]
pub struct Nvme {
    controller: Arc<Controller>,
    vectors: Arc<Vectors>,
}

/// The interrupts for rings. Vector 0 is the admin queue's, which is polled.
#[derive(Debug)]
struct Vectors {
    eventfds: Vec<OwnedFd>,
    free: Mutex<Vec<u16>>,
}

/// A ring's interrupt vector; it is the next ring's when this is dropped.
#[derive(Debug)]
pub(crate) struct Vector {
    number: u16,
    all: Arc<Vectors>,
}

impl Vector {
    /// Its number on the device.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// A descriptor of the eventfd that it signals.
    pub(crate) fn eventfd(&self) -> Result<OwnedFd, RingError> {
        self.all.eventfds[usize::from(self.number)]
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| RingError::System { what: "descriptor", source })
    }
}

impl Drop for Vector {
    fn drop(&mut self) {
        let mut free = self.all.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.number);
    }
}

impl Nvme {
    /// Takes the controller at this PCI address (`0000:00:03.0`), which is
    /// bound to vfio-pci.
    ///
    /// # Errors
    /// What is in the way, and what to do about it.
    pub fn open(address: &str) -> Result<Self, Error> {
        Self::open_with(address, Options::default())
    }

    /// [`open`](Self::open), with choices.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(address: &str, options: Options) -> Result<Self, Error> {
        let address: PciAddress = address.parse()?;
        // First: a device that is none is not to be handed over.
        vfio::check_nvme(address)?;
        let device = VfioDevice::open(address)?;
        // One a queue pair, and the admin queue's.
        let wanted = u32::from(options.pairs) + 1;
        let eventfds = match wanted.min(device.vectors()) {
            // Its rings poll.
            0 => Vec::new(),
            some => device.enable_msix(some)?,
        };
        let free = (1..eventfds.len() as u16).rev().collect();
        let refused = device.refused();
        let controller =
            Controller::new(device, options).map_err(|source| match refused.take() {
                Some(refusal) => Error::Vfio(refusal),
                None => Error::Controller { address, source },
            })?;
        Ok(Self {
            controller: Arc::new(controller),
            vectors: Arc::new(Vectors { eventfds, free: Mutex::new(free) }),
        })
    }

    /// The controller: what it is, its namespaces, its health.
    pub fn controller(&self) -> &Arc<Controller> {
        &self.controller
    }

    /// Why memory could not be mapped for the controller, with what to do about
    /// it, when a ring's `register_buffers` answered `ENOMEM`, `ENOSPC` or
    /// `EFAULT`, which is all that a call can say: the last time, and once.
    pub fn take_refusal(&self) -> Option<vfio::Error> {
        self.controller.platform().take_refusal()
    }

    /// An interrupt for a ring.
    pub(crate) fn vector(&self) -> Result<Vector, RingError> {
        let mut free = self.vectors.free.lock().unwrap_or_else(PoisonError::into_inner);
        match free.pop() {
            Some(number) => Ok(Vector { number, all: Arc::clone(&self.vectors) }),
            None => {
                Err(RingError::NoVector { vectors: self.vectors.eventfds.len().saturating_sub(1) })
            }
        }
    }
}
