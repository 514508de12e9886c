//! The rings of a copy: one over files, one on each controller.

use std::io;

use annulus_linux::nvme::NvmeRing;
use annulus_linux::vfio::PciAddress;
use annulus_linux::{IoUring, squeue};

use crate::buffers::Buffers;
use crate::device::{Namespace, unmapped};
use crate::error::{Failure, failed};

#[allow(clippy::large_enum_variant)] // there are two of them at most
enum Kind {
    Files(IoUring),
    Nvme(NvmeRing, PciAddress),
}

/// A ring, and how much it has to do.
pub struct Ring {
    kind: Kind,
    in_flight: u32,
}

/// The same for both kinds, whose types differ.
macro_rules! either {
    ($self:expr, $ring:ident => $what:expr) => {
        match &mut $self.kind {
            Kind::Files($ring) => $what,
            Kind::Nvme($ring, _) => $what,
        }
    };
}

impl Ring {
    /// A ring for `depth` operations: on a namespace's controller, or over files.
    ///
    /// # Errors
    /// Those of setting a ring up, and of letting the device reach the buffers.
    pub fn new(
        depth: u32,
        buffers: &Buffers,
        namespace: Option<&Namespace>,
    ) -> Result<Self, Failure> {
        let kind = match namespace {
            None => Kind::Files(
                IoUring::new(depth).map_err(|error| failed!("cannot set up the ring: {error}"))?,
            ),
            Some(Namespace { nvme, address, .. }) => {
                let ring = IoUring::builder().build_on(nvme, depth).map_err(|error| {
                    let why = unmapped(nvme, &error);
                    failed!("cannot set up a ring on the controller at {address}: {why}")
                })?;
                // SAFETY: the transfer's buffers, which outlive its rings and never move.
                let registered = unsafe { ring.submitter().register_buffers(&[buffers.iovec()]) };
                registered.map_err(|error| {
                    let why = unmapped(nvme, &error);
                    failed!("cannot let the controller at {address} reach the buffers: {why}")
                })?;
                Kind::Nvme(ring, *address)
            }
        };
        Ok(Self { kind, in_flight: 0 })
    }

    /// Whether operations on `namespace`, or on files, go here.
    pub fn is_for(&self, namespace: Option<&Namespace>) -> bool {
        match (&self.kind, namespace) {
            (Kind::Files(_), None) => true,
            (Kind::Nvme(_, address), Some(namespace)) => *address == namespace.address,
            _ => false,
        }
    }

    /// Operations that were pushed and did not come back yet.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Queues an operation. False: the queue is full.
    ///
    /// # Safety
    /// What the entry refers to stays until its completion.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the caller's promise.
        let pushed = either!(self, ring => unsafe { ring.submission().push(entry) }).is_ok();
        self.in_flight += u32::from(pushed);
        pushed
    }

    /// Submits what is queued, and waits for a completion if asked to.
    ///
    /// # Errors
    /// The ring's, but for those after which one just comes again.
    pub fn submit(&mut self, wait: bool) -> Result<(), Failure> {
        match either!(self, ring => ring.submit_and_wait(usize::from(wait))) {
            Ok(_) => Ok(()),
            // Nothing is lost: reap and come again.
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => Err(failed!("submitting to the ring: {error}")),
        }
    }

    /// Whether there is a completion to reap.
    pub fn is_ready(&mut self) -> bool {
        !either!(self, ring => ring.completion().is_empty())
    }

    /// A completion: user data and result.
    pub fn reap(&mut self) -> Option<(u64, i32)> {
        let cqe = either!(self, ring => ring.completion().next())?;
        self.in_flight -= 1;
        Some((cqe.user_data(), cqe.result()))
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN | libc::EINTR))
}
