//! The rung `miri`.

use super::exec::Cmd;
use super::{Step, Wishes, target_dir};

/// The machine's own kind, a 32-bit one, and a big-endian one.
const TARGETS: &[&str] =
    &["x86_64-unknown-linux-gnu", "i686-unknown-linux-gnu", "s390x-unknown-linux-gnu"];

pub fn steps(wishes: &Wishes) -> Vec<Step> {
    let cases = if wishes.deep { "64" } else { "4" };
    let miri = |args: &[&str], target: &str| {
        Cmd::nightly(args)
            .args(["--target", target])
            .env("CARGO_TARGET_DIR", target_dir("miri"))
            .env("PROPTEST_CASES", cases)
            // Clocks are the tests'. So is the memory that is leaked: they lend
            // it to a ring for ever, and core itself has none to leak.
            .env(
                "MIRIFLAGS",
                "-Zmiri-strict-provenance -Zmiri-disable-isolation -Zmiri-ignore-leaks",
            )
    };
    let mut steps = Vec::new();
    for target in TARGETS {
        steps.push(Step::command(format!("set-up for {target}"), miri(&["miri", "setup"], target)));
        let test =
            miri(&["miri", "test", "-p", "annulus", "--lib", "--tests", "--no-fail-fast"], target);
        steps.push(Step::command(format!("core on {target}"), test.show("test result: ok")));
    }
    steps
}
