//! The rung `miri`.

use super::exec::Cmd;
use super::{Step, Wishes, target_dir};

/// The machine's own kind, a 32-bit one, and a big-endian one.
const TARGETS: &[&str] = &["x86_64-unknown-linux-gnu", NARROW, SWAPPED];
const NARROW: &str = "i686-unknown-linux-gnu";
const SWAPPED: &str = "s390x-unknown-linux-gnu";

/// Of the same width and byte order as the machine's own kind, so that what
/// differs is what the interpreter is told of it (and the code chosen for it):
/// core's unit tests there, and those that drive a whole engine.
const ALSO: &str = "aarch64-unknown-linux-gnu";
const ALSO_TESTS: &[&str] = &["engine", "driven", "fixed", "review", "memory"];

/// The NVMe driver's tests that touch most of its memory. All of them, and its
/// unit tests, take an hour.
const NVME: &[&str] = &[
    "nvme::",
    "what_is_written",
    "not_coherent",
    "hostile_device",
    "stale_repeated",
    "removed_controller",
    "does_not_help",
    "may_write_for_ever",
];

/// Of these, those in which the width of an address counts, and those in which
/// the order of bytes does. How a controller is recovered is the same code on
/// data of the same shape everywhere, and takes the interpreter minutes a test.
const NVME_NARROW: &[&str] = &["nvme::", "what_is_written"];
const NVME_SWAPPED: &[&str] = &["nvme::", "what_is_written", "not_coherent", "hostile_device"];

/// The virtio driver's tests that touch most of its memory.
const VIRTIO: &[&str] = &["every_lie", "lies_do", "vectors_are", "cannot_be_reset", "not_coherent"];

/// Core's tests in which the engine itself reads memory that an SQE names. An
/// SQE carries addresses as numbers, and pointers are made of them again: their
/// provenance was exposed.
const READING: &[&str] =
    &["calls", "clocks", "held", "iopoll", "messages", "picks", "places", "tags", "waits"];
/// And those of core's unit tests.
const READING_UNITS: &str = "register::numbers";

/// Those that need a configuration or a feature of their own.
const OTHERS: &[&str] = &["loom", "nvme", "common"];

/// The options for core's other tests, as far as they are wanted.
fn tests(wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let files = std::fs::read_dir(super::root().join("core/tests"));
    let names = files.into_iter().flatten().flatten().map(|file| file.file_name());
    let mut names: Vec<_> = names
        .filter_map(|name| Some(name.to_str()?.trim_end_matches(".rs").to_owned()))
        .filter(|name| wanted(name) && !OTHERS.contains(&name.as_str()))
        .collect();
    names.sort_unstable();
    names.into_iter().flat_map(|name| ["--test".into(), name]).collect()
}

pub fn steps(wishes: &Wishes) -> Vec<Step> {
    let cases = if wishes.deep { "64" } else { "4" };
    // Clocks are the tests'. So is the memory that is leaked: they lend it to a
    // ring for ever, and core itself has none to leak.
    let miri = |args: &[&str], target: &str, provenance: &str| {
        let flags = format!("-Zmiri-{provenance}-provenance");
        Cmd::nightly(args)
            .args(["--target", target])
            .env("CARGO_TARGET_DIR", target_dir("miri"))
            .env("PROPTEST_CASES", cases)
            .env("MIRIFLAGS", flags + " -Zmiri-disable-isolation -Zmiri-ignore-leaks")
    };
    let mut steps = Vec::new();
    for target in TARGETS.iter().chain([&ALSO]) {
        let setup = miri(&["miri", "setup"], target, "strict");
        steps.push(Step::command(format!("set-up for {target}"), setup).alone());
    }
    for target in TARGETS {
        let core = ["miri", "test", "-p", "annulus", "--no-fail-fast", "--lib"];
        let tests = miri(&core, target, "strict").args(tests(|name| !READING.contains(&name)));
        let tests = tests.args(["--", "--skip", READING_UNITS]).show("test result: ok");
        steps.push(Step::command(format!("core on {target}"), tests));
        let reading = ["miri", "test", "-p", "annulus", "--no-fail-fast"];
        let reading = miri(&reading, target, "permissive");
        let reading = reading.args(self::tests(|name| READING.contains(&name)));
        let reading = reading.show("test result: ok");
        steps.push(Step::command(format!("what core reads by address on {target}"), reading));
        let units = miri(&core, target, "permissive").args(["--", READING_UNITS]);
        let units = units.show("test result: ok");
        steps.push(Step::command(format!("calls by number on {target}"), units));
        let place = ["miri", "test", "-p", "annulus-baremetal", "--no-fail-fast", "--lib"];
        let tests = miri(&place, target, "strict")
            .args(["--all-features", "--test", "machine"])
            .show("test result: ok");
        steps.push(Step::command(format!("bare metal on {target}"), tests));
        // Where windows are; the rest of PCI is safe code, and looks at
        // thousands of places where nothing is.
        let pci = miri(&["miri", "test", "-p", "annulus-baremetal"], target, "strict")
            .args(["--all-features", "--test", "pci", "--"])
            .args(["vectors_are_set", "have_their_windows", "nvme"]);
        let tests = pci.show("test result: ok");
        steps.push(Step::command(format!("PCI on {target}"), tests));
        // A driver that copies does as the engine does above.
        let nvme = miri(&core, target, "permissive").args(["--features", "nvme", "--test", "nvme"]);
        let wanted = match *target {
            NARROW => NVME_NARROW,
            SWAPPED => NVME_SWAPPED,
            _ => NVME,
        };
        let nvme = if wishes.deep { nvme } else { nvme.args(["--"]).args(wanted) };
        let cases = if wishes.deep { "8" } else { "2" };
        let nvme = nvme.env("PROPTEST_CASES", cases).show("test result: ok");
        steps.push(Step::command(format!("the NVMe driver on {target}"), nvme));
        let virtio = ["miri", "test", "-p", "annulus-baremetal", "--test", "virtio"];
        let virtio = miri(&virtio, target, "permissive");
        let virtio = if wishes.deep { virtio } else { virtio.args(["--"]).args(VIRTIO) };
        let virtio = virtio.env("PROPTEST_CASES", cases).show("test result: ok");
        steps.push(Step::command(format!("the virtio driver on {target}"), virtio));
    }
    let core = ["miri", "test", "-p", "annulus", "--no-fail-fast", "--lib"];
    let tests = miri(&core, ALSO, "strict").args(tests(|name| ALSO_TESTS.contains(&name)));
    let tests = tests.args(["--", "--skip", READING_UNITS]).show("test result: ok");
    steps.push(Step::command(format!("core's engine on {ALSO}"), tests));
    steps
}
