//! The machines of the rung, and the scenarios that each runs.

use std::path::Path;

use super::machine::{Controller, Drive, Machine};
use super::power_cut;
use crate::rungs::Found;

/// A machine and what it runs, in this order.
pub struct Planned {
    /// The machine.
    pub machine: Machine,
    /// Its scenarios.
    pub scenarios: &'static [Line],
    /// Scenarios that must fail, what the failure must say, and the seconds.
    pub failing: &'static [(&'static str, &'static str, u64)],
    /// What is checked of its directory once it is off.
    pub checks: &'static [Check],
}

/// A scenario: its name and arguments, and the seconds it may take.
pub type Line = (&'static str, u64);

/// A check: its name, and what it does in the machine's directory.
pub type Check = (&'static str, fn(&Path) -> Found);

/// The block of 512 bytes that cannot be read on a failing medium.
pub const BAD: u64 = 4096;
pub const EIO: i32 = 5;

/// All machines.
pub fn all() -> Vec<Planned> {
    vec![plain(), vfio(), nvme(), program(), power_cuts(), power_cuts_of_annulus()]
}

/// No driver of ours: the machine is what the others take it for.
fn plain() -> Planned {
    let failing = Drive::file(64).fails("read", Some(BAD), EIO);
    let first = Controller::new().namespace(Drive::file(64), 512).namespace(failing, 512);
    let second = Controller::new().with("mdts", 5).namespace(Drive::null(64), 4096);
    Planned {
        machine: Machine::new("plain").controller(first).controller(second),
        scenarios: &[
            ("sees-controllers count=2", 20),
            ("kernel-drives", 30),
            ("kernel-meets-failing-medium sector=4096", 30),
            ("kernel-waits-for-stalled-medium", 60),
            ("vfio-binds", 30),
            ("group-is-viable", 20),
            ("binds-back", 30),
            ("host-unplugs controller=1", 60),
        ],
        // A rung that took these for passed would show nothing.
        failing: &[
            ("fails how=says-so", "as it was asked to", 3),
            ("fails how=panics", "panicked: as it was asked to", 3),
            ("fails how=aborts", "ended by signal 6", 3),
            ("fails how=hangs", "not done after", 3),
        ],
        checks: &[],
    }
}

/// The layer beneath a driver.
fn vfio() -> Planned {
    let first = Controller::new().namespace(Drive::null(64), 512);
    let second = Controller::new().namespace(Drive::file(64), 512);
    Planned {
        machine: Machine::new("vfio").controller(first).controller(second),
        scenarios: &[
            ("vfio-opens", 60),
            ("vfio-maps", 60),
            ("vfio-meets-memory-limit", 30),
            ("bind-refuses-what-is-in-use controller=1", 30),
            ("vfio-releases-when-asked controller=1", 60),
        ],
        failing: &[],
        checks: &[],
    }
}

/// Our driver: a controller with namespaces of both block sizes, one of them
/// failing, and small commands, so that there are requests beyond them.
fn nvme() -> Planned {
    let failing = Drive::file(64).fails("read", Some(BAD), EIO);
    let first = Controller::new()
        .with("mdts", 5)
        .namespace(Drive::file(128), 512)
        .namespace(failing, 512)
        .namespace(Drive::file(128), 4096);
    let second = Controller::new().namespace(Drive::null(64), 4096);
    Planned {
        machine: Machine::new("nvme").controller(first).controller(second),
        scenarios: &[
            ("nvme-brings-up", 30),
            ("nvme-rules-of-a-namespace", 30),
            ("nvme-verified-io nsid=1", 90),
            ("nvme-verified-io nsid=3", 90),
            ("nvme-verified-io nsid=1 sgl=no ms=200", 60),
            ("nvme-two-rings", 60),
            ("nvme-shadow-doorbells", 60),
            ("nvme-refuses", 60),
            ("nvme-idle-is-idle", 60),
            ("nvme-failing-medium nsid=2 sector=4096", 30),
            ("nvme-iommu-stops", 30),
            ("nvme-stalled-medium", 90),
            ("nvme-unplugged controller=1", 150),
        ],
        failing: &[
            ("nvme-verified-io nsid=1 fault=PartsOverlap", "bytes at", 30),
            ("nvme-verified-io nsid=3 fault=BounceNotCopied", "bytes at", 30),
            ("nvme-verified-io nsid=3 fault=SecondPageLost", "bytes at", 30),
            ("nvme-stalled-medium fault=ResetForgets", "not done after", 15),
        ],
        checks: &[],
    }
}

/// The program `annulus`, as a user types it.
fn program() -> Planned {
    let first = Controller::new().namespace(Drive::file(32), 512).namespace(Drive::file(32), 4096);
    let second = Controller::new().namespace(Drive::file(32), 512);
    Planned {
        machine: Machine::new("program").controller(first).controller(second),
        scenarios: &[
            ("program-hands-over", 30),
            ("program-keeps-what-is-mounted", 30),
            ("program-refuses", 60),
            ("program-measures completions=polled", 90),
            ("program-measures completions=interrupts", 90),
            ("program-measures completions=adaptive nsid=2", 90),
            ("program-measures completions=adaptive shadow=yes", 90),
            ("program-is-interrupted", 60),
            ("program-copies", 120),
        ],
        failing: &[],
        checks: &[],
    }
}

/// The same for our driver: as it is, and a build that leaves the flushes out.
fn power_cuts_of_annulus() -> Planned {
    let logged = || Drive::file(8).logged();
    let controller = Controller::new().namespace(logged(), 512).namespace(logged(), 512);
    Planned {
        machine: Machine::new("power-cuts-of-annulus").controller(controller),
        scenarios: &[
            ("power-cut-workload-of-annulus nsid=1", 60),
            ("power-cut-workload-of-annulus nsid=2 fault=FlushForgotten", 60),
        ],
        failing: &[],
        checks: &[
            ("every cut leaves what was flushed", |dir| power_cut::holds(&dir.join("disk0.log"))),
            ("flushes left out are caught", |dir| power_cut::caught(&dir.join("disk1.log"))),
        ],
    }
}

/// Every write and flush is recorded, and replayed up to each cut.
fn power_cuts() -> Planned {
    let logged = || Drive::file(8).logged();
    let controller = Controller::new().namespace(logged(), 512).namespace(logged(), 512);
    Planned {
        machine: Machine::new("power-cuts").controller(controller),
        scenarios: &[
            ("power-cut-workload-of-the-kernel nsid=1", 60),
            ("power-cut-workload-of-the-kernel nsid=2 flushes=no", 60),
        ],
        failing: &[],
        checks: &[
            ("every cut leaves what was flushed", |dir| power_cut::holds(&dir.join("disk0.log"))),
            ("flushes left out are caught", |dir| power_cut::caught(&dir.join("disk1.log"))),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rungs::guest::{bench, soak};

    #[test]
    fn every_scenario_is_in_a_machine_and_the_other_way_round() {
        let planned: Vec<&str> = all()
            .iter()
            .flat_map(|planned| {
                let failing = planned.failing.iter().map(|(words, ..)| words);
                planned.scenarios.iter().map(|(words, _)| words).chain(failing)
            })
            .map(|words| words.split(' ').next().unwrap_or_default())
            .collect();
        let there: Vec<&str> = annulus_guest::scenarios::ALL.iter().map(|s| s.name).collect();
        // Asked for by the benchmark and the soak, and not by a plan.
        let others = [bench::SCENARIO, soak::SCENARIO];
        for name in there.iter().filter(|name| !others.contains(name)) {
            assert!(planned.contains(name), "no machine runs {name}");
        }
        for name in planned {
            assert!(there.contains(&name), "no guest has {name}");
        }
    }
}
