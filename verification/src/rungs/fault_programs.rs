//! Seeded engine faults: with each switched on, the comparison must find a
//! difference.

use std::path::PathBuf;
use std::time::Duration;

use annulus::fault::{Fault, Kind};

use super::exec::Cmd;
use super::programs::{Outcome, outcome};
use super::{Found, Step, Wishes, target_dir};

/// Within so many programs each fault must show.
const WITHIN: u64 = 3_000;
/// At least so many faults there must be.
const FAULTS: usize = 20;

/// Where the build with the faults goes.
fn dir() -> PathBuf {
    target_dir("faults")
}

/// The program that has the faults.
pub fn exe() -> PathBuf {
    dir().join("release/annulus-verification")
}

/// Builds it.
pub fn build(left: Duration) -> Found {
    let logs = target_dir("verify");
    std::fs::create_dir_all(&logs).map_err(|e| format!("{}: {e}", logs.display()))?;
    let flags = format!("{} --cfg annulus_faults", std::env::var("RUSTFLAGS").unwrap_or_default());
    Cmd::cargo(&["build", "--release", "-p", "annulus-verification"])
        .env("RUSTFLAGS", flags.trim())
        .env("CARGO_TARGET_DIR", dir())
        .run(&logs.join("faults.log"), left)
}

/// The program for what somebody asks for: with the faults, built for it, if that
/// names one.
pub fn exe_for(args: &[String], left: Duration) -> Result<PathBuf, String> {
    if args.iter().any(|arg| arg == "--fault") {
        build(left)?;
        return Ok(exe());
    }
    super::kernel::exe()
}

pub fn steps(_: &Wishes) -> Vec<Step> {
    let engine = |fault: &Fault| matches!(fault.kind(), Kind::Engine | Kind::Held | Kind::Pair);
    let faults: Vec<Fault> = Fault::ALL.iter().copied().filter(engine).collect();
    let (count, names) = (faults.len(), faults.clone());
    let mut steps = vec![
        Step::check("build with seeded engine faults", build),
        Step::check(format!("there are {count} seeded engine faults"), move |_| match count {
            0..FAULTS => Err(format!("there must be {FAULTS}")),
            _ => Ok(String::new()),
        }),
        Step::check("without a fault that build finds nothing", |left| {
            let child = start(None, 90)?;
            match outcome(child, left) {
                Outcome::Same(_) => Ok(String::new()),
                Outcome::Different { what, report, .. } => Err(format!("{report}\n{what}")),
            }
        }),
    ];
    for fault in names {
        let name = format!("fault {} is caught", fault.name());
        steps.push(Step::check(name, move |left| caught(fault, left)));
    }
    steps
}

fn start(fault: Option<Fault>, count: u64) -> Result<std::process::Child, String> {
    let count = count.to_string();
    let mut cmd = Cmd::new(exe(), &["programs", "--no-shrink", "--seed", "5", "--count", &count]);
    match fault.map(Fault::kind) {
        Some(Kind::Held) => cmd = cmd.args(["--held", "--mode", "inline"]),
        Some(Kind::Pair) => cmd = cmd.args(["--pair", "--mode", "inline"]),
        _ => {}
    }
    if let Some(fault) = fault {
        cmd = cmd.args(["--fault", fault.name(), "--patience", "1"]);
    }
    cmd.start().map_err(|e| format!("{}: {e}", cmd.line()))
}

fn caught(fault: Fault, left: Duration) -> Found {
    let child = start(Some(fault), WITHIN)?;
    match outcome(child, left) {
        Outcome::Different { program: Some(k), what, .. } => {
            Ok(format!("    {}\n    caught at program {k}: {what}", fault.describe()))
        }
        Outcome::Different { program: None, what, report } => Err(format!("{report}\n{what}")),
        Outcome::Same(_) => Err(format!(
            "{}\n    NOT CAUGHT by {WITHIN} programs: the generator does not reach it, or it \
             changes nothing",
            fault.describe()
        )),
    }
}
