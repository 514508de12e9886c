//! The kernel's io_uring, through the `io-uring` crate.

use super::engine::{Engine, Load};
use super::pace::Pace;
use super::plan::Plan;
use super::work::Work;
use crate::cli::Mode;
use crate::error::{Failure, failed};

use io_uring as uring;

#[path = "ring.rs"]
mod ring;

/// The kernel's rings.
pub struct Kernel {
    ring: uring::IoUring,
    mode: &'static str,
    registered: bool,
}

impl Kernel {
    /// A ring for the plan; `work`'s file and buffers are registered if the plan says so.
    ///
    /// # Errors
    /// The kernel's, with what it means: io_uring may be switched off or forbidden.
    pub fn new(plan: &Plan, work: Option<&Work>) -> Result<Self, Failure> {
        let mut builder = uring::IoUring::builder();
        let mode = match plan.mode {
            Mode::Sqpoll => {
                builder.setup_sqpoll(super::SQPOLL_IDLE_MS);
                if let Some(cpu) = plan.sqpoll_cpu {
                    builder.setup_sqpoll_cpu(cpu);
                }
                "sqpoll"
            }
            Mode::Inline | Mode::Served => {
                // The fastest way to run a ring that one thread owns.
                builder.setup_single_issuer().setup_coop_taskrun();
                "inline"
            }
        };
        let ring = builder.build(plan.depth).map_err(|error| {
            let why = match error.raw_os_error() {
                Some(libc::ENOSYS) => " (this kernel has no io_uring, or a sandbox hides it)",
                Some(libc::EPERM) => {
                    " (switched off by /proc/sys/kernel/io_uring_disabled, or a sandbox forbids it)"
                }
                Some(libc::ENOMEM) => " (a smaller --depth or a higher `ulimit -l` may help)",
                _ => "",
            };
            failed!("cannot set up the kernel's io_uring: {error}{why}")
        })?;
        if let (true, Some(work)) = (plan.registered, work) {
            ring::register(&ring, work, ToString::to_string)?;
        }
        Ok(Self { ring, mode, registered: plan.registered })
    }
}

impl Engine for Kernel {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn mode(&self) -> &'static str {
        self.mode
    }

    fn run(&mut self, load: &mut Load<'_>, pace: &mut Pace) -> Result<u64, Failure> {
        ring::run(&mut self.ring, load, pace, self.registered)
    }
}
