//! The rung *miri*: core's tests in Rust's interpreter, on the host's
//! architecture, on a 32-bit one and on a big-endian one.

use super::Context;
use super::setup::Need;
use super::step::{Show, Step};

pub const NEEDS: &[Need] = &[
    Need::Component { toolchain: "nightly", name: "miri" },
    Need::Component { toolchain: "nightly", name: "rust-src" },
];

const TARGETS: [&str; 3] =
    ["x86_64-unknown-linux-gnu", "i686-unknown-linux-gnu", "s390x-unknown-linux-gnu"];

pub fn steps(context: &Context) -> Vec<Step> {
    let seeds = if context.deep { "-Zmiri-many-seeds=0..16" } else { "" };
    TARGETS
        .iter()
        .map(|target| {
            Step::cargo(
                format!("core under Miri on {target}"),
                &format!("+nightly miri test -p annulus --lib --tests --target {target}"),
            )
            // The rigs' memory is leaked on purpose: a ring's `'static`.
            .env(
                "MIRIFLAGS",
                format!(
                    "-Zmiri-strict-provenance -Zmiri-ignore-leaks -Zmiri-disable-isolation {seeds}"
                ),
            )
            .env("PROPTEST_CASES", "8")
            .env("CARGO_TARGET_DIR", context.work.join("miri"))
            .show(Show::Lines(&["test result"]))
        })
        .collect()
}
