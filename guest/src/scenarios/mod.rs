//! The scenarios. How to add one stands in the [library's text](crate).

mod bench;
mod machine;
mod nvme;
mod power_cut;
mod program;
mod vfio;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use crate::control::Host;
use crate::pci::Function;

/// Where a scenario's process leaves what it has to say.
pub const RESULT: &str = "/run/result";

/// A scenario.
pub struct Scenario {
    /// Its name, without spaces.
    pub name: &'static str,
    /// It: what it found out, or why it failed.
    pub run: fn(&mut Context) -> Result<String, String>,
}

/// What a scenario gets.
#[derive(Debug)]
pub struct Context {
    /// The host, to be asked for things.
    pub host: Host,
    /// What stands behind the scenario's name in the plan.
    pub args: Vec<String>,
}

impl Context {
    /// Controller `n`, bound to vfio-pci.
    ///
    /// # Errors
    /// It is not there, or cannot be bound.
    pub fn vfio(&self, n: u8) -> Result<Function, String> {
        let function = Function::controller(n)?;
        function.bind("vfio-pci")?;
        Ok(function)
    }

    /// Controller `n`, bound to the kernel's driver.
    ///
    /// # Errors
    /// It is not there, or cannot be bound.
    pub fn kernel(&self, n: u8) -> Result<Function, String> {
        let function = Function::controller(n)?;
        function.bind("nvme")?;
        Ok(function)
    }

    /// Sets so many huge pages of 2 MiB aside; with 0 there are none any more.
    ///
    /// # Errors
    /// There is no memory for them, or they are in use.
    pub fn huge_pages(&self, count: u32) -> Result<(), String> {
        const PAGES: &str = "/proc/sys/vm/nr_hugepages";
        let failed = |e: std::io::Error| format!("{PAGES}: {e}");
        fs::write(PAGES, count.to_string()).map_err(failed)?;
        let there = fs::read_to_string(PAGES).map_err(failed)?;
        if there.trim() == count.to_string() {
            return Ok(());
        }
        Err(format!("{} huge pages instead of {count}", there.trim()))
    }

    /// The value of the argument `NAME=VALUE`.
    #[must_use]
    pub fn arg(&self, name: &str) -> Option<&str> {
        self.args.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='))
    }
}

/// All scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { name: "sees-controllers", run: machine::sees_controllers },
    Scenario { name: "kernel-drives", run: machine::kernel_drives },
    Scenario { name: "vfio-binds", run: machine::vfio_binds },
    Scenario { name: "group-is-viable", run: machine::group_is_viable },
    Scenario { name: "binds-back", run: machine::binds_back },
    Scenario { name: "kernel-meets-failing-medium", run: machine::kernel_meets_failing_medium },
    Scenario { name: "kernel-waits-for-stalled-medium", run: machine::kernel_waits },
    Scenario { name: "host-unplugs", run: machine::host_unplugs },
    Scenario { name: "measures", run: bench::measures },
    Scenario { name: "nvme-brings-up", run: nvme::brings_up },
    Scenario { name: "nvme-verified-io", run: nvme::verified_io },
    Scenario { name: "nvme-two-rings", run: nvme::two_rings },
    Scenario { name: "nvme-shadow-doorbells", run: nvme::shadow_doorbells },
    Scenario { name: "nvme-rules-of-a-namespace", run: nvme::rules_of_a_namespace },
    Scenario { name: "nvme-refuses", run: nvme::refuses },
    Scenario { name: "nvme-idle-is-idle", run: nvme::idle_is_idle },
    Scenario { name: "nvme-failing-medium", run: nvme::failing_medium },
    Scenario { name: "nvme-stalled-medium", run: nvme::stalled_medium },
    Scenario { name: "nvme-unplugged", run: nvme::unplugged },
    Scenario { name: "nvme-soak", run: nvme::soak },
    Scenario { name: "nvme-iommu-stops", run: nvme::iommu_stops },
    Scenario { name: "power-cut-workload-of-annulus", run: nvme::power_cut },
    Scenario { name: "program-hands-over", run: program::hands_over },
    Scenario { name: "program-keeps-what-is-mounted", run: program::keeps_what_is_mounted },
    Scenario { name: "program-refuses", run: program::refuses },
    Scenario { name: "program-measures", run: program::measures },
    Scenario { name: "program-is-interrupted", run: program::is_interrupted },
    Scenario { name: "program-copies", run: program::copies },
    Scenario { name: "fails", run: machine::fails },
    Scenario { name: "vfio-opens", run: vfio::opens },
    Scenario { name: "vfio-maps", run: vfio::maps },
    Scenario { name: "vfio-meets-memory-limit", run: vfio::meets_memory_limit },
    Scenario { name: "bind-refuses-what-is-in-use", run: vfio::bind_refuses },
    Scenario { name: "vfio-releases-when-asked", run: vfio::releases_when_asked },
    Scenario { name: "power-cut-workload-of-the-kernel", run: power_cut::kernel },
];

/// The process of a scenario.
pub fn main(name: &str, args: Vec<String>) -> ExitCode {
    let result = run(name, args);
    let (code, text) = match &result {
        Ok(text) => (ExitCode::SUCCESS, text),
        Err(why) => (ExitCode::from(1), why),
    };
    match fs::write(RESULT, text) {
        Ok(()) => code,
        Err(e) => {
            println!("{RESULT}: {e}\n{text}");
            ExitCode::from(2)
        }
    }
}

fn run(name: &str, args: Vec<String>) -> Result<String, String> {
    let scenario = ALL.iter().find(|scenario| scenario.name == name);
    let scenario = scenario.ok_or("this guest has no such scenario")?;
    let host = Host::open().map_err(|e| format!("the control channel: {e}"))?;
    let mut context = Context { host, args };
    if let Some(fault) = context.arg("fault") {
        select(fault)?;
    }
    // What a panic says is on the console; its words are wanted here too.
    catch_unwind(AssertUnwindSafe(|| (scenario.run)(&mut context))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}

/// Switches a seeded fault on, by its name in `annulus::fault`.
#[cfg(annulus_faults)]
fn select(name: &str) -> Result<(), String> {
    use annulus::fault::{Fault, select};
    let fault = Fault::from_name(name).ok_or_else(|| format!("there is no fault {name}"))?;
    select(Some(fault));
    Ok(())
}

#[cfg(not(annulus_faults))]
fn select(name: &str) -> Result<(), String> {
    Err(format!("this is a build without seeded faults, and so without {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_and_different() {
        for (n, scenario) in ALL.iter().enumerate() {
            assert!(!scenario.name.is_empty() && !scenario.name.contains([' ', '=']));
            assert!(ALL[..n].iter().all(|other| other.name != scenario.name), "{}", scenario.name);
        }
    }
}
