//! The rungs: what each shows, what it needs, and its steps.

mod call_scripts;
mod embedded;
pub mod exec;
mod fault_programs;
mod fixtures;
mod fuzz;
mod guest;
mod kernel;
mod kvlog;
mod loom;
mod miri;
pub mod needs;
mod programs;
pub mod run;
mod simulate;
mod soak;
mod supply;
mod test;
mod tsan;

use std::path::PathBuf;
use std::time::Duration;

use exec::Cmd;
use needs::Need;

/// What the rungs are told on the command line and by the environment.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// The long version.
    pub deep: bool,
    /// Every budget is multiplied by this.
    pub budget_scale: f64,
    /// How long the rung `soak` runs, if that is asked for.
    pub hours: Option<f64>,
    /// What stands behind `--`, for one rung.
    pub rest: Vec<String>,
    /// A rung that cannot run fails.
    pub ci: bool,
}

/// A rung of the ladder.
pub struct Rung {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows.
    pub shows: &'static str,
    /// How long it may take, and how long with `--deep`.
    pub budget: (Duration, Duration),
    /// What it needs on the machine.
    pub needs: &'static [Need],
    /// Its steps.
    pub steps: fn(&Wishes) -> Vec<Step>,
    /// How many of them may run at once: more than one where a step keeps one
    /// core busy and measures no time.
    pub at_once: usize,
}

/// What a step found out, or why it failed.
pub type Found = Result<String, String>;

/// A check in this process: it gets the time that is left.
pub type Check = Box<dyn FnOnce(Duration) -> Found>;

/// Something that a rung does.
pub struct Step {
    /// What it is called in the table.
    pub name: String,
    /// What it does.
    pub work: Work,
    /// Others need it: it begins when all before it have ended, and what comes
    /// after it begins when it has.
    pub alone: bool,
}

/// What a step does.
pub enum Work {
    /// Runs a command.
    Command(Cmd),
    /// Runs a check.
    Check(Check),
}

impl Step {
    /// A step that is a command.
    pub fn command(name: impl Into<String>, cmd: Cmd) -> Self {
        Self { name: name.into(), work: Work::Command(cmd), alone: false }
    }

    /// A step that is a check.
    pub fn check(name: impl Into<String>, check: impl FnOnce(Duration) -> Found + 'static) -> Self {
        Self { name: name.into(), work: Work::Check(Box::new(check)), alone: true }
    }

    /// The same, but not beside another.
    pub fn alone(self) -> Self {
        Self { alone: true, ..self }
    }
}

const fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

/// The rungs that are built.
pub const RUNGS: &[Rung] = &[
    Rung {
        name: "test",
        shows: "unit, property and doc tests; lints; no_std and no alloc on four targets",
        budget: (minutes(15), minutes(30)),
        needs: &[Need::Targets(test::TARGETS), Need::Components("stable", &["clippy", "rustfmt"])],
        steps: test::steps,
        at_once: 1,
    },
    Rung {
        name: "supply",
        shows: "licences, sources and versions of what is built in; the promised toolchain",
        budget: (minutes(2), minutes(2)),
        needs: &[],
        steps: supply::steps,
        at_once: 1,
    },
    Rung {
        name: "loom",
        shows: "rings, return list, wakes, slots: every order of events; seeded faults, weakened orderings caught",
        budget: (minutes(20), minutes(240)),
        needs: &[],
        steps: loom::steps,
        at_once: 1,
    },
    Rung {
        name: "miri",
        shows: "core's tests without undefined behaviour; also 32-bit and big-endian",
        budget: (minutes(30), minutes(60)),
        needs: &[Need::Nightly(&["miri", "rust-src"])],
        steps: miri::steps,
        at_once: 2,
    },
    Rung {
        name: "kernel",
        shows: "the same programs on this machine's io_uring and on Annulus; seeded faults caught",
        budget: (minutes(15), minutes(120)),
        needs: &[Need::IoUring],
        steps: kernel::steps,
        at_once: 1,
    },
    Rung {
        name: "simulate",
        shows: "the whole engine under drawn backends, clocks and applications; seeded faults found",
        budget: (minutes(12), minutes(60)),
        needs: &[],
        steps: simulate::steps,
        at_once: 1,
    },
    Rung {
        name: "fuzz",
        shows: "hostile applications, NVMe controllers, virtio disks, PCI functions, by libFuzzer",
        budget: (minutes(8), minutes(45)),
        needs: &[Need::Nightly(&["rust-src"]), Need::Installed("cargo-fuzz")],
        steps: fuzz::steps,
        at_once: 2,
    },
    Rung {
        name: "tsan",
        shows: "the Linux place's tests under the thread sanitizer; weakened orderings reported",
        budget: (minutes(8), minutes(20)),
        needs: &[Need::Nightly(&["rust-src"])],
        steps: tsan::steps,
        at_once: 1,
    },
    Rung {
        name: "guest",
        shows: "virtual machines: NVMe through VFIO; images with virtio-blk and NVMe, and nothing below",
        budget: (minutes(28), minutes(100)),
        needs: guest::NEEDS,
        steps: guest::steps,
        at_once: 1,
    },
    Rung {
        name: "soak",
        shows: "verified mixed I/O with faults for --hours, on files and in a guest: nothing lost, wrong, leaked",
        budget: (minutes(6), minutes(80)),
        needs: guest::NEEDS,
        steps: soak::steps,
        at_once: 1,
    },
];

/// The workspace.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}

/// Where builds go; a part of its own for each kind of build flags.
pub fn target_dir(part: &str) -> PathBuf {
    let base =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    if part.is_empty() { base } else { base.join(part) }
}
