//! One run of a benchmark: random reads of 4 KiB through one driver.

use std::fs;
use std::process::Command;

use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value;

use super::Context;
use crate::init::ANNULUS;
use crate::pci::Function;

/// The program that asks the kernel's driver, through its io_uring.
const FIO: &str = "/bin/fio";

/// What the run is with.
struct Run {
    depth: u64,
    /// Completions to wait for at once.
    wait: u64,
    seconds: u64,
    /// More words for the program's command line.
    more: Vec<String>,
}

/// What a program says that it has done.
#[derive(Debug, PartialEq)]
struct Figures {
    iops: f64,
    /// How many reads, if it says so.
    reads: Option<u64>,
}

/// Runs a benchmark on controller 0 and says how many reads a second it did.
///
/// Arguments: `driver=kernel` (as it comes), `kernel-strongest` or `annulus`;
/// `depth=N`, `seconds=N`, `wait=N` (completions to wait for at once, if the
/// depth allows), and `with=WORD,WORD` for the program. The load is
/// on processor 0; the medium's count must bear the program out.
pub fn measures(context: &mut Context) -> Result<String, String> {
    let number = |name: &str| {
        let value = context.arg(name).and_then(|value| value.parse::<u64>().ok());
        value.ok_or_else(|| format!("the argument {name} is missing"))
    };
    let more = context.arg("with").map(|with| with.split(',').map(String::from).collect());
    let run = Run {
        depth: number("depth")?,
        wait: context.arg("wait").map_or(Ok(1), |_| number("wait"))?,
        seconds: number("seconds")?,
        more: more.unwrap_or_default(),
    };
    let function = Function::controller(0)?;
    let command = match context.arg("driver") {
        // The IOMMU translates, completions interrupt.
        Some("kernel") => {
            hand_to_kernel(&function, "auto", 0)?;
            fio(&function, &run, &[])?
        }
        // Nothing is translated, completions are polled for, registered
        // files and buffers, 16 at once, and few looks at the clock.
        Some("kernel-strongest") => {
            hand_to_kernel(&function, "identity", 1)?;
            let strongest = [
                "--gtod_reduce=1",
                "--hipri",
                "--registerfiles",
                "--fixedbufs",
                "--iodepth_batch_submit=16",
                "--iodepth_batch_complete_max=16",
            ];
            fio(&function, &run, &strongest)?
        }
        Some("annulus") => {
            function.bind("vfio-pci")?;
            annulus(&function, &run)
        }
        other => return Err(format!("there is no driver {other:?}")),
    };
    exact_clock()?;
    pin()?;
    let before = context.host.stats("ns0")?;
    let figures = figures(command)?;
    let after = context.host.stats("ns0")?;
    let counted = after.reads.saturating_sub(before.reads);
    borne_out(&figures, counted, run.seconds)?;
    Ok(format!("{:.0} IOPS, {counted} reads counted below the controller", figures.iops))
}

/// Has the kernel's driver take the controller with these settings, which it
/// looks at then and never again.
fn hand_to_kernel(function: &Function, domain: &str, poll_queues: u32) -> Result<(), String> {
    const POLL_QUEUES: &str = "/sys/module/nvme/parameters/poll_queues";
    function.unbind()?;
    let kind = function.path().join("iommu_group/type");
    fs::write(&kind, domain).map_err(|e| format!("{}: {e}", kind.display()))?;
    fs::write(POLL_QUEUES, poll_queues.to_string()).map_err(|e| format!("{POLL_QUEUES}: {e}"))?;
    function.bind("nvme")
}

fn fio(function: &Function, run: &Run, settings: &[&str]) -> Result<Command, String> {
    let device = function.block_device(1)?;
    let mut command = Command::new(FIO);
    command.args(["--name=reads", "--output-format=json", "--thread", "--ioengine=io_uring"]);
    command.args(["--direct=1", "--rw=randread", "--bs=4k", "--norandommap", "--time_based"]);
    command.arg(format!("--filename={}", device.display()));
    command.arg(format!("--iodepth={}", run.depth));
    command.arg(format!("--iodepth_batch_complete_min={}", run.wait.min(run.depth)));
    command.arg(format!("--runtime={}", run.seconds));
    command.args(settings).args(&run.more);
    Ok(command)
}

