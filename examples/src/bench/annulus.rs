//! Annulus over files.

use super::engine::{Engine, Load};
use super::pace::Pace;
use super::plan::Plan;
use super::work::Work;
use crate::cli::Mode;
use crate::error::{Failure, failed};

use annulus_linux as uring;

// The same file as the kernel's engine, on purpose; see there.
#[allow(clippy::duplicate_mod)]
#[path = "ring.rs"]
mod ring;

/// More threads than this do not make a device faster.
const MOST_WORKERS: u32 = 64;

/// A ring of Annulus.
pub struct Annulus {
    ring: uring::IoUring,
    mode: &'static str,
    registered: bool,
}

impl Annulus {
    /// A ring for the plan; `work`'s file and buffers are registered if the plan says so.
    ///
    /// # Errors
    /// Those of setting a ring up.
    pub fn new(plan: &Plan, work: Option<&Work>) -> Result<Self, Failure> {
        let mut builder = uring::IoUring::builder();
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
        if plan.direct {
            // O_DIRECT always waits for the device, so it is the workers that keep it busy: a worker
            // for each operation that may be in flight.
            builder.max_workers(plan.depth.min(MOST_WORKERS), MOST_WORKERS);
        }
        let ring = builder
            .build(plan.depth)
            .map_err(|error| failed!("cannot set up the ring: {error}"))?;
        if let (true, Some(work)) = (plan.registered, work) {
            ring::register(&ring, work, ToString::to_string)?;
        }
        Ok(Self { ring, mode: plan.mode.name(), registered: plan.registered })
    }
}

impl Engine for Annulus {
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
