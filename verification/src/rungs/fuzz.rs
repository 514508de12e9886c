//! The rung `fuzz`: peers that write whatever they may.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use annulus::fault::{Fault, Kind};

use super::exec::Cmd;
use super::{Found, Step, Wishes, root, target_dir};

/// The targets, and which seeded faults each must find.
const TARGETS: &[(&str, &[Fault])] = &[
    (
        "rings",
        &[
            Fault::IndexUnchecked,
            Fault::TailUnbounded,
            Fault::HeadBelieved,
            Fault::EntryReadTwice,
            Fault::BufferRingUnmasked,
        ],
    ),
    ("nvme", &[Fault::AnswerOfOthers, Fault::BlockShiftUnchecked, Fault::StrideUnchecked]),
    ("virtio", &[Fault::UsedIdle, Fault::BlockSizeUnchecked]),
    ("pci", &[Fault::ListUnbounded]),
];

/// Seconds for each target in CI, and with `--deep`.
const SECONDS: (u64, u64) = (30, 300);

/// What the address sanitizer is told: what was freed is not kept for long, so
/// that runs that free much stay small.
const SANITIZER: &str = "quarantine_size_mb=32";

fn dir() -> PathBuf {
    root().join("verification/fuzz")
}

/// Where builds, and whatever a run finds, go.
fn out() -> PathBuf {
    target_dir("fuzz")
}

/// The machine's own kind, which cargo-fuzz builds for by name.
fn host() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn exe(target: &str) -> PathBuf {
    out().join(host()).join("release").join(target)
}

/// A target on its kept inputs: those that reach what can be reached, and those
/// that show the seeded faults.
fn run(target: &str, own: &Path, options: &[String]) -> Cmd {
    let kept = |what: &str| dir().join(what).join(target);
    Cmd::new(exe(target), &[])
        .args(options)
        .args([own.to_path_buf(), kept("corpus"), kept("shows")])
        .env("ASAN_OPTIONS", SANITIZER)
        .dir(out())
}

pub fn steps(wishes: &Wishes) -> Vec<Step> {
    let seconds = if wishes.deep { SECONDS.1 } else { SECONDS.0 };
    let wanted = |target: &str| wishes.rest.is_empty() || wishes.rest.iter().any(|w| w == target);
    let format = Cmd::cargo(&["fmt", "--check"]).dir(dir());
    let mut steps = vec![
        Step::command("formatting of the targets", format).alone(),
        Step::command("build with the address sanitizer", build()).alone(),
        Step::check("each seeded fault is some target's to find", |_| listed()),
    ];
    for (target, _) in TARGETS.iter().filter(|(target, _)| wanted(target)) {
        let own = out().join("found").join(target);
        let artifacts = format!("-artifact_prefix={}/", out().join("found").display());
        // In CI the same inputs each time, so that what it says is about the
        // commit; with `--deep` it goes where it was not yet.
        let seed = u32::from(!wishes.deep);
        let options = [
            format!("-seed={seed}"),
            format!("-max_total_time={seconds}"),
            "-timeout=20".into(),
            "-print_final_stats=1".into(),
            artifacts,
        ];
        // Made before the steps run: they run side by side.
        if let Err(e) = fs::create_dir_all(&own) {
            let why = format!("{}: {e}", own.display());
            steps.push(Step::check(format!("{target}: a place for what is found"), |_| Err(why)));
            continue;
        }
        let fuzz = run(target, &own, &options).show("stat::number_of").show("Done");
        steps.push(Step::command(format!("{target}: {seconds} s from the kept corpus"), fuzz));
    }
    for (target, faults) in TARGETS.iter().filter(|(target, _)| wanted(target)) {
        for &fault in *faults {
            let name = format!("{target}: {} is found", fault.name());
            steps.push(Step::check(name, move |left| finds(target, fault, left)));
        }
    }
    steps
}

fn build() -> Cmd {
    // The faults do nothing while none is switched on, so one build does.
    let flags = format!("{} --cfg annulus_faults", std::env::var("RUSTFLAGS").unwrap_or_default());
    Cmd::nightly(&["fuzz", "build", "--fuzz-dir", ".", "--target", &host()])
        .env("RUSTFLAGS", flags.trim())
        .env("CARGO_TARGET_DIR", out())
        .dir(dir())
}

/// No fault of this kind is forgotten.
fn listed() -> Found {
    let kind = |fault: &&Fault| fault.kind() == Kind::Peer;
    let seeded = Fault::ALL.iter().filter(kind);
    let forgotten = |fault: &&Fault| !TARGETS.iter().any(|(_, faults)| faults.contains(fault));
    match seeded.clone().find(forgotten) {
        Some(fault) => Err(format!("{} is in no target's list", fault.name())),
        None => Ok(format!("    {} seeded faults\n", seeded.count())),
    }
}

/// With the fault switched on, the kept inputs must show it.
fn finds(target: &str, fault: Fault, left: Duration) -> Found {
    let none = out().join("none");
    fs::create_dir_all(&none).map_err(|e| format!("{}: {e}", none.display()))?;
    let log = target_dir("verify").join("logs").join(format!("fuzz-{}.log", fault.name()));
    let artifacts = format!("-artifact_prefix={}/", none.display());
    let options = ["-runs=0".into(), "-timeout=20".into(), artifacts];
    let ran = run(target, &none, &options).env("ANNULUS_FAULT", fault.name()).run(&log, left);
    let said = fs::read_to_string(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let why = |line: &&str| ["panicked at", "ERROR: "].iter().any(|sign| line.contains(sign));
    match (ran, said.lines().find(why)) {
        (Err(_), Some(why)) => Ok(format!("    {}\n    {why}\n", fault.describe())),
        (Err(why), None) => Err(why),
        (Ok(_), _) => Err(format!(
            "{}\n    NOT FOUND: no kept input of {target} shows it\n",
            fault.describe()
        )),
    }
}
