//! The rung `tsan`: the Linux place's tests under the thread sanitizer, which
//! sees what real threads do to memory, the standard library's included.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use annulus::fault::Fault;

use super::exec::Cmd;
use super::{Found, Step, Wishes, target_dir};

/// Orderings that it must report when they are weakened.
const FAULTS: &[Fault] = &[
    Fault::SqTailRelaxed,
    Fault::CqTailRelaxed,
    Fault::ClaimReleaseRelaxed,
    Fault::MailPostRelaxed,
];

/// What it prints.
const REPORT: &str = "WARNING: ThreadSanitizer";

/// A process that forks goes on to make threads, here: a child has its own
/// ring, with its own threads, which is what one of the tests shows.
const OPTIONS: &str = "die_after_fork=0 halt_on_error=0";

fn logs() -> PathBuf {
    target_dir("verify").join("logs")
}

fn test(args: &[&str]) -> Cmd {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    // The faults do nothing while none is switched on, so one build does. By
    // system calls of rustix's own the sanitizer would not see that memory is
    // unmapped, and take its next owner for a thief.
    let flags = format!("{flags} -Zsanitizer=thread --cfg annulus_faults --cfg rustix_use_libc");
    Cmd::nightly(&["test", "-p", "annulus-linux", "-Zbuild-std", "--target", &host])
        .args(args)
        .env("RUSTFLAGS", flags.trim())
        .env("TSAN_OPTIONS", OPTIONS)
        .env("CARGO_TARGET_DIR", target_dir("tsan"))
}

pub fn steps(_: &Wishes) -> Vec<Step> {
    let tests = ["--no-fail-fast", "--lib", "--tests"];
    let build = test(&tests).args(["--no-run"]);
    let run = test(&tests).show("test result: ok");
    let mut steps = vec![
        Step::command("build with the standard library", build),
        Step::command("the Linux place's tests, without a report", run),
    ];
    for &fault in FAULTS {
        let name = format!("{} is reported", fault.name());
        steps.push(Step::check(name, move |left| reports(fault, left)));
    }
    steps
}

fn reports(fault: Fault, left: Duration) -> Found {
    let log = logs().join(format!("tsan-{}.log", fault.name()));
    let weakened = test(&["--test", "weakened"]).env("ANNULUS_FAULT", fault.name());
    let ran = weakened.run(&log, left);
    let said = fs::read_to_string(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    match said.lines().find(|line| line.starts_with(REPORT)) {
        Some(line) => Ok(format!("    {}\n    {line}\n", fault.describe())),
        None => Err(format!(
            "{}\n    NOT REPORTED; {}\n",
            fault.describe(),
            ran.map_or_else(|why| why, |_| format!("the log is {}", log.display()))
        )),
    }
}
