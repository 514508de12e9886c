//! Rings on an NVMe controller.

use std::ptr::NonNull;

use annulus::nvme::{Completions, QueueOptions, Tracker, Vectors};

use super::builder::Finding;
use super::{Builder, Error, Ring};
use crate::host::LinuxHost;
use crate::nvme::{Backend, Nvme, Vector};

/// With the reserve, as many as a queue pair tells apart.
const MOST_REQUESTS: u32 = 4095;
/// READVs and WRITEVs that can be in flight at once.
const VECTORED: usize = 8;

/// A boxed slice that is lent to a backend: not a box while it is lent, for a
/// box says that nobody else has what it holds.
struct Lent<T>(NonNull<[T]>);

// SAFETY: memory of values that may go to another thread.
unsafe impl<T: Send> Send for Lent<T> {}
// SAFETY: as above; nothing can be reached through it.
unsafe impl<T: Send> Sync for Lent<T> {}

impl<T> Lent<T> {
    fn new(len: usize, value: impl Fn() -> T) -> Self {
        let values: Box<[T]> = (0..len).map(|_| value()).collect();
        Self(NonNull::from(Box::leak(values)))
    }

    /// The slice.
    ///
    /// # Safety
    /// Once, and not used after `self` is dropped.
    unsafe fn lend(&self) -> &'static mut [T] {
        // SAFETY: from a box, and the caller's promise.
        unsafe { &mut *self.0.as_ptr() }
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        // SAFETY: from a box, and nobody has it any more (`lend`).
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// What a backend uses besides its own; dropped after it.
struct Keep {
    trackers: Lent<Tracker<<Backend as annulus::hal::Backend>::Buffer>>,
    vectors: Lent<Vectors>,
    /// Its interrupt, the next ring's when this is dropped.
    _vector: Option<Vector>,
}

impl Builder {
    /// Sets up a ring on an NVMe controller, with a queue pair of its own.
    ///
    /// Files are namespaces: `types::Fd(1)` is namespace 1, and so is what is
    /// registered by that number. Without [`setup_iopoll`](Self::setup_iopoll)
    /// and [`interrupts`](Self::interrupts) it is polled while it is busy, and
    /// waits for an interrupt otherwise, so that an idle ring uses no CPU. If no
    /// interrupt is left for it, or the device has none, it is polled for as long
    /// as it has requests.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub fn build_on(&self, nvme: &Nvme, entries: u32) -> Result<Ring<Backend>, Error> {
        let plan = self.plan(entries, MOST_REQUESTS)?;
        let (vector, completions) = match self.completions {
            Some(Finding::Polled) => (None, Completions::Polled),
            Some(Finding::Interrupts) => {
                let vector = nvme.vector()?;
                let number = vector.number();
                (Some(vector), Completions::Interrupt(number))
            }
            None => match nvme.vector() {
                Ok(vector) => {
                    let number = vector.number();
                    (Some(vector), Completions::Adaptive(number))
                }
                Err(Error::NoVector { .. }) => (None, Completions::Polled),
                Err(error) => return Err(error),
            },
        };
        let requests = plan.requests;
        let mut options = QueueOptions {
            depth: self.queue_depth.unwrap_or(requests.min(4096)),
            completions,
            ..QueueOptions::default()
        };
        if let Some((count, bytes)) = self.bounce {
            (options.bounce_buffers, options.bounce_bytes) = (count, bytes);
        }
        if let Some(bytes) = self.max_transfer {
            options.max_transfer = bytes;
        }
        let host = match &vector {
            Some(vector) => LinuxHost::with_interrupt(self.bell()?, vector.eventfd()?)
                .map_err(|source| Error::System { what: "eventfd", source })?,
            None => LinuxHost::new(self.bell()?),
        };
        let keep = Keep {
            trackers: Lent::new(requests as usize + 1, Tracker::new),
            vectors: Lent::new(VECTORED, Vectors::new),
            _vector: vector,
        };
        // SAFETY: lent once; the ring's place keeps them until the backend
        // has ended, and so does `keep` if that is never made.
        let (trackers, vectors) = unsafe { (keep.trackers.lend(), keep.vectors.lend()) };
        let backend = Backend::new(nvme.controller().clone(), &options, trackers, vectors)?;
        self.set_up(plan, host, keep, move |_| backend)
    }
}