fn annulus(function: &Function, run: &Run) -> Command {
    let mut command = Command::new(ANNULUS);
    command.args(["bench", "--vfio", &function.address, "--rw", "randread", "--bs", "4k"]);
    command.args(["--depth", &run.depth.to_string(), "--time", &run.seconds.to_string()]);
    command.args(["--wait", &run.wait.min(run.depth).to_string()]);
    command.arg("--json").args(&run.more);
    command
}

/// Every other clock is a device here, and asking it takes longer than a read.
fn exact_clock() -> Result<(), String> {
    const CLOCK: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    match fs::read_to_string(CLOCK).map_err(|e| format!("{CLOCK}: {e}"))?.trim() {
        "tsc" => Ok(()),
        other => Err(format!("the guest's clock is {other}, not tsc: the figures would be its")),
    }
}

/// The load is this thread's children: they inherit its processor.
fn pin() -> Result<(), String> {
    let mut first = CpuSet::new();
    first.set(0);
    sched_setaffinity(None, &first).map_err(|e| format!("cannot be put on processor 0: {e}"))
}

/// Runs the program, and what it says of itself.
fn figures(mut command: Command) -> Result<Figures, String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}\n{said}{why}", output.status));
    }
    fio_figures(&said)
        .or_else(|| annulus_figures(&said))
        .ok_or_else(|| format!("{command:?} says no figures: {said}"))
}

/// fio says one object, with text before it when it warns.
fn fio_figures(said: &str) -> Option<Figures> {
    let object: Value = serde_json::from_str(&said[said.find("{\n")?..]).ok()?;
    let read = &object["jobs"][0]["read"];
    let reads = read["total_ios"].as_u64();
    Some(Figures { iops: read["iops"].as_f64()?, reads })
}

/// Our own program says an object a line; the last counts.
fn annulus_figures(said: &str) -> Option<Figures> {
    let parsed = |line: &str| serde_json::from_str::<Value>(line).ok();
    let mut objects = said.lines().rev().filter_map(parsed);
    let last = objects.find(|object| object["iops"].is_number())?;
    Some(Figures { iops: last["iops"].as_f64()?, reads: last["ops"].as_u64() })
}

/// The medium must have done what the program says: a driver that answers
/// without asking would be fast. It may have done more: what warms a program
/// up, and the kernel's look for partitions, are not in its figures.
fn borne_out(figures: &Figures, counted: u64, seconds: u64) -> Result<(), String> {
    // Without a count the time is only nearly what was asked for.
    let least = match figures.reads {
        Some(reads) => reads as f64 * 0.99,
        None => figures.iops * seconds as f64 * 0.9,
    };
    if (counted as f64) < least {
        return Err(format!(
            "the medium has done {counted} reads, and the program says at least {least:.0}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_what_programs_say() {
        let fio =
            "fio: a warning\n{\n \"jobs\": [{\"read\": {\"iops\": 1.5, \"total_ios\": 6}}]}\n";
        assert_eq!(fio_figures(fio), Some(Figures { iops: 1.5, reads: Some(6) }));
        assert_eq!(annulus_figures(fio), None);
        let annulus = "{\"note\": 1}\n{\"iops\": 4, \"ops\": 16}\n{\"iops\": 5}\n";
        assert_eq!(annulus_figures(annulus), Some(Figures { iops: 5.0, reads: None }));
        assert_eq!(fio_figures(annulus), None);
        assert_eq!(annulus_figures("annulus: no such device"), None);
    }

    #[test]
    fn a_count_that_is_not_the_medium_s_is_refused() {
        let figures = |reads| Figures { iops: 10_000.0, reads };
        for (reads, counted, right) in [
            (Some(40_000), 41_900, true),
            (Some(40_000), 39_700, true),
            (Some(40_000), 20_000, false),
            (None, 41_000, true),
            (None, 0, false),
        ] {
            assert_eq!(borne_out(&figures(reads), counted, 4).is_ok(), right, "{counted}");
        }
    }
}
