//! Annulus on an NVMe controller.

use super::engine::{Engine, Load};
use super::pace::Pace;
use super::plan::Plan;
use super::work::Work;
use crate::cli::{Completions, Mode};
use crate::device::{Namespace, unmapped};
use crate::error::{Failure, failed};

/// A ring on a controller, by the names that `ring.rs` knows.
mod uring {
    use annulus_linux::nvme::{Backend, NvmeRing};
    pub use annulus_linux::{opcode, squeue, types};

    pub type IoUring = NvmeRing;
    pub type Submitter<'a> = annulus_linux::Submitter<'a, Backend>;
}

// The same file as the kernel's engine, on purpose; see there.
#[allow(clippy::duplicate_mod)]
#[path = "ring.rs"]
mod ring;

/// Bounce buffers of a ring at most, and their bytes together.
const MOST_BOUNCES: u32 = 256;
const MOST_BOUNCED: u64 = 32 << 20;

/// What a bounce buffer is a multiple of.
const PAGE: u64 = 4096;

/// A ring on a controller.
pub struct Nvme {
    ring: uring::IoUring,
    mode: &'static str,
    registered: bool,
}

impl Nvme {
    /// A ring for the plan; the namespace and `work`'s buffers are registered if the plan says so.
    ///
    /// # Errors
    /// Those of setting a ring up.
    pub fn new(plan: &Plan, work: &Work, namespace: &Namespace) -> Result<Self, Failure> {
        let mut builder = annulus_linux::Ring::builder();
        match plan.mode {
            Mode::Inline => {}
            Mode::Sqpoll => {
                builder.setup_sqpoll(super::SQPOLL_IDLE_MS);
                if let Some(cpu) = plan.sqpoll_cpu {
                    builder.setup_sqpoll_cpu(cpu);
                }
            }
            Mode::Served => {
                builder.setup_served();
            }
        }
        match plan.completions {
            Some(Completions::Polled) => {
                builder.setup_iopoll();
            }
            Some(Completions::Interrupts) => {
                builder.interrupts();
            }
            Some(Completions::Adaptive) | None => {}
        }
        if !plan.registered {
            // One for each operation in flight, or the device would have fewer of them.
            let count = plan.depth.min(MOST_BOUNCES);
            let room = (MOST_BOUNCED / u64::from(count)) & !(PAGE - 1);
            let bytes = plan.bs.next_multiple_of(PAGE).min(room);
            builder.bounce_buffers(count as usize, bytes as usize);
        }
        let ring = builder.build_on(&namespace.nvme, plan.depth).map_err(|error| {
            let why = unmapped(&namespace.nvme, &error);
            failed!("cannot set up a ring on {}: {why}", namespace.address)
        })?;
        if plan.registered {
            ring::register(&ring, work, |error| unmapped(&namespace.nvme, error))?;
        }
        Ok(Self { ring, mode: plan.mode.name(), registered: plan.registered })
    }
}

impl Engine for Nvme {
    fn name(&self) -> &'static str {
        "annulus"
    }

    fn mode(&self) -> &'static str {
        self.mode
    }

    fn run(&mut self, load: &mut Load<'_>, pace: &mut Pace) -> Result<u64, Failure> {
        ring::run(&mut self.ring, load, pace, self.registered)
    }
}
